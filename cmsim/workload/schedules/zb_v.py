"""ZB-V: each rank holds two virtual stages, on the way down and on the way back of a V; no rank waits in between.

    bubble      (p - 1) F / 2 where F = I = W and m is at least 2 p - 1: what the V takes to fill or to drain; nothing
                between a rank's first pass and its last
    in flight   p on every rank; (min(m, 2 p - i - 1) + min(m, i + 1))/2 on rank i where fewer come

Virtual stage 0 of rank i is the part i of the model, 1 the part 2 p - 1 - i: the first rank also ends a micro-batch.

Source: Qi et al., arXiv:2401.10241, and Qi et al., NeurIPS 2024, arXiv:2405.15362; order as PyTorch's
ScheduleZBVZeroBubble.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cmsim.workload.schedules.passes import AtPeak, Kind, Pass, PipelineSchedule, Steady, Turn


@dataclass(frozen=True)
class ZeroBubbleV(PipelineSchedule):
    """See the page."""

    name = "zb_v"
    turns_back = True

    def order(self, rank: int) -> Iterator[Turn]:
        # laid for as many micro-batches as fill the pipeline; what is more than there are falls out
        full = max(self.micro_batches, 2 * self.stages - 1)
        return ((one,) for one in self._full(rank, full) if one.micro_batch < self.micro_batches)

    def in_flight(self, rank: int) -> AtPeak:
        m = self.micro_batches
        return AtPeak((min(m, 2 * self.stages - rank - 1) + min(m, rank + 1)) / 2)

    def part(self, rank: int, virtual: int) -> int:
        return 2 * self.stages - 1 - rank if virtual else rank

    def recurring(self) -> int:
        return 4 * self.stages + 4

    def steady(self, rank: int) -> Steady:
        p = self.stages
        before = 2 * (p - rank) - 1 + 2 * rank + 3 * (p - rank)
        return Steady(before + 6, 6, self.micro_batches - (2 * p - rank - 1) - 2)

    def route(self, micro_batch: int) -> list[tuple[int, int]]:  # noqa: ARG002
        there = [(rank, 0) for rank in range(self.stages)]
        return there + [(rank, 1) for rank, _ in reversed(there)]

    def _full(self, rank: int, micro_batches: int) -> Iterator[Pass]:
        p, count = self.stages, dict[tuple[Kind, int], int]()

        def next_of(*what: tuple[Kind, int]) -> Iterator[Pass]:
            for kind, virtual in what:
                number = count.get((kind, virtual), 0)
                count[kind, virtual] = number + 1
                yield Pass(kind, number, virtual)

        for _ in range(2 * (p - rank) - 1):
            yield from next_of(("F", 0))
        for _ in range(rank):
            yield from next_of(("F", 1), ("F", 0))
        for _ in range(p - rank):
            yield from next_of(("F", 1), ("I", 1), ("W", 1))
        while count["F", 1] < micro_batches:
            if count["F", 0] < micro_batches:
                yield from next_of(("F", 0))
            yield from next_of(("I", 0), ("W", 0), ("F", 1), ("I", 1), ("W", 1))
        for _ in range(rank):
            yield from next_of(("I", 0), ("I", 1))
        for _ in range(p - rank):
            yield from next_of(("I", 0), ("W", 0))
        for virtual in (1, 0):
            for _ in range(micro_batches - count.get(("W", virtual), 0)):
                yield from next_of(("W", virtual))
