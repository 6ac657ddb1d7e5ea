"""Photographs that weights were trained on, in any manifest: recognised by their perceptual hashes."""

import os
from collections.abc import Sequence

from bundle.datasets.copies import group_copies, near_pairs, unpack
from bundle.datasets.readers.files import names
from bundle.manifest import Manifest, Photograph
from bundle.networks.ensembles import Paths, listed
from bundle.networks.trained_on import is_own, trained_hashes

REMEDY = (
    "prepare the two data sets, join them (scripts.prepare --dataset joined), and train on that manifest: it keeps "
    "copies apart"
)


def seen_photographs(path: str | os.PathLike, rows: Sequence[Photograph]) -> list[Photograph] | None:
    """Select the photographs that weights were trained on, or copies of them, as the audit finds copies.

    Args:
        path: of the weights.
        rows: photographs of any manifest.

    Returns:
        The seen photographs, in the order of ``rows``; None if the weights file does not list what it was trained on.

    Raises:
        ValueError: as :func:`bundle.networks.trained_on.trained_hashes`.

    Example:
        >>> import tempfile
        >>> from bundle.networks.weights import save_weights
        >>> from torch import nn
        >>> known = {"split": "train", "sha256": "0" * 64, "width_px": 6, "height_px": 4, "image": "clinic/a.jpg"}
        >>> hashes = {"a": "f" * 63 + "e", "b": "0" * 64}  # a differs from the first trained one in one bit
        >>> rows = [Photograph(id=name, group=name, perceptual_hash=bits, **known) for name, bits in hashes.items()]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_weights(f"{folder}/model.pt", nn.Linear(2, 3), {"perceptual_hashes": ["f" * 64, "f0" * 32]})
        ...     [row.id for row in seen_photographs(f"{folder}/model.pt", rows)]
        ['a']
    """
    trained = trained_hashes(path)
    if trained is None:
        return None
    hashes = [*trained, *(row.perceptual_hash for row in rows)]
    first = group_copies(len(hashes), near_pairs(unpack(hashes)))[len(trained) :]  # (rows,)
    return [row for row, index in zip(rows, first, strict=True) if index < len(trained)]


def count_seen(paths: Paths, rows: Sequence[Photograph]) -> int | None:
    """Count :func:`seen_photographs` of any of the weights; None if a file does not list what it was trained on."""
    seen = [seen_photographs(path, rows) for path in listed(paths)]
    return None if None in seen else len({row.id for one in seen for row in one or ()})


def refuse_seen_by_graders(
    graders: Sequence[str | os.PathLike] | str, manifest: Manifest, rows: Sequence[Photograph]
) -> None:
    """Refuse graders that were trained on a photograph that they are to grade, or on a copy: they would remember it.

    Graders of the same manifest may lack the list of their photographs: none of them has an outlined copy.

    Args:
        graders: weights files of stage 1, of any manifests.
        manifest: of the photographs.
        rows: photographs to grade.

    Raises:
        ValueError: if a grader was trained on one of them, or comes from another manifest and does not say what it was
            trained on.
    """
    for path in [graders] if isinstance(graders, str) else graders:
        seen = seen_photographs(path, rows)
        if seen is None and not is_own(path, manifest.sha256):
            raise ValueError(
                f"expected graders that list the photographs that they were trained on, or that were trained on this "
                f"manifest, got {path} of another manifest without such a list: train it again with "
                f"configs/pretrain.yaml, which writes one; or {REMEDY}"
            )
        if seen:
            raise ValueError(
                f"expected graders that never saw the photographs that they are to grade, got {path}, trained on "
                f"{_some(seen, rows)}: it would remember their grades; {REMEDY}"
            )


def refuse_scoring_seen(paths: Paths, manifest_sha256: str, rows: Sequence[Photograph]) -> None:
    """Refuse to score weights on photographs of another manifest that they were trained on.

    On their own manifest :func:`bundle.networks.trained_on.refuse_seen` decides: it may keep copies on purpose.

    Raises:
        ValueError: if training saw a photograph, or a copy of it.
    """
    for path in listed(paths):
        if not is_own(path, manifest_sha256) and (seen := seen_photographs(path, rows)):
            raise ValueError(
                f"expected photographs that training never saw, got {_some(seen, rows)}, on which {path} was trained; "
                f"score another --split, or prepare a manifest without them"
            )


def _some(seen: Sequence[Photograph], rows: Sequence[Photograph]) -> str:
    return f"{len(seen)} of these {len(rows)} or copies of them ({names(row.id for row in seen)})"
