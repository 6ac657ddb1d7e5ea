"""The patient of a photograph: read from name or DICOM header, made a pseudonym, missed where names look like two eyes.

There are two places where a reader of photographs states the patient. For a manifest, it is
:attr:`bundle.datasets.readers.raw.RawPhotograph.patient`, the id as the data set has it: the manifest stores only its
:func:`pseudonym`. For inference, it is ``patient`` of an item (:func:`bundle.datasets.items.file_items`): the table and
the report show it, so an id that is not part of the file name must be replaced by its :func:`pseudonym` first.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from bundle.transforms.dicom import Identity, is_dicom, read_identity

SIDES = (("left", "right"), ("od", "os"), ("l", "r"), ("le", "re"))
"""Words for the two eyes in file names, in lower case; OD and OS are Latin for right and left eye."""

_SIDE = re.compile(rf"(?<![a-z])({'|'.join(word for pair in SIDES for word in pair)})(?![a-z])", re.IGNORECASE)
"""One of these words, not as a part of another word."""

_PAIR_OF = {word: pair for pair in SIDES for word in pair}


def pseudonym(patient: str) -> str:
    """Return 16 hexadecimal digits, the same for the same id of a patient, in every data set.

    The digits say who belongs together, and not who it is. They are the beginning of the SHA-256 of the id, so they are
    no anonymisation: whoever can list all possible ids can find the one that gives these digits.

    Example:
        >>> pseudonym("0")
        '5feceb66ffc86f38'
    """
    return hashlib.sha256(patient.encode()).hexdigest()[:16]


def patients_in_names(names: Iterable[str], pattern: str) -> dict[str, str]:
    """Map each name that a pattern matches to the text of the pattern's first group: the patient.

    The pattern must match a whole name. Names that it does not match, or whose first group is empty, are not in the
    result.

    Args:
        names: file names without their suffix.
        pattern: regular expression.

    Raises:
        ValueError: if the pattern is no regular expression, has no group, or matches none of the names.

    Example:
        >>> patients_in_names(["0_left", "0_right", "12_left", "chart"], "(.+)_(left|right)")
        {'0_left': '0', '0_right': '0', '12_left': '12'}
    """
    listed, expression = list(names), _compiled(pattern)
    matches = {name: expression.fullmatch(name) for name in listed}
    found = {name: match[1] for name, match in matches.items() if match and match[1]}
    if not found:
        raise ValueError(
            f"expected --patient_pattern to match the whole name of a photograph, without its suffix, got '{pattern}', "
            f"which matches none of {len(listed)}: {', '.join(islice(listed, 3))}"
        )
    return found


def patients_in_headers(photographs: Mapping[str, str | os.PathLike]) -> dict[str, str]:
    """Map each DICOM photograph whose header states the id of its patient to that id; other files are not opened.

    A file that cannot be read is not in the result: the reader of its pixels says why.

    Args:
        photographs: name of each photograph, and its file.

    Example:
        >>> import pydicom.data
        >>> patients_in_headers({"a": pydicom.data.get_testdata_file("examples_palette.dcm"), "b": "eye.png"})
        {'a': '11-05-25-142825'}
    """
    stated = stated_in_headers(photographs)
    return {name: identity.patient_id for name, identity in stated.items() if identity.patient_id}


def stated_in_headers(photographs: Mapping[str, str | os.PathLike]) -> dict[str, Identity]:
    """Map each DICOM photograph to the patient and the eye that its header states; other files are not opened.

    Args:
        photographs: as in :func:`patients_in_headers`.
    """
    found = {}
    for name, path in photographs.items():
        if is_dicom(path):
            with suppress(ValueError):
                found[name] = read_identity(path)
    return found


def _compiled(pattern: str) -> re.Pattern[str]:
    expected = "expected --patient_pattern as a regular expression whose first group is the patient"
    example = "as in '(.+)_(left|right)'"
    try:
        expression = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(f"{expected}, {example}, got '{pattern}': {error}") from None
    if not expression.groups:
        raise ValueError(f"{expected}, {example}, got '{pattern}', which has no group")
    return expression


class BothEyes(NamedTuple):
    """Two names that differ in the word for the side of the eye, and in nothing else.

    Attributes:
        names: the two names.
        words: the word in each of them.
        before: the text before the word.
        after: the text after it.
    """

    names: tuple[str, str]
    words: tuple[str, str]
    before: str
    after: str

    @property
    def pattern(self) -> str:
        r"""A pattern that finds the same patient in both names.

        Example:
            >>> [eyes.pattern for eyes in both_eyes(["0_left", "0_right", "OD 17", "OS 17", "20L.1", "20R.1"])]
            ['(.+)_(left|right)', '(.+)(L|R).*', '(?:OD|OS)\\ (.+)']
        """
        words = "|".join(map(re.escape, self.words))
        if re.search(r"[^\W_]", self.before):
            return f"(.+){re.escape(_between(self.before, -1))}({words})" + ".*" * bool(self.after)
        return f"{re.escape(self.before)}(?:{words}){re.escape(_between(self.after, 0))}(.+)"


def _between(text: str, end: int) -> str:
    """Return what lies between a word for the side and the letters and digits next to it: ``_`` of ``17_``."""
    return re.split(r"[^\W_]+", text)[end]


def both_eyes(names: Iterable[str]) -> list[BothEyes]:
    """Find the names that differ in one word for the side of the eye, and in nothing else, sorted.

    Example:
        >>> found = both_eyes(["0_left", "0_right", "1_left", "17 OD", "17 OS", "20L", "20R", "Bill", "Birr"])
        >>> [eyes.names for eyes in found]
        [('0_left', '0_right'), ('17 OD', '17 OS'), ('20L', '20R')]
    """
    seen: dict[tuple[tuple[str, str], str, str], dict[str, re.Match[str]]] = defaultdict(dict)
    for match in (match for name in sorted(set(names)) for match in _SIDE.finditer(name)):
        before, word, after = match.string[: match.start()], match[0].lower(), match.string[match.end() :]
        if re.search(r"[^\W_]", before + after):  # something is left to name the patient
            seen[_PAIR_OF[word], before, after].setdefault(word, match)
    return sorted(
        BothEyes((one.string, other.string), (one[0], other[0]), before, after)
        for (pair, before, after), of_word in seen.items()
        if (one := of_word.get(pair[0])) and (other := of_word.get(pair[1]))
    )
