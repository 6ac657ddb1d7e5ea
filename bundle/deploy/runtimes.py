"""Inference runtimes: PyTorch, OpenVINO or ONNX Runtime, built in memory from the network, or from its int8 file."""

import json
import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from bundle.networks.explained import OUTPUTS, ExplainedNetwork, MultiTaskNetwork
from bundle.networks.precision import kept_in_float32
from bundle.networks.weights import tensors_sha256
from bundle.optional import import_optional
from bundle.steps import has_bfloat16, mixed_precision
from monai.networks.utils import eval_mode
from numpy.typing import NDArray
from torch import Tensor, nn

Run = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]
"""Maps a batch of images to the arrays of ``OUTPUTS``."""


TRACED_PX = 64
"""Side of the image used for tracing when the trace is valid for any size; small, because tracing runs the network
several times."""

SAID = "facts.json"
"""Name under which an exported file stores its image size, lesion thresholds and limits of likely grades, as JSON."""

CPU = torch.device("cpu")
AUTO = "auto"
FLOAT32, BFLOAT16, INT8 = PRECISIONS = ("float32", "bfloat16", "int8")
PACKAGES = {"torch": ("torch",), "openvino": ("openvino",), "onnxruntime": ("onnxruntime", "onnx", "onnxscript")}
"""Names of the backends, and the packages that each needs."""

BACKENDS = tuple(PACKAGES)
INT8_SUFFIXES = {"openvino": (".int8.xml", ".int8.bin"), "onnxruntime": (".int8.onnx",)}
"""Suffixes of the int8 files beside a weights file, by backend; OpenVINO keeps its weights in the second file."""


class Way(NamedTuple):
    """A backend, and the precision of its convolutions.

    Example:
        >>> str(Way("openvino", "int8"))
        'openvino, int8'
    """

    backend: str
    precision: str

    def __str__(self) -> str:
        return f"{self.backend}, {self.precision}"


WAYS = (
    Way("openvino", INT8), Way("onnxruntime", INT8), Way("openvino", BFLOAT16), Way("torch", BFLOAT16),
    Way("openvino", FLOAT32), Way("onnxruntime", FLOAT32), Way("torch", FLOAT32),
)  # fmt: skip
"""All ways to run a network, fastest first, from start to the results of some photographs (docs/decisions/0036)."""

ROUGH = Way("openvino", BFLOAT16)
"""The way that runs only where backend or precision is named: it rounds the ends of the network too, and lesions then
agree less with float32 than they should (docs/decisions/0036)."""


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
    # Merges batch norm into convolutions, as convert_model does: quantisation measures what will be computed.
    import_optional("openvino._offline_transformations").apply_moc_transformations(model, cf=True)
    return model


def openvino_runner(model: Any, *, precision: str, threads: int) -> Run:  # noqa: ANN401  (openvino.Model, or its file)
    """Compile an OpenVINO model for the CPU, to run one request at a time on all threads.

    An int8 model has its precision in itself; what it does not compute in int8, it computes in bfloat16 where the
    processor has that.
    """
    is_rounded = precision != FLOAT32 and has_bfloat16(CPU)
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if is_rounded else "f32",
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


class Build(Protocol):
    """A builder of functions from images to the arrays of ``OUTPUTS``."""

    def __call__(self, network: ExplainedNetwork, image: Tensor, *, precision: str, threads: int) -> Run:
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
    """The network itself, channels last; in bfloat16 except for its first and last modules, or in float32."""

    def __init__(self, network_def: MultiTaskNetwork, device: torch.device, precision: str) -> None:
        super().__init__(network_def)
        self.is_rounded = precision == BFLOAT16
        self.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        ends = kept_in_float32(self.explained.network.ends(), image.device.type)
        with torch.inference_mode(), eval_mode(self.explained), mixed_precision(image.device, self.is_rounded), ends:
            found = self.explained(image.contiguous(memory_format=torch.channels_last))
        return {name: value.float() for name, value in found.items()}


class CompiledBackend(Backend):
    """Another runtime, built at the first image: from the network, with the weights that it has then, or from a file.

    It is built once per image size. Later changes of the weights have no effect.

    Example:
        >>> from bundle.networks.multitask_unet import MultiTaskUNet
        >>> def build(network, image, *, precision, threads):
        ...     print("built for", tuple(image.shape[2:]))
        ...     return lambda image: [value.numpy() for value in network(torch.from_numpy(image)).values()]
        >>> backend = CompiledBackend(MultiTaskUNet(pretrained=False, width=1 / 16), build, "float32", threads=1)
        >>> with torch.no_grad():
        ...     found = [backend(torch.rand(number, 3, 64, 96)) for number in (1, 2)]
        built for (64, 96)
    """

    def __init__(self, network_def: MultiTaskNetwork, build: Build, precision: str, threads: int) -> None:
        super().__init__(network_def)
        self.build, self.precision, self.threads = build, precision, threads
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
            return self.build(self.explained, image.clone(), precision=self.precision, threads=self.threads)


