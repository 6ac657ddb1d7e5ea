"""Encoder-decoders of segmentation-models-pytorch for comparison, with a grade head on their deepest features."""

from collections.abc import Sequence
from typing import Any

from bundle.labels import LESION_COUNT
from bundle.networks.encoders import LITE_HEAD, LITES, LiteNormalise, fill_trunk
from bundle.networks.graded_network import GradedNetwork, start_from_prior
from bundle.networks.vgg import Normalise
from bundle.optional import import_optional
from torch import Tensor, nn

ARCHITECTURES = {"unet": "Unet", "linknet": "Linknet", "deeplabv3plus": "DeepLabV3Plus", "fpn": "FPN"}
"""Our names and the class names of the package."""

ENCODERS = ("vgg16", "resnet18", "resnet34", "resnet50", *LITES)
"""Encoders with the layers of torchvision or timm, so that their ImageNet weights fit; all without dropout."""


class GradedSegmenter(GradedNetwork):
    """An encoder-decoder of segmentation-models-pytorch (smp) whose deepest features also give the grade.

    It is trained and evaluated like :class:`bundle.networks.multitask_unet.MultiTaskUNet`, which shows that the method
    does not depend on one encoder-decoder. Only MultiTaskUNet can be packaged; in bfloat16, only the last layer of this
    network's grade stays in float32. Grade: global average pooling and one linear layer. The path to the grade has no
    dropout, which would make the meta gradient wrong. Decoders are smp's defaults: dropout of 0.5 in DeepLabv3+ (after
    the pyramid) and of 0.2 on whole channels in FPN, none in U-Net and LinkNet.

    With VGG, smp's U-Net has the same two convolutions at the bottom as Keras ``segmentation_models`` but, unlike
    Keras', no skip at full resolution.

    Args:
        architecture: one of ``ARCHITECTURES``.
        encoder_name: one of ``ENCODERS``; DeepLabv3+ dilates its encoder, which is not possible with VGG.
        pretrained: ImageNet weights of the encoder: True, False or a path, as in :func:`imagenet_weights`.
        lesion_classes: number of classes of the segmentation head, without the background; 1 if lesions are fused.
        lesion_prior: probability of each lesion at every pixel before training (:func:`start_from_prior`); None keeps
            smp's initialisation of the head.
        freeze_batch_norm: keep the pretrained statistics of the encoder's batch norm in training too.

    Raises:
        ValueError: if a name is unknown, the two do not go together, ``lesion_classes`` is below 1, smp is missing, the
            prior is invalid, the weights do not fit, or the encoder has no batch norm to freeze.

    Shape:
        - image: ``(N, 3, H, W)``, RGB in [0, 1], sides multiples of 32.
        - output of ``forward``: lesion logits ``(N, 1 + lesion_classes, H, W)``, class 0 is background.
        - output of ``both_tasks``: lesion logits under ``lesions``, and grade logits ``(N, 5)`` under ``grade``.

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
        freeze_batch_norm: bool = False,
    ) -> None:
        super().__init__()
        _check(architecture, encoder_name, lesion_classes)
        self._settings = {
            "architecture": architecture, "encoder_name": encoder_name, "lesion_classes": lesion_classes,
            "freeze_batch_norm": freeze_batch_norm,
        }  # fmt: skip
        package: Any = import_optional("segmentation_models_pytorch", architecture)
        segmenter = getattr(package, ARCHITECTURES[architecture])(
            f"tu-{encoder_name}" if encoder_name in LITES else encoder_name,  # tu-: timm's, without stochastic depth
            encoder_weights=None,
            classes=lesion_classes + 1,
        )
        self.normalise = LiteNormalise() if encoder_name in LITES else Normalise()
        self.encoder = segmenter.encoder
        self.decoder = segmenter.decoder
        self.segmentation_head = segmenter.segmentation_head
        self._read_grade_from(self.encoder.out_channels[-1])
        if lesion_prior is not None:
            start_from_prior(self.segmentation_head[0], lesion_prior)
        # timm's encoder keeps no classifier, so that its weights are left out; smp's own encoders drop them themselves.
        trunk, head = (self.encoder.model, LITE_HEAD) if encoder_name in LITES else (self.encoder, ())
        fill_trunk(trunk, encoder_name, pretrained, head)
        if freeze_batch_norm:
            self._freeze_batch_norm()

    def settings(self) -> dict[str, Any]:
        """Return the arguments that rebuild this network."""
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
