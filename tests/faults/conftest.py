"""Six stages on a tiny phantom, what each leaves when nothing disturbs it, and the account of faults and recoveries."""

import collections
import csv
import json
import random
import re
import runpy
import shutil
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle import ROOT
from PIL import Image

SEED = 7
TEST_PHOTOGRAPHS = "phantom/A. Segmentation/1. Original Images/b. Testing Set"
ERROR = re.compile(r"^[\w.]*(?:Error|Exception|error): .*", re.MULTILINE)
NEEDED = {"pseudo_label": "pretrain", "train": "pseudo_label", "evaluate": "train", "inference": "train"}
CLAIMING = ("pretrain", "pseudo_label", "train")
QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0", "OMP_NUM_THREADS": "1"}
"""MLflow asks a server that is gone eight times, for four minutes; here twice."""


def pytest_addoption(parser):
    parser.addoption("--faults", type=int, help="kills of each stage, and a share of it of other faults; 20 for all")
    parser.addoption("--account", help="file for the table of faults and recoveries")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Without ``--faults``, as among all other tests, keep one fault of each kind in the longest stage."""
    if config.getoption("--faults", default=None) is None:
        here = Path(__file__).parent
        ours = [item for item in items if item.path.parent == here]
        dropped = [item for item in ours if "train" not in re.split(r"[\[\]-]", item.name)]
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


@pytest.fixture(scope="session")
def faults(request):
    """How many times a stage is killed; other faults are rarer."""
    return request.config.getoption("--faults", default=None) or 1


@pytest.fixture(scope="session")
def python():
    python = runpy.run_path(str(Path(__file__).with_name("killable_python.py")))["KillablePython"]()
    yield python
    python.close()


@pytest.fixture(scope="session")
def account(request):
    """Rows of stage and fault: how many were injected into a living process, and how many runs recovered."""
    rows = collections.defaultdict(lambda: {"injected": 0, "noticed": 0, "recovered": 0})
    yield rows
    if path := request.config.getoption("--account", default=None):
        old = json.loads(Path(path).read_text()) if Path(path).is_file() else {}
        new = {" / ".join(key): row for key, row in rows.items()}
        Path(path).write_text(json.dumps(old | new, indent=1) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def world(tmp_path_factory, python, write_phantom_manifest):
    """The phantom, its manifest, and the undisturbed result of every stage that was asked for."""
    folder = tmp_path_factory.mktemp("faults")
    write_phantom_manifest(
        folder / "data", num_lesion_train=6, num_lesion_test=3, num_graded_train=9, num_graded_test=3, folds=2
    )
    return World(folder, python)


class World:
    """Runs stages; each undisturbed one is run once, and its time taken."""

    def __init__(self, folder, python):
        self.folder, self.python, self.undisturbed, self.took_s = folder, python, folder / "undisturbed", {}
        self.data = folder / "data"

    def words(self, stage, out, track=False, data=None):
        """Return what a user types for a stage; what it needs of earlier stages is the undisturbed result."""
        data = data or self.data
        if stage == "prepare":
            return ("scripts.prepare", "--dataset", "idrid", "--name", "phantom", "--root", data / "phantom", "--folds",
                    "2", "--out", out / "manifest.json", "--check")  # fmt: skip
        graders, labels = [str(self.undisturbed / "pretrain" / "model.pt")], self.undisturbed / "pseudo_label"
        weights, manifest = self.undisturbed / "train" / "model.pt", ("--manifest", data / "manifest.json")
        own = {
            "pretrain": (*manifest, "--max_epochs", "2"),
            "pseudo_label": (*manifest, "--graders", graders),
            "train": (*manifest, "--pseudo_labels", labels / "pseudo_labels.json"),
            "evaluate": (*manifest, "--pseudo_labels", labels / "pseudo_labels.json", "--checkpoint", weights),
            "inference": ("--input", data / TEST_PHOTOGRAPHS, "--checkpoint", weights),
        }[stage]
        cache = () if stage == "inference" else ("--cache_dir", out / f"cache_{stage}")
        return ("monai.bundle", "run", "--config_file", self.configs(stage), *own, *cache, "--output_dir", out / stage,
                "--track", track)  # fmt: skip

    @staticmethod
    def configs(stage):
        names = ["train", "evaluate"] if stage == "evaluate" else [stage]
        smoke = [f"experiments/smoke/{name}" for name in names]
        files = [ROOT / "configs" / f"{name}.yaml" for name in [*names, *smoke]]
        return str([str(path) for path in files if path.is_file()])

    def start(self, stage, out, track=False, data=None, **options):
        out.mkdir(parents=True, exist_ok=True)
        words = self.words(stage, out, bool(track), data)
        environment = {**QUICK, **options.pop("environment", {})}
        return self.python.start(*words, cwd=ROOT, environment=environment, **options)

    def finish(self, stage, out, track=False, data=None, **options):
        """Run a stage to its end."""
        command = self.start(stage, out, track, data, **options)
        assert command.wait() == 0, "\n".join(ERROR.findall(command.err))
        return command

    def expected(self, stage, track=False):
        """Return the folder that an undisturbed stage leaves, and the seconds that it took."""
        if stage in NEEDED:
            self.expected(NEEDED[stage])
        out = self.folder / "tracked" if track else self.undisturbed
        out = out / "prepare" if stage == "prepare" else out
        if (stage, track) not in self.took_s:
            self.took_s[stage, track] = self.finish(stage, out, track).duration_s
        return out, self.took_s[stage, track]

    def harm(self, stage, out, harm, rng, track=False, data=None, **options):
        """Start a stage, harm it at a random moment, and return the command; draw again where it had ended before."""
        _, took_s = self.expected(stage, track is True)
        while True:
            shutil.rmtree(out, ignore_errors=True)
            command = self.start(stage, out, track, data, **options)
            time.sleep(rng.uniform(0, took_s))
            if command.lives():
                harm(command)
                return command
            command.wait()

    def check(self, stage, out, track=False, data=None):
        """Refuse results that differ from the undisturbed ones, and files that no stage should leave."""
        expected, _ = self.expected(stage, track)
        ours, theirs = (self.results(stage, folder) for folder in (out, expected))
        assert set(ours) == set(theirs), f"{stage}: {sorted(set(ours) ^ set(theirs))}"
        places = {str(out): "OUT", str(expected): "OUT", **({str(data): str(self.data)} if data else {})}
        for name in theirs:
            assert_same(ours[name], theirs[name], places)
        if track and stage != "prepare":
            assert ended_runs(out / "mlflow.db", stage)[-1] == "FINISHED"

    @staticmethod
    def results(stage, out):
        """Return the files of a stage by name: those of its folder and of the cache.

        A stage that claims its folder also removes what a killed run left half written, so all of its files count.
        """
        folders = [out] if stage == "prepare" else [out / stage, out / f"cache_{stage}"]
        found = [path for folder in folders for path in files(folder)]
        return {
            str(path.relative_to(out)): path
            for path in found
            if not path.name.startswith(".") or (stage in CLAIMING and path.is_relative_to(out / stage))
        }


def files(folder):
    """List all files below a folder but those of MLflow."""
    found = (path for path in folder.rglob("*") if path.is_file() and "mlartifacts" not in path.parts)
    return [path for path in found if "mlflow.db" not in path.name]


def ended_runs(store, stage):
    """Return how the runs of a stage ended, the oldest first."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{store}")
    experiment = client.get_experiment_by_name("fundus_dr_multitask")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    return [run.info.status for run in runs if run.data.tags.get("stage") == stage]


