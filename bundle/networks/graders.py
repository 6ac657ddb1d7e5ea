"""Stage 1's graders: image classifiers of torchvision and timm with five grades."""

# flake8: noqa: N803

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torchvision
from bundle.labels import GRADES
from bundle.networks.encoders import LITES, LiteNormalise
from bundle.networks.imagenet import TIMM_ARCHITECTURES, fill, imagenet_weights
from bundle.networks.vgg import Normalise
from bundle.optional import import_optional
from torch import Tensor, nn
from torch.nn import functional as F

ARCHITECTURES = ("resnext50_32x4d", "resnext101_32x8d")
"""Architectures that the pipeline trains: the paper's pseudo-labellers."""

KNOWN_ARCHITECTURES = (*ARCHITECTURES, "densenet201", "nasnetalarge", *LITES)
"""All architectures that the paper compares, and the light ones, whose ImageNet weights come as packages."""


LAST_STRIDE, EARLIER_STRIDE = 32, 16
"""Image pixels per activation, along each axis, in the last stage and in the one before it."""

NO_SHIFT = (0.0,) * len(GRADES)
"""Prior shift of a grader that was trained with equal class weights."""


def prior_shift(class_weights: Sequence[float]) -> tuple[float, ...]:
    """Return the correction of the logits for the class weights in training: ``log w_c``, 0 where ``w_c`` is 0.

    Cross-entropy weighted by ``w`` makes ``softmax(z)_c ~ w_c p(c | x)``: a posterior under a different prior than the
    photographs have. Hence ``p(c | x) = softmax(z - log w)_c``. A class of weight 0 was not trained and is not shifted.

    Args:
        class_weights: one for each grade.

    Raises:
        ValueError: if there are not five weights, or one is negative or not finite.

    Example:
        >>> prior_shift([4.0, 1.0, 1.0, 1.0, 0.0])  # log 4
        (1.3862943611198906, 0.0, 0.0, 0.0, 0.0)

    Source:
        Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
    """
    weights = list(class_weights)
    if len(weights) != len(GRADES) or not all(isinstance(w, (int, float)) and 0 <= w < math.inf for w in weights):
        raise ValueError(f"expected {len(GRADES)} class weights that are finite and not negative, got {weights}")
    return tuple(math.log(weight) if weight else 0.0 for weight in weights)


Classifier = Any
"""A network of torchvision or timm; neither package annotates the types of its layers."""


