"""Scores of an evaluation at native size, written to the engine's metrics."""

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from bundle.datasets.items import NO_VALUE, UNKNOWN_GRADE
from bundle.files import write_json_whole
from bundle.labels import LESIONS
from bundle.manifest import Manifest, Photograph
from bundle.metrics.grade_sets import set_intervals, set_scores
from bundle.metrics.grading import grading_intervals, grading_scores
from bundle.metrics.lesions import LesionScores
from bundle.transforms import class_names, fuse_outlines, load_masks, to_native
from ignite.engine import Engine, Events

T = TypeVar("T")


class GroupScores(NamedTuple):
    """Scores of the photographs of one group, those with one value of a column.

    Attributes:
        task: first part of the keys.
        photographs: number of photographs that were scored.
        scores: scores by key.
        intervals: 95 % bootstrap intervals by key, over the patients or photographs of the group.
    """

    task: str
    photographs: int
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]


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

    def groups(self) -> dict[str, GroupScores]:
        """Return the scores of each group that the last evaluation had photographs of; none without groups."""
        return {}


class ScoreLesions(Scorer):
    """Scorer of lesion probabilities against the outlines, at native size (see :class:`LesionScores`).

    Args:
        manifest: manifest with the outlines.
        rows: the photographs that count; others in the same evaluation are ignored.
        fuse: the network has one class for all lesions. The ground truth is the plain union of the outlines; a
            photograph on which a lesion was not annotated has none, and is ignored too.
        shapes: also score components, candidates and borders, which takes about half a second per native photograph.
        thresholds: thresholds by which lesions are decided; None: the most probable class decides.
        group_of: group of each photograph that is in one; each group is scored alone too.

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
        group_of: Mapping[str, str] | None = None,
    ) -> None:
        self.manifest, self.fuse, self.shapes, self.thresholds = manifest, fuse, shapes, thresholds
        self.rows = {row.id: row for row in rows if not fuse or set(row.annotated) == set(LESIONS)}
        self.group_of = {name: group for name, group in (group_of or {}).items() if name in self.rows}
        self.reset()

    def reset(self) -> None:
        """Forget the images of an earlier evaluation."""
        self.scores = self._nothing_scored()
        self.by_group = {group: self._nothing_scored() for group in set(self.group_of.values())}

    def _nothing_scored(self) -> LesionScores:
        return LesionScores(class_names(self.fuse), self.shapes, self.thresholds)

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
            annotated: Sequence[str] | None = photograph.annotated
            if self.fuse:
                outlines, annotated = fuse_outlines(outlines), None
            counts = self.scores.count(native, outlines, annotated, photograph.patient)
            self.scores.add(counts)
            if name in self.group_of:
                self.by_group[self.group_of[name]].add(counts)

    def compute(self, engine: Engine) -> None:
        """Write the scores to ``engine.state.metrics``."""
        if self.rows:
            engine.state.metrics.update(self.scores.compute())

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return 95 % bootstrap intervals over the patients, or images of unknown patients, of the last evaluation."""
        return self.scores.intervals() if self.rows else {}

    def groups(self) -> dict[str, GroupScores]:
        """Return the scores of each group; without those that the last evaluation had no photograph of."""
        return {
            group: GroupScores("lesions", scores.photographs, scores.compute(), scores.intervals())
            for group, scores in self.by_group.items()
            if scores.photographs
        }


