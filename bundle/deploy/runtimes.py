"""Inference runtimes: PyTorch, OpenVINO or ONNX Runtime, built in memory from the loaded network."""

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from bundle.networks.explained import OUTPUTS, ExplainedNetwork, MultiTaskNetwork
from bundle.networks.precision import kept_in_float32
from bundle.optional import import_optional
from bundle.steps import mixed_precision
from monai.networks.utils import eval_mode
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
        >>> [tuple(output.shape) for output in ordered(torch.rand(1, 3, 64, 96))]  # lesions, grade, maps, features
        [(1, 5, 64, 96), (1, 5), (1, 5, 2, 3), (1, 36)]
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


CPU = torch.device("cpu")
PACKAGES = {"torch": ("torch",), "openvino": ("openvino",), "onnxruntime": ("onnxruntime", "onnx", "onnxscript")}
"""Names of the backends, and the packages that each needs."""

BACKENDS = tuple(PACKAGES)


class Build(Protocol):
    """A builder of functions from images to the arrays of ``OUTPUTS``."""

    def __call__(self, network: ExplainedNetwork, image: Tensor, *, amp: bool, threads: int) -> Run:
        """Build for batches of any number of images of this size."""


class Backend(nn.Module):
    """A network with the interface that inference uses.

    Shape:
        - image: ``(N, 3, H, W)``, RGB in [0, 1], any ``N``.
        - output: as :class:`ExplainedNetwork`, in float32.
    """

    def __init__(self, network_def: MultiTaskNetwork) -> None:
        super().__init__()
        self.explained = ExplainedNetwork(network_def)
        self.training = network_def.training


class TorchBackend(Backend):
    """The network itself, channels last; with ``amp`` in bfloat16, except for its first and last modules."""

    def __init__(self, network_def: MultiTaskNetwork, device: torch.device, amp: bool) -> None:
        super().__init__(network_def)
        self.amp = amp
        self.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        ends = kept_in_float32(self.explained.network.ends(), image.device.type)
        with torch.inference_mode(), eval_mode(self.explained), mixed_precision(image.device, self.amp), ends:
            found = self.explained(image.contiguous(memory_format=torch.channels_last))
        return {name: value.float() for name, value in found.items()}


class CompiledBackend(Backend):
    """Another runtime, built from the network at the first image, with the weights that it has then.

    It is built once per image size. Later changes of the weights have no effect.

    Example:
        >>> from bundle.networks.multitask_unet import MultiTaskUNet
        >>> def build(network, image, *, amp, threads):
        ...     print("built for", tuple(image.shape[2:]))
        ...     return lambda image: [value.numpy() for value in network(torch.from_numpy(image)).values()]
        >>> backend = CompiledBackend(MultiTaskUNet(pretrained=False, width=1 / 16), build, amp=False, threads=1)
        >>> with torch.no_grad():
        ...     found = [backend(torch.rand(number, 3, 64, 96)) for number in (1, 2)]
        built for (64, 96)
    """

    def __init__(self, network_def: MultiTaskNetwork, build: Build, amp: bool, threads: int) -> None:
        super().__init__(network_def)
        self.build, self.amp, self.threads = build, amp, threads
        self._runs: dict[torch.Size, Run] = {}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        image = image.as_subclass(Tensor).float().contiguous()
        size = image.shape[1:]
        if size not in self._runs:
            self._runs[size] = self._built(image)
        return dict(zip(OUTPUTS, map(torch.from_numpy, self._runs[size](image.numpy())), strict=True))

    def _built(self, image: Tensor) -> Run:
        """Build outside the caller's autocast and inference mode; otherwise autocast's casts would be built in."""
        plain = torch.autocast(image.device.type, enabled=False)
        with torch.inference_mode(False), plain, eval_mode(self.explained):
            return self.build(self.explained, image.clone(), amp=self.amp, threads=self.threads)


def load(
    backend: str,
    network_def: MultiTaskNetwork,
    device: torch.device = CPU,
    amp: bool = False,
    threads: int | None = None,
) -> Backend:
    """Return a backend for a network: a callable from images ``(N, 3, H, W)`` to the named outputs, in float32.

    Args:
        backend: one of ``BACKENDS``.
        network_def: network to run; its weights may be loaded after this call, but before the first image. The torch
            backend moves it to the device, channels last.
        device: device of the images; ``openvino`` and ``onnxruntime`` run on a CPU.
        amp: bfloat16, as a hint for ``openvino``. ``onnxruntime`` has no bfloat16 on a CPU and refuses it.
        threads: threads of ``openvino`` and ``onnxruntime``; None takes torch's number of threads.

    Raises:
        ValueError: if the name is unknown, a package is missing, or the backend does not support the device or ``amp``.

    Example:
        >>> from bundle.networks.multitask_unet import MultiTaskUNet
        >>> run = load("torch", MultiTaskUNet(pretrained=False, width=1 / 16))
        >>> {name: tuple(value.shape) for name, value in run(torch.rand(2, 3, 64, 96)).items()}
        {'lesions': (2, 5, 64, 96), 'grade': (2, 5), 'maps': (2, 5, 2, 3), 'features': (2, 36)}
    """
    check_backend(backend, device, amp)
    if backend == "torch":
        return TorchBackend(network_def, device, amp)
    return CompiledBackend(network_def, _BUILDS[backend], amp, threads or torch.get_num_threads())


def check_backend(backend: str, device: torch.device, amp: bool) -> None:
    """Refuse a backend that cannot run, before anything is read.

    Raises:
        ValueError: as :func:`load`.

    Example:
        >>> check_backend("onnxruntime", torch.device("cpu"), amp=True)
        Traceback (most recent call last):
            ...
        ValueError: expected amp false for backend onnxruntime, which computes in float32 on a CPU, got true
    """
    if backend not in BACKENDS:
        raise ValueError(f"expected backend in {list(BACKENDS)}, got {backend!r}")
    if backend != "torch" and device.type != "cpu":
        raise ValueError(f"expected device cpu for backend {backend}, got {device}; take backend torch there")
    if backend == "onnxruntime" and amp:
        raise ValueError("expected amp false for backend onnxruntime, which computes in float32 on a CPU, got true")
    for package in PACKAGES[backend]:
        import_optional(package)


def _build_openvino(network: ExplainedNetwork, image: Tensor, *, amp: bool, threads: int) -> Run:
    return openvino_runner(openvino_model(network, image), amp=amp, threads=threads)


def _build_onnxruntime(network: ExplainedNetwork, image: Tensor, *, amp: bool, threads: int) -> Run:
    assert not amp
    return onnx_runner(onnx_program(network, image).model_proto.SerializeToString(), threads=threads)


_BUILDS: dict[str, Build] = {"openvino": _build_openvino, "onnxruntime": _build_onnxruntime}
