"""Pools of a scenario: their machines, what their steps cost, and how much their caches hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cmsim import api, energy
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.hardware import ServingTuning, System
from cmsim.kinds.decode import Speculative
from cmsim.kinds.parts import CapSpec, PowerSpec
from cmsim.kinds.serving import PoolSpec, ServingSpec
from cmsim.scenario import Run, SystemEntry
from cmsim.serving.costs import Host, Joules, Told
from cmsim.serving.holder import Limits
from cmsim.serving.idle import idle_W
from cmsim.serving.played import CONTEXTS, PlayedSteps
from cmsim.serving.pooled import Pooled
from cmsim.serving.pools import Pool
from cmsim.serving.questions import Questions
from cmsim.serving.scaling import Scaling, load_s
from cmsim.serving.transfers import Moves
from cmsim.serving.wiring import Seat, Servers, memory_Bps, wires
from cmsim.units import BYTES_PER_ELEMENT, GB, GIGA, PS_PER_S, to_ps
from cmsim.workload.generate import least
from cmsim.workload.model import ModelSpec, load_model

#: of a port that steps are said to use all of, what caches get all the same [1]
_LEAST_LEFT = 0.02


@dataclass(frozen=True)
class PoolMachine:
    """A pool with what it is made of.

    pool    what the service needs of it    ranks  of one holder
    system  of one replica, without packages that have experts alone: those are ``apart``
    costs   its steps, for who tries them    cache_tokens  room of one holder
    machine  that it stands on, whole    first  of its packages there that is this pool's
    token_B, whole_B  of a cached token on one rank, and of the whole model [B]
    """

    pool: Pool
    system: System
    ranks: int
    costs: PlayedSteps
    cache_tokens: int
    machine: System
    first: int
    token_B: float
    whole_B: float
    apart: int = 0

    @property
    def each(self) -> int:
        """Packages of a replica."""
        return self.system.packages + self.apart

    @property
    def accelerators(self) -> int:
        return self.pool.replicas * self.each


def machines(
    run: Run, spec: ServingSpec, system: System, base: Path | None, used: dict[int, int] | None = None
) -> list[PoolMachine]:
    """The pools of a service, in the order in which requests pass them.

    used  packages of each machine that others have, the first ones; this service's are added

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
    machines_ = api.Machines(base)
    used = {} if used is None else used
    out = []
    for pool in pools:
        one = run if pool.machine is None else replace(run, system=SystemEntry(system=pool.machine))
        whole = system if pool.machine is None else machines_(one)
        first = used.get(id(whole), 0)
        used[id(whole)] = need = first + pool.replicas * pool.packages
        if need > whole.packages:
            message = f"replicas take {need} accelerators together; {whole.name} has {whole.packages}"
            raise InfeasibleError(Problem(message, key="prefill.replicas" if spec.prefill else "replicas"))
        out.append((one, pool, whole, first))
    return [
        machine(one, spec, pool, base, whole, first, decodes=pool is not spec.prefill)
        for one, pool, whole, first in out
    ]


