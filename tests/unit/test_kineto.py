"""Kineto traces: counts as known, rows that replay to the recorded time, and what is said of the rest."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmsim.errors import InputError
from cmsim.reading.bytes_in import head
from cmsim.traces import pytorch_et
from cmsim.traces.kineto import file as kineto
from cmsim.traces.lower import lower
from cmsim.traces.recorded import Communicator, RankTrace, Trace
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, RECV, SEND, Floats

SAMPLES = Path(__file__).parents[2] / "workloads" / "traces" / "kineto" / "dlrm_8gpu"
SHARED = Path(__file__).parents[2].parent / "shared" / "traces"
TRUTH: dict[str, Any] = json.loads((SHARED / "TRUTH.json").read_text()) if SHARED.exists() else {}
FILES = [
    "kineto/deepseek_train_ep64.json.gz",
    *(f"kineto/dlrm_8gpu/worker{rank}.pt.trace.json.gz" for rank in range(8)),
    "kineto/recsys_world128/sampled_rank-0.json.gz",
    "kineto/recsys_world128/sampled_rank-1.json.gz",
    "kineto/resnet_ddp_nccl_args_rank0.json.gz",
]
#: counted only: its copies wait for other ranks, which replays do not know yet
COUNTED = [*FILES, "kineto/recommender_16gpu_rank0.json.gz"]
needs_shared = pytest.mark.skipif(not TRUTH, reason="the full set of samples is not beside the checkout")


def replay(trace: RankTrace) -> tuple[Floats, Floats]:
    """When rows start and end if each waits for its queue and its dependencies only. [us]"""
    start, end = np.zeros(len(trace)), np.zeros(len(trace))
    free: dict[int, float] = {}
    for row in range(len(trace)):
        deps = trace.dep_idx[trace.dep_ptr[row] : trace.dep_ptr[row + 1]]
        assert (deps < row).all()
        start[row] = max([free.get(int(trace.stream[row]), 0.0), *end[deps]])
        end[row] = free[int(trace.stream[row])] = start[row] + trace.duration_us[row]
    return start, end


# -- real files --------------------------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize("name", COUNTED)
def test_counts_of_real_files(name: str) -> None:
    counts = kineto.open_(SHARED / name).counts()
    assert {key: counts.get(key) for key in TRUTH[name]} == TRUTH[name]
    assert set(COUNTED) == {key for key in TRUTH if key.startswith("kineto/")}


@needs_shared
@pytest.mark.parametrize("name", FILES)
def test_real_files_replay_to_their_recorded_time(name: str) -> None:
    trace = kineto.open_(SHARED / name).trace()
    (rows,) = trace.ranks.values()
    start, end = replay(rows)
    assert end.max() == pytest.approx(trace.recorded_us, rel=0.02)
    # Nothing waits for what the recording did not wait for, but kernels that started while another drained.
    late = start - rows.start_us
    assert late.max() <= 50
    assert late[rows.kind == HOST].max() <= 10


@needs_shared
@pytest.mark.parametrize("name", FILES)
def test_dependencies_agree_with_recorded_times(name: str) -> None:
    (rows,) = kineto.open_(SHARED / name).trace().ranks.values()
    waiter = np.repeat(np.arange(len(rows)), np.diff(rows.dep_ptr))
    early = (rows.start_us + rows.duration_us)[rows.dep_idx] - rows.start_us[waiter]
    drained = early > 1.5
    assert early.max() <= 50
    assert drained.sum() <= 13
    assert (rows.kind[waiter][drained] == COMPUTE).all()


@needs_shared
def test_every_launch_and_kernel_is_there() -> None:
    name = "kineto/resnet_ddp_nccl_args_rank0.json.gz"
    trace = kineto.open_(SHARED / name).trace()
    rows = trace.ranks[0]
    device = rows.kind != HOST
    assert int(device.sum()) == 2700 + 960 + 114
    assert {rows.streams[i] for i in rows.stream[device]} == {"stream 7", "stream 40"}
    assert {rows.streams[i] for i in rows.stream[~device]} == {"host", "host 1"}
    assert rows.duration_us[device].sum() == pytest.approx(118309.345 + 46876.493, abs=0.5)
    assert (np.diff(rows.dep_ptr)[device] >= 1).all()  # its launch
    assert trace.world_size == 2 and trace.facts["steps"] == 3 and not trace.ranks[0].duration_us.min() < 0


@needs_shared
def test_collectives_with_arguments() -> None:
    trace = kineto.open_(SHARED / "kineto/resnet_ddp_nccl_args_rank0.json.gz").trace()
    rows = trace.ranks[0]
    talks = rows.kind == COLLECTIVE
    names = np.array(rows.collectives)[rows.collective[talks]]
    assert (names == "all_reduce").sum() == 15 and (names == "broadcast").sum() == 6
    assert rows.bytes_B[talks][names == "all_reduce"].sum() == 306684384
    assert rows.bytes_B[talks][names == "broadcast"].sum() == 638712
    assert trace.communicators == (Communicator("0", (0, 1), 2),) and (rows.group[talks] == 0).all()
    assert "21 kernels of communication by the kernel's arguments" in trace.notes


@needs_shared
def test_kernels_of_a_library_that_tells_no_sizes_keep_their_time() -> None:
    trace = kineto.open_(SHARED / "kineto/deepseek_train_ep64.json.gz").trace()
    assert (trace.ranks[0].kind != COLLECTIVE).all() and trace.world_size == 64
    assert "32 kernels of communication of unknown size or members: kernels of recorded time" in trace.notes
    # The host polls for what a kernel counts: 20 ms of idling are no host work.
    rows = trace.ranks[0]
    host = rows.kind == HOST
    assert "4 host rows with waits for values that a kernel writes" in trace.notes
    assert rows.duration_us[host].max() < 4000 and rows.duration_us[host].sum() < 0.5 * trace.recorded_us


@needs_shared
def test_eight_ranks_of_a_folder() -> None:
    opened = kineto.open_(SHARED / "kineto/dlrm_8gpu")
    assert list(opened.counts()["files"]) == [f"worker{rank}.pt.trace.json.gz" for rank in range(8)]
    trace = opened.trace()
    assert list(trace.ranks) == list(range(8)) and trace.world_size == 8
    assert trace.communicators == (Communicator("communicator 0"),)
    host = pytorch_et.open_(SHARED / "pytorch_et/dlrm_8gpu").trace()
    for rank, rows in trace.ranks.items():
        assert sizes(rows) == sizes(host.ranks[rank])  # told by another file of the same run
        assert rows.flops.sum() == pytest.approx(host.ranks[rank].flops.sum(), rel=1e-3)


def sizes(rows: RankTrace) -> list[tuple[str, float]]:
    talks = np.flatnonzero(rows.kind == COLLECTIVE).tolist()
    return [(rows.collectives[rows.collective[row]], float(rows.bytes_B[row])) for row in talks]


@needs_shared
def test_the_host_waits_for_the_device_and_its_waits_are_no_work() -> None:
    """A step that spends 2 ms of 14 in stream and device synchronisation."""
    (rows,) = kineto.open_(SHARED / "kineto/dlrm_8gpu/worker0.pt.trace.json.gz").trace().ranks.values()
    slower = RankTrace(**{**vars(rows), "duration_us": np.where(rows.kind == HOST, rows.duration_us, 0)})
    end = replay(slower)[1].max()
    assert end < 14455 - 1000
    waiter = np.repeat(np.arange(len(rows)), np.diff(rows.dep_ptr))
    assert ((rows.kind[waiter] == HOST) & (rows.kind[rows.dep_idx] != HOST)).sum() >= 8


@needs_shared
def test_all_gathers_count_the_whole_array_of_all_ranks() -> None:
    trace = kineto.open_(SHARED / "kineto/recsys_world128/sampled_rank-0.json.gz").trace()
    got = sizes(trace.ranks[0])
    assert [size for name, size in got if name == "all_gather"] == [16777216.0 * 128] * 2
    assert [size for name, size in got if name == "all_to_all"] == [384 * 8.0, 419430400.0, 419430400.0, 2846720 * 4.0]
    assert len(trace.communicators) == 2  # a stream each


@needs_shared
def test_only_profiles_of_pytorch_are_taken_for_them() -> None:
    for name in FILES:
        assert kineto.sniff(head(SHARED / name), SHARED / name)
        assert not pytorch_et.sniff(head(SHARED / name), SHARED / name)
    for path in sorted(SHARED.rglob("*")):
        if path.is_file() and "kineto" not in path.parts:
            assert not kineto.sniff(head(path), path), path
    assert kineto.sniff(b"", SHARED / "kineto" / "dlrm_8gpu")
    assert not kineto.sniff(b"", SHARED / "pytorch_et" / "dlrm_8gpu") and not kineto.sniff(b"", SHARED / "onnx")


def test_samples_that_ship() -> None:
    assert kineto.sniff(b"", SAMPLES)
    opened = kineto.open_(SAMPLES)
    counts = opened.counts()["files"]["worker0.pt.trace.json.gz"]
    assert counts["kernels"] == 245 and counts["events"] == 3290 and counts["span_us"] == 14504
    assert counts["comm_kernel_dur_us"] == {"AllReduce": 1799, "SendRecv": 3999}
    trace = opened.trace()
    assert list(trace.ranks) == [0, 1]
    assert sizes(trace.ranks[0])[:4] == [
        ("all_to_all", 24576.0),
        ("all_to_all", 192.0),
        ("all_to_all", 1536.0),
        ("all_to_all", 13568.0),
    ]
    for rows in trace.ranks.values():
        length = replay(rows)[1].max()
        alone = float((rows.start_us + rows.duration_us).max())
        assert length == pytest.approx(alone, rel=0.02)
    assert "64 kernels or copies without a launch in the file: launched when they began" in trace.notes
    products = trace.ranks[0].flops > 0
    assert products.sum() == 21 and trace.ranks[0].flops.sum() == 60470784.0
    assert {trace.ranks[0].precisions[i] for i in trace.ranks[0].precision[products]} == {"fp32"}


# -- files made here ---------------------------------------------------------------------------------------


class Profile:
    """A profile in the making: calls on the host, work of the device, ranges."""

    def __init__(self, **job: Any) -> None:
        self.events: list[dict[str, Any]] = []
        self.job = job

    def event(self, cat: str, name: str, pid: Any, tid: Any, ts: float, dur: float, **args: Any) -> Profile:
        named = {key.replace("_", " "): value for key, value in args.items()}
        self.events.append(
            {"ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid, "ts": 1e6 + ts, "dur": dur, "args": named}
        )
        return self

    def op(self, name: str, ts: float, dur: float, tid: int = 1, **args: Any) -> Profile:
        return self.event("cpu_op", name, 9, tid, ts, dur, **args)

    def call(self, name: str, ts: float, dur: float, tid: int = 1, link: int = -1, **args: Any) -> Profile:
        return self.event("cuda_runtime", name, 9, tid, ts, dur, correlation=link, **args)

    def kernel(
        self, link: int, ts: float, dur: float, stream: int = 7, name: str = "kernel", cat: str = "kernel", **args: Any
    ) -> Profile:
        return self.event(cat, name, 0, stream, ts, dur, correlation=link, **args)

    def launch(
        self, link: int, ts: float, begin: float, dur: float, stream: int = 7, tid: int = 1, **more: Any
    ) -> Profile:
        """A call of 2 us and the kernel it launches."""
        return self.call("cudaLaunchKernel", ts, 2, tid, link).kernel(link, begin, dur, stream, **more)

    def step(self, ts: float, dur: float, number: int = 1) -> Profile:
        return self.event("user_annotation", f"ProfilerStep#{number}", 9, 1, ts, dur)

    def write(self, path: Path, **header: Any) -> Path:
        document = {"schemaVersion": 1, "distributedInfo": self.job, "traceEvents": self.events, **header}
        path.write_text(json.dumps(document))
        return path

    def trace(self, folder: Path, **options: Any) -> Trace:
        return kineto.open_(self.write(folder / "trace.json")).trace(**options)


def only(trace: Trace) -> RankTrace:
    (rows,) = trace.ranks.values()
    return rows


def host_rows(rows: RankTrace, queue: str = "host") -> list[tuple[float, float]]:
    """(start, length) of a thread's rows."""
    mine = np.flatnonzero(rows.stream == rows.streams.index(queue))
    return [(float(rows.start_us[row]), float(rows.duration_us[row])) for row in mine]


