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

import numpy as np

from cmsim.collectives.terms import COLLECTIVES, Column, any_peers, nothing, others
from cmsim.errors import InputError, did_you_mean


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
