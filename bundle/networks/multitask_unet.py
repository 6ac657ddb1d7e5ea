"""The multi-task U-Net, which outlines lesions and grades the disease."""

from collections.abc import Sequence
from typing import Any, cast

from bundle.labels import LESION_COUNT
from bundle.networks.encoders import IMAGE_CHANNELS, LITES, VGG16, build_encoder
from bundle.networks.graded_network import GradedNetwork, start_from_prior
from monai.networks.blocks import Convolution
from monai.networks.nets.basic_unet import UpCat
from torch import Tensor, nn

DECODER_CHANNELS = (256, 128, 64, 32, 16)
LIGHT_DECODER_CHANNELS = (128, 64, 48, 32, 16)
"""For EfficientNet-Lite0: 34 G multiplications at 1024 px instead of 50; VGG16 with ``DECODER_CHANNELS`` takes 401."""

IMAGE_SKIP_CHANNELS = 16
DECODER_NORMS = {"batch": ("batch", {}), "group": ("group", {"num_groups": 8})}


class MultiTaskUNet(GradedNetwork):
    """U-Net on an encoder whose deepest features also give the grade; VGG16 in Liu & Huang 2023, section 3.2.

    The decoder keeps the full-resolution skip (block1_conv2), as Keras ``segmentation_models`` does: a
    microaneurysm is 2 to 3 pixels wide at 1024. Encoders that begin at H/2 have no such skip; one convolution of the
    normalised image replaces it. Grade: global average pooling and one linear layer.

    Args:
        pretrained: ImageNet weights of the encoder: True, False or a path (:func:`build_encoder`).
        width: factor on every channel count; 1.0 is VGG16. The decoder keeps at least 16 channels: five classes do
            not fit through fewer.
        batch_norm: of the encoder; see :class:`VGG16Encoder`. ``decoder_norm`` sets the decoder's; Keras' has batch
            norm.
        lesion_classes: number of classes of the segmentation head, without the background; 1 if lesions are fused.
        decoder_norm: ``batch``, or ``group`` (8 groups), which makes an image's result independent of its batch.
        lesion_prior: probability of each lesion at every pixel before training (:func:`start_from_prior`); None starts
            the segmentation head He-normal and without a bias, like the rest of the decoder.
        encoder: one of ``bundle.networks.encoders.ENCODERS``; ``width`` and ``batch_norm`` are for ``vgg16`` alone.
        freeze_batch_norm: keep the pretrained statistics of the encoder's batch norm in training too, because the
            statistics of batches of one or two are unreliable; scale and shift are still learned. For encoders with
            batch norm and pretrained weights.

    Raises:
        ValueError: if ``lesion_classes`` is below 1, ``decoder_norm`` is unknown, the prior is invalid, the encoder is
            unknown or has no batch norm to freeze, or as :func:`build_encoder`.

    Shape:
        - image: ``(N, 3, H, W)``, RGB in [0, 1], sides multiples of 32.
        - output of ``forward``: lesion logits ``(N, 1 + lesion_classes, H, W)``, class 0 is background.
        - output of ``both_tasks``: lesion logits under ``lesions``, and grade logits ``(N, 5)`` under ``grade``.

    Example:
        >>> import torch
        >>> network = MultiTaskUNet(pretrained=False, width=1 / 16)
        >>> network(torch.rand(1, 3, 64, 96)).shape
        torch.Size([1, 5, 64, 96])
        >>> light = MultiTaskUNet(pretrained=False, encoder="tf_efficientnet_lite0")
        >>> light(torch.rand(1, 3, 64, 96)).shape
        torch.Size([1, 5, 64, 96])
    """

    def __init__(
        self,
        pretrained: bool | str = True,
        width: float = 1.0,
        batch_norm: bool = False,
        lesion_classes: int = LESION_COUNT,
        decoder_norm: str = "batch",
        lesion_prior: float | None = 0.01,
        encoder: str = VGG16,
        freeze_batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if lesion_classes < 1:
            raise ValueError(f"expected one lesion class or more, got lesion_classes {lesion_classes}")
        if decoder_norm not in DECODER_NORMS:
            raise ValueError(f"expected decoder_norm in {list(DECODER_NORMS)}, got {decoder_norm!r}")
        self._settings = {
            "encoder": encoder, "width": width, "batch_norm": batch_norm, "freeze_batch_norm": freeze_batch_norm,
            "decoder_norm": decoder_norm, "lesion_classes": lesion_classes,
        }  # fmt: skip
        self.encoder = build_encoder(encoder, pretrained, width, batch_norm)
        deepest = self.encoder.channels[-1]
        outputs = _decoder_channels(encoder, width)
        self.decoder = _decoder(self.encoder.channels, outputs, decoder_norm, skip_of_image=encoder != VGG16)
        self.segmentation_head = nn.Conv2d(outputs[-1], lesion_classes + 1, 3, padding=1)
        self._read_grade_from(deepest)
        for module in (self.decoder, self.segmentation_head):
            module.apply(_he_normal)
        if lesion_prior is not None:
            start_from_prior(self.segmentation_head, lesion_prior)
        if freeze_batch_norm:
            self._freeze_batch_norm()

    def features(self, image: Tensor) -> Tensor:
        """Return the features behind the grade, ``(N, C, H/32, W/32)``."""
        return self.encoder(image)[-1]

    def settings(self) -> dict[str, Any]:
        """Return the arguments that rebuild this network."""
        return dict(self._settings)

    def shared_modules(self) -> Sequence[nn.Module]:
        """Return the encoder."""
        return (self.encoder,)

    def ends(self) -> list[nn.Module]:
        """Return the convolutions of the image, the full-resolution ones after the last skip, and the heads."""
        last = self.decoder[-1]
        full_resolution = [last.skip, last.up.convs] if isinstance(last, UpWithImage) else [cast(UpCat, last).convs]
        return [*super().ends(), self.encoder.first_convolution(), *full_resolution, self.segmentation_head]

    def unquantised(self) -> list[nn.Module]:
        """Return the first convolution, the delicate stages of the encoder, and both heads."""
        return [self.encoder.first_convolution(), *self.encoder.delicate(), self.segmentation_head, self.grade_head]

    def _encode(self, image: Tensor) -> list[Tensor]:
        return self.encoder(image)

    def _decode(self, features: list[Tensor]) -> Tensor:
        x = features[-1]
        for level, up in enumerate(self.decoder):
            x = up(x, features[len(features) - 2 - level])
        return self.segmentation_head(x)


class UpWithImage(nn.Module):
    """The last decoder block if the encoder begins at H/2: its skip is one convolution of the normalised image.

    Shape:
        - x: ``(N, below, H/2, W/2)``; image: ``(N, 3, H, W)``.
        - output: ``(N, out, H, W)``.

    Example:
        >>> import torch
        >>> up = UpWithImage(below=32, out=16, norm="group")
        >>> up(torch.rand(1, 32, 32, 48), torch.rand(1, 3, 64, 96)).shape
        torch.Size([1, 16, 64, 96])
    """

    def __init__(self, below: int, out: int, norm: str) -> None:
        super().__init__()
        self.skip = Convolution(
            2, IMAGE_CHANNELS, IMAGE_SKIP_CHANNELS, adn_ordering="NA", act=("RELU", {"inplace": True}),
            norm=DECODER_NORMS[norm], bias=False,
        )  # fmt: skip
        self.up = _up(below, IMAGE_SKIP_CHANNELS, out, norm)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        return self.up(x, self.skip(image))


class BothTasks(nn.Module):
    """The network as used in training: ``forward`` returns both tasks, so that DDP's hooks cover both.

    Example:
        >>> import torch
        >>> tasks = BothTasks(MultiTaskUNet(pretrained=False, width=1 / 16))
        >>> {name: tuple(logits.shape) for name, logits in tasks(torch.rand(1, 3, 64, 96)).items()}
        {'lesions': (1, 5, 64, 96), 'grade': (1, 5)}
    """

    def __init__(self, network: GradedNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return self.network.both_tasks(image)


class GradeTask(nn.Module):
    """Encoder and grade head only, with the parameter names of :class:`BothTasks`; used by the meta gradient.

    Example:
        >>> import torch
        >>> network = MultiTaskUNet(pretrained=False, width=1 / 16)
        >>> GradeTask(network)(torch.rand(1, 3, 64, 96)).shape
        torch.Size([1, 5])
        >>> sorted({name.split(".")[1] for name in GradeTask(network).label_parameters()})  # without the decoder
        ['encoder', 'grade_head']
    """

    def __init__(self, network: GradedNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return self.network.head(self.network.features(image))

    def label_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters behind the grade, by name: those of the shared modules and the grade head."""
        return {**shared_parameters(self), **_parameters_of(self, [self.network.grade_head])}


def shared_parameters(tasks: BothTasks | GradeTask) -> dict[str, nn.Parameter]:
    """Return the parameters that both tasks use, under their names in ``tasks``."""
    return _parameters_of(tasks, tasks.network.shared_modules())


def _parameters_of(tasks: nn.Module, modules: Sequence[nn.Module]) -> dict[str, nn.Parameter]:
    wanted = {id(parameter) for module in modules for parameter in module.parameters()}
    return {name: value for name, value in tasks.named_parameters() if id(value) in wanted}


def _decoder_channels(encoder: str, width: float) -> list[int]:
    if encoder in LITES:
        return list(LIGHT_DECODER_CHANNELS)
    return [max(DECODER_CHANNELS[-1], round(channels * width)) for channels in DECODER_CHANNELS]


def _decoder(encoded: Sequence[int], outputs: Sequence[int], norm: str, skip_of_image: bool) -> nn.ModuleList:
    """Build one block for every resolution above the deepest; each takes the output of the block below and a skip."""
    *skips, deepest = encoded
    places = list(zip([deepest, *outputs[:-1]], reversed(skips), outputs, strict=True))  # channels: below, skip, out
    *coarse, (below, skip, out) = places
    blocks: list[nn.Module] = [_up(*place, norm) for place in coarse]
    return nn.ModuleList([*blocks, UpWithImage(below, out, norm) if skip_of_image else _up(below, skip, out, norm)])


def _up(below: int, skip: int, out: int, norm: str) -> UpCat:
    return UpCat(
        2, below, skip, out, act=("RELU", {"inplace": True}), norm=DECODER_NORMS[norm], bias=False,
        upsample="nontrainable", pre_conv=None, interp_mode="nearest", align_corners=None, is_pad=False,
    )  # fmt: skip


def _he_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
