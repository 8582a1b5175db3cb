"""Steps of one replica, played where they are asked for."""

from __future__ import annotations

import dataclasses
import functools
import math
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cmsim import api, steps
from cmsim.arrays import Floats
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.parts import PowerSpec
from cmsim.kinds.prefill import PrefillSpec
from cmsim.kinds.serving import BatchingSpec, PoolSpec, ServingSpec
from cmsim.results import Result
from cmsim.scenario import FaultSpec, Run
from cmsim.serving.apart import Apart
from cmsim.serving.costs import Joules
from cmsim.steps import Axis, Points
from cmsim.units import PS_PER_S

#: cached tokens at which decode steps are played, each so many times the last from the second on
CONTEXTS, _FURTHER = (128, 1024), 4
#: tokens of the smallest pass over prompts that is played, how lengths of prompts go up in one pass, and tokens from
#: which on passes are played at more numbers of them
SMALLEST, _LONGER, _FULL = 16, 4, 256
#: rows of a tile of products, and tokens of the pass that is asked whether they count
_TILE, _PROBE = 64, 641
#: evenness is played at halves of it, in these parts
_PARTS = 4096
#: of logarithms
_ROUNDING = 1e-9
#: columns of `steps` [s], [J] and [B]
_SECONDS, _JOULES, _MEMORY = 0, [2, 1, 3], 4

#: seconds, and joules of the low end, the middle and the high end
_Row = tuple[float, float, float, float]


