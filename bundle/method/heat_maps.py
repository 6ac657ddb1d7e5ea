"""Grad-CAM heat maps of a grader for each of the five grades, from one forward pass.

Graders may be cut before their last convolutional stage, so the gradients are real ones. The closed form of
:mod:`bundle.networks.explained` holds only for one linear layer on the mean of the features, and rounds differently
(by up to 1e-6), so it cannot replace them.
"""

# flake8: noqa: N803, N806

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from bundle.labels import GRADES
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn


class GradeMaps(NamedTuple):
    """Logits of a grader for each photograph, and its heat map for each grade.

    Attributes:
        logits: ``(N, 5)``, float32, on the CPU.
        maps: ``(N, 5, H, W)`` in [0, 1], float32, on the CPU; each map is scaled by its own range, and a grade
            without positive evidence has a map of zeros.
        grid_hw: height and width of the activations that the maps were computed on.
    """

    logits: Tensor
    maps: Tensor
    grid_hw: tuple[int, int]


class NonFiniteLogits(ValueError):
    """NaN or infinity in the logits of a grader.

    Attributes:
        grader: the grader.
        images: indices of the affected images in the batch.
    """

    def __init__(self, grader: "Grader", images: Sequence[int]) -> None:  # noqa: B042  (never pickled)
        super().__init__(
            f"expected finite logits, got NaN or infinity for image {list(images)} of the batch; check the grader"
        )
        self.grader, self.images = grader, tuple(images)


class Grader(Protocol):
    """An ``nn.Module`` cut after one of its convolutional stages: ``forward(x) = head(features(x))``."""

    def features(self, image: Tensor) -> Tensor:
        """Map images ``(N, 3, H, W)`` in [0, 1] to activations ``(N, C, h, w)``."""

    def head(self, features_NCHW: Tensor) -> Tensor:
        """Map those activations to grade logits ``(N, 5)``."""

    def eval(self) -> object:
        """As ``nn.Module.eval``."""

    def modules(self) -> Iterator[nn.Module]:
        """As ``nn.Module.modules``."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As ``nn.Module.parameters``."""


def grade_maps(grader: Grader, images_N3HW: Tensor) -> GradeMaps:
    """Return the logits and the Grad-CAM heat map of every grade.

    ``CAM_c = relu(sum_k mean_hw(d logit_c / d A_k) A_k)`` on the activations ``A`` of ``grader.features``, which runs
    once; pytorch-grad-cam runs only ``grader.head``, once per grade. The maps equal those for the whole grader, resized
    to the image. The grader's modes, gradients, ``requires_grad`` and hooks stay as they were.

    Args:
        grader: run in evaluation mode and in float32.
        images_N3HW: RGB in [0, 1], on the grader's device.

    Raises:
        ValueError: if the images or the logits have another shape.
        NonFiniteLogits: if a logit is not finite.

    Reference:
        Selvaraju et al., "Grad-CAM", ICCV 2017.
    """
    if images_N3HW.ndim != 4 or images_N3HW.shape[1] != 3:
        raise ValueError(f"expected images of shape (N, 3, H, W), got {tuple(images_N3HW.shape)}")
    # pytorch-grad-cam needs gradients, which inference mode lacks, and NumPy arrays, which bfloat16 lacks.
    plain = torch.autocast(images_N3HW.device.type, enabled=False)
    with torch.inference_mode(False), plain, _left_as_found(grader):
        with torch.no_grad():
            activations_NChw = grader.features(images_N3HW.as_subclass(Tensor).float())
            logits = grader.head(activations_NChw.clone())
        _check_logits(grader, logits, len(images_N3HW))
        with torch.enable_grad():
            cam = _HeadGradCAM(_AfterFeatures(grader), images_N3HW.shape[-2:])
            leaf = activations_NChw.detach().requires_grad_()
            # (N, 5, H, W)
            maps = np.stack([cam(leaf, [ClassifierOutputTarget(grade)] * len(leaf)) for grade in GRADES], axis=1)
    height, width = activations_NChw.shape[-2:]
    return GradeMaps(logits.float().cpu(), torch.from_numpy(maps), (height, width))


class _AfterFeatures(nn.Module):
    """The part of a grader after its features, with a layer in front that Grad-CAM can hook."""

    def __init__(self, grader: Grader) -> None:
        super().__init__()
        self.activations = nn.Identity()
        self.grader = grader

    def forward(self, activations_NChw: Tensor) -> Tensor:
        # A head that begins with an in-place ReLU must not overwrite the activations that Grad-CAM has just stored.
        return self.grader.head(self.activations(activations_NChw).clone())


class _HeadGradCAM(GradCAM):
    """Grad-CAM whose maps have the size of the photograph, not of its input activations."""

    def __init__(self, head: _AfterFeatures, size_HW: torch.Size) -> None:
        super().__init__(head, [head.activations])
        self.size_HW = size_HW

    def get_target_width_height(self, input_tensor: Tensor) -> tuple[int, int]:
        return self.size_HW[1], self.size_HW[0]


@contextlib.contextmanager
def _left_as_found(grader: Grader) -> Iterator[None]:
    """Switch to evaluation mode with frozen parameters; restore every mode, flag and gradient afterwards.

    pytorch-grad-cam leaves the model in evaluation mode, drops existing gradients and leaves its own.
    """
    modes = [(module, module.training) for module in grader.modules()]
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in grader.parameters()]
    try:
        grader.eval()
        for parameter, _, _ in parameters:
            parameter.grad = None
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad, grad in parameters:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad


def _check_logits(grader: Grader, logits: Tensor, count: int) -> None:
    if logits.shape != (count, len(GRADES)):
        raise ValueError(f"expected grade logits of shape ({count}, {len(GRADES)}), got {tuple(logits.shape)}")
    finite = torch.isfinite(logits).all(dim=1)
    if not finite.all():
        raise NonFiniteLogits(grader, (~finite).nonzero().flatten().tolist())
