"""The training data of weights: described in words, and used to keep training photographs out of scores."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from bundle.manifest import HEXADECIMAL, Photograph
from bundle.networks.ensembles import Paths, listed, together
from bundle.networks.imagenet import GRADER, read_weights, weights_file
from bundle.networks.weights import PERCEPTUAL_HASHES, check_facts, fact, provenances

SYNTHETIC = {"phantom": "synthetic drawings"}
"""Data sets without patients: a score on them does not hold for photographs."""

KINDS = ("outlined", "graded")


def trained_on(paths: Paths) -> str:
    """Describe the training data of weights files, from their facts ``data``; what several have in common is said once.

    Raises:
        ValueError: if a file is missing, is not a weights file, or its ``data`` is invalid.

    Example:
        >>> import tempfile
        >>> from bundle.networks.weights import save_weights
        >>> from torch import nn
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     facts = {"data": {"phantom": {"outlined": 40, "graded": 0}}}
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), facts)
        ...     trained_on(f"{folder}/model.pt")
        'phantom (synthetic drawings), 40 outlined photographs'
    """
    return " + ".join(dict.fromkeys(in_words(fact(path, "data"), path) for path in listed(paths)))


def in_words(data: object, path: str | os.PathLike) -> str:
    """Write the photographs of each data set, ``{name: {"outlined": n, "graded": n}}``, in words.

    Raises:
        ValueError: if it has another form; the message names ``path`` as its source.

    Example:
        >>> in_words({"idrid": {"outlined": 43, "graded": 1}, "ddr": {"outlined": 0, "graded": 1}}, "model.pt")
        'idrid, 43 outlined and 1 graded photographs; ddr, 1 graded photograph'
        >>> in_words(None, "old.pt")
        'what its weights file does not say'
    """
    if data is None:
        return "what its weights file does not say"
    if not isinstance(data, Mapping) or not all(
        isinstance(counts, Mapping) and all(isinstance(counts.get(kind, 0), int) for kind in KINDS)
        for counts in data.values()
    ):
        raise ValueError(f"expected data as {{name: {{'outlined': n, 'graded': n}}}} in {path}, got {data!r}")
    parts = []
    for name, counts in data.items():
        numbers = {kind: counts.get(kind, 0) for kind in KINDS}
        which = " and ".join(f"{number} {kind}" for kind, number in numbers.items() if number) or "no"
        parts.append(f"{named(name)}, {which} photograph{'s' * (sum(numbers.values()) != 1)}")
    return "; ".join(parts)


def named(dataset: str) -> str:
    """Return the name of a data set, marked if it is synthetic.

    Example:
        >>> named("idrid"), named("phantom")
        ('idrid', 'phantom (synthetic drawings)')
    """
    return f"{dataset} ({SYNTHETIC[dataset]})" if dataset in SYNTHETIC else dataset


def trained_with(paths: Sequence[str | os.PathLike] | str) -> dict[str, Any]:
    """Return the facts of weights; of several files, each fact with all its values, joined by plus signs.

    Raises:
        ValueError: if a file is missing, is not a weights file or has options of another form, or no file is given.

    Example:
        >>> import tempfile
        >>> from bundle.networks.weights import save_weights
        >>> from torch import nn
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for rate, name in ((0.1, "a.pt"), (0.2, "b.pt")):
        ...         save_weights(f"{folder}/{name}", nn.Linear(2, 3), {"fold": 0, "options": {"learning_rate": rate}})
        ...     trained_with([f"{folder}/a.pt", f"{folder}/b.pt"])
        {'network': 'Linear', 'fold': 0, 'options': {'learning_rate': '0.1+0.2'}}
    """
    found = provenances(paths)
    for one in found:
        if not isinstance(one.get("options", {}), Mapping):
            raise ValueError(f"expected options by name in {one['path']}, got {one['options']!r}; train it again")
    return _together([{name: one[name] for name in one if name not in ("path", "sha256")} for one in found])


def _together(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {name: _joined([one.get(name) for one in found]) for one in found for name in one}


def _joined(values: Sequence[Any]) -> Any:  # noqa: ANN401  (whatever stands in the weights)
    if all(value == values[0] for value in values):
        return values[0]
    if all(isinstance(value, Mapping) for value in values):
        return _together(values)
    return "+".join(map(str, values))


def hashes_for(rows: Iterable[Photograph], architecture: str, pretrained: bool | str = False) -> list[str] | None:
    """List the perceptual hashes of all photographs that a network was trained on, for its weights file.

    Args:
        rows: photographs of this training.
        architecture: of the network, or of its encoder.
        pretrained: where its training starts. A grader's file adds the photographs of that grader; any other file
            counts as one of ImageNet.

    Returns:
        The hashes, sorted, each once. None if the training starts from a grader whose file does not list its own.

    Raises:
        ValueError: if the grader's file is missing, or is not a file of tensors.

    Example:
        >>> known = {"split": "train", "sha256": "0" * 64, "width_px": 6, "height_px": 4, "group": "7"}
        >>> row = Photograph(id="clinic/train/7", image="clinic/7.jpg", perceptual_hash="f" * 64, **known)
        >>> hashes_for([row, row], "vgg16") == ["f" * 64]
        True
    """
    start = weights_file(architecture, pretrained) if isinstance(pretrained, (str, os.PathLike)) else None
    earlier: list[str] | None = []
    if start is not None and read_weights(start).get("network") == GRADER:
        earlier = trained_hashes(start)
    return None if earlier is None else sorted({*earlier, *(row.perceptual_hash for row in rows)})


def trained_hashes(path: str | os.PathLike) -> list[str] | None:
    """Return the perceptual hashes of the photographs that weights were trained on; None if the file lists none.

    Raises:
        ValueError: if the file is missing, is not a weights file, or the fact has another form.

    Example:
        >>> import tempfile
        >>> from bundle.networks.weights import save_weights
        >>> from torch import nn
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), {"perceptual_hashes": ["f" * 64]})
        ...     trained_hashes(f"{folder}/model.pt") == ["f" * 64]
        True
    """
    found = fact(path, PERCEPTUAL_HASHES)
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(one, str) and HEXADECIMAL.fullmatch(one) for one in found):
        raise ValueError(f"expected {PERCEPTUAL_HASHES} as a list of 64 hexadecimal digits each in {path}, got others")
    return found


def taught_also(path: str | os.PathLike, rows: Sequence[Photograph]) -> dict[str, Any]:
    """Return the facts of weights that are taught the grades of more photographs: what they were trained on then.

    Sets of likely grades, fitted to what the head gave before, are no longer said.

    Args:
        path: of the weights before.
        rows: graded photographs; those that the weights were trained on already count once.

    Raises:
        ValueError: if the file is missing, is not a weights file, or does not list what it was trained on.

    Example:
        >>> import tempfile
        >>> from bundle.networks.weights import save_weights
        >>> from torch import nn
        >>> known = {"split": "train", "sha256": "0" * 64, "width_px": 6, "height_px": 4, "group": "7"}
        >>> row = Photograph(id="clinic/7", image="clinic/7.jpg", perceptual_hash="e" * 64, grade=1, **known)
        >>> facts = {"data": {"idrid": {"outlined": 41, "graded": 0}}, "num_training_images": 41}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/a.pt", nn.Linear(2, 3), {**facts, "perceptual_hashes": ["f" * 64]})
        ...     found = taught_also(f"{folder}/a.pt", [row])
        >>> found["data"], found["num_training_images"], found["taught_grades"]
        ({'clinic': {'outlined': 0, 'graded': 1}, 'idrid': {'outlined': 41, 'graded': 0}}, 42, [1])
    """
    before = trained_hashes(path)
    if before is None:
        raise ValueError(f"expected {PERCEPTUAL_HASHES} in {path}, got none; train it again")
    new = [row for row in rows if row.perceptual_hash not in before]
    data = {name: dict(counts) for name, counts in (fact(path, "data") or {}).items()}
    for row in new:
        counts = data.setdefault(row.dataset, dict.fromkeys(KINDS, 0))
        counts["graded"] += 1
    return {
        "data": dict(sorted(data.items())),
        "num_training_images": fact(path, "num_training_images", len(before)) + len(new),
        "taught_grades": sorted({row.grade for row in rows if row.grade is not None}),
        "grade_sets": None,
        PERCEPTUAL_HASHES: sorted({*before, *(row.perceptual_hash for row in new)}),
    }


def is_own(paths: Paths, manifest_sha256: str) -> bool:
    """Return whether weights, or any of several, were trained on this manifest.

    Example:
        >>> import tempfile
        >>> from bundle.networks.weights import save_weights
        >>> from torch import nn
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), {"manifest_sha256": "a1"})
        ...     is_own(f"{folder}/model.pt", "a1"), is_own(f"{folder}/model.pt", "b2")
        (True, False)
    """
    return bool(_own(paths, manifest_sha256))


def _own(paths: Paths, manifest_sha256: str) -> list[str | os.PathLike]:
    return [path for path in listed(paths) if fact(path, "manifest_sha256") == manifest_sha256]


def held_out(paths: Paths, manifest_sha256: str) -> int | None:
    """Return the fold of this manifest that weights held out.

    Returns:
        The fold; None if training used all folds or another manifest, or several weights held out different folds:
        each fold was then seen by one of them.

    Example:
        >>> import tempfile
        >>> from bundle.networks.weights import save_weights
        >>> from torch import nn
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), {"manifest_sha256": "a1", "fold": 3})
        ...     held_out(f"{folder}/model.pt", "a1"), held_out(f"{folder}/model.pt", "b2")
        (3, None)
    """
    first, *others = [fact(path, "fold") for path in _own(paths, manifest_sha256)] or [None]
    return first if all(fold == first for fold in others) else None


def refuse_seen(paths: Paths, manifest_sha256: str, fold: int | None, subsets: Collection[str]) -> None:
    """Refuse to score weights on their training photographs: of their own manifest, only test and held-out fold remain.

    Args:
        paths: of the weights. Of several that held out different folds, only the test remains.
        manifest_sha256: of the manifest that they are scored on.
        fold: the fold to treat as held out.
        subsets: names of the scored subsets, such as ``test`` or ``fold 0``.

    Raises:
        ValueError: if weights were trained on this manifest and either held out another fold, or training photographs
            are to be scored.
    """
    own = _own(paths, manifest_sha256)
    if own:
        check_facts(together(own), {"fold": held_out(own, manifest_sha256)}, {"fold": fold})
    if own and (seen := [name for name in subsets if name in ("train", "all")]):
        raise ValueError(
            "expected --split test or fold for weights on the manifest that they were trained on, got "
            f"{seen[0]!r}: {together(own)} has seen these photographs; score them on another manifest, or hold out a "
            "fold in training"
        )
