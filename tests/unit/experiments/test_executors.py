"""Tasks run after those that they need, one's failure is not another's, and nothing is lost to a kill."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from bundle import ROOT
from bundle.experiments.executors import run_local, run_ray
from bundle.experiments.pipeline import Stage, StageFailed
from bundle.experiments.sweep import Task

PRELUDE = """
import os, pathlib, signal, sys, time
here = pathlib.Path(sys.argv[1])
def tell(word):
    with open(here.parent / 'told.txt', 'a') as file:
        file.write(f'{word} {here.name}\\n')
def first_time():
    known = (here / 'tried').exists()
    (here / 'tried').touch()
    return not known
tell('start')
"""
ENDED = """
(here / 'made.txt').write_text('made')
tell('end')
"""


@dataclass(frozen=True, kw_only=True)
class Toy(Stage):
    """A stage that runs a few lines of Python."""

    code: str = ""

    def command(self):
        return [sys.executable, "-S", "-c", PRELUDE + self.code + ENDED, str(self.output_dir)]


def toy(folder, name, code="", needs=()):
    output_dir = Path(folder) / name
    stage = Toy(name="toy", configs=[], options={}, inputs=[], outputs=["made.txt"], output_dir=output_dir, code=code)
    return Task(name=name, stages=[stage], output_dir=output_dir, needs=needs)


def told(folder):
    return (Path(folder) / "told.txt").read_text().splitlines()


def diamond(folder):
    """Return c, which needs a and b, and d, which needs c."""
    needs = {"a": [], "b": [], "c": ["a", "b"], "d": ["c"]}
    return [toy(folder, name, needs=needed) for name, needed in needs.items()]


def check_failure(run, folder):
    """Run a task that fails, one that needs it, one that needs that one, and one of its own."""
    tasks = [
        toy(folder, "broken", "raise RuntimeError('no luck')"),
        toy(folder, "after", needs=["broken"]),
        toy(folder, "long after", needs=["after"]),
        toy(folder, "other"),
    ]
    with pytest.raises(StageFailed) as caught:
        run(tasks)
    first, failed, waiting = str(caught.value).splitlines()
    assert first == "1 of 4 tasks failed"
    assert failed.startswith("  broken: toy: RuntimeError: no luck")
    assert str(folder / "broken") in failed
    assert waiting == "  not run, because they need these: after, long after"
    assert sorted(told(folder)) == ["end other", "start broken", "start other"]
    assert (folder / "other" / "made.txt").is_file()


def test_one_after_the_other_is_the_order_of_the_list(tmp_path):
    run_local(diamond(tmp_path))
    assert told(tmp_path) == [f"{word} {name}" for name in "abcd" for word in ("start", "end")]


def test_what_a_task_needs_has_ended_before_it_starts(tmp_path):
    run_local(diamond(tmp_path), processes=4)
    lines = told(tmp_path)
    assert max(map(lines.index, ("end a", "end b"))) < lines.index("start c")
    assert lines[-4:] == ["start c", "end c", "start d", "end d"]


def test_as_many_run_at_a_time_as_are_asked_for(tmp_path):
    """Each waits for so many starts, and fails without them: two meet, three at a time never do."""
    code = "\nfor _ in range({1}):\n    if (here.parent / 'told.txt').read_text().count('start') == {0}: break\n"
    code += "    time.sleep(0.02)\nelse: raise RuntimeError('alone')"
    run_local([toy(tmp_path / "two", name, code.format(2, 500)) for name in "ab"], processes=2)
    three = [toy(tmp_path / "three", name, code.format(3, 20)) for name in "abc"]
    with pytest.raises(StageFailed, match="2 of 3 tasks failed"):
        run_local(three, processes=2)


def test_a_failure_stops_only_what_needs_it(tmp_path):
    check_failure(run_local, tmp_path)


def test_every_start_and_end_is_told_with_what_remains(tmp_path, capsys):
    run_local(diamond(tmp_path)[:2])
    started_a, done_a, _, done_b = capsys.readouterr().out.splitlines()
    assert started_a == f"a: started, logs in {tmp_path / 'a'}"
    assert re.fullmatch(r"a: done in \d s; 1 remain", done_a)
    assert re.fullmatch(r"b: done in \d s; 0 remain", done_b)


def test_what_is_finished_is_not_run_again(tmp_path, capsys):
    run_local(diamond(tmp_path))
    before = told(tmp_path)
    capsys.readouterr()
    run_local(diamond(tmp_path))
    assert told(tmp_path) == before
    assert capsys.readouterr().out.splitlines() == [
        f"{name}: finished before; {left} remain" for name, left in zip("abcd", (3, 2, 1, 0), strict=True)
    ]


def cut_off(folder):
    """Return a, b, which takes long the first time, and c."""
    slow = "if first_time(): time.sleep(1.5)"
    return [toy(folder, "a"), toy(folder, "b", slow, needs=["a"]), toy(folder, "c", needs=["b"])]


def test_a_killed_sweep_goes_on_where_it_was(tmp_path):
    """The stage at work outlives the kill; it is waited for, so that two never write into one folder."""
    code = (
        f"import importlib.util, pathlib, sys\nspec = importlib.util.spec_from_file_location('toys', {__file__!r})\n"
        "toys = sys.modules['toys'] = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(toys)\n"
        "toys.run_local(toys.cut_off(pathlib.Path(sys.argv[1])))"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.DEVNULL)
    while run.poll() is None and not (tmp_path / "b" / "tried").exists():
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    assert told(tmp_path) == ["start a", "end a", "start b"]
    run_local(cut_off(tmp_path))
    assert told(tmp_path) == [
        "start a", "end a", "start b", "end b", "start b", "end b", "start c", "end c",
    ]  # fmt: skip


def test_refuses_to_run_nothing_at_a_time():
    with pytest.raises(ValueError, match="expected --processes of at least 1, got 0"):
        run_local([], processes=0)


def test_without_ray_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="package ray for --executor ray, found none") as caught:
        run_ray([])
    assert "`pip install 'fundus-dr-multitask[cluster]'`" in str(caught.value)
    assert str(caught.value).endswith("; or use --executor local")


def test_refuses_a_share_below_nothing():
    with pytest.raises(ValueError, match="expected --gpus_per_task of at least 0, got -1"):
        run_ray([], gpus_per_task=-1)


def test_a_machine_that_does_not_answer_is_told_at_once():
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    with pytest.raises(ValueError, match=r"expected a Ray cluster at --ray_address 127\.0\.0\.1:9, could not connect"):
        run_ray([], address="127.0.0.1:9")


@pytest.fixture(scope="module")
def ray():
    """Start a small Ray; its workers get this module's classes by value, for they cannot import it."""
    ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
        object_store_memory=100_000_000,
    )  # fmt: skip
    yield ray
    ray.shutdown()
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_another_cluster_than_the_connected_one_is_refused(ray):
    connected = ray.get_runtime_context().gcs_address
    assert run_ray([], address=connected) == run_ray([], address="auto") == run_ray([])
    with pytest.raises(
        ValueError, match=rf"expected --ray_address {connected}, .* is connected, got ray://{connected}"
    ):
        run_ray([], address=f"ray://{connected}")


