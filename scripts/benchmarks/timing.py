"""Timing of two ways in turn, so that a drift in the machine's speed affects both."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")


class Pair(NamedTuple):
    """Seconds of our way and of the peer's, case by case."""

    ours_s: list[float]
    peer_s: list[float]

    @property
    def ratio(self) -> float:
        """How many times as long the peer takes: the median ratio over the cases."""
        return float(np.median(np.array(self.peer_s) / np.array(self.ours_s)))

    def row(self, what: str) -> list[str]:
        """Return a table row: name, medians in ms, the ratio and its quartiles, and the number of cases."""
        ratios = np.array(self.peer_s) / np.array(self.ours_s)
        low, high = np.percentile(ratios, (25, 75))
        return [
            what, f"{1e3 * np.median(self.ours_s):.1f} ms", f"{1e3 * np.median(self.peer_s):.1f} ms",
            f"{self.ratio:.1f} ({low:.1f}-{high:.1f})", str(len(ratios)),
        ]  # fmt: skip


def in_turn(cases: Iterable[T], ours: Callable[[T], object], peer: Callable[[T], object], warm_up: int) -> Pair:
    """Run both ways on every case; the first ``warm_up`` cases do not count."""
    times = [(timed(ours, case), timed(peer, case)) for case in cases][warm_up:]
    return Pair([one for one, _ in times], [other for _, other in times])


def timed(function: Callable[[T], object], case: T) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    function(case)
    return time.perf_counter() - started
