"""The whole flow on one page: scenario, system, workload, plan, play, results.

Everything the command line does is a function here; notebooks call the same ones.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmsim import collectives, cost, energy, engine, results, side_by_side, topology
from cmsim.digest import Digests
from cmsim.engine import record
from cmsim.errors import FailedError, InfeasibleError, tell
from cmsim.hardware import System, load_accelerator, load_system
from cmsim.results import Result, Results
from cmsim.scenario import CollectiveSpec, Record, Run, Scenario, TraceSpec, load_scenario, more_is_better
from cmsim.units import to_ps, to_s
from cmsim.version import __version__
from cmsim.workload import Programs, generate
from cmsim.workload.generate.choices import sizes

#: columns of ops that metrics are made of; of replays groups too
_MEASURED = (*energy.OPS, "group")
#: what sums of times may be off by
_ROUNDING = 1e-9

#: called with the run's key and the share of all runs that is done, 0 to 1
Progress = Callable[[str, float], None]


def run(
    scenario: Scenario | str | Path | Mapping[str, Any],
    *,
    set: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    record: Record | None = None,
    jobs: int | None = 1,
    progress: Progress | None = None,
) -> Results:
    """Run every workload on every system at every sweep point of a scenario.

    scenario   a Scenario, a file, a built-in name, YAML text, or data
    set        dotted keys to change first, as ``--set`` does
    out        folder to write (complete or absent)
    record     what is kept of a run, instead of what the scenario says: full, summary or none
    jobs       processes to run in, with the same results; None: as many as cores, where that is sooner. A program that
               asks for more than one has its own work below ``if __name__ == "__main__":``

    A run that does not fit, or has no plan, is an outcome among the others (`Results.missing`). Raises InputError for
    what is wrong with the scenario; nothing is written then.
    """
    scenario = _loaded(scenario, set, record)
    if out is not None:
        results.check_folder(out)
    machines = Machines(scenario.base)
    became = list(outcomes(scenario, machines=machines, jobs=jobs, progress=progress))
    done = Results(became, scenario=dict(scenario.data), manifest=_manifest(scenario, machines.loaded()))
    if out is not None:
        done.save(out)
    return done


def outcomes(
    scenario: Scenario | str | Path | Mapping[str, Any],
    *,
    set: Mapping[str, Any] | None = None,
    record: Record | None = None,
    machines: Machines | None = None,
    jobs: int | None = 1,
    store: results.Store | str | Path | None = None,
    progress: Progress | None = None,
) -> Iterator[results.Outcome]:
    """What becomes of each run of a scenario, in order, each played when it is asked for and kept by nobody.

    machines   the systems, for who wants to know them afterwards    the others as for `run`
    store      a store of results or its folder, which takes each; runs that it has already are passed over

    Raises InputError, at the call, for a scenario or a system that cannot be read, and for a system without a
    price where one is asked for.
    """
    scenario = _loaded(scenario, set, record)
    there = machines or Machines(scenario.base)
    check_report(scenario, [there(one) for one in scenario.runs])
    if store is None:
        return _each(scenario.runs, there, jobs, progress)
    kept = store if isinstance(store, results.Store) else results.Store(store)
    return _stored(dict(zip(digests(scenario, there), scenario.runs, strict=True)), there, jobs, progress, kept)


def digests(scenario: Scenario, machines: Machines | None = None) -> list[str]:
    """Of each run of a scenario, in their order, the digest by which a store of results knows it."""
    there = machines or Machines(scenario.base)
    made = Digests(there.base)
    return [made.of(one, _may_be(one, there)) for one in scenario.runs]


def _may_be(one: Run, machines: Machines) -> list[System]:
    """The systems that a run may be on: several where `best` chooses one."""
    several = any(key.of_system for key in one.open)
    return [machines(each) for each in candidates(one, machines)] if several else [machines(one)]


def _stored(
    runs: Mapping[str, Run], machines: Machines, jobs: int | None, progress: Progress | None, store: results.Store
) -> Iterator[results.Outcome]:
    """Runs by their digests, as far as the store has them not, into the store."""
    done = store.done()
    new = {digest: one for digest, one in runs.items() if digest not in done}
    with store:
        for digest, one in zip(new, _each(list(new.values()), machines, jobs, progress), strict=True):
            store.add(one, digest)
            yield one


def _each(
    runs: Sequence[Run], machines: Machines, jobs: int | None, progress: Progress | None
) -> Iterator[results.Outcome]:
    def here(item: tuple[int, Run]) -> results.Outcome:
        number, one = item
        return evaluate(one, machines, progress=_share(progress, one.key, number, len(runs)))

    away = functools.partial(_evaluated, machines.base)
    for done, one in enumerate(side_by_side.in_order(here, away, list(enumerate(runs)), jobs), 1):
        if progress is not None:
            progress(one.run, done / len(runs))
        yield one


def _evaluated(base: Path | None, item: tuple[int, Run]) -> results.Outcome:
    """In a process that was started for it, whose systems are read once."""
    return evaluate(item[1], _machines(base))


@functools.lru_cache(maxsize=1)
def _machines(base: Path | None) -> Machines:
    return Machines(base)


def _loaded(
    scenario: Scenario | str | Path | Mapping[str, Any], set: Mapping[str, Any] | None, record: Record | None
) -> Scenario:
    if not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario, set=set)
    elif set:
        scenario = load_scenario(scenario.data, set=set)
    return scenario if record is None else scenario.recorded(record)


def check_report(scenario: Scenario, systems: Sequence[System]) -> None:
    """Raises InputError where throughput is asked for per something that is not known of every system."""
    if "million_dollars" in scenario.report.per:
        cost.check_priced(systems)


class Machines:
    """The systems of a scenario's runs, each loaded once.

    base   folder that relative paths of the scenario start from
    """

    def __init__(self, base: Path | None = None):
        self.base = base
        self._systems: dict[str, System] = {}

    def __call__(self, one: Run) -> System:
        if one.system_key not in self._systems:
            self._systems[one.system_key] = system(one, base=self.base)
        return self._systems[one.system_key]

    def loaded(self) -> list[System]:
        """In the order in which they were first asked for."""
        return list(self._systems.values())


def evaluate(
    one: Run, machines: Machines | None = None, *, progress: Callable[[float], None] | None = None
) -> results.Outcome:
    """What becomes of a run: a result, or why there is none.

    Not to fit the memory, and no plan of these sizes, are outcomes. Raises InputError for what is wrong with the input.
    """
    said: dict[str, Any] = {
        "run": one.key,
        "workload": one.workload,
        "system": one.system.label,
        "kind": one.spec.kind,
        "entry": one.identity.entry,
        "point": dict(one.point),
    }
    try:
        return _result(_best(one, machines or Machines(), progress))
    except InfeasibleError as error:
        return results.Infeasible(**said, message=str(error), budget=error.budget)
    except FailedError as error:
        return results.Failed(**said, message=str(error))


def run_one(
    one: Run, system: System, *, base: Path | None = None, progress: Callable[[float], None] | None = None
) -> Result:
    """One workload that leaves nothing open on one system: programs, plan, play, and what they say.

    Raises InfeasibleError and FailedError where there is no result.
    """
    played = _play(one, system, base, progress=progress)
    assert played is not None, "without a limit a plan is played to its end"
    return _result(played)


@dataclasses.dataclass(frozen=True)
class _Played:
    """A run that was played, before anything is recorded of it."""

    run: Run
    system: System
    programs: Programs
    options: engine.Options
    plan: engine.Plan
    timeline: engine.Timeline

    @property
    def billed(self) -> System:
        return _billed(self.run, self.system, self.programs)


def _billed(one: Run, system: System, programs: Programs) -> System:
    """The system with the packages that count: those that hold ranks, or all where the job has it to itself."""
    if one.exclusive:
        return system
    used = -(-programs.ranks // system.ranks_per_package)
    return dataclasses.replace(system, packages=min(used, system.packages))


def _play(
    one: Run,
    system: System,
    base: Path | None,
    *,
    limit: Callable[[Programs], float] | None = None,
    progress: Callable[[float], None] | None = None,
) -> _Played | None:
    """Programs, plan and play; None for a run that takes longer than ``limit`` gives its programs. [s]"""
    programs = generate.programs(one.spec, system, base=base)
    engine.check_memory(programs, system)
    options = options_of(one, system)
    plan = engine.plan(programs, system, options)
    if limit is None:
        timeline: engine.Timeline | None = engine.play(plan, progress=progress)
    else:
        timeline = engine.play_within(plan, int(to_ps(limit(programs))), progress=progress)
    return None if timeline is None else _Played(one, system, programs, options, plan, timeline)


def candidates(one: Run, machines: Machines) -> Iterator[Run]:
    """The runs among which `best` chooses, in the order in which they are tried; one that leaves nothing open itself.

    Raises InputError for values that do not go together.
    """
    if not one.open:
        yield one
        return
    key = one.open[0]
    values = key.values
    if values is None:
        values = tuple(sizes(key.key, one.spec, machines(one), base=machines.base))
    for value in values:
        yield from candidates(one.at(value), machines)


def _best(one: Run, machines: Machines, progress: Callable[[float], None] | None) -> _Played:
    """The candidate whose metric is best, the first of equals. Raises InfeasibleError where none is possible.

    Losers are played no longer than they could still win, and nothing is recorded of them.
    """
    best: _Played | None = None
    score = 0.0
    refused: list[tuple[Run, InfeasibleError]] = []
    for candidate in candidates(one, machines):
        limit = None
        if best is not None and results.follows_time(one.of):
            limit = functools.partial(_time_to_beat, candidate, machines(candidate), score)
        try:
            played = _play(candidate, machines(candidate), machines.base, limit=limit, progress=progress)
        except InfeasibleError as error:
            refused.append((candidate, error))
            continue
        if played is None or not one.open:
            best = best or played
            continue
        metric, value = _score(played)
        if best is None or (value > score if more_is_better(metric) else value < score):
            best, score = played, value
    if best is None:
        raise _nearest(refused)
    return best


def _score(played: _Played) -> tuple[str, float]:
    """The metric that decides, and what the candidate gives."""
    one = played.run
    if not results.follows_time(one.of):
        return str(one.of), _result(played).metric(str(one.of))
    found = _rates(one, played.billed, played.programs, to_s(played.timeline.makespan_ps))
    return results.decisive(found, one.of)


def _time_to_beat(one: Run, system: System, score: float, programs: Programs) -> float:
    """How long a run may take to be better than a score: rates go with one over time, times with time. [s]"""
    metric, in_a_second = results.decisive(_rates(one, _billed(one, system, programs), programs, 1.0), one.of)
    # one part in a million more, so that what is as good to the last digit is played to its end
    return (in_a_second / score if more_is_better(metric) else score / in_a_second) * (1 + 1e-6)


def _rates(one: Run, billed: System, programs: Programs, makespan_s: float) -> dict[str, float]:
    """What follows from the length of a run alone."""
    return results.of_time(
        one.spec.kind, _facts(one, billed, programs), makespan_s=makespan_s, accelerators=billed.packages
    )


def _nearest(refused: Sequence[tuple[Run, InfeasibleError]]) -> InfeasibleError:
    """Of several refusals the one that is nearest to fitting; where none has a budget, the first."""

    def excess(at: int) -> tuple[float, int]:
        budget = refused[at][1].budget
        return (budget["needed_B"] / budget["available_B"] if budget else math.inf), at

    candidate, error = refused[min(range(len(refused)), key=excess)]
    if not candidate.chosen:
        return error
    tried = ", ".join(f"{key} {value}" for key, value in candidate.chosen.items())
    return InfeasibleError(f"none of {len(refused)} choices is possible; nearest with {tried}: {error}", error.budget)


def _result(played: _Played) -> Result:
    """What was played, measured, and recorded as far as its run says."""
    one, system, programs, options = played.run, played.system, played.programs, played.options
    if one.record == "none" and results.follows_time(one.of):
        return results.check(_result_of_time(played))
    plan, timeline, billed = played.plan, played.timeline, played.billed
    impact = None
    if options.faults:
        healthy = engine.plan(programs, system, dataclasses.replace(options, faults=()))
        impact = engine.impact((healthy, engine.play(healthy)), (plan, timeline))
    whole = one.record == "full"
    ops = record.ops_columns(plan, timeline, None if whole else _MEASURED)
    links = record.links_columns(plan, timeline)
    power = energy.power_over_time(billed, ops, links, makespan_ps=timeline.makespan_ps)
    watts, missing = energy.power_metrics(billed, power)
    money, unpriced = cost.rent(billed)
    ends, assumed = energy.band_metrics(billed, power)
    went = record.breakdown(plan, timeline)
    facts = _facts(one, billed, programs)
    fabric_s = _bounds_s(one, system, programs, plan)
    numbers = results.metrics(
        one.spec.kind,
        facts,
        makespan_s=to_s(timeline.makespan_ps),
        accelerators=billed.packages,
        exposed_comm_s=went.exposed_comm_s,
        bubble_s=went.parts_s["bubble_s"],
        memory_peak_B=float(engine.memory_B(programs).max()) if programs.footprint_B else None,
        algorithm=plan.calls[0].algorithm if plan.calls else "",
        power={**watts, **money, **ends},
        bounds_s=fabric_s,
        fault_slowdown=impact.slowdown if impact is not None else None,
    )
    bound = engine.run_bound(plan, timeline, beside_s=_by_name(fabric_s, facts.get("calls", 1.0)))
    recorded = {}
    if isinstance(one.spec, TraceSpec):
        recorded = results.beside_recorded(
            _as_replayed(one.spec, facts),
            ops,
            makespan_s=to_s(timeline.makespan_ps),
            exposed_comm_s=went.exposed_comm_s,
        )
    result = Result(
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
        recorded=recorded,
        warnings=(
            *_beyond(bound, engine.memory_drawn(plan, timeline)),
            *_idle(played),
            *programs.notes,
            *missing,
            *unpriced,
            *assumed,
            *plan.notes,
        ),
        facts=facts,
        columns={"ops": ops, "links": links, "power": power.columns()} if whole else {},
        kind=one.spec.kind,
        chosen=dict(one.chosen),
        entry=one.identity.entry,
        point=dict(one.point),
        plan=_plan(programs),
        record="full" if whole else "summary",
    )
    results.check(result)
    return result if one.record != "none" else _without(result)


def _result_of_time(played: _Played) -> Result:
    """What follows from the length of a run alone: enough to choose by."""
    one, billed, programs = played.run, played.billed, played.programs
    bound = engine.run_bound(played.plan, played.timeline)
    return Result(
        run=one.key,
        workload=one.workload,
        system=played.system.name,
        accelerators=billed.packages,
        ranks=programs.ranks,
        metrics=_rates(one, billed, programs, to_s(played.timeline.makespan_ps)),
        bound=bound,
        limiter="",
        breakdown={},
        facts=_facts(one, billed, programs),
        kind=one.spec.kind,
        chosen=dict(one.chosen),
        entry=one.identity.entry,
        point=dict(one.point),
        record="none",
    )


def _without(result: Result) -> Result:
    """As `_result_of_time` leaves it, with all metrics: one of them decides that does not follow from the length."""
    return dataclasses.replace(
        result, limiter="", breakdown={}, warnings=(), plan={}, faults={}, recorded={}, record="none"
    )


def export_chakra(one: Run, folder: str | Path, *, base: Path | None = None) -> list[Path]:
    """A run's workload as Chakra execution traces, a file a rank, kernels as long as its system makes them.

    folder   complete or absent    base: where paths of the scenario start
    Returns the files, communicators last. Warns of what Chakra has no form for, and of how kernels were priced.
    """
    from cmsim.traces.chakra.write import left_out, write_chakra

    if one.open:
        one = _best(one, Machines(base), None).run
    there = system(one, base=base)
    programs = generate.programs(one.spec, there, base=base)
    hold_s, notes = engine.hold_s(programs, there, options_of(one, there))
    paths = write_chakra(programs, folder, hold_s=hold_s)
    tell((*left_out(programs), *notes))
    return paths


def compare(*sources: Results | Scenario | str | Path) -> Results:
    """Several scenarios or result folders as one set of results, side by side."""
    parts = []
    for source in sources:
        if isinstance(source, Results):
            parts.append(source)
        elif isinstance(source, str | Path) and (Path(source) / "summary.json").exists():
            parts.append(Results.load(source))
        else:
            parts.append(run(source))
    return Results.joined(parts)


def system(one: Run, *, base: Path | None = None) -> System:
    """The system of a run, with the scenario's changes."""
    entry = one.system
    return load_system(
        entry.system,
        accelerators=entry.accelerators,
        domains=entry.domains,
        rank=entry.rank,
        stack=entry.stack,
        set=entry.set,
        label=entry.label,
        base=base,
    )


