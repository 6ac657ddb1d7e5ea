"""Inference: predictions of the network for each photograph, at native size, passed to writers."""

# flake8: noqa: N806, N815

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from bundle.grade_rules import consistent_grade, feasible_grades, rules_grade
from bundle.labels import GRADES, LESION_COUNT, LESIONS, PROBABILITY_TOLERANCE, checked_quantiles, lesions_large_enough
from bundle.metrics.grade_sets import grade_sets
from bundle.metrics.likeness import Likeness
from bundle.transforms import Crop, largest_px, lesion_areas_px, native_labels, to_native
from bundle.transforms.lesion_decision import check_thresholds, lesion_decision
from bundle.transforms.quality import Quality, doubts_about
from ignite.engine import Engine, Events

HEAT_LONG_SIDE_PX = 1024
"""Longest side of a heat map; heat maps come from a feature map 32 times coarser than the network's input."""

UNLIKE = "unlike the training photographs"
"""The doubt about a photograph that is beyond the limit of :class:`bundle.metrics.likeness.Likeness`."""

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A photograph and all its predictions.

    Attributes:
        name: path below the input folder.
        path: path of the photograph.
        lesions_HW: uint8 label map at native size.
        heat_hw: Grad-CAM of the predicted grade over the whole photograph, at most 1024 pixels long, in [0, 1].
        probabilities: probabilities of the five grades.
        field_px: number of pixels of the field of view.
        counts: number of connected components of each lesion.
        areas_px: number of pixels of each lesion.
        feasible: grades that the predicted lesions allow.
        abstained: whether the confidence of the grade is below the requested minimum.
        grade_set: likely grades, a run that has the predicted grade in it; empty if nothing was fitted for it.
        quality: plain quality of the photograph; None if it was not measured.
        unlikeness: distance from the training photographs, above 1 if it is unlike them; None if the weights file has
            no likeness.
        withhold_doubtful: whether to withhold the grade if there is a doubt about the photograph.
    """

    name: str
    path: str
    lesions_HW: np.ndarray
    heat_hw: np.ndarray
    probabilities: tuple[float, ...]
    field_px: int
    counts: Mapping[str, int]
    areas_px: Mapping[str, int]
    feasible: frozenset[int]
    abstained: bool = False
    grade_set: tuple[int, ...] = ()
    quality: Quality | None = None
    unlikeness: float | None = None
    withhold_doubtful: bool = False

    def __post_init__(self) -> None:
        highest = 1 + PROBABILITY_TOLERANCE
        if len(self.probabilities) != len(GRADES) or not all(0 <= p <= highest for p in self.probabilities):
            raise ValueError(f"{self.name!r}: expected {len(GRADES)} probabilities, got {self.probabilities}")
        if self.field_px < 1:
            raise ValueError(f"{self.name!r}: expected a field of view of at least one pixel, got {self.field_px}")

    @property
    def grade(self) -> int:
        """The most probable grade."""
        return int(np.argmax(self.probabilities))

    @property
    def confidence(self) -> float:
        """The probability of this grade."""
        return max(self.probabilities)

    @property
    def consistent_grade(self) -> int:
        """The most probable grade that the predicted lesions allow."""
        return consistent_grade(self.probabilities, self.feasible)

    @property
    def rules_grade(self) -> int:
        """The lowest grade that the predicted lesions allow."""
        return rules_grade(self.feasible)

    @property
    def contradiction(self) -> bool:
        """Whether the predicted lesions do not allow the predicted grade."""
        return self.grade not in self.feasible

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the photograph should be looked at before its results, in words; empty if it is ordinary."""
        unlike = (UNLIKE,) if self.unlikeness is not None and self.unlikeness > 1 else ()
        return unlike + (doubts_about(self.quality) if self.quality is not None else ())

    @property
    def withheld(self) -> bool:
        """Whether tables and report leave the grade out."""
        return self.withhold_doubtful and bool(self.doubts)


