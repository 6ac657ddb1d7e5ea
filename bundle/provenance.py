"""Provenance of measured numbers: commit, machine, versions."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from bundle import ROOT

PACKAGES = ("monai", "torch", "torchvision", "pytorch-ignite", "grad-cam", "mlflow", "numpy")


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
