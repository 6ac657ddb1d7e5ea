"""Lesions as shapes: one by one, by their surfaces, and in the table of each lesion."""

# flake8: noqa: N803, N806

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from bundle.metrics.froc import RATES, Candidates, candidates, sensitivities
from bundle.transforms.components import numbered_components
from monai.metrics.utils import get_surface_distance


def touched_components(predicted_HW: np.ndarray, outline_HW: np.ndarray) -> tuple[int, int]:
    """Return how many outlined components the prediction touches, and the total number of components.

    A component (8 neighbours) is touched if at least one of its pixels is predicted as the lesion. One predicted region
    may touch several, and pixels that it covers outside of them do not count against it.

    Args:
        predicted_HW: bool.
        outline_HW: bool.

    Example:
        >>> outline = np.array([[1, 0, 0, 1], [0, 1, 0, 1]], dtype=bool)  # two components: one is diagonal
        >>> touched_components(np.array([[0, 0, 1, 1], [0, 0, 0, 0]], dtype=bool), outline)
        (1, 2)
    """
    count, numbers_HW = numbered_components(outline_HW)
    return len(np.unique(numbers_HW[predicted_HW & outline_HW])), count


SPOTS = "MA"
"""The lesion that is counted, not measured: FROC is computed for it only, border distances for all others."""


class ImageShapes(NamedTuple):
    """Shapes on one photograph: its share of a :class:`LesionShapes`.

    Attributes:
        components: number of touched and of all outlined components of each lesion, ``(C, 2)``.
        distances_px: border distance of each measured lesion, NaN where undefined.
        candidates: candidates for microaneurysms; None where these were not looked for.
    """

    components: np.ndarray
    distances_px: np.ndarray
    candidates: Candidates | None


class LesionShapes:
    """Accumulator of components, candidates and border distances per photograph.

    Args:
        classes: names of the lesion classes.

    Example:
        >>> shapes = LesionShapes(["EX"])
        >>> outline, predicted = np.array([[1, 0, 0, 0, 1]], dtype=bool), np.array([[1, 0, 0, 0, 0]], dtype=bool)
        >>> shapes.update({"EX": predicted}, {"EX": outline}, {"EX": predicted.astype(np.float32)})
        >>> float(shapes.scores(np.array([1]))["lesions/component_recall_EX"])  # one of two components is touched
        0.5
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self.measured = tuple(name for name in classes if name != SPOTS)
        # Per photograph: touched and total components, (C, 2); border distances, NaN where undefined.
        self._components: list[np.ndarray] = []
        self._distances_px: list[np.ndarray] = []
        self._candidates: list[Candidates] = []

    def update(
        self, predicted: Mapping[str, np.ndarray], outlines: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray]
    ) -> None:
        """Add one photograph: bool masks, outlines and probabilities ``(H, W)`` of each annotated lesion."""
        self.add(self.measure(predicted, outlines, scores))

    def measure(
        self, predicted: Mapping[str, np.ndarray], outlines: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray]
    ) -> ImageShapes:
        """Measure one photograph without adding it; the arguments are those of :meth:`update`."""
        touched = {lesion: touched_components(predicted[lesion], outlines[lesion]) for lesion in outlines}
        distances_px = [
            hd95_px(predicted[lesion], outlines[lesion]) if lesion in outlines else np.nan for lesion in self.measured
        ]
        return ImageShapes(
            components=np.array([touched.get(lesion, (0, 0)) for lesion in self.classes]),
            distances_px=np.array(distances_px),
            candidates=candidates(scores[SPOTS], outlines[SPOTS]) if SPOTS in outlines else None,
        )

    def add(self, image: ImageShapes) -> None:
        """Add a photograph that was measured."""
        self._components.append(image.components)
        self._distances_px.append(image.distances_px)
        if image.candidates is not None:
            self._candidates.append(image.candidates)

    def scores(self, weights_N: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the scores that have an interval, with each photograph counted according to its weight.

        ``lesions/component_recall_<lesion>`` is the share of all outlined components that are touched (see
        :func:`touched_components`). ``lesions/hd95_px_<lesion>`` is the mean of :func:`hd95_px` over the photographs on
        which the lesion is both outlined and predicted.
        """
        pooled = np.tensordot(weights_N, np.stack(self._components), axes=1)  # (N,) x (N, C, 2) -> (C, 2)
        touched, there = np.moveaxis(pooled, -1, 0)  # (C,) each
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
        scores = self._froc() | {key: float(value) for key, value in named(trivial, self.classes).items()}
        counts = np.isfinite(np.stack(self._distances_px)).sum(axis=0)  # (measured lesions,)
        return scores | {
            f"lesions/images_hd95_px_{lesion}": float(n) for lesion, n in zip(self.measured, counts, strict=True)
        }

    def _froc(self) -> dict[str, float]:
        if SPOTS not in self.classes:
            return {}
        shares = sensitivities(self._candidates) if self._candidates else np.full(len(RATES), np.nan)  # (7,)
        by_name = {"froc": shares.mean()} | {
            f"sensitivity_at_{rate:g}_fp": share for rate, share in zip(RATES, shares, strict=True)
        }
        scores = {f"lesions/{name}_{SPOTS}": float(value) for name, value in by_name.items()}
        return scores | {f"{key}_predicting_nothing": 0 * value for key, value in scores.items()}


