"""The Chakra reader against counts made by an independent parser, and the ways a file may be written."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import random
import tracemalloc
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmsim.errors import InputError
from cmsim.traces.chakra import chakra_pb2 as pb
from cmsim.traces.chakra import file as chakra
from cmsim.traces.chakra import wire as chakra_wire
from cmsim.traces.chakra.file import (
    COMM_COLL,
    COMM_RECV,
    COMM_SEND,
    COMM_TYPES,
    NODE_TYPES,
    ChakraFile,
    group_counts,
    read_chakra,
    set_counts,
)

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "workloads" / "traces" / "chakra"
SHARED = ROOT.parent / "shared" / "traces"  # the full collection, where it stands beside the checkout

#: of one rank's file: nodes by type, ctrl and data deps, of these to absent ids, collectives, bytes, duration [us]
SAMPLE_TRUTH: dict[str, dict[str, Any]] = {
    "resnet50_ddp_rank0/chakra.0.et.gz": {
        "nodes": {"COMP": 3643, "COMM_COLL": 21},
        "deps": (3664, 181878, 1277),
        "with_comm_type": {"ALL_REDUCE": 5, "BROADCAST": 2},
        "without_comm_type": 14,
        "bytes": {"ALL_REDUCE": 102228128, "BROADCAST": 212904},
        "cpu_gpu_unsaid": (2448, 1216, 0),
        "duration_us": 381795,
    },
    "resnet50_no_metadata/resnet50_DataParallel.0.et": {
        "nodes": {"COMP": 161, "COMM_COLL": 54},
        "deps": (214, 0, 0),
        "with_comm_type": {"ALL_REDUCE": 54},
        "without_comm_type": 0,
        "bytes": {"ALL_REDUCE": 102011648},
        "cpu_gpu_unsaid": (0, 0, 215),
        "duration_us": 1082450,
    },
    "ring_allreduce_8npus_1MB/custom_allreduce.0.et": {
        "nodes": {"COMP": 7, "COMM_SEND": 14, "COMM_RECV": 14},
        "deps": (0, 34, 0),
        "with_comm_type": {},
        "without_comm_type": 0,
        "bytes": {},
        "cpu_gpu_unsaid": (0, 0, 35),
        "duration_us": 49,
    },
    "stg_merged_two_jobs_8npus/mergedAB.0.et": {
        "nodes": {"COMP": 43, "COMM_COLL": 15},
        "deps": (0, 73, 0),
        "with_comm_type": {"ALL_REDUCE": 5, "ALL_GATHER": 6, "REDUCE_SCATTER": 4},
        "without_comm_type": 0,
        "bytes": {"ALL_REDUCE": 8192, "ALL_GATHER": 1536, "REDUCE_SCATTER": 2048},
        "cpu_gpu_unsaid": (0, 15, 43),
        "duration_us": 0,
    },
    "micro_all_gather_4npus_1MB/all_gather.0.et": {
        "nodes": {"COMM_COLL": 1},
        "deps": (0, 0, 0),
        "with_comm_type": {"ALL_GATHER": 1},
        "without_comm_type": 0,
        "bytes": {"ALL_GATHER": 1048576},
        "cpu_gpu_unsaid": (0, 1, 0),
        "duration_us": 0,
    },
}


def summary(path: Path) -> dict[str, Any]:
    file = read_chakra(path)
    collective = file.type == COMM_COLL
    typed = collective & (file.comm_type >= 0)
    moved: Counter[str] = Counter()
    for kind, size in zip(file.comm_type[typed], file.comm_size_B[typed], strict=True):
        moved[COMM_TYPES[kind]] += int(size)
    return {
        "nodes": {NODE_TYPES[t]: int(n) for t, n in zip(*np.unique(file.type, return_counts=True), strict=True)},
        "deps": (file.ctrl_deps, file.data_deps, file.missing_deps),
        "with_comm_type": dict(Counter(COMM_TYPES[kind] for kind in file.comm_type[typed])),
        "without_comm_type": int((collective & (file.comm_type < 0)).sum()),
        "bytes": dict(moved),
        "cpu_gpu_unsaid": tuple(int((file.is_cpu == v).sum()) for v in (1, 0, -1)),
        "duration_us": int(file.duration_us.sum()),
    }


@pytest.mark.parametrize("name", SAMPLE_TRUTH)
def test_sample_matches_its_counts(name: str) -> None:
    assert summary(SAMPLES / name) == SAMPLE_TRUTH[name]


def truth() -> dict[str, Any]:
    path = SHARED / "TRUTH.json"
    if not path.exists():
        return {}
    table = json.loads(path.read_text())
    return {k: v for k, v in table.items() if v and k.startswith("chakra/") and "groups" not in v}


def collection() -> list[Any]:
    absent = pytest.mark.skip(reason="the full trace collection is not beside the checkout")
    return list(truth()) or [pytest.param("chakra/(collection)", marks=absent)]


@pytest.mark.parametrize("name", collection())
def test_collection_matches_its_counts(name: str) -> None:
    expected, file, got = truth()[name], read_chakra(SHARED / name), summary(SHARED / name)
    if expected["format"] == "chakra-json":
        assert {str(NODE_TYPES.index(t)): n for t, n in got["nodes"].items()} == expected["node_types"]
        assert got["deps"][:2] == (expected["ctrl_deps"], expected["data_deps"])
        assert got["cpu_gpu_unsaid"][0] == expected["cpu_ops"]
        assert int((~np.isnan(file.comm_size_B)).sum()) == expected["comm_nodes_with_comm_size"]
        assert got["duration_us"] == expected["sum_runtime_micros"]
        assert file.encoding == "json"
        return
    assert {f"{t}_NODE": n for t, n in got["nodes"].items()} == expected["node_types"]
    assert got["deps"] == (expected["ctrl_deps"], expected["data_deps"], expected["dep_edges_to_missing_ids"])
    assert got["with_comm_type"] == expected["collectives_with_comm_type"]
    untyped = sum(expected["collectives"].values()) - sum(expected["collectives_with_comm_type"].values())
    assert got["without_comm_type"] == untyped
    assert got["bytes"] == expected["collective_bytes"]
    assert got["cpu_gpu_unsaid"] == (expected["cpu_ops"], expected["gpu_ops"], expected["ops_without_is_cpu_op"])
    assert got["duration_us"] == expected["sum_duration_micros"]
    assert file.num_ops.sum() == expected["num_ops"]
    assert file.tensor_size_B.sum() == expected["tensor_size"]
    assert np.nansum(file.comm_size_B[file.type == COMM_SEND]) == expected["send_bytes"]
    assert np.nansum(file.comm_size_B[file.type == COMM_RECV]) == expected["recv_bytes"]
    assert (int(file.id.min()), int(file.id.max())) == (expected["id_min"], expected["id_max"])
    assert bool(file.metadata) == expected["has_metadata_message"]
    assert file.metadata.get("version", "") == expected["version"]
    groups = Counter(pg for pg, t in zip(file.pg_name, file.type, strict=True) if t == COMM_COLL)
    assert dict(groups) == expected["pg"]


@pytest.mark.parametrize("name", collection())
def test_counts_are_those_of_the_collection(name: str) -> None:
    """Every key of the collection's counts, and its value."""
    counts, expected = read_chakra(SHARED / name).counts(), truth()[name]
    assert {key: counts[key] for key in expected} == expected


