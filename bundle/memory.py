"""Out-of-memory errors that name the batch and the settings to lower."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")
Owner = TypeVar("Owner")


def says_what_to_lower(
    step: Callable[Concatenate[Owner, Any, Mapping[str, Any], P], R],
) -> Callable[Concatenate[Owner, Any, Mapping[str, Any], P], R]:
    """Make a method ``(engine, batch, ...)`` name its batch and the settings to lower when memory runs out.

    Raises:
        RuntimeError: instead of ``torch.OutOfMemoryError``, which is kept as its cause.

    Example:
        >>> from types import SimpleNamespace as Some
        >>> class Step:
        ...     @says_what_to_lower
        ...     def __call__(self, engine, batch):
        ...         raise torch.OutOfMemoryError("CUDA out of memory.")
        >>> engine = Some(state=Some(device="cuda:0"))
        >>> Step()(engine, {"image": torch.zeros(2, 3, 64, 96)})  # doctest: +NORMALIZE_WHITESPACE
        Traceback (most recent call last):
            ...
        RuntimeError: expected cuda:0 to hold a step of 2 photographs of 96x64 px, got: CUDA out of memory.
            Lower batch_size or image_size, set amp to true, or take a smaller width
    """

    @functools.wraps(step)
    def wrapped(self: Owner, engine: Any, batch: Mapping[str, Any], *args: P.args, **kw: P.kwargs) -> R:  # noqa: ANN401
        try:
            return step(self, engine, batch, *args, **kw)
        except torch.OutOfMemoryError as error:
            count, _, height, width = batch["image"].shape
            asked = " ".join(str(error).split("\n")[0].split())
            raise RuntimeError(
                f"expected {engine.state.device} to hold a step of {count} photographs of {width}x{height} px, got: "
                f"{asked} Lower batch_size or image_size, set amp to true, or take a smaller width"
            ) from error

    return wrapped
