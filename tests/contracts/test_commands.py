"""What the documentation says to type can be typed: every command is checked, and each is run by some test.

Checked of each: the script, config or target is there, and so is every option, the files are in this repository or come
out of another command. Run here, as they are written: the stages of the method, on a small phantom.
"""

import ast
import importlib
import inspect
import re
import runpy
import shlex
import shutil
from pathlib import Path

import click
import pytest
import scripts.cli
import yaml
from bundle import ROOT
from bundle.experiments.suites import SUITES
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import save_weights
from bundle.phantom.tree import write_phantom
from monai.bundle import scripts as monai_scripts
from scripts.benchmark import SUITES as SUITES_OF_BENCHMARK
from scripts.commands import read_command
from scripts.fundus import NAMES

from tests.documented import PAGES, commands, commands_of, listed, options_of, with_overlay

BROUGHT = re.compile(r"[A-Z_]+|<.*>|masks|.*/masks/.*|models/model\.pt|grades\.csv|/path/.*|\.\.\.")
"""What a user brings: names in capitals, a folder's own masks and grades, weights from elsewhere."""

INPUTS = {"manifest", "graders", "pseudo_labels", "checkpoint", "sweep", "teacher", "meta_file", "config_file"}
OUTPUTS = {"out", "output_dir", "results"}

ELSEWHERE = {
    r"torchrun .*multi_gpu_train": "integration/test_whole_way.py::test_two_processes_with_half_the_batch_each_follow",
    r"python -m monai\.bundle ckpt_export": "unit/deploy/test_packaging.py::",
    r"python -c .*halve": "unit/networks/test_weights.py::test_a_halved_file_takes_half",
    r"fundus --help": "unit/scripts/test_fundus.py::test_help_needs_nothing_heavy",
}
"""Commands that another test runs, with small settings."""

ONLY_CHECKED = {
    r"make ": "they install; .ci/run types `make install`, `make check` and `make test` before anything lands",
    r"torchrun ": "needs as many GPUs as it says",
    r"mlflow ": "serves until it is stopped",
    r"pip ": "downloads",
    r"hf ": "downloads",
    r"python -m pytest tests/(fuzz|faults)": "takes up to half an hour; `make test` runs the same with fewer cases",
    r"python -m zipfile ": "Python's own; integration/test_package.py unpacks the same zip",
    r"cp ": "copies a file",
    r"\.venv/bin/": "changes the checkout's hooks",
    r"\. \.venv/bin/activate": "puts the commands of `make install` on the path",
}
"""Commands that no test runs, and why."""


COMMANDS = commands(PAGES)


def command_line(module, words):
    """Return what a script takes; of a script with suites, what that suite takes which the first word names."""
    name = module.rpartition(".")[2]
    if found := read_command(module, name):
        return found
    suite = words.pop(0) if words else SUITES_OF_BENCHMARK[0]
    return read_command(f"scripts.benchmarks.{suite}", suite)


def check_script(module, words, is_whole):
    assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), f"there is no {module}"
    command = command_line(module, words)
    needed = [p for p in command.parameters.values() if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    missing = [p for p in needed if f"--{p.name}" not in words]
    filled = [] if is_whole else [word for p in missing for word in (f"--{p.name}", "X")]
    scripts.cli.check_options(command, [*words, *filled])
    for option, value in options_of(words).items():
        if option in command.kinds and not BROUGHT.fullmatch(value):
            scripts.cli._reader(option, *command.kinds[option])(value)


def check_bundle(words, is_whole):
    """Check a command of MONAI's: its function, its options, and those that only the config has."""
    known = set(inspect.signature(getattr(monai_scripts, words[0])).parameters)
    options = options_of(words)
    contents = [yaml.safe_load((ROOT / name).read_text()) for name in listed(options["config_file"])]
    ids = {re.split("::|#", key.lstrip("+"))[0] for content in contents for key in content}
    for option in options:
        assert re.split("::|#", option)[0] in known | ids, f"neither MONAI nor {options['config_file']} has --{option}"


def check_make(words):
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, equals, _ = word.partition("=")
        pattern = rf"^{name} \?=" if equals else rf"^{name}:"
        assert re.search(pattern, makefile, re.MULTILINE), f"the Makefile has no {name}"


def check_mlflow(words):
    group = importlib.import_module("mlflow.cli").cli
    offered = group.get_command(click.Context(group), words[0]).params
    assert set(options_of(words)) <= {name.lstrip("-") for one in offered for name in one.opts}


def check_pip(words):
    extras = re.findall(r"\[([\w,]+)\]", " ".join(words))
    for extra in ",".join(extras).split(",") if extras else ():
        assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE), f"no extra {extra}"


