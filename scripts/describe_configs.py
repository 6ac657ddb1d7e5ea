"""Write the page that lists every option of every config.

python -m scripts.describe_configs --out docs/configs.md
"""

from bundle import ROOT
from bundle.files import write_text_whole
from bundle.reporting.config_tables import describe
from scripts.cli import main


def describe_configs(out: str = "docs/configs.md") -> None:
    """Describe the configs of this bundle in one page.

    Args:
        out: the page to write.
    """
    write_text_whole(out, describe(ROOT / "configs"))
    print(f"wrote {out}")


if __name__ == "__main__":
    main(describe_configs)
