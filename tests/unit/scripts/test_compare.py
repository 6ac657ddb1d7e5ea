"""The command writes a page, a CSV file and a picture from a store, or says in one line what is wrong."""

import pytest
from bundle.handlers.tracking import default_uri, find_experiment
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from scripts import compare as script


@pytest.fixture(autouse=True)
def _no_store_from_outside(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def command(run_script):
    """Run ``scripts.compare`` with some arguments; return exit code, stdout and stderr."""
    return lambda *arguments: run_script(script.compare, "/home/me/scripts/compare.py", *arguments)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A finished sweep of two rows of the ablation, on two folds."""
    folder = tmp_path_factory.mktemp("sweep")
    client = MlflowClient(default_uri(folder))
    experiment = find_experiment(client)
    tags = {
        "suite": "table3",
        "stage": "sweep",
        "command": "scripts/sweep.py --suite table3",
        "folds": "2",
        "seeds": "1",
    }
    parent = client.create_run(experiment, tags=tags).info.run_id
    for row, gain in (("segmentation_only", 0.0), ("pldmlt", 0.1)):
        for fold in (0, 1):
            tags = {"suite": "table3", "row": row, "fold": str(fold), "seed": "0", "mlflow.parentRunId": parent}
            made = client.create_run(experiment, tags={**tags, "stage": "evaluate", "commit": "c0ffee"}).info.run_id
            scores = {"lesions/dice_mean": 0.3 + 0.2 * fold + gain, "grade/accuracy": 0.5, "lesions/paper_dice": 0.97}
            metrics = [Metric(f"fold {fold}/{name}", value, 0, 0) for name, value in scores.items()]
            client.log_batch(made, metrics=metrics, params=[Param("facts.manifest_sha256", "ab")])
            client.set_terminated(made)
    return folder


def test_a_sweep_becomes_a_page_a_table_and_a_picture(command, sweep, tmp_path):
    code, printed, _ = command("--suite", "table3", "--sweep", sweep, "--out", tmp_path / "results")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["table3.csv", "table3.md", "table3.png"]
    page = (tmp_path / "results" / "table3.md").read_text()
    assert "- command: `python -m scripts.compare --suite table3 --sweep " in page
    assert str(tmp_path) not in page
    for text in (page, printed):
        (ours,) = [
            line
            for line in text.splitlines()
            if line.startswith("| L_S + 0.8 L_C, label update |") and "+" in line[32:]
        ]
        assert [cell.strip() for cell in ours.split("|")][2:5] == ["2", "+0.100", "+0.100 to +0.100"]
        assert "- L_S + L_C (`fixed_labels`): all" in text
    assert "94.06" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "table9"], "error: expected --suite"),
        (["--suite", "table1", "--sweep", "nowhere"], "error: expected an MLflow store at"),
        ([], "error: expected --suite, got no options"),
    ],
)
def test_what_is_wrong_takes_one_line_and_leaves_nothing(command, tmp_path, arguments, message):
    code, _, err = command(*arguments, "--out", tmp_path / "results") if arguments else command()
    assert code == 2
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_a_suite_that_was_not_swept_names_the_command(command, sweep, tmp_path):
    code, _, err = command("--suite", "gamma", "--sweep", sweep, "--out", tmp_path / "results")
    assert (code, "python -m scripts.sweep --suite gamma" in err) == (2, True)
