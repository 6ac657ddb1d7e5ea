"""The meta gradient of each label, on a scale of 1 and averaged over the passes."""

# flake8: noqa: N803

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from bundle.distributed import joined_over_ranks
from torch import Tensor

KEPT = 0.9
"""Weight of the earlier mean in the moving means."""


class LabelPulls:
    """Averages over passes of the meta gradient of each photograph's label, scaled to a root mean square of 1.

    The gradient ``g_nc`` falls by orders of magnitude while a network learns, and that of one photograph depends on the
    rest of its batch. With ``g`` centred over the kept grades (only differences move a label) and ``v`` the moving mean
    of ``g_nc^2`` over the labels that can move,

        pull_n <- kept pull_n + (1 - kept) g_n / sqrt(v),    divided by 1 - kept^k at the k-th update

    so that a pull that is the same in every pass is about 1, and noise averages out. The part common to all photographs
    is removed: with ``m_c`` the mean of ``pull_nc`` over the photographs that keep grade ``c``, a label is moved by
    ``pull_nc - m_c``, centred again. The common part shows which grade lowers the meta loss regardless of the
    photograph; it would teach a different prior and correct no label. Labels step along ``-pull``.

    Args:
        keep_common: keep the common part, as MAXL and the paper do.

    Example:
        >>> pulls = LabelPulls()
        >>> kept = torch.tensor([[False, True, True], [False, True, True]])
        >>> pulls.update(["7", "8"], torch.tensor([[9.0, 4e-6, 2e-6], [9.0, 2e-6, 4e-6]]), kept).round(decimals=4)
        tensor([[ 0.,  1., -1.],
                [ 0., -1.,  1.]])
    """

    def __init__(self, keep_common: bool = False) -> None:
        self.keep_common = keep_common
        self._mean_square, self._updates = 0.0, 0
        self._pulls: dict[str, Tensor] = {}
        self._kept: dict[str, Tensor] = {}
        self._times: dict[str, int] = {}

    def update(self, ids: Sequence[str], gradients_NC: Tensor, kept_NC: Tensor) -> Tensor:
        """Add a batch's gradients and return the pulls of its photographs, ``(N, C)``, zero where not kept.

        ``kept_NC`` is the mask of the label update network; its labels have mass only inside this mask.
        A photograph with zero gradient (weight 0, or a single kept grade) has a pull of zero and enters no mean.
        """
        centred_NC = _centred(gradients_NC, kept_NC)
        of_rank = list(zip(ids, centred_NC.detach().cpu(), kept_NC.cpu(), strict=True))
        that_move = [(name, gradient, kept) for name, gradient, kept in joined_over_ranks(of_rank) if gradient.any()]
        if that_move:
            self._add(that_move)
        nothing = torch.zeros_like(centred_NC[0]).cpu()
        pulls = [self._pull(name) if name in self._pulls else nothing for name in ids]
        return self._without_common(torch.stack(pulls).to(centred_NC), kept_NC)

    def _add(self, labels: Sequence[tuple[str, Tensor, Tensor]]) -> None:
        """Add the id, centred gradient ``(C,)`` and kept grades ``(C,)`` of labels to the moving means."""
        mean_square = float(torch.cat([gradient[kept] for _, gradient, kept in labels]).square().mean())
        self._mean_square = KEPT * self._mean_square + (1 - KEPT) * mean_square
        self._updates += 1
        scale = math.sqrt(self._mean_square / (1 - KEPT**self._updates))
        for name, gradient, kept in labels:
            before = self._pulls.get(name, torch.zeros_like(gradient))
            self._pulls[name] = KEPT * before + (1 - KEPT) * (gradient / scale)
            self._kept[name], self._times[name] = kept, self._times.get(name, 0) + 1

    def _pull(self, name: str) -> Tensor:
        return self._pulls[name] / (1 - KEPT ** self._times[name])

    def _without_common(self, pulls_NC: Tensor, kept_NC: Tensor) -> Tensor:
        """Subtract the part common to all photographs seen so far; a pull of zero stays zero."""
        if self.keep_common or not self._pulls:
            return pulls_NC
        everywhere = torch.stack([self._pull(name) for name in self._pulls])  # (P, C) for P photographs seen so far
        kept = torch.stack([self._kept[name] for name in self._pulls])  # (P, C)
        common_C = (everywhere.sum(dim=0) / kept.sum(dim=0).clamp(min=1)).to(pulls_NC)
        moved = pulls_NC.ne(0).any(dim=1, keepdim=True)  # (N, 1)
        return torch.where(moved, _centred(pulls_NC - common_C, kept_NC), 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        return {
            "mean_square": self._mean_square, "updates": self._updates, "pulls": dict(self._pulls),
            "kept": dict(self._kept), "times": dict(self._times),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from :meth:`state_dict`."""
        self._mean_square, self._updates = state["mean_square"], state["updates"]
        self._pulls, self._kept, self._times = dict(state["pulls"]), dict(state["kept"]), dict(state["times"])


def _centred(gradients_NC: Tensor, kept_NC: Tensor) -> Tensor:
    """Subtract the mean over the kept grades; labels sum to 1, so the mean could not move them."""
    kept = gradients_NC.masked_fill(~kept_NC, 0)
    mean = kept.sum(dim=1, keepdim=True) / kept_NC.sum(dim=1, keepdim=True)  # (N, 1)
    return (kept - mean).masked_fill(~kept_NC, 0)
