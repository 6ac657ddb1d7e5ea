"""Speed of the heat maps of all five grades, compared with pytorch-grad-cam called once per grade."""

# flake8: noqa: N803

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from bundle.labels import GRADES
from bundle.method.heat_maps import grade_maps
from bundle.networks.graders import ARCHITECTURES, Grader
from bundle.reporting.tables import markdown_table
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from scripts.benchmarks.page import publish
from scripts.benchmarks.timing import in_turn
from scripts.cli import main
from torch import Tensor, nn

Maps = Callable[[Tensor], NDArray[np.float32]]
LARGEST, LEAST = 1e-5, 2.5
"""Largest difference allowed between the maps, and how many times as fast ours must be."""


def attribution(
    architecture: str = "resnext50_32x4d",
    image_size: int = 256,
    batch_size: int = 4,
    rounds: int = 5,
    out: str | None = None,
) -> None:
    """Measure five heat maps for each photograph of a batch; weights and photographs do not affect the time.

    Args:
        architecture: architecture of the grader, with random weights: a ResNeXt, whose last block can be hooked.
        image_size: side of the images, which are random too.
        batch_size: images at a time.
        rounds: number of batches that are timed.
        out: also write the page to this file.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(f"expected architecture in {list(ARCHITECTURES)}, got {architecture!r}")
    torch.manual_seed(0)
    grader = Grader(architecture, pretrained=False).eval()
    batches = torch.rand(rounds + 1, batch_size, 3, image_size, image_size)
    command = (
        f"attribution --architecture {architecture} --image_size {image_size} "
        f"--batch_size {batch_size} --rounds {rounds}"
    )
    publish("Heat maps, measured", command, [_measured(grader, batches), _notes(batches)], out)


def _measured(grader: Grader, batches: Tensor) -> str:
    def ours(batch: Tensor) -> NDArray[np.float32]:
        return grade_maps(grader, batch).maps.numpy()

    def peer(batch: Tensor) -> NDArray[np.float32]:
        return maps_one_by_one(grader, grader.classifier.layer4, batch)

    with trained_alone(grader):
        rows = [_row("gradients stopped behind the last block", ours, peer, batches)]
    rows.insert(0, _row("as its documentation calls it", ours, peer, batches))
    header = ["five maps, pytorch-grad-cam:", "ours", "pytorch-grad-cam", "times", "batches", "largest difference"]
    return markdown_table([*header, f"at least {LEAST} times, at most {LARGEST:g} apart"], rows)


def _row(what: str, ours: Maps, peer: Maps, batches: Tensor) -> list[str]:
    pair = in_turn(batches, ours, peer, warm_up=1)
    apart = max(float(np.abs(ours(batch) - peer(batch)).max()) for batch in batches[:2])
    met = "yes" if pair.ratio >= LEAST and apart <= LARGEST else "no"
    return [*pair.row(what), f"{apart:.1e}", met]


def maps_one_by_one(network: nn.Module, layer: nn.Module, images_N3HW: Tensor) -> NDArray[np.float32]:
    """Return the reference for :func:`grade_maps`, ``(N, 5, H, W)``: pytorch-grad-cam on a network, once per grade.

    For tests and measurements: it takes five forward and five backward passes, and leaves gradients behind.

    Args:
        network: returns the grade logits ``(N, 5)``.
        layer: layer of the network whose output is used; a parameter up to it must require a gradient.
        images_N3HW: RGB in [0, 1].
    """
    cam = GradCAM(network, [layer])
    count = len(images_N3HW)
    return np.stack([cam(images_N3HW, [ClassifierOutputTarget(grade)] * count) for grade in GRADES], axis=1)


@contextmanager
def trained_alone(grader: Grader) -> Iterator[None]:
    """Freeze all but the last batch norm, so that a backward pass goes only as far as Grad-CAM needs.

    The batch norm cannot be frozen too: without a trainable parameter before the activations, pytorch-grad-cam gets no
    gradient.
    """
    norms = [module for module in grader.modules() if isinstance(module, nn.BatchNorm2d)]
    last = set(map(id, norms[-1].parameters()))
    for parameter in grader.parameters():
        parameter.requires_grad_(id(parameter) in last)
    try:
        yield
    finally:
        for parameter in grader.parameters():
            parameter.requires_grad_()


def _notes(batches: Tensor) -> str:
    _, count, _, height, width = batches.shape
    return (
        f"A batch is {count} random images of {height} x {width} px; random weights, float32, "
        f"{torch.get_num_threads()} threads. Ours: `grade_maps`, one forward pass, and pytorch-grad-cam on the head "
        "alone for each grade. Its way: `GradCAM` on the whole grader, called once per grade. The second row is the "
        "kindest way to call it that we found. The difference is over two batches."
    )


if __name__ == "__main__":
    main(attribution)
