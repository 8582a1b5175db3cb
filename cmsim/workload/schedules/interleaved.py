"""Interleaved 1F1B: a rank holds v virtual stages, so that the pipeline fills by a v-th of a rank's layers.

    bubble      (p - 1) (F + B) / v, where F and B are of all layers of a rank
    in flight   (2 (p - i - 1) + (v - 1) p + 1) / v on rank i, at most m: p (1 + (p - 1)/(p v)) on the first

Virtual stage c of rank i is the part c p + i of the model. Micro-batches go in groups of p: a group through virtual
stage 0, then through 1, and so on; m must be a multiple of p.

``side_by_side`` runs the forward and the backward of the steady state as one turn; a rank is then one forward further
ahead, as Megatron-LM does it (``overlap_moe_expert_parallel_comm``).

Source: Narayanan et al., SC'21, arXiv:2104.04473, section 2.2; order and memory as Megatron-LM
(pipeline_parallel/schedules.py, theoretical_memory_usage.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cmsim.workload.schedules.passes import AtPeak, Pass, PipelineSchedule, Steady, Turn


@dataclass(frozen=True)
class Interleaved(PipelineSchedule):
    """See the page.

    >>> round(Interleaved(stages=8, micro_batches=64, virtual_stages=3).in_flight(0).activations / 8, 4)
    1.2917
    """

    name = "interleaved"
    wraps = True
    turns_in_pairs = True
    virtual_stages: int = 2
    side_by_side: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.virtual_stages < 2:
            raise self._refused("virtual_stages", "2 or more; of one it is '1f1b'")
        if self.micro_batches % self.stages:
            raise self._refused("micro_batches", f"a multiple of its {self.stages} stages")

    def order(self, rank: int) -> Iterator[Turn]:
        total = self.micro_batches * self.virtual_stages
        ahead = min(self._ahead(rank), total)
        yield from ((self._pass("F", k),) for k in range(ahead))
        for k in range(ahead, total):
            both = (self._pass("F", k), self._pass("B", k - ahead))
            yield from [both] if self.side_by_side else [(both[0],), (both[1],)]
        yield from ((self._pass("B", k),) for k in range(total - ahead, total))

    def in_flight(self, rank: int) -> AtPeak:
        return AtPeak(min(self.micro_batches, (self._ahead(rank) + 1) / self.virtual_stages))

    @property
    def held(self) -> int:
        return self.virtual_stages

    @property
    def alike_after(self) -> int:
        return self.stages

    def recurring(self) -> int:
        return 5 * self.stages

    def steady(self, rank: int) -> Steady:
        group, ahead = self.stages * self.virtual_stages, self._ahead(rank)
        # a forward and a backward at once: from the second group of forwards on, to the last but one of backwards
        first = max(group - ahead, 0)
        last = self.micro_batches * self.virtual_stages - max(ahead, group)
        one = 1 if self.side_by_side else 2
        return Steady(ahead + one * first, one * group, (last - first) // group)

    def route(self, micro_batch: int) -> list[tuple[int, int]]:  # noqa: ARG002
        return [(rank, virtual) for virtual in range(self.virtual_stages) for rank in range(self.stages)]

    def _ahead(self, rank: int) -> int:
        """Forwards, each of a virtual stage, before the first backward."""
        return 2 * (self.stages - rank - 1) + (self.virtual_stages - 1) * self.stages + self.side_by_side

    def _pass(self, kind: str, k: int) -> Pass:
        """The k-th forward or backward of a rank; backwards take the virtual stages from the last."""
        group, at = divmod(k, self.stages * self.virtual_stages)
        virtual, i = divmod(at, self.stages)
        if kind == "F":
            return Pass("F", group * self.stages + i, virtual)
        return Pass("B", group * self.stages + i, self.virtual_stages - 1 - virtual)
