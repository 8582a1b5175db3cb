"""What a described cluster is made of: hosts, the fabric that joins their accelerators, the network behind it.

A description does not say which of its links are the fabric of accelerators. Those are taken that end at accelerators
and switches alone, never at a processor or a card; a box of switches is an instance that holds neither accelerator nor
card, and counts as one switch. Edges from cards to boxes are the network between hosts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cmsim.clusters.description import Description

#: what a unit of a link is in GB/s, and in us
_GBPS = {"Gbps": 1 / 8, "GBps": 1.0}
_US = {"ms": 1e3, "us": 1.0, "ns": 1e-3}
Pair = frozenset[str]


@dataclass(frozen=True)
class Edge:
    """Links between two vertices, all together. GBps, latency_us: one direction; None where the file has none"""

    link: str
    GBps: float | None
    latency_us: float | None


@dataclass(frozen=True)
class Cluster:
    """A cluster by its parts.

    hosts    of each host its accelerators, in order
    cpus     of a host
    domains  of each its accelerators in order, and the edges between them and their switches
    sockets  edges between processors and switches of the fabric
    network  edges between cards of a host, or switches of the network, and switches of the network
    ports    of a switch of the network that serves hosts; 0 where the file counts none
    """

    found: Description
    hosts: dict[str, list[str]]
    cpus: int
    domains: list[tuple[list[str], dict[Pair, Edge]]]
    sockets: list[Edge]
    network: dict[Pair, Edge]
    cards: list[Edge]
    ports: int

    @property
    def per_host(self) -> int:
        """Accelerators of a host."""
        return len(next(iter(self.hosts.values())))


def cluster_of(found: Description) -> Cluster:
    """The parts. Raises InputError where accelerators, hosts or domains are not alike, or nothing joins them."""
    graph = found.graph
    kind: dict[str, str] = dict(graph.nodes(data="type"))
    top = {node: ".".join(node.split(".")[:2]) for node in graph}
    hosts: dict[str, list[str]] = {}
    for node, what in kind.items():
        if what == "xpu":
            hosts.setdefault(top[node], []).append(node)
    if not hosts:
        raise found.problem("no component is an `xpu`, which is what it calls an accelerator", "devices")
    if len(sizes := sorted({len(each) for each in hosts.values()})) > 1:
        raise found.problem(f"hosts hold {' or '.join(map(str, sizes))} accelerators; allowed: all alike", "instances")
    boxes = set(top.values()) - {top[node] for node, what in kind.items() if what in ("xpu", "nic")}
    edges = _edges(found, {node: top[node] if top[node] in boxes else node for node in graph})

    def role(vertex: str) -> str:
        return "box" if vertex in boxes else {"xpu": "xpu", "switch": "switch"}.get(kind[vertex], "other")

    inside = _fabric(edges, role)
    joined = set().union(*inside) if inside else set()
    lost = [node for each in hosts.values() for node in each if node not in joined]
    if lost:
        said = ", ".join(f"{name} ({' and '.join(sorted(ends))})" for name, ends in _ends(edges, role).items())
        message = f"no link joins {lost[0]} to accelerators and their switches alone; its links: {said or 'none'}"
        raise found.problem(message, "devices")
    of_host = {pair: edge for pair, edge in edges.items() if pair not in inside}
    out = {pair: edge for pair, edge in of_host.items() if pair & (boxes - joined) and not pair & joined}
    ends = {vertex for pair in out for vertex in pair}
    return Cluster(
        found=found,
        hosts=hosts,
        cpus=sum(what == "cpu" and node.rsplit(".", 2)[0] == next(iter(hosts)) for node, what in kind.items()),
        domains=_domains(found, hosts, inside),
        sockets=[edge for pair, edge in of_host.items() if pair & boxes & joined and _any(pair, kind, "cpu")],
        network={pair: edge for pair, edge in out.items() if all(v in boxes or top[v] in hosts for v in pair)},
        cards=[edge for pair, edge in of_host.items() if {kind.get(v) for v in pair} == {"xpu", "nic"}],
        ports=max((sum(top[n] == box and w == "port" for n, w in kind.items()) for box in ends & boxes), default=0),
    )


def _any(pair: Pair, kind: dict[str, str], what: str) -> bool:
    return any(kind.get(vertex) == what for vertex in pair)


def _edges(found: Description, at: dict[str, str]) -> dict[Pair, Edge]:
    """Edges between hosts' components and whole boxes; rates of what lies in parallel are added up."""
    out: dict[Pair, Edge] = {}
    for a, b, said in found.graph.edges(data=True):
        pair = frozenset((at[a], at[b]))
        if len(pair) < 2:
            continue
        GBps, us = _number(said.get("bandwidth"), _GBPS), _number(said.get("latency"), _US)
        if (GBps is not None and not 0 < GBps < math.inf) or (us is not None and not 0 <= us < math.inf):
            told = f"{said.get('bandwidth')}, {said.get('latency')}"
            raise found.problem(f"link {said['link']} has {told}: a rate is above 0, a latency 0 or more", "links")
        if pair in out:
            before = out[pair]
            GBps = None if before.GBps is None or GBps is None else before.GBps + GBps
            # what is sent over all of them is there with the last part
            us = None if before.latency_us is None or us is None else max(before.latency_us, us)
        out[pair] = Edge(str(said.get("link")), GBps, us)
    return out


