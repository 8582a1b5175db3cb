"""Chakra jobs as programs: what nodes become, who shares a program, what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmsim.compute import gemm_shape
from cmsim.errors import InputError
from cmsim.kinds.trace import TraceFacts
from cmsim.traces import IMPORTERS, load_trace
from cmsim.traces.chakra import chakra_pb2
from cmsim.traces.chakra.job import read_groups, read_job
from cmsim.traces.chakra.to_trace import to_trace
from cmsim.traces.chakra.write import write_chakra
from cmsim.traces.lower import lower
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, KINDS, RECV, SEND, ProgramBuilder, Programs, assemble

SAMPLES = Path(__file__).parents[2] / "workloads" / "traces" / "chakra"
pb: Any = chakra_pb2


def node(ident: int, kind: int = 4, *, deps: Sequence[int] = (), us: int = 0, name: str = "", **attrs: Any) -> bytes:
    raw = []
    for attr, value in attrs.items():
        key = "string_val" if isinstance(value, str) else "int64_val"
        raw.append(pb.AttributeProto(name=attr, **{key: value}).SerializeToString())
    made = pb.Node(id=ident, name=name, type=kind, data_deps=deps, duration_micros=us, attr=raw)
    out: bytes = made.SerializeToString()
    return out


def host(ident: int, *, deps: Sequence[int] = (), **attrs: Any) -> bytes:
    """A host op as a profiler writes it."""
    return node(ident, deps=deps, us=1, is_cpu_op=1, rf_id=ident, **attrs)


def write(folder: Path, ranks: dict[int, list[bytes]]) -> Path:
    for rank, messages in ranks.items():
        # messages of tests are short: a length is one or two bytes
        framed = [bytes([len(m)]) if len(m) < 128 else bytes([len(m) & 127 | 128, len(m) >> 7]) for m in messages]
        data = b"".join(size + m for size, m in zip(framed, messages, strict=True))
        (folder / f"t.{rank}.et").write_bytes(data)
    return folder


def completes(workload: Programs) -> bool:
    """Play all ranks' queues without time; False where they lock up."""
    ops, ptr = workload.ops, workload.program_ptr
    done = [set() for _ in range(workload.ranks)]
    queues: list[dict[int, list[int]]] = []
    for program in workload.program:
        queue: dict[int, list[int]] = {}
        for i in range(ptr[program], ptr[program + 1]):
            queue.setdefault(int(ops.stream[i]), []).append(int(i - ptr[program]))
        queues.append({s: rows[::-1] for s, rows in queue.items()})
    waiting: dict[int, list[tuple[int, int, int]]] = {}
    sent: dict[int, int] = {}
    parked = set()
    moved = True
    while moved:
        moved = False
        for rank in range(workload.ranks):
            base = ptr[workload.program[rank]]
            for stream, rows in queues[rank].items():
                while rows and (rank, stream) not in parked:
                    row = int(base + rows[-1])
                    if not all(int(d) in done[rank] for d in ops.dep_idx[ops.dep_ptr[row] : ops.dep_ptr[row + 1]]):
                        break
                    group = int(workload.groups[rank, ops.slot[row]]) if ops.slot[row] >= 0 else -1
                    if ops.kind[row] == RECV:
                        if not sent.get(group, 0):
                            break
                        sent[group] -= 1
                    elif ops.kind[row] == SEND:
                        sent[group] = sent.get(group, 0) + 1
                    elif ops.kind[row] == COLLECTIVE:
                        waiting.setdefault(group, []).append((rank, stream, rows[-1]))
                        parked.add((rank, stream))
                        moved = True
                        members = {r for r in range(workload.ranks) if group in workload.groups[r]}
                        if {r for r, _, _ in waiting[group]} == members:
                            for r, s, first in waiting.pop(group):
                                done[r].add(first)
                                queues[r][s].pop()
                                parked.discard((r, s))
                        continue
                    done[rank].add(rows.pop())
                    moved = True
    return all(not rows for queue in queues for rows in queue.values())


