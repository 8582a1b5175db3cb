"""Answers of a step: all prompts are there at once, and copies of the model make answers as a service does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim import api
from cmsim.arrays import Floats, Ints
from cmsim.errors import InfeasibleError, Problem
from cmsim.hardware import System
from cmsim.kinds.asking import ArrivalsSpec, LengthsSpec
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.rl_step import RlStepSpec
from cmsim.kinds.serving import ServingSpec
from cmsim.requests import Prefix
from cmsim.scenario import Run
from cmsim.serving import idle, measure, plans, upkeep
from cmsim.serving.questions import Questions
from cmsim.serving.service import Rules, Served, Service
from cmsim.units import PS_PER_S, to_ps
from cmsim.workload import generate

#: tokens of a block of a prompt that its answers share
_BLOCK = 128
#: of answers, after which the rest is the tail
_TAIL = 0.9
#: stream of random numbers of lengths
_LENGTHS = 7


@dataclass(frozen=True)
class Rollout:
    """What making the answers of a step came to.

    asked, served  prompts and answers, and what became of them    machine  one copy of the model
    weights_B      that a rank of a copy holds [B]    joules  facility energy: the least, the middle, the most [J]
    """

    asked: Questions
    served: Served
    machine: plans.PoolMachine
    weights_B: float
    joules: Floats
    error: float | None
    points: int

    @property
    def seconds(self) -> float:
        return self.served.end_ps / PS_PER_S

    @property
    def accelerators(self) -> int:
        return self.machine.accelerators

    @property
    def tail_s(self) -> float:
        """From when nine of ten answers are there until all are. [s]"""
        end = np.sort(self.served.book.column("end"))
        return float(end[-1] - end[int(np.ceil(_TAIL * len(end))) - 1]) / PS_PER_S

    @property
    def idle_fraction(self) -> float:
        """Share of the copies' time after the last answer of each. [1]"""
        copies = self.machine.pool.replicas
        last = np.zeros(copies, np.int64)
        copy = self.served.book.column("holder") // self.machine.pool.holders
        np.maximum.at(last, copy, self.served.book.column("end"))
        return float(1.0 - last.sum() / (copies * max(self.served.end_ps, 1)))

    def frame(self, samples: int) -> Mapping[str, NDArray[Any]]:
        """A row per answer."""
        book = self.served.book
        return {
            "prompt": np.arange(len(book)) // samples,
            "holder": book.column("holder"),
            "prompt_tokens": book.column("prompt"),
            "answer_tokens": book.column("output"),
            "cached_tokens": book.column("cached"),
            "started_s": book.column("scheduled") / PS_PER_S,
            "end_s": book.column("end") / PS_PER_S,
        }


def rollout(run: Run, spec: RlStepSpec, system: System, replicas: int, base: Path | None) -> Rollout:
    """All answers of a step, by so many copies. Raises InfeasibleError where a copy has no room for an answer."""
    entry = run.system.model_copy(update={"accelerators": spec.rollout.accelerators})
    step, service = _step(spec), _service(spec, replicas)
    copy = api.Machines(base)(replace(run, spec=step, system=entry))
    # what is no plan is said in its own words, not in those of steps
    weights_B = float(generate.programs(step, copy, base=base, loops=True).footprint_B["weights"].max())
    (machine,) = plans.machines(run, service, system, base)
    asked = questions(spec, seed=run.seed)
    longest = int((asked.prompt + asked.output).max())
    if not machine.pool.takes(longest, 0):
        message = (
            f"a prompt with its answer has {longest:,} tokens; a holder's cache has room for {machine.cache_tokens:,}"
        )
        raise InfeasibleError(Problem(message, key="rollout.batching"))
    host_ps = int(to_ps(system.stack.serving.arrival_us / 1e6))
    rules = Rules("prefix_aware" if asked.prefix is not None else "least_loaded", door_ps=host_ps)
    served = Service(asked, (machine.pool,), rules).run()
    measure.check(served)
    machine.costs.save()
    replicas_ = served.pools[0]
    waits_J = np.array(idle.idle_W(machine.system)) * replicas * served.end_ps / PS_PER_S
    typical = measure.typical(replicas_)
    tokens = min(spec.prompt_tokens, machine.pool.limits.step_tokens)
    return Rollout(
        asked,
        served,
        machine,
        weights_B,
        waits_J + upkeep.joules(replicas_),
        machine.costs.error(*typical, tokens, spec.prompt_tokens),
        machine.costs.points,
    )


def questions(spec: RlStepSpec, *, seed: int) -> Questions:
    """Every prompt as often as it has answers, all there at the start; lengths of answers are drawn from the seed."""
    count, answers = spec.prompts * spec.samples, spec.answers
    output = np.full(count, answers.mean)
    if answers.cv:
        spread = np.log1p(answers.cv**2)
        draw = np.random.default_rng([seed, _LENGTHS])
        drawn = draw.lognormal(np.log(answers.mean) - spread / 2, np.sqrt(spread), count)
        output = np.clip(np.rint(drawn), 1, answers.most).astype(np.int64)
    prompt = np.full(count, spec.prompt_tokens)
    prefix = _prefix(spec) if spec.rollout.batching.prefix_share else None
    return Questions(prompt, output, np.zeros(count, np.int64), prefix, _BLOCK if prefix is not None else 0)


def _prefix(spec: RlStepSpec) -> Prefix:
    """Blocks of prompts; those of one prompt are the same for all its answers."""
    count, blocks = spec.prompts * spec.samples, spec.prompt_tokens // _BLOCK
    prompt = np.arange(count, dtype=np.int64) // spec.samples
    block: Ints = (prompt[:, None] * blocks + np.arange(blocks)).ravel()
    return Prefix(np.arange(count + 1) * blocks, block)


def _service(spec: RlStepSpec, replicas: int) -> ServingSpec:
    """The copies as a service; who asks it what is said by `questions`."""
    its, answers = spec.rollout, spec.prompts * spec.samples
    return ServingSpec(
        kind="serving",
        model=spec.model,
        balance=spec.balance,
        arrivals=ArrivalsSpec(process="closed", concurrency=answers),
        lengths=LengthsSpec(prompt_tokens=spec.prompt_tokens, output_tokens=spec.answers.most),
        replicas=replicas,
        accelerators=its.accelerators,
        parallel=its.parallel,
        precision=its.precision,
        microbatches=its.microbatches,
        speculative=its.speculative,
        batching=its.batching,
    )


def _step(spec: RlStepSpec) -> DecodeSpec:
    """One step of a copy."""
    its = spec.rollout
    return DecodeSpec(
        kind="decode",
        model=spec.model,
        balance=spec.balance,
        parallel=its.parallel,
        precision=its.precision,
        microbatches=its.microbatches,
        batch_per_accelerator=1.0,
        context_tokens=1,
        **({} if its.speculative is None else {"speculative": its.speculative}),  # type: ignore[arg-type]
    )
