"""Which rank does what: sizes resolved, and the group of every rank in every dimension.

Ranks are numbered tp fastest, then cp, dp, pp, and stand in the machine in the order of a plan: as they are numbered
where nothing else is said, so that neighbours in tensor parallelism are neighbours in the machine. An expert group is a
run of consecutive ranks inside tp x cp x dp of one stage; those that share an expert are neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Ints, Shorts
from cmsim.errors import InfeasibleError, Problem
from cmsim.hardware import System
from cmsim.kinds.parts import ParallelSpec

T = TypeVar("T", bound=np.generic)
#: how ranks are numbered: dimensions from the fastest on
ORDER = ("tp", "cp", "dp", "pp")


@dataclass(frozen=True)
class Layout:
    """Resolved parallel sizes; ``ranks`` = tp x cp x pp x dp.

    expert_tp           ranks that share each expert
    dcp                 ranks of a tensor group that share one copy of its cache
    cp_a2a              neighbours of a context group that exchange heads, with rings across; 0: the group is one
    sharded             data-parallel ranks that share weights where groups of them hold the same; 0: all do
    wraps, turns_back   ways of messages between stages, as a schedule says (``PipelineSchedule``)
    mirrored            the first stage and the last hold the same, the second and the last but one, and so on
    order               dimensions from the nearest in the machine to the farthest
    """

    tp: int
    cp: int
    dp: int
    pp: int
    ep: int
    expert_tp: int = 1
    dcp: int = 1
    cp_a2a: int = 0
    sharded: int = 0
    wraps: bool = False
    turns_back: bool = False
    mirrored: bool = False
    order: tuple[str, ...] = ORDER

    @property
    def ranks(self) -> int:
        return self.tp * self.cp * self.pp * self.dp

    @property
    def sizes(self) -> dict[str, int]:
        """All of them by name, as a plan says them."""
        sizes = {"tp": self.tp, "cp": self.cp, "pp": self.pp, "dp": self.dp, "ep": self.ep}
        further = {"expert_tp": self.expert_tp, "dcp": self.dcp}
        return sizes | {name: size for name, size in further.items() if size > 1}

    @property
    def stage_ranks(self) -> int:
        return self.tp * self.cp * self.dp

    @property
    def copies(self) -> int:
        """Ranks that hold the same share of a layer."""
        return self.cp * self.dp * (1 + self.mirrored)

    @property
    def expert_copies(self) -> int:
        """Ranks that hold the same part of the same experts."""
        return self.stage_ranks // self.expert_group * (1 + self.mirrored)

    @property
    def expert_group(self) -> int:
        """Ranks that hold all experts once."""
        return self.ep * self.expert_tp

    @property
    def shards(self) -> int:
        """Ranks over which what they would hold alike is sharded."""
        return self.sharded or self.copies

    @property
    def expert_shards(self) -> int:
        """The same of experts: their copies among the ranks that share all else."""
        if not self.sharded:
            return self.expert_copies
        copies, rest = divmod(self.sharded * self.tp, self.expert_group)
        return 1 if rest else copies

    @property
    def stage(self) -> Ints:
        """Pipeline stage of each rank."""
        return np.arange(self.ranks) // self.stage_ranks

    @property
    def places(self) -> Ints:
        """Rank of the system on which each rank stands."""
        at: dict[str, Ints] = {}
        left = np.arange(self.ranks)
        for name in ORDER:
            left, at[name] = np.divmod(left, self.sizes[name])
        place, step = np.zeros(self.ranks, np.int64), 1
        for name in self.order:
            place += at[name] * step
            step *= self.sizes[name]
        return place

    def placed(self, column: NDArray[T]) -> NDArray[T]:
        """A column over ranks as a column over the system's ranks."""
        if self.order == ORDER:
            return column
        out = np.empty_like(column)
        out[self.places] = column
        return out

    def groups(self) -> dict[str, Shorts]:
        """Group of each rank by dimension; -1 where the dimension has one rank."""
        rank = np.arange(self.ranks, dtype=np.int32)
        t = rank % self.tp
        inner = rank % self.stage_ranks
        stage = rank // self.stage_ranks
        block = self.tp * self.cp
        none = np.full(self.ranks, -1, np.int32)
        whole, part = self.expert_group, rank % self.expert_tp
        if self.mirrored:
            stage = np.minimum(stage, self.pp - 1 - stage)
        out = {
            "tp": rank // self.tp if self.tp > 1 else none,
            "cp": (rank // block * self.tp + t) if self.cp > 1 else none,
            # gradients of what all of cp x dp hold alike
            "dp": (stage * self.tp + t) if self.copies > 1 else none,
            "ep": (rank // whole * self.expert_tp + part) if self.ep > 1 else none,
            "expert_dp": (stage * whole + inner % whole) if self.expert_copies > 1 else none,
        }
        if self.expert_tp > 1:
            out["expert_tp"] = rank // self.expert_tp
        if self.dcp > 1:
            out["dcp"] = rank // self.dcp
        if self.cp_a2a:
            out |= self._in_two_ways(out["cp"], rank // self.tp % self.cp)
        if self.sharded:
            out |= self._hybrid(stage, inner, rank // self.stage_ranks != stage)
        return _apart(out)

    def _in_two_ways(self, group: Shorts, place: Shorts) -> dict[str, Shorts]:
        """Neighbours of a context group that exchange heads, and those across which keys and values go round."""
        rings = self.cp // self.cp_a2a
        none = np.full(self.ranks, -1, np.int32)
        return {
            "cp_a2a": group * rings + place // self.cp_a2a if self.cp_a2a > 1 else none,
            "cp_p2p": group * self.cp_a2a + place % self.cp_a2a if rings > 1 else none,
        }

    def _hybrid(self, stage: Shorts, inner: Shorts, mirror: NDArray[np.bool_]) -> dict[str, Shorts]:
        """Groups that share weights, neighbours, and those of the ranks that hold the same shares."""
        out = {}
        for name, block, copies, shards in (
            ("", self.tp, self.copies, self.shards),
            ("expert_", self.expert_group, self.expert_copies, self.expert_shards),
        ):
            alike, number = stage * block + inner % block, inner // block + mirror * (self.stage_ranks // block)
            for which, size, group in (
                ("shard", shards, alike * (copies // shards) + number // shards),
                ("replica", copies // shards, alike * shards + number % shards),
            ):
                out[name + which] = group if size > 1 else np.full(self.ranks, -1, np.int32)
        return out

    def channels(self) -> dict[str, Shorts]:
        """Pipeline channels of each rank, both ends: activations forward, gradients backward; those of virtual stages
        that are passed from the last rank to the first begin with ``back``."""
        rank = np.arange(self.ranks, dtype=np.int32)
        up, ranks = self.stage_ranks, self.ranks
        first, last = rank < up, rank >= ranks - up
        if self.wraps:
            first = last = np.zeros(ranks, bool)
        out = {
            "next.out": np.where(last, -1, rank),
            "previous.in": np.where(first, -1, (rank - up) % ranks),
            "previous.out": np.where(first, -1, ranks + rank),
            "next.in": np.where(last, -1, ranks + (rank + up) % ranks),
        }
        if not self.turns_back:
            return out
        return out | {f"back.{name}": np.where(number < 0, -1, 2 * ranks + number) for name, number in out.items()}


def _apart(groups: dict[str, Shorts]) -> dict[str, Shorts]:
    """Group numbers made distinct between dimensions."""
    used, out = 0, {}
    for name, number in groups.items():
        out[name] = np.where(number >= 0, number + used, -1)
        used = max(used, int(out[name].max()) + 1)
    return out


def with_channels(layout: Layout) -> dict[str, Shorts]:
    """Groups and pipeline channels in one numbering, over the ranks of the system."""
    out = layout.groups()
    if layout.pp > 1:
        used = max(int(column.max()) for column in out.values()) + 1
        out |= {name: np.where(n >= 0, n + used, -1) for name, n in layout.channels().items()}
    return {name: layout.placed(column) for name, column in out.items()}


def resolve(
    spec: ParallelSpec,
    system: System,
    *,
    ranks: int | None,
    experts: int,
    heads: int = 0,
    ep: int | None = None,
    expert_tp: int = 1,
) -> Layout:
    """Sizes of a layout, ``auto`` filled in. Raises InfeasibleError with every size that does not fit.

    ranks: how many to use, default all of the system's    experts: routed experts of the model, 0 for dense
    heads: query heads, which tensor parallelism splits evenly; 0 where they are not split
    ep: expert-parallel size where the caller has resolved ``max``    expert_tp: ranks that share each expert
    """
    world = ranks or system.ranks
    problems = []
    if world > system.ranks:
        problems.append(
            Problem(f"got {world}; {system.name} has {system.ranks} ranks ({system.spec.rank}s)", key="ranks")
        )
    if heads and heads % spec.tp:
        near = _nearest(_divisors(heads), spec.tp)
        problems.append(
            Problem(
                f"got {spec.tp}, which does not divide {heads} heads. Nearest that does: {near}.", key="parallel.tp"
            )
        )
    inner = spec.tp * spec.cp * spec.pp
    if spec.dp == "auto":
        if world % inner:
            problems.append(
                Problem(
                    f"tp {spec.tp} x cp {spec.cp} x pp {spec.pp} = {inner} does not divide {world} ranks"
                    f"{_that_divide(spec, world, heads)}",
                    key="parallel",
                )
            )
        dp = max(world // inner, 1)
    else:
        dp = spec.dp
        if inner * dp > world:
            problems.append(
                Problem(f"tp x cp x pp x dp = {inner * dp} is more than the {world} ranks there are", key="parallel")
            )
    size = ep if ep is not None else (spec.ep if isinstance(spec.ep, int) else 1)
    problems += _expert_problems(size, expert_tp, spec.tp * spec.cp * dp, experts)
    if problems:
        raise InfeasibleError(problems)
    return Layout(spec.tp, spec.cp, dp, spec.pp, size, expert_tp, order=tuple(getattr(spec, "order", ORDER)))


def _that_divide(spec: ParallelSpec, world: int, heads: int) -> str:
    """Of each size the nearest with which all of them divide the ranks, where there is one."""
    near = []
    for name in ("tp", "cp", "pp"):
        own = getattr(spec, name)
        others = spec.tp * spec.cp * spec.pp // own
        if world % others == 0:
            sizes = [size for size in _divisors(world // others) if name != "tp" or not heads or heads % size == 0]
            near.append(f"{name} {_nearest(sizes, own)}")
    return f". Nearest that do: {' or '.join(near)}" if near else ""


def _expert_problems(ep: int, expert_tp: int, stage: int, experts: int) -> list[Problem]:
    """What keeps ``ep`` groups of ``expert_tp`` ranks out of the ``stage`` ranks of a pipeline stage."""
    sizes = {"ep": ep, "expert_tp": expert_tp}
    if not experts:
        return [
            Problem(f"got {size}, but the model has no experts. Allowed: 1.", key=f"parallel.{name}")
            for name, size in sizes.items()
            if size > 1
        ]
    if stage % ep:
        near = _nearest([d for d in _divisors(stage) if d <= experts * 4], ep)
        said = f"got {ep}, which does not divide tp x cp x dp = {stage} ranks. Nearest that does: {near}."
        return [Problem(said, key="parallel.ep")]
    if stage // ep % expert_tp:
        near = _nearest(_divisors(stage // ep), expert_tp)
        said = (
            f"got {expert_tp}; with ep {ep} it does not divide tp x cp x dp = {stage} ranks. Nearest that does: {near}."
        )
        return [Problem(said, key="parallel.expert_tp")]
    return []


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _nearest(sizes: list[int], wanted: int) -> int:
    return min(sizes, key=lambda size: abs(size - wanted))