def check_values(options):
    if "experiment" in options and not BROUGHT.fullmatch(options["experiment"]):
        assert all((ROOT / "configs" / "experiments" / name).is_dir() for name in options["experiment"].split(","))
    if "suite" in options and not BROUGHT.fullmatch(options["suite"]):
        assert options["suite"] in SUITES


def check(command):
    """Check a command as far as that goes without running it."""
    program, *words = command.words
    if program == "fundus" and words != ["--help"]:
        assert words[0] in NAMES, f"fundus has no {words[0]}"
        program, words = "python", ["-m", f"scripts.{words[0]}", *words[1:]]
    if program == "torchrun":
        at = words.index("-m")
        assert all(re.fullmatch(r"--(nproc_per_node|nnodes|standalone|rdzv\S*)(=\S+)?", word) for word in words[:at])
        program, words = "python", words[at:]
    if program == "python" and words[0] == "-c":
        ast.parse(words[1])
    elif program == "python":
        module, *words = words[1:]
        check_values(options_of(words))
        if module == "monai.bundle" and words:
            check_bundle(words, command.is_whole)
        elif module == "scripts.run" and words:
            check_bundle(["run", *words], command.is_whole)
        elif module.startswith("scripts"):
            check_script(module, words, command.is_whole)
        else:
            importlib.import_module(module)
    elif program == ".":
        assert words == [".venv/bin/activate"]
    elif program in ("make", "mlflow", "pip"):
        {"make": check_make, "mlflow": check_mlflow, "pip": check_pip}[program](words)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_documented_command_can_be_typed(command):
    check(command)


def made():
    """Return what the commands leave: files, and folders of runs."""
    return {value.rstrip("/") for one in COMMANDS for name, value in options_of(one.words).items() if name in OUTPUTS}


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.is_whole], ids=str)
def test_files_that_a_command_reads_are_there_or_come_out_of_another(command):
    for name, value in options_of(command.words).items():
        for path in listed(value) if name in INPUTS else ():
            is_made = path in made() or str(Path(path).parent) in made()
            assert is_made or BROUGHT.fullmatch(path) or (ROOT / path).exists(), f"nothing makes {path} of --{name}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("python -m scripts.nothing --out a", "there is no scripts.nothing"),
        ("python -m scripts.prepare --dataset idrid --root DIR --outt a.json", "unknown option --outt"),
        ("python -m scripts.prepare --dataset idrid --root DIR", "expected --out"),
        ("python -m scripts.prepare --dataset idrid --root DIR --out a --folds many", "expected --folds as int"),
        ("python -m monai.bundle run --config_file configs/train.yaml --max_epoch 3", "--max_epoch"),
        ("fundus prepair --out a", "fundus has no prepair"),
        ("fundus benchmark data --out a.md", "expected --manifest"),
        (". .venv/bin/actvate", "actvate"),
        ("make dmeo", "the Makefile has no dmeo"),
        ("make demo RESULT=a", "the Makefile has no RESULT"),
        ("pip install -e '.[baseline]'", "no extra baseline"),
    ],
)
def test_a_command_that_cannot_be_typed_is_found(text, message):
    (command,) = commands_of("page", f"```\n{text}\n```\n")
    with pytest.raises((AssertionError, ValueError), match=re.escape(message)):
        check(command)


NEEDS_VENV = re.compile(r"^(?:    )?\(?(?:cd \w+ && )?(?:fundus|python -m|torchrun|mlflow|pip) ", re.MULTILINE)
ACTIVATION = ". .venv/bin/activate"


def without_activation(text):
    """Return the first command of a page that needs `.venv` before the page says how to activate it."""
    first = NEEDS_VENV.search(text)
    return first and ACTIVATION not in text[: first.start()] and text[first.start() :].partition("\n")[0]


