"""What is answered at once, from what was played near it, for all who ask.

Steps are of one workload on one system in one plan, over sequences and tokens; services are of a plan and what is asked
of it, over loads. What lies between is told in columns, by straight lines, in a millisecond.
"""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from cmsim import api, steps
from cmsim.arrays import Floats
from cmsim.errors import CmsimError, InfeasibleError, InputError
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.prefill import PrefillSpec
from cmsim.kinds.serving import ServingSpec
from cmsim.results import Result
from cmsim.scenario import Run, Scenario

N = TypeVar("N", int, float)
#: sequences, or prompts, of a holder, and tokens of a sequence that are told
_SEQUENCES, _PROMPTS, _TOKENS = (1, 512), (1, 32), (256, 32_768)
#: loads of a service that are played, and by how many powers of two from what is asked at most
_LOADS, _FAR = tuple(2.0**n for n in range(-4, 15)), 4
#: why a load has no figures, or none at once
GROWS, _BEYOND = "more requests come than it serves: the queue grows", "beyond what is told at once: it is played"
_EDGE = "between a load that it keeps up with and one that it does not: it is played"
#: lengths that are played
_LENGTHS = tuple(steps.between(*_TOKENS))
#: numbers of a step, as `Points` has them: seconds, joules, their ends, memory
_WIDTH, _NEED = 5, 4
#: what a need may be above the room by rounding alone
_ROUNDING = 1 + 1e-9
#: plans that are kept
_MOST = 256
#: keys of a workload, and of a service's arrivals, that are asked at once; all others need what is made anew
_ASKED = ("batch_per_accelerator", "context_tokens", "prompt_tokens")
_LOAD = ("rate_per_s", "concurrency")


@dataclass(frozen=True)
class ToldLine:
    """One system over its loads: (x, y) of metrics that the kind puts on the axes."""

    system: str
    x: Floats
    y: Floats
    loads: tuple[str, ...]


@dataclass(frozen=True)
class ToldRow:
    """One system at the load that is asked. reason: why there are no figures; limiter: what most of the time goes to"""

    system: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    limiter: str = ""
    reason: str = ""


