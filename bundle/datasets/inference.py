"""Input of inference: an unreadable photograph becomes an error row and the run continues."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from bundle.datasets.loading import DataLoader
from monai.data import Dataset
from torch import Tensor

LISTED = ("id", "error", "detail")
"""Keys that a batch stores as lists; details differ in size."""


class PhotographDataset(Dataset):
    """Transformed items; if the transform raises ValueError for an item, the message is stored under ``error``.

    Such an item gets a black image, so that batches stay complete; the network's output for it is not a result.
    ``error`` is empty for all others.

    Args:
        data: items of :func:`bundle.datasets.items.file_items`.
        transform: makes ``image`` float32 ``(3, S, S)``, ``geometry``, ``field_px``, ``quality`` and, for windows,
            ``detail``.
        image_size: ``S``.

    Example:
        >>> def refuse(item):
        ...     raise ValueError(f"expected a whole image in {item['id']}")
        >>> found = PhotographDataset([{"id": "7.jpg"}], refuse, image_size=64)[0]
        >>> found["error"], found["image"].shape
        ('expected a whole image in 7.jpg', torch.Size([3, 64, 64]))
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Callable, image_size: int) -> None:
        super().__init__(data, transform)
        self.image_size = image_size

    def _transform(self, index: int) -> dict[str, Any]:
        try:
            return {**super()._transform(index), "error": ""}
        except (ValueError, RuntimeError) as error:
            reason = reason_of(error)
            if reason is None:
                raise
            size = self.image_size
            return {
                "id": self.data[index]["id"],
                "error": reason,
                "image": torch.zeros(3, size, size),
                "geometry": torch.tensor([0.0, 0.0, size, size, size]),
                "field_px": torch.tensor(1),
                "quality": torch.zeros(4),
                "detail": torch.zeros(3, 1, 1, dtype=torch.uint8),
            }


class PhotographLoader(DataLoader):
    """Batches in order; without loader processes, a thread of this process loads the next one while one is in use.

    A forked process takes most of a gigabyte more: Python writes a reference count into every object that it reads, so
    the memory does not stay shared. MONAI's ``ThreadDataLoader`` ends early, and in silence, if an item raises an
    error.

    Example:
        >>> for batch in PhotographLoader([{"id": "a"}, {"id": "b"}], collate_fn=collate):
        ...     batch
        {'id': ['a']}
        {'id': ['b']}
    """

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]  # torch names a class of its own
        batches = super().__iter__()
        return batches if self.num_workers else _ahead(batches)


def _ahead(batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the same; a thread is at the next one. An error is raised where it would be without the thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="loading") as thread:
        following = thread.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = thread.submit(next, batches, None)
            yield batch


def reason_of(error: BaseException) -> str | None:
    """Return the message of the outermost ValueError among an error and its causes, or None.

    MONAI's Compose and its configs raise RuntimeError from the error of a component.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValueError):
        cause = cause.__cause__
    return None if cause is None else str(cause)


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make a batch: stack the tensors that all items have; list ids, errors and details.

    Example:
        >>> collate([{"id": "a", "grade": torch.tensor(2), "eye": "left"}, {"id": "b", "grade": torch.tensor(0)}])
        {'id': ['a', 'b'], 'grade': tensor([2, 0])}
    """
    known = [key for key, value in items[0].items() if key in LISTED or isinstance(value, Tensor)]
    shared = [key for key in known if all(key in item for item in items)]
    listed = {key: [item[key] for item in items] for key in shared}
    return {key: values if key in LISTED else torch.stack(values) for key, values in listed.items()}
