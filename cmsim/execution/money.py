"""Money and carbon of a run as its scenario asks for them: of a machine of one's own, of a region, by the hour.

Where nobody asks, rent and the system's own intensity stand as they were measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cmsim import cost, energy
from cmsim.errors import InputError, Problem
from cmsim.hardware import System, board_watts
from cmsim.hardware.specs import Source
from cmsim.results import Result
from cmsim.scenario import Run
from cmsim.topology import powered

#: what throughput is counted in
_OF = ("token", "sample")
#: ends of a band of power, and the middle
_ENDS = ("", "_low", "_high")
#: notes of prices and intensities that the system file lacks, which the scenario has
_LACKING = {"bill": "no cost_per_hour_USD", "carbon": "no carbon_g"}
#: inputs of the largest bills, which a note names
_NAMED = ("machine", "accelerator", "utilisation", "life_years", "interest", "electricity_per_kWh")
_J_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Purse:
    """What a run's money and carbon are made of.

    bill      inputs of a bill by key; empty where rent counts
    carbon    intensity of the grid, None where nobody says
    embodied  of making the machine, empty where it does not count
    """

    counts: cost.Bought
    bill: Mapping[str, cost.Input]
    carbon: cost.Input | None
    embodied: Mapping[str, cost.Input]
    training_tokens: float | None = None

    def inputs(self) -> dict[str, cost.Input]:
        """Every input by a name of its own, which `with_input` takes."""
        found = {f"bill.{key}": one for key, one in self.bill.items()}
        if self.carbon is not None:
            found["carbon"] = self.carbon
        return {**found, **{f"embodied.{key}": one for key, one in self.embodied.items()}}

    def with_input(self, name: str, value: float) -> Purse:
        """The same with another value of an input; one that several use changes in all."""
        moved = self.inputs()[name].name

        def laid(one: cost.Input) -> cost.Input:
            return replace(one, value=value) if one.name == moved else one

        return replace(
            self,
            bill={key: laid(one) for key, one in self.bill.items()},
            carbon=None if self.carbon is None else laid(self.carbon),
            embodied={key: laid(one) for key, one in self.embodied.items()},
        )

    def metrics(self, of: Mapping[str, float | str]) -> dict[str, float]:
        """Metrics of money and carbon from those of power and throughput."""
        numbers = {name: value for name, value in of.items() if not isinstance(value, str)}
        return {**self._money(numbers), **self._carbon(numbers)}

    def _money(self, of: Mapping[str, float]) -> dict[str, float]:
        if not self.bill:
            return {}
        parts = cost.hour_by_part(self.counts, cost.values(self.bill), of["power_avg_W"])
        hour_USD = float(sum(parts.values()))
        out = {"cost_per_hour_USD": hour_USD}
        out |= {f"cost_{name}_per_hour_USD": float(value) for name, value in parts.items()}
        bought = cost.price_by_part(self.counts, cost.values(self.bill))
        out |= {f"price_{name}_USD": float(value) for name, value in bought.items() if value}
        for one in _OF:
            if f"energy_per_{one}_J" in of:
                each_per_s = of["power_avg_W"] / of[f"energy_per_{one}_J"]
                out[f"cost_per_M{one}_USD"] = cost.million_USD(hour_USD, each_per_s)
        if self.training_tokens and "mfu" in of and "tokens_per_s" in of:
            out["cost_per_training_run_USD"] = hour_USD * self.training_tokens / of["tokens_per_s"] / 3600
        return out

    def _carbon(self, of: Mapping[str, float]) -> dict[str, float]:
        if self.carbon is None:
            return {}
        out: dict[str, float] = {}
        made_g = cost.embodied_g(self.counts, cost.values(self.embodied), of["makespan_s"]) if self.embodied else 0.0
        for end in _ENDS:
            if f"energy_J{end}" not in of:
                continue
            joules = of[f"energy_J{end}"]
            out[f"carbon_g{end}"] = joules / _J_PER_KWH * self.carbon.value + made_g
            for one in _OF:
                if f"energy_per_{one}_J" in of:
                    count = of["energy_J"] / of[f"energy_per_{one}_J"]
                    out[f"carbon_per_M{one}_g{end}"] = out[f"carbon_g{end}"] / count * 1e6
        return {**out, **({"carbon_embodied_g": made_g} if self.embodied else {})}

    def price_USD(self) -> float:
        """What the machine costs to buy."""
        return float(sum(cost.price_by_part(self.counts, cost.values(self.bill)).values()))


def purse(one: Run, system: System, base: Path | None = None) -> Purse | None:
    """What a run's money and carbon are made of; None where its scenario says nothing of them.

    system: with the packages that are billed. Raises InputError for a price that nobody gives.
    """
    if not one.of_owner:
        return None
    inputs: dict[str, cost.Input] = {}
    if one.cost is not None:
        inputs = cost.priced(one.cost, system.accelerator.name, base)
        whole = system.spec.facility.price_per_accelerator_USD
        if whole is not None:
            inputs = {"machine": _of_system(system, cost.PRICE, whole), **inputs}
            inputs.pop("accelerator", None)
        elif "accelerator" not in inputs:
            message = (
                f"{one.cost.prices or 'the file of prices'} has no price of {system.accelerator.name}; give "
                f"cost.accelerator, or set {cost.PRICE} of {system.name} (and say from where)"
            )
            raise InputError(Problem(message, key="cost.prices"))
    facility = system.spec.facility
    own: cost.Input | None = None
    if facility.carbon_g_per_kWh is not None:
        own = _of_system(system, "facility.carbon_g_per_kWh", facility.carbon_g_per_kWh)
    return Purse(
        counts=counts(system),
        bill=inputs,
        carbon=cost.intensity(one.carbon, own, base),
        embodied=_embodied(one, base),
        training_tokens=None if one.cost is None else one.cost.training_tokens,
    )


def _embodied(one: Run, base: Path | None) -> dict[str, cost.Input]:
    if one.carbon is None or not one.carbon.embodied:
        return {}
    return cost.embodied(one.carbon, one.cost.prices if one.cost is not None else None, base)


def check(runs: Iterable[tuple[Run, System]], base: Path | None = None) -> None:
    """Refuse prices, regions and currencies that are not there, before anything runs.

    Parameters
    ----------
    runs
        Runs of a scenario, each with its system.
    base
        Folder that relative paths of the scenario start from.

    Raises
    ------
    InputError
        With the key, for what is not there, and for an accelerator that nobody gives a price of.
    """
    seen = set()
    for one, system in runs:
        if one.of_owner and (key := (one.system_key, repr((one.cost, one.carbon)))) not in seen:
            seen.add(key)
            purse(one, system, base)


def counts(system: System) -> cost.Bought:
    """What is bought with the packages in use, all that stands around them included, in proportion."""
    chips, modules = energy.switch_chips(system), energy.scale_up_modules(system)
    parts = powered(system, board_watts(system.accelerator), chips=chips, modules=modules)
    spec = system.spec
    nodes = system.packages / spec.node.accelerators
    return cost.Bought(
        accelerators=system.packages,
        sockets=nodes * spec.node.cpus,
        switch_chips=chips,
        modules=modules + parts.outer_modules,
        # one that draws nothing of its own is on the package
        nics=system.packages if spec.scale_out.nic_W > 0 else 0,
        scale_out_switches=parts.outer_switches,
        racks=spec.racks * system.packages / spec.accelerators,
        it_W=energy.rated_W(system) / spec.facility.pue,
    )


def priced(found: Result, one: Run, billed: System, base: Path | None) -> Result:
    """The result with money and carbon as its scenario asks for them; itself where it does not, or without power."""
    made = purse(one, billed, base)
    return found if made is None or "power_avg_W" not in found.metrics else with_purse(found, made)


def with_purse(found: Result, made: Purse) -> Result:
    """The result with the money and carbon of a purse."""
    lacking = tuple(text for what, text in _LACKING.items() if getattr(made, what))
    machine = found.machine
    if made.bill:
        machine = replace(
            machine,
            price_USD=made.price_USD(),
            utilisation=made.bill["utilisation"].value,
            price_per_kWh_USD=made.bill["electricity_per_kWh"].value,
        )
    return replace(
        found,
        metrics={**found.metrics, **made.metrics(found.metrics)},
        machine=machine,
        warnings=(*(text for text in found.warnings if not text.startswith(lacking or ("\0",))), *_assumed(made)),
    )


def _assumed(made: Purse) -> tuple[str, ...]:
    """What a bill stands on that nobody published, with the range."""
    ranged = [made.bill[key] for key in _NAMED if key in made.bill and made.bill[key].low < made.bill[key].high]
    if not ranged:
        return ()
    said = ", ".join(
        f"{one.name.rpartition(': ')[2].replace('_', ' ')} {one.value:g} ({one.low:g} to {one.high:g})"
        for one in ranged
    )
    return (f"cost is a bill of assumed prices, in USD; the largest: {said}",)


def _of_system(system: System, key: str, value: float) -> cost.Input:
    source: Source | None = system.spec.sources.get(key)
    return cost.sourced(f"{system.spec.name}: {key}", value, source)
