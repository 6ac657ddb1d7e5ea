"""Speed of the network on a CPU compared with its peers, agreement with float32, and speed from folder to files."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from bundle.datasets.items import file_items
from bundle.deploy.export import Agreement, agree
from bundle.deploy.quantization import scaled
from bundle.deploy.runtimes import BFLOAT16, INT8, WAYS, Way, check_way, load
from bundle.networks.explained import ExplainedNetwork
from bundle.networks.graded_network import GradedNetwork
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import image_size as trained_size
from bundle.networks.weights import lesion_thresholds, network_of
from bundle.reporting.tables import markdown_table
from bundle.steps import has_bfloat16
from bundle.transforms import PrepareFundusd
from scripts.benchmarks.inference_folder import folder_table, unet
from scripts.benchmarks.page import publish
from scripts.benchmarks.timing import timed
from scripts.cli import main
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")
CPU = torch.device("cpu")
LEAST = {BFLOAT16: 20.0, INT8: 30.0}
"""How many times as fast as the peer trained weights of the light network must be, by precision."""

MATRIX = 2048
"""Side of the matrices with which the processor's best speed is measured."""

PACKAGES = ("openvino", "onnxruntime", "nncf", "segmentation-models-pytorch")
"""Packages whose versions are on this page, in addition to those on every page."""

PEER, ITSELF = "smp U-Net on VGG16, PyTorch", "the same network, PyTorch"
"""Both in eager float32, contiguous: as PyTorch runs a network by default."""


def inference(
    image_size: int | None = None,
    rounds: int = 5,
    photographs: str | None = None,
    checkpoint: str | None = None,
    backend: str | None = None,
    precision: str | None = None,
    folder_size: int = 1024,
    width: float = 1.0,
    out: str | None = None,
) -> None:
    """Measure every backend and precision that this CPU has, and inference on a folder with trained weights.

    Args:
        image_size: side of the images that the network is timed on; without it, 512 and 1024.
        rounds: how often each way is timed.
        photographs: folder of real ones; with the checkpoint, agreement and the run from folder to files are measured.
        checkpoint: trained weights, with int8 files beside them; without it, the paper's network with random weights.
        backend: passed on to configs/inference.yaml; without it, that config's own.
        precision: likewise.
        folder_size: side of the photographs in the network in the run from folder to files.
        width: factor on every channel count of the network with random weights.
        out: also write the page to this file.
    """
    sizes = [image_size] if image_size else [512, 1024]
    words = {
        "image_size": image_size, "rounds": rounds, "photographs": photographs and Path(photographs).name,
        "checkpoint": checkpoint and Path(checkpoint).name, "backend": backend, "precision": precision,
        "folder_size": folder_size, "width": f"{width:g}",
    }  # fmt: skip
    options = " ".join(f"--{name} {value}" for name, value in words.items() if value is not None)
    torch.manual_seed(0)
    network = network_of(checkpoint) if checkpoint else MultiTaskUNet(pretrained=False, width=width).eval()
    peaks = matrix_peaks(rounds)
    parts = [_peak_table(peaks), *(network_table(size, network, rounds, peaks, checkpoint) for size in sizes)]
    if photographs and checkpoint:
        parts.append(agreement_table(photographs, checkpoint))
        parts.append(folder_table(photographs, checkpoint, folder_size, backend, precision, rounds))
    publish("Inference, measured", f"inference {options}", [*parts, _notes()], out)


def ways(checkpoint: str | None = None) -> list[Way]:
    """Return the ways that this CPU does not have to emulate, slowest first; int8 needs files beside the weights."""
    able = []
    for way in reversed(WAYS):
        try:
            check_way(way, CPU, checkpoint)
        except ValueError:
            continue
        able.append(way)
    return able


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


