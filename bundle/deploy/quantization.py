"""int8 models: quantised by nncf on photographs, with the layers that rounding hurts most in floating point."""

# flake8: noqa: N803

import logging
import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

from bundle.datasets.items import file_items, items
from bundle.manifest import load_manifest
from bundle.networks.graded_network import GradedNetwork
from bundle.optional import import_optional
from bundle.transforms import PrepareFundusd
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

PHOTOGRAPHS, PHOTOGRAPHS_LEAST = 64, 8
"""How many photographs are used at most, and at least."""

CHECKED_EVERY = 4
"""One in so many photographs is for the check; activations are measured on the others."""

NETWORK, MODULE = "explained.network.", "__module."
"""Where the network stands in what is exported (:class:`bundle.deploy.runtimes.Ordered`); before it, in OpenVINO."""

COMPUTED = {"Convolution", "GroupConvolution", "MatMul", "Conv", "Gemm"}
"""Types of the nodes that are quantised, in OpenVINO and in ONNX."""


class Calibration(NamedTuple):
    """Photographs ``(3, S, S)``, uint8: those that activations are measured on, and others for the check."""

    source: str
    measured: list[Tensor]
    checked: list[Tensor]

    def __str__(self) -> str:
        return f"{self.source}, {len(self.measured)} photographs"


def calibration_of(source: str | os.PathLike, image_size: int) -> Calibration:
    """Read the photographs that a network is quantised on.

    Args:
        source: a manifest (``.json``), of which training photographs are used, outlined ones first, because they show
            lesions; or a folder of photographs.
        image_size: side ``S`` in the network.

    Raises:
        ValueError: if there are fewer than ``PHOTOGRAPHS_LEAST``, or one cannot be read.
    """
    name, found = _listed(source)
    if len(found) < PHOTOGRAPHS_LEAST:
        raise ValueError(f"expected {PHOTOGRAPHS_LEAST} photographs or more in {source}, got {len(found)}")
    prepare = PrepareFundusd(image_size)
    images = [prepare({"image": one["image"]})["image"] for one in found[:PHOTOGRAPHS]]
    measured = [image for number, image in enumerate(images) if number % CHECKED_EVERY]
    return Calibration(name, measured, images[::CHECKED_EVERY])


def _listed(source: str | os.PathLike) -> tuple[str, list[dict[str, Any]]]:
    if Path(source).suffix != ".json":
        return "photographs", file_items(Path(source))
    manifest = load_manifest(source)
    training = [row for row in manifest.photographs if row.split == "train"]
    return manifest.name, items(manifest, sorted(training, key=lambda row: not row.outlined))


def scaled(image_3SS: Tensor) -> Tensor:
    """Return a photograph as networks take it: ``(1, 3, S, S)`` in [0, 1]."""
    return image_3SS[None].float().div_(255)


def quantised(model: Any, network: GradedNetwork, images: Sequence[Tensor]) -> Any:  # noqa: ANN401
    """Return an OpenVINO or ONNX model with convolutions in int8.

    Weights are rounded by output channel, activations by tensor, to the ranges that they have on these photographs;
    biases are corrected for the mean error. Some stay in floating point
    (:func:`nodes_of`).

    Args:
        model: the network by :func:`bundle.deploy.runtimes.openvino_model` or ``onnx_program``.
        network: the network.
        images: photographs ``(3, S, S)``, uint8.

    Raises:
        ValueError: if nncf is not installed.
    """
    nncf = import_nncf()
    data = nncf.Dataset(list(images), lambda image: {"image": scaled(image).numpy()})
    ignored = nncf.IgnoredScope(names=nodes_of(model, network), validate=False)
    return nncf.quantize(
        model, data, subset_size=len(images), ignored_scope=ignored, preset=nncf.QuantizationPreset.MIXED
    )


def import_nncf() -> ModuleType:
    """Import nncf without its telemetry, which would send usage data over the internet, and without its remarks.

    At its first import it makes its own class that of every later logger of the program; that is undone. Its
    ``set_log_level`` would also change the handlers of others, such as pytest's, so the logger alone is set.
    """
    loggers = logging.getLoggerClass()
    with mock.patch.dict(os.environ, NNCF_CI="1"):
        nncf = import_optional("nncf")
    logging.setLoggerClass(loggers)
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


def nodes_of(model: Any, network: GradedNetwork) -> list[str]:  # noqa: ANN401
    """Return the names of the convolutions that stay in floating point: the network says which, and the heat maps."""
    kept = tuple(f"{NETWORK}{name}." for name in _names_of_unquantised(network))
    places = _onnx_places(model) if hasattr(model, "graph") else _openvino_places(model)
    return [name for name, place in places if not place.startswith(NETWORK) or f"{place}.".startswith(kept)]


def _names_of_unquantised(network: GradedNetwork) -> list[str]:
    """Return the names of the modules that stay as they are, and of the batch norm that comes right after one."""
    ends, modules = {id(end) for end in network.unquantised()}, list(network.named_modules())
    after = [
        later for (_, module), later in pairwise(modules) if id(module) in ends and isinstance(later[1], _BatchNorm)
    ]
    return [name for name, module in modules if id(module) in ends] + [name for name, _ in after]


def _openvino_places(model: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401  (openvino.Model)
    """Yield name and module of each convolution; its name is ``__module.explained.network.grade_head/aten::linear/..``.

    A convolution that was merged with batch norm lost its name, and what follows has that of batch norm.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() in COMPUTED:
            names = [node, *(target.get_node() for target in node.output(0).get_target_inputs())]
            known = [one.get_friendly_name() for one in names if one.get_friendly_name().startswith(MODULE)]
            yield node.get_friendly_name(), known[0].removeprefix(MODULE).partition("/")[0] if known else ""


def _onnx_places(model: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401  (onnx.ModelProto)
    """Yield name and module of each convolution, from its weight, ``explained.network.grade_head.weight``."""
    for node in model.graph.node:
        if node.op_type in COMPUTED:
            yield node.name, node.input[1].rpartition(".")[0]
