"""Every run of an engine is one MLflow run: how it ended, its settings, curves and files, and no one else's."""

import json
import math
import socket
from pathlib import Path

import pytest
from bundle.handlers.tracking import EXPERIMENT, RunTracker, check_store, project_folder
from bundle.manifest import Manifest, Photograph
from ignite.engine import Engine, Events

mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of runs with its default store; it takes seconds to make, so all tests share it."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def _no_store_from_outside(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def store(runs):
    return f"sqlite:///{runs.resolve() / 'mlflow.db'}"


def client(runs):
    return mlflow.MlflowClient(store(runs))


def of(runs, output_dir):
    """Return the runs of an output folder, the oldest first."""
    found = client(runs).search_runs(["1"], order_by=["attributes.start_time ASC"])
    return [run for run in found if run.data.tags["output_dir"] == str(Path(output_dir).resolve())]


def run(output_dir, losses=(1.0, 3.0), stage="train", epochs=2, settings=None, validators=None, **options):
    """Train on these losses; an exception among them is raised."""

    def step(engine, loss):
        if isinstance(loss, BaseException):
            raise loss
        engine.state.metrics["both/loss"] = loss * engine.state.epoch
        return loss

    engine = Engine(step)
    for validator in (validators or {}).values():
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine, inner: inner.run([0]) and None, validator)
    tracker = RunTracker(stage, str(output_dir), settings or {}, validators=validators, **options)
    tracker.attach(engine)
    engine.run(list(losses), max_epochs=epochs)
    return tracker


def validator(**metrics):
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: engine.state.metrics.update(metrics))
    return engine


def test_a_run_that_came_to_its_end_is_finished_and_says_what_it_was(runs):
    run(runs / "whole")
    (found,) = of(runs, runs / "whole")
    assert (found.info.status, found.info.run_name) == ("FINISHED", "train-whole")
    assert found.data.tags["stage"] == "train"
    assert found.data.tags["commit"]
    assert client(runs).get_experiment(found.info.experiment_id).name == EXPERIMENT
    assert (runs / "mlflow.db").is_file()


def test_a_run_has_the_tags_that_it_is_given_beside_its_own(runs):
    run(runs / "tagged", tags={"row": "pldmlt", "fold": 0, "mlflow.parentRunId": "abc", "stage": "sweep"})
    tags = of(runs, runs / "tagged")[0].data.tags
    assert [tags[name] for name in ("row", "fold", "mlflow.parentRunId", "stage")] == ["pldmlt", "0", "abc", "train"]


def test_curves_have_one_point_an_epoch_under_split_task_and_metric(runs):
    tracker = run(runs / "curves", validators={"validation": validator(**{"grade/accuracy": 0.25})})
    history = {
        name: {point.step: point.value for point in client(runs).get_metric_history(tracker.run_id, name)}
        for name in of(runs, runs / "curves")[0].data.metrics
    }
    assert history == {"train/both/loss": {1: 3.0, 2: 6.0}, "validation/grade/accuracy": {1: 0.25, 2: 0.25}}


def test_a_metric_that_is_not_computed_in_every_epoch_has_a_point_where_it_was(runs):
    class EverySecondEpoch:
        def attach(self, engine):
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=2), self)

        def __call__(self, engine):
            engine.state.metrics["balance/cosine"] = float(engine.state.epoch)

    engine = Engine(lambda engine, batch: None)
    EverySecondEpoch().attach(engine)
    RunTracker("train", str(runs / "seldom"), {}).attach(engine)
    engine.run([0], max_epochs=5)
    history = client(runs).get_metric_history(of(runs, runs / "seldom")[0].info.run_id, "train/balance/cosine")
    assert sorted((point.step, point.value) for point in history) == [(2, 2.0), (4, 4.0)]


