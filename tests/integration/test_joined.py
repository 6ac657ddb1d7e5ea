"""Three data sets of three kinds, joined, go the whole way: a phantom, DiaRetDB1's experts, a folder of one lesion."""

import numpy as np
import pytest
from bundle import ROOT
from bundle.files import load_json
from bundle.manifest import load_manifest
from bundle.phantom.tree import write_phantom
from PIL import Image

CONFIGS = ROOT / "configs"
WIDTH_PX, HEIGHT_PX = 72, 48
EXPERTS = ("01", "02", "03", "04")
MARKING = (
    "<marking><circleregion><centroid><coords2d>{x},20</coords2d></centroid><radius direction='x'>4</radius>"
    "</circleregion><confidencelevel>High</confidencelevel><markingtype>{kind}</markingtype></marking>"
)
pytestmark = pytest.mark.timeout(600)


def save_eye(path, seed):
    """Draw a bright disc on black, patched at random so that no two seeds look alike."""
    patches = np.random.default_rng(seed).integers(80, 255, (12, 12, 3), dtype=np.uint8)
    smooth = Image.fromarray(patches).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC)
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    field = (x - 35.5) ** 2 + (y - 23.5) ** 2 < 22**2
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(field[..., None], np.asarray(smooth), 3).astype(np.uint8)).save(path)


def write_diaretdb1(root):
    """Haemorrhages that four experts marked, exudates that one did, and one photograph without any; one to test."""
    marks = {1: ("Haemorrhages", 4), 2: ("Hard_exudates", 1), 3: ("Haemorrhages", 0), 4: ("Haemorrhages", 3)}
    lists = {"train": "", "test": ""}
    (root / "groundtruth").mkdir(parents=True)
    for number, (kind, experts) in marks.items():
        stem = f"diaretdb1_image{number:03}"
        save_eye(root / "images" / f"{stem}.png", 100 + number)
        for place, expert in enumerate(EXPERTS):
            found = MARKING.format(kind=kind, x=30) if place < experts else ""
            text = f"<imgannotooldata><markinglist>{found}</markinglist></imgannotooldata>"
            (root / "groundtruth" / f"{stem}_{expert}_plain.xml").write_text(text)
        row = [f"images/{stem}.png", *(f"groundtruth/{stem}_{expert}_plain.xml" for expert in EXPERTS)]
        lists["test" if number == 4 else "train"] += " ".join(row) + "\n"
    for split, text in lists.items():
        (root / f"ddb1_v02_01_{split}_plain.txt").write_text(text)


def write_folder(root):
    """Of three photographs two have exudates; their masks are of colours, with an opacity that says nothing."""
    for number in range(3):
        save_eye(root / "images" / f"eye{number}.png", 200 + number)
    mask = np.zeros((HEIGHT_PX, WIDTH_PX, 4), np.uint8)
    mask[15:21, 30:38, 0], mask[..., 3] = 255, 255
    (root / "ex").mkdir()
    for number in range(2):
        Image.fromarray(mask).save(root / "ex" / f"eye{number}_EX.png")


@pytest.fixture(scope="module")
def run(typed, tmp_path_factory):
    """Run a command as a user would, below one folder, and return what it says."""
    folder = tmp_path_factory.mktemp("joined")

    def run(*words):
        done = typed(*words, cwd=folder)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run.folder = folder
    return run


@pytest.fixture(scope="module")
def prepared(run):
    """The joined manifest."""
    folder = run.folder
    numbers = {"num_lesion_train": 4, "num_lesion_test": 2, "num_graded_train": 6, "num_graded_test": 3}
    write_phantom(folder / "phantom", width_px=288, height_px=192, seed=3, **numbers)
    write_diaretdb1(folder / "experts")
    write_folder(folder / "own")
    prepare = "scripts.prepare", "--folds", 2, "--dataset"
    run(*prepare, "phantom", "--root", "phantom", "--out", "phantom.json")
    run(*prepare, "diaretdb1", "--root", "experts", "--name", "experts", "--out", "experts.json")
    run(*prepare, "folder", "--root", "own", "--name", "own", "--masks", "EX=ex", "--out", "own.json")
    run(*prepare, "joined", "--root", "phantom.json,experts.json,own.json", "--out", "all.json")
    return load_manifest(folder / "all.json")


@pytest.fixture(scope="module")
def finished(run, prepared):
    """The pseudo-labels by photograph, and the metrics of the trained network."""
    folder = run.folder
    shared = "--manifest", folder / "all.json", "--cache_dir", folder / "cache", "--track", "False"
    run(*stage("pretrain"), *shared, "--output_dir", "grader", "--architecture", "resnext50_32x4d")
    run(*stage("pseudo_label"), *shared, "--graders", [str(folder / "grader" / "model.pt")], "--output_dir", "pseudo")
    labels = "--pseudo_labels", folder / "pseudo" / "pseudo_labels.json"
    run(*stage("train"), *shared, *labels, "--output_dir", "train", "--max_epochs", 1)
    run(*stage("train", "evaluate"), *shared, "--output_dir", "train")
    rows = load_json(folder / "pseudo" / "pseudo_labels.json")["rows"]
    return {row["id"]: row for row in rows}, load_json(folder / "train" / "metrics.json")


def stage(*names):
    files = [f"{CONFIGS}/{name}.yaml" for name in (*names, f"experiments/smoke/{names[0]}")]
    return "monai.bundle", "run", "--config_file", files


def test_the_joined_set_holds_three_kinds_of_outlines(prepared):
    found = {row.id: row for row in prepared.photographs if row.dataset != "phantom"}
    train = "experts/segmentation/train/diaretdb1_image"
    assert [found[f"{train}{number}"].disputed for number in ("001", "002", "003")] == [(), ("EX",), ()]
    assert list(found[f"{train}001"].masks) == ["HE"]
    assert [len(found[f"own/photographs/train/eye{number}"].masks) for number in range(3)] == [1, 1, 0]
    assert found["own/photographs/train/eye0"].areas_px == {"EX": 6 * 8}
    assert {found[f"own/photographs/train/eye{number}"].annotated for number in range(3)} == {("EX",)}
    assert "experts: outlines: where the mean confidence of four experts is 0.75 or more" in prepared.notes


def test_each_kind_of_outline_is_labelled_by_its_rule(finished):
    labels, _ = finished
    rules = {name.rsplit("/", 1)[1]: row["rule"] for name, row in labels.items() if not name.startswith("phantom/")}
    assert rules == {
        "diaretdb1_image001": "R2", "diaretdb1_image002": "R6", "diaretdb1_image003": "R0",
        "eye0": "R2", "eye1": "R2", "eye2": "R4",
    }  # fmt: skip
    assert all(0 <= row["weight"] <= 1 for row in labels.values())


def test_lesions_are_scored_where_they_were_looked_for(finished, prepared):
    _, metrics = finished
    test = [row for row in prepared.photographs if row.split == "test" and row.outlined]
    assert {row.dataset for row in test} == {"phantom", "experts"}
    assert metrics["counts"]["lesions"] == len(test) == 3
    for lesion in ("MA", "HE", "EX", "SE"):
        assert metrics["scores"][f"lesions/images_{lesion}"] == sum(lesion in row.masks for row in test)
    assert metrics["subset"]["grade"] == "test"
    official = [row for row in prepared.photographs if row.split == "test" and row.grade is not None]
    assert metrics["counts"]["grade"] == len(official) > 3  # copies of outlined photographs among them
