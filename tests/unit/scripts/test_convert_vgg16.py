"""Keras' VGG16 becomes torchvision's: other names, other axes, another normalisation, the same features."""

import h5py
import numpy as np
import pytest
import torch
import torchvision
from bundle.networks.vgg import CONVOLUTIONS, Normalise
from scripts.convert_vgg16 import CAFFE_MEAN_BGR, convert_vgg16
from torch.nn import functional as F

WIDTHS = (3, 4, 5, 6, 7, 8)


@pytest.fixture
def layers():
    """Random kernels and biases of all thirteen convolutions, with few channels, by Keras' names."""
    rng, found = np.random.default_rng(0), {}
    for block, count in enumerate(CONVOLUTIONS, 1):
        for layer in range(1, count + 1):
            inputs = WIDTHS[block - 1] if layer == 1 else WIDTHS[block]
            kernel = rng.normal(size=(3, 3, inputs, WIDTHS[block])).astype(np.float32)
            found[f"block{block}_conv{layer}"] = (kernel, rng.normal(size=WIDTHS[block]).astype(np.float32))
    return found


def write(path, layers, kernel="{0}/{0}_W_1:0", bias="{0}/{0}_b_1:0"):
    with h5py.File(path, "w") as file:
        for name, (weights, offsets) in layers.items():
            file[kernel.format(name)], file[bias.format(name)] = weights, offsets
        file["predictions/kernel:0"] = np.zeros((2, 2), np.float32)
    return str(path)


def test_the_names_are_torchvisions_and_the_axes_too(tmp_path, layers):
    convert_vgg16(write(tmp_path / "vgg.h5", layers), str(tmp_path / "vgg16.pth"))
    state = torch.load(tmp_path / "vgg16.pth")
    with torch.device("meta"):
        assert list(state) == list(torchvision.models.vgg16().features.state_dict(prefix="features."))
    kernel, bias = layers["block5_conv3"]
    assert state["features.28.weight"][1, 2, 0, 1] == kernel[0, 1, 2, 1]
    assert torch.equal(state["features.28.bias"], torch.from_numpy(bias))


def test_the_first_layer_gives_what_kerass_gives_on_its_own_input(tmp_path, layers):
    convert_vgg16(write(tmp_path / "vgg.h5", layers), str(tmp_path / "vgg16.pth"))
    state = torch.load(tmp_path / "vgg16.pth")
    image = torch.rand(1, 3, 8, 11, generator=torch.Generator().manual_seed(0))
    theirs = 255 * image.flip(1) - torch.tensor(CAFFE_MEAN_BGR).view(1, 3, 1, 1)
    kernel, bias = map(torch.from_numpy, layers["block1_conv1"])
    expected = F.conv2d(theirs, kernel.permute(3, 2, 0, 1), bias)
    ours = F.conv2d(Normalise()(image), state["features.0.weight"], state["features.0.bias"])
    assert torch.allclose(ours, expected, atol=1e-3 * expected.abs().max().item())


def test_files_that_keras_writes_today_are_read_too(tmp_path, layers):
    old = write(tmp_path / "old.h5", layers)
    new = write(tmp_path / "new.h5", layers, "model_weights/{0}/{0}/kernel:0", "model_weights/{0}/{0}/bias:0")
    for source in (old, new):
        convert_vgg16(source, source + ".pth")
    first, second = torch.load(old + ".pth"), torch.load(new + ".pth")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_file_is_refused(tmp_path, layers):
    del layers["block4_conv2"]
    path = write(tmp_path / "vgg.h5", layers)
    with pytest.raises(ValueError, match=r"all 13 convolutions of Keras' VGG16 in .*, found no block4_conv2"):
        convert_vgg16(path, str(tmp_path / "out.pth"))
    (tmp_path / "table.h5").write_text("id,grade\n")
    with pytest.raises(ValueError, match=r"expected Keras' VGG16 weights, an \.h5 file, at .*table\.h5, got: "):
        convert_vgg16(str(tmp_path / "table.h5"), str(tmp_path / "out.pth"))
    assert not (tmp_path / "out.pth").exists()
