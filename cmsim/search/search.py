"""The whole search on one page: axes, space, probes, prices, simulation of the best, and what is to be said of it.

Of a training run; services have other axes and another price, and are searched by `cmsim.search.services`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmsim import api, cost, results
from cmsim.arrays import Floats
from cmsim.errors import InfeasibleError, InputError, Problem, did_you_mean
from cmsim.graphs.load import find_model, load_any
from cmsim.identity import Identity
from cmsim.kinds.serving import ServingSpec
from cmsim.kinds.training import TrainingSpec
from cmsim.results import Result, Results
from cmsim.scenario import Run, Scenario, load_scenario
from cmsim.search import axes, price, probes, services
from cmsim.search.axes import Question
from cmsim.search.folder import STORE
from cmsim.search.found import OBJECTIVES, Counts, Objective, SearchResult, table_of
from cmsim.search.space import Space, space
from cmsim.workload.generate.choices import sizes
from cmsim.workload.model import ModelSpec

#: plans that are simulated where nobody says how many
KEEP = 8
#: so many times as many are simulated, at most, where pricing leaves it open who wins
_MORE = 2
#: metrics of what engines draw beyond being at work
_ENGINES = ("power_accelerators_compute_W", "power_accelerators_memory_W", "power_accelerators_link_W")

Progress = Callable[[str, float], None]


def questions(scenario: Scenario | str | Path | Mapping[str, Any], set: Mapping[str, Any] | None = None) -> Scenario:
    """A scenario with its training runs and services alone.

    Raises InputError where it has none, or one leaves keys open to `best`.
    """
    if set or not isinstance(scenario, Scenario):
        scenario = load_scenario(scenario, set=set)
    runs = [one for one in scenario.runs if isinstance(one.spec, TrainingSpec | ServingSpec)]
    if not runs:
        kinds = ", ".join(dict.fromkeys(one.spec.kind for one in scenario.runs))
        raise InputError(
            Problem(
                f"has no workload to search a plan for. Allowed: kind: training, serving; got {kinds}.",
                scenario.file,
            )
        )
    left_open = next((one for one in runs if one.open), None)
    if left_open is not None:
        keys = ", ".join(key.key for key in left_open.open)
        raise InputError(
            Problem(f"{left_open.key} leaves {keys} to `best`; a search decides by itself. Give values.", scenario.file)
        )
    return dataclasses.replace(scenario, runs=tuple(runs))


def search(
    scenario: Scenario | str | Path | Mapping[str, Any],
    *,
    set: Mapping[str, Any] | None = None,
    objective: str | None = None,
    keep: int | None = None,
    over: Mapping[str, Sequence[Any]] | None = None,
    out: str | Path | None = None,
    jobs: int | None = 1,
    progress: Progress | None = None,
) -> SearchResult | services.ServiceResult:
    """The best plan of the one training run or service of a scenario.

    set        dotted keys to change first    keep  plans that are simulated
    objective  one of ``OBJECTIVES``, of a service of ``services.OBJECTIVES``
    over       axis -> values to try, beside those of the scenario's ``search.axes``
    out        folder to write; simulations that it has already are passed over
    jobs       processes; None: as many as cores, where that is sooner

    Raises InputError for what is wrong with the question, InfeasibleError where no plan goes, with the reasons counted.
    """
    asked_of = questions(scenario, set)
    if len(asked_of.runs) > 1:
        raise InputError(f"a search is of one training run or service; the scenario has {len(asked_of.runs)}")
    if isinstance(asked_of.runs[0].spec, ServingSpec):
        folder = Path(out) if out is not None else None
        return services.seek(
            asked_of, objective=objective, keep=keep, over=over or {}, out=folder, jobs=jobs, progress=progress
        )
    said = dict(asked_of.data.get("search") or {})
    objective_ = _objective(objective or said.get("objective") or next(iter(OBJECTIVES)))
    keep = keep or int(said.get("keep", KEEP))
    one = asked_of.runs[0]
    machines = api.Machines(asked_of.base)
    asked = _question(one, machines, asked_of)
    if objective_.name == "dollars_per_token" and not cost.rent(asked.system)[0]:
        raise InputError(Problem(cost.rent(asked.system)[1][0], key="search.objective"))
    values = axes.values_of(asked, {**dict(said.get("axes") or {}), **dict(over or {})})
    of = _Search(
        asked_of, one, machines, asked, objective_, keep, Path(out) if out is not None else None, jobs, progress
    )
    return of.run(values)


def load(folder: str | Path) -> SearchResult | services.ServiceResult:
    """What a search left in a folder, of whatever it was. Raises InputError for a folder that is none of a search."""
    try:
        return services.ServiceResult.load(folder)
    except InputError:
        return SearchResult.load(folder)


def _objective(name: str) -> Objective:
    if name not in OBJECTIVES:
        raise InputError(Problem(f"no such objective. {did_you_mean(name, OBJECTIVES)}", key="search.objective"))
    return OBJECTIVES[name]


def _question(one: Run, machines: api.Machines, scenario: Scenario) -> Question:
    assert isinstance(one.spec, TrainingSpec)
    model = load_any(one.spec.model, base=scenario.base, sizes=dict(one.spec.dims))
    if not isinstance(model, ModelSpec):
        name = find_model(one.spec.model, base=scenario.base).name
        raise InputError(Problem(f"{name} is a graph, which runs data parallel only: there is one plan", scenario.file))
    if not one.spec.sequence_length:
        raise InputError(Problem("the key is required for a model of text", scenario.file, key="sequence_length"))
    return Question(axes.plain(one.spec), machines(one), model, scenario.base)


@dataclasses.dataclass
class _Search:
    scenario: Scenario
    one: Run
    machines: api.Machines
    asked: Question
    objective: Objective
    keep: int
    out: Path | None
    jobs: int | None
    progress: Progress | None
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def run(self, values: Mapping[str, tuple[Any, ...]]) -> SearchResult:
        made = self._timed("plans", lambda said: space(self.asked, values, said))
        priced = int(sum(int(block.goes.sum()) for block in made.blocks))
        if not priced:
            raise _none(made)
        wanted, alike = price.wanted(made), dataclasses.replace(self.one, spec=self.asked.spec)
        answers = self._timed(
            "probes", lambda said: probes.measure(alike, self.asked, wanted, jobs=self.jobs, progress=said)
        )
        self._timed("prices", lambda said: price.price(made, answers, said))
        given, why = self._given()
        simulated, unfit = self._simulate(made, given)
        if not simulated:
            raise _none(made)
        return self._found(made, priced, simulated, unfit, given, why)

    def _timed(self, what: str, work: Callable[[Callable[[float], None] | None], Any]) -> Any:
        begin_s = time.monotonic()
        tell = self.progress
        answer = work(None if tell is None else lambda share: tell(what, share))
        self.seconds[what] = time.monotonic() - begin_s
        return answer

    # simulation

    def _given(self) -> tuple[Result | None, str]:
        """The plan as the scenario has it, simulated like the others."""
        became = self._outcomes([self.one])[0]
        return (became, "") if isinstance(became, Result) else (None, became.message)

    def _outcomes(self, runs: Sequence[Run]) -> list[results.Outcome]:
        """What becomes of runs, those that the store has already among them."""
        scenario = dataclasses.replace(self.scenario, runs=tuple(runs)).recorded("summary")
        store = results.Store(self.out / STORE) if self.out is not None else None
        begin_s = time.monotonic()
        tell = self.progress
        said = None if tell is None else lambda key, share: tell(f"simulation: {key}", share)
        new = list(api.outcomes(scenario, machines=self.machines, jobs=self.jobs, store=store, progress=said))
        self.seconds["simulation"] = self.seconds.get("simulation", 0.0) + time.monotonic() - begin_s
        if store is None:
            return new
        # a store knows a run by what it says; labels are this search's
        return list(store.results(api.digests(scenario, self.machines)))

    def _simulate(self, made: Space, given: Result | None) -> tuple[dict[tuple[int, int], Result], int]:
        """The best as priced, until so many have a result and the next would have to be priced worse than any was to
        win; those that cannot win any more are passed over."""
        score = self._scores(made, given)
        places = [
            (number, at) for number, flat in enumerate(score) for at in np.flatnonzero(np.isfinite(flat)).tolist()
        ]
        places.sort(key=lambda place: (score[place[0]][place[1]], place))
        done: dict[tuple[int, int], Result] = {}
        unfit = at = 0
        while at < len(places):
            open_ = self.keep - len(done)
            if open_ <= 0 and (len(done) >= _MORE * self.keep or self._late(score, places[at], done)):
                break
            batch = places[at : at + max(open_, 2)]
            at += len(batch)
            batch = [place for place in batch if not self._beaten(made, place, done)]
            runs = [self._run_of(made, place) for place in batch]
            for place, became in zip(batch, self._outcomes(runs) if runs else (), strict=True):
                if isinstance(became, Result):
                    done[place] = became
                else:
                    unfit += 1
                    made.blocks[place[0]].reason.ravel()[place[1]] = made.code("refused when it was made whole")
        return done, unfit

    def _late(self, score: Sequence[Floats], place: tuple[int, int], done: Mapping[tuple[int, int], Result]) -> bool:
        """Whether a plan would still lose if it were as much better than priced as the best of those simulated."""
        ratios = [self._less(one) / score[at[0]][at[1]] for at, one in done.items()]
        return bool(score[place[0]][place[1]] * min(ratios) >= min(map(self._less, done.values())))

    def _less(self, one: Result) -> float:
        """What the objective comes to, in what plans are ordered by: seconds, or joules."""
        step_s = one.metric("step_time_s")
        return float(step_s * one.metric("power_avg_W") if self.objective.name == "tokens_per_joule" else step_s)

    def _beaten(self, made: Space, place: tuple[int, int], done: Mapping[tuple[int, int], Result]) -> bool:
        if self.objective.name == "tokens_per_joule" or not done:
            return False
        best_s = min(one.metric("step_time_s") for one in done.values())
        return bool(made.blocks[place[0]].bound_s.ravel()[place[1]] >= best_s)

    def _scores(self, made: Space, given: Result | None) -> list[Floats]:
        """What plans are ordered by, less is better: time, or energy as of what the file's own plan draws."""
        times = [block.time_s.ravel() for block in made.blocks]
        if self.objective.name != "tokens_per_joule":
            return times
        place = min(
            ((number, int(np.nanargmin(flat))) for number, flat in enumerate(times) if np.isfinite(flat).any()),
            key=lambda one: times[one[0]][one[1]],
        )
        became = given or self._outcomes([self._run_of(made, place)])[0]
        if not isinstance(became, Result):
            return times
        engines_W = sum(float(became.metrics.get(name, 0.0)) for name in _ENGINES)
        # losses and cooling go with what engines draw
        whole_W, packages_W = became.metric("power_avg_W"), became.metric("power_packages_W")
        engines_W *= whole_W / packages_W
        step_s = became.metric("step_time_s")
        busy_s = step_s * float(became.breakdown.get("compute_s", step_s)) / step_s
        watts = engines_W * step_s / busy_s
        return [(whole_W - engines_W) * block.time_s.ravel() + watts * block.busy_s.ravel() for block in made.blocks]

    def _run_of(self, made: Space, place: tuple[int, int]) -> Run:
        """The run of a plan, labelled by the keys that were varied."""
        plan = made.plan(made.blocks[place[0]], place[1])
        spec = self.asked.spec
        spec = axes.settled(spec, plan)
        varied = {key for key, values in made.values.items() if len(values) > 1} | {"parallel.dp"}
        identity = self.one.identity
        point = {f"workloads.{identity.workload}.{key}": value for key, value in plan.items() if key in varied}
        named = Identity(identity.workload, identity.entry, {**identity.point, **point})
        return dataclasses.replace(self.one, identity=named, spec=spec)

    # what is said

    def _found(
        self,
        made: Space,
        priced: int,
        simulated: Mapping[tuple[int, int], Result],
        unfit: int,
        given: Result | None,
        why: str,
    ) -> SearchResult:
        sign = -1.0 if self.objective.more else 1.0
        order = sorted(simulated.items(), key=lambda one: (sign * one[1].metric(self.objective.metric), one[0]))
        best = order[0][1]
        bounds = np.concatenate([block.bound_s[block.goes] for block in made.blocks])
        apart = self.objective.name != "tokens_per_joule"
        beaten = int((bounds >= best.metric("step_time_s")).sum()) if apart else 0
        pruned = beaten - (sum(self._beaten_by(made, place, best) for place in simulated) if apart else 0)
        listed = [one for _, one in order]
        if given is not None and given.run not in {one.run for one in listed}:
            listed = [*listed, given]
        counts = Counts(
            plans=made.plans,
            refused=made.counts(),
            priced=priced,
            simulated=len(simulated),
            pruned=pruned,
            left=priced - unfit - len(simulated) - pruned,
            unfit=unfit,
        )
        return SearchResult(
            question=self.one.key,
            objective=self.objective,
            axes={key: values for key, values in made.values.items() if len(values) > 1},
            counts=counts,
            table=table_of(made, simulated=simulated),
            results=Results(
                listed,
                scenario=dict(self.scenario.data),
                manifest=api.manifest(self.scenario, self.machines.loaded()),
            ),
            given=given.run if given is not None else "",
            given_why=why,
            least_s=float(best.bound["time_s"]),
            bound_s=float(bounds.min()),
            tokens=float(self.asked.spec.global_batch * self.asked.spec.sequence_length),
            accelerators=best.accelerators,
            notes=self._left_out(made),
        )

    def _left_out(self, made: Space) -> list[str]:
        """What axes leave out unless somebody asks, where that is something."""
        every = sizes("parallel.cp", self.asked.spec, self.asked.system, base=self.asked.base)
        if len(made.values.get("parallel.cp", ())) >= len(every):
            return []
        return [
            f"context parallelism was tried on chunks of {axes.CHUNK:,} tokens or more (--axis cp=[...] for others)"
        ]

    def _beaten_by(self, made: Space, place: tuple[int, int], best: Result) -> bool:
        return bool(made.blocks[place[0]].bound_s.ravel()[place[1]] >= best.metric("step_time_s"))


