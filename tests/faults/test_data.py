"""Photographs that vanish or break while a stage runs, and come back: the next run ends as if they had never gone."""

import shutil

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
STAGES = ("prepare", "pretrain", "pseudo_label", "train", "evaluate", "inference")


class Withdrawn:
    """Move the folder of the photographs away, or cut every one of them short; and undo it."""

    def __init__(self, folder, kind):
        self.folder, self.away, self.kind = folder, folder.with_name("away"), kind

    def __call__(self, command):
        self.folder.rename(self.away)
        if self.kind == "truncated":
            shutil.copytree(self.away, self.folder)
            for path in self.folder.rglob("*.jpg"):
                path.write_bytes(path.read_bytes()[:500])

    def undo(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.away.rename(self.folder)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["moved", "truncated"])
def test_withdrawn_photographs_that_come_back_lose_nothing(world, account, whole, rng, faults, tmp_path, stage, kind):
    row, data = account[stage, f"data {kind}"], tmp_path / "data"
    shutil.copytree(world.data, data)
    for number in range(-(-faults // 7)):
        out, withdrawn = tmp_path / str(number), Withdrawn(data / "phantom", kind)
        command = world.harm(stage, out, withdrawn, rng, data=data)
        row["injected"] += 1
        row["noticed"] += command.wait() != 0
        whole(out)
        withdrawn.undo()
        world.finish(stage, out, data=data)
        world.check(stage, out, data=data)
        row["recovered"] += 1
        shutil.rmtree(out)
