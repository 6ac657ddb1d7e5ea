"""A weights file is scored by its path and a manifest's alone: its own, another, one of outlines, one of grades."""

import dataclasses
import itertools

import pytest
import torch
from bundle import ROOT
from bundle.files import load_json
from bundle.handlers.tracking import EXPERIMENT
from bundle.manifest import load_manifest, save_manifest
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.segmenters import GradedSegmenter
from bundle.networks.weights import facts_of, network_of, save_weights
from mlflow import MlflowClient
from monai.bundle.workflows import ConfigWorkflow

CONFIGS = ROOT / "configs"
DATA = {"phantom": {"outlined": 6, "graded": 0}}
IMAGE_PX, FOLD = 64, 2
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_phantom_manifest):
    """A phantom, its manifest, and three more: its outlines alone, its grades alone, its training half alone."""
    folder = tmp_path_factory.mktemp("anywhere")
    write_phantom_manifest(folder, num_lesion_train=6, num_lesion_test=2, num_graded_train=6, num_graded_test=3)
    own = load_manifest(folder / "manifest.json")
    parts = {
        "outlines": [dataclasses.replace(row, grade=None) for row in own.photographs if row.outlined],
        "grades": [row for row in own.photographs if not row.outlined],
        "training": [row for row in own.photographs if row.split == "train"],
    }
    for name, rows in parts.items():
        save_manifest(dataclasses.replace(own, name=name, photographs=tuple(rows)), folder / f"{name}.json")
    return folder


@pytest.fixture(scope="module")
def weights(folder):
    """Weights that say they were trained on the phantom's own manifest, without fold 2, as no option has to."""
    torch.manual_seed(0)
    network = MultiTaskUNet(pretrained=False, width=0.0625, batch_norm=True, decoder_norm="group", lesion_prior=None)
    known = {"manifest_sha256": load_manifest(folder / "manifest.json").sha256, "fold": FOLD, "seed": 0}
    facts = {**known, "image_size": IMAGE_PX, "fuse": False, "taught_grades": [2, 3], "data": DATA}
    save_weights(folder / "model.pt", network, facts)
    return folder / "model.pt"


@pytest.fixture
def evaluate(typed, folder, weights, tmp_path):
    """Evaluate on one of the manifests as a user would; return what ended, and the metrics."""

    def run(manifest, *words, checkpoint=weights):
        files = [str(CONFIGS / name) for name in ("train.yaml", "evaluate.yaml")]
        paths = (
            "--manifest",
            folder / f"{manifest}.json",
            "--checkpoint",
            checkpoint,
            "--output_dir",
            tmp_path / "out",
        )
        done = typed("monai.bundle", "run", "--config_file", files, *paths, *words, cwd=folder)
        path = tmp_path / "out" / "metrics.json"
        return done, load_json(path) if path.is_file() else {}

    return run


