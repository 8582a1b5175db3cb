"""What a library would do with calls, as the chooser answers: its algorithm, and its measured time as a demand.

A call takes T(S) = T(0) + rest: the first part is latency, the rest occupies the narrowest link that the group spans,
so that on an idle network the call takes T, and two at once share what they both need.

Leaves out: whether two calls in their latency parts hinder each other.
"""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats
from cmsim.collectives import COLLECTIVES, Choice, Link, Phase, Rows, busbw_factor, wire_bound_s
from cmsim.collectives import candidates as flat
from cmsim.errors import InputError
from cmsim.libraries.call import TUNER, candidates, time_us
from cmsim.libraries.place import Place
from cmsim.libraries.reach import note, reach

#: collectives that the models of libraries price
PRICED = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce")
#: a message so small that only latency counts [B]
_SMALL_B = 256.0
_TIE = 1 - 1e-12  # cheaper by rounding alone is not cheaper
#: algorithms of libraries on the pages that have their rounds, by name: of an all-reduce, of others
_PAGES = {
    "nvls": ("in_network", "in_network"),
    "mesh": ("two_shot", "direct"),
    "tree": ("double_tree", "double_tree"),
    # the tree runs between domains: as many steps and bytes as this one
    "nvls_tree": ("hierarchical(in_network, nhr)", "hierarchical(in_network, nhr)"),
}


def choose(at: Place, rows: Rows, link: Link) -> Choice:
    """The library's algorithm and time of every row, in one phase.

    at: the system    rows: calls of one collective of ``PRICED``    link: rates and efficiencies of its fabric
    """
    took_s, latency_s = _times_s(at, rows, link)
    return _laid(at, rows, link, took_s, latency_s, np.arange(len(rows)))


def cheaper(at: Place, rows: Rows, link: Link, choice: Choice) -> Choice:
    """A choice of formulas, and the library in the rows where its time is shorter.

    at, rows, link: as ``choose``    choice: of the same rows
    """
    took_s, latency_s = _times_s(at, rows, link)
    # measured clusters had full bisection: what leaves a leaf of a narrower one is priced by formulas alone
    narrow = (rows.in_leaf < rows.ranks) & np.isfinite(link.leaf_Bps)
    won = np.flatnonzero((took_s < choice.time_s * _TIE) & ~narrow)
    if not len(won):
        return choice
    own = _laid(at, rows, link, took_s, latency_s, won)
    name_id, time_s = choice.name_id.copy(), choice.time_s.copy()
    name_id[won] = len(choice.names) + own.name_id
    time_s[won] = own.time_s
    phases = []
    for number, phase in enumerate(choice.phases):
        columns = {f.name: getattr(phase, f.name).copy() for f in fields(Phase)}
        for name, column in columns.items():
            column[won] = getattr(own.phases[0], name) if number == 0 else 0.0
        phases.append(Phase(**columns))
    return Choice(name_id, (*choice.names, *own.names), time_s, phases)


def _times_s(at: Place, rows: Rows, link: Link) -> tuple[Floats, Floats]:
    """The library's time of every row, and that of a message so small that only latency counts. [s]

    However far its constants are carried, no time is below what the links need at line rate.
    """
    collective = COLLECTIVES[int(rows.collective[0])]
    took_s, latency_s = np.zeros(len(rows)), np.zeros(len(rows))
    # rows of one layout share a place: how many ranks of the group a domain holds
    near = np.where(rows.in_domain < rows.ranks, rows.in_domain, 0)
    for held in np.unique(near).tolist():
        which = np.flatnonzero((near == held) & (rows.ranks > 1))
        if not len(which):
            continue
        p, size_B = rows.ranks[which].astype(np.float64), rows.size_B[which].astype(np.float64)
        here = replace(at, domain_ranks=held or max(at.domain_ranks, int(p.max())))
        both = np.concatenate([size_B, np.minimum(size_B, _SMALL_B)])
        twice = np.concatenate([p, p])
        time_s = time_us(here, collective=collective, ranks=twice, size_B=both, narrow=np.zeros(len(both))) * 1e-6
        took_s[which] = time_s[: len(which)]
        latency_s[which] = np.minimum(*np.split(time_s, 2))
    return np.maximum(took_s, np.maximum.reduce(wire_bound_s(collective, rows, link))), latency_s


