"""What each option of a config takes, and how a word of the command line becomes its value.

``python -m monai.bundle run`` leaves words to Fire and MONAI, which know no types: ``false`` stays a text, and so
counts as true; ``None`` is dropped; a folder ``2024`` becomes a number; ``photos#1`` loses everything from ``#`` on.
So words are read here by the kind of their option, from the command line itself (docs/decisions/0026).
"""

import ast
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from bundle.distributed import local_device
from bundle.refusals import command_line
from monai.bundle.config_parser import ConfigParser

FLAG = re.compile(r"--|-[a-zA-Z]")
"""How a word begins that names an option; Fire's rule."""

EXPRESSION = re.compile(r"\$.*|@\w*(::\w*)*", re.DOTALL)
"""What MONAI evaluates: Python, or the id of another value."""

SPECIAL = re.compile(r"[$@%#]")
YES_NO = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
NULLS = ("None", "null")
PLAIN = {"true": True, "false": False, **dict.fromkeys(NULLS)}
"""Words for an argument of a part, ``--network_def#freeze_batch_norm false``: Fire leaves a text, MONAI drops None."""


class Kind(NamedTuple):
    """Kind of option: what it takes, in words, and a function that reads a word or a value, or raises ValueError."""

    takes: str
    read: Callable[[Any], Any]
    is_path: bool = False


def _read_yes_no(value: object) -> bool:
    if str(value).lower() not in YES_NO:
        raise ValueError(value)
    return YES_NO[str(value).lower()]


def _read_text(value: object) -> str:
    if not isinstance(value, (str, int, float, os.PathLike)) or isinstance(value, bool):
        raise ValueError(value)
    return str(value)


def _read_path(value: object) -> str:
    text = _read_text(value)
    if not text or text in NULLS:
        raise ValueError(value)
    return text


def _read_paths(value: object) -> str | list[str]:
    if isinstance(value, str) and value.startswith("[") and not Path(value).exists():
        value = _read_literal(value)
    return [_read_path(one) for one in value] if isinstance(value, (list, tuple)) else _read_path(value)


def _read_path_or_yes_no(value: object) -> str | bool:
    word = str(value).lower()
    return YES_NO[word] if word in YES_NO else _read_path(value)


