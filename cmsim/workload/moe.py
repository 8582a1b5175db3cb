"""Where tokens go in a mixture of experts: slots, ranks, bytes and how unequal the load is. Kernels are elsewhere.

A *slot* holds the weights of one expert on one rank. Routed experts fill one slot each, redundant slots hold
second copies of some, and shared experts either sit on every rank (no slots, no traffic) or have slots of their own.
An *imbalance* is the load of the busiest over the mean load [1]; 1.0 is balanced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmsim.compute import Column
from cmsim.errors import InfeasibleError, InputError

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class ExpertSlots:
    """How the experts of one layer lie on the ``ep`` ranks of an expert-parallel group.

    routed, shared, redundant   slots by what they hold; ``shared`` 0: a copy on every rank instead
    """

    ep: int
    routed: int
    shared: int
    redundant: int

    @property
    def slots(self) -> int:
        return self.routed + self.shared + self.redundant

    @property
    def per_rank(self) -> int:
        """Slots of one rank, the copy of a shared expert that sits on every rank left out."""
        return self.slots // self.ep


def place_experts(
    ranks: int,
    *,
    routed: int,
    top_k: int,
    shared_experts: int = 0,
    ep: int | Literal["max"] = "max",
    shared: int | Literal["auto"] = "auto",
    redundant: int | Literal["auto"] = "auto",
) -> ExpertSlots:
    """Slots of every kind for an expert-parallel size, or for the largest that is legal.

    A size is legal if it divides ``ranks`` (the ranks of tp x cp x dp) and the slots fill it evenly.

    shared     slots for shared experts. auto: none, a copy sits on every rank, as long as a rank holds more than
               one routed expert; beyond that routed / top_k slots for each, so that a shared slot gets as many tokens
               as the mean routed one
    redundant  slots for second copies. auto: as few as fill the ranks evenly, at most one for each routed expert

    Raises InfeasibleError, with the legal sizes, where ``ep`` is not one of them.

    >>> place_experts(320, routed=256, top_k=8, shared_experts=1)
    ExpertSlots(ep=320, routed=256, shared=32, redundant=32)
    >>> place_experts(72, routed=256, top_k=8, shared_experts=1)
    ExpertSlots(ep=72, routed=256, shared=0, redundant=32)
    >>> place_experts(72, routed=256, top_k=8, redundant=0).ep
    8
    """
    legal = {size: _slots(size, routed, top_k, shared_experts, shared, redundant) for size in divisors(ranks)}
    found = {size: slots for size, slots in legal.items() if slots is not None}
    if ep == "max":
        return found[max(found)]  # ep 1 is always legal
    if ep not in found:
        counted = "" if redundant == "auto" else f" and {redundant} redundant slots"
        raise InfeasibleError(
            f"expert parallel size {ep} is not possible with {ranks} ranks, {routed} routed experts{counted}. "
            f"Possible: {', '.join(map(str, found))}."
        )
    return found[ep]


def _slots(
    ep: int, routed: int, top_k: int, shared_experts: int, shared: int | str, redundant: int | str
) -> ExpertSlots | None:
    own = int(shared) if shared != "auto" else (shared_experts * routed // top_k if ep > routed else 0)
    fill = -(routed + own) % ep if redundant == "auto" else int(redundant)
    if (routed + own + fill) % ep or (redundant == "auto" and fill > routed):
        return None
    return ExpertSlots(ep, routed, own, fill)


def divisors(number: int) -> list[int]:
    """Divisors, smallest first.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [i for i in range(1, math.isqrt(number) + 1) if number % i == 0]
    return small + [number // i for i in reversed(small) if i * i != number]


def tokens_after_dispatch(
    tokens_per_rank: Column, *, top_k: int, shared_destinations: int = 0, imbalance: Column = 1.0
) -> Column:
    """Rows that the experts of the busiest rank work on, when each rank of the group sends ``tokens_per_rank``. [1]

    Every token comes once for each expert it goes to; the mean over ranks does not depend on the group's size.
    shared_destinations: shared experts with slots of their own, one more destination each.
    """
    return tokens_per_rank * (top_k * imbalance + shared_destinations)


def experts_touched(local_experts: Column, *, experts: int, top_k: int, tokens: Column) -> Column:
    """Expected number of a rank's experts that get at least one token: their weights must be read. [1]

    E_loc (1 - (1 - k/E)^T), uniform routing.    tokens: T, of the whole group [1]
    """
    return local_experts * (1.0 - (1.0 - top_k / experts) ** tokens)


def distinct_ranks(experts: int, top_k: int, ranks: int, *, limit: int | None = None) -> float:
    """Expected number of ranks (or nodes) that one token's experts lie on, uniform routing. [1]

    R (1 - C(E - E/R, k) / C(E, k)), R = ``ranks`` with E/R experts each.
    limit: node-limited routing; ``limit`` of the ranks are chosen first, then ``top_k`` experts among theirs.

    >>> round(distinct_ranks(256, 8, 8), 4)
    5.2947
    """
    if limit is not None and limit < ranks:
        return distinct_ranks(experts * limit // ranks, top_k, limit)
    # C(E - e, k) / C(E, k) as a product, so that e need not be whole
    per_rank = experts / ranks
    miss = math.prod(max(experts - per_rank - i, 0.0) / (experts - i) for i in range(top_k))
    return ranks * (1.0 - miss)


def message_B(hidden: int, *, element_bytes: float, scale_block: int = 0, scale_bytes: float = 4.0) -> float:
    """One token to one destination: its vector and, with block scales, one scale per block. [B]

    >>> message_B(7168, element_bytes=1, scale_block=128)
    7392.0
    """
    scales = -(-hidden // scale_block) * scale_bytes if scale_block else 0.0
    return hidden * element_bytes + scales


def multinomial_imbalance(mean_load: Column, bins: int) -> Column:
    """Busiest of ``bins`` experts or ranks under uniform random routing: 1 + sqrt(2 ln(bins) / mean). [1]

    Gaussian approximation of the largest of ``bins`` loads; good for a mean load well above ln(bins).

    >>> round(float(multinomial_imbalance(4096 * 8 / 256, 256)), 3)
    1.294
    """
    return 1.0 + np.sqrt(2.0 * math.log(bins) / np.asarray(mean_load, np.float64))


def zipf_shares(experts: int, s: float) -> Shares:
    """Share of the tokens each expert gets, hottest first: p_i proportional to i^-s. Sums to 1."""
    weight = np.arange(1, experts + 1, dtype=np.float64) ** -s
    shares: Shares = weight / weight.sum()
    return shares


def dirichlet_cv(experts: int, alpha: float) -> float:
    """Coefficient of variation of expert shares drawn from a symmetric Dirichlet: sqrt((E - 1) / (alpha E + 1)). [1]"""
    return math.sqrt((experts - 1) / (alpha * experts + 1))


def dirichlet_shares(experts: int, alpha: float, *, seed: int) -> Shares:
    """One draw of expert shares, unsorted. Sums to 1."""
    return np.random.default_rng(seed).dirichlet(np.full(experts, alpha))


def replicas(shares: ArrayLike, redundant: int) -> NDArray[np.int64]:
    """Copies of each expert: every redundant slot goes to the expert with the most load per copy.

    Source: the greedy step of deepseek-ai/EPLB (replicate_experts).
    """
    share = np.asarray(shares, np.float64)
    copies = np.ones(len(share), np.int64)
    for _ in range(redundant):
        copies[np.argmax(share / copies)] += 1
    return copies


def slot_shares(shares: ArrayLike, copies: NDArray[np.int64]) -> Shares:
    """Load of each slot, copies of an expert side by side and equally loaded."""
    return np.repeat(np.asarray(shares, np.float64) / copies, copies)


def rank_imbalance(
    slot_load: ArrayLike, ranks: int, *, placement: Literal["block", "round_robin", "packed"] = "block"
) -> float:
    """Load of the busiest rank over the mean, for slots placed on ``ranks``. [1]

    block        slot i on rank i // (slots / ranks)
    round_robin  slot i on rank i mod ranks
    packed       heaviest slot first, each to the lightest rank that has room, as load balancers do

    Raises InputError where the slots do not fill the ranks evenly.
    """
    load = np.asarray(slot_load, np.float64)
    if len(load) % ranks:
        raise InputError(f"{len(load)} expert slots do not fill {ranks} ranks evenly")
    if placement == "packed":
        total, room = np.zeros(ranks), np.full(ranks, len(load) // ranks)
        for value in np.sort(load)[::-1]:
            lightest = int(np.argmin(np.where(room > 0, total, np.inf)))
            total[lightest] += value
            room[lightest] -= 1
    else:
        total = load.reshape(ranks, -1).sum(1) if placement == "block" else load.reshape(-1, ranks).sum(0)
    return float(total.max() / total.mean())
