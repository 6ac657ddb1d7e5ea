"""Base class of all stage 2 networks: encoder, decoder, and a grade head on the deepest features."""

# flake8: noqa: N803

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

from bundle.labels import GRADES
from bundle.networks.explained import MultiTaskNetwork, activation_maps, pooled_features
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

HEAD_STD = 0.01
"""Standard deviation of the initial weights of a segmentation head that starts from a prior, as in RetinaNet: the
logits begin near the bias."""


class GradedNetwork(MultiTaskNetwork):
    """Two tasks from one encoder; subclasses define encoding, decoding and the number of deepest channels.

    The grade depends only on the modules of ``shared_modules`` and on ``grade_head``: the meta gradient differentiates
    it with respect to their parameters only (:class:`bundle.method.meta_step.MetaStep` checks this).
    """

    freeze_batch_norm = False

    def forward(self, image: Tensor) -> Tensor:
        return self._decode(self._encode(image))

    def train(self, mode: bool = True) -> Self:
        """Set the mode, but keep frozen batch norm in evaluation mode."""
        super().train(mode)
        for module in self._batch_norms() if self.freeze_batch_norm else ():
            module.eval()
        return self

    def both_tasks(self, image: Tensor) -> dict[str, Tensor]:
        """Return the logits of both tasks from one pass of the encoder."""
        features = self._encode(image)
        return {"lesions": self._decode(features), "grade": self.head(features[-1])}

    def explained(self, image: Tensor) -> dict[str, Tensor]:
        """Return the logits of both tasks, the maps of all grades and pooled features, from one pass of the encoder."""
        features = self._encode(image)
        return {
            "lesions": self._decode(features),
            "grade": self.head(features[-1]),
            "maps": activation_maps(features[-1], self.grade_head.weight),
            "features": pooled_features(features),
        }

    def features(self, image: Tensor) -> Tensor:
        """Return the features behind the grade, ``(N, C, H/32, W/32)``; a dilated encoder has them at H/16."""
        return self._encode(image)[-1]

    def head(self, features_NCHW: Tensor) -> Tensor:
        """Compute the grade logits ``(N, 5)`` from the deepest features."""
        return self.grade_head(self.pool(features_NCHW).flatten(1))

    def ends(self) -> list[nn.Module]:
        """Return the first and last modules, where rounding costs most; in this class only the grade head."""
        return [self.grade_head]

    def unquantised(self) -> list[nn.Module]:
        """Return the modules that stay in floating point where the network is in int8; in this class the ends."""
        return self.ends()

    def _read_grade_from(self, channels: int) -> None:
        """Add global average pooling and one linear layer of zeros: at first all grades are equally probable.

        On unnormalised features, random weights would start with the same grade for all photographs, at full
        confidence.
        """
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.grade_head = nn.Linear(channels, len(GRADES))
        nn.init.zeros_(self.grade_head.weight)
        nn.init.zeros_(self.grade_head.bias)

    def _freeze_batch_norm(self) -> None:
        """Keep the pretrained statistics of the encoder's batch norm; scale and shift still learn."""
        if not self._batch_norms():
            raise ValueError("expected an encoder with batch norm for freeze_batch_norm, got vgg16 or another without")
        self.freeze_batch_norm = True
        self.train()

    def _batch_norms(self) -> list[nn.Module]:
        layers = [layer for shared in self.shared_modules() for layer in shared.modules()]
        return [layer for layer in layers if isinstance(layer, _BatchNorm)]

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the arguments that rebuild this network, without weights; weights files record them."""

    @abstractmethod
    def shared_modules(self) -> Sequence[nn.Module]:
        """Return the modules that both tasks use: the encoder."""

    @abstractmethod
    def _encode(self, image: Tensor) -> list[Tensor]:
        """Compute the features of every resolution, deepest last."""

    @abstractmethod
    def _decode(self, features: list[Tensor]) -> Tensor:
        """Compute the lesion logits from the features."""


def start_from_prior(head: nn.Conv2d, lesion_prior: float) -> None:
    """Initialise a segmentation head to the probability ``lesion_prior`` for each lesion at every pixel.

    ``b_c = log prior`` and ``b_0 = log(1 - C prior)`` with small weights. Starting from zero, most of the probability
    is on lesions at first, and the focal loss spends its first steps on the background (Lin et al., "Focal Loss for
    Dense Object Detection", ICCV 2017, section 4.1).

    Raises:
        ValueError: if the prior is not above 0, or leaves no probability for the background.

    Example:
        >>> import torch
        >>> head = nn.Conv2d(16, 5, 3, padding=1)
        >>> start_from_prior(head, 0.01)
        >>> head(torch.zeros(1, 16, 4, 6)).softmax(dim=1)[0, :, 0, 0]
        tensor([0.9600, 0.0100, 0.0100, 0.0100, 0.0100], grad_fn=<SelectBackward0>)
    """
    lesions = head.out_channels - 1
    if not 0 < lesion_prior * lesions < 1:
        raise ValueError(f"expected a lesion_prior above 0 and below 1/{lesions}, or null for none, got {lesion_prior}")
    assert head.bias is not None
    nn.init.normal_(head.weight, std=HEAD_STD)
    nn.init.constant_(head.bias, math.log(lesion_prior))
    nn.init.constant_(head.bias[:1], math.log(1 - lesions * lesion_prior))