class Writer(Protocol):
    """Interface of a writer of predictions: takes them one by one, then finishes."""

    def start(self) -> None:
        """Prepare before the network runs; refuse output that cannot be written."""

    def draw(self, prediction: Prediction) -> Any:  # noqa: ANN401  (whatever this writer notes later)
        """Write the files of one photograph; called from several threads, each with a different photograph."""

    def note(self, row: Row, drawn: Any) -> None:  # noqa: ANN401
        """Add the row of one photograph and the result of ``draw``; called in the order of the input.

        For an unreadable photograph these are its error row and None.
        """

    def finish(self) -> Mapping[str, int]:
        """Write the files about all photographs; return counts for the engine's metrics."""


class PredictionHandler:
    """Handler that makes a :class:`Prediction` of every image of an evaluation and passes it to each writer.

    Threads do this while the network processes the next photographs. The network waits while more than two photographs
    per thread are pending. An error in a writer is raised in the engine, at the latest when the engine completes.

    Args:
        paths: path of each photograph, by item id.
        writers: receive each prediction, then finish.
        min_area_ppm: smallest component that makes a lesion present, in millionths of the field of view's native area;
            at least a pixel. Smaller components are still drawn and counted.
        lesion_thresholds: thresholds of the lesions (:func:`lesion_decision`); None: the most probable class decides.
        abstain_below: confidence below which a grade is marked as abstained; None never abstains.
        grade_set_quantiles: limits of the sets of likely grades (:func:`grade_sets`); None: the sets are empty.
        threads: number of threads that draw.
        likeness: of the training photographs; None if the weights file has none.
        withhold_doubtful: leave the grade of a photograph out if it is poor or unlike the training photographs.

    Raises:
        ValueError: if ``abstain_below`` is not a probability, there is not one threshold in (0, 1] per lesion, or not
            one limit in [0, 1] per grade, ``threads`` is below 1, or grades are to be withheld and there is no
            likeness.

    Example:
        >>> PredictionHandler(paths={}, writers=[], abstain_below=60)
        Traceback (most recent call last):
            ...
        ValueError: expected abstain_below to be a probability in [0, 1] or null, got 60
    """

    def __init__(
        self,
        paths: Mapping[str, str],
        writers: Sequence[Writer],
        min_area_ppm: float | Mapping[str, float] = 0.0,
        lesion_thresholds: Sequence[float] | None = None,
        abstain_below: float | None = None,
        grade_set_quantiles: Sequence[float] | None = None,
        threads: int = 2,
        likeness: Likeness | None = None,
        withhold_doubtful: bool = False,
    ) -> None:
        if withhold_doubtful and likeness is None:
            raise ValueError(
                "expected weights with a likeness of their training photographs for withhold_doubtful true, got "
                "weights without one; fit it by configs/calibrate.yaml, or leave withhold_doubtful out"
            )
        if abstain_below is not None and not 0 <= abstain_below <= 1:
            raise ValueError(f"expected abstain_below to be a probability in [0, 1] or null, got {abstain_below}")
        if threads < 1:
            raise ValueError(f"expected one thread or more to write, got {threads}")
        if lesion_thresholds is not None:
            check_thresholds(lesion_thresholds, LESION_COUNT)
        if grade_set_quantiles is not None:
            checked_quantiles(grade_set_quantiles)
        self.paths, self.writers = dict(paths), list(writers)
        self.min_area_ppm, self.lesion_thresholds = min_area_ppm, lesion_thresholds
        self.abstain_below, self.grade_set_quantiles, self.threads = abstain_below, grade_set_quantiles, threads
        self.likeness, self.withhold_doubtful = likeness, withhold_doubtful
        self.drawing: deque[Future[tuple[Row, list[Any]]]] = deque()

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def start(self) -> None:
        """Start the writers and the threads."""
        for writer in self.writers:
            writer.start()
        self.pool = ThreadPoolExecutor(self.threads, thread_name_prefix="predictions")

    def __call__(self, engine: Engine) -> None:
        batch, output = engine.state.batch, engine.state.output
        reasons = batch.get("error", [""] * len(batch["id"]))
        for index, name in enumerate(batch["id"]):
            one = {key: output[key][index].cpu() for key in ("lesions", "grade", "maps", "features")}
            known = {
                "geometry": batch["geometry"][index],
                "field_px": int(batch["field_px"][index]),
                "quality": Quality(*batch["quality"][index].tolist()),
            }
            self.drawing.append(self.pool.submit(self._draw, name, one, known, reasons[index]))
        self._note(waiting=2 * self.threads)

    def finish(self, engine: Engine) -> None:
        """Wait for the pending photographs, then finish the writers; their counts become metrics of the engine."""
        self._note(waiting=0)
        self.pool.shutdown()
        for writer in self.writers:
            engine.state.metrics.update(writer.finish())

    def _note(self, waiting: int) -> None:
        """Pass on the oldest rows, in order, until at most ``waiting`` are pending."""
        while len(self.drawing) > waiting:
            row, drawn = self.drawing.popleft().result()
            for writer, result in zip(self.writers, drawn, strict=True):
                writer.note(row, result)

    def _draw(
        self, name: str, output: Mapping[str, torch.Tensor], known: Mapping[str, Any], reason: str
    ) -> tuple[Row, list[Any]]:
        """Return the row of one photograph, and what each writer returned for it."""
        if reason:
            return unread_row(name, reason), [None] * len(self.writers)
        prediction = predicted(
            output, **known, name=name, path=self.paths[name], min_area_ppm=self.min_area_ppm,
            lesion_thresholds=self.lesion_thresholds, abstain_below=self.abstain_below,
            grade_set_quantiles=self.grade_set_quantiles,
            likeness=self.likeness, withhold_doubtful=self.withhold_doubtful,
        )  # fmt: skip
        return prediction_row(prediction), [writer.draw(prediction) for writer in self.writers]


