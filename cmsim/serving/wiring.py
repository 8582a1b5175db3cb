"""The links of a scenario's pools: which of them each holder's caches cross, and what these carry."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.serving.transfers import Crossed, Wires
from cmsim.topology import Fabric, fabric
from cmsim.units import GIGA, to_ps

#: the fabric between ranks of a domain; RDMA between packages; the network of the hosts
Plane = Literal["scale_up", "scale_out", "host"]


@dataclass(frozen=True)
class Seat:
    """A holder on its machine.

    machine  whole, with all packages in use    first, ranks  of them    held  of what is sent to it, what each rank gets [1]
    """

    machine: System
    first: int
    ranks: int
    held: float


def wires(seats: Sequence[Seat], plane: Plane, left: float = 1.0) -> Wires:
    """What caches cross between holders.

    Each rank sends its part of what its holder has, once; where several have the same they share it out. A node's way
    out is crossed by all of its ranks, also where both ends are in one node.

    seats  in the order of holders, counted over all pools    left  of a plane, by other traffic [1]
    """
    capacity: list[float] = []
    number: dict[tuple[str, int, str], int] = {}
    levels = {id(seat.machine): fabric(seat.machine) for seat in seats}

    def crossed(seat: Seat, at: int, way: str, each: float) -> Crossed:
        out = []
        for kind, place, rate_Bps, share in _levels(seat, at, levels[id(seat.machine)], plane, each):
            key = (kind, place, f"{way} {id(seat.machine)}")
            if key not in number:
                number[key] = len(capacity)
                capacity.append(rate_Bps * left)
            out.append((number[key], share))
        return tuple(out)

    out = tuple(crossed(seat, at, "out", 1 / seat.ranks) for at, seat in enumerate(seats))
    into = tuple(crossed(seat, at, "in", seat.held) for at, seat in enumerate(seats))
    seconds = [_latency_s(level, plane) for level in levels.values()]
    return Wires(tuple(capacity), out, into, latency_ps=int(to_ps(max(seconds))))


def _latency_s(level: Fabric, plane: Plane) -> float:
    return level.domain_s if plane == "scale_up" else level.cluster_s


def _levels(
    seat: Seat, at: int, level: Fabric, plane: Plane, each: float
) -> Iterator[tuple[str, int, float, float]]:
    """(kind, number, what one carries [B/s], bytes there of each that is moved) of all that a holder's ranks cross."""
    tuning, spec = seat.machine.stack.collectives, seat.machine.spec
    ranks = range(seat.first, seat.first + seat.ranks)
    if plane == "scale_up":
        yield "port", at, level.port_Bps * tuning.scale_up_efficiency, each
        higher = (("node", level.ranks_per_node, level.uplink_Bps * tuning.scale_up_efficiency),)
    elif plane == "scale_out":
        yield "nic", at, level.nic_Bps * tuning.scale_out_efficiency, each
        higher = (("leaf", level.ranks_per_leaf, level.leaf_Bps * tuning.scale_out_efficiency),)
    else:
        if spec.node.host_network_GBps is None:
            message = f"got host; {seat.machine.name} does not say what its node.host_network_GBps is"
            raise InputError(Problem(message, key="over"))
        higher = (("host", level.ranks_per_node, spec.node.host_network_GBps * GIGA),)
    for kind, per, rate_Bps in higher:
        if math.isfinite(rate_Bps):
            for place in range(ranks[0] // per, ranks[-1] // per + 1):
                inside = min(ranks[-1] + 1, (place + 1) * per) - max(ranks[0], place * per)
                yield kind, place, rate_Bps, inside * each


__all__ = ["Plane", "Seat", "wires"]
