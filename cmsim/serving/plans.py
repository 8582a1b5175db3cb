"""Pools of a scenario: their machines, what their steps cost, and how much their caches hold."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmsim import api, energy, steps
from cmsim.arrays import Floats
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.hardware import System
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.prefill import PrefillSpec
from cmsim.kinds.serving import BatchingSpec, PoolSpec, ServingSpec
from cmsim.scenario import Run
from cmsim.serving.costs import Joules, Told
from cmsim.serving.holder import Limits
from cmsim.serving.pools import Moves, Pool
from cmsim.steps import Axis, Points
from cmsim.units import PS_PER_S, to_ps
from cmsim.workload.model import load_model, speculative_tokens_per_step

#: cached tokens at which decode steps are played, each so many times the last from the second on
_CONTEXTS, _FURTHER = (128, 1024), 4
#: tokens of the smallest pass over prompts that is played, and how lengths of prompts go up in one pass
_SMALLEST, _LONGER = 16, 4
#: columns of `steps` [s], [J] and [B]
_SECONDS, _JOULES, _MEMORY = 0, [2, 1, 3], 4


@dataclass(frozen=True)
class Machine:
    """A pool with what it is made of.

    pool    what the service needs of it    system  of one replica    ranks  of one holder
    costs   its steps, for who tries them    cache_tokens  room of one holder
    """

    pool: Pool
    system: System
    ranks: int
    costs: Played
    cache_tokens: int
    share: float

    @property
    def accelerators(self) -> int:
        return self.pool.replicas * self.system.packages


class Played:
    """Steps of one replica, played where they are asked for: the functions that `Told` is made of."""

    def __init__(self, run: Run, spec: ServingSpec, pool: PoolSpec, batching: BatchingSpec, base: Path | None):
        self._machines = api.Machines(base)
        said = {
            "model": spec.model,
            "balance": spec.balance,
            "parallel": pool.parallel or spec.parallel,
            "precision": pool.precision or spec.precision,
            "microbatches": pool.microbatches or spec.microbatches,
            "batch_per_accelerator": 1.0,
        }
        entry = run.system.model_copy(update={"accelerators": pool.accelerators})
        one = dataclasses.replace(run, system=entry, open=(), chosen={}, record="summary")
        drafts = {} if spec.speculative is None else {"speculative": spec.speculative}
        decode = dataclasses.replace(one, spec=DecodeSpec(kind="decode", context_tokens=1, **said, **drafts))  # type: ignore[arg-type]
        prefill = dataclasses.replace(one, spec=PrefillSpec(kind="prefill", prompt_tokens=1, **said))  # type: ignore[arg-type]
        self.system = self._machines(decode)
        self._decode = Points(decode, _axes(decode, self._machines), self._machines)
        axes = _axes(prefill, self._machines)
        self._prefill = Points(prefill, axes, self._machines)
        cached = Axis("workload.cached_tokens", 1, 1 << 30)
        self._chunks = Points(prefill, (*axes, cached), self._machines)
        self._sequences = steps.between(1, batching.sequences)
        self._passes = _doubling(_SMALLEST, batching.step_tokens + batching.sequences)

    @property
    def played(self) -> int:
        return self._decode.played + self._prefill.played + self._chunks.played

    def save(self) -> None:
        """Keeps what was played for other runs."""
        for points in (self._decode, self._prefill, self._chunks):
            points.save()

    def decode(self, sequences: int, tokens: Floats) -> tuple[Floats, Floats]:
        """Seconds of a step of so many sequences, for columns of cached tokens, and its joules, shape (3, tokens)."""
        low, high = _around(self._sequences, sequences)
        nodes = list(_CONTEXTS)
        while nodes[-1] < tokens[-1]:
            nodes.append(nodes[-1] * _FURTHER)
        told = steps.straight(
            low, high, sequences, lambda x: np.array([self._decode((int(x), node)) for node in nodes])
        )
        seconds, *joules = (np.interp(tokens, nodes, told[:, column]) for column in (_SECONDS, *_JOULES))
        return seconds, np.array(joules)

    def passes(self, tokens: float, length: float) -> tuple[float, Joules]:
        """Seconds and joules of a pass over prompts of ``tokens`` together, as if each were ``length`` long."""
        low, high = _around(self._passes, tokens)
        row = steps.straight(low, high, max(tokens, low), lambda x: self._at_length(int(x), length))
        return float(row[_SECONDS]), tuple(row[_JOULES].tolist())

    def _at_length(self, tokens: int, length: float) -> Floats:
        """A pass of a number of tokens that is played, between lengths of prompts that are."""
        low = high = tokens
        while high < length:
            low, high = high, high * _LONGER
        while low > length and low >= _LONGER * _SMALLEST and low % _LONGER == 0:
            low, high = low // _LONGER, low
        return steps.straight(low, high, max(length, low), lambda x: self._of_length(tokens, int(x)))

    def _of_length(self, tokens: int, length: int) -> Floats:
        """Whole prompts where a pass holds some; else a chunk that sees as many tokens in the mean."""
        if length <= tokens:
            return self._prefill((tokens // length, length))
        return self._chunks((1, tokens, (length - tokens) // 2))

    def error(self, sequences: int, context: int, tokens: int, length: int) -> float:
        """By how much steps are missed at points that are not on the grid: the larger of a decode step and a pass. [1]"""
        worst = 0.0
        if sequences:
            found = self._decode((sequences, max(context, _CONTEXTS[0])))[_SECONDS]
            told, _ = self.decode(sequences, np.array([float(max(context, _CONTEXTS[0]))]))
            worst = abs(float(told[0]) / found - 1)
        if tokens >= _SMALLEST:
            cached = max(length - tokens, 0) // 2
            found = self._chunks((1, tokens, cached)) if cached else self._prefill((1, tokens))
            worst = max(worst, abs(self.passes(tokens, tokens + 2 * cached)[0] / found[_SECONDS] - 1))
        return worst

    def memory(self, sequences: int, tokens: int) -> tuple[float, float]:
        """What a rank holds beside its cache, with the largest pass in flight, and a cached token's share of it. [B]"""
        few, many = _CONTEXTS[1], _CONTEXTS[1] * _FURTHER
        less, more = self._decode((1, few))[_MEMORY], self._decode((1, many))[_MEMORY]
        of_token = (more - less) / (many - few)
        largest = max(node for node in self._passes if node <= max(tokens, _SMALLEST))
        beside = self._prefill((1, largest))[_MEMORY] - of_token * largest
        return max(beside, less - of_token * few), of_token


