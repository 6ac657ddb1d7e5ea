"""`fundus run` hands its words to MONAI as they were typed, with configs of this folder or of the bundle."""

import sys

import pytest
from bundle import ROOT
from scripts.run import check_macro, found, read, run

CONFIGS = ROOT / "configs"


def handed_over(run_script, monkeypatch, tmp_path, *words):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_script(run, "run", *words)
    assert (code, err) == (0, "")
    return sys.argv


def test_every_word_is_handed_over_as_it_was_typed(run_script, monkeypatch, tmp_path):
    words = ("--nifti", "--seed=007", "--network_def#width", "0.50", "--input", "a b#1,c", "--notrack", "--fold", "-1")
    given = ["--nifti=True", "--seed=007", "--network_def#width=0.50", "--input=a b#1,c", "--track=False", "--fold=-1"]
    files = f"['{CONFIGS}/train.yaml', '{CONFIGS}/evaluate.yaml']"
    listed = handed_over(
        run_script, monkeypatch, tmp_path, *words, "--config_file", "configs/train.yaml,configs/evaluate.yaml"
    )
    assert listed == ["monai.bundle", "run", "--config_file", files, *given]


@pytest.mark.parametrize(
    "typed", ["['configs/train.yaml','configs/evaluate.yaml']", "[configs/train.yaml, configs/evaluate.yaml]"]
)
def test_a_list_may_be_typed_as_for_monai_with_or_without_its_quotes(run_script, monkeypatch, tmp_path, typed):
    files = f"['{CONFIGS}/train.yaml', '{CONFIGS}/evaluate.yaml']"
    assert handed_over(run_script, monkeypatch, tmp_path, "--config_file", typed)[3] == files


def test_a_config_of_this_folder_comes_before_that_of_the_bundle(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert found("configs/train.yaml") == CONFIGS / "train.yaml"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.yaml").write_text("run: []")
    assert read(found("configs/train.yaml")) == {"run": []}


@pytest.mark.parametrize("text", ["- a\n- b\n", "7", ""])
def test_a_config_is_a_mapping(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"expected a mapping of names to values in .*a\.yaml, got a "):
        read(tmp_path / "a.yaml")


@pytest.mark.parametrize("word", ["%seed", "%network#width", "%network::width", "plain", "./%a"])
def test_a_part_of_the_config_may_be_named(word):
    check_macro("tags", word, {"seed", "network"})


def test_a_part_of_another_config_may_be_named(tmp_path):
    (tmp_path / "other.yaml").write_text("seed: 7")
    check_macro("seed", f"%{tmp_path}/other.yaml#seed", {"seed"})
    with pytest.raises(ValueError, match=r"a file or folder of that name is \./%nowhere\.yaml"):
        check_macro("seed", "%nowhere.yaml", {"seed"})
