"""The weights in models/ are those that were scored, and the examples can be looked at with them."""

import csv

import pytest
from bundle import ROOT
from bundle.files import file_sha256, load_json
from bundle.networks.weights import facts_of, lesion_thresholds

WEIGHTS, EXAMPLES = ROOT / "models" / "model.pt", ROOT / "docs" / "examples"
OUTLINED = [f"segmentation_test_{number}.jpg" for number in (55, 56, 57)]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def rows(typed, tmp_path_factory):
    """What `make demo` says first."""
    folder = tmp_path_factory.mktemp("examples")
    done = typed("scripts.predict", EXAMPLES, "--output_dir", folder / "out", cwd=folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "6 of 6 photographs read" in done.stdout
    assert (folder / "out" / "report.html").is_file()
    with open(folder / "out" / "predictions.csv", encoding="utf-8", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_the_scores_beside_the_weights_are_theirs_and_of_the_official_test():
    metrics = load_json(WEIGHTS.with_name("metrics.json"))
    assert metrics["weights"]["sha256"] == file_sha256(WEIGHTS)
    assert (metrics["subset"]["lesions"], metrics["counts"]["lesions"]) == ("test", 27)
    assert (metrics["subset"]["grade"], metrics["counts"]["grade"]) == ("test", 103)


def test_the_weights_are_small_and_know_what_they_need():
    assert WEIGHTS.stat().st_size < 20e6
    facts = facts_of(WEIGHTS)
    assert (facts["network"], facts["encoder"], facts["image_size"]) == ("MultiTaskUNet", "tf_efficientnet_lite0", 1024)
    assert facts["data"] == {"idrid": {"outlined": 41, "graded": facts["data"]["idrid"]["graded"]}}
    assert len(lesion_thresholds(WEIGHTS)) == 4
    assert not [name for name, fact in facts.items() if isinstance(fact, str) and "/" in fact]  # no folder of anybody


def test_the_page_of_the_weights_names_them():
    assert file_sha256(WEIGHTS) in (ROOT / "models" / "README.md").read_text(encoding="utf-8")


def test_every_example_is_attributed_and_there_are_six():
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in page
    assert len(list(EXAMPLES.glob("*.jpg"))) == 6


def test_exudates_are_found_where_experts_outlined_them(rows):
    assert all(int(rows[name]["EX_count"]) > 0 for name in OUTLINED)
    assert all(int(rows[name]["grade"]) >= 2 for name in OUTLINED)