DENSE = 100_000
"""Number of border pixels at which a distance transform becomes faster than a search tree; both are exact."""

CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def hd95_px(predicted_HW: np.ndarray, outline_HW: np.ndarray) -> float:
    """Compute the 95 % Hausdorff distance of two masks in pixels; NaN if one of them is empty.

    ``max(q95 {d(a, B) : a in A}, q95 {d(b, A) : b in B})`` of their borders A and B. The border of a mask is
    its pixels with one of the 4 neighbours outside the mask or outside the image. Same result as
    ``monai.metrics.compute_hausdorff_distance``, but five times faster at native size: OpenCV finds the borders within
    the common bounding box of both masks.

    Args:
        predicted_HW: bool.
        outline_HW: bool.

    Example:
        >>> hd95_px(np.array([[1, 0, 0, 0]], dtype=bool), np.array([[0, 0, 0, 1]], dtype=bool))
        3.0
    """
    if not (predicted_HW.any() and outline_HW.any()):
        return float("nan")
    either_HW = predicted_HW | outline_HW
    rows, columns = np.flatnonzero(either_HW.any(axis=1)), np.flatnonzero(either_HW.any(axis=0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)  # h x w pixels
    one, other = _border(predicted_HW[box]), _border(outline_HW[box])  # (h, w) each
    return float(max(np.percentile(_distances_px(*pair), 95) for pair in ((one, other), (other, one))))


def _distances_px(border_HW: np.ndarray, other_HW: np.ndarray) -> np.ndarray:
    """Compute the distance of each pixel of a border to the other border, ``(pixels,)``."""
    if np.count_nonzero(border_HW) < DENSE:
        return np.asarray(get_surface_distance(border_HW, other_HW))
    return cv2.distanceTransform((~other_HW).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[border_HW]


def _border(mask_HW: np.ndarray) -> np.ndarray:
    mask = np.ascontiguousarray(mask_HW).view(np.uint8)
    return mask > cv2.erode(mask, CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide; NaN where ``whole`` is 0.

    Example:
        >>> ratio(np.array([1, 0]), np.array([4, 0]))
        array([0.25,  nan])
    """
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def mean_over_images(values_NC: np.ndarray, weights_N: np.ndarray) -> np.ndarray:
    """Return the mean of each lesion ``(C,)`` over the photographs that have a value; NaN if all lack one.

    Args:
        values_NC: of each photograph and lesion; NaN where the photograph does not count.
        weights_N: how often each photograph counts: 1, or how often a resample contains it.

    Example:
        >>> mean_over_images(np.array([[1.0, np.nan], [0.0, np.nan]]), np.array([3, 1]))
        array([0.75,  nan])
    """
    counts = np.isfinite(values_NC)  # (N, C)
    return ratio(weights_N @ np.where(counts, values_NC, 0), weights_N @ counts.astype(np.int64))


def named(by_lesion: Mapping[str, np.ndarray], classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Expand templates with values ``(..., C)`` into one entry per lesion and one for the mean of the defined values.

    With a single class, the mean is left out.

    Example:
        >>> {key: float(value) for key, value in named({"dice_{}": np.array([1.0, 0.5])}, ["EX", "SE"]).items()}
        {'lesions/dice_EX': 1.0, 'lesions/dice_SE': 0.5, 'lesions/dice_mean': 0.75}
    """
    scores: dict[str, np.ndarray] = {}
    for template, values in by_lesion.items():
        scores |= {f"lesions/{template.format(lesion)}": values[..., i] for i, lesion in enumerate(classes)}
        if len(classes) > 1:
            mean = ratio(np.nansum(values, axis=-1), np.isfinite(values).sum(axis=-1))  # (...)
            scores[f"lesions/{template.format('mean')}"] = mean
    return scores
