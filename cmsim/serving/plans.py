"""Pools of a scenario: their machines, what their steps cost, and how much their caches hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmsim import energy
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.hardware import ServingTuning, System
from cmsim.kinds.serving import PoolSpec, ServingSpec
from cmsim.scenario import Run
from cmsim.serving.costs import Host, Joules, Told
from cmsim.serving.holder import Limits
from cmsim.serving.played import CONTEXTS, SMALLEST, PlayedSteps
from cmsim.serving.pools import Moves, Pool
from cmsim.units import PS_PER_S, to_ps
from cmsim.workload.model import ModelSpec, load_model, speculative_tokens_per_step


@dataclass(frozen=True)
class PoolMachine:
    """A pool with what it is made of.

    pool    what the service needs of it    system  of one replica    ranks  of one holder
    costs   its steps, for who tries them    cache_tokens  room of one holder
    """

    pool: Pool
    system: System
    ranks: int
    costs: PlayedSteps
    cache_tokens: int

    @property
    def accelerators(self) -> int:
        return self.pool.replicas * self.system.packages


def machines(run: Run, spec: ServingSpec, system: System, base: Path | None) -> list[PoolMachine]:
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


def _machine(run: Run, spec: ServingSpec, pool: PoolSpec, base: Path | None, *, decodes: bool) -> PoolMachine:
    batching = pool.batching or spec.batching
    if batching.step_tokens <= batching.sequences:
        message = f"got {batching.step_tokens}. Allowed: more than `sequences` ({batching.sequences}), a token each."
        raise InputError(Problem(message, key="batching.step_tokens"))
    parallel = pool.parallel or spec.parallel
    played = PlayedSteps(run, spec, pool, batching, base)
    system = played.system
    ranks = parallel.tp if parallel.attention == "tp" else 1
    beside_B, token_B = played.memory(batching.step_tokens)
    free_B = system.rank_memory_B * batching.memory_share - beside_B
    blocks = int(free_B // (token_B * batching.block_tokens)) if token_B else 1 << 40
    if blocks < 1:
        raise _no_room(run, beside_B, system.rank_memory_B * batching.memory_share)
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
    costs = Told(
        played.decode,
        played.passes,
        least=CONTEXTS[0],
        host=host_of(system.stack.serving, load_model(spec.model, base=base), parallel.tp),
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
    return PoolMachine(pool_, system, ranks, played, blocks * batching.block_tokens)


def host_of(of: ServingTuning, model: ModelSpec, tp: int) -> Host:
    """What an engine and its host add to steps of a model on ``tp`` tensor-parallel ranks."""
    plain = model.layers - model.moe_layers
    return Host(
        step_s=of.step_us / 1e6,
        each_s=of.sequence_us / 1e6,
        prompts_s=(of.layer_us * plain + of.expert_layer_us * model.moe_layers) / 1e6,
        # attention and what follows it add up once each
        meets_s=of.meeting_us * 2 * model.layers / 1e6 if tp > 1 else 0.0,
        alone=of.prompts_alone,
        decode=of.decode_times,
        prefill=of.expert_prefill_times if model.is_moe and of.expert_prefill_times else of.prefill_times,
    )


def _no_room(run: Run, needed_B: float, available_B: float) -> InfeasibleError:
    message = f"weights and activations of a rank need {needed_B / 1e9:.1f} GB, its share is {available_B / 1e9:.1f} GB"
    budget = {"what": "memory", "needed_B": needed_B, "available_B": available_B}
    return InfeasibleError(f"{run.key}: no room for a cache: {message}", budget)


def machine(run: Run, spec: ServingSpec, pool: PoolSpec, base: Path | None, *, decodes: bool) -> PoolMachine:
    """One pool by itself, which makes answers or only first tokens. Raises InfeasibleError where it has no plan, or no
    room for a block of a cache."""
    return _machine(run, spec, pool, base, decodes=decodes)


def idle_W(system: System) -> Joules:
    """Facility power of a machine whose accelerators wait: the least, the middle, the most. [W]"""
    none = {name: np.zeros(0) for name in (*energy.OPS, *energy.LINKS)}
    found = energy.power_over_time(system, none, none, makespan_ps=PS_PER_S)
    low, middle, high = (float(one.sum(axis=0).mean()) for one in (found.low_W, found.middle_W, found.high_W))
    return low, middle, high


def moves(spec: ServingSpec, machines_: Sequence[PoolMachine], base: Path | None) -> Moves | None:
    """How caches come from one pool to the other: over the NICs of a holder's packages."""
    if len(machines_) < 2:
        return None
    model = load_model(spec.model, base=base)
    out = []
    for machine in machines_:
        _, token_B = machine.costs.memory(SMALLEST)
        share = machine.system.stack.collectives.scale_out_efficiency
        rank_Bps = machine.system.spec.scale_out.nic_GBps * 1e9 * share / machine.system.ranks_per_package
        # each rank of a holder moves its part over its own NIC
        out.append(max(int(to_ps(token_B / rank_Bps)), 1))
    fixed = int(to_ps(machines_[0].system.spec.scale_out.cluster_us / 1e6))
    return Moves((out[0], out[1]), model.layers, fixed)
