"""What plans of a service come to at its load, in columns: from the curves of their pools, without serving anybody.

A pool of n sequences a holder ends as many requests as its curve says; at the rate that comes, n is where they are
equal. Waits for a first token are those of as many servers as there are holders, whose work is a prompt's passes
(half of Sakasegawa's formula for M/M/c, Omega 5(1), 1977, doi:10.1016/0305-0483(77)90117-2: work that does not vary),
with an exponential tail. Least times are those of nobody else being there: no order of steps is sooner.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmsim.arrays import Bools, Floats, Ints
from cmsim.search.services.axes import AUTO, TWO, ServiceQuestion
from cmsim.search.services.curves import Curve
from cmsim.search.services.space import MACHINE, PoolSpace
from cmsim.search.services.traffic import Traffic

#: reasons
FIRST, TOKEN = "no first token comes in time, even alone", "no token comes in time, even alone"
BUSY, SLOW = "cannot keep up with what comes", "keeps up only with tokens twice as slow as promised"
#: a cap on sequences that is this many times those there are, and some more, changes nothing
_SPARE, _SOME = 2.0, 8
#: of the load that some replicas carry at most, up to how many times as many are tried
_MORE = (1.0, 1.3, 1.6, 2.0)
#: a wait is not told from a load nearer to what can be served [1]
_NEAR = 0.98


@dataclass(frozen=True)
class PoolPlans:
    """Plans of a pool in columns, a row each.

    shape, cap, copies   number of the curve, sequences of a holder at most, replicas
    accelerators  of all copies    busy  load over what they carry [1]    sequences  of a holder at the load
    first_s, token_s     to the first token, and of a token, as promises are measured [s]; 0 where others make it
    first_least_s, token_least_s   no plan is sooner, on average [s]
    watts, idle_W        of all copies at the load, and where they wait [W]    output_per_s  requests that end [1/s]
    spare         how many smaller caps would do
    """

    shape: Ints
    cap: Ints
    copies: Ints
    accelerators: Ints
    busy: Floats
    sequences: Floats
    first_s: Floats
    token_s: Floats
    first_least_s: Floats
    token_least_s: Floats
    watts: Floats
    idle_W: Floats
    requests_per_s: Floats
    spare: Ints

    def __len__(self) -> int:
        return len(self.shape)

    def at(self, rows: Ints | Bools) -> PoolPlans:
        """Some rows."""
        return PoolPlans(**{name: column[rows] for name, column in self.__dict__.items()})


@dataclass(frozen=True)
class _Promise:
    first_s: float
    token_s: float
    share: float


def pool_plans(
    asked: ServiceQuestion, load: Traffic, made: PoolSpace, curves: Sequence[Curve]
) -> tuple[PoolPlans, Counter[str], int]:
    """(plans of a pool that may go, the others by reason, how many there are).

    Where copies are `AUTO` a plan without any number of them is one plan.
    """
    slo = asked.spec.slo
    promise = _Promise(slo.ttft_s, slo.tpot_s, slo.attainment) if slo else _Promise(math.inf, math.inf, 0.5)
    door_s = asked.system.stack.serving.arrival_us / 1e6
    rows: list[tuple[float, ...]] = []
    refused: Counter[str] = Counter()
    each = 1 if made.copies == (AUTO,) else len(made.copies)
    for reason, count in made.refused.items():
        refused[reason] += count * each
    for number, ((_, caps), curve) in enumerate(zip(made.shapes, curves, strict=True)):
        for which, cap in enumerate(caps):
            reason = curve.reason or _late(curve, promise, door_s, made.pool)
            if reason:
                refused[reason] += each
                continue
            for copies in _copies(asked, load, made, curve, cap):
                found = _row(asked, load, curve, made.pool, cap, copies, promise, door_s)
                if isinstance(found, str):
                    refused[found] += 1
                    continue
                spare = sum(one >= _SPARE * found[4] + _SOME for one in caps[:which])
                rows.append((number, *found, spare))
    columns = np.array(rows, float).reshape(len(rows), 14).T
    whole = {0, 1, 2, 3, 13}
    said: list[Any] = [column.astype(np.int64) if at in whole else column for at, column in enumerate(columns)]
    return PoolPlans(*said), refused, len(rows) + refused.total()


def _late(curve: Curve, promise: _Promise, door_s: float, pool: str) -> str:
    if pool != "decode" and door_s + curve.alone_s > promise.first_s:
        return FIRST
    return TOKEN if pool != "prefill" and curve.token_s > promise.token_s else ""


def _most(curve: Curve, cap: int) -> float:
    """What a replica carries with so many sequences at most. [1/s]"""
    if not len(curve.sizes):
        return curve.prompts_per_s
    return float(np.max(curve.rate[curve.sizes <= max(cap, int(curve.sizes[0]))]))


def _copies(asked: ServiceQuestion, load: Traffic, made: PoolSpace, curve: Curve, cap: int) -> list[int]:
    """Numbers of replicas to try: those asked for, or as many as carry the load and up to twice as many; all there may
    be where these are too few."""
    there = asked.system.packages // curve.accelerators
    if made.copies != (AUTO,):
        return [int(one) for one in made.copies]
    if not load.rate_per_s:
        return [1 << n for n in range(there.bit_length()) if 1 << n <= there]
    least = max(math.floor(load.rate_per_s / _most(curve, cap) * (1 + 1e-12)) + 1, 1)
    tried = sorted({math.ceil(least * more) for more in _MORE} | {least + 1})
    return [one for one in tried if one <= there] or [max(there, 1)]


def _row(
    asked: ServiceQuestion,
    load: Traffic,
    curve: Curve,
    pool: str,
    cap: int,
    copies: int,
    promise: _Promise,
    door_s: float,
) -> tuple[float, ...] | str:
    """Columns of a plan from its cap on, or why it is none."""
    if copies * curve.accelerators > asked.system.packages:
        return MACHINE
    most = _most(curve, cap)
    holders = copies * curve.holders
    rate = load.rate_per_s / copies
    if load.rate_per_s and rate >= most:
        return SLOW if curve.cut and cap > curve.sizes[-1] else BUSY
    if pool == "prefill":
        # of a closed loop as many ask as have their answers: nobody waits for long
        busy, rate = rate / most, rate or most
        first_s = door_s + curve.alone_s + _wait_s(busy, holders, curve.holders / most, promise.share)
        watts = copies * (curve.idle_W + busy * curve.prompts_W)
        times = (first_s, 0.0, door_s + curve.alone_s, 0.0)
        return (
            cap,
            copies,
            copies * curve.accelerators,
            busy,
            0.0,
            *times,
            watts,
            copies * curve.idle_W,
            rate * copies,
        )
    sizes = np.concatenate([[0.0], curve.sizes])
    rates = np.concatenate([[0.0], curve.rate])
    if load.rate_per_s:
        sequences = float(np.interp(rate, rates, sizes))
    else:
        sequences = float(min(load.users / holders, cap, curve.sizes[-1]))
        rate = float(np.interp(sequences, sizes, rates))
    token_s = float(np.interp(sequences, curve.sizes, curve.step_s))
    over_W = float(np.interp(sequences, sizes, np.concatenate([[0.0], curve.over_W])))
    first_s = first_least_s = 0.0
    if pool == "":
        serves_s = float(np.interp(sequences, curve.sizes, curve.serves_s))
        working = min(rate / curve.holders * serves_s, _NEAR)
        first_s = door_s + token_s / 2 + float(np.interp(sequences, curve.sizes, curve.first_s))
        first_s += _wait_s(working, holders, serves_s, promise.share)
        first_least_s = door_s + curve.alone_s
        if not load.rate_per_s and load.users > holders * sequences:  # those who find no place wait for one
            first_s += (load.users - holders * sequences) / (rate * copies)
    watts, idle_W = copies * (curve.idle_W + over_W), copies * curve.idle_W
    times = (first_s, token_s, first_least_s, curve.token_least_s)
    return (cap, copies, copies * curve.accelerators, rate / most, sequences, *times, watts, idle_W, rate * copies)


def _wait_s(busy: float, servers: int, work_s: float, share: float) -> float:
    """What a share of those who come waits no longer than, at so many servers of equal work. [s]"""
    busy = min(busy, _NEAR)
    queue = math.pow(busy, math.sqrt(2.0 * (servers + 1)) - 1.0) / (servers * (1.0 - busy))
    return queue * work_s / 2.0 * max(-math.log(1.0 - min(share, 0.999)), 0.0)


@dataclass(frozen=True)
class Priced:
    """Plans of a service, a row each.

    pools   of each pool its plans, repeated as rows need them
    first_s, token_s  as promises are measured [s]    margin  the larger of both over what is promised; above 1 missed
    tokens_per_s      of answers, over the run; ``tokens_most`` no run gives more [1/s]
    watts, idle_W     at the load, and the least [W]    accelerators, busy, spare   as of the pools, the fullest
    """

    form: tuple[str, ...]
    pools: tuple[PoolPlans, ...]
    accelerators: Ints
    busy: Floats
    first_s: Floats
    token_s: Floats
    margin: Floats
    tokens_per_s: Floats
    tokens_most: Floats
    watts: Floats
    idle_W: Floats
    spare: Ints

    def __len__(self) -> int:
        return len(self.accelerators)


def together(
    asked: ServiceQuestion, load: Traffic, form: tuple[str, ...], parts: Sequence[tuple[PoolPlans, Counter[str], int]]
) -> tuple[Priced, Counter[str], int]:
    """(plans of all pools together, the others by reason, how many there are)."""
    if form != TWO:
        plans, refused, count = parts[0]
        return _priced(asked, load, form, (plans,)), refused, count
    (first, no_first, firsts), (last, no_last, lasts) = parts
    refused = Counter({reason: many * lasts for reason, many in no_first.items()})
    for reason, many in no_last.items():
        refused[reason] += many * len(first)
    a, b = (one.ravel() for one in np.indices((len(first), len(last))))
    fits = first.accelerators[a] + last.accelerators[b] <= asked.system.packages
    refused[MACHINE] += int((~fits).sum())
    both = first.at(a[fits]), last.at(b[fits])
    return _priced(asked, load, form, both), +refused, firsts * lasts


def _priced(asked: ServiceQuestion, load: Traffic, form: tuple[str, ...], pools: tuple[PoolPlans, ...]) -> Priced:
    first_s = sum((one.first_s for one in pools), np.zeros(len(pools[0])))
    token_s = sum((one.token_s for one in pools), np.zeros(len(pools[0])))
    accelerators = sum((one.accelerators for one in pools), np.zeros(len(pools[0]), np.int64))
    slo = asked.spec.slo
    margin = np.maximum(first_s / slo.ttft_s, token_s / slo.tpot_s) if slo is not None else np.zeros(len(first_s))
    least_s = sum((one.first_least_s for one in pools), np.zeros(len(pools[0])))
    token_least_s = sum((one.token_least_s for one in pools), np.zeros(len(pools[0])))
    more = load.last_output - 1
    if load.rate_per_s:
        tokens_per_s = load.output / (load.last_s + first_s + more * token_s)
        least = load.last_s + least_s + more * token_least_s
        # of part of a run: no more than all tokens can come in it
        tokens_most = load.output / (np.full(len(least), load.counted_s) if load.counted_s else least)
    else:
        rate = np.min([one.requests_per_s for one in pools], axis=0)
        tokens_per_s = rate * load.mix.output
        tokens_most = load.users * load.mix.output / np.maximum((load.mix.output - 1) * token_least_s, 1e-12)
    return Priced(
        form,
        pools,
        accelerators,
        np.max([one.busy for one in pools], axis=0) if len(accelerators) else np.zeros(0),
        first_s,
        token_s,
        margin,
        tokens_per_s,
        tokens_most,
        sum((one.watts for one in pools), np.zeros(len(pools[0]))),
        sum((one.idle_W for one in pools), np.zeros(len(pools[0]))),
        sum((one.spare for one in pools), np.zeros(len(pools[0]), np.int64)),
    )


def front_points(load: Traffic, parts: Mapping[str, Sequence[tuple[int, Curve]]]) -> dict[str, Any]:
    """Where pools can be run, whatever the load: tokens/s of a user, and per accelerator and megawatt.

    parts: pool -> (number of the shape, its curve). Of two pools as many accelerators prefill as the others need, in
    shares of one; the best pool of prompts goes with every pool of answers.
    """
    beside = (0.0, 0.0, -1)  # accelerators and joules of a request elsewhere
    if "prefill" in parts:
        able = [(n, one) for n, one in parts["prefill"] if not one.reason and one.prompts_per_s]
        if not able:
            return {}
        number, best = min(able, key=lambda one: one[1].accelerators / one[1].prompts_per_s)
        beside = best.accelerators / best.prompts_per_s, (best.idle_W + best.prompts_W) / best.prompts_per_s, number
    columns: dict[str, list[Any]] = {name: [] for name in ("shape", "sequences", "user", "each", "megawatt")}
    for number, curve in parts.get("decode", parts.get("", ())):
        if curve.reason or not len(curve.sizes):
            continue
        of_request = curve.accelerators / curve.rate + beside[0]
        joules = (curve.idle_W + curve.over_W) / curve.rate + beside[1]
        columns["shape"] += [number] * len(curve.sizes)
        columns["sequences"] += curve.sizes.tolist()
        columns["user"] += (1.0 / curve.step_s).tolist()
        columns["each"] += (load.mix.output / of_request).tolist()
        columns["megawatt"] += (load.mix.output / joules * 1e6).tolist()
    return {**{name: np.array(one) for name, one in columns.items()}, "prefill": beside[2]}
