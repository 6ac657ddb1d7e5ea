"""A torch file is written whole, the same content as the same bytes, and a full disk is called by its name."""

import multiprocessing
import os
import resource
import signal

import torch
from bundle.networks.weights import save_whole


def test_the_same_content_has_the_same_bytes_in_every_folder(tmp_path):
    for name in ("a/model.pt", "b/model.pt"):
        save_whole(tmp_path / name, {"model": {"weight": torch.arange(6.0).reshape(2, 3)}, "facts": {"seed": 7}})
    first, second = ((tmp_path / name).read_bytes() for name in ("a/model.pt", "b/model.pt"))
    assert first == second
    assert str(os.getpid()).encode() not in first


def written_with_little_room(path, answers):
    """Say why weights of 40 kB cannot be written where a file may have 10 kB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    try:
        save_whole(path, {"model": torch.zeros(10_000)})
    except OSError as error:
        answers.send(str(error))


def test_a_full_disk_is_called_by_its_name_and_leaves_nothing(tmp_path):
    """A limit on the size of files stands for the disk; it is set in a process of its own, for it stays."""
    context = multiprocessing.get_context("fork")
    answer, answers = context.Pipe()
    process = context.Process(target=written_with_little_room, args=(tmp_path / "model.pt", answers))
    process.start()
    process.join()
    assert answer.poll()
    message = answer.recv()
    assert message.endswith("model.pt: File too large; make room there, and run the same command again")
    assert list(tmp_path.iterdir()) == []
