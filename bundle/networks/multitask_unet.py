"""One network that outlines lesions and grades the disease."""

from collections.abc import Sequence
from typing import Any, cast

from bundle.labels import LESION_COUNT
from bundle.networks.graded_network import GradedNetwork, start_from_prior
from bundle.networks.vgg import VGG16Encoder
from monai.networks.nets.basic_unet import UpCat
from torch import Tensor, nn

DECODER_CHANNELS = (256, 128, 64, 32, 16)
DECODER_NORMS = {"batch": ("batch", {}), "group": ("group", {"num_groups": 8})}


class MultiTaskUNet(GradedNetwork):
    """U-Net on a VGG16 encoder whose deepest features also give the grade (Liu & Huang 2023, section 3.2).

    The decoder keeps the full-resolution skip (block1_conv2), as Keras ``segmentation_models`` does: a
    microaneurysm is 2 to 3 pixels wide at 1024. Grade: global average pooling and one linear layer.

    Args:
        pretrained: ImageNet weights of the encoder: True, False or a path.
        width: factor on every channel count; 1.0 is VGG16. The decoder keeps at least 16 channels: five classes do
            not fit through fewer.
        batch_norm: of the encoder; see :class:`VGG16Encoder`. The decoder's is ``decoder_norm``; Keras' has batch norm.
        lesion_classes: that the segmentation head tells apart, besides the background; 1 where lesions are fused.
        decoder_norm: ``batch``, or ``group`` (8 groups), with which an image's result does not depend on its batch.
        lesion_prior: probability of each lesion at every pixel before training (:func:`start_from_prior`); None starts
            the segmentation head He-normal and without a bias, like the rest of the decoder.

    Raises:
        ValueError: if there is not one lesion class, ``decoder_norm`` is another word, or the prior is none.

    Shape:
        - image: ``(N, 3, H, W)``, RGB in [0, 1], sides multiples of 32.
        - output of ``forward``: lesion logits ``(N, 1 + lesion_classes, H, W)``, class 0 is background.
        - output of ``both_tasks``: those under ``lesions``, and grade logits ``(N, 5)`` under ``grade``.

    Example:
        >>> import torch
        >>> network = MultiTaskUNet(pretrained=False, width=1 / 16)
        >>> network(torch.rand(1, 3, 64, 96)).shape
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
    ) -> None:
        super().__init__()
        if lesion_classes < 1:
            raise ValueError(f"expected one lesion class or more, got lesion_classes {lesion_classes}")
        if decoder_norm not in DECODER_NORMS:
            raise ValueError(f"expected decoder_norm in {list(DECODER_NORMS)}, got {decoder_norm!r}")
        self._settings = {
            "width": width, "batch_norm": batch_norm, "decoder_norm": decoder_norm, "lesion_classes": lesion_classes,
        }  # fmt: skip
        self.encoder = VGG16Encoder(pretrained, width, batch_norm)
        *skips, deepest = (*self.encoder.channels, self.encoder.channels[-1])
        outputs = [max(DECODER_CHANNELS[-1], round(channels * width)) for channels in DECODER_CHANNELS]
        inputs = [deepest, *outputs[:-1]]
        self.decoder = nn.ModuleList(
            _up(below, skip, out, decoder_norm)
            for below, skip, out in zip(inputs, reversed(skips), outputs, strict=True)
        )
        self.segmentation_head = nn.Conv2d(outputs[-1], lesion_classes + 1, 3, padding=1)
        self._read_grade_from(deepest)
        for module in (self.decoder, self.segmentation_head):
            module.apply(_he_normal)
        if lesion_prior is not None:
            start_from_prior(self.segmentation_head, lesion_prior)

    def settings(self) -> dict[str, Any]:
        """Return what builds it again."""
        return dict(self._settings)

    def shared_modules(self) -> Sequence[nn.Module]:
        """Return the encoder."""
        return (self.encoder,)

    def ends(self) -> list[nn.Module]:
        """Name the first convolution, those of the full resolution behind the last skip, and that of the grade."""
        full_resolution = cast(UpCat, self.decoder[-1]).convs
        return [*super().ends(), self.encoder.first_convolution(), full_resolution, self.segmentation_head]

    def _encode(self, image: Tensor) -> list[Tensor]:
        return self.encoder(image)

    def _decode(self, features: list[Tensor]) -> Tensor:
        x = features[-1]
        for level, up in enumerate(self.decoder):
            x = up(x, features[len(features) - 2 - level])
        return self.segmentation_head(x)


class BothTasks(nn.Module):
    """The network as training sees it: ``forward`` gives both tasks, so that DDP's hooks see both.

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
    """Encoder and grade head alone, under the names of :class:`BothTasks`: what the meta gradient differentiates.

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
        """Return what the grade reads, by name: the shared modules and the grade head."""
        return {**shared_parameters(self), **_parameters_of(self, [self.network.grade_head])}


def shared_parameters(tasks: BothTasks | GradeTask) -> dict[str, nn.Parameter]:
    """Return the parameters that both tasks read, under their names in ``tasks``."""
    return _parameters_of(tasks, tasks.network.shared_modules())


def _parameters_of(tasks: nn.Module, modules: Sequence[nn.Module]) -> dict[str, nn.Parameter]:
    wanted = {id(parameter) for module in modules for parameter in module.parameters()}
    return {name: value for name, value in tasks.named_parameters() if id(value) in wanted}


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
