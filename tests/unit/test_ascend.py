"""The importer of the CANN profilers' files: counts, rows that replay to the recorded times, and clear errors."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmsim.errors import InputError
from cmsim.reading.bytes_in import head
from cmsim.traces import ascend
from cmsim.traces.ascend.shapes import work
from cmsim.traces.ascend.tables import epoch_ns, read_kernels
from cmsim.traces.gaps import UNIT, gaps
from cmsim.traces.recorded import RankTrace, Trace
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, RECV, SEND

TRACES = Path(__file__).parents[2].parent / "shared" / "traces"
TRUTH: dict[str, Any] = json.loads((TRACES / "TRUTH.json").read_text()) if (TRACES / "TRUTH.json").exists() else {}
FILES = [name for name in TRUTH if name.startswith("ascend/")]
OTHERS = [name for name in TRUTH if not name.startswith(("ascend/", "_"))]
ALEXNET = Path(__file__).parents[2] / "workloads" / "traces" / "ascend" / "alexnet_ddp_level1"
OLDER = TRACES / "ascend" / "older_schema_16npu"
shared = pytest.mark.skipif(not FILES, reason="the collected traces are not beside this checkout")

EPOCH_US = 1736408883000000


def replay_us(rank: RankTrace, recorded: RankTrace | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of each row: after the row before on its stream and all that it waits for, and after its gap."""
    start, end, hold = np.zeros(len(rank)), np.zeros(len(rank)), np.zeros(len(rank))
    one = rank if recorded is None else recorded
    found = gaps(one.start_us, one.duration_us, one.stream, one.dep_ptr, one.dep_idx)
    hold[found.before] = found.length_us
    last: dict[int, float] = {}
    for i in range(len(rank)):
        deps = rank.dep_idx[rank.dep_ptr[i] : rank.dep_ptr[i + 1]]
        assert (deps < i).all()
        start[i] = max([last.get(int(rank.stream[i]), 0.0), *end[deps]]) + hold[i]
        end[i] = last[int(rank.stream[i])] = start[i] + rank.duration_us[i]
    return start, end


def early_us(rank: RankTrace) -> float:
    """By how much a row may start before its time: what is shorter is added up until it is a gap."""
    return UNIT * float((rank.start_us + rank.duration_us).max()) + 0.05


def with_durations(rank: RankTrace, rows: Any, factor: float) -> RankTrace:
    return dataclasses.replace(rank, duration_us=np.where(rows, factor, 1.0) * rank.duration_us)


def names(rank: RankTrace) -> list[str]:
    return [rank.names[i] for i in rank.name]


def row_of(rank: RankTrace, name: str) -> int:
    (row,) = [i for i, one in enumerate(names(rank)) if one == name]
    return row


def awaited(rank: RankTrace, name: str) -> set[str]:
    """What a task waits for on other streams."""
    row = row_of(rank, name)
    return {names(rank)[d] for d in rank.dep_idx[rank.dep_ptr[row] : rank.dep_ptr[row + 1]].tolist()}


# -- real files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_counts_are_those_of_the_file(name: str) -> None:
    path = TRACES / name
    assert ascend.sniff(head(path), path)
    counts = ascend.open_(path).counts()
    assert {key: counts.get(key) for key in TRUTH[name]} == TRUTH[name]


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_formats_are_not_taken(name: str) -> None:
    assert not ascend.sniff(head(TRACES / name), TRACES / name)


@shared
def test_a_folder_counts_its_files_by_name() -> None:
    assert ascend.sniff(b"", ALEXNET)
    counts = ascend.open_(ALEXNET).counts()
    assert counts["ranks"] == [0, 1]
    prefix = "ascend/alexnet_ddp_level1/"
    expected = {name.removeprefix(prefix): TRUTH[name] for name in FILES if name.startswith(prefix)}
    assert counts["files"] == expected


@pytest.mark.parametrize(
    "folder", ["rank0_ascend_pt", "rank0_ascend_pt/ASCEND_PROFILER_OUTPUT", "rank1_ascend_pt/ASCEND_PROFILER_OUTPUT"]
)
def test_a_ranks_folder_and_its_output_folder(folder: str) -> None:
    opened = ascend.open_(ALEXNET / folder)
    assert list(opened.trace().ranks) == opened.counts()["ranks"] == [int(folder[4])]


@pytest.mark.parametrize("folder", ["", "rank0_ascend_pt", "rank1_ascend_pt/ASCEND_PROFILER_OUTPUT"])
def test_replay_of_recorded_durations_gives_the_recorded_times(folder: str) -> None:
    trace = ascend.open_(ALEXNET / folder).trace()
    ends = []
    for number, rank in trace.ranks.items():
        start, end = replay_us(rank)
        recorded = rank.start_us - rank.start_us.min()
        assert np.abs(start - recorded).max() < early_us(rank)
        output = ALEXNET / f"rank{number}_ascend_pt" / "ASCEND_PROFILER_OUTPUT"
        step = ascend.open_(output / "step_trace_time.csv").counts()["rows"][0]
        total = sum(float(step[key]) for key in ("Computing", "Communication(Not Overlapped)", "Free"))
        if names(rank)[0] == "starts later than the first rank":
            assert number == 1 and not folder
            total += rank.duration_us[0]
        assert end.max() == pytest.approx(total, rel=UNIT)
        ends.append(total)
    assert trace.recorded_us == max(ends)


@pytest.mark.parametrize("number", [0, 1])
def test_parts_of_the_step_are_those_of_the_profiler(number: int) -> None:
    output = ALEXNET / f"rank{number}_ascend_pt" / "ASCEND_PROFILER_OUTPUT"
    step = ascend.open_(output / "step_trace_time.csv").counts()["rows"][0]
    own = ascend.open_(output / "trace_view.json.gz").counts()["overlap_analysis_us"]
    for part in ("Computing", "Communication", "Communication(Not Overlapped)", "Free"):
        assert own[part] == pytest.approx(float(step[part]), abs=0.002)
    rank = ascend.open_(output).trace().ranks[number]
    copies = np.array([name.startswith("MEMCPY") for name in names(rank)])
    computing = rank.duration_us[(rank.kind == COMPUTE) & ~copies].sum()
    assert computing == pytest.approx(float(step["Computing"]), abs=0.01)
    assert rank.duration_us[rank.kind == COLLECTIVE].sum() == pytest.approx(float(step["Communication"]), abs=0.01)
    assert not {"EVENT_WAIT", "EVENT_RECORD", "Notify_Wait", "SDMA"} & set(rank.names)


