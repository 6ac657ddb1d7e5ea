"""Commands as a user types them, without waiting for the same imports each time."""

import runpy
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def typed():
    """Run ``python -m module words`` and return what ``subprocess.run`` would."""
    ready = runpy.run_path(str(Path(__file__).with_name("ready_python.py")))["ReadyPython"]()
    yield ready
    ready.close()
