"""A broken weights file is refused in one sentence that names it, and nothing in it is executed."""

import io

import pytest
import torch
import torchvision
from bundle.networks.graders import Grader
from bundle.networks.imagenet import imagenet_weights, read_weights
from bundle.networks.weights import load_grader, load_teacher, load_weights, provenance, refuse_fused
from hypothesis import strategies as st
from torch import nn

from tests.fuzz.broken import broken_bytes, broken_tree, given_files, judged, written


def stored(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


class Small(nn.Module):
    """Stands in for a network of torchvision: its last layer is all that is looked at."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)


FACTS = {
    "architecture": "resnext50_32x4d", "temperature": 1.5, "class_weights": [1.5, 1.0, 1.0, 0.0, 0.5], "image_size": 64,
    "fuse": False,
}  # fmt: skip
STATE = {"weight": torch.rand(2, 3), "bias": torch.rand(2)}
CONTENT = {"model": STATE, "network": "Linear", "facts": FACTS}
GRADER = {"model": {"classifier.fc.weight": torch.rand(5, 3), "classifier.fc.bias": torch.rand(5)}, "network": "Grader"}
FILES = [stored(CONTENT), stored(STATE), stored(CONTENT, _use_new_zipfile_serialization=False)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torchvision.models, "get_model", lambda name, weights: Small())
        yield tmp_path_factory.mktemp("weights")


@given_files(content=st.sampled_from(FILES).flatmap(broken_bytes) | st.binary(max_size=60))
def test_a_broken_weights_file_is_refused_by_name_or_read(folder, content):
    path = written(folder / "model.pt", content)
    judged("weights", lambda: read_weights(path), "model.pt")


@given_files(content=broken_tree(CONTENT))
def test_weights_of_the_wrong_content_are_refused_by_name_or_fit(folder, content):
    path = written(folder / "facts.pt", stored(content))
    judged("weights, network", lambda: load_weights(nn.Linear(3, 2), path, {"image_size": 64}), "facts.pt")
    judged("weights, network", lambda: load_teacher(nn.Linear(3, 2), path), "facts.pt")
    judged("weights, facts", lambda: (refuse_fused(path), provenance(path)), "facts.pt")
    judged("weights, ImageNet", lambda: imagenet_weights("vgg16", str(path)), "facts.pt")


@given_files(content=broken_tree(GRADER | {"facts": FACTS}))
def test_graders_of_the_wrong_content_are_refused_or_fit(folder, content):
    path = written(folder / "grader.pt", stored(content))
    grader = judged("weights, grader", lambda: load_grader(path), "grader.pt", "expected architecture")
    assert grader is None or (isinstance(grader, Grader) and 0 < grader.temperature < float("inf"))


def test_the_files_are_whole_before_they_are_broken(folder):
    for content in FILES:
        assert set(read_weights(written(folder / "whole.pt", content))) in (set(CONTENT), set(STATE))
    assert load_grader(written(folder / "whole.pt", stored(GRADER | {"facts": FACTS}))).temperature == 1.5
    assert load_weights(nn.Linear(3, 2), written(folder / "whole.pt", FILES[0]))["fuse"] is False
