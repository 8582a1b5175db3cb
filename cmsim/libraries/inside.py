"""Measured-time model of a collective library inside one scale-up domain.

A protocol p of {LL, LL128, Simple} takes

    T_p = base_p + ((steps alpha_p)^k + (w / B_p)^k)^(1/k)          w = f S + lambda S / p,   f S: bytes on the wire

with k below 1 where filling the pipeline adds to both terms (k = 1/2 is the best chunking of a chain,
(sqrt(a) + sqrt(b))^2), and above 1 where they overlap. lambda counts the copy of a rank's own block. LL has a ``fill``
besides: the step grows until a block fills its channels. Which protocol runs is for the library's tuner to say; near
a switch point both occur, so the times are averaged in the logarithm with weights t_tuner^-sharp.

All-to-all sends p - 1 messages instead of going round a ring: its small messages switch protocol by the size of a
block, so T = base + (p - 1) peer + min(b / B_LL, plateau) + ..., a smooth minimum. NVLS adds in the switches, where
that is faster:  T = base + fill + S (1 + 1/p) / B,  fill = p phi x / sqrt(1 + x^2),  x = S / (p loop_B).

Leaves out: other jobs, jitter, user buffers registered with the library, dtypes beyond the width of an element.
Source: models.md-style derivations as on the pages of ``cmsim.collectives`` (ring, in_network, pipeline); protocols as
NVIDIA/nccl src/graph/tuning.cc @5067397c; constants fitted, see ``topologies/libraries``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cmsim.arrays import Floats

#: constants of the model, with unit and starting value. Rates are shares of the port (one direction).
DEFAULTS: dict[str, float] = {
    "base_us": 5.0,  # a call
    "ll_step_us": 0.9,
    "ll_fill_us": 1.2,  # added to a call once blocks fill their channels
    "ll_fill_step_us": 0.1,  # the same, to each step
    "ll_fill_B": 4000.0,  # block at which half of it is there
    "ll_rate": 0.5,
    "ll128_base_us": 6.0,  # beside base_us
    "ll128_step_us": 2.0,
    "ll128_rate": 0.7,
    "simple_base_us": 14.0,  # of a call, in all
    "simple_step_us": 3.4,
    "simple_rate": 0.82,
    "simple_power": 0.9,  # k
    "step_power": 0.8,  # Simple's steps count as steps^this: on a long ring they overlap
    "own_block": 0.35,  # lambda
    "narrow": 0.05,  # of the bytes' time, where elements of one byte are added
    "simple_bias": 1.0,  # the tuner's time is multiplied by this before the choice
    "ll128_bias": 1.0,
    "sharp": 10.0,
    "nvls_base_us": 25.0,  # of a call, as the tuner has it
    "nvls_rank_us": 5.0,  # of filling the pipeline, for each rank of the group, once a loop of chunks is in flight
    "nvls_loop_B": 2.1e6,  # of one rank's chunks in that loop: 16 channels of 128 KiB
    "nvls_rate": 0.67,  # of 8 ranks; falls with (8/p)^nvls_crowd
    "nvls_crowd": 0.09,
    "a2a_base_us": 7.0,
    "a2a_peer_us": 0.15,
    "a2a_ll_rate": 0.015,
    "a2a_plateau_us": 6.0,  # what the Simple protocol adds to base
    "a2a_rate": 0.75,
    "a2a_own_block": 0.4,
    "a2a_late_us": 10.0,  # of a call large enough to use all its channels
    "a2a_late_B": 1e7,
}


@dataclass(frozen=True)
class Domain:
    """What the model needs of a domain. Rates are of one rank's port, one direction. [B/s]

    tuner_bus_Bps: the bus bandwidth that the tuner believes in    ll_max_Bps: its cap on LL
    nvls: whether the switches add
    """

    port_Bps: float
    tuner_bus_Bps: float
    ll_max_Bps: float
    nvls: bool


#: ranks from which the library adds in the switches: 4 and 5 were seen to use rings, 6 and more not
NVLS_RANKS = 6
_A2A_SHARP = 6.0


def _join(a: Floats, b: Floats, power: float) -> Floats:
    """(a^k + b^k)^(1/k), safe where a is 0."""
    high, low = np.maximum(a, b), np.minimum(a, b)
    out: Floats = high * (1.0 + (low / np.maximum(high, 1e-30)) ** power) ** (1.0 / power)
    return out


def protocols_us(
    c: Mapping[str, float], at: Domain, *, collective: str, ranks: Floats, size_B: Floats, narrow: Floats
) -> dict[str, tuple[Floats, Floats]]:
    """Every candidate of a ring-like collective: its time, and its weight in the mixture (they add up to 1). [us, 1]

    c: constants (``DEFAULTS``)    ranks: p [1]    size_B: S as nccl-tests prints it [B]
    narrow: 1 where elements have one byte and are added, else 0
    """
    all_reduce = collective == "all_reduce"
    steps = (2.0 if all_reduce else 1.0) * (ranks - 1.0)
    block_B = size_B / ranks
    wire_B = steps * block_B
    port = at.port_Bps * 1e-6  # bytes per us
    slow = 1.0 + c["narrow"] * narrow if collective != "all_gather" else 1.0
    moved_us = (wire_B + c["own_block"] * block_B) / port * slow

    filled = block_B / (block_B + c["ll_fill_B"])
    ll = c["base_us"] + steps * c["ll_step_us"] + (c["ll_fill_us"] + c["ll_fill_step_us"] * steps) * filled
    ll = ll + moved_us / c["ll_rate"]
    ll128 = c["base_us"] + c["ll128_base_us"] + _join(steps * c["ll128_step_us"], moved_us / c["ll128_rate"], 0.9)
    simple = c["simple_base_us"] + _join(
        steps ** c["step_power"] * c["simple_step_us"], moved_us / c["simple_rate"], c["simple_power"]
    )
    bus, cap = at.tuner_bus_Bps * 1e-6, at.ll_max_Bps * 1e-6
    # the tuner's ring constants (NVIDIA/nccl tuning.cc): base and hop of LL, LL128, Simple; shares of the bus
    believed = (
        6.6 + 0.6 * steps + wire_B / min(cap, 0.5 * bus),
        (14.0 + 1.9 * steps + wire_B / (0.92 * bus)) * c["ll128_bias"],
        (8.4 + 3.4 * steps + wire_B / bus) * c["simple_bias"],
    )
    logs = [np.log(t) for t in believed]
    least = np.minimum(np.minimum(logs[0], logs[1]), logs[2])
    weights = [np.exp(-c["sharp"] * (value - least)) for value in logs]
    total = weights[0] + weights[1] + weights[2]
    return {
        name: (time, weight / total)
        for name, time, weight in zip(
            ("ring LL", "ring LL128", "ring Simple"), (ll, ll128, simple), weights, strict=True
        )
    }


def nvls_latency_us(c: Mapping[str, float], *, ranks: Floats, size_B: Floats) -> Floats:
    """What an all-reduce in the switches takes beside its bytes. [us]

    A call works in loops of one chunk for each rank and channel. The first passes the stages of the pipeline alone, so
    that it costs up to a loop's time; a message smaller than a loop fills less of it.
    """
    loops = size_B / (ranks * c["nvls_loop_B"])
    out: Floats = c["nvls_base_us"] + c["nvls_rank_us"] * ranks * loops / np.sqrt(1.0 + loops * loops)
    return out


def nvls_rate(c: Mapping[str, float], at: Domain, *, ranks: Floats) -> Floats:
    """Bytes of S (1 + 1/p) that the switches add. [B/us]"""
    out: Floats = at.port_Bps * 1e-6 * c["nvls_rate"] * (8.0 / ranks) ** c["nvls_crowd"]
    return out


def nvls_us(c: Mapping[str, float], at: Domain, *, ranks: Floats, size_B: Floats) -> Floats:
    """Time of an all-reduce whose additions the switches make. [us]"""
    rate = nvls_rate(c, at, ranks=ranks)
    return nvls_latency_us(c, ranks=ranks, size_B=size_B) + size_B * (1 + 1 / ranks) / rate


def all_to_all_us(c: Mapping[str, float], at: Domain, *, ranks: Floats, size_B: Floats) -> Floats:
    """Time of an all-to-all of S bytes sent by each rank, its own block included. [us]"""
    port = at.port_Bps * 1e-6
    block_B = size_B / ranks
    small = block_B / (port * c["a2a_ll_rate"])
    plateau = c["a2a_plateau_us"]
    ratio = np.maximum(small, 1e-9) / plateau
    low = small / (1.0 + ratio**_A2A_SHARP) ** (1.0 / _A2A_SHARP)
    late = c["a2a_late_us"] * size_B / (size_B + c["a2a_late_B"])
    wire_us = ((ranks - 1.0) + c["a2a_own_block"]) * block_B / (port * c["a2a_rate"])
    out: Floats = c["a2a_base_us"] + c["a2a_peer_us"] * (ranks - 1.0) + low + late + wire_us
    return out


def choices_us(
    c: Mapping[str, float], at: Domain, *, collective: str, ranks: Floats, size_B: Floats, narrow: Floats
) -> dict[str, Floats]:
    """Every algorithm of the library by itself; infinite where it is not offered. [us]

    Arguments as ``protocols_us``.
    """
    if collective == "all_to_all":
        return {"direct": all_to_all_us(c, at, ranks=ranks, size_B=size_B)}
    found = protocols_us(c, at, collective=collective, ranks=ranks, size_B=size_B, narrow=narrow)
    out = {name: time for name, (time, _) in found.items()}
    if at.nvls and collective == "all_reduce":
        offered = (ranks >= NVLS_RANKS) & (narrow == 0)
        out["nvls Simple"] = np.where(offered, nvls_us(c, at, ranks=ranks, size_B=size_B), np.inf)
    return out


def inside_us(
    c: Mapping[str, float], at: Domain, *, collective: str, ranks: Floats, size_B: Floats, narrow: Floats
) -> Floats:
    """Time of a collective between ranks of one domain. [us]

    Arguments as ``protocols_us``. Rings by the tuner's choice of protocol; the switches where they are faster.
    """
    if collective == "all_to_all":
        return all_to_all_us(c, at, ranks=ranks, size_B=size_B)
    log = np.zeros(np.broadcast_shapes(np.shape(ranks), np.shape(size_B)))
    for time, weight in protocols_us(c, at, collective=collective, ranks=ranks, size_B=size_B, narrow=narrow).values():
        log += weight * np.log(time)
    ring: Floats = np.exp(log)
    if not (at.nvls and collective == "all_reduce"):
        return ring
    offered = (ranks >= NVLS_RANKS) & (narrow == 0)
    return np.where(offered, np.minimum(ring, nvls_us(c, at, ranks=ranks, size_B=size_B)), ring)