def test_collectives_of_the_real_trace() -> None:
    trace = ascend.open_(ALEXNET).trace()
    (communicator,) = trace.communicators
    assert communicator.members == tuple(range(8)) and communicator.size == 8
    for rank in trace.ranks.values():
        rows = np.flatnonzero(rank.kind == COLLECTIVE)
        assert [rank.collectives[c] for c in rank.collective[rows]] == ["all_reduce"] * 4
        assert rank.bytes_B[rows].tolist() == [4 * count for count in (4097000, 16781312, 37752832, 2469696)]
        assert set(rank.group[rows]) == {0}
    only = ascend.open_(ALEXNET / "rank0_ascend_pt").trace()
    assert only.communicators[0].members == () and only.communicators[0].size == 8


def test_what_waits_for_what_in_the_real_trace() -> None:
    rank = ascend.open_(ALEXNET).trace().ranks[0]
    sums = [f"hcom_allReduce__586_{i}_1" for i in range(4)]
    # The second bucket's gradients were ready long before the first bucket's sum had ended.
    first = row_of(rank, sums[0])
    second = row_of(rank, sums[1])
    deps = [d for d in rank.dep_idx[rank.dep_ptr[second] : rank.dep_ptr[second + 1]] if rank.kind[d] == COMPUTE]
    latest = max(rank.start_us[d] + rank.duration_us[d] for d in deps)
    assert rank.start_us[first] < latest < rank.start_us[first] + 2000
    # Kernels wait for sums in turn, so the step gets shorter with them, but not by what overlaps.
    _start, end = replay_us(with_durations(rank, rank.kind == COLLECTIVE, 0.0), rank)
    assert 40e3 < end.max() < 50e3
    for name in sums:
        waiting = [
            i for i in range(len(rank)) if row_of(rank, name) in rank.dep_idx[rank.dep_ptr[i] : rank.dep_ptr[i + 1]]
        ]
        assert waiting and all(rank.streams[rank.stream[i]] == "Stream 2" for i in waiting)


def test_work_of_kernels_in_the_real_trace() -> None:
    rank = ascend.open_(ALEXNET).trace().ranks[0]
    matmuls = [i for i, name in enumerate(names(rank)) if name.endswith("MatMulV2")]
    assert len(matmuls) == 8
    assert rank.flops[matmuls[0]] == 2 * 32 * 9216 * 4096
    assert rank.bytes_B[matmuls[0]] == 4 * (32 * 9216 + 4096 * 9216 + 4096 + 32 * 4096)
    assert rank.precisions[rank.precision[matmuls[0]]] == "fp32"
    assert (rank.flops > 0).sum() == 23
    kernels = {name: rank.kernels[k] for name, k in zip(names(rank), rank.kernel, strict=True) if k >= 0}
    assert kernels["Conv2D1"] == "gemm" and kernels["aclnnMm_MatMulCommon_MemSet"] == "generic"


@shared
def test_without_a_timeline_rows_come_from_the_tables() -> None:
    trace = ascend.open_(OLDER).trace()
    for number, rank in trace.ranks.items():
        start, _end = replay_us(rank)
        assert np.abs(start - (rank.start_us - rank.start_us.min())).max() < early_us(rank)
        gathers = (rank.kind == COLLECTIVE) & (rank.duration_us > 0)
        assert [rank.collectives[c] for c in rank.collective[gathers]] == ["all_gather"] * 8
        # seven other ranks, 20.97152 MB each
        assert rank.bytes_B[gathers] == pytest.approx(8 * 20_971_520)
        (send,) = np.flatnonzero(rank.kind == SEND)
        assert rank.peer[send] == number + 8 and rank.bytes_B[send] == pytest.approx(20_971_520)
    assert any("16 reducescatter ops without a known size" in note for note in trace.notes)
    # 294,586.56 of rank 1's step, and 542 that it starts later
    assert trace.world_size == 0 and trace.recorded_us == pytest.approx(295128.864)


@shared
def test_side_files_of_the_cluster_say_who_is_in_a_communicator(tmp_path: Path) -> None:
    job = tmp_path / "all"
    shutil.copytree(OLDER, job)
    shutil.copytree(TRACES / "ascend" / "cluster_analysis_output", job / "cluster_analysis_output")
    trace = ascend.open_(job).trace()
    assert trace.world_size == 16
    assert {c.members for c in trace.communicators} == {
        tuple(range(8)),
        tuple(range(16)),
        (0, 8),
        (1, 9),
        (0,),
        (1,),
    }


# -- files made here ---------------------------------------------------------------------------------------


def ts(us: float) -> str:
    return f"{EPOCH_US + int(us)}.{round(us % 1 * 1000):03d}"


