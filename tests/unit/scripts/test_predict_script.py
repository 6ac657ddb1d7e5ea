"""The command says what is on a photograph and where the results are, or what is wrong, in one line."""

import json

import pytest
import torch
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import save_weights, say_also
from bundle.refusals import HOME
from PIL import Image, ImageDraw
from scripts import predict as script


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    network = MultiTaskUNet(pretrained=False, width=1 / 16, lesion_prior=None)
    torch.nn.init.normal_(network.grade_head.weight, std=0.1)
    save_weights(tmp_path / "model.pt", network, {"image_size": 64})
    return tmp_path / "model.pt"


@pytest.fixture
def command(run_script, checkpoint, tmp_path, monkeypatch):
    """Run ``scripts.predict`` on some words, with weights of its own and results in ``out``."""
    monkeypatch.chdir(tmp_path)
    words = ("--checkpoint", checkpoint, "--output_dir", "out")
    return lambda *arguments: run_script(script.predict, "predict", *arguments, *words)


def draw(path):
    path.parent.mkdir(exist_ok=True)
    picture = Image.new("RGB", (150, 100))
    ImageDraw.Draw(picture).ellipse((30, 5, 120, 95), fill=(160, 90, 50))
    picture.save(path, "png")


def said(out):
    """Return the lines after the first, which says what runs the network; without MONAI's."""
    first, *others = [line for line in out.splitlines() if "logging" not in line]
    assert first.endswith("; choose another by --backend and --precision (docs/export.md)")
    return others


@pytest.mark.parametrize("name", ["photo.png", "7"])
def test_of_one_photograph_it_says_grade_and_lesions_and_where_the_rest_is(command, tmp_path, name):
    draw(tmp_path / name)
    code, out, _ = command(name)
    row = json.loads((tmp_path / "out/predictions.jsonl").read_text())
    first, *places = said(out)
    assert code == 0
    assert first.startswith(f"{name}: grade {row['grade']}")
    assert f"confidence {row['confidence']:.2f}, lesions: MA {row['MA_count']}, HE {row['HE_count']}" in first
    assert sum(row[f"{lesion}_count"] for lesion in ("MA", "HE", "EX", "SE")) > 0
    assert places == [
        "report: out/report.html", "table: out/predictions.csv", "masks: out/masks",
        f"photographs: 1 read; 1 doubtful (blurred) ({name})",
    ]  # fmt: skip
    assert first.endswith("; a doubtful photograph: blurred")  # it has one colour
    assert (tmp_path / f"out/masks/{name}.png").is_file()
    assert not list(tmp_path.rglob("mlflow.db"))  # nobody asked for one


def test_likely_grades_are_told_in_words(run_script, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sets = {"coverage": 0.9, "quantiles": [1] * 5, "fitted_on": "8 photographs of fold 0"}
    say_also(checkpoint, checkpoint, {"grade_sets": sets})
    draw(tmp_path / "photo.png")
    words = ("photo.png", "--checkpoint", checkpoint, "--output_dir", "out")
    _, out, _ = run_script(script.predict, "predict", *words)
    assert ", likely any grade, lesions: MA " in said(out)[0]


def test_of_a_folder_it_says_how_many_were_read_and_ends_with_code_3_if_not_all_were(command, tmp_path):
    for name in ("a.png", "b.png"):
        draw(tmp_path / "eyes" / name)
    code, out, _ = command("eyes")
    assert (code, said(out)[0]) == (0, "2 of 2 photographs read")
    (tmp_path / "eyes/c.jpg").write_bytes(b"no picture")
    code, out, err = command("eyes")
    assert (code, said(out)[0]) == (3, "2 of 3 photographs read")
    assert "could not read 1 of 3 photographs: c.jpg: expected a whole image" in err
    assert said(out)[1] == "report: out/report.html"


def test_several_photographs_can_be_named(command, tmp_path):
    for name in ("a.png", "b.png"):
        draw(tmp_path / name)
    code, out, _ = command("a.png", "b.png")
    assert (code, said(out)[0]) == (0, "2 of 2 photographs read")


def test_several_weights_are_named_with_commas_and_told_in_the_report(run_script, command, checkpoint, tmp_path):
    draw(tmp_path / "a.png")
    _, alone, _ = command("a.png")
    (tmp_path / "b,c.pt").write_bytes(checkpoint.read_bytes())
    (tmp_path / "other.pt").write_bytes(checkpoint.read_bytes())
    for words in ("other.pt,model.pt", "b,c.pt"):
        code, out, err = run_script(script.predict, "predict", "a.png", "--checkpoint", words, "--output_dir", "out")
        assert (code, said(out)) == (0, said(alone)), err
        report = (tmp_path / "out/report.html").read_text(encoding="utf-8")
        assert ("2 networks, whose probabilities are averaged: " in report) is (words != "b,c.pt")


def test_where_nothing_was_read_there_is_a_table_that_says_why(command, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    code, out, err = command("a.jpg")
    assert code == 3
    assert said(out) == [
        "0 of 1 photographs read", "table: out/predictions.csv",
        "photographs: 0 read; 1 left out, could not be read (a.jpg)",
    ]  # fmt: skip
    assert "expected a whole image" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "expected a photograph or a folder, as in `fundus predict photo.jpg`, got none"),
        (("nowhere.jpg",), "expected a photograph or a folder of photographs, found nothing at "),
        (("empty",), "expected photographs (.jpg, "),
        (("empty", "--input", "a.jpg"), "unknown option --input"),
        (("empty", "--checkpoint", "nowhere.pt"), "expected weights at nowhere.pt, found no such file; name yours by"),
        (("empty", "--checkpoint", "model.pt,gone.pt"), "expected weights at gone.pt, found no such file"),
        (("empty", "--checkpoint", "model.pt,./model.pt"), "expected each weights file once in --checkpoint"),
    ],
)
def test_what_is_wrong_takes_one_line(run_script, checkpoint, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, _, err = run_script(script.predict, "predict", "--checkpoint", checkpoint, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {message}")


def test_a_refusal_of_a_loader_process_is_its_sentence_alone(run_script):
    def full() -> None:
        raise ValueError(
            "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
            f'  File "{HOME}datasets/loading.py", line 72, in __call__\n    raise ValueError(\n'
            "ValueError: expected room in /dev/shm\n"
        )

    assert run_script(full, "full") == (2, "", "error: expected room in /dev/shm\n")


def test_a_script_without_words_of_its_own_refuses_them(run_script):
    def other(out: str = "dist") -> None:
        """Take nothing but options."""

    code, _, err = run_script(other, "other", "photo.jpg")
    assert (code, err) == (2, "error: expected options (--out), got 'photo.jpg'\n")
