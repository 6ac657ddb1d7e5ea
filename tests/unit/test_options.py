"""Words of the command line become values of the kind that their option takes, through Fire and MONAI as typed."""

import os
import re
from pathlib import Path

import fire
import pytest
import torch
import yaml
from bundle import ROOT, options
from bundle.options import OPTIONS, command_line, settle
from bundle.workflow import MONAI_IDS
from monai.bundle.config_parser import ConfigParser
from monai.bundle.scripts import run
from monai.bundle.workflows import ConfigWorkflow

CONFIG = """
imports:
- $import bundle.workflow as workflow
input: null
output_dir: outputs/inference
manifest: null
pretrained: true
num_workers: 2
batch_size: 1
learning_rate: 1.0e-4
rates: ['@learning_rate']
decoder_learning_rate: '@learning_rate'
fold: 0
track: true
device: $torch.device('cpu')
tags: null
lesion_thresholds: $[0.5]
head: {_target_: torch.nn.Linear, in_features: 2, out_features: 3, bias: true}
initialize:
- $workflow.check_options()
run:
- $found.append([@input, @output_dir, @manifest, @pretrained, @num_workers, @batch_size, @decoder_learning_rate, @fold,
    @track, @device, @tags, @lesion_thresholds, @head.bias is not None, @rates][:-1])
"""
NAMES = (
    "input", "output_dir", "manifest", "pretrained", "num_workers", "batch_size", "decoder_learning_rate", "fold",
    "track", "device", "tags", "lesion_thresholds", "bias",
)  # fmt: skip


