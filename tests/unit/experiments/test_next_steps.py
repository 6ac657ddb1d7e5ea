"""What comes next is a command that works as printed: its files are there, and its options are those of its configs."""

import ast
import inspect
import shlex
import sys
from pathlib import Path

import pytest
import scripts.compare
import scripts.pipeline
import scripts.predict
import torch
import yaml
from bundle import ROOT
from bundle.experiments import next_steps
from bundle.experiments.next_steps import (
    after_calibrate,
    after_compare,
    after_evaluate,
    after_evaluate_grader,
    after_inference,
    after_package,
    after_pipeline,
    after_prepare,
    after_pretrain,
    after_pseudo_label,
    after_sweep,
    after_teach_grades,
    after_train,
    say,
)
from bundle.manifest import Manifest, Photograph
from bundle.networks.weights import save_weights

FUNCTIONS = {
    "pipeline": scripts.pipeline.pipeline, "predict": scripts.predict.predict, "compare": scripts.compare.compare,
}  # fmt: skip
OUTLINED, GRADED = {"annotated": ("MA",)}, {"grade": 2}


def photograph(name, **changes):
    fields = {
        "id": f"my/{name}", "image": f"my/{name} 1.jpg", "split": "train", "sha256": "0" * 64,
        "perceptual_hash": "f" * 64, "width_px": 60, "height_px": 40, "group": name,
    }  # fmt: skip
    return Photograph(**(fields | changes))


def manifest(*rows):
    return Manifest(name="my", roots={"my": Path("/data")}, folds=2, seed=0, photographs=rows)


