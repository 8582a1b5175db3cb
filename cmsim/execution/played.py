"""Programs on a machine: made, planned, played, recorded and measured; the same for every kind that has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cmsim import cost, energy, engine, results
from cmsim.arrays import Columns
from cmsim.engine import record
from cmsim.errors import InfeasibleError
from cmsim.execution import formats, money
from cmsim.execution.options import means_of, options_of
from cmsim.hardware import System
from cmsim.kinds import Facts, MachineFacts
from cmsim.reading.look import of_one
from cmsim.results import Result
from cmsim.scenario import Run
from cmsim.units import to_ps, to_s
from cmsim.workload import Programs, generate

#: columns of ops that metrics are made of; of replays groups too
_MEASURED = (*energy.OPS, "group")
#: what sums of times may be off by
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Play:
    """A run that was played, before anything is recorded of it."""

    run: Run
    system: System
    programs: Programs
    options: engine.Options
    plan: engine.Plan
    timeline: engine.Timeline
    base: Path | None = None

    @property
    def billed(self) -> System:
        return billed(self.run, self.system, self.programs)


def billed(one: Run, system: System, programs: Programs) -> System:
    """The system with the packages that count: those that hold ranks, or all where the job has it to itself."""
    if one.exclusive:
        return system
    used = -(-programs.ranks // system.ranks_per_package)
    return replace(system, packages=min(used, system.packages))


def play(
    one: Run,
    system: System,
    base: Path | None,
    *,
    limit: Callable[[Programs], float] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Play | None:
    """Programs, plan and play; None for a run that takes longer than ``limit`` gives its programs. [s]"""
    formats.check(one.spec, system.accelerator)
    programs = generate.programs(one.spec, system, base=base, loops=True)
    engine.check_memory(programs, system)
    options = options_of(one, system)
    plan = engine.plan(programs, system, options)
    limit_ps = None if limit is None else int(to_ps(limit(programs)))
    played = engine.play_loops(plan, limit_ps=limit_ps, progress=progress)
    return None if played is None else Play(one, system, programs, options, *played, base)


def check(one: Run, system: System, base: Path | None) -> None:
    """Raises what keeps programs from being played, as far as it can be told without planning all of them.

    Parameters
    ----------
    one
        A run of a scenario that leaves nothing open.
    system
        Where it is to run.
    base
        Folder that relative paths of the scenario start from.

    Raises
    ------
    InfeasibleError
        Where it needs more ranks or more memory than there is, or no plan of these sizes is one.
    InputError
        For what is wrong with its files.
    """
    formats.check(one.spec, system.accelerator)
    programs = generate.programs(one.spec, system, base=base, loops=True)
    if programs.ranks > system.ranks:
        raise InfeasibleError(f"needs {programs.ranks} ranks; {system.name} has {system.ranks} ({system.spec.rank}s)")
    engine.check_memory(programs, system)
    if means_of(one).options(one.spec, system).get("algorithm"):  # it may be unknown, or not run on such a group
        engine.plan(programs, system, options_of(one, system))


def rates(one: Run, billed: System, programs: Programs, makespan_s: float) -> dict[str, float]:
    """What follows from the length of a run alone."""
    facts = means_of(one).facts(one.spec, programs.facts)
    return results.of_time(one.spec.kind, facts, makespan_s=makespan_s, accelerators=billed.packages)


@dataclass(frozen=True)
class Weighed:
    """What metrics are made of: what is billed, power, and where the time went; and the columns that these follow from,
    where they were made for this run alone."""

    billed: System
    power: energy.Power
    went: record.Breakdown
    ops: Columns = field(default_factory=dict)
    links: Columns = field(default_factory=dict)


def measures(played: Play) -> Weighed:
    """Of one run by itself."""
    plan, timeline, full = played.plan, played.timeline, played.run.record == "full"
    ops = record.ops_columns(plan, timeline, None if full else _MEASURED)
    links = record.links_columns(plan, timeline)
    clocked = {**ops, **record.ops_columns(plan, timeline, ("clock",))} if plan.clock.size else ops
    billed = played.billed
    power = energy.power_over_time(billed, clocked, links, makespan_ps=timeline.makespan_ps, repeat=timeline.repeat)
    return Weighed(billed, power, record.breakdown(plan, timeline), ops, links)


def measured_apart(line: engine.Line, timeline: engine.Timeline, billed: System) -> list[Weighed]:
    """Of runs on one system that were played as one; without columns."""
    begin_ps, end_ps = line.spans(timeline)
    wanted = (*energy.OPS, "clock") if line.plan.clock.size else energy.OPS
    ops = record.ops_columns(line.plan, timeline, wanted)
    links = record.links_columns(line.plan, timeline)
    power = energy.powers(billed, ops, links, begin_ps=begin_ps, end_ps=end_ps)
    went = record.breakdowns(line.plan, timeline, begin_ps, end_ps)
    return [Weighed(billed, *one) for one in zip(power, went, strict=True)]


def only_time(one: Run) -> bool:
    """Whether of a run nothing is kept but what follows from its length."""
    return one.record == "none" and results.follows_time(one.spec.kind, one.of)


def result(played: Play, measured: Weighed | None = None) -> Result:
    """What was played, measured, and recorded as far as its run says; of a steady state only what was (``whole``)."""
    one, system, programs, options = played.run, played.system, played.programs, played.options
    if only_time(one):
        return _of_time(played)
    plan, timeline = played.plan, played.timeline
    means, makespan_s = means_of(one), to_s(timeline.makespan_ps)
    impact = None
    if options.faults:
        healthy = engine.plan(plan.programs, system, replace(options, faults=()))
        impact = engine.impact((healthy, engine.play(healthy)), (plan, timeline))
    full = one.record == "full"
    measured = measured or measures(played)
    billed, power, went, ops = measured.billed, measured.power, measured.went, measured.ops
    watts, missing = energy.power_metrics(billed, power)
    rent, unpriced = of_one("rent", billed, lambda: cost.rent(billed))
    ends, assumed = energy.band_metrics(billed, power)
    moves = _over_time(one, billed, power)
    facts: Facts = means.facts(one.spec, programs.facts)
    fabric_s = means.bounds_s(one.spec, system, programs, plan)
    numbers = results.metrics(
        one.spec.kind,
        facts,
        makespan_s=makespan_s,
        accelerators=billed.packages,
        exposed_comm_s=went.exposed_comm_s,
        bubble_s=went.parts_s["bubble_s"],
        memory_peak_B=float(engine.memory_B(programs).max()) if programs.footprint_B else None,
        algorithm=means.algorithm(plan),
        power={**watts, **rent, **ends, **(moves.metrics() if moves else {})},
        bounds_s=fabric_s,
        fault_slowdown=impact.slowdown if impact is not None else None,
    )
    bound = engine.run_bound(plan, timeline, beside_s=means.beside_s(fabric_s, facts))
    found = Result(
        run=one.key,
        workload=one.workload,
        system=system.name,
        accelerators=billed.packages,
        ranks=programs.ranks,
        metrics=numbers,
        bound=bound,
        limiter=went.limiter,
        breakdown=went.parts_s,
        faults=impact.data() if impact is not None else {},
        recorded=means.recorded(one.spec, facts, ops, makespan_s=makespan_s, exposed_comm_s=went.exposed_comm_s),
        warnings=(
            *beyond(bound, engine.memory_drawn(plan, timeline)),
            *_idle(played),
            *system.notes,
            *formats.notes(one.spec, system.accelerator),
            *programs.notes,
            *missing,
            *unpriced,
            *assumed,
            *plan.notes,
        ),
        facts=facts,
        machine=of_one("machine", billed, lambda: machine_facts(billed)),
        columns={
            **({"ops": ops, "links": measured.links, "power": power.columns()} if full else {}),
            **({"power_curve": moves.columns()} if full and moves else {}),
        },
        kind=one.spec.kind,
        chosen=dict(one.chosen),
        entry=one.identity.entry,
        point=dict(one.point),
        plan=_plan(programs),
        record="full" if full else "summary",
    )
    found = money.priced(found, one, billed, played.base)
    return found if one.record != "none" else _without(found)


def _over_time(one: Run, billed: System, power: energy.Power) -> energy.PowerCurve | None:
    """Power over time, where the workload asks for it."""
    how = getattr(one.spec, "power", None)
    if how is None or how.over_time is None:
        return None
    return energy.curve(energy.Course.of(power, billed), **how.over_time.model_dump(), seed=one.seed)


def _of_time(played: Play) -> Result:
    """What follows from the length of a run alone: enough to choose by."""
    one, billed, programs = played.run, played.billed, played.programs
    return Result(
        run=one.key,
        workload=one.workload,
        system=played.system.name,
        accelerators=billed.packages,
        ranks=programs.ranks,
        metrics=rates(one, billed, programs, to_s(played.timeline.makespan_ps)),
        bound=engine.run_bound(played.plan, played.timeline),
        limiter="",
        breakdown={},
        facts=means_of(one).facts(one.spec, programs.facts),
        machine=machine_facts(billed),
        kind=one.spec.kind,
        chosen=dict(one.chosen),
        entry=one.identity.entry,
        point=dict(one.point),
        record="none",
    )


def _without(found: Result) -> Result:
    """As `_of_time` leaves it, with all metrics: one of them decides that does not follow from the length."""
    return replace(found, limiter="", breakdown={}, warnings=(), plan={}, faults={}, recorded={}, record="none")


def whole(result: Result, played: Play) -> Result:
    """A result whose frames have what a steady state left out, put back when somebody looks."""
    if not result.columns:
        return result
    return replace(result, columns={**result.columns, **engine.whole_columns(played.plan, played.timeline)})


def machine_facts(system: System) -> MachineFacts:
    """What metrics need of a machine beside the workload's facts."""
    return MachineFacts(
        memory_Bps=system.rank_memory_Bps,
        # the share of its cabinets that the accelerators in use fill
        racks=system.spec.racks * system.packages / system.spec.accelerators,
        price_USD=cost.price_USD(system),
        rated_W=energy.rated_W(system),
    )


