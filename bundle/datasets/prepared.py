"""Photographs as the networks need them, prepared once and cached on disk."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from bundle.files import DECODER_ERRORS, content_sha256, locked, written_whole
from monai.data import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

Item = Mapping[str, Any]

SPARSE, SPARSE_SHARE_MAX = ".sparse", 0.12
"""A tensor with at most this share of non-zero elements is stored as a list of them, eight bytes each."""


class Prepare(Protocol):
    """Makes tensors of an item; the same item and settings always give the same tensors."""

    @property
    def settings(self) -> str:
        """Name of the settings that the result depends on, apart from the item; part of a folder's name."""

    def __call__(self, data: Item) -> dict[str, Any]:
        """Return the item with its tensors."""


class PreparedDataset(Dataset):
    """Photographs prepared once and then read from disk; steps that are random or depend on labels come afterwards.

    An entry is a file ``<cache_dir>/<settings>/<xx>/<sha256>.npz``. Its name is derived from the content of the
    photograph's files and from its id, and it stores their sizes and modification times, so an entry made from another
    file, mask or setting is never returned. A file that changed since the manifest was made is an error. Entries are
    written to a temporary file and renamed, so several processes may share a cache. Memory use does not grow with the
    number of photographs.

    Args:
        data: items of :func:`bundle.datasets.items.items`.
        prepare: makes the cached tensors.
        cache_dir: folder of the cache; several data sets may share it.
        transform: applied to the entries in ``keys``, at every access.
        table: further entries of each item by its id, such as its labels; they are not cached.
        keys: entries to keep, of the item, its prepared tensors and its row of the table; None keeps all.
    """

    def __init__(
        self,
        data: Sequence[Item],
        prepare: Prepare,
        cache_dir: str | os.PathLike,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        table: Mapping[str, Mapping[str, Any]] | None = None,
        keys: Sequence[str] | None = None,
    ) -> None:
        super().__init__(data, transform)
        self.prepare, self.folder = prepare, Path(cache_dir) / prepare.settings
        self.table, self.keys = table, keys

    def _transform(self, index: int) -> Any:  # noqa: ANN401  (whatever the transform makes)
        item = self.data[index]
        item = {**item, **self.prepared(item), **(self.table[item["id"]] if self.table is not None else {})}
        kept = item if self.keys is None else {key: item[key] for key in self.keys}
        return kept if self.transform is None else self.transform(kept)

    def prepared(self, item: Item) -> dict[str, Tensor]:
        """Return the prepared tensors of an item; make them if they are not cached.

        Raises:
            ValueError: if a file is missing or broken, or changed since the manifest was made.
            OSError: if the entry cannot be written.
        """
        path = self.path(item)
        stored, stamp = _read(path), np.array(_stamp(item))
        if stored is None or not np.array_equal(stored["stamp"], stamp):
            _check_unchanged(item)
            if stored is None:
                tensors = self.prepare(item)
                stored = {name: value.numpy() for name, value in tensors.items() if isinstance(value, Tensor)}
            stored = {**stored, "stamp": stamp}
            _write(path, stored)
        return {name: torch.from_numpy(array) for name, array in stored.items() if name != "stamp"}

    def path(self, item: Item) -> Path:
        """Return the file that holds an item's tensors."""
        # Copies of one file have one entry each, because each has its own modification time.
        key = hashlib.sha256(f"{item['sha256']} {item['id']}".encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.npz"

    def fill(self, num_workers: int = 0, multiprocessing_context: str | None = None) -> None:
        """Prepare all items not cached yet, with a progress bar. A second process waits, then prepares the rest.

        Args:
            num_workers: loader processes.
            multiprocessing_context: how they are started; None is the system's own way.

        Raises:
            ValueError: as in :meth:`prepared`.
            OSError: as in :meth:`prepared`.
        """
        with locked(self.folder / ".lock"):
            missing = [item for item in self.data if not self.path(item).is_file()]
            processes = num_workers if missing else 0
            loader = DataLoader(
                _Filling(self, missing), batch_size=None, num_workers=processes,
                multiprocessing_context=multiprocessing_context if processes else None,
            )  # fmt: skip
            for _ in tqdm(loader, desc="preparing photographs", total=len(missing), disable=None if missing else True):
                pass


class _Filling(torch.utils.data.Dataset):
    """Data set that prepares items in the loader's workers; their tensors are not returned."""

    def __init__(self, prepared: PreparedDataset, items: Sequence[Item]) -> None:
        self.prepared, self.items = prepared, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> int:
        self.prepared.prepared(self.items[index])
        return index


def _stamp(item: Item) -> list[list[int]]:
    """Return size and modification time of each file: cheap to compare, and different after a file was touched."""
    try:
        statuses = [os.stat(path) for _, path in sorted(item["files"].items())]
    except OSError as error:
        raise ValueError(f"{item['id']}: expected its files where the manifest says, {error}") from None
    return [[status.st_size, status.st_mtime_ns] for status in statuses]


def _check_unchanged(item: Item) -> None:
    try:
        found = content_sha256(item["files"])
    except OSError as error:
        raise ValueError(f"{item['id']}: expected its files where the manifest says, {error}") from None
    if found != item["sha256"]:
        raise ValueError(
            f"{item['id']}: expected files with the sha256 {item['sha256'][:12]} that the manifest names, got "
            f"{found[:12]}: a photograph or mask changed since; run scripts.prepare again"
        )


def _read(path: Path) -> dict[str, NDArray] | None:
    """Read an entry; return None if it is missing or incomplete."""
    try:
        with np.load(path) as file:
            stored = dict(file)
    except (*DECODER_ERRORS, RuntimeError, zipfile.BadZipFile):  # RuntimeError: a damaged entry may look encrypted
        return None
    return _dense(stored)


def _write(path: Path, arrays: Mapping[str, NDArray]) -> None:
    try:
        with written_whole(path) as beside:
            np.savez(beside, allow_pickle=False, **_sparse(arrays))
    except OSError as error:
        raise OSError(
            f"cannot keep a prepared photograph in {path.parent}: {error.strerror or error}; make room there, or name "
            f"another --cache_dir"
        ) from error


def _sparse(arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Store a nearly empty array as one list: its three sizes, then ``place * 256 + value``."""
    stored: dict[str, NDArray] = {}
    for name, array in arrays.items():
        bytes_ = array.dtype == np.uint8 and array.ndim == 3
        if bytes_ and np.count_nonzero(array) <= SPARSE_SHARE_MAX * array.size:
            at = np.flatnonzero(array != 0)  # (non-zero elements,): places in the flat array
            stored[name + SPARSE] = np.concatenate([array.shape, at * 256 + array.reshape(-1)[at]])
        else:
            stored[name] = array
    return stored


def _dense(stored: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Restore the arrays that :func:`_sparse` stored as lists."""
    arrays = {}
    for name, array in stored.items():
        if name.endswith(SPARSE):
            size, listed = np.split(array, [3])  # (3,) and (non-zero elements,)
            array = np.zeros(size, np.uint8)
            array.reshape(-1)[listed // 256] = listed % 256
        arrays[name.removesuffix(SPARSE)] = array
    return arrays
