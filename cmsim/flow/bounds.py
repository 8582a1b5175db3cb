"""What no algorithm can beat on a fabric with these links: bytes that must cross a cut, over what the cut carries.

A cut is a set of k of the p ranks: one rank, a node, a leaf, a domain. Per byte of S, whatever the algorithm, so much
must leave and so much must enter it:

    all-to-all        k (p - k)/p out and in           the pairs across
    all-gather        k/p out, (p - k)/p in            each block once
    reduce-scatter    (p - k)/p out, k/p in            each sum's contribution once
    all-reduce        1 out and in                     a contribution to, and the sum of, every element
    broadcast         1 out where the root is, 1 in elsewhere; reduce the other way round
    scatter           (p - k)/p out where the root is, k/p in elsewhere; gather the other way round

and over all ranks together p - 1 times S of an all-gather or a reduce-scatter, twice that of an all-reduce.
The latency bound is that of the farthest pair: what one of them has must reach the other. Ranks that send to ports of
switches that add are bound by their own vector only.

Source: Chan, Heimlich, Purkayastha and van de Geijn 2007, doi:10.1002/cpe.1206, for the ranks' own ports; the other
cuts follow in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cmsim.flow.rounds import Software
from cmsim.topology.routes import BLOCK, CLUSTER, DOMAIN, LEAF, Edges, Routes

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bound:
    """Least times, each for itself. [s]

    egress_s, ingress_s  out of and into the ranks' own ports    bisection_s  through nodes, leaves and domains
    latency_s  of the farthest pair, with the software of one round
    """

    egress_s: float
    ingress_s: float
    bisection_s: float
    latency_s: float

    @property
    def time_s(self) -> float:
        """The largest of them. [s]"""
        return max(self.egress_s, self.ingress_s, self.bisection_s, self.latency_s)


def bound(
    collective: str,
    size_B: float,
    *,
    routes: Routes,
    wires: Edges,
    ranks: Ints,
    software: Software,
    in_network: bool = False,
) -> Bound:
    """The bound of a collective among ranks of a system, at the rate of the wires. [s]

    size_B: S as in ``collectives`` [B]    wires: what the links carry    ranks: the group, its root first
    software: what a message's latency holds beside the wire    in_network: whether switches add and multicast
    """
    p = len(ranks)
    if p < 2:
        return Bound(0.0, 0.0, 0.0, 0.0)
    out, into = _needs(collective, np.ones(p), np.arange(p) == 0, p)
    ports = _port_Bps(routes, wires, ranks)
    egress, ingress = _worst_s(out * size_B, ports), _worst_s(into * size_B, ports)
    if not in_network:
        total = size_B * {"all_reduce": 2.0 * (p - 1), "all_gather": p - 1.0, "reduce_scatter": p - 1.0}.get(
            collective, 0.0
        )
        egress, ingress = (max(side, total / float(ports.sum())) for side in (egress, ingress))
    bisection = 0.0
    for home, capacity in _cuts(routes, wires, ranks):
        names, member = np.unique(home, return_inverse=True)
        count = np.bincount(member.reshape(-1), minlength=len(names))
        root = np.bincount(member.reshape(-1)[:1], minlength=len(names)) > 0
        for side in _needs(collective, count.astype(np.float64), root, p):
            bisection = max(bisection, _worst_s(side * size_B, capacity[names]))
    return Bound(egress, ingress, bisection, _latency_s(routes, _farthest(routes, ranks), software))


def bound_of_matrix(matrix_B: Floats, *, routes: Routes, wires: Edges, ranks: Ints, software: Software) -> Bound:
    """The bound of an all-to-all of unequal blocks: what leaves and enters every cut. [s]"""
    matrix = np.array(matrix_B, np.float64)
    np.fill_diagonal(matrix, 0.0)
    if not matrix.any():
        return Bound(0.0, 0.0, 0.0, 0.0)
    ports = _port_Bps(routes, wires, ranks)
    bisection = 0.0
    for home, capacity in _cuts(routes, wires, ranks):
        names, member = np.unique(home, return_inverse=True)
        inside = np.zeros((len(names), len(ranks)))
        inside[member.reshape(-1), np.arange(len(ranks))] = 1.0
        kept = np.einsum("ij,jk,ik->i", inside, matrix, inside, optimize=True)
        for side in (inside @ matrix.sum(axis=1), inside @ matrix.sum(axis=0)):
            bisection = max(bisection, _worst_s(np.maximum(side - kept, 0.0), capacity[names]))
    src, dst = np.nonzero(matrix)
    apart = int(routes.levels(ranks[src].astype(np.int32), ranks[dst].astype(np.int32)).max())
    egress, ingress = _worst_s(matrix.sum(axis=1), ports), _worst_s(matrix.sum(axis=0), ports)
    return Bound(egress, ingress, bisection, _latency_s(routes, apart, software))


def _needs(collective: str, k: Floats, root: NDArray[np.bool_], p: int) -> tuple[Floats, Floats]:
    """Bytes that must leave and enter cuts of k ranks, per byte of S; ``root`` says which cut holds the root. [1]"""
    away = np.where(k < p, 1.0, 0.0)
    mine, others = away * k / p, away * (p - k) / p
    at, off = away * root, away * ~root
    zero = 0.0 * k
    return {
        "all_to_all": (k * others, k * others),
        "dispatch": (k * others, k * others),
        "combine": (k * others, k * others),
        "all_gather": (mine, others),
        "reduce_scatter": (others, mine),
        "all_reduce": (away, away),
        "broadcast": (at, off),
        "reduce": (off, at),
        "send_recv": (at, off),
        "scatter": (others * root, mine * ~root),
        "gather": (mine * ~root, others * root),
    }.get(collective, (zero, zero))


def _worst_s(bytes_B: Floats, capacity_Bps: Floats) -> float:
    """The longest of several cuts; those that nothing must cross may have no capacity. [s]"""
    need = bytes_B > 0
    time_s = np.divide(bytes_B, capacity_Bps, out=np.full(len(bytes_B), np.inf), where=capacity_Bps > 0)
    return float(np.max(time_s[need], initial=0.0))


def _latency_s(routes: Routes, level: int, software: Software) -> float:
    return float(software.latency_s(routes.latency_s[level : level + 1])[0])


def _port_Bps(routes: Routes, wires: Edges, ranks: Ints) -> Floats:
    """What each rank sends at most, over all its links to the others. [B/s]"""
    where = routes.where
    port: Floats = wires.port[ranks].sum(axis=1)
    if wires.mesh.shape[1]:
        size = wires.mesh.shape[1]
        present = np.zeros(len(where.domain) + size, bool)
        present[ranks] = True
        peer = (ranks // size * size)[:, None] + np.arange(size)
        port = (wires.mesh[ranks] * present[peer]).sum(axis=1)
    if len(np.unique(where.domain[ranks])) > 1:
        # a rank alone in its domain has nobody behind its port
        alone = np.bincount(where.domain[ranks])[where.domain[ranks]] == 1
        port = np.where(alone, 0.0, port) + wires.nic[ranks]
    return port


def _cuts(routes: Routes, wires: Edges, ranks: Ints) -> list[tuple[Ints, Floats]]:
    """(part of each rank, what each part sends at most [B/s]) where nodes, domains and leaves divide the ranks."""
    where = routes.where
    nic: Floats = np.bincount(where.domain[ranks], wires.nic[ranks], minlength=where.domains).astype(np.float64)
    out: list[tuple[Ints, Floats]] = []
    if wires.uplink.shape[2]:
        # what leaves a node may also leave through its ranks' NICs, where the group goes that far
        up = wires.uplink.sum(axis=(1, 2))
        if len(np.unique(where.domain[ranks])) > 1:
            up = up + np.bincount(where.node[ranks], wires.nic[ranks], minlength=where.nodes)
        out.append((where.node[ranks], up))
    if len(np.unique(where.domain[ranks])) > 1:
        out.append((where.domain[ranks], nic))
        if wires.spine.shape[1] and len(np.unique(where.leaf[ranks])) > 1 and _leaves_hold_domains(routes, ranks):
            out.append((where.leaf[ranks], wires.spine.sum(axis=1)))
    return out


def _leaves_hold_domains(routes: Routes, ranks: Ints) -> bool:
    """Whether all that crosses between leaves crosses the spines: no domain of the group has ranks under two leaves."""
    pairs = np.unique(np.stack([routes.where.domain[ranks], routes.where.leaf[ranks]]), axis=1)
    return len(np.unique(pairs[0])) == int(pairs.shape[1])


def _farthest(routes: Routes, ranks: Ints) -> int:
    """Where the two ends meet that are farthest apart."""
    where = routes.where
    domain, leaf = np.unique(np.stack([where.domain[ranks], where.leaf[ranks]]), axis=1)
    apart = domain[:, None] != domain
    if apart.any():
        return CLUSTER if (apart & (leaf[:, None] != leaf)).any() else LEAF
    return DOMAIN if len(np.unique(routes.block[ranks])) > 1 else BLOCK
