"""Numbers about recorded traces: against one counted by hand, and against plain readings of their definitions."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from cmsim.traces import open_trace
from cmsim.traces.info import trace_info
from cmsim.traces.recorded import PASS, Communicator, RankTrace, Trace, rank_trace
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, RECV, SEND

NAN = float("nan")
SAMPLES = Path(__file__).parents[2] / "workloads" / "traces" / "chakra"


def small(rank: int = 0, late_us: float = 0.0) -> RankTrace:
    """Host 0-1; kernels 1-4 and 6-10; an all-reduce 3-8 that the second kernel waits for only on paper; a message."""
    kinds = [HOST, COMPUTE, COLLECTIVE, COMPUTE, SEND, PASS]
    return rank_trace(
        rank,
        name=["launch", "gemm", "sum", "gemm", "send", ""],
        kind=kinds,
        stream=["", "1", "2", "1", "", ""],
        start_us=np.array([0, 1, 3, 6, 10, NAN]) + late_us,
        duration_us=[1, 3, 5, 4, 2, 99],
        kernel=["", "gemm", "", "gemm", "", ""],
        bytes_B=[0, 7, 100, 7, 30, 0],
        collective=["", "", "all_reduce", "", "", ""],
        group=[-1, -1, 1, -1, -1, -1],
        peer=[-1, -1, -1, -1, 1 - rank, -1],
        deps=([1, 2, 4], [0, 0, 3]),
    )


def test_a_small_trace_counted_by_hand() -> None:
    trace = Trace(
        "test",
        "a.file",
        {0: small(), 1: small(1, late_us=2.0)},
        (Communicator("unused"), Communicator("dp", (0, 1))),
        world_size=2,
        recorded_us=13.0,
        notes=("said",),
        facts={"tokens_per_run": 4.0},
    )
    info = trace_info(trace)
    assert json.loads(json.dumps(info)) == info
    assert info == {
        "format": "test",
        "source": "a.file",
        "ranks": 2,
        "world_size": 2,
        "ops": {"compute": 4, "host": 2, "collective": 2, "send": 2, "pass": 2},
        "collectives": {"all_reduce": {"count": 2, "bytes_B": 200.0, "time_us": 10.0}},
        "messages": {"send": {"count": 2, "bytes_B": 60.0, "time_us": 4.0}},
        "communicators": [{"name": "dp", "ranks": 2, "members": [0, 1], "ops": 2}],
        "recorded_us": 13.0,
        "steps": None,
        "step_us": 13.0,
        "span_us": 12.0,
        # host 1, kernel 3, kernel 4 (same stream), send 2
        "critical_path_us": 10.0,
        # kernels 1-4 and 6-10, communication 3-8 and 10-12: both run 3-4 and 6-8
        "busy_us": {"compute": 7.0, "communication": 7.0, "host": 1.0},
        "overlap_us": 3.0,
        "exposed_us": 4.0,
        "kernels": [{"name": "gemm", "count": 4, "time_us": 14.0, "share": 1.0}],
        "facts": {"tokens_per_run": 4.0},
        "notes": ["said"],
    }


def test_what_was_not_recorded_is_none() -> None:
    one = rank_trace(0, name=["a"], kind=[COMPUTE], stream=[""], kernel=["generic"])
    info = trace_info(Trace("test", "x", {0: one}))
    for key in ("recorded_us", "span_us", "critical_path_us", "busy_us", "overlap_us", "exposed_us", "world_size"):
        assert info[key] is None, key
    assert info["kernels"] == [{"name": "a", "count": 1, "time_us": 0.0, "share": 0.0}]
    empty = trace_info(Trace("test", "x", {}))
    assert empty["ranks"] == 0 and empty["ops"] == {} and empty["span_us"] is None


def test_kernels_by_time() -> None:
    name = ["a", "b", "c", "a", "", "d"]
    one = rank_trace(
        0, name=name, kind=[COMPUTE] * 5 + [HOST], stream=[""] * 6, kernel=["gemm"] * 5 + [""],
        duration_us=[1, 5, 1, 2, 4, 99],
    )  # fmt: skip
    found = trace_info(Trace("test", "x", {0: one, 3: one}), top=3)["kernels"]
    assert [(k["name"], k["count"], k["time_us"]) for k in found] == [("b", 2, 10.0), ("", 2, 8.0), ("a", 4, 6.0)]
    assert [k["share"] for k in found] == pytest.approx([10 / 26, 8 / 26, 6 / 26])


def random_rank(rng: random.Random) -> RankTrace:
    count = rng.randrange(1, 60)
    kind = [rng.choice([HOST, COMPUTE, COMPUTE, COLLECTIVE, SEND, RECV, PASS]) for _ in range(count)]
    edges = {(row, rng.randrange(row)) for row in range(1, count) for _ in range(rng.randrange(3))}
    return rank_trace(
        0,
        name=["x"] * count,
        kind=kind,
        stream=[rng.choice(["1", "2", ""]) if k in (COMPUTE, COLLECTIVE) else "" for k in kind],
        start_us=[rng.choice([NAN, *map(float, range(40))]) for _ in kind],
        duration_us=[rng.choice([NAN, 0.0, 1.0, 4.0]) for _ in kind],
        kernel=["generic" if k == COMPUTE else "" for k in kind],
        collective=["all_reduce" if k == COLLECTIVE else "" for k in kind],
        group=[0 if k == COLLECTIVE else -1 for k in kind],
        peer=[1 if k in (SEND, RECV) else -1 for k in kind],
        deps=tuple(np.array(sorted(edges), np.int64).reshape(-1, 2).T),
    )


@pytest.mark.parametrize("seed", range(30))
def test_critical_path_and_overlap_by_their_definitions(seed: int) -> None:
    one = random_rank(random.Random(seed))
    info = trace_info(Trace("test", "x", {0: one}, (Communicator("all"),), world_size=2))
    end: list[float] = []
    last: dict[object, float] = {}
    for row in range(len(one)):
        kind = int(one.kind[row])
        # a queue a stream, or one made up: for host work, kernels, the communicator, each way of the channel
        queue = int(one.stream[row]) if one.stream[row] >= 0 else f"made up {kind}"
        start = max((end[dep] for dep in one.dep_idx[one.dep_ptr[row] : one.dep_ptr[row + 1]]), default=0.0)
        if kind == PASS:
            end.append(start)
            continue
        end.append(max(start, last.get(queue, 0.0)) + float(np.nan_to_num(one.duration_us[row])))
        last[queue] = end[-1]
    if np.isnan(one.duration_us).all():
        assert info["critical_path_us"] is None
    else:
        assert info["critical_path_us"] == max(end)

    tick = np.arange(0, 60, 0.5) + 0.25  # all times are whole microseconds
    running = (one.start_us[:, None] <= tick) & (tick < (one.start_us + one.duration_us)[:, None])
    works, talks = running[one.kind == COMPUTE].any(axis=0), running[one.kind >= COLLECTIVE].any(axis=0)
    if info["busy_us"] is None:
        assert not (~np.isnan(one.start_us) & ~np.isnan(one.duration_us)).any()
        return
    assert info["busy_us"]["compute"] == works.sum() / 2
    assert info["busy_us"]["communication"] == talks.sum() / 2
    assert info["overlap_us"] == (works & talks).sum() / 2
    assert info["exposed_us"] == (talks & ~works).sum() / 2


def test_a_real_sample() -> None:
    info = trace_info(open_trace(SAMPLES / "resnet50_ddp_rank0").trace(ranks=1))
    assert info["ops"] == {"compute": 1209, "host": 2448, "collective": 7}
    assert info["collectives"]["all_reduce"]["bytes_B"] + info["collectives"].get("broadcast", {"bytes_B": 0})[
        "bytes_B"
    ] == pytest.approx(102228128 + 212904)
    # the kernels run one after the other: the path is hardly longer than they are, and never shorter
    kernels_us = sum(
        k["time_us"] for k in trace_info(open_trace(SAMPLES / "resnet50_ddp_rank0").trace(), top=10**6)["kernels"]
    )
    assert kernels_us == 292828
    assert 161536 < info["critical_path_us"] < 292828 + 52252
    assert info["span_us"] is None