def options_of(one: Run, system: System) -> engine.Options:
    """What a scenario says to the planner."""
    host = system.stack.host
    # launched one by one, ops show by themselves where the device waits for the host
    one_by_one = host.launch == "eager"
    idle = {} if one_by_one else dict.fromkeys(("prefill", "training"), host.idle_bulk) | {"decode": host.idle_decode}
    recorded, scale = "recorded", (1.0, 1.0)
    if isinstance(one.spec, TraceSpec):
        recorded = one.spec.compute
        if recorded != "recorded" and one.spec.recorded_on is not None:
            scale = _roofline_ratio(one.spec.recorded_on, system)
    return engine.Options(
        algorithm=one.spec.algorithm if isinstance(one.spec, CollectiveSpec) else "best",
        fold=one.fold,
        host_idle=idle.get(one.spec.kind, 0.0),
        perturb={rank: engine.Perturbation(**change.model_dump()) for rank, change in one.perturb.items()},
        jitter=engine.Jitter(**one.jitter.model_dump()) if one.jitter is not None else None,
        recorded=recorded,
        recorded_scale=scale,
        network=one.network,
        routing=one.routing,
        seed=one.seed,
        faults=[
            engine.Fault(
                fault.part,
                fault.left,
                int(to_ps(fault.from_s)),
                None if fault.until_s is None else int(to_ps(fault.until_s)),
            )
            for fault in one.faults
        ],
    )


