"""What every network of stage 2 is: an encoder and a decoder, and a grade that is read from the deepest features."""

# flake8: noqa: N803

from abc import ABC, abstractmethod

from bundle.labels import GRADES
from torch import Tensor, nn


class GradedNetwork(nn.Module, ABC):
    """Two tasks from one encoder; a network says how it encodes and decodes, and how many deepest channels it has.

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
        """Add global average pooling and one linear layer."""
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.grade_head = nn.Linear(channels, len(GRADES))

    @abstractmethod
    def _encode(self, image: Tensor) -> list[Tensor]:
        """Return the features of every resolution, the deepest last."""

    @abstractmethod
    def _decode(self, features: list[Tensor]) -> Tensor:
        """Return the lesion logits of the features."""
