"""Photographs of patients are here by licence alone: few, and each attributed."""

from bundle import ROOT

EXAMPLES = ROOT / "docs" / "examples"


def test_there_are_at_most_six_examples_and_the_page_names_each_with_its_licence():
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = sorted(path.stem for path in EXAMPLES.glob("*.jpg"))
    assert 1 <= len(names) <= 6
    assert all(name in page or f"`_{name.rpartition('_')[2]}`" in page for name in names)
    assert "CC BY 4.0" in page
