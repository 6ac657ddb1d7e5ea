"""Of `--tracking mlflow` remains one recorder: this bundle's, or MONAI's with what it lacks."""

import copy

import pytest
from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS
from monai.bundle.workflows import ConfigWorkflow

CONFIG = """
imports:
- $import bundle.workflow as workflow
bundle_root: .
output_dir: {output_dir}
track: true
tracking_uri: null
facts: {{track: '@track', uri: '@tracking_uri', output_dir: '@output_dir', lr: '@learning_rate'}}
max_epochs: 1
learning_rate: 0.5
train:
  trainer: {{_target_: torch.nn.Linear, in_features: '@max_epochs', out_features: 2}}
  handlers: [{{_target_: torch.nn.Identity}}]
validate:
  evaluator: {{_target_: torch.nn.Identity}}
  handlers: []
initialize:
- $workflow.check_options()
run:
- $@{runs}.run()
finalize:
- $print(@facts, @train, @validate)
"""
TRAINER, VALIDATOR = "train#handlers", "validate#handlers"


@pytest.fixture
def settled(tmp_path, monkeypatch):
    """Begin a run of one of the two engines with MONAI's --tracking; return it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def begin(runs, tracking="mlflow", **options):
        output_dir = tmp_path / "outputs" / "grader"
        (tmp_path / "config.yaml").write_text(CONFIG.format(runs=runs, output_dir=output_dir))
        workflow = ConfigWorkflow(
            str(tmp_path / "config.yaml"), meta_file=[], logging_file=False, tracking=tracking, **options
        )
        workflow.initialize()
        return workflow

    return begin


def test_where_this_bundle_records_the_handlers_of_monai_are_taken_out(settled):
    parser = settled("train#trainer").parser
    assert parser[TRAINER] == [{"_target_": "torch.nn.Identity"}]
    assert parser[VALIDATOR] == []


def test_where_monai_records_only_the_engine_that_runs_ends_the_run(settled):
    training = settled("train#trainer", track=False).parser
    assert [training[name][-1]["close_on_complete"] for name in (TRAINER, VALIDATOR)] == [True, False]
    evaluation = settled("validate#evaluator", track=False).parser
    assert [evaluation[name][-1]["close_on_complete"] for name in (TRAINER, VALIDATOR)] == [False, True]


def test_its_run_has_a_name_that_no_other_has_a_store_the_options_and_the_config(settled, tmp_path):
    first, second = (settled("validate#evaluator", track=False).parser for _ in range(2))
    names = [parser.get_parsed_content("run_name") for parser in (first, second)]
    assert names[0] != names[1]
    assert all(name.startswith("grader-") for name in names)
    handler = first[VALIDATOR][-1]
    assert handler["tracking_uri"] == f"sqlite:///{tmp_path.resolve() / 'outputs' / 'mlflow.db'}"
    assert handler["experiment_param"] == "$workflow.lasting_settings()"
    (saved,) = (tmp_path / "outputs" / "grader").glob("config_*.json")
    assert handler["artifacts"] == str(saved)


def test_what_a_user_chooses_stays(settled):
    parser = settled(
        "train#trainer", track=False, run_name="mine", tracking_uri="http://here", save_execute_config=False
    ).parser
    handler = parser[TRAINER][-1]
    assert parser["run_name"] == "mine"
    assert (handler["tracking_uri"], handler["artifacts"]) == ("http://here", None)


def test_handlers_of_a_users_own_tracking_settings_stay_as_they_are(settled):
    own = {"handlers_id": DEFAULT_MLFLOW_SETTINGS["handlers_id"], "configs": {"trainer": {"_target_": "MLFlowHandler"}}}
    assert settled("train#trainer", tracking=own).parser[TRAINER][-1] == {"_target_": "MLFlowHandler"}


def test_a_run_may_go_on_with_or_without_tracking(settled):
    """A resumed run is compared by these settings."""
    run = ["$workflow.lasting_settings()"]
    without, with_it = (settled("train#trainer", tracking=tracking, run=run) for tracking in (None, "mlflow"))
    assert without.run()[0]["learning_rate"] == 0.5
    assert without.run() == with_it.run()


def test_the_settings_of_monai_stay_as_they_were(settled):
    before = copy.deepcopy(DEFAULT_MLFLOW_SETTINGS)
    settled("train#trainer", track=False)
    assert before == DEFAULT_MLFLOW_SETTINGS