def deps(rows: RankTrace, row: int) -> list[str]:
    return sorted(rows.names[rows.name[dep]] for dep in rows.dep_idx[rows.dep_ptr[row] : rows.dep_ptr[row + 1]])


def row_of(rows: RankTrace, name: str, nth: int = 0) -> int:
    return int(np.flatnonzero(rows.name == rows.names.index(name))[nth])


def test_host_time_is_cut_at_the_launches(tmp_path: Path) -> None:
    profile = Profile(rank=0, world_size=1).step(0, 200)
    profile.launch(1, 10, 15, 5).launch(2, 50, 55, 40).launch(3, 60, 95, 5)
    rows = only(profile.trace(tmp_path))
    # Launches take 5 us to take effect, also where the stream is busy; the step ends long after the last one.
    assert host_rows(rows) == [(0, 15), (15, 40), (55, 10), (65, 135)]
    assert replay(rows)[0].tolist() == rows.start_us.tolist()
    assert rows.in_order and replay(rows)[1].max() == 200


def test_waits_for_the_device_are_dependencies(tmp_path: Path) -> None:
    profile = Profile(rank=0, world_size=1).step(0, 300)
    profile.launch(1, 10, 15, 100).call("cudaStreamSynchronize", 20, 98).launch(2, 130, 135, 10)
    profile.call("cudaDeviceSynchronize", 140, 6)
    trace = profile.trace(tmp_path)
    rows = only(trace)
    after = row_of(rows, "cudaLaunchKernel", 1)
    assert deps(rows, after) == ["kernel"]
    assert rows.duration_us[after] == 135 - 115  # from the end of the kernel to the effect of the next launch
    longer = RankTrace(**{**vars(rows), "duration_us": np.where(rows.kind == HOST, 1.0, 2.0) * rows.duration_us})
    assert replay(longer)[0][after] == 15 + 200
    assert "2 host rows with waits for the device" in trace.notes
    assert trace.recorded_us == 300


