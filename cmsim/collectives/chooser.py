"""The chooser: prices every algorithm that applies, row by row, and takes the cheapest.

Rows whose groups lie alike share their coefficients (``price``), so a million rows cost little more than a few
additions each. Rows are taken in blocks that fit the cache. Among equal prices the first in table order wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.collectives.price import CANDIDATES, Candidate, GroupShape
from cmsim.collectives.rows import Link, Rows, checked, collective_code
from cmsim.collectives.terms import COLLECTIVES
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.reading.kept import while_equal

__all__ = ["Choice", "Link", "Phase", "PricedCandidate", "Rows", "choose", "collective_code", "explain"]

_CHUNK = 65_536  # rows at a time: about ten columns of doubles stay in the second-level cache
_TIE = 1 - 1e-12  # cheaper by rounding alone is not cheaper
_TABLE = 1 << 20  # codes up to here are folded through a table, beyond by sorting

#: what ``Choice.name_id`` counts through
NAMES: tuple[str, ...] = ("none", *dict.fromkeys(c.name for group in CANDIDATES for c in group))
_NAME_ID = {name: index for index, name in enumerate(NAMES)}


@dataclass(frozen=True)
class Phase:
    """One phase of every row; zeros where a row has fewer.

    latency_s: all that is not transfer: steps, the call's fixed time, arithmetic [s]
    port_B, uplink_B, nic_B, leaf_B: bytes per rank, one direction, through its port, its node's uplink, its NIC, its
    leaf switch's uplinks [B]
    """

    latency_s: Floats
    port_B: Floats
    uplink_B: Floats
    nic_B: Floats
    leaf_B: Floats


@dataclass(frozen=True)
class Choice:
    """The chosen algorithm of every row, its ideal time, and what it asks of the network, phase by phase.

    name_id: position in names    time_s: nobody else on the network [s]    phases: one after the other
    """

    name_id: NDArray[np.int16]
    names: tuple[str, ...]
    time_s: Floats
    phases: list[Phase]

    def name(self, row: int) -> str:
        """The algorithm of one row, "none" where the group has one rank."""
        return self.names[int(self.name_id[row])]


class PricedCandidate(NamedTuple):
    """A candidate and its time. [s]"""

    name: str
    time_s: float


@while_equal(most=64, most_B=1 << 14)
def choose(rows: Rows, link: Link, *, algorithm: str = "best") -> Choice:
    """The cheapest algorithm of every row, or a named one.

    rows: the calls    link: what joins their ranks
    algorithm: "best", a name ("ring", "hierarchical(ring, ring)"), or "hierarchical" for the best of those. A name
    holds for collectives that have more than one algorithm; the others keep theirs.

    InputError: a column is impossible, the name unknown, or the named algorithm cannot run on some row.

    >>> one = np.array([8])
    >>> row = Rows(collective=np.array([0]), size_B=np.array([1e9]), ranks=one, in_node=one, in_domain=one, in_leaf=one)
    >>> link = Link(node_s=3e-6, domain_s=3e-6, cluster_s=3e-6, port_Bps=450e9, nic_Bps=50e9)
    >>> choice = choose(row, link)
    >>> choice.name(0), round(float(choice.time_s[0]) * 1e6, 1)
    ('two_shot', 3894.9)
    """
    rows, link = checked(rows, link)
    groups = _offered(algorithm)
    out = _Out(len(rows))
    for start in range(0, len(rows), _CHUNK):
        _choose_chunk(slice(start, min(start + _CHUNK, len(rows))), rows, link, groups, algorithm, out)
    return Choice(out.name_id, NAMES, out.time_s, out.phases)


def explain(rows: Rows, link: Link) -> list[PricedCandidate]:
    """Every candidate that applies to row 0 and its time, the cheapest first. [s]

    >>> one = np.array([8])
    >>> row = Rows(collective=np.array([3]), size_B=np.array([1e6]), ranks=one, in_node=one, in_domain=one, in_leaf=one)
    >>> [c.name for c in explain(row, Link(node_s=1e-6, domain_s=1e-6, cluster_s=1e-6, port_Bps=1e11, nic_Bps=1e10))]
    ['direct', 'pairwise', 'bruck']
    """
    if not len(rows):
        raise InputError("rows: there is no row to explain.")
    # only row 0 is read, so a link with columns is cut to its first value as well
    link = replace(link, **{f.name: np.asarray(getattr(link, f.name)).reshape(-1)[0] for f in fields(link)})
    rows, link = checked(rows.row(0), link)
    if rows.ranks[0] == 1:
        return [PricedCandidate("none", 0.0)]
    shape = GroupShape(rows.ranks, rows.in_node, rows.in_domain, rows.in_leaf)
    priced = []
    for candidate in CANDIDATES[rows.collective[0]]:
        if candidate.applies(shape, link)[0]:
            latency_s, s_per_B = _totals(candidate, shape, link)
            priced.append(PricedCandidate(candidate.name, float(latency_s[0] + s_per_B[0] * rows.size_B[0])))
    return sorted(priced, key=lambda item: item.time_s)


class _Out:
    """The columns of a Choice while chunks fill them; phases come into being when a row first needs them."""

    def __init__(self, length: int):
        self.name_id = np.zeros(length, dtype=np.int16)
        self.time_s = np.zeros(length)
        self.phases: list[Phase] = []
        self.add_phase()

    def add_phase(self) -> None:
        self.phases.append(Phase(*(np.zeros(len(self.time_s)) for _ in fields(Phase))))


def _offered(algorithm: str) -> list[tuple[Candidate, ...]]:
    """The candidates of each collective under a forced or free choice."""
    if algorithm == "best":
        return list(CANDIDATES)
    if algorithm not in NAMES[1:] and algorithm != "hierarchical":
        names = {*NAMES[1:], "best", "hierarchical"}
        raise InputError(f"unknown algorithm {algorithm!r}. {did_you_mean(algorithm, names, limit=len(names))}")
    return [
        group if len(group) == 1 else tuple(c for c in group if c.name == algorithm or _family(c) == algorithm)
        for group in CANDIDATES
    ]


def _family(candidate: Candidate) -> str:
    return candidate.name.partition("(")[0]


def _choose_chunk(
    chunk: slice,
    rows: Rows,
    link: Link,
    groups: Sequence[tuple[Candidate, ...]],
    algorithm: str,
    out: _Out,
) -> None:
    code = np.where(rows.ranks[chunk] > 1, rows.collective[chunk], -1)
    for number in np.flatnonzero(np.bincount(code + 1, minlength=len(COLLECTIVES) + 1)[1:]).tolist():
        at = np.flatnonzero(code == number) + chunk.start
        links = {f.name: getattr(link, f.name) for f in fields(link)}
        wide = {name: value[at] for name, value in links.items() if value.ndim}
        lying = [rows.ranks[at], rows.in_node[at], rows.in_domain[at], rows.in_leaf[at]]
        first, like = _fold([*lying, *wide.values()])
        shape = GroupShape(*(column[first] for column in lying))
        shape_link = replace(link, **{name: value[first] for name, value in wide.items()})

        size_B = rows.size_B[at]
        best_s, winner = _cheapest(groups[number], shape, shape_link, like, size_B)
        if not np.all(np.isfinite(best_s)):
            row = int(at[np.flatnonzero(~np.isfinite(best_s))[0]])
            raise _cannot(algorithm, rows, row)
        out.time_s[at] = best_s
        for index in np.flatnonzero(np.bincount(winner)).tolist():
            won = np.flatnonzero(winner == index)
            _write(groups[number][index], at[won], size_B[won], like[won], shape, shape_link, out)


def _totals(candidate: Candidate, shape: GroupShape, link: Link) -> tuple[Floats, Floats]:
    """Latency [s] and seconds per byte of S [s/B] of all phases together."""
    latency_s, s_per_B = np.zeros(shape.ranks.shape), np.zeros(shape.ranks.shape)
    for terms in candidate.terms(shape, link):
        latency_s += terms.latency_s
        s_per_B += terms.s_per_B(shape, link)
    return latency_s, s_per_B


def _cheapest(
    group: Sequence[Candidate], shape: GroupShape, link: Link, like: Ints, size_B: Floats
) -> tuple[Floats, NDArray[np.int16]]:
    """Time and position of the cheapest candidate of each row; infinite where none applies."""
    best_s = np.full(len(size_B), np.inf)
    winner = np.zeros(len(size_B), dtype=np.int16)
    for index, candidate in enumerate(group):
        good = candidate.applies(shape, link)
        if not good.any():
            continue
        latency_s, s_per_B = _totals(candidate, shape, link)
        latency_s[~good] = np.inf
        time_s = s_per_B[like]
        time_s *= size_B
        time_s += latency_s[like]
        better = time_s < best_s * _TIE
        np.copyto(best_s, time_s, where=better)
        winner[better] = index
    return best_s, winner


def _write(
    candidate: Candidate, at: Ints, size_B: Floats, like: Ints, shape: GroupShape, link: Link, out: _Out
) -> None:
    """Fill in the rows that a candidate won, pricing only the shapes among them."""
    first, where = _fold([like])
    used = like[first]
    shape = GroupShape(*(column[used] for column in shape))
    link = replace(link, **{f.name: v[used] for f in fields(link) if (v := getattr(link, f.name)).ndim})
    out.name_id[at] = _NAME_ID[candidate.name]
    for number, terms in enumerate(candidate.terms(shape, link)):
        if number == len(out.phases):
            out.add_phase()
        phase = out.phases[number]
        phase.latency_s[at] = terms.latency_s[where] + terms.arithmetic_s_per_B[where] * size_B
        for column, share in (
            (phase.port_B, terms.port),
            (phase.uplink_B, terms.uplink),
            (phase.nic_B, terms.nic),
            (phase.leaf_B, terms.leaf),
        ):
            if share.any():  # most fabrics leave most of these at zero
                column[at] = share[where] * size_B


def _cannot(algorithm: str, rows: Rows, row: int) -> InputError:
    """What to say of a row on which a named algorithm cannot run."""
    collective = COLLECTIVES[rows.collective[row]]
    group = CANDIDATES[rows.collective[row]]
    ranks, in_node, in_domain = (int(column[row]) for column in (rows.ranks, rows.in_node, rows.in_domain))
    named = [c for c in group if algorithm in (c.name, _family(c))]
    if not named:
        why = f"is no algorithm for {collective}. {did_you_mean(algorithm, {c.name for c in group}, limit=len(group))}"
    elif all(any(a.in_network for _, a in c.phases) for c in named):
        why = f"needs switches that reduce, between all ranks it works on: {ranks} ranks, {in_domain} in a domain."
    elif any(a.on_grid is not None for _, a in named[0].phases):
        lies = f"{ranks} ranks, {in_node} in a node, {in_domain} in a domain"
        why = f"needs a group that fills dimensions of a grid: {lies}."
    elif len(named[0].phases) > 1:
        why = (
            "needs equal blocks of more than one rank, of sizes that its parts are defined for: "
            f"{ranks} ranks, {in_node} in a node, {in_domain} in a domain."
        )
    else:
        why = f"is not defined for {ranks} ranks: it needs a power of two."
    return InputError(Problem(f"{algorithm!r} {why}", key=f"row {row}: {collective}"))


def _codes(column: NDArray[Any]) -> tuple[Ints, int]:
    """Small whole numbers that tell a column's values apart, and how many there are."""
    if column.dtype.kind == "i":
        low = int(column.min())
        span = int(column.max()) - low + 1
        if span <= _TABLE:
            seen = np.zeros(span, dtype=bool)
            seen[column - low] = True
            table = np.cumsum(seen) - 1
            return table[column - low], int(table[-1]) + 1
    values, codes = np.unique(column, return_inverse=True)
    return codes.astype(np.int64), len(values)


def _fold(columns: Sequence[NDArray[Any]]) -> tuple[Ints, Ints]:
    """A row of each distinct combination, and for every row the position of its combination."""
    code, count = _codes(columns[0])
    for column in columns[1:]:
        more, width = _codes(column)
        if width > 1:
            code, count = _codes(code * width + more)
    first = np.empty(count, dtype=np.int64)
    first[code[::-1]] = np.arange(len(code) - 1, -1, -1)
    return first, code
