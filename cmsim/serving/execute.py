"""A run of a service: its pools, what it is asked, what it did, and what that says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cmsim import cost, energy, results
from cmsim.errors import InfeasibleError
from cmsim.hardware import System
from cmsim.kinds import Executed
from cmsim.kinds.serving import ServingFacts, ServingSpec
from cmsim.scenario import Run
from cmsim.serving import capacity, draw, measure, plans, sensitivity
from cmsim.serving.goodput import goodput, none
from cmsim.serving.pools import Moves, Pool
from cmsim.serving.questions import Questions
from cmsim.serving.service import Rules, Served, Service
from cmsim.units import PS_PER_S, to_ps

#: the least of a utilisation at which users are told what near saturation means; arrivals over how many stays of a
#: request make a run that is not short
_NEAR, _SPANS = 0.85, 10


def execute(
    run: Run, system: System, *, base: Path | None, progress: Callable[[float], None] | None = None
) -> Executed:
    """Serves what a scenario asks. Raises InfeasibleError where no request fits, InputError for what is wrong in it."""
    spec = run.spec
    assert isinstance(spec, ServingSpec)
    asked = draw.asked(spec, seed=run.seed, base=base)
    machines = plans.machines(run, spec, system, base)
    rules = Rules(
        routing=spec.routing,
        patience_ps=None if spec.patience_s is None else int(to_ps(spec.patience_s)),
        door_ps=int(to_ps(system.stack.serving.arrival_us / 1e6)),
        token_ps=int(to_ps(system.stack.serving.token_us / 1e6)),
    )
    one = _Of(spec, asked, tuple(machines), rules, plans.moves(spec, machines, base))
    if not one.capacity:
        raise InfeasibleError(
            f"{run.key}: none of the {len(asked):,} requests fits the context or the cache of a holder"
        )
    served = one.serve(asked)
    if progress is not None:
        progress(1.0 if not spec.goodput else 0.2)
    found = _Found(one, served, system)
    metrics = found.metrics()
    unkept: list[str] = []
    if spec.goodput:
        metrics["goodput_requests_per_s"] = goodput(one.serve, asked, spec, found.capacity)
        unkept += [none(spec, found.capacity)] if not metrics["goodput_requests_per_s"] else []
    if spec.sensitivity and found.stable != "no":
        metrics |= one.sensitivity()
    error = found.steps_error()
    for machine in machines:
        machine.costs.save()
    last = machines[-1]
    return Executed(
        metrics=metrics,
        frames={"requests": measure.frame(served.book), "load": found.load.columns} if run.record == "full" else {},
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
        notes=(*unkept, *found.notes(error), *asked.notes),
    )


class _Of:
    """A service as a scenario has it, to be asked again and again."""

    def __init__(
        self,
        spec: ServingSpec,
        asked: Questions,
        machines: tuple[plans.PoolMachine, ...],
        rules: Rules,
        moves: Moves | None,
    ):
        self.spec, self.asked, self.machines, self._rules, self._moves = spec, asked, machines, rules, moves
        self.pools = tuple(machine.pool for machine in machines)
        self.capacity = capacity.requests_per_s(self.pools, asked)

    def serve(self, asked: Questions) -> Served:
        """One run; its own checks hold."""
        return self._served(asked, self.pools, self._rules)

    def sensitivity(self) -> dict[str, float]:
        """How much the wait for a first token hangs on cache and host."""
        return sensitivity.of_ttft(
            lambda pools, rules: self._served(self.asked, pools, rules), self.pools, self._rules, self.spec.warm_up
        )

    def _served(self, asked: Questions, pools: tuple[Pool, ...], rules: Rules) -> Served:
        served = Service(asked, pools, rules, self._moves).run()
        measure.check(served)
        return served


class _Found:
    """What one run says."""

    def __init__(self, one: _Of, served: Served, system: System):
        self.one, self.served, self.system = one, served, system
        self.replicas = [replica for pool in served.pools for replica in pool]
        self.end_s = max(served.end_ps, 1) / PS_PER_S
        self.counts = measure.counts(served.book)
        # what was found in a cache need not be computed, and that much more can be served
        cached = served.book.column("cached")
        self.capacity = capacity.requests_per_s(one.pools, one.asked, cached) if cached.any() else one.capacity
        self.load = measure.Load.of(served.book, served.end_ps)
        self.growth, grows = measure.growth(served.book)
        rate = one.asked.rate_per_s or self.counts["done"] / self.end_s
        self.utilization = rate / self.capacity
        closed = one.asked.arrival_ps is None
        self.stable = "closed" if closed else "no" if self.utilization >= 1 or grows else "yes"

    def metrics(self) -> dict[str, float | str]:
        """As the kind declares them. Who waits how long is told of a stable service alone."""
        book, spec, counts = self.served.book, self.one.spec, self.counts
        accelerators = sum(machine.accelerators for machine in self.one.machines)
        output_per_s = counts["output"] / self.end_s
        out: dict[str, float | str] = {
            "requests_per_s": counts["done"] / self.end_s,
            "output_tokens_per_s": output_per_s,
            "output_tokens_per_s_per_accelerator": output_per_s / accelerators,
            "total_tokens_per_s": (counts["prompt"] + counts["output"]) / self.end_s,
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
            "cache_peak_fraction": float(np.max(load["cached_tokens"])) / room if room else 0.0,
            "requests_done": float(counts["done"]),
            "requests_timed_out": float(counts["timed_out"]),
            "requests_refused": float(counts["refused"]),
            "preemptions": float(sum(replica.record.preemptions for replica in self.replicas)),
            "makespan_s": self.end_s,
        }
        caches = [one.prefixes for replica in self.replicas for one in replica.holders if one.prefixes is not None]
        if asked := sum(one.asked for one in caches):
            out["prefix_hit_fraction"] = sum(one.hit for one in caches) / asked
        return {**out, **self._energy(output_per_s)}

    def _span_s(self) -> float:
        """From the first arrival to the last. [s]"""
        arrival = self.served.book.column("arrival")
        return float(arrival.max() - arrival.min()) / PS_PER_S

    def room_tokens(self) -> float:
        """Tokens that all caches hold."""
        return float(sum(one.cache_tokens * one.pool.holders * one.pool.replicas for one in self.one.machines))

    def _energy(self, output_per_s: float) -> dict[str, float | str]:
        """Energy of all pools, with its band; money and carbon where the system has them."""
        used = replace(self.system, packages=sum(machine.accelerators for machine in self.one.machines))
        waits_J = np.array(plans.idle_W(used)) * self.end_s
        low, middle, high = (waits_J + measure.joules(self.replicas)).tolist()
        power: dict[str, float] = {"energy_J": middle, "power_avg_W": middle / self.end_s}
        if high > low:
            power |= {"energy_J_low": low, "energy_J_high": high}
            power |= {"power_avg_W_low": low / self.end_s, "power_avg_W_high": high / self.end_s}
        of_kWh = self.system.spec.facility.carbon_g_per_kWh
        if of_kWh is not None:
            power["carbon_g"] = energy.carbon_g(middle, of_kWh)
        power |= cost.rent(used)[0]
        out: dict[str, float | str] = {}
        if done := self.counts["done"]:
            out |= {
                name.replace("energy_J", "energy_per_request_J"): joules / done
                for name, joules in power.items()
                if name.startswith("energy_J")
            }
            out |= results.per_token(output_per_s, power)
        return {**out, **power}

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
        if self.stable != "closed" and span_s < _SPANS * stays_s:
            said.append(
                f"a short run: requests come for {span_s:.3g} s and stay {stays_s:.3g} s each; throughput and load "
                "have its beginning and its end in them"
            )
        for what, why in (("timed_out", "were given up"), ("refused", "are longer than the context or the cache")):
            if many := self.counts[what]:
                said.append(f"{many:,} of {len(self.one.asked):,} requests {why}")
        if error is not None:
            points = sum(machine.costs.points for machine in self.one.machines)
            said.append(
                f"steps are told between {points} points that are played: at what was most of the run they miss by "
                f"{error:.1%}"
            )
        if (holders := max(machine.pool.holders for machine in self.one.machines)) > 1:
            said.append(
                f"the {holders} holders of a replica step together, each priced as the fullest: where few of them "
                "have something to do steps are too long"
            )
        serving = self.system.stack.serving
        if not serving.step_us:
            said.append(f"no host time of steps: the stack {self.system.stack.name} has no serving.step_us")
        return said


def _plan(machines: list[plans.PoolMachine]) -> dict[str, Any]:
    """Sizes of each pool, under its name where there are two."""
    out: dict[str, Any] = {}
    for before, machine in zip([""] if len(machines) == 1 else ["prefill_", "decode_"], machines, strict=True):
        sizes = {
            "replicas": machine.pool.replicas,
            "accelerators_each": machine.system.packages,
            "holders_each": machine.pool.holders,
            "ranks_per_holder": machine.ranks,
            "cache_tokens": machine.cache_tokens,
            "step_tokens": machine.pool.limits.step_tokens,
            "sequences": machine.pool.limits.sequences,
        }
        out |= {before + name: size for name, size in sizes.items()}
    return out
