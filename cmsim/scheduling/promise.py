"""What the first in the queue is promised: when it can start as things are expected, and what it leaves to others.

EASY backfilling (Lifka, The ANL/IBM SP Scheduling System, JSSPP 1995; Mu'alem and Feitelson, IEEE Trans. Parallel
Distrib. Syst. 12(6), 2001): whoever comes behind the first may start if the first is not later for it. Either it is
expected to have ended by then, or it is content with what the first leaves.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

#: later than any clock
NEVER = 1 << 62


class Expected:
    """When what is taken of a place comes back, as expected: (time, who, how much), ascending."""

    def __init__(self) -> None:
        self.back: list[tuple[int, int, float]] = []

    def add(self, at: int, who: int, much: float) -> None:
        insort(self.back, (at, who, much))

    def remove(self, at: int, who: int, much: float) -> None:
        found = bisect_left(self.back, (at, who, much))
        assert self.back[found] == (at, who, much), "what comes back was told"
        del self.back[found]

    def when(self, now: int, free: float, need: float) -> int:
        """When there is as much as is needed."""
        if free >= need:
            return now
        for at, _, much in self.back:
            free += much
            if free >= need:
                return max(at, now)
        return NEVER

    def free_at(self, at: int, free: float) -> float:
        """What there is then."""
        for when, _, much in self.back:
            if when > at:
                break
            free += much
        return free


@dataclass
class Promise:
    """To the first in the queue: when, on which machine, in which of its domains (-1: anywhere), and what is spare
    of accelerators there and of watts in the hall at that time"""

    at: int
    machine: int
    domain: int
    spare: int
    spare_W: float

    def taken(self, machine: int, domains: tuple[int, ...], by_domain: tuple[int, ...]) -> int:
        """Accelerators of a take that are where the promise is."""
        if machine != self.machine:
            return 0
        return sum(many for domain, many in zip(domains, by_domain, strict=True) if self.domain in (-1, domain))

    def keeps(self, ends: int, taken: int, watts: float) -> bool:
        """Whether the first is not later for a job that is expected to end then."""
        return ends <= self.at or (taken <= self.spare and watts <= self.spare_W)
