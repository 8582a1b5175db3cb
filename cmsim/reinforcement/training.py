"""What trainers do in a step: passes over all that was said, and updates; each a run of its kind, so many times."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cmsim import api
from cmsim.arrays import Floats
from cmsim.errors import CmsimError, InfeasibleError, InputError, Problem
from cmsim.hardware import System
from cmsim.kinds.parts import WorkloadSpec
from cmsim.kinds.prefill import PrefillSpec
from cmsim.kinds.rl_step import ForwardSpec, RlStepSpec
from cmsim.results import Result
from cmsim.scenario import Run
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.generate.plan import plan_of

#: share of updates that sequences fill, below which it is said
_FULL = 0.95


@dataclass(frozen=True)
class Trainers:
    """seconds, joules of passes and of updates    update  one of them    updates  of a step    sequences  packed
    layout  of the ranks that train    notes  to say beside the result"""

    system: System
    update: Result
    updates: int
    sequences: int
    layout: Layout
    passes: tuple[tuple[float, Floats], ...]
    notes: tuple[str, ...]

    @property
    def training(self) -> tuple[float, Floats]:
        """Of all updates. [s], [J]"""
        return self.update.metric("step_time_s") * self.updates, _joules(self.update) * self.updates


def trainers(run: Run, spec: RlStepSpec, packages: int, tokens: int, base: Path | None) -> Trainers:
    """The first accelerators of a machine at work on so many tokens of prompts and answers.

    Raises what runs of training and prefill raise, with the place of their keys in a step.
    """
    entry = run.system.model_copy(update={"accelerators": packages})
    machines = api.Machines(base)

    def played(its: WorkloadSpec, where: str) -> tuple[Result, System]:
        one = replace(run, spec=its, system=entry, open=(), chosen={}, record="summary")
        with said_of(where):
            system = machines(one)
            return api.run_one(one, system, base=base), system

    sequences = math.ceil(tokens / spec.training.sequence_length)
    updates = math.ceil(sequences / spec.training.global_batch)
    update, system = played(spec.training, "training")
    passes, notes = [], []
    for number, forward in enumerate(spec.forwards):
        where = f"forwards[{number}]"
        its, holders = _forward(spec, forward, system, where)
        result, _ = played(its, where)
        times = math.ceil(sequences / (forward.sequences * holders))
        passes.append((result.metric("makespan_s") * times, _joules(result) * times))
    full = sequences / (updates * spec.training.global_batch)
    if full < _FULL:
        notes.append(
            f"{sequences:,} packed sequences are {full:.0%} of {updates} updates of {spec.training.global_batch:,}: "
            "the last update is as long as the others"
        )
    notes += [note for note in update.warnings if note not in system.notes]
    return Trainers(
        system,
        update,
        updates,
        sequences,
        plan_of(spec.training, system, base).layout,
        tuple(passes),
        tuple(notes),
    )


def _forward(spec: RlStepSpec, forward: ForwardSpec, system: System, where: str) -> tuple[PrefillSpec, int]:
    """One pass of all tensor groups, and how many of them there are."""
    parallel = forward.parallel
    ranks = parallel.tp if parallel.attention == "tp" else 1
    if system.ranks % ranks:
        near = [size for size in range(1, system.ranks + 1) if system.ranks % size == 0]
        near = sorted(sorted(near, key=lambda size: abs(size - ranks))[:2])
        message = f"got {ranks}, which does not divide {system.ranks} ranks. Nearest that do: {near[0]}, {near[1]}."
        raise InfeasibleError(Problem(message, key=f"{where}.parallel.tp"))
    holders = system.ranks // ranks
    its = PrefillSpec(
        kind="prefill",
        model=forward.model or spec.model,
        balance=spec.balance,
        parallel=parallel,
        precision=forward.precision,
        batch_per_accelerator=forward.sequences * holders / system.packages,
        prompt_tokens=spec.training.sequence_length,
    )
    return its, holders


@contextmanager
def said_of(part: str) -> Iterator[None]:
    """What is wrong with a part of a step is said with the part's place."""
    try:
        yield
    except InfeasibleError as error:
        raise InfeasibleError(_placed(error, part), error.budget) from None
    except InputError as error:
        raise InputError(_placed(error, part)) from None


def _placed(error: CmsimError, part: str) -> list[Problem]:
    return [replace(one, key=f"{part}.{one.key}" if one.key else part) for one in error.problems]


def _joules(result: Result) -> Floats:
    """Facility energy: the least, the middle, the most. [J]"""
    middle = result.metric("energy_J")
    ends = [float(result.metrics.get(f"energy_J_{end}", middle)) for end in ("low", "high")]
    return np.array([ends[0], middle, ends[1]])
