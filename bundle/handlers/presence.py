"""The smallest area at which a lesion counts as present, fitted on held-out graded photographs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from bundle.datasets.items import UNKNOWN_GRADE
from bundle.handlers.joint_scores import largest_found_px
from bundle.handlers.scores import Scorer
from bundle.labels import LEAST_PPM, LESIONS
from bundle.metrics.presence import areas_that_count_ppm
from ignite.engine import Engine

FITTED_ON = ("fold", "train")
"""First words of the subsets that may be used for fitting; a test set used for fitting is no longer a test set."""


class FitPresence(Scorer):
    """Scorer that fits the smallest area at which each lesion is present (:func:`areas_that_count_ppm`).

    A network trained only on outlined photographs has seen no healthy eye, and finds lesions on each one. These
    findings are small; the grades of held-out photographs, which are cheap, show how small.

    Args:
        ids: graded photographs that count.
        subset: name of their subset, as returned by :func:`bundle.datasets.splits.scored`.
        thresholds: thresholds of the lesions (:func:`lesion_decision`); None: the most probable class decides.
        least_ppm: area below which nothing counts, in millionths of the field of view.

    Raises:
        ValueError: if the subset is or contains a test set; at the end of the evaluation, if no photograph was graded.

    Example:
        >>> FitPresence(["7"], subset="test")
        Traceback (most recent call last):
            ...
        ValueError: expected a held-out fold or a training part to fit areas on, got test; leave the test for scores
    """

    def __init__(
        self, ids: Sequence[str], subset: str, thresholds: Sequence[float] | None = None, least_ppm: float = LEAST_PPM
    ) -> None:
        if not subset.startswith(FITTED_ON):
            raise ValueError(
                f"expected a held-out fold or a training part to fit areas on, got {subset}; leave the test for scores"
            )
        self.ids, self.subset, self.thresholds, self.least_ppm = set(ids), subset, thresholds, least_ppm
        self.reset()

    def reset(self) -> None:
        """Forget the images of an earlier evaluation."""
        self.largest_ppm: list[list[float]] = []
        self.grades: list[int] = []
        self.areas_ppm: dict[str, float] = {}

    def update(self, engine: Engine) -> None:
        """Measure the largest component of each lesion on each photograph of a batch."""
        batch, lesions = engine.state.batch, engine.state.output["lesions"]
        for index, (name, grade) in enumerate(zip(batch["id"], batch["grade"].tolist(), strict=True)):
            if name in self.ids and grade != UNKNOWN_GRADE:
                found_px = largest_found_px(lesions[index], self.thresholds, batch["geometry"][index])
                field_px = float(batch["field_px"][index])
                self.largest_ppm.append([1e6 * found_px[lesion] / field_px for lesion in LESIONS])
                self.grades.append(grade)

    def compute(self, engine: Engine) -> None:
        """Fit the areas and write them to ``engine.state.metrics``."""
        if not self.grades:
            raise ValueError(f"expected graded photographs in {self.subset} to fit areas on, found none")
        self.areas_ppm = areas_that_count_ppm(np.array(self.largest_ppm), self.grades, least_ppm=self.least_ppm)
        engine.state.metrics.update({f"presence/min_area_ppm_{lesion}": a for lesion, a in self.areas_ppm.items()})

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return no intervals: the areas are settings, not scores."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return the areas for the weights file; a lesion that no grade in the subset rules out keeps ``least_ppm``."""
        areas_ppm = {lesion: self.areas_ppm.get(lesion, self.least_ppm) for lesion in LESIONS}
        return {"min_area_ppm": areas_ppm, "min_area_fitted_on": f"{len(self.grades)} photographs of {self.subset}"}