def test_tasks_may_be_measured_on_different_splits(runs):
    run(runs / "splits", epochs=1, split={"both": "fold 0", "grade": "test"})
    assert of(runs, runs / "splits")[0].data.metrics == {"fold 0/both/loss": 3.0}


def test_what_handlers_find_at_the_very_end_is_logged_as_well(runs):
    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.COMPLETED, lambda engine: engine.state.metrics.update({"labels/accuracy": 0.5}))
    RunTracker("pseudo_label", str(runs / "end"), {}, split="stage1").attach(engine)
    engine.run([0])
    assert of(runs, runs / "end")[0].data.metrics == {"stage1/labels/accuracy": 0.5}


def test_only_finite_numbers_are_points(runs):
    metrics = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": "text", "e": None, "f": 1}
    run(runs / "numbers", epochs=1, validators={"test": validator(**metrics)})
    assert set(of(runs, runs / "numbers")[0].data.metrics) == {"train/both/loss", "test/f"}


def test_flat_settings_are_parameters_and_all_of_them_stand_in_the_config(runs):
    settings = {"beta": 0.8, "fold": None, "output": Path("out"), "lesions": ["MA"], "train": {"max_epochs": 2}}
    tracker = run(runs / "settings", settings=settings)
    assert of(runs, runs / "settings")[0].data.params == {
        "beta": "0.8",
        "fold": "None",
        "output": "out",
        "facts.steps": "4",
    }
    path = client(runs).download_artifacts(tracker.run_id, "config.json", str(runs))
    assert json.loads(Path(path).read_text()) == {**settings, "output": "out"}


def test_files_and_folders_are_kept_where_they_exist(runs):
    folder = runs / "files"
    (folder / "panels").mkdir(parents=True)
    (folder / "model.pt").write_bytes(b"weights")
    (folder / "panels" / "a.jpg").write_bytes(b"picture")
    tracker = run(folder, artifacts=["model.pt", "panels", "absent.json"])
    kept = [file.path for file in client(runs).list_artifacts(tracker.run_id)]
    assert sorted(kept) == ["config.json", "model.pt", "panels"]
    assert [file.path for file in client(runs).list_artifacts(tracker.run_id, "panels")] == ["panels/a.jpg"]
    assert (runs / "mlartifacts" / tracker.run_id).is_dir()


TRIVIAL = {
    "lesions/dice_EX": 0.5, "lesions/dice_EX_predicting_nothing": 0.0, "lesions/iou_EX_predicting_nothing": 0.25,
    "grade/accuracy_training_majority": 0.75,
}  # fmt: skip


def test_scores_of_trivial_predictors_are_tags_and_no_metrics(runs):
    run(runs / "trivial", validators={"test": validator(**TRIVIAL)})
    (found,) = of(runs, runs / "trivial")
    assert set(found.data.metrics) == {"train/both/loss", "test/lesions/dice_EX"}
    assert {name: json.loads(text) for name, text in found.data.tags.items() if name.startswith("trivial/")} == {
        "trivial/test/lesions/predicting_nothing": {"dice_EX": 0.0, "iou_EX": 0.25},
        "trivial/test/grade/training_majority": {"accuracy": 0.75},
    }


def test_the_data_set_is_the_input_of_a_run_by_name_digest_and_numbers_alone(runs):
    known = {"sha256": "0" * 64, "perceptual_hash": "0" * 64, "width_px": 6, "height_px": 4}
    rows = [
        Photograph(id=f"clinic/{name}", image=f"clinic/{name}.jpg", group=name, split=split, grade=grade, **known)
        for name, split, grade in (("anna", "train", 2), ("berta", "train", None), ("carla", "test", 0))
    ]
    manifest = Manifest(
        name="clinic", roots={"clinic": runs}, folds=5, seed=0, photographs=tuple(rows), sha256="ab" * 32
    )
    tracker = run(runs / "data", epochs=1, split={"both": "test", "grade": "test"}, manifest=manifest)
    (found,) = client(runs).get_run(tracker.run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("clinic", "ab" * 8)
    assert json.loads(found.dataset.profile) == {"photographs": 3, "outlined": 0, "graded": 2, "test": 1, "folds": 5}
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "test")]
    assert not any(name in str(found.to_dictionary()) for name in ("anna", "carla", str(runs)))


