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

    machine      whole, with all packages in use
    first, ranks  of them    held  of what is sent to it, what each of its ranks gets [1]
    left         of its ports, by steps [1]
    """

    machine: System
    first: int
    ranks: int
    held: float
    left: float = 1.0


@dataclass(frozen=True)
class Servers:
    """Hosts that keep a pool of caches.

    plane  over which holders reach them    memory_Bps, drives_Bps  what all of them send together [B/s]
    """

    plane: Plane
    memory_Bps: float
    drives_Bps: float = 0.0


class _Links:
    """Resources, numbered as they are first crossed."""

    def __init__(self, seats: Sequence[Seat]):
        self.capacity_Bps: list[float] = []
        self._number: dict[tuple[str, int, str], int] = {}
        self._seats = seats
        self.levels = {id(seat.machine): fabric(seat.machine) for seat in seats}

    def ports(self) -> frozenset[int]:
        """Those of domains, and what is behind them."""
        return frozenset(number for (kind, _, _), number in self._number.items() if kind in ("port", "node"))

    def number(self, kind: str, place: int, way: str, rate_Bps: float) -> int:
        key = (kind, place, way)
        if key not in self._number:
            self._number[key] = len(self.capacity_Bps)
            self.capacity_Bps.append(rate_Bps)
        return self._number[key]

    def most_Bps(self, crossed: Crossed) -> float:
        """What goes over these where nobody else does. [B/s]"""
        return min(self.capacity_Bps[number] / share for number, share in crossed)

    def with_clients(self, crossed: tuple[Crossed, ...], way: str, plane: Plane) -> tuple[Crossed, ...]:
        """What clients of a pool of caches reach stands in the way too; each rank of a holder has its part of them."""
        out = []
        for at, (seat, one) in enumerate(zip(self._seats, crossed, strict=True)):
            tuning = seat.machine.stack.serving
            each_GBps = tuning.pool_host_GBps if plane == "host" else tuning.pool_GBps
            if each_GBps is None:
                out.append(one)
                continue
            rank_Bps = each_GBps * GIGA / seat.machine.ranks_per_package
            out.append((*one, (self.number("client", at, way, rank_Bps), 1 / seat.ranks)))
        return tuple(out)

    def sends(self, plane: Plane) -> tuple[Crossed, ...]:
        """Of each holder; each rank sends its part of what its holder has, once: where several have the same they share
        it out."""
        return tuple(self._crossed(at, "out", plane, 1 / seat.ranks) for at, seat in enumerate(self._seats))

    def gets(self, plane: Plane) -> tuple[Crossed, ...]:
        """Of each holder."""
        return tuple(self._crossed(at, "in", plane, seat.held) for at, seat in enumerate(self._seats))

    def _crossed(self, at: int, way: str, plane: Plane, each: float) -> Crossed:
        seat = self._seats[at]
        levels = _levels(seat, at, self.levels[id(seat.machine)], plane, each)
        return tuple(
            (self.number(kind, place, f"{way} {id(seat.machine)}", rate_Bps), share)
            for kind, place, rate_Bps, share in levels
        )


def wires(seats: Sequence[Seat], over: Plane | None, servers: Servers | None = None, fetch: int = 0) -> Wires:
    """What caches cross between holders, and between them and a pool of caches. A node's way out is crossed by all of
    its ranks, also where both ends are in one node.

    seats    in the order of holders, counted over all pools    over  of caches between holders; None: none move
    fetch    how many of them, the first ones, use the pool of caches
    """
    links = _Links(seats)
    out, into = (links.sends(over), links.gets(over)) if over is not None else ((), ())
    put: tuple[Crossed, ...] = ()
    got: tuple[Crossed, ...] = ()
    tiers: list[Crossed] = []
    kept: Crossed = ()
    if servers is not None:
        put = links.with_clients(links.sends(servers.plane), "out", servers.plane)
        got = links.with_clients(links.gets(servers.plane), "in", servers.plane)
        # where all holders together cannot take or give as much as memory does, nobody meets there
        sends, takes = (sum(links.most_Bps(one) for one in some[:fetch]) > servers.memory_Bps for some in (got, put))
        memory = ((links.number("memory", 0, "out", servers.memory_Bps), 1.0),) if sends else ()
        tiers = [memory, memory]
        if servers.drives_Bps:  # what is on drives goes through memory
            tiers[1] = (*memory, (links.number("drives", 0, "out", servers.drives_Bps), 1.0))
        kept = ((links.number("memory", 0, "in", servers.memory_Bps), 1.0),) if takes else ()
    planes = [plane for plane in (over, None if servers is None else servers.plane) if plane is not None]
    seconds = [_latency_s(level, plane) for level in links.levels.values() for plane in planes]
    latency_ps = int(to_ps(max(seconds)))
    return Wires(tuple(links.capacity_Bps), out, into, put, got, tuple(tiers), kept, latency_ps, links.ports())


def memory_Bps(machine: System, plane: Plane) -> float:
    """What the memory of one node's hosts gives to others over a plane. [B/s]"""
    spec, tuning = machine.spec, machine.stack.collectives
    if plane == "host":
        return _host_Bps(machine)
    if plane == "scale_out":
        return spec.scale_out.nic_GBps * GIGA * spec.node.accelerators * tuning.scale_out_efficiency
    if spec.scale_up.host_cpu_GBps is not None:
        return spec.scale_up.host_cpu_GBps * GIGA * spec.node.cpus * tuning.scale_up_efficiency
    if machine.accelerator.host_GBps is None:
        message = f"how fast {machine.accelerator.name} copies to its host is not known; set accelerator.host_GBps"
        raise InputError(Problem(message, key="cache_pool.over"))
    return machine.accelerator.host_GBps * GIGA * spec.node.accelerators


def _host_Bps(machine: System) -> float:
    if machine.spec.node.host_network_GBps is None:
        message = f"got host; {machine.name} does not say what its node.host_network_GBps is"
        raise InputError(Problem(message, key="over"))
    return machine.spec.node.host_network_GBps * GIGA


def _latency_s(level: Fabric, plane: Plane) -> float:
    return level.domain_s if plane == "scale_up" else level.cluster_s


def _levels(seat: Seat, at: int, level: Fabric, plane: Plane, each: float) -> Iterator[tuple[str, int, float, float]]:
    """(kind, number, what one carries [B/s], bytes there of each that is moved) of all that a holder's ranks cross."""
    tuning = seat.machine.stack.collectives
    ranks = range(seat.first, seat.first + seat.ranks)
    if plane == "scale_up":
        share = tuning.scale_up_efficiency * seat.left
        yield "port", at, level.port_Bps * share, each
        higher = (("node", level.ranks_per_node, level.uplink_Bps * share),)
    elif plane == "scale_out":
        yield "nic", at, level.nic_Bps * tuning.scale_out_efficiency, each
        higher = (("leaf", level.ranks_per_leaf, level.leaf_Bps * tuning.scale_out_efficiency),)
    else:
        higher = (("host", level.ranks_per_node, _host_Bps(seat.machine)),)
    for kind, per, rate_Bps in higher:
        if math.isfinite(rate_Bps):
            for place in range(ranks[0] // per, ranks[-1] // per + 1):
                inside = min(ranks[-1] + 1, (place + 1) * per) - max(ranks[0], place * per)
                yield kind, place, rate_Bps, inside * each


__all__ = ["Plane", "Seat", "Servers", "memory_Bps", "wires"]
