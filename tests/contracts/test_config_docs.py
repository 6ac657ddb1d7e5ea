"""The page of options is that of the configs as they are, and each option is explained."""

import pytest
from bundle import ROOT
from scripts.describe_configs import describe, ids_of

CONFIGS = ROOT / "configs"
STAGES = sorted(CONFIGS.glob("*.yaml"))

PLAIN_NAMES = {
    "bundle_root", "output_dir", "checkpoint", "batch_size", "num_workers", "max_epochs", "learning_rate",
    "label_learning_rate", "seed", "device",
}  # fmt: skip
"""Options whose names explain themselves; they need no comment in a config."""


def test_the_page_of_options_is_not_stale():
    page = (ROOT / "docs" / "configs.md").read_text(encoding="utf-8")
    stale = [line for line in describe(CONFIGS).splitlines() if line not in page.splitlines()]
    if page != describe(CONFIGS):
        pytest.fail(
            f"docs/configs.md is stale (it lacks {len(stale)} lines, such as {stale[:1]}): run "
            "`python -m scripts.describe_configs --out docs/configs.md` and commit it"
        )


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_every_option_has_a_comment_or_a_name_that_explains_itself(path):
    ids = ids_of(path.read_text(encoding="utf-8"))
    bare = {name for name, _, comment in ids if not comment and "#" not in name} - PLAIN_NAMES
    assert not bare, f"write a comment next to {', '.join(sorted(bare))} in {path.name}: what it is, in which unit"


def test_every_plain_name_is_that_of_an_option():
    names = {name for path in STAGES for name, *_ in ids_of(path.read_text(encoding="utf-8"))}
    assert PLAIN_NAMES - names == set()
