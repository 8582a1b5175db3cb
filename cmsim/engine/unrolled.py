"""What a steady state left out, put back: plan, timeline and columns as if all had been played."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

from cmsim.engine.plan import Plan
from cmsim.engine.record import Columns, links_columns, ops_columns
from cmsim.engine.steady import laid_out
from cmsim.engine.timeline import Timeline
from cmsim.engine.turns import turns_of
from cmsim.network import Log

_MAKES: Mapping[str, Callable[[Plan, Timeline], Columns]] = {"ops": ops_columns, "links": links_columns}


class WholeColumns(Mapping[str, NDArray[Any]]):
    """Columns of ``ops`` or ``links`` with nothing left out, made when somebody looks."""

    def __init__(self, name: str, plan: Plan, timeline: Timeline):
        self._name, self._plan, self._timeline = name, plan, timeline
        self._made: Columns | None = None

    def _columns(self) -> Columns:
        if self._made is None:
            self._made = _MAKES[self._name](*whole(self._plan, self._timeline))
        return self._made

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._columns()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns())

    def __len__(self) -> int:
        return len(self._columns())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None}


def whole_columns(plan: Plan, timeline: Timeline) -> dict[str, WholeColumns]:
    """The columns of ``ops`` and ``links`` of a timeline that leaves something out, by name; nothing of any other."""
    return {name: WholeColumns(name, plan, timeline) for name in _MAKES if timeline.repeat.times}


def whole(plan: Plan, timeline: Timeline) -> tuple[Plan, Timeline]:
    """A plan and its timeline with nothing left out: as if all had been played."""
    loop, repeat = plan.programs.loop, timeline.repeat
    if loop is None:
        return plan, timeline
    starts, ends, waits = [], [], []
    for of, wait in zip(turns_of(plan, timeline), timeline.wait_ps, strict=True):
        row, shift_ps = of.unrolled(repeat, loop.left_out)
        starts.append(of.all_start[row] + shift_ps)
        ends.append(of.all_end[row] + shift_ps)
        waits.append(wait[row])
    kept = timeline.segments.columns()
    segments = Log([kept.rows(*repeat.copies(kept.start_ps))])
    return laid_out(plan, loop.left_out), Timeline(starts, ends, waits, segments, begin_ps=timeline.begin_ps)
