"""What a step does once, of several programs of the same ranks and groups: priced in one plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmsim import engine
from cmsim.arrays import Floats
from cmsim.hardware import System
from cmsim.units import PS_PER_S
from cmsim.workload.ops import COLLECTIVE, COMPUTE, ProgramBuilder, Programs, assemble


def once_a_step(
    programs: Sequence[Programs], system: System, options: engine.Options, *, stream: str, update: str
) -> Floats:
    """Seconds of a rank of the first program in gathering, in other collectives of a stream, and in updating; of
    programs with the same ranks and groups, shape (programs, 3). [s]"""
    build, owner, part = ProgramBuilder(), [], []
    for which, one in enumerate(programs):
        ops = one.ops
        rows = np.arange(int(one.program_ptr[1]))
        mine = (ops.kind[rows] == COLLECTIVE) & (ops.stream[rows] == number(ops.streams, stream))
        # what comes behind the optimizer belongs to it: weights that are cast
        begins = np.flatnonzero(ops.kernel[rows] == number(ops.kernels, update))
        updates = (ops.kind[rows] == COMPUTE) & (rows >= (begins[0] if len(begins) else len(rows)))
        for row in np.flatnonzero(mine | updates).tolist():
            owner.append(which)
            if updates[row]:
                build.compute(
                    update,
                    stream="compute",
                    kernel=update,
                    flops=float(ops.flops[row]),
                    bytes_B=float(ops.bytes_B[row]),
                )
                part.append(2)
                continue
            name = ops.collectives[ops.collective[row]]
            slot = one.slots[ops.slot[row]]
            build.collective(name, stream=stream, collective=name, size_B=float(ops.bytes_B[row]), slot=slot)
            part.append(0 if name == "all_gather" else 1)
    out = np.zeros((len(programs), 3))
    if not owner:
        return out
    first = programs[0]
    groups = {name: first.groups[:, at] for at, name in enumerate(first.slots)}
    plan = engine.plan(assemble([build], program=np.zeros(first.ranks, np.int64), groups=groups), system, options)
    ideal = np.array([0.0, *(one.ideal_s for one in plan.calls)])[plan.call[0] + 1]
    np.add.at(out, (np.array(owner), np.array(part)), ideal + plan.hold_ps[0] / PS_PER_S)
    return out


def number(names: Sequence[str], name: str) -> int:
    """The code of a name; of one that is not there, a code that nothing has."""
    return names.index(name) if name in names else -2


def of_stage(plan: engine.Plan, stage: int) -> tuple[slice, int]:
    """Rows of a stage's program, and its first class."""
    rank_class = next(one for one in range(plan.classes) if plan.program_of(one) == stage)
    return plan.rows_of(rank_class), rank_class
