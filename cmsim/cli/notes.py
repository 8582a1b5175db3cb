"""What is said below tables: what runs say of themselves, of faults, of recordings, of bands, and what it all says."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cmsim import kinds
from cmsim.cli import say
from cmsim.cli.lines import ScenarioLines
from cmsim.cli.tables import NOTHING
from cmsim.errors import WARNING, InputError
from cmsim.kinds.trace import TraceFacts
from cmsim.numbers import prefixed, quantity
from cmsim.results import Infeasible, Result, Results, more_than, placed, power_band

if TYPE_CHECKING:
    from rich.table import Table

    from cmsim.scenario import Scenario

#: full links that are named
_LINKS = 2


def notes(results: Sequence[Result]) -> list[str]:
    """What runs say of themselves, each note once with the workloads (and systems) it is of.

    Notes that differ in numbers only are one.
    """
    of: dict[str, list[Result]] = {}
    for result in results:
        for text in result.warnings:
            of.setdefault(say.template(text), []).append(result)
    out = []
    several = len({(result.workload, result.system) for result in results}) > 1
    for text, template in say.merged([text for result in results for text in result.warnings]):
        workloads = list(dict.fromkeys(result.workload for result in of[template]))
        systems = list(dict.fromkeys(result.system for result in of[template]))
        everywhere = {result.system for result in results if result.workload in workloads} == set(systems)
        where = ", ".join(workloads) + ("" if everywhere else f" on {', '.join(systems)}")
        out.append(f"{where}: {text}" if several else text)
    return out


def above(results: Sequence[Result], width: int) -> list[str]:
    """What has to be known before the figures are read, in one paragraph; nothing where they stand by themselves."""
    said = [text for text in notes(results) if WARNING in text]
    return [say.notes(said, width)] if said else []


def below(results: Sequence[Result]) -> list[str]:
    """The rest of what runs say of themselves."""
    return [text for text in notes(results) if WARNING not in text]


def missing(results: Results, width: int, asked: Scenario | None = None) -> list[str]:
    """How many runs gave no result, and why, with the place in the scenario; nothing where all did."""
    if not results.missing:
        return []
    places = ScenarioLines(asked) if asked is not None else None
    runs = {run.key: run for run in asked.runs} if asked is not None else {}
    reasons = []
    for one in results.missing:
        at = places.of(one, runs[one.run]) if places and one.run in runs and isinstance(one, Infeasible) else ""
        reasons.append(f"{one.run} is {one.outcome}: {one.message}" + (f" ({say.here(at)})" if at else ""))
    return [f"{counted(results)}\n{say.notes(reasons, width)}"]


def counted(results: Results) -> str:
    """How many runs gave no result."""
    words = [one.outcome for one in results.missing]
    of = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    return f"{len(words)} of {len(results.outcomes)} run{'s' * (len(results.outcomes) != 1)} gave no result: {of}"


def skipped(results: Results) -> list[str]:
    """Why runs are not in a comparison or a figure."""
    return [f"note: without {one.run}, which is {one.outcome}: {one.message}" for one in results.missing]


def faults(results: Sequence[Result]) -> list[str]:
    """What faults in the fabric did to each run that has any: to whom, and which links were full."""
    out = []
    for result in results:
        if not result.faults:
            continue
        found = result.faults
        who = f"{found['slowed']} of {result.ranks} ranks end later ({', '.join(found['ranks'])})"
        full = [f"{one['link']} for {prefixed(one['time_s'], 's')}" for one in found["saturated"][:_LINKS]]
        out.append(
            f"{result.run}: {found['slowdown']:.3f} times the healthy run's time; "
            f"{who if found['slowed'] else 'no rank ends later'}; full links: {', '.join(full) or 'none'}"
        )
    return out


def recorded(results: Sequence[Result]) -> list[Table]:
    """Every replayed trace: what was recorded beside what each system makes of it."""
    by_workload: dict[str, list[Result]] = {}
    for result in results:
        if result.recorded:
            by_workload.setdefault(result.workload, []).append(result)
    out = []
    for workload, runs in by_workload.items():
        classes = list(dict.fromkeys(name for run in runs for name in run.recorded))
        was = {name: row.get("recorded_s") for run in runs for name, row in run.recorded.items()}
        rows = []
        for name in classes:
            cells = [_seconds(was[name])]
            for run in runs:
                now = run.recorded.get(name, {}).get("simulated_s")
                cells += [_seconds(now), _change(now, was[name])]
            rows.append([name.replace("_", " "), *cells])
        steps = [run.facts.steps if isinstance(run.facts, TraceFacts) else 1.0 for run in runs]
        joules = [
            quantity("energy_J", float(run.metrics["energy_J"]) / of) if "energy_J" in run.metrics else NOTHING
            for run, of in zip(runs, steps, strict=True)
        ]
        rows.append(["energy", NOTHING, *(cell for one in joules for cell in (one, ""))])
        heads = ["mean of a rank" + (" and step" if max(steps) > 1 else ""), "recorded"]
        for run in runs:
            heads += [say.broken(placed(run)), "change"]
        out.append(say.table(heads, rows, title=f"{workload}: recorded and simulated", left=(0,)))
    return out


def _seconds(time_s: float | None) -> str:
    return NOTHING if time_s is None else prefixed(time_s, "s")


def _change(now: float | None, was: float | None) -> str:
    return "" if not was or now is None else f"{100 * (now / was - 1):+.1f} %"


def verdict(results: Results, width: int) -> list[str]:
    """What it all says, a paragraph per workload; nothing where there is nothing to hold against each other."""
    told = [textwrap.fill(text, width, break_on_hyphens=False, break_long_words=False) for text in results.verdict()]
    return ["\n\n".join(told)] if told else []


def meaning(results: Sequence[Result], what: Sequence[str]) -> list[str]:
    """What throughput was divided by, where a table says so."""
    if not any(kinds.PER in result.declared.table for result in results):
        return []
    words = {
        "rack": "per rack: cabinets that the system fills",
        "megawatt": "per megawatt: average power of the facility, PUE included, as energy is",
        "million_dollars": "per million_dollars: purchase price of the accelerators in use, all around them included",
    }
    said = [words[one] for one in what if one in words]
    if any("rank_steps_per_s" in result.metrics for result in results):
        said.append("rank_steps_per_s: recorded steps of a rank, of which every rank does one")
    return ["; ".join(said)] if said else []


def chances(results: Sequence[Result], labels: Sequence[str]) -> list[str]:
    """With which probability the first run of each kind gives more than each other, where both have draws."""
    first: dict[str, tuple[Result, str]] = {}
    out = []
    for one, label in zip(results, labels, strict=True):
        if not one.uncertainty:
            continue
        kind = one.declared.name
        if kind not in first:
            first[kind] = one, label
            continue
        base, base_label = first[kind]
        said = []
        for what in ("", "accelerator", "megawatt", "million_dollars"):
            try:
                (found,) = more_than([(base, one)], what)
            except InputError:  # no power, no price
                continue
            words = {"": "in all", "million_dollars": "per dollar"}.get(what, f"per {what}")
            said.append(f"{100 * found:.0f} % {words}")
        if said:
            names = (" ".join(base_label.split()), " ".join(label.split()))
            out.append(f"{kind}: probability that {names[0]} gives more than {names[1]}: {', '.join(said)}")
    return out


def power_bands(results: Iterable[Result]) -> list[str]:
    """How far power may lie below and above what is shown, where the watts of accelerators are assumed."""
    ends: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for result in results:
        found = power_band(result)
        if found is not None:
            ends.setdefault((result.workload, result.system), []).append(found)
    by_workload: dict[str, list[str]] = {}
    for (workload, system), shares in ends.items():
        low, high = min(low for low, _ in shares), max(high for _, high in shares)
        by_workload.setdefault(workload, []).append(f"{system} {100 * (low - 1):+.0f} {100 * (high - 1):+.0f} %")
    listed = "; ".join(f"{workload} on {', '.join(systems)}" for workload, systems in by_workload.items())
    return [f"power is a band, energy goes with it and throughput per megawatt against it: {listed}"] if listed else []


def assumed(results: Results) -> list[str]:
    """How many numbers behind the results nobody published, and files that say of none where it is from."""
    by_file: dict[str, int] = {}
    for entry in results.manifest.get("assumed", []):
        name = str(entry).partition(":")[0]
        by_file[name] = by_file.get(name, 0) + 1
    listed = ", ".join(f"{name} {number}" for name, number in by_file.items())
    out = [f"numbers that are assumed, with their ranges in `cmsim show NAME`: {listed}"] if listed else []
    bare = results.manifest.get("without_sources", [])
    return out + ([f"files in which no number has a source: {', '.join(map(str, bare))}"] if bare else [])
