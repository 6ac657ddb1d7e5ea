"""Scores beyond pixel counts: components found, FROC of microaneurysms, distance between borders."""

# flake8: noqa: N803

from collections.abc import Mapping, Sequence

import numpy as np
from bundle.metrics.by_lesion import mean_over_images, named, ratio
from bundle.metrics.components import touched_components
from bundle.metrics.froc import RATES, Candidates, candidates, sensitivities
from bundle.metrics.surface import hd95_px

SPOTS = "MA"
"""The lesion that is counted, not measured: FROC is computed for it only, border distances for all others."""


class LesionShapes:
    """Accumulator of components, candidates and border distances per photograph.

    Args:
        classes: names of the lesion classes.

    Example:
        >>> shapes = LesionShapes(["EX"])
        >>> outline = np.array([[True, False, False, False, True]])
        >>> predicted = np.array([[True, False, False, False, False]])
        >>> shapes.add({"EX": predicted}, {"EX": outline}, {"EX": predicted.astype(np.float32)})
        >>> found = shapes.scores(np.array([1]))
        >>> float(found["lesions/component_recall_EX"])  # one of two components is touched
        0.5
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.measured = tuple(name for name in classes if name != SPOTS)
        # Per photograph: touched and total components, (C, 2); border distances, NaN where undefined.
        self._components: list[np.ndarray] = []
        self._distances_px: list[np.ndarray] = []
        self._candidates: list[Candidates] = []

    def add(
        self, predicted: Mapping[str, np.ndarray], outlines: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray]
    ) -> None:
        """Add one photograph: bool masks, outlines and probabilities ``(H, W)`` of each annotated lesion."""
        found = {lesion: touched_components(predicted[lesion], outlines[lesion]) for lesion in outlines}
        self._components.append(np.array([found.get(lesion, (0, 0)) for lesion in self.classes]))
        distances_px = [
            hd95_px(predicted[lesion], outlines[lesion]) if lesion in outlines else np.nan for lesion in self.measured
        ]
        self._distances_px.append(np.array(distances_px))
        if SPOTS in outlines:
            self._candidates.append(candidates(scores[SPOTS], outlines[SPOTS]))

    def scores(self, weights_N: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the scores that have an interval, with each photograph counted according to its weight.

        ``lesions/component_recall_<lesion>`` is the share of all outlined components that are touched (see
        :func:`touched_components`). ``lesions/hd95_px_<lesion>`` is the mean of :func:`hd95_px` over the photographs on
        which the lesion is both outlined and predicted.
        """
        touched, there = np.moveaxis(np.tensordot(weights_N, np.stack(self._components), axes=1), -1, 0)
        distances = {"hd95_px_{}": mean_over_images(np.stack(self._distances_px), weights_N)} if self.measured else {}
        return named({"component_recall_{}": ratio(touched, there)}, self.classes) | named(distances, self.measured)

    def further_scores(self) -> dict[str, float]:
        """Compute the values without an interval: FROC of microaneurysms, trivial scores, and photograph counts.

        ``lesions/sensitivity_at_<rate>_fp_MA`` is :func:`sensitivities`, ``lesions/froc_MA`` their mean.
        """
        there = np.stack(self._components)[..., 1].sum(axis=0) > 0  # (C,): outlined on any photograph
        nothing, everywhere = np.where(there, 0, np.nan), np.where(there, 1, np.nan)
        trivial = {
            "component_recall_{}_predicting_nothing": nothing, "component_recall_{}_predicting_everywhere": everywhere,
        }  # fmt: skip
        found = self._froc() | {key: float(value) for key, value in named(trivial, self.classes).items()}
        counts = np.isfinite(np.stack(self._distances_px)).sum(axis=0)
        return found | {
            f"lesions/images_hd95_px_{lesion}": float(n) for lesion, n in zip(self.measured, counts, strict=True)
        }

    def _froc(self) -> dict[str, float]:
        if SPOTS not in self.classes:
            return {}
        found = sensitivities(self._candidates) if self._candidates else np.full(len(RATES), np.nan)
        by_name = {"froc": found.mean()} | {
            f"sensitivity_at_{rate:g}_fp": value for rate, value in zip(RATES, found, strict=True)
        }
        scores = {f"lesions/{name}_{SPOTS}": float(value) for name, value in by_name.items()}
        return scores | {f"{key}_predicting_nothing": 0 * value for key, value in scores.items()}
