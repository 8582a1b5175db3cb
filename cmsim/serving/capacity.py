"""What a plan can serve at most, before anything is simulated.

A queue is never empty then, so that each holder has as many sequences as fit, and each that ends lets the next prompt
in. Of a request with p tokens in and o out a holder of B sequences sees B / (o - 1) come in each step; a step takes
longer where a prompt is in it, of any of the holders that step together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.serving.costs import Joules
from cmsim.serving.pools import Pool
from cmsim.serving.questions import Questions
from cmsim.units import PS_PER_S


@dataclass(frozen=True)
class Mix:
    """Requests in the mean: tokens of prompts, those of them that are computed, what these see, tokens of answers, and
    tokens of prompts that others hold for them."""

    prompt: float
    new: float
    pairs: float
    output: float
    others: float = 0.0

    @classmethod
    def of(cls, asked: Questions, pool: Pool, cached: Ints | None, others: float = 0.0) -> Mix:
        """Those that a pool takes, where some tokens of each prompt were found in a cache."""
        blocks = -(-(asked.prompt + asked.output) // pool.limits.block_tokens)
        fits = (blocks <= pool.limits.blocks) & (asked.prompt + asked.output <= pool.context)
        prompt, output = asked.prompt[fits].astype(float), asked.output[fits].astype(float)
        if not len(prompt):
            return cls(0.0, 0.0, 0.0, 0.0)
        found = 0.0 if cached is None else cached[fits].astype(float)
        pairs = (prompt**2 - found**2) / 2
        new = float((prompt - found).mean())
        return cls(float(prompt.mean()), new, float(pairs.mean()), float(output.mean()), others)


def requests_per_s(pools: tuple[Pool, ...], asked: Questions, cached: Ints | None = None, others: float = 0.0) -> float:
    """Of all pools together, the slowest sets the pace; 0 where no request fits. [1/s]

    cached: tokens of each prompt that are found in a cache    others  tokens that another sequence holds already, mean
    """
    if len(pools) == 1:
        return _most(pools[0], Mix.of(asked, pools[0], cached, others), prefills=True, decodes=True)
    first, last = pools
    return min(
        _most(first, Mix.of(asked, first, cached), prefills=True, decodes=False),
        _most(last, Mix.of(asked, last, cached), prefills=False, decodes=True),
    )


def _most(pool: Pool, mix: Mix, *, prefills: bool, decodes: bool) -> float:
    if not mix.prompt:
        return 0.0
    if not decodes or mix.output <= 1:
        return of_prompts(pool, mix) if prefills else math.inf
    limits = pool.limits
    held = mix.prompt - mix.others + mix.output / 2 + limits.block_tokens / 2
    room = (limits.blocks - limits.spare) * limits.block_tokens
    most = max(min(limits.sequences, int(room // held)), 1)
    sizes = sorted({most, *(2**n for n in range(most.bit_length()))})
    return max(_of_batch(pool, mix, size, prefills=prefills) for size in sizes)


def of_prompts(pool: Pool, mix: Mix) -> float:
    """Of a pool that only prefills: passes of one prompt, or as full as they may be. [1/s]"""
    rates = []
    for tokens in {min(mix.new, pool.limits.step_tokens), float(pool.limits.step_tokens)}:
        pairs = tokens * mix.pairs / mix.new
        time_ps, _ = pool.costs.mixed(0, 0, max(round(tokens), 1), round(pairs))
        rates.append(tokens / mix.new / time_ps)
    return max(rates) * PS_PER_S * pool.holders * pool.replicas


def _of_batch(pool: Pool, mix: Mix, size: int, *, prefills: bool) -> float:
    """With so many sequences on each holder."""
    return steady(pool, mix, size, prefills=prefills).requests_per_s


@dataclass(frozen=True)
class SteadyPool:
    """A pool whose holders have as many sequences at every time.

    requests_per_s  that end, and come    step_s  mean time from a token to the next [s]
    over_W          what a replica draws in the mean beyond waiting: the least, the middle, the most [W]
    """

    requests_per_s: float
    step_s: float
    over_W: Joules


def steady(pool: Pool, mix: Mix, size: int, *, prefills: bool) -> SteadyPool:
    """With ``size`` sequences on each holder; ``prefills``: and the prompts that come for those that end."""
    context = round(mix.prompt + mix.output / 2)
    row = pool.costs.row(size)
    sums = row.upto(context + 1)
    step_ps = float(sums[context + 1] - sums[context])
    joules = row.joules(np.array([context]), np.array([context + 1]))[:, 0]
    come = size / (mix.output - 1)
    if prefills:
        budget = pool.limits.step_tokens - size
        tokens = min(max(mix.new, come * mix.new), budget)
        pairs = tokens * mix.pairs / mix.new
        share = come * mix.new / tokens
        evenness = min((size + come * mix.new) / (size + tokens), 1.0)
        with_ps, more = pool.costs.mixed(size, context, max(round(tokens), 1), round(pairs), evenness)
        if share > 1:  # steps are full of prompts, and fewer sequences are there than could be
            rate = pool.holders * pool.replicas * tokens / mix.new / with_ps * PS_PER_S
            return _steady(rate, float(with_ps), np.array(more))
        often = 1 - (1 - share) ** pool.holders
        if with_ps > step_ps:
            joules = joules + often * (np.array(more) - joules)
        step_ps += often * max(with_ps - step_ps, 0.0)
    return _steady(pool.holders * pool.replicas * come / step_ps * PS_PER_S, step_ps, joules)


def _steady(rate: float, step_ps: float, joules: Floats) -> SteadyPool:
    low, middle, high = (joules / step_ps * PS_PER_S).tolist()
    return SteadyPool(rate, step_ps / PS_PER_S, (low, middle, high))


def in_words(rate: float, capacity: float) -> str:
    """What to say of a load that is more than the plan can serve."""
    return (
        f"unstable: {rate:.3g} requests/s come and the plan serves {capacity:.3g} at most ({rate / capacity:.0%}); the "
        "queue grows for as long as they come, and what users wait depends on nothing but how long that is"
    )


__all__ = ["Mix", "SteadyPool", "in_words", "of_prompts", "requests_per_s", "steady"]
