"""The configs hold together: overlays overlay something, options have an effect, names lead somewhere."""

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bundle import ROOT
from bundle.manifest import Manifest, Photograph, load_manifest, save_manifest
from bundle.networks.graders import Grader
from bundle.networks.weights import save_weights
from monai.bundle.workflows import ConfigWorkflow

CONFIGS = ROOT / "configs"
STAGES = {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}
OVERLAYS = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent != CONFIGS)
BASES = {
    "evaluate": "train",
    "multi_gpu_train": "train",
    "evaluate_grader": "pretrain",
    "calibrate": "evaluate",
    "teach_grades": "evaluate",
    "evaluate_backend": "evaluate",
}
"""Stages whose own file is an overlay of another stage's."""


def named(path: Path) -> str:
    return path.relative_to(CONFIGS).as_posix()


def files_of(path: Path) -> list[Path]:
    """Return the files that this one is run with; an overlay that is not called after a stage is one of train."""
    if path in STAGES.values():
        return [*files_of(STAGES[BASES[path.stem]]), path] if path.stem in BASES else [path]
    return [*files_of(STAGES.get(path.stem, STAGES["train"])), path]


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def workflow(path: Path, **options: object) -> ConfigWorkflow:
    files = [str(file) for file in files_of(path)]
    return ConfigWorkflow(files, meta_file=[], logging_file=False, **options)


def nodes(value: object) -> Iterator[object]:
    yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(one)


def components(path: Path) -> list[dict[str, Any]]:
    """Return the components of a file that this package has."""
    found = [node for node in nodes(load(path)) if isinstance(node, dict)]
    return [node for node in found if str(node.get("_target_", "")).startswith("bundle.")]


def located(target: str) -> Any:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


ALL = [*STAGES.values(), *OVERLAYS]
every_file = pytest.mark.parametrize("path", ALL, ids=named)


def test_the_stages_of_the_method_are_there():
    assert {"pretrain", "pseudo_label", "train", "evaluate", "inference"} <= set(STAGES)


@every_file
def test_the_first_line_says_what_the_file_is_for(path):
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(r"# .{20,}[.:]", first)


@pytest.mark.parametrize("path", OVERLAYS, ids=named)
def test_an_overlay_changes_only_what_its_stage_has(path):
    known = {key for file in files_of(path)[:-1] for key in load(file)}
    changed = {re.split("::|#", key.lstrip("+"))[0] for key in load(path)}
    assert changed - known == set()


@every_file
def test_every_option_has_an_effect(path):
    """By the very check that a run begins with; what comes after it stays to be read, but is not run."""
    check, *rest = workflow(path).parser["initialize"]
    workflow(path, initialize=[check, *(f"not run: {line}" for line in rest)]).initialize()


@pytest.mark.parametrize("section", ["tasks", "label_network_def", "teacher_def", "teacher_facts"])
def test_a_section_that_a_stage_has_no_longer_is_refused(section):
    check = {"initialize": ["$workflow.check_options()"], section: {"_target_": "torch.nn.Flatten"}}
    with pytest.raises(RuntimeError) as error:
        workflow(STAGES["train"], **check).initialize()
    assert f"unknown option '{section}'" in str(error.value.__cause__)


@pytest.mark.parametrize("path", STAGES.values(), ids=named)
def test_a_stage_begins_by_checking_its_options(path):
    assert workflow(path).parser["initialize"][0] == "$workflow.check_options()"


@every_file
def test_every_component_of_this_package_takes_what_it_is_given(path):
    for component in components(path):
        parameters = set(inspect.signature(located(component["_target_"])).parameters)
        given = {name for name in component if not re.fullmatch("_.*_", name)}
        assert given <= parameters, f"{component['_target_']} takes {sorted(parameters)}"


