"""The nearest plan of a training step that fits the memory, where the one that was asked for does not.

One key is changed at a time, the one that costs the least time first, each as little as will do. Where no key does it
alone, keys are changed together in that order until they do, and those that were not needed are set back. Ranks, model
and global batch stay. What costs the least is a rule of thumb here; `cmsim run` of both plans tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmsim.errors import CmsimError
from cmsim.hardware import System
from cmsim.kinds.training import TrainingSpec
from cmsim.workload.generate import plan
from cmsim.workload.generate.choices import sizes

Changes = Mapping[str, Any]


@dataclass(frozen=True)
class NearestPlan:
    """changes: dotted key of the workload -> value    needed_B: what the fullest rank then needs [B]"""

    changes: Changes
    needed_B: float


def nearest(spec: TrainingSpec, system: System, base: Path | None = None) -> NearestPlan | None:
    """The nearest plan that fits a rank's memory; None where no change of these keys does it.

    Raises InputError for a model that cannot be read.
    """
    search = _Search(spec, system, base)
    axes = list(_axes(spec, system, base))
    for axis in axes:
        for changes in axis:
            if search.fits(changes):
                return search.fit(changes)
    chosen: list[Changes] = []
    for axis in axes:
        chosen.append(min(axis, key=lambda one: search.need_B(_together([*chosen, one]))))
        if search.need_B(_together(chosen)) >= search.need_B(_together(chosen[:-1])):
            chosen.pop()
        elif search.fits(_together(chosen)):
            return search.fit(search.less(chosen, axes))
    return None


def _together(changes: Iterable[Changes]) -> Changes:
    out: dict[str, Any] = {}
    for one in changes:
        out |= one
    return out


class _Search:
    """Plans by what they need; each is counted once."""

    def __init__(self, spec: TrainingSpec, system: System, base: Path | None):
        self.spec, self.system, self.base = spec, system, base
        self._known: dict[str, float] = {}

    def need_B(self, changes: Changes) -> float:
        key = repr(sorted(changes.items()))
        if key not in self._known:
            self._known[key] = _need_B(self.spec, self.system, changes, self.base)
        return self._known[key]

    def fits(self, changes: Changes) -> bool:
        return self.need_B(changes) <= self.system.rank_memory_B

    def fit(self, changes: Changes) -> NearestPlan:
        return NearestPlan(_with_copies(self.spec, changes), self.need_B(changes))

    def less(self, chosen: list[Changes], axes: list[list[Changes]]) -> Changes:
        """Without what is not needed, the dearest first; of the rest no more than is needed."""
        for one in list(reversed(chosen)):
            others = [other for other in chosen if other is not one]
            if self.fits(_together(others)):
                chosen = others
        for number, one in enumerate(chosen):
            axis = next(axis for axis in axes if one in axis)
            for smaller in axis:
                tried = [*chosen[:number], smaller, *chosen[number + 1 :]]
                if self.fits(_together(tried)):
                    chosen = tried
                    break
        return _together(chosen)


def _need_B(spec: TrainingSpec, system: System, changes: Changes, base: Path | None) -> float:
    """What the fullest rank needs; infinite for what is no plan. [B]"""
    try:
        lines = plan.memory_B(changed(spec, changes), system, base)
    except (CmsimError, ValueError):
        # sizes that do not go together, or keys
        return float("inf")
    return float(max(sum(stage) for stage in zip(*lines.values(), strict=True)))


def changed(spec: TrainingSpec, changes: Changes) -> TrainingSpec:
    """The workload with some of its keys changed; fewer copies of the model make room for what is split further."""
    data = spec.model_dump(exclude_unset=True)
    for key, value in _with_copies(spec, changes).items():
        *path, last = key.split(".")
        at = data
        for name in path:
            at = at.setdefault(name, {})
        at[last] = value
    return TrainingSpec.model_validate(data)


def _with_copies(spec: TrainingSpec, changes: Changes) -> Changes:
    copies = spec.parallel.dp
    if copies == "auto":
        return changes
    for key in ("tp", "pp"):
        copies = (
            copies * getattr(spec.parallel, key) // int(changes.get(f"parallel.{key}", getattr(spec.parallel, key)))
        )
    return changes if copies == spec.parallel.dp else {**changes, "parallel.dp": max(copies, 1)}


def _axes(spec: TrainingSpec, system: System, base: Path | None) -> Iterator[list[Changes]]:
    """Changes of one key each, as cheap as can be first; of one key the smallest first."""
    parallel = spec.parallel
    every = [
        [{"zero_stage": 1}] if not spec.zero_stage else [],
        [{"recompute": "selective"}] if spec.recompute == "none" else [],
        [{"micro_batch": one} for one in _halves(spec.micro_batch)],
        [{"parallel.ep": one} for one in _above("ep", parallel.ep, 2**16, spec, system, base)],
        [{"zero_stage": 2}] if spec.zero_stage < 2 else [],
        [{"parallel.tp": one} for one in _above("tp", parallel.tp, system.spec.node.accelerators, spec, system, base)],
        [{"parallel.pp": one} for one in _above("pp", parallel.pp, 64, spec, system, base)],
        [{"recompute": "full"}] if spec.recompute != "full" else [],
        [{"zero_stage": 3}] if spec.zero_stage < 3 else [],
    ]
    if system.accelerator.host_GBps is not None:
        every += [
            [{f"offload.{part}": True}] if getattr(spec.offload, part) < 1 else []
            for part in ("optimizer", "activations")
        ]
    yield from filter(None, every)


def _halves(number: int) -> list[int]:
    out = []
    while number % 2 == 0:
        number //= 2
        out.append(number)
    return out if number == 1 or not out else [*out, 1]


def _above(key: str, now: int | str, most: int, spec: TrainingSpec, system: System, base: Path | None) -> list[int]:
    if isinstance(now, str):
        return []
    found = sizes(f"parallel.{key}", spec, system, base=base)
    return [one for one in found if now < one <= most and one % now == 0]
