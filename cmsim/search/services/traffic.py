"""What a service is asked, in sum: means that set the pace, and the requests that promises are measured by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.kinds.serving import ServingSpec
from cmsim.serving.capacity import Mix
from cmsim.serving.questions import Questions
from cmsim.units import PS_PER_S


@dataclass(frozen=True)
class Traffic:
    """Requests in sum.

    mix          in the mean, and with what a cache that forgets nothing would find, where plans keep beginnings
    first        tokens of a prompt to be computed, and pairs that they see, of the request that the promised share of
                 all is not longer than
    context      tokens of that share's prompts    longest  tokens of that share's requests, prompts and answers
    shortest     tokens of the shortest prompt
    rate_per_s   of an open loop, 0 of a closed one    users  of a closed one    waits: one that waits long is no wait
    requests, output   how many, and tokens of all answers    last_s, last_output   arrival of the last one, its answer
    counted_s    until then since the first one that counts; 0: all of a run does
    """

    mix: Mix
    first: tuple[float, float]
    context: int
    longest: int
    shortest: int
    rate_per_s: float
    users: int
    requests: int
    output: float
    last_s: float
    last_output: int
    counted_s: float = 0.0

    @classmethod
    def of(cls, asked: Questions, spec: ServingSpec, *, keeps: bool) -> Traffic:
        """keeps: whether plans keep beginnings of prompts"""
        prompt, output = asked.prompt.astype(float), asked.output.astype(float)
        found = best_found(asked).astype(float) if keeps else np.zeros(len(prompt))
        new, pairs = prompt - found, (prompt**2 - found**2) / 2
        share = spec.slo.attainment if spec.slo is not None else 1.0
        order = np.argsort(new, kind="stable")
        at = order[_place(len(order), share)]
        arrival = asked.arrival_ps
        return cls(
            mix=Mix(float(prompt.mean()), float(new.mean()), float(pairs.mean()), float(output.mean())),
            first=(float(new[at]), float(pairs[at])),
            context=int(_at(prompt, share)),
            longest=int(_at(prompt + output, share)),
            shortest=int(prompt.min()),
            rate_per_s=asked.rate_per_s,
            users=asked.users,
            requests=len(prompt),
            output=float(output.sum()),
            last_s=0.0 if arrival is None else max(float(arrival.max()), 0.0) / PS_PER_S,
            last_output=int(output[-1]),
            counted_s=_counted_s(arrival, spec.warm_up),
        )


def _counted_s(arrival: Ints | None, warm_up: float) -> float:
    if arrival is None or not warm_up:
        return 0.0
    return float(arrival.max() - np.sort(arrival)[int(len(arrival) * warm_up)]) / PS_PER_S


def _place(count: int, share: float) -> int:
    return min(max(int(np.ceil(count * share)) - 1, 0), count - 1)


def _at(values: Floats, share: float) -> float:
    return float(np.sort(values)[_place(len(values), share)])


def best_found(asked: Questions) -> Ints:
    """Tokens of each prompt that came before as the beginning of another one, never all of it: what a cache finds that
    forgets nothing, at most."""
    none: Ints = np.zeros(len(asked.prompt), np.int64)
    if asked.prefix is None or not len(asked.prefix.block):
        return none
    # of a trace of which only the beginning is replayed
    ptr = asked.prefix.ptr[: len(asked.prompt) + 1]
    block = asked.prefix.block[: ptr[-1]]
    _, first, which = np.unique(block, return_index=True, return_inverse=True)
    owner = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    # of a beginning that is new at one block all that follows is new
    new = owner[first][which] == owner
    ahead = np.concatenate([[0], np.cumsum(new)])
    still = ahead[1:] - np.repeat(ahead[ptr[:-1]], np.diff(ptr)) == 0
    known = np.bincount(owner[still], minlength=len(none))
    out: Ints = np.minimum(known * asked.block_tokens, np.maximum(asked.prompt - 1, 0))
    return out
