"""Augmentation that reads each pixel once and keeps uint8: one warp for geometry, lookup tables for colour.

Crops about lesions are MONAI's: ``crop_px`` in ``configs/train.yaml``.
"""

# flake8: noqa: N803

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from monai.transforms import MapTransform, RandomizableTransform
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.float64]

INTERPOLATIONS = {"bilinear": cv2.INTER_LINEAR, "nearest": cv2.INTER_NEAREST}


class RandFundusAffined(RandomizableTransform, MapTransform):
    """Random flips, quarter turns, rotation and zoom of a square image, the same for all keys.

    Equivalent to MONAI's ``RandFlipd`` along each axis, ``RandRotate90d``, ``RandRotated`` and ``RandZoomd`` in
    sequence, each with probability ``prob``. Their matrices are multiplied first, ``M = Z R Q F``, so that there is one
    interpolation instead of two. Pixels from outside the square are 0.

    Args:
        keys: keys of uint8 tensors ``(C, S, S)``.
        mode: ``bilinear`` or ``nearest`` for each key; label maps need ``nearest``.
        prob: probability of each of the five steps.
        rotation_max_rad: largest rotation in either direction.
        zoom_max: largest magnification; 1 means no zoom.

    Raises:
        ValueError: if a mode is unknown, the numbers of modes and keys differ, or a number is out of range; when
            called, if a value is not square or not uint8.

    Example:
        >>> augment = RandFundusAffined(["image"], ["bilinear"], prob=1.0, rotation_max_rad=0.0, zoom_max=1.0)
        >>> image = torch.tensor([[[10, 20], [30, 40]]], dtype=torch.uint8)
        >>> sorted(augment({"image": image})["image"].flatten().tolist())  # flips and quarter turns mix no pixels
        [10, 20, 30, 40]
    """

    def __init__(
        self,
        keys: Sequence[Hashable],
        mode: Sequence[str],
        prob: float = 0.5,
        rotation_max_rad: float = 0.26,
        zoom_max: float = 1.2,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=1.0)
        if len(mode) != len(self.keys) or not set(mode) <= set(INTERPOLATIONS):
            raise ValueError(f"expected one of {list(INTERPOLATIONS)} for each of the keys {self.keys}, got {mode}")
        if not (0 <= prob <= 1 and rotation_max_rad >= 0 and zoom_max >= 1):
            raise ValueError(
                f"expected prob in [0, 1], rotation_max_rad >= 0 and zoom_max >= 1, got {prob}, {rotation_max_rad} and "
                f"{zoom_max}"
            )
        self.mode, self.step_prob = mode, prob
        self.rotation_max_rad, self.zoom_max = rotation_max_rad, zoom_max

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize()
        changed = {key: warp(data[key], self.matrix, mode) for key, mode in zip(self.keys, self.mode, strict=True)}
        return {**data, **changed}

    def randomize(self, data: Any = None) -> None:  # noqa: ANN401  (MONAI's signature)
        """Draw the ``(2, 2)`` matrix that moves pixels about the centre, x first."""
        draw = self.R
        flips = [-1.0 if draw.random() < self.step_prob else 1.0 for _ in range(2)]
        quarters = draw.randint(1, 4) if draw.random() < self.step_prob else 0
        angle = draw.uniform(-self.rotation_max_rad, self.rotation_max_rad) if draw.random() < self.step_prob else 0.0
        zoom = draw.uniform(1, self.zoom_max) if draw.random() < self.step_prob else 1.0
        self.matrix = zoom * rotation(angle) @ QUARTER_TURNS[quarters] @ np.diag(flips)


def rotation(angle_rad: float) -> Matrix:
    """Return the matrix of a rotation about the centre.

    Example:
        >>> rotation(np.pi / 2).round(3) + 0  # to the right goes down
        array([[ 0., -1.],
               [ 1.,  0.]])
    """
    return np.array([[np.cos(angle_rad), -np.sin(angle_rad)], [np.sin(angle_rad), np.cos(angle_rad)]])


QUARTER_TURNS = [np.round(rotation(quarters * np.pi / 2)) for quarters in range(4)]
"""Rounded to exact integers, so that a quarter turn moves pixels without interpolation."""


