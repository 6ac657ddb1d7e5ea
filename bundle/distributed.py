"""Distributed training: device and rank of this process, which process writes files, and means over processes."""

import os
from collections.abc import Sequence
from typing import TypeVar

import ignite.distributed as idist
import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def start() -> None:
    """Join the process group of torchrun: NCCL between GPUs, Gloo without GPUs.

    Raises:
        ValueError: if torchrun did not start this process.
    """
    if "LOCAL_RANK" not in os.environ:
        raise ValueError(
            "expected to be started by torchrun, got no LOCAL_RANK; leave multi_gpu_train.yaml out otherwise"
        )
    if not dist.is_initialized():
        # Through Ignite; otherwise its metrics would treat this process as the only one.
        idist.initialize("nccl" if torch.cuda.is_available() else "gloo")


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        idist.finalize()


def joined_over_ranks(parts: list[T]) -> list[T]:
    """Join the lists of all processes; a single process gets its list back."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return parts
    of_ranks: list[list[T]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(of_ranks, parts)
    return [part for parts_of_rank in of_ranks for part in parts_of_rank]


def local_device() -> torch.device:
    """Return this process's GPU, or the CPU if there is no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def synchronised(network: nn.Module) -> nn.Module:
    """Synchronise the decoder's batch norm over all processes, on GPUs; PyTorch has no such layer for a CPU.

    The encoder's batch norm is not synchronised: the meta gradient needs its forward derivative, which PyTorch's
    synchronised layer does not have.
    """
    if next(network.parameters()).is_cuda:
        network.decoder = nn.SyncBatchNorm.convert_sync_batchnorm(network.decoder)
    return network


def rank() -> int:
    """Return the rank of this process; 0 for a single process.

    Example:
        >>> rank()
        0
    """
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes.

    Example:
        >>> world_size()
        1
    """
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Return whether this process is the one that writes files.

    Example:
        >>> is_main()
        True
    """
    return rank() == 0


def mean_over_ranks(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Average each tensor over the processes, in one message; a single process gets its tensors back.

    Example:
        >>> mean_over_ranks([torch.tensor([1.0, 2.0])])
        [tensor([1., 2.])]
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    pieces = flat.split([tensor.numel() for tensor in tensors])
    return [piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]
