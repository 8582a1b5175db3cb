"""Requests of a service as columns: what was asked, and when what became of each of them."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

from cmsim.arrays import Ints
from cmsim.serving.questions import Questions

#: what became of a request; `WAITING` covers everything before its end
WAITING, DONE, TIMED_OUT, REFUSED, CANCELLED, LOST = range(6)
#: names of these, as results have them
OUTCOMES = ("unfinished", "done", "timed_out", "refused", "cancelled", "lost")
#: of times that never came [ps]
NEVER = -1


def _column(values: Ints) -> array[int]:
    return array("q", np.ascontiguousarray(values, np.int64).tobytes())


@dataclass
class Book:
    """One entry per request in each column; times in whole picoseconds, `NEVER` where they did not come.

    prompt, output   tokens asked for    arrival  at the service's door
    scheduled        first chunk of the prompt begins    prefilled  its first token is there
    moved            its cache has arrived at the pool that decodes, where that is another one
    end              last token, or when it was given up or refused
    generated        tokens so far    again  how often it was preempted    holder  who decoded it, counted over pools
    lost             of who lost its replica, when it had its last token there
    tries            how often it had to begin anew elsewhere; how often it was preempted counts from there
    priority         those of a lower number go first
    cached           tokens of the prompt that were found in a cache    fetched  of these, those of a pool of caches and
                     what is before them
    """

    prompt: array[int]
    output: array[int]
    arrival: array[int]
    scheduled: array[int]
    prefilled: array[int]
    moved: array[int]
    end: array[int]
    generated: array[int]
    again: array[int]
    holder: array[int]
    priority: array[int]
    cached: array[int]
    fetched: array[int]
    outcome: array[int]
    lost: array[int]
    tries: array[int]

    @classmethod
    def of(cls, asked: Questions) -> Book:
        """A book of requests of which none has come yet."""
        count = len(asked.prompt)
        never, none = np.full(count, NEVER), np.zeros(count, np.int64)
        return cls(
            prompt=_column(asked.prompt),
            output=_column(asked.output),
            arrival=_column(never if asked.arrival_ps is None else asked.arrival_ps),
            scheduled=_column(never),
            prefilled=_column(never),
            moved=_column(never),
            end=_column(never),
            generated=_column(none),
            again=_column(none),
            holder=_column(never),
            priority=_column(none if asked.priority is None else asked.priority),
            cached=_column(none),
            fetched=_column(none),
            outcome=_column(none),
            lost=_column(never),
            tries=_column(none),
        )

    def __len__(self) -> int:
        return len(self.prompt)

    def column(self, name: str) -> Ints:
        """A column as an array of its own."""
        return np.frombuffer(getattr(self, name), np.int64).copy()
