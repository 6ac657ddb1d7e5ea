"""Configs from Python: which options a run was given, what they resolved to, and whether each has an effect."""

import difflib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import torch

# `from monai import bundle` would hide this package; the class is imported by its own path.
from monai.bundle.workflows import ConfigWorkflow

MONAI_IDS = frozenset({"imports", "initialize", "run", "finalize", "bundle_root", "dataset_dir", "_meta_"})
"""Ids that MONAI or its tools read by name, so that no ``@`` needs to point at them."""

PASSING_IDS = MONAI_IDS | {
    "manifest", "pseudo_labels", "output_dir", "cache_dir", "device", "num_workers", "max_epochs", "val_interval",
    "resume", "track", "tracking_uri", "tags",
}  # fmt: skip
"""Options that may change when a run goes on: places, speed and length. Files are compared by their hashes."""

REFERENCE = re.compile(r"[@%](\w+)")


def running_workflow() -> ConfigWorkflow:
    """Return the workflow whose config is being evaluated right now.

    MONAI evaluates ``$`` expressions without a name for the config that they stand in, and ignores a misspelt
    option; the workflow is found in the callers' frames, which holds for the command line and for Python alike.

    Raises:
        RuntimeError: if no ConfigWorkflow is among the callers.
    """
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigWorkflow):
            return owner
        frame = frame.f_back
    raise RuntimeError("expected to be called from a config that monai.bundle runs")


def check_options() -> None:
    """Refuse an option that nothing in the config refers to: MONAI would ignore it without a word.

    Raises:
        ValueError: naming the option and the nearest one that exists.
    """
    config = running_workflow().parser.get()
    used = {name for text in _strings(config) for name in REFERENCE.findall(text)}
    for name, value in config.items():
        if name not in used | MONAI_IDS and not _is_section(value):
            near = difflib.get_close_matches(name, sorted(used & set(config)), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(used & set(config)))}"
            raise ValueError(f"unknown option {name!r}: {hint}")


def run_settings() -> dict[str, Any]:
    """Return the resolved value of every flat option of the running config, and the sections as they are written."""
    parser = running_workflow().parser
    settings = {}
    for name, value in parser.get().items():
        if name in ("initialize", "run", "finalize", "_meta_"):
            continue
        if not _is_section(value) and name != "imports":
            value = parser.get_parsed_content(name)
        value = str(value) if isinstance(value, torch.device) else value
        if _is_plain(value) or _is_section(value):
            settings[name] = value
    return settings


def lasting_settings() -> dict[str, Any]:
    """Return the options of the running config on which a result depends: those that a resumed run must repeat."""
    return {name: value for name, value in run_settings().items() if name not in PASSING_IDS and not _is_section(value)}


def _is_section(value: object) -> bool:
    """Tell a component, or a group of components, from an option."""
    return isinstance(value, dict) or (isinstance(value, list) and any(_is_section(one) for one in value))


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, (str, int, float, bool))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _strings(one)
    elif isinstance(value, str):
        yield value
