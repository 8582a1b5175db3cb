"""The tuner of NCCL: how the library ranks its algorithms and protocols before a call.

    t = latency count + S / algbw                                                     one (algorithm, protocol)
    algbw = bus p / steps   (Ring, NVLS, NVLSTree, PAT)       algbw = bus / 2   (Tree, all-reduce)
    steps = 2 (p - 1) all-reduce, p - 1 reduce-scatter and all-gather, p otherwise

The constants rank; they are not measured times (``inside`` and ``between`` have those). They change with releases
and stand in ``topologies/libraries``.

Source: NVIDIA/nccl @5067397c, src/graph/tuning.cc (ncclTopoTuneModel, ncclTopoGetAlgoTime); what limits NVLS between
nodes, and who may use PAT, as in the copy of it in ROCm/rccl @9e22c79d.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from pydantic import Field

from cmsim.collectives.terms import Column
from cmsim.reading import Spec
from cmsim.units import GB

PROTOCOLS: tuple[str, ...] = ("LL", "LL128", "Simple")
#: what the tuner chooses from, by collective; the others have the ring, or send to peers directly
ALGORITHMS: dict[str, tuple[str, ...]] = {
    "all_reduce": ("ring", "tree", "nvls", "nvls_tree"),
    "all_gather": ("ring", "nvls", "pat"),
    "reduce_scatter": ("ring", "nvls", "pat"),
}
Triple = tuple[float, float, float]


class TunerGeneration(Spec):
    """Constants of one generation of accelerators; lists are for 1, 2 and 4 or more nodes. [GB/s]"""

    ll_max_GBps: Triple
    ring_ll128_channel_GBps: Triple
    tree_channel_GBps: Triple
    nvls_efficiency: float = Field(default=0.0, description="0 where the switches do not reduce")
    nvls_tree_channel_GBps: Triple = (0.0, 0.0, 0.0)


class TunerSpec(Spec):
    """Constants of one release; triples are LL, LL128, Simple. [us]"""

    channels: int = Field(default=16, description="parallel copies of a ring or tree, where nothing says how many")
    base_us: Mapping[str, Triple] = Field(description="by algorithm")
    domain_step_us: Mapping[str, Triple] = Field(description="one hop on the scale-up network, by algorithm")
    network_step_us: Mapping[str, Triple] = Field(description="one hop between nodes, by algorithm")
    network_overhead_us: float = Field(description="host overhead of a network hop; three times that for Simple")
    ring_factor: Triple = Field(description="share of the bus; LL is also held under ll_max_GBps")
    tree_factor: float
    tree_ll_factor: float
    tree_ll128_factor: tuple[float, float] = Field(description="one node, several nodes")
    pat_factor: float
    ring_simple_plateau: float = Field(description="ring, Simple, several nodes: latency is multiplied by this")
    tree_correction: Mapping[str, tuple[float, ...]] = Field(description="by protocol, for 64 B x 2^i")
    ring_correction: Mapping[str, tuple[float, ...]] = Field(default={}, description="the same, between nodes")
    shares: Mapping[str, Mapping[str, Triple]] = Field(
        default={}, description="of the bus, by algorithm and protocol, on 1, 2 and more nodes; in place of the factors"
    )
    generations: Mapping[str, TunerGeneration]


def steps(collective: str, ranks: Column) -> Column:
    """Dependent steps of a ring. [1]

    >>> steps("all_reduce", 8)
    14
    """
    if collective == "all_reduce":
        return 2 * (ranks - 1)
    if collective in ("all_gather", "reduce_scatter"):
        return ranks - 1
    return ranks


def tuner_us(
    spec: TunerSpec,
    generation: str,
    *,
    algorithm: str,
    protocol: str,
    collective: str,
    size_B: Column,
    ranks: Column,
    nodes: Column = 1,
    channels: Column = 16,
    channel_GBps: Column = 20.0,
    network_GBps: Column = np.inf,
    corrected: bool = True,
) -> Column:
    """What the tuner says of one algorithm and protocol; infinite where it does not offer it. [us]

    size_B: S as nccl-tests prints it [B]    ranks, nodes: p, N [1]    channels: parallel copies [1]
    channel_GBps, network_GBps: rate of one channel inside a node and between nodes [GB/s]
    corrected: whether its tables by size count, which jump from one power of two to the next

    Source: as the page; check values C39 to C44 of the tests.
    """
    own = spec.generations[generation]
    kind = PROTOCOLS.index(protocol)
    size_B, ranks, nodes, channels = (np.asarray(c, dtype=np.float64) for c in (size_B, ranks, nodes, channels))
    several = nodes > 1
    index2 = np.where(nodes <= 1, 0, np.where(nodes <= 3, 1, 2))
    bus = channels * np.where(several, np.minimum(channel_GBps, network_GBps), channel_GBps)
    count = steps(collective, ranks)
    base = spec.base_us[algorithm][kind]
    hop = spec.domain_step_us[algorithm][kind]
    far = spec.network_step_us[algorithm][kind]
    per_node = ranks / nodes
    all_reduce = collective == "all_reduce"

    if algorithm == "ring":
        rate = bus * spec.ring_factor[kind]
        if algorithm in spec.shares:
            rate = bus * _share(spec, algorithm, protocol, nodes)
            correction = _correction(spec.ring_correction, protocol, size_B) if corrected else 1.0
            rate = rate * np.where(several, correction, 1.0)
        elif protocol == "LL":
            rate = np.minimum(rate, np.take(own.ll_max_GBps, index2))
        elif protocol == "LL128":
            rate = np.minimum(rate, channels * np.take(own.ring_ll128_channel_GBps, index2))
        outside = np.where(several, (2 if all_reduce else 1) * (nodes - 1), 0)
        overhead = np.where(several, spec.network_overhead_us * (3 if protocol == "Simple" else 1), 0.0)
        latency = base + (count - outside) * np.maximum(hop, overhead) + outside * far
        # a plateau of the Simple protocol between nodes, once each rank has 64 B in every channel
        if protocol == "Simple" and all_reduce:
            plateau = several & (size_B / (channels * ranks) >= 64)
            latency = np.where(plateau, latency * spec.ring_simple_plateau, latency)
        algbw = rate * ranks / count
    elif algorithm == "tree":
        if not all_reduce:
            return np.full(np.broadcast_shapes(size_B.shape, ranks.shape), np.inf)[()]
        if algorithm in spec.shares:
            rate = bus * _share(spec, algorithm, protocol, nodes)
        else:
            rate = np.minimum(bus * spec.tree_factor, channels * np.take(own.tree_channel_GBps, index2))
            if protocol == "LL":
                rate = rate * spec.tree_ll_factor
            elif protocol == "LL128":
                rate = rate * np.where(several, spec.tree_ll128_factor[1], spec.tree_ll128_factor[0])
        latency = base + 2 * ((per_node - 1) * hop + np.log2(nodes) * far)
        algbw = rate * 0.5 * (_correction(spec.tree_correction, protocol, size_B) if corrected else 1.0)
    elif algorithm == "pat":
        latency = base + np.ceil(np.log2(nodes)) * far + (per_node - 1) * hop
        algbw = bus * spec.pat_factor * ranks / count
    else:  # nvls, nvls_tree: the switches reduce; one channel's worth of rate is lost
        if protocol != "Simple" or own.nvls_efficiency == 0.0:
            return np.full(np.broadcast_shapes(size_B.shape, ranks.shape), np.inf)[()]
        share = 2.0 if all_reduce else (per_node - 1) / per_node
        # between nodes the NICs limit a channel; a tree of more than two nodes goes up and down through them
        network = np.where((algorithm == "nvls_tree") & (nodes > 2), network_GBps / 2, network_GBps)
        channel = np.where(several, np.minimum(channel_GBps, network), channel_GBps)
        rate = channels * channel * own.nvls_efficiency * (channels - 1) / channels * share
        latency = base + hop + np.where(several, far, 0.0)
        if algorithm == "nvls_tree":
            per_channel = np.take(own.nvls_tree_channel_GBps, index2)
            rate = np.where(several, np.minimum(rate, channels * per_channel), rate)
            latency = base + hop + 2 * np.log2(nodes) * far
        algbw = rate * ranks / count
    with np.errstate(divide="ignore"):  # a share of 0 is what the library does not offer
        return latency + size_B / (1000 * algbw)


def _share(spec: TunerSpec, algorithm: str, protocol: str, nodes: Column) -> Column:
    return np.take(spec.shares[algorithm][protocol], np.clip(nodes, 1, 3).astype(int) - 1)


def _correction(tables: Mapping[str, tuple[float, ...]], protocol: str, size_B: Column) -> Column:
    """Of a bandwidth at a size, 1 beyond the table. [1]"""
    table = np.asarray(tables.get(protocol, (1.0,)))
    at = np.floor(np.log2(np.maximum(size_B / 64, 1))).astype(int)
    return np.where(at < len(table), table[np.minimum(at, len(table) - 1)], 1.0)


def candidates_us(
    spec: TunerSpec,
    generation: str,
    *,
    nvls: bool,
    collective: str,
    size_B: Column,
    ranks: int,
    nodes: int,
    bus_Bps: float,
    network_Bps: float,
) -> dict[str, Column]:
    """What the tuner says of every algorithm and protocol that it offers a group. [us]

    nvls: whether the switches add    ranks, nodes: p, and the nodes (NVLink domains) they fill evenly [1]
    bus_Bps: all channels inside a node    network_Bps: all NICs of a node that the group uses [B/s]

    NVLS works inside a node; NVLSTree between nodes with several ranks each; PAT takes one rank of each node
    (ncclPatEnable).
    """
    said = _over(spec, bus_Bps, network_Bps, generation, collective=collective, size_B=size_B, ranks=ranks, nodes=nodes)
    found = {}
    for algorithm in ALGORITHMS.get(collective, ()):
        if algorithm not in spec.base_us:
            continue
        if algorithm == "nvls" and not (nvls and nodes == 1):
            continue
        if algorithm == "nvls_tree" and not (nvls and 1 < nodes < ranks):
            continue
        if algorithm == "pat" and not 1 < nodes == ranks:
            continue
        for protocol in PROTOCOLS if algorithm in ("ring", "tree") else ("Simple",):
            time = said(algorithm=algorithm, protocol=protocol)
            if np.all(np.isfinite(time)):
                found[f"{algorithm} {protocol}"] = time
    return found


def _over(spec: TunerSpec, bus_Bps: float, network_Bps: Column, generation: str, **call: Any) -> partial[Column]:
    """`tuner_us` of one call over all channels of a bus and a network; what is left open is how."""
    return partial(
        tuner_us,
        spec,
        generation,
        **call,
        channels=spec.channels,
        channel_GBps=bus_Bps / spec.channels / GB,
        network_GBps=network_Bps / spec.channels / GB,
    )


def least_us(
    spec: TunerSpec,
    generation: str,
    *,
    nvls: bool,
    collective: str,
    size_B: Column,
    ranks: Column,
    nodes: Column,
    bus_Bps: float,
    network_Bps: Column,
) -> Column:
    """The least that the tuner says of anything it offers between nodes, without its tables by size. [us]

    Grows with the size and with the nodes. Infinite for collectives that it does not choose for.
    Arguments as ``candidates_us``, as columns.
    """
    said = _over(spec, bus_Bps, network_Bps, generation, collective=collective, size_B=size_B, ranks=ranks, nodes=nodes)
    out = np.full(np.shape(ranks), np.inf)
    for algorithm in ALGORITHMS.get(collective, ()):
        if algorithm not in spec.base_us or algorithm in ("nvls", "pat") or (algorithm == "nvls_tree" and not nvls):
            continue
        for protocol in PROTOCOLS if algorithm in ("ring", "tree") else ("Simple",):
            time = said(algorithm=algorithm, protocol=protocol, corrected=False)
            # a tree of switches needs several ranks of a node
            offered = nodes < ranks if algorithm == "nvls_tree" else True
            out = np.minimum(out, np.where(offered, time, np.inf))
    return out
