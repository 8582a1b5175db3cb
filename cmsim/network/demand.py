"""The seam to the networks: a demand goes in, an event comes out that fires when it is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import simpy

if TYPE_CHECKING:
    from cmsim.network.log import Log
    from cmsim.network.train import Ride

#: shares are whole multiples of 2**-24, so that their sums are exact whatever the order
SHARE_ONE = 1 << 24


@dataclass(frozen=True, slots=True)
class Demand:
    """Bytes to move, and what moving one of them costs every resource it crosses.

    size_B      bytes of progress [B]
    latency_ps  paid once, before the first byte moves [ps]
    resources   numbers of the resources crossed (each a class of equal instances)
    shares      bytes that cross ONE instance of each resource per byte of progress, in units of 2**-24: the sum
                over all members, of all group instances of the class, that cross that instance
    alone       the same with the members of one group instance only, which is what a network that shares nothing
                goes by; empty where it equals ``shares``
    later       what it becomes after each change of the network; empty where it stays as it is. No resources, now or
                later, then mean that no path is left
    """

    size_B: float
    latency_ps: int
    resources: tuple[int, ...] = ()
    shares: tuple[int, ...] = ()
    alone: tuple[int, ...] = ()
    later: tuple[Demand, ...] = ()


@dataclass(slots=True)
class Segment:
    """A stretch of constant rate of one demand, for the record."""

    demand: Demand
    start_ps: int
    end_ps: int
    rate_Bps: float


class Network(Protocol):
    """What the engine needs of a network. Callers never ask which one they hold."""

    #: every stretch of constant rate so far that was not put down elsewhere
    log: Log

    def add(self, capacity_Bps: Sequence[float]) -> int:
        """More resources, by what one instance of each carries, one direction [B/s]; the number of the first."""
        ...

    def move(self, demand: Demand, delay_ps: int = 0, log: Log | None = None) -> simpy.Event:
        """Fires when the demand is met; it begins ``delay_ps`` from now. Its stretches are put down in ``log``, where
        given."""
        ...

    def pace(self, demand: Demand) -> tuple[float, int]:
        """Rate of a demand that meets nobody, and how long it takes after its latency. [B/s, ps]"""
        ...

    def ride(self, ride: Ride) -> bool:
        """Send a train on its way; False where something is, or is known to come, in its way."""
        ...
