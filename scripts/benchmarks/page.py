"""The head of every page of `python -m scripts.benchmark`: how its numbers were made, and on what machine."""

from bundle.files import write_text_whole
from bundle.provenance import commit, machine, versions


def head(title: str, command: str) -> str:
    """Return a page's title, the command, the commit, the machine and the versions."""
    return f"# {title}\n\n    python -m scripts.benchmark {command}\n\nCommit {commit()}. {machine()}; {versions()}."


def publish(page: str, out: str | None) -> None:
    """Print a page, and write it to a file if one is given."""
    print(page)
    if out:
        write_text_whole(out, page + "\n")
