"""One clean MLflow run for each run, in a local store and on a server, by this bundle's recorder and by MONAI's."""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from bundle import ROOT
from bundle.handlers.tracking import EXPERIMENT
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import save_weights

mlflow = pytest.importorskip("mlflow")
pytestmark = pytest.mark.timeout(600)

CONFIGS = ROOT / "configs"
SMALL = CONFIGS / "experiments" / "smoke"
HERE = {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
BY_US, BY_MONAI = ("--tracking", "mlflow"), ("--tracking", "mlflow", "--track", "False")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_phantom_manifest):
    """A phantom of 6 outlined and 12 graded photographs to train on, its manifest, and weights that nobody trained."""
    folder = tmp_path_factory.mktemp("stores")
    write_phantom_manifest(folder, num_lesion_train=6, num_lesion_test=2, num_graded_train=12, num_graded_test=2)
    save_weights(folder / "model.pt", MultiTaskUNet(pretrained=False, width=0.0625), {"image_size": 64})
    return folder


def answers(address):
    # Not through a proxy that the environment may name.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(f"{address}/health", timeout=5).status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An MLflow server on this machine alone; return its address."""
    home = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    words = (
        "mlflow", "server", "--backend-store-uri", f"sqlite:///{home}/server.db", "--artifacts-destination",
        f"{home}/artifacts", "--host", "127.0.0.1", "--port", port, "--workers", "1",
    )  # fmt: skip
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, words)], cwd=home, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 180
        while not answers(address):
            assert process.poll() is None, (home / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, f"no server after 180 s: {(home / 'log').read_text()[-3000:]}"
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.fixture(params=["local", "server"])
def store(request, tmp_path, monkeypatch):
    """Return the address of a store, and what a user sets in the environment to record there."""
    for name, value in HERE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if request.param == "local":
        return f"sqlite:///{tmp_path / 'outputs' / 'mlflow.db'}", {}
    return request.getfixturevalue("server"), {"MLFLOW_TRACKING_URI": request.getfixturevalue("server")}


def leave_open(client, experiment):
    """Start a run and end it never, as MONAI's handler does when its engine raises."""
    found = client.get_experiment_by_name(experiment)
    number = found.experiment_id if found else client.create_experiment(experiment)
    return client.create_run(number, run_name="somebody's").info.run_id


@pytest.fixture
def stage(typed, folder, tmp_path):
    """Run a stage as a user would."""

    def run(names, output, environment, *words):
        small = [path for path in [SMALL / f"{names[0]}.yaml"] if path.is_file()]
        files = [str(path) for path in [*(CONFIGS / f"{name}.yaml" for name in names), *small]]
        done = typed(
            "monai.bundle", "run", "--config_file", files, "--output_dir", tmp_path / "outputs" / output, *words,
            cwd=tmp_path, environment=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run


def runs_in(client, *without):
    """Return the runs of a store, the newest first, without these."""
    experiments = [one.experiment_id for one in client.search_experiments()]
    return [run for run in client.search_runs(experiments) if run.info.run_id not in without]


@pytest.mark.parametrize("words", [BY_US, BY_MONAI], ids=["ours", "MONAI's"])
def test_each_run_is_one_clean_run(stage, store, folder, tmp_path, words):
    uri, environment = store
    (tmp_path / "outputs").mkdir()
    experiment = EXPERIMENT if words == BY_US else "monai_experiment"
    client = mlflow.MlflowClient(uri)
    opened = leave_open(client, experiment)
    before = [run.info.run_id for run in runs_in(client)]
    data = ("--manifest", folder / "manifest.json", "--cache_dir", folder / "cache", *words)
    stage(["pretrain"], "grader", environment, *data)
    stage(["pretrain", "evaluate_grader"], "grader", environment, *data)
    runs = runs_in(client, *before)
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    assert len({run.info.run_name for run in runs}) == 2
    assert words == BY_US or all("grader" in run.info.run_name for run in runs)
    assert {run.data.params["architecture"] for run in runs} == {"resnext50_32x4d"}
    kept = [{file.path for file in client.list_artifacts(run.info.run_id)} for run in runs]
    assert all(any(name.startswith("config") for name in names) for names in kept)
    evaluation, training = runs
    assert any("loss" in name for name in training.data.metrics)
    assert any(name.endswith("grade/accuracy") for name in training.data.metrics)
    told = evaluation.data.metrics if words == BY_MONAI else evaluation.data.tags
    assert any("training_majority" in name for name in told)
    assert not any("loss" in name for name in evaluation.data.metrics)
    somebodys = client.get_run(opened)
    assert (somebodys.info.status, somebodys.data.metrics) == ("RUNNING", {})
    assert [path.name for path in tmp_path.rglob("*.db")] == ([] if environment else ["mlflow.db"])


@pytest.mark.parametrize(("words", "experiment"), [(BY_US, EXPERIMENT), (BY_MONAI, "monai_experiment")])
def test_an_inference_is_one_clean_run_as_well(stage, folder, tmp_path, words, experiment, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    photographs = folder / "phantom" / "A. Segmentation" / "1. Original Images" / "b. Testing Set"
    stage(["inference"], "seen", {}, "--input", photographs, "--checkpoint", folder / "model.pt", *words)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'outputs' / 'mlflow.db'}")
    (run,) = runs_in(client)
    assert client.get_experiment(run.info.experiment_id).name == experiment
    assert (run.info.status, run.data.params["image_size"]) == ("FINISHED", "64")
    assert any(file.path.startswith("config") for file in client.list_artifacts(run.info.run_id))
