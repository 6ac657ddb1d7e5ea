"""Overlays of lesions and heat maps on a photograph, and the lesion mask as an indexed PNG."""

import os

import numpy as np
from bundle.files import written_whole
from bundle.labels import LESION_COLOURS, LESIONS
from bundle.transforms.outlines import LESION_PRIORITY
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

PALETTE = np.array([(0, 0, 0), *(LESION_COLOURS[lesion] for lesion in LESIONS)], dtype=np.uint8)
"""RGB of each class of a label map; the background is black."""

LESION_HEX = {lesion: "#{:02x}{:02x}{:02x}".format(*colour) for lesion, colour in LESION_COLOURS.items()}

BAND_PX = 64
"""Rows in which lesions are drawn at a time: the floats of a whole photograph would take many times its memory."""

HEAT_OPACITY = 0.75
"""Opacity of the hottest pixel; the coldest is transparent."""

# Viridis is perceptually even, and its blue, green and yellow stand out from a red-brown fundus.
HEAT_RGBA = colormaps["viridis"](np.arange(256), bytes=True)  # (256, 4), uint8
HEAT_RGBA[:, 3] = np.linspace(0, 255 * HEAT_OPACITY, 256).round()


def lesion_overlay(image: NDArray[np.uint8], lesions: NDArray[np.uint8], alpha: float = 0.45) -> NDArray[np.uint8]:
    """Fill lesions with a tint of their colours and draw their outlines, one pixel wide and opaque.

    The outline lies inside the lesion: a lesion of two pixels is all outline and stays visible.

    Args:
        image: RGB ``(H, W, 3)``, uint8.
        lesions: label map ``(H, W)``, 0 background, 1-4 index in ``LESIONS`` + 1.
        alpha: opacity of the filling, 0-1.

    Returns:
        A new RGB image ``(H, W, 3)``, uint8.

    Raises:
        ValueError: if shapes differ, or a class is unknown.

    Example:
        >>> image = np.full((3, 4, 3), 100, np.uint8)
        >>> lesions = np.zeros((3, 4), np.uint8)
        >>> lesions[1, 1:3] = LESIONS.index("HE") + 1
        >>> lesion_overlay(image, lesions)[1].tolist()  # two pixels are all outline
        [[100, 100, 100], [255, 48, 48], [255, 48, 48], [100, 100, 100]]
    """
    _check_image(image)
    _check_lesions(lesions)
    if image.shape[:2] != lesions.shape:
        raise ValueError(f"expected lesions of the photograph's size {image.shape[:2]}, got {lesions.shape}")
    laid_over = image.copy()
    for start in range(0, len(lesions), BAND_PX):
        rows, columns = np.nonzero(lesions[start : start + BAND_PX] > 0)  # (n,) each
        inside = rows + start, columns
        opacity = np.where(_at_edge(lesions, *inside), 1.0, alpha)  # (n,)
        laid_over[inside] = _blend(image[inside], PALETTE[lesions[inside]], opacity)
    return laid_over


