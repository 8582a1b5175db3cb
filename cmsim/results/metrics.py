"""Metrics of a run that was played: those of its kind, from facts and a length, and those of every kind."""

from __future__ import annotations

from collections.abc import Mapping

from cmsim import kinds
from cmsim.cost import million_USD
from cmsim.errors import InputError, did_you_mean
from cmsim.kinds import Facts, Measured, Metrics


def per_token(tokens_per_s: float, power: Mapping[str, float], of: str = "token") -> Metrics:
    """Facility energy and, where priced, carbon and money per token (or sample).

    J/token = P_avg / (tokens/s), tokens/J its inverse;  USD per million tokens as of `cmsim.cost`.
    Where power is a band, ``..._low`` and ``..._high`` are the least and the most that each may be.

    >>> per_token(746112, {"power_avg_W": 559e3})["energy_per_token_J"]
    0.7492172756...
    """
    joules = power["power_avg_W"] / tokens_per_s
    out: Metrics = {f"energy_per_{of}_J": joules, f"{of}s_per_J": 1 / joules}
    if "cost_per_hour_USD" in power:
        out[f"cost_per_M{of}_USD"] = million_USD(power["cost_per_hour_USD"], tokens_per_s)
    if "carbon_g" in power:
        out[f"carbon_per_M{of}_g"] = power["carbon_g"] / power["energy_J"] * joules * 1e6
    if "power_avg_W_low" in power:
        out.update(_banded(out, of, power))
    return out


def _banded(out: Metrics, of: str, power: Mapping[str, float]) -> Metrics:
    """Ends of the band of what is in proportion, or in inverse proportion, to power."""
    low, high = (power[f"power_avg_W_{end}"] / power["power_avg_W"] for end in ("low", "high"))
    ends: Metrics = {}
    for name in (f"energy_per_{of}_J", f"carbon_per_M{of}_g"):
        if name in out:
            ends.update({f"{name}_low": float(out[name]) * low, f"{name}_high": float(out[name]) * high})
    per_J = float(out[f"{of}s_per_J"])
    return {**ends, f"{of}s_per_J_low": per_J / high, f"{of}s_per_J_high": per_J / low}


def own(kind: str, run: Measured[Facts]) -> Metrics:
    """What a kind with programs measures of itself. Raises InputError for a kind that is none, or measures itself."""
    execution = kinds.get(kind).execution
    if not isinstance(execution, kinds.PlayedKind):
        raise InputError(f"a {kind} is not measured from facts: it is executed by itself")
    return execution.measure(run)


def of_time(kind: str, facts: Facts, *, makespan_s: float, accelerators: int) -> dict[str, float]:
    """The metrics of a run that are in proportion to its length, or to one over it."""
    found = own(kind, Measured(facts, makespan_s, accelerators))
    declared = kinds.get(kind)
    follows = {
        key: value for key, value in found.items() if not isinstance(value, str) and declared.metric(key).of_time
    }
    return {**follows, "makespan_s": makespan_s}


def decisive(kind: str, found: Mapping[str, float], metric: str | None) -> tuple[str, float]:
    """(name, value) of the metric that decides between plans: the named one, else the first of its kind.

    Raises InputError where the run has none of that name.
    """
    usual = kinds.get(kind).decisive
    name = metric or next((name for name in usual if name in found), usual[0])
    if name not in found:
        raise InputError(f"the run has no metric '{name}' to choose by. {did_you_mean(name, found)}")
    return name, found[name]


def follows_time(kind: str, metric: str | None) -> bool:
    """Whether the metric that decides follows from the length of a run alone, without its power or its breakdown."""
    declared = kinds.get(kind)
    return all(declared.metric(name).of_time for name in ((metric,) if metric else declared.decisive))


def metrics(
    kind: str,
    facts: Facts,
    *,
    makespan_s: float,
    accelerators: int,
    exposed_comm_s: float = 0.0,
    bubble_s: float = 0.0,
    memory_peak_B: float | None = None,
    algorithm: str = "",
    power: Mapping[str, float] | None = None,
    bounds_s: Mapping[str, float] | None = None,
    fault_slowdown: float | None = None,
) -> Metrics:
    """All metrics of a run that was played, in the order in which people read them.

    exposed_comm_s, bubble_s: from the breakdown [s]    memory_peak_B: of the fullest rank [B]
    algorithm: of a collective    power: power metrics of the run    bounds_s: of a collective,
    egress, ingress, bisection and latency, each for itself [s]
    fault_slowdown: time over that without faults [1]

    Raises InputError for a kind without metrics.
    """
    its = own(kind, Measured(facts, makespan_s, accelerators, bubble_s))
    out: Metrics = {**its, "makespan_s": makespan_s, "exposed_comm_s": exposed_comm_s}
    if algorithm:
        out["algorithm"] = algorithm
    if bounds_s:
        out.update({f"bound_{name}_s": value for name, value in bounds_s.items()})
        out["bound_ratio"] = float(its[kinds.get(kind).speed]) / max(bounds_s.values())
    if fault_slowdown is not None:
        out["fault_slowdown"] = fault_slowdown
    if memory_peak_B is not None:
        out["memory_peak_B"] = memory_peak_B
    if power is not None:
        if "tokens_per_s" in its:
            out.update(per_token(float(its["tokens_per_s"]), power))
        for of in ("sample", "image"):
            if f"{of}s_per_s" in its:
                out.update(per_token(float(its[f"{of}s_per_s"]), power, of))
        out.update(power)
    return out
