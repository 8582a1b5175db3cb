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

from cmsim.arrays import Floats, Ints
from cmsim.messages.rounds import Software
from cmsim.topology import Paths


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
    paths: Paths,
    ranks: Ints,
    software: Software,
    in_network: bool = False,
) -> Bound:
    """The bound of a collective among ranks of a system, at the rate of the wires. [s]

    size_B: S as in ``collectives`` [B]    paths: at the full rate of the wires    ranks: the group, its root first
    software: what a message's latency holds beside the wire    in_network: whether switches add and multicast
    """
    return bound_of_group(collective, size_B, group=group_on(paths, ranks), software=software, in_network=in_network)


@dataclass(frozen=True)
class GroupOn:
    """What bounds need to know of a group of ranks on a fabric, its root first.

    port_Bps   of each rank [B/s]    farthest_s  latency of the farthest pair [s]
    cuts       of each way to part the group: ranks of a part, whether the root is there, what it sends at most [B/s]
    """

    port_Bps: Floats
    farthest_s: float
    cuts: list[tuple[Floats, NDArray[np.bool_], Floats]]


def group_on(paths: Paths, ranks: Ints) -> GroupOn:
    """A group on a fabric, whatever it does."""
    if len(ranks) < 2:
        return GroupOn(np.zeros(len(ranks)), 0.0, [])
    cuts = []
    for home, capacity in paths.cuts(ranks):
        names, member = np.unique(home, return_inverse=True)
        count = np.bincount(member.reshape(-1), minlength=len(names))
        root = np.bincount(member.reshape(-1)[:1], minlength=len(names)) > 0
        cuts.append((count.astype(np.float64), root, capacity[names]))
    return GroupOn(paths.port_Bps(ranks), paths.farthest_s(ranks), cuts)


def bound_of_group(
    collective: str, size_B: float, *, group: GroupOn, software: Software, in_network: bool = False
) -> Bound:
    """As `bound`, of a group that was looked at before. [s]"""
    p, ports = len(group.port_Bps), group.port_Bps
    if p < 2:
        return Bound(0.0, 0.0, 0.0, 0.0)
    out, into = _needs(collective, np.ones(p), np.arange(p) == 0, p)
    egress, ingress = _worst_s(out * size_B, ports), _worst_s(into * size_B, ports)
    if not in_network:
        total = size_B * {"all_reduce": 2.0 * (p - 1), "all_gather": p - 1.0, "reduce_scatter": p - 1.0}.get(
            collective, 0.0
        )
        egress, ingress = (max(side, total / float(ports.sum())) for side in (egress, ingress))
    bisection = 0.0
    for count, root, capacity in group.cuts:
        for side in _needs(collective, count, root, p):
            bisection = max(bisection, _worst_s(side * size_B, capacity))
    return Bound(egress, ingress, bisection, _latency_s(group.farthest_s, software))


def bound_of_matrix(matrix_B: Floats, *, paths: Paths, ranks: Ints, software: Software) -> Bound:
    """The bound of an all-to-all of unequal blocks: what leaves and enters every cut. [s]"""
    matrix = np.array(matrix_B, np.float64)
    np.fill_diagonal(matrix, 0.0)
    if not matrix.any():
        return Bound(0.0, 0.0, 0.0, 0.0)
    ports = paths.port_Bps(ranks)
    bisection = 0.0
    for home, capacity in paths.cuts(ranks):
        names, member = np.unique(home, return_inverse=True)
        inside = np.zeros((len(names), len(ranks)))
        inside[member.reshape(-1), np.arange(len(ranks))] = 1.0
        kept = np.einsum("ij,jk,ik->i", inside, matrix, inside, optimize=True)
        for side in (inside @ matrix.sum(axis=1), inside @ matrix.sum(axis=0)):
            bisection = max(bisection, _worst_s(np.maximum(side - kept, 0.0), capacity[names]))
    src, dst = np.nonzero(matrix)
    longest_s = paths.longest_s(ranks[src], ranks[dst])
    egress, ingress = _worst_s(matrix.sum(axis=1), ports), _worst_s(matrix.sum(axis=0), ports)
    return Bound(egress, ingress, bisection, _latency_s(longest_s, software))


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


def _latency_s(path_s: float, software: Software) -> float:
    return float(software.latency_s(np.array([path_s]))[0])
