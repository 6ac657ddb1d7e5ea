"""Resize outlines by area, without losing a lesion."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from bundle.labels import LESION_PRIORITY, LESIONS
from bundle.transforms.geometry import Crop
from bundle.transforms.lesions import Mask

ROUNDING = 1e-9


def resize_mask(mask: Mask, crop: Crop, image_size: int) -> Mask:
    """Resize one mask: it keeps the pixels of which it covers at least half.

    Returns:
        ``(image_size, image_size)``.
    """
    share = _shares(mask, 1, crop, image_size).toarray()
    return (share >= 0.5 - ROUNDING).reshape(image_size, image_size)


def resize_lesions(masks: Mapping[str, Mask], crop: Crop, image_size: int) -> NDArray[np.uint8]:
    """Resize the masks of a photograph into one label map in which every lesion keeps a pixel.

    A pixel goes to the lesion that covers at least half of it, by ``LESION_PRIORITY`` where two do. A connected
    component that got none this way then gets the pixel that it covers best. Where this is the last pixel of another
    component, one of the two moves to its next best pixel; if neither can, ``LESION_PRIORITY`` decides.

    Args:
        masks: lesion to ``(H, W)`` at native size.
        crop: the square, in native pixels.
        image_size: side of the result.

    Returns:
        ``(image_size, image_size)``: 0 background, else the index in ``LESIONS`` + 1.
    """
    labels = np.zeros(image_size**2, np.uint8)
    lesions = [lesion for lesion in LESION_PRIORITY if lesion in masks and masks[lesion].any()]
    if not lesions:
        return labels.reshape(image_size, image_size)
    shares = [_component_shares(masks[lesion], crop, image_size) for lesion in lesions]
    classes = [LESIONS.index(lesion) + 1 for lesion in lesions]
    for label, share in reversed(list(zip(classes, shares, strict=True))):
        labels[share.sum(axis=0) >= 0.5 - ROUNDING] = label
    class_of = np.repeat(classes, [share.shape[0] for share in shares])
    _Rescue(labels, sparse.vstack(shares, format="csr"), class_of).run()
    return labels.reshape(image_size, image_size)


def _component_shares(mask: Mask, crop: Crop, image_size: int) -> sparse.csr_array:
    components, count = ndimage.label(mask, np.ones((3, 3)))
    return _shares(components, count, crop, image_size)


def _shares(parts: NDArray, count: int, crop: Crop, image_size: int) -> sparse.csr_array:
    """Tell how much of each resized pixel each part of a mask covers.

    Args:
        parts: ``(H, W)``, 0 outside of the mask, else the number of the part, from 1.
        count: of the parts.
        crop: the square, in native pixels.
        image_size: side of the result.

    Returns:
        ``(count, image_size ** 2)``, 0 to 1.
    """
    height_px, width_px = parts.shape
    y, x = np.divmod(np.flatnonzero(parts), width_px)
    down = _overlap(crop.top, crop.side, height_px, image_size)
    across = _overlap(crop.left, crop.side, width_px, image_size)
    pixel = down.pixel[y][:, :, None] * image_size + across.pixel[x][:, None, :]
    share = down.share[y][:, :, None] * across.share[x][:, None, :]
    part = np.broadcast_to(parts[y, x].astype(np.int64)[:, None, None] - 1, pixel.shape)
    seen = share > ROUNDING
    return sparse.csr_array((share[seen], (part[seen], pixel[seen])), (count, image_size**2))


class _Overlap(NamedTuple):
    """Along one axis: the resized pixels that each native pixel reaches, and its share of each; ``(native, reach)``."""

    pixel: NDArray[np.int64]
    share: NDArray[np.float64]


def _overlap(start_px: int, side_px: int, native_px: int, image_size: int) -> _Overlap:
    length = image_size / side_px  # of a native pixel, in resized ones
    begin = (np.arange(native_px)[:, None] - start_px) * length
    pixel = np.floor(begin).astype(np.int64) + np.arange(int(np.ceil(length)) + 1)
    share = np.clip(np.minimum(begin + length, pixel + 1) - np.maximum(begin, pixel), 0, None)
    inside = (pixel >= 0) & (pixel < image_size)
    return _Overlap(pixel, np.where(inside, share, 0))


class _Rescue:
    """Give a pixel to every component that has none, sparing those that have but one.

    Args:
        labels: ``(pixels,)`` label map; changed in place.
        shares: ``(components, pixels)`` share of each pixel that each component covers.
        class_of: ``(components,)`` class of each component, in the order of ``LESION_PRIORITY``.
    """

    def __init__(self, labels: NDArray[np.uint8], shares: sparse.csr_array, class_of: NDArray[np.int64]) -> None:
        self.labels, self.shares, self.class_of = labels, shares, class_of
        self.by_pixel = shares.tocsc()
        component = np.repeat(np.arange(len(class_of)), np.diff(shares.indptr))
        has = labels[shares.indices] == class_of[component]
        self.held = np.bincount(component[has], minlength=len(class_of))

    def run(self) -> None:
        """Settle the homeless by priority, so that whom a prior one puts out has its own turn later."""
        for component in range(len(self.class_of)):
            if not self.held[component]:
                self._settle(component)

    def _settle(self, component: int) -> None:
        wanted = self._wanted(component)
        needing = {pixel: self._needing(pixel) for pixel in wanted}
        free = [pixel for pixel in wanted if not needing[pixel]]
        moves = [pixel for pixel in wanted if len(needing[pixel]) == 1 and self._elsewhere(needing[pixel][0], pixel)]
        # Components are numbered by priority, and those that share their class share their pixels.
        outranked = [pixel for pixel in wanted if needing[pixel] and needing[pixel][0] > component]
        if not free and moves:
            other = needing[moves[0]][0]
            self._give(other, self._elsewhere(other, moves[0])[0])
        for pixel in (free or moves or outranked)[:1]:
            self._give(component, pixel)

    def _elsewhere(self, component: int, pixel: int) -> list[int]:
        """List the other pixels that a component can take without harm."""
        return [other for other in self._wanted(component) if other != pixel and not self._needing(other)]

    def _wanted(self, component: int) -> list[int]:
        """List the pixels that a component touches, the best covered first."""
        row = slice(*self.shares.indptr[component : component + 2])
        best_first = np.argsort(-self.shares.data[row], kind="stable")
        return self.shares.indices[row][best_first].tolist()

    def _touching(self, pixel: int) -> NDArray[np.integer]:
        return self.by_pixel.indices[slice(*self.by_pixel.indptr[pixel : pixel + 2])]

    def _needing(self, pixel: int) -> list[int]:
        """List the components for which this is the last pixel."""
        touching = self._touching(pixel)
        mine = (self.class_of[touching] == self.labels[pixel]) & (self.held[touching] == 1)
        return touching[mine].tolist()

    def _give(self, component: int, pixel: int) -> None:
        touching = self._touching(pixel)
        self.held[touching[self.class_of[touching] == self.labels[pixel]]] -= 1
        self.labels[pixel] = self.class_of[component]
        self.held[touching[self.class_of[touching] == self.labels[pixel]]] += 1
