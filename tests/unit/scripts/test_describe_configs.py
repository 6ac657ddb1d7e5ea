"""The command writes the page of options where it is told to."""

from bundle import ROOT
from bundle.reporting.config_tables import describe
from scripts.describe_configs import describe_configs


def test_the_page_is_that_of_this_bundles_configs(run_script, tmp_path):
    code, printed, _ = run_script(describe_configs, "describe_configs", "--out", tmp_path / "configs.md")
    assert (code, printed) == (0, f"wrote {tmp_path / 'configs.md'}\n")
    assert (tmp_path / "configs.md").read_text(encoding="utf-8") == describe(ROOT / "configs")
    assert "| `virtual_lr` | `null` | size of the virtual step; null: the optimiser's learning rate |" in describe(
        ROOT / "configs"
    )
