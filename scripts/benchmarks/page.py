"""What every page of `python -m scripts.benchmark` begins with: how its numbers were made, and on what."""

from bundle.files import write_text_whole
from bundle.provenance import commit, machine, versions


def head(title: str, command: str) -> str:
    """Write a page's title, the command, the commit, the machine and the versions."""
    return f"# {title}\n\n    python -m scripts.benchmark {command}\n\nCommit {commit()}. {machine()}; {versions()}."


def publish(page: str, out: str | None) -> None:
    """Print a page, and write it to a file where one is named."""
    print(page)
    if out:
        write_text_whole(out, page + "\n")