def _plan(programs: Programs) -> dict[str, Any]:
    """The sizes a run had, and what lies in the memory of its fullest rank, by part."""
    memory_B = engine.fullest_B(programs)
    return {**programs.plan, **({"memory_B": memory_B} if memory_B else {})}


def _as_replayed(spec: TraceSpec, facts: Mapping[str, float]) -> Mapping[str, float]:
    """Recorded times by class as the replay has them: communication that takes its recorded time is work there."""
    talks = ("recorded_collective_s", "recorded_send_recv_s")
    if spec.collectives == "modelled":
        return facts
    of_device = sum(facts.get(key, 0.0) for key in ("recorded_compute_s", *talks))
    return {key: of for key, of in facts.items() if key not in talks} | {"recorded_compute_s": of_device}


def _bounds_s(one: Run, system: System, programs: Programs, plan: engine.Plan) -> dict[str, float]:
    """What no algorithm can beat for the collective that is timed, on a whole fabric with nobody else on it. Switches
    that can add do so, whether or not the algorithm lets them."""
    if not isinstance(one.spec, CollectiveSpec) or not plan.calls:
        return {}
    from cmsim import messages

    name, size_B = one.spec.collective, programs.facts["size_B"]
    ranks = np.flatnonzero((programs.groups == programs.groups[0].max()).any(axis=1))
    whole, nothing = topology.paths(system), messages.Software()
    if name in programs.traffic:
        least = messages.bound_of_matrix(programs.traffic[name] * size_B, paths=whole, ranks=ranks, software=nothing)
    else:
        adds = plan.fabric.in_network_reduction and system.stack.collectives.in_network
        least = messages.bound(name, size_B, paths=whole, ranks=ranks, software=nothing, in_network=adds)
    return {
        "egress": least.egress_s,
        "ingress": least.ingress_s,
        "bisection": least.bisection_s,
        "latency": least.latency_s,
    }


