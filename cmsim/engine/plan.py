"""From programs and a system to what the engine plays: rank classes, hold times and demands.

Every cost is computed at once, over columns: kernels of all programs in one call, every distinct collective
with all its algorithms in another.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from cmsim import compute
from cmsim.arrays import Floats, Ints, Numbers
from cmsim.engine.by_level import ByLevel
from cmsim.engine.calls import Call, Pricer, notes_of
from cmsim.engine.fold import Folding, fold, members
from cmsim.engine.perturb import Jitter, Perturbation, alike, drawn, rank_factors, scattered
from cmsim.engine.resources import Resources, resources
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.hardware import System, board_watts
from cmsim.reading.look import of_one
from cmsim.topology import Fabric, Paths, fabric, paths, places
from cmsim.units import BYTES_PER_ELEMENT, US, on_clock, to_ps
from cmsim.workload.loops import whole
from cmsim.workload.ops import COMPUTE, HOST, OpTable, Programs

#: messages of a round that no group of few ranks goes beyond
_FEW_MESSAGES = 1 << 22
HOST_BOUND = compute.BOUNDS.index("host")


@dataclass(frozen=True)
class Fault:
    """A part of the fabric that is down or slow for a time: ``left`` of its rate from ``from_ps`` until ``until_ps``
    (None: to the end). Names of parts as in ``cmsim.topology.faults``."""

    part: str
    left: float = 0.0
    from_ps: int = 0
    until_ps: int | None = None


@dataclass(frozen=True)
class Options:
    """How to plan.

    algorithm  policy or name for collectives    fold  simulate equal ranks once    perturb  by rank
    jitter     scatter of times, drawn from ``seed``: who scatters is simulated by itself
    host_idle  share of kernel streams in which the device waits for the host: stretches modelled kernels [1]
    network    ideal, fluid or flow    routing  of messages, flow only    faults  of links, flow only
    seed       of everything drawn: routes, jitter
    recorded   what becomes of times a trace recorded for kernels: "recorded" as they are, "scaled" by
               ``recorded_scale`` (factor for kernels of the matrix engine, factor for the others), "modelled" priced
               where their work is known, else scaled
    apart      a number for each rank: ranks of different numbers are never simulated as one, though they could be; for
               what treats them differently later on, a rate that changes or another plan on the network
    """

    algorithm: str = "best"
    fold: bool = True
    host_idle: float = 0.0
    perturb: Mapping[int, Perturbation] = field(default_factory=dict)
    jitter: Jitter | None = None
    recorded: str = "recorded"
    recorded_scale: tuple[float, float] = (1.0, 1.0)
    network: str = "fluid"
    routing: str = "sprayed"
    seed: int = 0
    faults: Sequence[Fault] = ()
    apart: Sequence[int] | Ints | None = None


@dataclass(frozen=True)
class Plan:
    """Everything the engine needs, and what results need to explain it.

    hold_ps   device time of each op row at factor 1, shape (rows,); per class it is multiplied by its factor
    bound     per op row: what binds a kernel (code into ``compute.BOUNDS``), -1 for communication, shape (rows,)
    call      per class and op row of its program: index into ``calls``, -1 for compute, list of (rows,) arrays
    issue_ps  per class and op row: when the host has issued it, from the start of the run; empty where graphs are
              launched whole, and for recorded times, which have the host in them
    clock     per op row: share of the clock it would have that is left to it, shape (rows,); empty where none is set
    notes     what is to be said of how ops were priced, in the order in which it was found
    network   what the demands are made for: ideal and fluid take the same, flow its own
    """

    programs: Programs
    system: System
    fabric: Fabric
    folding: Folding
    factor: Floats
    hold_ps: list[Ints]
    bound: Ints
    resources: Resources
    calls: list[Call]
    call: list[Ints]
    network: str = "fluid"
    issue_ps: list[Ints] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    clock: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def classes(self) -> int:
        return len(self.folding.first)

    def program_of(self, rank_class: int) -> int:
        return int(self.programs.program[self.folding.first[rank_class]])

    def rows_of(self, rank_class: int) -> slice:
        program = self.program_of(rank_class)
        return slice(int(self.programs.program_ptr[program]), int(self.programs.program_ptr[program + 1]))


def plan(programs: Programs, system: System, options: Options | None = None) -> Plan:
    """Fold the ranks and price every op. Raises InfeasibleError where the system has too few ranks.

    A loop of programs stays one where a run can have a steady state (see ``cmsim.engine.steady``).
    """
    return planned(programs, system, options or Options())[0]


def planned(
    programs: Programs, system: System, options: Options, owner: Ints | None = None
) -> tuple[Plan, list[tuple[str, ...]]]:
    """A plan; and what is to be said of the kernels of each of several workloads that stand in one table.

    owner: of each op row, its workload, -1 for none; default: all are of one
    """
    programs = programs if _recurs(options, system) else whole(programs)
    if programs.ranks > system.ranks:
        raise InfeasibleError(
            Problem(
                f"the workload needs {programs.ranks} ranks; {system.name} has {system.ranks} ({system.spec.rank}s)"
            )
        )
    levels = fabric(system)
    by_link = options.network == "flow"
    if options.faults and not by_link:
        raise InputError(Problem(f"faults need network: flow, got {options.network}", key="faults"))
    node, domain, leaf = _seats(system, programs.ranks)
    factors = rank_factors(options.perturb, programs.ranks)
    who = members(programs.groups, node=node, domain=domain, leaf=leaf)
    start = [programs.program, alike(factors)]
    scatter = np.zeros(0, np.int64)
    if options.jitter is not None:
        scatter = scattered(options.jitter, programs.ranks, options.seed)
        start.append(_singled(scatter, programs.ranks))
    if options.apart is not None:
        start.append(_apart(options.apart, programs.ranks))
    changes_ps: tuple[int, ...] = ()
    states: list[Paths] = []
    placed = np.isfinite(levels.leaf_Bps)
    # a node or leaf that carries no resource of its own tells no ranks apart
    node = node if np.isfinite(levels.uplink_Bps) else np.zeros_like(node)

    def folded(start: Sequence[Ints]) -> Folding:
        return fold(start, who, slots=len(programs.slots), node=node, leaf=leaf, enabled=options.fold)

    def pricer(folding: Folding) -> Pricer:
        return Pricer(programs, system, levels, folding, who, options.algorithm, measured=not by_link)

    if by_link and programs.ranks**2 > _FEW_MESSAGES:
        from cmsim.engine.by_link import Counted

        # a group too large to be laid is refused before its fabric is, which takes minutes there
        pricer(folded(start)).price(Counted())
    if by_link:
        changes_ps, states = _states(system, options, factors)
        told = [column for paths in states if (column := paths.alike()) is not None]
        start += [column[: programs.ranks] for column in told]
        placed = bool(told)
        if programs.traffic:
            start.append(np.arange(programs.ranks))
    leaf = leaf if placed else np.zeros_like(leaf)

    if by_link:
        from cmsim.engine.by_link import ByLink, refolded  # brings the room of flows along, which levels do without

        carrier = ByLink(programs, system, levels, folded(start), who, states, changes_ps)
        folding, priced = refolded(carrier, start, folded, pricer)
    else:
        folding = folded(start)
        links, incidence = resources(folding, levels, factors, node, leaf, programs.ranks)
        priced = pricer(folding).price(ByLevel(programs, system, levels, folding, who, links, incidence))
    priced_ops = _kernel_seconds(programs, system, options, owner)
    classes = len(folding.first)
    class_factor = factors[folding.first, 0]
    scatters = frozenset(scatter.tolist())
    hold_ps = []
    for rank_class in range(classes):
        program = int(programs.program[folding.first[rank_class]])
        rows = slice(int(programs.program_ptr[program]), int(programs.program_ptr[program + 1]))
        held_s = priced_ops.seconds[rows] * class_factor[rank_class]
        first = int(folding.first[rank_class])
        if options.jitter is not None and first in scatters:
            held_s = held_s * drawn(options.jitter, programs.ops.kind[rows], rank=first, seed=options.seed)
        hold_ps.append(to_ps(held_s))
    made = Plan(
        programs,
        system,
        levels,
        folding,
        class_factor,
        hold_ps,
        priced_ops.bound,
        priced.resources,
        priced.calls,
        priced.call,
        options.network,
        _issued_ps(programs, system, folding),
        (*itertools.chain(*priced_ops.notes), *notes_of(priced.calls)),
        priced_ops.clock,
    )
    return made, priced_ops.notes


def _seats(system: System, ranks: int) -> list[Numbers]:
    """Node, domain and leaf of each rank; of a million ranks all that is known of their places is not kept."""
    where = places(system)
    return [column[:ranks].astype(np.int32) for column in (where.node, where.domain, where.leaf)]


def plan_together(programs: Sequence[Programs], system: System, options: Options | None = None) -> list[Plan]:
    """Plans of several workloads that share a network: ranks are one only where they are in all of them.

    All are for the same ranks; see `cmsim.workload.ops.Programs.on` for those that use some only.
    """
    options = options or Options()
    while True:
        plans = [plan(one, system, options) for one in programs]
        ranks = {one.ranks for one in programs}
        if len(ranks) > 1:
            raise InputError(f"workloads that share a network are for the same ranks; got {sorted(ranks)}")
        classes = np.stack([one.folding.rank_class for one in plans])
        _, apart = np.unique(classes, axis=1, return_inverse=True)
        if all(one.classes == apart.max() + 1 for one in plans):
            return plans
        options = replace(options, apart=apart.reshape(-1))


def _recurs(options: Options, system: System) -> bool:
    """Whether nothing in a run goes by the clock, or by the number of a row."""
    by_row = options.jitter is not None and options.jitter.per == "op"
    return not by_row and not options.faults and system.stack.host.launch != "eager"


def _singled(which: Ints, ranks: int) -> Ints:
    """A number of its own for some ranks, one for all others, shape (ranks,)."""
    column = np.zeros(ranks, np.int64)
    column[which] = np.arange(1, len(which) + 1)
    return column


def _apart(numbers: Sequence[int] | Ints, ranks: int) -> Ints:
    column = np.asarray(numbers, np.int64)
    if column.shape != (ranks,):
        raise InputError(f"apart needs a number for each of {ranks} ranks; got {column.size}")
    return np.unique(column, return_inverse=True)[1].reshape(-1)


def _issued_ps(programs: Programs, system: System, folding: Folding) -> list[Ints]:
    """When the host has issued each op of each class, one after the other in the order of the program. [ps]"""
    host, ops = system.stack.host, programs.ops
    if host.launch != "eager" or not np.isnan(ops.recorded_s[ops.kind == COMPUTE]).all():
        return []
    each_ps = int(to_ps(host.op_us * host.launches_per_op * US))
    out = []
    for first in folding.first:
        program = int(programs.program[first])
        rows = int(programs.program_ptr[program + 1] - programs.program_ptr[program])
        on_clock((rows + 1) * each_ps)
        out.append((np.arange(rows, dtype=np.int64) + 1) * each_ps)
    return out


def _states(system: System, options: Options, factors: Floats) -> tuple[tuple[int, ...], list[Paths]]:
    """When links change [ps], and the fabric from the start and after each change."""
    slow = {
        f"rank/{rank}/{part}": float(factors[rank, column])
        for part, column in (("port", 1), ("nic", 2))
        for rank in np.flatnonzero(factors[:, column] != 1).tolist()
    }
    changes = sorted({at for fault in options.faults for at in (fault.from_ps, fault.until_ps) if at is not None} - {0})
    states = []
    for at in (0, *changes):
        left = dict(slow)
        for fault in options.faults:
            if fault.from_ps <= at and (fault.until_ps is None or at < fault.until_ps):
                left[fault.part] = left.get(fault.part, 1.0) * fault.left
        states.append(paths(system, faults=left, routing=options.routing, seed=options.seed))
    return tuple(changes), states


def rates(system: System) -> compute.Rates:
    """What kernels run on: one rank's peaks and the stack's efficiencies."""
    return of_one("rates", system, lambda: _rates(system))


def _rates(system: System) -> compute.Rates:
    gap_s = system.stack.host.gap_us * US
    return compute.Rates(
        peak_FLOPps=compute.with_variants(
            {str(p): system.rank_peak_FLOPps(p) for p in system.accelerator.peak_TFLOPps}
        ),
        vector_FLOPps=system.rank_vector_FLOPps,
        memory_Bps=system.rank_memory_Bps,
        efficiency={
            name: compute.Efficiency(
                k.compute,
                k.memory,
                k.overhead_us * US + gap_s,
                {str(p): share for p, share in k.compute_by_precision.items()},
            )
            for name, k in system.stack.kernels.items()
        },
        name=f"{system.accelerator.name} with {system.stack.name}",
    )


def hold_s(programs: Programs, system: System, options: Options | None = None) -> tuple[Floats, tuple[str, ...]]:
    """Device time of every op row at factor 1, 0 for communication, shape (rows,) [s]; and what is to be said of it."""
    priced = _kernel_seconds(programs, system, options or Options())
    return priced.seconds, priced.notes[0]


def _measured_seconds(ops: OpTable, system: System, owner: Ints | None) -> tuple[Floats, list[tuple[str, ...]]]:
    """Device time of ops whose sizes are known and whose class the stack prices by measured kernels, else NaN [s]; and
    what is to be said to each owner of where it comes from.

    The timed loops of tables have the gap between kernels in them.
    """
    measured = system.stack.measured
    kept = np.array([measured.classes.get(name, 0.0) for name in ops.kernels] + [0.0])[ops.kernel]
    out = np.full(len(ops), np.nan)
    owners = 1 if owner is None else int(owner.max(initial=-1)) + 1
    if not ops.shapes or not kept.any():
        return out, [()] * owners
    from cmsim.kernels.of_shapes import shape_times_for  # brings all kinds of kernels along

    rows = np.flatnonzero((ops.shape >= 0) & (kept > 0))
    # as `np.unique` of both, which compares rows and takes several times as long
    cores, core = np.unique(ops.cores[rows], return_inverse=True)
    key, back = np.unique(ops.shape[rows] * len(cores) + core, return_inverse=True)
    shapes = [ops.shapes[number] for number in (key // len(cores)).tolist()]
    devices = system.accelerator.dies / system.ranks_per_package
    askers = [np.arange(len(key))] if owner is None else [np.unique(back[owner[rows] == one]) for one in range(owners)]
    time_us, notes = shape_times_for(
        askers, shapes, cores[key % len(cores)], system.accelerator, devices=devices, gemm_formats=measured.gemm_formats
    )
    if measured.longest_us is not None:
        time_us = np.where(time_us > measured.longest_us, np.nan, time_us)
    out[rows] = time_us[back] * US / kept[rows]
    return out, notes


def _slowed(ops: OpTable, system: System, held: Floats) -> Floats:
    """By how much each op row takes longer under the limit and the clock in force than under the board's own, which
    makes it take ``held`` times as long already. [1]"""
    watts = board_watts(system.accelerator)
    compute_share, memory_share = compute.busy_shares(
        ops.flops,
        ops.bytes_B,
        peak_FLOPps=peak_FLOPps(ops, system),
        memory_Bps=system.rank_memory_Bps,
        weight_B=_weight_B(ops),
    )
    return compute.slowed(
        compute_share,
        memory_share,
        active_W=watts.active,
        compute_W=watts.compute,
        memory_W=watts.memory,
        limit_W=watts.limit,
        timed_at_W=watts.built,
        clock=watts.clock,
        held=held,
    )


def _energy_bound_s(ops: OpTable, system: System) -> Floats:
    """The least time of each op row, under the board's own limit, of work longer than it averages its power. [s]"""
    power, watts = system.accelerator.power, board_watts(system.accelerator)
    known = {str(name): value for name, value in power.pJ_per_FLOP.items()}
    in_formats = np.array([known.get(compute.plain(name), 0.0) for name in ops.precisions] + [0.0])
    per_FLOP = np.where((on_vector(ops) == 1) | (ops.kernel < 0), 0.0, in_formats[ops.precision])
    return compute.energy_bound_s(
        ops.flops,
        ops.bytes_B,
        per_FLOP,
        memory_Bps=system.rank_memory_Bps,
        memory_W=watts.memory / system.ranks_per_package,
        room_W=max(watts.built - watts.active, 1.0) / system.ranks_per_package,
    )