def sets() -> list[Any]:
    path = SHARED / "TRUTH.json"
    found = json.loads(path.read_text())["_sets"] if path.exists() else {}
    absent = pytest.mark.skip(reason="the full trace collection is not beside the checkout")
    return list(found.items()) or [pytest.param("chakra/(collection)", {}, marks=absent)]


@pytest.mark.parametrize(("folder", "expected"), sets())
def test_counts_of_a_job_add_up_over_its_ranks(folder: str, expected: dict[str, int]) -> None:
    paths = sorted(path for path in (SHARED / folder).iterdir() if ".et" in path.name)
    assert set_counts(read_chakra(path) for path in paths) == expected


@pytest.mark.skipif(not SHARED.exists(), reason="the full trace collection is not beside the checkout")
def test_counts_of_a_side_file() -> None:
    name = "chakra/stg_merged_two_jobs_8npus/mergedAB.json"
    table = json.loads((SHARED / name).read_text())
    assert group_counts(table) == json.loads((SHARED / "TRUTH.json").read_text())[name]


@pytest.mark.parametrize("name", SAMPLE_TRUTH)
def test_counts_of_the_samples(name: str) -> None:
    counts, expected = read_chakra(SAMPLES / name).counts(), SAMPLE_TRUTH[name]
    assert counts["format"] == "chakra-et"
    assert counts["node_types"] == {f"{kind}_NODE": n for kind, n in expected["nodes"].items()}
    assert counts["nodes"] == counts["unique_ids"] == sum(expected["nodes"].values())
    edges = ("ctrl_deps", "data_deps", "dep_edges_to_missing_ids")
    assert tuple(counts[key] for key in edges) == expected["deps"]
    said = ("cpu_ops", "gpu_ops", "ops_without_is_cpu_op")
    assert tuple(counts[key] for key in said) == expected["cpu_gpu_unsaid"]
    assert counts["collectives_with_comm_type"] == expected["with_comm_type"]
    assert counts["collective_bytes"] == expected["bytes"]
    assert counts["total_collective_bytes"] == sum(expected["bytes"].values())
    assert (
        sum(counts["collectives"].values()) == sum(expected["with_comm_type"].values()) + expected["without_comm_type"]
    )
    assert counts["sum_duration_micros"] == expected["duration_us"]


