"""The console command: it finds a script by its name, and answers help and mistakes without its imports."""

import importlib
import logging
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from bundle import ROOT
from bundle.manifest import load_manifest
from scripts.benchmark import SUITES
from scripts.commands import command_of, help_page, read_command
from scripts.fundus import NAMES, fundus
from scripts.package import package

COMMANDS = [
    *((f"scripts.{name}", name) for name in NAMES if name != "benchmark"),
    *((f"scripts.benchmarks.{name}", name) for name in SUITES),
]
NOISE = ("GROUP", "FIRE_METADATA", "POSITIONAL", "Optional[")
FAR_TOO_HEAVY = ("torch", "monai", "mlflow", "numpy", "matplotlib")
ASKED = [["--help"], ["prepare", "--hepl", "x"], ["predict", "--track", "a.jpg", "--inptu", "b"]]


@pytest.fixture
def type_fundus(monkeypatch, capsys):
    """Type words after ``fundus``; return exit code, stdout and stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["fundus", *words])
        try:
            fundus()
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def test_a_help_page_has_a_line_for_each_option_with_type_and_default(type_fundus, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = type_fundus("compare", "--help")
    assert code == 0
    assert out.splitlines() == [
        "Compare the finished runs of a suite; missing runs are listed.",
        "",
        "fundus compare --suite table1 --sweep outputs/table1 --out docs/results",
        "",
        "  --suite str, needed       name of the table, such as table1.",
        "  --sweep str               folder of the sweep, whose mlflow.db is read; without it, outputs/<suite>.",
        "  --out str = docs/results  folder of the page, the CSV file and the picture.",
        "  --tracking_uri str        address of another MLflow store; "
        "without it, MLFLOW_TRACKING_URI or the sweep's own.",
    ]


def test_the_page_is_the_same_once_the_function_is_imported(type_fundus, run_script):
    assert run_script(package, "package.py", "--help") == type_fundus("package", "--help")


@pytest.mark.parametrize(("module", "name"), COMMANDS)
def test_the_source_says_what_the_function_takes(module, name):
    read = read_command(module, name)
    assert read == command_of(getattr(importlib.import_module(module), name))
    page = help_page(read)
    assert not [word for word in NOISE if word in page]
    described = [line for line in page.splitlines() if line.startswith(("  --", "  PHOTOGRAPHS"))]
    assert len(described) == len(read.parameters)
    assert all(line.count("  ") >= 2 for line in described)  # something stands in the second column


def test_help_needs_nothing_heavy():
    asked = [*ASKED, *([name, "--help"] for name in NAMES), ["benchmark", "data", "--help"]]
    code = f"""
import contextlib, sys
from scripts.fundus import fundus
for words in {asked}:
    sys.argv = ["fundus", *words]
    with contextlib.suppress(SystemExit):
        fundus()
print("heavy:", *(name for name in {FAR_TOO_HEAVY} if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy:"
    assert done.stdout.count("--manifest str, needed") == 4  # pipeline, sweep, figures, benchmark data
    assert [line.partition(",")[0] for line in done.stderr.splitlines()] == [
        "error: unknown option --hepl", "error: unknown option --inptu",
    ]  # fmt: skip


def test_a_script_runs_as_by_its_module(type_fundus, tiny_idrid, tmp_path):
    out = str(tmp_path / "tiny.json")
    code, screen, _ = type_fundus(
        "prepare", "--dataset", "idrid", "--root", str(tiny_idrid.root), "--folds", "2", "--out", out
    )
    assert code == 0
    assert f"wrote {out}" in screen
    assert load_manifest(out).folds == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepair"], "expected one of prepare, pipeline, run, predict, sweep, compare, figures, export, package, "),
        ([], "benchmark first, got ''; --help says what each does"),
        (["prepare", "--dataset", "idrid"], "expected --root, got --dataset idrid; there are --dataset, --root, "),
        (["prepare", "--root"], "expected a value after --root"),
        (["export", "model.pt"], "expected options (--checkpoint, --format, "),
        (["benchmark", "dta"], "expected one of attribution, data, inference, labels, meta, unlike first, got 'dta'"),
        (["predict"], "expected a photograph or a folder, as in `fundus predict photo.jpg`, got none"),
    ],
)
def test_a_mistake_is_refused_in_one_line(type_fundus, words, message):
    code, _, err = type_fundus(*words)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_a_command_leaves_the_loggers_of_others_as_they_were(type_fundus):
    others = [logging.getLogger(name) for name in ("ignite", "monai.bundle.workflows")]
    before = [logger.level for logger in others]
    assert logging.CRITICAL not in before
    type_fundus("predict")
    assert [logger.level for logger in others] == before


@pytest.mark.parametrize(("line", "error"), [("out=PLACE", ValueError), ("out: list = 'a'", KeyError)])
def test_what_the_source_alone_cannot_tell_is_an_error(tmp_path, monkeypatch, line, error):
    (tmp_path / "odd_script.py").write_text(f"def odd({line}): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(error):
        read_command("odd_script", "odd")


def test_the_installed_command_is_this_one():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert EntryPoint("fundus", declared["fundus"], "console_scripts").load() is fundus


@pytest.mark.skipif(not shutil.which("fundus", path=Path(sys.executable).parent), reason="`make install` has not run")
def test_the_installed_command_works_from_any_folder(tmp_path):
    command = [Path(sys.executable).parent / "fundus", "prepare", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "  --dataset str, needed" in done.stdout