def test_a_wait_is_for_the_stream_that_was_busy(tmp_path: Path) -> None:
    profile = Profile(rank=0, world_size=1)
    profile.launch(1, 10, 15, 100, stream=7).launch(2, 20, 25, 111, stream=8).launch(3, 30, 115, 20, stream=7)
    profile.launch(9, 35, 136, 500, stream=8)  # so the end of the row before on stream 8 cannot have been awaited
    profile.call("cudaStreamSynchronize", 40, 97).launch(4, 150, 155, 5, stream=7)
    rows = only(profile.trace(tmp_path))
    after = row_of(rows, "cudaLaunchKernel", 4)
    assert [int(d) for d in rows.dep_idx[rows.dep_ptr[after] : rows.dep_ptr[after + 1]]] == [row_of(rows, "kernel", 2)]


def test_a_copy_to_pageable_memory_blocks_its_caller(tmp_path: Path) -> None:
    copy = {"name": "Memcpy DtoH (Device -> Pageable)", "cat": "gpu_memcpy", "bytes": 4}
    profile = Profile(rank=0, world_size=1).launch(1, 10, 15, 100)
    profile.call("cudaMemcpyAsync", 20, 3, link=2).kernel(2, 115, 5, **copy).launch(3, 140, 145, 5)
    trace = profile.trace(tmp_path)
    rows = only(trace)
    after = row_of(rows, "cudaLaunchKernel", 1)
    assert deps(rows, after) == ["Memcpy DtoH (Device -> Pageable)"]
    assert rows.duration_us[after] == 145 - 120
    assert "1 host rows with copies that block" in trace.notes


