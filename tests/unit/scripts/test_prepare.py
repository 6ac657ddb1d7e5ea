"""The command writes a whole manifest, or exits with code 2 and one line of explanation."""

from collections import defaultdict

import pytest
from bundle.manifest import load_manifest
from bundle.reporting.tables import MISSING
from bundle.transforms import load_mask
from scripts import prepare as script

from tests.conftest import eye, save_jpg, write_mask


@pytest.fixture
def command(run_script):
    """Run ``scripts.prepare`` with some arguments; return exit code, stdout and stderr."""
    return lambda *arguments: run_script(script.prepare, "prepare", *arguments)


def test_prepares_a_data_set_and_prints_its_table(command, tiny_idrid, tmp_path):
    out = tmp_path / "made" / "1e5"
    code, printed, _ = command("--dataset", "idrid", "--root", tiny_idrid.root, "--out", out, "--folds", 2)
    assert code == 0
    manifest = load_manifest(out)
    assert (manifest.name, manifest.folds, len(manifest.photographs)) == ("idrid", 2, 13)
    assert f" --manifest {out} --output_dir outputs/idrid" in printed.splitlines()[-2]
    lines = [line.split() for line in printed.splitlines()]
    assert ["idrid/segmentation/train", "4", "0", "0", "0", "0", "0", "0", "4", "4", "4", "0", "4", "1", "2"] in lines
    (grading,) = [line for line in lines if line[:1] == ["idrid/grading/train"]]
    assert grading[1:14] == ["6", "0", "2", "1", "1", "1", "1", "0", "0", *[MISSING] * 4]


def test_leaves_out_what_is_missing_only_on_request(command, tiny_idrid, tmp_path):
    tiny_idrid.image(tiny_idrid.grading, "test", "IDRiD_002").unlink()
    options = ("--dataset", "idrid", "--root", tiny_idrid.root, "--out", tmp_path / "a.json", "--folds=2")
    code, _, err = command(*options)
    assert code == 2
    assert "1 rows of" in err
    assert not (tmp_path / "a.json").exists()
    code, printed, _ = command(*options, "--allow_missing")
    assert code == 0
    assert "left out: 1 rows of" in printed
    assert printed.splitlines()[-1] == "files: 1 left out, 0 passed over, 0 changed"


def test_the_last_line_and_a_section_of_the_check_tell_what_became_of_the_files(command, tiny_idrid, tmp_path):
    mask = tiny_idrid.mask("train", "IDRiD_01", "EX")
    write_mask(mask, ~load_mask(mask))
    (tiny_idrid.image(tiny_idrid.grading, "train", "IDRiD_001").parent / "readme.txt").touch()
    out = tmp_path / "a.json"
    options = ("--dataset", "idrid", "--root", tiny_idrid.root, "--out", out, "--folds=2", "--check")
    code, printed, _ = command(*options)
    assert code == 0
    assert printed.splitlines()[-1] == "files: 0 left out, 1 passed over, 1 changed"
    page = (tmp_path / "a.check.html").read_text(encoding="utf-8")
    section = page[page.index("Left out, passed over or changed</h2>") :]
    for told in ("passed over: 1 files or folders in", "changed: 1 masks read the other way round", "IDRiD_01 EX"):
        assert told in printed
        assert told in section.replace("<wbr>", "")
    row = next(row for row in load_manifest(out).photographs if row.id == "idrid/segmentation/train/IDRiD_01")
    assert row.areas_px["EX"] == 25


