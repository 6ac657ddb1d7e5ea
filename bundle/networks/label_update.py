"""The label update network: it moves the soft grade of an image, and only to grades that its lesions allow."""

import torch
from torch import Tensor, nn

from bundle.labels import GRADES
from bundle.networks.vgg import VGG16Encoder

MASKS = ("feasible", "all")
SMALLEST_SHARE = 1e-6


def mask_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the classes that the mask keeps; the others get exactly zero.

    Equation (4) of the paper as MAXL's code has it: a masked class is removed. (As printed, ``exp(M y)``
    would leave it ``exp(0) = 1``.)

    Raises:
        ValueError: if a row of the mask keeps no class.

    Shape:
        - logits, mask (boolean), output: ``(N, C)``.
    """
    if not bool(mask.any(dim=1).all()):
        raise ValueError("expected at least one feasible grade for every image, got an image without any")
    return logits.masked_fill(~mask, -torch.inf).softmax(dim=1)


class LabelUpdateNetwork(nn.Module):
    """``u(x, y0, F) = MaskSoftMax(log y0 + W pool(encoder(x)), F)`` with ``W`` zero at the start.

    Before training u therefore returns the initial label, and a grade outside F never gets mass
    (Liu & Huang 2023, section 3.3; the zero start and F as the mask are ours).

    Args:
        pretrained: ImageNet weights of its own VGG16 encoder: True, False or a path.
        width: factor on the encoder's channel counts.
        batch_norm: of the encoder.
        mask: ``feasible`` keeps mass inside F; ``all`` is the paper's psi = 5.

    Raises:
        ValueError: if ``mask`` is another word.

    Shape:
        - image: ``(N, 3, H, W)`` in [0, 1]; initial: ``(N, 5)``, rows sum to 1; feasible: ``(N, 5)`` boolean.
        - output: ``(N, 5)``, rows sum to 1.
    """

    def __init__(
        self, pretrained: bool | str = True, width: float = 1.0, mask: str = "feasible", batch_norm: bool = False
    ) -> None:
        super().__init__()
        if mask not in MASKS:
            raise ValueError(f"expected mask in {list(MASKS)}, got {mask!r}")
        self.mask = mask
        self.encoder = VGG16Encoder(pretrained, width, batch_norm)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.shift = nn.Linear(self.encoder.channels[-1], len(GRADES))
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(self, image: Tensor, initial: Tensor, feasible: Tensor) -> Tensor:
        shift = self.shift(self.pool(self.encoder(image)[-1]).flatten(1))
        kept = feasible if self.mask == "feasible" else torch.ones_like(feasible)
        # A grade without any mass could never be revived from log 0; a millionth can.
        return mask_softmax(initial.clamp(min=SMALLEST_SHARE).log() + shift.to(initial.dtype), kept)
