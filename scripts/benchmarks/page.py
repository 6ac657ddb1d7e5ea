"""The page of every suite of `python -m scripts.benchmark`."""

from collections.abc import Iterable

from bundle.files import write_text_whole
from bundle.provenance import origin


def publish(title: str, command: str, parts: Iterable[str], out: str | None) -> None:
    """Print a page: its title, the command, commit, machine and versions, then its parts; also write it to a file."""
    head = "\n".join([f"# {title}\n", *origin(["scripts/benchmark.py", *command.split()])])
    page = "\n\n".join([head, *parts])
    print(page)
    if out:
        write_text_whole(out, page + "\n")
