"""A file appears under its final name only when it is whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path beside the final one to write to; rename at the end, remove after an error.

    The path beside has the final suffix, by which image writers choose their format.

    Example:
        >>> import tempfile
        >>> final = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with written_whole(final) as beside:
        ...     _ = beside.write_text("all of it")
        ...     final.exists()
        False
        >>> final.read_text()
        'all of it'
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    beside = final.with_name(f".{final.stem}.{os.getpid()}{final.suffix}")
    try:
        yield beside
        os.replace(beside, final)
    finally:
        beside.unlink(missing_ok=True)
