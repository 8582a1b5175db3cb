"""Replicas that come and go: how many, how long weights take, and what that costs."""

from __future__ import annotations

import numpy as np
import pytest

import cmsim
from cmsim.errors import InputError
from cmsim.hardware import load_system
from cmsim.kinds.serving import AutoscaleSpec
from cmsim.serving import measure
from cmsim.serving.costs import Plain
from cmsim.serving.holder import Limits
from cmsim.serving.pools import Pool
from cmsim.serving.questions import Questions
from cmsim.serving.scaling import Scaling, load_s
from cmsim.serving.service import Rules, Service
from cmsim.units import PS_PER_S

MS = 10**9
ENDLESS = 1 << 40
#: DeepSeek-R1 in bytes of eight bits (arXiv:2506.12708v2, table 2)
R1_B = 671e9


def served(arrival_s, output, scaling: Scaling, replicas: int = 4):
    arrival_ps = np.rint(np.asarray(arrival_s) * PS_PER_S).astype(np.int64)
    questions = Questions(np.ones(len(arrival_ps), int), np.full(len(arrival_ps), output), arrival_ps)
    pool = Pool(Plain(MS, MS), Limits(ENDLESS, 4, ENDLESS), replicas, scaling=scaling)
    out = Service(questions, [pool], Rules()).run()
    measure.check(out)
    return out


def test_replicas_come_when_there_is_more_to_do():
    """Twelve at once, four of which are to be on each: two more are wanted at the first look, and there after two
    seconds; those that came first stay where they are."""
    out = served([0.5] * 12 + [4.0], 2001, Scaling(1, 4, PS_PER_S, 2 * PS_PER_S))
    (scaler,) = out.scalers
    assert scaler.on[:2] == [(0, 1), (PS_PER_S, 3)] and scaler.started == 2
    book = out.book
    assert book.column("holder")[:12].tolist() == [0] * 12 and book.holder[12] == 1
    # four at a time, as nobody moves
    assert (np.diff(np.unique(book.column("scheduled")[:12])) > 2 * PS_PER_S).all()


def test_replicas_go_when_they_have_nothing_to_do():
    out = served([0] * 12 + [30.0], 1001, Scaling(1, 4, PS_PER_S, PS_PER_S))
    (scaler,) = out.scalers
    assert max(many for _, many in scaler.on) == 3 and scaler.on[-1][1] == 1
    assert 1 < scaler.mean(out.end_ps) < 2
    by_hand = sum(
        many * (to - at) for (at, many), (to, _) in zip(scaler.on, [*scaler.on[1:], (out.end_ps, 0)], strict=True)
    )
    assert scaler.mean(out.end_ps) == pytest.approx(by_hand / out.end_ps)


def test_who_loads_at_once_shares():
    alone, shared = (served([0] * 12, 5001, Scaling(1, 4, PS_PER_S, PS_PER_S, one)).scalers[0] for one in (False, True))
    assert alone.started == shared.started == 2
    assert len(alone.on) <= len(shared.on)
    for scaling in (Scaling(1, 4, PS_PER_S, PS_PER_S, True), Scaling(1, 4, PS_PER_S, PS_PER_S)):
        late = served([0] * 12 + [2.5], 5001, scaling).book.holder[12]
        assert late == (0 if scaling.shared else 1)


def test_weights_come_from_somewhere():
    """LOAD-001 to -003 (illustrative figures of the paper): over 2.5 GB/s 320 s for one, 2,560 s for eight at once;
    671 GB over 2.5 GB/s are 268 s, a sixth less than what they print."""
    machine = load_system("cloudmatrix384")
    storage = AutoscaleSpec(target=1, storage_GBps=2.5)
    assert load_s(R1_B, storage, machine, 16) == pytest.approx(268.4)
    assert load_s(R1_B, storage, machine, 16) / 320 == pytest.approx(1, abs=0.17)
    pool, host = (load_s(R1_B, AutoscaleSpec(target=1, weights_from=one), machine, 16) for one in ("pool", "host"))
    # ports of 16 packages, 392 GB/s each; copies from hosts at 64 GB/s
    assert pool == pytest.approx(R1_B / (16 * 392e9 * 0.852), rel=1e-6) and host == pytest.approx(R1_B / (16 * 64e9))


SMALL = {
    "kind": "serving",
    "model": "llama-3.1-8b",
    "arrivals": {"process": "curve", "curve": [[0, 1], [20, 60], [40, 1], [60, 1]]},
    "lengths": {"prompt_tokens": 512, "output_tokens": 64, "least": 0.5},
    "parallel": {"tp": 1},
    "replicas": 8,
    "accelerators": 1,
    "batching": {"step_tokens": 1024, "sequences": 32},
}


def test_a_scenario_scales(tmp_path, monkeypatch):
    monkeypatch.setenv("CMSIM_STEPS", str(tmp_path))
    how = {"target": 4, "every_s": 1, "weights_from": "host", "start_s": 2}
    whole, scaled = (
        cmsim.run({"systems": ["hgx_h100"], "workload": SMALL | more, "seed": 1})[0]
        for more in ({}, {"autoscale": how})
    )
    metrics = scaled.metrics
    assert 1 < metrics["replicas_mean"] < 6 and metrics["replicas_started"] > 2
    assert metrics["load_time_s"] == pytest.approx(2 + 16.06 / 50, rel=1e-2)
    assert metrics["energy_J"] < 0.8 * whole.metrics["energy_J"]
    assert metrics["cost_per_Mtoken_USD"] < 0.8 * whole.metrics["cost_per_Mtoken_USD"]
    load = scaled.frame("load")
    assert load["accelerators"].min() < 2 < 3 < load["accelerators"].max() <= 8
    assert load["power_W"].mean() == pytest.approx(metrics["power_avg_W"], rel=1e-6)
    assert load["accelerators"].mean() == pytest.approx(metrics["replicas_mean"], rel=1e-6)
    assert metrics["ttft_s_p99"] >= whole.metrics["ttft_s_p99"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"target": 4}, "storage_GBps: goes with"),
        ({"target": 4, "weights_from": "host", "storage_GBps": 2}, "storage_GBps: goes with"),
        ({"target": 4, "weights_from": "host", "least": 9}, "autoscale.least: got 9. Allowed: at most 8"),
        ({"target": 0, "weights_from": "host"}, "target"),
    ],
)
def test_what_is_wrong_is_said(how, message):
    with pytest.raises(InputError, match=message):
        cmsim.run({"systems": ["hgx_h100"], "workload": SMALL | {"autoscale": how}})
