"""A data set is read by its name, or by the dotted name of a reader that is not among them."""

import pytest
from bundle.datasets.readers import read
from bundle.datasets.readers.raw import Reading


@pytest.fixture
def own_reader(tmp_path, monkeypatch):
    """A module of somebody's own that Python finds."""
    (tmp_path / "our_clinic.py").write_text(
        "from bundle.datasets.readers.raw import Reading\n"
        "def read_clinic(root, *, allow_missing=False, eye=None):\n"
        "    return Reading([], [f'{root} {allow_missing} {eye}'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "our_clinic.read_clinic"


def test_a_reader_is_found_by_its_dotted_name_and_gets_its_options(own_reader):
    assert read(own_reader, "here", allow_missing=True, eye="left", masks=None) == Reading([], ["here True left"])


def test_an_option_that_it_has_not_is_refused(own_reader):
    with pytest.raises(ValueError, match=r"--masks is no option of --dataset our_clinic\.read_clinic, which has"):
        read(own_reader, "here", masks="MA=ma")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("idird", "expected --dataset out of idrid, ddr, diaretdb1, folder, phantom, joined, got 'idird'"),
        ("no_such_clinic.read", "or the dotted name of a function .* got 'no_such_clinic.read': No module named"),
        ("our_clinic.read", "got 'our_clinic.read': module 'our_clinic' has no attribute 'read'"),
    ],
)
def test_an_unknown_name_is_refused(own_reader, dataset, message):
    with pytest.raises(ValueError, match=message):
        read(dataset, "here")