class Grader(nn.Module):
    """An ImageNet classifier whose last layer gives the five grades (Liu & Huang 2023, section 3.1 and table 1).

    ``forward(x) = head(features(x))``, wherever the network is cut; Grad-CAM uses ``features``. The architectures are
    by Xie et al. (ResNeXt, CVPR 2017), Huang et al. (DenseNet, CVPR 2017), Zoph et al. (NASNet, CVPR 2018) and Tan & Le
    (EfficientNet, ICML 2019; the Lite ones are Google's, 2020).

    Args:
        architecture: one of ``KNOWN_ARCHITECTURES``; torchvision's names, or timm's where torchvision has no such
            network.
        pretrained: ImageNet weights: True, False or a path (:func:`imagenet_weights`). From a file that stage 1 wrote,
            the last layer is loaded too: training continues from there, for example at another image size.
        heat_map_stride: image pixels per feature along each axis: 32 for the last stage, 16 for the one before it. It
            changes neither weights nor logits.

    Attributes:
        temperature: divisor of the logits when they are turned into probabilities; ``forward`` does not apply it. 1
            until :func:`bundle.networks.weights.load_grader` sets the fitted value.
        prior_shift: five numbers to subtract from the divided logits (:func:`prior_shift`); zeros until ``load_grader``
            sets them.

    Raises:
        ValueError: if the architecture is unknown or cannot be cut at that stride, timm is needed and missing, or the
            weights do not fit.

    Shape:
        - image: ``(N, 3, H, W)``, RGB in [0, 1].
        - output: grade logits ``(N, 5)``.

    Example:
        >>> import torch
        >>> Grader("resnext50_32x4d", pretrained=False)(torch.rand(1, 3, 64, 96)).shape
        torch.Size([1, 5])
    """

    def __init__(
        self, architecture: str = "resnext50_32x4d", pretrained: bool | str = True, heat_map_stride: int = 32
    ) -> None:
        super().__init__()
        if architecture not in KNOWN_ARCHITECTURES:
            raise ValueError(f"expected architecture in {list(KNOWN_ARCHITECTURES)}, got {architecture!r}")
        _check_stride(architecture, heat_map_stride)
        self.architecture, self.heat_map_stride = architecture, heat_map_stride
        self.temperature, self.prior_shift = 1.0, NO_SHIFT
        self.parts = _PARTS[architecture]
        self.normalise = self.parts.normalise()
        self.classifier = _classifier(architecture)
        last = self.parts.last_layer
        grades = nn.Linear(getattr(self.classifier, last).in_features, len(GRADES))
        state = imagenet_weights(architecture, pretrained)
        if state is not None and not _grades_already(state, last):
            fill(self.classifier, state, architecture)
            state = None
        setattr(self.classifier, last, grades)
        if state is not None:
            fill(self.classifier, state, architecture)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))

    def trunk(self) -> list[nn.Module]:
        """Return all layers except the last one, which gives the grades: those that ImageNet weights fill."""
        return [layer for name, layer in self.classifier.named_children() if name != self.parts.last_layer]

    def features(self, image: Tensor) -> Tensor:
        """Return the activations of the last convolutional stage, or of the one before it, after the ReLU.

        Shape:
            - output: ``(N, C, H/32, W/32)``, where ``C`` is 2048 (ResNeXt), 1920 (DenseNet), 4032 (NASNet) or 1280
              (EfficientNet-Lite). With ``heat_map_stride`` 16: ``(N, C, H/16, W/16)``, where ``C`` is 1024 (ResNeXt),
              1792 (DenseNet), 672 (Lite0 and Lite1) or 720 (Lite2).
        """
        activations = self.parts.front(self.classifier, self.normalise(image))
        return activations if self.heat_map_stride == EARLIER_STRIDE else self._last_stage(activations)

    def head(self, features_NCHW: Tensor) -> Tensor:
        """Compute the grade logits ``(N, 5)`` from ``features``: one linear layer on the mean of the last stage."""
        last = self._last_stage(features_NCHW) if self.heat_map_stride == EARLIER_STRIDE else features_NCHW
        last_layer = getattr(self.classifier, self.parts.last_layer)
        return last_layer(F.adaptive_avg_pool2d(last, 1).flatten(1))

    def _last_stage(self, activations: Tensor) -> Tensor:
        return activations if self.parts.back is None else self.parts.back(self.classifier, activations)


def _grades_already(state: Mapping[str, Tensor], last_layer: str) -> bool:
    bias = state.get(f"{last_layer}.bias")
    return bias is not None and len(bias) == len(GRADES)


class GradersTogether(nn.Module):
    """An ensemble of graders: the mean of their log-probabilities, each corrected for its prior shift.

    ``z_c = mean_g log softmax(z_g - shift_g)_c``. The temperatures are not used, because they were fitted on a fold
    that may be scored.

    Args:
        graders: one or more.

    Shape:
        - image: ``(N, 3, H, W)``; output: grade logits ``(N, 5)``.

    Example:
        >>> grader = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5))
        >>> _ = [nn.init.zeros_(parameter) for parameter in grader.parameters()]
        >>> grader.prior_shift = (float(torch.tensor(4.0).log()), 0.0, 0.0, 0.0, 0.0)  # grade 0 weighed four times
        >>> GradersTogether([grader])(torch.rand(1, 3, 64, 96)).softmax(dim=1)  # 1/4 to 1
        tensor([[0.0588, 0.2353, 0.2353, 0.2353, 0.2353]], grad_fn=<SoftmaxBackward0>)
    """

    def __init__(self, graders: Iterable[nn.Module]) -> None:
        super().__init__()
        self.graders = nn.ModuleList(graders)

    def forward(self, image: Tensor) -> Tensor:
        logits = [grader(image).float() - image.new_tensor(grader.prior_shift) for grader in self.graders]
        return torch.stack([one.log_softmax(dim=1) for one in logits]).mean(dim=0)


