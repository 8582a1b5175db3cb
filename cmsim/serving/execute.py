"""A run of a service: its pools, what it is asked, what it did, and what that says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cmsim import energy
from cmsim.arrays import Floats
from cmsim.errors import InfeasibleError
from cmsim.hardware import ServingTuning, System
from cmsim.kinds import Executed
from cmsim.kinds.serving import ServingFacts, ServingSpec
from cmsim.scenario import Run
from cmsim.serving import askers, breaks, capacity, draw, measure, plans, sensitivity, upkeep
from cmsim.serving.book import NEVER
from cmsim.serving.costs import Told
from cmsim.serving.goodput import goodput, none
from cmsim.serving.least import least_machine
from cmsim.serving.pooled import Pooled
from cmsim.serving.pools import Pool
from cmsim.serving.questions import Questions
from cmsim.serving.service import Rules, Served, Service
from cmsim.serving.transfers import Moves
from cmsim.units import PS_PER_S, to_ps
from cmsim.workload.model import load_model

#: the least of a utilisation at which users are told what near saturation means; arrivals over how many stays of a
#: request make a run that is not short
_NEAR, _SPANS = 0.85, 10
#: requests up to which a run is run again to see what its waits hang on
_TRIED = 1000
#: stretches that power over time is made of, at most
_STEPS = 500_000


def execute(
    run: Run, system: System, *, base: Path | None, progress: Callable[[float], None] | None = None
) -> Executed:
    """Serves what a scenario asks. Raises InfeasibleError where no request fits, InputError for what is wrong in it."""
    spec = run.spec
    assert isinstance(spec, ServingSpec)
    one = prepared(run, system, base=base)
    asked, machines = one.asked, one.machines
    for each in (one, *one.beside):
        if not each.capacity:
            raise InfeasibleError(
                f"{run.key}: none of the {len(each.asked):,} requests fits the context or the cache of a holder"
            )
    kept: float | None = None
    unkept: list[str] = []
    if spec.arrivals.rate_per_s == "most":
        kept, (served, *others) = _at_the_most(run, one, system)
        asked = one.asked
    else:
        served, *others = one.together(asked, one.pools, one.rules)
    found = _Found(one, served, system)
    if progress is not None:
        progress(0.2 if spec.goodput and kept is None else 1.0)
    if spec.goodput and kept is None:
        kept, _ = goodput(one.all_of, asked, spec, found.capacity)
    metrics = found.metrics()
    if kept is not None:
        metrics["goodput_requests_per_s"] = kept
        unkept += [] if kept else [none(spec, found.capacity)]
    tried = len(asked) <= _TRIED and spec.failures is None if spec.sensitivity is None else spec.sensitivity
    if tried and found.stable != "no":
        metrics |= one.sensitivity()
    metrics |= (least := found.least(base))
    moves = found.over_time(run.seed)
    metrics |= {} if moves is None else moves.metrics()
    error = found.steps_error()
    for machine in machines:
        machine.costs.save()
    last = machines[-1]
    return Executed(
        metrics=metrics,
        frames={
            **(_frames(spec, found, [_Found(*both, system) for both in zip(one.beside, others, strict=True)])),
            **({} if moves is None else {"power_curve": moves.columns()}),
        }
        if run.record == "full"
        else {},
        facts=ServingFacts(
            prompt_tokens=float(asked.prompt.mean()),
            output_tokens=float(asked.output.mean()),
            requests=float(len(asked)),
            replicas=float(sum(machine.pool.replicas for machine in machines)),
            holders=float(sum(machine.pool.replicas * machine.pool.holders for machine in machines)),
            cache_tokens=float(last.cache_tokens),
            steps_error=error,
            users=float(asked.users) or None,
        ),
        accelerators=sum(machine.accelerators for machine in machines),
        ranks=sum(machine.pool.replicas * machine.system.ranks for machine in machines),
        limiter="queue" if metrics["stable"] == "no" else "",
        plan=_plan(machines),
        notes=(*unkept, *found.notes(error), *_beside(least, machines), *asked.notes),
    )


def _at_the_most(run: Run, one: Prepared, system: System) -> tuple[float, list[Served]]:
    """The highest rate at which the promise is kept, and what was served at it; from now on that is what is asked."""
    most = one.capacity
    if one.asked.prefix is not None:  # what caches find of prompts is not known before
        most = _Found(one, one.serve(one.asked), system).capacity
    kept, served = goodput(one.all_of, one.asked, one.spec, most)
    if served is None:
        raise InfeasibleError(f"{run.key}: {none(one.spec, most)}")
    one.asked = draw.faster(one.asked, kept / one.asked.rate_per_s)
    return kept, served


def prepared(run: Run, system: System, *, base: Path | None) -> Prepared:
    """A service that has served nobody yet. Raises InfeasibleError where its pools have no plan or no room."""
    spec = run.spec
    assert isinstance(spec, ServingSpec)
    used: dict[int, int] = {}
    parts = [
        _part(run, its, system, base, number, used) for number, (_, its) in enumerate([("", spec), *spec.others()])
    ]
    moves, pooled = plans.links(parts, system)
    one, *beside = [
        Prepared(part, _rules(part.spec, system), its, None if number else pooled)
        for number, (part, its) in enumerate(zip(parts, moves, strict=True))
    ]
    one.pools, outages = breaks.planned(run, parts[0], system, base)
    one.rules = replace(one.rules, outages=outages)
    one.beside = beside
    return one


def _part(
    run: Run, spec: ServingSpec, system: System, base: Path | None, number: int, used: dict[int, int]
) -> plans.Posed:
    """A service of the scenario; others than the first one draw from seeds of their own."""
    asked = askers.asked(spec, seed=run.seed + number, base=base)
    machines = tuple(plans.machines(run, spec, system, base, used))
    return plans.Posed(spec, asked, machines, load_model(spec.model, base=base))


def _rules(spec: ServingSpec, system: System) -> Rules:
    return Rules(
        routing=spec.routing,
        patience_ps=None if spec.patience_s is None else int(to_ps(spec.patience_s)),
        door_ps=int(to_ps(system.stack.serving.arrival_us / 1e6)),
        token_ps=int(to_ps(system.stack.serving.token_us / 1e6)),
        drops=spec.failures is not None and spec.failures.lost == "drop",
    )


class Prepared:
    """A service as a scenario has it, to be asked again and again; those beside it are asked the same each time."""

    def __init__(self, part: plans.Posed, rules: Rules, moves: Moves | None, pooled: Pooled | None):
        self.spec, self.asked, self.machines, self.rules = part.spec, part.asked, part.machines, rules
        self._moves, self._pooled, self.model = moves, pooled, part.model
        self.pools = tuple(machine.pool for machine in part.machines)
        self.capacity = capacity.requests_per_s(self.pools, part.asked)
        self.beside: list[Prepared] = []

    def serve(self, asked: Questions) -> Served:
        """One run; its own checks hold."""
        return self.all_of(asked)[0]

    def all_of(self, asked: Questions) -> list[Served]:
        """One run, and those beside it."""
        return self.together(asked, self.pools, self.rules)

    def served_by(self, engine: ServingTuning) -> Served:
        """The same requests, served by an engine with other constants of its host."""
        pools = []
        for machine in self.machines:
            costs = machine.pool.costs
            assert isinstance(costs, Told)
            drafts = self.spec.speculative if machine is self.machines[-1] else None
            host = plans.host_of(engine, self.model, machine.ranks, drafts)
            pools.append(replace(machine.pool, costs=costs.hosted(host)))
        door_ps, token_ps = (int(to_ps(one / 1e6)) for one in (engine.arrival_us, engine.token_us))
        return self.together(self.asked, tuple(pools), replace(self.rules, door_ps=door_ps, token_ps=token_ps))[0]

    def sensitivity(self) -> dict[str, float]:
        """How much the wait for a first token hangs on cache and host."""
        return sensitivity.of_ttft(
            lambda pools, rules: self.together(self.asked, pools, rules)[0], self.pools, self.rules, self.spec.warm_up
        )

    def together(self, asked: Questions, pools: tuple[Pool, ...], rules: Rules) -> list[Served]:
        """This one and those beside it, on one clock."""
        services = [Service(asked, pools, rules, self._moves, self._pooled)]
        for one in self.beside:
            services.append(Service(one.asked, one.pools, one.rules, one._moves, None, services[-1]))
        for service in services:
            service.begin()
        services[0].env.run()
        out = [service.served() for service in services]
        for served in out:
            measure.check(served)
        return out


def _frames(spec: ServingSpec, found: _Found, others: list[_Found]) -> dict[str, Mapping[str, Any]]:
    """Of a run that keeps them; of several services how each fared."""
    frames: dict[str, Mapping[str, Any]] = {"requests": measure.frame(found.served.book), "load": found.load.columns}
    if others:
        names = ["first", *spec.beside]
        rows = [row for name, each in zip(names, [found, *others], strict=True) for row in each.rows(name)]
        columns = zip(*rows, strict=True)
        frames["models"] = {
            key: np.array(column)
            for key, column in zip(("name", "model", "stable", "metric", "value"), columns, strict=True)
        }
    return frames


class _Found:
    """What one run says."""

    def __init__(self, one: Prepared, served: Served, system: System):
        self.one, self.served, self.system = one, served, system
        self.replicas = [replica for pool in served.pools for replica in pool]
        self.end_s = max(served.end_ps, 1) / PS_PER_S
        self.counts = measure.counts(served.book)
        self.counted = measure.Full.of(served.book, self.end_s, one.spec.warm_up)
        # what was found in a cache need not be computed, and that much more can be served
        self.caches = [its.prefixes for each in self.replicas for its in each.holders if its.prefixes is not None]
        cached = served.book.column("cached")
        self.capacity = one.capacity
        if cached.any():
            others = sum(each.again for each in self.caches) / len(one.asked)
            self.capacity = capacity.requests_per_s(one.pools, one.asked, cached, others)
        twice = np.concatenate([measure.rows(each.twice, 2) for each in self.caches]) if self.caches else None
        self.load = measure.Load.of(served.book, served.end_ps, twice)
        self.systems = upkeep.used(one.machines)
        edges_s = self.load.edges_s
        self.on = upkeep.on_share(one.machines, served.scalers, edges_s)
        waits_W = float(upkeep.idle_W(self.systems)[1]) * self.on
        self.load.columns["accelerators"] = self.on * sum(machine.accelerators for machine in one.machines)
        self.load.columns["power_W"] = upkeep.power_W(self.replicas, waits_W, edges_s)
        self.growth, grows = measure.growth(served.book)
        rate = one.asked.rate_per_s or self.counts["done"] / self.end_s
        self.utilization = rate / self.capacity
        closed = one.asked.arrival_ps is None
        # while something is away queues grow, and that is what is asked
        grows = grows and not one.rules.outages
        self.stable = "closed" if closed else "no" if self.utilization >= 1 or grows else "yes"
        self.fared = breaks.told(served.book, one.rules.outages, one.spec.slo, self.end_s) if one.rules.outages else {}

    def metrics(self) -> dict[str, float | str]:
        """As the kind declares them. Who waits how long is told of a stable service alone."""
        book, spec, counts = self.served.book, self.one.spec, self.counts
        accelerators = sum(machine.accelerators for machine in self.one.machines)
        counted = self.counted
        output_per_s = counted.output / counted.took_s
        out: dict[str, float | str] = {
            "requests_per_s": counted.done / counted.took_s,
            "output_tokens_per_s": output_per_s,
            "output_tokens_per_s_per_accelerator": output_per_s / accelerators,
            "total_tokens_per_s": (counted.prompt + counted.output) / counted.took_s,
        }
        times = measure.Times.of(book, spec.warm_up)
        steady = self.stable != "no"
        out |= measure.percentiles("ttft", times.ttft) if steady else {}
        out |= measure.percentiles("tpot", times.tpot)
        out |= measure.itl(self.served.pools[-1])
        out |= measure.percentiles("e2e", times.e2e) if steady else {}
        if spec.slo is not None and steady:
            out["slo_attainment"] = measure.attainment(book, spec.slo, spec.warm_up)
        load, room = self.load.columns, self.room_tokens()
        out |= {
            "capacity_requests_per_s": self.capacity,
            "utilization": self.utilization,
            "stable": self.stable,
            "queue_growth_per_s": self.growth,
            "in_system_mean": self.served.area_ps / max(self.served.end_ps, 1),
            "waiting_mean": float(np.mean(load["waiting"])),
            # who lost its place still counts as cached in the columns of the load
            "cache_peak_fraction": min(float(np.max(load["cached_tokens"])) / room, 1.0) if room else 0.0,
            "requests_done": float(counts["done"]),
            "requests_timed_out": float(counts["timed_out"]),
            "requests_refused": float(counts["refused"]),
            "requests_cancelled": float(counts["cancelled"]),
            "preemptions": float(sum(replica.record.preemptions for replica in self.replicas)),
            "makespan_s": self.end_s,
        }
        caches = self.caches
        if asked := sum(one.asked for one in caches):
            out["prefix_hit_fraction"] = sum(one.hit for one in caches) / asked
        tiers = self.served.tiers
        if tiers is not None and tiers.asked:
            out["pool_hit_fraction"] = tiers.hit / tiers.asked
            out["pool_drives_fraction"] = tiers.from_drives / tiers.asked
        if caches or tiers is not None:
            begun = book.column("scheduled") != NEVER
            out["cached_tokens_fraction"] = book.column("cached")[begun].sum() / max(
                book.column("prompt")[begun].sum(), 1
            )
        if any(self.served.scalers):
            scaled = [one for one in self.served.scalers if one is not None]
            out["replicas_mean"] = sum(one.mean(self.served.end_ps) for one in scaled)
            out["replicas_started"] = float(sum(one.started for one in scaled))
            loads_ps = [one.pool.scaling.load_ps for one in self.one.machines if one.pool.scaling is not None]
            out["load_time_s"] = max(loads_ps) / PS_PER_S
        if self.fared:
            out |= self.fared
            out["requests_retried"] = float((book.column("tries") > 0).sum())
            out["requests_lost"] = float(counts["lost"])
            out["recomputed_tokens"] = float(self.served.recomputed)
        if self.served.moved_B:
            out["moved_Bps"] = self.served.moved_B / self.end_s
        steps_J = self._steps_J()
        drawn = upkeep.metrics(self.systems, steps_J, counted.took_s, output_per_s, counted.done, float(self.on.mean()))
        return {**out, **drawn, "power_peak_W": float(load["power_W"].max())}

    def over_time(self, seed: int) -> energy.PowerCurve | None:
        """Power over time, where the workload asks for it."""
        how = self.one.spec.power
        if how is None or how.over_time is None:
            return None
        asked = how.over_time
        steps = min(max(int(np.ceil(self.end_s / asked.resolution_s)), 1), _STEPS)
        edges_s = np.linspace(0.0, self.end_s, steps + 1)
        on = upkeep.on_share(self.one.machines, self.served.scalers, edges_s)
        waits_W = float(upkeep.idle_W(self.systems)[1])
        power_W = upkeep.power_W(self.replicas, waits_W * on, edges_s)
        course = energy.Course(edges_s, power_W, waits_W, repeats=False)
        return energy.curve(course, **asked.model_dump(), seed=seed)

    def _steps_J(self) -> Floats:
        """Of steps in the time that counts, over that of machines that wait: the least, the middle, the most. [J]"""
        counted = self.counted
        if (counted.start_s, counted.stop_s) == (0.0, self.end_s):
            return upkeep.joules(self.replicas)
        edges_s = np.array([0.0, counted.start_s, counted.stop_s, self.end_s])
        return np.asarray(upkeep.joules_over(self.replicas, edges_s)[:, 1])

    def least(self, base: Path | None) -> dict[str, float | str]:
        """The perfect machine for this load, of the accelerators of the one machine that it is on."""
        one, spec = self.one, self.one.spec
        if len(self.systems) > 1:
            return {}
        cached = self.served.book.column("cached")
        mix = capacity.Mix.of(one.asked, one.pools[-1], cached)
        times = measure.Times.of(self.served.book, spec.warm_up).tpot
        took_s = float(np.nanmean(times)) if not np.isnan(times).all() else 1.0
        rate = one.asked.rate_per_s or self.counts["done"] / self.end_s
        if not mix.prompt or not rate:
            return {}
        found = least_machine(spec, self.system, one.model, mix, rate, slowest_s=took_s, base=base)
        return {"least_accelerators": float(found.whole), "least_limit": found.name}

    def rows(self, name: str) -> list[tuple[str, str, str, str, float]]:
        """Of the frame of services."""
        one = self.one
        told = {"accelerators": float(sum(machine.accelerators for machine in one.machines)), **self.metrics()}
        return [
            (name, str(one.spec.model), self.stable, key, value)
            for key, value in told.items()
            if isinstance(value, float)
        ]

    def _span_s(self) -> float:
        """From the first arrival to the last. [s]"""
        arrival = self.served.book.column("arrival")
        return float(arrival.max() - arrival.min()) / PS_PER_S

    def room_tokens(self) -> float:
        """Tokens that all caches hold."""
        return float(sum(one.cache_tokens * one.pool.holders * one.pool.replicas for one in self.one.machines))

    def steps_error(self) -> float | None:
        """By how much steps are missed at those that were most of the run. [1]"""
        worst: float | None = None
        for machine, replicas in zip(self.one.machines, self.served.pools, strict=True):
            typical = measure.typical(replicas)
            asked = self.one.asked
            tokens = round(min(float(asked.prompt.mean()), machine.pool.limits.step_tokens))
            length = round(float(asked.prompt.mean()))
            found = machine.costs.error(*typical, tokens, length)
            worst = found if worst is None else max(worst, found)
        return None if worst is None else float(worst)

    def notes(self, error: float | None) -> list[str]:
        """What a reader of the numbers should know."""
        said = []
        rate = self.one.asked.rate_per_s
        if self.stable == "no":
            said.append(
                capacity.in_words(rate, self.capacity)
                if self.utilization >= 1
                else f"unstable: the queue grows by {self.growth:.3g} requests/s, though the plan is told to serve "
                f"{self.capacity:.3g}; times to the first and last token are left out"
            )
        elif self.stable == "yes" and self.utilization > _NEAR:
            said.append(
                f"at {self.utilization:.0%} of what the plan can serve waits grow without bound with the load: "
                "see the ends of their intervals"
            )
        span_s = self._span_s()
        stays_s = self.served.area_ps / max(len(self.one.asked), 1) / PS_PER_S
        if self.stable != "closed" and span_s < _SPANS * stays_s and not self.one.spec.warm_up:
            said.append(
                f"a short run: requests come for {span_s:.3g} s and stay {stays_s:.3g} s each; throughput and load "
                "have its beginning and its end in them"
            )
        if self.one.spec.warm_up:
            said.append(
                f"throughput and energy are of the {self.counted.took_s:.3g} s from the first request that counts "
                f"(`warm_up`) to the last one that comes"
            )
        for what, why in (
            ("timed_out", "were given up"),
            ("cancelled", "were not wanted any more"),
            ("refused", "are longer than the context or the cache"),
        ):
            if many := self.counts[what]:
                said.append(f"{many:,} of {len(self.one.asked):,} requests {why}")
        if self.fared:
            retried = int((self.served.book.column("tries") > 0).sum())
            plan, lost = self.one.rules.outages, self.counts["lost"]
            said.append(breaks.in_words(self.fared, plan, retried, lost, self.served.recomputed))
        if error is not None:
            points = sum(machine.costs.points for machine in self.one.machines)
            said.append(
                f"steps are told between {points} points that are played: at what was most of the run they miss by "
                f"{error:.1%}"
            )
        if (holders := max(machine.pool.holders for machine in self.one.machines)) > 1:
            said.append(
                f"the {holders} holders of a replica step together: attention takes what it takes the fullest, experts "
                "work on what all of them have"
            )
        spec = self.one.spec
        keeps = spec.cache_pool is not None and spec.cache_pool.over == "scale_up"
        if keeps or (spec.prefill is not None and spec.cache_moves.over == "scale_up"):
            said.append(
                "caches move over the fabric that steps use: they have what full steps leave of ports, and slow no step"
            )
        serving = self.system.stack.serving
        if not serving.step_us:
            said.append(f"no host time of steps: the stack {self.system.stack.name} has no serving.step_us")
        return said


def _beside(least: dict[str, float | str], machines: Sequence[plans.PoolMachine]) -> list[str]:
    """What a perfect machine would take."""
    if not least:
        return []
    many, use = least["least_accelerators"], sum(machine.accelerators for machine in machines)
    return [
        f"a perfect machine would serve this load with {many:,.0f} of these accelerators, not {use:,}: it is bound "
        f"by {least['least_limit']}"
    ]


def _plan(machines: Sequence[plans.PoolMachine]) -> dict[str, Any]:
    """Sizes of each pool, under its name where there are two."""
    out: dict[str, Any] = {}
    for before, machine in zip([""] if len(machines) == 1 else ["prefill_", "decode_"], machines, strict=True):
        sizes = {
            "replicas": machine.pool.replicas,
            "accelerators_each": machine.each,
            "holders_each": machine.pool.holders,
            "ranks_per_holder": machine.ranks,
            "cache_tokens": machine.cache_tokens,
            "step_tokens": machine.pool.limits.step_tokens,
            "sequences": machine.pool.limits.sequences,
        }
        out |= {before + name: size for name, size in sizes.items()}
    return out
