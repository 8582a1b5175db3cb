"""A run of one step: who does what when, how long it takes, and what it draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim import cost, energy, results
from cmsim.arrays import Floats
from cmsim.errors import InfeasibleError, Problem
from cmsim.execution import options_of
from cmsim.hardware import System
from cmsim.kinds import Executed
from cmsim.kinds.rl_step import RlStepFacts, RlStepSpec
from cmsim.reinforcement import rollout as making
from cmsim.reinforcement import weights
from cmsim.reinforcement.rollout import Rollout
from cmsim.reinforcement.training import Trainers, said_of, trainers
from cmsim.scenario import Run
from cmsim.serving.idle import idle_W
from cmsim.units import GB, GIGA

#: who is at work, as the frame of parts has them
_ALL, _TRAINERS, _MAKERS = "all", "trainers", "rollout"
#: what a step is made of; beside these there is waiting
_PARTS = ("rollout", "reward", "forward", "training", "weights", "offload")


def execute(
    run: Run, system: System, *, base: Path | None, progress: Callable[[float], None] | None = None
) -> Executed:
    """One step of reinforcement learning. Raises InfeasibleError where a part of it has no room or no plan."""
    spec = run.spec
    assert isinstance(spec, RlStepSpec)
    copies, training_packages = _pools(spec, system)
    with said_of("rollout"):
        made = making.rollout(run, spec, system, copies, base)
    if progress is not None:
        progress(0.4)
    tokens = int(made.asked.prompt.sum() + made.asked.output.sum())
    trained = trainers(run, spec, training_packages, tokens, base)
    if progress is not None:
        progress(0.9)
    step = _Step.of(run, spec, system, made, trained)
    return step.executed(run.record == "full")


def _pools(spec: RlStepSpec, system: System) -> tuple[int, int]:
    """Copies that make answers, and packages that train. Raises InfeasibleError where the machine has not as many."""
    each, there = spec.rollout.accelerators, system.packages
    together = spec.pools == "colocated"
    copies = spec.rollout.replicas or max((there if together else there // 2) // each, 1)
    taken = copies * each
    room = there if together else there - 1
    if taken > room:
        most = f"{room // each} copies of {each}" if each <= room else f"copies of up to {room}"
        left = "" if together else ", one of which trains at least"
        message = f"{copies} copies of {each} accelerators; {system.name} has {there}{left}. Allowed: {most}."
        raise InfeasibleError(Problem(message, key="rollout.replicas" if each <= room else "rollout.accelerators"))
    return copies, there if together else there - taken


@dataclass(frozen=True)
class _Part:
    """pool at work, accelerators of it, begin and end [s], facility energy: the least, the middle, the most [J]"""

    name: str
    pool: str
    accelerators: int
    start_s: float
    end_s: float
    joules: Floats


class _Day:
    """Parts of a step as they are put on its clock."""

    def __init__(self, step: _Step):
        self._step = step
        self.parts: list[_Part] = []

    def add(
        self, name: str, pool: str, accelerators: int, start_s: float, seconds: float, joules: Floats | None = None
    ) -> float:
        """When it ends; without energy of its own its accelerators wait. [s]"""
        if seconds > 0:
            its = self._step.waits_J(accelerators, seconds) if joules is None else joules
            self.parts.append(_Part(name, pool, accelerators, start_s, start_s + seconds, its))
        return start_s + seconds


@dataclass(frozen=True)
class _Step:
    """A step with all that was worked out of it. offload_B: what a rank moves to its host, and back later [B]"""

    spec: RlStepSpec
    system: System
    made: Rollout
    trained: Trainers
    moved: weights.Moved
    offload_B: float

    @classmethod
    def of(cls, run: Run, spec: RlStepSpec, system: System, made: Rollout, trained: Trainers) -> _Step:
        offload_B = _offloaded_B(spec, trained, made)
        if spec.pools == "colocated":
            sharded = spec.training.fsdp != "none"
            programs = weights.by_turns(trained.layout, made.weights_B, sharded=sharded)
        else:
            makers = made.accelerators * system.ranks_per_package
            programs = weights.apart(trained.layout.ranks, makers, made.weights_B)
        none = weights.Moved(0.0, np.zeros(3))
        like = replace(run, spec=spec.training)
        moved = none if programs is None else weights.played(programs, system, options_of(like, system))
        return cls(spec, system, made, trained, moved, offload_B)

    @property
    def offload_s(self) -> float:
        """Out and in again, over every rank's share of its package's link to the host. [s]"""
        if not self.offload_B:
            return 0.0
        host_GBps = self.system.accelerator.host_GBps
        if host_GBps is None:
            name = self.system.accelerator.name
            message = f"how fast {name} copies to its host is not known; set accelerator.host_GBps, or move nothing"
            raise InfeasibleError(Problem(message, key="offload"))
        return 2 * self.offload_B / (host_GBps * GIGA / self.system.ranks_per_package)

    @property
    def accelerators(self) -> int:
        """In use: of all that take turns, or of both pools."""
        trains = self.trained.system.packages
        return trains if self.spec.pools == "colocated" else trains + self.made.accelerators

    def parts(self) -> list[_Part]:
        """What happens in a step, in order. Who has nothing to do waits, and that is a part too."""
        return self._by_turns() if self.spec.pools == "colocated" else self._apart()

    def _by_turns(self) -> list[_Part]:
        """All accelerators do everything, one thing after the other."""
        day, made, trains = _Day(self), self.made, self.trained.system.packages
        rest_J = self.waits_J(trains - made.accelerators, made.seconds)
        at = day.add("offload", _ALL, trains, 0.0, self.offload_s / 2)
        at = day.add("rollout", _ALL, trains, at, made.seconds, made.joules + rest_J)
        at = day.add("reward", _ALL, trains, at, self.spec.reward_s)
        at = day.add("offload", _ALL, trains, at, self.offload_s / 2)
        at = self._learn(day, _ALL, at)
        day.add("weights", _ALL, trains, at, self.moved.seconds, self._moved_J())
        return day.parts

    def _apart(self) -> list[_Part]:
        """Makers of answers and trainers, one after the other or at once; weights go when both are done."""
        day, made, trains = _Day(self), self.made, self.trained.system.packages
        makers = made.accelerators
        done = day.add("rollout", _MAKERS, makers, 0.0, made.seconds, made.joules)
        done = day.add("reward", _MAKERS, makers, done, self.spec.reward_s)
        begins = 0.0 if self.spec.pools == "one_step_off" else day.add("wait", _TRAINERS, trains, 0.0, done)
        learnt = self._learn(day, _TRAINERS, begins)
        ends = max(learnt, done)
        day.add("wait", _TRAINERS, trains, learnt, ends - learnt)
        day.add("wait", _MAKERS, makers, done, ends - done)
        day.add("weights", _ALL, self.accelerators, ends, self.moved.seconds, self._moved_J())
        return day.parts

    def _learn(self, day: _Day, pool: str, at: float) -> float:
        """Passes and updates; when they are done. [s]"""
        trains = self.trained.system.packages
        for seconds, joules in self.trained.passes:
            at = day.add("forward", pool, trains, at, seconds, joules)
        return day.add("training", pool, trains, at, *self.trained.training)

    def _moved_J(self) -> Floats:
        """Energy of moving weights, of the accelerators in use. [J]"""
        joules: Floats = self.moved.joules
        idle = self.system.packages - self.accelerators
        return joules - self.waits_J(idle, self.moved.seconds) if idle else joules

    def waits_J(self, packages: int, seconds: float) -> Floats:
        """Of accelerators that wait. [J]"""
        if not packages:
            return np.zeros(3)
        low, middle, high = idle_W(replace(self.system, packages=packages))
        return np.array([low, middle, high]) * seconds

    def executed(self, full: bool) -> Executed:
        """As the flow takes it."""
        parts = self.parts()
        frames: dict[str, Mapping[str, NDArray[Any]]] = {}
        if full:
            frames = {"parts": _frame(parts), "answers": self.made.frame(self.spec.samples)}
        made, trained = self.made, self.trained
        return Executed(
            metrics=self._metrics(parts),
            frames=frames,
            facts=RlStepFacts(
                answers=float(len(made.asked)),
                prompt_tokens=float(made.asked.prompt.sum()),
                answer_tokens=float(made.asked.output.sum()),
                replicas=float(made.machine.pool.replicas),
                trainers=float(trained.system.packages),
                updates=float(trained.updates),
                sequences=float(trained.sequences),
                weights_B=made.weights_B,
                moved_B=self.offload_B,
            ),
            accelerators=self.accelerators,
            ranks=self.accelerators * self.system.ranks_per_package,
            plan=self._plan(),
            notes=self._notes(),
        )

    def _metrics(self, parts: list[_Part]) -> dict[str, float | str]:
        made, step_s = self.made, max(part.end_s for part in parts)
        of = {name: sum(part.end_s - part.start_s for part in parts if part.name == name) for name in _PARTS}
        answers = float(made.asked.output.sum())
        tokens_per_s = (float(made.asked.prompt.sum()) + answers) / step_s
        rests = [part for part in parts if part.name in ("wait", "reward")]
        waits = sum(part.accelerators * (part.end_s - part.start_s) for part in rests)
        waits += made.idle_fraction * made.accelerators * made.seconds
        if self.spec.pools == "colocated":
            waits += (self.accelerators - made.accelerators) * made.seconds
        update = self.trained.update
        return {
            "step_time_s": step_s,
            "rollout_s": of["rollout"],
            "rollout_tail_s": made.tail_s,
            "reward_s": of["reward"],
            "forward_s": of["forward"],
            "training_s": of["training"],
            "weights_s": of["weights"],
            "offload_s": of["offload"],
            "tokens_per_s": tokens_per_s,
            "tokens_per_s_per_accelerator": tokens_per_s / self.accelerators,
            "answer_tokens_per_s": answers / step_s,
            "rollout_tokens_per_s": answers / made.seconds,
            "rollout_idle_fraction": made.idle_fraction,
            "idle_fraction": waits / (self.accelerators * step_s),
            "training_mfu": update.metric("mfu"),
            "makespan_s": step_s,
            "memory_peak_B": update.metric("memory_peak_B"),
            **self._power(parts, step_s, tokens_per_s),
        }

    def _power(self, parts: list[_Part], step_s: float, tokens_per_s: float) -> dict[str, float | str]:
        used = replace(self.system, packages=self.accelerators)
        low, middle, high = np.sum([part.joules for part in parts], axis=0).tolist()
        power: dict[str, float] = {"energy_J": middle, "power_avg_W": middle / step_s}
        if high > low:
            power |= {"energy_J_low": low, "energy_J_high": high}
            power |= {"power_avg_W_low": low / step_s, "power_avg_W_high": high / step_s}
        of_kWh = self.system.spec.facility.carbon_g_per_kWh
        if of_kWh is not None:
            power["carbon_g"] = energy.carbon_g(middle, of_kWh)
        power |= cost.rent(used)[0]
        return {**results.per_token(tokens_per_s, power), **power}

    def _plan(self) -> dict[str, Any]:
        sizes = {f"training_{name}": size for name, size in self.trained.layout.sizes.items()}
        machine = self.made.machine
        return {
            **sizes,
            "updates": self.trained.updates,
            "copies": machine.pool.replicas,
            "accelerators_each": machine.system.packages,
            "holders_each": machine.pool.holders,
            "cache_tokens": machine.cache_tokens,
        }

    def _notes(self) -> tuple[str, ...]:
        made = self.made
        said = list(self.trained.notes)
        if made.error is not None:
            said.append(
                f"steps of the rollout are told between {made.points} points that are played: at what was most of it "
                f"they miss by {made.error:.1%}"
            )
        said.append("no published step of reinforcement learning stands beside this: its parts are validated, not it")
        return tuple(dict.fromkeys(said))


def _frame(parts: list[_Part]) -> Mapping[str, NDArray[Any]]:
    return {
        "part": np.array([part.name for part in parts], dtype=object),
        "pool": np.array([part.pool for part in parts], dtype=object),
        "accelerators": np.array([part.accelerators for part in parts]),
        "start_s": np.array([part.start_s for part in parts]),
        "end_s": np.array([part.end_s for part in parts]),
        "energy_J": np.array([part.joules[1] for part in parts]),
    }


def _offloaded_B(spec: RlStepSpec, trained: Trainers, made: Rollout) -> float:
    """What a rank moves to its host, and back later. Raises InfeasibleError where what stays leaves no room. [B]"""
    if spec.pools != "colocated":
        return 0.0
    held_B: Mapping[str, float] = trained.update.plan.get("memory_B", {})
    states_B = {"weights": held_B.get("weights", 0.0), "optimizer": held_B.get("optimizer", 0.0)}
    away = {"weights": spec.offload.weights, "optimizer": spec.offload.optimizer}
    stays_B = sum(states_B[name] * (1.0 - away[name]) for name in states_B)
    system = made.machine.system
    rank_B = system.rank_memory_B
    most = max(1 - stays_B / rank_B, 0.0)
    taken_B = rank_B * spec.rollout.batching.memory_share
    if stays_B + taken_B > rank_B:
        message = (
            f"got {spec.rollout.batching.memory_share:g} of {rank_B / GB:.1f} GB, beside {stays_B / GB:.1f} GB of "
            f"trainers' states that are not moved to the host. Allowed: up to {math.floor(most * 1000) / 1000:g}, or "
            "`offload: {weights: true, optimizer: true}`."
        )
        parts_B = {"rollout": taken_B, **{name: states_B[name] * (1.0 - away[name]) for name in states_B}}
        budget = {
            "what": "memory",
            "of": system.spec.rank,
            "needed_B": stays_B + taken_B,
            "available_B": float(rank_B),
            "parts_B": {name: size_B for name, size_B in parts_B.items() if size_B},
        }
        raise InfeasibleError(Problem(message, key="rollout.batching.memory_share"), budget)
    return sum(states_B[name] * away[name] for name in states_B)
