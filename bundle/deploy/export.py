"""Export of the trained network to one file for another runtime, written only if it agrees with the network."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from bundle.deploy.runtimes import Ordered, onnx_program, onnx_runner, openvino_model, openvino_runner
from bundle.files import written_whole
from bundle.metrics.lesions import lesion_dice
from bundle.networks.explained import OUTPUTS, ExplainedNetwork
from bundle.networks.graded_network import GradedNetwork
from bundle.networks.weights import fact, grade_set_quantiles, lesion_thresholds, network_of
from bundle.networks.weights import image_size as trained_size
from bundle.optional import import_optional
from bundle.phantom.drawing import draw_photograph
from bundle.transforms import Crop, PrepareFundusd, field_of_view, resize_crop
from bundle.transforms.lesion_decision import lesion_decision, most_probable_class
from torch import Tensor, nn

SUFFIXES = {"torchscript": ".ts", "pt2": ".pt2", "onnx": ".onnx", "openvino": ".xml"}
"""Names of the formats, and their file suffixes; OpenVINO keeps its weights in a second file, ``.bin``."""

SAID = "facts.json"
"""Name under which every format stores its image size, lesion thresholds and limits of sets of grades, as JSON."""

DIFFERENCE_MOST, DICE_LEAST = 1e-3, 0.999
"""Limits for an export compared with the network, in logits and in lesion pixels; the grade must be the same."""

PHANTOM_PX = (1440, 1024)
"""Width and height of the synthetic photograph that is drawn if none is given."""


class Agreement(NamedTuple):
    """Agreement of two outputs for the same photograph."""

    difference: float
    dice: float
    same_grade: bool

    @property
    def met(self) -> bool:
        """Whether all limits are met; NaN does not meet them."""
        return self.difference <= DIFFERENCE_MOST and self.dice >= DICE_LEAST and self.same_grade

    def __str__(self) -> str:
        return (
            f"largest difference of logits {self.difference:.1e} (at most {DIFFERENCE_MOST:g}), Dice of lesion pixels "
            f"{self.dice:.4f} (at least {DICE_LEAST}), {'same' if self.same_grade else 'another'} grade"
        )


class Export(NamedTuple):
    """The written file, and its agreement with the network."""

    path: Path
    agreement: Agreement

    def __str__(self) -> str:
        return f"wrote {self.path}\nbeside the network in PyTorch, float32: {self.agreement}"


def export(
    checkpoint: str | os.PathLike,
    form: str,
    out: str | os.PathLike | None = None,
    photograph: str | os.PathLike | None = None,
    image_size: int | None = None,
) -> Export:
    """Write a trained network in another format, and compare the file with the network on a photograph.

    All formats take RGB in [0, 1] of any number of photographs. Outputs are the logits ``lesions`` and ``grade``,
    ``maps`` and ``features`` (:class:`ExplainedNetwork`). TorchScript's ``forward`` returns only the lesions, for tools
    that expect one tensor; its method ``explained`` returns all four in this order. ONNX and ``.pt2`` are for
    photographs of ``image_size``; TorchScript and OpenVINO for any multiples of 32. Every file stores ``image_size``,
    ``lesion_thresholds`` and ``grade_set_quantiles`` under the name ``SAID``.

    Args:
        checkpoint: weights file of ``configs/train.yaml``, which records its network; nothing in it is executed.
        form: one of ``SUFFIXES``.
        out: file to write; None writes next to the checkpoint.
        photograph: photograph to compare on; None draws one.
        image_size: side of the photograph in the network; None takes that of training.

    Raises:
        ValueError: if the format is unknown, ``out`` has another suffix, no network can be built from the weights
            file, a package is missing, the photograph cannot be read, or the file does not agree with the network.
    """
    path = _out(checkpoint, form, out)
    network, thresholds = network_of(checkpoint), lesion_thresholds(checkpoint)
    image = _image(photograph, image_size or trained_size(checkpoint))
    said = _said(checkpoint, image.shape[-1])
    with torch.no_grad():
        expected = ExplainedNetwork(network)(image)
    with ExitStack() as stack:
        beside = stack.enter_context(written_whole(path))
        if form == "openvino":  # the weights get their final name first: the model needs them
            stack.enter_context(written_whole(path.with_suffix(".bin")))
        _WRITERS[form](network, image, beside, said)
        agreement = agree(_READERS[form](beside, image), expected, thresholds)
        if not agreement.met:
            raise ValueError(f"expected {form} to say what the network says, got: {agreement}; nothing was written")
    return Export(path, agreement)


def agree(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], thresholds: Sequence[float] | None = None
) -> Agreement:
    """Compare the logits of both tasks, and the lesion classes after thresholding.

    Example:
        >>> expected = {"lesions": torch.eye(3)[None, :, None], "grade": torch.eye(5)[:1]}
        >>> agree({**expected, "grade": expected["grade"] - 0.25}, expected)
        Agreement(difference=0.25, dice=1.0, same_grade=True)
    """
    return Agreement(
        difference=max(float((found[task] - expected[task]).abs().max()) for task in ("lesions", "grade")),
        dice=lesion_dice(*(decided(one["lesions"], thresholds) for one in (found, expected))),
        same_grade=bool((found["grade"].argmax(dim=1) == expected["grade"].argmax(dim=1)).all()),
    )


def decided(logits: Tensor, thresholds: Sequence[float] | None) -> Tensor:
    """Return the class of every pixel ``(N, H, W)`` from logits ``(N, C, H, W)`` (:func:`lesion_decision`).

    Example:
        >>> logits = torch.tensor([0.7, 0.3]).log().reshape(1, 2, 1, 1)
        >>> decided(logits, None).item(), decided(logits, [0.2]).item()
        (0, 1)
    """
    return most_probable_class(lesion_decision(logits.softmax(dim=1), thresholds), dim=1)


def _said(checkpoint: str | os.PathLike, image_size: int) -> str:
    thresholds, quantiles = fact(checkpoint, "lesion_thresholds"), grade_set_quantiles(checkpoint)
    return json.dumps({"image_size": image_size, "lesion_thresholds": thresholds, "grade_set_quantiles": quantiles})


def _out(checkpoint: str | os.PathLike, form: str, out: str | os.PathLike | None) -> Path:
    if form not in SUFFIXES:
        raise ValueError(f"expected format in {list(SUFFIXES)}, got {form!r}")
    path = Path(out) if out else Path(checkpoint).with_suffix(SUFFIXES[form])
    if path.suffix != SUFFIXES[form]:
        raise ValueError(f"expected --out to end in {SUFFIXES[form]} for {form}, got {path}")
    return path


def _image(photograph: str | os.PathLike | None, image_size: int) -> Tensor:
    prepare = PrepareFundusd(image_size)
    if photograph:
        found = prepare({"image": str(photograph), "masks": {}, "optic_disc": ""})["image"]
    else:
        pixels = draw_photograph(3, np.random.default_rng(0), *PHANTOM_PX).image
        crop = Crop.about(field_of_view(pixels), *PHANTOM_PX)
        found = torch.from_numpy(resize_crop(pixels, crop, image_size)).permute(2, 0, 1)
    return found[None].float().div_(255)


class Scripted(nn.Module):
    """The TorchScript module: ``forward`` returns lesions, ``explained`` all outputs, with one set of weights."""

    def __init__(self, network: GradedNetwork) -> None:
        super().__init__()
        self.ordered = Ordered(ExplainedNetwork(network))
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        return self.ordered.explained.network(image)

    def explained(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs in the order of ``OUTPUTS``."""
        return self.ordered(image)


