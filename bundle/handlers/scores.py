"""Scores of an evaluation at native size, written to the engine's metrics."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from bundle.datasets.items import UNKNOWN_GRADE
from bundle.files import write_json_whole
from bundle.labels import LESIONS
from bundle.manifest import Manifest, Photograph
from bundle.metrics.grade_sets import set_intervals, set_scores
from bundle.metrics.grading import grading_intervals, grading_scores
from bundle.metrics.lesions import LesionScores
from bundle.transforms import class_names, fuse_outlines, load_masks, to_native
from ignite.engine import Engine, Events

T = TypeVar("T")


def graded_images(batch: Mapping[str, Any], ids: Collection[str]) -> list[tuple[int, int]]:
    """Return the index in the batch and the true grade of each image that is among ``ids`` and has a grade.

    Example:
        >>> graded_images({"id": ["7", "8", "9"], "grade": np.array([2, UNKNOWN_GRADE, 0])}, ids={"7", "8"})
        [(0, 2)]
    """
    images = enumerate(zip(batch["id"], batch["grade"].tolist(), strict=True))
    return [(index, grade) for index, (name, grade) in images if name in ids and grade != UNKNOWN_GRADE]


class Scorer(ABC):
    """Base class that collects predictions batch by batch and writes scores to the engine's metrics at the end."""

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.compute)

    @abstractmethod
    def reset(self) -> None:
        """Forget the images of an earlier evaluation."""

    @abstractmethod
    def update(self, engine: Engine) -> None:
        """Add the images of a batch."""

    @abstractmethod
    def compute(self, engine: Engine) -> None:
        """Write the scores to ``engine.state.metrics``."""

    @abstractmethod
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return 95 % bootstrap intervals over the patients, or images of unknown patients, of the last evaluation."""


class ScoreLesions(Scorer):
    """Scorer of lesion probabilities against the outlines, at native size (see :class:`LesionScores`).

    Args:
        manifest: manifest with the outlines.
        rows: the photographs that count; others in the same evaluation are ignored.
        fuse: the network has one class for all lesions. The ground truth is the plain union of the outlines; a
            photograph on which a lesion was not annotated has none, and is ignored too.
        shapes: also score components, candidates and borders, which takes about half a second per native photograph.
        thresholds: thresholds by which lesions are decided; None: the most probable class decides.

    Raises:
        ValueError: if there is not one threshold in (0, 1] per class.
    """

    def __init__(
        self,
        manifest: Manifest,
        rows: Sequence[Photograph],
        fuse: bool = False,
        shapes: bool = False,
        thresholds: Sequence[float] | None = None,
    ) -> None:
        self.manifest, self.fuse, self.shapes, self.thresholds = manifest, fuse, shapes, thresholds
        self.rows = {row.id: row for row in rows if not fuse or set(row.annotated) == set(LESIONS)}
        self.reset()

    def reset(self) -> None:
        """Forget the images of an earlier evaluation."""
        self.scores = LesionScores(class_names(self.fuse), self.shapes, self.thresholds)

    def update(self, engine: Engine) -> None:
        """Add the images of a batch."""
        batch, output = engine.state.batch, engine.state.output
        for index, name in enumerate(batch["id"]):
            photograph = self.rows.get(name)
            if photograph is None:
                continue
            native = to_native(output["lesions"][index].cpu(), batch["geometry"][index])
            paths = {lesion: self.manifest.path(path) for lesion, path in photograph.masks.items()}
            outlines = load_masks(paths, photograph.width_px, photograph.height_px)
            if self.fuse:
                self.scores.update(native, fuse_outlines(outlines), patient=photograph.patient)
            else:
                self.scores.update(native, outlines, photograph.annotated, photograph.patient)

    def compute(self, engine: Engine) -> None:
        """Write the scores to ``engine.state.metrics``."""
        if self.rows:
            engine.state.metrics.update(self.scores.compute())

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return 95 % bootstrap intervals over the patients, or images of unknown patients, of the last evaluation."""
        return self.scores.intervals() if self.rows else {}


