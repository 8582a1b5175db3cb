"""What steps of a service cost, in whole picoseconds: of sequences that decode, and with chunks of prompts beside them.

A decode step of n sequences with q cached tokens in the mean is told for whole q, and added up from 0 on: of any number
of steps in a row, each with one token more, the time is the difference of two sums, exactly that of one step after the
other.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.units import PS_PER_S, to_ps

#: tokens for which a row is told at first; a row grows by doubling
_FIRST = 1024
#: of a band: the least, the middle, the most. Of a step it is what it takes over the same time of waiting
Joules = tuple[float, float, float]


class StepRow:
    """Steps of so many sequences, by the tokens that each has cached in the mean.

    tell  (first, last) -> picoseconds (whole) and joules, shape (3, last - first), for each number of tokens
    sums  sums[q] is the time of a step at 0 tokens, one at 1, ... and one at q - 1 [ps]
    """

    __slots__ = ("_joules", "_tell", "sums")

    def __init__(self, tell: Callable[[int, int], tuple[Ints, Floats]]):
        self._tell = tell
        self.sums = array("q", [0])
        self._joules = np.zeros((3, 1))

    def upto(self, tokens: int) -> array[int]:
        """The sums, told for steps at fewer than ``tokens`` tokens at least."""
        have = len(self.sums) - 1
        if have < tokens:
            last = max(_FIRST, have)
            while last < tokens:
                last *= 2
            times, joules = self._tell(have, last)
            self.sums.frombytes((np.cumsum(times) + self.sums[-1]).astype(np.int64).tobytes())
            more = self._joules[:, -1:] + np.cumsum(joules, axis=1)
            self._joules = np.concatenate([self._joules, more], axis=1)
        return self.sums

    def joules(self, first: Ints, last: Ints) -> Floats:
        """Of stretches of steps from ``first`` to below ``last``, shape (3, stretches). [J]"""
        out: Floats = self._joules[:, last] - self._joules[:, first]
        return out

    def times(self, first: int, last: int) -> Ints:
        """Of each step from ``first`` to below ``last``. [ps]"""
        return np.diff(np.frombuffer(self.sums, np.int64)[first : last + 1])


class Costs(Protocol):
    """What steps cost; sequences and tokens are those of the busiest holder, which sets the pace of all.

    alone   steps have prompts or sequences that decode, not both: those that decode wait
    shared  part of a step goes with what all holders have together
    """

    @property
    def alone(self) -> bool: ...

    @property
    def shared(self) -> bool: ...

    def row(self, sequences: int, mean: int = 0) -> StepRow:
        """Steps that only decode. mean: sequences of a holder in the mean, in whole ones; 0: all are as full"""
        ...

    def mixed(self, sequences: int, context: int, tokens: int, pairs: int, evenness: float = 1.0) -> tuple[int, Joules]:
        """One step of ``sequences`` that decode, with ``context`` tokens each, and ``tokens`` of prompts, each of which
        sees as many as make ``pairs`` together. evenness: tokens of a holder in the mean, over these. [ps], [J]"""
        ...


class Plain:
    """Costs by formula, to hold the engine against queueing theory: so long a step that decodes, so long each token of
    a prompt; no energy."""

    alone = shared = False

    def __init__(self, step_ps: int, token_ps: int):
        self._token_ps = token_ps
        self._step_ps = step_ps
        self._row = StepRow(lambda first, last: (np.full(last - first, step_ps), np.zeros((3, last - first))))

    def row(self, sequences: int, mean: int = 0) -> StepRow:  # noqa: ARG002
        return self._row

    def mixed(
        self,
        sequences: int,
        context: int,  # noqa: ARG002
        tokens: int,
        pairs: int,  # noqa: ARG002
        evenness: float = 1.0,  # noqa: ARG002
    ) -> tuple[int, Joules]:
        return (self._step_ps if sequences else 0) + tokens * self._token_ps, (0.0, 0.0, 0.0)


#: added to the sequences of a step: it is one of those that a fault makes longer
SLOWED = 1 << 32


class Slowed:
    """Costs of a replica under a fault that comes and goes: of steps of `SLOWED` and more sequences those with it."""

    def __init__(self, plain: Costs, slow: Costs):
        self._plain, self._slow = plain, slow

    @property
    def alone(self) -> bool:
        """Whether steps have prompts or sequences that decode, not both."""
        return self._plain.alone

    @property
    def shared(self) -> bool:
        """Whether part of a step goes with what all holders have together."""
        return self._plain.shared

    def row(self, sequences: int, mean: int = 0) -> StepRow:
        """Steps that only decode."""
        return self._slow.row(sequences - SLOWED, mean) if sequences >= SLOWED else self._plain.row(sequences, mean)

    def mixed(self, sequences: int, context: int, tokens: int, pairs: int, evenness: float = 1.0) -> tuple[int, Joules]:
        """A step with prompts."""
        if sequences >= SLOWED:
            return self._slow.mixed(sequences - SLOWED, context, tokens, pairs, evenness)
        return self._plain.mixed(sequences, context, tokens, pairs, evenness)


@dataclass(frozen=True)
class Host:
    """What a serving engine and its host add to steps.

    step_s, each_s   to prepare a step while the last one runs, and for each sequence in it: a step takes no less [s]
    prompts_s        to issue a step with prompts, which is no captured graph: it takes no less [s]
    drafts_s         to issue passes that draft tokens, which wait for what the step gave: after all else [s]
    meets_s          at the sums over tensor-parallel ranks, beside the messages: ranks wait for each other [s]
    alone            steps have prompts or sequences that decode, not both
    decode, prefill  device time in the engine, over that of kernels and messages [1]
    """

    step_s: float = 0.0
    each_s: float = 0.0
    prompts_s: float = 0.0
    drafts_s: float = 0.0
    meets_s: float = 0.0
    alone: bool = False
    decode: float = 1.0
    prefill: float = 1.0

    def fault(self, decode: float, prefill: float) -> Host:
        """Steps that take so many times as long on the device."""
        return replace(self, decode=self.decode * decode, prefill=self.prefill * prefill)

    def slower(self, times: float) -> Host:
        """A host that takes so many times as long."""
        host = {name: getattr(self, name) * times for name in ("step_s", "each_s", "prompts_s", "drafts_s")}
        return replace(self, **host)


class Told:
    """Costs between points that were played.

    decode  (sequences, tokens) -> seconds, joules (3 rows) of one step, in columns of tokens
    passes  (tokens, length) -> seconds, joules of a pass over prompts of that many tokens, each of which sees half of
            ``length`` others in the mean
    spared  (sequences or tokens of a pass, evenness, whether it decodes) -> seconds by which a step is shorter where
            holders have so much of the fullest's in the mean: of experts, which work on what all have; None: of nothing
    least   cached tokens below which nothing is told
    host    what the engine and its host add
    idle_W  what the machine draws that waits, which is not counted here [W]
    accepted  tokens of a sequence in one step; a step is shared out over them
    """

    def __init__(
        self,
        decode: Callable[[int, Floats], tuple[Floats, Floats]],
        passes: Callable[[float, float], tuple[float, Joules]],
        *,
        least: int,
        host: Host,
        idle_W: Joules,
        accepted: float = 1.0,
        spared: Callable[[float, float, bool], float] | None = None,
    ):
        self._decode, self._passes, self._least, self._spared = decode, passes, least, spared
        self._host, self._idle_W, self._accepted = host, idle_W, accepted
        self._rows: dict[tuple[int, int], StepRow] = {}
        self._at: dict[tuple[int, int], tuple[float, Joules]] = {}

    def with_host(self, times: float) -> Told:
        """The same steps, with a host that takes so many times as long."""
        return self.hosted(self._host.slower(times))

    def faulty(self, decode: float, prefill: float) -> Slowed:
        """These, and those that a fault makes so many times as long."""
        return Slowed(self, self.hosted(self._host.fault(decode, prefill)))

    def hosted(self, host: Host) -> Told:
        """The same steps, with another host."""
        return Told(
            self._decode,
            self._passes,
            least=self._least,
            host=host,
            idle_W=self._idle_W,
            accepted=self._accepted,
            spared=self._spared,
        )

    @property
    def alone(self) -> bool:
        """Whether steps have prompts or sequences that decode, not both."""
        return self._host.alone

    @property
    def shared(self) -> bool:
        """Whether part of a step goes with what all holders have together."""
        return self._spared is not None

    def row(self, sequences: int, mean: int = 0) -> StepRow:
        key = sequences, mean or sequences
        found = self._rows.get(key)
        if found is None:
            found = self._rows[key] = StepRow(lambda first, last: self._tell(*key, first, last))
        return found

    def _tell(self, sequences: int, mean: int, first: int, last: int) -> tuple[Ints, Floats]:
        tokens = np.arange(first, last, dtype=float)
        seconds, joules = self._decode(sequences, tokens)
        took_s = seconds
        if mean < sequences and self._spared is not None:
            seconds = seconds - self._spared(sequences, mean / sequences, True)
            # of all holders together
            took_s, joules = self._decode(mean, tokens)
        # what the engine adds draws what waiting does
        joules = joules - np.array(self._idle_W)[:, None] * took_s
        seconds = seconds * self._host.decode + self._host.meets_s
        long_s = (np.maximum(seconds, self._floor_s(sequences)) + self._host.drafts_s) / self._accepted
        return np.maximum(to_ps(long_s), 1), joules / self._accepted

    def _floor_s(self, sequences: int) -> float:
        return self._host.step_s + self._host.each_s * sequences

    def mixed(self, sequences: int, context: int, tokens: int, pairs: int, evenness: float = 1.0) -> tuple[int, Joules]:
        """All tokens pass the weights together, as one pass over prompts; what is read of the caches of those that
        decode comes on top: by how much their step is longer than with next to nothing cached. No shorter than it."""
        both, length = tokens + sequences, 2.0 * pairs / (tokens + sequences)
        seconds, joules = self._passes(both, length)
        took_s = seconds
        if evenness < 1.0 and self._spared is not None:
            seconds -= self._spared(both, evenness, False)
            took_s, joules = self._passes(both * evenness, length)
        joules = self._over(joules, took_s)
        seconds = seconds * self._host.prefill + self._host.meets_s
        if sequences:
            alone, its = self._one(sequences, context)
            bare, its_bare = self._one(sequences, self._least)
            if seconds + alone - bare >= alone:
                seconds += alone - bare
                joules = tuple([a + b - c for a, b, c in zip(joules, its, its_bare, strict=True)])  # type: ignore[assignment]
            else:
                seconds, joules = alone, its
        floor_s = max(self._floor_s(sequences + 1), self._host.prompts_s)
        took_s = max(seconds, floor_s) + (self._host.drafts_s if sequences else 0.0)
        return max(round(took_s * PS_PER_S), 1), joules

    def _over(self, joules: Joules, seconds: float) -> Joules:
        """What is drawn over a machine that waits. [J]"""
        low, middle, high = (joule - watts * seconds for joule, watts in zip(joules, self._idle_W, strict=True))
        return low, middle, high

    def _one(self, sequences: int, context: int) -> tuple[float, Joules]:
        """A step that only decodes, near a number of cached tokens: it goes with them so slowly that a hundredth of
        them is not told apart. [s], [J] over waiting"""
        fine = 1 << max(context.bit_length() - 7, 0)
        key = sequences, context // fine * fine
        found = self._at.get(key)
        if found is None:
            seconds, joules = self._decode(sequences, np.array([float(key[1])]))
            took_s = float(seconds[0])
            over = self._over(tuple(joules[:, 0].tolist()), took_s)
            found = self._at[key] = took_s * self._host.decode + self._host.meets_s, over
        return found
