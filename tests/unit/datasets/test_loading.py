"""Loader processes are started in any way, and an end of shared memory ends the run."""

import pytest
import torch
from bundle.datasets import loading
from bundle.datasets.inference import collate
from bundle.datasets.loading import DataLoader, SharedBatches
from monai.data.utils import list_data_collate

ITEMS = [{"id": name, "image": torch.full((3, 4, 6), value)} for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_those_of_the_collate_function(workers):
    batches = list(DataLoader(ITEMS, batch_size=2, num_workers=workers, collate_fn=collate))
    assert [batch["id"] for batch in batches] == [["a", "b"], ["c"]]
    assert torch.equal(batches[1]["image"], torch.full((1, 3, 4, 6), 3.0))


def test_without_one_it_is_monais():
    (batch,) = DataLoader(ITEMS, batch_size=3)
    assert torch.equal(batch["image"], list_data_collate(ITEMS)["image"])


def test_a_method_of_starting_processes_counts_only_where_there_are_some():
    assert DataLoader(ITEMS, multiprocessing_context="spawn").multiprocessing_context is None
    assert DataLoader(ITEMS, num_workers=1, multiprocessing_context="spawn").multiprocessing_context._name == "spawn"
    with pytest.raises(ValueError, match="multiprocessing_context"):
        DataLoader(ITEMS, num_workers=1, multiprocessing_context="thread")


def in_worker(monkeypatch, message):
    def full(self):
        raise RuntimeError(message)

    monkeypatch.setattr(loading, "get_worker_info", lambda: object())
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    return SharedBatches(collate)


def test_full_shared_memory_is_refused_with_two_ways_out(monkeypatch):
    batches = in_worker(monkeypatch, "unable to allocate shared memory(shm) for file </torch_1>: No space left (28)")
    with pytest.raises(ValueError, match=r"expected room in /dev/shm.*`--num_workers 0`.*`docker run --shm-size 2g`"):
        batches(ITEMS)


def test_any_other_error_of_a_loader_process_stays(monkeypatch):
    with pytest.raises(RuntimeError, match="CUDA is not there"):
        in_worker(monkeypatch, "CUDA is not there")(ITEMS)


def test_a_batch_lies_in_shared_memory_before_it_is_sent(monkeypatch):
    monkeypatch.setattr(loading, "get_worker_info", lambda: object())
    batch = SharedBatches(lambda items: {"image": torch.stack(items), "detail": [*items], "id": "a"})(
        [torch.ones(2, 3)]
    )
    assert batch["image"].is_shared()
    assert batch["detail"][0].is_shared()
