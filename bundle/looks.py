"""Inference with flips or sliding windows, instead of one pass over the whole photograph."""

# flake8: noqa: N803

from collections.abc import Callable, Mapping
from typing import Any

import torch
from bundle.steps import to_device
from bundle.transforms.prepare import SIDE_MULTIPLE
from monai.inferers import SlidingWindowInferer
from torch import Tensor

Step = Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]
"""Maps an engine and a batch to probabilities ``lesions (N, 5, H, W)`` and ``grade (N, 5)``, and other outputs."""

FLIPS = ((-1,), (-2,), (-2, -1))
"""Axes of the flips, in addition to the unflipped photograph."""

OVERLAP = 0.25


def looking(step: Step, flips: bool = False, window_px: int | None = None, lesion_size: int | None = None) -> Step:
    """Return the step, or the step wrapped in flips, windows or both.

    Args:
        step: such as :class:`bundle.steps.ExplainedStep`.
        flips: average over the photograph and its three flips.
        window_px: side of the windows for lesions; None takes the whole photograph.
        lesion_size: side to which the eye is resized for windows; it has no other effect.

    Raises:
        ValueError: if ``window_px`` is not a multiple of 32, or ``lesion_size`` is given without windows.

    Example:
        >>> step = lambda engine, batch: {"lesions": batch["image"], "grade": torch.ones(1, 5) / 5}
        >>> looking(step) is step, type(looking(step, flips=True, window_px=64)).__name__
        (True, 'FlippedStep')
        >>> looking(step, lesion_size=1024)
        Traceback (most recent call last):
            ...
        ValueError: expected window_px with lesion_size 1024: it is the size that windows are cut from
    """
    if window_px is None and lesion_size is not None:
        raise ValueError(f"expected window_px with lesion_size {lesion_size}: it is the size that windows are cut from")
    seen = step if window_px is None else WindowedStep(step, window_px)
    return FlippedStep(seen) if flips else seen


class WindowedStep:
    """Lesions of a step from overlapping windows of ``batch["detail"]``; grade and heat maps from the whole.

    MONAI's ``SlidingWindowInferer`` averages the probabilities of the windows with Gaussian weights, on the CPU.

    Args:
        step: runs on the whole photograph and on each window.
        window_px: side of a window.

    Raises:
        ValueError: if ``window_px`` is not a multiple of 32.

    Example:
        >>> from types import SimpleNamespace as Some
        >>> step = lambda engine, batch: {"lesions": batch["image"].clone(), "grade": torch.ones(1, 5) / 5}
        >>> batch = {"image": torch.rand(1, 3, 32, 48), "detail": [torch.rand(3, 64, 96)]}
        >>> output = WindowedStep(step, window_px=32)(Some(state=Some(device="cpu")), batch)
        >>> torch.allclose(output["lesions"][0], batch["detail"][0], atol=1e-5)  # windows join without a seam
        True
    """

    def __init__(self, step: Step, window_px: int) -> None:
        if window_px < SIDE_MULTIPLE or window_px % SIDE_MULTIPLE:
            raise ValueError(f"expected window_px to be a multiple of {SIDE_MULTIPLE}, got {window_px}")
        self.step = step
        self.windows = SlidingWindowInferer((window_px, window_px), overlap=OVERLAP, mode="gaussian", device="cpu")

    def __call__(self, engine: Any, batch: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401
        whole = self.step(engine, batch)
        return {**whole, "lesions": [self._lesions(engine, detail) for detail in batch["detail"]]}

    def _lesions(self, engine: Any, detail_3LL: Tensor) -> Tensor:  # noqa: ANN401
        """Return the lesion probabilities ``(5, L, L)``."""
        image = to_device({"image": detail_3LL[None]}, engine.state.device)["image"]
        return self.windows(image, lambda window: self.step(engine, {"image": window})["lesions"])[0]


class FlippedStep:
    """Mean probabilities of a photograph and its three flips; other outputs are of the unflipped photograph.

    Example:
        >>> corner = torch.tensor([[[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]])
        >>> step = lambda engine, batch: {"lesions": corner, "grade": torch.ones(1, 5) / 5}  # sees one corner always
        >>> FlippedStep(step)(None, {"image": torch.rand(1, 3, 2, 3)})["lesions"][0]
        tensor([[[0.2500, 0.0000, 0.2500],
                 [0.2500, 0.0000, 0.2500]]])
    """

    def __init__(self, step: Step) -> None:
        self.step = step

    def __call__(self, engine: Any, batch: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401
        plain = self.step(engine, batch)
        lesions, grade = [probabilities.clone() for probabilities in plain["lesions"]], plain["grade"].clone()
        for axes in FLIPS:
            flipped = {**batch, "image": torch.flip(batch["image"], axes)}
            if "detail" in batch:
                flipped["detail"] = [detail.flip(axes) for detail in batch["detail"]]
            output = self.step(engine, flipped)
            grade += output["grade"]
            for total, of_flipped in zip(lesions, output["lesions"], strict=True):
                total += of_flipped.flip(axes)
        looks = 1 + len(FLIPS)
        return {**plain, "lesions": [total / looks for total in lesions], "grade": grade / looks}
