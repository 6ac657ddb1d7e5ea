"""A stage whose disk is full reports it, leaves no incomplete file, and has the same result once there is room."""

import shutil
import subprocess

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
STAGES = ("prepare", "pretrain", "pseudo_label", "train", "evaluate", "inference")


@pytest.fixture
def disk(tmp_path):
    """A disk of a few kilobytes or megabytes, where mounting is allowed; its size can be set at any time."""
    mounted = []

    def resize(size_bytes):
        options = f"{'remount,' if mounted else ''}size={size_bytes}"
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)]
        done = subprocess.run(words, capture_output=True, check=False)
        mounted.append(done.returncode == 0)
        return tmp_path if mounted[-1] else None

    yield resize
    if any(mounted):
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_loses_nothing(world, account, whole, rng, faults, disk, stage):
    row = account[stage, "disk full"]
    expected, _ = world.expected(stage)
    used = sum(path.stat().st_size for path in world.results(stage, expected).values())
    if disk(4096) is None:
        pytest.skip("a file system cannot be mounted here: see the limit on files instead")
    for _ in range(-(-faults // 4)):
        out = disk(int(rng.uniform(4096, 0.9 * used))) / "out"
        command = world.start(stage, out)
        assert command.wait() > 0
        assert "No space left" in command.err or "cannot keep" in command.err or "file write" in command.err
        row["injected"] += 1
        row["noticed"] += 1
        whole(out)
        disk(2_000_000_000)
        world.finish(stage, out)
        world.check(stage, out)
        row["recovered"] += 1
        shutil.rmtree(out)


@pytest.mark.parametrize("stage", STAGES)
def test_a_limit_on_the_size_of_files_loses_nothing(world, account, whole, rng, faults, tmp_path, stage):
    row = account[stage, "file too large"]
    expected, _ = world.expected(stage)
    largest = max(path.stat().st_size for path in world.results(stage, expected).values())
    for number in range(-(-faults // 4)):
        out = tmp_path / str(number)
        # The output on the screen is a file as well; a limit above some kilobytes hits only results.
        command = world.start(stage, out, file_size_max=int(rng.uniform(0.3, 0.95) * largest))
        assert command.wait() > 0
        row["injected"] += 1
        row["noticed"] += 1
        whole(out)
        world.finish(stage, out)
        world.check(stage, out)
        row["recovered"] += 1
        shutil.rmtree(out)