@pytest.fixture
def typed(tmp_path, monkeypatch):
    """Run words as ``python -m monai.bundle run`` does; return the values that the config comes to."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "metadata.json").write_text("{}")
    monkeypatch.chdir(tmp_path)

    def command(*words):
        found = []
        monkeypatch.setattr(options, "command_line", lambda: ["run", *words])
        monkeypatch.setattr("monai.bundle.config_parser._default_globals", {"torch": torch, "found": found})
        fire.Fire({"run": run}, command=["run", "--config_file", "config.yaml", *words])
        return dict(zip(NAMES, found[0], strict=True))

    return command


DEVICES = "expected --device as a device of this machine: cpu, cuda, cuda:N or mps"
OTHERWISE = "a file or folder of that name is ./"


def refused(command, *words):
    with pytest.raises(RuntimeError) as error:
        command(*words)
    assert isinstance(error.value.__cause__, ValueError)
    return str(error.value.__cause__)


@pytest.mark.parametrize("word", ["false", "no", "0", "off", "False", "NO", "--notrack"])
def test_no_is_no_however_it_is_spelt(typed, word):
    assert typed(word if word.startswith("--") else f"--track={word}")["track"] is False


@pytest.mark.parametrize("word", ["true", "yes", "1", "on", "True", None])
def test_yes_is_yes_and_so_is_an_option_without_a_word(typed, word):
    assert typed("--track", *([word] if word else []))["track"] is True


@pytest.mark.parametrize("word", ["None", "null", "$None"])
def test_null_is_typed_in_three_ways_and_not_dropped(typed, word):
    found = typed("--fold", word, "--manifest", word, "--tags", word, "--lesion_thresholds", word)
    assert [found[name] for name in ("fold", "manifest", "tags", "lesion_thresholds")] == [None] * 4


@pytest.mark.parametrize(
    ("option", "word", "value"),
    [
        ("num_workers", "0", 0),
        ("batch_size", "16", 16),
        ("decoder_learning_rate", "2e-3", 0.002),
        ("decoder_learning_rate", "1", 1.0),
        ("decoder_learning_rate", "$@learning_rate / 2", 5e-5),
        ("device", "cpu", torch.device("cpu")),
        ("device", "$torch.device('cpu')", torch.device("cpu")),
        ("pretrained", "false", False),
        ("pretrained", "weights/vgg16.pth", "weights/vgg16.pth"),
        ("lesion_thresholds", "[0.2, 0.35, 1e-1, 0.5]", [0.2, 0.35, 0.1, 0.5]),
        ("tags", "{'row': 'unet'}", {"row": "unet"}),
        ("tags", "{row: unet}", {"row": "unet"}),
        ("head#bias", "false", False),
        ("head#bias", "False", False),
        ("head::bias", "true", True),
    ],
)
def test_a_word_becomes_a_value_of_its_kind(typed, option, word, value):
    found = typed(f"--{option}", word)[option.replace("::", "#").rpartition("#")[2]]
    assert (found, type(found)) == (value, type(value))


NAMES_OF_FILES = (
    "plain", "photos#1", "#1", "50%", "a%20b", "a b", "a,b", "it's", '"a"', "'a'", "2024", "007", "1e5", "1_000", "-1",
    "0x10", "True", "false", "(x)", "{a}", "{a: b}", "a@b", "a$b", "$a/b", "@a/b", "a::b", "a: b", "é", "a\\b", "a=b",
    "a\tb", "./$a", "./@a", "./%a", "./None", "a'#\"$@%", "~",
)  # fmt: skip
"""What a file system allows; ``$a/b`` divides what is not there, and is refused below."""


@pytest.mark.parametrize("name", [name for name in NAMES_OF_FILES if name != "$a/b"])
def test_every_character_of_a_path_survives(typed, name):
    found = typed("--input", name, "--output_dir", name, "--manifest", name)
    assert (found["input"], found["output_dir"], found["manifest"]) == (name, name, name)


@pytest.mark.parametrize("name", ["[x]", "[1]"])
def test_a_name_that_looks_like_a_list_is_a_path_if_it_is_there(typed, tmp_path, name):
    assert typed("--output_dir", name)["output_dir"] == name
    assert typed("--input", name)["input"] == [name.strip("[]")]
    (tmp_path / name).mkdir()
    assert typed("--input", name)["input"] == name


def test_paths_in_a_list_survive_as_well(typed):
    names = [name for name in NAMES_OF_FILES if name != "None"]
    assert typed("--input", str(names))["input"] == names
    assert typed("--input", "[left, 'right #2', 2024]")["input"] == ["left", "right #2", "2024"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--track", "maybe"], "expected --track as true or false, got 'maybe'"),
        (["--track", "None"], "expected --track as true or false, got 'None'"),
        (["--track", "2"], "expected --track as true or false, got '2'"),
        (["--batch_size", "0"], "expected --batch_size as a whole number, 1 or more, got '0'"),
        (["--batch_size", "8.0"], "expected --batch_size as a whole number, 1 or more, got '8.0'"),
        (["--batch_size"], "expected --batch_size as a whole number, 1 or more, got True"),
        (["--num_workers", "-1"], "expected --num_workers as a whole number, 0 or more, got '-1'"),
        (["--fold", "first"], "expected --fold as a whole number, 0 or more, or null, got 'first'"),
        (["--learning_rate", "small"], "expected --learning_rate as a number, 0 or more, got 'small'"),
        (["--learning_rate", "nan"], "expected --learning_rate as a number, 0 or more, got 'nan'"),
        (["--device", "gpu"], f"{DEVICES}, got 'gpu'"),
        (["--device", "cuda:99"], f"{DEVICES}, got 'cuda:99'"),
        (["--lesion_thresholds", "0.2"], "expected --lesion_thresholds as a list of numbers, or null, got '0.2'"),
        (["--lesion_thresholds", "[low]"], "expected --lesion_thresholds as a list of numbers, or null, got '[low]'"),
        (["--tags", "unet"], "expected --tags as a mapping, or null, got 'unet'"),
        (["--tags", "[}"], "expected --tags as a mapping, or null, got '[}'"),
        (["--input"], "expected --input as a path or a list of paths, or null, got True"),
        (["--output_dir", ""], "expected --output_dir as a path, got ''"),
        (["--output_dir", "None"], f"expected --output_dir as a path, got 'None'; {OTHERWISE}None"),
        (
            ["--output_dir", "$a"],
            "expected --output_dir as a path, got '$a', which MONAI cannot evaluate: name 'a' is not defined; "
            f"{OTHERWISE}$a",
        ),
        (
            ["--output_dir", "@a"],
            "expected --output_dir as a path, got '@a', which MONAI cannot evaluate: the referring item `@a` is not "
            f"defined in the config content.; {OTHERWISE}@a",
        ),
        (["--output_dir", "@track"], "expected --output_dir as a path, got True"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_one_sentence(typed, words, message):
    assert refused(typed, *words) == message


@pytest.mark.parametrize("name", ["$a/b", "$", "$a b", "$#1"])
def test_what_begins_as_an_expression_names_the_way_out(typed, name):
    assert refused(typed, "--output_dir", name).endswith(f"a file or folder of that name is ./{name}")


def test_a_word_that_belongs_to_no_option_is_refused(typed):
    assert refused(typed, "--input", "a.jpg", "b.jpg").startswith(
        "expected options as --name value, got also 'b.jpg'; "
    )


def test_from_python_and_files_values_are_checked_as_well(tmp_path):
    def value_of(**given):
        parser = ConfigParser({"imports": [], **given})
        parser.parse()  # as a workflow does before its config is asked
        settle(parser)
        return parser.get_parsed_content(next(iter(given)))

    assert value_of(track="no") is False
    assert value_of(fold=None) is None
    assert value_of(output_dir=tmp_path / "photos#1") == str(tmp_path / "photos#1")
    assert value_of(input=[Path("$a"), "b.jpg"]) == ["$a", "b.jpg"]
    assert value_of(output_dir="$'a' + 'b'") == "ab"
    assert value_of(graders=["$'a' + 'b'", "c"]) == ["ab", "c"]
    with pytest.raises(ValueError, match=r"expected --batch_size as a whole number, 1 or more, got True"):
        value_of(batch_size=True)
    with pytest.raises(ValueError, match=r"expected --input without '::', got 'a::1'; .* give a pathlib.Path"):
        value_of(input="a#1")


def test_the_words_of_another_program_are_not_read():
    assert command_line() == []


# ---- the kinds are those of the configs

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
PARTS = MONAI_IDS | {"network", "network_def", "data"}
"""Ids that are computed and not options."""


def flat(path: Path) -> dict[str, object]:
    """Return the flat options of a config."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    options = {name: value for name, value in content.items() if not re.search("#|::", name)}
    return {
        name: value for name, value in options.items()
        if name.removeprefix("+") not in PARTS and not isinstance(value, dict)
        and not (isinstance(value, list) and any(isinstance(one, dict) for one in value))
    }  # fmt: skip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_flat_option_has_a_kind_that_its_default_is_of(path):
    for name, value in flat(path).items():
        assert name in OPTIONS, f"say in bundle/options.py what --{name} takes"
        if not str(value).startswith(("$", "@")):
            assert OPTIONS[name].read(value) == value


def test_every_kind_is_of_an_option():
    assert set(OPTIONS) - {"bundle_root"} == {name for path in CONFIGS for name in flat(path)}


def test_a_packaged_config_needs_nothing_of_the_command_line():
    workflow = ConfigWorkflow(
        str(ROOT / "configs/inference.yaml"), logging_file=False, track="no", nifti="off", device="cpu"
    )
    settle(workflow.parser)
    assert (workflow.parser["track"], workflow.parser["nifti"], workflow.parser["device"].type) == (False, False, "cpu")
    assert os.fspath(workflow.parser["output_dir"]) == "outputs/inference"
