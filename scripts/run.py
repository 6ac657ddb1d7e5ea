"""Run configs as `python -m monai.bundle run` does, from any folder, with each mistake in one line.

fundus run --config_file configs/inference.yaml --input DIR_OR_FILE --output_dir outputs/inference
fundus run --config_file configs/train.yaml,configs/evaluate.yaml --manifest idrid.json --output_dir outputs/train
"""

import logging
import os
import re
import runpy
import sys
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import yaml
from bundle import ROOT
from bundle.refusals import TRACEBACK, refusal
from scripts.cli import main, refuse

STRUCTURED = re.compile(r"\.(json|yaml|yml)$", re.IGNORECASE)


def run(config_file: str, **options: str) -> None:
    """Check what MONAI would answer with a traceback, and hand the words over to it. See docs/configs.md.

    Args:
        config_file: configs, separated by commas, each on top of those before it; what is not in this folder is looked
            up in the bundle.
        options: the options of these configs, such as --manifest idrid.json.
    """
    paths = [found(name.strip("'\" ")) for name in config_file.strip("[]").split(",")]
    contents = [read(path) for path in paths]
    if not {"imports", "run"} <= contents[0].keys():
        raise ValueError(
            f"expected a stage first, such as configs/train.yaml, got {paths[0]}, which goes on top of one: "
            f"--config_file configs/train.yaml,{paths[0]}"
        )
    ids = {name for content in contents for name in content}
    for name, word in options.items():
        check_macro(name, word, ids)
    words = [f"--{name}={word}" for name, word in options.items()]
    sys.argv = ["monai.bundle", "run", "--config_file", str([str(path) for path in paths]), *words]


def found(name: str) -> Path:
    """Return the path of a config, of this folder or else of the bundle.

    Raises:
        ValueError: if there is no such file, or it is no config by its name.
    """
    places = [Path(name), ROOT / name]
    there = [place for place in places if place.is_file() and STRUCTURED.search(place.name)]
    if not there:
        stages = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))
        raise ValueError(
            f"expected a config (.yaml or .json) at --config_file, found none at {name!r}, neither here nor in the "
            f"bundle, whose configs/ has {', '.join(stages)}"
        )
    return there[0]


def read(path: Path) -> Mapping[str, object]:
    """Read a config.

    Raises:
        ValueError: if it is not YAML, of which JSON is a part, or no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"expected YAML in {path}, got a file that does not parse: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected a mapping of names to values in {path}, got a {type(content).__name__}")
    return content


def check_macro(name: str, word: str, ids: Collection[str]) -> None:
    """Refuse a value that begins with %, MONAI's mark for a part of a config, if there is no such part.

    Raises:
        ValueError: with the way out for a file of that name.

    Example:
        >>> check_macro("seed", "%batch_size", {"seed", "batch_size"})
        >>> check_macro("input", "%eyes", {"seed"})
        Traceback (most recent call last):
            ...
        ValueError: expected --input as a value, or as % and an option or a config, got '%eyes'; a file or folder of \
that name is ./%eyes
    """
    place = word[1:].replace("#", "::").partition("::")[0]
    is_there = Path(place).is_file() if STRUCTURED.search(place) else place in ids
    if word.startswith("%") and not is_there:
        raise ValueError(
            f"expected --{name} as a value, or as % and an option or a config, got {word!r}; a file or folder of that "
            f"name is ./{word}"
        )


def hand_over() -> None:
    """Become `python -m monai.bundle` with the words in ``sys.argv``; a refusal ends with one line and code 2."""
    warnings.filterwarnings("ignore", "parsing config_file")  # MONAI says of every config that it may run code,
    is_error = lambda record: record.levelno >= logging.ERROR  # noqa: E731
    logging.getLogger("monai.bundle.workflows").addFilter(is_error)  # and of every overlay that it is one
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    except (RuntimeError, ValueError, OSError) as error:
        sentence = refusal(error)
        if sentence is None or os.environ.get(TRACEBACK):
            raise
        refuse(sentence)


if __name__ == "__main__":
    main(run)
    if sys.argv[0] == "monai.bundle":  # not after --help
        hand_over()
