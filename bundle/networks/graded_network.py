"""What every network of stage 2 is: an encoder and a decoder, and a grade that is read from the deepest features."""

# flake8: noqa: N803

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from bundle.labels import GRADES
from torch import Tensor, nn

HEAD_STD = 0.01
"""Of the weights of a segmentation head that starts from a prior, as in RetinaNet: logits begin near its bias."""


class GradedNetwork(nn.Module, ABC):
    """Two tasks from one encoder; a network says how it encodes and decodes, and how many deepest channels it has.

    The grade reads the modules of ``shared_modules`` and ``grade_head``, and nothing else: the meta gradient
    differentiates it by their parameters alone (:class:`bundle.handlers.meta_step.MetaStep` checks it).

    Shape:
        - image: ``(N, 3, H, W)``, RGB in [0, 1].
        - output of ``forward``: lesion logits ``(N, C, H, W)``, class 0 is background.
        - output of ``both_tasks``: those under ``lesions``, and grade logits ``(N, 5)`` under ``grade``.
    """

    def forward(self, image: Tensor) -> Tensor:
        return self._decode(self._encode(image))

    def both_tasks(self, image: Tensor) -> dict[str, Tensor]:
        """Return the logits of both tasks from one pass of the encoder."""
        features = self._encode(image)
        return {"lesions": self._decode(features), "grade": self.head(features[-1])}

    def features(self, image: Tensor) -> Tensor:
        """Return what the grade is read from, ``(N, C, H/32, W/32)``; a dilated encoder has it at H/16."""
        return self._encode(image)[-1]

    def head(self, features_NCHW: Tensor) -> Tensor:
        """Return the grade logits ``(N, 5)`` of the deepest features."""
        return self.grade_head(self.pool(features_NCHW).flatten(1))

    def ends(self) -> list[nn.Module]:
        """Name the modules next to the image and to the logits, where rounding costs most; here that of the grade."""
        return [self.grade_head]

    def _read_grade_from(self, channels: int) -> None:
        """Add global average pooling and one linear layer, which is zero: at first all grades are alike.

        On features that nothing has normalised, random weights would begin with one certain grade for all photographs.
        """
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.grade_head = nn.Linear(channels, len(GRADES))
        nn.init.zeros_(self.grade_head.weight)
        nn.init.zeros_(self.grade_head.bias)

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the arguments that build this network again, without weights: what a weights file says of it."""

    @abstractmethod
    def shared_modules(self) -> Sequence[nn.Module]:
        """Return the modules that both tasks read: the encoder."""

    @abstractmethod
    def _encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of every resolution, the deepest last."""

    @abstractmethod
    def _decode(self, features: list[Tensor]) -> Tensor:
        """Return the lesion logits of the features."""


def start_from_prior(head: nn.Conv2d, lesion_prior: float) -> None:
    """Let a segmentation head begin with the probability ``lesion_prior`` for each lesion at every pixel.

    ``b_c = log prior`` and ``b_0 = log(1 - C prior)`` with small weights. From zero, everything is lesion at first, and
    the focal loss spends its beginning on the background (Lin et al., "Focal Loss for Dense Object Detection", ICCV
    2017, section 4.1).

    Raises:
        ValueError: if the prior is not above 0, or leaves nothing to the background.

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