EXPECTED = {  # ranks, distinct programs, ops of a program, groups
    "resnet50_ddp_rank0": (1, 1, 3664, 1),
    "resnet50_no_metadata": (8, 1, 215, 1),
    "ring_allreduce_8npus_1MB": (8, 1, 35, 8),
    "stg_merged_two_jobs_8npus": (8, 1, 58, 8),
    "micro_all_gather_4npus_1MB": (4, 1, 1, 1),
    "micro_all_reduce_8npus_1MB": (8, 1, 1, 1),
    "micro_all_to_all_4npus_1MB": (4, 1, 1, 1),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_sample_folds_and_completes(name: str) -> None:
    got = load_trace(SAMPLES / name)
    used = np.unique(got.groups[got.groups >= 0])
    assert (got.ranks, len(got.program_ptr) - 1, len(got.ops), len(used)) == EXPECTED[name]
    assert completes(got)


def test_resnet50_host_and_device_time_and_replayed_copies() -> None:
    got = load_trace(SAMPLES / "resnet50_ddp_rank0", ranks=8)
    ops = got.ops
    assert got.ranks == 8 and set(got.program) == {0}
    assert np.bincount(ops.kind).tolist() == [1209, 2448, 7]
    assert ops.recorded_s[ops.kind == HOST].sum() == pytest.approx(52252e-6)
    assert ops.recorded_s[ops.kind == COMPUTE].sum() == pytest.approx(292828e-6)
    assert ops.bytes_B[ops.kind == COLLECTIVE].sum() == 102228128 + 212904
    # 181,878 dependencies in the file; the in-order queues imply all but these
    assert len(ops.dep_idx) < len(ops)
    assert any(note.startswith("1 of 8 ranks have a file (0); the other 7 run copies") for note in got.notes)
    assert "157 kernels and host ops of unknown length (duration 0, no FLOPs or bytes) take no time" in got.notes
    assert "14 communication nodes of the host replayed as host work" in got.notes
    assert "7 communication ops wait for the kernels launched before them: inferred, the trace names launches only" in (
        got.notes
    )
    assert any(note.startswith("no dependency has a kernel wait for communication: ") for note in got.notes)
    assert completes(got)


def deps_of(got: Programs, row: int) -> list[int]:
    return got.ops.dep_idx[got.ops.dep_ptr[row] : got.ops.dep_ptr[row + 1]].tolist()


def test_resnet50_collectives_wait_for_the_kernel_launched_just_before_them() -> None:
    ops = (got := load_trace(SAMPLES / "resnet50_ddp_rank0")).ops
    assert set(ops.streams) == {"host", "stream 7", "stream 14"}
    for row in np.flatnonzero(ops.kind == COLLECTIVE):
        last_kernel = int(np.flatnonzero(ops.kind[:row] == COMPUTE)[-1])
        assert last_kernel in deps_of(got, row)
        assert ops.names[ops.name_id[row - 1]].startswith("c10d::")  # it follows its launch
    # five buckets of gradients: no two wait for the same kernel, and the last one waits for almost all of them
    waits = [max(d for d in deps_of(got, r) if ops.kind[d] == COMPUTE) for r in np.flatnonzero(ops.kind == COLLECTIVE)]
    assert len(set(waits)) == len(waits) and sorted(waits) == waits


def test_a_profiled_collective_waits_for_the_last_kernel_of_each_stream_launched_before(tmp_path: Path) -> None:
    nodes = [
        *(host(i) for i in (1, 2, 5, 7)),
        node(11, deps=[1], us=9, tid=7),
        node(12, deps=[2], us=9, tid=8),
        node(13, 7, deps=[5], comm_type=0, comm_size=8, tid=14),
        node(14, deps=[7], us=9, tid=7),
    ]
    got = load_trace(write(tmp_path, {0: nodes, 1: nodes}))
    ops = got.ops
    assert [ops.streams[s] for s in ops.stream] == [
        "host", "stream 7", "host", "stream 8", "host", "stream 14", "host", "stream 7",
    ]  # fmt: skip
    assert deps_of(got, 5) == [1, 3, 4]
    assert deps_of(got, 7) == [6]
    assert len(got.program_ptr) == 2
    assert any("1 communication ops wait" in note or "2 communication ops wait" in note for note in got.notes)
    assert completes(got)


def test_nothing_is_inferred_without_a_profiler_or_against_a_recorded_dependency(tmp_path: Path) -> None:
    def nodes(**mark: int) -> list[bytes]:
        launches = [node(i, us=1, is_cpu_op=1, **mark) for i in (1, 2)]
        return [*launches, node(11, deps=[1], us=9), node(12, 7, deps=[2], comm_type=0, comm_size=8)]

    (tmp_path / "other").mkdir()
    (tmp_path / "wait").mkdir()
    plain = load_trace(write(tmp_path / "other", {0: nodes()}))
    assert not any("inferred" in note for note in plain.notes)
    assert any("nor the other way round" in note for note in plain.notes)
    # a host op that waits for a kernel launched after it: launch order would be a cycle
    late = load_trace(write(tmp_path / "wait", {0: [*nodes(rf_id=1), host(3, deps=[13]), node(13, deps=[4]), host(4)]}))
    assert not any("inferred" in note for note in late.notes)
    assert completes(late)


def test_dependencies_that_are_there_are_not_doubled(tmp_path: Path) -> None:
    nodes = [host(1), host(2), node(11, deps=[1], us=9), node(12, 7, deps=[2, 11], comm_type=0, comm_size=8)]
    nodes += [host(3), node(13, 7, deps=[3], comm_type=0, comm_size=8)]
    got = load_trace(write(tmp_path, {0: nodes}))
    assert deps_of(got, 3) == [1, 2]
    assert deps_of(got, 5) == [4]  # its queue has waited for the kernel already


def test_classes_and_precisions_of_kernels(tmp_path: Path) -> None:
    nodes = [
        node(1, us=5, name="ampere_sgemm_128x64_nt"),
        node(2, us=5, name="ampere_sgemm_128x64_nt", num_ops=10),
        node(3, us=5, name="vectorized_elementwise_kernel", num_ops=10),
        node(4, name="matmul", num_ops=10, tensor_size=20),
        node(5, name="copy", tensor_size=20),
    ]
    got = load_trace(write(tmp_path, {0: nodes}))
    ops = got.ops
    classes = [
        (ops.kernels[k], ops.precisions[p] if p >= 0 else "") for k, p in zip(ops.kernel, ops.precision, strict=True)
    ]
    assert classes == [("gemm", ""), ("gemm", "bf16"), ("generic", "bf16"), ("generic", "bf16"), ("generic", "")]
    assert np.isnan(ops.recorded_s).tolist() == [False, False, False, True, True]
    assert "2 kernels without a recorded time priced by the roofline of FLOPs and bytes" in got.notes
    assert "3 kernels with FLOPs, read as bf16 on the matrix engine" in got.notes


def test_kernels_of_other_classes_make_other_programs(tmp_path: Path) -> None:
    got = load_trace(write(tmp_path, {0: [node(1, us=5, name="gemm")], 1: [node(1, us=5, name="add")]}))
    assert got.program.tolist() == [0, 1]


def test_without_host_ops_only_the_device_is_left() -> None:
    got = lower(to_trace(read_job(SAMPLES / "resnet50_ddp_rank0")), host_ops=False)
    assert HOST not in got.ops.kind
    assert len(got.ops) == 1216


@pytest.mark.parametrize(
    ("comm_type", "ours", "size_B"),
    [
        (0, "all_reduce", 100),
        (1, "reduce", 100),
        (2, "all_gather", 400),
        (3, "all_gather", 400),
        (4, "reduce_scatter", 100),
        (5, "broadcast", 100),
        (6, "all_to_all", 100),
        (7, "reduce_scatter", 100),
        (8, "reduce_scatter", 100),
        (9, "barrier", 100),
    ],
)
def test_collectives_get_the_size_that_nccl_tests_counts(
    tmp_path: Path, comm_type: int, ours: str, size_B: float
) -> None:
    write(tmp_path, {r: [node(1, 7, comm_type=comm_type, comm_size=100)] for r in range(4)})
    got = load_trace(tmp_path)
    assert got.ops.collectives == (ours,)
    assert got.ops.bytes_B.tolist() == [size_B]


def test_ranks_are_sorted_as_numbers_and_a_ring_numbers_its_channels_locally() -> None:
    got = load_trace(SAMPLES / "ring_allreduce_8npus_1MB")
    assert set(got.ops.streams) == {"send 0", "recv 1", "compute"}
    for rank in range(8):  # what a rank sends to in slot 0 its neighbour receives from in slot 1
        assert got.groups[rank, 0] == got.groups[(rank + 1) % 8, 1]


def test_file_order_and_ids_do_not_matter(tmp_path: Path) -> None:
    nodes = [node(1, us=5), node(2, deps=[1], us=1), node(3, us=1), node(4, 7, deps=[2, 3], comm_type=0, comm_size=8)]
    other = [node(11, us=5), node(22, deps=[11], us=1), node(33, us=1)]
    other.append(node(44, 7, deps=[22, 33], comm_type=0, comm_size=8))
    write(tmp_path, {0: nodes, 1: other[::-1], 10: nodes, **dict.fromkeys(range(2, 10), nodes)})
    got = load_trace(tmp_path)
    assert got.ranks == 11
    assert len(got.program_ptr) == 2


def test_ranks_with_other_durations_keep_one_order_of_collectives(tmp_path: Path) -> None:
    def rank(a: int, b: int) -> list[bytes]:
        first = node(3, 7, deps=[1], comm_type=0, comm_size=8)
        return [node(1, us=a), node(2, us=b), first, node(4, 7, deps=[2], comm_type=2, comm_size=8)]

    got = load_trace(write(tmp_path, {0: rank(5, 9), 1: rank(9, 5)}))
    order = [got.ops.collective[p : p + 4][got.ops.kind[p : p + 4] == COLLECTIVE].tolist() for p in (0, 4)]
    assert order[0] == order[1]
    assert completes(got)


def test_durations_flops_and_unknowns(tmp_path: Path) -> None:
    nodes = [
        node(1, us=7, num_ops=10, tensor_size=20),
        node(2, num_ops=10),
        node(3),
        node(4, us=3, is_cpu_op=1),
        node(5, 2, tensor_size=64),
        node(6, us=2, stream=7),
    ]
    ops = load_trace(write(tmp_path, {0: nodes})).ops
    rows = {int(i): row for row, i in enumerate(np.argsort(np.argsort(ops.name_id)))}
    assert len(rows) == 6
    by_stream = {s: sorted(ops.recorded_s[ops.stream == i].tolist()) for i, s in enumerate(ops.streams)}
    assert by_stream["host"] == [pytest.approx(3e-6)]
    assert by_stream["stream 7"] == [pytest.approx(2e-6)]
    assert np.isnan(by_stream["memory"]).all()
    compute = ops.recorded_s[ops.stream == ops.streams.index("compute")]
    assert sorted(compute[~np.isnan(compute)].tolist()) == [0.0, pytest.approx(7e-6)]
    assert int(np.isnan(compute).sum()) == 1
    assert set(ops.kernels) == {"generic"}
    assert [KINDS[k] for k in sorted(set(ops.kind))] == ["compute", "host"]


def test_an_undefined_communicator_is_all_ranks_with_a_note(tmp_path: Path) -> None:
    write(tmp_path, {r: [node(1, 7, comm_type=2, comm_size=8, pg_name="tp")] for r in range(4)})
    got = load_trace(tmp_path)
    assert got.ops.bytes_B.tolist() == [32]
    assert any("'tp' is not defined; read as all ranks" in note for note in got.notes)


def test_a_group_file_splits_the_ranks(tmp_path: Path) -> None:
    write(tmp_path, {r: [node(1, 7, comm_type=2, comm_size=8, pg_name=str(r // 2))] for r in range(4)})
    (tmp_path / "t.json").write_text('{"0": [1, 0], "1": [2, 3]}')
    got = load_trace(tmp_path)
    assert got.ops.bytes_B.tolist() == [16]
    assert got.groups[:, 0].tolist() == [0, 0, 1, 1]


def test_copies_of_a_block_stay_blocks() -> None:
    got = load_trace(SAMPLES / "stg_merged_two_jobs_8npus", ranks=16)
    assert got.groups[8:].min() > got.groups[:8].max()
    assert completes(got)


def test_opposite_sends_and_receives_do_not_lock_up(tmp_path: Path) -> None:
    def rank(other: int) -> list[bytes]:
        receive = node(1, 6, comm_src=other, comm_size=8)
        return [receive, node(2, 5, comm_dst=other, comm_size=8), node(3, deps=[1], us=1)]

    assert completes(load_trace(write(tmp_path, {0: rank(1), 1: rank(0)})))


def refused(folder: Path, message: str, **kwargs: Any) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_trace(folder, **kwargs)
    assert re.search(re.escape(str(folder)), str(caught.value))


def test_cycle_names_file_and_node(tmp_path: Path) -> None:
    write(tmp_path, {0: [node(1), node(2, deps=[4, 1]), node(3, deps=[2]), node(4, deps=[3]), node(5, deps=[4])]})
    refused(tmp_path, r"t\.0\.et: node [234] depends on itself")


def test_missing_ranks_are_refused_unless_asked_for(tmp_path: Path) -> None:
    write(tmp_path, {0: [node(1, us=1)], 2: [node(1, us=2)]})
    refused(tmp_path, "files of ranks 1 are missing")
    refused(tmp_path, "more than a job of 2 ranks", ranks=2)
    got = load_trace(tmp_path, ranks=4)
    assert got.program.tolist() == [0, 1, 1, 1]


def test_collectives_that_never_meet_are_refused(tmp_path: Path) -> None:
    reduce, gather = node(1, 7, comm_type=0, comm_size=8), node(2, 7, deps=[1], comm_type=2, comm_size=8)
    write(tmp_path, {0: [reduce], 1: [reduce, gather]})
    refused(tmp_path, "rank 1 issues other collectives than rank 0")
    write(tmp_path, {0: [reduce], 1: [node(1)]})
    refused(tmp_path, "waits for rank 1, which never joins")


def test_send_without_receive_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {0: [node(1, 5, comm_dst=1, comm_size=8)], 1: [node(1)]})
    refused(tmp_path, "channel 0 -> 1, tag 0: 1 sends and 0 receives")
    write(tmp_path, {0: [node(1, 5, comm_dst=7, comm_size=8)]})
    refused(tmp_path, "to rank 7 in a job of 2 ranks")
    write(tmp_path, {0: [node(1, 5, comm_dst=0, comm_size=8)]})
    refused(tmp_path, "does not send to itself")


def test_communicator_without_the_rank_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {r: [node(1, 7, comm_type=0, comm_size=8, pg_name="1")] for r in range(2)})
    (tmp_path / "t.json").write_text('{"1": [0]}')
    refused(tmp_path, "rank 1 uses communicator '1' and is not in it")
    (tmp_path / "t.json").write_text('{"1": [0, 1, 9]}')
    refused(tmp_path, "communicator '1' has rank 9")


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1]", "not a group file"), ('{"a": 1}', "'a' should be a list"), ('{"a": []}', "has no ranks"), ("{", "JSON")],
)
def test_bad_group_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "groups.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_groups(path)


def test_folders_and_names(tmp_path: Path) -> None:
    refused(tmp_path, "no known format of traces")
    with pytest.raises(InputError, match="no such file or folder"):
        load_trace(tmp_path / "none")
    with pytest.raises(InputError, match="no format of traces is named 'chakr'"):
        load_trace(tmp_path, format="chakr")
    with pytest.raises(InputError, match="at least one file"):
        read_job([])
    write(tmp_path, {0: [node(1)]})
    (tmp_path / "u.0.et").write_bytes((tmp_path / "t.0.et").read_bytes())
    refused(tmp_path, "files of several jobs")
    (tmp_path / "picture.bin").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match="no known format of traces"):
        load_trace(tmp_path / "picture.bin")


def test_only_metadata_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {0: [node(1, 1)]})
    refused(tmp_path, "holds no op to replay")


def test_sniffing_knows_every_sample_and_the_json_variant(tmp_path: Path) -> None:
    for folder in sorted(p for p in SAMPLES.iterdir() if p.is_dir()):
        assert IMPORTERS["chakra"].sniff(b"", folder)
    path = tmp_path / "job.0.json"
    path.write_text(json.dumps({"workload_graph": [{"Id": 1, "NodeType": 4, "runtime": 2}]}))
    for source in (path, tmp_path):
        assert load_trace(source).ops.recorded_s.tolist() == [pytest.approx(2e-6)]


def test_a_workload_that_cmsim_wrote_reads_back_as_it_was(tmp_path: Path) -> None:
    build = ProgramBuilder()
    work = build.compute(
        "mul",
        stream="compute",
        kernel="gemm",
        precision="fp8",
        flops=10.25,
        bytes_B=3.5,
        cores=0.25,
        shape=gemm_shape(2, 3, 4, "fp8"),
    )
    host = build.host("launch", stream="host", recorded_s=2.5e-6)
    build.compute("copy", stream="7", kernel="generic", bytes_B=8.0, recorded_s=0.0, after=[host])
    build.collective("moe", stream="comm", collective="dispatch", size_B=64.0, slot="pair", after=[work])
    build.collective("gather", stream="comm", collective="all_gather", size_B=63.0, slot="pair")
    build.collective("stop", stream="comm", collective="barrier", size_B=0.0, slot="all")
    build.send("out", stream="messages", size_B=7.0, slot="out", after=[work])
    build.recv("in", stream="messages", size_B=7.0, slot="in")
    groups = {
        "pair": np.array([0, 0, 1, 1]),
        "all": np.array([2, 2, 2, 2]),
        "out": np.array([3, 4, 5, 6]),
        "in": np.array([4, 3, 6, 5]),
    }
    given = assemble(
        [build], program=np.zeros(4, np.int64), groups=groups, facts=TraceFacts(told={"tokens_per_run": 3.5})
    )
    write_chakra(given, tmp_path / "out")
    got = load_trace(tmp_path / "out")
    assert got.program.tolist() == [0, 0, 0, 0]
    assert got.facts.told["tokens_per_run"] == 3.5 and got.facts.recorded_class_s["host"] == pytest.approx(2.5e-6)
    one, two = given.ops, got.ops
    for column, texts in (
        ("name_id", "names"), ("stream", "streams"), ("kernel", "kernels"), ("precision", "precisions"),
        ("collective", "collectives"),
    ):  # fmt: skip
        said = [[getattr(ops, texts)[i] if i >= 0 else "" for i in getattr(ops, column)] for ops in (one, two)]
        assert said[0] == [text.removeprefix("stream ") for text in said[1]], column
    assert one.shapes == two.shapes
    for column in ("kind", "flops", "bytes_B", "cores", "shape", "slot", "dep_ptr", "dep_idx"):
        assert np.array_equal(getattr(one, column), getattr(two, column)), column
    assert two.recorded_s == pytest.approx(one.recorded_s, rel=1e-12, nan_ok=True)
    for slot in range(4):
        same = [given.groups[:, slot, None] == given.groups, got.groups[:, slot, None] == got.groups]
        assert np.array_equal(*same)
