"""The page of options is that of the configs as they are, and each option is explained."""

import pytest
from bundle import ROOT
from bundle.reporting.config_tables import PLAIN_NAMES, describe, ids_of, unexplained

CONFIGS = ROOT / "configs"
STAGES = sorted(CONFIGS.glob("*.yaml"))


def test_the_page_of_options_is_not_stale():
    page = (ROOT / "docs" / "configs.md").read_text(encoding="utf-8")
    stale = [line for line in describe(CONFIGS).splitlines() if line not in page.splitlines()]
    if page != describe(CONFIGS):
        pytest.fail(
            f"docs/configs.md is stale (it lacks {len(stale)} lines, such as {stale[:1]}): run "
            "`python -m scripts.describe_configs --out docs/configs.md` and commit it"
        )


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_every_option_has_a_comment_or_a_name_that_says_all(path):
    bare = unexplained(path.read_text(encoding="utf-8"))
    assert not bare, f"write a comment beside {', '.join(bare)} in {path.name}: what it is, in which unit"


def test_no_name_is_said_to_say_all_that_no_config_has():
    names = {one.name for path in STAGES for one in ids_of(path.read_text(encoding="utf-8"))}
    assert set(PLAIN_NAMES) - names == set()