def _axes(run: Run, machines: api.Machines) -> tuple[Axis, Axis]:
    held, length = steps.of_inference(run, machines)
    return held, length


def _doubling(low: int, high: int) -> list[int]:
    out = [low]
    while out[-1] < high:
        out.append(out[-1] * 2)
    return out


def _around(nodes: Sequence[int], x: float) -> tuple[int, int]:
    """The neighbours of a number among some; twice the same where it is one of them, or beyond the last."""
    at = next((number for number, node in enumerate(nodes) if node >= x), len(nodes) - 1)
    return (nodes[at], nodes[at]) if nodes[at] <= x or at == 0 else (nodes[at - 1], nodes[at])


def machines(run: Run, spec: ServingSpec, system: System, base: Path | None) -> list[Machine]:
    """The pools of a service, in the order in which requests pass them.

    Raises InfeasibleError where there are not as many accelerators, or a cache has no room for a block.
    """
    if spec.prefill is not None and spec.decode is not None:
        pools = [spec.prefill, spec.decode]
    else:
        each = spec.accelerators or system.packages // spec.replicas
        if not each:
            raise InfeasibleError(
                Problem(f"got {spec.replicas}; {system.name} has {system.packages} accelerators", key="replicas")
            )
        pools = [PoolSpec(replicas=spec.replicas, accelerators=each)]
    need = sum(pool.replicas * pool.accelerators for pool in pools)
    if need > system.packages:
        message = f"replicas take {need} accelerators together; {system.name} has {system.packages}"
        raise InfeasibleError(Problem(message, key="prefill.replicas" if spec.prefill else "replicas"))
    return [_machine(run, spec, pool, base, decodes=pool is not spec.prefill) for pool in pools]


