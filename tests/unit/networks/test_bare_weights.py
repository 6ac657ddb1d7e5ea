"""A bare state dict is what MONAI's tools read, and is still no weights of another network."""

import pytest
import torch
from bundle.files import load_json
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import (
    check_facts,
    lesion_thresholds,
    load_weights,
    provenance,
    read_description,
    write_bare,
)

FACTS = {"width": 1 / 16, "image_size": 64, "pretrained": "/home/me/vgg16.pth"}


def unet(seed):
    torch.manual_seed(seed)
    return MultiTaskUNet(pretrained=False, width=1 / 16)


@pytest.fixture
def bare(tmp_path):
    write_bare(tmp_path / "model.pt", unet(0).state_dict(), "MultiTaskUNet", FACTS)
    return tmp_path / "model.pt"


def test_the_file_is_the_state_dict_alone(bare):
    state = torch.load(bare, weights_only=True)
    assert list(state) == list(unet(0).state_dict())
    unet(1).load_state_dict(state)


def test_what_is_loaded_is_what_was_written_with_its_facts(bare):
    other = unet(1)
    facts = load_weights(other, bare, {"image_size": 64})
    assert facts == {**FACTS, "pretrained": "vgg16.pth"}
    assert torch.equal(other.segmentation_head.weight, unet(0).segmentation_head.weight)
    assert provenance(bare)["network"] == "MultiTaskUNet"


def test_lesion_thresholds_are_kept(tmp_path):
    facts = {**FACTS, "lesion_thresholds": {"MA": 0.2, "HE": 1 / 3, "EX": 0.45, "SE": 0.5}}
    write_bare(tmp_path / "fitted.pt", unet(0).state_dict(), "MultiTaskUNet", facts)
    assert lesion_thresholds(tmp_path / "fitted.pt") == (0.2, 1 / 3, 0.45, 0.5)


def test_facts_are_checked(bare):
    with pytest.raises(ValueError, match=r"expected weights of image_size 128 in .*, got 64"):
        load_weights(unet(1), bare, {"image_size": 128})
    check_facts(bare, read_description(bare)["facts"], {"image_size": 64})


def test_the_same_weights_give_the_same_bytes_whatever_the_name(bare, tmp_path):
    write_bare(tmp_path / "deep" / "other.pt", unet(0).state_dict(), "MultiTaskUNet", FACTS)
    assert bare.read_bytes() == (tmp_path / "deep" / "other.pt").read_bytes()
    assert load_json(bare.with_suffix(".json")) == load_json(tmp_path / "deep" / "other.json")


def test_without_its_description_it_is_refused(bare):
    bare.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"without 'model' and 'network', and no model\.json beside it"):
        load_weights(unet(1), bare)


def test_other_weights_under_the_description_are_refused(bare):
    torch.save(unet(1).state_dict(), bare)
    with pytest.raises(ValueError, match=r"expected the weights that .*model\.json was written for"):
        load_weights(unet(1), bare)


def test_a_description_of_something_else_is_refused(bare):
    bare.with_suffix(".json").write_text("[1, 2]")
    with pytest.raises(ValueError, match=r"expected 'network', 'facts' and 'sha256' in .*model\.json, got other"):
        load_weights(unet(1), bare)
