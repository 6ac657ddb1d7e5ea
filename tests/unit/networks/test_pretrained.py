"""ImageNet weights come from torchvision, from a file, or not at all; a file is never executed."""

import pickle
import re
import tempfile
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from bundle.networks import imagenet
from bundle.networks.imagenet import imagenet_weights, read_weights
from hypothesis import given, settings
from hypothesis import strategies as st
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