def _write_torchscript(network: GradedNetwork, image: Tensor, path: Path, said: str) -> None:
    inputs = {"forward": image, "explained": image}
    traced = torch.jit.trace_module(Scripted(network), inputs, check_trace=False)
    traced.save(str(path), _extra_files={SAID: said})


def _write_pt2(network: GradedNetwork, image: Tensor, path: Path, said: str) -> None:
    batch = torch.cat([image, image])  # an example of one photograph would fix the batch size at 1
    shapes = {"image": {0: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(ExplainedNetwork(network), (batch,), dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={SAID: said})


def _write_onnx(network: GradedNetwork, image: Tensor, path: Path, said: str) -> None:
    program = onnx_program(ExplainedNetwork(network), image)
    program.model.metadata_props[SAID] = said
    program.save(path, external_data=False)


def _write_openvino(network: GradedNetwork, image: Tensor, path: Path, said: str) -> None:
    model = openvino_model(ExplainedNetwork(network), image)
    model.set_rt_info(said, SAID)
    import_optional("openvino").save_model(model, path, compress_to_fp16=False)


def _read_torchscript(path: Path, image: Tensor) -> dict[str, Tensor]:
    network = torch.jit.load(str(path))
    return {**_named(network.explained(image)), "lesions": network(image)}


def _read_pt2(path: Path, image: Tensor) -> dict[str, Tensor]:
    return torch.export.load(path).module()(image)


def _read_onnx(path: Path, image: Tensor) -> dict[str, Tensor]:
    found = onnx_runner(str(path), threads=torch.get_num_threads())(image.numpy())
    return _named(map(torch.from_numpy, found))


def _read_openvino(path: Path, image: Tensor) -> dict[str, Tensor]:
    found = openvino_runner(str(path), amp=False, threads=torch.get_num_threads())(image.numpy())
    return _named(map(torch.from_numpy, found))


def _named(values: Any) -> dict[str, Tensor]:  # noqa: ANN401  (a tuple, or a generator of tensors)
    return dict(zip(OUTPUTS, values, strict=True))


_WRITERS = {
    "torchscript": _write_torchscript, "pt2": _write_pt2, "onnx": _write_onnx, "openvino": _write_openvino,
}  # fmt: skip
_READERS = {"torchscript": _read_torchscript, "pt2": _read_pt2, "onnx": _read_onnx, "openvino": _read_openvino}
