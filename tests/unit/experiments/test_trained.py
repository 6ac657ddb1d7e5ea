"""Networks come back as their runs recorded them, or a line says what is wrong."""

import dataclasses

import pytest
import torch
from bundle.experiments.figures import load_trained
from bundle.experiments.runs import Repeat
from bundle.experiments.suites import suite_named
from bundle.experiments.sweep import Sweep, lay_out, repeat_folder
from bundle.files import write_json_whole
from bundle.manifest import Manifest, load_manifest, save_manifest
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.segmenters import GradedSegmenter
from bundle.networks.weights import save_weights

ROWS = {row.name: row for row in suite_named("table1").rows}
FOLD, SEED = 0, 0


@pytest.fixture
def manifest(tmp_path):
    save_manifest(Manifest(name="m", roots={"a": tmp_path}, folds=2, seed=0, photographs=()), tmp_path / "m.json")
    return load_manifest(tmp_path / "m.json")


@pytest.fixture
def finish(tmp_path, manifest):
    """Leave what a finished training of a row leaves: the marker with its command, and weights."""

    def finish(row, network, **facts):
        plan = Sweep(
            suite="table1", manifest=tmp_path / "m.json", output_dir=tmp_path / "sweep", folds=1, seeds=1,
            experiment="two_cores", rows=[row],
        )  # fmt: skip
        (stage,) = [
            one for task in lay_out(plan) if task.name.startswith(row) for one in task.stages if one.name == "train"
        ]
        write_json_whole(stage.marker, {"key": stage.key(), "duration_s": 1.0, "command": stage.command()})
        known = {"manifest_sha256": manifest.sha256, "fold": FOLD, "seed": SEED, "image_size": 64, "fuse": False}
        save_weights(stage.output_dir / "model.pt", network, known | facts)
        return tmp_path / "sweep"

    return finish


def small():
    """The network of ``pldmlt`` under ``two_cores``: a quarter of VGG16, with batch norm."""
    return MultiTaskUNet(pretrained=False, width=0.25, batch_norm=True)


def load(sweep, row, manifest, fold=FOLD, seed=SEED):
    return load_trained(sweep, ROWS[row], Repeat(fold, seed), manifest)


def test_a_network_says_what_it_said_when_it_was_stored(finish, manifest):
    network = small().eval()
    trained = load(finish("pldmlt", network, image_size=96, epochs=7), "pldmlt", manifest)
    assert (trained.image_size, trained.facts["epochs"], trained.row.title) == (96, 7, "PLDMLT [1, 0.8]")
    assert not trained.network.training
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        assert torch.equal(trained.network(image), network(image))


def test_the_weights_of_a_baseline_make_its_network(finish, manifest):
    sweep = finish("linknet", GradedSegmenter("linknet", "resnet18", pretrained=False))
    network = load(sweep, "linknet", manifest).network
    assert isinstance(network, GradedSegmenter)
    assert type(network.decoder).__name__ == "LinknetDecoder"


def test_what_has_not_finished_is_named_with_what_has(finish, manifest, tmp_path):
    with pytest.raises(ValueError, match=r"'pldmlt' \(fold 0, seed 0\) in .*found none of this row; .*--rows pldmlt"):
        load(tmp_path / "sweep", "pldmlt", manifest)
    sweep = finish("pldmlt", small())
    with pytest.raises(ValueError, match=r"\(fold 1, seed 0\) in .*found those of fold 0, seed 0; choose"):
        load(sweep, "pldmlt", manifest, fold=1)


def test_runs_on_another_manifest_are_refused(finish, manifest):
    sweep = finish("pldmlt", small())
    other = dataclasses.replace(manifest, sha256="b" * 64)
    with pytest.raises(ValueError, match=r"\(sha256 bbbbbbbbbbbb\), .* was trained on another \(.{12}\): give"):
        load(sweep, "pldmlt", other)


@pytest.mark.parametrize(
    ("facts", "message"),
    [({"fuse": True}, "tell the four lesions apart"), ({"fold": 1}, "expected weights of fold 0 in")],
)
def test_weights_of_another_kind_are_refused(finish, manifest, facts, message):
    with pytest.raises(ValueError, match=message):
        load(finish("pldmlt", small(), **facts), "pldmlt", manifest)


def test_a_network_that_is_none_of_the_bundles_is_refused(finish, manifest):
    sweep = finish("pldmlt", small())
    path = repeat_folder(sweep, "pldmlt", Repeat(FOLD, SEED)) / "model.pt"
    torch.save({**torch.load(path, weights_only=True), "network": "Linear"}, path)
    with pytest.raises(ValueError, match=r"expected weights of a network among .*, got weights of 'Linear'"):
        load(sweep, "pldmlt", manifest)