def test_samples_are_the_files_that_the_attribution_names() -> None:
    page = (SAMPLES.parent / "ATTRIBUTION.md").read_text()
    for path in sorted(p for p in SAMPLES.rglob("*") if p.is_file()):
        line = f"`{path.name}` {hashlib.sha256(path.read_bytes()).hexdigest()}"
        assert line in page, path


# -- ways to write the same --------------------------------------------------------------------------------


def attribute(name: str, **value: Any) -> bytes:
    return pb.AttributeProto(name=name, **value).SerializeToString()


def node(ident: int, kind: int = 4, **fields: Any) -> bytes:
    return pb.Node(id=ident, type=kind, **fields).SerializeToString()


def framed(*messages: bytes) -> bytes:
    out = b""
    for message in messages:
        size = len(message)
        while size >= 0x80:
            out += bytes([size & 0x7F | 0x80])
            size >>= 7
        out += bytes([size]) + message
    return out


def test_metadata_may_be_absent_or_of_length_zero(tmp_path: Path) -> None:
    path = tmp_path / "t.0.et"
    for data in (framed(node(0), node(7)), framed(b"", node(0), node(7))):
        path.write_bytes(data)
        assert read_chakra(path).id.tolist() == [0, 7]


def test_gzip_is_found_by_its_magic_not_by_the_name(tmp_path: Path) -> None:
    path = tmp_path / "t.0.et"
    path.write_bytes(gzip.compress(framed(node(1))))
    assert len(read_chakra(path)) == 1


@pytest.mark.parametrize(
    "value", [{"bool_val": True}, {"int32_val": 1}, {"uint64_val": 1}, {"double_val": 1.0}, {"string_val": "1"}]
)
def test_an_attribute_is_read_whatever_its_type(tmp_path: Path, value: dict[str, Any]) -> None:
    path = tmp_path / "t.0.et"
    path.write_bytes(framed(node(1, attr=[attribute("is_cpu_op", **value), attribute("num_ops", **value)])))
    file = read_chakra(path)
    assert (file.is_cpu[0], file.num_ops[0]) == (1, 1.0)


def test_dependencies_are_the_union_each_once_forward_or_back(tmp_path: Path) -> None:
    path = tmp_path / "t.0.et"
    path.write_bytes(
        framed(node(2**63, ctrl_deps=[5, 9], data_deps=[5, 8]), node(5), node(9, data_deps=[5, 5])),
    )
    file = read_chakra(path)
    assert (file.dep_ptr.tolist(), file.dep_idx.tolist()) == ([0, 2, 2, 3], [1, 2, 1])
    assert (file.ctrl_deps, file.data_deps, file.missing_deps) == (2, 4, 1)


def test_unpacked_dependencies_are_read_too(tmp_path: Path) -> None:
    path = tmp_path / "t.0.et"
    path.write_bytes(framed(node(1), node(2), node(3) + b"\x28\x01\x28\x02"))
    assert read_chakra(path).dep_idx.tolist() == [0, 1]


def test_a_call_tree_in_ctrl_deps_is_not_order(tmp_path: Path) -> None:
    path = tmp_path / "t.0.et"
    mark = [attribute("rf_id", int64_val=4)]
    path.write_bytes(framed(node(1, ctrl_deps=[2], attr=mark), node(2, data_deps=[1], attr=mark)))
    file = read_chakra(path)
    assert file.call_tree
    assert file.dep_idx.tolist() == [0]


