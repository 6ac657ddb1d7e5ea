"""The label update network: it shifts the soft grade of an image, only to grades that the image's lesions allow."""

# flake8: noqa: N806

from typing import Any

import torch
from bundle.labels import GRADES
from bundle.networks.encoders import VGG16, build_encoder
from bundle.networks.graded_network import GradedNetwork
from monai.networks.utils import eval_mode
from torch import Tensor, nn
from torch.nn import functional as F

MASKS = ("feasible", "all")
ENCODERS = ("own", "shared")
SMALLEST_VARIANCE = 1e-12
"""Added to the variance of pooled features; far below the variance that any working encoder gives."""

SMALLEST_SHARE = 1e-2
"""Smallest initial mass of a grade that may be taught: large enough that an update can still raise it."""


def mask_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    """Compute the softmax over the classes that the mask keeps; all others get exactly zero.

    Equation (4) of the paper as implemented in MAXL's code: a masked class is removed. (As printed, ``exp(M y)``
    would give it ``exp(0) = 1``.)

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
    """``u(x, y0, F) = MaskSoftMax(log max(y0, 0.01) + W norm(pool(encoder(x))) / C, F)`` with ``W`` zero at the start.

    Before training, u therefore returns the initial label (a feasible grade without mass gets 0.01), and a grade
    outside F never gets mass (Liu & Huang 2023, section 3.3; the zero start and F as the mask are ours).

    ``norm`` scales the ``C`` pooled features of an image to mean 0 and deviation 1, without parameters. A step of Adam
    moves every weight by at most the learning rate, so it moves the logit of a grade by at most about that rate,
    whatever the scale and the width of the encoder. No output depends on the other images of a batch: the network
    always stays in evaluation mode, so the labels in the meta loss equal the labels that are taught.

    Args:
        pretrained: ImageNet weights of its own encoder: True, False or a path (:func:`build_encoder`).
        width: factor on the channel counts of a VGG16 encoder.
        batch_norm: whether a VGG16 encoder has batch norm.
        mask: ``feasible`` keeps mass inside F; ``all`` is the paper's psi = 5.
        encoder: ``own`` is an encoder of its own (MAXL: a VGG16); ``shared`` uses the deepest features of the
            multi-task network, in evaluation mode and without gradient, so that only the linear layer is learned.
        tasks: the multi-task network, for ``shared``: its ``features`` and the width of its ``grade_head`` are used.
            Its weights are not part of this network's state.
        frozen: whether its own encoder is fixed, so that only the linear layer is learned.
        architecture: of its own encoder, one of ``bundle.networks.encoders.ENCODERS``.

    Raises:
        ValueError: if ``mask`` or ``encoder`` is unknown, ``shared`` comes without ``tasks`` or with ``frozen`` False,
            or its own encoder cannot be built.

    Shape:
        - image: ``(N, 3, H, W)`` in [0, 1]; initial: ``(N, 5)``, rows sum to 1; feasible: ``(N, 5)`` boolean.
        - output: ``(N, 5)``, rows sum to 1.

    Example:
        >>> update = LabelUpdateNetwork(pretrained=False, width=0.0625)
        >>> initial = torch.tensor([[0.0, 0.0, 0.5, 0.25, 0.25]])
        >>> update(torch.rand(1, 3, 64, 96), initial, initial > 0)  # before training, the initial label
        tensor([[0.0000, 0.0000, 0.5000, 0.2500, 0.2500]], grad_fn=<SoftmaxBackward0>)

    Reference:
        Ba et al., "Layer Normalization", 2016, for the norm.
    """

    def __init__(
        self,
        pretrained: bool | str = True,
        width: float = 1.0,
        mask: str = "feasible",
        batch_norm: bool = False,
        encoder: str = "own",
        tasks: GradedNetwork | None = None,
        frozen: bool = True,
        architecture: str = VGG16,
    ) -> None:
        super().__init__()
        if mask not in MASKS or encoder not in ENCODERS:
            raise ValueError(
                f"expected label_mask in {list(MASKS)} and label_encoder in {list(ENCODERS)}, got {mask!r}, {encoder!r}"
            )
        self.mask = mask
        self.pool = nn.AdaptiveAvgPool2d(1)
        if encoder == "own":
            self.encoder = build_encoder(architecture, pretrained, width, batch_norm).requires_grad_(not frozen)
            self.shift = nn.Linear(self.encoder.channels[-1], len(GRADES))
        elif not frozen:
            raise ValueError("expected label_encoder_learning_rate 0 for label_encoder 'shared': it is not its own")
        elif tasks is not None:
            # The tuple keeps torch from registering, and saving, the multi-task network as a submodule.
            self._shared = (tasks,)
            self.shift = nn.Linear(tasks.grade_head.in_features, len(GRADES))
        else:
            raise ValueError("expected a network whose encoder is shared for label_encoder 'shared', got none")
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)
        self.train()

    def train(self, mode: bool = True) -> "LabelUpdateNetwork":
        """Stay in evaluation mode: with batch statistics the labels would differ from those that are taught."""
        return super().train(False)

    def forward(self, image: Tensor, initial: Tensor, feasible: Tensor) -> Tensor:
        pooled_NC = self.pool(self._features(image)).flatten(1).to(initial.dtype)
        with torch.autocast(image.device.type, enabled=False):  # in bfloat16 a label would move in steps of 0.01
            normed_NC = F.layer_norm(pooled_NC, pooled_NC.shape[1:], eps=SMALLEST_VARIANCE)
            shift = self.shift(normed_NC / pooled_NC.shape[1])
        return mask_softmax(initial.clamp(min=SMALLEST_SHARE).log() + shift, self.kept(feasible))

    def kept(self, feasible: Tensor) -> Tensor:
        """Return the mask of grades that labels may have: the feasible ones, or all."""
        return feasible if self.mask == "feasible" else torch.ones_like(feasible)

    def _features(self, image: Tensor) -> Tensor:
        if hasattr(self, "encoder"):
            return self.encoder(image)[-1]
        (tasks,) = self._shared
        with torch.no_grad(), eval_mode(tasks):
            return tasks.features(image)


def parameter_groups(
    network: LabelUpdateNetwork | None, learning_rate: float, encoder_learning_rate: float
) -> list[dict[str, Any]]:
    """Return an optimiser's groups: the linear layer, and the learned part of the encoder at its own rate.

    Adam's step does not depend on the size of a gradient. At the linear layer's rate it would move each of the
    encoder's millions of weights by the same amount, all for the same few labels.

    Args:
        network: the label update network; None, if it is switched off, gives no groups.
        learning_rate: of the linear layer.
        encoder_learning_rate: of its own encoder; 0 if that is frozen.

    Raises:
        ValueError: if a rate is negative.

    Example:
        >>> network = LabelUpdateNetwork(pretrained=False, width=0.0625, frozen=False)
        >>> [(len(group["params"]), group["lr"]) for group in parameter_groups(network, 1e-4, 1e-6)]
        [(2, 0.0001), (26, 1e-06)]
    """
    if learning_rate < 0 or encoder_learning_rate < 0:
        raise ValueError(
            f"expected label_learning_rate and label_encoder_learning_rate of 0 or more, got {learning_rate} and "
            f"{encoder_learning_rate}"
        )
    if network is None:
        return []
    learned = [p for name, p in network.named_parameters() if name.startswith("encoder.") and p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": list(network.shift.parameters()), "lr": learning_rate}]
    return [*groups, {"params": learned, "lr": encoder_learning_rate}] if learned else groups