def _read_literal(text: str) -> Any:  # noqa: ANN401  (a list or a mapping)
    """Read a list or a mapping as Python writes it, else as YAML does."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(text) from error


def _read_numbers(value: object) -> list[float]:
    listed = _read_literal(value) if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)):
        raise ValueError(value)
    return [_read_number(one) for one in listed]


def _read_mapping(value: object) -> dict:
    found = _read_literal(value) if isinstance(value, str) else value
    if not isinstance(found, dict):
        raise ValueError(value)
    return found


def _read_number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or not math.isfinite(float(value)):
        raise ValueError(value)
    return float(value) if isinstance(value, str) else value


def _read_number_or_each(value: object) -> float | dict[str, float]:
    """Read one number, or a mapping of a number to each lesion."""
    if isinstance(value, dict) or (isinstance(value, str) and value.startswith("{")):
        return {name: _read_number(one) for name, one in _read_mapping(value).items()}
    return _read_number(value)


def _read_whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(value)
    return int(value)


def _read_device(value: object) -> torch.device:
    if not isinstance(value, (str, torch.device)):
        raise ValueError(value)
    try:
        device = torch.device(value)
    except RuntimeError as error:
        raise ValueError(value) from error
    there = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (device.index or 0) >= there.get(device.type, 0):
        raise ValueError(value)
    return local_device() if device == torch.device("cuda") else device


def _at_least(least: int, kind: Kind) -> Kind:
    def read(value: object) -> float:
        number = kind.read(value)
        if number < least:
            raise ValueError(value)
        return number

    return Kind(f"{kind.takes}, {least} or more", read)


def _or_null(kind: Kind) -> Kind:
    def read(value: object) -> Any:  # noqa: ANN401  (as the kind reads it)
        return None if value is None or (isinstance(value, str) and value in NULLS) else kind.read(value)

    return Kind(f"{kind.takes}, or null", read, kind.is_path)


YES_OR_NO = Kind("true or false", _read_yes_no)
TEXT = Kind("a word", _read_text)
PATH = Kind("a path", _read_path, is_path=True)
PATHS = Kind("a path or a list of paths", _read_paths, is_path=True)
WEIGHTS = Kind("true, false or a path", _read_path_or_yes_no, is_path=True)
DEVICE = Kind("a device of this machine: cpu, cuda, cuda:N or mps", _read_device)
MAPPING = Kind("a mapping", _read_mapping)
NUMBERS = Kind("a list of numbers", _read_numbers)
NUMBER = Kind("a number", _read_number)
EACH = Kind("a number, or a mapping of a number to each lesion", _read_number_or_each)
RATE = _at_least(0, NUMBER)
WHOLE = Kind("a whole number", _read_whole)
COUNT = _at_least(1, WHOLE)
INDEX = _at_least(0, WHOLE)

KINDS: Mapping[Kind, str] = {
    YES_OR_NO: "absent_by_grade amp batch_norm dicom_seg drop_last flips fuse label_update nifti report resume track "
    "withhold_doubtful",
    TEXT: "alternation architecture backend balance combine encoder label_encoder label_mask meta_objective",
    _or_null(TEXT): "multiprocessing_context patient_pattern precision score_by split tracking_uri",
    PATH: "bundle_root cache_dir calibrated output_dir taught",
    PATHS: "checkpoint graders",
    _or_null(PATHS): "input",
    _or_null(PATH): "manifest pseudo_labels teacher",
    WEIGHTS: "pretrained",
    DEVICE: "device",
    _or_null(MAPPING): "tags",
    _or_null(NUMBERS): "grade_set_quantiles lesion_thresholds",
    COUNT: "batch_size heat_map_stride image_size max_epochs meta_every threads val_interval",
    _or_null(COUNT): "crop_px lesion_size window_px",
    INDEX: "fuse_radius_px num_workers seed",
    _or_null(INDEX): "fold",
    NUMBER: "alpha beta colour coverage gamma graded_share kl_weight label_movement_max label_smoothing width",
    EACH: "min_area_ppm",
    _or_null(NUMBER): "abstain_below average_decay lesion_prior virtual_lr",
    RATE: "decoder_learning_rate head_learning_rate label_encoder_learning_rate label_learning_rate learning_rate",
}
OPTIONS: Mapping[str, Kind] = {name: kind for kind, names in KINDS.items() for name in names.split()}
"""Kind of every flat option of the configs. The defaults do not say all: ``input`` is null until it is given."""


def settle(parser: ConfigParser) -> None:
    """Replace the options of a config by values of their kinds.

    Options that are written as an expression stay, unless they were typed: then their value is checked.

    Raises:
        ValueError: naming the option, what it takes and what came.

    Example:
        >>> parser = ConfigParser({"track": "no", "batch_size": "4", "output_dir": "$str(@batch_size)"})
        >>> settle(parser)
        >>> parser.get()
        {'track': False, 'batch_size': 4, 'output_dir': '$str(@batch_size)'}
        >>> settle(ConfigParser({"batch_size": 0}))
        Traceback (most recent call last):
            ...
        ValueError: expected --batch_size as a whole number, 1 or more, got 0
    """
    words = typed_words(command_line())
    config = parser.get()
    settled = {name: _settled(parser, name, words) for name in OPTIONS if name in config}
    settled |= {name: PLAIN[word] for name, word in words.items() if re.search("#|::", name) and word in PLAIN}
    for name, value in settled.items():
        if re.sub("(#|::)[^#:]*$", "", name) not in parser:
            raise ValueError(f"unknown option {name!r}: the config has no such part")
        parser[name] = value
    parser.parse()


def _settled(parser: ConfigParser, name: str, words: Mapping[str, str | bool]) -> Any:  # noqa: ANN401  (of any kind)
    """Return what the config should hold for an option."""
    written, word = parser.get()[name], words.get(name, "%")
    if isinstance(word, str) and word.startswith("%"):  # not typed; or a macro, in whose place MONAI has put a value
        return _kept_or_read(name, written)
    if isinstance(word, str) and EXPRESSION.fullmatch(word):
        _read(name, _evaluated(parser, name, word))
        return written
    return as_written(_read(name, word))


def _kept_or_read(name: str, written: object) -> Any:  # noqa: ANN401  (of any kind)
    """Read a value of a file or of Python, where expressions stay."""
    texts = [one for one in (written if isinstance(written, list) else [written]) if isinstance(one, str)]
    if any(EXPRESSION.fullmatch(text) for text in texts):
        return written
    if OPTIONS[name].is_path and "::" in "".join(texts):
        raise ValueError(
            f"expected --{name} without '::', got {written!r}; MONAI writes it in place of #: give a pathlib.Path"
        )
    return as_written(_read(name, written))


def _evaluated(parser: ConfigParser, name: str, word: str) -> Any:  # noqa: ANN401  (any result)
    try:
        return parser.get_parsed_content(name)
    except (RuntimeError, ValueError, LookupError, SyntaxError) as error:
        reason = error.__cause__ if isinstance(error, RuntimeError) else error  # which is MONAI's, around the other
        raise ValueError(
            f"expected --{name} as {OPTIONS[name].takes}, got {word!r}, which MONAI cannot evaluate: "
            f"{reason}{_way_out(name, word)}"
        ) from error


def _read(name: str, value: object) -> Any:  # noqa: ANN401  (of any kind)
    kind = OPTIONS[name]
    try:
        return kind.read(value)
    except (ValueError, TypeError):
        raise ValueError(f"expected --{name} as {kind.takes}, got {value!r}{_way_out(name, value)}") from None


def _way_out(name: str, value: object) -> str:
    if not OPTIONS[name].is_path or not isinstance(value, str) or not value:
        return ""
    return f"; a file or folder of that name is ./{value}"


def as_written(value: Any) -> Any:  # noqa: ANN401  (of any kind)
    """Return a value as a config must have it, so that MONAI evaluates nothing in a text or a list of texts.

    Example:
        >>> as_written("photos"), as_written(7)
        ('photos', 7)
        >>> ConfigParser({"input": as_written(["$a", "@b", "50%", "photos#1"])}).get_parsed_content("input")
        ['$a', '@b', '50%', 'photos#1']
    """
    if not isinstance(value, (str, list)) or not SPECIAL.search(str(value)):
        return value
    return "$" + SPECIAL.sub(lambda found: f"\\x{ord(found[0]):02x}", repr(value))


def typed_words(arguments: Sequence[str]) -> dict[str, str | bool]:
    """Return the word after each option, as Fire finds it, but as it was typed; a boolean for an option without one.

    Example:
        >>> typed_words(["--input", "photos#1", "--seed=7", "--nifti", "--notrack", "--fold", "-1"])
        {'input': 'photos#1', 'seed': '7', 'nifti': True, 'track': False, 'fold': '-1'}
    """
    found: dict[str, str | bool] = {}
    for option, after in _options(arguments):
        name, equals, value = option.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if equals or after is not None:
            found[name] = value if equals else str(after)
        else:
            found[name.removeprefix("no")] = not name.startswith("no")
    return found


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each word that names an option, and the word that follows as its value."""
    for word, after in pairwise([*arguments, "--"]):
        if FLAG.match(word):
            yield word, None if "=" in word or FLAG.match(after) else after