def _machine(run: Run, spec: ServingSpec, pool: PoolSpec, base: Path | None, *, decodes: bool) -> Machine:
    batching = pool.batching or spec.batching
    if batching.step_tokens <= batching.sequences:
        message = f"got {batching.step_tokens}. Allowed: more than `sequences` ({batching.sequences}), each of which takes one."
        raise InputError(Problem(message, key="batching.step_tokens"))
    parallel = pool.parallel or spec.parallel
    played = Played(run, spec, pool, batching, base)
    system = played.system
    ranks = parallel.tp if parallel.attention == "tp" else 1
    beside_B, token_B = played.memory(batching.sequences, batching.step_tokens)
    free_B = system.rank_memory_B * batching.memory_share - beside_B
    blocks = int(free_B // (token_B * batching.block_tokens)) if token_B else 1 << 40
    if blocks < 1:
        budget = {"what": "memory", "needed_B": beside_B, "available_B": system.rank_memory_B * batching.memory_share}
        message = f"weights and activations of a rank need {beside_B / 1e9:.1f} GB, its share is {budget['available_B'] / 1e9:.1f} GB"
        raise InfeasibleError(f"{run.key}: no room for a cache: {message}", budget)
    kept = int(blocks * batching.prefix_share)
    limits = Limits(
        batching.step_tokens,
        batching.sequences,
        blocks - kept,
        batching.block_tokens,
        math.ceil((blocks - kept) * batching.spare_blocks),
    )
    accepted = 1.0
    if spec.speculative is not None and decodes:
        accepted = float(speculative_tokens_per_step(spec.speculative.acceptance, spec.speculative.draft_tokens))
    host = system.stack.serving
    costs = Told(
        played.decode,
        played.passes,
        least=_CONTEXTS[0],
        host=(host.step_us / 1e6, host.sequence_us / 1e6),
        idle_W=idle_W(system),
        accepted=accepted,
    )
    pool_ = Pool(
        costs,
        limits,
        replicas=pool.replicas,
        holders=max(system.ranks // ranks, 1),
        context=batching.context_tokens or 1 << 40,
        cached=kept * batching.block_tokens,
    )
    return Machine(pool_, system, ranks, played, blocks * batching.block_tokens, batching.memory_share)


def idle_W(system: System) -> Joules:
    """Facility power of a machine whose accelerators wait: the least, the middle, the most. [W]"""
    none = {name: np.zeros(0) for name in (*energy.OPS, *energy.LINKS)}
    found = energy.power_over_time(system, none, none, makespan_ps=PS_PER_S)
    low, middle, high = (float(one.sum(axis=0).mean()) for one in (found.low_W, found.middle_W, found.high_W))
    return low, middle, high


def moves(spec: ServingSpec, machines_: Sequence[Machine], base: Path | None) -> Moves | None:
    """How caches come from one pool to the other: over the NICs of a holder's packages."""
    if len(machines_) < 2:
        return None
    model = load_model(spec.model, base=base)
    out = []
    for machine in machines_:
        _, token_B = machine.costs.memory(1, _SMALLEST)
        share = machine.system.stack.collectives.scale_out_efficiency
        rank_Bps = machine.system.spec.scale_out.nic_GBps * 1e9 * share / machine.system.ranks_per_package
        # each rank of a holder moves its part over its own NIC
        out.append(max(round(to_ps(token_B / rank_Bps)), 1))
    fixed = round(to_ps(machines_[0].system.spec.scale_out.cluster_us / 1e6))
    return Moves((out[0], out[1]), model.layers, fixed)
