"""The least machine that could do it: accelerators that do what must be done and nothing else, at their peaks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cmsim.hardware import System
from cmsim.kinds.parts import PrecisionSpec
from cmsim.serving.capacity import Mix
from cmsim.units import BYTES_PER_ELEMENT, GIGA, TERA
from cmsim.workload.model import ModelSpec

#: how many times between tokens are tried, from which on [s]
_TRIED, _SHORTEST_S = 200, 1e-5


@dataclass(frozen=True)
class Perfect:
    """A perfect machine for a load.

    accelerators  that it needs, whole ones    limit  for what: compute, bandwidth or memory
    token_s       between two tokens [s]
    """

    accelerators: int
    limit: str
    token_s: float


def perfect(
    model: ModelSpec,
    precision: PrecisionSpec,
    system: System,
    mix: Mix,
    rate_per_s: float,
    token_s: float,
    accepted: float = 1.0,
) -> Perfect:
    """The fewest accelerators that serve a load as one machine, however weights and caches lie in it.

    Every FLOP at the peak of the format; weights that a step needs read once for it, all caches once for each token;
    all memory for weights and caches, and nothing else. More time between tokens means more caches at once, less means
    that weights are read more often: the best of all times up to the longest is taken.

    mix  requests in the mean    rate_per_s  of them    token_s  between two tokens, at most [s]
    accepted  tokens of a sequence in one step
    """
    accelerator = system.accelerator
    weight_B, cached_B = (BYTES_PER_ELEMENT[one] for one in (precision.weights, precision.kv_cache))
    context = mix.prompt + mix.output / 2
    token_B = model.kv_bytes_per_token(cached_B)
    prefill = 2.0 * (model.matmul_parameters - model.vocab * model.hidden) * mix.new
    if mix.new:
        prefill += model.attention_flops_per_token(2 * mix.pairs / mix.new) * mix.new
    flops = prefill + mix.output * model.forward_flops_per_token(max(context, 1.0), causal=False)
    peak = accelerator.peak_TFLOPps[precision.activations] * TERA
    compute = rate_per_s * flops / peak
    times = np.geomspace(min(_SHORTEST_S, token_s), token_s, _TRIED)
    sequences = rate_per_s * mix.output * times
    touched = model.active_parameters * np.ones(len(times))
    if model.moe_layers:
        all_, some = model.moe_layers * model.experts * model.expert_parameters, model.top_k / model.experts
        touched += all_ * (1 - (1 - some) ** np.maximum(sequences, 1.0) - some)
    read_Bps = (touched * weight_B / times + rate_per_s * mix.output * context * token_B) / accepted
    held_B = model.total_parameters * weight_B + sequences * context * token_B
    needs = np.array(
        [
            np.full(len(times), compute),
            read_Bps / (accelerator.memory_GBps * GIGA),
            held_B / (system.rank_memory_B * system.ranks_per_package),
        ]
    )
    best = int(np.argmin(needs.max(axis=0)))
    limit = ("compute", "bandwidth", "memory")[int(np.argmax(needs[:, best]))]
    return Perfect(math.ceil(needs[:, best].max() - 1e-9), limit, float(times[best]))


__all__ = ["Perfect", "perfect"]
