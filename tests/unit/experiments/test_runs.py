"""Which runs of a store count: the newest finished evaluation of each row, fold and seed, with its training."""

import pytest
from bundle.experiments.runs import Repeat, read_runs, store_uri
from bundle.handlers.tracking import find_experiment

mlflow = pytest.importorskip("mlflow")
ROWS = {row: {"table1"} for row in ["plain", "both"]}
SHA = {"facts.manifest_sha256": "aa"}


class Store:
    """Write runs as a sweep does, each a second after the one before."""

    def __init__(self, folder):
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.client = mlflow.MlflowClient(self.uri)
        self.experiment = find_experiment(self.client)
        self.now_ms = 0

    def write(self, stage, row=None, fold=0, metrics=None, params=SHA, status="FINISHED", suite="table1", **tags):
        self.now_ms += 1000
        tags = {"stage": stage, "suite": suite, "commit": f"of {stage}", **tags}
        tags |= {"row": row, "fold": str(fold), "seed": "7"} if row else {}
        made = self.client.create_run(self.experiment, start_time=self.now_ms, tags=tags).info.run_id
        params = [mlflow.entities.Param(name, value) for name, value in params.items()]
        points = [mlflow.entities.Metric(name, value, 0, 0) for name, value in (metrics or {}).items()]
        self.client.log_batch(made, metrics=points, params=params)
        if status != "RUNNING":
            self.client.set_terminated(made, status=status, end_time=self.now_ms + 500)
        return made


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    parent = {"mlflow.parentRunId": store.write("sweep", command="sweep --now", folds="2", params={})}
    store.write("sweep", command="of nothing that counts", params={})
    training = {"image_size": "64", "pretrained": "True", **SHA}
    store.write("train", "plain", params=training | {"image_size": "32"}, **parent)
    store.write(
        "train", "plain", params=training, metrics={"train/labels/accuracy": 0.5, "train/both/loss": 1}, **parent
    )
    store.write("evaluate", "plain", metrics={"test/lesions/dice_mean": 0.1, "test/grade/accuracy": 0.1}, **parent)
    store.write(
        "evaluate", "plain", params=SHA | {"pretrained": "False", "checkpoint": "model.pt"},
        metrics={"test/lesions/dice_mean": 0.2, "fold 0/grade/accuracy": 0.3}, **parent,
    )  # fmt: skip
    store.write("evaluate", "plain", metrics={"test/lesions/dice_mean": 0.7}, external="diaretdb1", **parent)
    store.write("evaluate", "plain", metrics={"test/lesions/dice_mean": 0.9}, status="FAILED", **parent)
    store.write("train", "plain", params=training | {"image_size": "128"}, **parent)  # not evaluated yet
    store.write(
        "evaluate", "plain", fold=1, metrics={"test/lesions/dice_mean": 0.9}, params={"facts.manifest_sha256": "bb"}
    )
    store.write("evaluate", "plain", metrics={"test/lesions/dice_mean": 0.8}, suite="table2")
    store.write("evaluate", "other", metrics={"test/lesions/dice_mean": 0.8}, params={"facts.manifest_sha256": "cc"})
    store.write("evaluate", "both", metrics={"test/lesions/dice_mean": 0.4}, **parent)
    store.write("train", "both", fold=1, status="FAILED", **parent)
    trivial = {"trivial/test/lesions/predicting_nothing": '{"dice_mean": 0.125}'}
    store.write("evaluate", "new", suite="trivial", metrics={"test/lesions/dice_mean": 0.5}, **trivial)
    old = {"test/lesions/dice_mean": 0.5, "test/lesions/dice_mean_predicting_nothing": 0.125}
    store.write("evaluate", "old", suite="trivial", metrics=old)
    return store


@pytest.fixture(scope="module")
def found(store):
    return read_runs(store.uri, "table1", ROWS)


def test_the_newest_finished_evaluation_of_each_row_fold_and_seed_counts(found):
    assert [(run.row, run.repeat) for run in found.runs] == [("plain", Repeat(0, 7)), ("both", Repeat(0, 7))]
    assert [run.scores["lesions/dice_mean"] for run in found.runs] == [0.2, 0.4]


def test_trivial_scores_are_read_from_tags_and_from_the_metrics_of_older_stores(store):
    both = read_runs(store.uri, "trivial", {row: {"trivial"} for row in ("new", "old")}).runs
    assert [run.row for run in both] == ["new", "old"]
    assert [run.scores for run in both] == [
        {"lesions/dice_mean": 0.5, "lesions/dice_mean_predicting_nothing": 0.125}
    ] * 2


def test_each_task_has_the_subset_that_it_was_scored_on(found):
    assert found.runs[0].scores == {
        "lesions/dice_mean": 0.2, "grade/accuracy": 0.3, "external/lesions/dice_mean": 0.7,
    }  # fmt: skip
    assert found.runs[0].subsets == {"lesions": "test", "grade": "fold 0", "external": "diaretdb1, test"}
    assert found.runs[1].subsets == {"lesions": "test"}


def test_settings_and_label_curves_are_of_the_training_before_the_evaluation(found):
    plain, both = found.runs
    assert (plain.settings["image_size"], plain.settings["pretrained"]) == ("64", "True")
    assert (plain.labels, plain.duration_s) == ({"labels/accuracy": 0.5}, 1.0)
    assert (both.labels, both.settings, both.duration_s) == ({}, SHA, 0.5)


def test_evaluations_on_another_manifest_are_left_out_and_counted(found):
    assert {run.manifest_sha256 for run in found.runs} == {"aa"}
    assert found.on_other_manifests == 1


def test_the_sweep_is_the_one_that_the_runs_hang_below(found):
    assert [(tags["command"], tags["folds"]) for tags in found.sweeps] == [("sweep --now", "2")]


def test_an_unfinished_row_says_how_it_ended(found):
    assert found.unfinished == {("both", Repeat(1, 7)): "train failed"}


def test_more_runs_than_a_page_of_the_store_are_all_read(store, found, monkeypatch):
    monkeypatch.setattr("bundle.experiments.runs.PAGE", 2)
    assert read_runs(store.uri, "table1", ROWS) == found


def test_a_store_that_is_not_there_is_refused_and_not_made(tmp_path):
    with pytest.raises(ValueError, match=r"expected an MLflow store at .*none; make it with: python -m scripts.sweep"):
        read_runs(f"sqlite:///{tmp_path / 'mlflow.db'}", "table1", ROWS)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "mlflow.db").write_text("no data base " * 100)
    with pytest.raises(ValueError, match="expected an MLflow store at"):
        read_runs(f"sqlite:///{tmp_path / 'mlflow.db'}", "table1", ROWS)


def test_a_suite_without_finished_runs_says_what_makes_them(store):
    with pytest.raises(
        ValueError, match=r"none among 0 runs of it; make them with: python -m scripts\.sweep --suite beta"
    ):
        read_runs(store.uri, "beta", {row: {"beta"} for row in ROWS})


def test_the_store_is_the_one_asked_for_then_the_environments_then_the_sweeps(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store_uri(None, tmp_path) == f"sqlite:///{tmp_path.resolve() / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    assert store_uri(None, tmp_path) == "http://host"
    assert store_uri("http://asked", tmp_path) == "http://asked"