def _number(text: str | None, units: dict[str, float]) -> float | None:
    """``1400 Gbps`` as a number; None where there is none, or in a unit that says no rate (GT/s)."""
    value, _, unit = (text or "").partition(" ")
    return float(value) * units[unit] if unit in units else None


def _ends(edges: dict[Pair, Edge], role: Any) -> dict[str, set[str]]:
    """Of each link what it ends at, where one end is an accelerator."""
    out: dict[str, set[str]] = {}
    for pair, edge in edges.items():
        out.setdefault(edge.link, set()).update(map(role, pair))
    return {name: ends for name, ends in out.items() if "xpu" in ends}


def _fabric(edges: dict[Pair, Edge], role: Any) -> dict[Pair, Edge]:
    """Edges of the fabric of accelerators, those between its boxes too."""
    names = {name for name, ends in _ends(edges, role).items() if ends <= {"xpu", "switch", "box"}}
    out = {pair: edge for pair, edge in edges.items() if edge.link in names}
    outside = {vertex for pair in edges if any(role(v) == "other" for v in pair) for vertex in pair}
    while True:
        inside = {vertex for pair in out for vertex in pair if role(vertex) == "box"}
        more = {
            pair: edge
            for pair, edge in edges.items()
            if pair not in out and pair & inside
            if all(role(vertex) == "box" for vertex in pair) and not (pair - inside) & outside
        }
        if not more:
            return out
        out |= more


def _domains(
    found: Description, hosts: dict[str, list[str]], edges: dict[Pair, Edge]
) -> list[tuple[list[str], dict[Pair, Edge]]]:
    """Parts that are joined, in the order of their first accelerators; all alike."""
    import networkx as nx

    graph = nx.Graph(tuple(pair) for pair in edges)
    number = {v: n for n, part in enumerate(nx.connected_components(graph)) for v in part}
    members: dict[int, list[str]] = {}
    for name, each in hosts.items():
        if len({number[node] for node in each}) > 1:
            raise found.problem(f"accelerators of {name} lie in several fabrics; allowed: one", "devices")
        members.setdefault(number[each[0]], []).extend(each)
    own: dict[int, dict[Pair, Edge]] = {n: {} for n in members}
    for pair, edge in edges.items():
        own[number[next(iter(pair))]][pair] = edge
    shapes = {(len(members[n]), _shape(own[n].values())) for n in members}
    if len(shapes) > 1:
        said = sorted({len(each) for each in members.values()})
        raise found.problem(f"fabrics differ (they join {', '.join(map(str, said))}); allowed: all alike", "edges")
    return [(members[n], own[n]) for n in members]


def _shape(edges: Iterable[Edge]) -> tuple[Any, ...]:
    return tuple(sorted((edge.link, edge.GBps or 0.0) for edge in edges))