def test_a_run_may_be_named_and_have_other_parameters_than_its_settings(runs):
    tracker = run(runs / "named", name="evaluate vgg16", settings={"lr": 1}, parameters={"lr": 2})
    found = client(runs).get_run(tracker.run_id)
    assert (found.info.run_name, found.data.params["lr"]) == ("evaluate vgg16", "2")
    path = client(runs).download_artifacts(tracker.run_id, "config.json", str(runs / "named"))
    assert json.loads(Path(path).read_text()) == {"lr": 1}


def test_the_store_is_named_when_a_run_has_ended(runs, capsys):
    run(runs / "said")
    assert capsys.readouterr().out == (
        f"MLflow: recorded as 'train-said'; see it with: mlflow ui --backend-store-uri {store(runs)}\n"
    )


def test_all_runs_below_a_folder_outputs_share_its_store(runs):
    assert project_folder(runs / "outputs" / "demo" / "pretrain" / "lite0") == (runs / "outputs").resolve()
    assert project_folder(runs / "elsewhere" / "train") == (runs / "elsewhere").resolve()


def test_a_run_that_raised_is_failed_says_why_and_the_error_goes_on(runs):
    with pytest.raises(RuntimeError, match="`loss` became nan"):
        run(runs / "diverged", losses=[1.0, RuntimeError("`loss` became nan")])
    (found,) = of(runs, runs / "diverged")
    assert found.info.status == "FAILED"
    assert found.data.tags["error"] == "RuntimeError: `loss` became nan"


@pytest.mark.parametrize("name", ["killed", "it's 100% killed"])
def test_an_open_run_of_the_same_folder_and_stage_was_killed(runs, name):
    for folder, stage in ((name, "train"), (name, "evaluate"), (f"{name} too", "train")):
        RunTracker(stage, str(runs / folder), {}).start(Engine(lambda engine, batch: None))
    run(runs / name)
    statuses = [(found.data.tags["stage"], found.info.status) for found in of(runs, runs / name)]
    assert statuses == [("train", "KILLED"), ("evaluate", "RUNNING"), ("train", "FINISHED")]
    assert [found.info.status for found in of(runs, runs / f"{name} too")] == ["RUNNING"]


def test_a_second_run_never_continues_the_first(runs):
    first, second = run(runs / "twice", losses=[1.0]), run(runs / "twice", losses=[5.0], epochs=1)
    assert first.run_id != second.run_id
    assert [found.data.metrics for found in of(runs, runs / "twice")] == [
        {"train/both/loss": 2.0},
        {"train/both/loss": 5.0},
    ]


def test_the_environment_names_the_store(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store(runs))
    run(tmp_path / "out" / "elsewhere", epochs=1)
    assert len(of(runs, tmp_path / "out" / "elsewhere")) == 1
    assert not (tmp_path / "out" / "mlflow.db").exists()