def load(path):
    """Load a file whole by its final name's suffix."""
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)
    if path.suffix == ".npz":
        with np.load(path) as stored:
            return {name: stored[name] for name in stored if name != "stamp"}
    if path.suffix in (".png", ".jpg"):
        with Image.open(path) as picture:
            return np.asarray(picture)
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            return list(csv.DictReader(file))
    return path.read_text(encoding="utf-8")


def assert_whole(folder):
    """Load every file that bears a final name; a name that begins with a dot is not final."""
    for path in files(folder):
        if not path.name.startswith("."):
            try:
                load(path)
            except (ValueError, OSError, RuntimeError, zipfile.BadZipFile) as error:
                raise AssertionError(f"{path} bears a final name and is broken") from error


def assert_same(ours, theirs, places):
    assert same(load(ours), load(theirs), places), f"{ours} differs from {theirs}"


def same(ours, theirs, places):
    """Compare to the bit; only places may differ."""
    if isinstance(ours, dict):
        return set(ours) == set(theirs) and all(same(ours[key], theirs[key], places) for key in ours)
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(same(a, b, places) for a, b in zip(ours, theirs, strict=True))
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, np.ndarray):
        return ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    if isinstance(ours, str):
        for place, name in places.items():
            ours, theirs = ours.replace(place, name), theirs.replace(place, name)
    return ours == theirs


@pytest.fixture
def rng(request):
    """Draws of its own for each test, the same at every run."""
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture
def whole():
    return assert_whole


@pytest.fixture
def compared():
    """Compare files of two folders after something was left out of their content."""

    def compared(ours, theirs, names, cleaned):
        for name in names:
            both = (cleaned(load(folder / name)) for folder in (ours, theirs))
            assert same(*both, {str(ours): "OUT", str(theirs): "OUT"}), name

    return compared
