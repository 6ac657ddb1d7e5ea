"""A pipeline's stages are laid out before anything runs."""

import threading
from pathlib import Path

import pytest
from bundle.experiments.pipeline import Settings, run_stages, stages, up_to
from filelock import lock_descriptor


def laid_out(**changes):
    fields = {"manifest": Path("m.json"), "output_dir": Path("out"), "architectures": ["a", "b"], "inputs": ["x.jpg"]}
    return stages(Settings(**(fields | changes)))


def names(found):
    return [stage.name for stage in found]


def test_every_stage_follows_those_whose_files_it_needs():
    assert names(laid_out()) == ["pretrain/a", "pretrain/b", "pseudo_label", "train", "evaluate", "inference"]


def test_a_fused_network_is_not_asked_to_tell_lesions_apart():
    assert names(laid_out(experiment="fused"))[-2:] == ["train", "evaluate"]


def test_stages_can_end_early():
    assert names(up_to(laid_out(), "pseudo_label")) == ["pretrain/a", "pretrain/b", "pseudo_label"]
    assert names(up_to(laid_out(), None)) == names(laid_out())


def test_refuses_to_end_at_a_stage_that_is_not_there():
    with pytest.raises(ValueError, match=r"expected --until out of \['pretrain/a', .*\], got 'pretrain'"):
        up_to(laid_out(), "pretrain")


@pytest.fixture
def held(tmp_path):
    """A folder that another run holds, and what that run holds it by."""
    with (tmp_path / ".lock").open("w") as file:
        assert lock_descriptor(file.fileno())
        yield tmp_path, file


def test_refuses_a_folder_in_which_another_run_works(held):
    folder, _ = held
    with pytest.raises(ValueError, match=r"another run still works in .*: wait for it, or stop it"):
        run_stages([], folder)


def test_waits_for_the_other_run_if_it_may(held):
    folder, file = held
    ended = threading.Timer(0.3, file.close)
    ended.start()
    run_stages([], folder, lock_wait_s=30)
    assert not ended.is_alive()
    assert file.closed
