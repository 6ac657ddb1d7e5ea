"""A running config finds its own options: a misspelt one is refused, and each is told with its value."""

import pytest
import torch
from bundle.handlers.tracking import RunTracker, default_uri
from bundle.manifest import Manifest
from bundle.networks.weights import facts_of, save_weights
from bundle.workflow import (
    check_options,
    lasting_settings,
    run_name,
    run_settings,
    running_workflow,
    scored_parameters,
    tracked,
)
from ignite.engine import Engine
from monai.bundle.workflows import ConfigWorkflow

CONFIG = """
imports:
- $import bundle.workflow as workflow
bundle_root: .
max_epochs: 3
learning_rate: $1.0e-3 / 2
folds: [0, 1]
device: $torch.device('cpu')
fold: null
output_dir: out
network:
  _target_: torch.nn.Linear
  in_features: '$@max_epochs + 1'
  out_features: 2
steps:
- {_target_: torch.nn.Flatten, start_dim: '@max_epochs'}
facts: {lr: '@learning_rate', folds: '@folds', device: '@device', fold: '@fold'}
path: $@output_dir + '/model.pt'
initialize:
- $workflow.check_options()
run:
- $workflow.run_settings()
- $print(@path)
finalize:
- $print(@network, @steps, @facts)
"""


@pytest.fixture
def config(tmp_path):
    """Write the config; return how it is run."""
    (tmp_path / "config.yaml").write_text(CONFIG)

    def workflow(overlay=None, **options):
        files = [str(tmp_path / "config.yaml")]
        if overlay is not None:
            (tmp_path / "overlay.yaml").write_text(overlay)
            files.append(str(tmp_path / "overlay.yaml"))
        return ConfigWorkflow(files, meta_file=[], logging_file=False, **options)

    return workflow


def settings_of(workflow):
    workflow.initialize()
    return workflow.run()[0]


def test_options_are_told_with_the_values_that_they_resolve_to(config):
    settings = settings_of(config(output_dir="elsewhere"))
    assert settings["learning_rate"] == 5e-4
    assert settings["path"] == "elsewhere/model.pt"
    assert (settings["max_epochs"], settings["folds"], settings["fold"]) == (3, [0, 1], None)


def test_sections_are_told_as_they_are_written_and_what_is_no_setting_not_at_all(config):
    settings = settings_of(config())
    assert settings["network"] == {"_target_": "torch.nn.Linear", "in_features": "$@max_epochs + 1", "out_features": 2}
    assert settings["steps"][0]["start_dim"] == "@max_epochs"
    assert settings["device"] == "cpu"
    assert not {"initialize", "run", "_meta_"} & set(settings)


def test_an_overlay_and_an_option_of_a_section_are_told_as_they_run(config):
    workflow = config("max_epochs: 7\n", **{"network#out_features": 9})
    settings = settings_of(workflow)
    assert (settings["max_epochs"], settings["network"]["out_features"]) == (7, 9)
    assert workflow.parser.get_parsed_content("network").weight.shape == torch.Size([9, 8])


def test_a_run_may_go_on_elsewhere_and_for_longer_but_not_with_another_learning_rate(config):
    def lasting(**options):
        workflow = config(run=["$workflow.lasting_settings()", "$@path"], **options)
        workflow.initialize()
        return workflow.run()[0]

    assert lasting(output_dir="elsewhere", max_epochs=9) == lasting() | {"path": "elsewhere/model.pt"}
    assert lasting(learning_rate=0.1) == lasting() | {"learning_rate": 0.1}