class PlayedSteps:
    """Steps of one replica, played where they are asked for: the functions that `Told` is made of.

    held  caps and clock of its accelerators
    """

    def __init__(
        self,
        run: Run,
        spec: ServingSpec,
        pool: PoolSpec,
        batching: BatchingSpec,
        base: Path | None,
        held: PowerSpec | None = None,
    ):
        self._machines = api.Machines(base)
        said = {
            "model": spec.model,
            "balance": spec.balance,
            "parallel": pool.parallel or spec.parallel,
            "precision": pool.precision or spec.precision,
            "microbatches": pool.microbatches or spec.microbatches,
            "power": held,
            "batch_per_accelerator": 1.0,
        }
        entry = run.system.model_copy(update={"accelerators": pool.accelerators})
        one = dataclasses.replace(run, system=entry, open=(), chosen={}, record="summary")
        drafts = {} if spec.speculative is None else {"speculative": spec.speculative}
        decode = dataclasses.replace(one, spec=DecodeSpec(kind="decode", context_tokens=1, **said, **drafts))  # type: ignore[arg-type]
        prefill = dataclasses.replace(one, spec=PrefillSpec(kind="prefill", prompt_tokens=1, **said))  # type: ignore[arg-type]
        self.system = self._machines(decode)
        apart = pool.experts_apart
        evaluate = api.evaluate if apart is None else Apart(apart, base)
        self._decode = Points(decode, _axes(decode, self._machines), self._machines, evaluate=evaluate)
        self._apart = apart is not None
        axes = _axes(prefill, self._machines)
        self._prefill = Points(prefill, axes, self._machines)
        cached = Axis("workload.cached_tokens", 1, 1 << 30)
        self._chunks = Points(prefill, (*axes, cached), self._machines)
        # of experts a part goes with what all holders have; a step that is less of it is played where it is asked for
        even = Axis("workload.evenness", 1, _PARTS, unit=1 / _PARTS)
        self._lopsided = {
            True: Points(decode, (*_axes(decode, self._machines), even), self._machines),
            False: Points(prefill, (*axes, even), self._machines),
        }
        self._spares: dict[tuple[bool, int, int], float] = {}
        self._sequences = steps.between(1, batching.sequences)
        self._between: dict[tuple[int, int, int], tuple[_Row, _Row]] = {}
        self._passes = _doubling(batching.step_tokens + batching.sequences)

    @property
    def points(self) -> int:
        """How many points this run is made of."""
        return sum(len(points.asked) for points in self._all)

    @property
    def _all(self) -> tuple[Points, ...]:
        return self._decode, self._prefill, self._chunks, *self._lopsided.values()

    def save(self) -> None:
        """Keeps what was played for other runs."""
        for points in self._all:
            points.save()

    def decode(self, sequences: int, tokens: Floats) -> tuple[Floats, Floats]:
        """Seconds of a step of so many sequences, for columns of cached tokens, and its joules, shape (3, tokens)."""
        low, high = _around(self._sequences, sequences)
        nodes = list(CONTEXTS)
        while nodes[-1] < tokens[-1]:
            nodes.append(nodes[-1] * _FURTHER)
        told = steps.straight(
            low, high, sequences, lambda x: np.array([self._decode((int(x), node)) for node in nodes])
        )
        seconds, *joules = (np.interp(tokens, nodes, told[:, column]) for column in (_SECONDS, *_JOULES))
        return seconds, np.array(joules)

    def passes(self, tokens: float, length: float) -> tuple[float, Joules]:
        """Seconds and joules of a pass over prompts of ``tokens`` together, as if each were ``length`` long."""
        if tokens > _TILE:
            tile = self._tile
            tokens = -(-tokens // tile) * tile
        return self._straight(tokens, length)

    @functools.cached_property
    def _tile(self) -> int:
        """Tokens by which passes grow: a tile's rows where products fill whole tiles, else 1; asked of one pass that is
        a token more than some tiles."""
        if self._passes[-1] < _PROBE:
            return 1
        found = float(self._prefill((1, _PROBE))[_SECONDS])
        whole = -(-_PROBE // _TILE) * _TILE
        line, tiles = (abs(self._straight(x, x)[0] - found) for x in (_PROBE, whole))
        return _TILE if tiles < line else 1

    def _straight(self, tokens: float, length: float) -> tuple[float, Joules]:
        """Between passes that are played."""
        low, high = _around(self._passes, tokens)
        a = self._at_length(low, length)
        if low == high or tokens <= low:
            return a[0], (a[1], a[2], a[3])
        b, share = self._at_length(high, length), (tokens - low) / (high - low)
        return a[0] + (b[0] - a[0]) * share, (
            a[1] + (b[1] - a[1]) * share,
            a[2] + (b[2] - a[2]) * share,
            a[3] + (b[3] - a[3]) * share,
        )

    def _at_length(self, tokens: int, length: float) -> _Row:
        """A pass of a number of tokens that is played, between lengths of prompts that are."""
        low = high = tokens
        while high < length:
            low, high = high, high * _LONGER
        while low > length and low >= _LONGER * SMALLEST and low % _LONGER == 0:
            low, high = low // _LONGER, low
        found = self._between.get((tokens, low, high))
        if found is None:
            found = self._between[tokens, low, high] = (self._of_length(tokens, low), self._of_length(tokens, high))
        a, b = found
        if length <= low:
            return a
        share = (length - low) / (high - low)
        return (
            a[0] + (b[0] - a[0]) * share,
            a[1] + (b[1] - a[1]) * share,
            a[2] + (b[2] - a[2]) * share,
            a[3] + (b[3] - a[3]) * share,
        )

    def _of_length(self, tokens: int, length: int) -> _Row:
        """Whole prompts where a pass holds some; else a chunk that sees as many tokens in the mean."""
        if length <= tokens:
            row = self._prefill((tokens // length, length))
        else:
            row = self._chunks((1, tokens, (length - tokens) // 2))
        seconds, low, middle, high = row[[_SECONDS, *_JOULES]].tolist()
        return seconds, low, middle, high

    def spared(self, held: float, evenness: float, decodes: bool) -> float:
        """Seconds by which a step is shorter than with all holders as full, where they have so much of the fullest's in
        the mean: ``held`` sequences, or tokens of a pass."""
        whole = max(evenness * _PARTS, 1.0)
        high = 1 << math.ceil(math.log2(whole) - _ROUNDING)
        share = (whole - high / 2) / (high / 2)
        nodes = self._sequences if decodes else self._passes
        few, many = _around(nodes, held)
        ends = [self._spared(decodes, few, each) for each in (high // 2, high)]
        if many != few:
            at = (held - few) / (many - few)
            more = [self._spared(decodes, many, each) for each in (high // 2, high)]
            ends = [a + (b - a) * at for a, b in zip(ends, more, strict=True)]
        return max(ends[0] + (ends[1] - ends[0]) * share, 0.0)

    def _spared(self, decodes: bool, held: int, even: int) -> float:
        """The same at what is played."""
        if even >= _PARTS or even < 1:
            return 0.0
        found = self._spares.get((decodes, held, even))
        if found is None:
            points = self._lopsided[decodes]
            point = (held, CONTEXTS[0]) if decodes else (1, held)
            full = (self._decode if decodes else self._prefill)(point)
            found = float(full[_SECONDS] - points((*point, even))[_SECONDS])
            self._spares[decodes, held, even] = found
        return found

    def error(self, sequences: int, context: int, tokens: int, length: int) -> float:
        """By how much steps are missed off the grid: the larger of a decode step and of a pass. [1]"""
        worst = 0.0
        if sequences:
            found = self._decode((sequences, max(context, CONTEXTS[0])))[_SECONDS]
            told, _ = self.decode(sequences, np.array([float(max(context, CONTEXTS[0]))]))
            worst = abs(float(told[0]) / found - 1)
        if tokens >= SMALLEST:
            cached = max(length - tokens, 0) // 2
            found = self._chunks((1, tokens, cached)) if cached else self._prefill((1, tokens))
            worst = max(worst, abs(self.passes(tokens, tokens + 2 * cached)[0] / found[_SECONDS] - 1))
        return worst

    def port_share(self, sequences: int, tokens: int, *, decodes: bool) -> float:
        """Share of a rank's port that a step uses over its time: one that decodes, or a pass over ``tokens``. [1]"""
        points, point = (self._decode, (sequences, tokens)) if decodes else (self._prefill, (1, tokens))
        found = api.evaluate(points.at(point), self._machines)
        if not isinstance(found, Result):
            return 0.0
        links = found.columns["links"]
        ports = np.char.startswith(np.asarray(links["resource"], str), "port.")
        if not ports.any():
            return 0.0
        busy = links["utilization"] * (links["end_ps"] - links["start_ps"])
        names, which = np.unique(np.asarray(links["resource"], str)[ports], return_inverse=True)
        used_ps = np.bincount(which, busy[ports], minlength=len(names)).max()
        return min(float(used_ps) / (float(found.metrics["makespan_s"]) * PS_PER_S), 1.0)

    def slowdown(self, part: str, sequences: int, tokens: int, *, decodes: bool) -> float:
        """Time of a step with a part of the fabric down, over that without: of one that decodes, or of a pass. [1]"""
        points, point = (self._decode, (sequences, tokens)) if decodes else (self._prefill, (1, tokens))
        one = dataclasses.replace(points.at(point), faults=(FaultSpec(part=part),), network="flow")
        found = api.evaluate(one, self._machines)
        if not isinstance(found, Result):
            raise found.error()
        return max(float(found.metrics["fault_slowdown"]), 1.0)

    def memory(self, tokens: int) -> tuple[float, float]:
        """What a rank holds beside its cache, with the largest pass in flight, and a cached token's share of it. [B]"""
        few, many = CONTEXTS[1], CONTEXTS[1] * _FURTHER
        less, more = self._decode((1, few))[_MEMORY], self._decode((1, many))[_MEMORY]
        of_token = (more - less) / (many - few)
        if self._apart:
            return less - of_token * few, of_token
        largest = max(node for node in self._passes if node <= max(tokens, SMALLEST))
        beside = self._prefill((1, largest))[_MEMORY] - of_token * largest
        return max(beside, less - of_token * few), of_token


def _axes(run: Run, machines: api.Machines) -> tuple[Axis, Axis]:
    held, length = steps.of_inference(run, machines)
    return held, length


def _doubling(high: int) -> list[int]:
    """Tokens of passes that are played: powers of two, and where products fill the machine numbers between them."""
    return [one for one in steps.between(SMALLEST, high) if one >= _FULL or one & (one - 1) == 0]


def _around(nodes: Sequence[int], x: float) -> tuple[int, int]:
    """The neighbours of a number among some; twice the same where it is one of them, or beyond the last."""
    at = min(bisect_left(nodes, x), len(nodes) - 1)
    return (nodes[at], nodes[at]) if nodes[at] <= x or at == 0 else (nodes[at - 1], nodes[at])