@pytest.mark.parametrize(
    "path",
    [*PAGES, ROOT / "docs/extending.md", ROOT / "docs/examples/README.md", ROOT / "docs/results/idrid.md"],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_a_page_says_how_to_activate_before_its_first_command(path):
    assert not without_activation(path.read_text(encoding="utf-8"))


def test_a_page_that_does_not_say_so_is_found():
    assert without_activation("Say\n\n    fundus predict a.jpg\n") == "    fundus predict a.jpg"
    assert without_activation("```\n(cd BUNDLE && fundus package)\n```") == "(cd BUNDLE && fundus package)"
    assert not without_activation(f"```\nmake install\n{ACTIVATION}\nfundus predict a.jpg\n```")
    assert not without_activation("No command, but `fundus predict` in a sentence.")


def test_commands_are_found_in_blocks_and_in_sentences():
    text = "```\nmake demo  # now\nls\npython -m a \\\n  --b c\n```\nOr `mlflow\nui --port 5`, `make`.\n"
    assert [(one.text, one.is_whole) for one in commands_of("", text)] == [
        ("make demo  # now", True), ("python -m a    --b c", True), ("mlflow ui --port 5", False),
    ]  # fmt: skip


# ---- run


def runs_here(command):
    return command.text.startswith(("python -m monai.bundle run", "python -m monai.bundle verify_net_in_out"))


def users_of(module):
    """Return the tests that type a script, or call what it calls."""
    name = module.rpartition(".")[2]
    used = re.compile(rf'"{module}"|from {module}[ .]|from scripts import (\w+, )*{name}\b|from scripts\.{name}s? ')
    own = Path(__file__).resolve()
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py") if path != own}
    return [path for path, text in texts.items() if used.search(text)]


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.is_whole], ids=str)
def test_a_documented_command_is_run_by_a_test_or_it_is_said_why_not(command):
    elsewhere = [place for pattern, place in ELSEWHERE.items() if re.match(pattern, command.text)]
    script = re.match(r"(?:python -m scripts\.|fundus )(\w+)", command.text)
    if elsewhere:
        path, _, name = elsewhere[0].partition("::")
        assert f"def {name}" in (ROOT / "tests" / path).read_text(encoding="utf-8") or not name
    elif script:
        assert users_of(f"scripts.{script[1]}"), f"no test runs {script[1]}"
    else:
        assert runs_here(command) or any(re.match(pattern, command.text) for pattern in ONLY_CHECKED)


@pytest.fixture(scope="module")
def typed():
    """Run ``python -m module words`` and return what ``subprocess.run`` would."""
    ready = runpy.run_path(str(ROOT / "tests" / "integration" / "ready_python.py"))["ReadyPython"]()
    yield ready
    ready.close()


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder in which the commands can be typed as they are written: DIR and DIR_OR_FILE are there."""
    desk = tmp_path_factory.mktemp("desk")
    write_phantom(
        desk / "DIR", num_lesion_train=10, num_lesion_test=2, num_graded_train=12, num_graded_test=4, width_px=288,
        height_px=192, seed=3,
    )  # fmt: skip
    shutil.copytree(desk / "DIR" / "A. Segmentation" / "1. Original Images" / "b. Testing Set", desk / "DIR_OR_FILE")
    (desk / "configs").symlink_to(ROOT / "configs")
    (desk / "models").mkdir()
    save_weights(desk / "models" / "model.pt", MultiTaskUNet(pretrained=False, width=1 / 16), {"image_size": 64})
    return desk


def made_small(words):
    """Put the smallest overlay on top of a stage; inference is as small as its weights. Leave all other words."""
    if "inference.yaml" not in options_of(words)["config_file"]:
        return with_overlay(words, "smoke")
    return words if "--checkpoint" in words else [*words, "--checkpoint", "outputs/train/model.pt"]


STAGES = ("pretrain", "evaluate_grader", "pseudo_label", "train", "evaluate", "teach_grades", "calibrate", "inference")


def stages_to_run():
    """Return each documented run of a stage once, in the order of the method, as it would be typed."""
    runs = [one.words for one in COMMANDS if one.is_whole and one.text.startswith("python -m monai.bundle run")]
    last_config = {tuple(words): Path(listed(options_of(words)["config_file"])[-1]).stem for words in runs}
    unique = {last_config[tuple(words)]: words for words in reversed(runs)}
    return [unique[name] for name in sorted(unique, key=lambda name: STAGES.index(name) if name in STAGES else 99)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_documented_stages_run_one_after_the_other(typed, desk):
    prepare = next(one for one in COMMANDS if one.text.startswith("fundus prepare --dataset idrid"))
    todo = [["python", "-m", "scripts.fundus", *prepare.words[1:]], *map(made_small, stages_to_run())]
    assert len(todo) >= 1 + len(STAGES)
    for words in todo:
        done = typed(*words[2:], cwd=desk)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    left = ("idrid.json", "outputs/pseudo/pseudo_labels.json", "outputs/train/metrics.json")
    assert all((desk / name).is_file() for name in (*left, "outputs/inference/report.html", "outputs/mlflow.db"))


@pytest.mark.slow
@pytest.mark.parametrize("command", [one for one in COMMANDS if "verify_net_in_out" in one.text], ids=str)
def test_the_network_fits_the_metadata_by_the_documented_command(typed, desk, command):
    done = typed(*command.words[2:], cwd=desk)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "data shape of network is verified" in done.stdout + done.stderr