BOTH = manifest(photograph("a", **OUTLINED), photograph("b", **GRADED))
GRADES = manifest(photograph("b", **GRADED))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a space in its name; the configs lie elsewhere."""
    (tmp_path / "my eyes").mkdir()
    monkeypatch.chdir(tmp_path / "my eyes")
    return tmp_path / "my eyes"


def weights(path, **facts):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(path, torch.nn.Linear(2, 3), facts)
    return path


def run_of(said):
    """Return the configs, the other options and the words of the command in the last line, all of them checked."""
    line = said.splitlines()[-1]
    assert line.startswith("next: ")
    program, *words = shlex.split(line.removeprefix("next: "))
    if program != "fundus" and words[1].startswith("scripts."):
        program, words = "fundus", [words[1].removeprefix("scripts."), *words[2:]]
    if program == "fundus":
        name = words.pop(0)
        free = words[: words.index("--checkpoint")] if name == "predict" else []
        options = dict(zip(words[len(free) :: 2], words[len(free) + 1 :: 2], strict=True))
        assert {word.removeprefix("--") for word in options} <= set(inspect.signature(FUNCTIONS[name]).parameters)
        return name, options, free
    assert words[:3] == ["-m", "monai.bundle", "run"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    found = options.pop("--config_file")
    files = [Path(file) for file in (ast.literal_eval(found) if found.startswith("[") else [found])]
    known = {key.lstrip("+") for file in files for key in yaml.safe_load(file.read_text(encoding="utf-8"))}
    assert {word.removeprefix("--") for word in options} <= known
    return [file.relative_to(ROOT / "configs").as_posix() for file in files], options, []


def test_a_manifest_of_both_kinds_goes_into_the_pipeline(folder, monkeypatch):
    name, options, _ = run_of(after_prepare(BOTH, "my.json"))
    assert (name, options["--manifest"], options["--output_dir"]) == ("pipeline", "my.json", "outputs/my")
    assert options["--experiment"] == "light"  # which a machine without a GPU ends within hours
    monkeypatch.setattr(next_steps, "local_device", lambda: torch.device("cuda"))
    assert "--experiment" not in run_of(after_prepare(BOTH, "my.json"))[1]


@pytest.mark.parametrize(
    ("rows", "configs"),
    [
        (
            [photograph("a", **OUTLINED)],
            ["train.yaml", "experiments/light/train.yaml", "experiments/segmentation_only/train.yaml"],
        ),
        ([photograph("a", **GRADED)], ["pretrain.yaml", "experiments/light/pretrain.yaml"]),
        # no grader may learn from a copy of an outlined photograph
        (
            [photograph("a", **OUTLINED), photograph("b", group="a", **GRADED)],
            ["train.yaml", "experiments/light/train.yaml", "experiments/segmentation_only/train.yaml"],
        ),
        ([photograph("a", split="test", **OUTLINED, **GRADED)], ["train.yaml", "evaluate.yaml"]),
        ([photograph("a", left_out="copy", **GRADED)], ["train.yaml", "evaluate.yaml"]),
    ],
)
def test_what_a_manifest_lacks_no_command_asks_for(folder, rows, configs):
    found, options, _ = run_of(after_prepare(manifest(*rows), "my.json"))
    assert (found, options["--manifest"]) == (configs, "my.json")
    assert Path(options.get("--checkpoint", ROOT)).exists()


def test_stage_follows_stage_with_the_paths_of_the_run(folder):
    runs = folder / "outputs"
    for name in ("pretrain", "train"):
        weights(runs / name / "model.pt")
    said = after_pretrain(BOTH, "my.json", "outputs/pretrain", 512)
    assert said.splitlines()[0] == "results: outputs/pretrain/model.pt"
    found, options, _ = run_of(said)
    assert found == ["pseudo_label.yaml"]
    assert options == {
        "--manifest": "my.json", "--graders": "['outputs/pretrain/model.pt']", "--output_dir": "outputs/pseudo",
        "--image_size": "512",
    }  # fmt: skip
    found, options, _ = run_of(after_pseudo_label("my.json", options["--output_dir"]))
    assert found == ["train.yaml"]
    assert options["--pseudo_labels"] == "outputs/pseudo/pseudo_labels.json"
    found, options, _ = run_of(after_train(BOTH, "my.json", options["--output_dir"], 0))
    assert found == ["train.yaml", "evaluate.yaml"]
    assert options == {"--manifest": "my.json", "--output_dir": "outputs/train"}
    name, options, words = run_of(after_evaluate(BOTH, BOTH.photographs, "outputs/train/model.pt", "outputs/train"))
    assert (name, words, options) == ("predict", ["/data/a 1.jpg"], {"--checkpoint": "outputs/train/model.pt"})


def test_graders_of_small_photographs_have_heat_maps_that_are_fine_enough(folder):
    said = [after_pretrain(BOTH, "my.json", "outputs/pretrain", side_px) for side_px in (128, 255, 256)]
    assert [run_of(one)[1].get("--heat_map_stride") for one in said] == ["16", "16", None]


def test_graders_without_an_outlined_photograph_are_scored(folder):
    said = after_pretrain(GRADES, "my.json", "outputs/pretrain", 512)
    assert run_of(said)[0] == ["pretrain.yaml", "evaluate_grader.yaml"]
    said = after_evaluate_grader(GRADES, "my.json", "outputs/pretrain/model.pt", "outputs/pretrain", 512)
    assert "prepare a data set with outlined lesions" in said
    graders = ["a/model.pt", "b/model.pt"]
    _, options, _ = run_of(after_evaluate_grader(BOTH, "my.json", graders, "outputs/together", 512))
    assert options["--graders"] == "['a/model.pt','b/model.pt']"


def test_a_training_on_everything_is_not_scored_on_it(folder):
    weights(folder / "outputs" / "train" / "model.pt")
    assert run_of(after_train(BOTH, "my.json", "outputs/train", None))[0] == "predict"
    tested = manifest(*BOTH.photographs, photograph("c", split="test", **GRADED))
    assert run_of(after_train(tested, "my.json", "outputs/train", None))[0] == ["train.yaml", "evaluate.yaml"]


def test_fused_lesions_are_exported_because_inference_takes_none(folder):
    fused = weights(folder / "model.pt", fuse=True)
    assert "export --checkpoint model.pt --format torchscript" in after_evaluate(BOTH, BOTH.photographs, fused, folder)


def test_areas_that_were_fitted_are_scored(folder):
    found, options, _ = run_of(after_calibrate("my.json", "b.pt", "out"))
    assert (found, options["--checkpoint"]) == (["train.yaml", "evaluate.yaml"], "b.pt")


def test_a_head_that_was_taught_is_calibrated(folder):
    found, options, _ = run_of(after_teach_grades("my.json", "outputs/graded.pt", "outputs/train"))
    assert found == ["train.yaml", "evaluate.yaml", "calibrate.yaml"]
    assert options["--checkpoint"] == options["--calibrated"] == "outputs/graded.pt"


def test_the_overlays_and_the_options_of_the_machine_go_on(folder, monkeypatch):
    files = "['configs/pretrain.yaml','/b/configs/experiments/light/pretrain.yaml','experiments/mine/pretrain.yaml']"
    typed = ["--config_file", files, "--num_workers", "0", "--device=cpu", "--batch_size", "4"]
    typed += ["--tracking_uri", "http://me:secret@host:5000"]
    monkeypatch.setattr(next_steps, "command_line", lambda: typed)
    found, options, _ = run_of(after_pretrain(BOTH, "my.json", "outputs/pretrain", 384))
    assert found == ["pseudo_label.yaml", "experiments/light/pseudo_label.yaml"]
    assert (options["--num_workers"], options["--device"]) == ("0", "cpu")
    assert not {"--batch_size", "--tracking_uri"} & set(options)  # a password is not printed


def test_inference_names_the_page_or_else_the_table(folder):
    (folder / "out").mkdir()
    assert after_inference("out").splitlines()[-1] == "next: see what could not be read"
    (folder / "out" / "predictions.csv").touch()
    assert after_inference("out") == "results: out/predictions.csv\nnext: open out/predictions.csv"
    (folder / "out" / "report.html").touch()
    assert after_inference(folder / "out").splitlines()[-1] == "next: open out/report.html"


def test_a_pipeline_that_ended_early_goes_on(folder):
    assert after_pipeline("eye.jpg", folder, is_whole=False) == "next: the same command without --until"
    weights(folder / "train" / "model.pt")
    name, options, words = run_of(after_pipeline("eye.jpg", folder, is_whole=True))
    assert (name, words, options) == ("predict", ["eye.jpg"], {"--checkpoint": "train/model.pt"})


def test_a_sweep_is_compared_if_it_was_recorded(folder):
    _, options, _ = run_of(after_sweep("table1", folder / "outputs", True))
    assert options == {"--suite": "table1", "--sweep": "outputs", "--out": "outputs/compared"}
    assert "nothing was recorded" in after_sweep("table1", folder / "outputs", False)


def test_a_store_is_named_without_its_password():
    assert after_compare("http://me:secret@host:5000") == "next: the single runs; see it at http://host:5000"


def test_a_package_is_unpacked_beside_it(folder):
    assert shlex.split(after_package(folder / "dist" / "a.zip"))[-4:] == ["zipfile", "-e", "dist/a.zip", "dist"]


def test_where_python_is_not_that_of_the_path_it_is_named_in_full(monkeypatch):
    monkeypatch.setattr(next_steps.shutil, "which", lambda name: None)
    assert f"next: {sys.executable} -m scripts.pipeline --manifest my.json" in after_prepare(BOTH, "my.json")


def test_of_several_processes_the_first_speaks(monkeypatch, capsys):
    say(after_prepare, BOTH, "my.json")
    assert capsys.readouterr().out.startswith("next: ")
    monkeypatch.setattr(next_steps, "is_main", lambda: False)
    say(after_train, None, "nothing", "of this", "is opened")
    assert capsys.readouterr().out == ""


def test_a_path_with_a_dollar_reaches_the_program_as_it_is(folder):
    command = next_steps.script("predict", 'it\'s $5 "eyes".jpg', checkpoint=Path("m.pt"))
    assert shlex.split(command)[-3:] == ['it\'s $5 "eyes".jpg', "--checkpoint", "m.pt"]
