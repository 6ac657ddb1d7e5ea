"""Batches from loader processes: started in any way, and refused in one sentence if shared memory is too small."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import monai.data
from monai.data.utils import list_data_collate
from torch import Tensor
from torch.utils.data import Dataset, Sampler, get_worker_info

FULL = "shared memory"
"""In torch's message if /dev/shm is full."""


class DataLoader(monai.data.DataLoader):
    """MONAI's loader, whose processes may be started by another method, and which ends if shared memory is full.

    Args:
        dataset: made in this process, and pickled for processes that are spawned.
        batch_size: items in a batch.
        num_workers: loader processes; 0 loads in this process.
        multiprocessing_context: ``spawn``, ``forkserver`` or ``fork``; None is the system's own. Without loader
            processes it has no effect.
        shuffle, sampler, drop_last, collate_fn: as for MONAI's loader.

    Raises:
        ValueError: if the system has no such method; while iterating, if a batch does not fit into shared memory.

    Example:
        >>> [batch.tolist() for batch in DataLoader([1, 2, 3], batch_size=2)]
        [[1, 2], [3]]
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        num_workers: int = 0,
        multiprocessing_context: str | None = None,
        *,
        shuffle: bool = False,
        sampler: Sampler | None = None,
        drop_last: bool = False,
        collate_fn: Callable[[Sequence], Any] = list_data_collate,
    ) -> None:
        context = multiprocessing_context if num_workers else None
        super().__init__(
            dataset, num_workers, batch_size=batch_size, shuffle=shuffle, sampler=sampler, drop_last=drop_last,
            collate_fn=SharedBatches(collate_fn), multiprocessing_context=context,
        )  # fmt: skip


class SharedBatches:
    """Makes batches, and moves them to shared memory in the loader process itself.

    Otherwise a thread of that process does so: if the memory is full, it prints the error and drops the batch, for
    which the main process then waits for ever (PyTorch 2.12).
    """

    def __init__(self, collate: Callable[[Sequence], Any]) -> None:
        self.collate = collate

    def __call__(self, items: Sequence) -> Any:  # noqa: ANN401  (any batch)
        if get_worker_info() is None:
            return self.collate(items)
        try:
            batch = self.collate(items)
            _share(batch)
        except RuntimeError as error:
            if FULL not in str(error):
                raise
            raise ValueError(
                "expected room in /dev/shm, through which loader processes send batches, but it is full; load in the "
                "main process, `--num_workers 0`, or make it larger: `docker run --shm-size 2g`"
            ) from error
        return batch


def _share(batch: object) -> None:
    """Move every tensor of a batch to shared memory."""
    if isinstance(batch, Tensor):
        batch.share_memory_()
    elif isinstance(batch, (Mapping, list, tuple)):
        for one in batch.values() if isinstance(batch, Mapping) else batch:
            _share(one)
