"""Export of the trained network to one file for another runtime, written only if it agrees with the network."""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from bundle.deploy.quantization import calibration_of, quantised, scaled
from bundle.deploy.runtimes import (
    FLOAT32,
    INT8,
    INT8_SUFFIXES,
    SAID,
    Ordered,
    Run,
    onnx_program,
    onnx_runner,
    openvino_model,
    openvino_runner,
)
from bundle.files import written_whole
from bundle.metrics.lesions import lesion_dice
from bundle.networks.explained import OUTPUTS, ExplainedNetwork
from bundle.networks.graded_network import GradedNetwork
from bundle.networks.weights import fact, grade_set_quantiles, lesion_thresholds, network_of, tensors_sha256
from bundle.networks.weights import image_size as trained_size
from bundle.optional import import_optional
from bundle.phantom.drawing import draw_photograph
from bundle.transforms import Crop, PrepareFundusd, field_of_view, resize_crop
from bundle.transforms.lesion_decision import lesion_decision, most_probable_class
from torch import Tensor, nn

Outputs = Mapping[str, Tensor]
"""Tensors by the names in ``OUTPUTS``."""

SUFFIXES = {"torchscript": ".ts", "pt2": ".pt2", "onnx": ".onnx", "openvino": ".xml"}
"""Names of the formats, and their file suffixes; OpenVINO keeps its weights in a second file, ``.bin``."""

INT8_FORMS = {"onnx": INT8_SUFFIXES["onnxruntime"][0], "openvino": INT8_SUFFIXES["openvino"][0]}
"""Formats that int8 has, and their file suffixes."""

PHANTOM_PX = (1440, 1024)
"""Width and height of the synthetic photograph that is drawn if none is given."""


class Limits(NamedTuple):
    """How far an export may differ from the network: in logits, in lesion pixels, in the share of equal grades."""

    difference_most: float
    dice_least: float
    grades_least: float


LIMITS = {FLOAT32: Limits(1e-3, 0.999, 1.0), INT8: Limits(math.inf, 0.95, 0.9)}
"""By precision. In int8 every logit is rounded, and pixels at the edges of lesions change."""


class Agreement(NamedTuple):
    """Agreement of two outputs for the same photographs."""

    difference: float
    dice: float
    same_grades: int
    photographs: int

    def meets(self, limits: Limits) -> bool:
        """Return whether all limits are met; NaN does not meet them."""
        is_near = self.difference <= limits.difference_most and self.dice >= limits.dice_least
        return is_near and self.same_grades >= limits.grades_least * self.photographs

    def beside(self, limits: Limits) -> str:
        """Describe the agreement and its limits."""
        most = f" (at most {limits.difference_most:g})" if limits.difference_most < math.inf else ""
        return (
            f"largest difference of logits {self.difference:.1e}{most}, Dice of lesion pixels {self.dice:.4f} (at "
            f"least {limits.dice_least}), same grade on {self.same_grades} of {self.photographs} photographs (at least "
            f"{100 * limits.grades_least:g} %)"
        )


class Export(NamedTuple):
    """The written file, its agreement with the network, and the limits that it met."""

    path: Path
    agreement: Agreement
    limits: Limits

    def __str__(self) -> str:
        return f"wrote {self.path}\nbeside the network in PyTorch, float32: {self.agreement.beside(self.limits)}"


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
    path = _out(checkpoint, form, SUFFIXES, out)
    network = network_of(checkpoint)
    images = [_image(photograph, image_size or trained_size(checkpoint))]
    said = _said(checkpoint, images[0].shape[-1])
    comparison = Comparison(network, images, lesion_thresholds(checkpoint), FLOAT32)
    return _write(form, FORMS[form].build(network, images[0]), path, said, comparison)


