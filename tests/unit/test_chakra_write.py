"""Workloads written as Chakra traces: what a reader gets back, and what stands in the folder."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmsim import api
from cmsim.errors import InputError
from cmsim.scenario import load_scenario
from cmsim.traces.chakra import chakra_pb2
from cmsim.traces.chakra import write as chakra_write
from cmsim.traces.chakra.file import (
    COMM_COLL,
    COMM_RECV,
    COMM_SEND,
    COMM_TYPES,
    COMP,
    ChakraFile,
    read_chakra,
    set_counts,
)
from cmsim.traces.chakra.write import write_chakra
from cmsim.workload import generate
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, RECV, SEND, ProgramBuilder, Programs, assemble

pb: Any = chakra_pb2
TYPE = {COMPUTE: COMP, HOST: COMP, COLLECTIVE: COMM_COLL, SEND: COMM_SEND, RECV: COMM_RECV}
DENSE = {
    "model_type": "llama",
    "hidden_size": 2048,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
}
MOE = {
    "model_type": "qwen3_moe",
    "hidden_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "moe_intermediate_size": 512,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "vocab_size": 8192,
    "max_position_embeddings": 8192,
}
WORKLOADS: dict[str, dict[str, Any]] = {
    "training in stages": {
        "kind": "training",
        "model": "dense",
        "sequence_length": 4096,
        "global_batch": 64,
        "recompute": "none",
        "parallel": {"tp": 4, "pp": 4},
        "zero_stage": 1,
    },
    "decoding with experts": {
        "kind": "decode",
        "model": "moe",
        "context_tokens": 1024,
        "batch_per_accelerator": 8,
        "parallel": {"ep": 16, "attention": "dp"},
        "balance": {"model": "balanced"},
    },
    "all-reduce of all": {"kind": "collective", "collective": "all_reduce", "message_bytes": 1000},
    "all-gather of odd size": {"kind": "collective", "collective": "all_gather", "message_bytes": 1001, "group": 8},
    "send and receive": {"kind": "collective", "collective": "send_recv", "message_bytes": 64, "repeat": 3},
}


def made(name: str, folder: Path) -> Programs:
    workload = dict(WORKLOADS[name])
    for model, config in (("dense", DENSE), ("moe", MOE)):
        path = folder / f"{model}.json"
        path.write_text(json.dumps(config))
        if workload.get("model") == model:
            workload["model"] = str(path)
    systems = [{"system": "hgx_h100", "domains": 8, "stack": "cuda_graph"}]
    (one,) = load_scenario({"systems": systems, "workload": workload}).runs
    return generate.programs(one.spec, api.system(one))


@pytest.fixture(scope="module", params=WORKLOADS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Programs, list[Path]]:
    folder = tmp_path_factory.mktemp("export")
    programs = made(request.param, folder)
    return programs, write_chakra(programs, folder / "out")


def groups_of(programs: Programs, rank: int, slot: int) -> list[int]:
    group = programs.groups[rank, slot]
    return np.flatnonzero((programs.groups == group).any(axis=1)).tolist()


def rows(programs: Programs, rank: int) -> range:
    program = programs.program[rank]
    return range(int(programs.program_ptr[program]), int(programs.program_ptr[program + 1]))


def texts(names: tuple[str, ...], codes: Any) -> list[str]:
    return [names[code] if code >= 0 else "" for code in codes]


def deps(ptr: Any, idx: Any, row: int) -> set[int]:
    return set(idx[ptr[row] : ptr[row + 1]].tolist())


def some_ranks(programs: Programs) -> list[int]:
    """Two of each program: the first and the last."""
    found = [np.flatnonzero(programs.program == program) for program in range(len(programs.program_ptr) - 1)]
    return sorted({int(ranks[i]) for ranks in found for i in (0, -1)})


def test_a_reader_gets_the_same_ops_back(written: tuple[Programs, list[Path]]) -> None:
    programs, paths = written
    ops = programs.ops
    for rank in some_ranks(programs):
        file, here = read_chakra(paths[rank]), rows(programs, rank)
        part = slice(here.start, here.stop)
        kind = ops.kind[part]
        assert file.id.tolist() == list(range(len(here)))
        assert list(file.name) == texts(ops.names, ops.name_id[part])
        assert list(file.stream) == texts(ops.streams, ops.stream[part])
        assert file.type.tolist() == [TYPE[k] for k in kind]
        assert file.is_cpu.tolist() == [int(k == HOST) for k in kind]
        assert texts(file.kernels, file.kernel) == texts(ops.kernels, ops.kernel[part])
        assert texts(file.precisions, file.precision) == texts(ops.precisions, ops.precision[part])
        assert [file.shapes[i] if i >= 0 else None for i in file.shape] == [
            ops.shapes[i] if i >= 0 else None for i in (ops.shape[part] if len(ops.shape) else [-1] * len(here))
        ]
        assert (file.cores == ops.cores[part]).all()
        assert (np.where(np.isnan(file.flops), file.num_ops, file.flops) == ops.flops[part]).all()
        size_B = np.where(kind <= HOST, file.tensor_size_B, file.comm_size_B)
        for row in np.flatnonzero(kind == COLLECTIVE):
            ours = ops.collectives[ops.collective[here[row]]]
            kept = file.collectives[file.collective[row]] if file.collective[row] >= 0 else ""
            assert (kept or COMM_TYPES[file.comm_type[row]].lower()) == ours
            if ours == "all_gather":
                size_B[row] *= len(groups_of(programs, rank, int(ops.slot[here[row]])))
        assert (np.where(np.isnan(file.bytes_B), size_B, file.bytes_B) == ops.bytes_B[part]).all()


def test_order_is_what_an_op_waits_for_and_its_forerunner_on_the_stream(written: tuple[Programs, list[Path]]) -> None:
    programs, paths = written
    ops = programs.ops
    for rank in some_ranks(programs):
        file, here = read_chakra(paths[rank]), rows(programs, rank)
        last: dict[int, int] = {}
        for row, at in enumerate(here):
            expected = deps(ops.dep_ptr, ops.dep_idx, at) | {last.get(int(ops.stream[at]), -1)} - {-1}
            assert deps(file.dep_ptr, file.dep_idx, row) == expected
            last[int(ops.stream[at])] = row
        assert (file.ctrl_deps, file.missing_deps) == (0, 0)


def test_communicators_stand_in_the_side_file(written: tuple[Programs, list[Path]]) -> None:
    programs, paths = written
    ops, table = programs.ops, json.loads(paths[-1].read_text())
    named: set[str] = set()
    for rank in some_ranks(programs):
        file, here = read_chakra(paths[rank]), rows(programs, rank)
        for row in np.flatnonzero(file.type == COMM_COLL):
            members = groups_of(programs, rank, int(ops.slot[here[row]]))
            assert table.get(file.pg_name[row], list(range(programs.ranks))) == members
            assert (file.pg_name[row] == "") == (len(members) == programs.ranks)
            named.add(file.pg_name[row])
    # no group is named that nobody uses, and none is called 0: ASTRA-sim takes that for all ranks
    assert "0" not in table and named - {""} <= set(table)
    assert sorted(map(int, table)) == list(range(1, len(table) + 1))


def test_every_send_has_its_receive(written: tuple[Programs, list[Path]]) -> None:
    programs, paths = written
    sent, received = Counter[tuple[int, ...]](), Counter[tuple[int, ...]]()
    for rank, path in enumerate(paths[:-1]):
        file = read_chakra(path)
        for kind, counter, end in ((COMM_SEND, sent, file.comm_src), (COMM_RECV, received, file.comm_dst)):
            at = file.type == kind
            assert (end[at] == rank).all()
            columns = (file.comm_src[at], file.comm_dst[at], file.comm_tag[at], file.comm_size_B[at].astype(int))
            counter.update(zip(*(column.tolist() for column in columns), strict=True))
    p2p = programs.ops.kind >= SEND
    assert sent == received and bool(sent) == bool(p2p.any())


def test_files_are_what_protobuf_would_write(written: tuple[Programs, list[Path]]) -> None:
    programs, paths = written
    assert [path.name for path in paths] == [f"cmsim.{rank}.et" for rank in range(programs.ranks)] + ["cmsim.json"]
    data = paths[0].read_bytes()
    at, messages = 0, []
    while at < len(data):
        size, at = chakra_write_length(data, at)
        messages.append(data[at : at + size])
        at += size
    metadata = pb.GlobalMetadata.FromString(messages[0])
    assert metadata.version == "0.0.4" and metadata.attr[0].string_val == "cmsim"
    nodes = [pb.Node.FromString(message) for message in messages[1:]]
    assert [node.SerializeToString(deterministic=True) for node in nodes] == messages[1:]
    for node in nodes:
        attrs = [pb.AttributeProto.FromString(raw) for raw in node.attr]
        assert [attr.SerializeToString(deterministic=True) for attr in attrs] == list(node.attr)
        names = [attr.name for attr in attrs]
        assert len(set(names)) == len(names)
        # what ASTRA-sim asks for, with no default of its own
        needs = {COMP: ("num_ops", "tensor_size"), COMM_COLL: ("comm_type", "comm_size")}
        needs[COMM_SEND] = needs[COMM_RECV] = ("comm_size", "comm_src", "comm_dst", "comm_tag")
        assert set(needs[node.type]) <= set(names)


def chakra_write_length(data: bytes, at: int) -> tuple[int, int]:
    size = shift = 0
    while True:
        size |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return size, at


def test_facts_and_counts(written: tuple[Programs, list[Path]]) -> None:
    programs, paths = written
    files = [read_chakra(path) for path in paths[:-1]]
    for key, value in programs.facts.named().items():
        assert files[0].metadata[f"cmsim_fact {key}"] == value
    counts = set_counts(files)
    assert counts["nodes"] == sum(len(rows(programs, rank)) for rank in range(programs.ranks))
    assert counts["ranks"] == programs.ranks and counts["send_bytes"] == counts["recv_bytes"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_equal_workloads_give_equal_bytes(name: str, tmp_path: Path) -> None:
    programs = made(name, tmp_path)
    one, two = write_chakra(programs, tmp_path / "a"), write_chakra(made(name, tmp_path), tmp_path / "b")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


# -- hand-made programs ------------------------------------------------------------------------------------


def handmade(flops: float = 10.0, traffic: np.ndarray | None = None, **changes: Any) -> Programs:
    """Two ranks: work on two streams of device and host, a message each way, a dispatch, a gather and a barrier."""
    build = ProgramBuilder()
    work = build.compute("mul", stream="a", kernel="gemm", precision="fp8", flops=flops, bytes_B=3.5, cores=0.25)
    host = build.host("launch", stream="host", recorded_s=2.5e-6)
    build.compute("copy", stream="b", kernel="generic", bytes_B=8.0, recorded_s=0.0, after=[host])
    moe = {"collective": "dispatch", "size_B": 64.0, "slot": "all", "traffic": traffic}
    build.collective("moe", stream="comm", after=[work], **moe)
    build.collective("gather", stream="comm", collective="gather", size_B=64.0, slot="all")
    build.collective("stop", stream="comm", collective="barrier", size_B=0.0, slot="all")
    build.send("out", stream="s", size_B=7.0, slot="out")
    build.recv("in", stream="r", size_B=7.0, slot="in")
    groups = {"all": np.array([5, 5]), "out": np.array([7, 9]), "in": np.array([9, 7])}
    return assemble([build], program=np.array([0, 0]), groups=groups, **changes)


def read(folder: Path, rank: int = 0) -> ChakraFile:
    return read_chakra(folder / f"cmsim.{rank}.et")


def test_times_are_rounded_up_and_kept_exactly(tmp_path: Path) -> None:
    write_chakra(handmade(), tmp_path / "recorded")
    file = read(tmp_path / "recorded")
    assert file.duration_us.tolist() == [0, 3, 0, 0, 0, 0, 0, 0]
    assert file.duration_ps.tolist() == [-1, 2_500_000, 0, -1, -1, -1, -1, -1]
    hold_s = [1e-6, math.nan, 1.000001e-6, 9, 9, 9, 9, 9]
    write_chakra(handmade(), tmp_path / "priced", hold_s=hold_s)
    file = read(tmp_path / "priced")
    assert file.duration_us.tolist() == [1, 0, 2, 0, 0, 0, 0, 0]
    # a whole number of microseconds needs no other number; communication is simulated, not held
    assert file.duration_ps.tolist() == [-1, -1, 1_000_001, -1, -1, -1, -1, -1]


def test_what_chakra_rounds_or_has_no_word_for_is_kept(tmp_path: Path) -> None:
    write_chakra(handmade(flops=10.25), tmp_path / "out")
    file = read(tmp_path / "out")
    assert (file.num_ops[0], file.flops[0], file.tensor_size_B[0], file.bytes_B[0]) == (11, 10.25, 4, 3.5)
    assert np.isnan(file.flops[1:]).all() and np.isnan(file.bytes_B[1:]).all()
    assert (file.cores[0], file.cores[1]) == (0.25, 1.0)
    assert [COMM_TYPES[kind] for kind in file.comm_type[3:6]] == ["ALL_TO_ALL", "GATHER", "BARRIER"]
    assert texts(file.collectives, file.collective) == ["", "", "", "dispatch", "gather", "", "", ""]
    assert file.comm_size_B[3:6].tolist() == [64, 32, 0]  # of a gather, one rank's share


def test_channels_between_two_ranks_have_tags_of_their_own(tmp_path: Path) -> None:
    write_chakra(handmade(), tmp_path / "out")
    ends = []
    for rank in (0, 1):
        file = read(tmp_path / "out", rank)
        ends.append([(file.comm_src[row], file.comm_dst[row], file.comm_tag[row]) for row in (6, 7)])
    assert ends == [[(0, 1, 0), (1, 0, 1)], [(1, 0, 1), (0, 1, 0)]]


def test_unequal_blocks_are_left_out_and_said(tmp_path: Path) -> None:
    unequal = handmade(traffic=np.eye(2))
    assert chakra_write.left_out(unequal) == ("written with equal blocks, Chakra has no others: dispatch",)
    assert not chakra_write.left_out(handmade())
    assert write_chakra(unequal, tmp_path / "out")


def test_two_groups_of_all_ranks_keep_their_names(tmp_path: Path) -> None:
    build = ProgramBuilder()
    for slot in ("one", "two"):
        build.collective(slot, stream=slot, collective="all_reduce", size_B=4.0, slot=slot)
    both = {"one": np.zeros(3, np.int64), "two": np.ones(3, np.int64)}
    paths = write_chakra(assemble([build], program=np.zeros(3, np.int64), groups=both), tmp_path / "out")
    assert json.loads(paths[-1].read_text()) == {"1": [0, 1, 2], "2": [0, 1, 2]}
    assert read(tmp_path / "out", 2).pg_name == ("1", "2")


def test_names_of_any_kind_and_long_waits(tmp_path: Path) -> None:
    build = ProgramBuilder()
    for i in range(300):
        build.compute(f"é{i}" * (1 + i % 40), stream=str(i), kernel="generic", bytes_B=1.0)
    build.compute("\ud800", stream="last", kernel="generic", bytes_B=2.0**60, after=range(300))
    write_chakra(assemble([build], program=np.zeros(1, np.int64), groups={}), tmp_path / "out")
    file = read(tmp_path / "out")
    assert file.name[41] == "é41" * 2 and file.name[300] == "?"
    assert deps(file.dep_ptr, file.dep_idx, 300) == set(range(300))
    assert file.tensor_size_B[300] == 2.0**60


# -- the folder --------------------------------------------------------------------------------------------


def test_an_earlier_export_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_chakra(handmade(), folder)
    (folder / "cmsim.7.et").write_bytes((folder / "cmsim.0.et").read_bytes())  # of a larger job
    write_chakra(handmade(flops=20.0), folder)
    assert sorted(path.name for path in folder.iterdir()) == ["cmsim.0.et", "cmsim.1.et", "cmsim.json"]
    assert read(folder).num_ops[0] == 20
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not an earlier export"):
        write_chakra(handmade(), folder)
    assert (folder / "notes.txt").read_text() == "mine" and read(folder).num_ops[0] == 20


def test_traces_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cmsim.0.et").write_bytes(b"\x00\x04\x08\x01\x18\x04")
    with pytest.raises(InputError, match="not an earlier export"):
        write_chakra(handmade(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not an earlier export"):
        write_chakra(handmade(), tmp_path / "file")


def test_a_folder_is_complete_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = chakra_write._files

    def full_disk(*args: Any) -> Any:
        made = files(*args)
        yield next(made)
        raise OSError(28, "No space left on device")

    write_chakra(handmade(), tmp_path / "old")
    monkeypatch.setattr(chakra_write, "_files", full_disk)
    for folder in (tmp_path / "new", tmp_path / "old"):
        with pytest.raises(InputError, match="No space left"):
            write_chakra(handmade(flops=20.0), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert read(tmp_path / "old").num_ops[0] == 10


@pytest.mark.parametrize("prefix", ["", "a/b", ".hidden", "job.0"])
def test_a_prefix_is_the_start_of_a_file_name(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(InputError, match="prefix"):
        write_chakra(handmade(), tmp_path / "out", prefix=prefix)


def test_another_prefix(tmp_path: Path) -> None:
    paths = write_chakra(handmade(), tmp_path / "out", prefix="job.a")
    assert [path.name for path in paths] == ["job.a.0.et", "job.a.1.et", "job.a.json"]