def _plan(programs: Programs) -> dict[str, Any]:
    """The sizes a run had, and what lies in the memory of its fullest rank, by part."""
    memory_B = engine.fullest_B(programs)
    return {**programs.plan, **({"memory_B": memory_B} if memory_B else {})}


def beyond(bound: Mapping[str, Any], memory_drawn: float) -> list[str]:
    """What to say where something is not shared that is shared in truth: kernels of two streams of one rank each see
    the whole memory bandwidth, the ideal network gives every demand the whole of its links, and constants of a library
    are as they were measured."""
    said = []
    if bound["fraction"] > 1 + _ROUNDING:
        said.append(
            f"faster than the {bound['name']} bound ({bound['fraction']:.2f} of it): what streams share is not shared "
            "here, or a recorded or fitted time beats the rates of this system"
        )
    if memory_drawn > 1 + _ROUNDING:
        said.append(
            f"kernels side by side draw {memory_drawn:.2f} times the memory bandwidth there is: each is priced as if "
            "it had it alone"
        )
    return said


def _idle(played: Play) -> list[str]:
    """What to say where a workload leaves part of the system idle."""
    used, there = -(-played.programs.ranks // played.system.ranks_per_package), played.system.packages
    if used == there:
        return []
    if played.run.exclusive:
        return [f"uses {used} of {there} accelerators; the others idle, and count in power and per accelerator"]
    return [f"uses {used} of {there} accelerators; the others are not billed to it (exclusive: true does)"]
