"""Stage 1's graders: image classifiers of torchvision with five grades."""

from collections.abc import Mapping

import torchvision
from torch import Tensor, nn

from bundle.labels import GRADES
from bundle.networks.pretrained import imagenet_weights
from bundle.networks.vgg import Normalise

ARCHITECTURES = ("resnext50_32x4d", "resnext101_32x8d")


class Grader(nn.Module):
    """A ResNeXt whose last layer gives the five grades (Liu & Huang 2023, section 3.1; Xie et al., CVPR 2017).

    ``forward(x) = head(features(x))``; Grad-CAM looks at ``features``.

    Args:
        architecture: one of ``ARCHITECTURES``, torchvision's names.
        pretrained: ImageNet weights: True, False or a path.

    Raises:
        ValueError: if the architecture is unknown or the weights do not fit.

    Shape:
        - image: ``(N, 3, H, W)``, RGB in [0, 1].
        - output: grade logits ``(N, 5)``.
    """

    def __init__(self, architecture: str = "resnext50_32x4d", pretrained: bool | str = True) -> None:
        super().__init__()
        if architecture not in ARCHITECTURES:
            raise ValueError(f"expected architecture in {list(ARCHITECTURES)}, got {architecture!r}")
        self.architecture = architecture
        self.normalise = Normalise()
        self.classifier = torchvision.models.get_model(architecture, weights=None)
        state = imagenet_weights(architecture, pretrained)
        if state is not None:
            _load(self.classifier, state, architecture)
        self.classifier.fc = nn.Linear(self.classifier.fc.in_features, len(GRADES))

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))

    def features(self, image: Tensor) -> Tensor:
        """Return the activations of the last convolutional stage, ``(N, 2048, H/32, W/32)``."""
        net, x = self.classifier, self.normalise(image)
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        return net.layer4(net.layer3(net.layer2(net.layer1(x))))

    def head(self, features_NCHW: Tensor) -> Tensor:
        """Return the grade logits ``(N, 5)`` of those activations."""
        return self.classifier.fc(self.classifier.avgpool(features_NCHW).flatten(1))


def _load(classifier: nn.Module, state: Mapping[str, Tensor], architecture: str) -> None:
    try:
        classifier.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"expected weights of torchvision's {architecture}: {str(error)[:200]}") from error