def export_int8(
    checkpoint: str | os.PathLike,
    form: str,
    calibration: str | os.PathLike,
    out: str | os.PathLike | None = None,
    image_size: int | None = None,
) -> Export:
    """Write a network with convolutions in int8, and compare the file with the network in float32 on photographs.

    Like :func:`export`, for ``openvino`` and ``onnx``. The file also stores the hash of the weights that it was made
    from, what it was calibrated on, and how far it agrees with them.

    Args:
        checkpoint: as in :func:`export`.
        form: ``openvino`` or ``onnx``.
        calibration: a manifest or a folder of photographs (:func:`bundle.deploy.quantization.calibration_of`).
        out: file to write; None writes next to the checkpoint, where inference finds it.
        image_size: as in :func:`export`.

    Raises:
        ValueError: as :func:`export`, or if there are too few photographs.
    """
    path = _out(checkpoint, form, INT8_FORMS, out)
    network, chosen = network_of(checkpoint), calibration_of(calibration, image_size or trained_size(checkpoint))
    images = [scaled(image) for image in chosen.checked]
    comparison = Comparison(network, images, lesion_thresholds(checkpoint), INT8)
    model = quantised(FORMS[form].build(network, images[0]), network, chosen.measured)
    said = {
        **_said(checkpoint, images[0].shape[-1]), "precision": INT8, "weights": tensors_sha256(checkpoint),
        "calibrated_on": str(chosen), "agreement": comparison.of(FORMS[form].run(model, INT8))._asdict(),
    }  # fmt: skip
    return _write(form, model, path, said, comparison)


class Comparison(NamedTuple):
    """A network in float32, the photographs on which it is compared with another runtime, and that one's precision."""

    network: GradedNetwork
    images: Sequence[Tensor]
    thresholds: Sequence[float] | None
    precision: str

    def of(self, run: Callable[[Tensor], Outputs]) -> Agreement:
        """Compare the outputs of another runtime."""
        explained = ExplainedNetwork(self.network)
        with torch.no_grad():
            return agree(((run(image), explained(image)) for image in self.images), self.thresholds)


def _write(form: str, model: Any, path: Path, said: Mapping[str, Any], comparison: Comparison) -> Export:  # noqa: ANN401
    """Write a model; it gets its final name only if what is read back agrees with the network."""
    limits = LIMITS[comparison.precision]
    with ExitStack() as stack:
        beside = stack.enter_context(written_whole(path))
        if form == "openvino":  # the weights get their final name first: the model needs them
            stack.enter_context(written_whole(path.with_suffix(".bin")))
        FORMS[form].save(model, beside, json.dumps(said))
        agreement = comparison.of(FORMS[form].run(beside, comparison.precision))
        if not agreement.meets(limits):
            raise ValueError(
                f"expected {form} to say what the network says, got: {agreement.beside(limits)}; nothing was written"
            )
    return Export(path, agreement, limits)


def agree(pairs: Iterable[tuple[Outputs, Outputs]], thresholds: Sequence[float] | None = None) -> Agreement:
    """Compare the logits of both tasks, and the lesion classes after thresholding, photograph by photograph.

    Args:
        pairs: found and expected outputs of each batch.
        thresholds: thresholds of the lesions (:func:`lesion_decision`).

    Example:
        >>> expected = {"lesions": torch.eye(3)[None, :, None], "grade": torch.eye(5)[:1]}
        >>> agree([({**expected, "grade": expected["grade"] - 0.25}, expected)])
        Agreement(difference=0.25, dice=1.0, same_grades=1, photographs=1)
    """
    differences, lesions, grades = [], [], []
    for pair in pairs:
        found, expected = pair
        differences += [float((found[task] - expected[task]).abs().max()) for task in ("lesions", "grade")]
        lesions.append([decided(one["lesions"], thresholds) for one in pair])
        grades.append(found["grade"].argmax(dim=1) == expected["grade"].argmax(dim=1))
    same = torch.cat(grades)
    dice = lesion_dice(*map(torch.cat, zip(*lesions, strict=True)))
    return Agreement(float(np.max(differences)), dice, int(same.sum()), len(same))  # NaN stays NaN


def decided(logits: Tensor, thresholds: Sequence[float] | None) -> Tensor:
    """Return the class of every pixel ``(N, H, W)`` from logits ``(N, C, H, W)`` (:func:`lesion_decision`).

    Example:
        >>> logits = torch.tensor([0.7, 0.3]).log().reshape(1, 2, 1, 1)
        >>> decided(logits, None).item(), decided(logits, [0.2]).item()
        (0, 1)
    """
    return most_probable_class(lesion_decision(logits.softmax(dim=1), thresholds), dim=1)


def _out(checkpoint: str | os.PathLike, form: str, suffixes: Mapping[str, str], out: str | os.PathLike | None) -> Path:
    if form not in suffixes:
        raise ValueError(f"expected format in {list(suffixes)}, got {form!r}")
    path = Path(out) if out else Path(checkpoint).with_suffix(suffixes[form])
    suffix = Path(f"model{suffixes[form]}").suffix
    if path.suffix != suffix:
        raise ValueError(f"expected --out to end in {suffix} for {form}, got {path}")
    return path


