"""New weights on the fabric: from the ranks that train to the ranks that make answers.

Apart, every rank that makes answers is sent what it holds. Together they are one line of bytes, and the trainers share
it out evenly: each sends as much, to one rank or to neighbours, all at once. By turns, a rank has of what it is to hold
the part that it trained; the others of its copy send it the rest.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from cmsim import energy, engine
from cmsim.arrays import Floats
from cmsim.engine import record
from cmsim.hardware import System
from cmsim.units import to_s
from cmsim.workload import Programs
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.ops import ProgramBuilder, assemble


@dataclass(frozen=True)
class Moved:
    """How long it took [s], and what the facility took for all accelerators: the least, the middle, the most [J]."""

    seconds: float
    joules: Floats


def sent(trainers: int, makers: int, each_B: float) -> list[tuple[int, int, float]]:
    """(who sends, who takes, bytes): the takers' bytes in a line, cut evenly among those who send. [B]

    >>> sent(2, 3, 8.0)
    [(0, 0, 8.0), (0, 1, 4.0), (1, 1, 4.0), (1, 2, 8.0)]
    """
    cuts = sorted({*(i * makers for i in range(trainers + 1)), *(i * trainers for i in range(makers + 1))})
    unit_B = each_B / trainers
    return [(low // makers, low // trainers, (high - low) * unit_B) for low, high in itertools.pairwise(cuts)]


def apart(trainers: int, makers: int, each_B: float) -> Programs:
    """Sends of the first ranks and receives of those behind them."""
    total = trainers + makers
    messages: list[list[tuple[bool, float]]] = [[] for _ in range(total)]
    channels: list[list[int]] = [[] for _ in range(total)]
    for channel, (sender, taker, size_B) in enumerate(sent(trainers, makers, each_B)):
        for rank, sends in ((sender, True), (trainers + taker, False)):
            messages[rank].append((sends, size_B))
            channels[rank].append(channel)
    kinds: dict[tuple[tuple[bool, float], ...], int] = {}
    program = np.array([kinds.setdefault(tuple(one), len(kinds)) for one in messages])
    builders = []
    for one in kinds:
        build = ProgramBuilder()
        for number, (sends, size_B) in enumerate(one):
            move = build.send if sends else build.recv
            move("weights", stream=f"weights {number}", size_B=size_B, slot=f"channel {number}")
        builders.append(build)
    groups = {
        f"channel {number}": np.array([its[number] if number < len(its) else -1 for its in channels])
        for number in range(max(map(len, channels)))
    }
    return assemble(builders, program=program, groups=groups)


def by_turns(layout: Layout, each_B: float, *, sharded: bool) -> Programs | None:
    """Exchange among the ranks that hold all of the model between them; None where each of them holds it.

    sharded: whether data-parallel ranks share weights out
    """
    width = max(layout.tp, layout.expert_group)
    if sharded:
        width = layout.tp * (layout.sharded or layout.cp * layout.dp)
    if width * layout.pp < 2:
        return None
    build = ProgramBuilder()
    build.collective("weights", stream="weights", collective="all_to_all", size_B=each_B, slot="copy")
    copy = np.arange(layout.ranks, dtype=np.int64) % layout.stage_ranks // width
    return assemble([build], program=np.zeros(layout.ranks, np.int64), groups={"copy": layout.placed(copy)})


def played(programs: Programs, system: System, options: engine.Options) -> Moved:
    """Moves on the fabric of a system, whose other ranks wait."""
    plan = engine.plan(programs, system, options)
    timeline = engine.play(plan)
    power = energy.power_over_time(
        system,
        record.ops_columns(plan, timeline, energy.OPS),
        record.links_columns(plan, timeline),
        makespan_ps=timeline.makespan_ps,
    )
    joules = [math.fsum(power.joules(watts).values()) for watts in (power.low_W, power.middle_W, power.high_W)]
    return Moved(to_s(timeline.makespan_ps), np.array(joules))
