"""The 95 % interval of a mean over folds and seeds with overlapping training sets."""

# flake8: noqa: N806

from collections.abc import Sequence

import numpy as np
from scipy.stats import t


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