def machine(
    run: Run, spec: ServingSpec, pool: PoolSpec, base: Path | None, whole: System, first: int = 0, *, decodes: bool
) -> PoolMachine:
    """One pool of a service on a system, from a package on, which makes answers or only first tokens. Raises
    InfeasibleError where it has no plan, or no room for a block of a cache."""
    run = _on_its_stack(run, whole)
    batching = pool.batching or spec.batching
    if batching.step_tokens <= batching.sequences:
        message = f"got {batching.step_tokens}. Allowed: more than `sequences` ({batching.sequences}), a token each."
        raise InputError(Problem(message, key="batching.step_tokens"))
    parallel = pool.parallel or spec.parallel
    played = PlayedSteps(run, spec, pool, batching, base, _held(spec, pool, whole))
    system = played.system
    if pool.experts_apart is not None and parallel.attention != "dp":
        raise InputError(Problem("goes with `parallel.attention: dp`", key="decode.experts_apart"))
    ranks = parallel.ranks_of_holder
    beside_B, token_B = played.memory(batching.step_tokens)
    free_B = system.rank_memory_B * batching.memory_share - beside_B
    blocks = int(free_B // (token_B * batching.block_tokens)) if token_B else 1 << 40
    if blocks < 1:
        raise _no_room(run, beside_B, system.rank_memory_B * batching.memory_share)
    kept = int(blocks * batching.prefix_share)
    limits = Limits(
        batching.step_tokens,
        batching.sequences,
        blocks,
        batching.block_tokens,
        math.ceil(blocks * batching.spare_blocks),
        _swap_ps(system, token_B) if batching.preemption == "swap" else 0,
        whole=batching.whole_prompts,
        answers=batching.whole_answers and decodes,
        poll_steps=batching.poll_steps,
        gather_steps=batching.gather_steps,
        gather_tokens=math.ceil(batching.gather_share * batching.step_tokens),
    )
    model = load_model(spec.model, base=base)
    precision = pool.precision or spec.precision
    whole_B = model.kv_bytes_per_token(BYTES_PER_ELEMENT[precision.kv_cache])
    apart = 0 if pool.experts_apart is None else pool.experts_apart.accelerators
    accepted = 1.0
    if spec.speculative is not None and decodes:
        accepted = spec.speculative.accepted
    holders = max(system.ranks // ranks, 1)
    costs = Told(
        played.decode,
        played.passes,
        spared=played.spared if holders > 1 and model.is_moe and not apart else None,
        least=CONTEXTS[0],
        host=host_of(system.stack.serving, model, parallel.tp, spec.speculative if decodes else None),
        idle_W=_waits_W(system, apart),
        accepted=accepted,
    )
    pool_ = Pool(
        costs,
        limits,
        replicas=pool.replicas,
        holders=holders,
        context=batching.context_tokens or 1 << 40,
        cached=kept * batching.block_tokens,
        scaling=_scaling(spec, pool, whole, base),
    )
    return PoolMachine(
        pool_, system, ranks, played, blocks * batching.block_tokens, whole, first, token_B, whole_B, apart
    )


def _held(spec: ServingSpec, pool: PoolSpec, whole: System) -> PowerSpec | None:
    """What each accelerator of a pool is held to: caps of racks and halls are those of all pools under them together,
    shared alike. Raises InfeasibleError where they leave nothing."""
    power = pool.power or spec.power
    if power is None:
        return None
    under = [pool]
    if pool.power is None and spec.prefill is not None and spec.decode is not None:
        under = [one for one in (spec.prefill, spec.decode) if one.power is None]

    def packages(pools: Sequence[PoolSpec]) -> int:
        return sum(one.replicas * one.packages for one in pools)

    here = packages([one for one in under if one.machine == pool.machine])
    caps_W = dict(power.caps_W)
    if "hall" in caps_W:
        caps_W["hall"] *= here / packages(under)
    held = energy.limited(replace(whole, packages=min(here, whole.packages)), caps_W, power.clock)
    limit_W = held.accelerator.power.limit_W
    return PowerSpec(cap_W=CapSpec(accelerator=limit_W), clock=power.clock)


def _waits_W(system: System, apart: int) -> Joules:
    """Of a replica that waits, with its packages that have experts alone. [W]"""
    waits = idle_W(system)
    if not apart:
        return waits
    low, middle, high = (a + b for a, b in zip(waits, idle_W(replace(system, packages=apart)), strict=True))
    return low, middle, high


def _scaling(spec: ServingSpec, pool: PoolSpec, machine: System, base: Path | None) -> Scaling | None:
    """Of a pool whose replicas come and go."""
    how = pool.autoscale or spec.autoscale
    if how is None:
        return None
    if how.least > pool.replicas:
        message = f"got {how.least}. Allowed: at most {pool.replicas}, the replicas."
        raise InputError(Problem(message, key="autoscale.least"))
    weights_B = least.held_B(load_model(spec.model, base=base), pool.precision or spec.precision)
    takes_s = load_s(weights_B, how, machine, pool.packages) + (how.start_s or 0.0)
    every_ps, load_ps = int(to_ps(how.every_s)), int(to_ps(takes_s))
    return Scaling(how.least, how.target, every_ps, load_ps, how.weights_from == "storage")


def _on_its_stack(run: Run, system: System) -> Run:
    """The run with the stack of services written down: its steps are played on that, not on the one of steps alone."""
    if run.system.stack is not None:
        return run
    return replace(run, system=run.system.model_copy(update={"stack": system.spec.stack_for(run.spec.kind)}))


def _swap_ps(system: System, token_B: float) -> int:
    """Of a token's cache from a rank to its host's memory, or back. [ps]"""
    if system.accelerator.host_GBps is None:
        message = f"how fast {system.accelerator.name} copies to its host is not known; set accelerator.host_GBps"
        raise InputError(Problem(message, key="batching.preemption"))
    return max(round(token_B / (system.accelerator.host_GBps * GIGA / system.ranks_per_package) * PS_PER_S), 1)


def host_of(of: ServingTuning, model: ModelSpec, tp: int, drafts: Speculative | None = None) -> Host:
    """What an engine and its host add to steps of a model on so many tensor-parallel ranks."""
    plain = model.layers - model.moe_layers
    prompts_s = (of.layer_us * plain + of.expert_layer_us * model.moe_layers) / 1e6
    step_s = of.step_us / 1e6 if of.graphs else max(of.step_us / 1e6, prompts_s)
    return Host(
        step_s=step_s,
        drafts_s=of.draft_us * len(drafts.passes) / 1e6 if drafts is not None else 0.0,
        each_s=of.sequence_us / 1e6,
        prompts_s=prompts_s,
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


@dataclass(frozen=True)
class Posed:
    """A service of a scenario: what it is, what it is asked, its pools in the order in which requests pass them."""

    spec: ServingSpec
    asked: Questions
    machines: tuple[PoolMachine, ...]
    model: ModelSpec


def links(parts: Sequence[Posed], system: System) -> tuple[list[Moves | None], Pooled | None]:
    """How caches come from one pool of each service to the other, and the pool of caches of the first service, where a
    scenario has them. All of them share links."""
    spec, first = parts[0].spec, parts[0].machines
    two = [len(part.machines) > 1 for part in parts]
    if not any(two) and spec.cache_pool is None:
        return [None for _ in parts], None
    over = spec.cache_moves.over if any(two) else None
    if over == "scale_up" and any(len({id(one.machine) for one in part.machines}) > 1 for part in parts):
        message = "got scale_up; pools are on machines of their own. Allowed: scale_out, host."
        raise InputError(Problem(message, key="cache_moves.over"))
    servers, keeps = None, spec.cache_pool
    if keeps is not None:
        if not parts[0].asked.block_tokens:
            message = (
                "requests do not say what their prompts share. Allowed: traces that do, `turns`, `agents`, `retrieval`."
            )
            raise InputError(Problem(message, key="cache_pool"))
        nodes = keeps.nodes or system.nodes
        drives_Bps = (keeps.drives_GBps or 0.0) * GIGA * nodes
        servers = Servers(keeps.over, memory_Bps(system, keeps.over) * nodes, drives_Bps)
    fabric = over == "scale_up" or (keeps is not None and keeps.over == "scale_up")
    places = [seat for part in parts for seat in _seats(part, fabric=fabric)]
    ends = wires(places, over, servers, first[0].pool.replicas * first[0].pool.holders)
    pooled = None
    if keeps is not None:
        token_B = first[0].whole_B
        memory, drives = (int(each_GB * GB * nodes / token_B) for each_GB in (keeps.memory_GB, keeps.drives_GB or 0.0))
        pooled = Pooled(ends, token_B, memory, drives, keeps.evict)
    moves = [
        Moves(ends, part.machines[0].whole_B, part.model.layers if spec.cache_moves.layerwise else 1) if its else None
        for part, its in zip(parts, two, strict=True)
    ]
    return moves, pooled


def _left(one: PoolMachine, asked: Questions, spec: ServingSpec, *, last: bool) -> float:
    """What the fullest steps of a pool leave of the ports of its ranks: where it decodes, of all sequences there may
    be. [1]"""
    decodes = last or spec.prefill is None
    limits = one.pool.limits
    tokens = float(asked.prompt.mean() + asked.output.mean() / 2) if decodes else limits.step_tokens
    room = limits.blocks * limits.block_tokens / max(tokens, 1.0)
    sequences = max(int(min(limits.sequences, room)), 1)
    return max(1.0 - one.costs.port_share(sequences, max(round(tokens), 1), decodes=decodes), _LEAST_LEFT)


def _seats(part: Posed, *, fabric: bool) -> list[Seat]:
    """Where each holder sits, counted over all pools. fabric: ports are shared with steps"""
    out = []
    for one in part.machines:
        left = _left(one, part.asked, part.spec, last=one is part.machines[-1]) if fabric else 1.0
        held = min(one.token_B / one.whole_B, 1.0) if one.whole_B else 1.0
        begins = one.first * one.machine.ranks_per_package
        for replica in range(one.pool.replicas):
            at = begins + replica * one.each * one.machine.ranks_per_package
            # holders beyond the ranks (a replica of fewer ranks than a holder has) begin with it
            out += [Seat(one.machine, at + each * one.ranks, one.ranks, held, left) for each in range(one.pool.holders)]
    return out
