"""A file appears when it is whole, and a hash tells files apart."""

import csv
import io
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys

import pandas as pd
import pytest
from bundle import ROOT
from bundle.files import (
    TABLE_ENCODING,
    claim,
    content_sha256,
    file_sha256,
    release,
    write_csv_whole,
    write_text_whole,
    written_at_once,
    written_whole,
)
from PIL import Image


def test_what_is_written_whole_leaves_nothing_beside(tmp_path):
    write_text_whole(tmp_path / "deep" / "a.txt", "a")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_a_hash_is_that_of_sha256sum(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # the first example of FIPS 180-2
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_an_error_while_writing_leaves_the_old_file_and_nothing_beside(tmp_path):
    write_text_whole(tmp_path / "a.txt", "old")

    def fail():
        with written_whole(tmp_path / "a.txt") as beside:
            beside.write_text("half")
            raise RuntimeError("no more room")

    with pytest.raises(RuntimeError, match="no more room"):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_content_hash_depends_on_which_file_has_which_role(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    straight = content_sha256({"MA": tmp_path / "a", "HE": tmp_path / "b"})
    assert straight != content_sha256({"MA": tmp_path / "b", "HE": tmp_path / "a"})
    assert straight == content_sha256({"HE": tmp_path / "b", "MA": tmp_path / "a"})


def fails_with_room_for(size_max, write):
    """Whether it is an OSError to write where a file may have so many bytes; in a process of its own: that stays."""

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_max, resource.RLIM_INFINITY))
        try:
            write()
        except OSError:
            os._exit(7)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=limited)
    process.start()
    process.join()
    return process.exitcode == 7


def test_a_full_disk_leaves_the_old_file_whole(tmp_path):
    """A limit on the size of files stands for the disk."""
    write_text_whole(tmp_path / "a.json", "old")

    def write():
        write_text_whole(tmp_path / "a.json", "new" * 1000)

    assert fails_with_room_for(100, write)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "old")]


def test_a_picture_for_which_there_is_half_the_room_is_an_error_and_leaves_nothing(tmp_path):
    """Pillow takes no notice of a file that took only a part of a JPEG; the limit stands for the disk."""
    picture = Image.effect_noise((300, 200), 90)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")

    def write():
        with written_at_once(tmp_path / "a.jpg") as whole:
            picture.save(whole, "JPEG")

    assert fails_with_room_for(len(buffer.getvalue()) // 2, write)
    assert list(tmp_path.iterdir()) == []


CLAIMING = """
import os, sys, time
from bundle.files import claim
claim(sys.argv[1])
if os.fork() == 0:
    print("claimed", flush=True)  # by the child: it gives the lock up only when it runs
    time.sleep(60)  # a loader process that outlives a run that was killed
    os._exit(0)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has claimed a folder, with a child of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIMING, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "claimed\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_claimed_folder_is_refused_until_its_process_is_killed(tmp_path, other):
    with pytest.raises(ValueError, match=r"another run still works in .*: wait for it, or name another --output_dir"):
        claim(tmp_path)
    os.kill(other.pid, signal.SIGKILL)  # its child goes on
    other.wait()
    claim(tmp_path)
    release(tmp_path)


def test_a_process_may_claim_a_folder_twice_and_let_go_of_what_it_never_claimed(tmp_path):
    claim(tmp_path / "new")
    claim(tmp_path / "new")
    release(tmp_path / "new")
    release(tmp_path / "never")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_released_folder_is_free_for_another_process(tmp_path):
    claim(tmp_path)
    words = [sys.executable, "-c", "import sys; from bundle.files import claim; claim(sys.argv[1])", str(tmp_path)]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 1
    release(tmp_path)
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_a_claim_removes_what_a_killed_run_left_half_written_and_nothing_else(tmp_path, other):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kept = [f".a.{other.pid}.1.pt", ".hidden", ".a.b.c", "model.1.2.pt", "a.pt"]
    (tmp_path / "out" / "deep").mkdir(parents=True)
    for name in [*kept, f".state.{ended.pid}.140.pt", f"deep/.IDRiD_01.{ended.pid}.140.jpg", f".log.{os.getpid()}.1"]:
        (tmp_path / "out" / name).touch()
    claim(tmp_path / "out")
    release(tmp_path / "out")
    left = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert left == {*kept, ".run.lock"}


def test_a_table_begins_with_the_mark_that_excel_needs_and_is_read_back(tmp_path):
    write_csv_whole(tmp_path / "table.csv", [{"file": "Müller ö.jpg", "grade": 2}])
    assert (tmp_path / "table.csv").read_bytes().startswith(b"\xef\xbb\xbffile,grade\r\n")
    assert pd.read_csv(tmp_path / "table.csv").to_dict("records") == [{"file": "Müller ö.jpg", "grade": 2}]
    with (tmp_path / "table.csv").open(newline="", encoding=TABLE_ENCODING) as file:
        assert list(csv.DictReader(file)) == [{"file": "Müller ö.jpg", "grade": "2"}]


def test_all_tables_are_written_in_two_places_in_the_encoding_that_excel_needs():
    sources = [path for folder in ("bundle", "scripts") for path in (ROOT / folder).rglob("*.py")]
    texts = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sources}
    writers = {name: text for name, text in texts.items() if re.search(r"csv\.(DictW|w)riter|to_csv\(", text)}
    assert set(writers) == {"bundle/files.py", "bundle/reporting/predictions.py"}
    assert all("TABLE_ENCODING" in text for text in writers.values())