def test_a_copy_to_pinned_memory_does_not(tmp_path: Path) -> None:
    copy = {"name": "Memcpy DtoH (Device -> Pinned)", "cat": "gpu_memcpy", "bytes": 4}
    profile = Profile(rank=0, world_size=1).launch(1, 10, 15, 100)
    profile.call("cudaMemcpyAsync", 20, 3, link=2).kernel(2, 115, 5, **copy).launch(3, 140, 145, 5)
    rows = only(profile.trace(tmp_path))
    assert deps(rows, row_of(rows, "cudaLaunchKernel", 1)) == []
    assert rows.bytes_B[row_of(rows, "Memcpy DtoH (Device -> Pinned)")] == 4


def test_threads_that_take_turns_wait_for_each_other(tmp_path: Path) -> None:
    profile = Profile(rank=0, world_size=1).step(0, 2000)
    profile.launch(1, 100, 105, 10).launch(2, 500, 505, 10, tid=2).launch(3, 900, 905, 10, tid=2)
    profile.launch(4, 1000, 1005, 10)
    trace = profile.trace(tmp_path)
    rows = only(trace)
    assert "2 host rows with waits for another thread" in trace.notes
    back = row_of(rows, "cudaLaunchKernel", 3)
    assert rows.streams[rows.stream[back]] == "host" and rows.duration_us[back] == 100
    # All of the 800 us between was the other thread's.
    assert host_rows(rows, "host 1") == [(105, 400), (505, 400)]
    start, end = replay(rows)
    assert start.tolist() == rows.start_us.tolist() and end.max() == 2000


def test_threads_that_both_work_do_not(tmp_path: Path) -> None:
    profile = Profile(rank=0, world_size=1).step(0, 2000)
    profile.launch(1, 100, 105, 10).launch(2, 500, 505, 10, tid=2).launch(3, 900, 905, 10, tid=2)
    profile.launch(4, 1000, 1005, 10).op("aten::busy", 110, 880)
    trace = profile.trace(tmp_path)
    assert "1 host rows with waits for another thread" in trace.notes  # the second thread's first launch
    assert host_rows(only(trace))[1] == (105, 900)


def test_a_thread_that_only_watches_takes_no_turns(tmp_path: Path) -> None:
    profile = Profile(rank=0, world_size=1).step(0, 2000)
    profile.launch(1, 100, 105, 10).call("cudaEventSynchronize", 500, 5, tid=3).launch(2, 1000, 1005, 10)
    trace = profile.trace(tmp_path)
    assert host_rows(only(trace)) == [(0, 105), (105, 900), (1005, 995)]
    assert only(trace).streams == ("host", "stream 7")


def nccl(**args: Any) -> dict[str, Any]:
    usual = {"dtype": "Float", "Group size": 4, "Process Group Name": "tp", "Process Group Ranks": "[0, 1, 2, 3]"}
    named = {key.replace("_", " "): value for key, value in args.items()}
    return {"name": "ncclDevKernel_X(ncclDevKernelArgsStorage<4096ul>)", **usual, **named}


@pytest.mark.parametrize(
    ("operation", "inward", "outward", "expected", "size_B"),
    [
        ("allreduce", 100, 100, "all_reduce", 400),
        ("allreduce_coalesced", 100, 100, "all_reduce", 400),
        ("_allgather_base", 100, 400, "all_gather", 1600),
        ("allgather", 100, 400, "all_gather", 1600),
        ("allgather_into_tensor_coalesced", 100, 100, "all_gather", 1600),
        ("_reduce_scatter_base", 400, 100, "reduce_scatter", 1600),
        ("reduce_scatter_tensor_coalesced", 400, 100, "reduce_scatter", 1600),
        ("all_to_all", 100, 100, "all_to_all", 400),
        ("all_to_allv", 100, 300, "all_to_all", 400),
        ("broadcast", 100, 100, "broadcast", 400),
        ("reduce", 100, 100, "reduce", 400),
        ("gather", 100, 0, "gather", 1600),
        ("scatter", 0, 100, "scatter", 1600),
        ("barrier", 1, 1, "barrier", 0),
    ],
)
def test_sizes_of_collectives(
    tmp_path: Path, operation: str, inward: int, outward: int, expected: str, size_B: float
) -> None:
    told = nccl(Collective_name=operation, In_msg_nelems=inward, Out_msg_nelems=outward)
    trace = Profile(rank=0, world_size=8).launch(1, 10, 15, 100, **told).trace(tmp_path)
    assert sizes(only(trace)) == [(expected, size_B)]
    assert trace.communicators == (Communicator("tp", (0, 1, 2, 3), 4),)


