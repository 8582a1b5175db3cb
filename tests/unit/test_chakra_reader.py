"""The Chakra reader against counts made by an independent parser, and the ways a file may be written."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmsim.errors import InputError
from cmsim.workload.trace import chakra_pb2 as pb
from cmsim.workload.trace.chakra import COMM_COLL, COMM_RECV, COMM_SEND, COMM_TYPES, NODE_TYPES, read_chakra

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
    "same id": (framed(node(5), node(5)), "node id 5 stands twice"),
    "comm_type": (framed(node(3, 7, attr=[attribute("comm_type", int64_val=10)])), "unknown comm_type 10"),
    "negative size": (framed(node(3, 7, attr=[attribute("comm_size", int64_val=-1)])), "byte 0: attribute comm_size"),
    "size not a number": (framed(node(3, 7, attr=[attribute("comm_size", double_val=float("nan"))])), "comm_size"),
    "gzip cut": (gzip.compress(GOOD)[:-9], "broken gzip data"),
    "gzip broken": (gzip.compress(GOOD)[:12] + b"\xff" * 30, "broken gzip data"),
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


def test_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_chakra(tmp_path / "none.0.et")


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.0.et"
    path.write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(InputError, match="larger than 1000 bytes when expanded"):
        read_chakra(path, limit_B=1000)
