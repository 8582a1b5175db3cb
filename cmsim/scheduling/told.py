"""What a run of jobs comes to, in sentences. Each is computed; what a run does not have is not spoken of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from cmsim.errors import WARNING
from cmsim.numbers import quantity
from cmsim.scheduling.asked import DAY_S, HOUR_S
from cmsim.scheduling.measure import Measures

#: shares under which a loss is not worth a sentence, and from which on teams wait differently
_WORTH, _APART = 0.001, 1.5


def sentences(of: Measures, metrics: Mapping[str, float | str]) -> list[str]:
    """The verdict, what was left out first."""
    m = {name: float(value) for name, value in metrics.items() if not isinstance(value, str)}
    return [*_left_out(of, m), *_jobs(m), *_use(of, m), *_losses(m), *_teams(of), *_budget(of, m)]


def span(seconds: float) -> str:
    """A time as people say it.

    >>> span(0.0), span(75.0), span(5400.0), span(200000.0)
    ('0 s', '75 s', '1.5 h', '2.31 days')
    """
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < HOUR_S:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / HOUR_S:.3g} h" if seconds < DAY_S else f"{seconds / DAY_S:.3g} days"


def _left_out(of: Measures, m: Mapping[str, float]) -> Iterator[str]:
    if not len(of.given) and not of.services:
        yield f"{WARNING}no job comes: all figures are of machines that wait"
    for why in ("too large", "over its quota", "over the power budget"):
        many = int((of.refused == why).sum())
        if many:
            said = {
                "too large": "can run on no machine: too large for each that they may run on, or without a plan there",
                "over its quota": "ask for more than the quota of their team",
                "over the power budget": "would alone exceed the power budget",
            }[why]
            yield f"{WARNING}{many:,} of {len(of.given):,} jobs {said}; they are in no other figure"
    if m["jobs_left"]:
        why = "when the clock is stopped" if of.spec.days is not None else "though nothing more is to come"
        yield f"{WARNING}{m['jobs_left']:,.0f} jobs wait or run {why}; times are of the others"


def _jobs(m: Mapping[str, float]) -> Iterator[str]:
    if "wait_s_p50" in m:
        yield (
            f"{m['jobs_done']:,.0f} jobs end within {span(m['makespan_s'])}: half wait {span(m['wait_s_p50'])} or "
            f"less, one in a hundred more than {span(m['wait_s_p99'])}; in the mean they take "
            f"{m['slowdown_mean']:.3g} times as long as alone"
        )


def _use(of: Measures, m: Mapping[str, float]) -> Iterator[str]:
    said = (
        f"{m['utilization']:.1%} of the accelerators' time is taken, {m['useful_fraction']:.1%} is work that was kept"
    )
    if m["service_fraction"]:
        said += f" and {m['service_fraction']:.1%} services"
    if len(of.houses) > 1:
        shares = of.by_machine(of.attempts.busy) / (of.packages * max(of.lived.until, 1))
        said += "; of " + ", ".join(f"{one.name} {share:.1%}" for one, share in zip(of.houses, shares, strict=True))
    yield said
    if "service_met_fraction" in m and m["service_met_fraction"] < 1 - _WORTH:
        yield f"services get {m['service_met_fraction']:.1%} of what they ask for"


def _losses(m: Mapping[str, float]) -> Iterator[str]:
    names = {"lost_failures_fraction": "failures", "lost_preemption_fraction": "preemption", "down_fraction": "repair"}
    worth = [f"{what} {m[name]:.1%}" for name, what in names.items() if m[name] >= _WORTH]
    if worth:
        yield f"of the accelerators' time is lost to {', to '.join(worth)}"
    if m["slow_fraction"] >= _WORTH:
        yield (
            f"{m['across_fraction']:.1%} of jobs' time is over several domains, where they are slower: "
            f"{m['slow_fraction']:.1%} of their time goes into that"
        )


def _teams(of: Measures) -> Iterator[str]:
    """Who waits longest and shortest, where that differs."""
    team, waits, done = of.state.book.jobs.team, of.waits_s(), of.end >= 0
    means = {
        name: float(waits[mine].mean())
        for number, name in enumerate(of.spec.teams)
        if (mine := done & (team == number)).any()
    }
    if len(means) < 2:
        return
    most, least = max(means, key=lambda name: means[name]), min(means, key=lambda name: means[name])
    if means[most] > _APART * means[least] and means[most] > 1:
        yield f"{most} waits {span(means[most])} in the mean, {least} {span(means[least])}"


def _budget(of: Measures, m: Mapping[str, float]) -> Iterator[str]:
    if of.spec.power_budget_W is None:
        return
    peak, budget = (quantity("power_W", watts) for watts in (m["power_peak_W"], of.spec.power_budget_W))
    waits = np.sum([house.idle_W[1] for house in of.houses])
    yield f"the hall draws up to {peak} of its budget of {budget}, {quantity('power_W', float(waits))} of it waiting"
