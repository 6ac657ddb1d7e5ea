"""The weights in models/ are those that were scored, and they find the lesions of the example photographs."""

import csv
import re
import shlex

import pytest
from bundle import ROOT
from bundle.files import file_sha256, load_json
from bundle.labels import LESIONS
from bundle.networks.weights import facts_of, lesion_thresholds, min_area_ppm

WEIGHTS, EXAMPLES = ROOT / "models" / "model.pt", ROOT / "docs" / "examples"
OUTLINED = [f"segmentation_test_{number}.jpg" for number in (55, 56, 57)]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def rows(typed, tmp_path_factory):
    """Return the predictions of the first command of README, typed in a folder that looks like a clone."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "docs").symlink_to(ROOT / "docs")
    (command,) = re.findall(r"^fundus predict .*", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    done = typed("scripts.fundus", *shlex.split(command, comments=True)[1:], cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "6 of 6 photographs read" in done.stdout
    out = folder / "outputs" / "predict"
    assert (out / "report.html").is_file()
    with open(out / "predictions.csv", encoding="utf-8-sig", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_the_scores_next_to_the_weights_are_theirs_and_of_the_official_test():
    metrics = load_json(WEIGHTS.with_name("metrics.json"))
    assert metrics["weights"]["sha256"] == file_sha256(WEIGHTS)
    assert (metrics["subset"]["lesions"], metrics["counts"]["lesions"]) == ("test", 27)
    assert (metrics["subset"]["grade"], metrics["counts"]["grade"]) == ("test", 103)


def test_the_weights_are_small_and_have_all_that_decides():
    assert WEIGHTS.stat().st_size < 20e6
    facts = facts_of(WEIGHTS)
    assert facts["encoder"] == "tf_efficientnet_lite0"
    assert facts["data"] == {"idrid": {"outlined": 41, "graded": 281}}
    assert len(lesion_thresholds(WEIGHTS)) == 4
    assert set(min_area_ppm(WEIGHTS)) == set(LESIONS)
    assert not [name for name, fact in facts.items() if isinstance(fact, str) and "/" in fact]  # no local folder


def test_the_page_of_the_weights_names_them():
    assert file_sha256(WEIGHTS) in (ROOT / "models" / "README.md").read_text(encoding="utf-8")


def test_exudates_are_found_where_experts_outlined_them(rows):
    assert all(int(rows[name]["EX_count"]) > 0 for name in OUTLINED)
    assert all(int(rows[name]["grade"]) >= 2 for name in OUTLINED)
