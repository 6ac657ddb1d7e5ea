"""A name says whose photograph it is, by a pattern that must fit; names of both eyes are recognised."""

import pytest
from bundle.datasets.patients import both_eyes, patients_in_names, pseudonym
from hypothesis import given
from hypothesis import strategies as st


def test_the_first_group_is_the_patient():
    assert patients_in_names(["10_left", "10_right", "11_left"], "(.+)_(left|right)") == {
        "10_left": "10", "10_right": "10", "11_left": "11",
    }  # fmt: skip


def test_a_name_that_does_not_fit_as_a_whole_has_no_patient():
    assert patients_in_names(["7_left", "7_left_2", "x7_left", "_left"], r"(\d*)_left") == {"7_left": "7"}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (".+_(?:left|right)", r"whose first group is the patient, as in .* which has no group"),
        ("((", r"expected --patient_pattern as a regular expression .* got '\(\(': missing \)"),
        (7, r"expected --patient_pattern as a regular expression .* got '7'"),
        (r"(\d+)", r"got '\(\\d\+\)', which matches none of 2: a_left, b_right"),
        ("(x?)._(left|right)", "which matches none of 2"),  # the patient is empty
    ],
)
def test_refuses_a_pattern_that_finds_no_patient(pattern, message):
    with pytest.raises(ValueError, match=message):
        patients_in_names(["a_left", "b_right"], pattern)


def test_a_pseudonym_is_the_same_for_the_same_id_alone():
    assert pseudonym("0") == "5feceb66ffc86f38"  # echo -n 0 | sha256sum
    assert len({pseudonym(str(number)) for number in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["0_left", "0_right", "1_left"], [("0_left", "0_right")]),
        (["P1-OD-2", "P1-OS-2"], [("P1-OD-2", "P1-OS-2")]),
        (["a_L", "a_R", "b_L"], [("a_L", "a_R")]),
        (["3RE", "3LE"], [("3LE", "3RE")]),
        (["Left 4", "Right 4"], [("Left 4", "Right 4")]),
        (["0_left", "1_right"], []),
        (["IDRiD_01", "IDRiD_02"], []),
        (["bill", "birr", "cleft_1", "cright_1"], []),
        (["left", "right"], []),  # one patient, without a name
    ],
)
def test_names_are_paired_that_differ_in_the_side_alone(names, pairs):
    assert [eyes.names for eyes in both_eyes(names)] == pairs


@given(
    st.from_regex(r"[A-Z]?[0-9]{1,3}", fullmatch=True),
    st.sampled_from(["_", "-", " ", ".", ""]),
    st.sampled_from([("left", "right"), ("OD", "OS"), ("L", "R")]),
    st.booleans(),
)
def test_the_suggested_pattern_gives_both_eyes_the_same_patient(patient, between, words, word_first):
    between = between or "_" * word_first  # R7 and L7 may be names without a side
    names = [f"{word}{between}{patient}" if word_first else f"{patient}{between}{word}" for word in words]
    (eyes,) = both_eyes(names)
    assert set(patients_in_names(names, eyes.pattern).values()) == {patient}
