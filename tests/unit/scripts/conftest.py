"""Run a script's function as its command line would."""

import sys

import pytest
from scripts.cli import main


@pytest.fixture
def run_script(monkeypatch, capsys):
    """Run a function of ``scripts`` with a command line; return exit code, stdout and stderr."""

    def run(function, program, *arguments):
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        try:
            main(function)
            code = 0
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run
