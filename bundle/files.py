"""Files that get their final name only when they are complete, folders locked for one run, and content hashes."""

import csv
import hashlib
import io
import json
import math
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout, lock_descriptor

DECODER_ERRORS = (
    OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, struct.error, zlib.error,
)  # fmt: skip
"""Errors that decoders raise on missing, truncated or malformed files; each reader adds those of its library."""

TABLE_ENCODING = "utf-8-sig"
"""Of CSV tables: Excel takes UTF-8 without a byte-order mark for the encoding of the system, and garbles umlauts."""

CLAIM = ".run.lock"
LOCK_POLL_S = 0.2
BESIDE = re.compile(r"\..+\.(?P<process>\d+)\.\d+(\.\w+)?")
"""Temporary name that :func:`written_whole` gives to an incomplete file."""

_claimed: dict[Path, FileLock] = {}
"""Folders claimed by this process, each with its lock."""


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path next to the final one; rename it at the end, remove it after an error.

    The temporary path has the final suffix, because image writers choose their format by it.

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


@contextmanager
def written_at_once(path: str | os.PathLike) -> Iterator[io.BytesIO]:
    """Yield a buffer, then write its content as :func:`written_whole` does.

    For JPEG pictures: Pillow's encoder bypasses Python's file objects and does not notice a partial write to disk.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with written_at_once(Path(folder) / "note.txt") as buffer:
        ...         _ = buffer.write(b"all of it")
        ...     (Path(folder) / "note.txt").read_bytes()
        b'all of it'
    """
    buffer = io.BytesIO()
    yield buffer
    with written_whole(path) as beside:
        beside.write_bytes(buffer.getvalue())


@contextmanager
def locked(path: str | os.PathLike, wait_s: float = math.inf) -> Iterator[int]:
    """Lock a file until the end of the block, and yield its descriptor.

    The folder is created if necessary. A child process that inherits the descriptor keeps the lock when this process
    dies; the system releases it with the last of them.

    Args:
        path: the lock file.
        wait_s: how long to wait for another run to release it.

    Raises:
        ValueError: if another run holds it for longer, or its folder cannot be created.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder) / "new" / ".lock"):
        ...     [path.name for path in Path(folder, "new").iterdir()]
        ['.lock']
    """
    path = Path(path)
    make_folder(path.parent)
    with path.open("a", encoding="utf-8") as file:
        deadline_s = time.monotonic() + wait_s
        while not lock_descriptor(file.fileno(), blocking=False):
            if time.monotonic() >= deadline_s:
                raise ValueError(f"another run still works in {path.parent}: wait for it, or stop it")
            time.sleep(LOCK_POLL_S)
        yield file.fileno()


def make_folder(folder: Path) -> None:
    """Create a folder for results, and those above it, unless it is there.

    Raises:
        ValueError: if that cannot be, because a file is in its place, say.

    Example:
        >>> make_folder(Path(os.devnull))
        Traceback (most recent call last):
            ...
        ValueError: expected an --output_dir that can be written, got /dev/null: File exists
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"expected an --output_dir that can be written, got {folder}: {error.strerror}") from None


def claim(folder: str | os.PathLike) -> None:
    """Lock a folder against other runs until :func:`release`, or until this process ends for any reason.

    The folder is created if necessary, and incomplete files of killed runs are removed. The lock belongs to this
    process alone, not to the loader processes that it forks: they outlive it by seconds.

    Raises:
        ValueError: if another process has claimed it, or it cannot be created.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (Path(folder) / ".model.999999999.1.pt").touch()  # half a file, of a process that runs no more
        ...     claim(folder)
        ...     [path.name for path in Path(folder).iterdir()]
        ...     release(folder)
        ['.run.lock']
    """
    folder = Path(folder).resolve()
    if folder in _claimed:
        return
    make_folder(folder)
    # Not locked(): loader processes would inherit its descriptor; FileLock closes it in forked processes.
    # No soft lock, as FileLock makes on a disk without flock: it would outlive a kill.
    lock = FileLock(folder / CLAIM, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"another run still works in {folder}: wait for it, or name another --output_dir") from None
    _claimed[folder] = lock
    for path in folder.rglob(".*"):
        half_written = BESIDE.fullmatch(path.name)
        if half_written and not _runs(int(half_written["process"])):
            with suppress(PermissionError):
                path.unlink(missing_ok=True)


def release(folder: str | os.PathLike) -> None:
    """Release a folder that this process claimed."""
    lock = _claimed.pop(Path(folder).resolve(), None)
    if lock is not None:
        lock.release()


def _runs(process: int) -> bool:
    """Return whether another process with this id runs; this process itself has not written anything yet."""
    if os.name == "nt":  # signal 0 is Ctrl-C there, and a file that a process writes cannot be removed
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def write_text_whole(path: str | os.PathLike, text: str, encoding: str = "utf-8") -> None:
    """Write to a temporary path, then rename: the final name never refers to an incomplete file."""
    with written_whole(path) as beside:
        beside.write_text(text, encoding=encoding)


def write_json_whole(path: str | os.PathLike, content: object) -> None:
    """Write JSON as :func:`write_text_whole` does; NaN and infinity become null, because JSON has neither.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json_whole(Path(folder) / "metrics.json", {"dice": 0.5, "auroc": math.nan})
        ...     load_json(Path(folder) / "metrics.json")
        {'dice': 0.5, 'auroc': None}
    """
    write_text_whole(path, json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n")


def write_csv_whole(path: str | os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as :func:`write_text_whole` does, with every column that any row has, in ``TABLE_ENCODING``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "rows.csv"
        ...     write_csv_whole(path, [{"file": "a.jpg", "grade": 2}, {"file": "b.jpg", "error": "empty"}])
        ...     path.read_text(TABLE_ENCODING).split()
        ['file,grade,error', 'a.jpg,2,', 'b.jpg,,empty']
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_text_whole(path, text.getvalue(), TABLE_ENCODING)


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_json(path: str | os.PathLike) -> Any:  # noqa: ANN401  (any content)
    """Read JSON that :func:`write_json_whole` wrote.

    Raises:
        ValueError: if the file does not parse: not UTF-8, not JSON, too deep, or a number with thousands of digits.
        OSError: if it is missing or may not be read.

    Example:
        >>> load_json("/dev/null")  # doctest: +NORMALIZE_WHITESPACE
        Traceback (most recent call last):
            ...
        ValueError: expected JSON in /dev/null, got a file that does not parse:
            Expecting value: line 1 column 1 (char 0)
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON in {path}, got a file that does not parse: {error}") from None


def file_sha256(path: str | os.PathLike) -> str:
    """Hash the content of a file, as ``sha256sum`` does.

    Example:
        >>> file_sha256(os.devnull)[:16]  # of nothing
        'e3b0c44298fc1c14'
    """
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def content_sha256(files: Mapping[str, str | os.PathLike]) -> str:
    """Hash the content of files, each with its role, so that swapping two files changes the hash.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     one, other = Path(folder) / "one.txt", Path(folder) / "other.txt"
        ...     _ = one.write_text("1"), other.write_text("2")
        ...     before = content_sha256({"MA": one, "EX": other})
        ...     before == content_sha256({"EX": other, "MA": one}), before == content_sha256({"MA": other, "EX": one})
        (True, False)
    """
    digest = hashlib.sha256()
    for role, path in sorted(files.items()):
        digest.update(hashlib.sha256(role.encode()).digest() + hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.hexdigest()
