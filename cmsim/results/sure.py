"""How sure the figures of results are: intervals, who is better how surely, and what it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cmsim import uncertainty
from cmsim.arrays import Floats
from cmsim.errors import InputError
from cmsim.results.result import PER, Result, rate_name
from cmsim.uncertainty import Ledger

#: metrics that every interval table has, beside those of the kind's headline
_ALWAYS = ("power_avg_W", "energy_per_token_J", "energy_per_sample_J", "cost_per_hour_USD", "carbon_g")
_PER_MILLION = ("cost_per_Mtoken_USD", "carbon_per_Mtoken_g", "cost_per_Msample_USD", "carbon_per_Msample_g")
_RUN = ("cost_per_training_run_USD",)


class Weight(NamedTuple):
    """An assumption or an error of the model, and what its ends make of a metric.

    low, high  the metric with it at the low and at the high end; of an error at one standard deviation
    share      of the variance of the metric's logarithm [1]
    """

    name: str
    range: str
    low: float
    high: float
    share: float


def ledger_of(result: Result) -> Ledger | None:
    """What a result's figures stand on; None where its scenario did not ask."""
    return uncertainty.of_data(result.uncertainty) if result.uncertainty else None


def names_of(result: Result) -> list[str]:
    """Metrics of a result that intervals are told of: its headline, power, energy, money and carbon."""
    wanted = dict.fromkeys((*result.declared.table, *result.declared.headline, *_ALWAYS, *_PER_MILLION, *_RUN))
    return [name for name in wanted if isinstance(result.metrics.get(name), int | float)]


def rows(results: Iterable[Result]) -> list[dict[str, Any]]:
    """A row per metric of every result that has a ledger: run, metric, value, low, median, high, in the metric's unit.

    low and high are the 5th and the 95th percentile of the draws.
    """
    out = []
    for result in results:
        ledger = ledger_of(result)
        if ledger is None:
            continue
        numbers = _numbers(result)
        found = uncertainty.intervals(ledger, numbers, names_of(result))
        out += [{"run": result.run, "metric": name, "value": numbers[name], **ends} for name, ends in found.items()]
    return out


def interval(result: Result, metric: str) -> tuple[float, float] | None:
    """5th and 95th percentile of a metric; None where its scenario did not ask, or the run does not have it."""
    ledger = ledger_of(result)
    if ledger is None or metric not in _numbers(result):
        return None
    found = uncertainty.intervals(ledger, _numbers(result), [metric])[metric]
    return found["low"], found["high"]


def rate_draws(result: Result, what: str) -> Floats:
    """Draws of the throughput a run is judged by, over one of ``PER``, where dollars are those of an hour, or over
    nothing ("").

    Raises InputError for what is not known of the run, or where its scenario did not ask for draws.
    """
    ledger = ledger_of(result)
    if ledger is None:
        raise InputError(f"{result.run} has no intervals: ask for them with `uncertainty:`")
    name = rate_name(result)
    name, power = ("makespan_s", -1.0) if name not in result.metrics else (name, 1.0)
    extra = {"megawatt": "power_avg_W", "million_dollars": "cost_per_hour_USD"}.get(what)
    wanted = [name, *([extra] if extra else [])]
    missing = [one for one in wanted if one not in _numbers(result)]
    if missing or what not in ("", *PER):
        raise InputError(f"{result.run} has no draws per {what or 'machine'}")
    draws = uncertainty.sampled(ledger, _numbers(result), wanted)
    rate = draws[name] ** power
    if extra:
        return rate / draws[extra] * (1e6 if what == "megawatt" else 1.0)
    count = {"accelerator": float(result.accelerators), "rack": result.machine.racks}.get(what, 1.0)
    if count is None:
        raise InputError(f"{result.run} has no draws per {what}")
    return rate / count


