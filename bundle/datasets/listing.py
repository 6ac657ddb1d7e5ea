"""Lists of the files of a data set, and a record of missing ones."""

import os
from collections.abc import Iterable
from pathlib import Path


def files(folder: Path, *suffixes: str) -> dict[str, Path]:
    """Map stems to paths, sorted by name, without companion files (``._name``) that some systems leave in archives.

    Raises:
        ValueError: if a name is not UTF-8, which no manifest can store, or two files differ only in their suffix.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.JPG", "a.png", "._a.png", "notes.txt"):
        ...         Path(folder, name).touch()
        ...     {stem: path.name for stem, path in files(Path(folder), ".jpg", ".png").items()}
        {'a': 'a.png', 'b': 'b.JPG'}
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            _check_name(path)
            if path.stem in found:
                raise ValueError(f"expected one file called {path.stem} in {folder}, got {path.name} too; rename it")
            found[path.stem] = path
    return found


def _check_name(path: Path) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"expected file names in UTF-8 in {path.parent}, got {os.fsencode(path.name)!r}; rename the file"
        ) from None


def names(found: Iterable[str], count: int = 3) -> str:
    """List the first few names, or ``nothing``.

    Example:
        >>> names(["d", "a", "c", "b"]), names([])
        ('a, b, c, ...', 'nothing')
    """
    ordered = sorted(found)
    return ", ".join(ordered[:count]) + (", ..." if len(ordered) > count else "") if ordered else "nothing"


class Gaps:
    """Record of the gaps in a copy of a data set, which are either refused, or left out and noted.

    Args:
        dataset: name of the data set, for the message.
        root: folder of the data set.

    Example:
        >>> gaps = Gaps("IDRiD", Path("/data"))
        >>> gaps.add("images without a grade", ["b", "a"])
        >>> gaps.notes(allow_missing=True)
        ['left out: 2 images without a grade (a, b)']
        >>> gaps.notes(allow_missing=False)  # doctest: +NORMALIZE_WHITESPACE
        Traceback (most recent call last):
            ...
        ValueError: IDRiD in /data: 2 images without a grade (a, b); complete the copy, or leave these out:
            --allow_missing
    """

    def __init__(self, dataset: str, root: Path) -> None:
        self.dataset, self.root, self.found = dataset, root, list[str]()

    def add(self, what: str, missing: Iterable[str]) -> None:
        """Record the number of missing entries and their names, if there are any."""
        missing = sorted(missing)
        if missing:
            self.found.append(f"{len(missing)} {what} ({names(missing)})")

    def notes(self, allow_missing: bool) -> list[str]:
        """Return one sentence for each gap.

        Raises:
            ValueError: if there are gaps and they are not allowed; the message names all of them.
        """
        if self.found and not allow_missing:
            raise ValueError(
                f"{self.dataset} in {self.root}: {'; '.join(self.found)}; complete the copy, or leave these out: "
                f"--allow_missing"
            )
        return [f"left out: {gap}" for gap in self.found]
