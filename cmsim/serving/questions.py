"""What a service is asked: arrivals and lengths, drawn from a seed or replayed."""

from __future__ import annotations

from dataclasses import dataclass, field

from cmsim.arrays import Ints
from cmsim.requests import Prefix


@dataclass(frozen=True)
class Questions:
    """Requests, in order of arrival, as far as that is known.

    prompt, output   tokens, at least 1    arrival_ps  ascending; None: a closed loop, in which each user asks again
                     when the answer is there; below 0: of a later turn of a conversation
    then, think_ps   of each request the next turn, -1 for none, and how long after its end that comes [ps]
    priority         those of a lower number go first; None: all alike
    quits_ps         after its arrival, when somebody does not want the answer any more; -1: never [ps]
    prefix           blocks of the prompts where it is known what they share, of ``block_tokens`` tokens
    warm             blocks of the first prompt are in caches when it comes
    rate_per_s       of an open loop, on average    users  of a closed loop    notes  to say beside a result
    gap_ps           of a closed loop: between two requests, whoever sends them, at least [ps]
    """

    prompt: Ints
    output: Ints
    arrival_ps: Ints | None
    prefix: Prefix | None = None
    block_tokens: int = 0
    then: Ints | None = None
    think_ps: Ints | None = None
    rate_per_s: float = 0.0
    users: int = 0
    gap_ps: int = 0
    warm: bool = False
    priority: Ints | None = None
    quits_ps: Ints | None = None
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.prompt)
