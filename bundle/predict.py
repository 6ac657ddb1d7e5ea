"""Photographs that are in memory, as arrays: what configs/inference.yaml says of the same pixels, without files."""

# flake8: noqa: N803

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from bundle import ROOT
from bundle.datasets.photographs import PhotographDataset, collate, reason_of
from bundle.handlers.predictions import Prediction, PredictionHandler, predicted
from bundle.networks.weights import refuse_fused
from monai.bundle.config_parser import ConfigParser
from numpy.typing import NDArray

CONFIG = ROOT / "configs" / "inference.yaml"
WEIGHTS = ROOT / "models" / "model.pt"
DECIDING = ("min_area_ppm", "lesion_thresholds", "abstain_below")
OPTIONS = (
    *DECIDING, "image_size", "device", "backend", "amp", "flips", "window_px", "lesion_size",
)  # fmt: skip
"""Of the config, all that change what is seen; the others are of files."""


class Predictor:
    """Find the lesions, the grade and its heat map on photographs ``(H, W, 3)``, RGB of 8 bits, of any size.

    Every part is that of ``configs/inference.yaml``, so an array gets what inference writes of a file with the same
    pixels. (A JPEG file of twice ``image_size`` or more is decoded smaller there, so its numbers differ a little.) The
    weights are read once. Random state, threads and the arrays stay as they are.

    Args:
        checkpoint: weights file; it says which network it is of.
        options: of the config: ``OPTIONS``.

    Raises:
        ValueError: if there is no such file, it is no weights file, or its lesions were fused; for an unknown option;
            when called, if the array is not uint8 ``(H, W, 3)``, or there is no eye in it.

    Example:
        >>> import tempfile
        >>> from bundle.datasets.phantom_drawing import draw_photograph
        >>> from bundle.networks.multitask_unet import MultiTaskUNet
        >>> from bundle.networks.weights import save_weights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", MultiTaskUNet(pretrained=False, width=1 / 16), {"image_size": 64})
        ...     predict = Predictor(f"{folder}/model.pt", device="cpu")
        >>> image_HW3 = np.zeros((80, 120, 3), np.uint8)
        >>> image_HW3[10:70, 30:90] = 150
        >>> found = predict(image_HW3)
        >>> found.lesions_HW.shape, found.heat_hw.shape, len(found.probabilities)
        ((80, 120), (80, 120), 5)
    """

    def __init__(self, checkpoint: str | os.PathLike = WEIGHTS, **options: Any) -> None:  # noqa: ANN401
        check_weights(checkpoint)
        refuse_fused(checkpoint)
        with in_one_sentence(), torch.random.fork_rng(devices=[]):  # a network is drawn before it is filled
            parser = _parsed(checkpoint, options)
            self.preprocessing, self.image_size, self.device, self.network = map(
                parser.get_parsed_content, ("preprocessing", "image_size", "device", "network")
            )
            self.step = parser.get_parsed_content("evaluator::iteration_update")
            self.deciding = {name: parser.get_parsed_content(name) for name in DECIDING}
        PredictionHandler(paths={}, writers=[], **self.deciding)  # refuses what it would refuse at inference

    def __call__(self, image_HW3: NDArray[np.uint8]) -> Prediction:
        _check_image(image_HW3)
        item = {"id": "", "image": image_HW3, "path": image_HW3}
        batch = collate([PhotographDataset([item], self.preprocessing, self.image_size)[0]])
        if batch["error"][0]:
            raise ValueError(batch["error"][0])
        output = {key: value[0].cpu() for key, value in self._seen(batch).items()}
        field_px = int(batch["field_px"][0])
        return predicted(output, batch["geometry"][0], field_px, name="", path="", **self.deciding)

    def _seen(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take the step of the evaluator, without one."""
        state = SimpleNamespace(device=self.device)
        engine = SimpleNamespace(network=self.network, state=state, fire_event=lambda event: None)
        return self.step(engine, batch)


def _parsed(checkpoint: str | os.PathLike, options: Mapping[str, Any]) -> ConfigParser:
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise ValueError(f"unknown option {unknown[0]!r}, expected one of {', '.join(OPTIONS)}")
    parser = ConfigParser()
    parser.read_config(CONFIG)
    parser.update({"checkpoint": str(Path(checkpoint).resolve()), **options})  # whole: MONAI evaluates a leading $
    if "device" in options:
        parser["device"] = torch.device(options["device"])
    parser.parse()
    return parser


def _check_image(image_HW3: NDArray[np.uint8]) -> None:
    if not isinstance(image_HW3, np.ndarray) or image_HW3.dtype != np.uint8:
        found = getattr(image_HW3, "dtype", type(image_HW3).__name__)
        raise ValueError(f"expected a photograph as a numpy array of uint8, got {found}; scale it to 0-255 first")
    if image_HW3.ndim != 3 or image_HW3.shape[2] != 3 or not image_HW3.size:
        raise ValueError(f"expected a photograph as (H, W, 3), RGB, got {image_HW3.shape}")


def check_weights(checkpoint: str | os.PathLike) -> None:
    """Refuse a weights file that is not there, and say where weights come from.

    Raises:
        ValueError: then.

    Example:
        >>> check_weights("nowhere.pt")
        Traceback (most recent call last):
            ...
        ValueError: expected weights at nowhere.pt, found no such file; name yours by --checkpoint, from Python by \
checkpoint: a training leaves outputs/train/model.pt (models/README.md)
    """
    if not Path(checkpoint).is_file():
        raise ValueError(
            f"expected weights at {checkpoint}, found no such file; name yours by --checkpoint, from Python by "
            f"checkpoint: a training leaves outputs/train/model.pt (models/README.md)"
        )


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """Raise this bundle's own ValueError instead of the RuntimeErrors that MONAI wraps around it.

    Example:
        >>> with in_one_sentence():
        ...     parser = ConfigParser({"size": "$int('large')"})
        ...     parser.get_parsed_content("size")
        Traceback (most recent call last):
            ...
        ValueError: invalid literal for int() with base 10: 'large'
    """
    try:
        yield
    except RuntimeError as error:
        reason = reason_of(error)
        if reason is None:
            raise
        raise ValueError(reason) from error