@pytest.mark.parametrize(
    ("told", "job", "expected"),
    [
        ({"Process Group Ranks": "[0, 2, 4, ...]", "Group size": 40}, {}, Communicator("tp", (), 40)),
        (
            {"Process Group Ranks": "[0, ...]", "Group size": 3, "Global rank start": 1, "Global rank stride": 2},
            {},
            Communicator("tp", (1, 3, 5), 3),
        ),
        (
            {"Process Group Ranks": "[]", "Group size": 2},
            {"pg_config": [{"pg_name": "tp", "pg_size": 2, "ranks": [6, 7]}]},
            Communicator("tp", (6, 7), 2),
        ),
        ({"Process Group Ranks": "[0, 2, ...]", "Group size": 0}, {}, Communicator("tp", (), 0)),
        ({"Process Group Ranks": "[]", "Group size": 2}, {"pg_config": "odd"}, Communicator("tp", (), 2)),
        ({"Process Group Ranks": [3, 1], "Group size": "2"}, {}, Communicator("tp", (1, 3), 2)),
    ],
)
def test_members_of_groups(tmp_path: Path, told: dict[str, Any], job: dict[str, Any], expected: Communicator) -> None:
    args = nccl(Collective_name="allreduce", In_msg_nelems=1, Out_msg_nelems=1) | told
    trace = Profile(rank=0, world_size=64, **job).launch(1, 10, 15, 100, **args).trace(tmp_path)
    assert trace.communicators == (expected,)


def test_a_group_of_one_meets_nobody(tmp_path: Path) -> None:
    told = nccl(Collective_name="allreduce", In_msg_nelems=1, Out_msg_nelems=1) | {"Group size": 1}
    trace = Profile(rank=0, world_size=8).launch(1, 10, 15, 100, **told).trace(tmp_path)
    assert (only(trace).kind != COLLECTIVE).all()
    assert any("group of one" in note for note in trace.notes)


def test_sends_and_receives(tmp_path: Path) -> None:
    send = nccl(Collective_name="send", In_msg_nelems=10, Out_msg_nelems=10, Dst_Rank=3)
    receive = nccl(Collective_name="recv", In_msg_nelems=10, Out_msg_nelems=10, Src_Rank=1)
    lost = nccl(Collective_name="recv", In_msg_nelems=10, Out_msg_nelems=10)
    profile = Profile(rank=2, world_size=4)
    profile.launch(1, 10, 15, 10, **send).launch(2, 30, 35, 10, **receive).launch(3, 50, 55, 10, **lost)
    trace = profile.trace(tmp_path)
    rows = trace.ranks[2]
    device = rows.kind != HOST
    assert rows.kind[device].tolist() == [SEND, RECV, COMPUTE]
    assert rows.peer[device].tolist() == [3, 1, -1] and rows.bytes_B[device].tolist() == [40, 40, 0]
    assert "1 kernels of communication of unknown size or members: kernels of recorded time" in trace.notes


def test_what_the_kernel_does_not_tell_the_host_does(tmp_path: Path) -> None:
    call = nccl(Collective_name="_allgather_base", In_msg_nelems=10, Out_msg_nelems=40)
    call.pop("name")
    bare = {"name": "ncclKernel_AllGather_RING_LL_Sum_int8_t(ncclDevComm*)", "stream": 30}
    profile = Profile(rank=0, world_size=4)
    profile.op("record_param_comms", 5, 20, **call).launch(1, 10, 15, 10, **bare)
    profile.event("user_annotation", "nccl:reduce_scatter", 9, 1, 45, 20, Input_Dims=[[8, 5]], Input_type=["c10::Half"])
    profile.launch(2, 50, 55, 10, **bare).launch(3, 80, 85, 10, **bare)
    trace = profile.trace(tmp_path)
    assert sizes(only(trace)) == [("all_gather", 160.0), ("reduce_scatter", 80.0)]
    assert trace.communicators == (Communicator("tp", (0, 1, 2, 3), 4),)  # one stream, one communicator
    assert {note for note in trace.notes if "communication" in note} >= {
        "1 kernels of communication by the host call's arguments",
        "1 kernels of communication by the host's range",
        "1 kernels of communication of unknown size or members: kernels of recorded time",
    }


def test_ranges_without_launches_are_taken_in_order(tmp_path: Path) -> None:
    bare = {"name": "ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclDevComm*)"}
    profile = Profile(rank=0, world_size=4)
    for at, count in ((0, 3), (100, 5)):
        profile.event("user_annotation", "nccl:all_to_all", 9, 1, at, 9, Input_Dims=[[count]], Input_type=["int"])
        profile.kernel(at + 1, at + 20, 30, **bare)  # no call with that link
    assert sizes(only(profile.trace(tmp_path))) == [("all_to_all", 12.0), ("all_to_all", 20.0)]


