"""A pipeline that is killed again and again gets on each time, and ends with the results of an undisturbed one."""

import shutil
import time

import pytest
from bundle import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
RESULTS = (
    "pretrain/resnext50_32x4d/model.pt", "pseudo/pseudo_labels.json", "pseudo/pseudo_labels.csv", "train/model.pt",
    "train/label_network.pt", "train/metrics.json", "inference/predictions.csv",
)  # fmt: skip
OF_PLACES = {"path", "sha256", "pseudo_labels_sha256"}
"""Keys of a result that hold the path of another file, or the hash of a file with such a path."""
NUM_STAGES = 5


@pytest.fixture
def start(world):
    def start(out):
        words = (
            "scripts.pipeline", "--manifest", world.data / "manifest.json", "--output_dir", out, "--experiment",
            "smoke", "--architectures", "resnext50_32x4d",
        )  # fmt: skip
        return world.python.start(*words, cwd=ROOT, environment={"OMP_NUM_THREADS": "1"})

    return start


def without_places(value):
    if isinstance(value, dict):
        return {key: without_places(one) for key, one in value.items() if key not in OF_PLACES}
    return [without_places(one) for one in value] if isinstance(value, list) else value


def finish(start, out):
    """Run it to its end; the stage of a pipeline that was killed alone may go on for a moment."""
    deadline = time.monotonic() + 300
    while (command := start(out)).wait() and "still works in" in command.err and time.monotonic() < deadline:
        time.sleep(1)
    assert command.code == 0, command.out + command.err


def test_a_pipeline_that_is_killed_again_and_again_ends_as_an_undisturbed_one(
    start, account, whole, compared, rng, request, tmp_path
):
    kills = request.config.getoption("--faults")
    undisturbed, out, row = tmp_path / "undisturbed", tmp_path / "killed", account["pipeline", "killed"]
    begun = time.monotonic()
    finish(start, undisturbed)
    stage_s = (time.monotonic() - begun) / NUM_STAGES
    while row["injected"] < kills:
        command = start(out)
        time.sleep(rng.uniform(0, 1.5 * stage_s))
        if command.lives():
            command.kill(group=rng.random() < 0.7)  # else its stage goes on alone until it writes to the screen
            row["injected"] += 1
        elif command.wait() == 0:
            compared(out, undisturbed, RESULTS, without_places)
            shutil.rmtree(out)  # the next kills hit a new one
        else:
            assert "still works in" in command.err
        if command.code is None:
            assert command.wait() == -9
        whole(out)
    finish(start, out)
    compared(out, undisturbed, RESULTS, without_places)
    row["recovered"] = row["injected"]
