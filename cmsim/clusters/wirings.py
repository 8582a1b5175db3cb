"""Which of our wirings the fabric of a described cluster is, with the numbers that its links have.

switch            every accelerator joined to every switch, and to nothing else
full_mesh         every two accelerators joined, and no switch
multi_plane_clos  a first-tier switch a plane in each host, joined to all second-tier switches of its plane
custom            anything else, as a table of links
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from cmsim.clusters.fabric import Cluster, Edge, Pair


@dataclass(frozen=True)
class WiringFound:
    """A wiring. Keys of ``scale_up`` by name; None where the file does not say.

    table: rows of links, of a custom wiring    of: the links that the keys are from
    """

    wiring: str
    keys: dict[str, float | int | None]
    table: list[dict[str, Any]] = field(default_factory=list)
    of: str = ""


def wiring_of(cluster: Cluster) -> WiringFound:
    """The wiring of one domain, which is that of all."""
    ranks, edges = cluster.domains[0]
    switches = sorted({v for pair in edges for v in pair} - set(ranks))
    names = ", ".join(dict.fromkeys(edge.link for edge in edges.values()))
    if not switches and set(edges) == {frozenset(pair) for pair in itertools.combinations(ranks, 2)}:
        one = _alike(edges.values())
        if one is not None:
            keys = {"links_per_pair": 1, "link_GBps": one.GBps, "domain_us": one.latency_us}
            return WiringFound("full_mesh", keys, of=names)
    if set(edges) == {frozenset((rank, switch)) for rank in ranks for switch in switches}:
        one = _alike(edges.values())
        if one is not None:
            us = None if one.latency_us is None else 2 * one.latency_us
            keys = {"switches": len(switches), "links_per_accelerator": len(switches), "link_GBps": one.GBps}
            return WiringFound("switch", keys | {"domain_us": us}, of=names)
    return _clos(cluster, ranks, switches, edges, names) or WiringFound(
        "custom", {}, _table(ranks, switches, edges), names
    )


def _alike(edges: Any) -> Edge | None:
    """One of edges that have the same numbers."""
    several = list(edges)
    return several[0] if len({(one.GBps, one.latency_us) for one in several}) == 1 else None


def _clos(
    cluster: Cluster, ranks: list[str], switches: list[str], edges: dict[Pair, Edge], names: str
) -> WiringFound | None:
    """Two tiers in planes, or nothing."""
    host = {node: name for name, each in cluster.hosts.items() for node in each}
    serves: dict[str, set[str]] = {switch: set() for switch in switches}
    up: dict[str, set[str]] = {switch: set() for switch in switches}
    ports, lanes = [], []
    for pair, edge in edges.items():
        inside = sorted(pair & serves.keys())
        if len(inside) == 1:
            (node,) = pair - serves.keys()
            serves[inside[0]].add(node)
            ports.append(edge)
        elif inside:
            up[inside[0]].add(inside[1])
            up[inside[1]].add(inside[0])
            lanes.append(edge)
        else:
            return None
    first = [switch for switch in switches if serves[switch]]
    port, lane = _alike(ports), _alike(lanes)
    if port is None or lane is None or port.GBps is None or lane.GBps is None:
        return None
    hosts = list(dict.fromkeys(host[rank] for rank in ranks))
    # a first-tier switch serves one host, and reaches what others of its plane reach
    planes: dict[frozenset[str], list[str]] = {}
    for switch in first:
        names_of = {host[node] for node in serves[switch]}
        if len(names_of) > 1 or len(serves[switch]) != cluster.per_host or up[switch] & set(first):
            return None
        planes.setdefault(frozenset(up[switch]), []).append(*names_of)
    chips = {len(plane) for plane in planes}
    second = [chip for plane in planes for chip in plane]
    whole = all(sorted(served) == sorted(hosts) for served in planes.values())
    each = port.GBps / lane.GBps
    if not whole or len(chips) > 1 or len(second) != len(set(second)) or abs(each - round(each)) > 1e-6 or each < 1:
        return None
    node_us = None if port.latency_us is None else 2 * port.latency_us
    up_us = None if node_us is None or lane.latency_us is None else node_us + 2 * lane.latency_us
    socket = _alike(cluster.sockets) if cluster.sockets else None
    return WiringFound(
        "multi_plane_clos",
        {
            "planes": len(planes),
            "lane_GBps": lane.GBps,
            "lanes_per_accelerator": round(each),
            "l2_chips_per_plane": chips.pop(),
            "cpu_GBps": None if socket is None or socket.GBps is None else socket.GBps * len(planes),
            "node_us": node_us,
            "domain_us": up_us,
        },
        of=names,
    )


def _table(ranks: list[str], switches: list[str], edges: dict[Pair, Edge]) -> list[dict[str, Any]]:
    """Rows of a table of links; latencies that the file lacks are None, with what lies at the ends."""
    name = {node: f"rank/{number}" for number, node in enumerate(ranks)}
    name |= {switch: switch for switch in switches}
    place = {node: number for number, node in enumerate([*ranks, *switches])}
    rows = []
    for pair, edge in edges.items():
        a, b = sorted(pair, key=place.__getitem__)
        tier = "between" if place[b] < len(ranks) else "up" if place[a] < len(ranks) else "trunk"
        rows.append(
            {"from": name[a], "to": name[b], "GBps": edge.GBps, "us": edge.latency_us, "link": edge.link, "tier": tier}
        )
    return sorted(rows, key=lambda row: (row["tier"], row["from"].startswith("rank"), row["from"], row["to"]))
