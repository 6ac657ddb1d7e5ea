"""Speed of the network on a CPU compared with its peer, agreement with float32, and speed from folder to files."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from bundle.datasets.items import file_items
from bundle.deploy.export import decided
from bundle.deploy.runtimes import Backend, load
from bundle.metrics.lesions import lesion_dice
from bundle.networks.graded_network import GradedNetwork
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import fact, lesion_thresholds, network_of
from bundle.networks.weights import image_size as trained_size
from bundle.optional import import_optional
from bundle.reporting.tables import markdown_table
from bundle.steps import has_bfloat16
from bundle.transforms import PrepareFundusd
from scripts.benchmarks.inference_folder import folder_table
from scripts.benchmarks.page import publish
from scripts.benchmarks.timing import timed
from scripts.cli import main
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")
CPU = torch.device("cpu")
LEAST, DICE_LEAST = 4.0, 0.995
"""How many times as fast as its peer the network must be, and the least Dice of its lesions with those of float32."""

MATRIX = 2048
"""Side of the matrices with which the processor's best speed is measured."""

PACKAGES = ("openvino", "onnxruntime", "segmentation-models-pytorch")
"""Packages whose versions are on this page, in addition to those on every page."""

PEER = "smp U-Net, PyTorch"


class Way(NamedTuple):
    """One way to run our network."""

    backend: str
    amp: bool

    def __str__(self) -> str:
        return f"{self.backend}, {self.precision}"

    @property
    def precision(self) -> str:
        """Number format of the matrix products."""
        return "bfloat16" if self.amp else "float32"

    def of(self, network: GradedNetwork) -> Backend:
        """Return the network, ready to run this way."""
        return load(self.backend, network, CPU, self.amp)


REFERENCE = Way("torch", False)
WAYS = (REFERENCE, Way("torch", True), Way("openvino", False), Way("openvino", True), Way("onnxruntime", False))


def inference(
    image_size: int | None = None,
    rounds: int = 5,
    photographs: str | None = None,
    checkpoint: str | None = None,
    backend: str | None = None,
    folder_size: int = 1024,
    width: float = 1.0,
    out: str | None = None,
) -> None:
    """Measure every backend and precision that this CPU has, and inference on a folder with trained weights.

    Args:
        image_size: side of the images that the network is timed on; without it, 512 and 1024.
        rounds: how often each way is timed.
        photographs: folder of real ones; with the checkpoint, agreement and the run from folder to files are measured.
        checkpoint: trained weights.
        backend: passed on to configs/inference.yaml; without it, that config's own.
        folder_size: side of the photographs in the network in the run from folder to files.
        width: factor on every channel count of the network that is timed; its weights are random.
        out: also write the page to this file.
    """
    sizes = [image_size] if image_size else [512, 1024]
    words = {
        "image_size": image_size, "rounds": rounds, "photographs": photographs and Path(photographs).name,
        "checkpoint": checkpoint and Path(checkpoint).name, "backend": backend, "folder_size": folder_size,
        "width": f"{width:g}",
    }  # fmt: skip
    options = " ".join(f"--{name} {value}" for name, value in words.items() if value is not None)
    peaks = matrix_peaks(rounds)
    parts = [_peak_table(peaks), *(network_table(size, width, rounds, peaks) for size in sizes)]
    if photographs and checkpoint:
        parts.append(agreement_table(photographs, checkpoint))
        parts.append(folder_table(photographs, checkpoint, folder_size, backend, rounds))
    publish("Inference, measured", f"inference {options}", [*parts, _notes()], out)


def ways() -> list[Way]:
    """Return the ways that this CPU does not have to emulate."""
    return [way for way in WAYS if has_bfloat16(CPU) or not way.amp]


def matrix_peaks(rounds: int) -> dict[str, float]:
    """Return the GFLOP/s of a large matrix product in each precision: the best of several."""
    real = torch.rand(MATRIX, MATRIX)
    whole = torch.randint(-9, 9, (MATRIX, MATRIX), dtype=torch.int8)
    products: dict[str, Callable[[None], Tensor]] = {"float32": lambda _: real @ real}
    if has_bfloat16(CPU):
        rounded = real.bfloat16()
        products["bfloat16"] = lambda _: rounded @ rounded
    products["int8"] = lambda _: torch._int_mm(whole, whole)
    times = in_turns(products, [None] * (rounds + 1))
    return {name: 2e-9 * MATRIX**3 / min(found) for name, found in times.items()}


def in_turns(ways: Mapping[str, Callable[[T], object]], cases: Sequence[T]) -> dict[str, list[float]]:
    """Time every way on every case, one way after another; the first case does not count."""
    found = [{name: timed(run, case) for name, run in ways.items()} for case in cases]
    return {name: [one[name] for one in found[1:]] for name in ways}


