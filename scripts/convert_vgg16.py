"""Convert Keras' ImageNet weights of VGG16 to torchvision's names, for `--pretrained FILE`.

python -m scripts.convert_vgg16 --source vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5 --out vgg16.pth
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from bundle.networks.imagenet import UNREADABLE
from bundle.networks.vgg import CONVOLUTIONS, IMAGENET_MEAN, IMAGENET_STD
from bundle.networks.weights import save_whole
from bundle.optional import import_optional
from numpy.typing import NDArray
from scripts.cli import main
from torch import Tensor

CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
"""What Keras subtracts from an image in BGR, 0 to 255, before VGG16; it does not divide."""

LAYER = re.compile(r"block(\d)_conv(\d)/(?:.*/)?(kernel|bias|block\d_conv\d_[Wb]_1)(?::0)?$")
"""A convolution's arrays: as Keras writes them today, and as its published files of 2016 name them."""


def convert_vgg16(source: str, out: str) -> None:
    """Convert a file; classifier layers are left out.

    Args:
        source: Keras' VGG16, an .h5 file, with or without its top.
        out: the file to write.
    """
    save_whole(out, torchvision_state(read_convolutions(source)))
    print(f"wrote {out}")


def read_convolutions(path: str) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return kernel ``(kH, kW, in, out)`` and bias of each convolution by Keras' name.

    Raises:
        ValueError: if the file is not HDF5, or lacks one of the thirteen convolutions.
    """
    h5py: Any = import_optional("h5py", "Keras' weights files")
    found: dict[str, dict[str, NDArray[np.float32]]] = {}

    def collect(name: str, item: object) -> None:
        match = LAYER.search(name)
        if match and isinstance(item, h5py.Dataset):
            kind = "bias" if match[3] == "bias" or match[3].endswith("_b_1") else "kernel"
            found.setdefault(f"block{match[1]}_conv{match[2]}", {})[kind] = np.asarray(item, np.float32)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
    except UNREADABLE as error:
        raise ValueError(f"expected Keras' VGG16 weights, an .h5 file, at {path}, got: {error}") from error
    missing = [name for name in _names() if set(found.get(name, ())) != {"kernel", "bias"}]
    if missing:
        raise ValueError(f"expected all 13 convolutions of Keras' VGG16 in {path}, found no {', '.join(missing)}")
    return {name: (found[name]["kernel"], found[name]["bias"]) for name in _names()}


def torchvision_state(layers: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]) -> dict[str, Tensor]:
    """Return the same network as ``features.N.weight`` and ``.bias``, for images normalised as torchvision does.

    With ``x`` normalised in RGB, Keras' input is ``255 (std x + mean) - caffe_mean`` in BGR. The first layer takes the
    scale into its kernel and the shift into its bias. At the border both pad with zero, which is the mean of the one or
    the other; the two differ by 0.5 of 255 at most.
    """
    state: dict[str, Tensor] = {}
    for index, (kernel, bias) in zip(_indices(), layers.values(), strict=True):
        if not state:
            kernel, bias = _for_normalised_rgb(kernel, bias)
        state[f"features.{index}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
        state[f"features.{index}.bias"] = torch.from_numpy(np.ascontiguousarray(bias))
    return state


def _for_normalised_rgb(
    kernel: NDArray[np.float32], bias: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rgb = kernel[:, :, ::-1]  # (3, 3, in, out): Keras' channels are BGR
    shift = 255 * np.array(IMAGENET_MEAN, np.float32) - np.array(CAFFE_MEAN_BGR[::-1], np.float32)  # (in,)
    scaled = rgb * (255 * np.array(IMAGENET_STD, np.float32))[:, None]
    return scaled, bias + np.einsum("hwio,i->o", rgb, shift)


def _names() -> list[str]:
    return [f"block{block}_conv{layer}" for block, count in enumerate(CONVOLUTIONS, 1) for layer in range(1, count + 1)]


def _indices() -> Iterator[int]:
    """Yield the place of each convolution in torchvision's ``features``: ReLUs and pools take places too."""
    index = 0
    for count in CONVOLUTIONS:
        for _ in range(count):
            yield index
            index += 2
        index += 1


if __name__ == "__main__":
    main(convert_vgg16)
