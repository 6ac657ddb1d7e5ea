"""Torch files, written completely or not at all, with the same bytes for the same content."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from bundle.files import written_whole


def save_whole(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write a torch file to a temporary path next to it, then rename it; the same content gives the same bytes.

    Raises:
        OSError: if it cannot be written, for example on a full disk.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     one, other = Path(folder, "one.pt"), Path(folder, "other.pt")
        ...     for path in (one, other):
        ...         save_whole(path, {"weight": torch.ones(2)})
        ...     one.read_bytes() == other.read_bytes()
        True
    """
    # Given a path, torch would store the temporary name in the file, and would not mention a full disk in its error.
    with written_whole(path) as beside, beside.open("wb") as file:
        try:
            torch.save(dict(content), file)
        except RuntimeError as error:
            if not isinstance(error.__context__, OSError):
                raise
            raise OSError(
                f"cannot write {path}: {error.__context__.strerror}; make room there, and run the same command again"
            ) from error
