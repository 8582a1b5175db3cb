"""Schedules of calc, send and recv replayed under LogGP, what GOAL files are made of.

Every rank takes its ops in order; one op at a time holds its processor, and its NIC lets messages out in turn.

    calc   holds the processor for its time
    send   holds the processor for o; then its bytes follow each other out of the NIC, which is free for the next
           message after max(g, (k - 1) G); the last byte is there L + (k - 1) G after the first went out
    recv   waits for its message, then holds the processor for o

Without a network the wire is private: (k - 1) G, as in LogGP. With one, the bytes after the first are a demand on it,
and the NIC is free after g: messages of one rank share its port there instead of queueing for it.

Messages between two ranks match by tag, in order. Whole picoseconds throughout.

Leaves out: rendezvous of large messages (S of LogGPS), several processors per rank.
Source: Alexandrov, Ionescu, Schauser and Scheiman, SPAA 1995, doi:10.1145/215399.215427; Hoefler, Schneider and
Lumsdaine, LogGOPSim, HPDC 2010, doi:10.1145/1851476.1851564.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import simpy

from cmsim.collectives import candidates
from cmsim.errors import InfeasibleError, InputError
from cmsim.network import Demand, Network


class Op(NamedTuple):
    """One op of a rank: ``calc`` for ``amount`` [ps], or ``amount`` [B] sent to or received from ``peer``."""

    kind: Literal["calc", "send", "recv"]
    amount: int
    peer: int = -1
    tag: int = 0


@dataclass(frozen=True)
class LogGP:
    """L, o, g [ps] and G [ps/B] of every rank and pair."""

    L_ps: int
    o_ps: int
    g_ps: int
    G_ps_per_B: int

    def bytes_ps(self, size_B: int) -> int:
        """Time between the first byte of a message and its last. [ps]"""
        return max(size_B - 1, 0) * self.G_ps_per_B


def replay(
    programs: Sequence[Sequence[Op]],
    model: LogGP,
    *,
    network: Callable[[simpy.Environment], Network] | None = None,
    demand: Callable[[int, int, int], Demand] | None = None,
) -> list[int]:
    """When each rank ends its last op. [ps]

    programs  ops of each rank
    network, demand  what carries the bytes after a message's first, and the demand (L included) of (source,
        destination, size_B); default a wire for each message

    Raises InputError for peers that do not exist, InfeasibleError where ranks wait for messages that never come.
    """
    env = simpy.Environment(initial_time=0)
    wire = network(env) if network is not None else None
    arrived: dict[tuple[int, int, int], simpy.Store] = {}
    ends = [-1] * len(programs)

    def box(src: int, dst: int, tag: int) -> simpy.Store:
        return arrived.setdefault((src, dst, tag), simpy.Store(env))

    def deliver(src: int, op: Op, leaves_ps: int) -> Generator[Any, Any, None]:
        if leaves_ps > env.now:
            yield env.timeout(leaves_ps - _now(env))
        if wire is None or demand is None:
            yield env.timeout(model.L_ps + model.bytes_ps(op.amount))
        else:
            yield wire.move(demand(src, op.peer, op.amount))
        box(src, op.peer, op.tag).put(op.amount)

    def rank(number: int, ops: Sequence[Op]) -> Generator[Any, Any, None]:
        nic_free_ps = 0
        for op in ops:
            if op.kind == "calc":
                yield env.timeout(op.amount)
            elif op.kind == "send":
                yield env.timeout(model.o_ps)
                leaves_ps = max(_now(env), nic_free_ps)
                alone_ps = model.bytes_ps(op.amount) if wire is None else 0
                nic_free_ps = leaves_ps + max(model.g_ps, alone_ps)
                env.process(deliver(number, op, leaves_ps))
            else:
                yield box(op.peer, number, op.tag).get()
                yield env.timeout(model.o_ps)
        ends[number] = _now(env)

    for number, ops in enumerate(programs):
        for op in ops:
            if op.kind != "calc" and not 0 <= op.peer < len(programs):
                raise InputError(f"rank {number} names rank {op.peer}; there are ranks 0 to {len(programs) - 1}")
            if op.amount < 0:
                raise InputError(f"rank {number}: {op.kind} of {op.amount}, which is below 0")
    for number, ops in enumerate(programs):
        env.process(rank(number, ops))
    env.run()
    waiting = [number for number, end in enumerate(ends) if end < 0]
    if waiting:
        raise InfeasibleError(f"ranks wait for messages that are never sent: {waiting[:8]} ({len(waiting)} in all)")
    return ends


def programs(collective: str, *, algorithm: str, ranks: int, size_B: int) -> list[list[Op]]:
    """A schedule of an algorithm of the table: in every round a rank sends what it sends, then receives.

    size_B: S, a multiple of the blocks the algorithm cuts it into [B]
    """
    found = {one.name: one for one in candidates(collective)}
    if algorithm not in found:
        raise InputError(f"no flat algorithm '{algorithm}' for {collective}. Allowed: {', '.join(found)}.")
    out: list[list[Op]] = [[] for _ in range(ranks)]
    parts, rounds = found[algorithm].schedule(ranks)
    for tag, sends in enumerate(rounds):
        for send in sends:
            if max(send.src, send.dst) >= ranks:
                raise InputError(f"{collective} by {algorithm} sends to the switch, which runs no program")
            out[send.src].append(Op("send", len(send.blocks) * size_B // parts, send.dst, tag))
        for send in sends:
            out[send.dst].append(Op("recv", len(send.blocks) * size_B // parts, send.src, tag))
    return out


def _now(env: simpy.Environment) -> int:
    return env.now  # type: ignore[return-value]  # whole picoseconds: every delay is a whole number