def test_a_store_that_is_asked_for_goes_before_the_environment(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    run(tmp_path / "asked", epochs=1, tracking_uri=store(runs))
    assert len(of(runs, tmp_path / "asked")) == 1
    assert not (tmp_path / "other.db").exists()


def test_the_store_that_a_program_has_chosen_stays_as_it_is(runs):
    before = mlflow.get_tracking_uri(), mlflow.active_run()
    run(runs / "quiet", epochs=1)
    assert (mlflow.get_tracking_uri(), mlflow.active_run()) == before


def test_a_store_that_is_half_made_has_no_final_name(tmp_path, monkeypatch):
    def killed(engine):
        raise KeyboardInterrupt

    monkeypatch.setattr("mlflow.store.db.utils._upgrade_db", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "half")
    assert not (tmp_path / "mlflow.db").exists()
    assert not list(tmp_path.glob(".mlflow.*.db"))


class Lost:
    """A server that is gone between two moments of a run: at an epoch's end, or at the run's."""

    def __init__(self, tracker, monkeypatch, *names):
        self.client, self.names, self.monkeypatch = tracker.client, names, monkeypatch
        for name in names:
            monkeypatch.setattr(self.client, name, self.refuse)

    @staticmethod
    def refuse(*args, **options):
        raise mlflow.MlflowException("the server is gone\nand a long story")

    def return_(self):
        self.monkeypatch.undo()


def trained_while_lost(folder, monkeypatch, returns):
    """Train three epochs; the store is lost after the first, and comes back before the end or not."""
    tracker, lost = RunTracker("train", str(folder), {}), []
    engine = Engine(lambda engine, loss: engine.state.metrics.update({"both/loss": engine.state.epoch}))

    @engine.on(Events.EPOCH_STARTED(once=2))
    def lose():
        lost.append(Lost(tracker, monkeypatch, "log_batch", "log_artifact", "set_terminated", "set_tag"))

    @engine.on(Events.COMPLETED)
    def come_back():
        if returns:
            lost[0].return_()

    tracker.attach(engine)
    engine.run([0], max_epochs=3)
    return tracker


def test_a_store_that_was_lost_for_a_while_has_the_whole_curve_at_the_end(runs, monkeypatch, caplog):
    tracker = trained_while_lost(runs / "lost a while", monkeypatch, returns=True)
    points = client(runs).get_metric_history(tracker.run_id, "train/both/loss")
    assert sorted({(point.step, point.value) for point in points}) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert of(runs, runs / "lost a while")[0].info.status == "FINISHED"
    warnings = [record.message for record in caplog.records if "lost the MLflow store" in record.message]
    assert warnings == [
        "lost the MLflow store, got MlflowException: the server is gone; the run goes on, and its curves are sent at "
        "the end"
    ]


def test_a_store_that_stays_lost_is_an_error_when_all_is_written(runs, monkeypatch):
    with pytest.raises(ConnectionError, match=r"files in .*stays lost are whole, but .* run the same command again"):
        trained_while_lost(runs / "stays lost", monkeypatch, returns=False)


def test_a_store_that_is_not_there_stops_a_run_before_it_begins(tmp_path, monkeypatch):
    for name in ("MAX_RETRIES", "BACKOFF_FACTOR"):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", "0")
    with pytest.raises(
        ValueError, match=r"expected an MLflow store that can be written, got Mlflow.*: .*--track False"
    ):
        run(tmp_path / "out", losses=[RuntimeError("it began")], tracking_uri="http://127.0.0.1:9")


def test_an_error_of_the_run_is_not_hidden_by_a_store_that_is_lost(runs, monkeypatch):
    tracker = RunTracker("train", str(runs / "both"), {})
    engine = Engine(lambda engine, batch: 1 / 0)
    engine.add_event_handler(Events.EPOCH_STARTED, lambda engine: Lost(tracker, monkeypatch, "set_tag") and None)
    tracker.attach(engine)
    with pytest.raises(ZeroDivisionError):
        engine.run([0])


def test_a_server_that_is_not_there_is_missed_before_a_run_begins(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        check_store(address)
    with pytest.raises(ValueError, match=rf"no server answers at {address}: .*refused; start its server"):
        check_store(address)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace("http://", "http://me:secret@"))
    with pytest.raises(ValueError, match=rf"no server answers at {address}: "):
        check_store(None)
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "")
    check_store(None)  # only MLflow can tell


@pytest.mark.parametrize("uri", [None, "sqlite:///a.db", "outputs/mlruns", "file:///a", "databricks"])
def test_other_stores_are_left_to_mlflow(monkeypatch, uri):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    check_store(uri)
