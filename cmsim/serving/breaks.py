"""Failures of a scenario: which replicas each takes, when these are back, how much longer steps are under a fault; and
what users had before, while and after something was away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmsim import api
from cmsim.errors import InputError, Problem
from cmsim.hardware import System
from cmsim.kinds.collective import CollectiveSpec
from cmsim.kinds.failing import ServiceFailureSpec, ServiceFailuresSpec
from cmsim.kinds.serving import SloSpec
from cmsim.results import Result
from cmsim.scenario import FaultSpec, Run
from cmsim.serving import measure
from cmsim.serving.book import DONE, Book
from cmsim.serving.costs import Told
from cmsim.serving.outages import Outage
from cmsim.serving.plans import PoolMachine, Posed
from cmsim.serving.pools import Pool
from cmsim.serving.scaling import load_s
from cmsim.units import PS_PER_S, to_ps
from cmsim.workload.generate import least

#: bytes of the exchange that tells what a fault leaves of ports
_EXCHANGED_B = 1e8
#: when requests came, as metrics call it
WHEN = ("before", "during", "after")


def planned(run: Run, part: Posed, system: System, base: Path | None) -> tuple[tuple[Pool, ...], tuple[Outage, ...]]:
    """Pools whose steps know the faults that come, and the failures of a service. Raises InputError for a part, a
    replica or a rack that is none."""
    pools = tuple(one.pool for one in part.machines)
    spec = part.spec.failures
    if spec is None:
        return pools, ()
    faults = {one.fault for one in spec.events if one.fault}
    if len(faults) > 1:
        raise InputError(Problem(f"got {', '.join(sorted(faults))}. Allowed: one part.", key="failures.events.fault"))
    links = 1.0
    for fault in faults:
        pools = tuple(_faulty(one, fault, part, number) for number, one in enumerate(part.machines))
        over = part.spec.cache_moves.over if len(pools) > 1 else ""
        if over == "scale_up" or (part.spec.cache_pool is not None and part.spec.cache_pool.over == "scale_up"):
            links = _of_links(run, part.machines[-1], fault, base)
    return pools, tuple(_outage(one, spec, part, system, links) for one in spec.events)


def _faulty(one: PoolMachine, fault: str, part: Posed, number: int) -> Pool:
    """A pool whose steps are as much longer under a fault as its fullest ones are."""
    limits, asked = one.pool.limits, part.asked
    prompt = max(round(min(float(asked.prompt.mean()), limits.step_tokens)), 1)
    context = max(round(float(asked.prompt.mean() + asked.output.mean() / 2)), 1)
    sequences = max(min(limits.sequences, limits.blocks * limits.block_tokens // context), 1)
    two = len(part.machines) > 1
    decode = one.costs.slowdown(fault, sequences, context, decodes=True) if number or not two else 1.0
    prefill = one.costs.slowdown(fault, 1, prompt, decodes=False) if not number else 1.0
    assert isinstance(one.pool.costs, Told)
    return replace(one.pool, costs=one.pool.costs.faulty(decode, prefill))


def _of_links(run: Run, one: PoolMachine, fault: str, base: Path | None) -> float:
    """How much longer an exchange of all with all takes. [1]"""
    spec = CollectiveSpec(kind="collective", collective="all_to_all", message_bytes=_EXCHANGED_B)
    entry = run.system.model_copy(update={"accelerators": one.system.packages})
    asked = replace(
        run,
        spec=spec,
        system=entry,
        open=(),
        chosen={},
        record="summary",
        network="flow",
        faults=(FaultSpec(part=fault),),
    )
    found = api.evaluate(asked, api.Machines(base))
    if not isinstance(found, Result):
        raise found.error()
    return max(float(found.metrics["fault_slowdown"]), 1.0)


def _outage(one: ServiceFailureSpec, spec: ServiceFailuresSpec, part: Posed, system: System, links: float) -> Outage:
    at_ps, back_s = int(to_ps(one.at_s)), one.at_s + one.repair_s
    if one.fault is not None:
        return Outage(at_ps, int(to_ps(back_s)), one.fault, links=links)
    hit = _hit(one, part, system)
    loads = [_load_s(spec, part, part.machines[pool], alone=one.takes == "rank") for pool, _ in hit]
    # of a site's storage all that load at once have a share
    takes_s = sum(loads) if spec.weights_from == "storage" else max(loads)
    back_s += takes_s + (spec.start_s or 0.0)
    names = ("",) if len(part.machines) == 1 else ("prefill ", "decode ")
    name = f"rack {one.number}" if one.takes == "rack" else f"{names[hit[0][0]]}{one.takes} of replica {one.number}"
    return Outage(at_ps, int(to_ps(back_s)), name.replace("replica of ", ""), replicas=tuple(hit))


def _hit(one: ServiceFailureSpec, part: Posed, system: System) -> list[tuple[int, int]]:
    """(pool, replica) of each that is lost."""
    if one.takes != "rack":
        pool = len(part.machines) - 1 if one.pool == "decode" else 0
        there = part.machines[pool].pool.replicas
        if one.number >= there:
            message = f"got {one.number}. Allowed: 0 to {there - 1}, replicas of the pool."
            raise InputError(Problem(message, key="failures.events.number"))
        return [(pool, one.number)]
    spec = system.spec
    per_rack = round(spec.accelerators / (spec.compute_racks or spec.racks))
    first, last = one.number * per_rack, (one.number + 1) * per_rack
    found = [
        (pool, number)
        for pool, its in enumerate(part.machines)
        if its.machine is system or its.machine.name == system.name
        for number in range(its.pool.replicas)
        if its.first + number * its.each < last and its.first + (number + 1) * its.each > first
    ]
    if not found:
        message = f"got rack {one.number}, packages {first} to {last - 1}: no replica has any of them."
        raise InputError(Problem(message, key="failures.events.number"))
    return found


def _load_s(spec: ServiceFailuresSpec, part: Posed, one: PoolMachine, *, alone: bool) -> float:
    """Until weights are back, of a replica, or of one of its packages alone. [s]"""
    precision = (part.spec.prefill if one is part.machines[0] else part.spec.decode) or part.spec
    weights_B = least.held_B(part.model, precision.precision or part.spec.precision)
    packages = one.each
    return load_s(weights_B / (packages if alone else 1), spec, one.machine, 1 if alone else packages)


def told(book: Book, plan: Sequence[Outage], slo: SloSpec | None, end_s: float) -> dict[str, float]:
    """Of requests that came before anything failed, while something was away, and afterwards: 99th percentiles of both
    times, and how many a second had what is promised (were served, where nothing is)."""
    since_s, until_s = min(one.at_ps for one in plan) / PS_PER_S, max(one.back_ps for one in plan) / PS_PER_S
    arrival = book.column("arrival") / PS_PER_S
    last_s = float(arrival.max())
    edges = (0.0, min(since_s, last_s), min(until_s, last_s), last_s)
    done = book.column("outcome") == DONE
    times = measure.Times.of(book)
    kept = np.ones(len(times.ttft), bool) if slo is None else times.within(slo)
    came = arrival[done]
    out: dict[str, float] = {"away_s": min(until_s, end_s) - min(since_s, end_s)}
    for name, begin, end in zip(WHEN, edges[:-1], edges[1:], strict=True):
        within = (came >= begin) & ((came < end) | (end == last_s))
        if end <= begin:
            continue
        out[f"kept_{name}_requests_per_s"] = float((kept & within).sum()) / (end - begin)
        for what, values in (("ttft", times.ttft), ("tpot", times.tpot)):
            some = values[within & ~np.isnan(values)]
            if len(some):
                out[f"{what}_{name}_s_p99"] = float(np.quantile(some, 0.99))
    return out


def in_words(metrics: dict[str, float], plan: Sequence[Outage], retried: int, lost: int, recomputed: int) -> str:
    """What failures did, in a sentence."""
    names = ", ".join(f"{one.name} at {one.at_ps / PS_PER_S:g} s" for one in plan)

    if not metrics["away_s"]:
        return f"nothing fails: {names} comes when everybody has gone"
    parts = [f"failures ({names}; all is back {metrics['away_s']:.3g} s after the first)"]
    for what, key, times in (
        ("requests a second that had what was promised, by when they came", "kept_{}_requests_per_s", 1.0),
        ("99th percentile to the first token in s", "ttft_{}_s_p99", 1.0),
        ("of a token in ms", "tpot_{}_s_p99", 1e3),
    ):
        # when nobody came there is no number
        told = [f"{name} {metrics[at] * times:.3g}" for name in WHEN if (at := key.format(name)) in metrics]
        if told:
            parts.append(f"{what}: {', '.join(told)}")
    if recomputed:
        parts.append(f"{retried:,} requests were tried again, {recomputed:,} tokens computed anew")
    if lost:
        parts.append(f"{lost:,} requests were lost")
    return "; ".join(parts)


__all__ = ["WHEN", "in_words", "planned", "told"]
