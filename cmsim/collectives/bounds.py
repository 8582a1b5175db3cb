"""Lower bounds: what no algorithm can beat. A simulated time below these is a bug.

    all-reduce                    max(ceil(log2 p) alpha, 2 (p - 1)/p S/B, (p - 1)/p S gamma)
    reduce-scatter, all-gather    max(ceil(log2 p) alpha, (p - 1)/p S/B)
    scatter, gather, all-to-all   the same
    broadcast, reduce             max(ceil(log2 p) alpha, S/B)
    send and receive              alpha + S/B
    all-reduce in the switches    max(alpha, S/B)       what enters and leaves each rank, however the switch adds

The latency term is that of ranks which talk to one peer at a time; a rank that writes to all peers at once needs only
one alpha. Dispatch and combine are all-to-alls here.

Leaves out: any fabric narrower than the ranks' ports.
Source: Chan, Heimlich, Purkayastha and van de Geijn, Concurrency and Computation 19(13), 1749-1783, 2007,
doi:10.1002/cpe.1206; the in-network bound follows from each rank's own vector going out once and the sum coming in.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cmsim.collectives.terms import COLLECTIVES, Column, any_peers, ceil_log2, nothing, others
from cmsim.errors import InputError, did_you_mean


class Bound(NamedTuple):
    """The terms of a lower bound; each bounds the time alone. [s]"""

    latency_s: Column
    bandwidth_s: Column
    arithmetic_s: Column


def bandwidth_bound_B(collective: str, ranks: Column, size_B: Column, *, in_network: bool = False) -> Column:
    """Bytes that the busiest port must carry in one direction, whatever the algorithm. [B]

    collective: one of COLLECTIVES    ranks: p [1]    size_B: S [B]    in_network: whether switches add

    >>> bandwidth_bound_B("all_reduce", 4, 400.0)
    600.0
    """
    if collective not in COLLECTIVES:
        raise InputError(f"unknown collective {collective!r}. {did_you_mean(collective, COLLECTIVES)}")
    if collective == "barrier":
        return nothing(ranks)
    if collective in ("broadcast", "reduce", "send_recv") or (collective == "all_reduce" and in_network):
        return any_peers(ranks) * size_B
    return (2 if collective == "all_reduce" else 1) * others(ranks) * size_B


def cut_bound_B(collective: str, inside: Column, ranks: Column, size_B: Column) -> Column:
    """Bytes that must cross, in the busier direction, between ``inside`` of the ranks and the others. [B]

    As in `cmsim.messages.bounds`: an all-to-all k (p - k)/p S; an all-gather or a reduce-scatter max(k, p - k)/p S; an
    all-reduce, a broadcast, a reduction or a message S, whatever switches add. 0 where all ranks are inside.

    collective: one of COLLECTIVES    inside: k, of a node, a domain, a leaf [1]    ranks: p [1]    size_B: S [B]

    >>> float(cut_bound_B("all_gather", 2, 8, 800.0)), float(cut_bound_B("all_reduce", 8, 8, 800.0))
    (600.0, 0.0)
    """
    if collective not in COLLECTIVES:
        raise InputError(f"unknown collective {collective!r}. {did_you_mean(collective, COLLECTIVES)}")
    k, p = np.minimum(inside, ranks), np.asarray(ranks, np.float64)
    if collective == "barrier":
        share = nothing(ranks)
    elif collective in ("all_to_all", "dispatch", "combine"):
        share = k * (p - k) / p
    elif collective in ("all_gather", "reduce_scatter"):
        share = np.maximum(k, p - k) / p
    else:
        share = 1.0
    return np.where(k < p, share * size_B, 0.0)[()]


def lower_bound_terms(
    collective: str,
    ranks: Column,
    *,
    size_B: Column,
    alpha_s: Column,
    bandwidth_Bps: Column,
    gamma_s_per_B: Column = 0.0,
    one_port: bool = True,
    in_network: bool = False,
) -> Bound:
    """The latency, bandwidth and arithmetic terms of the lower bound. [s]

    collective: one of COLLECTIVES    ranks: p [1]    size_B: S [B]    alpha_s: fixed cost of a step [s]
    bandwidth_Bps: B, one direction of one rank's port [B/s]    gamma_s_per_B: cost of adding a byte [s/B]
    one_port: whether a rank talks to one peer at a time    in_network: whether switches add

    >>> lower_bound_terms("all_reduce", 4, size_B=400.0, alpha_s=1.0, bandwidth_Bps=100.0).bandwidth_s
    6.0
    """
    moved_B = bandwidth_bound_B(collective, ranks, size_B, in_network=in_network)
    adds = collective in ("all_reduce", "reduce_scatter", "reduce") and not in_network
    few_steps = any_peers(ranks)
    needs_log = one_port and not in_network and collective != "send_recv"
    return Bound(
        (ceil_log2(ranks) if needs_log else few_steps) * alpha_s,
        moved_B / bandwidth_Bps,
        (others(ranks) if adds else nothing(ranks)) * size_B * gamma_s_per_B,
    )


def lower_bound_s(
    collective: str,
    ranks: Column,
    *,
    size_B: Column,
    alpha_s: Column,
    bandwidth_Bps: Column,
    gamma_s_per_B: Column = 0.0,
    one_port: bool = True,
    in_network: bool = False,
) -> Column:
    """The least time of a collective: the largest of ``lower_bound_terms``, whose parameters it shares. [s]

    >>> float(lower_bound_s("all_reduce", 4, size_B=400.0, alpha_s=1.0, bandwidth_Bps=100.0))
    6.0
    """
    terms = lower_bound_terms(
        collective,
        ranks,
        size_B=size_B,
        alpha_s=alpha_s,
        bandwidth_Bps=bandwidth_Bps,
        gamma_s_per_B=gamma_s_per_B,
        one_port=one_port,
        in_network=in_network,
    )
    return np.maximum(np.maximum(terms.latency_s, terms.bandwidth_s), terms.arithmetic_s)
