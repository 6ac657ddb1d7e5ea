"""Per-lesion Dice, IoU and average precision, pooled over photographs of any size and per photograph."""

# flake8: noqa: N803, N806

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from bundle.labels import LESIONS
from bundle.metrics.grading import auroc
from bundle.metrics.intervals import image_weights, percentile_intervals
from bundle.metrics.shapes import ImageShapes, LesionShapes, mean_over_images, named, ratio
from bundle.transforms.lesion_decision import check_thresholds, lesion_decision, most_probable_class
from bundle.transforms.outlines import LESION_PRIORITY
from torch import Tensor

SCORE_BINS = 2**16
LabelMap = TypeVar("LabelMap", Tensor, np.ndarray)
"""Also the mask of one lesion."""


class ImageCounts(NamedTuple):
    """Pixels and shapes of one photograph: its share of a :class:`LesionScores`, whose arguments made it.

    Attributes:
        counts: TP, FP and FN of each lesion, and of the whole label map in the last row, ``(C + 1, 3)``.
        argmax_counts: the same for the most probable class, with a last row of zeros; None if no thresholds decide.
        positives: histogram of the scores of each lesion's pixels, ``(C, SCORE_BINS)``.
        pixels: the same for all pixels of the photograph.
        above_0: number of lesion pixels and of all pixels with a score above 0, ``(2, C)``.
        background_px: pixels of background in the label map; 0 if not all lesions were annotated.
        looked_at_px: number of pixels for each annotated lesion, else 0, ``(C,)``.
        patient: whose photograph it is; None if unknown.
        shapes: shapes; None if they are not scored.
    """

    counts: np.ndarray
    argmax_counts: np.ndarray | None
    positives: np.ndarray
    pixels: np.ndarray
    above_0: np.ndarray
    background_px: int
    looked_at_px: np.ndarray
    patient: Hashable | None
    shapes: ImageShapes | None


