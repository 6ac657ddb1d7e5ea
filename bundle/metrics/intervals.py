"""Confidence intervals: bootstrap over patients or photographs, t over folds, and exact ones of shares.

Photographs of one patient are alike, so the bootstrap draws clusters: a patient with all photographs, or a photograph
alone where its patient is not known. With K clusters of the N photographs, a resample draws K of them with replacement:
cluster k is in it ``m_k`` times, ``(m_1, ..., m_K) ~ Multinomial(K, (1/K, ..., 1/K))``, and so is each of its
photographs. A score of the resample counts photograph n of cluster k with the weight ``w_n = m_k``; the sum of the
weights is N on average. If every patient has one photograph, this is the bootstrap over photographs.

Source:
    Field & Welsh, "Bootstrapping clustered data", Journal of the Royal Statistical Society B 69:369-390, 2007.
"""

# flake8: noqa: N806

from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
from scipy.stats import binomtest, t

Patients = Sequence[Hashable | None]
"""The patient of each photograph, ``(N,)``; None where it is not known."""


def patients_of(images: int, patients: Patients | None) -> Patients:
    """Return the patients of N images, all unknown if none are given.

    Raises:
        ValueError: if there is not one patient, or None, for each image.

    Example:
        >>> patients_of(2, None)
        [None, None]
    """
    if patients is not None and len(patients) != images:
        raise ValueError(f"expected the patient of each of {images} photographs, or None, got {len(patients)}")
    return [None] * images if patients is None else patients


def clusters(patients: Patients) -> np.ndarray:
    """Number the clusters of the bootstrap in order of appearance, ``(N,)``: one for a patient, one for each unknown.

    Example:
        >>> clusters(["a", None, "b", "a", None])
        array([0, 1, 2, 0, 3])
    """
    number: dict[tuple[str, Hashable], int] = {}
    keys = [("photograph", n) if patient is None else ("patient", patient) for n, patient in enumerate(patients)]
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)


def image_weights(patients: Patients, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Yield for each resample how often it contains each photograph, ``(N,)``.

    Example:
        >>> [weights.tolist() for weights in image_weights(["a", "a", "b", "c"], seed=0, resamples=2)]
        [[1, 1, 1, 1], [0, 0, 0, 3]]
    """
    cluster_N = clusters(patients)
    K = len(set(cluster_N.tolist()))
    rng = np.random.default_rng(seed)
    return (rng.multinomial(K, np.full(K, 1 / K))[cluster_N] for _ in range(resamples))


def resampled_indices(patients: Patients, seed: int, resamples: int) -> list[np.ndarray]:
    """Return which photographs each resample of the bootstrap contains, the photographs of a cluster in a row.

    Example:
        >>> [draw.tolist() for draw in resampled_indices([None, None, None], seed=0, resamples=2)]
        [[2, 1, 1], [0, 0, 0]]
        >>> [draw.tolist() for draw in resampled_indices(["a", "b", "c", "b"], seed=0, resamples=2)]
        [[2, 1, 3, 1, 3], [0, 0, 0]]
    """
    cluster_N = clusters(patients)
    by_cluster = np.argsort(cluster_N, kind="stable")  # (N,) photographs
    sizes_K = np.bincount(cluster_N)
    starts_K = sizes_K.cumsum() - sizes_K
    drawn_RK = np.random.default_rng(seed).integers(len(sizes_K), size=(resamples, len(sizes_K)))
    return [by_cluster[_spans(starts_K[drawn], sizes_K[drawn])] for drawn in drawn_RK]


def _spans(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return ``start, start + 1, ..., start + size - 1`` of each span, one span after the other.

    Example:
        >>> _spans(np.array([5, 0]), np.array([2, 3]))
        array([5, 6, 0, 1, 2])
    """
    ends = sizes.cumsum()
    return np.arange(ends[-1]) + np.repeat(starts - ends + sizes, sizes)


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


def binomial_interval(hits: int, count: int) -> tuple[float, float]:
    """Return the exact 95 % interval of the share ``hits / count``; NaN for 0 of 0.

    Example:
        >>> [round(end, 3) for end in binomial_interval(9, 10)], binomial_interval(0, 0)
        ([0.555, 0.997], (nan, nan))

    Source:
        Clopper & Pearson, "The Use of Confidence or Fiducial Limits", Biometrika 26:404-413, 1934.
    """
    if not count:
        return float("nan"), float("nan")
    found = binomtest(hits, count).proportion_ci(confidence_level=0.95, method="exact")
    return float(found.low), float(found.high)


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
