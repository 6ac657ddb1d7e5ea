"""A refusal of this bundle is one sentence at the end; a mistake of the program keeps its traceback."""

import sys
import types

import pytest
from bundle import refusals
from bundle.files import load_json
from bundle.refusals import refusal, say_refusals_alone
from bundle.transforms.lesion_decision import check_thresholds
from monai.bundle.config_parser import ConfigParser
from torch.utils.data import DataLoader

SENTENCE = "expected lesion thresholds in (0, 1], one for each of 1 classes, got [2]; give these, or null for the most "


def raised(action, *arguments):
    """Return what an action raises."""
    with pytest.raises(Exception) as error:  # noqa: PT011  (any)
        action(*arguments)
    return error.value


def of_config(expression):
    config = {"imports": ["$import bundle.transforms.lesion_decision as d", "$import bundle.files as files"]}
    return raised(ConfigParser({**config, "part": {"value": expression}, "all": "$@part"}).get_parsed_content, "all")


def test_a_refusal_while_the_config_is_resolved_is_its_sentence():
    error = of_config("$d.check_thresholds([2], 1)")
    assert isinstance(error, RuntimeError)
    assert refusal(error).startswith(SENTENCE)
    assert refusal(error) == refusal(raised(check_thresholds, [2], 1))


@pytest.mark.parametrize(
    "expression",
    [
        "$int('a')",  # another program's ValueError
        "$d.check_thresholds(1, 1)",  # TypeError in this package
        "$files.file_sha256('a' + chr(0))",  # ValueError of a function that this package calls
        "$d.nothing()",
        "$torch.device('gpu')",
    ],
)
def test_a_mistake_of_the_program_is_no_refusal(expression):
    assert refusal(of_config(expression)) is None


def test_the_outermost_refusal_is_said_and_in_one_line():
    def read(path):
        try:
            load_json(path)
        except ValueError as error:
            raise RuntimeError("of MONAI") from error

    assert refusal(raised(read, "/dev/null")) == (
        "expected JSON in /dev/null, got a file that does not parse: Expecting value: line 1 column 1 (char 0)"
    )


class Refusing:
    """One item, which cannot be loaded."""

    def __init__(self, threshold):
        self.threshold = threshold

    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            check_thresholds(self.threshold, 1)
        except ValueError as error:
            raise RuntimeError("applying a transform") from error


def test_a_refusal_of_a_loader_process_is_its_sentence():
    assert refusal(raised(list, DataLoader(Refusing([2]), num_workers=1))).startswith(SENTENCE)
    assert refusal(raised(list, DataLoader(Refusing(2), num_workers=1))) is None


@pytest.fixture
def command(monkeypatch):
    """As in ``python -m monai.bundle``."""
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", types.SimpleNamespace(name="monai.bundle.__main__"))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.delenv(refusals.TRACEBACK, raising=False)


def said(error, capsys):
    sys.excepthook(type(error), error, error.__traceback__)
    return capsys.readouterr().err


def test_the_command_says_the_sentence_alone(command, capsys):
    say_refusals_alone()
    text = said(of_config("$d.check_thresholds([2], 1)"), capsys)
    assert text.startswith(f"error: {SENTENCE}")
    assert text.count("\n") == 1


def test_the_command_shows_the_traceback_of_a_mistake(command, capsys):
    say_refusals_alone()
    text = said(of_config("$d.nothing()"), capsys)
    assert text.startswith("Traceback")
    assert "has no attribute 'nothing'" in text


def test_the_traceback_comes_on_request(command, capsys, monkeypatch):
    monkeypatch.setenv(refusals.TRACEBACK, "1")
    say_refusals_alone()
    assert said(of_config("$d.check_thresholds([2], 1)"), capsys).startswith("Traceback")


def test_another_program_is_left_alone():
    before = sys.excepthook
    say_refusals_alone()
    assert sys.excepthook is before
