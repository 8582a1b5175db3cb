"""What a stack adds to the wire when a collective is called: the one place that reads it from the stack's file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cmsim.hardware.stacks import StackSpec
from cmsim.units import US


@dataclass(frozen=True)
class CallCost:
    """Software of a call among so many ranks; numbers, or columns as long as the ranks.

    base_s     of the call [s]    step_s  of each dependent step of its algorithm [s]
    in_network whether switches that can add may do so
    whole_s    of a call that is played message by message: steps that are not its rounds are in it [s]
    round_s    of each round of such a call [s]
    scale_up, scale_out  payload share of what the links carry inside domains and between them [1]
    wire       whether latencies of the wire come on top; of fused kernels, fitted whole, they are in the base
    """

    base_s: Any
    step_s: float
    whole_s: Any
    round_s: float
    scale_up: Any
    scale_out: float
    wire: bool
    in_network: Any


def small_sum(stack: StackSpec, collective: str, size_B: Any) -> Any:
    """Whether a call, or each of a column of calls, is an all-reduce that an engine's own kernel does in a domain."""
    own = stack.collectives.small
    return collective == "all_reduce" and own is not None and size_B <= own.upto_B


def call_cost(stack: StackSpec, collective: str, ranks: Any, small: Any = False) -> CallCost:
    """What a collective costs beside the wire.

    ranks: of the group, a number or a column    small: whether an engine's own kernel does it (`small_sum`), the same
    """
    fused = {"dispatch": stack.dispatch, "combine": stack.combine}.get(collective)
    if fused is None:
        tuning = stack.collectives
        base_s, step_s = tuning.base_us * US, tuning.step_us * US
        up, out = tuning.scale_up_efficiency, tuning.scale_out_efficiency
        if tuning.small is None or not np.any(small):
            return CallCost(base_s, step_s, base_s, step_s, up, out, wire=True, in_network=tuning.in_network)
        own = tuning.small
        base = base_s if own.base_us is None else np.where(small, own.base_us * US, base_s)
        share = up if own.scale_up_efficiency is None else np.where(small, own.scale_up_efficiency, up)
        adds = ~np.asarray(small) & tuning.in_network
        return CallCost(base, step_s, base, step_s, share, out, wire=True, in_network=adds)
    doublings = np.log2(ranks)
    crowding = 1.0 + fused.crowd * doublings if fused.crowd else 1.0
    return CallCost(
        base_s=fused.base_us * US,
        # the steps of such a kernel are the doublings of its group, whatever its rounds
        step_s=fused.doubling_us * US,
        whole_s=(fused.base_us + fused.doubling_us * doublings) * US,
        round_s=0.0,
        scale_up=fused.scale_up_efficiency / crowding,
        scale_out=fused.scale_out_efficiency,
        wire=False,
        in_network=stack.collectives.in_network,
    )
