"""Attention and experts on accelerators of their own: steps made of two plays, with micro-batches that go to and fro.

Of a step on packages of attention only what is no expert's counts, of one on packages of experts, with as many tokens
in all, only experts, and the exchange of the slower of the two. While experts have one micro-batch, attention has the
next:

    t = max(m t_attention, m t_experts, t_attention + t_experts + t_exchange) + (t_experts + t_exchange) / layers

for m micro-batches, times of one over all layers; the last term is what the first layer waits to be full. Source: Zhu
et al., MegaScale-Infer, arXiv:2504.02263, sec 4.1 (ping-pong pipeline), which has the same three bounds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cmsim import api
from cmsim.api import Machines
from cmsim.hardware import System
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.serving import ExpertsApartSpec
from cmsim.results import Outcome, Result
from cmsim.scenario import Run
from cmsim.serving.idle import idle_W
from cmsim.units import PS_PER_S
from cmsim.workload.generate.formats import of_experts
from cmsim.workload.model import load_model

#: what operators of experts are called, and what the streams of exchanges are
_EXPERTS, _EXCHANGE = "expert ", "comm"
_JOULES = ("energy_J_low", "energy_J", "energy_J_high")


class Apart:
    """Prices a decode step of so many packages of attention with others of experts beside it; of the same machine.

    Memory is that of ranks of attention: without experts.
    """

    def __init__(self, how: ExpertsApartSpec, base: Path | None):
        self._how, self._base = how, base

    def __call__(self, run: Run, machines: Machines) -> Outcome:
        spec = run.spec
        assert isinstance(spec, DecodeSpec)
        system = machines(run)
        per_package, many = system.ranks_per_package, self._how.microbatches
        each = math.ceil(spec.batch_per_accelerator / per_package / many - 1e-9)
        experts = run.system.model_copy(update={"accelerators": self._how.accelerators})
        crowd = math.ceil(each * system.packages / self._how.accelerators)
        first = api.evaluate(_of(run, spec, each * per_package), machines)
        other = api.evaluate(dataclasses.replace(_of(run, spec, crowd * per_package), system=experts), machines)
        for one in (first, other):
            if not isinstance(one, Result):
                return one
        assert isinstance(first, Result) and isinstance(other, Result)
        layers = getattr(first.facts, "layers", 1.0)
        attention_s, _, to_s = _parts(first)
        _, experts_s, fro_s = _parts(other)
        exchange_s = max(to_s, fro_s)
        step_s = max(many * attention_s, many * experts_s, attention_s + experts_s + exchange_s)
        step_s += (experts_s + exchange_s) / layers
        beside = machines(dataclasses.replace(run, system=experts))
        metrics = {**first.metrics, **_joules(first, many, step_s, system, beside)}
        metrics["memory_peak_B"] = float(first.metrics["memory_peak_B"]) - self._experts_B(spec, first.plan)
        return dataclasses.replace(first, metrics=metrics | {"makespan_s": step_s})

    def _experts_B(self, spec: DecodeSpec, plan: Mapping[str, Any]) -> float:
        """Weights of experts on a rank that has attention too. [B]"""
        model = load_model(spec.model, base=self._base)
        slots = math.ceil(model.experts / max(int(plan.get("ep", 1)), 1))
        weight_B = of_experts(spec.precision).weight_B
        experts_B = model.moe_layers * slots * model.expert_parameters * weight_B
        return min(experts_B, 0.95 * float(plan["memory_B"]["weights"]))


def _of(run: Run, spec: DecodeSpec, batch_per_accelerator: int) -> Run:
    parallel = spec.parallel.model_copy(update={"ep": "max"})
    update = {"batch_per_accelerator": float(batch_per_accelerator), "microbatches": 1, "parallel": parallel}
    return dataclasses.replace(run, spec=spec.model_copy(update=update), record="full")


def _parts(one: Result) -> tuple[float, float, float]:
    """Times of what is no expert's, of experts and of exchanges, over all layers, of the class with the most. [s]"""
    ops = one.columns["ops"]
    took_s = (np.asarray(ops["end_ps"]) - np.asarray(ops["start_ps"])) / PS_PER_S
    first = np.asarray(ops["rank_class"]) == np.asarray(ops["rank_class"])[0]
    exchange = np.asarray(ops["stream"], str) == _EXCHANGE
    experts = np.char.startswith(np.asarray(ops["op"], str), _EXPERTS) & ~exchange
    parts = (~exchange & ~experts, experts, exchange)
    attention_s, experts_s, exchange_s = (float(took_s[some & first].sum()) for some in parts)
    return attention_s, experts_s, exchange_s


def _joules(first: Result, many: int, step_s: float, system: System, beside: System) -> dict[str, float]:
    """The work of all micro-batches, as if all of it were on packages of attention, and both machines that wait."""
    out = {}
    for name, waits_W, others_W in zip(_JOULES, idle_W(system), idle_W(beside), strict=True):
        spent, took_s = (float(first.metrics.get(one, first.metrics["energy_J"])) for one in (name, "makespan_s"))
        out[name] = many * (spent - waits_W * took_s) + (waits_W + others_W) * step_s
    return out


__all__ = ["Apart"]
