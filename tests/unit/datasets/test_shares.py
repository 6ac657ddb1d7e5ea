"""An epoch of stage 2: every outlined photograph, and as many graded ones as their share asks for."""

import pytest
from bundle.datasets.shares import OutlinedAndGraded

PHOTOGRAPHS = range(26)  # 6 outlined, 20 graded


def epoch(number, share=0.25, **parts):
    sampler = OutlinedAndGraded(PHOTOGRAPHS, num_outlined=6, share=share, seed=3, **parts)
    sampler.set_epoch(number)
    shown = list(sampler)
    assert len(sampler) == len(shown)
    return shown


def test_a_share_of_a_quarter_adds_two_graded_photographs_to_six():
    shown = epoch(1)
    assert sorted(one for one in shown if one < 6) == [0, 1, 2, 3, 4, 5]
    assert len([one for one in shown if one >= 6]) == 2


def test_without_a_share_every_photograph_is_shown_once():
    assert sorted(epoch(1, share=0.0)) == list(PHOTOGRAPHS)


def test_epochs_differ_and_repeat_themselves():
    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2)
    drawn = {one for number in range(100) for one in epoch(number) if one >= 6}
    assert drawn == set(range(6, 26))


def test_a_large_share_shows_all_graded_photographs_before_one_comes_again():
    graded = [one for one in epoch(1, share=0.8) if one >= 6]
    assert len(graded) == 24
    assert set(graded) == set(range(6, 26))


def test_two_processes_part_an_epoch():
    first, second = (epoch(1, share=0.5, num_replicas=2, rank=rank) for rank in range(2))
    assert len(first) == len(second) == 6
    assert sorted(first + second) == sorted(epoch(1, share=0.5))


@pytest.mark.parametrize(
    ("photographs", "share", "message"),
    [
        (PHOTOGRAPHS, 1.0, r"expected a graded_share in \[0, 1\), got 1.0"),
        (range(6), 0.5, "expected graded photographs for a graded_share of 0.5, found none"),
    ],
)
def test_a_share_that_cannot_be_is_refused(photographs, share, message):
    with pytest.raises(ValueError, match=message):
        OutlinedAndGraded(photographs, num_outlined=6, share=share, seed=0)