def load(
    backend: str,
    network_def: MultiTaskNetwork,
    device: torch.device = CPU,
    precision: str = FLOAT32,
    threads: int | None = None,
    checkpoint: str | os.PathLike | None = None,
) -> Backend:
    """Return a backend for a network: a callable from images ``(N, 3, H, W)`` to the named outputs, in float32.

    Args:
        backend: one of ``BACKENDS``.
        network_def: network to run; its weights may be loaded after this call, but before the first image. The torch
            backend moves it to the device, channels last.
        device: device of the images; ``openvino`` and ``onnxruntime`` run on a CPU.
        precision: ``float32``, ``bfloat16`` or ``int8``; no backend has all (``WAYS``).
        threads: threads of ``openvino`` and ``onnxruntime``; None takes torch's number of threads.
        checkpoint: weights file of the network, for int8: the file beside it runs (:func:`int8_file`).

    Raises:
        ValueError: as :func:`check_way`.

    Example:
        >>> from bundle.networks.multitask_unet import MultiTaskUNet
        >>> run = load("torch", MultiTaskUNet(pretrained=False, width=1 / 16))
        >>> {name: tuple(value.shape) for name, value in run(torch.rand(2, 3, 64, 96)).items()}
        {'lesions': (2, 5, 64, 96), 'grade': (2, 5), 'maps': (2, 5, 2, 3), 'features': (2, 36)}
    """
    check_way(Way(backend, precision), device, checkpoint)
    if backend == "torch":
        return TorchBackend(network_def, device, precision)
    build = _BUILDS[backend]
    if precision == INT8:
        assert checkpoint is not None
        build = partial(_OPENS[backend], int8_file(checkpoint, backend))
    return CompiledBackend(network_def, build, precision, threads or torch.get_num_threads())


def fastest_way(
    backend: str = AUTO,
    precision: str | None = None,
    device: torch.device = CPU,
    checkpoint: str | os.PathLike | None = None,
) -> Way:
    """Return the first of ``WAYS`` that the options allow and that can run here, before anything is read.

    int8 needs an exported file that was made from these weights and agreed with them; ``fundus export`` writes no
    other. bfloat16 is taken if the device has it. Without a named backend or precision, ``ROUGH`` is not taken.

    Args:
        backend: one of ``BACKENDS``, or ``auto`` for any.
        precision: one of ``PRECISIONS``, or None for any.
        device: device of the images.
        checkpoint: weights file; without it, int8 cannot run.

    Raises:
        ValueError: as :func:`check_way`, for the fastest way that the options allow, if none can run.

    Example:
        >>> fastest_way("onnxruntime"), fastest_way("torch", "float32")
        (Way(backend='onnxruntime', precision='float32'), Way(backend='torch', precision='float32'))
        >>> fastest_way("torch", "int8")
        Traceback (most recent call last):
            ...
        ValueError: expected backend openvino or onnxruntime for precision int8, got torch
    """
    allowed = [way for way in WAYS if backend in (AUTO, way.backend) and precision in (None, way.precision)]
    if (backend, precision) == (AUTO, None):
        allowed.remove(ROUGH)
    refusals = []
    for way in allowed or [Way(backend, precision or FLOAT32)]:
        try:
            check_way(way, device, checkpoint)
        except ValueError as refusal:
            refusals.append(refusal)
        else:
            return way
    raise refusals[0]


def way_in_words(way: Way, backend: str, precision: str | None) -> str:
    """Say what runs the network, and how to choose another.

    Args:
        way: that was taken.
        backend: that was asked for.
        precision: that was asked for.

    Example:
        >>> way_in_words(Way("torch", "bfloat16"), "auto", None)
        'network: torch, bfloat16; choose another by --backend and --precision (docs/export.md)'
        >>> way_in_words(Way("torch", "float32"), "torch", "float32")
        'network: torch, float32'
    """
    if way == (backend, precision):
        return f"network: {way}"
    return f"network: {way}; choose another by --backend and --precision (docs/export.md)"


