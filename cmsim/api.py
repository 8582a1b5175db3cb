"""The whole flow on one page: scenario, system, workload, plan, play, results.

Everything the command line does is a function here; notebooks call the same ones.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cmsim import collectives, energy, engine, results, topology
from cmsim.engine import record
from cmsim.errors import CmsimWarning
from cmsim.hardware import System, load_accelerator, load_system
from cmsim.results import Result, Results
from cmsim.scenario import CollectiveSpec, Run, Scenario, TraceSpec, load_scenario
from cmsim.units import to_ps, to_s
from cmsim.version import __version__
from cmsim.workload import Programs, generate

#: called with the run's key and the share of all runs that is done, 0 to 1
Progress = Callable[[str, float], None]


def run(
    scenario: Scenario | str | Path | Mapping[str, Any],
    *,
    set: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Results:
    """Run every workload on every system at every sweep point of a scenario.

    scenario   a Scenario, a file, a built-in name, YAML text, or data
    set        dotted keys to change first, as ``--set`` does
    out        folder to write (complete or absent)

    Raises CmsimError for what the user can mend; nothing is written then.
    """
    if not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario, set=set)
    elif set:
        scenario = load_scenario(scenario.data, set=set)
    if out is not None:
        results.check_folder(out)
    systems = {one.system_key: system(one, base=scenario.base) for one in scenario.runs}
    ran = [
        run_one(
            one, systems[one.system_key], base=scenario.base, progress=_share(progress, one.key, i, len(scenario.runs))
        )
        for i, one in enumerate(scenario.runs)
    ]
    done = Results(ran, scenario=dict(scenario.data), manifest=_manifest(scenario, list(systems.values())))
    if out is not None:
        done.save(out)
    return done


def run_one(
    one: Run, system: System, *, base: Path | None = None, progress: Callable[[float], None] | None = None
) -> Result:
    """One workload on one system: programs, plan, play, and what they say."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CmsimWarning)
        programs = generate.programs(one.spec, system, base=base)
        engine.check_memory(programs, system)
        options = options_of(one, system)
        plan = engine.plan(programs, system, options)
        timeline = engine.play(plan, progress=progress)
        impact = None
        if options.faults:
            healthy = engine.plan(programs, system, dataclasses.replace(options, faults=()))
            impact = engine.impact((healthy, engine.play(healthy)), (plan, timeline))
    ops, links = record.ops_columns(plan, timeline), record.links_columns(plan, timeline)
    power = energy.power_columns(system, ops, links, makespan_ps=timeline.makespan_ps)
    watts, missing = energy.power_metrics(system, power)
    went = record.breakdown(plan, timeline)
    facts = _facts(one, system, programs)
    numbers = results.metrics(
        one.spec.kind,
        facts,
        makespan_s=to_s(timeline.makespan_ps),
        accelerators=system.packages,
        exposed_comm_s=went.exposed_comm_s,
        bubble_s=went.parts_s["bubble_s"],
        memory_peak_B=float(engine.memory_B(programs).max()) if programs.footprint_B else None,
        algorithm=plan.calls[0].algorithm if plan.calls else "",
        power=watts,
        bounds_s=_bounds_s(one, system, programs, plan),
        fault_slowdown=impact.slowdown if impact is not None else None,
    )
    bound = record.run_bound(plan, timeline)
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
        accelerators=system.packages,
        ranks=programs.ranks,
        metrics=numbers,
        bound=bound,
        limiter=went.limiter,
        breakdown=went.parts_s,
        faults=impact.data() if impact is not None else {},
        recorded=recorded,
        warnings=(
            *_beyond(bound),
            *_idle(programs, system),
            *programs.notes,
            *missing,
            *(str(warning.message) for warning in caught),
        ),
        facts=facts,
        columns={"ops": ops, "links": links, "power": power},
    )
    results.check(result)
    return result


def export_chakra(one: Run, folder: str | Path, *, base: Path | None = None) -> list[Path]:
    """A run's workload as Chakra execution traces, a file a rank, kernels as long as its system makes them.

    folder   complete or absent    base: where paths of the scenario start
    Returns the files, communicators last.
    """
    from cmsim.workload.trace.chakra.write import write_chakra

    there = system(one, base=base)
    programs = generate.programs(one.spec, there, base=base)
    return write_chakra(programs, folder, hold_s=engine.hold_s(programs, there, options_of(one, there)))


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


def _as_replayed(spec: TraceSpec, facts: Mapping[str, float]) -> Mapping[str, float]:
    """Recorded times by class as the replay has them: communication that takes its recorded time is work there."""
    talks = ("recorded_collective_s", "recorded_send_recv_s")
    if spec.collectives == "modelled":
        return facts
    of_device = sum(facts.get(key, 0.0) for key in ("recorded_compute_s", *talks))
    return {key: of for key, of in facts.items() if key not in talks} | {"recorded_compute_s": of_device}


def _bounds_s(one: Run, system: System, programs: Programs, plan: engine.Plan) -> dict[str, float]:
    """What no algorithm can beat for the collective that is timed, on a whole fabric with nobody else on it."""
    if not isinstance(one.spec, CollectiveSpec) or not plan.calls:
        return {}
    from cmsim import flow

    name, size_B = one.spec.collective, programs.facts["size_B"]
    ranks = np.flatnonzero((programs.groups == programs.groups[0].max()).any(axis=1))
    whole, nothing = topology.paths(system), flow.Software()
    if name in programs.traffic:
        least = flow.bound_of_matrix(programs.traffic[name] * size_B, paths=whole, ranks=ranks, software=nothing)
    else:
        adds = "in_network" in plan.calls[0].algorithm
        least = flow.bound(name, size_B, paths=whole, ranks=ranks, software=nothing, in_network=adds)
    return {
        "egress": least.egress_s,
        "ingress": least.ingress_s,
        "bisection": least.bisection_s,
        "latency": least.latency_s,
    }


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
    return facts


def _beyond(bound: Mapping[str, Any]) -> list[str]:
    """What to say of a run that is faster than its bound: streams of one rank each see the full memory bandwidth, and
    the ideal network gives every demand the whole of its links."""
    if bound["fraction"] <= 1 + 1e-9:
        return []
    return [
        f"faster than the {bound['name']} bound ({bound['fraction']:.2f} of it): what streams share is not shared here"
    ]


def _idle(programs: Programs, system: System) -> list[str]:
    """What to say where a workload leaves part of the system idle."""
    used = -(-programs.ranks // system.ranks_per_package)
    if used == system.packages:
        return []
    return [f"uses {used} of {system.packages} accelerators; the others idle, and count in power and per accelerator"]


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


__all__ = ["Progress", "compare", "export_chakra", "run", "run_one", "system"]
