"""One epoch of training and label update, one way, in a separate process so that its memory can be measured.

python -m scripts.benchmarks.meta_epoch WAY IMAGE_SIZE IMAGES WIDTH
"""

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from bundle.method.hypergradient import call_with
from bundle.method.losses import CategoricalFocalLoss, LesionLoss
from bundle.method.meta_step import MetaStep
from bundle.networks.label_update import LabelUpdateNetwork
from bundle.networks.multitask_unet import BothTasks, MultiTaskUNet
from bundle.steps import Batch, MultiTaskStep, placed
from scripts.benchmarks.rows import largest_mib
from torch import Tensor

BETA, VIRTUAL_LR = 0.8, 1e-2
CPU = torch.device("cpu")


class Training:
    """Both networks, their optimisers and steps, as configs/train.yaml builds them; random weights, float32."""

    def __init__(self, width: float) -> None:
        torch.manual_seed(0)
        self.tasks = BothTasks(MultiTaskUNet(pretrained=False, width=width))
        self.label_update = LabelUpdateNetwork(pretrained=False, width=width, frozen=False)
        for network in (self.tasks, self.label_update):
            placed(network, CPU)
        torch.nn.init.normal_(self.label_update.shift.weight, std=0.01)
        torch.nn.init.normal_(self.tasks.network.grade_head.weight, std=0.01)  # at zero, labels get no gradient
        self.lesion_loss, self.grade_loss = LesionLoss(), CategoricalFocalLoss()
        self.optimizer = torch.optim.Adam(self.tasks.parameters(), lr=5e-5)
        self.label_optimizer = torch.optim.Adam(self.label_update.parameters(), lr=1e-3)
        for optimizer in (self.optimizer, self.label_optimizer):
            _allocate_state(optimizer)
        self.training_step = MultiTaskStep(self.lesion_loss, self.grade_loss, BETA)
        self.meta_step = MetaStep(
            self.tasks, self.label_update, self.label_optimizer, self.lesion_loss, self.grade_loss, BETA, VIRTUAL_LR
        )

    def train(self, batch: Batch, before_step: Callable[[], None] = lambda: None) -> None:
        """Run a training step; ``before_step`` is called between backward pass and optimiser."""

        def fire_event(event: object) -> None:
            if getattr(event, "name", "") == "BACKWARD_COMPLETED":
                before_step()

        engine = SimpleNamespace(
            state=SimpleNamespace(device=CPU), network=self.tasks, optimizer=self.optimizer, fire_event=fire_event
        )
        self.training_step(engine, batch)

    def meta_by_double_backward(self, batch: Batch) -> None:
        """Take a meta step the MAXL way: keep the graph of the virtual step and differentiate through it."""
        self.label_optimizer.zero_grad(set_to_none=True)
        gradients = torch.autograd.grad(self.meta_loss(batch), list(self.label_update.parameters()))
        for parameter, gradient in zip(self.label_update.parameters(), gradients, strict=True):
            parameter.grad = gradient
        self.label_optimizer.step()

    def meta_loss(self, batch: Batch) -> Tensor:
        """Return the meta loss at ``theta+`` with its whole graph."""
        parameters = dict(self.tasks.named_parameters())
        labels = self.label_update(batch["image"], batch["initial"], batch["feasible"])
        tasks = call_with(self.tasks, parameters, batch["image"])
        lesion_loss = self.lesion_loss(tasks["lesions"], batch["lesions"], batch["looked_for"])
        training = lesion_loss + BETA * self.grade_loss(tasks["grade"], labels, batch["weight"])
        gradients = torch.autograd.grad(training, list(parameters.values()), create_graph=True)
        stepped = {name: p - VIRTUAL_LR * g for (name, p), g in zip(parameters.items(), gradients, strict=True)}
        lesions = call_with(self.tasks, stepped, batch["image"])["lesions"]
        return self.lesion_loss(lesions, batch["lesions"], batch["looked_for"])


def _allocate_state(optimizer: torch.optim.Optimizer) -> None:
    """Make Adam allocate its averages, by a step with zero gradients that changes no parameter."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def batches(count: int, image_size: int) -> Iterator[dict[str, Any]]:
    """Yield batches of one random photograph each."""
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        image = torch.rand(1, 3, image_size, image_size, generator=generator)
        yield {
            "id": [str(number)],
            "looked_for": torch.ones(1, 4, dtype=torch.bool),
            "image": image.contiguous(memory_format=torch.channels_last),
            "lesions": torch.randint(0, 5, (1, 1, image_size, image_size), generator=generator),
            "initial": torch.tensor([[0.0, 0.0, 0.5, 0.3, 0.2]]),
            "feasible": torch.tensor([[False, False, True, True, True]]),
            "weight": torch.ones(1),
        }  # fmt: skip


def fused(training: Training, count: int, image_size: int) -> None:
    """Take the meta step with the gradient computed by the training step."""
    for batch in batches(count, image_size):

        def meta(batch: Batch = batch) -> None:
            gradients = {
                name: value.grad for name, value in training.tasks.named_parameters() if value.grad is not None
            }
            training.meta_step(batch, gradients=gradients)

        training.train(batch, meta)


def in_turns(training: Training, count: int, image_size: int) -> None:
    """Run a pass of training, then a pass of meta steps without double backward."""
    for batch in batches(count, image_size):
        training.train(batch)
    for batch in batches(count, image_size):
        training.meta_step(batch)


def maxl(training: Training, count: int, image_size: int) -> None:
    """Run a pass of training, then a pass of meta steps through the graph of the virtual step."""
    for batch in batches(count, image_size):
        training.train(batch)
    for batch in batches(count, image_size):
        training.meta_by_double_backward(batch)


WAYS: dict[str, Callable[[Training, int, int], None]] = {"fused": fused, "turns": in_turns, "create_graph": maxl}


def measure(way: str, image_size: int, images: int, width: float) -> dict[str, float]:
    """Return seconds per image, and the peak memory above that of the process with networks and optimisers built."""
    training = Training(width)
    gc.collect()
    idle_mib = largest_mib()
    WAYS[way](training, 1, image_size)
    started = time.perf_counter()
    WAYS[way](training, images, image_size)
    duration_s = time.perf_counter() - started
    return {"s_an_image": duration_s / images, "memory_mib": largest_mib() - idle_mib, "idle_mib": idle_mib}


def gradient_difference(image_size: int, width: float) -> float:
    """Return the difference of the gradients of both ways on one photograph, relative to their norm, in float32."""
    training = Training(width)
    (batch,) = batches(1, image_size)
    learned = list(training.label_update.parameters())
    expected = torch.autograd.grad(training.meta_loss(batch), learned)
    found = training.meta_step.label_gradients(batch).labels_NC
    ours = torch.autograd.grad(training.meta_step.labels(batch), learned, grad_outputs=found)
    flat = [torch.cat([one.flatten() for one in many]) for many in (ours, expected)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


if __name__ == "__main__":
    way, image_size, images, width = sys.argv[1:]
    if way == "difference":
        print(json.dumps({"difference": gradient_difference(int(image_size), float(width))}))
    else:
        print(json.dumps(measure(way, int(image_size), int(images), float(width))))