class ScoreGrades(Scorer):
    """Scorer of grade probabilities on photographs of known true grade.

    Args:
        ids: the photographs that count.
        training_grades: grades of the training photographs; the most frequent one is a trivial prediction.
        task: first part of the keys; two sets of photographs need different ones.
        taught_grades: grades that at least one training label may have; None if unknown.
        patient_of: patient of each photograph, where it is known, for the intervals.
        set_quantiles: limits of the sets of likely grades, which are then scored too (:func:`set_scores`), or None.

    Example:
        >>> import torch
        >>> engine = Engine(lambda engine, batch: {"grade": torch.eye(5)[[2, 2, 2]]})
        >>> ScoreGrades(ids=["1", "2"]).attach(engine)
        >>> engine.run([{"id": ["1", "2", "3"], "grade": torch.tensor([2, 0, 0])}]).metrics["grade/accuracy"]
        0.5
    """

    def __init__(
        self,
        ids: Sequence[str],
        training_grades: Sequence[int] | None = None,
        task: str = "grade",
        taught_grades: Sequence[int] | None = None,
        patient_of: Mapping[str, str] | None = None,
        set_quantiles: Sequence[float] | None = None,
    ) -> None:
        self.ids, self.training_grades, self.task = set(ids), training_grades, task
        self.taught_grades, self.patient_of = taught_grades, dict(patient_of or {})
        self.set_quantiles = set_quantiles
        self.reset()

    def reset(self) -> None:
        """Forget the images of an earlier evaluation."""
        self.probabilities: list[np.ndarray] = []
        self.grades: list[int] = []
        self.patients: list[str | None] = []

    def update(self, engine: Engine) -> None:
        """Add the images of a batch."""
        probabilities_N5 = engine.state.output["grade"].cpu().numpy()
        for index, grade in graded_images(engine.state.batch, self.ids):
            self.probabilities.append(probabilities_N5[index])
            self.grades.append(grade)
            self.patients.append(self.patient_of.get(engine.state.batch["id"][index]))

    def compute(self, engine: Engine) -> None:
        """Write the scores to ``engine.state.metrics``."""
        if self.grades:
            scores = grading_scores(*self.arrays(), self.training_grades, self.taught_grades)
            if self.set_quantiles is not None:
                scores |= set_scores(*self.arrays(), self.set_quantiles)
            engine.state.metrics.update(self._with_task(scores))

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return 95 % bootstrap intervals over the patients, or images of unknown patients, of the last evaluation."""
        if not self.grades:
            return {}
        intervals = grading_intervals(*self.arrays(), patients=self.patients)
        if self.set_quantiles is not None:
            intervals |= set_intervals(*self.arrays(), self.set_quantiles, patients=self.patients)
        return self._with_task(intervals)

    def _with_task(self, scores: Mapping[str, T]) -> dict[str, T]:
        return {f"{self.task}/{key.removeprefix('grade/')}": value for key, value in scores.items()}

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities ``(N, 5)`` and true grades ``(N,)`` of the last evaluation."""
        return np.stack(self.probabilities), np.array(self.grades)


class WriteScores:
    """Handler that writes scores, intervals and their origin to one JSON file when the evaluation has finished.

    Args:
        path: the file.
        facts: origin of the scores: subsets, counts, manifest, weights.
        scorers: scorers whose intervals are written.

    Example:
        >>> import tempfile
        >>> from bundle.files import load_json
        >>> engine = Engine(lambda engine, batch: None)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     WriteScores(f"{folder}/metrics.json", {"subset": {"grade": "test"}}, scorers=[]).attach(engine)
        ...     _ = engine.run([0])
        ...     load_json(f"{folder}/metrics.json")
        {'subset': {'grade': 'test'}, 'scores': {}, 'intervals': {}}
    """

    def __init__(self, path: str, facts: Mapping[str, Any], scorers: Sequence[Scorer]) -> None:
        self.path, self.facts, self.scorers = path, dict(facts), list(scorers)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        intervals = {key: pair for scorer in self.scorers for key, pair in scorer.intervals().items()}
        content = {**self.facts, "scores": dict(engine.state.metrics), "intervals": intervals}
        write_json_whole(self.path, content)