class ScoreGrades(Scorer):
    """Scorer of grade probabilities on photographs of known true grade.

    Args:
        ids: the photographs that count.
        training_grades: grades of the training photographs; the most frequent one is a trivial prediction.
        task: first part of the keys; two sets of photographs need different ones.
        taught_grades: grades that at least one training label may have; None if unknown.
        patient_of: patient of each photograph, where it is known, for the intervals.
        group_of: group of each photograph that is in one; each group is scored alone too.
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
        group_of: Mapping[str, str] | None = None,
        set_quantiles: Sequence[float] | None = None,
    ) -> None:
        self.ids, self.training_grades, self.task = set(ids), training_grades, task
        self.taught_grades, self.patient_of, self.group_of = taught_grades, dict(patient_of or {}), dict(group_of or {})
        self.set_quantiles = set_quantiles
        self.reset()

    def reset(self) -> None:
        """Forget the images of an earlier evaluation."""
        self.probabilities: list[np.ndarray] = []
        self.grades: list[int] = []
        self.patients: list[str | None] = []
        self.groups_N: list[str | None] = []

    def update(self, engine: Engine) -> None:
        """Add the images of a batch."""
        probabilities_N5 = engine.state.output["grade"].cpu().numpy()
        for index, grade in graded_images(engine.state.batch, self.ids):
            self.probabilities.append(probabilities_N5[index])
            self.grades.append(grade)
            name = engine.state.batch["id"][index]
            self.patients.append(self.patient_of.get(name))
            self.groups_N.append(self.group_of.get(name))

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

    def groups(self) -> dict[str, GroupScores]:
        """Return the scores of each group; without those that the last evaluation had no photograph of."""
        members: dict[str, list[int]] = defaultdict(list)
        for index, group in enumerate(self.groups_N):
            if group is not None:
                members[group].append(index)
        return {group: self._group_scores(indices) for group, indices in members.items()}

    def _group_scores(self, indices: Sequence[int]) -> GroupScores:
        probabilities, grades = (array[list(indices)] for array in self.arrays())
        scores = grading_scores(probabilities, grades, self.training_grades, self.taught_grades)
        intervals = grading_intervals(probabilities, grades, patients=[self.patients[index] for index in indices])
        return GroupScores(self.task, len(indices), self._with_task(scores), self._with_task(intervals))

    def _with_task(self, scores: Mapping[str, T]) -> dict[str, T]:
        return {f"{self.task}/{key.removeprefix('grade/')}": value for key, value in scores.items()}

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities ``(N, 5)`` and true grades ``(N,)`` of the last evaluation."""
        return np.stack(self.probabilities), np.array(self.grades)


class WriteScores:
    """Handler that writes scores, intervals and their origin to one JSON file when the evaluation has finished.

    The scores of groups are under ``groups``, by the value of the column that made the groups. They also become metrics
    of the engine, as ``<task>/<column> <value>/<score>`` (:func:`metric_parts`).

    Args:
        path: the file.
        facts: origin of the scores: subsets, counts, manifest, weights.
        scorers: scorers whose intervals and groups are written.
        column: name of the column that made the groups; None if there are none.

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

    def __init__(
        self, path: str, facts: Mapping[str, Any], scorers: Sequence[Scorer], column: str | None = None
    ) -> None:
        self.path, self.facts, self.scorers, self.column = path, dict(facts), list(scorers), column

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        intervals = {key: pair for scorer in self.scorers for key, pair in scorer.intervals().items()}
        content = {**self.facts, "scores": dict(engine.state.metrics), "intervals": intervals}
        if self.column is not None:
            by_value = self._by_value()
            content["groups"] = {"column": self.column, "values": by_value}
            engine.state.metrics.update(_as_metrics(self.column, by_value))
        write_json_whole(self.path, content)

    def _by_value(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Map each value to the numbers of its photographs by task, and to their scores and intervals by key."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for value, scored in ((value, scored) for scorer in self.scorers for value, scored in scorer.groups().items()):
            of_value = found.setdefault(value, {"counts": {}, "scores": {}, "intervals": {}})
            of_value["counts"][scored.task] = scored.photographs
            of_value["scores"] |= scored.scores
            of_value["intervals"] |= scored.intervals
        return dict(sorted(found.items(), key=lambda one: (one[0] == NO_VALUE, one[0])))


def _as_metrics(column: str, by_value: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """Name the scores of all values so that they can stand beside those of all photographs."""
    parts = metric_parts(column, by_value)
    return {
        key.replace("/", f"/{parts[value]}/", 1): score
        for value, found in by_value.items()
        for key, score in found["scores"].items()
    }


def metric_parts(column: str, values: Iterable[str]) -> dict[str, str]:
    """Map each value of a column to a part of the names of its metrics, in which MLflow takes no other characters.

    Example:
        >>> metric_parts("camera", ["Topcon", "N/A", "N:A"])
        {'Topcon': 'camera Topcon', 'N/A': 'camera N_A', 'N:A': 'camera N_A 2'}
    """
    parts: dict[str, str] = {}
    for value in values:
        plain = re.sub(r"[^\w.\- ]", "_", f"{column} {value}")
        numbered = (f"{plain} {number}" for number in range(2, len(parts) + 2))
        parts[value] = next(part for part in (plain, *numbered) if part not in parts.values())
    return parts
