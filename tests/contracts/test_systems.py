"""Windows and macOS: nothing imports, or calls unguarded, what only POSIX has."""

import ast
import os
import subprocess
import sys

import pytest
from bundle import ROOT

ONLY_POSIX = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "spwd", "crypt", "nis", "posix")
"""Modules of the standard library that Windows lacks."""

CALLS = (
    "os.fork",
    "os.killpg",
    "os.setsid",
    "os.getuid",
    "os.geteuid",
    "os.uname",
    "os.sched_getaffinity",
    "os.mkfifo",
)
SOURCES = sorted([*(ROOT / "bundle").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])
IMPORT_WITHOUT = f"""
import importlib, sys
import torch, monai.bundle, ignite, mlflow, timm, pandas, imagehash, nibabel, skimage, pytorch_grad_cam, filelock, fire

for name in {ONLY_POSIX}:
    sys.modules[name] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
"""
"""Other packages are imported first: whether they work on Windows is theirs to say."""


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.slow
def test_every_module_is_imported_without_what_only_posix_has():
    words = [module_of(path) for path in SOURCES]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT, *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-1000:]


def calls(text):
    return {ast.unparse(node.func) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)}


def test_nothing_calls_what_only_posix_has():
    assert calls("import os\nos.killpg(1, 9)") & set(CALLS)
    found = {module_of(path): calls(path.read_text(encoding="utf-8")) & set(CALLS) for path in SOURCES}
    assert {module: names for module, names in found.items() if names} == {}