class StepsTold:
    """Steps of a workload on a system: played where they are asked for, straight lines between them.

    A column is of one length, over sequences (or prompts) of a holder by powers of two. What `best` leaves open has
    plans of its own; the fastest that fits is told. Columns are played by one thread and read by others.

    unit    batch per accelerator of one sequence of a holder    packages  in use
    """

    def __init__(self, run: Run, machines: api.Machines):
        self._held, self._length = steps.of_inference(
            run, machines, things=_SEQUENCES if run.spec.kind == "decode" else _PROMPTS, tokens=_TOKENS
        )
        self.unit = self._held.unit
        self.sizes = np.array([1 << n for n in range(self._held.high.bit_length())])
        system = machines(run)
        self.packages = (run.spec.ranks or system.ranks) / system.ranks_per_package
        self._room_B = system.rank_memory_B * _ROUNDING
        plans = api.candidates(run, machines)
        self._plans = [steps.Points(plan, (self._held, self._length), machines) for plan in plans]
        self._columns: dict[int, Floats] = {}
        self._reason = ""

    def needs(self, run: Run) -> list[int]:
        """Lengths that are to be played before a run can be told, the nearest first."""
        length = self._tokens(run)
        return [one for one in _around(length, _LENGTHS) if one not in self._columns]

    @property
    def played(self) -> int:
        """Lengths that are there."""
        return len(self._columns)

    def spare(self, run: Run) -> int | None:
        """A length that may be asked for next; None where all are there."""
        length = self._tokens(run)
        left = [one for one in _LENGTHS if one not in self._columns]
        return min(left, key=lambda one: abs(math.log(one / length)), default=None)

    def play(self, length: int) -> None:
        """Plays a column: rows (plan, size, number of `COLUMNS`); nan where nothing is possible."""
        rows = np.full((len(self._plans), len(self.sizes), _WIDTH), np.nan)
        for number, points in enumerate(self._plans):
            for at, size in enumerate(self.sizes.tolist()):
                try:
                    rows[number, at] = points((size, length))
                except InfeasibleError as error:
                    self._reason = self._reason or " ".join(str(error).split())
                    continue
                if rows[number, at, _NEED] > self._room_B:
                    break  # more of them need more
            points.save()
        self._columns[length] = rows

    def line(self, run: Run) -> ToldLine:
        """Its loads that fit."""
        told = self._best(run, self.sizes.astype(float))
        fits = ~np.isnan(told[:, 0])
        batch = self.sizes * self.unit
        metrics = self._metrics(run, batch, told)
        x, y = (metrics[name][fits] for name in axes_of(run.spec.kind))
        return ToldLine(run.system.label, x, y, tuple(f"{one:,.4g} per accelerator" for one in batch[fits].tolist()))

    def row(self, run: Run) -> ToldRow:
        """At the load that is asked."""
        batch = float(run.spec.batch_per_accelerator)  # type: ignore[attr-defined]
        size = np.array([max(math.ceil(batch / self.unit - 1e-9), 1)], float)
        if not _LENGTHS[0] <= self._tokens(run) <= _LENGTHS[-1]:
            return ToldRow(run.system.label, reason=_BEYOND)
        told = self._best(run, np.minimum(size, self.sizes[-1]))
        if np.isnan(told[0, 0]):
            return ToldRow(run.system.label, reason=self._unfit(run))
        if size[0] > self.sizes[-1]:
            return ToldRow(run.system.label, reason=_BEYOND)
        metrics = self._metrics(run, np.array([batch]), told)
        return ToldRow(run.system.label, {name: float(values[0]) for name, values in metrics.items()})

    def _unfit(self, run: Run) -> str:
        """Why a batch has no figures."""
        fit = self.line(run).loads
        if fit:
            return f"does not fit: the largest of the batches that do is {fit[-1]}"
        return self._reason or "no batch of this length fits"

    def _tokens(self, run: Run) -> float:
        return float(getattr(run.spec, self._length.path[-1]))

    def _best(self, run: Run, sizes: Floats) -> Floats:
        """Columns of some sizes in the fastest plan that fits each; nan where none does."""
        length = self._tokens(run)
        low, high = _around(length, _LENGTHS)[0], _around(length, _LENGTHS)[-1]
        share = 0.0 if low == high else (length - low) / (high - low)
        both = (1 - share) * self._columns[low] + share * self._columns[high]
        out = np.full((len(sizes), _WIDTH), np.nan)
        for rows in both:
            told = np.column_stack([np.interp(sizes, self.sizes, rows[:, column]) for column in range(_WIDTH)])
            fits = told[:, _NEED] <= self._room_B
            faster = fits & ~(told[:, 0] >= out[:, 0])
            out[faster] = told[faster]
        return out

    def _metrics(self, run: Run, batch: Floats, told: Floats) -> dict[str, Floats]:
        """As the kinds have them, of a batch per accelerator."""
        spec, (seconds, joules) = run.spec, told.T[:2]
        if isinstance(spec, DecodeSpec):
            each = 1.0 if spec.speculative is None else spec.speculative.accepted
            its = {"tpot_s": seconds / each, "tokens_per_s_per_user": each / seconds}
        else:
            assert isinstance(spec, PrefillSpec)
            each = float(spec.prompt_tokens)
            its = {"ttft_s": seconds}
        tokens = batch * each
        return {
            **its,
            "tokens_per_s_per_accelerator": tokens / seconds,
            "energy_per_token_J": joules / (tokens * self.packages),
            "memory_peak_B": told[:, _NEED],
        }


def _around(asked: float, played: Sequence[N]) -> list[N]:
    """Those that are played about what is asked: itself, or its two neighbours."""
    inside = min(max(asked, played[0]), played[-1])
    low = max(one for one in played if one <= inside)
    high = min(one for one in played if one >= inside)
    return [low] if low == high else [low, high]


