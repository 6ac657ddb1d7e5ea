"""How unlike a network's training photographs a photograph looks to that network: a distance in its features."""

# flake8: noqa: N803

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

AXES = 16
"""Largest number of principal axes; what lies beyond them has one variance in all directions."""

MARKED_SHARE = 0.025
"""Share of ordinary photographs that may be beyond the limit."""

PARTS = 5
"""Number of parts of the training photographs; each is compared with a fit of the others."""

PHOTOGRAPHS_MIN = 2 * PARTS
"""Fewer training photographs give parts of one."""

SMALLEST_VARIANCE = 1e-6
DIGITS = 5
"""Significant digits in a weights file."""

Rows = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Likeness:
    """A Gaussian of features, whose covariance is a few principal axes and one variance for the rest.

    With ``z = (x - mean) / scale``, ``c = axes z``: ``d^2 = sum_k c_k^2 / variances_k + (|z|^2 - |c|^2) / rest``, the
    Mahalanobis distance of probabilistic principal components (Tipping & Bishop, JRSS B 61(3), 1999). A covariance of
    hundreds of features from as many photographs needs such a shrinkage.

    Attributes:
        mean: mean of each feature, ``(D,)``.
        scale: its standard deviation, ``(D,)``.
        axes: orthonormal principal axes of ``z``, ``(K, D)``.
        variances: variances along them, ``(K,)``.
        rest: variance in every other direction.
        limit: distance beyond which a photograph counts as unlike the training.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> likeness = fit_likeness(rng.normal(size=(200, 6)), held_out_MD=rng.normal(size=(40, 6)))
        >>> near, far = likeness.unlikeness(np.array([np.zeros(6), np.full(6, 9.0)]))
        >>> bool(near < 0.5), bool(far > 2)
        (True, True)
    """

    mean: Rows
    scale: Rows
    axes: Rows
    variances: Rows
    rest: float
    limit: float

    def unlikeness(self, features_ND: Rows) -> Rows:
        """Return the distance of each photograph over the limit: above 1 it is unlike the training, ``(N,)``.

        Raises:
            ValueError: if the number of features is another.
        """
        return self._distances(features_ND) / self.limit

    def facts(self) -> dict[str, Any]:
        """Return plain numbers for a weights file, rounded to ``DIGITS`` digits."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def check(self) -> None:
        """Refuse wrong shapes, and numbers that are not finite or not positive.

        Raises:
            ValueError: if there are any.
        """
        (count,), (axes,) = self.mean.shape, self.variances.shape
        numbers = np.concatenate([np.ravel(value) for value in asdict(self).values()])
        positive = np.concatenate([self.scale, self.variances, [self.rest, self.limit]])
        shapes = self.scale.shape == (count,) and self.axes.shape == (axes, count)
        if not shapes or not np.isfinite(numbers).all() or not (positive > 0).all():
            raise ValueError("wrong shapes or numbers")

    def _distances(self, features_ND: Rows) -> Rows:
        features = np.asarray(features_ND, np.float64)
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ValueError(f"expected features (N, {len(self.mean)}), as the likeness has, got {features.shape}")
        z = (features - self.mean) / self.scale  # (N, D)
        along = z @ self.axes.T  # (N, K)
        beyond = (z**2).sum(axis=1) - (along**2).sum(axis=1)
        return np.sqrt((along**2 / self.variances).sum(axis=1) + np.maximum(beyond, 0) / self.rest)


def fit_likeness(training_ND: Rows, held_out_MD: Rows | None = None, marked_share: float = MARKED_SHARE) -> Likeness:
    """Fit the features of training photographs, with a limit that few other photographs exceed.

    The limit is a quantile of distances of photographs from a fit that does not know them: of the held-out ones, and of
    each fifth of the training photographs from a fit of the others. One fold alone is too small for a quantile.

    Args:
        training_ND: features of the training photographs.
        held_out_MD: features of photographs that are no part of these, if there are any.
        marked_share: share of these distances that are beyond the limit.

    Raises:
        ValueError: if there are fewer than ``PHOTOGRAPHS_MIN`` training photographs, the numbers of features differ,
            or a feature is not finite.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> training, others = rng.normal(size=(300, 4)), rng.normal(size=(2000, 4))
        >>> bool(0.01 < (fit_likeness(training).unlikeness(others) > 1).mean() < 0.05)
        True
    """
    training = _checked(training_ND, least=PHOTOGRAPHS_MIN)
    fitted, distances = _fit(training), [_cross_fitted(training)]
    if held_out_MD is not None:
        distances.append(fitted._distances(_checked(held_out_MD, least=1)))
    return replace(fitted, limit=float(np.quantile(np.concatenate(distances), 1 - marked_share)))


def _fit(training: Rows) -> Likeness:
    mean, scale = training.mean(axis=0), training.std(axis=0)
    scale = np.maximum(scale, np.sqrt(SMALLEST_VARIANCE))  # a feature that never varies
    z = (training - mean) / scale
    _, singular, axes = np.linalg.svd(z, full_matrices=False)
    variances = singular**2 / len(z)
    count, kept = z.shape[1], min(AXES, len(variances) // 2)
    rest = variances[kept:].sum() / max(1, count - kept)
    return Likeness(
        mean=mean, scale=scale, axes=axes[:kept], variances=np.maximum(variances[:kept], SMALLEST_VARIANCE),
        rest=float(max(rest, SMALLEST_VARIANCE)), limit=1.0,
    )  # fmt: skip


def likeness_of(facts: Mapping[str, Any] | None, path: str = "the weights file") -> Likeness | None:
    """Read the facts of a weights file; None if nothing was fitted.

    Raises:
        ValueError: if they are of another form.

    Example:
        >>> likeness_of(None) is None
        True
        >>> likeness_of({"mean": [1.0]}, "model.pt")
        Traceback (most recent call last):
            ...
        ValueError: expected a likeness of features in model.pt, got others; fit it again (configs/calibrate.yaml)
    """
    if facts is None:
        return None
    try:
        found = Likeness(**{name: _read(value) for name, value in facts.items()})
        found.check()
    except (TypeError, ValueError, AttributeError):
        raise ValueError(
            f"expected a likeness of features in {path}, got others; fit it again (configs/calibrate.yaml)"
        ) from None
    return found


def in_words(likeness: Likeness | None) -> str:
    """Say what becomes of photographs unlike the training ones.

    Example:
        >>> in_words(None)
        'not marked: these weights have no measure of it (configs/calibrate.yaml fits one)'
    """
    return "marked" if likeness else "not marked: these weights have no measure of it (configs/calibrate.yaml fits one)"


def _cross_fitted(training: Rows) -> Rows:
    """Return the distance of each photograph from a fit of the other parts."""
    parts = np.arange(len(training)) % PARTS
    distances = np.empty(len(training))
    for part in range(PARTS):
        distances[parts == part] = _fit(training[parts != part])._distances(training[parts == part])
    return distances


def _checked(features_ND: Rows, least: int) -> Rows:
    features = np.asarray(features_ND, np.float64)
    if features.ndim != 2 or len(features) < least:
        raise ValueError(f"expected features of {least} photographs or more, (N, D), got {features.shape}")
    if not np.isfinite(features).all():
        raise ValueError("expected finite features, got NaN or infinity; check the network")
    return features


def _plain(value: Rows | float) -> Any:  # noqa: ANN401  (a number, or lists of them)
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value]
    return float(f"{value:.{DIGITS}g}")


def _read(value: Any) -> Any:  # noqa: ANN401  (whatever stands in the file)
    return np.array(value, np.float64) if isinstance(value, list) else float(value)
