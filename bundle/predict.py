"""Inference on photographs in memory, as arrays: the results of configs/inference.yaml without files."""

# flake8: noqa: N803

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from bundle import ROOT
from bundle.datasets.inference import PhotographDataset, collate, reason_of
from bundle.handlers.predictions import Prediction, PredictionHandler, predicted
from bundle.networks.ensembles import Paths, listed, refuse_fused
from bundle.options import settle
from bundle.transforms.quality import Quality
from monai.bundle.config_parser import ConfigParser
from numpy.typing import NDArray

CONFIG = ROOT / "configs" / "inference.yaml"
WEIGHTS = ROOT / "models" / "model.pt"
DECIDING = ("min_area_ppm", "lesion_thresholds", "grade_set_quantiles", "abstain_below", "withhold_doubtful")
OPTIONS = (
    *DECIDING, "image_size", "device", "backend", "precision", "flips", "window_px", "lesion_size",
)  # fmt: skip
"""Options of the config that change the result; the others concern files."""


class Predictor:
    """Predictor of lesions, grade and heat map for photographs ``(H, W, 3)``, 8-bit RGB, of any size.

    Every part comes from ``configs/inference.yaml``, so the result for an array is that of inference on a file with the
    same pixels. (Inference decodes a JPEG file of twice ``image_size`` or more at a smaller size, so its numbers differ
    a little.) The weights are read once. Random state, threads and the arrays are not changed.

    Args:
        checkpoint: weights file, which records its network; or a list of several, whose probabilities are averaged
            (:class:`bundle.networks.ensembles.Ensemble`).
        options: options of the config, out of ``OPTIONS``.

    Raises:
        ValueError: if a file is missing, is not a weights file or has fused lesions, or several do not go together; for
            an unknown option; when called, if the array is not uint8 ``(H, W, 3)`` or shows no eye.

    Example:
        >>> import tempfile
        >>> from bundle.phantom.drawing import draw_photograph
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

    def __init__(self, checkpoint: Paths = WEIGHTS, **options: Any) -> None:  # noqa: ANN401
        check_weights(checkpoint)
        refuse_fused(checkpoint)
        with in_one_sentence(), torch.random.fork_rng(devices=[]):  # the network is initialised at random first
            parser = _parsed(checkpoint, options)
            self.preprocessing, self.image_size, self.device, self.network = map(
                parser.get_parsed_content, ("preprocessing", "image_size", "device", "network")
            )
            self.step = parser.get_parsed_content("evaluator::iteration_update")
            self.deciding = {name: parser.get_parsed_content(name) for name in (*DECIDING, "likeness")}
        PredictionHandler(paths={}, writers=[], **self.deciding)  # checks the options as at inference

    def __call__(self, image_HW3: NDArray[np.uint8]) -> Prediction:
        _check_image(image_HW3)
        item = {"id": "", "image": image_HW3, "path": image_HW3}
        batch = collate([PhotographDataset([item], self.preprocessing, self.image_size)[0]])
        if batch["error"][0]:
            raise ValueError(batch["error"][0])
        state = SimpleNamespace(device=self.device)
        engine = SimpleNamespace(network=self.network, state=state, fire_event=lambda event: None)  # enough for a step
        output = {key: value[0].cpu() for key, value in self.step(engine, batch).items()}
        field_px, quality = int(batch["field_px"][0]), Quality(*batch["quality"][0].tolist())
        return predicted(output, batch["geometry"][0], field_px, quality, name="", path="", **self.deciding)


def _parsed(checkpoint: Paths, options: Mapping[str, Any]) -> ConfigParser:
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise ValueError(f"unknown option {unknown[0]!r}, expected one of {', '.join(OPTIONS)}")
    parser = ConfigParser()
    parser.read_config(CONFIG)
    parser.update({"checkpoint": as_paths(checkpoint), **options})
    settle(parser)
    return parser


def _check_image(image_HW3: NDArray[np.uint8]) -> None:
    if not isinstance(image_HW3, np.ndarray) or image_HW3.dtype != np.uint8:
        found = getattr(image_HW3, "dtype", type(image_HW3).__name__)
        raise ValueError(f"expected a photograph as a numpy array of uint8, got {found}; scale it to 0-255 first")
    if image_HW3.ndim != 3 or image_HW3.shape[2] != 3 or not image_HW3.size:
        raise ValueError(f"expected a photograph as (H, W, 3), RGB, got {image_HW3.shape}")


def check_weights(checkpoint: Paths) -> None:
    """Refuse missing weights files, and name where weights come from.

    Raises:
        ValueError: if a file is missing, none is named, or one twice.

    Example:
        >>> check_weights("nowhere.pt")
        Traceback (most recent call last):
            ...
        ValueError: expected weights at nowhere.pt, found no such file; name yours by --checkpoint, from Python by \
checkpoint: a training leaves outputs/train/model.pt (models/README.md)
    """
    missing = [path for path in listed(checkpoint) if not Path(path).is_file()]
    if missing:
        found = "a folder" if Path(missing[0]).is_dir() else "no such file"
        raise ValueError(
            f"expected weights at {missing[0]}, found {found}; name yours by --checkpoint, from Python by "
            f"checkpoint: a training leaves outputs/train/model.pt (models/README.md)"
        )


def as_paths(checkpoint: Paths) -> Path | list[Path]:
    """Return weights files as paths, in which MONAI evaluates nothing; one alone stays alone.

    Example:
        >>> as_paths(["a#1.pt", "b.pt"]) == [Path("a#1.pt"), Path("b.pt")], as_paths("a.pt") == Path("a.pt")
        (True, True)
    """
    paths = [Path(path) for path in listed(checkpoint)]
    return paths if len(paths) > 1 else paths[0]


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