@every_file
def test_every_function_that_an_expression_calls_is_there(path):
    modules = {}
    for key, lines in [pair for file in files_of(path) for pair in load(file).items()]:
        for line in lines if key.lstrip("+") == "imports" else ():
            module, _, alias = line.removeprefix("$import ").partition(" as ")
            modules[alias or module] = importlib.import_module(module)
    expressions = [node for node in nodes(load(path)) if isinstance(node, str) and node.startswith("$")]
    for expression in expressions:
        for alias, name in re.findall(r"(?<![\w@#.'])(\w+)\.([a-z_]\w*)", expression.removeprefix("$")):
            assert alias not in modules or hasattr(modules[alias], name), f"{alias} has no {name}: {expression}"


@pytest.fixture
def graders_of(tmp_path):
    """Write a manifest of three graded photographs, of fold 0, fold 1 and ``split``, and a grader for each fold."""

    def write(split, manifest_sha256=None, folds=(0, 1)):
        rows = [_graded_row(0, "train", 0), _graded_row(1, "train", 1), _graded_row(2, split, 1)]
        made = Manifest(name="made", roots={"made": tmp_path}, folds=2, seed=0, photographs=tuple(rows), notes=())
        save_manifest(made, tmp_path / "manifest.json")
        known = {"manifest_sha256": manifest_sha256 or load_manifest(tmp_path / "manifest.json").sha256}
        for fold in folds:
            facts = {"architecture": "tf_efficientnet_lite0", "image_size": 64, "fold": fold, **known}
            save_weights(tmp_path / f"{fold}.pt", Grader("tf_efficientnet_lite0", pretrained=False), facts)
        return {
            "manifest": str(tmp_path / "manifest.json"), "output_dir": str(tmp_path),
            "checkpoint": [str(tmp_path / f"{fold}.pt") for fold in folds],
        }  # fmt: skip

    return write


def _graded_row(number, split, fold):
    return Photograph(
        id=f"made/{number}", image=f"made/{number}.jpg", split=split, sha256=f"{number}" * 64,
        perceptual_hash=f"{number}" * 64, width_px=60, height_px=40, group=f"{number}", grade=number,
        fold=fold if split == "train" else None,
    )  # fmt: skip


def test_graders_of_another_manifest_are_refused_before_its_missing_grades_are(graders_of):
    evaluation = workflow(STAGES["evaluate_grader"], **graders_of("test", manifest_sha256="another", folds=[0]))
    with pytest.raises(RuntimeError) as error:
        evaluation.parser.get_parsed_content("validate#evaluator")
    assert "expected weights of manifest_sha256" in str(error.value.__cause__)


def test_graders_that_held_out_different_folds_are_scored_together_on_the_official_test(graders_of):
    parser = workflow(STAGES["evaluate_grader"], **graders_of("test")).parser
    assert parser.get_parsed_content("fold") is None
    name, rows = parser.get_parsed_content("evaluate#grade")
    assert (name, [row.id for row in rows]) == ("test", ["made/2"])


def test_without_an_official_test_graders_of_different_folds_have_seen_all_there_is(graders_of):
    evaluation = workflow(STAGES["evaluate_grader"], **graders_of("train"))
    with pytest.raises(RuntimeError) as error:
        evaluation.parser.get_parsed_content("evaluate#grade")
    assert "expected photographs to measure 'grade' on, in the test split or" in str(error.value.__cause__)


def test_a_grader_is_not_scored_on_a_fold_that_it_saw(graders_of):
    evaluation = workflow(STAGES["evaluate_grader"], **graders_of("train", folds=[1]), fold=0)
    with pytest.raises(RuntimeError) as error:
        evaluation.initialize()
    assert "fold" in str(error.value.__cause__)


def test_without_label_update_there_is_neither_its_network_nor_its_optimiser():
    train = workflow(STAGES["train"], label_update=False, pretrained=False, width=0.0625)
    assert train.parser.get_parsed_content("label_optimizer") is None
    assert train.parser.get_parsed_content("label_network") is None
    assert train.parser.get_parsed_content("train#meta_step") is None
