"""A refusal of this bundle ends ``python -m monai.bundle run`` with its sentence alone, without a traceback."""

import linecache
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

COMMAND = "monai.bundle.__main__"
TRACEBACK = "FUNDUS_TRACEBACK"
"""Environment variable that keeps the traceback."""

HOME = f"{Path(__file__).resolve().parent}{os.sep}"
REFUSALS = (ValueError, OSError)
IN_WORKER = re.compile(
    rf'File "{re.escape(HOME)}[^"]+", line \d+, in .+\n +raise .*\n(?: +.*\n)*(?:ValueError|OSError): ((?:.+\n?)+)'
)
"""A refusal in the traceback that a loader process sends to the main process as text."""


def say_refusals_alone() -> None:
    """Print only the sentence of an uncaught refusal; the exit code stays 1.

    Without effect in programs other than ``python -m monai.bundle``, and if ``FUNDUS_TRACEBACK`` is set.
    """
    if command_line() and not os.environ.get(TRACEBACK):
        sys.excepthook = _say


def command_line() -> list[str]:
    """Return the words after ``python -m monai.bundle``; none in another program."""
    main = getattr(sys.modules["__main__"], "__spec__", None)
    return sys.argv[1:] if main is not None and main.name == COMMAND else []


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sentence = refusal(error)
    if sentence is None:
        sys.__excepthook__(kind, error, trace)
    else:
        sys.stderr.write(f"error: {sentence}\n")


def refusal(error: BaseException) -> str | None:
    """Return the sentence of the outermost refusal among an error and its causes; None for any other error.

    A refusal is a ValueError or OSError that a ``raise`` in this package raised, here or in a loader process. The same
    errors from a library, or from a function that is called here, are mistakes of the program.

    Example:
        >>> from bundle.files import load_json
        >>> try:
        ...     load_json("/dev/null")
        ... except ValueError as error:
        ...     refusal(error)[:30]
        'expected JSON in /dev/null, go'
        >>> refusal(ValueError("of another program")) is None
        True
    """
    for one in _with_causes(error):
        if isinstance(one, REFUSALS) and _was_raised_here(one.__traceback__):
            return " ".join(str(one).split())
        if found := IN_WORKER.search(f"{one}\n") if str(one).startswith("Caught ") else None:
            return " ".join(found[1].split())
    return None


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _was_raised_here(trace: TracebackType | None) -> bool:
    """Return whether the last line of a traceback is a ``raise`` of this package."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    path = os.path.abspath(trace.tb_frame.f_code.co_filename)
    return path.startswith(HOME) and linecache.getline(path, trace.tb_lineno).lstrip().startswith("raise ")
