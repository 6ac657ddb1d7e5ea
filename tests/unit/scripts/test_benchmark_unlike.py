"""The page of doubtful photographs: oddities are what they are called, and every part of the page is there."""

import numpy as np
import pytest
import torch
from bundle.datasets.items import file_items
from bundle.deploy.runtimes import load
from bundle.metrics.likeness import fit_likeness, likeness_of
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import facts_of, network_of, save_weights
from bundle.transforms import PrepareFundusd, field_of_view
from PIL import Image
from scripts.benchmarks import oddities
from scripts.benchmarks.unlike import REFUSED, Gauge, unlike
from scripts.prepare import prepare

from tests.conftest import eye

SIZE = 64


@pytest.fixture
def checkpoint(tmp_path):
    """Weights with a likeness to twelve eyes."""
    torch.manual_seed(0)
    network = MultiTaskUNet(pretrained=False, width=1 / 16).eval()
    images = [PrepareFundusd(SIZE)({"image": eye(seed, 90, 70), "masks": {}})["image"] for seed in range(12)]
    features = load("torch", network)(torch.stack(images).float() / 255)["features"].numpy()
    facts = {"image_size": SIZE, "fold": 0, "likeness": fit_likeness(features).facts()}
    save_weights(tmp_path / "model.pt", network, facts)
    return str(tmp_path / "model.pt")


def test_changes_do_what_they_say():
    pixels = eye(0, 90, 70)
    left, top, right, bottom = field_of_view(pixels)
    half = oddities.cut(pixels, 0.5)
    assert half.shape == (70, round((left + right) / 2), 3)
    assert np.array_equal(oddities.turned(oddities.turned(pixels)), pixels)
    assert np.array_equal(oddities.swapped(pixels)[..., 0], pixels[..., 2])
    assert oddities.dimmed(pixels, 0.5).max() == pytest.approx(pixels.max() / 2, abs=1)
    assert oddities.brightened(pixels, 0.5).mean() > pixels.mean()
    grey = oddities.angiogram(pixels)
    assert (grey[..., 0] == grey[..., 2]).all()
    inside = np.s_[top + 20 : bottom - 20, left + 20 : right - 20]
    assert np.corrcoef(grey[inside][..., 0].ravel(), pixels[inside][..., 1].ravel())[0, 1] < -0.9


def test_drawings_and_everyday_pictures_are_rgb_of_8_bits():
    found = [*oddities.drawings(2), *oddities.everyday()]
    assert len(found) == 2 + len(oddities.EVERYDAY)
    assert {(one.dtype.name, one.ndim, one.shape[-1]) for one in found} == {("uint8", 3, 3)}


def test_the_gauge_finds_what_inference_finds(checkpoint, tmp_path):
    Image.fromarray(eye(3, 90, 70)).save(tmp_path / "eye.png")
    (item,) = file_items(tmp_path / "eye.png")
    image = PrepareFundusd(SIZE)({**item, "masks": {}})["image"][None].float() / 255
    features = load("torch", network_of(checkpoint))(image)["features"].numpy()
    expected = likeness_of(facts_of(checkpoint)["likeness"]).unlikeness(features)[0]
    assert Gauge(checkpoint)(item["image"]).unlikeness == pytest.approx(expected, rel=0.1)  # bfloat16, where there is


def test_what_cannot_be_read_counts_as_found(checkpoint):
    assert Gauge(checkpoint)(np.zeros((40, 60, 3), np.uint8)) == (np.inf, (REFUSED,))


def test_weights_without_a_likeness_are_refused(tmp_path):
    save_weights(tmp_path / "model.pt", MultiTaskUNet(pretrained=False, width=1 / 16), {"image_size": SIZE})
    with pytest.raises(ValueError, match=r"expected a likeness in .*model.pt, found none; fit it by configs/calibrate"):
        Gauge(str(tmp_path / "model.pt"))


def test_the_page_has_every_part(tiny_idrid, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(oddities, "DRAWN_PX", (270, 200))
    monkeypatch.setattr("scripts.benchmarks.unlike.DRAWN", 2)
    prepare("idrid", str(tiny_idrid.root), str(tmp_path / "tiny.json"), folds=2)
    unlike(str(tmp_path / "tiny.json"), checkpoint, others=str(tiny_idrid.root / "B. Disease Grading"),
           out=str(tmp_path / "page.md"))  # fmt: skip
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    parts = ("Ordinary photographs", "What should be found", "What is found in part", "Another camera")
    assert [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")] == [*parts]
    for name in (*oddities.STRONG, *oddities.MILD, "everyday pictures", "all of these"):
        assert f"\n| {name} " in page
    assert "unlike --manifest tiny.json --checkpoint model.pt --split test --others" in page
