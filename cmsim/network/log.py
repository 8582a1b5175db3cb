"""What networks put down: stretches of constant rate, one by one or as columns of many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.network.demand import Demand, Segment


class Stretches(NamedTuple):
    """Stretches of constant rate as columns; ``demand`` numbers ``demands``."""

    demands: Sequence[Demand]
    demand: Ints
    start_ps: Ints
    end_ps: Ints
    rate_Bps: Floats

    @classmethod
    def of(
        cls, demands: Sequence[Demand], start_ps: Sequence[int], end_ps: Sequence[int], rate_Bps: Sequence[float]
    ) -> Stretches:
        """One stretch of each demand."""
        return cls(
            demands,
            np.arange(len(demands)),
            np.array(start_ps, np.int64),
            np.array(end_ps, np.int64),
            np.array(rate_Bps, np.float64),
        )

    def rows(self, rows: slice | Ints, by_ps: int | Ints = 0) -> Stretches:
        """Some of them, later."""
        return Stretches(
            self.demands,
            self.demand[rows],
            self.start_ps[rows] + by_ps,
            self.end_ps[rows] + by_ps,
            self.rate_Bps[rows],
        )

    def segments(self) -> Iterator[Segment]:
        columns = (self.demand, self.start_ps, self.end_ps, self.rate_Bps)
        for number, start_ps, end_ps, rate_Bps in zip(*(column.tolist() for column in columns), strict=True):
            yield Segment(self.demands[number], start_ps, end_ps, rate_Bps)


class Log:
    """Stretches in the order in which they were put down: segments, and columns of what passed as one."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Iterable[Segment | Stretches] = ()):
        self._parts: list[Segment | Stretches] = list(parts)

    def append(self, part: Segment | Stretches) -> None:
        self._parts.append(part)

    def __iter__(self) -> Iterator[Segment]:
        for part in self._parts:
            if isinstance(part, Segment):
                yield part
            else:
                yield from part.segments()

    def __len__(self) -> int:
        return sum(1 if isinstance(part, Segment) else len(part.demand) for part in self._parts)

    def moved(self, by_ps: int, origin: Mapping[int, Demand]) -> Log:
        """The same so much earlier, of the demands in ``origin`` by the identity of what carried them."""
        if not by_ps and not origin:
            return self
        now = (
            Segment(origin.get(id(one.demand), one.demand), one.start_ps - by_ps, one.end_ps - by_ps, one.rate_Bps)
            if isinstance(one, Segment)
            else one.rows(slice(None), -by_ps)._replace(demands=[origin.get(id(part), part) for part in one.demands])
            for one in self._parts
        )
        return Log(now)

    def columns(self) -> Stretches:
        """All of them, each demand once; first those that stand by themselves."""
        number: dict[int, int] = {}
        demands: list[Demand] = []

        def numbered(some: Sequence[Demand]) -> Ints:
            for one in some:
                if id(one) not in number:
                    number[id(one)] = len(demands)
                    demands.append(one)
            return np.array([number[id(one)] for one in some], np.int64)

        alone = [part for part in self._parts if isinstance(part, Segment)]
        many = [part for part in self._parts if not isinstance(part, Segment)]
        parts = [
            Stretches(
                demands,
                numbered([one.demand for one in alone]),
                np.array([one.start_ps for one in alone], np.int64),
                np.array([one.end_ps for one in alone], np.int64),
                np.array([one.rate_Bps for one in alone], np.float64),
            )
        ]
        known = {id(part.demands): numbered(part.demands) for part in {id(one.demands): one for one in many}.values()}
        parts += [part._replace(demand=known[id(part.demands)][part.demand]) for part in many]
        return Stretches(
            demands,
            np.concatenate([part.demand for part in parts]),
            np.concatenate([part.start_ps for part in parts]),
            np.concatenate([part.end_ps for part in parts]),
            np.concatenate([part.rate_Bps for part in parts]),
        )
