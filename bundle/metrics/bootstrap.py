"""The 95 % bootstrap interval of every reported score."""

from collections.abc import Iterator

import numpy as np


def image_weights(images: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Yield for each resample how often it contains each photograph, ``(N,)``.

    Example:
        >>> [int(weights.sum()) for weights in image_weights(5, seed=0, resamples=2)]
        [5, 5]
    """
    rng = np.random.default_rng(seed)
    return (rng.multinomial(images, np.full(images, 1 / images)) for _ in range(resamples))


def percentile_interval(samples: np.ndarray) -> tuple[float, float]:
    """Return the 2.5th and 97.5th percentile of a score's bootstrap samples ``(R,)``.

    Resamples in which the score is undefined (NaN) are skipped; if it is undefined in all, both ends are NaN.

    Example:
        >>> percentile_interval(np.array([0.0, np.nan, 1.0]))
        (0.025, 0.975)
    """
    defined = samples[np.isfinite(samples)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)
