"""How a replica does at every number of sequences: its steps asked of played points, once for each plan of a pool.

Only how many sequences there are is left open, so that a curve serves every load, every cap on a batch and every
number of copies.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cmsim import side_by_side
from cmsim.arrays import Floats, Ints
from cmsim.errors import InfeasibleError
from cmsim.kinds.serving import PoolSpec
from cmsim.search.services.axes import ServiceQuestion, own
from cmsim.search.services.traffic import Traffic
from cmsim.serving import capacity, idle, plans
from cmsim.serving.pools import Pool
from cmsim.units import PS_PER_S

#: steps this many times as long as a token may take are not asked for: nobody runs a service there
_SLOW = 2.0
#: reasons of plans that are no plan
SIZES, MEMORY = "sizes do not go together", "does not fit the memory"
LONG = "requests are longer than a cache holds"


@dataclass(frozen=True)
class PoolShape:
    """A plan of a pool but for its cap on sequences and its copies.

    pool    "", prefill or decode    values  by key of a pool
    """

    pool: str
    values: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Curve:
    """One replica; columns over ``sizes``, sequences of a holder.

    reason        why there is none; "" else
    accelerators, holders   of a replica    idle_W  what it draws that waits [W]
    room          sequences that fit a holder, of the mean length
    rate          requests that end [1/s]    step_s  from a token to the next [s]    over_W  beyond waiting [W]
    first_s       passes of the prompt that promises are measured by, beside so many sequences [s]
    serves_s      passes of a prompt in the mean, beside so many [s]
    cut           whether larger numbers were left out, as their steps take too long for anybody
    alone_s       passes of that prompt where nobody else is [s]    token_s  the least time of a token at the context
                  that promises are measured by; token_least_s  and at the shortest prompt [s]
    prompts_per_s, prompts_W   of a pool that only prefills: the most, and what it draws then [1/s], [W]
    """

    reason: str = ""
    accelerators: int = 0
    holders: int = 1
    idle_W: float = 0.0
    room: int = 0
    sizes: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    rate: Floats = field(default_factory=lambda: np.zeros(0))
    step_s: Floats = field(default_factory=lambda: np.zeros(0))
    over_W: Floats = field(default_factory=lambda: np.zeros(0))
    first_s: Floats = field(default_factory=lambda: np.zeros(0))
    serves_s: Floats = field(default_factory=lambda: np.zeros(0))
    cut: bool = False
    alone_s: float = 0.0
    token_s: float = 0.0
    token_least_s: float = 0.0
    prompts_per_s: float = math.inf
    prompts_W: float = 0.0


def measure(
    asked: ServiceQuestion,
    load: Traffic,
    shapes: Sequence[tuple[PoolShape, tuple[int, ...]]],
    *,
    jobs: int | None,
    progress: Callable[[float], None] | None = None,
) -> list[Curve]:
    """The curve of every shape, with the caps on sequences that are tried with it."""
    out = []
    here = functools.partial(_curve, asked, load)
    for done, one in enumerate(side_by_side.in_order(here, here, list(shapes), jobs), 1):
        out.append(one)
        if progress is not None:
            progress(done / len(shapes))
    return out


def _curve(asked: ServiceQuestion, load: Traffic, item: tuple[PoolShape, tuple[int, ...]]) -> Curve:
    shape, caps = item
    spec = pool_spec(asked, shape, max(caps))
    try:
        machine = plans.machine(asked.one, asked.spec, spec, asked.base, asked.system, decodes=shape.pool != "prefill")
        found = _measured(asked, load, shape, machine, caps)
    except InfeasibleError as error:
        return Curve(MEMORY if (error.budget or {}).get("what") == "memory" else SIZES)
    machine.costs.save()
    return found


def pool_spec(asked: ServiceQuestion, shape: PoolShape, sequences: int) -> PoolSpec:
    """The pool of a shape, one copy of it."""
    its = own(asked.spec, shape.pool)
    data = its.model_dump(exclude_unset=True)
    for key, value in {**shape.values, "batching.sequences": sequences, "replicas": 1}.items():
        *above, last = key.split(".")
        inner = data
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return PoolSpec.model_validate(data)


def _measured(
    asked: ServiceQuestion, load: Traffic, shape: PoolShape, machine: plans.PoolMachine, caps: tuple[int, ...]
) -> Curve:
    pool = machine.pool
    limits, mix = pool.limits, load.mix
    idle_W = idle.idle_W(machine.system)[1]
    base = Curve(accelerators=machine.system.packages, holders=pool.holders, idle_W=idle_W)
    if not pool.takes(load.longest, 0):
        return replace(base, reason=LONG)
    if shape.pool == "prefill":
        tokens = max(round(min(mix.new, limits.step_tokens)), 1)
        time_ps, joules = pool.costs.mixed(0, 0, tokens, round(tokens * mix.pairs / mix.new))
        return replace(
            base,
            alone_s=_passes_s(pool, 0, 0, *load.first),
            prompts_per_s=capacity.of_prompts(pool, mix),
            prompts_W=float(joules[1]) * PS_PER_S / time_ps * pool.holders,
        )
    held = mix.prompt + mix.output / 2 + limits.block_tokens / 2
    room = max(int((limits.blocks - limits.spare) * limits.block_tokens // held), 1)
    most = min(room, max(caps))
    sizes = sorted({most, *(one for one in caps if one < most), *(2**n for n in range(most.bit_length()))})
    both = shape.pool == ""
    slowest_s = _SLOW * asked.spec.slo.tpot_s if asked.spec.slo is not None else math.inf
    rows: list[tuple[float, ...]] = []
    context = round(mix.prompt + mix.output / 2)
    for size in sizes:
        if mix.output > 1:
            found = capacity.steady(pool, mix, size, prefills=both)
            steady = found.requests_per_s, found.step_s, found.over_W[1]
        else:  # nothing but first tokens
            rate = capacity.of_prompts(pool, mix)
            steady = rate, pool.holders / rate, 0.0
        first_s = _passes_s(pool, size, context, *load.first) if both else 0.0
        serves_s = _passes_s(pool, size, context, mix.new, mix.pairs) if both else 0.0
        rows.append((*steady, first_s, serves_s))
        if steady[1] > slowest_s:
            break
    rate, step_s, over_W, first_s_, serves_s_ = np.array(rows).T
    told = sizes[: len(rows)]
    return replace(
        base,
        room=room,
        sizes=np.array(told),
        rate=np.maximum.accumulate(rate),
        step_s=step_s,
        over_W=over_W,
        first_s=first_s_,
        serves_s=serves_s_,
        cut=len(told) < len(sizes),
        alone_s=_passes_s(pool, 0, 0, *load.first) if both else 0.0,
        token_s=_token_s(pool, told, load.context),
        token_least_s=_token_s(pool, told, load.shortest),
    )


def _passes_s(pool: Pool, sequences: int, context: int, tokens: float, pairs: float) -> float:
    """Of a prompt of which so many tokens are computed, cut in chunks. [s]"""
    budget = max(pool.limits.step_tokens - sequences, 1)
    chunks = max(math.ceil(tokens / budget), 1)
    time_ps, _ = pool.costs.mixed(sequences, context, max(round(tokens / chunks), 1), round(pairs / chunks))
    return chunks * time_ps / PS_PER_S


def _token_s(pool: Pool, sizes: Sequence[int], context: int) -> float:
    """The least time of a token among some numbers of sequences. [s]"""
    times = []
    for size in sizes:
        sums = pool.costs.row(size).upto(context + 1)
        times.append(sums[context + 1] - sums[context])
    return min(times) / PS_PER_S
