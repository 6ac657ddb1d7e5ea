"""Encoders of the stage 2 networks: features at six resolutions, with normalisation and ImageNet weights."""

import torchvision
from bundle.networks.imagenet import PACKAGES, fill, imagenet_weights
from bundle.networks.vgg import Normalise, VGG16Encoder
from bundle.optional import import_optional
from torch import Tensor, nn

VGG16 = "vgg16"
RESNETS = ("resnet18", "resnet34", "resnet50", "resnext50_32x4d", "resnext101_32x8d")
LITES = tuple(PACKAGES)
ENCODERS = (VGG16, *RESNETS, *LITES)
"""torchvision's names; timm's for EfficientNet-Lite."""

IMAGE_CHANNELS = 3

RESNET_HEAD = ("fc.",)
LITE_HEAD = ("conv_head.", "bn2.", "classifier.")
"""Name prefixes of a classifier's layers after the last stage."""


class LiteNormalise(nn.Module):
    """Normalisation from RGB in [0, 1] to ``(255 x - 127) / 128``, as in the training of the EfficientNet-Lite weights.

    Example:
        >>> import torch
        >>> LiteNormalise()(torch.tensor([0.0, 127 / 255, 1.0]))
        tensor([-0.9922,  0.0000,  1.0000])
    """

    def forward(self, image: Tensor) -> Tensor:
        return (image * 255 - 127) / 128


class ResNetEncoder(nn.Module):
    """torchvision's ResNet or ResNeXt without pooling and classifier (He et al., CVPR 2016; Xie et al., CVPR 2017).

    Args:
        architecture: one of ``RESNETS``.
        pretrained: True, False or a path, as in :func:`imagenet_weights`.

    Raises:
        ValueError: if the weights are missing or do not fit.

    Shape:
        - image: ``(N, 3, H, W)`` in [0, 1], sides multiples of 32.
        - output: six tensors: the normalised image, and features ``(N, C, H/2, W/2)`` to ``(N, C, H/32, W/32)``.

    Example:
        >>> import torch
        >>> encoder = ResNetEncoder("resnet18", pretrained=False)
        >>> [tuple(features.shape[1:]) for features in encoder(torch.rand(1, 3, 64, 96))][:3]
        [(3, 64, 96), (64, 32, 48), (64, 16, 24)]
    """

    def __init__(self, architecture: str = "resnet18", pretrained: bool | str = True) -> None:
        super().__init__()
        network = torchvision.models.get_model(architecture, weights=None)
        network.fc = nn.Identity()
        fill_trunk(network, architecture, pretrained, RESNET_HEAD)
        self.normalise = Normalise()
        self.stem = nn.Sequential(network.conv1, network.bn1, network.relu)
        self.pool = network.maxpool
        self.stages = nn.ModuleList([network.layer1, network.layer2, network.layer3, network.layer4])
        widths = [64, 128, 256, 512]
        expansion = network.layer1[-1].expansion
        self.channels = (IMAGE_CHANNELS, widths[0], *(width * expansion for width in widths))

    def first_convolution(self) -> nn.Module:
        """Return the convolution that is applied to the image."""
        return self.stem[0]

    def delicate(self) -> list[nn.Module]:
        """Return the stages that int8 would blur: none is known."""
        return []

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.normalise(image)
        features = [x]
        x = self.stem(x)
        features.append(x)
        x = self.pool(x)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class LiteEncoder(nn.Module):
    """timm's EfficientNet-Lite without its last convolution and classifier: no squeeze-and-excitation, only ReLU6.

    It has no stochastic depth, which would make the meta gradient wrong.

    Args:
        architecture: one of ``LITES``.
        pretrained: True reads the weights from an installed package; False or a path, as in
            :func:`imagenet_weights`.

    Raises:
        ValueError: if timm or the package is missing, or the weights do not fit.

    Shape:
        - image: ``(N, 3, H, W)`` in [0, 1], sides multiples of 32.
        - output: six tensors: the normalised image, and features ``(N, C, H/2, W/2)`` to ``(N, C, H/32, W/32)``.

    Example:
        >>> import torch
        >>> encoder = LiteEncoder("tf_efficientnet_lite0", pretrained=False)
        >>> [features.shape[1] for features in encoder(torch.rand(1, 3, 64, 96))]
        [3, 16, 24, 40, 112, 320]

    Reference:
        Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; the Lite
        variants are Google's, 2020.
    """

    def __init__(self, architecture: str = "tf_efficientnet_lite0", pretrained: bool | str = True) -> None:
        super().__init__()
        self.normalise = LiteNormalise()
        self.trunk = import_optional("timm", architecture).create_model(architecture, features_only=True)
        fill_trunk(self.trunk, architecture, pretrained, LITE_HEAD)
        self.channels = (IMAGE_CHANNELS, *self.trunk.feature_info.channels())

    def first_convolution(self) -> nn.Module:
        """Return the convolution that is applied to the image."""
        return self.trunk.conv_stem

    def delicate(self) -> list[nn.Module]:
        """Return the stages at H/2 and H/4, whose few channels have ranges too far apart for 8 bits (decision 0036)."""
        return list(self.trunk.blocks[:2])

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.normalise(image)
        features = [x]
        features.extend(self.trunk(x))
        return features


Encoder = VGG16Encoder | ResNetEncoder | LiteEncoder


def build_encoder(
    name: str = VGG16, pretrained: bool | str = True, width: float = 1.0, batch_norm: bool = False
) -> Encoder:
    """Build an encoder by name; all take RGB in [0, 1] and return six tensors, at H, H/2, ... and H/32.

    VGG16's tensor at H is the output of its first block. The others begin at H/2 and return the normalised image at H.

    Args:
        name: one of ``ENCODERS``.
        pretrained: ImageNet weights: True, False or a path. True takes torchvision's, or those of an installed package
            for EfficientNet-Lite.
        width: factor on VGG16's channel counts.
        batch_norm: adds batch norm to VGG16; the others always have it.

    Raises:
        ValueError: if the name is unknown, ``width`` or ``batch_norm`` is given for an encoder other than VGG16, or the
            weights are missing or do not fit.

    Example:
        >>> build_encoder("vgg16", pretrained=False, width=1 / 16).channels
        (4, 8, 16, 32, 32, 32)
        >>> build_encoder("resnet50", pretrained=False).channels
        (3, 64, 256, 512, 1024, 2048)
    """
    if name not in ENCODERS:
        raise ValueError(f"expected encoder in {list(ENCODERS)}, got {name!r}")
    if name == VGG16:
        return VGG16Encoder(pretrained, width, batch_norm)
    if width != 1.0 or batch_norm:
        raise ValueError(
            f"expected width 1.0 and batch_norm false for encoder {name}, which has its own widths and batch norm in "
            f"any case, got {width} and {batch_norm}; leave both out, or take encoder {VGG16}"
        )
    return ResNetEncoder(name, pretrained) if name in RESNETS else LiteEncoder(name, pretrained)


def fill_trunk(trunk: nn.Module, architecture: str, pretrained: bool | str, head: tuple[str, ...]) -> None:
    """Load the weights of a classifier, except those of its head, into an encoder."""
    state = imagenet_weights(architecture, pretrained)
    if state is not None:
        fill(trunk, {name: value for name, value in state.items() if not name.startswith(head)}, architecture)