def _weight_B(ops: OpTable) -> Floats:
    """Bytes of a weight of each grouped product; of all other ops those of a full one. [B]"""
    weights = [dict(shape.formats).get("weights", "") for shape in ops.shapes]
    return np.array([*(BYTES_PER_ELEMENT.get(name, compute.FULL_WEIGHT_B) for name in weights), compute.FULL_WEIGHT_B])[
        ops.shape
    ]


def on_vector(ops: OpTable) -> Ints:
    """1 for ops on the vector engine, 0 for all others, shape (rows,)."""
    known = compute.KERNELS
    engine = np.array([known[name].engine if name in known else "" for name in ops.kernels] + [""])[ops.kernel]
    return np.where((engine == "vector") | ((engine == "either") & (ops.precision < 0)), 1, 0)


def peak_FLOPps(ops: OpTable, system: System) -> Floats:
    """Peak of the engine each op row runs on, one rank; 0 where it runs on none. [FLOP/s]"""
    rate = rates(system)
    matrix = np.array([rate.peak_FLOPps.get(name, 0.0) for name in ops.precisions] + [0.0])[ops.precision]
    peak = np.where(on_vector(ops) == 1, rate.vector_FLOPps, matrix)
    out: Floats = np.where((ops.kind == COMPUTE) & (ops.kernel >= 0), peak, 0.0)
    return out


