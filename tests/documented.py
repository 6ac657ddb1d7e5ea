"""The commands that the documentation says to type. Nothing but Python is needed: a first hour begins without more."""

import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "models/README.md", "docs/results/README.md")),
    *sorted(path for path in (ROOT / "docs").glob("*.md") if path.stem != "extending"),
]  # fmt: skip
"""All but docs/extending.md, whose commands need its files: tests/integration/test_worked_examples.py runs each."""

BEGINNING = re.compile(r"(python -[mc]|fundus|make|torchrun|mlflow|pip|hf|cp|\.|\.venv/bin/[\w-]+) +\S")
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """One command of a page; a part of one where it stands in a sentence or ends in dots."""

    page: str
    text: str
    is_whole: bool

    @property
    def words(self):
        return [word for word in shlex.split(self.text, comments=True) if word != "..."]

    def __str__(self):
        return f"{self.page}: {self.text[:70]}"


def commands_of(page, text):
    """Find commands at the beginning of the lines of code blocks, fenced or indented, and in code within sentences."""
    prose = FENCED.sub("", text)
    blocks = "".join(FENCED.findall(text)).replace("\\\n", " ").splitlines() + INDENTED.findall(prose)
    lines = [(line, "..." not in line) for line in blocks]
    spans = [(" ".join(span.split()), False) for span in re.findall(r"`([^`]+)`", prose)]
    return [Command(page, line, whole) for line, whole in lines + spans if BEGINNING.match(line)]


def commands(pages):
    """Find the commands of pages, each once a page."""
    found = [one for page in pages for one in commands_of(page.relative_to(ROOT).as_posix(), page.read_text("utf-8"))]
    return list({(one.page, one.text): one for one in found}.values())


def options_of(words):
    """Map option to value; an option without a value is true."""
    found = {}
    for word, following in zip(words, [*words[1:], "--"], strict=False):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = value if equals else "true" if following.startswith("--") else following
    return found


def listed(value):
    """Return the entries of a list as it is typed: ``['a','b']``, ``a,b``, or one."""
    return [str(one) for one in ast.literal_eval(value)] if value.startswith("[") else value.split(",")


def with_overlay(words, experiment):
    """Put an experiment's overlay of a stage on top of its configs; all other words stay as they are written."""
    at = words.index("--config_file") + 1
    files = listed(words[at])
    return [*words[:at], str([*files, f"configs/experiments/{experiment}/{Path(files[0]).name}"]), *words[at + 1 :]]