def predicted(
    output: Mapping[str, torch.Tensor],
    geometry: torch.Tensor,
    field_px: int,
    quality: Quality | None = None,
    *,
    name: str,
    path: str,
    min_area_ppm: float | Mapping[str, float] = 0.0,
    lesion_thresholds: Sequence[float] | None = None,
    abstain_below: float | None = None,
    grade_set_quantiles: Sequence[float] | None = None,
    likeness: Likeness | None = None,
    withhold_doubtful: bool = False,
) -> Prediction:
    """Convert the network's output for one photograph to a prediction at native size.

    Args:
        output: probabilities ``lesions (5, S, S)`` and ``grade (5,)``, and ``maps (5, S, S)`` in [0, 1], on the CPU;
            with a likeness also ``features (D,)``.
        geometry: geometry of the square (:class:`bundle.transforms.PrepareFundusd`).
        field_px: number of native pixels of the field of view.
        quality: plain quality of the photograph, if it was measured.
        name: name of the photograph.
        path: path of the photograph.
        min_area_ppm: as in :class:`PredictionHandler`.
        lesion_thresholds: likewise.
        abstain_below: likewise.
        grade_set_quantiles: likewise.
        likeness: likewise.
        withhold_doubtful: likewise.

    Example:
        >>> output = {"lesions": torch.zeros(5, 4, 4), "grade": torch.eye(5)[2], "maps": torch.zeros(5, 4, 4)}
        >>> output["lesions"][3, :2, :2] = 1
        >>> seen = predicted(output, torch.tensor([0.0, 0.0, 6.0, 6.0, 4.0]), field_px=24, name="7", path="7.jpg")
        >>> seen.grade, seen.lesions_HW.shape, seen.counts["EX"], seen.contradiction
        (2, (4, 6), 1, False)
    """
    lesions_HW = native_labels(lesion_decision(output["lesions"], lesion_thresholds), geometry)
    areas_px = lesion_areas_px(lesions_HW)
    present = lesions_large_enough(largest_px(areas_px), field_px, min_area_ppm)
    probabilities = tuple(output["grade"].tolist())
    return Prediction(
        name=name,
        path=path,
        lesions_HW=lesions_HW,
        heat_hw=_heat(output["maps"][int(output["grade"].argmax())], geometry),
        probabilities=probabilities,
        field_px=field_px,
        counts={lesion: len(each) for lesion, each in areas_px.items()},
        areas_px={lesion: int(each.sum()) for lesion, each in areas_px.items()},
        feasible=feasible_grades(present).grades,
        abstained=abstain_below is not None and max(probabilities) < abstain_below,
        grade_set=_grade_set(probabilities, grade_set_quantiles),
        quality=quality,
        unlikeness=None if likeness is None else float(likeness.unlikeness(output["features"][None].numpy())[0]),
        withhold_doubtful=withhold_doubtful,
    )


