"""Measured-time model of a library of direct sends on one fabric of dies.

Small messages go by a protocol of the vector cores, direct to every peer; from a block of about 60 KB for each peer on
by copy engines that cost more to start:

    fast   T = base + f S / (B eta)
    slow   T = start + peer (p - 1) + f S / (B eta_c)        c: adding, or not
    f = (p - 2)/p (all-gather, reduce-scatter, all-to-all), 2 (p - 2)/p and a second start for all-reduce

One of the p - 1 peers is the other die of the package and takes no port. Up to the ranks that were measured the mesh
runs: its times are those of what the library chose there. Beside the mesh every page that the library names (ring,
halving and doubling, NHR, NB, pairwise, star, pipeline, AHC) is priced with its own steps and bytes, a step costing
another start and, where a step sends to several peers, each of them what it costs in the mesh. Among more ranks than
were measured the mesh goes on, until the cheapest page is faster by more than the mesh was ever above it where it was
measured:  T = min(mesh, q min over pages),  q = max over the measured range of mesh / page. So the time has no jump
there, and a start for each of hundreds of peers, which nobody measured, is not carried on for ever.

Leaves out: hosts that launch the call, and what else the ports carry; ``serving`` says what a call costs more there.
Source: HCCL documentation, coll_algo_intro (cost model and algorithms); constants fitted, see ``topologies/libraries``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping

import numpy as np

from cmsim.arrays import Floats
from cmsim.collectives.grouped import SERVER
from cmsim.collectives.table import candidates
from cmsim.collectives.terms import Column, ceil_log2

#: constants, with unit and starting value. Rates are shares of a die's port.
HCCL_DEFAULTS: dict[str, float] = {
    "fast_base_us": 5.2,
    "fast_rate": 0.84,
    "fast_add_us": 10.0,  # an all-reduce's second phase
    "switch_B": 60e3,  # a peer's block from which copy engines are used
    "start_us": 12.0,
    "peer_us": 4.0,
    "rate": 0.97,
    "add_rate": 0.85,
    "serving_us": 1.3,  # of a call inside a serving step
    "serving": 1.03,
}
#: dies of the groups that were measured: one server and half of it
MEASURED_FROM, MEASURED_RANKS = 8, 16
#: sizes over which mesh and pages are compared there [B]
_SIZES = np.geomspace(8e3, 6.4e8, 80)
#: the mesh sends to all peers at once; its forms on the pages, and a page that the library does not have
_LEFT_OUT = ("direct", "two_shot", "one_shot", "double_tree")
#: pages whose steps send to several peers: messages of the busiest rank in a pass; an all-reduce makes two passes
_MESSAGES: dict[str, Callable[[Floats], Floats]] = {
    "star": lambda p: 2.0 * (p - 1.0),
    "pipeline": lambda p: p - 1.0,
    # between groups a member of the rest stands for several of a full group
    "ahc": lambda p: SERVER - 1.0 + ceil_log2(np.ceil(p / SERVER)) * np.ceil(SERVER / np.maximum(p % SERVER, 1.0)),
}


def mesh_us(
    c: Mapping[str, float], *, collective: str, ranks: Column, size_B: Column, port_Bps: Column, serving: Column = 0.0
) -> Floats:
    """Time of a collective by direct sends. [us]

    c: constants (``HCCL_DEFAULTS``)    ranks: dies p [1]    size_B: S as nccl-tests prints it [B]
    port_Bps: one die's port, one direction [B/s]    serving: 1 inside a serving step, 0 alone
    """
    share, fast, slow = mesh_protocols_us(c, collective=collective, ranks=ranks, size_B=size_B, port_Bps=port_Bps)
    alone = np.exp((1.0 - share) * np.log(fast) + share * np.log(slow))
    out: Floats = alone * (1.0 + (c["serving"] - 1.0) * serving) + c["serving_us"] * serving
    return out


def mesh_protocols_us(
    c: Mapping[str, float], *, collective: str, ranks: Column, size_B: Column, port_Bps: Column
) -> tuple[Floats, Floats, Floats]:
    """Direct sends by either protocol: the copy engines' weight, time by the vector cores, time by copy engines. [us]

    Arguments as ``mesh_us``.
    """
    ranks, size_B = np.asarray(ranks, dtype=np.float64), np.asarray(size_B, dtype=np.float64)
    twice = 2.0 if collective == "all_reduce" else 1.0
    # one of the peers is the other die of the package, on a link of its own
    moved_us = (
        twice * np.maximum(ranks - 2.0, np.minimum(ranks - 1.0, 1.0)) / ranks * size_B / (np.asarray(port_Bps) * 1e-6)
    )
    fast = c["fast_base_us"] + (c["fast_add_us"] if twice == 2.0 else 0.0) + moved_us / c["fast_rate"]
    slow = twice * (c["start_us"] + c["peer_us"] * (ranks - 1.0)) + moved_us / _rate(c, collective)
    # a block for a peer: of what one rank holds, not of what all hold together
    held_B = size_B / ranks if collective in ("all_gather", "reduce_scatter") else size_B
    share = 1.0 / (1.0 + (c["switch_B"] / (held_B / ranks)) ** 8)
    return share, fast, slow


def hccl_candidates_us(
    c: Mapping[str, float], *, collective: str, ranks: Floats, size_B: Floats, port_Bps: float, alpha_us: float
) -> dict[str, Floats]:
    """The mesh and every page that applies, with its time. [us]

    alpha_us: latency of a send between the farthest two ranks [us]    others as ``mesh_us``
    """
    out = {"mesh": mesh_us(c, collective=collective, ranks=ranks, size_B=size_B, port_Bps=port_Bps)}
    for page in candidates(collective):
        if page.name in _LEFT_OUT or page.in_network:
            continue
        moved_us = page.sent(ranks) * size_B / (port_Bps * 1e-6)
        rate = _rate(c, collective)
        # every dependent step starts the copy engines again
        time = np.maximum(page.steps(ranks), 1) * (c["start_us"] + alpha_us) + moved_us / rate
        if page.name in _MESSAGES:
            passes = 2.0 if collective == "all_reduce" and page.name != "star" else 1.0
            time = time + passes * c["peer_us"] * _MESSAGES[page.name](ranks)
        out[page.name] = np.where(page.applies(ranks), time, np.inf)
    return out


def _rate(c: Mapping[str, float], collective: str) -> float:
    """The share of a port that copy engines reach; half of an all-reduce's bytes are added. [1]"""
    if collective == "all_reduce":
        return math.sqrt(c["rate"] * c["add_rate"])
    return c["add_rate"] if collective in ("reduce_scatter", "reduce") else c["rate"]


