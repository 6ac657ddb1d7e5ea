"""The page of options is that of the configs as they are, and each option is explained."""

import pytest
from bundle import ROOT
from scripts.describe_configs import describe, ids_of

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
def test_every_option_has_a_comment(path):
    ids = ids_of(path.read_text(encoding="utf-8"))
    bare = {name for name, _, comment in ids if not comment and "#" not in name}
    assert not bare, f"write a comment next to {', '.join(sorted(bare))} in {path.name}: what it is, in which unit"
