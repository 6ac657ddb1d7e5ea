"""Named scores from per-lesion values, NaN where the denominator is zero."""

# flake8: noqa: N803

from collections.abc import Mapping, Sequence

import numpy as np


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
    counts = np.isfinite(values_NC)
    return ratio(weights_N @ np.where(counts, values_NC, 0), weights_N @ counts.astype(np.int64))


def named(by_lesion: Mapping[str, np.ndarray], classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Expand templates with values ``(..., C)`` into one entry per lesion and one for the mean of the defined values.

    With a single class, the mean is left out.

    Example:
        >>> {key: float(value) for key, value in named({"dice_{}": np.array([1.0, 0.5])}, ["EX", "SE"]).items()}
        {'lesions/dice_EX': 1.0, 'lesions/dice_SE': 0.5, 'lesions/dice_mean': 0.75}
    """
    found: dict[str, np.ndarray] = {}
    for template, values in by_lesion.items():
        found |= {f"lesions/{template.format(lesion)}": values[..., i] for i, lesion in enumerate(classes)}
        if len(classes) > 1:
            mean = ratio(np.nansum(values, axis=-1), np.isfinite(values).sum(axis=-1))
            found[f"lesions/{template.format('mean')}"] = mean
    return found
