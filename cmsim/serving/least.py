"""The least machine that could do it: accelerators that do nothing but what the questions need.

A perfect system computes the products of every token at its peak, reads weights and caches once a step at the whole
rate of its memory, and neither waits nor exchanges anything; all requests are one batch. Whatever time its tokens take
within what is promised, it has at least so many accelerators.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmsim.engine.plan import rates
from cmsim.hardware import System
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.prefill import PrefillSpec
from cmsim.kinds.serving import ServingSpec
from cmsim.serving.capacity import Mix
from cmsim.workload.generate import layers, least
from cmsim.workload.model import ModelSpec
from cmsim.workload.ops import Least

#: times of a token that are tried: so many, each so much less than the last, from what is promised (or this) on [s]
_PACES, _LESS, _SLOWEST_s = 60, 0.85, 1.0


@dataclass(frozen=True)
class LeastMachine:
    """Accelerators of a perfect system, in parts of one.

    accelerators  it takes    name  what they are for: compute, HBM, memory or the first token
    parts         what each would take alone, at the pace at which all of them take least    token_s  that pace [s]
    """

    accelerators: float
    name: str
    parts: dict[str, float]
    token_s: float

    @property
    def whole(self) -> int:
        """In whole accelerators."""
        return max(math.ceil(self.accelerators - 1e-9), 1)


def least_machine(
    spec: ServingSpec,
    system: System,
    model: ModelSpec,
    mix: Mix,
    rate_per_s: float,
    *,
    first: tuple[float, float] | None = None,
    slowest_s: float | None = None,
    base: Path | None = None,
) -> LeastMachine:
    """What requests that come at a rate need at least; formats of weights and caches as the scenario has them.

    first      tokens of a prompt to be computed, and pairs that they see, by which its promise is measured; default: of
               the mean one
    slowest_s  time between tokens, at most, where nothing is promised [s]
    """
    precision = (spec.decode and spec.decode.precision) or spec.precision
    said = {"model": spec.model, "precision": precision, "balance": spec.balance}
    drafts = {} if spec.speculative is None else {"speculative": spec.speculative}
    context = max(round(mix.prompt + mix.output / 2), 1)
    decode = DecodeSpec(kind="decode", batch_per_accelerator=1, context_tokens=context, **said, **drafts)  # type: ignore[arg-type]
    chunk = PrefillSpec(
        kind="prefill",
        batch_per_accelerator=1,
        prompt_tokens=max(round(mix.new), 1),
        cached_tokens=max(round(mix.prompt - mix.new), 0),
        **said,  # type: ignore[arg-type]
    )
    accepted = 1.0
    if spec.speculative is not None:
        accepted = spec.speculative.accepted
    form = layers.formats(precision)
    cached_B = context * model.kv_bytes_per_token(form.kv_B) + model.state_B_on(1)
    weights_B = least.held_B(model, precision)
    prompt_s = _compute_s(least.prefill(chunk, model, prompts=1.0, ranks=1, base=base), system)
    measured = chunk.model_copy(update=_prompt(*(first or (mix.new, mix.pairs))))
    first_s = _compute_s(least.prefill(measured, model, prompts=1.0, ranks=1, base=base), system)
    slowest_s = spec.slo.tpot_s if spec.slo is not None else slowest_s or _SLOWEST_s
    found: LeastMachine | None = None
    for pace_s in (slowest_s * _LESS ** np.arange(_PACES)).tolist():
        sequences = rate_per_s * max(mix.output - 1.0, 0.0) * pace_s
        step_s = pace_s * accepted
        need = least.decode(decode, model, sequences=sequences, ranks=1, base=base)
        ranks = {
            "compute": _compute_s(need, system) / step_s + rate_per_s * prompt_s,
            "HBM": need.bytes_B / system.rank_memory_Bps / step_s if sequences else 0.0,
            "memory": (weights_B + sequences * cached_B) / system.rank_memory_B,
        }
        if spec.slo is not None:
            ranks["first token"] = first_s / spec.slo.ttft_s
        parts = {name: many / system.ranks_per_package for name, many in ranks.items()}
        name = max(parts, key=lambda one: parts[one])
        if found is None or parts[name] < found.accelerators:
            found = LeastMachine(parts[name], name, parts, pace_s)
    assert found is not None
    return found


def _prompt(new: float, pairs: float) -> dict[str, int]:
    tokens = max(round(new), 1)
    return {"prompt_tokens": tokens, "cached_tokens": max(round(pairs / tokens - tokens / 2), 0)}


def _compute_s(need: Least, system: System) -> float:
    """Of one rank at its peak. [s]"""
    peak = rates(system).peak_FLOPps
    return sum(flops / peak[precision] for precision, flops in need.flops.items())
