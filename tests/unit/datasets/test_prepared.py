"""What was prepared once is read back; nothing stale, half-written or of another setting is ever served."""

import contextlib
import multiprocessing
import os
import resource
import signal
import time

import numpy as np
import pytest
import torch
from bundle.datasets.prepared import PreparedDataset, _dense, _sparse
from bundle.files import content_sha256
from hypothesis import given, settings
from hypothesis import strategies as st


class Halved:
    """Count its calls on disk, because workers have memories of their own."""

    settings = "halved"

    def __init__(self, log):
        self.log = log

    def __call__(self, data):
        with open(self.log, "a") as file:
            file.write(f"{data['id']}\n")
        level = os.path.getsize(data["image"])
        image = torch.full((3, 4, 6), level, dtype=torch.uint8)
        lesions = torch.zeros((1, 4, 6), dtype=torch.uint8)
        lesions[0, 1, 2] = 3
        return {**data, "image": image, "lesions": lesions, "geometry": torch.tensor([1.5, 2.0])}


def item(folder, name, content=b"four"):
    path = folder / f"{name}.jpg"
    path.write_bytes(content)
    files = {"image": str(path)}
    return {"id": name, "image": str(path), "files": files, "sha256": content_sha256(files)}


@pytest.fixture
def data_set(tmp_path):
    """Make a data set of some items in one cache; its log lists what was prepared."""

    def make(*items, **options):
        return PreparedDataset(items, Halved(tmp_path / "log"), tmp_path / "cache", **options)

    return make


def prepared(tmp_path):
    return (tmp_path / "log").read_text().split() if (tmp_path / "log").exists() else []


def entries(tmp_path):
    """Those with a final name; a killed process may leave a hidden one, half written."""
    return sorted(path for path in (tmp_path / "cache").rglob("*.npz") if not path.name.startswith("."))


def test_an_item_is_prepared_once_and_read_back_the_same(tmp_path, data_set):
    eye = item(tmp_path, "eye")
    first, second = data_set(eye)[0], data_set(eye)[0]
    assert prepared(tmp_path) == ["eye"]
    assert first["image"].unique().tolist() == [4]
    assert torch.equal(first["lesions"], second["lesions"])
    assert second["lesions"].sum() == second["lesions"][0, 1, 2] == 3
    assert second["geometry"].tolist() == [1.5, 2.0]
    assert (second["image"].dtype, second["image"].shape) == (torch.uint8, (3, 4, 6))


def test_what_comes_after_runs_at_every_access_and_its_changes_are_not_kept(tmp_path, data_set):
    found = data_set(item(tmp_path, "eye"), transform=lambda data: data["image"].add_(1))
    assert [found[0].unique().tolist(), found[0].unique().tolist()] == [[5], [5]]


def test_the_item_stays_as_it_was(tmp_path, data_set):
    eye = item(tmp_path, "eye")
    before, table = dict(eye), {"eye": {"grade": 2}}
    data_set(eye, table=table)[0]
    assert (eye, table) == (before, {"eye": {"grade": 2}})


def test_a_row_of_the_table_joins_the_item_and_only_the_keys_go_on(tmp_path, data_set):
    eye, table = item(tmp_path, "eye"), {"eye": {"grade": 2}}
    shown = data_set(eye, table=table, keys=["id", "grade"], transform=lambda data: {**data, "seen": list(data)})[0]
    assert shown == {"id": "eye", "grade": 2, "seen": ["id", "grade"]}
    assert data_set(eye, table={"eye": {"grade": 3}}, keys=["grade"])[0] == {"grade": 3}
    assert prepared(tmp_path) == ["eye"]  # what the table holds is not cached


@pytest.mark.parametrize("wanted", [{"table": {}}, {"keys": ["grade"]}])
def test_an_item_without_a_row_or_without_a_key_is_an_error(tmp_path, data_set, wanted):
    with pytest.raises(KeyError):
        data_set(item(tmp_path, "eye"), **wanted)[0]


def test_another_setting_is_another_entry(tmp_path, data_set):
    eye = item(tmp_path, "eye")
    data_set(eye)[0]
    other = Halved(tmp_path / "log")
    other.settings = "quartered"
    PreparedDataset([eye], other, tmp_path / "cache")[0]
    assert prepared(tmp_path) == ["eye", "eye"]
    assert {path.parent.parent.name for path in entries(tmp_path)} == {"halved", "quartered"}


def test_a_changed_file_of_a_new_manifest_is_prepared_again(tmp_path, data_set):
    assert data_set(item(tmp_path, "eye"))[0]["image"].unique().tolist() == [4]
    assert data_set(item(tmp_path, "eye", b"longer"))[0]["image"].unique().tolist() == [6]


def test_a_changed_file_of_the_same_manifest_is_refused(tmp_path, data_set):
    eye = item(tmp_path, "eye")
    data_set(eye)[0]
    item(tmp_path, "eye", b"five!")
    with pytest.raises(ValueError, match=r"eye: expected files with the sha256 .* run scripts\.prepare again"):
        data_set(eye)[0]


def test_a_mask_that_takes_the_place_of_another_is_noticed(tmp_path, data_set):
    eye = item(tmp_path, "eye")
    ma, he = item(tmp_path, "ma", b"1")["image"], item(tmp_path, "he", b"2")["image"]
    eye["files"] |= {"MA": ma, "HE": he}
    eye["sha256"] = content_sha256(eye["files"])
    data_set(eye)[0]
    with pytest.raises(ValueError, match="a photograph or mask changed since"):
        data_set({**eye, "files": {**eye["files"], "MA": he, "HE": ma}})[0]


