"""A photograph that cannot be read is a reason in a whole batch; what is our own mistake is raised."""

import threading

import numpy as np
import pytest
import torch
from bundle.datasets.inference import PhotographDataset, PhotographLoader, collate, reason_of
from bundle.datasets.items import file_items
from bundle.transforms import CutDetaild, MeasureFieldd, PrepareFundusd
from monai.transforms import Compose, ScaleIntensityRanged
from PIL import Image

from tests.conftest import eye

SIZE = 64


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(eye(1, 150, 100)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    Image.fromarray(eye(2, 90, 120)).save(tmp_path / "c.png")
    return tmp_path


def dataset(folder, *more):
    steps = Compose([PrepareFundusd(SIZE), MeasureFieldd(), *more])
    return PhotographDataset(file_items(folder), steps, SIZE)


def test_the_others_go_on(folder):
    errors = [item["error"] for item in dataset(folder)]
    assert (errors[0], errors[2]) == ("", "")
    assert errors[1].startswith("expected a whole image in ")
    assert "b.jpg" in errors[1]


def test_a_batch_is_whole_and_lists_what_differs_in_size(folder):
    batch = collate(list(dataset(folder, CutDetaild(), ScaleIntensityRanged("image", 0, 255, 0, 1))))
    assert sorted(batch) == ["detail", "error", "field_px", "geometry", "id", "image"]  # no path, for one
    assert batch["id"] == ["a.png", "b.jpg", "c.png"]
    assert tuple(batch["image"].shape) == (3, 3, SIZE, SIZE)
    assert (batch["image"].flatten(1).amax(dim=1) > 0).tolist() == [True, False, True]
    assert [tuple(one.shape[1:]) for one in batch["detail"]] == [(s, s) for s in (
        int(batch["geometry"][0, 2]), 1, int(batch["geometry"][2, 2]))]  # fmt: skip


def test_a_batch_of_nothing_but_failures_is_one_too(tmp_path):
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    assert tuple(collate([dataset(tmp_path)[0]])["image"].shape) == (1, 3, SIZE, SIZE)


def test_the_field_is_measured_in_native_pixels(folder):
    item = dataset(folder)[0]
    assert int(item["field_px"]) == pytest.approx(np.pi * 45**2, rel=0.05)  # a disc of radius 0.45 x 100


def test_a_detail_is_the_same_square_at_another_size(folder):
    native = dataset(folder, CutDetaild())[0]
    larger = dataset(folder, CutDetaild(96))[0]
    left, top, side = (int(one) for one in native["geometry"][:3])
    pixels = np.asarray(Image.open(folder / "a.png"))
    inside = pixels[max(top, 0) : top + side, max(left, 0) : left + side]
    assert np.array_equal(
        native["detail"].permute(1, 2, 0).numpy()[max(-top, 0) :][: len(inside), : inside.shape[1]], inside
    )
    assert tuple(larger["detail"].shape) == (3, 96, 96)
    assert torch.equal(larger["image"], native["image"])


def test_a_detail_coarser_than_the_whole_is_refused(folder):
    with pytest.raises(ValueError, match="expected a lesion_size of 64 or more, got 32"):
        CutDetaild(32)(dataset(folder)[0])


@pytest.mark.parametrize("error", [TypeError, RuntimeError])
def test_a_mistake_of_ours_is_raised(folder, error):
    def broken(item):
        raise error("a bug")

    with pytest.raises(RuntimeError, match=r"applying transform|a bug"):
        dataset(folder, broken)[0]


def test_the_reason_is_the_message_of_the_value_error_behind_it():
    outer, inner = RuntimeError("applying transform"), ValueError("expected a whole image")
    outer.__cause__ = inner
    assert reason_of(outer) == reason_of(inner) == "expected a whole image"
    assert reason_of(RuntimeError("a bug")) is None


def loader(items, **options):
    return PhotographLoader(items, collate_fn=lambda batch: batch, **options)


class Recorded(list):
    """Items, and by which thread each was loaded; `count` is released for each."""

    def __init__(self, items):
        super().__init__(items)
        self.loaded, self.count = [], threading.Semaphore(0)

    def __getitem__(self, index):
        item = super().__getitem__(index)
        self.loaded.append((item, threading.current_thread().name))
        self.count.release()
        if item == "broken":
            raise RuntimeError("a mistake of ours")
        return item


def test_batches_come_in_order_and_again():
    batches = loader(["a", "b", "c"], batch_size=2)
    assert [list(batches), list(batches)] == [[["a", "b"], ["c"]]] * 2


def test_the_next_one_is_loaded_by_a_thread_while_one_is_in_use():
    items = Recorded(["a", "b", "c"])
    batches = iter(loader(items))
    assert next(batches) == ["a"]
    assert all(items.count.acquire(timeout=60) for _ in "ab")  # b as well, which nobody has asked for yet
    assert list(batches) == [["b"], ["c"]]
    assert [item for item, _ in items.loaded] == ["a", "b", "c"]
    assert {name for _, name in items.loaded} == {"loading_0"}


def test_an_error_of_the_thread_is_raised_after_the_batches_before_it():
    batches = iter(loader(Recorded(["a", "broken", "c"])))
    assert next(batches) == ["a"]
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        next(batches)


def test_leaving_early_ends_the_thread():
    for _ in loader(["a", "b", "c"]):
        break
    assert not [one for one in threading.enumerate() if one.name.startswith("loading")]


def test_with_loader_processes_there_is_no_thread():
    assert [type(iter(PhotographLoader(["a"], num_workers=n))).__name__ for n in (0, 1)] == [
        "generator", "_MultiProcessingDataLoaderIter",
    ]  # fmt: skip