def warp(image_CSS: Tensor, matrix: Matrix, mode: str) -> Tensor:
    """Transform a square image about its centre: the pixel at ``c + p`` moves to ``c + M p``; outside is 0.

    Args:
        image_CSS: uint8; not modified.
        matrix: ``M``, ``(2, 2)``, x first.
        mode: ``bilinear`` or ``nearest``.

    Raises:
        ValueError: if the image is not square or not uint8.

    Example:
        >>> image = torch.tensor([[[1, 2], [3, 4]]], dtype=torch.uint8)
        >>> warp(image, np.diag([-1.0, 1.0]), "nearest").tolist()  # flipped from left to right
        [[[2, 1], [4, 3]]]
    """
    if image_CSS.dtype != torch.uint8 or image_CSS.ndim != 3 or image_CSS.shape[1] != image_CSS.shape[2]:
        raise ValueError(f"expected uint8 (C, S, S), got {image_CSS.dtype} {tuple(image_CSS.shape)}")
    if _moves_whole_pixels(matrix):
        return _moved(image_CSS, matrix)
    side = image_CSS.shape[1]
    centre = np.full(2, (side - 1) / 2)
    affine = np.column_stack([matrix, centre - matrix @ centre])  # (2, 3)
    planes = image_CSS.as_subclass(torch.Tensor).numpy()
    moved = [cv2.warpAffine(np.ascontiguousarray(p), affine, (side, side), flags=INTERPOLATIONS[mode]) for p in planes]
    return torch.from_numpy(np.stack(moved))


def _moves_whole_pixels(matrix: Matrix) -> bool:
    return np.array_equal(matrix @ matrix.T, np.eye(2)) and np.array_equal(matrix, matrix.round())


def _moved(image_CSS: Tensor, matrix: Matrix) -> Tensor:
    """Apply quarter turns and flips, without interpolation."""
    turned = matrix[0, 0] == 0
    image = image_CSS.transpose(1, 2) if turned else image_CSS
    signs = matrix[[1, 0], [0, 1]] if turned else matrix[[1, 0], [1, 0]]  # for the result's rows, columns
    return image.flip([axis for axis, sign in zip((1, 2), signs, strict=True) if sign < 0]).contiguous()


class RandColourd(RandomizableTransform, MapTransform):
    """Random brightness, white balance and gamma of a photograph, by one lookup table per channel.

    A byte ``x`` of channel ``c`` becomes ``255 min(1, g h_c (x / 255)^q)``, where ``log g``, ``log h_c`` and ``log q``
    are uniform in ``[-strength, strength]``, ``[-strength/2, strength/2]`` and ``[-strength, strength]``. Black, as
    outside the eye, stays black.

    Args:
        keys: keys of uint8 tensors ``(C, H, W)``.
        strength: largest change; 0 changes nothing and draws no random number.

    Raises:
        ValueError: if the strength is negative or not finite; when called, if a value is not uint8.

    Example:
        >>> image = torch.full((3, 2, 4), 100, dtype=torch.uint8)
        >>> changed = RandColourd(["image"], strength=0.3).set_random_state(0)({"image": image})["image"]
        >>> changed[:, 0, 0].tolist(), image.unique().tolist()
        ([93, 92, 88], [100])
    """

    def __init__(self, keys: Sequence[Hashable], strength: float) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=1.0)
        if not 0 <= strength < np.inf:
            raise ValueError(f"expected a strength of colour changes of 0 or more, got {strength}")
        self.strength = strength

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        if self.strength == 0:
            return dict(data)
        channels = {len(data[key]) for key in self.keys}
        self.randomize(max(channels))
        return {**data, **{key: looked_up(data[key], self.tables) for key in self.keys}}

    def randomize(self, channels: int) -> None:
        """Draw the lookup tables ``(channels, 256)``."""
        most = self.strength
        gain, gamma = self.R.uniform(-most, most), self.R.uniform(-most, most)
        balance = self.R.uniform(-most / 2, most / 2, size=(channels, 1))
        bytes_256 = (np.arange(256) / 255) ** np.exp(gamma)
        self.tables = np.rint(255 * np.minimum(1, np.exp(gain + balance) * bytes_256)).astype(np.uint8)


def looked_up(image_CHW: Tensor, tables: NDArray[np.uint8]) -> Tensor:
    """Return a copy of an image with its bytes replaced by one lookup table per channel.

    Args:
        image_CHW: uint8.
        tables: ``(C, 256)``.

    Raises:
        ValueError: if the image is not uint8.

    Example:
        >>> negative = np.arange(255, -1, -1, dtype=np.uint8)[None]
        >>> looked_up(torch.tensor([[[0, 10]]], dtype=torch.uint8), negative).tolist()
        [[[255, 245]]]
    """
    if image_CHW.dtype != torch.uint8 or image_CHW.ndim != 3:
        raise ValueError(f"expected uint8 (C, H, W), got {image_CHW.dtype} {tuple(image_CHW.shape)}")
    planes = image_CHW.as_subclass(torch.Tensor).numpy()
    return torch.from_numpy(np.stack([table[plane] for table, plane in zip(tables, planes, strict=True)]))
