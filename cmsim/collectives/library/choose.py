"""What a library would do with calls, as the chooser answers: its algorithm, and its measured time as a demand.

A call takes T(S) = T(0) + rest: the first part is latency, the rest occupies the narrowest link that the group spans,
so that on an idle network the call takes T, and two at once share what they both need.

Leaves out: whether two calls in their latency parts hinder each other.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cmsim.collectives import COLLECTIVES, Choice, Link, Phase, Rows, busbw_factor
from cmsim.collectives import candidates as flat
from cmsim.collectives.library.call import TUNER, candidates, time_us
from cmsim.collectives.library.place import Place
from cmsim.errors import InputError

#: collectives that the models of libraries price
PRICED = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce")
#: a message so small that only latency counts [B]
_SMALL_B = 256.0
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
    collective = COLLECTIVES[int(rows.collective[0])]
    names: dict[str, int] = {}
    count = len(rows)
    name_id = np.zeros(count, np.int16)
    columns = np.zeros((5, count))
    time_s = np.zeros(count)
    zero = np.zeros(1)
    port, nic = (
        float(np.asarray(rate)) * float(np.asarray(share))
        for rate, share in ((link.port_Bps, link.port_efficiency), (link.nic_Bps, link.nic_efficiency))
    )
    # calls are distinct ones, so there are few
    for row in range(count):
        ranks, near, size_B = int(rows.ranks[row]), int(rows.in_domain[row]), float(rows.size_B[row])
        if ranks == 1:
            name_id[row] = names.setdefault("none", len(names))
            continue
        here = replace(at, domain_ranks=near) if near < ranks else replace(at, domain_ranks=max(near, ranks))
        p, size = np.array([float(ranks)]), np.array([size_B])
        small = np.minimum(size, _SMALL_B)
        took, least = (
            float(time_us(here, collective=collective, ranks=p, size_B=S, narrow=zero)[0]) * 1e-6 for S in (size, small)
        )
        found = next(one for one in candidates(here, collective, p, size) if not one.name.startswith(TUNER))
        name_id[row] = names.setdefault(found.name, len(names))
        latency_s = min(least, took)
        moved_s = took - latency_s
        time_s[row] = took
        if near < ranks:
            payload_B = size_B * float(busbw_factor(collective, ranks))
            columns[:, row] = latency_s, min(payload_B, moved_s * port), 0.0, moved_s * nic, 0.0
        else:
            port_B = moved_s * port
            out_of_node = (ranks - int(rows.in_node[row])) / (ranks - 1)
            columns[:, row] = latency_s, port_B, port_B * out_of_node, 0.0, 0.0
    return Choice(name_id, tuple(names), time_s, [Phase(*columns)])


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
    """InputError where a system runs another library."""
    if at.library != library:
        raise InputError(f"algorithm: {at.name} runs {at.library}, got '{library}'. Allowed: {at.library}, best.")
