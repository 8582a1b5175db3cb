"""Experts on the ranks that attention is split over add up their results, no tokens travel; ranks that share one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cmsim.hardware import load_system
from cmsim.kinds.decode import DecodeSpec
from cmsim.workload.generate import inference
from cmsim.workload.ops import COLLECTIVE, Programs

MODEL = "qwen3-30b-a3b"


def _programs(tokens: float = 8.0, evenness: float = 1.0, **parallel: Any) -> Programs:
    spec = DecodeSpec(
        kind="decode", model=MODEL, batch_per_accelerator=tokens, context_tokens=512, parallel=parallel,
        balance={"model": "balanced"}, evenness=evenness,
    )  # fmt: skip
    return inference.decode(spec, load_system("hgx_h100", accelerators=4))


def _collectives(programs: Programs) -> set[str]:
    ops = programs.ops
    return {ops.collectives[number] for number in ops.collective[ops.kind == COLLECTIVE].tolist()}


def _flops(programs: Programs, name: str) -> float:
    ops = programs.ops
    return float(ops.flops[np.array(ops.names)[ops.name_id] == name].sum())


def test_no_tokens_travel_where_all_ranks_have_them():
    joined = _programs(tp=4, ep=4)
    assert _collectives(joined) == {"all_reduce"}
    alone = _programs(tp=1, ep=4, attention="dp")
    assert _collectives(alone) == {"dispatch", "combine"}
    # the experts' work is the same, the router's is done by every rank
    assert _flops(joined, "expert up") == pytest.approx(_flops(alone, "expert up"))
    assert _flops(joined, "router") == pytest.approx(4 * _flops(alone, "router"))


@pytest.mark.parametrize(("ep", "expert_tp"), [(1, 4), (2, 2)])
def test_ranks_that_share_experts_have_parts_of_them(ep: int, expert_tp: int):
    whole, shared = _programs(tp=4, ep=4), _programs(tp=4, ep=ep, expert_tp=expert_tp)
    assert _collectives(shared) == {"all_reduce"}
    assert _flops(shared, "expert up") == pytest.approx(_flops(whole, "expert up"))
    assert shared.footprint_B["weights"][0] == pytest.approx(whole.footprint_B["weights"][0])


def test_beside_data_parallel_attention_tokens_are_gathered_by_those_that_share():
    assert _collectives(_programs(tp=1, ep=2, expert_tp=2, attention="dp")) >= {"all_gather", "reduce_scatter"}


def test_experts_work_on_what_all_ranks_have_in_the_mean():
    even, uneven = (_programs(evenness=evenness, tp=1, ep=4, attention="dp") for evenness in (1.0, 0.25))
    assert _flops(uneven, "expert up") == pytest.approx(_flops(even, "expert up") / 4)
    # attention, and what travels, are the busiest rank's
    assert _flops(uneven, "router") == _flops(even, "router")
    assert uneven.facts.tokens_per_run == even.facts.tokens_per_run / 4
    assert any("in the mean" in note for note in uneven.notes)
    joined, other = (_programs(evenness=evenness, tp=4, ep=4) for evenness in (1.0, 0.25))
    assert _flops(other, "expert up") == _flops(joined, "expert up"), "one holder has all of them"