def network_table(
    size: int, network: GradedNetwork, rounds: int, peaks: Mapping[str, float], checkpoint: str | None = None
) -> str:
    """Time the network in every way and its peers on one image at a time, in turns; ours also grades and explains."""
    image, able = torch.rand(1, 3, size, size), ways(checkpoint)
    explained = ExplainedNetwork(deepcopy(network))
    work = giga_macs(explained, image)
    timed_ways: dict[str, Callable[[Tensor], object]] = {PEER: _eager(unet()), ITSELF: _eager(explained)}
    timed_ways |= {str(way): load(way.backend, network, CPU, way.precision, checkpoint=checkpoint) for way in able}
    times = in_turns(timed_ways, [image] * (rounds + 1))
    least = LEAST if checkpoint else {}
    rows = [_row(way, times, work, peaks, least.get(way.precision)) for way in able]
    rows[:0] = [_peer_row(name, times) for name in (PEER, ITSELF)]
    header = [
        "way", "median", "times the U-Net", "times itself", "GFLOP/s", "share of the best matrix product", "target met",
    ]  # fmt: skip
    return f"## The network at {size} px\n\n{work:.1f} giga multiplications.\n\n{markdown_table(header, rows)}"


def _row(
    way: Way, times_s: Mapping[str, Sequence[float]], work: float, peaks: Mapping[str, float], least: float | None
) -> list[str]:
    ours_s = times_s[str(way)]
    of_peer, of_itself = _ratio(times_s[PEER], ours_s), _ratio(times_s[ITSELF], ours_s)
    reached = 2 * work / float(np.median(ours_s))
    met = "" if least is None else f"at least {least:g}: {'yes' if of_peer >= least else 'no'}"
    return [
        str(way), _milliseconds(ours_s), f"{of_peer:.1f}", f"{of_itself:.1f}", f"{reached:.0f}",
        f"{100 * reached / peaks[way.precision]:.0f} %", met,
    ]  # fmt: skip


def _peer_row(name: str, times_s: Mapping[str, Sequence[float]]) -> list[str]:
    ratios = [f"{_ratio(times_s[peer], times_s[name]):.1f}" for peer in (PEER, ITSELF)]
    return [name, _milliseconds(times_s[name]), *ratios, "", "", ""]


def _ratio(peer_s: Sequence[float], ours_s: Sequence[float]) -> float:
    """Return the median over the turns, so that a drift in the machine's speed affects both."""
    return float(np.median(np.array(peer_s) / np.array(ours_s)))


def _milliseconds(times_s: Sequence[float]) -> str:
    return f"{1e3 * np.median(times_s):.0f} ms"


def _eager(network: nn.Module) -> Callable[[Tensor], Any]:
    def run(image: Tensor) -> Any:  # noqa: ANN401  (whatever the network returns)
        with torch.no_grad():
            return network(image)

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
    images = [scaled(prepare(item)["image"]) for item in file_items(photographs)]
    expected, thresholds = _eager(ExplainedNetwork(deepcopy(network))), lesion_thresholds(checkpoint)
    rows = []
    for way in ways(checkpoint):
        run = load(way.backend, network, CPU, way.precision, checkpoint=checkpoint)
        rows.append(_agreement(way, agree(((run(image), expected(image)) for image in images), thresholds)))
    header = ["way", "Dice of lesion pixels", "same grade", "largest difference of logits"]
    place = f"{len(images)} photographs at {size_px} px"
    return f"## Agreement with float32\n\n{place}.\n\n{markdown_table(header, rows)}"


def _agreement(way: Way, found: Agreement) -> list[str]:
    grades = f"{found.same_grades} of {found.photographs}"
    return [str(way), f"{found.dice:.4f}", grades, f"{found.difference:.2g}"]


def _notes() -> str:
    return (
        f"{torch.get_num_threads()} threads. The first tables: one random image at a time, ways in turn, one process. "
        "Ours has grade and five heat maps; the U-Net of segmentation-models-pytorch has lesions alone. Both peers are "
        "in eager float32, contiguous. PyTorch's bfloat16 keeps the ends of our network in float32; OpenVINO's keeps "
        "nothing; int8 keeps what docs/export.md says. A giga multiplication is counted with its addition as two "
        "operations; OpenVINO's float32 may need fewer (Winograd), so its share may be above that of "
        f"the others for the same speed. {', '.join(f'{name} {version(name)}' for name in PACKAGES)}."
    )


if __name__ == "__main__":
    main(inference)
