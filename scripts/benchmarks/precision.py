"""Speed of a training step in bfloat16 and channels last, compared with float32 and contiguous."""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from bundle.method.losses import CategoricalFocalLoss, LesionLoss
from bundle.networks.multitask_unet import BothTasks, MultiTaskUNet
from bundle.reporting.tables import markdown_table
from bundle.steps import Batch, MultiTaskStep, has_bfloat16, placed
from scripts.benchmarks.timing import in_turn

CPU = torch.device("cpu")
LEAST, SIZES = 2.0, (256, 512)
LESION_LOSS, GRADE_LOSS = LesionLoss(), CategoricalFocalLoss()


def precision_table(width: float, rounds: int) -> str:
    """Time training steps both ways in turn, at two sizes, two photographs per batch."""
    if not has_bfloat16(CPU):
        return "This CPU has no bfloat16 instructions: training is in float32 here, and nothing is measured."
    rows = [_row(size, width, rounds) for size in SIZES]
    header = ["training step, 2 photographs", "bfloat16, channels last", "float32, contiguous", "times", "steps"]
    return markdown_table([*header, f"at least {LEAST:g} times"], rows)


def _row(size: int, width: float, rounds: int) -> list[str]:
    generator = torch.Generator().manual_seed(0)
    batch = {
        "image": torch.rand(2, 3, size, size, generator=generator),
        "lesions": torch.randint(0, 5, (2, 1, size, size), generator=generator),
        "looked_for": torch.ones(2, 4, dtype=torch.bool),
        "initial": torch.full((2, 5), 0.2), "weight": torch.ones(2),
    }  # fmt: skip
    pair = in_turn([batch] * (rounds + 1), _ours(width), _plain(width), warm_up=1)
    return [*pair.row(f"{size} px"), "yes" if pair.ratio >= LEAST else "no"]


def _ours(width: float) -> Callable[[Batch], object]:
    """Return our step; the network has the memory layout of configs/train.yaml."""
    network = _network(width)
    placed(network, CPU)
    step = MultiTaskStep(LESION_LOSS, GRADE_LOSS, beta=0.8, amp=True)
    engine = SimpleNamespace(
        state=SimpleNamespace(device=CPU), network=network, fire_event=lambda event: None,
        optimizer=torch.optim.Adam(network.parameters(), lr=5e-5),
    )  # fmt: skip
    return lambda batch: step(engine, batch)


def _plain(width: float) -> Callable[[Batch], object]:
    """Return the same step with PyTorch's defaults."""
    network = _network(width)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-5)

    def step(batch: Batch) -> None:
        tasks = network(batch["image"])
        lesion_loss = LESION_LOSS(tasks["lesions"], batch["lesions"], batch["looked_for"])
        loss = lesion_loss + 0.8 * GRADE_LOSS(tasks["grade"], batch["initial"], batch["weight"])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _network(width: float) -> BothTasks:
    torch.manual_seed(0)
    return BothTasks(MultiTaskUNet(pretrained=False, width=width))
