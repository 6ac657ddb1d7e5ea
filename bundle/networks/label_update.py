"""The label update network: it moves the soft grade of an image, and only to grades that its lesions allow."""

import torch
from bundle.labels import GRADES
from bundle.networks.graded_network import GradedNetwork
from bundle.networks.vgg import VGG16Encoder
from monai.networks.utils import eval_mode
from torch import Tensor, nn

MASKS = ("feasible", "all")
ENCODERS = ("own", "shared")
SMALLEST_SHARE = 1e-6


def mask_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the classes that the mask keeps; the others get exactly zero.

    Equation (4) of the paper as MAXL's code has it: a masked class is removed. (As printed, ``exp(M y)``
    would leave it ``exp(0) = 1``.)

    Raises:
        ValueError: if a row of the mask keeps no class.

    Shape:
        - logits, mask (boolean), output: ``(N, C)``.

    Example:
        >>> mask_softmax(torch.zeros(1, 3), torch.tensor([[False, True, True]]))
        tensor([[0.0000, 0.5000, 0.5000]])
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
        encoder: ``own`` is a VGG16 of its own (MAXL); ``shared`` reads the deepest features of the multi-task network,
            in evaluation mode and without passing a gradient on, so that only the linear layer is learned.
        tasks: the multi-task network, for ``shared``: its ``features`` and the width of its ``grade_head`` are read.
            It is no part of this network's state.

    Raises:
        ValueError: if ``mask`` or ``encoder`` is another word, or ``shared`` comes without a network to share.

    Shape:
        - image: ``(N, 3, H, W)`` in [0, 1]; initial: ``(N, 5)``, rows sum to 1; feasible: ``(N, 5)`` boolean.
        - output: ``(N, 5)``, rows sum to 1.

    Example:
        >>> update = LabelUpdateNetwork(pretrained=False, width=0.0625)
        >>> initial = torch.tensor([[0.0, 0.0, 0.5, 0.25, 0.25]])
        >>> update(torch.rand(1, 3, 64, 96), initial, initial > 0)  # before training, the initial label
        tensor([[0.0000, 0.0000, 0.5000, 0.2500, 0.2500]], grad_fn=<SoftmaxBackward0>)
    """

    def __init__(
        self,
        pretrained: bool | str = True,
        width: float = 1.0,
        mask: str = "feasible",
        batch_norm: bool = False,
        encoder: str = "own",
        tasks: GradedNetwork | None = None,
    ) -> None:
        super().__init__()
        if mask not in MASKS or encoder not in ENCODERS:
            raise ValueError(
                f"expected label_mask in {list(MASKS)} and label_encoder in {list(ENCODERS)}, got {mask!r}, {encoder!r}"
            )
        self.mask = mask
        self.pool = nn.AdaptiveAvgPool2d(1)
        if encoder == "own":
            self.encoder = VGG16Encoder(pretrained, width, batch_norm)
            self.shift = nn.Linear(self.encoder.channels[-1], len(GRADES))
        elif tasks is not None:
            # In a tuple, or the multi-task network would be registered, and saved, as a part of this one.
            self._shared = (tasks,)
            self.shift = nn.Linear(tasks.grade_head.in_features, len(GRADES))
        else:
            raise ValueError("expected a network whose encoder is shared for label_encoder 'shared', got none")
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(self, image: Tensor, initial: Tensor, feasible: Tensor) -> Tensor:
        shift = self.shift(self.pool(self._features(image)).flatten(1))
        kept = feasible if self.mask == "feasible" else torch.ones_like(feasible)
        # A grade without any mass could never be revived from log 0; a millionth can.
        return mask_softmax(initial.clamp(min=SMALLEST_SHARE).log() + shift.to(initial.dtype), kept)

    def _features(self, image: Tensor) -> Tensor:
        if hasattr(self, "encoder"):
            return self.encoder(image)[-1]
        (tasks,) = self._shared
        with torch.no_grad(), eval_mode(tasks):
            return tasks.features(image)
