"""How large a lesion must be to count as present, fitted on graded photographs that were held out."""

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
"""First words of the subsets that something may be fitted on: what is fitted on a test is no test any more."""


class FitPresence(Scorer):
    """Fit for each lesion the smallest area that makes it present (:func:`areas_that_count_ppm`).

    A network that was taught on outlined photographs alone has seen no healthy eye, and finds something on each. What
    it finds there is small; the grades of held-out photographs, which are cheap, say how small.

    Args:
        ids: graded photographs that count.
        subset: their name, as :func:`bundle.datasets.splits.scored` says it.
        thresholds: of the lesions (:func:`lesion_decision`); None: the most probable class decides.
        least_ppm: under which nothing counts, in millionths of the field of view.

    Raises:
        ValueError: if the subset is a test or holds one; at the end of the evaluation, if no photograph was graded.

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
        """Fit, and put the areas into ``engine.state.metrics``."""
        if not self.grades:
            raise ValueError(f"expected graded photographs in {self.subset} to fit areas on, found none")
        self.areas_ppm = areas_that_count_ppm(np.array(self.largest_ppm), self.grades, least_ppm=self.least_ppm)
        engine.state.metrics.update({f"presence/min_area_ppm_{lesion}": a for lesion, a in self.areas_ppm.items()})

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return none: these are settings, not scores."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Return what a weights file says of it; a lesion that no grade there rules out keeps the least area."""
        areas_ppm = {lesion: self.areas_ppm.get(lesion, self.least_ppm) for lesion in LESIONS}
        return {"min_area_ppm": areas_ppm, "min_area_fitted_on": f"{len(self.grades)} photographs of {self.subset}"}