class LesionScores:
    """Accumulator of pixel counts per photograph, which scores each lesion over all photographs together.

    A pixel is predicted as its most probable class, or by thresholds (:func:`lesion_decision`). The ground truth of a
    lesion is its own outline, also where outlines overlap. From the counts summed over all photographs,
    ``Dice = 2 TP / (2 TP + FP + FN)`` and ``IoU = TP / (TP + FP + FN)``. Average precision is
    ``sum_n (R_n - R_{n-1}) P_n`` over all thresholds, exact for scores rounded to 16 bits. Photographs on which
    a lesion was not annotated do not count for that lesion.

    ``paper_dice`` and ``paper_iou`` are single ratios over all pixels and classes of the label map, background
    included: every wrong pixel is one FP and one FN, so Dice is the pixel accuracy and ``IoU = D / (2 - D)``, which
    every row of the paper's DDR table satisfies. Only photographs with all lesions annotated have a label map.

    ``image_dice`` and ``image_iou`` are means over the photographs that have the lesion, whatever its size. They are
    undefined on photographs without it; ``false_alarm`` is the share of these with at least one predicted pixel, and
    ``detected`` the share of those with the lesion. ``presence_auroc`` is the probability that a photograph with the
    lesion has a larger predicted area, as a share of its pixels, than one without, ties counting half; outlines that
    are coarse do not matter to it.

    Args:
        classes: names of the network's lesion classes, in the order of its channels.
        shapes: also compute the scores of :class:`LesionShapes`, at about half a second per native-size photograph.
        thresholds: of the classes; if given, they decide, and pooled Dice and IoU of the most probable class are added
            as ``argmax_dice`` and ``argmax_iou``. None: the most probable class decides.

    Raises:
        ValueError: if there is no class, a name is repeated, or there is not one threshold in (0, 1] per class.

    Example:
        >>> accumulator = LesionScores()
        >>> probabilities = torch.eye(5)[:, [[0, 1, 1, 0]]]  # (5, 1, 4): two pixels are called MA
        >>> accumulator.update(probabilities, {"MA": np.array([[False, False, True, False]])})
        >>> scores = accumulator.compute()
        >>> round(scores["lesions/dice_MA"], 3), scores["lesions/iou_MA"], scores["lesions/paper_dice"]
        (0.667, 0.5, 0.75)
    """

    def __init__(
        self, classes: Sequence[str] = LESIONS, shapes: bool = False, thresholds: Sequence[float] | None = None
    ) -> None:
        if not classes or len(set(classes)) != len(classes):
            raise ValueError(f"expected one or more distinct names of lesion classes, got {list(classes)}")
        if thresholds is not None:
            check_thresholds(thresholds, len(classes))
        self.classes, self.thresholds = tuple(classes), thresholds
        self._positives = np.zeros((len(classes), SCORE_BINS), dtype=np.int64)
        self._pixels = np.zeros((len(classes), SCORE_BINS), dtype=np.int64)
        # (2, C): lesion pixels and all pixels with a score above 0, which the bins cannot separate from nearly 0.
        self._above_0 = np.zeros((2, len(classes)), dtype=np.int64)
        self._background_px = 0
        # Per photograph, (C + 1, 3): TP, FP, FN of each lesion; the last row is the whole label map.
        self._counts: list[np.ndarray] = []
        self._patients: list[Hashable | None] = []
        # The same for the most probable class, if thresholds decide.
        self._argmax_counts: list[np.ndarray] = []
        # Per photograph, (C,): its number of pixels for each annotated lesion, else 0.
        self._looked_at_px: list[np.ndarray] = []
        self._shapes = LesionShapes(classes) if shapes else None

    def update(
        self,
        probabilities_CHW: Tensor,
        masks: Mapping[str, Tensor | np.ndarray],
        annotated: Collection[str] | None = None,
        patient: Hashable | None = None,
    ) -> None:
        """Add one photograph.

        Args:
            probabilities_CHW: softmax over background and the ``C`` classes, ``(C + 1, H, W)``; counting runs on its
                device.
            masks: lesion to bool outline ``(H, W)``; an annotated lesion without a mask is absent.
            annotated: lesions that the annotators looked for; None for all classes.
            patient: whose photograph it is, for the intervals; None if unknown.

        Raises:
            ValueError: if shapes or types do not match, a probability is outside [0, 1], or a mask belongs to a lesion
                that is unknown or was not annotated.
        """
        self.add(self.count(probabilities_CHW, masks, annotated, patient))

    def count(
        self,
        probabilities_CHW: Tensor,
        masks: Mapping[str, Tensor | np.ndarray],
        annotated: Collection[str] | None = None,
        patient: Hashable | None = None,
    ) -> ImageCounts:
        """Count one photograph without adding it; arguments and errors are those of :meth:`update`.

        Accumulators made with the same arguments take the same counts.
        """
        probabilities = probabilities_CHW.detach().as_subclass(torch.Tensor)
        truth = {
            name: torch.as_tensor(mask, device=probabilities.device).as_subclass(torch.Tensor)
            for name, mask in masks.items()
        }
        annotated = self.classes if annotated is None else annotated
        _check(probabilities, truth, annotated, self.classes)
        predicted = most_probable_class(lesion_decision(probabilities, self.thresholds))
        nothing = torch.zeros_like(predicted, dtype=torch.bool)
        outlines = {lesion: truth.get(lesion, nothing) for lesion in self.classes if lesion in annotated}
        counts, background_px = self._counted(predicted, outlines), 0
        if set(annotated) == set(self.classes):
            counts[-1], background_px = self._label_map_counts(predicted, truth)
        by_argmax = None
        if self.thresholds is not None:
            by_argmax = self._counted(most_probable_class(probabilities), outlines)
        shapes = None
        if self._shapes is not None:
            shapes = self._shapes.measure(*_on_cpu(predicted, outlines, probabilities, self.classes))
        looked_at_px = np.array([predicted.numel() * (lesion in outlines) for lesion in self.classes])
        return ImageCounts(
            counts, by_argmax, *self._histograms(probabilities, outlines), background_px, looked_at_px, patient, shapes
        )

    def add(self, image: ImageCounts) -> None:
        """Add a photograph that was counted."""
        self._positives += image.positives
        self._pixels += image.pixels
        self._above_0 += image.above_0
        self._background_px += image.background_px
        self._counts.append(image.counts)
        self._looked_at_px.append(image.looked_at_px)
        self._patients.append(image.patient)
        if image.argmax_counts is not None:
            self._argmax_counts.append(image.argmax_counts)
        if self._shapes is not None and image.shapes is not None:
            self._shapes.add(image.shapes)

    @property
    def photographs(self) -> int:
        """Number of photographs that were added."""
        return len(self._counts)

    def _counted(self, predicted_HW: Tensor, outlines: Mapping[str, Tensor]) -> np.ndarray:
        """Count TP, FP and FN of each annotated lesion, ``(C + 1, 3)``; the last row is zero."""
        counts = np.zeros((len(self.classes) + 1, 3), dtype=np.int64)
        for lesion, outline in outlines.items():
            index = self.classes.index(lesion)
            predicted = predicted_HW == index + 1
            both = int((predicted & outline).sum())
            counts[index] = both, int(predicted.sum()) - both, int(outline.sum()) - both
        return counts

    def _histograms(
        self, probabilities: Tensor, outlines: Mapping[str, Tensor]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the histograms of lesion pixels and of all pixels, and how many of them are above 0."""
        positives, pixels, above_0 = (np.zeros_like(a) for a in (self._positives, self._pixels, self._above_0))
        for lesion, mask_HW in outlines.items():
            index = self.classes.index(lesion)
            scores_HW = probabilities[index + 1]
            on_lesion = scores_HW[mask_HW]
            pixels[index], positives[index] = _histogram(scores_HW), _histogram(on_lesion)
            above_0[:, index] = int(torch.count_nonzero(on_lesion)), int(torch.count_nonzero(scores_HW))
        return positives, pixels, above_0

    def _label_map_counts(self, predicted_HW: Tensor, truth: Mapping[str, Tensor]) -> tuple[tuple[int, int, int], int]:
        """Count right and wrong pixels of the whole label map, and its pixels of background."""
        label_map = torch.zeros_like(predicted_HW)
        # A single class of another name has no rank: it never overlaps.
        ranks = {lesion: LESION_PRIORITY.index(lesion) for lesion in truth if lesion in LESION_PRIORITY}
        for lesion in sorted(truth, key=lambda lesion: ranks.get(lesion, len(LESION_PRIORITY)), reverse=True):
            label_map[truth[lesion]] = self.classes.index(lesion) + 1
        right = int((predicted_HW == label_map).sum())
        wrong = predicted_HW.numel() - right
        return (right, wrong, wrong), int((label_map == 0).sum())

    def compute(self) -> dict[str, float]:
        """Return all scores, together with those of trivial predictors.

        Keys are ``lesions/<score>_<lesion>`` and, with more than one class, ``lesions/<score>_mean`` over the lesions
        for which the score is defined; it is NaN for a lesion on no photograph. ``lesions/images_<lesion>`` counts the
        photographs with the lesion, ``lesions/images_without_<lesion>`` those that were annotated for it but lack it.
        At prevalence p, predicting a lesion everywhere has Dice ``2 p / (1 + p)`` and IoU p, and random scores have
        average precision p; predicting nothing has Dice and IoU 0, and ``paper_dice`` equal to the share of background.
        At 11 thresholds the straight line to recall 0 adds to the area: random scores have ``0.95 p + 0.05``, and a
        score of 1 everywhere has ``(1 + p) / 2``.

        Raises:
            ValueError: if no photograph was added.
        """
        counts = self._stacked_counts()
        every = np.ones(len(counts), dtype=np.int64)
        presence = _presence_auroc(counts[:, :-1], np.stack(self._looked_at_px))
        by_lesion = {
            "average_precision_{}": _average_precision(self._positives, self._pixels),
            "average_precision_11_{}": _area_of_11(self._positives, self._pixels, self._above_0),
            "presence_auroc_{}": presence,
            "presence_auroc_{}_random": 0.5 + 0 * presence,
            **self._trivial_scores(counts, every),
        }
        shapes = {} if self._shapes is None else self._shapes.further_scores()
        scores = self._scores(counts, every) | named(by_lesion, self.classes) | shapes
        wrong_px = counts[:, -1, :2].sum() - self._background_px
        paper = _paper_scores(np.array([[self._background_px, wrong_px, wrong_px]]))
        nothing = {f"{key}_predicting_nothing": float(value) for key, value in paper.items()}
        return {key: float(value) for key, value in scores.items()} | nothing | self._images(counts)

    def _scores(self, counts: np.ndarray, weights_N: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the scores that have an interval, with each photograph counted according to its weight."""
        pooled = np.tensordot(weights_N, counts, axes=1)  # (N,) x (N, C + 1, 3) -> (C + 1, 3)
        by_image = _image_scores(counts[:, :-1], np.stack(self._looked_at_px) > 0, weights_N)
        shapes = {} if self._shapes is None else self._shapes.scores(weights_N)
        by_lesion = _overlap_scores(pooled)
        if self._argmax_counts:
            of_argmax = _overlap_scores(np.tensordot(weights_N, np.stack(self._argmax_counts), axes=1))
            by_lesion |= {f"argmax_{name}": values for name, values in of_argmax.items()}
        return named(by_lesion | by_image, self.classes) | _paper_scores(pooled) | shapes

    def _trivial_scores(self, counts: np.ndarray, every: np.ndarray) -> dict[str, np.ndarray]:
        lesion_px, all_px = self._positives.sum(axis=1), self._pixels.sum(axis=1)  # (C,) each
        prevalence = ratio(lesion_px, np.where(lesion_px > 0, all_px, 0))  # (C,)
        # TP, FP and FN of predicting each lesion everywhere, (N, C, 3); TP is all of the lesion.
        image_lesion_px, looked_at_px = counts[:, :-1, [0, 2]].sum(axis=-1), np.stack(self._looked_at_px)  # (N, C) each
        everywhere = np.stack([image_lesion_px, looked_at_px - image_lesion_px, 0 * image_lesion_px], axis=-1)
        by_image = _image_scores(everywhere, looked_at_px > 0, every)
        nothing = {f"{score}_predicting_nothing": 0 * value for score, value in by_image.items()}
        return {
            "average_precision_{}_random": prevalence,
            "average_precision_11_{}_random": 0.95 * prevalence + 0.05,
            "average_precision_11_{}_predicting_everywhere": (1 + prevalence) / 2,
            "dice_{}_predicting_nothing": 0 * prevalence,
            "dice_{}_predicting_everywhere": 2 * prevalence / (1 + prevalence),
            "iou_{}_predicting_nothing": 0 * prevalence,
            "iou_{}_predicting_everywhere": prevalence,
            **nothing,
            **{f"{score}_predicting_everywhere": value for score, value in by_image.items()},
        }

    def _images(self, counts: np.ndarray) -> dict[str, float]:
        with_it = counts[:, :-1, [0, 2]].sum(axis=-1) > 0  # (N, C)
        without = ~with_it & (np.stack(self._looked_at_px) > 0)
        return {
            f"lesions/{name}_{lesion}": float(n)
            for name, images in (("images", with_it), ("images_without", without))
            for lesion, n in zip(self.classes, images.sum(axis=0), strict=True)
        }

    def intervals(self, seed: int = 0, resamples: int = 1000) -> dict[str, tuple[float, float]]:
        """Compute 95 % percentile intervals, by the bootstrap over patients, or photographs of unknown patients.

        The counts of each resample are pooled before scoring. A resample without a lesion is skipped for that lesion.
        Keys are those of ``compute``; average precision, FROC and presence have no intervals, because they would have
        to be recomputed in every resample.

        Raises:
            ValueError: if no photograph was added.
        """
        counts = self._stacked_counts()
        samples = [self._scores(counts, weights_N) for weights_N in image_weights(self._patients, seed, resamples)]
        return percentile_intervals(samples)

    def best_thresholds(self) -> dict[str, float]:
        """Return the threshold with the best pooled Dice for each lesion that occurs, where ``p > t`` is the lesion.

        Each lesion is scored alone: pixels above two thresholds count for both lesions, although
        :func:`lesion_decision` assigns them to one. Thresholds lie between the 16-bit steps of the scores. Of equally
        good ones, the middle of the longest run is taken, as far as possible from the scores on both sides.

        Raises:
            ValueError: if no photograph was added.
        """
        self._stacked_counts()
        histograms = zip(self.classes, self._positives, self._pixels, strict=True)
        return {lesion: _best_threshold(found, everything) for lesion, found, everything in histograms if found.any()}

    def _stacked_counts(self) -> np.ndarray:
        if not self._counts:
            raise ValueError("expected at least one photograph before scoring, got none; call `update` first")
        return np.stack(self._counts)


def lesion_dice(found: LabelMap, expected: LabelMap) -> float:
    """Return ``2 |pixels of the same lesion in both| / (|lesion pixels of one| + |of the other|)``; 1 without lesions.

    Example:
        >>> lesion_dice(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 0]))  # 2 * 1 / (3 + 2)
        0.4
        >>> lesion_dice(np.array([True, True, False]), np.array([False, True, False]))
        0.6666666666666666
    """
    lesions = int((found > 0).sum() + (expected > 0).sum())
    return 2 * int(((found == expected) & (found > 0)).sum()) / lesions if lesions else 1.0


def _check(
    probabilities: Tensor, truth: Mapping[str, Tensor], annotated: Collection[str], classes: Sequence[str]
) -> None:
    if not set(truth) <= set(annotated) <= set(classes):
        raise ValueError(
            f"expected masks of annotated lesions out of {list(classes)}, "
            f"got masks {sorted(truth)} and annotated {sorted(annotated)}"
        )
    if probabilities.ndim != 3 or len(probabilities) != len(classes) + 1:
        raise ValueError(
            f"expected probabilities of shape ({len(classes) + 1}, H, W), got {tuple(probabilities.shape)}"
        )
    low, high = probabilities.aminmax()
    if not (low >= -1e-4 and high <= 1 + 1e-4):
        raise ValueError(f"expected probabilities in [0, 1], got values from {low:.4g} to {high:.4g}; apply softmax")
    for name, mask in truth.items():
        if mask.dtype != torch.bool or mask.shape != probabilities.shape[1:]:
            raise ValueError(
                f"expected the mask of {name} as bool {tuple(probabilities.shape[1:])}, "
                f"got {mask.dtype} {tuple(mask.shape)}"
            )


def _histogram(scores: Tensor) -> np.ndarray:
    bins = (scores.float().clamp(0, 1) * (SCORE_BINS - 1)).round_().int()
    return torch.bincount(bins.flatten(), minlength=SCORE_BINS).cpu().numpy()


def _on_cpu(
    predicted_HW: Tensor, outlines: Mapping[str, Tensor], probabilities_CHW: Tensor, classes: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return predicted masks, outlines and probabilities of each annotated lesion as arrays."""
    label_map = predicted_HW.cpu().numpy()
    indices = {lesion: classes.index(lesion) + 1 for lesion in outlines}
    return (
        {lesion: label_map == index for lesion, index in indices.items()},
        {lesion: outline.cpu().numpy() for lesion, outline in outlines.items()},
        {lesion: probabilities_CHW[index].cpu().numpy() for lesion, index in indices.items()},
    )


def _overlap_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Compute Dice and IoU of each lesion, ``(..., C)``, from counts ``(..., C + 1, 3)``; NaN for absent lesions."""
    tp, fp, fn = np.moveaxis(counts[..., :-1, :], -1, 0)  # each (..., C)
    there = tp + fn > 0
    union = np.where(there, tp + fp + fn, 0)
    return {"dice_{}": ratio(2 * tp, union + np.where(there, tp, 0)), "iou_{}": ratio(tp, union)}


def _image_scores(counts_NC3: np.ndarray, looked_NC: np.ndarray, weights_N: np.ndarray) -> dict[str, np.ndarray]:
    """Compute means over photographs, ``(C,)``; NaN if no photograph counts.

    Args:
        counts_NC3: TP, FP and FN of each photograph and lesion.
        looked_NC: whether the lesion was annotated on the photograph.
        weights_N: how often each photograph counts.
    """
    tp, fp, fn = np.moveaxis(counts_NC3, -1, 0)  # each (N, C)
    there, union = tp + fn > 0, tp + fp + fn
    alarm = np.where(looked_NC & ~there, fp > 0, np.nan)
    values = {
        "image_dice_{}": ratio(2 * tp, np.where(there, union + tp, 0)),
        "image_iou_{}": ratio(tp, np.where(there, union, 0)),
        "false_alarm_{}": alarm,
        "detected_{}": np.where(looked_NC & there, tp + fp > 0, np.nan),
    }
    return {name: mean_over_images(of_images, weights_N) for name, of_images in values.items()}


def _presence_auroc(counts_NC3: np.ndarray, looked_at_px_NC: np.ndarray) -> np.ndarray:
    """Compute how well the predicted area ranks photographs with a lesion above those without, ``(C,)``.

    NaN for a lesion that all annotated photographs have, or none.
    """
    tp, fp, fn = np.moveaxis(counts_NC3, -1, 0)  # (N, C) each
    there, looked = tp + fn > 0, looked_at_px_NC > 0
    areas = ratio(tp + fp, looked_at_px_NC)
    found = np.empty(there.shape[1])
    for lesion in range(there.shape[1]):
        truth, area = there[looked[:, lesion], lesion], areas[looked[:, lesion], lesion]
        found[lesion] = auroc(area[truth], np.sort(area[~truth]))
    return found


def _paper_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the paper's Dice and IoU, ``(...)``, from the last row of counts, ``(..., 3)``."""
    right, wrong, _ = np.moveaxis(counts[..., -1, :], -1, 0)
    return {"lesions/paper_dice": ratio(right, right + wrong), "lesions/paper_iou": ratio(right, right + 2 * wrong)}


def _average_precision(positives: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Compute average precision ``(C,)`` from score histograms ``(C, bins)`` of lesion pixels and of all pixels."""
    found = positives[:, ::-1]  # (C, bins), highest score first
    precision = np.nan_to_num(ratio(found.cumsum(axis=1), pixels[:, ::-1].cumsum(axis=1)))  # (C, bins)
    return ratio((found * precision).sum(axis=1), found.sum(axis=1))


def _best_threshold(positives: np.ndarray, pixels: np.ndarray) -> float:
    """Return the best of the ``SCORE_BINS - 1`` thresholds between bins, from histograms ``(bins,)``."""
    # Pixels above each threshold, (bins - 1,).
    found, claimed = (bins[::-1].cumsum()[::-1][1:] for bins in (positives, pixels))
    dice = ratio(2 * found, claimed + positives.sum())  # (bins - 1,)
    best = np.flatnonzero(dice == dice.max())  # (equally good thresholds,)
    run = max(np.split(best, np.flatnonzero(np.diff(best) > 1) + 1), key=len)  # the longest without a gap
    return float((run[(len(run) - 1) // 2] + 0.5) / (SCORE_BINS - 1))


def _area_of_11(positives: np.ndarray, pixels: np.ndarray, above_0: np.ndarray) -> np.ndarray:
    """Compute the area ``(C,)`` under the precision-recall curve at the thresholds 0, 0.1, ..., 1, by trapezoids.

    A pixel is found if its score is above the threshold. Over the pixels of all photographs, the area is
    ``sum_k (R_k - R_{k+1}) (P_k + P_{k+1}) / 2``, with ``P = 1`` where nothing is found, as at the threshold 1.

    Args:
        positives: histograms ``(C, bins)`` of the scores of lesion pixels.
        pixels: the same for all pixels.
        above_0: number of lesion pixels and of all pixels with a score above 0, ``(2, C)``.

    Source:
        ``sigmoid_metrics`` in the code of M2MRF (Liu et al., Pattern Recognition 136, 2023) and of HRDecoder (Ding et
        al., MICCAI 2024).
    """
    above = SCORE_BINS - 1 - np.arange(1, 11) * (SCORE_BINS - 1) // 10  # (10,): bins above 0.1, ..., 1
    # Lesion pixels and all pixels above each of the 11 thresholds, each (C, 11).
    found, all_found = (
        np.column_stack([first, np.pad(bins[:, ::-1].cumsum(axis=1), ((0, 0), (1, 0)))[:, above]])
        for first, bins in zip(above_0, (positives, pixels), strict=True)
    )
    precision = np.nan_to_num(ratio(found, all_found), nan=1.0)  # (C, 11)
    recall = ratio(found, np.broadcast_to(positives.sum(axis=1)[:, None], found.shape))
    return ((recall[:, :-1] - recall[:, 1:]) * (precision[:, :-1] + precision[:, 1:]) / 2).sum(axis=1)
