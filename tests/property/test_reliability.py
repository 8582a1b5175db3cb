"""A job under failures, drawn at random: its time adds up, shares are shares, and more spares never hurt."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cmsim
from cmsim.errors import CmsimError

CAUSES = st.fixed_dictionaries(
    {
        "part": st.sampled_from(["accelerator", "host", "scale_up_module", "rack", "domain", "job"]),
        "mtbf_h": st.floats(5, 1e6),
        "shape": st.sampled_from([0.6, 1.0, 2.5]),
        "age_days": st.sampled_from([0.0, 300.0]),
        "takes": st.sampled_from(["nothing", "host", "rack", "domain"]),
        "repair_h": st.floats(0, 200),
        "detect_s": st.floats(0, 3600),
        "breaks": st.floats(0, 1),
        "slowdown": st.floats(1, 3),
    }
)
CHECKPOINTS = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["synchronous", "asynchronous", "in_memory"]),
        "write_s": st.floats(1, 2000),
        "stall_s": st.floats(0, 100),
        "stored_every": st.integers(1, 20),
    }
)


@settings(max_examples=40, deadline=None)
@given(
    causes=st.dictionaries(st.sampled_from("abc"), CAUSES, min_size=1),
    saves=CHECKPOINTS,
    spares=st.integers(0, 16),
    length=st.sampled_from([{"days": 20}, {"work_days": 2}]),
    elastic=st.sampled_from([None, {"replica_accelerators": 16, "least": 0.25}]),
)
def test_time_adds_up(causes, saves, spares, length, elastic):
    said = {"kind": "reliability", "causes": causes, "checkpoint": saves, "runs": 7, "elastic": elastic, **length}
    system = {"system": "cloudmatrix384", "accelerators": 256}
    try:
        one, same = (
            cmsim.run({"systems": [system], "workload": {**said, "spares": spares}, "seed": 5})[0] for _ in range(2)
        )
    except CmsimError as error:
        assert "never ends" in str(error) or "runs:" in str(error)
        return
    assert one.metrics == same.metrics
    assert sum(one.breakdown.values()) == pytest.approx(one.metrics["makespan_s"], rel=1e-9)
    assert min(one.breakdown.values()) >= 0
    names = ("goodput", "slow", "checkpoint", "lost", "down")
    assert sum(one.metrics[f"{name}_fraction"] for name in names) == pytest.approx(1, abs=1e-9)
    runs, rows = one.frame("runs"), one.frame("causes")
    whole = runs["goodput_fraction"] * runs["clock_s"] + runs["checkpoint_s"] + runs["lost_s"]
    assert (whole + runs["down_s"] + runs["slow_s"]).tolist() == pytest.approx(runs["clock_s"].tolist())
    for name in ("down_s", "lost_s"):
        assert rows[name].sum() == pytest.approx(runs[name].mean(), abs=1e-3)
    if "work_days" in length:
        done = runs[runs["run_time_s"] > 0]
        assert (done["goodput_fraction"] * done["clock_s"]).tolist() == pytest.approx([2 * 86400] * len(done), abs=1e-3)
