"""1F1B: warm-up forwards, then one forward and one backward in turn, then the backwards that are left.

    bubble      (p - 1) (F + B)
    in flight   min(m, p - i) on rank i

``side_by_side`` runs the forward and the backward of the steady state as one turn. A rank then passes both on at once,
so it must be two forwards ahead of the next one where plain 1F1B is one: min(m, 2 (p - i)) in flight.

Source: Narayanan et al., SC'21, arXiv:2104.04473, section 2.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cmsim.workload.schedules.passes import AtPeak, Pass, PipelineSchedule, Steady, Turn, one


@dataclass(frozen=True)
class OneForwardOneBackward(PipelineSchedule):
    """See the page.

    >>> plain = OneForwardOneBackward(stages=8, micro_batches=32)
    >>> plain.in_flight(0).activations, plain.in_flight(7).activations
    (8.0, 1.0)
    """

    name = "1f1b"
    turns_in_pairs = True
    side_by_side: bool = False

    def order(self, rank: int) -> Iterator[Turn]:
        m = self.micro_batches
        ahead = min(self._most(rank) - 1, m)
        yield from (one("F", i) for i in range(ahead))
        for i in range(ahead, m):
            both = (Pass("F", i), Pass("B", i - ahead))
            yield from [both] if self.side_by_side else [(both[0],), (both[1],)]
        yield from (one("B", i) for i in range(m - ahead, m))

    def in_flight(self, rank: int) -> AtPeak:
        return AtPeak(float(min(self.micro_batches, self._most(rank))))

    def steady(self, rank: int) -> Steady:
        period = 1 if self.side_by_side else 2
        ahead = min(self._most(rank) - 1, self.micro_batches)
        return Steady(ahead + period, period, self.micro_batches - ahead - 2)

    def recurring(self) -> int:
        return 2 * self._most(0) + 4

    def _most(self, rank: int) -> int:
        """Held at the peak, where there are as many micro-batches."""
        return (2 if self.side_by_side else 1) * (self.stages - rank)
