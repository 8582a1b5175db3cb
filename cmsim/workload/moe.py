"""Where tokens go in a mixture of experts: slots, ranks, bytes and how unequal the load is. Kernels are elsewhere.

A *slot* holds the weights of one expert on one rank. Routed experts fill one slot each, redundant slots hold
second copies of some, and shared experts either sit on every rank (no slots, no traffic) or have slots of their own.
An *imbalance* is the load of the busiest over the mean load [1]; 1.0 is balanced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmsim.arrays import Ints
from cmsim.compute import Column
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.reading.tables import read_records

Shares = NDArray[np.float64]
Placement = Literal["block", "round_robin", "packed"]
#: how often a token is sent: once for each of its experts, for each rank, or for each node, which fans it out
Once = Literal["expert", "rank", "node"]


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


def experts_touched(local_experts: Column, *, experts: int, top_k: int, tokens: Column) -> Column:
    """Expected number of a rank's experts that get at least one token: their weights must be read. [1]

    E_loc (1 - (1 - k/E)^T), uniform routing.    tokens: T, of the whole group [1]
    """
    return local_experts * (1.0 - (1.0 - top_k / experts) ** tokens)


def busiest_touched(local_experts: float, *, ranks: float, experts: int, top_k: int, tokens: float) -> float:
    """Expected number of experts with a token on the rank that has most of them, uniform routing. [1]

    The mean of `experts_touched`, and as many deviations more as the largest of ``ranks`` normal draws is expected to
    have, (R - 3/8) / (R + 1/4) of the normal distribution (Blom, Statistical Estimates, 1958). The slowest rank sets
    the pace of all, and in small batches experts take the time of reading their weights.

    >>> round(busiest_touched(16, ranks=8, experts=128, top_k=8, tokens=8), 1)  # 9.26 in 400 draws
    9.3
    """
    share = 1.0 - (1.0 - top_k / experts) ** tokens
    mean = float(local_experts * share)
    if ranks <= 1:
        return mean
    spread = math.sqrt(mean * (1.0 - share))
    largest = NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25))
    return float(min(mean + spread * largest, local_experts))


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


def rank_imbalance(slot_load: ArrayLike, ranks: int, *, placement: Placement = "block") -> float:
    """Load of the busiest rank over the mean, for slots placed on ``ranks`` as ``slot_ranks`` places them. [1]

    Raises InputError where the slots do not fill the ranks evenly.
    """
    load = np.asarray(slot_load, np.float64)
    total = np.bincount(slot_ranks(load, ranks, placement=placement), weights=load, minlength=ranks)
    return float(total.max() / total.mean())


#: of an interval between two placements, and of draws of which experts change places
_LAGS, _DRAWS = 8, 16


def drifted_imbalance(
    shares: ArrayLike, redundant: int, ranks: int, *, drift_steps: float, every_steps: float = math.inf, seed: int = 0
) -> float:
    """Load of the busiest rank over the mean, where popularity moves on and copies stay until they are placed anew. [1]

        swapped(t) = 1 - exp(-t / drift)      mean over lags t from every / 2 to 3 every / 2

    Copies are placed by the loads of an interval, as if by those of its middle, and stay for the next one. At a lag of
    t steps a share of the experts, drawn, have the popularity of others among them: how unequal they are stays. Time of
    a step goes with the load of its busiest rank, so that the mean is what steps take in the mean.

    shares: popularity of the routed experts    redundant: slots for second copies    every_steps: inf: placed once, so
    long ago that nothing is left of it

    Source: placement as deepseek-ai/EPLB (`replicas`, and ranks as `slot_ranks` packs them); the drift is a model.

    >>> even = [0.25] * 4
    >>> drifted_imbalance(even, 0, 2, drift_steps=100.0, every_steps=10.0)
    1.0
    """
    share = np.asarray(shares, np.float64)
    copies = replicas(share, redundant)
    slots = slot_shares(share, copies)
    expert = np.repeat(np.arange(len(share)), copies)
    # slots that do not fill ranks are judged one by one
    home = slot_ranks(slots, ranks, placement="packed") if len(slots) % ranks == 0 else np.arange(len(slots))
    lags = [math.inf] if math.isinf(every_steps) else every_steps * (0.5 + (np.arange(_LAGS) + 0.5) / _LAGS)
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(_DRAWS):
        order, further = rng.permutation(len(share)), rng.permutation(len(share))
        for lag in lags:
            some = order[: round(len(share) * -math.expm1(-lag / drift_steps))]
            now = share.copy()
            # the same draw at all lags, so that a longer one differs by more
            now[some] = share[some[np.argsort(further[: len(some)], kind="stable")]]
            load = np.bincount(home, weights=(now / copies)[expert])
            found.append(load.max() / load.mean())
    return float(np.mean(found))


def slot_ranks(slot_load: ArrayLike, ranks: int, *, placement: Placement = "block") -> Ints:
    """The rank of each slot. [1]

    block        slot i on rank i // (slots / ranks)
    round_robin  slot i on rank i mod ranks
    packed       heaviest slot first, each to the lightest rank that has room, as load balancers do

    Raises InputError where the slots do not fill the ranks evenly.
    """
    load = np.asarray(slot_load, np.float64)
    if len(load) % ranks:
        raise InputError(f"{len(load)} expert slots do not fill {ranks} ranks evenly")
    index = np.arange(len(load))
    if placement == "block":
        return index // (len(load) // ranks)
    if placement == "round_robin":
        return index % ranks
    total, room = np.zeros(ranks), np.full(ranks, len(load) // ranks)
    out = np.empty(len(load), np.int64)
    for slot in np.argsort(-load, kind="stable").tolist():
        lightest = int(np.argmin(np.where(room > 0, total, np.inf)))
        out[slot] = lightest
        total[lightest] += load[slot]
        room[lightest] -= 1
    return out


def read_shares(path: Path, experts: int) -> Shares:
    """Share of the tokens each expert gets, from counted loads: a CSV with a column ``load``, experts in order.

    Raises InputError, with file and line, where the file cannot be read, has no such column, a load is not a number
    above or at 0, all are 0, or there is not one for each expert.
    """
    file = str(path)
    rows = read_records(path, needed=("load",))
    loads = [row.number("load") for row in rows]
    problems = [
        row.problem("load", f"must be a number, 0 or more, got {row['load']}")
        for row, load in zip(rows, loads, strict=True)
        if not 0 <= load < math.inf
    ]
    if not problems and len(loads) != experts:
        problems.append(Problem(f"{len(loads)} loads; the model has {experts} routed experts", file, key="load"))
    if not problems and not any(loads):
        problems.append(Problem("all loads are 0", file, key="load"))
    if problems:
        raise InputError(problems[:5])
    shares: Shares = np.array(loads) / math.fsum(loads)
    return shares


def dispatch_matrix_B(
    ranks: int,
    *,
    tokens_per_rank: int,
    top_k: int,
    message_B: float,
    shares: ArrayLike,
    redundant: int = 0,
    shared: int = 0,
    placement: Placement = "packed",
    once: Once = "expert",
    per_node: int | None = None,
    node_limit: int | None = None,
    seed: int = 0,
) -> Shares:
    """Bytes that every rank (row) sends to every rank (column) in one dispatch; the diagonal stays home. [B]

    tokens_per_rank, top_k, message_B: T, k, bytes of a token to one destination    shares: popularity of the routed
    experts    redundant: slots for second copies, which share an expert's tokens    shared: slots of a shared expert,
    each serving an equal part of the ranks; 0 where every rank has it    placement: as ``slot_ranks``
    once: ``node`` sends a token to the rank of its own number in each node, which hands it on to the ranks there
    per_node: ranks of a node    node_limit: nodes chosen first for a token, by the popularity of the experts that have
    their first copy there

    Every token is drawn: k different experts, with Gumbel noise on the logarithm of popularity; equal seeds give equal
    matrices. A combine is the transpose, with its own message. Time grows with ranks x T x experts.

    Raises InputError where slots do not fill the ranks, k is more than there are experts, or ranks the nodes.
    """
    share = np.asarray(shares, np.float64)
    experts = len(share)
    if not 0 < top_k <= int(np.count_nonzero(share)):
        raise InputError(f"top_k {top_k}: {np.count_nonzero(share)} experts get tokens")
    if (once == "node" or node_limit is not None) and (per_node is None or ranks % per_node):
        raise InputError(f"per_node {per_node}: must divide {ranks} ranks")
    copies = replicas(share, redundant)
    load = np.concatenate([slot_shares(share, copies), np.full(shared, 1.0 / top_k / max(shared, 1))])
    home = slot_ranks(load, ranks, placement=placement)
    first = np.concatenate([[0], np.cumsum(copies)])
    node_of = None if per_node is None else home // per_node
    with np.errstate(divide="ignore"):
        log = np.log(share)
    rng = np.random.default_rng(seed)
    matrix = np.zeros((ranks, ranks))
    for sender in range(ranks):
        score = log + rng.gumbel(size=(tokens_per_rank, experts))
        if node_limit is not None and node_of is not None and per_node is not None:
            score = _limited(score, node_of[first[:experts]], share, ranks // per_node, node_limit, rng)
        chosen = np.argpartition(-score, top_k - 1, axis=1)[:, :top_k]
        if np.isneginf(np.take_along_axis(score, chosen, axis=1)).any():
            raise InputError(f"node_limit {node_limit}: the nodes chosen have fewer than {top_k} experts with tokens")
        # each sender keeps to one copy of an expert: load is even over senders
        to = home[first[chosen] + sender % copies[chosen]]
        if shared:
            to = np.concatenate([to, np.full((len(to), 1), home[first[-1] + sender * shared // ranks])], axis=1)
        if once == "expert":
            matrix[sender] += np.bincount(to.ravel(), minlength=ranks)
            continue
        there = np.zeros((len(to), ranks), dtype=bool)
        np.put_along_axis(there, to, True, axis=1)
        if once == "rank":
            matrix[sender] += there.sum(0)
            continue
        assert per_node is not None  # checked above
        nodes = there.reshape(len(to), -1, per_node)
        own = sender // per_node
        local = nodes.sum(0).astype(np.float64)
        for node in range(ranks // per_node):
            relay = sender if node == own else node * per_node + sender % per_node
            if node != own:
                matrix[sender, relay] += nodes[:, node].any(axis=1).sum()
            matrix[relay, node * per_node : (node + 1) * per_node] += local[node]
    out: Shares = matrix * message_B
    return out


def _limited(score: Shares, node: Ints, share: Shares, nodes: int, limit: int, rng: np.random.Generator) -> Shares:
    """Scores of experts outside a token's chosen nodes, struck out."""
    if not 0 < limit <= nodes:
        raise InputError(f"node_limit {limit}: must be 1 to {nodes}")
    with np.errstate(divide="ignore"):
        popular = np.log(np.bincount(node, weights=share, minlength=nodes))
    noisy = popular + rng.gumbel(size=(len(score), nodes))
    allowed = np.zeros(noisy.shape, dtype=bool)
    np.put_along_axis(allowed, np.argpartition(-noisy, limit - 1, axis=1)[:, :limit], True, axis=1)
    out: Shares = np.where(allowed[:, node], score, -np.inf)
    return out
