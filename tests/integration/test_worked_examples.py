"""The worked examples of docs/extending.md: their files, as they are printed, make their commands run."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from bundle import ROOT
from bundle.datasets.readers.idrid import OUTLINE_FOLDERS
from bundle.files import load_json
from bundle.labels import LESIONS
from bundle.manifest import load_manifest

pytest.importorskip("segmentation_models_pytorch")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
FILES = re.compile(r"^`(\S+)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^(?:python -m|fundus) .*", re.MULTILINE)


def test_there_is_an_example_of_each_with_one_file_and_one_overlay():
    kinds = {name: [Path(path).suffix for path, _ in FILES.findall(text)] for name, text in SECTIONS.items()}
    assert kinds == {
        "A data set": [".py"],
        "A grader": [".py", ".yaml", ".yaml"],  # the page says why there are two
        "A segmenter": [".py", ".yaml"],
        "A metric": [".py", ".yaml"],
        "An experiment": [".yaml"],
    }


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, write_phantom_manifest):
    """A copy of this repository with the files of the examples, a phantom, and a clinic's folder."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("bundle", "configs", "scripts"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in FILES.findall(PAGE):
        assert not (checkout / path).exists()
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).write_text(text, encoding="utf-8")
    write_phantom_manifest(
        checkout, num_lesion_train=10, num_lesion_test=2, num_graded_train=12, num_graded_test=8, name="idrid.json"
    )
    make_clinic(checkout / "phantom" / "A. Segmentation", checkout / "CLINIC")
    return checkout


def make_clinic(segmentation, clinic):
    """Lay out the outlined training photographs of a phantom as the clinic of the example has its own."""
    images, outlines = segmentation / "1. Original Images", segmentation / "2. All Segmentation Groundtruths"
    shutil.copytree(images / "a. Training Set", clinic / "photographs")
    for lesion in LESIONS:
        for path in (outlines / "a. Training Set" / OUTLINE_FOLDERS[lesion]).glob("*.tif"):
            (clinic / "masks" / lesion).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, clinic / "masks" / lesion / path.name.replace(f"_{lesion}", ""))
    with (clinic / "grades.csv").open("w", newline="") as table:
        stems = sorted(path.stem for path in (clinic / "photographs").iterdir())
        csv.writer(table).writerows([["name", "grade"], *([stem, n % 5] for n, stem in enumerate(stems))])


def small(words):
    """Put the smallest overlay of the stage on top; leave all other words as they are printed."""
    if words[0] != "monai.bundle":
        return words
    at = words.index("--config_file") + 1
    stage = re.search(r"configs/(\w+)\.yaml", words[at])[1]
    return [*words[:at], words[at].replace("]", f",'configs/experiments/smoke/{stage}.yaml']"), *words[at + 1 :]]


@pytest.fixture(scope="module")
def done(typed, checkout):
    """Type all commands of the page in order; return where."""
    for command in COMMANDS.findall(PAGE):
        words = small(shlex.split(re.sub("^fundus", "python -m scripts.fundus", command))[2:])
        ended = typed(*words, cwd=checkout)
        assert ended.returncode == 0, f"{shlex.join(words)}\n{ended.stdout[-3000:]}{ended.stderr[-3000:]}"
    return checkout


def test_the_data_set_is_read_by_the_name_of_its_reader(done):
    manifest = load_manifest(done / "clinic.json")
    assert (manifest.name, len(manifest.photographs)) == ("clinic", 10)
    assert sorted(row.grade for row in manifest.photographs) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert sum("EX" in row.masks for row in manifest.photographs) > 0


def test_the_grader_learns_and_labels(done):
    weights = torch.load(done / "outputs" / "resnet18" / "model.pt", weights_only=True)
    assert (weights["network"], weights["facts"]["architecture"]) == ("ResNet18Grader", "resnet18")
    assert len(load_json(done / "outputs" / "pseudo" / "pseudo_labels.json")["rows"]) > 0


def test_the_segmenter_learns_and_is_scored_by_the_metric_too(done):
    weights = torch.load(done / "outputs" / "unet_plus_plus" / "model.pt", weights_only=True)
    assert weights["network"] == "UnetPlusPlus"
    scores = load_json(done / "outputs" / "unet_plus_plus" / "metrics.json")["scores"]
    assert 0 <= scores["grade/sensitivity_referable"] <= 1
    assert "lesions/dice_mean" in scores


def test_the_experiment_changes_what_it_says(done):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{done / 'outputs' / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "fundus_dr_multitask"]
    runs = {
        (run.data.tags["stage"], Path(run.data.tags["output_dir"]).name): run
        for run in client.search_runs([experiment.experiment_id])
    }
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["train", "no_focus"].data.params["gamma"] == "0.0"
    assert "test/grade/sensitivity_referable" in runs["evaluate", "unet_plus_plus"].data.metrics