def test_a_touched_file_is_compared_but_not_prepared_again(tmp_path, data_set):
    eye = item(tmp_path, "eye")
    data_set(eye)[0]
    os.utime(eye["image"], (1, 1))
    assert data_set(eye)[0]["image"].unique().tolist() == [4]
    assert prepared(tmp_path) == ["eye"]


def test_two_copies_of_one_file_do_not_fight_for_an_entry(tmp_path, data_set):
    found = data_set(item(tmp_path, "a"), item(tmp_path, "b"))
    for index in (0, 1, 0, 1):
        found[index]
    assert prepared(tmp_path) == ["a", "b"]


def encrypted(whole):
    """Set the bit of the zip's directory that marks the first file as encrypted."""
    at = whole.index(b"PK\1\2") + 8
    return whole[:at] + bytes([whole[at] | 1]) + whole[at + 1 :]


@pytest.mark.parametrize(
    "harm", [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: b"x" * 99, encrypted]
)
def test_a_broken_entry_is_made_again(tmp_path, data_set, harm):
    eye = item(tmp_path, "eye")
    data_set(eye)[0]
    (entry,) = entries(tmp_path)
    entry.write_bytes(harm(entry.read_bytes()))
    assert data_set(eye)[0]["image"].unique().tolist() == [4]
    assert prepared(tmp_path) == ["eye", "eye"]
    assert data_set(eye)[0]["lesions"].sum() == 3
    assert prepared(tmp_path) == ["eye", "eye"]


def test_a_pass_prepares_only_what_is_missing(tmp_path, data_set):
    items = [item(tmp_path, name) for name in "abcde"]
    data_set(*items[:2]).fill()
    data_set(*items).fill(num_workers=2)
    assert sorted(prepared(tmp_path)) == list("abcde")
    assert prepared(tmp_path)[:2] == ["a", "b"]
    assert len(entries(tmp_path)) == 5


def test_a_pass_over_nothing_is_none(tmp_path, data_set):
    data_set().fill()
    assert entries(tmp_path) == []


def test_two_passes_at_once_prepare_each_item_once(tmp_path, data_set):
    items = [item(tmp_path, f"eye{number}") for number in range(20)]
    both = [multiprocessing.get_context("fork").Process(target=data_set(*items).fill) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted(prepared(tmp_path)) == sorted(one["id"] for one in items)


class Slow(Halved):
    def __call__(self, data):
        time.sleep(0.05)
        return super().__call__(data)


def in_a_process(tmp_path, file_size_max=resource.RLIM_INFINITY):
    """Start a slow pass over 40 items; return the process, and where its error can be received."""
    items = [item(tmp_path, f"eye{number}") for number in range(40)]
    found = PreparedDataset(items, Slow(tmp_path / "log"), tmp_path / "cache")
    received, sent = multiprocessing.Pipe(duplex=False)

    def passes():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size_max, resource.RLIM_INFINITY))
        # What is shown on the screen would be written to a file here.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            try:
                found.fill()
            except OSError as error:
                sent.send(str(error))

    process = multiprocessing.get_context("fork").Process(target=passes)
    process.start()
    sent.close()
    return process, received


def test_a_pass_that_was_killed_goes_on(tmp_path, data_set):
    process, _ = in_a_process(tmp_path)
    while len(prepared(tmp_path)) < 5 and process.is_alive():
        time.sleep(0.01)
    process.kill()
    process.join()
    before = len(entries(tmp_path))
    assert 4 <= before < 40
    stamps = {path: path.stat().st_mtime_ns for path in entries(tmp_path)}
    found = data_set(*[item(tmp_path, f"eye{number}") for number in range(40)])
    found.fill()
    assert len(entries(tmp_path)) == 40
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert all(found[index]["lesions"].sum() == 3 for index in range(40))


def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path, data_set):
    process, received = in_a_process(tmp_path, file_size_max=300)
    error = received.recv()
    process.join()
    assert error.startswith("cannot keep a prepared photograph in ")
    assert "make room there, or name another --cache_dir" in error
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != ".lock"] == []
    found = data_set(item(tmp_path, "eye0"))
    found.fill()
    assert found[0]["lesions"].sum() == 3


def test_a_missing_photograph_is_named(tmp_path, data_set):
    eye = item(tmp_path, "eye")
    os.unlink(eye["image"])
    with pytest.raises(ValueError, match=r"eye: expected its files where the manifest says, .*No such file.*eye\.jpg"):
        data_set(eye)[0]


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from([(1, 5, 7), (3, 4, 6), (2, 1, 3)]))
@settings(max_examples=40, deadline=None)
def test_storing_as_places_and_values_loses_nothing(seed, share, shape):
    rng = np.random.default_rng(seed)
    bytes_ = (rng.random(shape) < share) * rng.integers(1, 256, shape).astype(np.uint8)
    arrays = {"lesions": bytes_.astype(np.uint8), "geometry": rng.random(5).astype(np.float32)}
    back = _dense(_sparse(arrays))
    assert set(back) == set(arrays)
    assert all((back[name] == array).all() and back[name].dtype == array.dtype for name, array in arrays.items())
