"""Page of all options: the ids of the configs with their values and comments, as reference tables."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from bundle.reporting.tables import markdown_table

STAGES = ("pretrain", "pseudo_label", "train", "evaluate", "calibrate", "evaluate_grader", "inference")
"""Configs in the order of the method; others follow alphabetically."""

STEPS = ("imports", "initialize", "run", "finalize")
"""Ids that MONAI runs: steps, not options."""

PLAIN_NAMES: Mapping[str, str] = {
    "bundle_root": "folder of this bundle",
    "output_dir": "folder of the run",
    "checkpoint": "the weights file",
    "batch_size": "photographs in a batch",
    "num_workers": "processes that load photographs; 0: none",
    "max_epochs": "passes over the training photographs",
    "learning_rate": "of the optimiser",
    "label_learning_rate": "of the label update network's optimiser",
    "seed": "of everything that is drawn at random",
    "device": "where networks run",
    "dataset_dir": "MONAI's tools read it; nothing here depends on it",
}
"""Meanings of options with self-explanatory names; they need no comment in a config. The page shows these texts."""

PAGE = """\
# Every option of every config

Made by `python -m scripts.describe_configs --out docs/configs.md`; a test fails when it is stale.

An option is set on the command line, `--max_epochs 3`, or in an overlay; an option inside a part is written with `#`,
`--thresholds#lift_min 0.5`. `None` is typed as `--fold '$None'`. What begins with `$` is computed, `@` stands for
another id. A misspelt option is refused. Left out here are `imports`, `initialize`, `run` and `finalize`, which say
what happens, and the arguments of parts that have no comment.
"""


@dataclass(frozen=True, slots=True)
class Id:
    """One id of a config.

    Attributes:
        name: as on the command line, with ``#`` between levels.
        value: its default, or the class that makes it.
        comment: the comment next to it in the config, or empty.
        is_option: whether it is meant to be set: it is flat, and is among the options or has a plain value.
    """

    name: str
    value: str
    comment: str
    is_option: bool

    @property
    def meaning(self) -> str:
        """The text on the page: the comment, or else the entry in ``PLAIN_NAMES``."""
        return self.comment or PLAIN_NAMES.get(self.name, "")


def ids_of(text: str) -> list[Id]:
    """Find the ids of a config, options first, each kind in the order of the file.

    Example:
        >>> ids_of("fold: 0  # held out")
        [Id(name='fold', value='0', comment='held out', is_option=True)]
    """
    lines = text.splitlines()
    options = _option_lines(lines)
    found = [
        one
        for key, value in _pairs(yaml.compose(text))
        if key.value.lstrip("+") not in STEPS
        for one in _ids(key.value.replace("::", "#"), key, value, lines, key.start_mark.line in options)
    ]
    return sorted(found, key=lambda one: not one.is_option)


def unexplained(text: str) -> list[str]:
    """Name the options of a config that have neither a comment nor an entry in ``PLAIN_NAMES``."""
    return [one.name for one in ids_of(text) if one.is_option and not one.meaning and "#" not in one.name]


def describe(configs: Path) -> str:
    """Return the page of all configs below a folder."""
    places = {name: place for place, name in enumerate(STAGES)}
    stages = sorted(configs.glob("*.yaml"), key=lambda path: (places.get(path.stem, len(places)), path.stem))
    overlays = sorted(path for path in configs.rglob("*.yaml") if path.parent != configs)
    folders = sorted({path.parent.parent for path in overlays})
    parts = [PAGE, *map(_stage, stages)]
    parts += [_overlays(folder, [path for path in overlays if path.parent.parent == folder]) for folder in folders]
    return "\n".join(parts)


def _stage(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    sentence, command = _opening(text)
    rows = [(f"`{one.name}`", _code(one.value), one.meaning) for one in ids_of(text)]
    shown = f"\n```\n{command}\n```\n" if command else ""
    table = markdown_table(("id", "default, or what makes it", "meaning"), rows, of_words=True)
    return f"## {path.name}\n\n{sentence}\n{shown}\n{table}\n"


def _overlays(folder: Path, paths: Iterable[Path]) -> str:
    rows = [
        (f"`{path.parent.name}`", f"`{path.stem}`", _opening(path.read_text(encoding="utf-8"))[0]) for path in paths
    ]
    return f"## {folder.name}/\n\n{markdown_table(('overlay', 'of the stage', 'first line'), rows, of_words=True)}\n"


def _opening(text: str) -> tuple[str, str]:
    """Return the first line of a file without its ``#``, and the command that follows it, joined into one line."""
    first, *rest = text.splitlines()
    lines = []
    for line in rest:
        if not line.startswith("#   "):
            break
        lines.append(line.lstrip("# ").removesuffix("\\").strip())
    return first.lstrip("# "), " ".join(lines)