def _grade_set(probabilities: Sequence[float], quantiles: Sequence[float] | None) -> tuple[int, ...]:
    if quantiles is None:
        return ()
    return tuple(np.flatnonzero(grade_sets([probabilities], quantiles)[0]).tolist())


def _heat(map_hw: torch.Tensor, geometry: torch.Tensor) -> np.ndarray:
    """Map a heat map of the square, of any size, back to the photograph."""
    seen = Crop.of(geometry).within(HEAT_LONG_SIDE_PX)
    # to_native: (2, s, s) -> (2, height, width); outside of the square, channel 1 is 0.
    return to_native(torch.stack([1 - map_hw, map_hw]), seen)[1].clamp_(0, 1).numpy()


def prediction_row(prediction: Prediction) -> Row:
    """Return the numbers of one prediction as a flat table row.

    Example:
        >>> none = dict.fromkeys(LESIONS, 0)
        >>> prediction = Prediction(
        ...     name="7.jpg", path="/data/7.jpg", lesions_HW=np.array([[0, 3, 3]], np.uint8), heat_hw=np.ones((1, 3)),
        ...     probabilities=(0.5, 0.1, 0.4, 0.0, 0.0), field_px=200, counts=none | {"EX": 1},
        ...     areas_px=none | {"EX": 2}, feasible=frozenset({2, 3, 4}),
        ... )
        >>> row = prediction_row(prediction)
        >>> row["grade"], row["feasible"], row["contradiction"], row["consistent_grade"], row["EX_area_percent"]
        (0, '2 3 4', True, 2, 1.0)
    """
    row: Row = {
        "file": prediction.name,
        "grade": prediction.grade,
        "confidence": prediction.confidence,
        "grade_set": " ".join(map(str, prediction.grade_set)),
        "abstained": prediction.abstained,
        "doubts": "; ".join(prediction.doubts),
        "contradiction": prediction.contradiction,
        "feasible": " ".join(str(grade) for grade in sorted(prediction.feasible)),
        "consistent_grade": prediction.consistent_grade,
        "rules_grade": prediction.rules_grade,
        "field_px": prediction.field_px,
        "unlikeness": prediction.unlikeness,
        **(dict.fromkeys(Quality._fields) if prediction.quality is None else prediction.quality._asdict()),
    }
    row |= {f"probability_{grade}": p for grade, p in enumerate(prediction.probabilities)}
    for lesion in LESIONS:
        row[f"{lesion}_count"] = prediction.counts[lesion]
        row[f"{lesion}_area_px"] = prediction.areas_px[lesion]
        row[f"{lesion}_area_percent"] = 100 * prediction.areas_px[lesion] / prediction.field_px
    withheld = dict.fromkeys(OF_THE_GRADE) if prediction.withheld else {}
    return row | withheld | {"error": ""}


OF_THE_GRADE = (
    "grade", "confidence", "grade_set", "contradiction", "feasible", "consistent_grade", "rules_grade",
    *(f"probability_{grade}" for grade in GRADES),
)  # fmt: skip
"""Columns that are empty where the grade is withheld."""

COLUMNS = (
    "file", "grade", "confidence", "grade_set", "abstained", "doubts", "contradiction", "feasible", "consistent_grade",
    "rules_grade", "field_px", "unlikeness", *Quality._fields,
    *(f"probability_{grade}" for grade in GRADES),
    *(f"{lesion}_{what}" for lesion in LESIONS for what in ("count", "area_px", "area_percent")),
    "error",
)  # fmt: skip
"""Columns of every row, including error rows."""


def unread_row(name: str, reason: str) -> Row:
    """Return the error row of an unreadable photograph: the reason and no numbers.

    Example:
        >>> {name: value for name, value in unread_row("7.jpg", "cut off").items() if value is not None}
        {'file': '7.jpg', 'error': 'cut off'}
    """
    return {**dict.fromkeys(COLUMNS), "file": name, "error": reason}