def test_the_execution_trace_beside_a_profile_tells_sizes(tmp_path: Path) -> None:
    bare = {"name": "ncclDevKernel_Generic(ncclDevKernelArgsStorage<4096ul>)"}
    Profile(rank=3, world_size=8).launch(1, 10, 15, 10, **bare).write(tmp_path / "profile.json")
    tensor = [5, 6, 0, 10, 4, "cuda:0"]
    node = {
        "id": 7,
        "name": "record_param_comms",
        "ctrl_deps": 1,
        "inputs": {
            "values": [[tensor], 1, ["0", "default_pg"], 3, "allreduce", [], [], 0, 1, 8],
            "shapes": [],
            "types": ["GenericList[Tensor(float)]", "Int", "Tuple[String,String]", "Int", "String", *["Int"] * 5],
        },
        "outputs": {"values": [], "shapes": [], "types": []},
        "attrs": [],
    }
    (tmp_path / "host.json").write_text(json.dumps({"schema": "1.1.1-chakra.0.0.4", "nodes": [node]}))
    trace = kineto.open_(tmp_path).trace()
    assert sizes(trace.ranks[3]) == [("all_reduce", 40.0)]
    assert trace.communicators == (Communicator("0", tuple(range(8)), 8),)
    assert "1 kernels of communication by the execution trace" in trace.notes


def test_communication_waits_for_the_stream_in_use_and_is_waited_for(tmp_path: Path) -> None:
    talk = nccl(Collective_name="allreduce", In_msg_nelems=1, Out_msg_nelems=1)
    profile = Profile(rank=0, world_size=4)
    profile.launch(1, 10, 15, 100, name="grad").call("cudaStreamWaitEvent", 15, 1)
    profile.launch(8, 17, 22, 5, stream=22, tid=2, name="copy of another thread")
    profile.launch(2, 20, 116, 50, stream=40, **talk).launch(3, 30, 115, 10, name="beside")
    profile.call("cudaStreamWaitEvent", 33, 1).launch(4, 35, 168, 10, name="after")
    rows = only(profile.trace(tmp_path))
    talking = row_of(rows, talk["name"])
    assert deps(rows, talking) == ["cudaLaunchKernel", "grad"]
    assert deps(rows, row_of(rows, "beside")) == ["cudaLaunchKernel"]
    assert deps(rows, row_of(rows, "after")) == ["cudaLaunchKernel", talk["name"]]


def test_a_wait_that_contradicts_the_file_is_not_kept(tmp_path: Path) -> None:
    profile = Profile(rank=0, world_size=1)
    profile.launch(1, 10, 15, 20, stream=8, name="early").launch(2, 20, 35, 500, stream=8, name="long")
    profile.call("cudaStreamWaitEvent", 25, 1).launch(3, 30, 60, 10, name="waiter")
    trace = profile.trace(tmp_path)
    rows = only(trace)
    assert deps(rows, row_of(rows, "waiter")) == ["cudaLaunchKernel", "early"]
    assert any("of an earlier row than the last launched" in note for note in trace.notes)


def test_waits_that_the_file_names(tmp_path: Path) -> None:
    profile = Profile(rank=0, world_size=1)
    profile.launch(1, 10, 15, 20, stream=8, name="awaited").call("cudaEventRecord", 14, 1, link=50)
    profile.launch(2, 20, 35, 5, stream=8, name="later").launch(3, 26, 31, 5, stream=9, name="other")
    profile.call("cudaStreamWaitEvent", 30, 1, link=51)
    told = {"stream": 7, "wait_on_stream": 8, "wait_on_cuda_event_record_corr_id": 50}
    profile.event("cuda_sync", "Stream Wait Event", 0, 7, 30, 0, correlation=51)
    profile.events[-1]["args"].update(told)
    profile.launch(4, 40, 60, 10, name="waiter")
    trace = profile.trace(tmp_path)
    rows = only(trace)
    assert deps(rows, row_of(rows, "waiter")) == ["awaited", "cudaLaunchKernel"]
    assert "1 waits of one stream for another, named by the file" in trace.notes


def test_a_row_that_started_as_another_ended_waited_for_it(tmp_path: Path) -> None:
    profile = Profile(rank=0, world_size=1)
    profile.launch(1, 10, 15, 500, stream=8, name="first").launch(2, 20, 517, 10, name="second")
    profile.launch(3, 30, 900, 10, name="third")
    trace = profile.trace(tmp_path)
    rows = only(trace)
    assert deps(rows, row_of(rows, "second")) == ["cudaLaunchKernel", "first"]
    assert deps(rows, row_of(rows, "third")) == ["cudaLaunchKernel"]
    made = lower(trace)
    assert any("gaps without a cause in the file stay as they were" in note for note in made.notes)
    (before,) = np.flatnonzero([made.ops.names[i] == "third" for i in made.ops.name_id]) - 1
    assert made.ops.names[made.ops.name_id[before]] == "gap" and made.ops.recorded_s[before] == pytest.approx(373e-6)


def test_work_outside_the_steps_is_left_out(tmp_path: Path) -> None:
    profile = Profile(rank=0, world_size=1).step(100, 100, 4).step(200, 100, 5)
    profile.launch(1, 10, 15, 5).launch(2, 110, 115, 5).launch(3, 290, 295, 50).launch(4, 320, 345, 5)
    trace = profile.trace(tmp_path)
    assert (only(trace).kind != HOST).sum() == 2 and trace.facts["steps"] == 2
    assert trace.recorded_us == 245  # to the end of what the steps launched
    assert only(trace).start_us[row_of(only(trace), "kernel")] == 15
    assert "2 kernels or copies launched outside the recorded steps: left out" in trace.notes