class Maker:
    """Events of a rank: host thread 7 launches, streams 2 and 9 run, communicator threads by number."""

    def __init__(self, communication: str = "HCCL") -> None:
        self.meta: list[dict[str, Any]] = []
        for pid, name in ((1, "Python"), (2, "CANN"), (3, "Ascend Hardware"), (4, communication)):
            self.meta.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}})
        self.events: list[dict[str, Any]] = []
        self.flows = 0

    def x(self, pid: int, tid: int, name: str, us: float, dur: float, **args: Any) -> None:
        event = {"ph": "X", "name": name, "pid": pid, "tid": tid, "ts": ts(us), "dur": dur, "args": args}
        self.events.append(event)

    def thread(self, pid: int, tid: int, name: str) -> None:
        self.meta.append({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}})

    def launch(self, host_us: float, pid: int, tid: int, us: float, *, by: int = 7) -> None:
        self.flows += 1
        for ph, place, thread, at in (("s", 2, by, host_us), ("f", pid, tid, us)):
            flow = {"ph": ph, "cat": "HostToDevice", "name": "l", "id": str(self.flows), "pid": place, "tid": thread}
            self.events.append({**flow, "ts": ts(at)})

    def task(
        self, stream: int, name: str, us: float, dur: float, *, at: float | None = None, type_: str = "AI_CORE"
    ) -> None:
        self.x(3, stream, name, us, dur, **{"Task Type": type_})
        if at is not None:
            self.launch(at, 3, stream, us)

    def comm(
        self,
        tid: int,
        name: str,
        us: float,
        dur: float,
        *,
        count: int = 0,
        dtype: str = "FP16",
        at: float | None = None,
        plane: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.x(4, tid, name, us, dur, data_type=dtype, count=count, alg_type="MESH-RING")
        if at is not None:
            self.launch(at, 4, tid, us)
        for i, task in enumerate(plane):
            self.x(4, tid + 1, "Memcpy", us + i * 0.001, 0.001, **task)

    def json(self, *, names_last: bool = False) -> str:
        return json.dumps(self.events + self.meta if names_last else self.meta + self.events)


def rank_folder(
    path: Path, rank: int | str | None = 0, *, view: str | None = None, files: Mapping[str, str] | None = None
) -> Path:
    output = path / "ASCEND_PROFILER_OUTPUT"
    output.mkdir(parents=True)
    if rank is not None:
        (path / f"profiler_info_{rank}.json").write_text(json.dumps({"config": {}, "rank_id": rank}))
    if view is not None:
        (output / "trace_view.json").write_text(view)
    for name, text in (files or {}).items():
        (output / name).write_text(text)
    return path


def plain(names_last: bool = False) -> str:
    """Two kernels, a sum on another stream that waits for the first, and a kernel that waits for the sum."""
    made = Maker()
    made.thread(4, 0, "Group 0 Communication")
    made.thread(4, 1, "Plane 0")
    made.task(2, "MatMulV2", 100, 50, at=90)
    made.task(2, "EVENT_RECORD", 150, 0.02, type_="EVENT_RECORD_SQE")
    made.task(2, "Add", 160, 40, at=95)
    made.task(9, "EVENT_WAIT", 100, 50.5, type_="EVENT_WAIT_SQE")
    made.comm(0, "hcom_allReduce__123_0_1", 152, 100, count=1000, at=93, plane=[{"stream id": 9, "src rank": 0}])
    made.task(9, "Notify", 152, 100, type_="Notify Wait")
    made.task(9, "EVENT_RECORD", 252.1, 0.02, type_="EVENT_RECORD_SQE")
    made.task(2, "EVENT_WAIT", 200, 52.4, type_="EVENT_WAIT_SQE")
    made.task(2, "Mul", 253, 10, at=97)
    return made.json(names_last=names_last)


@pytest.mark.parametrize("names_last", [False, True])
def test_queues_launches_and_waits(tmp_path: Path, names_last: bool) -> None:
    trace = ascend.open_(rank_folder(tmp_path / "a_ascend_pt", view=plain(names_last))).trace()
    rank = trace.ranks[0]
    start, end = replay_us(rank)
    assert np.abs(start - rank.start_us).max() < early_us(rank) and end.max() == pytest.approx(163)
    assert trace.recorded_us == pytest.approx(163)
    recorded = [name for name in names(rank) if name not in ("launch", "host")]
    assert recorded == ["MatMulV2", "hcom_allReduce__123_0_1", "Add", "Mul"]
    assert awaited(rank, "hcom_allReduce__123_0_1") == {"MatMulV2", "launch"}
    assert awaited(rank, "Mul") == {"hcom_allReduce__123_0_1", "launch"}
    assert rank.streams[rank.stream[row_of(rank, "Add")]] == "Stream 2"
    assert rank.bytes_B[row_of(rank, "hcom_allReduce__123_0_1")] == 2000
    # The sum's wait for others is in it: with a longer one the last kernel comes later, the second does not.
    start, _ = replay_us(with_durations(rank, rank.kind == COLLECTIVE, 2.0), rank)
    assert start[row_of(rank, "Mul")] == pytest.approx(253) and start[row_of(rank, "Add")] == pytest.approx(60)


def waiting_sum(tasks: Iterable[tuple[int, str, float, float]], records: Iterable[tuple[int, float]]) -> str:
    """Kernels (stream, name, start, length), events recorded (stream, time), and a sum held up until 150.5."""
    made = Maker()
    made.thread(4, 0, "Group 0 Communication")
    made.thread(4, 1, "Plane 0")
    for i, (stream, name, us, dur) in enumerate(tasks):
        made.task(stream, name, us, dur, at=80 + i)
    for stream, us in records:
        made.task(stream, "EVENT_RECORD", us, 0.02, type_="EVENT_RECORD_SQE")
    made.task(9, "EVENT_WAIT", 100, 50.5, type_="EVENT_WAIT_SQE")
    made.comm(0, "hcom_allReduce__123_0_1", 152, 100, count=1000, at=93, plane=[{"stream id": 9, "src rank": 0}])
    return made.json()


def test_a_wait_that_held_a_stream_up_was_for_the_last_event(tmp_path: Path) -> None:
    view = waiting_sum([(2, "Main", 100, 50), (3, "Side", 100, 20)], [(2, 150), (3, 121)])
    rank = ascend.open_(rank_folder(tmp_path / "a", view=view)).trace().ranks[0]
    assert awaited(rank, "hcom_allReduce__123_0_1") == {"Main", "launch"}


def test_no_wait_goes_against_recorded_times(tmp_path: Path) -> None:
    view = waiting_sum([(2, "A", 100, 40), (2, "B", 130, 300)], [(2, 150)])
    rank = ascend.open_(rank_folder(tmp_path / "a", view=view)).trace().ranks[0]
    assert np.abs(replay_us(rank)[0] - rank.start_us).max() < early_us(rank)
    assert awaited(rank, "hcom_allReduce__123_0_1") == {"A", "launch"}


@pytest.mark.parametrize(("busy", "begins"), [(False, 100 + 20 + 5), (True, 1015 + 10)])
def test_a_synchronising_call_holds_up_other_threads_unless_they_go_on(
    tmp_path: Path, busy: bool, begins: float
) -> None:
    made = Maker()
    made.task(2, "Conv", 100, 1000, at=90)
    made.x(2, 6, "AscendCL@aclrtSynchronizeStream", 110, 995)
    if busy:
        made.task(3, "Side", 1010, 1, at=1005)
    made.task(2, "Add", 1125, 5, at=1120)
    rank = ascend.open_(rank_folder(tmp_path / "a", view=made.json())).trace().ranks[0]
    start, _ = replay_us(with_durations(rank, np.array(names(rank)) == "Conv", 0.1), rank)
    assert start[row_of(rank, "Add")] == pytest.approx(begins)


def test_host_work_is_what_a_thread_does_between_launches(tmp_path: Path) -> None:
    made = Maker()
    for i in range(4):
        made.task(2, f"Add{i}", 100 + 20 * i, 1, at=98 + 20 * i)
    rank = ascend.open_(rank_folder(tmp_path / "a", view=made.json())).trace().ranks[0]
    launches = [i for i, name in enumerate(names(rank)) if name == "launch"]
    assert rank.duration_us[launches].tolist() == [0.0, 18.0, 20.0, 20.0]  # the step starts with the first kernel
    start, _ = replay_us(with_durations(rank, rank.kind == HOST, 0.5), rank)
    assert start[row_of(rank, "Add3")] == pytest.approx(31)  # 29 on the host, and the 2 from launch to start


def test_a_synchronising_call_waits_for_the_device(tmp_path: Path) -> None:
    made = Maker()
    made.task(2, "Conv", 100, 1000, at=90)
    made.x(2, 7, "AscendCL@aclrtSynchronizeStream", 110, 995)
    made.task(2, "Add", 1125, 5, at=1120)
    trace = ascend.open_(rank_folder(tmp_path / "a", view=made.json())).trace()
    rank = trace.ranks[0]
    start, end = replay_us(rank)
    assert end.max() == pytest.approx(1030)
    # 10 us of host work before the call, 20 us from the end of the kernel to the launch, 5 us to the start
    start, _ = replay_us(with_durations(rank, np.array(names(rank)) == "Conv", 0.1), rank)
    assert start[row_of(rank, "Add")] == pytest.approx(100 + 20 + 5)
    start, _ = replay_us(with_durations(rank, np.array(names(rank)) == "Conv", 0.0), rank)
    assert start[row_of(rank, "Add")] == pytest.approx(10 + 20 + 5)
    assert "1 calls of the host that wait for the device" in trace.notes


def test_a_synchronising_call_holds_up_the_thread_that_launches_for_its_caller(tmp_path: Path) -> None:
    made = Maker()
    made.task(2, "Conv", 100, 1000, at=90)
    made.x(2, 5, "AscendCL@aclrtSynchronizeStream", 110, 995)  # thread 5 queues, thread 7 launches
    made.task(2, "Add", 1125, 5, at=1120)
    for number, (queued, taken) in enumerate([(80, 85), (1110, 1118)]):
        flow = {"cat": "async_task_queue", "name": "q", "id": number, "pid": 1}
        made.events.append({"ph": "s", "tid": 5, "ts": ts(queued), **flow})
        made.events.append({"ph": "f", "tid": 7, "ts": ts(taken), **flow})
    rank = ascend.open_(rank_folder(tmp_path / "a", view=made.json())).trace().ranks[0]
    start, _ = replay_us(with_durations(rank, np.array(names(rank)) == "Conv", 0.1), rank)
    assert start[row_of(rank, "Add")] == pytest.approx(100 + 20 + 5)


def test_a_clock_that_runs_ahead_is_set_back(tmp_path: Path) -> None:
    made = Maker()
    made.task(2, "Add", 100, 5, at=110)
    made.task(2, "Mul", 130, 5, at=142)
    trace = ascend.open_(rank_folder(tmp_path / "a", view=made.json())).trace()
    rank = trace.ranks[0]
    assert awaited(rank, "Mul") == {"launch"}
    assert any("host clock was set back" in note for note in trace.notes)
    start, _end = replay_us(rank)
    assert start[row_of(rank, "Mul")] == pytest.approx(30)


def test_tasks_without_a_launch_keep_their_gap(tmp_path: Path) -> None:
    made = Maker()
    made.task(2, "Add", 100, 5, at=90)
    made.task(2, "Mul", 130, 5)
    trace = ascend.open_(rank_folder(tmp_path / "a", view=made.json())).trace()
    rank = trace.ranks[0]
    assert replay_us(rank)[0][row_of(rank, "Mul")] == pytest.approx(30)
    assert any(note.startswith("1 tasks without a launch") for note in trace.notes)
    start, _ = replay_us(with_durations(rank, np.array(names(rank)) == "Add", 3.0), rank)
    assert start[row_of(rank, "Mul")] == pytest.approx(40)


def test_tasks_that_overlap_on_a_stream_stand_beside_it(tmp_path: Path) -> None:
    made = Maker()
    made.task(2, "A", 100, 50, at=90)
    made.task(2, "B", 120, 50, at=90)
    made.task(2, "C", 160, 5, at=90)
    rank = ascend.open_(rank_folder(tmp_path / "a", view=made.json())).trace().ranks[0]
    streams = {name: rank.streams[rank.stream[row_of(rank, name)]] for name in "ABC"}
    assert streams == {"A": "Stream 2", "B": "Stream 2 beside 1", "C": "Stream 2"}
    assert np.abs(replay_us(rank)[0] - rank.start_us).max() < early_us(rank)


def test_copies_before_the_first_kernel_are_not_in_the_step(tmp_path: Path) -> None:
    made = Maker()
    made.task(2, "MEMCPY_ASYNC", 10, 50, at=5, type_="PCIE_DMA_SQE")
    made.task(2, "Add", 100, 5, at=90)
    made.task(2, "MEMCPY_ASYNC", 110, 3, at=91, type_="SDMA_SQE")
    made.task(2, "Mul", 120, 5, at=92)
    trace = ascend.open_(rank_folder(tmp_path / "a", view=made.json())).trace()
    recorded = [name for name in names(trace.ranks[0]) if name not in ("launch", "host")]
    assert recorded == ["Add", "MEMCPY_ASYNC", "Mul"]
    assert trace.recorded_us == pytest.approx(25)


@pytest.mark.parametrize("communication", ["HCCL", "Communication"])
@pytest.mark.parametrize(
    ("op", "count", "collective", "size_B"),
    [
        ("allReduce", 100, "all_reduce", 200),
        ("allGather", 100, "all_gather", 800),
        ("reduceScatter", 100, "reduce_scatter", 800),
        ("broadcast", 100, "broadcast", 200),
        ("reduce", 100, "reduce", 200),
        ("alltoall", 100, "all_to_all", 800),
        ("alltoallv", 100, "all_to_all", 200),
        ("scatter", 100, "scatter", 800),
    ],
)
def test_sizes_are_those_of_nccl_tests(
    tmp_path: Path, communication: str, op: str, count: int, collective: str, size_B: float
) -> None:
    made = Maker(communication)
    made.thread(4, 0, "Group 0 Communication")
    made.task(2, "Add", 100, 5, at=90)
    made.comm(0, f"hcom_{op}__123_0_1", 110, 50, count=count)
    matrix = {"step1": {"collective": {f"{op.lower()}-total@9123": {f"2-{i}": LINK for i in range(4)}}, "p2p": {}}}
    folder = rank_folder(tmp_path / "a", 2, view=made.json(), files={"communication_matrix.json": json.dumps(matrix)})
    trace = ascend.open_(folder).trace()
    rank = trace.ranks[2]
    (row,) = np.flatnonzero(rank.kind == COLLECTIVE)
    assert rank.collectives[rank.collective[row]] == collective and rank.bytes_B[row] == size_B
    assert trace.communicators[0].name == "9123" and trace.communicators[0].members == (0, 1, 2, 3)


LINK = {"Transport Type": "HCCS", "Transit Size(MB)": 1.0, "Transit Time(ms)": 1.0, "Bandwidth(GB/s)": 1.0}


@pytest.mark.parametrize("ranks", [None, 16])
def test_a_size_that_depends_on_an_unknown_communicator(tmp_path: Path, ranks: int | None) -> None:
    made = Maker()
    made.task(2, "Add", 100, 5, at=90)
    made.comm(0, "hcom_allGather__123_0_1", 110, 50, count=100)
    made.comm(0, "hcom_allReduce__123_1_1", 170, 50, count=100)
    trace = ascend.open_(rank_folder(tmp_path / "a", view=made.json())).trace(ranks=ranks)
    rank = trace.ranks[0]
    assert trace.world_size == (ranks or 0)
    kinds = {names(rank)[i]: rank.kind[i] for i in range(len(rank))}
    assert kinds["hcom_allReduce__123_1_1"] == COLLECTIVE
    assert kinds["hcom_allGather__123_0_1"] == (COLLECTIVE if ranks else COMPUTE)
    if ranks:
        assert rank.bytes_B[row_of(rank, "hcom_allGather__123_0_1")] == 3200
    else:
        assert any("1 allgather ops without a known communicator's size" in note for note in trace.notes)


def test_two_transports_do_not_tell_the_size(tmp_path: Path) -> None:
    made = Maker()
    made.comm(0, "hcom_allReduce__123_0_1", 110, 50, count=100)
    links = {f"0-{i}": LINK for i in range(4)} | {"0-4": {**LINK, "Transport Type": "RDMA"}}
    matrix = {"step": {"collective": {"allreduce-total@9123": links}, "p2p": {}}}
    folder = rank_folder(tmp_path / "a", view=made.json(), files={"communication_matrix.json": json.dumps(matrix)})
    trace = ascend.open_(folder).trace()
    assert trace.communicators[0].size == 0
    assert any("no file says (at least 5)" in note for note in trace.notes)


def test_members_from_the_metadata_of_the_job(tmp_path: Path) -> None:
    made = Maker()
    made.comm(0, "hcom_allReduce__123_0_1", 110, 50, count=100)
    matrix = {"step": {"collective": {"allreduce-total@9123": {"1-0": LINK, "1-1": LINK}}, "p2p": {}}}
    folder = rank_folder(tmp_path / "a", 5, view=made.json(), files={"communication_matrix.json": json.dumps(matrix)})
    groups = {
        "group_name_3": {"group_name": "tp", "group_rank": 1, "global_ranks": [4, 5]},
        "group_name_4": {"group_name": "dp", "group_rank": 2, "global_ranks": [1, 3, 5, 7]},
        "group_name_5": {"group_name": "pp", "group_rank": 0, "global_ranks": [5, 7]},
    }
    metadata = {"distributed_args": {"world_size": 8, "rank": 5}, "parallel_group_info": groups}
    (folder / "profiler_metadata.json").write_text(json.dumps(metadata))
    trace = ascend.open_(folder).trace()
    assert trace.communicators[0].members == (4, 5)
    assert trace.world_size == 8


def test_sends_and_receives_find_each_other(tmp_path: Path) -> None:
    for rank, op, us in ((0, "send", 110), (1, "receive", 105)):
        made = Maker()
        made.thread(4, 0, "Group 0 Communication")
        made.thread(4, 1, "Plane 0")
        made.task(2, "Add", 100, 5, at=90)
        made.comm(0, f"hcom_{op}__123_0_1", us, 50, count=100, dtype="FP32")
        rank_folder(tmp_path / f"r{rank}_ascend_pt", str(rank), view=made.json())
    trace = ascend.open_(tmp_path).trace()
    send, receive = trace.ranks[0], trace.ranks[1]
    (at,) = np.flatnonzero(send.kind == SEND)
    assert send.peer[at] == 1 and send.bytes_B[at] == 400
    (to,) = np.flatnonzero(receive.kind == RECV)
    assert receive.peer[to] == 0 and receive.bytes_B[to] == 400 and receive.tag[to] == send.tag[at]


def test_the_other_end_of_a_send_by_its_own_tasks(tmp_path: Path) -> None:
    made = Maker()
    made.thread(4, 0, "Group 0 Communication")
    made.thread(4, 1, "Plane 0")
    tasks = [{"src rank": 1, "dst rank": 3, "stream id": 9, "size(Byte)": size} for size in (0, 200)]
    made.comm(0, "hcom_send__123_0_1", 110, 50, count=100, plane=tasks)
    links = {f"1-{i}": LINK for i in range(4)}
    matrix = {"step": {"collective": {"allreduce-total@9123": links}, "p2p": {}}}
    folder = rank_folder(tmp_path / "a", 1, view=made.json(), files={"communication_matrix.json": json.dumps(matrix)})
    rank = ascend.open_(folder).trace().ranks[1]
    (row,) = np.flatnonzero(rank.kind == SEND)
    assert rank.peer[row] == 3


def test_ops_of_unknown_parts_are_work_of_recorded_time(tmp_path: Path) -> None:
    made = Maker()
    made.comm(0, "hcom_batchSendRecv__123_0_1", 110, 50, count=100)
    made.comm(0, "hcom_receive__123_1_1", 170, 50, count=100)
    trace = ascend.open_(rank_folder(tmp_path / "a", view=made.json())).trace()
    assert (trace.ranks[0].kind == COMPUTE).sum() == 2
    assert any(note.startswith("1 batchsendrecv ops") for note in trace.notes)
    assert any(note.startswith("1 receive ops without a known peer") for note in trace.notes)


def test_kernels_on_the_stream_of_a_collective_are_part_of_it(tmp_path: Path) -> None:
    made = Maker()
    made.thread(4, 0, "Group 0 Communication")
    made.thread(4, 1, "Plane 0")
    made.task(2, "Add", 100, 5, at=90)
    made.comm(0, "hcom_allReduce__123_0_1", 110, 50, count=100, plane=[{"stream id": 9, "src rank": 0}])
    made.task(9, "aiv_sum", 120, 10, type_="AI_VECTOR_CORE")
    trace = ascend.open_(rank_folder(tmp_path / "a", view=made.json())).trace()
    assert "aiv_sum" not in trace.ranks[0].names
    assert "1 kernels and copies that are part of a communication op" in trace.notes


HEADER = "Step Id,Stream ID,Name,Type,Accelerator Core,Start Time(us),Duration(us),Wait Time(us)"


def table(*rows: str, header: str = HEADER) -> str:
    return "\n".join([header, *rows]) + "\n"


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "k.csv"
    header = "Device_id,Name,Type,Start Time(us),Duration(us),Accelerator Core"
    path.write_text("\ufeff" + table(f'0,"a,b",Add,{ts(5)}\t,2.5\t,AI_CORE', header=header), encoding="utf-8")
    counts = ascend.open_(path).counts()
    assert counts["rows_by_core"] == {"AI_CORE": 1} and counts["columns"] == 6 and counts["steps"] == []
    kernels = read_kernels(path)
    assert kernels.name == ["a,b"] and kernels.start_ns.tolist() == [(EPOCH_US + 5) * 1000]


def test_a_table_of_the_lowest_level(tmp_path: Path) -> None:
    path = tmp_path / "kernel_details.csv"
    header = "Name,Type,Accelerator Core,Start Time(us),Duration(us),Wait Time(us),Block Dim,HF32 Eligible"
    rows = [f"Add,N/A,N/A,{ts(0)},10,0,N/A,N/A", f"Mul,N/A,N/A,{ts(5)},10,0,N/A,N/A"]
    path.write_text(table(*rows, f"hcom_allReduce__1_0_1,N/A,N/A,{ts(20)},5,0,N/A,N/A", header=header))
    trace = ascend.open_(path).trace()
    rank = trace.ranks[0]
    streams = {name: rank.streams[rank.stream[row_of(rank, name)]] for name in ("Add", "Mul")}
    assert streams == {"Add": "compute", "Mul": "compute beside 1"}
    assert (rank.kind == COMPUTE).sum() == 3 and trace.recorded_us == 25
    assert any(note.startswith("2 kernels without a recorded stream") for note in trace.notes)


def test_op_summary_by_its_other_name_of_the_start(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    header = "Device_id,Op Name,OP Type,Task Type,Task Start Time(us),Task Duration(us),Task Wait Time(us)"
    path.write_text(table(f"0,a,MatMulV2,AI_CORE,{ts(0)},10,0", header=header))
    counts = ascend.open_(path).counts()
    assert counts["format"] == "ascend-op_summary"
    assert counts["column_names_used"][3] == "Task Start Time(us)"


def test_kernels_wait_for_communication_that_held_an_idle_stream(tmp_path: Path) -> None:
    rows = [
        f"1,2,Add,Add,AI_CORE,{ts(0)},10,0",
        f"1,N/A,hcom_allGather__1_0_1,hcom_allGather_,HCCL,{ts(12)},50,0",
        f"1,2,Mul,Mul,AI_CORE,{ts(64)},10,0",
        f"1,2,Sub,Sub,AI_CORE,{ts(80)},10,0",
    ]
    path = tmp_path / "kernel_details.csv"
    path.write_text(table(*rows))
    rank = ascend.open_(path).trace().ranks[0]
    assert awaited(rank, "hcom_allGather__1_0_1") == {"Add"}
    assert awaited(rank, "Mul") == {"hcom_allGather__1_0_1"}
    assert awaited(rank, "Sub") == set()


def test_several_steps_have_the_time_of_their_span(tmp_path: Path) -> None:
    steps = "Step,Computing,Communication(Not Overlapped),Overlapped,Communication,Free\n1,10,0,0,0,5\n2,10,0,0,0,5\n"
    folder = rank_folder(tmp_path / "a", view=plain(), files={"step_trace_time.csv": steps})
    trace = ascend.open_(folder).trace()
    assert trace.recorded_us == pytest.approx(163) and any("several steps" in note for note in trace.notes)
    (folder / "ASCEND_PROFILER_OUTPUT" / "step_trace_time.csv").write_text(steps[: steps.rindex("2,")])
    trace = ascend.open_(folder).trace()
    assert trace.recorded_us == 15 and any("more or less than their step" in note for note in trace.notes)


def test_times_of_several_ranks_count_from_the_first(tmp_path: Path) -> None:
    for rank, us in ((0, 100), (1, 130)):
        made = Maker()
        made.task(2, "Add", us, 5, at=90)
        rank_folder(tmp_path / f"r{rank}", rank, view=made.json())
    trace = ascend.open_(tmp_path).trace()
    assert [rank.start_us[-1] for rank in trace.ranks.values()] == [0, 30]


def test_gzip_is_found_by_its_magic(tmp_path: Path) -> None:
    path = tmp_path / "anything"
    path.write_bytes(gzip.compress(plain().encode()))
    assert ascend.sniff(head(path), path)
    assert ascend.open_(path).trace().recorded_us == pytest.approx(163)


@pytest.mark.parametrize(
    ("type_", "inputs", "output", "formats", "flops"),
    [
        ("MatMulV2", "4,8;8,16", "4,16", "ND;ND", 2 * 4 * 8 * 16),
        ("MatMulV3", "8,4;16,8", "4,16", "ND;ND", 2 * 4 * 8 * 16),
        ("BatchMatMulV2", "3,4,8;3,8,16", "3,4,16", "ND;ND", 2 * 3 * 4 * 8 * 16),
        ("BatchMatMul", "3,4,8;8,16", "3,4,16", "ND;ND", 2 * 3 * 4 * 8 * 16),
        ("MatMulV2", "4,8;9,16", "4,16", "ND;ND", 0),
        ("GroupedMatmul", "64,8;4,8,16", "64,16", "ND;ND", 2 * 64 * 8 * 16),
        ("Conv2D", "2,3,10,10;6,3,3,3", "2,6,8,8", "NCHW;NCHW", 2 * 2 * 8 * 8 * 6 * 27),
        ("Conv2DBackpropFilter", "2,3,10,10;4;2,6,8,8", "6,3,3,3", "NCHW;NCHW;NCHW", 2 * 2 * 8 * 8 * 6 * 27),
        ("Add", "4,8;4,8", "4,8", "ND;ND", 0),
    ],
)
def test_flops_of_shapes(type_: str, inputs: str, output: str, formats: str, flops: float) -> None:
    row = {
        "Input Shapes": f'"{inputs}"',
        "Input Data Types": ";".join(["DT_BF16"] * len(inputs.split(";"))),
        "Input Formats": formats,
        "Output Shapes": f'"{output}"',
        "Output Data Types": "FLOAT",
        "Output Formats": formats.split(";")[0],
        "HF32 Eligible": "NO",
    }
    found = work(type_, row)
    assert found.flops == flops and found.precision == ("bf16" if flops else "")
    elements = [np.prod([int(n) for n in shape.split(",")]) for shape in inputs.split(";")]
    assert found.bytes_B == 2 * sum(elements) + 4 * np.prod([int(n) for n in output.split(",")])
    assert work(type_, {**row, "Input Shapes": "N/A"}).bytes_B == 0


def test_times_keep_their_nanoseconds() -> None:
    texts = ["1736408883704643.212", "1736408883704643.213"]
    assert np.diff(epoch_ns(texts)[0]).tolist() == [1]
    assert epoch_ns(["1736408883704643.2", "1736408883704643"])[0].tolist() == [
        1736408883704643200,
        1736408883704643000,
    ]
    # Lengths that add up to those of whole rows must not be read as such.
    mixed = ["1736408883688177.930", "1736408883688177.93", "17364088836881770.930"]
    assert epoch_ns(mixed)[1] == 2


# -- bad input ---------------------------------------------------------------------------------------------


def error_of(path: Path, *, trace: bool = False) -> str:
    with pytest.raises(InputError) as caught:
        opened = ascend.open_(path)
        if trace:
            opened.trace()
    assert str(path.name) in str(caught.value) or str(path) in str(caught.value)
    return str(caught.value)


BAD_EVENTS: Iterable[tuple[str, str]] = [
    ("[]", "holds no events"),
    ("[1]", "event 0: expected an object"),
    ('[{"ph": "X"}]', "event 0: no 'name'"),
    ('[{"name": "a"}]', "event 0: 'ph' is None"),
    ('[{"ph": "XX", "name": "a"}]', "'ph' is 'XX'"),
    ('[{"ph": "X", "name": "a", "pid": 1, "tid": 1, "ts": "x", "dur": 1}]', "'ts' is 'x'"),
    ('[{"ph": "X", "name": "a", "pid": 1, "tid": 1, "ts": "99999999999999999999", "dur": 1}]', "'ts' is"),
    ('[{"ph": "X", "name": "a", "pid": 1, "tid": 1, "ts": "1.000", "dur": -1}]', "'dur' is -1"),
    ('[{"ph": "X", "name": "a", "pid": 1, "tid": 1, "ts": "1.000", "dur": "x"}]', "'dur' is 'x'"),
    ('[{"ph": "X", "name": "a", "pid": [1], "tid": 1, "ts": "1.000", "dur": 1}]', "'pid' is [1]"),
    ('[{"ph": "M", "name": "process_name", "pid": 1, "args": {}}]', "'args' is {}"),
    ('[{"ph": "s", "cat": "HostToDevice", "pid": 1, "tid": 1, "ts": "1.000"}]', "no 'id'"),
    ('[{"ph": "X", "name": "a", "pid": 1, "tid": 1, "ts": "1.000", "dur": 1}', "cut short"),
    ('[{"ph": "X", "name": "a", ', "cut short"),
]


@pytest.mark.parametrize(("text", "message"), BAD_EVENTS)
def test_a_damaged_timeline(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "trace_view.json"
    path.write_text(text)
    assert message in error_of(path)


@pytest.mark.parametrize("cut", [10, 200, 1000, -1, -30])
def test_a_timeline_cut_short(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "trace_view.json"
    path.write_text(plain()[:cut])
    assert "cut short" in error_of(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("hello\nworld\n", "none of the profiler's files"),
        ("{", "not valid JSON"),
        ("{}", "none of the profiler's files"),
        ('{"a": 1}', "none of the profiler's files (its keys: 'a')"),
        (
            '{"step1": {"collective": {"op@1": {"Communication Time Info": []}}}}',
            "Communication Time Info: expected an",
        ),
        (
            '{"step1": {"collective": {"op@1": {"Communication Time Info": {"Elapse Time(ms)": "x"}}}}}',
            "step1: collective: op@1: Elapse Time(ms): expected a number of 0 or more, got 'x'",
        ),
        ('{"step1": {"collective": {"a@1": {"zero": {"Transport Type": "HCCS"}}}}}', "expected a link like 0-1"),
        ('{"config": {}, "rank_id": "one"}', "rank_id: expected a rank, got 'one'"),
        ('{"parallel_group_info": {"g": {"global_ranks": [0, 0]}}}', "names a rank twice"),
        ('{"collective": [[0, "a"]], "p2p": []}', "collective[0]: expected a list of ranks"),
        ("{" + '"a": {' * 2000, "not valid JSON"),
    ],
)
def test_damaged_small_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    assert message in error_of(path)


ROW = f"1,2,Add,Add,AI_CORE,{ts(0)},10,0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table(ROW, header=HEADER.replace("Start Time(us)", "Begin(us)")), "no column 'Start Time(us)'"),
        (table(ROW, header=HEADER.replace("Type,", "Name,")), "column 'Name' stands twice"),
        (
            table(ROW, ROW.replace(",10,", ",ten,")),
            "kernel_details.csv:3: Duration(us): expected a number of 0 or more, got 'ten'",
        ),
        (table(ROW, ROW.replace(",10,", ",nan,")), "got 'nan'"),
        (table(ROW, ROW.replace(",10,", ",-1,")), "got '-1'"),
        (table(ROW, ROW.replace(ts(0), "yesterday")), "kernel_details.csv:3: Start Time(us): expected microseconds"),
        (table(ROW, "1,2,Add"), "kernel_details.csv:3: Start Time(us)"),
        (table(ROW) + "1,2,Add,Add,AI_C", "cut short: the last row has 5 of 8 fields"),
        (table(ROW) + '1,2,"' + "x" * 200_000, "not a readable CSV row"),
    ],
)
def test_a_damaged_table(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "kernel_details.csv"
    path.write_text(text)
    assert message in error_of(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "kernel_details.csv"
    path.write_bytes(table(ROW).encode() + b"1,2,\xff\xfe,Add,AI_CORE,1,1,1\n")
    assert "not text in UTF-8" in error_of(path)


def test_missing_columns_of_steps(tmp_path: Path) -> None:
    path = tmp_path / "step_trace_time.csv"
    path.write_text("Step,Computing,Free\n1,2,3\n")
    assert "no column 'Communication(Not Overlapped)'" in error_of(path)


def test_folders_without_what_is_needed(tmp_path: Path) -> None:
    assert not ascend.sniff(b"", tmp_path)
    assert "trace_view.json" in error_of(tmp_path)
    (tmp_path / "a_ascend_pt" / "ASCEND_PROFILER_OUTPUT").mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds none of trace_view\.json, kernel_details\.csv"):
        ascend.open_(tmp_path)


def test_a_folder_without_device_tasks(tmp_path: Path) -> None:
    made = Maker()
    made.task(2, "EVENT_WAIT", 0, 1, type_="EVENT_WAIT_SQE")
    folder = rank_folder(tmp_path / "a_ascend_pt", view=made.json())
    message = error_of(folder, trace=True)
    assert "rank 0" in message and "holds no device tasks (looked for trace_view.json" in message


def test_files_that_hold_no_tasks_say_what_does(tmp_path: Path) -> None:
    path = tmp_path / "profiler_info_0.json"
    path.write_text('{"config": {}, "rank_id": 0}')
    assert "open the rank's folder" in error_of(path, trace=True)


def test_two_ranks_of_one_number(tmp_path: Path) -> None:
    for name in "ab":
        rank_folder(tmp_path / name, 3, view=plain())
    assert "rank 3 is there twice: a and b" in error_of(tmp_path)


def test_a_rank_that_no_file_names(tmp_path: Path) -> None:
    alone = rank_folder(tmp_path / "alone", None, view=plain())
    trace: Trace = ascend.open_(alone).trace()
    assert list(trace.ranks) == [0] and any("taken for rank 0" in note for note in trace.notes)
    rank_folder(tmp_path / "other", 1, view=plain())
    with pytest.raises(InputError, match="nothing says which rank this is"):
        ascend.open_(tmp_path)


def test_two_files_of_one_kind(tmp_path: Path) -> None:
    folder = rank_folder(tmp_path / "a", view=plain())
    (folder / "ASCEND_PROFILER_OUTPUT" / "trace_view.json.gz").write_bytes(gzip.compress(plain().encode()))
    with pytest.raises(InputError, match="several files of trace_view"):
        ascend.open_(folder)


def test_fewer_ranks_than_there_are(tmp_path: Path) -> None:
    folder = rank_folder(tmp_path / "a", 5, view=plain())
    with pytest.raises(InputError, match="ranks=4, but there is a rank 5"):
        ascend.open_(folder).trace(ranks=4)


def test_expanded_size_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "trace_view.json"
    path.write_bytes(gzip.compress(b"[" + b" " * 10_000_000 + b"]"))
    with pytest.raises(InputError, match="larger than 1000 bytes"):
        ascend.open_(path, limit_B=1000)
    with pytest.raises(InputError, match="larger than 100 bytes"):
        ascend.open_(rank_folder(tmp_path / "a", view=plain()), limit_B=100)


@shared
def test_damaged_copies_of_real_files_give_errors_or_nothing_worse(tmp_path: Path) -> None:
    """Bytes changed and ends cut at fixed places: an InputError, or a trace that can still be made."""
    sources = [ALEXNET / "rank0_ascend_pt" / "ASCEND_PROFILER_OUTPUT" / name for name in ("communication.json",)]
    sources.append(OLDER / "rank_0" / "ASCEND_PROFILER_OUTPUT" / "kernel_details.csv")
    view = gzip.decompress((ALEXNET / "rank0_ascend_pt/ASCEND_PROFILER_OUTPUT/trace_view.json.gz").read_bytes())
    small = json.loads(view)
    text = json.dumps([event for event in small if event["ph"] != "C"][::7]).encode()
    random = np.random.default_rng(7)
    path = tmp_path / "file"
    for data in (text, *(source.read_bytes() for source in sources)):
        for _ in range(40):
            broken = bytearray(data[: int(random.integers(1, len(data)))] if random.random() < 0.3 else data)
            for place in random.integers(0, len(broken), 3):
                broken[place] = int(random.integers(0, 256))
            path.write_bytes(bytes(broken))
            try:
                opened = ascend.open_(path)
                opened.counts()
                opened.trace()
            except InputError as error:
                assert str(error)


def test_csv_written_by_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "kernel_details.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\r\n")
        rows.writerow(HEADER.split(","))
        rows.writerow(["1", "2", "Add", "Add", "AI_CORE", f"{ts(0)}\t", "10", "0"])
        rows.writerow([])
    assert ascend.open_(path).counts()["rows"] == 1
