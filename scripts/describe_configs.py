"""Write the page that lists every option of every config.

python -m scripts.describe_configs --out docs/configs.md
"""

from collections.abc import Iterator
from pathlib import Path

import yaml
from bundle import ROOT
from bundle.files import write_text_whole
from scripts.cli import main

INTRODUCTION = """# Every option of every config

Made by `python -m scripts.describe_configs --out docs/configs.md`; a test fails when it is stale. Set an option on the
command line, `--max_epochs 3`, or in an overlay; `--thresholds#lift_min 0.5` sets an argument of a part, listed here if
it has a comment. `--fold '$None'` sets `None`. `$` computes, `@` stands for another id. A misspelt option is refused.
"""


def describe_configs(out: str = "docs/configs.md") -> None:
    """Describe the configs of this bundle in one page.

    Args:
        out: the page to write.
    """
    write_text_whole(out, describe(ROOT / "configs"))
    print(f"wrote {out}")


def describe(configs: Path) -> str:
    """Return the page of all configs below a folder: the options of each stage, then what the overlays set."""
    page, overlays = INTRODUCTION, "\n## Overlays\n\n"
    for path in sorted(configs.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        first_line = text.partition("\n")[0].lstrip("# ")
        if path.parent == configs:
            ids = (f"- `{name}: {default}` {comment}".rstrip() + "\n" for name, default, comment in ids_of(text))
            page += f"\n## {path.name}\n\n{first_line}\n\n{''.join(ids)}"
        else:
            keys = ", ".join(f"`{key}`" for key in yaml.safe_load(text))
            overlays += f"- `{path.relative_to(configs).as_posix()}` sets {keys}: {first_line}\n"
    return page + overlays


def ids_of(text: str, part: yaml.MappingNode | None = None, above: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield name, default and comment of each id in a config's section of options, and of each with a comment."""
    end = f"{text}\n# ----".find("\n# ----", text.find("# ---- options") + 1)  # without headings: all of the text
    for key, value in (part or yaml.compose(text)).value:
        name, default = above + key.value.replace("::", "#"), text[value.start_mark.index : value.end_mark.index]
        comment = text[value.end_mark.index :].partition("\n")[0].lstrip(" #")
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from ids_of(text, value, f"{name}#")
        elif (comment or (not above and key.start_mark.index < end)) and not default.startswith("- "):
            yield name, " ".join(default.split()), comment


if __name__ == "__main__":
    main(describe_configs)
