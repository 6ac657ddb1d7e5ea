"""Photographs of an epoch of stage 2: all outlined ones, and a share of graded ones."""

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import DistributedSampler


class OutlinedAndGraded(DistributedSampler):
    """Sampler that draws every outlined photograph once per epoch, and enough graded ones to make up a share of it.

    For ``n`` outlined photographs and a share ``s``, each epoch draws ``round(n s / (1 - s))`` graded ones at random,
    none twice before all were drawn. If the share is 0, all photographs are drawn once. An epoch's order depends only
    on the seed and its number, so that several processes divide the same order, and a resumed run repeats it.

    Args:
        dataset: the outlined photographs, then the graded ones.
        num_outlined: number of outlined photographs.
        share: fraction of the epoch that is graded, in [0, 1).
        seed: seed of the order.
        num_replicas: number of processes that divide an epoch.
        rank: index of this process.

    Raises:
        ValueError: if the share is not in [0, 1), or there are no graded photographs for it.

    Example:
        >>> sampler = OutlinedAndGraded(range(6), num_outlined=2, share=0.5, seed=0)
        >>> shown = list(sampler)
        >>> len(shown), sorted(one for one in shown if one < 2)
        (4, [0, 1])
    """

    def __init__(
        self, dataset: Sized, num_outlined: int, share: float, seed: int, num_replicas: int = 1, rank: int = 0
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=True, seed=seed)  # type: ignore[arg-type]
        if not 0 <= share < 1:
            raise ValueError(f"expected a graded_share in [0, 1), got {share}")
        num_graded = len(dataset) - num_outlined
        if share > 0 and num_graded < 1:
            raise ValueError(f"expected graded photographs for a graded_share of {share}, found none in the manifest")
        self.num_outlined, self.num_graded = num_outlined, num_graded
        self.num_drawn = round(num_outlined * share / (1 - share)) if share > 0 else num_graded
        self.num_samples = -(-(num_outlined + self.num_drawn) // num_replicas)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        rounds = -(-self.num_drawn // max(self.num_graded, 1))
        graded = [torch.randperm(self.num_graded, generator=generator) for _ in range(rounds)]
        drawn = torch.cat(graded)[: self.num_drawn] + self.num_outlined if graded else torch.zeros(0, dtype=torch.long)
        shown = torch.cat([torch.arange(self.num_outlined), drawn])
        order = shown[torch.randperm(len(shown), generator=generator)].tolist()
        missing = self.num_samples * self.num_replicas - len(order)  # so that all processes draw the same number
        return iter((order + order[:missing])[self.rank :: self.num_replicas])