def check_way(way: Way, device: torch.device, checkpoint: str | os.PathLike | None = None) -> None:
    """Refuse a way that cannot run.

    Args:
        way: backend and precision.
        device: device of the images.
        checkpoint: weights file beside which an int8 file must lie that was made from them.

    Raises:
        ValueError: if the backend or the precision is unknown, the backend does not have the precision or does not run
            on the device, the device has no bfloat16, a package is missing, or there is no int8 file of these weights.

    Example:
        >>> check_way(Way("onnxruntime", "bfloat16"), torch.device("cpu"))
        Traceback (most recent call last):
            ...
        ValueError: expected backend openvino or torch for precision bfloat16, got onnxruntime
    """
    backend, precision = way
    if precision not in PRECISIONS:
        raise ValueError(f"expected precision in {list(PRECISIONS)}, got {precision!r}")
    if backend not in BACKENDS:
        raise ValueError(f"expected backend in {[AUTO, *BACKENDS]}, got {backend!r}")
    if way not in WAYS:
        able = " or ".join(one.backend for one in WAYS if one.precision == precision)
        raise ValueError(f"expected backend {able} for precision {precision}, got {backend}")
    if backend != "torch" and device.type != "cpu":
        raise ValueError(f"expected device cpu for backend {backend}, got {device}; take backend torch there")
    if precision == BFLOAT16 and not has_bfloat16(device):
        raise ValueError(f"expected precision float32 or int8 on {device}, which has no bfloat16, got bfloat16")
    if precision == INT8:
        check_int8_file(backend, checkpoint)
    for package in PACKAGES[backend]:
        import_optional(package)


def int8_file(checkpoint: str | os.PathLike, backend: str) -> Path:
    """Return the place of the int8 file of a weights file: beside it, with the name of the weights.

    Example:
        >>> int8_file("outputs/train/model.pt", "openvino").as_posix()
        'outputs/train/model.int8.xml'
    """
    return Path(checkpoint).with_suffix(INT8_SUFFIXES[backend][0])


def check_int8_file(backend: str, checkpoint: str | os.PathLike | None) -> None:
    """Refuse an int8 file that is not there, or was not made from these weights.

    Args:
        backend: that runs it.
        checkpoint: weights file.

    Raises:
        ValueError: with how it is made.
    """
    if checkpoint is None:
        raise ValueError(
            "expected one weights file for precision int8, beside which its int8 file lies, got none or several"
        )
    path = int8_file(checkpoint, backend)
    form = {"openvino": "openvino", "onnxruntime": "onnx"}[backend]
    how = (
        f"make it by `fundus export --checkpoint {checkpoint} --format {form} --precision int8 --calibration "
        f"MANIFEST_OR_FOLDER` (docs/export.md)"
    )
    if not path.is_file():
        raise ValueError(f"expected {path} for precision int8, found no such file; {how}")
    if said_of(path).get("weights") != tensors_sha256(checkpoint):
        raise ValueError(f"expected {path} to be made from {checkpoint}, got one of other weights; {how}")


def said_of(path: str | os.PathLike) -> dict[str, Any]:
    """Return what an exported OpenVINO or ONNX file says about itself.

    Raises:
        ValueError: if the runtime is not installed, or the file cannot be read or says nothing.
    """
    path = Path(path)
    try:
        text = _openvino_said(path) if path.suffix == ".xml" else _onnx_said(path)
        return json.loads(text)
    except (RuntimeError, KeyError, json.JSONDecodeError) as error:  # OpenVINO's own errors are RuntimeErrors
        raise ValueError(f"expected a file of `fundus export` in {path}, got another: {error}") from error


def _openvino_said(path: Path) -> str:
    import_optional("openvino")
    return _core().read_model(path).get_rt_info(SAID).value


def _onnx_said(path: Path) -> str:
    onnx, protobuf = import_optional("onnx"), import_optional("google.protobuf.message")
    try:
        properties = onnx.load(path, load_external_data=False).metadata_props
    except protobuf.DecodeError as error:
        raise RuntimeError(str(error)) from error
    return {one.key: one.value for one in properties}[SAID]


def _build_openvino(network: ExplainedNetwork, image: Tensor, *, precision: str, threads: int) -> Run:
    return openvino_runner(openvino_model(network, image), precision=precision, threads=threads)


def _build_onnxruntime(network: ExplainedNetwork, image: Tensor, *, precision: str, threads: int) -> Run:
    assert precision == FLOAT32
    return onnx_runner(onnx_program(network, image).model_proto.SerializeToString(), threads=threads)


def _open_openvino(path: Path, network: ExplainedNetwork, image: Tensor, *, precision: str, threads: int) -> Run:
    return openvino_runner(path, precision=precision, threads=threads)


def _open_onnxruntime(path: Path, network: ExplainedNetwork, image: Tensor, *, precision: str, threads: int) -> Run:
    size, (height, width) = said_of(path)["image_size"], image.shape[-2:]
    if (height, width) != (size, size):
        raise ValueError(
            f"expected images of {size}x{size} px, for which {path} was made, got {width}x{height}; export it with "
            f"--image_size, or take backend openvino, whose files take any size"
        )
    return onnx_runner(str(path), threads=threads)


_BUILDS: Mapping[str, Build] = {"openvino": _build_openvino, "onnxruntime": _build_onnxruntime}
_OPENS: Mapping[str, Callable[..., Run]] = {"openvino": _open_openvino, "onnxruntime": _open_onnxruntime}