def _allowed(made: Space) -> str:
    """Values that divide, of the axes that somebody gave others."""
    own = axes.values_of(made.asked, {})
    odd = [
        key for key, values in made.values.items() if key in own and not {*map(str, values)} <= {*map(str, own[key])}
    ]
    return "".join(f". {key}: those that divide are {', '.join(map(str, own[key]))}" for key in odd)


def _none(made: Space) -> InfeasibleError:
    """Why no plan goes: by reason, and how near the nearest of those is that only lack memory."""
    counted = "; ".join(f"{count:,} {reason}" for reason, count in made.counts().items())
    room_B = made.asked.system.rank_memory_B
    nearest: tuple[float, str] | None = None
    for block in made.blocks:
        needs_B = np.where(block.memory_B > 0, block.memory_B, np.inf)
        at = int(np.argmin(needs_B))
        need_B = float(needs_B.ravel()[at])
        if np.isfinite(need_B) and (nearest is None or need_B < nearest[0]):
            plan = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in made.plan(block, at).items())
            nearest = need_B, plan
    text = f"none of {made.plans:,} plans goes: {counted}"
    if nearest is None:
        return InfeasibleError(text + _allowed(made))
    text += f". Nearest: {nearest[1]} needs {nearest[0] / 1e9:.1f} GB of {room_B / 1e9:.1f} GB a rank"
    return InfeasibleError(text, budget={"what": "memory", "needed_B": nearest[0], "available_B": float(room_B)})
