"""When every op of every rank class ran."""

from __future__ import annotations

from dataclasses import dataclass, field

from cmsim.arrays import Ints
from cmsim.network import Log
from cmsim.repeats import ONCE, Repeat


@dataclass(frozen=True)
class Timeline:
    """When every op of every rank class ran.

    start_ps, end_ps  per class, one entry per op row of its program; a collective starts when its rank arrives
    wait_ps           per class: how long a rank waited for the others of the group before anything moved
    segments          stretches of constant rate of everything that moved
    host_ps           per class: how long an op waited, ready, for the host to issue it; empty where none does
    begin_ps          when it was launched on the clock of its session; all other times count from there
    """

    start_ps: list[Ints]
    end_ps: list[Ints]
    wait_ps: list[Ints]
    segments: Log
    host_ps: list[Ints] = field(default_factory=list)
    begin_ps: int = 0
    repeat: Repeat = ONCE

    @property
    def makespan_ps(self) -> int:
        return self.kept_ps + self.repeat.added_ps

    @property
    def kept_ps(self) -> int:
        """The makespan without what is left out."""
        return max((int(end.max()) for end in self.end_ps if len(end)), default=0)
