"""The benchmark of inference counts work, runs its ways in turn, and has a page with every part."""

import numpy as np
import pytest
import torch
from bundle.deploy.export import Agreement
from bundle.deploy.runtimes import Way
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import fact, save_weights
from PIL import Image
from scripts.benchmarks import inference as suite
from scripts.benchmarks.inference import ITSELF, PEER, agreement_table, giga_macs, in_turns
from scripts.benchmarks.inference_folder import folder_table, plain
from torch import nn

FACTS = {"image_size": 64}


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    save_weights(tmp_path / "model.pt", MultiTaskUNet(False, 1 / 16, True, decoder_norm="group"), FACTS)
    return tmp_path / "model.pt"


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in (1, 2):
        pixels = np.random.default_rng(seed).integers(60, 255, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"eye{seed}.png")
    return folder


def cells(page):
    """All rows of the tables of a page, as lists of cells."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_every_way_runs_on_every_case_in_turn_and_the_first_case_does_not_count():
    ran = []
    ways = {name: lambda case, name=name: ran.append((name, case)) for name in "ab"}
    found = in_turns(ways, [1, 2, 3])
    assert ran == [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("b", 3)]
    assert {name: len(times) for name, times in found.items()} == {"a": 2, "b": 2}


def test_work_is_counted_in_multiplications():
    assert giga_macs(nn.Conv2d(2, 3, 1, bias=False), torch.rand(1, 2, 40, 50)) == pytest.approx(2 * 3 * 40 * 50 / 1e9)


def test_a_ratio_is_the_median_of_the_turns_own_and_a_share_is_of_the_same_precision():
    times_s = {PEER: [0.4, 1.0, 0.4], ITSELF: [0.2, 0.4, 0.2], "openvino, int8": [0.1, 0.2, 0.1]}
    way = Way("openvino", "int8")
    row = suite._row(way, times_s, work=1.0, peaks={"float32": 9.0, "int8": 40.0}, least=5.0)
    assert row == [
        "openvino, int8",
        "100 ms",
        "4.0",
        "2.0",
        "20",
        "50 %",
        "at least 5: no",
    ]  # two operations a multiplication, 0.1 s
    assert suite._row(way, times_s, 1.0, {"int8": 40.0}, None)[-1] == ""


def test_agreement_counts_every_lesion_pixel_and_every_grade(photographs, checkpoint, monkeypatch):
    monkeypatch.setattr(suite, "WAYS", (Way("onnxruntime", "float32"),))
    page = agreement_table(str(photographs), str(checkpoint))
    assert "2 photographs at 64 px." in page
    (row,) = [row for row in cells(page) if row[0] == "onnxruntime, float32"]
    assert row[1:3] == ["1.0000", "2 of 2"]


def test_a_way_that_strays_is_told():
    row = suite._agreement(Way("openvino", "int8"), Agreement(0.25, 2 / 3, 1, 2))
    assert row == ["openvino, int8", "0.6667", "1 of 2", "0.25"]


def test_the_page_has_the_processor_and_the_network(monkeypatch, capsys):
    monkeypatch.setattr(suite, "WAYS", (Way("torch", "float32"),))
    monkeypatch.setattr(suite, "MATRIX", 64)
    suite.inference(image_size=64, rounds=1, width=1 / 16)
    page = capsys.readouterr().out
    options = "--image_size 64 --rounds 1 --folder_size 1024 --width 0.0625"
    assert f"- command: `python -m scripts.benchmark inference {options}`\n" in page
    assert {"float32", "int8", PEER, ITSELF, "torch, float32"} <= {row[0] for row in cells(page)}


def test_the_plain_way_writes_a_mask_of_every_photograph_at_its_own_size(photographs, tmp_path):
    plain(str(photographs), str(tmp_path / "plain"), 64)
    masks = sorted((tmp_path / "plain" / "made").rglob("*.png"))
    assert len(masks) == 2
    with Image.open(masks[0]) as mask:
        assert mask.size == (90, 70)
        assert set(np.unique(np.asarray(mask))) <= {0, 1, 2, 3, 4}


def test_a_folder_is_compared_by_medians_of_time_and_memory(monkeypatch, checkpoint):
    durations_s = {"ours": iter([9.0, 2.0, 2.0]), "plain": iter([8.0, 8.0, 12.0])}

    def process(way, photographs, weights, image_size, options):
        assert options == {"precision": "float32"}
        assert fact(weights, "image_size") == image_size == 1024
        return {"images": 4, "duration_s": next(durations_s[way]), "memory_mib": {"ours": 900.0, "plain": 1500.0}[way]}

    monkeypatch.setattr("scripts.benchmarks.inference_folder._process", process)
    page = folder_table("photographs", str(checkpoint), 1024, None, "float32", rounds=3)
    assert cells(page)[2:4] == [["ours", "2.00", "900 MiB"], ["plain", "0.50", "1500 MiB"]]
    assert "Ours is 4.0 times as fast; at least 10: no. Memory at most 1536 MiB: yes." in page
