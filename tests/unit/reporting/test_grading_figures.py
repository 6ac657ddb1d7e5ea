"""The pictures of a grader's validation."""

import sys

import numpy as np
import pytest
from bundle.reporting.grading_figures import confusion, write_confusion, write_reliability
from PIL import Image

P = np.array([[0.9, 0.1, 0, 0, 0], [0.3, 0.1, 0.6, 0, 0], [0, 0.1, 0.2, 0.5, 0.2]])
GRADES = np.array([0, 2, 4])


def drawn(write, path, *content):
    write(path, *content)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_the_true_grade_is_the_row_and_the_predicted_grade_the_column():
    expected = np.zeros((5, 5), int)
    expected[0, 0] = expected[2, 2] = expected[4, 3] = 1
    assert (confusion(P, GRADES) == expected).all()
    assert confusion(np.concatenate([P, P]), np.concatenate([GRADES, GRADES])).sum() == 6


def test_each_picture_is_one_whole_file(tmp_path):
    write_confusion(tmp_path / "new" / "confusion.png", P, GRADES)
    write_reliability(tmp_path / "new" / "reliability.png", P, GRADES, 1.5)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["confusion.png", "reliability.png"]
    assert Image.open(tmp_path / "new" / "confusion.png").size == (768, 720)
    assert Image.open(tmp_path / "new" / "reliability.png").size == (1248, 672)


def test_a_confusion_shows_which_grades_were_given(tmp_path):
    one = drawn(write_confusion, tmp_path / "a.png", P, GRADES)
    other = drawn(write_confusion, tmp_path / "b.png", P, np.array([0, 2, 3]))
    assert (one != other).any()


def test_a_reliability_diagram_shows_what_the_temperature_does(tmp_path):
    one = drawn(write_reliability, tmp_path / "a.png", P, GRADES, 1.0)
    other = drawn(write_reliability, tmp_path / "b.png", P, GRADES, 3.0)
    shifted = drawn(write_reliability, tmp_path / "c.png", P, GRADES, 1.0, np.log([4.0, 1, 1, 1, 1]))
    assert (one != shifted).any()
    left, right = np.s_[:, :560], np.s_[:, 700:]
    assert (one[right] != other[right]).any()
    assert (one[left] == other[left]).mean() > 0.99  # "as trained" stays, but for the scale that both halves share


def test_one_photograph_is_enough(tmp_path):
    write_confusion(tmp_path / "confusion.png", P[:1], GRADES[:1])  # kappa is undefined
    write_reliability(tmp_path / "reliability.png", P[:1], GRADES[:1], 10.0)
    assert len(list(tmp_path.iterdir())) == 2


def test_no_state_of_pyplot_is_touched():
    assert "plt" not in vars(sys.modules["bundle.reporting.grading_figures"])


@pytest.mark.parametrize("write", [write_confusion, lambda *given: write_reliability(*given, 1.0)])
def test_logits_are_refused_and_leave_no_file(tmp_path, write):
    with pytest.raises(ValueError, match="apply softmax to logits first"):
        write(tmp_path / "a.png", 5 * P, GRADES)
    assert not list(tmp_path.iterdir())
