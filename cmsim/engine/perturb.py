"""What makes ranks differ that run the same program: slow parts, and times that scatter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import erfc, exp, pi, sqrt

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.errors import InputError, Problem
from cmsim.workload.ops import COMPUTE, HOST

#: the stream of random numbers that says which ranks scatter; those of ranks are their numbers
_WHO = 2**63


@dataclass(frozen=True)
class Perturbation:
    """What makes one rank differ: factor on its compute times, factor on its port's and NIC's capacity."""

    compute: float = 1.0
    port: float = 1.0
    nic: float = 1.0


@dataclass(frozen=True)
class Jitter:
    """Factors of mean 1 on times, drawn for every op of every rank, or once for a rank.

    distribution  lognormal, normal (cut at 0), gamma or exponential
    cv            standard deviation over mean; of a normal before the cut [1]
    per           "op" or "rank"    of: which ops, "compute", "host" or "all"
    ranks         of how many ranks, drawn; None: of all
    """

    distribution: str = "lognormal"
    cv: float = 0.05
    per: str = "op"
    of: str = "compute"
    ranks: int | None = None


def rank_factors(perturb: Mapping[int, Perturbation], ranks: int) -> Floats:
    """Factors of every rank on compute, port and NIC, shape (ranks, 3).

    InputError: a rank that is not there.
    """
    outside = [rank for rank in perturb if not 0 <= rank < ranks]
    if outside:
        raise InputError(Problem(f"no rank {outside[0]}: the workload has ranks 0 to {ranks - 1}", key="perturb"))
    factors = np.ones((ranks, 3))
    for rank, change in perturb.items():
        factors[rank] = change.compute, change.port, change.nic
    return factors


def alike(factors: Floats) -> Ints:
    """A number for each rank, equal where its factors are, shape (ranks,)."""
    same = (factors == 1.0).all(axis=1)
    others = np.flatnonzero(~same)
    # one of those that nothing changes stands for all of them, which are nearly all
    shown = np.append(others, np.flatnonzero(same)[:1])
    _, kind = np.unique(factors[shown], axis=0, return_inverse=True)
    kind = kind.reshape(-1)
    out = np.full(len(factors), kind[-1], np.int64)
    out[others] = kind[: len(others)]
    return out


def scattered(jitter: Jitter, ranks: int, seed: int) -> Ints:
    """Ranks whose times scatter, ascending. Draws depend on the seed and on how many ranks there are.

    InputError: of more ranks than there are.
    """
    if jitter.ranks is None:
        return np.arange(ranks)
    if jitter.ranks > ranks:
        raise InputError(Problem(f"got {jitter.ranks}. Allowed: 1 to {ranks}, the workload's.", key="jitter.ranks"))
    made = np.random.Generator(np.random.Philox(key=np.array([seed, _WHO], np.uint64)))
    return np.sort(made.choice(ranks, jitter.ranks, replace=False))


def drawn(jitter: Jitter, kind: Ints, *, rank: int, seed: int) -> Floats:
    """Factor of each op of one rank, shape of ``kind``; 1 where the op does not scatter.

    Draws depend on (seed, rank, number of the op) alone: on no order, and on no other rank.
    """
    made = np.random.Generator(np.random.Philox(key=np.array([seed, rank], np.uint64)))
    count = len(kind) if jitter.per == "op" else 1
    cv = jitter.cv
    if jitter.distribution == "lognormal":
        sigma = np.sqrt(np.log1p(cv * cv))
        factor = made.lognormal(-sigma * sigma / 2, sigma, count)
    elif jitter.distribution == "gamma":
        factor = made.gamma(1 / cv**2, cv**2, count)
    elif jitter.distribution == "exponential":
        factor = 1 - cv + cv * made.exponential(1.0, count)
    else:
        # over the mean of what is left by the cut at 0
        density, below = exp(-0.5 / cv**2) / sqrt(2 * pi), 0.5 * erfc(1 / (cv * sqrt(2)))
        factor = np.maximum(made.normal(1.0, cv, count), 0.0) / (1 - below + cv * density)
    scatters = {"compute": kind == COMPUTE, "host": kind == HOST, "all": (kind == COMPUTE) | (kind == HOST)}[jitter.of]
    return np.where(scatters, factor, 1.0)