def hccl_us(
    c: Mapping[str, float], *, collective: str, ranks: Floats, size_B: Floats, port_Bps: float, alpha_us: float
) -> Floats:
    """The library's time. [us]

    Arguments as ``hccl_candidates_us``.
    """
    out = mesh_us(c, collective=collective, ranks=ranks, size_B=size_B, port_Bps=port_Bps)
    beyond = ranks > MEASURED_RANKS
    if beyond.any():
        pages = _least_page_us(c, collective, ranks[beyond], size_B[beyond], port_Bps, alpha_us)
        share = page_share(c, collective, port_Bps, alpha_us)
        out[beyond] = np.minimum(out[beyond], share * pages)
    return out


def _least_page_us(
    c: Mapping[str, float], collective: str, ranks: Floats, size_B: Floats, port_Bps: float, alpha_us: float
) -> Floats:
    found = hccl_candidates_us(
        c, collective=collective, ranks=ranks, size_B=size_B, port_Bps=port_Bps, alpha_us=alpha_us
    )
    out: Floats = np.minimum.reduce([np.full(len(ranks), np.inf), *(t for name, t in found.items() if name != "mesh")])
    return out


def page_share(c: Mapping[str, float], collective: str, port_Bps: float, alpha_us: float) -> float:
    """q: how far the mesh was above the cheapest page where it was measured. [1]"""
    return _page_share(tuple(c.items()), collective, port_Bps, alpha_us)


@functools.lru_cache(maxsize=64)
def _page_share(constants: tuple[tuple[str, float], ...], collective: str, port_Bps: float, alpha_us: float) -> float:
    c = dict(constants)
    found = 1.0
    for ranks in range(MEASURED_FROM, MEASURED_RANKS + 1):
        p = np.full(len(_SIZES), float(ranks))
        mesh = mesh_us(c, collective=collective, ranks=p, size_B=_SIZES, port_Bps=port_Bps)
        pages = _least_page_us(c, collective, p, _SIZES, port_Bps, alpha_us)
        found = max(found, float(np.max(mesh / pages)))
    return found
