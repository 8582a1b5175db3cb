"""The whole search of a service on one page: axes, shapes, curves, prices, service of the best, what is to be said."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmsim import api, cost, results
from cmsim.arrays import Bools, Floats
from cmsim.errors import InfeasibleError, InputError, Problem, did_you_mean
from cmsim.identity import Identity
from cmsim.kinds.serving import ServingSpec
from cmsim.results import Result, Results
from cmsim.scenario import Run, Scenario
from cmsim.search.folder import STORE
from cmsim.search.found import Counts, Objective
from cmsim.search.services import axes, curves, price
from cmsim.search.services.axes import ServiceQuestion
from cmsim.search.services.curves import Curve, PoolShape
from cmsim.search.services.found import OBJECTIVES, ServiceResult, kept, missed, score
from cmsim.search.services.price import Priced
from cmsim.search.services.space import PoolSpace, named, space
from cmsim.search.services.traffic import Traffic
from cmsim.serving import askers
from cmsim.serving.least import LeastMachine, least_machine
from cmsim.workload.model import load_model

#: plans that are served where nobody says how many, and so many times as many at most
KEEP, _MORE = 8, 4
#: by how much a plan may be priced to miss what is promised and be served at once; after the first ones by how badly
#: others were priced
_SLACK = 1.1
#: plans that are served at once, after the first ones
_AT_ONCE = 4
#: combinations of pools that are priced, at most
_MOST = 4_000_000

Progress = Callable[[str, float], None]


def seek(
    scenario: Scenario,
    *,
    objective: str | None,
    keep: int | None,
    over: Mapping[str, Sequence[Any]],
    out: Path | None,
    jobs: int | None,
    progress: Progress | None,
) -> ServiceResult:
    """The best plan of the one service of a scenario; arguments as of `cmsim.search.search`."""
    one = scenario.runs[0]
    assert isinstance(one.spec, ServingSpec)
    said = dict(scenario.data.get("search") or {})
    name = objective or said.get("objective") or next(iter(OBJECTIVES))
    if name not in OBJECTIVES:
        raise InputError(Problem(f"no such objective. {did_you_mean(name, OBJECTIVES)}", key="search.objective"))
    machines = api.Machines(scenario.base)
    one = dataclasses.replace(one, spec=axes.plain(one.spec))
    system = machines(one)
    assert isinstance(one.spec, ServingSpec)
    model = load_model(one.spec.model, base=scenario.base)
    asked = ServiceQuestion(one, one.spec, system, model, scenario.base)
    if name == "dollars_per_token" and not cost.rent(system)[0]:
        raise InputError(Problem(cost.rent(system)[1][0], key="search.objective"))
    values = axes.values_of(asked, {**dict(said.get("axes") or {}), **dict(over)})
    return _Seek(
        scenario, asked, machines, OBJECTIVES[name], keep or int(said.get("keep", KEEP)), out, jobs, progress
    ).run(values)


@dataclasses.dataclass
class _Form:
    """Plans of one number of pools."""

    form: tuple[str, ...]
    spaces: list[PoolSpace]
    curves: list[list[Curve]]
    priced: Priced
    refused: Counter[str]
    count: int


@dataclasses.dataclass
class _Seek:
    scenario: Scenario
    asked: ServiceQuestion
    machines: api.Machines
    objective: Objective
    keep: int
    out: Path | None
    jobs: int | None
    progress: Progress | None

    def run(self, values: Mapping[tuple[str, ...], Mapping[str, tuple[Any, ...]]]) -> ServiceResult:
        requests = askers.asked(self.asked.spec, seed=self.asked.one.seed, base=self.asked.base)
        load = Traffic.of(requests, self.asked.spec, keeps=self._keeps(values))
        forms = [self._form(load, form, its) for form, its in values.items()]
        refused, count = Counter[str](), 0
        for one in forms:
            refused += one.refused
            count += one.count
        if not any(len(one.priced) for one in forms):
            raise self._none(refused, count, load)
        ranks = _Ranks(self.asked, self.objective, forms)
        served, unfit = self._serve(forms, ranks)
        if not served:
            raise self._none(refused, count, load)
        given, why = self._given()
        return self._found(values, forms, load, ranks, served, unfit, refused, count, given, why, requests.notes)

    def _keeps(self, values: Mapping[tuple[str, ...], Mapping[str, tuple[Any, ...]]]) -> bool:
        """Whether plans keep beginnings of prompts."""
        shares = [one for its in values.values() for key, one in its.items() if key.endswith("prefix_share")]
        own = [axes.batching_of(self.asked.spec, form[0]).prefix_share for form in values]
        return any(share > 0 for share in (*own, *(one for its in shares for one in its)))

    # prices

    def _form(self, load: Traffic, form: tuple[str, ...], values: Mapping[str, tuple[Any, ...]]) -> _Form:
        spec = axes.pooled(self.asked.spec, form)
        asked = dataclasses.replace(self.asked, spec=spec, one=dataclasses.replace(self.asked.one, spec=spec))
        spaces = [space(asked, pool, values) for pool in form]
        found, parts = [], []
        for made in spaces:
            what = f"steps{f' of {made.pool}' if made.pool else ''}"
            tell = None if self.progress is None else _told(self.progress, what)
            found.append(curves.measure(asked, load, made.shapes, jobs=self.jobs, progress=tell))
            parts.append(price.pool_plans(asked, load, made, found[-1]))
        pairs = math.prod(len(one[0]) for one in parts)
        if pairs > _MOST:
            raise InputError(f"{pairs:,} plans; allowed: up to {_MOST:,}. Restrict an axis (search.axes, --axis).")
        priced, refused, count = price.together(asked, load, form, parts)
        return _Form(form, spaces, found, priced, refused, count)

    # service

    def _serve(self, forms: Sequence[_Form], ranks: _Ranks) -> tuple[dict[tuple[int, int], Result], int]:
        """The best as priced, until no other plan could do better that would keep the promise if it were priced as
        badly as the worst of those that were served."""
        served: dict[tuple[int, int], Result] = {}
        unfit = 0
        while len(served) + unfit < _MORE * self.keep:
            left = ranks.left(served, unfit, self.keep)
            batch = left[: max(self.keep - len(served) - unfit, min(_AT_ONCE, self.keep))]
            if not batch:
                break
            for place, became in zip(batch, self._outcomes([self._run_of(forms, one) for one in batch]), strict=True):
                if isinstance(became, Result):
                    served[place] = became
                else:
                    unfit += 1
                    ranks.out(place)
        return served, unfit

    def _outcomes(self, runs: Sequence[Run]) -> list[results.Outcome]:
        """What becomes of runs, those that the store has already among them."""
        scenario = dataclasses.replace(self.scenario, runs=tuple(runs)).recorded("summary")
        store = results.Store(self.out / STORE) if self.out is not None else None
        tell = None if self.progress is None else _named(self.progress)
        new = list(api.outcomes(scenario, machines=self.machines, jobs=self.jobs, store=store, progress=tell))
        if store is None:
            return new
        # a store knows a run by what it says; labels are this search's
        return list(store.results(api.digests(scenario, self.machines)))

    def _given(self) -> tuple[Result | None, str]:
        """The plan as the scenario has it, served like the others."""
        became = self._outcomes([self.asked.one])[0]
        return (became, "") if isinstance(became, Result) else (None, became.message)

    def _run_of(self, forms: Sequence[_Form], place: tuple[int, int]) -> Run:
        """The run of a plan, labelled by the keys that were varied."""
        one = forms[place[0]]
        plan = self.plan(one, place[1])
        spec = axes.settled(axes.pooled(self.asked.spec, one.form), plan)
        identity = self.asked.one.identity
        point = {f"workloads.{identity.workload}.{key}": value for key, value in plan.items()}
        named_ = Identity(identity.workload, identity.entry, {**identity.point, **point})
        return dataclasses.replace(self.asked.one, identity=named_, spec=spec)

    def plan(self, one: _Form, row: int) -> dict[str, Any]:
        """Values of all keys of a plan."""
        out: dict[str, Any] = {}
        for made, plans in zip(one.spaces, one.priced.pools, strict=True):
            shape: PoolShape = made.shapes[int(plans.shape[row])][0]
            counted = {"batching.sequences": int(plans.cap[row]), "replicas": int(plans.copies[row])}
            out |= named(made.pool, {**shape.values, **counted})
        return out

    # what is said

    def _found(
        self,
        values: Mapping[tuple[str, ...], Mapping[str, tuple[Any, ...]]],
        forms: Sequence[_Form],
        load: Traffic,
        ranks: _Ranks,
        served: Mapping[tuple[int, int], Result],
        unfit: int,
        refused: Counter[str],
        count: int,
        given: Result | None,
        why: str,
        notes: Sequence[str],
    ) -> ServiceResult:
        slo = self.asked.spec.slo
        order = sorted(
            served.items(),
            key=lambda one: (
                not kept(one[1], slo),
                score(one[1], self.objective),
                float(one[1].metrics.get("energy_per_token_J", 0.0)),
                one[0],
            ),
        )
        listed = [one for _, one in order]
        best = listed[0]
        priced = sum(len(one.priced) for one in forms)
        pruned = ranks.pruned(served, best) if kept(best, slo) else 0
        if given is not None and given.run not in {one.run for one in listed}:
            listed.append(given)
        rate = load.rate_per_s or float(best.metrics.get("requests_per_s", 0.0))
        counts = Counts(
            plans=count,
            refused=dict(refused.most_common()),
            priced=priced,
            simulated=len(served),
            pruned=pruned,
            left=priced - unfit - len(served) - pruned,
            unfit=unfit,
        )
        keys = {key: its for one in values.values() for key, its in one.items() if len(its) > 1}
        if len(values) > 1:
            keys = {axes.POOLS: tuple(len(form) for form in values), **keys}
        return ServiceResult(
            question=self.asked.one.key,
            system=self.asked.one.system.label,
            objective=self.objective,
            axes=keys,
            counts=counts,
            table=_table(self, forms, ranks, served, slo),
            points=_points(forms, load),
            results=Results(
                listed, scenario=dict(self.scenario.data), manifest=api.manifest(self.scenario, self.machines.loaded())
            ),
            slo=slo,
            rate_per_s=rate,
            least=self._least(load, rate),
            given=given.run if given is not None else "",
            given_why=why,
            notes=tuple(notes),
        )

    def _least(self, load: Traffic, rate: float) -> LeastMachine:
        asked = self.asked
        return least_machine(asked.spec, asked.system, asked.model, load.mix, rate, first=load.first, base=asked.base)

    def _none(self, refused: Counter[str], count: int, load: Traffic) -> InfeasibleError:
        reasons = ", ".join(f"{many:,} {reason}" for reason, many in refused.most_common())
        message = f"{self.asked.one.key}: none of {count:,} plans goes: {reasons}"
        if load.rate_per_s:
            least = self._least(load, load.rate_per_s)
            message += f". A perfect system takes {least.accelerators:.3g} accelerators ({least.name})"
        return InfeasibleError(message)


class _Ranks:
    """In which order plans are served: those priced to keep the promise first, each by its score."""

    def __init__(self, asked: ServiceQuestion, objective: Objective, forms: Sequence[_Form]):
        self._slo, self._objective = asked.spec.slo, objective
        self.place = [(number, row) for number, one in enumerate(forms) for row in range(len(one.priced))]
        self.margin = _joined(forms, "margin")
        self.spare = _joined(forms, "spare")
        tokens, most = _joined(forms, "tokens_per_s"), _joined(forms, "tokens_most")
        accelerators = _joined(forms, "accelerators")
        watts, idle_W = _joined(forms, "watts"), _joined(forms, "idle_W")
        each_USD = asked.system.spec.facility.price_per_accelerator_hour_USD or 0.0
        #: less is better, as `score` has it of results; ``bound``: no run is better
        self.score, self.bound = {
            "tokens_per_s_per_accelerator": (-tokens / accelerators, -most / accelerators),
            "tokens_per_joule": (-tokens / watts, -most / idle_W),
            "dollars_per_token": tuple(
                cost.million_USD(1.0, 1.0) * each_USD * accelerators / one for one in (tokens, most)
            ),
            "accelerators": (accelerators, accelerators),
        }[objective.name]
        self._joules = watts / tokens
        self._gone: set[int] = set()
        self._row = {place: row for row, place in enumerate(self.place)}

    def out(self, place: tuple[int, int]) -> None:
        """A plan that was refused when it was made whole."""
        self._gone.add(self._row[place])

    def left(self, served: Mapping[tuple[int, int], Result], unfit: int, keep: int) -> list[tuple[int, int]]:
        """Plans to serve next, the best first; none where no other could do better."""
        open_ = np.ones(len(self.place), bool)
        open_[[self._row[one] for one in served]] = False
        open_[list(self._gone)] = False
        best = [self._value(one) for one in served.values() if kept(one, self._slo)]
        likely, hopeful = self._by_margin(served)
        order = np.lexsort((self._joules, self.score, self.spare > 0, ~likely))
        if len(served) + unfit >= keep and best:
            open_ &= self.bound < min(best)
            open_ &= self.score * (1 - np.sign(self.score) * self._error(served)) < min(best)
            open_ &= hopeful & (self.spare == 0)
        if served and not best:  # nothing keeps the promise so far: those that miss it least go first
            order = np.lexsort((self.score, self.margin, self.spare > 0, ~(likely & (self.margin <= 1))))
        return [self.place[row] for row in order.tolist() if open_[row]]

    def pruned(self, served: Mapping[tuple[int, int], Result], best: Result) -> int:
        """Plans, others than those served, whose bound is no better than the best."""
        beaten = self.bound >= self._value(best)
        beaten[[self._row[one] for one in served]] = False
        beaten[list(self._gone)] = False
        return int(beaten.sum())

    def _value(self, one: Result) -> float:
        return score(one, self._objective)

    def _error(self, served: Mapping[tuple[int, int], Result]) -> float:
        """By how much a plan was better than priced, at most. [1]"""
        found = [1 - self._value(one) / self.score[self._row[place]] for place, one in served.items()]
        signs = [math.copysign(1.0, self._value(one)) for one in served.values()]
        return float(max([0.0, *(sign * error for sign, error in zip(signs, found, strict=True))]))

    def _by_margin(self, served: Mapping[tuple[int, int], Result]) -> tuple[Bools, Bools]:
        """Plans that are likely to keep the promise, and those that would if they were priced as badly as the worst."""
        ratios = []
        for place, one in served.items():
            had, told = missed(one, self._slo), self.margin[self._row[place]]
            if had == had and told > 0:
                ratios.append(had / told)
        if not ratios:
            return self.margin <= _SLACK, self.margin <= _SLACK
        return self.margin * float(np.median(ratios)) <= 1, self.margin * min(ratios) <= 1


def _joined(forms: Sequence[_Form], name: str) -> Floats:
    return np.concatenate([np.asarray(getattr(one.priced, name), float) for one in forms])


def _told(progress: Progress, what: str) -> Callable[[float], None]:
    return lambda share: progress(what, share)


def _named(progress: Progress) -> Progress:
    return lambda key, share: progress(f"service: {key}", share)


def _table(
    of: _Seek, forms: Sequence[_Form], ranks: _Ranks, served: Mapping[tuple[int, int], Result], slo: Any
) -> dict[str, Any]:
    """Plans that may go, in columns: those priced to keep the promise first, by their score."""
    order = np.lexsort((np.arange(len(ranks.place)), ranks.score, ranks.spare > 0, ranks.margin > 1))
    places = [ranks.place[row] for row in order.tolist()]
    plans = [of.plan(forms[number], row) for number, row in places]
    keys = dict.fromkeys(key for plan in plans for key in plan)
    out: dict[str, Any] = {}
    for key in keys:
        values = [plan.get(key, "") for plan in plans]
        out[key] = np.array(values, dtype=object if len({type(one) for one in values}) > 1 else None)
    for name in ("accelerators", "busy", "first_s", "token_s", "margin", "tokens_per_s", "tokens_most", "watts"):
        head = "all_accelerators" if name == "accelerators" else name
        out[head] = _joined(forms, name)[order]
    ran = [served.get(place) for place in places]
    nan = float("nan")
    out["outcome"] = np.array(
        ["priced" if one is None else "kept" if kept(one, slo) else "missed" for one in ran], object
    )
    for name, metric in (("served_first_s", "ttft_mean_s"), ("served_token_s", "tpot_mean_s")):
        out[name] = np.array([nan if one is None else float(one.metrics.get(metric, nan)) for one in ran])
    out["run"] = np.array(["" if one is None else one.run for one in ran], object)
    return out


def _points(forms: Sequence[_Form], load: Traffic) -> dict[str, Any]:
    """Where pools can be run, with the keys of their shapes."""
    columns: list[dict[str, Any]] = []
    for one in forms:
        parts = {made.pool: list(enumerate(found)) for made, found in zip(one.spaces, one.curves, strict=True)}
        told = price.front_points(load, parts)
        if not told:
            continue
        last = one.spaces[-1]
        for row in range(len(told["shape"])):
            said = named(last.pool, last.shapes[int(told["shape"][row])][0].values)
            if told["prefill"] >= 0:
                first = one.spaces[0]
                said = {**named(first.pool, first.shapes[told["prefill"]][0].values), **said}
            numbers = {name: told[name][row].item() for name in ("sequences", "user", "each", "megawatt")}
            columns.append({**said, **numbers})
    heads = dict.fromkeys(key for one in columns for key in one)
    out: dict[str, Any] = {}
    for key in heads:
        values = [one.get(key, "") for one in columns]
        out[key] = np.array(values, dtype=object if len({type(one) for one in values}) > 1 else None)
    return out