def _said(checkpoint: str | os.PathLike, image_size: int) -> dict[str, Any]:
    thresholds, quantiles = fact(checkpoint, "lesion_thresholds"), grade_set_quantiles(checkpoint)
    return {"image_size": image_size, "lesion_thresholds": thresholds, "grade_set_quantiles": quantiles}


def _image(photograph: str | os.PathLike | None, image_size: int) -> Tensor:
    prepare = PrepareFundusd(image_size)
    if photograph:
        found = prepare({"image": str(photograph), "masks": {}, "optic_disc": ""})["image"]
    else:
        pixels = draw_photograph(3, np.random.default_rng(0), *PHANTOM_PX).image
        crop = Crop.about(field_of_view(pixels), *PHANTOM_PX)
        found = torch.from_numpy(resize_crop(pixels, crop, image_size)).permute(2, 0, 1)
    return scaled(found)


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


class Form(NamedTuple):
    """A format: how a network becomes a model of it, how that is saved with its facts, how its file is run."""

    build: Callable[[GradedNetwork, Tensor], Any]
    save: Callable[[Any, Path, str], None]
    run: Callable[[Any, str], Callable[[Tensor], Outputs]]


def _torchscript(network: GradedNetwork, image: Tensor) -> torch.jit.TopLevelTracedModule:
    inputs = {"forward": image, "explained": image}
    return torch.jit.trace_module(Scripted(network), inputs, check_trace=False)


def _run_torchscript(path: Path, precision: str) -> Callable[[Tensor], Outputs]:
    network = torch.jit.load(str(path))
    return lambda image: {**_named(network.explained(image)), "lesions": network(image)}


def _pt2(network: GradedNetwork, image: Tensor) -> torch.export.ExportedProgram:
    batch = torch.cat([image, image])  # an example of one photograph would fix the batch size at 1
    shapes = {"image": {0: torch.export.Dim.DYNAMIC}}
    return torch.export.export(ExplainedNetwork(network), (batch,), dynamic_shapes=shapes)


def _save_onnx(model: Any, path: Path, said: str) -> None:  # noqa: ANN401  (onnx.ModelProto)
    onnx = import_optional("onnx")
    for part in (*model.graph.node, *model.graph.value_info):  # the lines of code that it was traced from, with folders
        del part.metadata_props[:]
    onnx.helper.set_model_props(model, {SAID: said})
    onnx.save(model, path)


def _run_onnx(model: Any, precision: str) -> Callable[[Tensor], Outputs]:  # noqa: ANN401  (onnx.ModelProto, or its file)
    runnable = str(model) if isinstance(model, Path) else model.SerializeToString()
    return _on_arrays(onnx_runner(runnable, threads=torch.get_num_threads()))


def _save_openvino(model: Any, path: Path, said: str) -> None:  # noqa: ANN401  (openvino.Model)
    model.set_rt_info(said, SAID)
    import_optional("openvino").save_model(model, path, compress_to_fp16=False)


def _on_arrays(run: Run) -> Callable[[Tensor], Outputs]:
    return lambda image: _named(map(torch.from_numpy, run(image.numpy())))


def _named(values: Any) -> dict[str, Tensor]:  # noqa: ANN401  (a tuple, or a generator of tensors)
    return dict(zip(OUTPUTS, values, strict=True))


FORMS = {
    "torchscript": Form(
        build=_torchscript,
        save=lambda model, path, said: model.save(str(path), _extra_files={SAID: said}),
        run=_run_torchscript,
    ),
    "pt2": Form(
        build=_pt2,
        save=lambda model, path, said: torch.export.save(model, path, extra_files={SAID: said}),
        run=lambda path, precision: torch.export.load(path).module(),
    ),
    "onnx": Form(
        build=lambda network, image: onnx_program(ExplainedNetwork(network), image).model_proto,
        save=_save_onnx,
        run=_run_onnx,
    ),
    "openvino": Form(
        build=lambda network, image: openvino_model(ExplainedNetwork(network), image),
        save=_save_openvino,
        run=lambda model, precision: _on_arrays(
            openvino_runner(model, precision=precision, threads=torch.get_num_threads())
        ),
    ),
}
