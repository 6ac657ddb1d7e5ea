"""Resizing of lesion outlines by area, without losing a lesion."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from bundle.labels import LESIONS
from bundle.transforms.components import components_of
from bundle.transforms.field import Crop
from bundle.transforms.outlines import LESION_PRIORITY, Mask
from bundle.transforms.runs import Indices, Runs
from numpy.typing import NDArray
from scipy import sparse

ROUNDING = 1e-9


def resize_mask(runs: Runs, crop: Crop, image_size: int) -> Mask:
    """Resize one mask; the result contains the pixels that the mask covers by at least half.

    Returns:
        ``(image_size, image_size)``.

    Example:
        >>> from bundle.transforms.runs import runs_of
        >>> mask = np.zeros((4, 6), dtype=bool)
        >>> mask[0, :3] = mask[1, 0] = True
        >>> resize_mask(runs_of(mask), Crop(left=0, top=0, side=4, width=6, height=4), image_size=2)  # 3/4 and 1/4
        array([[ True, False],
               [False, False]])
    """
    share = _shares(runs, np.zeros(len(runs.row), np.int32), 1, crop, image_size)
    return (_cover(share, image_size) >= 0.5 - ROUNDING).reshape(image_size, image_size)


def resize_lesions(masks: Mapping[str, Runs], crop: Crop, image_size: int) -> NDArray[np.uint8]:
    """Resize the masks of a photograph into one label map in which every lesion keeps a pixel.

    A pixel goes to the lesion that covers at least half of it; if two do, ``LESION_PRIORITY`` decides. A connected
    component that is left without a pixel then gets the pixel that it covers best. If this is the last pixel of
    another component, one of the two moves to its next best pixel; if neither can, ``LESION_PRIORITY`` decides.

    Args:
        masks: lesion to the runs of its mask at native size.
        crop: the square, in native pixels.
        image_size: side of the result.

    Returns:
        ``(image_size, image_size)``: 0 background, else the index in ``LESIONS`` + 1.

    Example:
        >>> from bundle.transforms.runs import runs_of
        >>> spot = np.zeros((4, 6), dtype=bool)
        >>> spot[1, 2] = True
        >>> crop = Crop(left=1, top=0, side=4, width=6, height=4)
        >>> resize_lesions({"MA": runs_of(spot)}, crop, image_size=2)  # it covers a quarter, and keeps its pixel
        array([[1, 0],
               [0, 0]], dtype=uint8)
    """
    labels = np.zeros(image_size**2, np.uint8)
    prior = [lesion for lesion in LESION_PRIORITY if lesion in masks]
    if not prior:
        return labels.reshape(image_size, image_size)
    shares = [_shares(masks[lesion], *components_of(masks[lesion]), crop, image_size) for lesion in prior]
    for lesion, share in reversed(list(zip(prior, shares, strict=True))):
        labels[_cover(share, image_size) >= 0.5 - ROUNDING] = LESIONS.index(lesion) + 1
    class_of = np.repeat([LESIONS.index(lesion) + 1 for lesion in prior], [share.parts for share in shares])  # (N,)
    every = _stacked(shares)
    if not _all_have_pixels(labels, every, class_of):
        _Assignment(labels, every.matrix(image_size), class_of).complete()
    return labels.reshape(image_size, image_size)


class _Shares(NamedTuple):
    """Share of each resized pixel that each part of a mask covers; ``(E,)`` entries, and repeated ones add up."""

    part: Indices
    pixel: Indices
    share: NDArray[np.floating]
    parts: int

    def matrix(self, image_size: int) -> sparse.csr_array:
        """Sum the entries to a matrix: ``(parts, image_size ** 2)``, 0 to 1."""
        return sparse.csr_array((self.share, (self.part, self.pixel)), (self.parts, image_size**2))


def _shares(runs: Runs, part: Indices, count: int, crop: Crop, image_size: int) -> _Shares:
    """Compute the share of each resized pixel that each part of a mask covers.

    Each of the ``R`` runs is cut first into the ``D`` strips that lie in one resized row each, then into the ``E``
    pieces that lie in one resized pixel each.

    Args:
        runs: runs of the mask.
        part: ``(R,)`` number of the part that each run belongs to.
        count: number of parts.
        crop: the square, in native pixels.
        image_size: side of the result.
    """
    scale = image_size / crop.side
    top, bottom = (runs.row - crop.top) * scale, (runs.row + 1 - crop.top) * scale  # (R,) each
    left, right = (runs.start - crop.left) * scale, (runs.stop - crop.left) * scale  # (R,) each
    down = _overlap(top, bottom, image_size)  # (D,)
    across = _overlap(left[down.source], right[down.source], image_size)  # (E,)
    strip = across.source  # (E,) indices into D
    pixel = down.pixel[strip] * np.int32(image_size) + across.pixel  # (E,) flat indices
    return _Shares(part[down.source[strip]], pixel, down.share[strip] * across.share, count)


def _stacked(shares: Sequence[_Shares]) -> _Shares:
    """Join the shares of several masks, with their parts numbered consecutively."""
    before = np.cumsum([0, *(share.parts for share in shares)])  # (masks + 1,) parts of the masks before
    part = [share.part + np.int32(first) for share, first in zip(shares, before[:-1], strict=True)]
    pixel, share = [share.pixel for share in shares], [share.share for share in shares]
    return _Shares(np.concatenate(part), np.concatenate(pixel), np.concatenate(share), int(before[-1]))


def _cover(shares: _Shares, image_size: int) -> NDArray[np.number]:
    """Sum the shares of all parts for each pixel: ``(image_size ** 2,)``."""
    return np.bincount(shares.pixel, weights=shares.share, minlength=image_size**2)


def _all_have_pixels(labels: NDArray[np.uint8], shares: _Shares, class_of: NDArray[np.int64]) -> bool:
    """Return whether every component that lies in the square touches a pixel of its class."""
    own = labels[shares.pixel] == class_of[shares.part]  # (E,)
    has_pixel = np.zeros(shares.parts, bool)  # (N,)
    has_pixel[shares.part[own]] = True
    return bool(has_pixel[shares.part].all())


class _Overlap(NamedTuple):
    """Overlaps of intervals and resized pixels along one axis, with the share of the pixel; ``(E,)`` entries."""

    source: Indices  # index of the interval
    pixel: Indices
    share: NDArray[np.floating]


def _overlap(begin: NDArray[np.floating], end: NDArray[np.floating], image_size: int) -> _Overlap:
    # (I,) each: interval i touches the pixels first[i], ..., after[i] - 1
    first = np.floor(begin + ROUNDING).astype(np.int32).clip(0, image_size)
    after = np.ceil(end - ROUNDING).astype(np.int32).clip(0, image_size)
    count = (after - first).clip(0)
    # (E,) each
    source = np.repeat(np.arange(len(count), dtype=np.int32), count)
    pixel = np.arange(count.sum(), dtype=np.int32) - np.repeat(np.cumsum(count) - count, count) + first[source]
    share = np.minimum(end[source], pixel + 1) - np.maximum(begin[source], pixel)
    return _Overlap(source, pixel, share)


class _Assignment:
    """Assignment of a pixel to every component without one, if possible not the last pixel of another component.

    A component owns the pixels that it touches and that have its class. ``N`` components and ``P`` pixels.

    Args:
        labels: ``(P,)`` label map; changed in place.
        shares: ``(N, P)`` share of each pixel that each component covers.
        class_of: ``(N,)`` class of each component, in the order of ``LESION_PRIORITY``.
    """

    def __init__(self, labels: NDArray[np.uint8], shares: sparse.csr_array, class_of: NDArray[np.int64]) -> None:
        self.labels, self.shares, self.class_of = labels, shares, class_of
        self.by_pixel = shares.tocsc()
        component = np.repeat(np.arange(len(class_of)), np.diff(shares.indptr))  # (entries,)
        own = labels[shares.indices] == class_of[component]  # (entries,)
        self.pixels_owned = np.bincount(component[own], minlength=len(class_of))  # (N,)

    def complete(self) -> None:
        """Go through the components without a pixel, in order of priority.

        A component that loses its last pixel to one of a higher priority comes later in this order, so it gets another.
        """
        for component in range(len(self.class_of)):
            if not self.pixels_owned[component]:
                self._assign(component)

    def _assign(self, component: int) -> None:
        """Give a component the best pixel of the first kind that there is; none if there is no such pixel.

        1. It is no component's last pixel.
        2. It is the last pixel of one component, which can move to another pixel.
        3. It is the last pixel of components of a lower priority.
        """
        touched = self._by_share(component)
        losers = {pixel: self._owners_of_last(pixel) for pixel in touched}
        free = [pixel for pixel in touched if not losers[pixel]]
        movable = [
            pixel for pixel in touched if len(losers[pixel]) == 1 and self._alternatives(losers[pixel][0], pixel)
        ]
        # Components are numbered by priority. All owners of a pixel have one class, so the first one is enough.
        outranked = [pixel for pixel in touched if losers[pixel] and losers[pixel][0] > component]
        if not free and movable:
            loser = losers[movable[0]][0]
            self._set_owner(self._alternatives(loser, movable[0])[0], loser)
        for pixel in (free or movable or outranked)[:1]:
            self._set_owner(pixel, component)

    def _alternatives(self, component: int, pixel: int) -> list[int]:
        """List the other pixels that a component can take without another component losing its last pixel."""
        return [other for other in self._by_share(component) if other != pixel and not self._owners_of_last(other)]

    def _by_share(self, component: int) -> list[int]:
        """List the pixels that a component touches, best covered first."""
        row = slice(*self.shares.indptr[component : component + 2])
        best_first = np.argsort(-self.shares.data[row], kind="stable")
        return self.shares.indices[row][best_first].tolist()

    def _owners(self, pixel: int) -> NDArray[np.integer]:
        """Return the components that touch a pixel and have its class."""
        touching = self.by_pixel.indices[slice(*self.by_pixel.indptr[pixel : pixel + 2])]
        return touching[self.class_of[touching] == self.labels[pixel]]

    def _owners_of_last(self, pixel: int) -> list[int]:
        """List the components that own this pixel and no other."""
        owners = self._owners(pixel)
        return owners[self.pixels_owned[owners] == 1].tolist()

    def _set_owner(self, pixel: int, component: int) -> None:
        self.pixels_owned[self._owners(pixel)] -= 1
        self.labels[pixel] = self.class_of[component]
        self.pixels_owned[self._owners(pixel)] += 1