def test_ray_runs_what_a_task_needs_before_it(ray, tmp_path):
    run_ray(diamond(tmp_path))
    lines = told(tmp_path)
    assert max(map(lines.index, ("end a", "end b"))) < lines.index("start c")
    assert lines[-4:] == ["start c", "end c", "start d", "end d"]


def test_a_failure_on_ray_stops_only_what_needs_it_and_is_not_tried_again(ray, tmp_path):
    check_failure(run_ray, tmp_path)


def test_a_task_whose_worker_is_lost_is_run_again(ray, tmp_path):
    """The first time, the stage kills the worker that looks after it, and goes on for a while."""
    murder = "if first_time():\n    os.kill(os.getppid(), signal.SIGKILL)\n    time.sleep(1)"
    run_ray([toy(tmp_path, "a", murder), toy(tmp_path, "b", needs=["a"])])
    lines = told(tmp_path)
    assert lines.count("start a") == 2
    assert lines[-4:] == ["start a", "end a", "start b", "end b"]


def test_a_task_that_is_lost_for_good_fails_and_takes_only_its_own_with_it(ray, tmp_path, monkeypatch):
    monkeypatch.setattr("bundle.experiments.executors.MAX_RETRIES", 0)
    always = "os.kill(os.getppid(), signal.SIGKILL)"
    tasks = [toy(tmp_path, "lost", always), toy(tmp_path, "after", needs=["lost"]), toy(tmp_path, "other")]
    with pytest.raises(StageFailed, match=r"1 of 3 tasks failed\n  lost: .*worker died.*") as caught:
        run_ray(tasks)
    assert "not run, because they need these: after" in str(caught.value)
    assert told(tmp_path).count("start lost") == 1
    assert (tmp_path / "other" / "made.txt").is_file()
