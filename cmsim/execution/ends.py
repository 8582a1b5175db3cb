"""What the ends of every assumed range do to a run: it is executed again with each, as few times as will do.

Numbers that only power, money and carbon are made of leave the timeline as it is: what was played is measured again.
The others are tried in groups of a section first (all of `kernels.norm` at once): a group that changes nothing at
either end is not looked into. An end that cannot be run counts as the value itself, and is told.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cmsim.errors import FailedError, InfeasibleError, InputError
from cmsim.execution import choice, money, played
from cmsim.execution.errors_of import errors_of
from cmsim.execution.played import Play
from cmsim.hardware import System, at_share, load_system
from cmsim.hardware.specs import SHARED_WATTS, Assumed
from cmsim.kinds import PlayedKind
from cmsim.results import Result
from cmsim.scenario import Run
from cmsim.uncertainty import Assumption, Ledger

#: keys that nothing but power, money and carbon follows from
_NO_TIME = (
    *("facility.", "node.cpu_idle_W", "node.cpu_active_W", "node.cpu_feeding", "node.other_W", "scale_up.power."),
    *("scale_up.modules_per_uplink", "scale_out.nic_W", "scale_out.module_W", "scale_out.switch_W"),
    *("scale_out.modules_per_accelerator", "accelerator.power.idle_W", "accelerator.power.active_W"),
    *("accelerator.power.compute_W", "accelerator.power.memory_W", "accelerator.power.link_W"),
    "accelerator.power.shares_of",
)
#: about the place, not the machine: the same words on two systems are one assumption
_OF_PLACE = "facility."
_RENT, _CARBON, _SHARES = "facility.price_per_accelerator_hour_USD", "facility.carbon_g_per_kWh", "power.shares_of"
#: digits of an effect that are kept
_DIGITS = 6

Numbers = Mapping[str, float]


@dataclass(frozen=True)
class _Ranged:
    """An assumed number of the system: what it is called, and what to set for each of its ends."""

    name: str
    draw: str
    group: str
    value: float
    low: float
    high: float
    sets: tuple[Mapping[str, Any], Mapping[str, Any]]
    timeless: bool


def with_ledger(found: Result, tried: Play | Result, one: Run, system: System, base: Path | None) -> Result:
    """The result with what its figures stand on that nobody is sure of.

    tried: what `best` gave    one: the run that was asked for    system: it ran on
    """
    assert one.uncertainty is not None
    decided = replace(_decided(one, found), record="summary")
    play = tried if isinstance(tried, Play) else None
    if play is None and isinstance(found.declared.execution, PlayedKind):
        raise AssertionError("a kind with programs is played")
    again = _Again(decided, system, base, play)
    basis = again.basis(found)
    ranged = list(_ranged(system, one)) if one.uncertainty.executed else []
    assumptions = list(again.assumptions(ranged, basis)) if ranged else []
    assumptions += _of_money(decided, again.billed, base, basis)
    errors, notes = errors_of(found, system.accelerator.name) if one.uncertainty.validated else ([], [])
    ledger = Ledger(
        one.uncertainty.draws, one.uncertainty.seed, assumptions, errors, (*notes, *dict.fromkeys(again.refused))
    )
    return replace(found, uncertainty=ledger.data())


def _decided(one: Run, found: Result) -> Run:
    """The run with what `best` became."""
    while one.open:
        one = one.at(found.chosen[one.open[0].key])
    return one


class _Again:
    """A run that is executed again, with something set over its system."""

    def __init__(self, one: Run, system: System, base: Path | None, play: Play | None):
        self.one, self.system, self.base, self.play = one, system, base, play
        self.billed = system if play is None else play.billed
        self.refused: list[str] = []

    def basis(self, found: Result) -> Numbers:
        """Metrics that effects are measured against."""
        return _numbers(found)

    def assumptions(self, ranged: Sequence[_Ranged], basis: Numbers) -> Iterator[Assumption]:
        """Those that do something to a run, in the order of the files."""
        measured = self.play is not None and self._timeless([one for one in ranged if one.timeless], basis)
        groups: dict[str, list[_Ranged]] = {}
        for one in ranged:
            groups.setdefault(one.name if measured and one.timeless else one.group, []).append(one)
        for group in groups.values():
            if len(group) > 1 and not any(self._effects(_together(group, i), basis, False) for i in (0, 1)):
                continue
            for one in group:
                low, high = (self._effects(sets, basis, measured and one.timeless, one.name) for sets in one.sets)
                names = [name for name in basis if name in low or name in high]
                if names:
                    effects = {name: (low.get(name, 0.0), high.get(name, 0.0)) for name in names}
                    yield Assumption(one.name, one.draw, one.value, one.low, one.high, effects)

    def _timeless(self, ranged: Sequence[_Ranged], basis: Numbers) -> bool:
        """Whether the timeline indeed does not follow from any of them."""
        lengths = {basis["makespan_s"]}
        for i in (0, 1):
            try:
                lengths.add(self._numbers(_together(ranged, i), False)["makespan_s"])
            except (InfeasibleError, InputError, FailedError):
                return False
        return len(lengths) == 1

    def _effects(self, sets: Mapping[str, Any], basis: Numbers, timeless: bool, name: str = "") -> dict[str, float]:
        """Metric -> logarithm of what it becomes over what it is, of those that change."""
        try:
            there = self._numbers(sets, timeless)
        except (InfeasibleError, InputError, FailedError) as error:
            if name:
                self.refused.append(f"an end of {name} cannot be run, and counts as its value: {error}")
                return {}
            return {"": 0.0}  # of a group: look into it
        return _ratios(there, basis)

    def _numbers(self, sets: Mapping[str, Any], timeless: bool) -> Numbers:
        entry = self.one.system
        system = load_system(
            entry.system,
            accelerators=entry.accelerators,
            domains=entry.domains,
            rank=entry.rank,
            stack=entry.stack,
            set={**entry.set, **sets},
            label=entry.label,
            base=self.base,
            kind=self.one.spec.kind,
        )
        if timeless:
            assert self.play is not None
            return _numbers(played.result(replace(self.play, run=self.one, system=system)))
        tried = choice.attempt(self.one, system, self.base)
        assert tried is not None, "without a limit a run is executed to its end"
        return _numbers(tried if isinstance(tried, Result) else played.result(tried))


def _numbers(found: Result) -> dict[str, float]:
    return {name: value for name, value in found.metrics.items() if not isinstance(value, str)}


def _ratios(there: Numbers, basis: Numbers) -> dict[str, float]:
    out = {}
    for name, value in basis.items():
        other = there.get(name, value)
        if value > 0 and other > 0 and other != value and (change := round(math.log(other / value), _DIGITS)):
            out[name] = change
    return out


def _together(group: Sequence[_Ranged], end: int) -> dict[str, Any]:
    return {key: value for one in group for key, value in one.sets[end].items()}


def _of_money(one: Run, billed: System, base: Path | None, basis: Numbers) -> Iterator[Assumption]:
    """Inputs of a bill and of carbon: what they do follows from a formula."""
    made = money.purse(one, billed, base)
    seen = set()
    for key, its in made.inputs().items() if made is not None and "power_avg_W" in basis else ():
        if its.low == its.high or its.name in seen:
            continue
        assert made is not None
        seen.add(its.name)
        low, high = (_ratios(made.with_input(key, end).metrics(basis), basis) for end in (its.low, its.high))
        names = [name for name in basis if name in low or name in high]
        if names:
            effects = {name: (low.get(name, 0.0), high.get(name, 0.0)) for name in names}
            draw = _draw(its.name, its.low, its.high, its.why)
            yield Assumption(its.name, draw, its.value, its.low, its.high, effects)


def _ranged(system: System, one: Run) -> Iterator[_Ranged]:
    """Assumed numbers of system, accelerator and stack that something can be set for."""
    for prefix, spec in (("", system.spec), ("accelerator.", system.accelerator), ("stack.", system.stack)):
        data = spec.model_dump()
        for key, source in spec.sources.items():
            own = _own(key, system.accelerator.name)
            if not isinstance(source, Assumed) or own is None or _elsewhere(prefix + own, one):
                continue
            if prefix == "accelerator." and own == _SHARES:
                yield from _shares(system, source)
                continue
            value = _value(data, own.split("."))
            carried = prefix == "accelerator." and own.removeprefix("power.") in at_share(system.accelerator, 1.0)
            if value is None or carried:
                continue
            low, high = min(source.assumed[0], value), max(source.assumed[1], value)
            if isinstance(value, int):
                low, high = math.floor(low), math.ceil(high)
            if low == high:
                continue
            whole = prefix + own
            name = f"{spec.name}: {own}"
            yield _Ranged(
                name,
                _draw(own if whole.startswith(_OF_PLACE) else name, low, high, source.why),
                ".".join(whole.split(".")[:3]),
                value,
                low,
                high,
                ({whole: low}, {whole: high}),
                whole.startswith(_NO_TIME),
            )


def _shares(system: System, source: Assumed) -> Iterator[_Ranged]:
    """Watts carried over from a measured accelerator: their shares of the limit go up and down together."""
    chip, (low, high) = system.accelerator, source.assumed
    if not at_share(chip, 1.0):
        return
    sets = [{f"accelerator.power.{key}": watts for key, watts in at_share(chip, end).items()} for end in (low, high)]
    assert {key.rpartition(".")[2] for key in sets[0]} <= set(SHARED_WATTS)
    name = f"{chip.name}: watts under load, of the {chip.power.shares_of}"
    draw = _draw(name, low, high, source.why)
    yield _Ranged(name, draw, "accelerator.power", 1.0, low, high, (sets[0], sets[1]), timeless=True)


def _draw(name: str, low: float, high: float, why: str) -> str:
    return f"{name} [{low:g}, {high:g}] {hashlib.sha256(why.encode()).hexdigest()[:12]}"


def _own(key: str, accelerator: str) -> str | None:
    """A key of a stack as it holds for this accelerator; None for one of another."""
    if not key.startswith("accelerators."):
        return key
    _, name, rest = (*key.split(".", 2), "")[:3]
    return rest if name == accelerator and rest else None


def _elsewhere(key: str, one: Run) -> bool:
    """Whether the scenario says it in another way."""
    return (key == _RENT and one.cost is not None) or (key == _CARBON and one.of_owner)


def _value(data: Any, parts: Sequence[str]) -> float | None:
    """The number at a place; None for a section, a word or nothing."""
    for part in parts:
        if not isinstance(data, Mapping) or part not in data:
            return None
        data = data[part]
    return data if isinstance(data, int | float) and not isinstance(data, bool) else None
