"""Break valid files as accidents and enemies do, and keep count of what a reader makes of them."""

import copy
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

COUNTS: defaultdict[str, Counter] = defaultdict(Counter)
"""Reader to how many files it read, refused, and neither: what the long run reports."""

FILES_MIN = 200
"""For each test, where the profile asks for fewer."""

HEADER_BYTES = 96
LIMITS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

PATHS = (
    "../x.jpg", "/etc/passwd", "made//etc/passwd", "made/../x.jpg", "made/./x.jpg", "made/\0.jpg", "C:/x.jpg",
    "made/C:/x.jpg", "made/..\\x.jpg", "made/\\\\host\\x.jpg", "\\\\host\\x.jpg", "made", "made/", "other/x.jpg", "",
)  # fmt: skip
"""What a row may name that does not lie below the root ``made``."""

EXPRESSIONS = (
    "$1/0",
    "$__import__('os').getpid()",
    "@run",
    "%run",
    "%/etc/passwd::x",
    "_target_",
    "!!python/name:os.x",
)

junk = st.one_of(
    st.sampled_from([None, True, False, "", "\0", "\ud800", "0", "test", [], {}, [[]], [None], {"": None}, "x" * 5000]),
    st.sampled_from([0, -1, 1, 5, 0.5, 1e308, math.nan, math.inf, -math.inf, 2**31, 2**63, 10**400, -(10**18)]),
    st.sampled_from(PATHS),
    st.sampled_from(EXPRESSIONS),
    st.text(max_size=8),
).map(copy.deepcopy)
"""Values that a field may hold and should not, or not everywhere."""


def given_files(**drawn: st.SearchStrategy) -> Callable:
    """Run a test on the number of files in the profile, and on ``FILES_MIN`` without one."""
    return lambda test: settings(max_examples=max(FILES_MIN, settings.default.max_examples))(given(**drawn)(test))


def judged(reader: str, read: Callable[[], Any], *named: str) -> Any:
    """Return what a reader reads; None where it refuses by ValueError, which must name one of ``named``."""
    COUNTS[reader]["uncaught"] += 1
    try:
        found = read()
    except ValueError as error:
        if named and not any(name in str(error) for name in named):
            raise AssertionError(f"a refusal that names none of {named}: {error}") from error
        COUNTS[reader].update(refused=1, uncaught=-1)
        return None
    COUNTS[reader].update(read=1, uncaught=-1)
    return found


@st.composite
def broken_bytes(draw: st.DrawFn, valid: bytes) -> bytes:
    """Flip, cut, insert, delete and splice; half of the places lie in the header."""
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = _place(draw, content)
        edit = draw(st.sampled_from(["flip", "flip", "limit", "cut", "insert", "delete", "splice"]))
        if edit == "flip" and content:
            content[at] ^= draw(st.integers(1, 255))
        elif edit == "limit":
            size, order = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from(["little", "big"]))
            content[at : at + size] = (draw(st.sampled_from(LIMITS)) % 256**size).to_bytes(size, order)
        elif edit == "cut":
            del content[at:]
        elif edit == "insert":
            content[at:at] = draw(st.binary(max_size=8)) * draw(st.sampled_from([1, 1, 100]))
        else:
            other = _place(draw, content)
            part = content[min(at, other) : max(at, other)]
            if edit == "delete":
                del content[min(at, other) : max(at, other)]
            else:
                content[(to := _place(draw, content)) : to] = part
    return bytes(content)


def _place(draw: st.DrawFn, content: bytearray) -> int:
    last = max(len(content) - 1, 0)
    return draw(st.integers(0, min(last, HEADER_BYTES)) | st.integers(0, last))


@st.composite
def broken_tree(draw: st.DrawFn, valid: Any) -> Any:
    """Take fields away, change their types, and let entries stand twice."""
    tree = {"": copy.deepcopy(valid)}
    for _ in range(draw(st.integers(1, 3))):
        nodes = list(_nodes(tree))
        assume(nodes)
        holder, key = draw(st.sampled_from(nodes))
        edit = draw(st.sampled_from(["replace", "replace", "replace", "remove", "twice"]))
        if edit == "replace" or holder is tree:
            holder[key] = draw(junk)
        elif edit == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        else:
            holder[draw(st.text(max_size=3))] = copy.deepcopy(holder[key])
    return tree[""]


def _nodes(holder: Any) -> Any:
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], (dict, list)):
            yield from _nodes(holder[key])


def broken_json(valid: Any) -> st.SearchStrategy[bytes]:
    """Break the tree, the bytes, or neither the one nor the other and write something else."""
    text = json.dumps(valid, indent=1).encode()
    trees = broken_tree(valid).map(lambda tree: json.dumps(tree).encode())
    nested = st.sampled_from([b"[", b'{"a":']).map(lambda opening: opening * 100_000)
    digits = st.just(text.replace(b": 1,", b": " + b"9" * 5000 + b",", 1))
    return st.one_of(
        trees, trees, trees, broken_bytes(text), broken_bytes(text), nested, digits, st.binary(max_size=60)
    )


def written(path: Path, content: bytes) -> Path:
    """Write the file again for each example, instead of a new file for each of thousands."""
    path.write_bytes(content)
    return path
