"""Caches on their way, over links that all of them share: who sends at the same time gets a max-min fair part."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import simpy

from cmsim.network import SHARE_ONE, Demand, Fluid, Log, Segment, Stretches
from cmsim.units import PS_PER_S

#: resources by number, and what crosses one instance of each of a byte that is moved [1]
Crossed = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Wires:
    """What caches cross.

    capacity_Bps  of one instance of each resource, one direction [B/s]
    out, into     of each holder, counted over all pools, what is crossed by what it sends to holders and gets of them
    put, got      of each holder, what is crossed on its side by what it sends to a pool of caches and gets of it
    tiers, kept   what is crossed on the pool's side by what each of its tiers sends, and by what it gets
    latency_ps    until the first byte is there [ps]    ports  which resources are ports of domains, and what is behind
    """

    capacity_Bps: tuple[float, ...]
    out: tuple[Crossed, ...] = ()
    into: tuple[Crossed, ...] = ()
    put: tuple[Crossed, ...] = ()
    got: tuple[Crossed, ...] = ()
    tiers: tuple[Crossed, ...] = ()
    kept: Crossed = ()
    latency_ps: int = 0
    ports: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Moves:
    """How caches come from a pool that prefills to one that decodes.

    token_B  of a cached token of the whole model [B]
    layers   sent one by one while a prompt is computed; 1: all at its end
    """

    wires: Wires
    token_B: float
    layers: int = 1


class Tally(Log):
    """Of what was moved only how much it is."""

    __slots__ = ("moved_B",)

    def __init__(self) -> None:
        super().__init__()
        self.moved_B = 0.0

    def append(self, part: Segment | Stretches) -> None:
        assert isinstance(part, Segment)
        self.moved_B += part.rate_Bps * (part.end_ps - part.start_ps) / PS_PER_S


class Courier:
    """The links of a service on its clock."""

    def __init__(self, env: simpy.Environment, wires: Wires):
        self._env, self._wires = env, wires
        self._network = Fluid(env, wires.capacity_Bps)
        self._known: dict[tuple[str, int, int], tuple[tuple[int, ...], tuple[int, ...]]] = {}
        self.tally = Tally()
        #: how much more of a domain's ports each byte takes under a fault of the fabric
        self.slow = 1.0

    def move(self, src: int, dst: int, size_B: float, at: int, then: Callable[[], None]) -> None:
        """From one holder to another, from a time on."""
        wires = self._wires
        self._send(("move", src, dst), wires.out[src], wires.into[dst], size_B, at, then)

    def fetch(self, tier: int, dst: int, size_B: float, then: Callable[[], None]) -> None:
        """From a tier of the pool of caches to a holder, now."""
        wires = self._wires
        self._send(("fetch", tier, dst), wires.tiers[tier], wires.got[dst], size_B, 0, then)

    def put(self, src: int, size_B: float, then: Callable[[], None]) -> None:
        """From a holder to the pool of caches, now."""
        self._send(("put", src, 0), self._wires.put[src], self._wires.kept, size_B, 0, then)

    def _send(
        self, key: tuple[str, int, int], out: Crossed, into: Crossed, size_B: float, at: int, then: Callable[[], None]
    ) -> None:
        crossed = self._known.get(key)
        if crossed is None:
            crossed = self._known[key] = _shares(out, into)
        if self.slow > 1.0:
            crossed = _shares(self._slower(out), self._slower(into))
        wait_ps = max(at - int(self._env.now), 0)
        event = self._network.move(Demand(size_B, self._wires.latency_ps, *crossed), wait_ps, self.tally)
        event.callbacks.append(lambda _: then())

    def _slower(self, crossed: Crossed) -> Crossed:
        return tuple((one, share * (self.slow if one in self._wires.ports else 1.0)) for one, share in crossed)


def _shares(out: Crossed, into: Crossed) -> tuple[tuple[int, ...], tuple[int, ...]]:
    both: dict[int, float] = {}
    for resource, share in (*out, *into):
        both[resource] = both.get(resource, 0.0) + share
    return tuple(both), tuple(max(round(share * SHARE_ONE), 1) for share in both.values())


class Sending:
    """One cache on its way, part by part as its prompt is computed.

    Of a chunk all layers but the last are sent from the end of the first one on (no sooner than they could be all
    there, as the last one is not there before the chunk's end), the last one after it; what the links do not take in
    time waits behind.

    src, dst  holders
    """

    __slots__ = ("_arrived", "_busy", "_courier", "_left_B", "_moves", "_parts", "anew", "dst", "src")

    def __init__(self, courier: Courier, moves: Moves, src: int, dst: int):
        self._courier, self._moves = courier, moves
        self.src, self.dst = src, dst
        #: where it was to go is lost: all of it has to be sent once more
        self.anew = False
        self._parts: deque[tuple[int, float]] = deque()
        self._arrived: Callable[[], None] | None = None
        self._busy = False
        self._left_B = 0.0

    def whole(self, tokens: int, at: int) -> None:
        """Tokens that are cached already."""
        self._add(at, tokens * self._moves.token_B)

    def chunk(self, tokens: int, at: int, takes_ps: int) -> None:
        """Tokens that are computed from now on, in so long."""
        layers = self._moves.layers
        layer_B = tokens * self._moves.token_B / layers
        self._add(at + takes_ps // layers, self._left_B + layer_B * (layers - 1))
        self._left_B = layer_B

    def close(self, at: int, arrived: Callable[[], None]) -> None:
        """The last chunk is computed; who is told when all of it is there."""
        self._arrived = arrived
        self._add(at, self._left_B)

    def told(self) -> None:
        """Looks at what is left to send, where nothing is on the links."""
        self._next()

    def drop(self) -> None:
        """Nobody waits for it any more; what is on the links goes on."""
        self._parts.clear()

    def _add(self, at: int, size_B: float) -> None:
        if size_B > 0:
            self._parts.append((at, size_B))
            self._next()

    def _next(self) -> None:
        if self._busy:
            return
        if self._parts:
            self._busy = True
            at, size_B = self._parts.popleft()
            self._courier.move(self.src, self.dst, size_B, at, self._sent)
        elif self._arrived is not None:
            self._arrived()

    def _sent(self) -> None:
        self._busy = False
        self._next()


__all__ = ["Courier", "Crossed", "Moves", "Sending", "Wires"]