class Symmetric(nn.Module):
    """Normalisation from RGB in [0, 1] to [-1, 1], as for NASNet's ImageNet weights (timm: mean and deviation 0.5).

    Example:
        >>> import torch
        >>> Symmetric()(torch.tensor([0.0, 0.5, 1.0]))
        tensor([-1.,  0.,  1.])
    """

    def forward(self, image: Tensor) -> Tensor:
        return 2 * image - 1


def _resnet_front(net: Classifier, x: Tensor) -> Tensor:
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    return net.layer3(net.layer2(net.layer1(x)))


def _resnet_back(net: Classifier, x: Tensor) -> Tensor:
    return net.layer4(x)


def _densenet_front(net: Classifier, x: Tensor) -> Tensor:
    """Run up to the ReLU of the last transition, before its pooling."""
    for name, part in net.features.named_children():
        if name == "transition3":
            return part.relu(part.norm(x))
        x = part(x)
    raise AssertionError("a DenseNet has three transitions")


def _densenet_back(net: Classifier, x: Tensor) -> Tensor:
    """Run up to the ReLU that torchvision applies between ``features`` and pooling; the others end with a ReLU too."""
    x = net.features.transition3.pool(net.features.transition3.conv(x))
    return F.relu(net.features.norm5(net.features.denseblock4(x)))


def _nasnet_front(net: Classifier, x: Tensor) -> Tensor:
    return net.forward_features(x)


LITE_STAGES_TO_16 = 5
"""Stages of EfficientNet-Lite up to H/16, out of seven; the sixth goes to H/32."""


def _lite_front(net: Classifier, x: Tensor) -> Tensor:
    """Run up to the first ReLU6 of the block that goes to H/32, before its strided convolution."""
    x = net.blocks[:LITE_STAGES_TO_16](net.bn1(net.conv_stem(x)))
    first = net.blocks[LITE_STAGES_TO_16][0]
    return first.bn1(first.conv_pw(x))


def _lite_back(net: Classifier, x: Tensor) -> Tensor:
    """Run up to the ReLU6 of the last convolution; the block that changes the resolution has no residual connection."""
    first, *others = net.blocks[LITE_STAGES_TO_16]
    x = first.bn3(first.conv_pwl(first.bn2(first.conv_dw(x))))
    for block in (*others, *net.blocks[LITE_STAGES_TO_16 + 1]):
        x = block(x)
    return net.bn2(net.conv_head(x))


class _Parts(NamedTuple):
    """The parts of one architecture: up to H/16, from there to the last activations, and the layer that is replaced.

    If ``back`` is None, the network is not cut at H/16 and ``front`` ends with the last activations.
    """

    front: Callable[[Classifier, Tensor], Tensor]
    back: Callable[[Classifier, Tensor], Tensor] | None
    last_layer: str
    normalise: Callable[[], nn.Module]


_PARTS = {
    "resnext50_32x4d": _Parts(_resnet_front, _resnet_back, "fc", Normalise),
    "resnext101_32x8d": _Parts(_resnet_front, _resnet_back, "fc", Normalise),
    "densenet201": _Parts(_densenet_front, _densenet_back, "classifier", Normalise),
    "nasnetalarge": _Parts(_nasnet_front, None, "last_linear", Symmetric),
    **dict.fromkeys(LITES, _Parts(_lite_front, _lite_back, "classifier", LiteNormalise)),
}


def _check_stride(architecture: str, stride: int) -> None:
    if stride not in (LAST_STRIDE, EARLIER_STRIDE):
        raise ValueError(f"expected heat_map_stride {LAST_STRIDE} or {EARLIER_STRIDE}, got {stride!r}")
    if stride == EARLIER_STRIDE and _PARTS[architecture].back is None:
        raise ValueError(
            f"expected heat_map_stride {LAST_STRIDE} for {architecture}, got {stride}: each of its cells reads the two "
            f"before it, so no one stage at 1/{stride} decides; raise image_size, or leave this grader out"
        )


def _classifier(architecture: str) -> Classifier:
    """Build the network with ImageNet's thousand classes and random weights."""
    if architecture in TIMM_ARCHITECTURES:
        return import_optional("timm", architecture).create_model(architecture, pretrained=False)
    return torchvision.models.get_model(architecture, weights=None)
