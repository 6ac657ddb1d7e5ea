"""The network's outputs, a class activation map of each grade and pooled features, from one pass, without gradients."""

# flake8: noqa: N803, N806

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OUTPUTS = ("lesions", "grade", "maps", "features")
"""Outputs of :class:`ExplainedNetwork`, in this order in formats without output names."""

SMALLEST_RANGE = 1e-7
"""Added to the largest value of a map before dividing by it, as pytorch-grad-cam does."""


class MultiTaskNetwork(nn.Module, ABC):
    """Base class of all that outlines lesions and grades: one network, or several together.

    Evaluation, inference and the backends need nothing else of a network.

    Shape:
        - image: ``(N, 3, H, W)``, RGB in [0, 1].
        - output of ``forward``: lesion logits ``(N, C, H, W)``, class 0 is background.
        - output of ``both_tasks``: lesion logits under ``lesions``, and grade logits ``(N, 5)`` under ``grade``.
    """

    @abstractmethod
    def both_tasks(self, image: Tensor) -> dict[str, Tensor]:
        """Return the logits of both tasks from one pass."""

    @abstractmethod
    def explained(self, image: Tensor) -> dict[str, Tensor]:
        """Return the logits of both tasks, the maps of all grades and features, as :class:`ExplainedNetwork` does."""

    @abstractmethod
    def ends(self) -> list[nn.Module]:
        """Return the first and last modules, where rounding costs most."""


class ExplainedNetwork(nn.Module):
    """Both tasks of a network and the Grad-CAM of all five grades.

    Args:
        network: runs in its current mode and shares its weights with this module.

    Shape:
        - image: ``(N, 3, H, W)``, RGB in [0, 1].
        - output: logits ``lesions (N, C, H, W)`` and ``grade (N, 5)``, ``maps (N, 5, h, w)`` in [0, 1] at the size of
          the deepest features, which :func:`resized_maps` resizes to the photograph, and ``features (N, D)``, by which
          :class:`bundle.metrics.likeness.Likeness` compares photographs (:func:`pooled_features`).

    Example:
        >>> from bundle.networks.multitask_unet import MultiTaskUNet
        >>> explained = ExplainedNetwork(MultiTaskUNet(pretrained=False, width=1 / 16))
        >>> {name: tuple(value.shape) for name, value in explained(torch.rand(1, 3, 64, 96)).items()}
        {'lesions': (1, 5, 64, 96), 'grade': (1, 5), 'maps': (1, 5, 2, 3), 'features': (1, 36)}
    """

    def __init__(self, network: MultiTaskNetwork) -> None:
        super().__init__()
        self.network = network
        self.training = network.training  # otherwise code that restores this mode would change the network's

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return self.network.explained(image)


def activation_maps(activations_NChw: Tensor, weight_5C: Tensor) -> Tensor:
    """Return the Grad-CAM of all five grades, where the grade is one linear layer on the mean of the activations.

    Grad-CAM weights each channel by the mean gradient of a grade's logit. After global average pooling and one linear
    layer, this gradient needs no backward pass: ``mean_hw(d logit_c / d A_k) = W_ck / (h w)``. So
    ``CAM_c = relu(sum_k W_ck A_k / (h w))``, in float32 under autocast too; then each map is scaled to [0, 1].

    Shape:
        - output: ``(N, 5, h, w)``.

    Reference:
        Selvaraju et al., "Grad-CAM", ICCV 2017, and Zhou et al., "Learning Deep Features for Discriminative
        Localization", CVPR 2016, to which it is equivalent in this network; scaled as pytorch-grad-cam's
        ``scale_cam_image``.
    """
    height, width = activations_NChw.shape[-2:]
    with _without_autocast(activations_NChw.device.type):
        kernel = weight_5C[:, :, None, None] / (height * width)  # (5, C, 1, 1)
        return _scaled(F.conv2d(activations_NChw.float(), kernel).relu())


def pooled_features(features: Sequence[Tensor]) -> Tensor:
    """Describe a photograph by the mean of every channel of its first and of its deepest features, in float32.

    The first features, which most encoders take as the normalised image itself, tell its colours and its light; the
    deepest tell what it is a picture of. Those between tell one camera from another
    (docs/decisions/0035-doubtful-photographs.md).

    Args:
        features: ``(N, C, H, W)`` of each resolution, deepest last.

    Shape:
        - output: ``(N, D)``.

    Example:
        >>> two = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2)
        >>> pooled_features([two, 9 * two, 5 * two])
        tensor([[ 2., 10.]])
    """
    with _without_autocast(features[-1].device.type):
        return torch.cat([features[place].float().mean(dim=(2, 3)) for place in (0, -1)], dim=1)


def resized_maps(maps_N5hw: Tensor, size_HW: tuple[int, int]) -> Tensor:
    """Resize maps to the photograph by bilinear interpolation and rescale them, as pytorch-grad-cam does.

    Shape:
        - output: ``(N, 5, H, W)`` in [0, 1].

    Example:
        >>> maps = torch.tensor([0.0, 0.5]).reshape(1, 1, 1, 2)
        >>> resized_maps(maps, (1, 4)).flatten()
        tensor([0.0000, 0.2500, 0.7500, 1.0000])
    """
    return _scaled(F.interpolate(maps_N5hw, size_HW, mode="bilinear", align_corners=False))


def _scaled(maps_N5hw: Tensor) -> Tensor:
    above = maps_N5hw - maps_N5hw.amin(dim=(2, 3), keepdim=True)  # minimum of each map: (N, 5, 1, 1)
    return above / (SMALLEST_RANGE + above.amax(dim=(2, 3), keepdim=True))


def _without_autocast(device: str) -> AbstractContextManager[None]:
    """Switch autocast off if it is on; otherwise return a null context, which exporters do not need to trace."""
    if torch.is_autocast_enabled(device):
        return cast(AbstractContextManager[None], torch.autocast(device, enabled=False))
    return nullcontext()