class ServiceTold:
    """A service, played at loads by powers of two about those that are asked for; straight lines between them.

    Loads above one at which a queue grows are not played. Loads are played by one thread and read by others.
    """

    def __init__(self, run: Run, machines: api.Machines):
        self._machines = machines
        self._run = dataclasses.replace(run, record="summary")
        self._key = _load_key(run)
        # a metric by load; nothing where the queue grows
        self._at: dict[float, Mapping[str, float]] = {}
        self._reason = ""

    def needs(self, run: Run) -> list[float]:
        """Loads that are to be played before a run can be told."""
        return [] if self._reason else [one for one in self._around(run) if not self._knows(one)]

    @property
    def played(self) -> int:
        """Loads that are there."""
        return len(self._at)

    def spare(self, run: Run) -> float | None:
        """A load that may be asked for next; None where all that matter are there."""
        if self._reason:
            return None
        load = load_of(run)
        left = [one for one in _LOADS if not self._knows(one) and abs(math.log2(one / load)) <= _FAR]
        return min(left, key=lambda one: abs(math.log(one / load)), default=None)

    def play(self, load: float) -> None:
        """Plays the service at a load."""
        spec = self._run.spec
        assert isinstance(spec, ServingSpec)
        arrivals = spec.arrivals.model_copy(update={self._key: type(getattr(spec.arrivals, self._key))(load)})
        run = dataclasses.replace(self._run, spec=spec.model_copy(update={"arrivals": arrivals}))
        became = api.evaluate(run, self._machines)
        if not isinstance(became, Result):
            self._reason = " ".join(became.message.split())
            return
        self._at[load] = {} if became.metrics["stable"] == "no" else metrics_of(became)

    def line(self, run: Run) -> ToldLine:
        """The loads that were played, with queues that do not grow."""
        unit = "users" if self._key == "concurrency" else "requests/s"
        there = dict(self._at)  # which others add to
        axes = axes_of("serving")  # answers of one token have no time between two
        loads = sorted(load for load, metrics in there.items() if all(name in metrics for name in axes))
        x, y = (np.array([there[load][name] for load in loads]) for name in axes)
        return ToldLine(run.system.label, x, y, tuple(f"{load:,.4g} {unit}" for load in loads))

    def row(self, run: Run) -> ToldRow:
        """At the load that is asked."""
        if self._reason:
            return ToldRow(run.system.label, reason=self._reason)
        low, high = self._around(run)[0], self._around(run)[-1]
        below, above = self._at.get(low), self._at.get(high)
        if not below or not above:
            return ToldRow(run.system.label, reason=_EDGE if below else GROWS)
        share = 0.0 if low == high else (load_of(run) - low) / (high - low)
        names = [name for name in below if name in above]
        return ToldRow(run.system.label, {name: (1 - share) * below[name] + share * above[name] for name in names})

    def _knows(self, load: float) -> bool:
        return load in self._at or any(one < load and not metrics for one, metrics in dict(self._at).items())

    def _around(self, run: Run) -> list[float]:
        return _around(load_of(run), _LOADS)


def _load_key(run: Run) -> str:
    """The key of arrivals that the load is."""
    assert isinstance(run.spec, ServingSpec)
    return "concurrency" if run.spec.arrivals.process == "closed" else "rate_per_s"


def load_of(run: Run) -> float:
    """The load that is asked. Raises InputError where it is to be found or follows from a trace or a curve."""
    load = getattr(run.spec.arrivals, key := _load_key(run))  # type: ignore[attr-defined]
    if not isinstance(load, int | float):
        raise InputError(f"the page asks a load that is a number, got {key}: {load}. `cmsim run` takes all")
    return float(load)


def metrics_of(result: Result) -> dict[str, float]:
    """Numbers of a run by name, and tokens a second that a user sees."""
    numbers = {name: float(value) for name, value in result.metrics.items() if isinstance(value, int | float)}
    token_s = numbers.get("tpot_s", numbers.get("tpot_mean_s", 0.0))
    return {**numbers, **({"tokens_per_s_per_user": 1.0 / token_s} if token_s else {})}