class _Priced(NamedTuple):
    """Device time of every op row [s], what binds it, its clock as of a plan, and notes for each owner of rows."""

    seconds: Floats
    bound: Ints
    clock: Floats
    notes: list[tuple[str, ...]]


def _kernel_seconds(programs: Programs, system: System, options: Options, owner: Ints | None = None) -> _Priced:
    """What ops cost a device; recorded times replace modelled ones where asked. ``owner``: as of `planned`"""
    ops = programs.ops
    recorded = ~np.isnan(ops.recorded_s)
    kept = recorded & (ops.kind == COMPUTE)
    if options.recorded == "modelled":
        kept &= (ops.flops == 0) & (ops.bytes_B == 0)
    asked = (ops.kind == COMPUTE) & ~kept
    priced = compute.price(
        ops.kernel[asked],
        ops.precision[asked],
        ops.flops[asked],
        ops.bytes_B[asked],
        ops.cores[asked],
        kernels=ops.kernels,
        precisions=ops.precisions,
        rates=rates(system),
    )
    seconds = np.zeros(len(ops))
    bound = np.full(len(ops), -1, np.int64)
    seconds[asked] = priced.time_s
    bound[asked] = priced.bound
    measured_s, notes = _measured_seconds(ops, system, owner)
    seconds = np.where(np.isnan(measured_s) | ~asked, seconds, measured_s)
    held, power = np.ones(len(ops)), system.accelerator.power
    if system.stack.sustained:
        least_s = _energy_bound_s(ops, system)
        over = asked & (least_s > seconds)
        bound = np.where(over, compute.COMPUTE_BOUND, bound)
        np.divide(least_s, seconds, out=held, where=over & (seconds > 0))
        seconds = np.where(asked, np.maximum(seconds, least_s), seconds)
    if power.limit_W is not None or power.clock < 1:
        seconds[asked] *= _slowed(ops, system, held)[asked]
    clock = np.where(asked, compute.clock_under(power.clock, held), 1.0) if power.clock < 1 else np.zeros(0)
    seconds /= 1.0 - options.host_idle
    matrix, memory = (1.0, 1.0) if options.recorded == "recorded" else options.recorded_scale
    on_matrix = np.array([name in compute.KERNELS and compute.KERNELS[name].matrix for name in ops.kernels] + [False])[
        ops.kernel
    ]
    seconds[kept] = (ops.recorded_s * np.where(on_matrix, matrix, memory))[kept]
    # what a recorded time scales with is what is taken to bind it
    bound[kept] = np.where(on_matrix, compute.COMPUTE_BOUND, compute.MEMORY_BOUND)[kept]
    use = recorded & (ops.kind == HOST)
    seconds[use] = ops.recorded_s[use]
    bound[ops.kind == HOST] = HOST_BOUND
    return _Priced(seconds, bound, clock, notes)
