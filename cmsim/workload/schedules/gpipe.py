"""GPipe: all forwards, then all backwards.

    bubble      (p - 1) (F + B)
    in flight   m

Source: Huang et al., NeurIPS 2019, arXiv:1811.06965.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cmsim.workload.schedules.passes import AtPeak, PipelineSchedule, Turn, one


@dataclass(frozen=True)
class GPipe(PipelineSchedule):
    """See the page."""

    name = "gpipe"

    def order(self, rank: int) -> Iterator[Turn]:  # noqa: ARG002
        yield from (one("F", i) for i in range(self.micro_batches))
        yield from (one("B", i) for i in range(self.micro_batches))

    def in_flight(self, rank: int) -> AtPeak:  # noqa: ARG002
        return AtPeak(float(self.micro_batches))