def test_groups_inside_the_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.0.et"
    groups = json.dumps([{"pg_name": "0", "ranks": []}, {"pg_name": "7", "ranks": [3, 1]}])
    info = pb.IOInfo(values=repr([groups])).SerializeToString()
    path.write_bytes(framed(node(1, 1, name="## process_group:init ##", inputs=info)))
    assert read_chakra(path).groups == {"0": (), "7": (1, 3)}


def test_json_keys_in_any_case(tmp_path: Path) -> None:
    path = tmp_path / "t.0.json"
    nodes = [
        {"Id": 1, "Name": "a", "NodeType": 4, "runtime": 3, "data_deps": [], "is_cpu_op": True},
        {"id": 2, "name": "b", "nodetype": 7, "ctrlDeps": [1], "comm_type": 2, "comm_size": 64, "is_cpu_op": False},
    ]
    path.write_text(json.dumps({"workload_graph": nodes}))
    file = read_chakra(path)
    assert file.encoding == "json"
    assert (file.duration_us.tolist(), file.dep_idx.tolist(), file.comm_size_B[1]) == ([3.0, 0.0], [0], 64.0)


def same(one: ChakraFile, other: ChakraFile) -> bool:
    """Whether two files hold the same, apart from where they stand."""
    for column in fields(ChakraFile):
        a, b = getattr(one, column.name), getattr(other, column.name)
        if column.name == "path":
            continue
        if isinstance(a, np.ndarray):
            equal_nan = a.dtype.kind == "f"
            if a.dtype != b.dtype or not np.array_equal(a, b, equal_nan=equal_nan):
                return False
        elif a != b:
            return False
    return True


@pytest.mark.parametrize("name", SAMPLE_TRUTH)
@pytest.mark.parametrize("unknown", [b"\xa2\x06\x02hi", b"\xa3\x06\xa4\x06", b"\x9d\x06\x00\x00\x00\x00"])
def test_what_the_schema_does_not_have_is_skipped(tmp_path: Path, name: str, unknown: bytes) -> None:
    """Fields 100 (text, a group) and 99 (32 bits) in every third node."""
    raw = (SAMPLES / name).read_bytes()
    data = gzip.decompress(raw) if name.endswith(".gz") else raw
    offsets, wrong = chakra_wire.message_offsets(data)
    assert not wrong
    ends = [*offsets[1:].tolist(), len(data)]
    messages = []
    for number, (at, end) in enumerate(zip(offsets.tolist(), ends, strict=True)):
        _, start = chakra_wire.varint(data, at)
        messages.append(data[start:end] + (unknown if number % 3 == 2 else b""))
    path = tmp_path / "t.0.et"
    path.write_bytes(framed(*messages))
    assert same(read_chakra(path), read_chakra(SAMPLES / name))


@pytest.mark.parametrize("name", SAMPLE_TRUTH)
def test_how_many_nodes_are_decoded_together_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read_chakra(SAMPLES / name)
    for few, block in ((0, 50), (0, 8192), (10**9, 100), (5, 70)):
        monkeypatch.setattr(chakra_wire, "_FEW", few)
        monkeypatch.setattr(chakra_wire, "_BLOCK", block)
        assert same(read_chakra(SAMPLES / name), expected)
    monkeypatch.setattr(chakra_wire, "_BLOCK_B", 2000)
    monkeypatch.setattr(chakra, "_MAPPED_B", 1)
    assert same(read_chakra(SAMPLES / name), expected)