def test_the_running_workflow_is_the_one_whose_config_asks(config):
    first, second = (config(run=["$workflow.running_workflow()", "$@path"]) for _ in range(2))
    for workflow in (first, second):
        workflow.initialize()
    assert first.run()[0] is first
    assert second.run()[0] is second


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("max_epoch", "unknown option 'max_epoch': did you mean 'max_epochs'?"),
        ("learningrate", "unknown option 'learningrate': did you mean 'learning_rate'?"),
        (
            "xyzzy",
            "unknown option 'xyzzy': known are device, facts, fold, folds, learning_rate, max_epochs, network, "
            "output_dir, path, steps",
        ),
    ],
)
def test_a_misspelt_option_is_refused_before_anything_runs(config, option, message):
    with pytest.raises(RuntimeError) as error:
        config(**{option: 9}).initialize()
    assert isinstance(error.value.__cause__, ValueError)
    assert str(error.value.__cause__) == message


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("max_epoch: 9\n", "unknown option 'max_epoch': did you mean 'max_epochs'?"),
        ("networks: {_target_: torch.nn.Flatten}\n", "unknown option 'networks': did you mean 'network'?"),
        ("step: [{_target_: torch.nn.Flatten}]\n", "unknown option 'step': did you mean 'steps'?"),
    ],
)
def test_a_misspelt_option_or_section_of_an_overlay_is_refused_as_well(config, overlay, message):
    with pytest.raises(RuntimeError, match=r"check_options") as error:
        config(overlay).initialize()
    assert str(error.value.__cause__) == message


GROUP = """
validate:
  metric: {_target_: torch.nn.Flatten}
  every: 2
run:
- $print(@validate#metric, @validate#every, @path)
"""


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("network#out_feature", "unknown option 'network#out_feature': did you mean 'network#out_features'?"),
        ("network#bia", "unknown option 'network#bia': did you mean 'network#bias'?"),
        ("steps#0#start", "unknown option 'steps#0#start': did you mean 'steps#0#start_dim'?"),
        ("validate#start_dim", "unknown option 'validate#start_dim': known are every, metric"),
        ("validate#evry", "unknown option 'validate#evry': did you mean 'validate#every'?"),
    ],
)
def test_a_misspelt_part_of_a_section_is_refused_as_well(config, option, message):
    with pytest.raises(RuntimeError) as error:
        config(GROUP, **{option: 9}).initialize()
    assert str(error.value.__cause__) == message


def test_a_part_that_stands_further_within_is_named_as_a_whole(config):
    with pytest.raises(RuntimeError) as error:
        config(GROUP + "validate#metric#start_dim: 1\n", **{"validate#start_dim": 9}).initialize()
    assert str(error.value.__cause__).endswith("'validate#start_dim': did you mean 'validate#metric#start_dim'?")


def test_any_argument_of_a_class_and_any_fact_of_a_group_taken_whole_may_be_given(config):
    workflow = config(**{"network#bias": False, "facts#anything": 3})
    workflow.initialize()
    assert workflow.parser.get_parsed_content("network").bias is None


@pytest.mark.parametrize("target", ["torch.tensor", "nowhere.Nothing"])  # C code; no module
def test_what_tells_no_arguments_is_left_to_monai(config, target):
    config(f"other: {{_target_: {target}, data: 3}}\nrun: [$@other, $@path]\n").initialize()


def test_what_an_overlay_leaves_behind_may_be_idle(config):
    config(GROUP, run=["$@validate#every", "$@path"]).initialize()


def test_what_only_monai_label_reads_is_no_unknown_section(config):
    config("postprocessing: {_target_: torch.nn.Flatten}\n").initialize()


SMOKE = {
    "pretrained": False, "width": 0.0625, "image_size": 64, "max_epochs": 3, "label_mask": "all", "average_decay": 0.5,
}  # fmt: skip

RECORDED = """
track: true
tracking_uri: null
tags: null
handlers:
- {_target_: bundle.workflow.tracked, stage: train, facts: {fold: 1}, artifacts: [model.pt]}
- {_target_: torch.nn.Flatten}
"""


def test_a_run_is_recorded_by_the_options_of_its_config(config, tmp_path):
    options = {"output_dir": str(tmp_path), "tracking_uri": "sqlite:///here.db", "tags": {"row": "unet"}}
    workflow = config(RECORDED, run=["$@handlers", "$@path"], **options)
    workflow.initialize()
    tracker = workflow.run()[0][0]
    assert isinstance(tracker, RunTracker)
    assert (tracker.stage, tracker.split, tracker.artifacts) == ("train", "train", ("model.pt",))
    assert (tracker.output_dir, tracker.tracking_uri) == (tmp_path.resolve(), "sqlite:///here.db")
    assert (tracker.tags, tracker.facts) == ({"row": "unet"}, {"facts.fold": 1})
    assert (tracker.settings["max_epochs"], tracker.settings["learning_rate"]) == (3, 5e-4)


