"""ZB-H1 (ZB1P): 1F1B whose gradients of weights wait, so that those of inputs reach the ranks before sooner.

    bubble      (p - 1) (F + I - W) where W is no longer than F or I
    in flight   min(m, p - i) on rank i, and beside them i whose gradients of weights wait

Rank i is i gradients of weights behind, so that all ranks hold p micro-batches in one state or the other.

Source: Qi et al., ICLR 2024, arXiv:2401.10241, section 2.2 and table 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cmsim.workload.schedules.passes import AtPeak, PipelineSchedule, Steady, Turn, one


@dataclass(frozen=True)
class ZeroBubbleH1(PipelineSchedule):
    """See the page."""

    name = "zb_h1"

    def order(self, rank: int) -> Iterator[Turn]:
        m = self.micro_batches
        ahead = min(self.stages - rank - 1, m)
        done = 0
        yield from (one("F", i) for i in range(ahead))
        for i in range(m):
            if i + ahead < m:
                yield one("F", i + ahead)
            yield one("I", i)
            # once all forwards are gone, gradients of weights fill the time until the next micro-batch is back
            if i - done >= rank or i + ahead >= m:
                yield one("W", done)
                done += 1
        yield from (one("W", i) for i in range(done, m))

    def in_flight(self, rank: int) -> AtPeak:
        m = self.micro_batches
        held = min(m, self.stages - rank)
        return AtPeak(float(held), float(min(rank, m - held)))

    def recurring(self) -> int:
        return 2 * self.stages + 4

    def steady(self, rank: int) -> Steady:
        # forward, inputs and weights in turn, once ``rank`` gradients of weights wait
        ahead = self.stages - rank - 1
        return Steady(ahead + 2 * rank + 3, 3, self.micro_batches - self.stages - 1)