#: what a filled hall gives: name -> metric that is in proportion to how many machines there are
FILLED = {
    "tokens_per_s": "tokens_per_s",
    "output_tokens_per_s": "output_tokens_per_s",
    "samples_per_s": "samples_per_s",
    "cost_per_hour_USD": "cost_per_hour_USD",
}


def filled(result: Result, megawatts: float) -> dict[str, tuple[float, float, float]]:
    """What machines give that are filled to a power of the facility: name -> (value, low, high).

    machines as the run has one, and their accelerators [1]; what of ``FILLED`` the run has; carbon_per_hour_g, in
    proportion to energy. low and high are the 5th and the 95th percentile of draws, the value itself without. There are
    as many machines as the average power of one allows, parts of one too: runs are alike, and share nothing.
    """
    numbers = _numbers(result)
    names = ["power_avg_W", *(name for name in FILLED if name in numbers)]
    names += ["carbon_g", "makespan_s"] if "carbon_g" in numbers else []
    ledger = ledger_of(result)
    draws = {name: np.array([numbers[name]]) for name in names}
    if ledger is not None:
        drawn = uncertainty.sampled(ledger, numbers, names)
        draws = {name: np.concatenate([draws[name], drawn[name]]) for name in names}
    machines = megawatts * 1e6 / draws["power_avg_W"]
    out = {"machines": machines, "accelerators": machines * result.accelerators}
    out |= {name: machines * draws[name] for name in FILLED if name in draws}
    if "carbon_g" in draws:
        out["carbon_per_hour_g"] = machines * draws["carbon_g"] / draws["makespan_s"] * 3600
    return {name: (float(values[0]), *_ends(values)) for name, values in out.items()}


def _ends(values: Floats) -> tuple[float, float]:
    if len(values) == 1:
        return float(values[0]), float(values[0])
    low, high = np.quantile(values[1:], (0.05, 0.95))
    return float(low), float(high)


def weights(result: Result, metric: str) -> list[Weight]:
    """What a metric depends on, the heaviest first. Raises InputError for a run without a ledger or the metric."""
    ledger = ledger_of(result)
    if ledger is None:
        raise InputError(f"{result.run} has no intervals: ask for them with `uncertainty: {{}}` in its scenario")
    value = result.metric(metric)
    found: list[tuple[str, str, float, float, float]] = []
    for one in ledger.assumptions:
        low, high = one.effects.get(metric, (0.0, 0.0))
        # of a number even on either side of the value: half of the draws have each slope
        variance = (low * low + high * high) / 6 - ((low + high) / 4) ** 2
        found.append((one.name, f"{one.low:g} to {one.high:g}", low, high, variance))
    for error in ledger.errors:
        spread = error.powers.get(metric, 0.0) * error.sigma
        found.append((f"error of the model, {error.area}", "one sigma", -spread, spread, spread * spread))
    whole = sum(variance for *_, variance in found)
    kept = [
        Weight(name, said, value * float(np.exp(low)), value * float(np.exp(high)), variance / whole)
        for name, said, low, high, variance in found
        if variance > 0
    ]
    return sorted(kept, key=lambda one: -one.share)


def chances(pairs: Sequence[tuple[Result, Result]], what: str) -> list[float]:
    """Probability that the first of each pair gives more than the second, per something. Raises InputError as
    `rate_draws`, and per dollar where one of them has a bill and the other a rent."""
    found = []
    for one, other in pairs:
        if what == "million_dollars" and (one.machine.utilisation is None) != (other.machine.utilisation is None):
            raise InputError(f"{one.run} and {other.run} have a bill and a rent: no dollars of one kind")
        first, second = rate_draws(one, what), rate_draws(other, what)
        most = min(len(first), len(second))  # fewer draws are the first of more
        found.append(uncertainty.beats(first[:most], second[:most]))
    return found


def _numbers(result: Result) -> dict[str, float]:
    return {name: value for name, value in result.metrics.items() if not isinstance(value, str)}
