"""Provenance of measured numbers: command, commit, machine, versions."""

import datetime
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path, PurePath
from urllib.parse import urlsplit

from bundle import ROOT

PACKAGES = ("monai", "torch", "torchvision", "pytorch-ignite", "grad-cam", "mlflow", "numpy")


def origin(command: Sequence[str], manifest_sha256: str | None = None, made: str = "") -> list[str]:
    """Return the lines at the head of a page of results: how, when and where its numbers were made.

    Args:
        command: words of the command, with the script first.
        manifest_sha256: of the manifest, if the numbers have one.
        made: what this commit and machine made, on a page that names other commits and machines too.

    Example:
        >>> [line.split(":")[0] for line in origin(["scripts/sweep.py"], manifest_sha256="a1")]
        ['- command', '- commit', '- machine', '- versions', '- manifest']
        >>> [line.split(":")[0] for line in origin(["scripts/compare.py"], made="this page")]
        ['- command', '- commit of this page', '- machine of this page', '- versions of this page']
    """
    of_what = f" of {made}" * bool(made)
    lines = [
        f"- command: `{portable(command)}`",
        f"- commit{of_what}: {commit()}, {datetime.date.today().isoformat()}",
        f"- machine{of_what}: {machine()}",
        f"- versions{of_what}: {versions()}",
    ]
    return lines if manifest_sha256 is None else [*lines, f"- manifest: sha256 {manifest_sha256}"]


def commit() -> str:
    """Return the commit of the bundle's code, ``-dirty`` with uncommitted changes, or ``unknown`` outside of git."""
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> str:
    """Return processor, cores and system, for example ``AMD EPYC, 2 cores, Linux, Python 3.11.7``.

    Example:
        >>> machine().endswith(f" cores, {platform.system()}, Python {platform.python_version()}")
        True
    """
    return f"{_processor()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def versions() -> str:
    """Return the versions of the packages that numbers depend on.

    Example:
        >>> [one.split()[0] for one in versions().split(", ")]
        ['monai', 'torch', 'torchvision', 'pytorch-ignite', 'grad-cam', 'mlflow', 'numpy']
    """
    return ", ".join(f"{name} {version(name)}" for name in PACKAGES)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def portable(words: Sequence[str]) -> str:
    """Write a command without the folders of this machine and without credentials in a store's address.

    Example:
        >>> portable(["/home/me/scripts/sweep.py", "--manifest", "/data/idrid.json", "--tracking_uri=http://me:pw@host/x"])
        'python -m scripts.sweep --manifest idrid.json --tracking_uri=http://host/x'
    """
    program, *others = words
    script = PurePath(program)
    named = ["python", "-m", f"scripts.{script.stem}"] if script.suffix == ".py" else [portable_word(program)]
    return " ".join([*named, *(shlex.quote(portable_word(word)) for word in others)])


def portable_word(word: str) -> str:
    """Write a word of a command as :func:`portable` does."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if "://" in value:
        address = urlsplit(value)
        place = address.hostname or ""
        port = f":{address.port}" if address.port else ""
        value = f"{address.scheme}://{place}{port}/{PurePath(address.path).name}"
    elif PurePath(value).is_absolute():
        value = PurePath(value).name
    return f"{option}{equals}{value}"