def _at_edge(lesions: NDArray[np.uint8], rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which pixels have a neighbour of another class above, below, left or right, within the picture."""
    own, (height, width) = lesions[rows, columns], lesions.shape  # own, rows and columns: (n,)
    around = (
        (np.maximum(rows - 1, 0), columns), (np.minimum(rows + 1, height - 1), columns),
        (rows, np.maximum(columns - 1, 0)), (rows, np.minimum(columns + 1, width - 1)),
    )  # fmt: skip
    return np.logical_or.reduce([lesions[place] != own for place in around])


def heat_overlay(image: NDArray[np.uint8], heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Lay a heat map over a photograph; opacity grows with heat.

    Args:
        image: RGB ``(H, W, 3)``, uint8.
        heat: ``(h, w)`` in [0, 1], of any size; it is resized to the photograph.

    Returns:
        A new RGB image ``(H, W, 3)``, uint8.

    Raises:
        ValueError: if the heat is not a map in [0, 1].

    Example:
        >>> image = np.full((2, 4, 3), 100, np.uint8)
        >>> found = heat_overlay(image, np.array([[0.0, 0.0, 1.0, 1.0]]))
        >>> found[0, 0].tolist(), found[0, 3].tolist()  # a quarter of 100, three quarters of yellow (253, 231, 36)
        ([100, 100, 100], [215, 198, 52])
    """
    _check_image(image)
    height_px, width_px = image.shape[:2]
    rgba = HEAT_RGBA[np.asarray(heat_picture(heat).resize((width_px, height_px), Image.Resampling.BILINEAR))]
    return _blend(image, rgba[..., :3], rgba[..., 3] / np.float32(255))


def heat_picture(heat: NDArray[np.floating]) -> Image.Image:
    """Return a heat map ``(h, w)`` as a grey picture whose values are row numbers of ``HEAT_RGBA``.

    Raises:
        ValueError: if the heat is not a map in [0, 1].

    Example:
        >>> np.asarray(heat_picture(np.array([[0.0, 0.2, 1.0]]))).tolist()
        [[0, 51, 255]]
    """
    if heat.ndim != 2 or not (heat.min() >= 0 and heat.max() <= 1):  # NaN fails as well
        raise ValueError(f"expected a heat map (h, w) in [0, 1], got shape {heat.shape}, {heat.min()} to {heat.max()}")
    return Image.fromarray((heat * 255).round().astype(np.uint8))


def shrink_lesions(lesions: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Shrink a label map ``(H, W)`` to ``(width, height)``; where lesions meet, ``LESION_PRIORITY`` decides.

    Example:
        >>> lesions = np.array([[3, 1, 0, 0], [3, 3, 0, 2]], np.uint8)
        >>> shrink_lesions(lesions, (2, 1))  # microaneurysms go before exudates
        array([[1, 2]], dtype=uint8)
    """
    rank = np.zeros(len(LESIONS) + 1, dtype=np.uint8)
    for importance, lesion in enumerate(reversed(LESION_PRIORITY), start=1):
        rank[LESIONS.index(lesion) + 1] = importance
    rows, columns = (np.arange(n) * total // n for n, total in zip(size[::-1], lesions.shape, strict=True))
    ends = np.maximum(np.append(rows[1:], len(lesions)), rows + 1)  # where the map grows, rows repeat
    # A loop over rows, because reduceat along the first axis takes three times as long.
    bands = [rank[lesions[start:end]].max(axis=0) for start, end in zip(rows, ends, strict=True)]  # (W,) each
    highest = np.maximum.reduceat(np.stack(bands), columns, axis=1)  # (height, width)
    return np.argsort(rank).astype(np.uint8)[highest]  # argsort inverts rank: from importance back to class


def write_mask_png(path: str | os.PathLike, lesions: NDArray[np.uint8]) -> None:
    """Write a label map ``(H, W)`` as a PNG whose pixel values are the classes and whose palette shows their colours.

    Raises:
        ValueError: if a class is unknown.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_mask_png(f"{folder}/7.png", np.array([[0, 1, 3]], np.uint8))
        ...     picture = Image.open(f"{folder}/7.png")
        ...     np.asarray(picture).tolist(), picture.convert("RGB").getpixel((1, 0)) == LESION_COLOURS["MA"]
        ([[0, 1, 3]], True)
    """
    _check_lesions(lesions)
    picture = Image.fromarray(lesions.astype(np.uint8))
    picture.putpalette(PALETTE.tobytes())
    with written_whole(path) as beside:
        picture.save(beside, format="PNG", compress_level=1)


def _blend(image: NDArray[np.uint8], colour: NDArray[np.uint8], opacity: NDArray[np.floating]) -> NDArray[np.uint8]:
    opacity = opacity[..., None]  # (..., 1), for the channels of the pictures
    return (image * (1 - opacity) + colour * opacity).round().astype(np.uint8)


def _check_image(image: NDArray[np.uint8]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected an RGB image (H, W, 3) of uint8, got {image.shape} of {image.dtype}")


def _check_lesions(lesions: NDArray[np.uint8]) -> None:
    if lesions.ndim != 2 or lesions.dtype.kind not in "ui":
        raise ValueError(f"expected a label map (H, W) of integers, got {lesions.shape} of {lesions.dtype}")
    if lesions.min() < 0 or lesions.max() > len(LESIONS):
        raise ValueError(f"expected classes 0 to {len(LESIONS)} in a label map, got {np.unique(lesions).tolist()}")