def test_the_parameters_of_an_evaluation_are_those_in_the_weights(config, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    path = str(tmp_path / "model.pt")
    options = {"learning_rate": 0.002, "max_epochs": 60, "encoder": "vgg16"}
    save_weights(path, torch.nn.Linear(2, 3), {"stage": "train", "steps": 120, "options": options})
    recorded = RECORDED.replace("stage: train", f"stage: evaluate, weights: {path}")
    workflow = config(recorded, run=["$@handlers", "$@path"], output_dir=str(tmp_path / "out"))
    workflow.initialize()
    tracker = workflow.run()[0][0]
    assert workflow.parser["max_epochs"] == 3  # a default, which is not shown
    engine = Engine(lambda engine, batch: None)
    tracker.attach(engine)
    engine.run([0])
    params = mlflow.MlflowClient(default_uri(tmp_path)).get_run(tracker.run_id).data.params
    in_weights = facts_of(path)["options"]
    assert {name: params[name] for name in in_weights} == {name: str(value) for name, value in in_weights.items()}
    assert (params["facts.steps"], params["facts.fold"], params["output_dir"]) == ("120", "1", str(tmp_path / "out"))


def test_of_weights_that_do_not_say_their_options_no_default_is_shown():
    settings = {"learning_rate": 5e-5, "image_size": 64, "output_dir": "out"}
    assert scored_parameters(settings, {"image_size": 64, "steps": 9}) == {"output_dir": "out", "image_size": 64}


def test_a_training_and_its_evaluation_are_named_alike_and_other_settings_otherwise():
    def named(stage, **options):
        facts = {"stage": "train", "encoder": "resnet18", "manifest_sha256": "a1", "options": SMOKE | options}
        facts["options"]["encoder"] = "resnet18"  # named once
        return run_name(stage, facts).split(" ", 1)

    (_, training), (_, evaluation), (_, other) = named("train"), named("evaluate"), named("train", learning_rate=0.1)
    assert training == evaluation
    assert training.startswith("resnet18 smoke ")
    assert other.startswith("resnet18 smoke learning_rate=0.1 ")
    assert training[-6:] != other[-6:]


def test_a_score_on_another_data_set_is_named_by_it():
    other = Manifest(name="clinic", roots={}, folds=5, seed=0, photographs=(), sha256="b2")
    assert " on clinic " in run_name("evaluate", {"encoder": "vgg16", "manifest_sha256": "a1"}, other)
    assert " on clinic " not in run_name("evaluate", {"encoder": "vgg16", "manifest_sha256": "b2"}, other)


def test_the_files_that_a_manifest_lacks_are_counted_among_the_facts(config):
    told = "{_target_: bundle.manifest.Manifest, name: a, roots: {}, folds: 2, seed: 0, photographs: [], notes: ['%s']}"
    recorded = RECORDED.replace(
        "[model.pt]}", f"[model.pt], manifest: {told % 'left out: 2 rows without a grade (a, b)'}}}"
    )
    workflow = config(recorded, run=["$@handlers", "$@path"])
    workflow.initialize()
    facts = {"fold": 1, "files left out": 2, "files passed over": 0, "files changed": 0}
    assert workflow.run()[0][0].facts == {f"facts.{name}": value for name, value in facts.items()}


def test_without_track_there_is_no_recorder_among_the_handlers(config):
    workflow = config(RECORDED, run=["$@handlers", "$@path"], track=False)
    workflow.initialize()
    assert [type(one) for one in workflow.run()[0]] == [torch.nn.Flatten]


def test_where_nothing_records_its_options_are_unknown(config):
    with pytest.raises(RuntimeError) as error:
        config(tags={"row": "unet"}, track=True).initialize()
    assert "unknown option 'tags'" in str(error.value.__cause__)


@pytest.mark.parametrize(
    "function", [running_workflow, check_options, run_settings, lasting_settings, lambda: tracked("train")]
)
def test_outside_of_a_running_config_there_is_nothing_to_tell(function):
    with pytest.raises(RuntimeError, match=r"expected to be called from a config that monai\.bundle runs"):
        function()