@pytest.mark.parametrize("few", [0, 10**9])
@pytest.mark.parametrize(
    "name", ["stg_merged_two_jobs_8npus/mergedAB.0.et", "resnet50_no_metadata/resnet50_DataParallel.0.et"]
)
def test_nodes_are_what_protobuf_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, few: int) -> None:
    """Of files with a few bytes changed, those that are still read."""
    monkeypatch.setattr(chakra_wire, "_FEW", few)
    data, rng, path = (SAMPLES / name).read_bytes(), random.Random(name), tmp_path / "t.0.et"
    offsets, _ = chakra_wire.message_offsets(data)
    bounds = [*offsets.tolist(), len(data)]
    messages = [data[chakra_wire.varint(data, at)[1] : end] for at, end in itertools.pairwise(bounds)]
    if messages[0][0] == 0x12:
        del messages[0]
    read = 0
    for _ in range(120):
        changed = [bytearray(message) for message in messages]
        for _ in range(rng.choice([1, 3])):
            message = rng.choice(changed)
            message[rng.randrange(len(message))] = rng.choice(
                [0, 1, 4, 8, 0x12, 0x28, 0x2A, 0x52, 0x80, rng.randrange(256)]
            )
        path.write_bytes(framed(*map(bytes, changed)))
        try:
            file = read_chakra(path)
        except InputError:
            continue
        read += 1
        nodes = [pb.Node.FromString(bytes(message)) for message in changed]
        assert file.id.tolist() == [one.id for one in nodes]
        assert list(file.name) == [one.name for one in nodes]
        assert file.type.tolist() == [one.type for one in nodes]
        assert file.duration_us.tolist() == [float(one.duration_micros) for one in nodes]
        assert (file.ctrl_deps, file.data_deps) == (
            sum(len(one.ctrl_deps) for one in nodes),
            sum(len(one.data_deps) for one in nodes),
        )
        row_of = {one.id: row for row, one in enumerate(nodes)}
        for row, one in enumerate(nodes):
            there = {row_of[dep] for dep in (*one.ctrl_deps, *one.data_deps) if dep in row_of}
            assert set(file.dep_idx[file.dep_ptr[row] : file.dep_ptr[row + 1]].tolist()) == there
    assert 20 < read < 120


@pytest.mark.parametrize("few", [0, 10**9])
def test_numbers_of_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(chakra_wire, "_FEW", few)
    rng, path = random.Random(7), tmp_path / "t.0.et"
    ids = [2**64 - 1, 2**63, *(2**k - 1 for k in range(1, 63, 7)), *(2**k for k in range(7, 63, 7))]
    nodes = []
    for ident in ids:
        deps = rng.sample(ids, 4)
        sizes = [attribute("num_ops", uint64_val=ident), attribute("comm_dst", int64_val=ident % 2**62 - 2**61)]
        nodes.append(pb.Node(id=ident, type=4, data_deps=deps, duration_micros=ident, attr=sizes))
    path.write_bytes(framed(*(one.SerializeToString() for one in nodes)))
    file = read_chakra(path)
    assert file.id.tolist() == ids
    assert file.num_ops.tolist() == file.duration_us.tolist() == [float(ident) for ident in ids]
    assert file.comm_dst.tolist() == [ident % 2**62 - 2**61 for ident in ids]
    for row, one in enumerate(nodes):
        found = file.id[file.dep_idx[file.dep_ptr[row] : file.dep_ptr[row + 1]]]
        assert sorted(found.tolist()) == sorted(set(one.data_deps))
    assert file.counts()["num_ops"] == sum(int(float(ident)) for ident in ids)


def test_of_a_field_or_attribute_that_stands_twice_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "t.0.et"
    twice = node(1, name="a") + b"\x08\x09\x12\x01b\x38\x03\x38\x04"
    groups = [attribute("pg_name", string_val="1"), attribute("comm_group", int64_val=2)]
    sizes = [attribute("num_ops", double_val=0.5e3), attribute("num_ops", string_val="7"), attribute("num_ops")]
    path.write_bytes(framed(twice, node(2, attr=groups + sizes), node(3, attr=groups[::-1] + sizes[1::-1])))
    file = read_chakra(path)
    assert (file.id.tolist(), file.name[0], file.duration_us[0]) == ([9, 2, 3], "b", 4)
    assert (file.pg_name, file.num_ops.tolist()) == (("", "2", "1"), [0, 7, 500])


