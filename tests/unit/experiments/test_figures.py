"""Networks come back as their runs recorded them, and the figure of lesions shows what is drawn where."""

import dataclasses

import numpy as np
import pytest
import torch
from bundle.experiments.figures import PICTURE_PX, Compared, load_trained, write_lesion_figure
from bundle.experiments.runs import Repeat
from bundle.experiments.suites import suite_named
from bundle.experiments.sweep import Sweep, lay_out, repeat_folder
from bundle.files import write_json_whole
from bundle.labels import LESION_COLOURS, LESIONS
from bundle.manifest import Manifest, load_manifest, save_manifest
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.segmenters import GradedSegmenter
from bundle.networks.weights import save_weights
from PIL import Image

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


HEIGHT, WIDTH = 800, 1200


def compared(name="a.jpg", columns=("ours", "theirs"), drawn_by="theirs", side_px=1, lesion="MA", **changes):
    """A grey photograph without outlines; one column draws one small square of a lesion."""
    nothing = np.zeros((HEIGHT, WIDTH), np.uint8)
    square = nothing.copy()
    square[300 : 300 + side_px, 500 : 500 + side_px] = LESIONS.index(lesion) + 1
    fields = {
        "image": np.full((HEIGHT, WIDTH, 3), 90, np.uint8), "truth": nothing,
        "predicted": {column: square if column == drawn_by else nothing for column in columns},
        "scores": {column: "Dice 0.00" for column in columns},
    }  # fmt: skip
    return Compared(name=name, **(fields | changes))


def coloured(path, lesion="MA"):
    """Return the columns (0-3) and rows (0-1) of the figure in which a lesion's colour is seen, above the legend."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    pixels = pixels[:-45]
    at = np.argwhere(np.abs(pixels - LESION_COLOURS[lesion]).max(axis=-1) < 60)
    return {(int(x * 4 / pixels.shape[1]), int(y * 2 / pixels.shape[0])) for y, x in at}


def test_a_lesion_of_one_pixel_is_seen_in_its_own_column_and_row_alone(tmp_path):
    write_lesion_figure(tmp_path / "f.png", [compared(), compared("b.jpg", drawn_by="ours", lesion="SE")])
    assert coloured(tmp_path / "f.png", "MA") == {(3, 0)}
    assert coloured(tmp_path / "f.png", "SE") == {(2, 1)}


def test_the_outlines_of_the_data_set_stand_in_the_second_column(tmp_path):
    square = compared(side_px=5).predicted["theirs"]
    write_lesion_figure(tmp_path / "f.png", [compared(truth=square, drawn_by=None)] * 2)
    assert coloured(tmp_path / "f.png") == {(1, 0), (1, 1)}


def test_a_figure_grows_with_its_columns_and_rows_and_stays_small(tmp_path):
    write_lesion_figure(tmp_path / "small.png", [compared(columns=("ours",))])
    write_lesion_figure(tmp_path / "large.png", [compared()] * 3)
    small, large = (Image.open(tmp_path / f"{name}.png").size for name in ("small", "large"))
    assert large[0] / small[0] == pytest.approx(4 / 3, abs=0.01)
    assert large[1] > 2 * small[1]
    assert small[0] >= 3 * PICTURE_PX
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large.png", "small.png"]


@pytest.mark.parametrize(
    "photographs", [[], [compared(), compared(columns=("ours", "others"))]], ids=["none", "other columns"]
)
def test_rejects_photographs_that_do_not_go_together(tmp_path, photographs):
    with pytest.raises(ValueError, match="expected one photograph or more, all with the same columns"):
        write_lesion_figure(tmp_path / "f.png", photographs)
    assert not list(tmp_path.iterdir())