def test_writes_a_phantom_once(command, tiny_idrid, tmp_path, monkeypatch):
    written = []

    def write_phantom(root, *, seed):
        written.append(seed)
        tiny_idrid.root.rename(root)

    monkeypatch.setattr(script, "write_phantom", write_phantom)
    for _ in range(2):
        options = ("--dataset", "phantom", "--root", tmp_path / "phantom", "--out", tmp_path / "p.json")
        assert command(*options, "--folds", 2, "--seed", 7)[0] == 0
    assert written == [7]
    assert load_manifest(tmp_path / "p.json").photographs[0].id.startswith("phantom/")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "idird"], "expected --dataset out of idrid, ddr, diaretdb1, folder, phantom, joined, got"),
        (["--fold", "3"], "unknown option --fold, expected one of --dataset, --root, --out, --name, --folds"),
        (["-f", "3"], "expected options (--dataset"),
        (["extra"], "expected options (--dataset"),
        (["--folds", "five"], "expected --folds as int, got 'five'"),
        (["--folds"], "expected a value after --folds"),
        (["--allow_missing", "perhaps"], "expected --allow_missing as bool, got 'perhaps'"),
        (["--folds", "1"], "expected at least 2 folds"),
        (["--root", "nowhere"], "expected the folder of IDRiD, found none at"),
        (["--out", "."], "expected --out to name a file, got the folder ."),
    ],
)
def test_a_wrong_option_takes_one_line_and_code_2(command, tiny_idrid, tmp_path, arguments, message):
    options = ("--dataset", "idrid", "--root", tiny_idrid.root, "--out", tmp_path / "a.json", *arguments)
    code, printed, err = command(*options)
    assert (code, printed) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "a.json").exists()


def test_a_missing_option_is_named(command):
    code, _, err = command("--dataset", "idrid", "--out", "a.json")
    assert code == 2
    assert err.startswith("error: expected --root, got --dataset idrid --out a.json")


def test_help_is_no_error(command):
    assert command("--help")[0] == 0


@pytest.fixture
def both_eyes(tmp_path):
    """Twelve graded photographs of six patients, as EyePACS names them."""
    names = [f"{patient}_{side}" for patient in range(6) for side in ("left", "right")]
    for seed, name in enumerate(names):
        save_jpg(tmp_path / "own" / "images" / f"{name}.jpg", eye(seed))
    table = ["image,grade", *(f"{name},{number % 5}" for number, name in enumerate(names))]
    (tmp_path / "own" / "grades.csv").write_text("\n".join(table))
    return "--dataset", "folder", "--root", tmp_path / "own", "--grades", "grades.csv", "--folds", 3


def test_both_eyes_of_a_patient_lie_in_one_fold_if_the_pattern_is_given(command, both_eyes, tmp_path):
    out = tmp_path / "a.json"
    code, printed, _ = command(*both_eyes, "--out", out)
    assert code == 0
    assert 'prepare --dataset folder with --patient_pattern "(.+)_(left|right)"' in printed
    code, printed, _ = command(*both_eyes, "--out", out, "--patient_pattern", "(.+)_(left|right)", "--check")
    assert code == 0
    assert "patients: 6\n" in printed
    assert "side of the eye" not in printed
    folds = defaultdict(list)
    for row in load_manifest(out).photographs:
        folds[row.patient].append(row.fold)
    assert len(folds) == 6
    assert all(left == right for left, right in folds.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--patient_pattern", ".+"], "which has no group"),
        (["--patient_pattern", "(.+)_OD"], "matches none of 12: 0_left, 0_right, 1_left"),
        (["--patient_pattern", "(.+)_left"], "6 images without a name that --patient_pattern '(.+)_left' matches"),
        (["--patient_column", "who"], "expected a column 'who', got ['image', 'grade']"),
        (["--same_patients"], "--same_patients is no option of --dataset folder"),
    ],
)
def test_patients_that_are_not_found_take_one_line_and_code_2(command, both_eyes, tmp_path, arguments, message):
    code, _, err = command(*both_eyes, "--out", tmp_path / "a.json", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not (tmp_path / "a.json").exists()


def test_joining_takes_no_option_of_a_reader(command, tmp_path):
    options = "--dataset", "joined", "--root", "a.json,b.json", "--out", tmp_path / "c.json"
    code, _, err = command(*options, "--patient_pattern", "(.+)_(left|right)")
    assert code == 2
    assert "--patient_pattern is no option of --dataset joined, which has --same_patients; give it where" in err