def test_names_and_values_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "t.0.et"
    near = [
        "num_opz",
        "xnum_ops",
        "comm_typ",
        "comm_typX",
        "tensor_sizE",
        "cmsim_durationXps",
        "is_cpu_op_",
        "pg_namE",
        "s",
    ]
    unknown = [b"\x0a\x09comm_size\x08\x00", b"\x0a\x0btensor_size\x80\x01\x07", b"\x0a\x07num_ops", b"\x0a\x06stream"]
    path.write_bytes(
        framed(
            node(1, 7, attr=[attribute(name, int64_val=5) for name in near] + unknown),
            node(2, 7, attr=[attribute("comm_type", sint64_val=3), attribute("comm_size", fixed32_val=9)]),
        )
    )
    file = read_chakra(path)
    assert np.isnan(file.comm_size_B[0]) and file.comm_size_B[1] == 9
    assert (file.comm_type.tolist(), file.is_cpu.tolist(), file.duration_ps.tolist()) == ([-1, 3], [-1, -1], [-1, -1])
    assert not file.num_ops.any() and not file.tensor_size_B.any()
    assert file.pg_name == file.stream == ("", "")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"int32_val": 7}, "7"),
        ({"int64_val": -7}, "-7"),
        ({"uint64_val": 2**64 - 1}, str(2**64 - 1)),
        ({"bool_val": True}, "True"),
        ({"double_val": 1.5}, "1.5"),
        ({"string_val": "x\u00e9" * 100}, "x\u00e9" * 100),
        ({"bytes_val": b"x\xff"}, "x\ufffd"),
        ({"string_val": ""}, ""),
        ({}, ""),
    ],
)
def test_text_may_be_written_as_a_number(tmp_path: Path, value: dict[str, Any], text: str) -> None:
    path = tmp_path / "t.0.et"
    both = [attribute("stream", **value), attribute("pg_name", **value)]
    path.write_bytes(framed(node(1, attr=both), node(2, attr=[attribute("stream", string_val="9")])))
    file = read_chakra(path)
    assert (file.stream, file.pg_name) == ((text, "9"), (text, ""))


def test_streams_of_a_profiler_are_threads_where_it_calls_them_so(tmp_path: Path) -> None:
    path = tmp_path / "t.0.et"
    mark, thread = attribute("fw_parent", int64_val=-1), attribute("tid", int64_val=7)
    host, stream = attribute("is_cpu_op", bool_val=True), attribute("stream", int64_val=20)
    nodes = [node(1, attr=[mark, thread]), node(2, attr=[thread, host]), node(3, attr=[thread, stream]), node(4)]
    path.write_bytes(framed(*nodes))
    assert read_chakra(path).stream == ("7", "", "20", "")
    path.write_bytes(framed(*nodes[1:]))
    assert read_chakra(path).stream == ("", "20", "")


# -- bad files ---------------------------------------------------------------------------------------------

GOOD = framed(node(1), node(2))
OLD = framed(node(1) + b"\x60\x05")  # field 12, num_ops of the 2022 layout

BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "only metadata": (framed(b""), "holds no nodes"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "byte 0: .*not a Chakra trace"),
    "text": (b"hello world, this is not a trace", "byte 0: .*not a Chakra trace"),
    "length cut": (GOOD + b"\x80", "byte [0-9]+: the length of a message is cut short"),
    "length of over ten bytes": (b"\xff" * 11 + b"\x01", "byte 0: a length of over 10 bytes"),
    "length beyond the file": (GOOD + b"\xff\xff\xff\xff\x0f", "bytes is announced but 0 bytes are left"),
    "message cut": (GOOD[:-1], "the file is cut short"),
    "broken message": (GOOD + framed(b"\x0a\xff"), "byte [0-9]+: broken data"),
    "unknown type": (framed(node(1, 42)), "node type 42 is unknown"),
    "invalid type": (framed(node(1, 0)), "node type 0 is INVALID"),
    "old layout": (OLD, "before 2023-10"),
    "old layout with attributes": (
        framed(node(1, attr=[attribute("is_cpu_op", bool_val=True)]) + b"\x60\x05"),
        "byte 0: node 1: this is a Chakra layout from before 2023-10",
    ),
    "same id": (framed(node(5), node(5)), "node id 5 stands twice"),
    "comm_type": (framed(node(3, 7, attr=[attribute("comm_type", int64_val=10)])), "unknown comm_type 10"),
    "negative size": (framed(node(3, 7, attr=[attribute("comm_size", int64_val=-1)])), "byte 0: attribute comm_size"),
    "size not a number": (framed(node(3, 7, attr=[attribute("comm_size", double_val=float("nan"))])), "comm_size"),
    "gzip cut": (gzip.compress(GOOD)[:-9], "broken gzip data"),
    "gzip broken": (gzip.compress(GOOD)[:12] + b"\xff" * 30, "broken gzip data"),
    "number of eleven bytes": (framed(b"\x08" + b"\xff" * 10 + b"\x01\x18\x04"), "byte 0: not a Chakra trace"),
    "dependency without end": (GOOD + framed(node(3) + b"\x2a\x02\x01\x80"), "byte 10: broken data"),
    "name that is no text": (GOOD + framed(node(3) + b"\x12\x01\xff"), "byte 10: broken data"),
    "attribute that is no attribute": (framed(node(3, attr=[b"\x0a\x07num_ops\x48"])), "byte 0: broken data: an attr"),
    "stream that is no text": (
        framed(node(3, attr=[b"\x0a\x06stream\xea\x01\x01\xff"])),
        "byte 0: broken data: an attr",
    ),
    "groups that do not parse": (
        framed(node(1, 1, name="process_group:init", inputs=b"\x0a\xff")),
        "byte 0: broken data: the node's inputs",
    ),
    "groups that are none": (
        framed(node(1, 1, name="process_group:init", inputs=pb.IOInfo(values="[3]").SerializeToString())),
        "byte 0: a process_group:init node whose groups cannot be read",
    ),
    "cut behind a broken message": (GOOD + framed(b"\x0a\xff") + b"\x7f", "byte 10: broken data"),
    "flops that are text": (
        framed(node(3, attr=[attribute("cmsim_flops", string_val="1")])),
        "byte 0: attribute cmsim_flops: expected a number, got '1'",
    ),
    "shape that is none": (
        framed(node(3, attr=[attribute("cmsim_shape", string_val="[1]")])),
        "attribute cmsim_shape: expected",
    ),
    "json deps that are none": (
        b'{"workload_graph": [{"Id": 1, "NodeType": 4, "data_deps": 7}]}',
        r"workload_graph\[0\]: data_deps: expected a list of node ids",
    ),
    "json size": (
        b'{"workload_graph": [{"Id": 1, "NodeType": 4}, {"Id": 2, "NodeType": 4, "comm_size": -1}]}',
        r"workload_graph\[1\]: attribute comm_size: expected a whole number",
    ),
    "json id": (b'{"workload_graph": [{"NodeType": 4}]}', r"workload_graph\[0\]: id: expected a whole number from 0"),
    "json type": (b'{"workload_graph": [{"Id": 1, "NodeType": 9}]}', r"workload_graph\[0\]: node 1: node type 9"),
    "json without graph": (b'{"nodes": []}', "no list named workload_graph"),
    "json broken": (b'{"workload_graph": [', "byte 20: not valid JSON|not valid JSON"),
    "json node": (b'{"workload_graph": [3]}', r"workload_graph\[0\]: expected an object"),
    "json deps": (b'{"workload_graph": [{"Id": 1, "NodeType": 4, "data_deps": ["x"]}]}', "list of node ids"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_file_is_refused_with_its_name_and_place(tmp_path: Path, what: str) -> None:
    data, message = BAD[what]
    path = tmp_path / "bad.0.et"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read_chakra(path)
    assert str(path) in str(caught.value)


SIZE_B = 4_000_000
MANY = b"".join(framed(node(i, name="a name of some length", data_deps=[i // 2])) for i in range(1, 100_000))

DAMAGED: dict[str, bytes] = {
    "one message of all": b"\x80\xd0\xac\xf3\x0e" + bytes(SIZE_B),
    "a number without end": b"\x80" * SIZE_B,
    "cut": b"".join(framed(node(i, name=f"name {i} of {i}")) for i in range(1, 120_000))[:-5],
    "a broken message at the end": MANY + framed(b"\x0a\xff"),
    "one message that is no node": framed(b"\x0b" * SIZE_B),
    "a name that is longer than the message": framed(b"\x08\x01\x18\x04\x12\xff\xff\xff\x7f" + b"x" * SIZE_B),
    "text": b'"x" and more\n' * (SIZE_B // 13),
}


@pytest.mark.parametrize("what", DAMAGED)
@pytest.mark.parametrize("mapped_B", [1, 2**40])
def test_a_damaged_file_takes_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, mapped_B: int
) -> None:
    monkeypatch.setattr(chakra, "_MAPPED_B", mapped_B)
    path = tmp_path / "bad.0.et"
    path.write_bytes(DAMAGED[what])
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"byte \d+: "):
            read_chakra(path, limit_B=2 * SIZE_B)
        peak_B = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # the file itself where it is not mapped, a copy of a message that is all of it, and a block of messages in columns
    size_B = len(DAMAGED[what])
    assert peak_B < 2 * size_B + 6_000_000


def test_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_chakra(tmp_path / "none.0.et")


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.0.et"
    path.write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(InputError, match="larger than 1000 bytes when expanded"):
        read_chakra(path, limit_B=1000)
