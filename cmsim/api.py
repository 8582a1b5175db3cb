"""The whole flow on one page: scenario, system, workload, plan, play, results.

Everything the command line does is a function here; notebooks call the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cmsim import engine
from cmsim.energy import power
from cmsim.engine import record
from cmsim.hardware import System, load_system
from cmsim.results import Result, Results, metrics
from cmsim.scenario import Run, Scenario, load_scenario
from cmsim.workload import generate

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

    scenario   a Scenario, a file, a built-in name, or data
    set        dotted keys to change first, as ``--set`` does
    out        folder to write (complete or absent)

    Raises CmsimError for what the user can mend.
    """
    if not isinstance(scenario, Scenario) or set:
        scenario = load_scenario(scenario.data if isinstance(scenario, Scenario) else scenario, set=set)
    systems: dict[str, System] = {}
    results = []
    for number, one in enumerate(scenario.runs):
        report = _progress(progress, one.key, number, len(scenario.runs))
        system = _system(one, scenario, systems)
        results.append(run_one(one, system, base=scenario.base, progress=report))
    done = Results(results, scenario=dict(scenario.data), manifest=_manifest(scenario, systems))
    if out is not None:
        done.save(out)
    return done


def run_one(
    one: Run, system: System, *, base: Path | None = None, progress: Callable[[float], None] | None = None
) -> Result:
    """One workload on one system: programs, plan, play, then what they say."""
    programs = generate.programs(one.spec, system, base=base)
    engine.check_memory(programs, system)
    plan = engine.plan(programs, system, engine.options(one, system))
    timeline = engine.play(plan, one.network, progress=progress)
    ops = record.ops_columns(plan, timeline)
    links = record.links_columns(plan, timeline)
    watts = power.power_columns(system, ops, makespan_ps=timeline.makespan_ps, ranks=programs.ranks)
    return metrics.result(
        one,
        system=system,
        programs=programs,
        ops=ops,
        links=links,
        power=watts,
        makespan_ps=timeline.makespan_ps,
        bound=record.run_bound(plan, timeline),
        breakdown=record.breakdown(plan, timeline),
    )


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


def _system(one: Run, scenario: Scenario, seen: dict[str, System]) -> System:
    entry = one.system
    key = entry.model_dump_json()
    if key not in seen:
        seen[key] = load_system(
            entry.system,
            accelerators=entry.accelerators,
            domains=entry.domains,
            rank=entry.rank,
            stack=entry.stack,
            set=entry.set,
            label=entry.name,
            base=scenario.base,
        )
    return seen[key]


def _progress(progress: Progress | None, key: str, number: int, total: int) -> Callable[[float], None] | None:
    if progress is None:
        return None
    progress(key, number / total)
    return lambda share: progress(key, (number + share) / total)


def _manifest(scenario: Scenario, systems: Mapping[str, System]) -> dict[str, Any]:
    from cmsim import __version__

    used = sorted(systems.values(), key=lambda system: system.name)
    return {
        "cmsim": __version__,
        "scenario_text": scenario.text,
        "systems": {system.name: {"digest": system.digest, "files": dict(system.texts)} for system in used},
        "sources": sorted({source for system in used for _, _, source in system.sources() if isinstance(source, str)}),
        "assumed": sorted(f"{name}: {key}" for system in used for name, key, _ in system.assumed()),
    }


__all__: Sequence[str] = ["compare", "run", "run_one"]
