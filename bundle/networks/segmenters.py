"""The compared encoder-decoders of segmentation-models-pytorch, with a grade read from their deepest features."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from bundle.labels import LESION_COUNT
from bundle.networks.graded_network import GradedNetwork, start_from_prior
from bundle.networks.pretrained import fill, imagenet_weights
from bundle.networks.vgg import Normalise
from torch import Tensor, nn

ARCHITECTURES = {"unet": "Unet", "linknet": "Linknet", "deeplabv3plus": "DeepLabV3Plus", "fpn": "FPN"}
"""Our names and those of the package's classes."""

ENCODERS = ("vgg16", "resnet18", "resnet34", "resnet50")
"""Those whose layers are torchvision's, so that its ImageNet weights fit; none of them has dropout."""


class GradedSegmenter(GradedNetwork):
    """An encoder-decoder of segmentation-models-pytorch (smp) whose deepest features also give the grade.

    It trains and is evaluated as :class:`bundle.networks.multitask_unet.MultiTaskUNet`, which shows that the method
    needs no particular encoder-decoder. Packages take MultiTaskUNet alone, and in bfloat16 only the last layer of its
    grade stays in float32. Grade: global average pooling and one linear layer. There is no
    dropout on the way to the grade, where it would falsify the meta gradient. Decoders are as smp makes them: with
    dropout of 0.5 in DeepLabv3+ (after the pyramid) and 0.2 of whole channels in FPN, with none in U-Net and LinkNet.

    smp's U-Net has on VGG the two convolutions at the bottom that Keras ``segmentation_models`` has there, but, unlike
    Keras', no skip at full resolution.

    Args:
        architecture: one of ``ARCHITECTURES``.
        encoder_name: one of ``ENCODERS``; DeepLabv3+ dilates its encoder, which VGG cannot.
        pretrained: ImageNet weights of the encoder, as torchvision has them: True, False or a path.
        lesion_classes: that the segmentation head tells apart, besides the background; 1 where lesions are fused.
        lesion_prior: probability of each lesion at every pixel before training (:func:`start_from_prior`); None leaves
            the head as smp makes it.

    Raises:
        ValueError: if a name is unknown, the two do not go together, there is not one lesion class, smp is missing,
            the prior is none, or the weights do not fit.

    Shape:
        - image: ``(N, 3, H, W)``, RGB in [0, 1], sides multiples of 32.
        - output of ``forward``: lesion logits ``(N, 1 + lesion_classes, H, W)``, class 0 is background.
        - output of ``both_tasks``: those under ``lesions``, and grade logits ``(N, 5)`` under ``grade``.

    Example:
        >>> import torch
        >>> network = GradedSegmenter("linknet", "resnet18", pretrained=False)
        >>> network(torch.rand(1, 3, 64, 96)).shape
        torch.Size([1, 5, 64, 96])

    Reference:
        Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015;
        Chaurasia & Culurciello, "LinkNet: Exploiting Encoder Representations for Efficient Semantic Segmentation",
        VCIP 2017; Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation"
        (DeepLabv3+), ECCV 2018; Seferbekov et al., "Feature Pyramid Network for Multi-Class Land Segmentation",
        CVPR Workshops 2018, and Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019.
    """

    def __init__(
        self,
        architecture: str = "linknet",
        encoder_name: str = "resnet18",
        pretrained: bool | str = True,
        lesion_classes: int = LESION_COUNT,
        lesion_prior: float | None = 0.01,
    ) -> None:
        super().__init__()
        _check(architecture, encoder_name, lesion_classes)
        self._settings = {"architecture": architecture, "encoder_name": encoder_name, "lesion_classes": lesion_classes}
        segmenter = _smp_class(architecture)(encoder_name, encoder_weights=None, classes=lesion_classes + 1)
        self.normalise = Normalise()
        self.encoder = segmenter.encoder
        self.decoder = segmenter.decoder
        self.segmentation_head = segmenter.segmentation_head
        self._read_grade_from(self.encoder.out_channels[-1])
        if lesion_prior is not None:
            start_from_prior(self.segmentation_head[0], lesion_prior)
        state = imagenet_weights(encoder_name, pretrained)
        if state is not None:
            fill(self.encoder, state, encoder_name)  # smp's leaves out the classifier of a thousand classes by itself

    def settings(self) -> dict[str, Any]:
        """Return what builds it again."""
        return dict(self._settings)

    def shared_modules(self) -> Sequence[nn.Module]:
        """Return the encoder."""
        return (self.encoder,)

    def _encode(self, image: Tensor) -> list[Tensor]:
        return self.encoder(self.normalise(image))

    def _decode(self, features: list[Tensor]) -> Tensor:
        return self.segmentation_head(self.decoder(features))


def _check(architecture: str, encoder_name: str, lesion_classes: int) -> None:
    if architecture not in ARCHITECTURES:
        raise ValueError(f"expected architecture in {list(ARCHITECTURES)}, got {architecture!r}")
    if encoder_name not in ENCODERS:
        raise ValueError(f"expected encoder_name in {list(ENCODERS)}, got {encoder_name!r}")
    if architecture == "deeplabv3plus" and encoder_name.startswith("vgg"):
        raise ValueError(
            f"expected an encoder that can be dilated for deeplabv3plus, got {encoder_name!r}; choose a resnet"
        )
    if lesion_classes < 1:
        raise ValueError(f"expected one lesion class or more, got lesion_classes {lesion_classes}")


def _smp_class(architecture: str) -> Callable[..., Any]:
    return getattr(import_smp(architecture), ARCHITECTURES[architecture])


def import_smp(architecture: str) -> ModuleType:
    """Return the package segmentation-models-pytorch, which only the compared segmenters need.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        import segmentation_models_pytorch
    except ImportError as error:
        raise ValueError(
            f"expected the package segmentation-models-pytorch for {architecture}, found none; say "
            f"`pip install 'fundus-dr-multitask[baselines]'`, or `pip install -e '.[baselines]'` in this bundle's "
            f"folder"
        ) from error
    return segmentation_models_pytorch