def test_one_launch_of_many_kernels(tmp_path: Path) -> None:
    profile = Profile(rank=0, world_size=1).call("cudaGraphLaunch", 10, 5, link=1)
    for i in range(5):
        profile.kernel(1, 20 + 10 * i, 8, name=f"k{i}")
    rows = only(profile.trace(tmp_path))
    assert (rows.kind == HOST).sum() == 1
    assert all(deps(rows, row_of(rows, f"k{i}")) == ["cudaGraphLaunch"] for i in range(5))


def test_kernels_alone_start_when_they_did(tmp_path: Path) -> None:
    trace = Profile().kernel(1, 5, 10).kernel(2, 40, 10, stream=8).trace(tmp_path)
    rows = only(trace)
    assert replay(rows)[0][rows.kind != HOST].tolist() == [0, 35] and trace.recorded_us == 45


def test_products_know_their_work(tmp_path: Path) -> None:
    profile = Profile(rank=0, world_size=1)
    half = ["c10::BFloat16", "c10::BFloat16"]
    profile.op("aten::linear", 0, 30, Input_Dims=[[2, 8, 32], [64, 32], []], Input_type=[*half, ""])
    profile.op("aten::mm", 5, 20, Input_Dims=[[16, 32], [32, 64]], Input_type=half)
    profile.launch(1, 8, 30, 10, name="cutlass_gemm").launch(2, 12, 40, 5, name="splitKreduce_kernel")
    profile.op("aten::bmm", 100, 30, Input_Dims=[[3, 16, 32], [3, 32, 64]], Input_type=["float", "float"])
    profile.launch(3, 110, 130, 10, name="sm80_xmma_gemm_tf32f32")
    profile.op("aten::mm", 200, 30, Input_Dims=[[16, 32], [33, 64]], Input_type=half)
    profile.launch(4, 210, 230, 10, name="odd_gemm")
    rows = only(profile.trace(tmp_path))
    gemm, tf32 = row_of(rows, "cutlass_gemm"), row_of(rows, "sm80_xmma_gemm_tf32f32")
    assert rows.flops[gemm] == 2 * 16 * 32 * 64 and rows.bytes_B[gemm] == 2 * (16 * 32 + 32 * 64 + 16 * 64)
    assert rows.precisions[rows.precision[gemm]] == "bf16"
    assert rows.flops[tf32] == 3 * 2 * 16 * 32 * 64 and rows.precisions[rows.precision[tf32]] == "tf32"
    assert rows.flops[row_of(rows, "splitKreduce_kernel")] == 0 and rows.flops[row_of(rows, "odd_gemm")] == 0
    kernels = [rows.kernels[i] for i in rows.kernel[[gemm, row_of(rows, "splitKreduce_kernel")]]]
    assert kernels == ["gemm", "generic"]


def test_two_threads_on_one_stream_keep_the_order_of_execution(tmp_path: Path) -> None:
    profile = Profile(rank=0, world_size=1)
    profile.call("cudaLaunchKernel", 10, 20, 1, 1).call("cudaLaunchKernel", 12, 3, 2, 2)
    profile.kernel(2, 16, 10, name="ran first").kernel(1, 29, 10, name="ran last")
    rows = only(profile.trace(tmp_path))
    assert row_of(rows, "ran first") < row_of(rows, "ran last")
    assert replay(rows)[0][row_of(rows, "ran last")] == pytest.approx(29 - 10, abs=4)


def test_ranks_of_a_folder_by_what_files_say(tmp_path: Path) -> None:
    Profile(rank=11, world_size=16).launch(1, 10, 15, 5).write(tmp_path / "a0.json")
    Profile(rank=9, world_size=16).launch(1, 10, 15, 5).write(tmp_path / "rank10_step3.json")
    (tmp_path / "notes.txt").write_text("none of them")
    trace = kineto.open_(tmp_path).trace()
    assert list(trace.ranks) == [9, 11] and trace.world_size == 16
    Profile().launch(1, 10, 15, 5).write(tmp_path / "trace_9.pt.trace.json")
    with pytest.raises(InputError, match=r"nothing says which rank trace_9.pt.trace.json is of"):
        kineto.open_(tmp_path)


def test_two_files_of_a_rank(tmp_path: Path) -> None:
    for name in "ab":
        Profile(rank=1, world_size=2).launch(1, 10, 15, 5).write(tmp_path / f"{name}.json")
    with pytest.raises(InputError, match=r"rank 1 has two files \(a.json, b.json\)"):
        kineto.open_(tmp_path)


