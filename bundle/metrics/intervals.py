"""Confidence intervals: bootstrap over photographs, of one system and of differences between two; t over folds."""

# flake8: noqa: N806

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.stats import t


def image_weights(images: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Yield for each resample how often it contains each photograph, ``(N,)``.

    Example:
        >>> [int(weights.sum()) for weights in image_weights(5, seed=0, resamples=2)]
        [5, 5]
    """
    rng = np.random.default_rng(seed)
    return (rng.multinomial(images, np.full(images, 1 / images)) for _ in range(resamples))


def resampled_indices(images: int, seed: int, resamples: int) -> np.ndarray:
    """Return which photographs each resample of the bootstrap contains, ``(resamples, N)``.

    Example:
        >>> resampled_indices(3, seed=0, resamples=2)
        array([[2, 1, 1],
               [0, 0, 0]])
    """
    return np.random.default_rng(seed).integers(images, size=(resamples, images))


def percentile_intervals(samples: Sequence[Mapping[str, float | np.ndarray]]) -> dict[str, tuple[float, float]]:
    """Return the :func:`percentile_interval` of each score, from one set of scores per resample.

    Example:
        >>> percentile_intervals([{"grade/accuracy": 0.0}, {"grade/accuracy": 1.0}])
        {'grade/accuracy': (0.025, 0.975)}
    """
    return {key: percentile_interval(np.array([sample[key] for sample in samples])) for key in samples[0]}


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


def resampled_interval(values: Sequence[float], test_share: float) -> tuple[float, float]:
    """Compute the 95 % interval of a mean score by the corrected resampled t.

    For n values with mean m and sample variance s², it is

        m ± t_{n-1, 0.975} sqrt((1/n + n_test/n_train) s²)

    Folds of one cross-validation share most of their training photographs, so the values are not independent and
    the variance s²/n is too small; the second term corrects it. For a single value, both ends are NaN.

    Args:
        values: one per run, ``(n,)``; to compare two systems, the differences of their paired runs.
        test_share: ``n_test / n_train``: ``1 / (K - 1)`` for K folds, 0 for runs that differ only in their seed.

    Raises:
        ValueError: if a value is not finite or ``test_share`` is negative.

    Source:
        Nadeau & Bengio, "Inference for the Generalization Error", Machine Learning 52:239-281, 2003.

    Example:
        >>> low, high = resampled_interval([0.0, 1.0, 2.0], test_share=0.0)
        >>> round(low, 3), round(high, 3)
        (-1.484, 3.484)
    """
    values_N = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values_N).all():
        raise ValueError(f"expected finite values, got {values_N.tolist()}; leave undefined scores out")
    if not test_share >= 0:
        raise ValueError(f"expected test_share >= 0, got {test_share}")
    n = len(values_N)
    if n < 2:
        return float("nan"), float("nan")
    half = t.ppf(0.975, n - 1) * np.sqrt((1 / n + test_share) * values_N.var(ddof=1))
    return float(values_N.mean() - half), float(values_N.mean() + half)
