"""A benchmark times two ways in turn, and counts what is lost on the way."""

import sys
from types import SimpleNamespace

import pytest
from bundle.datasets.items import items
from bundle.manifest import load_manifest
from scripts.benchmarks import timing
from scripts.benchmarks.data import data, lost_components, survival
from scripts.benchmarks.page import publish
from scripts.benchmarks.rows import measure
from scripts.cli import main_of
from scripts.prepare import prepare


@pytest.fixture
def manifest(tiny_idrid, tmp_path):
    prepare("idrid", str(tiny_idrid.root), str(tmp_path / "tiny.json"), folds=2)
    return tmp_path / "tiny.json"


def outlined(manifest):
    loaded = load_manifest(manifest)
    return items(loaded, [row for row in loaded.photographs if row.outlined])


def test_both_ways_run_in_turn_and_the_warm_up_does_not_count():
    ran = []
    pair = timing.in_turn("abc", lambda case: ran.append(f"ours {case}"), lambda case: ran.append(f"peer {case}"), 1)
    assert ran == ["ours a", "peer a", "ours b", "peer b", "ours c", "peer c"]
    assert (len(pair.ours_s), len(pair.peer_s)) == (2, 2)


def test_the_ratio_is_the_median_of_the_cases_own():
    pair = timing.Pair([0.001, 0.002, 0.004], [0.003, 0.004, 0.4])
    assert pair.ratio == pytest.approx(3)
    assert pair.row("x") == ["x", "2.0 ms", "4.0 ms", "3.0 (2.5-51.5)", "3"]


def test_a_page_begins_with_its_title_and_how_it_was_made(tmp_path, capsys):
    publish("A title", "data --manifest m.json", ["first", "second"], str(tmp_path / "page.md"))
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert page.startswith("# A title\n\n- command: `python -m scripts.benchmark data --manifest m.json`\n- commit: ")
    assert page.endswith("\n\nfirst\n\nsecond\n")
    assert capsys.readouterr().out == page


def test_no_component_of_the_tiny_set_is_lost_and_a_lost_one_is_counted(manifest, monkeypatch):
    chosen = outlined(manifest)
    assert [lost_components(item, 32) for item in chosen] == [(0, 1), (0, 3), (0, 2), (0, 2), (0, 2)]
    (row,) = [line.split("|") for line in survival(chosen, 1).splitlines() if "1024 px" in line]
    assert [cell.strip() for cell in row[1:-1]] == ["1024 px", "0", "10"]

    def forgetful(image_size):
        real = sys.modules["bundle.transforms"].PrepareFundusd(image_size)
        return lambda item: {**real(item), "lesions": real(item)["lesions"].clamp(max=1)}

    monkeypatch.setattr("scripts.benchmarks.data.PrepareFundusd", forgetful)
    assert lost_components(chosen[1], 32) == (2, 3)  # EX and SE became MA


def test_a_made_manifest_is_loaded_split_and_searched(manifest):
    found = measure(400, str(manifest))
    assert set(found) == {"load_s", "split_s", "audit_s", "memory_mib"}
    assert all(value > 0 for value in found.values())


def test_a_manifest_without_outlines_is_refused(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.benchmarks.data.load_manifest", lambda path: SimpleNamespace(photographs=()))
    with pytest.raises(ValueError, match="expected outlined photographs in"):
        data(str(manifest))


def suites(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["benchmark", *words])
    main_of({"data": "scripts.benchmarks.data"})


@pytest.mark.parametrize("words", [["dta"], []])
def test_the_first_word_names_the_suite(monkeypatch, capsys, words):
    with pytest.raises(SystemExit) as stop:
        suites(monkeypatch, *words)
    assert stop.value.code == 2
    assert "error: expected one of data first, got" in capsys.readouterr().err


def test_help_lists_the_suites_and_then_the_options_of_one(monkeypatch, capsys):
    suites(monkeypatch, "--help")
    assert "\n  data  Speed of preparing photographs " in capsys.readouterr().out
    suites(monkeypatch, "data", "--help")
    assert "\n  --images int = 16       largest number of photographs.\n" in capsys.readouterr().out
