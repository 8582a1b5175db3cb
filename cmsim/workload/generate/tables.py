"""Tables of a recommendation model over the ranks that train it: data parallel nets, tables that stand once.

Every rank has some tables, or some columns of one, and works on the rows that all ranks' samples look up in them:

    forward    indices go to the ranks of their tables; rows are read and summed; sums go back to the samples' ranks,
               beside the first layers of the net, which do not need them
    backward   gradients of the sums go the other way, beside what is left of the net's backward pass; rows are updated
               at once (row-wise Adagrad: one number beside a row)

A table is cut into as many parts of columns as brings no part above a rank's mean share of look-ups, down to parts of
four columns; parts go to the rank with the least, largest first. Bytes, for B samples of a step over r ranks, t tables
of w columns and L look-ups a sample: indices B L 8 / r a rank; sums B t w e / r, twice (e: an element in 16 bits); rows
B L w 4 / r read, and in backward read and written. Counted for the busiest rank.

Source: Mudigere et al., arXiv:2104.05158, sections 4.1 and 4.2 (tables cut, exchanges, pipelining); Naumov et al.,
arXiv:1906.00091, section 4 (data and model parallel); pytorch/torchrec, distributed/embedding (column-wise shards).
Indices are sent as they come, and rows that several samples look up count each time.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from functools import cached_property

from cmsim.compute import Work
from cmsim.errors import InfeasibleError, Problem
from cmsim.graphs.graph import Tables
from cmsim.workload.ops import ProgramBuilder

#: of an index; of an element of a table and of the one number beside a row, in 32 bits [B]
_INDEX_B, _SINGLE_B = 8.0, 4.0
#: columns of the narrowest part of a table [1]
_NARROWEST = 4
_STREAM = "tables"


@dataclass(frozen=True)
class Shares:
    """Of the rank with most to look up: numbers it reads for a sample, sums it makes of them, rows it reads. Of those
    with most of each: sums sent, elements and rows held. [1]"""

    read: float
    sums: float
    looked_up: float
    sent: float
    elements: float
    rows: float


def shares(tables: Tables, ranks: int) -> Shares:
    """Parts of tables over ranks. Raises InfeasibleError where there are more ranks than parts."""
    parts = _parts(tables, ranks)
    if len(parts) < ranks:
        most = len(tables.rows) * (tables.width // _NARROWEST)
        said = f"got {ranks} ranks; tables go to at most {most}, in parts of {_NARROWEST} columns"
        raise InfeasibleError(Problem(said, key="parallel.dp"))
    heap = [(0.0, rank) for rank in range(ranks)]
    held = [[0.0] * 5 for _ in range(ranks)]
    for lookups, columns, rows in sorted(parts, reverse=True):
        load, rank = heapq.heappop(heap)
        for at, value in enumerate((lookups * columns, columns, lookups, rows * columns, rows)):
            held[rank][at] += value
        heapq.heappush(heap, (load + lookups * columns, rank))
    busiest = max(held)
    return Shares(*busiest[:3], *(max(one[at] for one in held) for at in (1, 3, 4)))


def _parts(tables: Tables, ranks: int) -> list[tuple[int, int, int]]:
    """(look-ups, columns, rows) of every part. With as many ranks as that takes, every table is cut."""
    mean = sum(tables.lookups) * tables.width / ranks
    needed = -(-ranks // len(tables.rows))
    out = []
    for rows, lookups in zip(tables.rows, tables.lookups, strict=True):
        cuts, most = 1, max(tables.width // _NARROWEST, 1)
        while cuts < most and (lookups * tables.width / cuts > mean or cuts < needed):
            cuts *= 2
        cuts = min(cuts, most)
        out += [(lookups, tables.width // cuts, rows)] * cuts
    return out


@dataclass(frozen=True)
class TablesOnRank:
    """What the busiest rank does for its tables in a step of ``samples`` over all ``ranks``."""

    tables: Tables
    ranks: int
    samples: float
    element_B: float

    @cached_property
    def shares(self) -> Shares:
        return shares(self.tables, self.ranks)

    @property
    def held_B(self) -> float:
        """Elements in 32 bits, and a number beside each row. [B]"""
        return _SINGLE_B * (self.shares.elements + self.shares.rows)

    @property
    def sums_B(self) -> float:
        """Sums of the own samples, of every table, as they arrive. [B]"""
        return self.samples / self.ranks * len(self.tables.rows) * self.tables.width * self.element_B

    def ahead(self, build: ProgramBuilder, after: tuple[int, ...] = ()) -> int:
        """Look up and send; the row that the net's first reader of sums waits for."""
        indices_B = self.samples / self.ranks * sum(self.tables.lookups) * _INDEX_B
        row = self._exchange(build, "exchange indices", indices_B, after)
        work = self.read()
        row = _kernel(build, "look-up", work, (row,) if row >= 0 else after)
        sent = self._exchange(build, "exchange rows", self._sent_B, (row,))
        return sent if sent >= 0 else row

    def back(self, build: ProgramBuilder, row: int) -> int:
        """Send gradients, from when the net has made them; the row of it."""
        sent = self._exchange(build, "exchange gradients of rows", self._sent_B, (row,))
        return sent if sent >= 0 else row

    def update(self, build: ProgramBuilder, row: int) -> None:
        """Update rows, when all gradients are there."""
        _kernel(build, "update of rows", self.written(), (row,))

    def read(self) -> Work:
        """Rows read, sums written; an addition each."""
        one = self.shares
        return Work(self.samples * one.read, self.samples * (one.read * _SINGLE_B + one.sums * self.element_B))

    def written(self) -> Work:
        """Gradients of sums read, rows and their numbers read and written: a product and an addition each."""
        one = self.shares
        moved = 2 * _SINGLE_B * (one.read + one.looked_up) + one.sums * self.element_B
        return Work(4.0 * self.samples * one.read, self.samples * moved)

    @property
    def _sent_B(self) -> float:
        return self.samples * self.shares.sent * self.element_B

    def _exchange(self, build: ProgramBuilder, name: str, size_B: float, after: tuple[int, ...]) -> int:
        if self.ranks == 1:
            return -1
        return build.collective(name, stream=_STREAM, collective="all_to_all", size_B=size_B, slot="dp", after=after)


def _kernel(build: ProgramBuilder, name: str, work: Work, after: tuple[int, ...]) -> int:
    return build.compute(
        name,
        stream="compute",
        kernel="embedding",
        flops=float(work.flops),
        bytes_B=float(work.bytes_B),
        after=after,
    )
