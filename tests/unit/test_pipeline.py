"""A pipeline's stages are laid out before anything runs."""

from pathlib import Path

import pytest

from bundle.pipeline import Settings, stages, up_to


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