def giga_macs(network: nn.Module, image: Tensor) -> float:
    """Return billions of multiply-adds; PyTorch counts two operations for each."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops() / 2e9


def network_table(size: int, width: float, rounds: int, peaks: Mapping[str, float]) -> str:
    """Time both networks on one image at a time, in turns; ours also computes grades and heat maps."""
    torch.manual_seed(0)
    network = MultiTaskUNet(pretrained=False, width=width).eval()
    running = {str(way): way.of(network) for way in ways()}
    image = torch.rand(1, 3, size, size)
    work = giga_macs(running[str(REFERENCE)], image)
    timed_ways: dict[str, Callable[[Tensor], object]] = {PEER: _peer(), **running}
    times = in_turns(timed_ways, [image] * (rounds + 1))
    rows = [_row(str(way), times[str(way)], times[PEER], work, peaks[way.precision]) for way in ways()]
    rows.insert(0, [PEER, f"{1e3 * np.median(times[PEER]):.0f} ms", "1.0", *[""] * 3])
    header = ["way", "median", "times as fast", "GFLOP/s", "share of the best matrix product", f"at least {LEAST:g}"]
    return f"## The network at {size} px\n\n{work:.1f} giga multiplications.\n\n{markdown_table(header, rows)}"


def _row(name: str, ours_s: Sequence[float], peer_s: Sequence[float], work: float, peak: float) -> list[str]:
    ratio = float(np.median(np.array(peer_s) / np.array(ours_s)))
    reached = 2 * work / float(np.median(ours_s))
    return [
        name, f"{1e3 * np.median(ours_s):.0f} ms", f"{ratio:.1f}", f"{reached:.0f}", f"{100 * reached / peak:.0f} %",
        "yes" if ratio >= LEAST else "no",
    ]  # fmt: skip


def _peer() -> Callable[[Tensor], object]:
    """Return the U-Net of segmentation-models-pytorch, run with default settings."""
    peer = import_optional("segmentation_models_pytorch", "unet").Unet("vgg16", encoder_weights=None, classes=5).eval()

    def run(image: Tensor) -> object:
        with torch.no_grad():
            return peer(image)

    return run


def _peak_table(peaks: Mapping[str, float]) -> str:
    rows = [[name, f"{peak:.0f}", f"{peak / peaks['float32']:.1f}"] for name, peak in peaks.items()]
    note = (
        "A network whose peer already uses the processor well in float32 cannot become faster by more than the last "
        "column, whatever runs it, unless it computes less."
    )
    header = [f"product of {MATRIX} x {MATRIX} matrices", "GFLOP/s", "over float32"]
    return f"## The processor\n\n{markdown_table(header, rows)}\n\n{note}"


def agreement_table(photographs: str, checkpoint: str) -> str:
    """Compare every way with PyTorch in float32, over all photographs of a folder at the training size."""
    network, size_px = network_of(checkpoint), trained_size(checkpoint)
    prepare = PrepareFundusd(size_px)
    images = [prepare(item)["image"][None].float().div_(255) for item in file_items(photographs)]
    thresholds = lesion_thresholds(checkpoint)
    expected = _said(REFERENCE, network, images, thresholds)
    rows = [_agreement(way, _said(way, network, images, thresholds), expected) for way in ways() if way != REFERENCE]
    header = ["way", "Dice of lesion pixels", "same grade", "lesion pixels", f"Dice at least {DICE_LEAST}, all grades"]
    place = f"{len(images)} photographs at {size_px} px, width {fact(checkpoint, 'width', 1):g}"
    return f"## Agreement with float32\n\n{place}.\n\n{markdown_table(header, rows)}"


def _said(
    way: Way, network: GradedNetwork, images: Sequence[Tensor], thresholds: Sequence[float] | None
) -> tuple[Tensor, Tensor]:
    """Return all label maps and all grades."""
    run = way.of(network)
    found = [run(image) for image in images]
    lesions = [decided(one["lesions"], thresholds) for one in found]
    return torch.cat(lesions), torch.cat([one["grade"].argmax(dim=1) for one in found])


def _agreement(way: Way, found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> list[str]:
    dice, same = lesion_dice(found[0], expected[0]), int((found[1] == expected[1]).sum())
    met = dice >= DICE_LEAST and same == len(expected[1])
    pixels = str(int((expected[0] > 0).sum()))
    return [str(way), f"{dice:.4f}", f"{same} of {len(expected[1])}", pixels, "yes" if met else "no"]


def _notes() -> str:
    return (
        f"{torch.get_num_threads()} threads. The first tables: one random image at a time, random weights, ways in "
        "turn in one process. Ours is the multi-task U-Net with grade and five heat maps, its peer the U-Net on VGG16 "
        "of segmentation-models-pytorch in eager float32, lesions alone. PyTorch's bfloat16 keeps the ends of our "
        "network in float32; OpenVINO's keeps nothing. A giga multiplication is counted with its addition as two "
        "operations; OpenVINO's float32 may need fewer (Winograd), so its share may be above that of "
        f"the others for the same speed. {', '.join(f'{name} {version(name)}' for name in PACKAGES)}."
    )


if __name__ == "__main__":
    main(inference)
