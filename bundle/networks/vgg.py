"""The VGG16 encoder of both networks: five blocks, with every resolution kept for the skips."""

from typing import cast

import torch
from bundle.networks.imagenet import imagenet_weights
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vgg import make_layers

CONVOLUTIONS = (2, 2, 3, 3, 3)
CHANNELS = (64, 128, 256, 512, 512)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """Normalisation of RGB in [0, 1] with ImageNet's mean and deviation, inside the network so that no caller needs it.

    Example:
        >>> Normalise()(torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)).flatten()
        tensor([0., 0., 0.])
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) / self.std


class VGG16Encoder(nn.Module):
    """VGG16's convolutions (Simonyan & Zisserman 2015).

    Args:
        pretrained: True, False or a path, as in :func:`imagenet_weights`.
        width: factor on every channel count; ImageNet weights exist for 1.0 only.
        batch_norm: torchvision's ``vgg16_bn``. The paper's encoder has none; from random weights, thirteen layers
            without it give nearly the same features for any two photographs.

    Raises:
        ValueError: if weights are requested at another width, or do not fit.

    Shape:
        - image: ``(N, 3, H, W)`` in [0, 1], sides multiples of 32.
        - output: six tensors, ``(N, 64w, H, W)`` to ``(N, 512w, H/16, W/16)``, and the last one pooled, at H/32.

    Example:
        >>> encoder = VGG16Encoder(pretrained=False, width=0.125)
        >>> [tuple(features.shape[1:]) for features in encoder(torch.rand(1, 3, 64, 96))][::5]
        [(8, 64, 96), (64, 2, 3)]
    """

    def __init__(self, pretrained: bool | str = True, width: float = 1.0, batch_norm: bool = False) -> None:
        super().__init__()
        channels = tuple(max(1, round(count * width)) for count in CHANNELS)
        self.channels = (*channels, channels[-1])
        layers = make_layers(_plan(channels), batch_norm=batch_norm)
        _initialise(layers)
        if pretrained is not False:
            _load(layers, "vgg16_bn" if batch_norm else "vgg16", pretrained, width)
        self.normalise = Normalise()
        self.blocks = nn.ModuleList(_split(layers))

    def first_convolution(self) -> nn.Module:
        """Return the convolution that is applied to the image."""
        return cast(nn.Sequential, self.blocks[0])[0]

    def delicate(self) -> list[nn.Module]:
        """Return the stages that int8 would blur: none is known."""
        return []

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.normalise(image)
        features: list[Tensor] = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
            x = F.max_pool2d(x, 2)
        features.append(x)
        return features


def _plan(channels: tuple[int, ...]) -> list[str | int]:
    plan: list[str | int] = []
    for count, width in zip(CONVOLUTIONS, channels, strict=True):
        plan += [width] * count + ["M"]
    return plan


def _initialise(layers: nn.Sequential) -> None:
    """Initialise He-normal, as in torchvision's VGG; with make_layers' default, signals fade over the 13 layers."""
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)


def _load(layers: nn.Sequential, architecture: str, pretrained: bool | str, width: float) -> None:
    if width != 1.0:
        raise ValueError(f"ImageNet weights exist for width 1.0, got width {width}; say `--pretrained False`")
    state = imagenet_weights(architecture, pretrained) or {}
    features = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    try:
        layers.load_state_dict(features)
    except RuntimeError as error:
        raise ValueError(
            f"expected weights of torchvision's {architecture} in {pretrained}: {str(error)[:200]}"
        ) from error


def _split(layers: nn.Sequential) -> list[nn.Sequential]:
    """Split at the pooling layers, which the forward pass applies itself."""
    blocks: list[list[nn.Module]] = [[]]
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            blocks.append([])
        else:
            blocks[-1].append(layer)
    return [nn.Sequential(*block) for block in blocks if block]
