"""Transforms between an item and the input of the networks: the eye, cropped and resized, with its lesions."""

# flake8: noqa: N806

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from bundle.transforms.decode import load_photograph, resize_crop
from bundle.transforms.field import Crop, field_mask, field_of_view
from bundle.transforms.lesion_decision import lesion_decision
from bundle.transforms.native import native_labels
from bundle.transforms.outlines import LESION_PRIORITY, load_runs
from bundle.transforms.resize import resize_lesions, resize_mask
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from numpy.typing import NDArray

SIDE_MULTIPLE = 32
VERSION = 4
"""Version of the output of :class:`PrepareFundusd`; raised with every change, so that no older cache is used."""


class PrepareFundusd(Transform):
    """Deterministic reading of a photograph and its masks, cropped to a square around the eye and resized.

    The item contains file paths: ``image`` and, if there are outlines, ``masks`` by lesion and ``optic_disc``. Instead
    of a path, ``image`` may be decoded pixels, uint8 ``(H, W, 3)`` RGB.
    The result has ``image`` uint8 ``(3, S, S)`` RGB, ``lesions`` uint8 ``(1, S, S)`` label map, ``optic_disc`` uint8
    ``(1, S, S)`` in {0, 1}, and ``geometry`` float32 ``(5,)``: left, top, side, width and height in native pixels
    (:class:`bundle.transforms.field.Crop`).

    Args:
        image_size: ``S``, a multiple of 32.

    Raises:
        ValueError: if ``S`` is not a multiple of 32; when called, if a file is missing, truncated or of the wrong size.

    Example:
        >>> import tempfile
        >>> from PIL import Image, ImageDraw
        >>> picture = Image.new("RGB", (96, 64))
        >>> ImageDraw.Draw(picture).ellipse((20, 8, 67, 55), fill="brown")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     picture.save(f"{folder}/eye.png")
        ...     item = PrepareFundusd(32)({"image": f"{folder}/eye.png", "masks": {}, "optic_disc": ""})
        >>> item["image"].shape, item["geometry"].tolist()  # the square about the disc, 48 pixels wide
        (torch.Size([3, 32, 32]), [20.0, 8.0, 48.0, 96.0, 64.0])
    """

    def __init__(self, image_size: int) -> None:
        if image_size < SIDE_MULTIPLE or image_size % SIDE_MULTIPLE:
            raise ValueError(f"expected an image_size that is a multiple of {SIDE_MULTIPLE}, got {image_size}")
        self.image_size = image_size

    @property
    def settings(self) -> str:
        """Cache key: everything that the result depends on besides the item."""
        priority = "".join(LESION_PRIORITY)  # where lesions overlap
        return f"fundus{VERSION}_{priority}_{self.image_size}px"

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        pixels, (width_px, height_px), reduction, _ = load_photograph(data["image"], self.image_size)
        try:
            crop = Crop.about(field_of_view(pixels), width_px, height_px, reduction)
        except ValueError as error:
            name = "the array" if isinstance(data["image"], np.ndarray) else data["image"]
            raise ValueError(f"{name}: {error}") from None
        masks = {lesion: load_runs(path, width_px, height_px) for lesion, path in data.get("masks", {}).items()}
        return {
            **data,
            "image": torch.from_numpy(resize_crop(pixels, crop, self.image_size, reduction)).permute(2, 0, 1).clone(),
            "lesions": torch.from_numpy(resize_lesions(masks, crop, self.image_size))[None],
            "optic_disc": torch.from_numpy(self._optic_disc(data.get("optic_disc", ""), crop))[None],
            "geometry": torch.tensor(crop, dtype=torch.float32),
        }

    def _optic_disc(self, path: str, crop: Crop) -> NDArray[np.uint8]:
        if not path:
            return np.zeros((self.image_size, self.image_size), np.uint8)
        return resize_mask(load_runs(path, crop.width, crop.height), crop, self.image_size).astype(np.uint8)


class MeasureFieldd(Transform):
    """Area of the field of view in native pixels: adds ``field_px`` to an item from :class:`PrepareFundusd`.

    Example:
        >>> image = torch.zeros(3, 32, 32, dtype=torch.uint8)
        >>> image[:, 4:28, 8:24] = 200
        >>> geometry = torch.tensor([0.0, 0.0, 64.0, 96.0, 64.0])  # a pixel covers 2 x 2 native ones
        >>> MeasureFieldd()({"image": image, "geometry": geometry})["field_px"]  # 24 * 16 * 4
        tensor(1536)
    """

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        lit = field_mask(data["image"].amax(dim=0).numpy()).sum()
        px_per_pixel = (Crop.of(data["geometry"]).side / data["image"].shape[-1]) ** 2
        return {**data, "field_px": torch.tensor(max(1, round(float(lit) * px_per_pixel)))}


class CutDetaild(Transform):
    """The same square at native resolution or another size: reads ``path``, adds ``detail``, uint8 ``(3, L, L)``.

    As with ``image`` in ``PrepareFundusd``, ``path`` may be decoded pixels instead of a path.

    Args:
        lesion_size: ``L``, at least the ``image_size`` that the item was prepared at; None keeps native pixels.

    Raises:
        ValueError: when called, if ``lesion_size`` is smaller than the item's ``image_size``.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> geometry = torch.tensor([16.0, 8.0, 48.0, 96.0, 64.0])
        >>> item = {"image": torch.zeros(3, 32, 32, dtype=torch.uint8), "geometry": geometry}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (96, 64), "brown").save(f"{folder}/eye.png")
        ...     CutDetaild()({**item, "path": f"{folder}/eye.png"})["detail"].shape
        torch.Size([3, 48, 48])
    """

    def __init__(self, lesion_size: int | None = None) -> None:
        self.lesion_size = lesion_size

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        image_size = data["image"].shape[-1]
        if self.lesion_size is not None and self.lesion_size < image_size:
            raise ValueError(f"expected a lesion_size of {image_size} or more, got {self.lesion_size}")
        crop = Crop.of(data["geometry"])
        pixels, _, reduction, _ = load_photograph(data["path"], self.lesion_size)
        cut = resize_crop(pixels, crop, self.lesion_size or crop.side, reduction)
        return {**data, "detail": torch.from_numpy(cut).permute(2, 0, 1).contiguous()}


class NativeLabelsd(MapTransform):
    """Label map at native size, uint8 ``(1, H, W)``, from the class probabilities ``(C, S, S)`` of an item.

    The inverse of :class:`PrepareFundusd`; the item must have its ``geometry``.

    Args:
        keys: keys of the probabilities.
        thresholds: one per lesion (:func:`lesion_decision`); None takes the most probable class.

    Raises:
        ValueError: when called, if there is not one threshold in (0, 1] per lesion.
    """

    def __init__(self, keys: KeysCollection, thresholds: Sequence[float] | None = None) -> None:
        super().__init__(keys)
        self.thresholds = thresholds

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        found = dict(data)
        for key in self.key_iterator(found):
            probabilities_CSS = found[key].as_subclass(torch.Tensor)
            scores_CSS = lesion_decision(probabilities_CSS, self.thresholds)
            found[key] = torch.from_numpy(native_labels(scores_CSS, found["geometry"]))[None]
        return found
