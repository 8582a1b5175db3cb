"""One collective, timed: every group calls it at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.scenario import CollectiveSpec
from cmsim.workload.ops import ProgramBuilder, Programs, assemble


def programs(spec: CollectiveSpec, system: System, _base: Path | None = None) -> Programs:
    """``repeat`` calls, one after the other, by groups of ``group`` ranks at distance ``stride``.

    send_recv: even ranks of a group send to their odd neighbour.
    """
    ranks = spec.ranks or system.ranks
    if ranks > system.ranks:
        raise InputError(Problem(f"got {ranks}; {system.name} has {system.ranks} ranks", key="ranks"))
    size = ranks if spec.group == "all" else spec.group
    block = size * spec.stride
    if size > ranks or ranks % block:
        raise InputError(
            Problem(f"groups of {size} at distance {spec.stride} do not divide {ranks} ranks evenly", key="group")
        )
    rank = np.arange(ranks)
    group = rank // block * spec.stride + rank % spec.stride
    if spec.collective == "send_recv":
        return _pairs(spec, rank, group)
    if size < 2:
        raise InputError(Problem(f"a {spec.collective} needs at least two ranks, got {size}", key="group"))
    build = ProgramBuilder()
    for _ in range(spec.repeat):
        build.collective(
            spec.collective, stream="comm", collective=spec.collective, size_B=spec.message_bytes, slot="group"
        )
    facts = {"size_B": float(spec.message_bytes), "ranks_in_group": float(size), "calls": float(spec.repeat)}
    return assemble([build], program=np.zeros(ranks, np.int64), groups={"group": group}, facts=facts)


def _pairs(spec: CollectiveSpec, rank: np.ndarray, group: np.ndarray) -> Programs:
    if len(rank) % 2:
        raise InputError(Problem(f"send_recv pairs ranks; {len(rank)} is odd", key="ranks"))
    order = np.lexsort((rank, group))
    position = np.empty_like(rank)
    position[order] = np.arange(len(rank))
    channel = position // 2
    sender, receiver = ProgramBuilder(), ProgramBuilder()
    for _ in range(spec.repeat):
        sender.send("send", stream="comm", size_B=spec.message_bytes, slot="out")
        receiver.recv("recv", stream="comm", size_B=spec.message_bytes, slot="in")
    odd = position % 2
    return assemble(
        [sender, receiver],
        program=odd,
        groups={"out": np.where(odd == 0, channel, -1), "in": np.where(odd == 1, channel, -1)},
        facts={"size_B": float(spec.message_bytes), "ranks_in_group": 2.0, "calls": float(spec.repeat)},
    )
