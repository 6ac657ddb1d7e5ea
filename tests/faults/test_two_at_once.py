"""Two runs in one folder at once: one of them is refused with a line, and the other ends undisturbed."""

import shutil
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
REFUSED = ("pretrain", "pseudo_label", "train", "inference")
HARMLESS = ("prepare", "evaluate")
"""Stages that write one small file, whole: the second is let in, and the result is the same."""


@pytest.mark.parametrize("stage", [*REFUSED, *HARMLESS])
def test_two_at_once_end_as_one(world, account, whole, rng, faults, tmp_path, stage):
    row = account[stage, "two at once"]
    _, took_s = world.expected(stage)
    for number in range(-(-faults // 7)):
        out = tmp_path / str(number)
        first = world.start(stage, out)
        time.sleep(rng.uniform(0, took_s / 4))
        second = world.start(stage, out)
        row["injected"] += 1
        codes = sorted((first.wait(), second.wait()))
        if codes != [0, 0]:  # the second may begin when the first has ended
            refused = next(command for command in (first, second) if command.code)
            assert codes[0] == 0
            assert "still works in" in refused.err
            row["noticed"] += 1
        whole(out)
        world.check(stage, out)
        world.finish(stage, out)
        world.check(stage, out)
        row["recovered"] += 1
        shutil.rmtree(out)
