"""Files that appear under their final name only when they are whole, and the hash of what is in a file."""

import csv
import hashlib
import io
import json
import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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
    beside = final.with_name(f".{final.stem}.{os.getpid()}.{threading.get_ident()}{final.suffix}")
    try:
        yield beside
        os.replace(beside, final)
    finally:
        beside.unlink(missing_ok=True)


def write_text_whole(path: str | os.PathLike, text: str) -> None:
    """Write beside, then rename: no reader ever sees half a file under its final name."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json_whole(path: str | os.PathLike, content: object) -> None:
    """Write JSON as :func:`write_text_whole` does; what is not a number becomes null, for NaN is not JSON."""
    write_text_whole(path, json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n")


def write_csv_whole(path: str | os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as :func:`write_text_whole` does, with every column that one of them has."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_text_whole(path, text.getvalue())


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_json(path: str | os.PathLike) -> Any:  # noqa: ANN401  (whatever stands in the file)
    """Read JSON that :func:`write_json_whole` wrote."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def file_sha256(paths: Iterable[str | os.PathLike]) -> str:
    """Hash the content of one or more files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.hexdigest()


def content_sha256(files: Mapping[str, str | os.PathLike]) -> str:
    """Hash the content of files, each with its role, so that two that change places are noticed."""
    digest = hashlib.sha256()
    for role, path in sorted(files.items()):
        digest.update(hashlib.sha256(role.encode()).digest() + hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.hexdigest()
