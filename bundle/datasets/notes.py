"""Notes on files that a data set has and a manifest lacks or holds otherwise: how they begin, and how many files."""

import re
from collections import Counter
from collections.abc import Iterable

LEFT_OUT, PASSED_OVER, CHANGED = "left out", "passed over", "changed"
KINDS = (LEFT_OUT, PASSED_OVER, CHANGED)
"""Left out: it could not be used. Passed over: no photograph or mask by its name. Changed: read, but not as stored."""

COUNTED = re.compile(rf"(?:.*: )?(?P<kind>{'|'.join(KINDS)}): (?:(?P<count>\d+) )?", re.DOTALL)


def kind_of(note: str) -> str | None:
    """Return what a note tells of, out of ``KINDS``; None if it tells of something else.

    Example:
        >>> kind_of("left out: 2 images without a grade (a, b)"), kind_of("4 files show only 2 photographs")
        ('left out', None)
    """
    found = COUNTED.match(note)
    return found["kind"] if found else None


def counts(notes: Iterable[str]) -> dict[str, int]:
    """Count the files that were left out, passed over or changed; a note without a number is on one file.

    Example:
        >>> counts(["eyes: left out: 2 images without a grade (a, b)", "left out: expected a whole image in c.png"])
        {'left out': 3, 'passed over': 0, 'changed': 0}
    """
    found: Counter[str] = Counter()
    for note in filter(None, map(COUNTED.match, notes)):
        found[note["kind"]] += int(note["count"] or 1)
    return {kind: found[kind] for kind in KINDS}


def in_one_line(counted: dict[str, int]) -> str:
    """Write the counts of :func:`counts` as the last line of a command.

    Example:
        >>> in_one_line({"left out": 3, "passed over": 1, "changed": 0})
        'files: 3 left out, 1 passed over, 0 changed'
    """
    return f"files: {', '.join(f'{count:,} {kind}' for kind, count in counted.items())}"