def test_a_bare_list_old_names_and_missing_arguments(tmp_path: Path) -> None:
    events = [
        {"ph": "X", "cat": "Operator", "name": "op", "pid": 1, "tid": "1", "ts": 0, "dur": 4},
        {
            "ph": "X",
            "cat": "Runtime",
            "name": "launch",
            "pid": 1,
            "tid": "1",
            "ts": 1,
            "dur": 1,
            "args": {"correlation": 3},
        },
        {"ph": "X", "cat": "Kernel", "name": "k", "pid": 0, "tid": "s", "ts": 3, "dur": 1, "args": {"correlation": 3}},
        {"ph": "i", "name": "x"},
        {"ph": "X", "cat": "python_function", "name": "f", "ts": -50, "dur": 1},
    ]
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(json.dumps(events).encode()))
    opened = kineto.open_(path)
    assert kineto.sniff(head(path), path)
    counts = opened.counts()
    assert counts["phases"] == {"X": 4, "i": 1} and counts["span_us"] == 54 and counts["kernels"] == 1
    assert counts["rank"] is None and not counts["nonint_ts"]
    assert only(opened.trace()).streams == ("host", "stream s")


# -- bad files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ts": "soon"}, "cannot be read .*soon"),
        ({"ts": None}, "cannot be read"),
        ({"ts": [1]}, "cannot be read"),
        ({"dur": {}}, "cannot be read"),
        ({"ts": 1e400}, "cannot be read|not valid JSON"),
        ({"name": ["k"]}, "cannot be read"),
        ({"name": 7}, "cannot be read"),
        ({"cat": {}}, "cannot be read"),
        ({"tid": []}, "cannot be read"),
        ({"args": [1]}, "cannot be read"),
        ({"args": {"correlation": "x"}}, "cannot be read"),
        ({"args": {"correlation": 10**30}}, "cannot be read"),
    ],
)
def test_events_of_the_wrong_type(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    profile = Profile(rank=0).launch(1, 10, 15, 5).launch(2, 20, 25, 5)
    profile.events[-1].update(change)
    with pytest.raises(InputError, match=rf"trace\.json.*{message}"):
        kineto.open_(profile.write(tmp_path / "trace.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"traceEvents": []}', "no event of the PyTorch profiler"),
        ('{"traceEvents": [{"ph": "X", "name": "a", "ts": 1, "dur": 1}]}', "no event of the PyTorch profiler"),
        ('{"traceEvents": [1, 2]}', "cannot be read"),
        ('{"traceEvents": [{}', "cut short"),
        ('{"schemaVersion": 1}', "no list traceEvents"),
        ("", "empty"),
        ('{"traceEvents": [{"ph": "X", "cat": "kernel", "name": "k", "dur": 1}]}', "no 'ts'"),
        ('{"distributedInfo": [], "traceEvents": [{"ph": "X", "cat": "kernel", "ts": 1}]}', None),
        ('{"distributedInfo": 3, "traceEvents": [{"ph": "X", "cat": "kernel", "ts": 1}]}', "distributedInfo"),
        ('{"distributedInfo": {"rank": -2}, "traceEvents": [{"ph": "X", "cat": "kernel", "ts": 1}]}', "rank: expected"),
        (
            '{"distributedInfo": {"rank": "x"}, "traceEvents": [{"ph": "X", "cat": "kernel", "ts": 1}]}',
            "rank: expected",
        ),
    ],
)
def test_documents_of_the_wrong_kind(tmp_path: Path, text: str, message: str | None) -> None:
    path = tmp_path / "trace.json"
    path.write_text(text)
    if message is None:
        assert kineto.open_(path).counts()["kernels"] == 1
        return
    with pytest.raises(InputError, match=message):
        kineto.open_(path)


def test_nothing_to_replay(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no kernel or copy"):
        Profile(rank=0).op("aten::mm", 0, 10).trace(tmp_path)
    with pytest.raises(InputError, match="no kernel was launched in the recorded steps"):
        Profile(rank=0).step(500, 10).launch(1, 10, 15, 5).trace(tmp_path)
    with pytest.raises(InputError, match="world_size"):
        Profile(rank=0, world_size=-1).launch(1, 10, 15, 5).trace(tmp_path)


def test_odd_arguments_of_collectives_are_no_crash(tmp_path: Path) -> None:
    odd: list[dict[str, Any]] = [
        {"Collective name": 5},
        {"Collective name": "allreduce", "In msg nelems": "many", "dtype": 3},
        {"Collective name": "allreduce", "In msg nelems": 4, "Group size": -3, "Process Group Ranks": {"a": 1}},
        {"Collective name": "allreduce", "In msg nelems": 10**40, "Global rank start": "x", "dtype": "Float"},
        {"Collective name": "all_gather", "In msg nelems": 4, "dtype": "Float", "Global rank stride": 10**18},
    ]
    profile = Profile(rank=0, world_size=8)
    for i, told in enumerate(odd):
        profile.launch(i, 10 + 20 * i, 15 + 20 * i, 5, **(nccl() | {"Process Group Ranks": "[]"} | told))
    rows = only(profile.trace(tmp_path))
    assert (rows.kind != HOST).sum() == 5


def test_a_truncated_file_says_where(tmp_path: Path) -> None:
    whole = gzip.decompress((SAMPLES / "worker0.pt.trace.json.gz").read_bytes())
    path = tmp_path / "cut.json"
    for size in (10, 3000, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cut\.json: byte \d+"):
            kineto.open_(path)
    with pytest.raises(InputError, match="larger than 100000 bytes"):
        kineto.open_(SAMPLES / "worker0.pt.trace.json.gz", limit_B=100_000)