def _laid(at: Place, rows: Rows, link: Link, took_s: Floats, latency_s: Floats, which: NDArray[np.int64]) -> Choice:
    """Some rows as the library takes them: names, and one phase of latency and bytes."""
    collective = COLLECTIVES[int(rows.collective[0])]
    port, nic = (
        np.broadcast_to(np.multiply(rate, share), len(rows))[which]
        for rate, share in ((link.port_Bps, link.port_efficiency), (link.nic_Bps, link.nic_efficiency))
    )
    names: dict[str, int] = {}
    name_id = np.zeros(len(which), np.int16)
    for place, row in enumerate(which.tolist()):
        found = _name(at, collective, int(rows.ranks[row]), int(rows.in_domain[row]), float(rows.size_B[row]))
        name_id[place] = names.setdefault(found, len(names))
    ranks, in_node, size_B = rows.ranks[which], rows.in_node[which], rows.size_B[which]
    moved_s = took_s[which] - latency_s[which]
    far = rows.in_domain[which] < ranks
    payload_B = size_B * busbw_factor(collective, ranks)
    out_of_node = (ranks - in_node) / np.maximum(ranks - 1, 1)
    zero = np.zeros(len(which))
    phase = Phase(
        latency_s=latency_s[which],
        port_B=np.where(far, np.minimum(payload_B, moved_s * port), moved_s * port),
        uplink_B=np.where(far, zero, moved_s * port * out_of_node),
        nic_B=np.where(far, moved_s * nic, zero),
        leaf_B=zero,
    )
    return Choice(name_id, tuple(names), took_s[which], [phase])


def _name(at: Place, collective: str, ranks: int, near: int, size_B: float) -> str:
    """The likeliest algorithm of one call."""
    if ranks == 1:
        return "none"
    here = replace(at, domain_ranks=near if near < ranks else max(near, ranks))
    found = candidates(here, collective, np.array([float(ranks)]), np.array([size_B]))
    return next(one.name for one in found if not one.name.startswith(TUNER))


def notes(at: Place, rows: Rows, which: NDArray[np.bool_]) -> list[str]:
    """What is said of each row of one collective that lies outside what was measured, "" of the others and of rows that
    are not asked of."""
    collective = COLLECTIVES[int(rows.collective[0])]
    found = [""] * len(rows)
    asked = np.flatnonzero(which)
    columns = (asked, rows.ranks[asked], rows.in_domain[asked], rows.size_B[asked])
    for row, ranks, near, size_B in zip(*(column.tolist() for column in columns), strict=True):
        far = near < ranks
        here = replace(at, domain_ranks=near if far else max(near, ranks))
        (ways,) = reach(here, collective, ranks=np.array([float(ranks)]), size_B=np.array([float(size_B)])).tolist()
        found[row] = note(at, collective, ways, far=far)
    return found


def page(collective: str, name: str) -> str:
    """The page with the rounds of a library's algorithm.

    >>> page("all_reduce", "ring LL128"), page("all_reduce", "mesh copy")
    ('ring', 'two_shot')
    """
    # names of our own may have arguments, the library's have a protocol
    head = name if "(" in name else name.split()[0]
    return _PAGES.get(head, (head, head))[collective != "all_reduce"]


def pages(at: Place, collective: str, name: str) -> list[str]:
    """Pages of a collective that the system's library calls by a name of its own."""
    plain = name.lower().replace("-", "_")
    ours = {page.name for page in flat(collective)}
    out = []
    for theirs, one in at.names.items():
        if plain in {word.lower().replace("-", "_") for word in (theirs, *one.also)}:
            out += [page for page in one.pages if page in ours]
    return out


def check(at: Place, library: str) -> None:
    """InputError where a system runs another library, or none that is known."""
    if not at.measured:
        raise InputError(f"algorithm: no library is known for {at.name}, got '{library}'. Allowed: best.")
    if at.library != library:
        raise InputError(f"algorithm: {at.name} runs {at.library}, got '{library}'. Allowed: {at.library}, best.")
