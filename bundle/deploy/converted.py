"""The explained network for other runtimes: in-memory OpenVINO and ONNX models, and functions that run them."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from bundle.networks.explained import OUTPUTS, ExplainedNetwork
from bundle.optional import import_optional
from numpy.typing import NDArray
from torch import Tensor, nn

Run = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]
"""Maps a batch of images to the arrays of ``OUTPUTS``."""


TRACED_PX = 64
"""Side of the image used for tracing when the trace is valid for any size; small, because tracing runs the network
several times."""


class Ordered(nn.Module):
    """An explained network that returns a tuple in the order of ``OUTPUTS``: exporters name outputs by position.

    Example:
        >>> from bundle.networks.multitask_unet import MultiTaskUNet
        >>> ordered = Ordered(ExplainedNetwork(MultiTaskUNet(pretrained=False, width=1 / 16)))
        >>> [tuple(output.shape) for output in ordered(torch.rand(1, 3, 64, 96))]  # lesions, grade, maps
        [(1, 5, 64, 96), (1, 5), (1, 5, 2, 3)]
    """

    def __init__(self, explained: ExplainedNetwork) -> None:
        super().__init__()
        self.explained = explained
        self.training = explained.training

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = self.explained(image)
        return tuple(found[name] for name in OUTPUTS)


def openvino_model(explained: ExplainedNetwork, image: Tensor) -> Any:  # noqa: ANN401  (openvino.Model)
    """Convert a network in evaluation mode to an OpenVINO model for any number of images of any size.

    The input is called ``image``; the outputs are named as in ``OUTPUTS``.
    """
    # openvino.convert_model does the same, but sends usage data over the internet unless that is switched off.
    decoders = import_optional("openvino.frontend.pytorch.ts_decoder")
    frontend = import_optional("openvino.frontend").FrontEndManager().load_by_framework("pytorch")
    corner = image.as_subclass(Tensor)[:, :, :TRACED_PX, :TRACED_PX]
    with torch.no_grad():
        decoder = decoders.TorchScriptPythonDecoder(Ordered(explained), example_input=(corner,))
        model = frontend.convert(frontend.load(decoder))
    model.inputs[0].get_tensor().set_names({"image"})
    for output, name in zip(model.outputs, OUTPUTS, strict=True):
        output.get_tensor().set_names({name})
    model.reshape([-1, 3, -1, -1])
    return model


def openvino_runner(model: Any, *, amp: bool, threads: int) -> Run:  # noqa: ANN401  (openvino.Model, or its file)
    """Compile an OpenVINO model for the CPU, to run one request at a time on all threads."""
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if amp else "f32",
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = _core().compile_model(model, "CPU", hints)

    def run(image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        found = compiled([image])
        # The results are views of memory that the next request overwrites.
        return [found[name].copy() for name in OUTPUTS]

    return run


@cache
def _core() -> Any:  # noqa: ANN401  (openvino.Core)
    """Return the one core of this process.

    Each core gives the main thread another stack for signals, and gives back the one that it found when it ends. Where
    the first of two ends first, the second gives back memory that is no longer there, and the next signal, such as that
    of a data loader's worker that ends, kills the process without a message.
    """
    return import_optional("openvino").Core()


def onnx_program(explained: ExplainedNetwork, image: Tensor) -> torch.onnx.ONNXProgram:
    """Export a network in evaluation mode to ONNX, for any number of images of this size."""
    for package in ("onnx", "onnxscript"):
        import_optional(package)
    batch = torch.cat([image, image])[:2]  # a batch of one would be exported as a fixed batch size
    with torch.no_grad():
        program = torch.onnx.export(
            Ordered(explained), (batch.as_subclass(Tensor),), dynamo=True, input_names=["image"],
            output_names=list(OUTPUTS), dynamic_shapes=({0: "batch"},), external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    return program


def onnx_runner(model: str | bytes, *, threads: int) -> Run:
    """Open an ONNX model for the CPU, from a file or from its bytes."""
    onnxruntime = import_optional("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(list(OUTPUTS), {"image": image})