@dataclass(frozen=True)
class Unfit:
    """A plan that none of its steps fits."""

    reason: str

    def needs(self, _: Run) -> list[int]:
        """Nothing."""
        return []

    def line(self, run: Run) -> ToldLine:
        return ToldLine(run.system.label, np.zeros(0), np.zeros(0), ())

    def row(self, run: Run) -> ToldRow:
        return ToldRow(run.system.label, reason=self.reason)


Told = StepsTold | ServiceTold | Unfit


class WhatIsKnown:
    """What was made so far, by the plan that it is of. Made by one thread, asked by any."""

    def __init__(self) -> None:
        self.machines = api.Machines()
        self._told: OrderedDict[str, Told] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, scenario: Scenario, run: Run) -> Told | None:
        """What a run is told from; None where there is something still to be made."""
        found = self._found(scenario, run)
        return None if found is None or found.needs(run) else found

    def make(self, scenario: Scenario, run: Run) -> None:
        """Makes the next thing of those that are still to be made, so that who asks something else need not wait."""
        found = self._found(scenario, run)
        if found is None:
            found = self._made(run)
            self._keep(key_of(scenario, run), found)
        if not isinstance(found, Unfit):
            try:
                for one in found.needs(run)[:1]:
                    found.play(one)  # type: ignore[arg-type]
            except CmsimError as error:
                self._keep(key_of(scenario, run), Unfit(" ".join(str(error).split())))

    def _made(self, run: Run) -> Told:
        try:
            return _MAKERS[run.spec.kind](run, self.machines)
        except CmsimError as error:  # of one system; others may do
            return Unfit(" ".join(str(error).split()))

    def more(self, scenario: Scenario) -> bool:
        """Plays something that is likely asked for next; whether there was anything."""
        there = [(run, self._found(scenario, run)) for run in scenario.runs]
        fewest_first = sorted(
            ((run, found) for run, found in there if found is not None and not isinstance(found, Unfit)),
            key=lambda one: one[1].played,
        )
        for run, found in fewest_first:
            if (one := found.spare(run)) is not None:
                found.play(one)  # type: ignore[arg-type]
                return True
        return False

    def _found(self, scenario: Scenario, run: Run) -> Told | None:
        with self._lock:
            found = self._told.get(name := key_of(scenario, run))
            if found is not None:
                self._told.move_to_end(name)
            return found

    def _keep(self, name: str, told: Told) -> None:
        with self._lock:
            self._told[name] = told
            while len(self._told) > _MOST:
                self._told.popitem(last=False)


def key_of(scenario: Scenario, run: Run) -> str:
    """What is made for a plan is of all of a scenario but the load, its name and the other systems."""
    of = dict(scenario.data)
    spec = run.spec.model_dump(mode="json")
    if isinstance(run.spec, ServingSpec):
        for name in _LOAD:
            spec["arrivals"].pop(name)
        spec.pop("slo")
    spec = {name: value for name, value in spec.items() if name not in _ASKED}
    rest = {name: value for name, value in of.items() if name not in ("name", "systems", "workloads", "report")}
    left = [[one.key, one.values] for one in run.open]
    return json.dumps([spec, run.system.model_dump(mode="json"), left, rest], sort_keys=True, default=str)


def axes_of(kind: str) -> tuple[str, str]:
    """The metrics that a kind's chart is of: what users get, and what accelerators give."""
    return {
        "decode": ("tokens_per_s_per_user", "tokens_per_s_per_accelerator"),
        "prefill": ("ttft_s", "tokens_per_s_per_accelerator"),
        "serving": ("tokens_per_s_per_user", "output_tokens_per_s_per_accelerator"),
    }[kind]


_MAKERS: Mapping[str, Callable[[Run, api.Machines], Told]] = {
    "decode": StepsTold,
    "prefill": StepsTold,
    "serving": ServiceTold,
}


__all__ = [
    "GROWS",
    "ServiceTold",
    "StepsTold",
    "Told",
    "ToldLine",
    "ToldRow",
    "Unfit",
    "WhatIsKnown",
    "axes_of",
    "key_of",
    "load_of",
    "metrics_of",
]
