"""A file appears when it is whole, and a hash tells files apart."""

import multiprocessing
import os
import resource
import signal

import pytest

from bundle.files import content_sha256, file_sha256, write_text_whole, written_whole


def test_what_is_written_whole_leaves_nothing_beside(tmp_path):
    write_text_whole(tmp_path / "deep" / "a.txt", "a")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_a_hash_depends_on_every_file_and_their_order(tmp_path):
    (tmp_path / "a").write_bytes(b"ab")
    (tmp_path / "b").write_bytes(b"c")
    both = file_sha256([tmp_path / "a", tmp_path / "b"])
    assert both != file_sha256([tmp_path / "b", tmp_path / "a"])
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"bc")
    assert both != file_sha256([tmp_path / "a", tmp_path / "b"])


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


def test_a_full_disk_leaves_the_old_file_whole(tmp_path):
    """A limit on the size of files stands for the disk; it is set in a process of its own, for it stays."""
    write_text_whole(tmp_path / "a.json", "old")

    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        try:
            write_text_whole(tmp_path / "a.json", "new" * 1000)
        except OSError:
            os._exit(7)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=write)
    process.start()
    process.join()
    assert process.exitcode == 7
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "old")]
