"""Which dimension of a plan is nearest in the machine: the ranks of every group stand where the order says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import cmsim
from cmsim.errors import InputError
from cmsim.workload.generate.parallel import ORDER, Layout, with_channels

SIZES = {"tp": 2, "cp": 3, "dp": 4, "pp": 5}


@pytest.mark.parametrize("order", list(itertools.permutations(ORDER)))
def test_ranks_of_a_group_are_as_far_apart_as_the_order_says(order: tuple[str, ...]) -> None:
    layout = Layout(**SIZES, ep=1, order=order)
    assert sorted(layout.places.tolist()) == list(range(120))
    groups = with_channels(layout)
    step = 1
    for name in order:
        if name in ("tp", "cp"):
            members = np.flatnonzero(groups[name] == groups[name][0])
            assert members.tolist() == [step * i for i in range(SIZES[name])]
        if name == "pp":
            stage = layout.placed(layout.stage)
            assert stage[: step * SIZES[name] : step].tolist() == list(range(SIZES[name]))
            # both ends of a channel are neighbours in the pipeline
            out, back = groups["next.out"], groups["previous.in"]
            assert np.flatnonzero(back == out[0]).tolist() == [step]
        step *= SIZES[name]


def _step(order: list[str] | None, **keys: object) -> cmsim.Result:
    plan = {"tp": 4, "pp": 4, "dp": 4} | ({"order": order} if order else {})
    workload = {"kind": "training", "model": "llama-3.1-8b", "sequence_length": 4096, "global_batch": 32}
    systems = [{"system": "hgx_h100", "domains": 8}]
    return cmsim.run({"systems": systems, "workload": {**workload, "parallel": plan, **keys}})[0]


def test_what_is_far_takes_longer() -> None:
    plain = _step(None)
    assert _step(list(ORDER)).metrics == plain.metrics
    far = _step(["pp", "dp", "cp", "tp"])
    assert far.metrics["step_time_s"] > 1.2 * float(plain.metrics["step_time_s"])
    assert far.metrics["exposed_comm_s"] > 2 * float(plain.metrics["exposed_comm_s"])


def test_experts_that_stand_in_several_domains_send_to_each() -> None:
    def notes(order: list[str]) -> str:
        plan = {"pp": 4, "dp": 8, "ep": 8, "order": order}
        workload = {"kind": "training", "model": "qwen3-30b-a3b", "sequence_length": 2048, "global_batch": 32}
        systems = [{"system": "hgx_h100", "domains": 4}]
        return " ".join(cmsim.run({"systems": systems, "workload": {**workload, "parallel": plan}})[0].warnings)

    assert "crosses to each other domain" not in notes(list(ORDER))
    assert "of 4 on average) and fans out" in notes(["tp", "cp", "pp", "dp"])


def test_an_order_has_each_dimension_once() -> None:
    with pytest.raises(InputError, match="each of tp, cp, dp, pp once"):
        _step(["tp", "tp", "dp", "pp"])
    with pytest.raises(InputError, match="order"):
        _step(["tp", "dp"])