def _code(value: str) -> str:
    return f"`{value}`" if value else ""


def _option_lines(lines: list[str]) -> range:
    """Return the line numbers below the options heading; in a file without headings, those before the first part."""
    headings = [number for number, line in enumerate(lines) if line.startswith("# ----")]
    if not headings:
        parts = (number for number, line in enumerate(lines) if re.fullmatch(r"[\w]+:\s*(#.*)?", line))
        return range(next((number for number in parts if not lines[number].startswith(STEPS)), len(lines)))
    start = next((number for number in headings if lines[number].startswith("# ---- options")), len(lines))
    return range(start, next((number for number in headings if number > start), len(lines)))


def _ids(name: str, key: yaml.ScalarNode, value: yaml.Node, lines: list[str], among_options: bool) -> Iterator[Id]:
    """Yield an id and the nested ids to list: parts, and arguments with a comment."""
    comment = _comment(key, value, lines)
    if not isinstance(value, yaml.MappingNode):
        flat = _flat(value)
        yield Id(name, flat or _targets(value), comment, bool(flat) and (among_options or _is_plain(flat)))
        return
    target = _targets(value)
    yield Id(name, target, comment, False)
    for inner, below in _pairs(value):
        has_own_place = not target or isinstance(below, yaml.MappingNode) or not _flat(below)
        if not re.fullmatch("_.*_", inner.value) and (has_own_place or _comment(inner, below, lines)):
            for one in _ids(f"{name}#{inner.value}", inner, below, lines, False):
                yield Id(one.name, one.value, one.comment, False)


def _pairs(node: yaml.Node | None) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []


def _comment(key: yaml.ScalarNode, value: yaml.Node, lines: list[str]) -> str:
    """Return the comment on the line where a value ends; for a block, on the line of its key."""
    in_block = isinstance(value, yaml.CollectionNode) and not value.flow_style
    mark = key.end_mark if in_block else value.end_mark
    behind = re.match(r":?\s*#\s*(.*)", lines[mark.line][mark.column :])
    return behind[1].strip() if behind else ""


def _flat(node: yaml.Node) -> str:
    """Return the text of a scalar, or of a list of scalars; empty for any other node."""
    if isinstance(node, yaml.ScalarNode):
        return node.value
    if isinstance(node, yaml.SequenceNode) and all(isinstance(one, yaml.ScalarNode) for one in node.value):
        return f"[{', '.join(one.value for one in node.value)}]"
    return ""


def _is_plain(text: str) -> bool:
    return not text.startswith(("$", "@", "["))


def _targets(node: yaml.Node) -> str:
    """Name the class that makes a part, or the classes of a list of parts."""
    if isinstance(node, yaml.SequenceNode):
        return ", ".join(filter(None, map(_targets, node.value)))
    pairs = {key.value: value.value for key, value in _pairs(node)}
    return str(pairs.get("_target_", "")) or (_flat(node) if isinstance(node, yaml.ScalarNode) else "")
