"""A stage that was killed at any moment leaves no half of a file, and one more run ends as if nothing had been."""

import shutil

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
STAGES = ("prepare", "pretrain", "pseudo_label", "train", "evaluate", "inference")


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_ends_as_an_undisturbed_one(world, account, whole, rng, faults, tmp_path, stage):
    row = account[stage, "killed"]
    for number in range(faults):
        # MLflow's store takes longer to be made than a stage, so it takes most of the kills where it is there.
        track, out = number % 4 == 3 and stage != "prepare", tmp_path / str(number)
        while world.harm(stage, out, lambda command: command.kill(), rng, track).wait() != -9:
            """It had ended just before: draw again."""
        row["injected"] += 1
        whole(out)
        world.finish(stage, out, track)
        world.check(stage, out, track)
        row["recovered"] += 1
        shutil.rmtree(out)