def _by_name(fabric_s: Mapping[str, float], calls: float) -> dict[str, float]:
    """Bounds at line rate of all calls of a collective, under the names that a run's bound has. [s]"""
    if not fabric_s:
        return {}
    port_s = max(fabric_s["egress"], fabric_s["ingress"])
    return {"port": calls * port_s, "bisection": calls * fabric_s["bisection"]}


def _roofline_ratio(recorded_on: str, system: System) -> tuple[float, float]:
    """Time on ``system`` over time on the recorded accelerator: of matrix kernels, by 16-bit peaks; of the others, by
    memory bandwidth. One recorded accelerator becomes one rank."""
    there = load_accelerator(recorded_on)
    # the first of the two that a part has: of 16 bits they are alike
    its, ours = (
        next(name for name in ("bf16", "fp16") if name in part.peak_TFLOPps) for part in (there, system.accelerator)
    )
    matrix = there.peak_TFLOPps[its] * 1e12 / system.rank_peak_FLOPps(ours)
    return matrix, there.memory_GBps * 1e9 / system.rank_memory_Bps


def _facts(one: Run, system: System, programs: Programs) -> dict[str, float]:
    """What metrics need beside the timeline: the workload's facts and the machine's."""
    facts = dict(programs.facts)
    if isinstance(one.spec, CollectiveSpec):
        facts["busbw_factor"] = float(collectives.busbw_factor(one.spec.collective, facts["ranks_in_group"]))
    facts["memory_Bps"] = system.rank_memory_Bps
    # the share of its cabinets that the accelerators in use fill
    facts["racks"] = system.spec.racks * system.packages / system.spec.accelerators
    price_USD = cost.price_USD(system)
    if price_USD is not None:
        facts["price_USD"] = price_USD
    return facts