def scored(evaluate, *words, **options):
    done, metrics = evaluate(*words, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return metrics, done.stdout


def tasks(metrics):
    return {name.split("/")[0] for name in metrics["scores"]}


def test_its_own_manifest_is_scored_with_no_option_but_the_paths(evaluate):
    metrics, screen = scored(evaluate, "manifest")
    assert (metrics["subset"]["lesions"], metrics["subset"]["grade"], metrics["fold"]) == ("test", "test", FOLD)
    assert (metrics["counts"]["lesions"], metrics["is_own_manifest"]) == (2, True)
    assert tasks(metrics) >= {"lesions", "grade", "joint"}
    assert "grade/accuracy_training_majority" in metrics["scores"]
    assert metrics["trained_on"] == "phantom (synthetic drawings), 6 outlined photographs"
    assert metrics["weights"]["data"] == DATA
    assert (
        "Trained on phantom (synthetic drawings), 6 outlined photographs. Scored on the same manifest, phantom (synth"
    ) in screen


def test_nothing_that_only_training_needs_is_made(folder, weights, tmp_path):
    places = {"manifest": str(folder / "manifest.json"), "checkpoint": str(weights), "output_dir": str(tmp_path)}
    files = [str(CONFIGS / name) for name in ("train.yaml", "evaluate.yaml")]
    workflow = ConfigWorkflow(files, workflow_type="train", meta_file=[], logging_file=False, **places)
    workflow.initialize()
    workflow.run()
    assert workflow.parser.get_parsed_content("network").network.settings()["width"] == 0.0625
    made = {name.replace("::", "#") for name in workflow.parser.ref_resolver.resolved_content}
    assert {"evaluate#network", "network", "data#manifest"} <= made
    training = {"network_def", "label_network", "teacher_network", "optimizer", "data#labels", "data#outlined"}
    assert made & training == set()
    assert "validate#evaluator" in made
    assert not [name for name in made if name.startswith(("train#", "meta#", "graded#", "saved#", "labels#"))]


def test_outlines_alone_are_scored_on_another_manifest(evaluate):
    metrics, screen = scored(evaluate, "outlines", "--track", "False")
    assert tasks(metrics) == {"lesions"}
    assert (metrics["subset"]["lesions"], metrics["subset"]["grade"]) == ("test", "none")
    assert (metrics["counts"]["lesions"], metrics["counts"]["grade"]) == (2, 0)
    assert (metrics["is_own_manifest"], metrics["fold"], metrics["scored_on"]) == (False, None, "outlines")
    assert "Scored on another manifest, outlines: what training saw of it is not known." in screen


def test_grades_alone_are_scored_and_no_training_majority_is_made_up(evaluate, folder):
    metrics, _ = scored(evaluate, "grades", "--track", "False")
    assert tasks(metrics) == {"grade", "joint"}
    graded = [row for row in load_manifest(folder / "grades.json").photographs if row.split == "test"]
    assert metrics["counts"]["grade"] == len(graded) >= 3
    assert "grade/accuracy_majority" in metrics["scores"]
    assert "grade/accuracy_training_majority" not in metrics["scores"]


def test_without_a_test_split_all_of_another_manifest_is_scored(evaluate, folder):
    metrics, _ = scored(evaluate, "training", "--track", "False")
    outlined = [row for row in load_manifest(folder / "training.json").photographs if row.outlined and not row.left_out]
    assert (metrics["subset"]["lesions"], metrics["counts"]["lesions"]) == ("all", len(outlined))


def test_the_held_out_fold_of_its_own_manifest_is_scored_where_it_is_asked_for(evaluate, folder):
    metrics, _ = scored(evaluate, "manifest", "--split", "fold", "--track", "False")
    rows = [row for row in load_manifest(folder / "manifest.json").photographs if row.fold == FOLD and row.outlined]
    assert (metrics["subset"]["lesions"], metrics["counts"]["lesions"]) == (f"fold {FOLD}", len(rows))


def test_several_weights_are_scored_together_on_what_none_of_them_saw(evaluate, folder, weights):
    """Two copies of a network, which say that they held out different folds."""
    facts = facts_of(weights)
    for fold in (0, 1):
        save_weights(folder / f"fold{fold}.pt", network_of(weights), {**facts, "fold": fold})
    alone, _ = scored(evaluate, "manifest", "--track", "False")
    scores, screen = scored(evaluate, "manifest", checkpoint=[str(folder / f"fold{fold}.pt") for fold in (0, 1)])
    assert (scores["subset"]["lesions"], scores["fold"], scores["is_own_manifest"]) == ("test", None, True)
    assert [one["fold"] for one in scores["weights"]] == [0, 1]
    for name, within in (("lesions/average_precision_mean", 1e-3), ("grade/accuracy", 0)):
        assert scores["scores"][name] == pytest.approx(alone["scores"][name], abs=within)
    assert "Scored on the same manifest, phantom (synth" in screen


def test_a_compared_segmenter_is_scored_without_its_overlay(evaluate, folder):
    torch.manual_seed(0)
    network = GradedSegmenter("linknet", "resnet18", pretrained=False)
    save_weights(folder / "linknet.pt", network, {"image_size": IMAGE_PX})
    metrics, screen = scored(evaluate, "outlines", "--track", "False", checkpoint=folder / "linknet.pt")
    assert metrics["weights"]["architecture"] == "linknet"
    assert "Trained on what its weights file does not say. Scored on another manifest, outlines" in screen
    assert tasks(metrics) == {"lesions"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("manifest", "--fold", "1"), "expected weights of fold 1 in"),
        (("manifest", "--split", "train"), "has seen these photographs"),
        (("manifest", "--split", "all"), "has seen these photographs"),
        (("outlines", "--image_size", "96"), "expected weights of image_size 96 in"),
        (("outlines", "--fuse", "True"), "expected weights of fuse True in"),
        (("outlines", "--split", "testt"), "expected --split out of ['test', 'fold', 'train', 'all'], or none"),
    ],
)
def test_what_would_be_no_score_is_refused(evaluate, words, message):
    done, metrics = evaluate(*words, "--track", "False")
    (refused,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (done.returncode, metrics) == (1, {})
    assert message in refused


def test_scores_by_a_column_stand_on_the_screen_in_the_file_and_in_mlflow(evaluate, folder, tmp_path):
    """Of the outlined test photographs one is of each camera; of the graded ones all are of one camera."""
    own = load_manifest(folder / "manifest.json")
    cameras = itertools.cycle(["Größe 1", "B/2"])
    columns = {row.id: {"camera": next(cameras) if row.outlined else "B/2"} for row in own.photographs}
    rows = tuple(dataclasses.replace(row, columns=columns[row.id]) for row in own.photographs)
    save_manifest(dataclasses.replace(own, name="cameras", photographs=rows), folder / "cameras.json")
    store = f"sqlite:///{tmp_path / 'store.db'}"
    done, metrics = evaluate("cameras", "--score_by", "camera", "--track", "True", "--tracking_uri", store)
    assert done.returncode == 0, done.stderr
    assert metrics["groups"]["column"] == "camera"
    found = metrics["groups"]["values"]
    assert {value: one["counts"] for value, one in found.items()} == {
        "B/2": {"lesions": 1, "grade": metrics["counts"]["grade"]}, "Größe 1": {"lesions": 1},
    }  # fmt: skip
    assert found["B/2"]["scores"]["grade/accuracy"] == metrics["scores"]["grade/accuracy"]
    assert "### Lesions by camera" in done.stdout
    assert "next: " in done.stdout
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    assert run.data.metrics["test/grade/camera B_2/accuracy"] == found["B/2"]["scores"]["grade/accuracy"]
    assert run.data.params["score_by"] == "camera"


def test_a_column_that_the_manifest_lacks_is_refused_in_one_sentence(evaluate):
    done, metrics = evaluate("grades", "--score_by", "camera")
    assert (done.returncode, metrics) == (1, {})
    assert done.stderr.splitlines()[-1] == (
        "error: manifest 'grades': expected --score_by out of its columns (none), got 'camera'; prepare it with "
        "--columns"
    )


def test_sets_of_likely_grades_are_fitted_on_the_fold_and_scored_on_the_test(folder, weights, tmp_path):
    places = {"manifest": str(folder / "manifest.json"), "output_dir": str(tmp_path)}
    files = [str(CONFIGS / name) for name in ("train.yaml", "evaluate.yaml", "calibrate.yaml")]
    for configs, checkpoint in ((files, weights), (files[:2], tmp_path / "model.pt")):
        options = {"checkpoint": str(checkpoint), "track": False, "num_workers": 0, **places}
        workflow = ConfigWorkflow(configs, workflow_type="train", meta_file=[], logging_file=False, **options)
        workflow.initialize()
        workflow.run()
    sets = facts_of(tmp_path / "model.pt")["grade_sets"]
    assert sets["quantiles"] == [1.0] * 5  # fewer than nine photographs say nothing
    assert sets["fitted_on"].endswith(f"photographs of fold {FOLD}")
    assert facts_of(tmp_path / "model.pt")["min_area_ppm"]["MA"] >= 3
    metrics = load_json(tmp_path / "metrics.json")
    assert metrics["weights"]["grade_sets"] == sets
    assert (metrics["scores"]["grade/set_coverage"], metrics["scores"]["grade/set_size"]) == (1, 5)
    assert metrics["intervals"]["grade/set_coverage"][1] == 1
