"""Write the page that lists every option of every config.

python -m scripts.describe_configs --out docs/configs.md
"""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from bundle import ROOT
from bundle.files import write_text_whole
from scripts.cli import main

INTRODUCTION = """# Every option of every config

Made by `python -m scripts.describe_configs --out docs/configs.md`. Type `. .venv/bin/activate` once in each shell,
before its commands. Options go on the command line, `--max_epochs 3`, or in an overlay; `--thresholds#lift_min 0.5`
sets an argument of a part. What begins with `$` is computed, `@` is another id, and a misspelt id is refused.

Yes is `true`, `yes`, `on` or `1`, no is `false`, `no`, `off` or `0`, and null is `None` or `null`. A path is taken as
it is typed, `2024` and `photos#1` too; put `./` before a name that begins with `$`, `@` or `%`, or is `None`. A list
is in quotes: `--input "['a.jpg', 'b.jpg']"`. Anything else is refused in one sentence; `bundle/options.py` says what
each option takes.
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
    page, overlays = INTRODUCTION, ""
    for path in sorted(configs.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        opening = re.findall(r"\A(?:#.*\n)*", text)[0].replace("#   ", "")  # sentences stay comments, commands do not
        if path.parent == configs:
            ids = [f"- `{name}: {default}` {comment}".rstrip() for name, default, comment in ids_of(text)]
            page += "\n".join([f"\n## {path.name}\n\n```sh\n{opening}```\n", *ids, ""])
        else:
            overlays += f"- `{path.relative_to(configs)}` sets `{', '.join(yaml.safe_load(text))}`:{opening[1:]}"
    return f"{page}\n## Overlays\n\n" + overlays.replace("\n#", "")


def ids_of(text: str, part: yaml.MappingNode | None = None, above: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield name, default and comment of each id with a comment, of each option, and of each flat id that is plain."""
    end = f"{text}\n# ----".find("\n# ----", text.find("# ---- options") + 1)  # without headings: all of the text
    for key, value in (part or yaml.compose(text)).value:
        name, default = above + key.value.replace("::", "#"), text[value.start_mark.index : value.end_mark.index]
        block = isinstance(value, yaml.CollectionNode) and not value.flow_style
        comment = text[(key if block else value).end_mark.index :].partition("\n")[0].lstrip(" :#")
        if comment or (not (above or block) and (key.start_mark.index < end or re.match("['\"]?[^$@{['\"]", default))):
            yield name, "..." if block else " ".join(default.split()), comment
        yield from ids_of(text, value, f"{name}#") if block and isinstance(value, yaml.MappingNode) else ()


if __name__ == "__main__":
    main(describe_configs)
