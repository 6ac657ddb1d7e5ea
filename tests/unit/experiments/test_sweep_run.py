"""A sweep is one run in MLflow, however often it is started; it ends as its tasks do."""

import pytest
from bundle.experiments.sweep import sweep_run
from bundle.handlers.tracking import EXPERIMENT

mlflow = pytest.importorskip("mlflow")
TAGS = {"suite": "table3", "folds": "1", "seeds": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with its store, which takes seconds to make; each test has a sweep below it."""
    return tmp_path_factory.mktemp("it's a sweep")


@pytest.fixture
def sweep(folder):
    """Open a sweep of the folder, in the store that all tests share."""

    def sweep(name, **tags):
        return sweep_run(folder / name, {**TAGS, **tags}, store(folder))

    return sweep


def store(folder):
    return f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def read(folder, run_id):
    return mlflow.MlflowClient(store(folder)).get_run(run_id)


def test_it_is_open_while_tasks_run_and_finished_after_them(folder, sweep):
    with sweep("whole") as run_id:
        assert read(folder, run_id).info.status == "RUNNING"
    found = read(folder, run_id)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "sweep-table3")
    own = {"stage": "sweep", "sweep": str(folder.resolve() / "whole")}
    assert {**TAGS, **own}.items() <= found.data.tags.items()
    assert {"commit", "command"} <= set(found.data.tags)
    assert mlflow.MlflowClient(store(folder)).get_experiment_by_name(EXPERIMENT) is not None


def test_it_is_failed_when_a_task_is(folder, sweep):
    with pytest.raises(RuntimeError, match="no luck"), sweep("failed") as run_id:
        raise RuntimeError("no luck")
    assert read(folder, run_id).info.status == "FAILED"


def test_started_again_it_is_the_same_run(folder, sweep):
    with pytest.raises(RuntimeError), sweep("again") as first:
        raise RuntimeError
    with sweep("again", folds="3") as second:
        assert read(folder, second).info.status == "RUNNING"
    found = read(folder, first)
    assert (second, found.info.status, found.data.tags["folds"]) == (first, "FINISHED", "3")


def test_another_suite_or_folder_is_another_run(sweep):
    with sweep("one") as one, sweep("two") as two, sweep("one", suite="table1") as three:
        assert len({one, two, three}) == 3
