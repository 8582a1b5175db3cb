"""The whole system as a graph of ranks, host processors, switch chips, NICs and their links."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.topology import fat_tree
from cmsim.topology.links import add_node
from cmsim.topology.places import places
from cmsim.topology.wirings import wiring

if TYPE_CHECKING:
    import networkx as nx

#: kinds of node that send and receive but never forward
_ENDS = frozenset({"rank", "cpu"})

#: how many problems of a graph are listed before the rest is only counted
_LISTED = 10


def build(system: System) -> nx.DiGraph[Any]:
    """The domains in use and the scale-out network between them; see `cmsim.topology.links` for names and units.

    Latencies along a shortest path add up to the small-message figures of the system file. The second-tier and
    single-tier switches of a partly used domain are all there; first-tier chips and hosts only of nodes in use.
    """
    import networkx as nx

    graph: nx.DiGraph[Any] = nx.DiGraph(name=system.name)
    where = places(system)
    for rank in range(system.ranks):
        add_node(
            graph,
            ("rank", rank),
            package=int(where.package[rank]),
            node=int(where.node[rank]),
            domain=int(where.domain[rank]),
        )
    wiring(system).wire(graph, system, system.spec.scale_up)
    fat_tree.wire(graph, system)
    check(graph)
    return graph


def check(graph: nx.DiGraph[Any]) -> None:
    """Refuse a graph that would compute nonsense: a link without a positive capacity or with no latency, a rank
    that cannot reach the others. Raises InputError with every problem (the first ten are listed)."""
    import networkx as nx

    problems = []
    for a, b, data in graph.edges(data=True):
        if not _number(data.get("capacity_Bps"), above=0.0):
            problems.append(_problem(graph, f"needs a capacity_Bps above 0, got {data.get('capacity_Bps')}", a, b))
        if not _number(data.get("latency_s")):
            problems.append(_problem(graph, f"needs a latency_s of 0 or more, got {data.get('latency_s')}", a, b))
    ranks = [node for node, kind in graph.nodes(data="kind") if kind == "rank"]
    if not ranks:
        problems.append(_problem(graph, "the graph has no rank"))
    else:
        out, back = nx.descendants(graph, ranks[0]), nx.ancestors(graph, ranks[0])
        lost = [rank for rank in ranks[1:] if rank not in out or rank not in back]
        problems += [_problem(graph, "has no path to and from the first rank", rank) for rank in lost]
    if len(problems) > _LISTED:
        problems = [*problems[:_LISTED], _problem(graph, f"and {len(problems) - _LISTED} more problems")]
    if problems:
        raise InputError(problems)


def between(graph: nx.DiGraph[Any], start: Any, end: Any) -> nx.DiGraph[Any]:
    """The part of the graph that a transfer may use: its two ends and what forwards. Hosts do not, and ranks only where
    they are joined to each other dimension by dimension or by a custom graph."""
    import networkx as nx

    ends = (start, end)
    still = _ENDS - {"rank"} if graph.graph.get("ranks_forward") else _ENDS
    return nx.subgraph_view(graph, filter_node=lambda node: node in ends or node[0] not in still)


def _number(value: Any, *, above: float | None = None) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return value > above if above is not None else value >= 0


def _problem(graph: nx.DiGraph[Any], message: str, *nodes: Any) -> Problem:
    key = " -> ".join("/".join(map(str, node)) if isinstance(node, tuple) else str(node) for node in nodes)
    return Problem(message, f"topology of {graph.name}" if graph.name else "topology", key=key)