def _beyond(bound: Mapping[str, Any], memory_drawn: float) -> list[str]:
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


def _idle(played: _Played) -> list[str]:
    """What to say where a workload leaves part of the system idle."""
    used, there = -(-played.programs.ranks // played.system.ranks_per_package), played.system.packages
    if used == there:
        return []
    if played.run.exclusive:
        return [f"uses {used} of {there} accelerators; the others idle, and count in power and per accelerator"]
    return [f"uses {used} of {there} accelerators; the others are not billed to it (exclusive: true does)"]


def _share(progress: Progress | None, key: str, number: int, total: int) -> Callable[[float], None] | None:
    if progress is None:
        return None
    progress(key, number / total)
    return lambda share: progress(key, (number + share) / total)


def _manifest(scenario: Scenario, systems: list[System]) -> dict[str, Any]:
    """What a figure can be traced back to."""
    return {
        "cmsim": __version__,
        "seed": scenario.runs[0].seed,
        "scenario_file": Path(scenario.file).name,
        "scenario_text": scenario.text,
        "systems": {one.name: {"digest": one.digest, "files": dict(one.texts)} for one in systems},
        "sources": sorted({source for one in systems for _, _, source in one.sources() if isinstance(source, str)}),
        "assumed": sorted({f"{name}: {key}" for one in systems for name, key, _ in one.assumed()}),
    }


__all__ = [
    "Machines",
    "Progress",
    "candidates",
    "check_report",
    "compare",
    "digests",
    "evaluate",
    "export_chakra",
    "outcomes",
    "run",
    "run_one",
    "system",
]
