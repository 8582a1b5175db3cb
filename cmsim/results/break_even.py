"""Where two machines cost the same per token: in the price of electricity, the hours of use, the price of one of them.

A bill is linear in each of the three: some parts go with the price of the machine, one with electricity, and all but
that one with one over the hours of use. Bands along one of the three leave its own range out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cmsim import uncertainty
from cmsim.arrays import Floats
from cmsim.cost import OF_ELECTRICITY, OF_PRICE, PARTS
from cmsim.errors import InputError
from cmsim.results.naming import named
from cmsim.results.result import Result
from cmsim.results.sure import ledger_of

#: what a million is of
_OF = ("token", "sample")
_LEAST_USE, _MOST_USE = 0.1, 1.0
_NINE_OF_TEN = (0.05, 0.95)
#: assumptions that an axis varies, by how their keys begin
_VARIED = {
    "electricity": ("electricity_per_kWh",),
    "utilisation": ("utilisation",),
    "price": (
        *("accelerator", "socket", "switch_chip", "module", "nic", "scale_out_switch", "rack"),
        "facility.price_per_accelerator_USD",
    ),
}


@dataclass(frozen=True)
class BreakEven:
    """Two machines of one workload, each at its cheapest run: the first is asked about, ``of`` is what is made."""

    first: Result
    second: Result
    of: str

    def cost_now(self, result: Result) -> float:
        """A million of what is made. [USD]"""
        return result.metric(self._metric)

    def now(self, result: Result, along: str) -> float:
        """Where a machine stands: USD/kWh, share of hours [1], or USD an accelerator of the first."""
        if along == "utilisation":
            assert result.machine.utilisation is not None
            return result.machine.utilisation
        if along == "electricity":
            return self._kWh_USD(result)
        return self._each_USD(self.first)

    def cost(self, result: Result, along: str, x: Any) -> Any:
        """A million of what is made, at other values of one of the three; all else as it is. [USD]"""
        whole = result.metric("cost_per_hour_USD")
        electricity = self._part(result, OF_ELECTRICITY)
        if along == "electricity":
            hour = whole - electricity + electricity * x / self._kWh_USD(result)
        elif along == "utilisation":
            used = self.now(result, along)
            worked = result.metric("power_avg_W") / 1e3 * self._kWh_USD(result)
            # what idle hours draw, an hour of work with as many as it has idle ones beside it
            idle = (electricity - worked) * used / (1 - used) if used < 1 else 0.0
            hour = worked + idle * (1 / x - 1) + (whole - electricity) * used / x
        elif result is self.first:
            price = self._part(result, OF_PRICE)
            hour = whole - price + price * x / self._each_USD(result)
        else:
            hour = whole + 0 * x
        return self.cost_now(result) * hour / whole

    def at(self, along: str) -> float | None:
        """Where both cost the same; None where they never do."""
        # linear in x, but in one over x of use
        low, high = (1.0, 2.0)
        if along == "utilisation":
            low, high = 1.0, 0.5

        def apart(x: float) -> float:
            return float(self.cost(self.first, along, x) - self.cost(self.second, along, x))

        a, b = apart(low), apart(high)
        if abs(b - a) < 1e-12 * max(abs(a), abs(b), 1e-300):
            return None
        place = -a / (b - a)  # in steps of x - 1, or of 1/x - 1
        found = 1 + place
        if found <= 0:
            return None
        return 1 / found if along == "utilisation" else found

    def span(self, along: str) -> tuple[float, float]:
        """What an axis of it shows."""
        if along == "utilisation":
            return _LEAST_USE, _MOST_USE
        here = max(self.now(one, along) for one in (self.first, self.second))
        at = self.at(along)
        most = 3 * here if along == "electricity" else 2 * here
        return 0.0, max(most, min(1.2 * at, 4 * most)) if at is not None else most

    def band(self, result: Result, along: str) -> tuple[float, float]:
        """5th and 95th percentile of the cost over the cost itself; (1, 1) without draws. [1]"""
        found = self._drawn(result, along)
        if found is None:
            return 1.0, 1.0
        low, high = np.quantile(found, _NINE_OF_TEN)
        return float(low), float(high)

    def price_band(self) -> tuple[float, float] | None:
        """5th and 95th percentile of the price of the first below which it wins, draws in common; None without draws,
        or where it wins at none in most of them. [USD]"""
        mine, other = self._drawn(self.first, "price"), self._drawn(self.second, "other's price")
        if mine is None or other is None:
            return None
        most = min(len(mine), len(other))
        whole = self.first.metric("cost_per_hour_USD")
        price = self._part(self.first, OF_PRICE)
        alike = self.cost_now(self.second) * other[:most] / (self.cost_now(self.first) * mine[:most])
        low, high = np.quantile(self._each_USD(self.first) * (alike * whole - (whole - price)) / price, _NINE_OF_TEN)
        return (max(float(low), 0.0), float(high)) if high > 0 else None

    def _drawn(self, result: Result, along: str) -> Floats | None:
        """Draws of the cost over the cost itself, without what an axis varies; None where there are none. [1]"""
        ledger = ledger_of(result)
        if ledger is None:
            return None
        varied = _VARIED.get(along, ())
        kept = [one for one in ledger.assumptions if not one.name.rpartition(": ")[2].startswith(varied or ("\0",))]
        return uncertainty.sampled(replace(ledger, assumptions=kept), {self._metric: 1.0}, [self._metric])[self._metric]

    def label(self, along: str) -> str:
        """Of an axis."""
        name = named(self.first)[0]
        return {
            "electricity": "electricity [USD/kWh]",
            "utilisation": "share of hours in use [1]",
            "price": f"an accelerator of {name} [USD]",
        }[along]

    def shown(self, along: str, value: float) -> str:
        """A value of one of the three."""
        return {"electricity": f"{value:.3g} USD/kWh", "utilisation": f"{100 * value:.0f} %"}.get(
            along, f"{float(f'{value:.3g}'):,.0f} USD"
        )

    def said(self) -> str:
        """The answer in a sentence."""
        first, second = named(self.first)[0], named(self.second)[0]
        here, there = self.cost_now(self.first), self.cost_now(self.second)
        costs = f"a million {self.of}s cost {here:.3g} USD on {first} and {there:.3g} on {second}"
        at, now = self.at("price"), self._each_USD(self.first)
        if at is None:
            return f"{first} does not win at any price: {costs}"
        verb = "it costs" if at > now else "it is put at"
        ends = self.price_band()
        drawn = ""
        if ends is not None:
            low, high = (self.shown("price", end) for end in ends)
            drawn = f", {low.removesuffix(' USD')} to {high} in nine of ten draws"
        return (
            f"{first} wins below {self.shown('price', at)} an accelerator with all around it{drawn} ({verb} "
            f"{self.shown('price', now)}): {costs}"
        )

    @property
    def _metric(self) -> str:
        return f"cost_per_M{self.of}_USD"

    def _part(self, result: Result, parts: Sequence[str]) -> float:
        return sum(result.metric(f"cost_{part}_per_hour_USD") for part in parts)

    def _each_USD(self, result: Result) -> float:
        assert result.machine.price_USD is not None
        return result.machine.price_USD / result.accelerators

    def _kWh_USD(self, result: Result) -> float:
        assert result.machine.price_per_kWh_USD is not None
        return result.machine.price_per_kWh_USD


def break_even(results: Sequence[Result]) -> BreakEven:
    """The first two systems of the first workload that has two with a bill, each with its cheapest run.

    Raises InputError where there are no two.
    """
    billed = [one for one in results if f"cost_{PARTS[0]}_per_hour_USD" in one.metrics]
    for workload in dict.fromkeys(one.workload for one in billed):
        mine = [one for one in billed if one.workload == workload]
        of = next((of for of in _OF if all(f"cost_per_M{of}_USD" in one.metrics for one in mine)), None)
        systems: dict[str, list[Result]] = {}
        for one in mine:
            systems.setdefault(named(one)[0], []).append(one)
        if of is not None and len(systems) > 1:
            metric = f"cost_per_M{of}_USD"
            first, second, *_ = (min(runs, key=lambda one: one.metric(metric)) for runs in systems.values())
            return BreakEven(first, second, of)
    raise InputError("break-even needs two systems with a bill; there is none: ask with `cost: {}` in the scenario")
