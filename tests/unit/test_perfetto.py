"""Traces for Perfetto, read back by the schema: every op, counter and request is there, at its time."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cmsim
from cmsim.cli import app
from cmsim.errors import InputError
from cmsim.export import write_perfetto
from cmsim.traces import open_trace
from cmsim.traces.recorded import Trace, rank_trace

pytest.importorskip("perfetto")

TRAINING: dict[str, Any] = {
    "systems": ["hgx_h100"],
    "workload": {
        "kind": "training",
        "model": "llama-3.1-8b",
        "global_batch": 8,
        "micro_batch": 1,
        "sequence_length": 2048,
        "parallel": {"tp": 2, "pp": 2, "dp": 2},
    },
}


class Read:
    """What a trace says: tracks by name, slices and counters by track."""

    def __init__(self, path: Path):
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2

        trace = perfetto_trace_pb2.Trace()
        trace.ParseFromString(path.read_bytes())
        self.names = {one.iid: one.name for packet in trace.packet for one in packet.interned_data.event_names}
        self.tracks = {
            p.track_descriptor.uuid: p.track_descriptor for p in trace.packet if p.HasField("track_descriptor")
        }
        self.slices: dict[int, list[tuple[str, int, int, int]]] = defaultdict(list)
        self.counters: dict[int, list[tuple[int, float]]] = defaultdict(list)
        self.sent: Counter[int] = Counter()
        self.received: Counter[int] = Counter()
        open_: dict[int, list[tuple[str, int]]] = defaultdict(list)
        events = [(p.timestamp, p.track_event) for p in trace.packet if p.HasField("track_event")]
        for time, event in sorted(events, key=lambda one: one[0]):  # as its readers sort: stable
            on = event.track_uuid
            if event.type == event.TYPE_SLICE_BEGIN:
                open_[on].append((self.names[event.name_iid], time))
                self.sent.update(number for number in event.flow_ids if number)
                self.received.update(number for number in event.terminating_flow_ids if number)
            elif event.type == event.TYPE_SLICE_END:
                name, began = open_[on].pop()
                self.slices[on].append((name, began, time, len(open_[on])))
            else:
                self.counters[on].append((time, event.double_counter_value))
        assert not any(open_.values()), "a slice does not end"

    def called(self, part: str) -> list[int]:
        return [uuid for uuid, one in self.tracks.items() if part in one.name]


@pytest.fixture(scope="module")
def trained() -> cmsim.Results:
    return cmsim.run(TRAINING)


def test_every_op_is_a_slice_on_its_stream(trained: cmsim.Results, tmp_path: Path):
    read = Read(write_perfetto(trained, tmp_path / "t.pftrace"))
    (process,) = [one for one in read.tracks.values() if one.HasField("process")]
    assert process.process.process_name == "training/hgx_h100"
    ops = trained.ops
    for (rank_class, stream), group in ops.groupby(["rank_class", "stream"]):
        (track,) = read.called(f"class {rank_class} of {group.multiplicity.iloc[0]} ranks: {stream}")
        assert read.tracks[track].parent_uuid == process.uuid
        wanted = Counter(zip(group.op, group.start_ps // 1000, group.end_ps // 1000, strict=True))
        assert Counter(one[:3] for one in read.slices[track]) == wanted
        assert {depth for *_, depth in read.slices[track]} == {0}


def test_each_send_has_an_arrow_to_a_receive(trained: cmsim.Results, tmp_path: Path):
    read = Read(write_perfetto(trained, tmp_path / "t.pftrace"))
    assert len(read.sent) == (trained.ops.kind == "send").sum() > 0
    assert read.sent == read.received and set(read.sent.values()) == {1}


def test_counters_are_power_and_links(trained: cmsim.Results, tmp_path: Path):
    read = Read(write_perfetto(trained, tmp_path / "t.pftrace"))
    for component, group in trained.power.groupby("component"):
        (track,) = read.called(f"power: {component}")
        assert read.tracks[track].counter.unit_name == "W"
        at = dict(read.counters[track])
        assert [at[time // 1000] for time in group.start_ps] == pytest.approx(group.power_W.tolist())
        assert read.counters[track][-1] == (group.end_ps.max() // 1000, 0.0)
    assert len(read.called("link: ")) == trained.links.resource.nunique()


def test_requests_do_not_overlap_on_a_track(tmp_path: Path):
    served = cmsim.run(
        {
            "systems": [{"name": "one", "system": "hgx_h100", "accelerators": 1}],
            "workload": {
                "kind": "serving",
                "model": "llama-3.1-8b",
                "arrivals": {"process": "poisson", "rate_per_s": 20, "requests": 30},
                "lengths": {"prompt_tokens": 200, "output_tokens": 20},
            },
        }
    )
    read = Read(write_perfetto(served, tmp_path / "t.pftrace"))
    requests = served.frame("requests")
    tracks = read.called("requests")
    slices = [one for track in tracks for one in read.slices[track]]
    whole = {name: (start, end) for name, start, end, depth in slices if depth == 0}
    assert len(whole) == 30
    for row in requests.itertuples():
        start, end = whole[f"request {row.request}"]
        assert start == pytest.approx(row.arrival_s * 1e9, abs=2)
        assert end == pytest.approx((row.arrival_s + row.e2e_s) * 1e9, abs=5)
    inner = Counter(name for name, *_, depth in slices if depth == 1)
    assert inner["prefill"] == 30 and inner["decode"] == 30 and "cache moves" not in inner
    ends = np.array(sorted(whole.values()))
    most = max(int(((ends[:, 0] <= time) & (ends[:, 1] > time)).sum()) for time in ends[:, 0])
    assert len(tracks) == most


def test_runs_stand_side_by_side(trained: cmsim.Results, tmp_path: Path):
    read = Read(write_perfetto([*trained, *trained], tmp_path / "t.pftrace"))
    assert sum(one.HasField("process") for one in read.tracks.values()) == 2


def test_a_recorded_and_a_simulated_step_begin_together(tmp_path: Path):
    path = Path(cmsim.__file__).parents[1] / "workloads/traces/kineto/dlrm_8gpu"
    workload = {"kind": "trace", "path": "kineto/dlrm_8gpu", "ranks": 8, "collectives": "recorded"}
    replayed = cmsim.run({"systems": ["hgx_a100"], "workload": workload})
    before = open_trace(path).trace()
    read = Read(write_perfetto(replayed, tmp_path / "t.pftrace", recorded=[before]))
    recorded, simulated = (uuid for uuid, one in read.tracks.items() if one.HasField("process"))
    names = [read.tracks[one].process.process_name for one in (recorded, simulated)]
    assert names == ["recorded: dlrm_8gpu, 2 of 8 ranks", "trace/hgx_a100"]
    of = {
        process: [one for track, its in read.slices.items() if read.tracks[track].parent_uuid == process for one in its]
        for process in (recorded, simulated)
    }
    # every op that was recorded, at its time from the beginning of the step
    wanted: Counter[tuple[str, int]] = Counter()
    for one in before.ranks.values():
        for name, kind, start_us in zip(one.name, one.kind, one.start_us, strict=True):
            if kind >= 0:
                wanted[one.names[name], round(start_us * 1000)] += 1
    assert Counter(slice[:2] for slice in of[recorded]) == wanted
    for process in (recorded, simulated):
        assert min(start for _, start, *_ in of[process]) == 0
    ends_ns = [max(end for _, _, end, _ in of[process]) for process in (recorded, simulated)]
    assert ends_ns[0] == pytest.approx(before.recorded_us * 1000, rel=0.01)
    assert ends_ns[1] == pytest.approx(ends_ns[0], rel=0.02)  # it was replayed as it was
    assert {depth for *_, depth in of[recorded]} == {0}


def test_a_trace_without_a_clock_is_refused(tmp_path: Path):
    one = rank_trace(0, name=["a"], kind=0, stream=["s"], kernel=["gemm"])
    with pytest.raises(InputError, match="says no times"):
        write_perfetto([], tmp_path / "t.pftrace", recorded=[Trace("goal", "a.goal", {0: one})])


def test_equal_stretches_of_a_link_are_each_drawn(tmp_path: Path):
    ran = cmsim.run({"systems": ["hgx_h100"], "workload": {"kind": "collective", "collective": "all_reduce",
                     "message_bytes": 1e6}, "network": "flow"})  # fmt: skip
    links = ran.links
    read = Read(write_perfetto(ran, tmp_path / "t.pftrace"))
    for resource, rows in links.groupby("resource"):
        (track,) = read.called(f"link: {resource}")
        busy = sum(value > 0 for _, value in read.counters[track])
        assert busy >= len(rows) and busy <= rows.times.sum()
        at = dict(read.counters[track])
        last = rows.iloc[-1]
        assert at[last.end_ps // 1000] == 0 and at[(last.end_ps - last.each_ps) // 1000] == pytest.approx(
            last.utilization
        )


def test_a_run_without_frames_is_refused(tmp_path: Path):
    few = cmsim.run(TRAINING, record="summary")
    with pytest.raises(InputError, match="without the frame ops: run it with `record: full`"):
        write_perfetto(few, tmp_path / "t.pftrace")
    assert not list(tmp_path.iterdir())


def test_the_command(trained: cmsim.Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trained.save(tmp_path / "ran")
    out = tmp_path / "t.pftrace"
    app.app(["export", "perfetto", str(tmp_path / "ran"), "--out", str(out)], standalone_mode=False)
    assert "1 run, " in capsys.readouterr().err and out.stat().st_size > 10_000
