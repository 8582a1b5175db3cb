"""PyTorch execution traces: counts as known, collectives with sizes in order, products with their work."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmsim.errors import InputError
from cmsim.reading.bytes_in import head
from cmsim.traces import c10d, pytorch_et
from cmsim.traces.recorded import Communicator, RankTrace, Trace
from cmsim.workload.ops import COLLECTIVE, COMPUTE, RECV, SEND

SAMPLES = Path(__file__).parents[2] / "workloads" / "traces" / "pytorch_et" / "dlrm_8gpu"
SHARED = Path(__file__).parents[2].parent / "shared" / "traces"
TRUTH: dict[str, Any] = json.loads((SHARED / "TRUTH.json").read_text()) if SHARED.exists() else {}
FILES = [*(f"pytorch_et/dlrm_8gpu/dlrm_eg_{rank}.json.gz" for rank in range(8)), "pytorch_et/resnet_2gpu_et.json.gz"]
needs_shared = pytest.mark.skipif(not TRUTH, reason="the full set of samples is not beside the checkout")


def sizes(rows: RankTrace) -> list[tuple[str, float]]:
    talks = np.flatnonzero(rows.kind == COLLECTIVE).tolist()
    return [(rows.collectives[rows.collective[row]], float(rows.bytes_B[row])) for row in talks]


@needs_shared
@pytest.mark.parametrize("name", FILES)
def test_counts_of_real_files(name: str) -> None:
    counts = pytorch_et.open_(SHARED / name).counts()
    assert {key: counts.get(key) for key in TRUTH[name]} == TRUTH[name]
    assert set(FILES) == {key for key in TRUTH if key.startswith("pytorch_et/")}


@needs_shared
@pytest.mark.parametrize("name", FILES)
def test_collectives_of_real_files_are_counted_once(name: str) -> None:
    (rows,) = pytorch_et.open_(SHARED / name).trace().ranks.values()
    truth = TRUTH[name]
    assert len(sizes(rows)) == sum(truth["record_param_comms_with_tensor"].values())
    assert sum(size for _, size in sizes(rows)) == sum(truth["nccl_node_input_bytes"].values())
    assert np.isnan(rows.duration_us).all() and np.isnan(rows.start_us).all()


@needs_shared
def test_a_training_job_has_the_work_of_its_model() -> None:
    trace = pytorch_et.open_(SHARED / "pytorch_et/resnet_2gpu_et.json.gz").trace()
    assert list(trace.ranks) == [1]  # as its collectives say; the name says 2 GPUs
    assert trace.communicators == (Communicator("0", (0, 1), 2),) and trace.world_size == 2
    rows = trace.ranks[1]
    # Three steps of ResNet-50 on 32 images: a forward pass is 4.09e9 multiplications, backward twice that, less the
    # gradient by the image.
    forward = 2 * 4.089e9 * 32
    image = 2 * 32 * 64 * 112 * 112 * 3 * 7 * 7
    assert rows.flops.sum() == pytest.approx(3 * (3 * forward - image), rel=0.01)
    assert any("no times" in note for note in trace.notes)


@needs_shared
def test_only_execution_traces_are_taken_for_them() -> None:
    for path in sorted(SHARED.rglob("*")):
        if path.is_file():
            assert pytorch_et.sniff(head(path), path) == (path.parts[-2:-1] != () and "pytorch_et" in path.parts), path
    assert pytorch_et.sniff(b"", SHARED / "pytorch_et" / "dlrm_8gpu")
    assert not pytorch_et.sniff(b"", SHARED / "onnx")


def test_samples_that_ship() -> None:
    assert pytorch_et.sniff(b"", SAMPLES)
    opened = pytorch_et.open_(SAMPLES)
    counts = opened.counts()["files"]["dlrm_eg_1.json.gz"]
    assert counts["nodes"] == 1675 and counts["record_param_comms"] == {
        "all_to_all": 1,
        "all_to_allv": 4,
        "allreduce": 3,
        "wait": 5,
    }
    trace = opened.trace()
    assert list(trace.ranks) == [0, 1] and trace.communicators == (Communicator("communicator 0"),)
    expected = [("all_to_all", size) for size in (24576.0, 192.0, 1536.0, 13568.0)]
    expected += [("all_reduce", 1576964.0), ("all_to_all", 24576.0), ("all_reduce", 448.0), ("all_reduce", 907840.0)]
    assert sizes(trace.ranks[0]) == expected
    assert (trace.ranks[0].flops > 0).sum() == 23 and trace.ranks[0].flops.sum() == 60487168.0


# -- files made here ---------------------------------------------------------------------------------------


def tensor(count: int, width: int = 4) -> list[Any]:
    return [1, 2, 0, count, width, "cuda:0"]


def node(
    ident: int, name: str, inputs: list[Any], types: list[str], outputs: list[Any] | None = None, **more: Any
) -> dict[str, Any]:
    """A node of schema 1.0.2 or later; ``shapes`` of the inputs and ``out_shapes`` may be given."""
    outputs = outputs or []
    return {
        "id": ident,
        "name": name,
        "ctrl_deps": more.get("parent", 1),
        "inputs": {"values": inputs, "shapes": more.get("shapes", [[] for _ in inputs]), "types": types},
        "outputs": {
            "values": outputs,
            "shapes": more.get("out_shapes", [[] for _ in outputs]),
            "types": ["Tensor(float)" for _ in outputs],
        },
        "attrs": [],
    }


def call(
    ident: int,
    operation: str,
    count: int,
    out: int = 0,
    *,
    number: int = 0,
    place: int = 0,
    group: tuple[str, int, int, int] = ("tp", 0, 1, 4),
) -> dict[str, Any]:
    name, start, stride, size = group
    values = [[tensor(count)], number, [name, "described"], place, operation, [], [], start, stride, size]
    types = ["GenericList[Tensor(float)]", "Int", "Tuple[String,String]", "Int", "String", *["GenericList[]"] * 2]
    return node(ident, "record_param_comms", values, [*types, *["Int"] * 3], [tensor(out or count)])


def wait(ident: int, number: int) -> dict[str, Any]:
    values = [number, ["", ""], 0, "wait", [], [], -1, -1, 1]
    types = ["Int", "Tuple[String,String]", "Int", "String", *["GenericList[]"] * 2, *["Int"] * 3]
    return node(ident, "record_param_comms", values, types)


def product(ident: int, rows: int = 16, parent: int = 1) -> dict[str, Any]:
    both = ["Tensor(c10::BFloat16)"] * 2
    return node(
        ident, "aten::mm", [tensor(rows * 8, 2), tensor(32, 2)], both, shapes=[[rows, 8], [8, 4]], parent=parent
    )


def write(folder: Path, nodes: list[dict[str, Any]], schema: str = "1.1.1-chakra.0.0.4", name: str = "et.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({"schema": schema, "pid": 1, "time": "", "start_ts": 1, "nodes": nodes, "finish_ts": 2}))
    return path


def made(folder: Path, *nodes: dict[str, Any], **options: Any) -> Trace:
    return pytorch_et.open_(write(folder, list(nodes))).trace(**options)


def only(trace: Trace) -> RankTrace:
    (rows,) = trace.ranks.values()
    return rows


@pytest.mark.parametrize(
    ("operation", "inward", "outward", "expected", "size_B"),
    [
        ("allreduce", 100, 100, "all_reduce", 400),
        ("_allgather_base", 100, 400, "all_gather", 1600),
        ("_reduce_scatter_base", 400, 100, "reduce_scatter", 1600),
        ("all_to_allv", 100, 70, "all_to_all", 400),
        ("broadcast", 100, 100, "broadcast", 400),
        ("barrier", 1, 1, "barrier", 0),
    ],
)
def test_sizes(tmp_path: Path, operation: str, inward: int, outward: int, expected: str, size_B: float) -> None:
    trace = made(tmp_path, call(5, operation, inward, outward, group=("dp", 2, 4, 4)))
    assert sizes(only(trace)) == [(expected, size_B)]
    assert trace.communicators == (Communicator("dp", (2, 6, 10, 14), 4),)
    rooted = operation == "broadcast"  # there the place is the root's, and nothing tells the rank
    assert list(trace.ranks) == [0 if rooted else 2]


def test_rows_go_by_number_and_wait_for_each_other(tmp_path: Path) -> None:
    nodes = [wait(9, 33), product(10), call(8, "allreduce", 5, number=33), product(5), product(7), product(12)]
    rows = only(made(tmp_path, *nodes))
    assert [rows.names[i] for i in rows.name] == ["aten::mm", "aten::mm", "c10d::all_reduce", "aten::mm", "aten::mm"]
    assert rows.kind.tolist() == [COMPUTE, COMPUTE, COLLECTIVE, COMPUTE, COMPUTE]
    pairs = np.repeat(np.arange(5), np.diff(rows.dep_ptr)).tolist(), rows.dep_idx.tolist()
    assert list(zip(*pairs, strict=True)) == [(2, 1), (3, 2)]
    assert [rows.streams[i] for i in rows.stream] == ["compute", "compute", "comm 0", "compute", "compute"]


def test_of_operators_that_call_each_other_the_innermost_counts(tmp_path: Path) -> None:
    outer = node(4, "aten::linear", [], ["Tensor(float)"] * 2, shapes=[[16, 8], [4, 8]])
    rows = only(made(tmp_path, outer, product(6, parent=5), node(5, "aten::matmul", [], [], parent=4)))
    assert [rows.names[i] for i in rows.name] == ["aten::mm"]
    assert rows.flops.tolist() == [2 * 16 * 8 * 4] and rows.bytes_B.tolist() == [2 * (16 * 8 + 8 * 4 + 16 * 4)]
    assert rows.precisions == ("bf16",) and rows.kernels == ("gemm",)


def test_convolutions_take_the_shape_of_their_result(tmp_path: Path) -> None:
    image, weight, out = [2, 3, 8, 8], [5, 3, 3, 3], [2, 5, 6, 6]
    values = [tensor(math.prod(shape)) for shape in (image, weight)]
    forward = node(
        5,
        "aten::cudnn_convolution",
        values,
        ["Tensor(float)"] * 2,
        [tensor(math.prod(out))],
        shapes=[image, weight],
        out_shapes=[out],
    )
    gradient = node(
        7,
        "aten::convolution_backward",
        [tensor(math.prod(out)), *values, [False, True, False]],
        [*["Tensor(float)"] * 3, "GenericList[Bool,Bool,Bool]"],
        shapes=[out, image, weight, []],
    )
    once = 2 * math.prod(out) * 3 * 3 * 3
    assert only(made(tmp_path, forward, gradient)).flops.tolist() == [once, once]
    gradient["inputs"]["values"][-1] = [True, True, False]
    assert only(made(tmp_path, forward, gradient)).flops.tolist() == [once, 2 * once]


def test_messages_name_the_rank_at_the_other_end(tmp_path: Path) -> None:
    group = ("pp", 1, 2, 3)
    nodes = [call(4, "send", 5, place=2, group=group), call(5, "recv", 5, place=0, group=group), product(6)]
    rows = only(made(tmp_path, *nodes))
    assert rows.kind.tolist() == [SEND, RECV, COMPUTE] and rows.peer.tolist() == [5, 1, -1]


def test_groups_listed_by_name(tmp_path: Path) -> None:
    listed = json.dumps([{"pg_name": "ep", "ranks": [4, 1], "group_size": 2}, {"pg_name": "a", "ranks": []}])
    start = node(2, "## process_group:init ##", [listed], ["String"])
    trace = made(tmp_path, start, call(5, "allreduce", 5, group=("ep", -1, -1, 2)))
    assert trace.communicators == (Communicator("ep", (1, 4), 2),)


def test_a_group_of_one_and_calls_without_tensors_are_left_out(tmp_path: Path) -> None:
    bare = call(6, "allreduce", 5)
    bare["inputs"]["values"].pop(0)
    bare["inputs"]["types"].pop(0)
    bare["inputs"]["shapes"].pop(0)
    trace = made(tmp_path, call(5, "allreduce", 5, group=("me", 0, 1, 1)), bare, product(9))
    assert only(trace).kind.tolist() == [COMPUTE]
    assert "1 collectives in a group of one: left out" in trace.notes


def test_sizes_that_need_the_size_of_the_job(tmp_path: Path) -> None:
    flat = {
        "name": "record_param_comms", "id": 5, "parent": 1,
        "inputs": [tensor(10), 1, 94594108284448, 2, "_allgather_base", [], []],
        "input_types": ["Tensor(float)", "Int", "Int", "Int", "String", "GenericList[]", "GenericList[]"],
        "input_shapes": [[10], [], [], [], [], [], []],
        "outputs": [], "output_types": [], "output_shapes": [],
    }  # fmt: skip
    opened = pytorch_et.open_(write(tmp_path, [flat], "1.0.1"))
    assert sizes(only(opened.trace(ranks=6))) == [("all_gather", 240.0)]
    with pytest.raises(InputError, match="no collective with tensors"):
        opened.trace()
    assert list(opened.files) == [2]  # one group: the place in it is the rank


def test_ranks_of_a_folder(tmp_path: Path) -> None:
    for rank in (1, 0):
        write(tmp_path, [call(3, "allreduce", 4, group=("tp", -1, -1, 4), place=-1)], name=f"et_{rank}.json")
    (tmp_path / "other.json").write_text("{}")
    made = pytorch_et.open_(tmp_path)
    assert {rank: one.path.name for rank, one in made.files.items()} == {0: "et_0.json", 1: "et_1.json"}
    write(tmp_path, [call(3, "allreduce", 4, group=("tp", -1, -1, 4), place=-1)], name="again_1.json")
    with pytest.raises(InputError, match="nothing says which rank again_1"):
        pytorch_et.open_(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no execution trace"):
        pytorch_et.open_(tmp_path / "empty")


# -- bad files ---------------------------------------------------------------------------------------------


def changed(**keys: Any) -> dict[str, Any]:
    return {**call(5, "allreduce", 5), **keys}


@pytest.mark.parametrize(
    "bad_node",
    [
        7,
        [],
        {},
        changed(id="x"),
        changed(id=None),
        changed(name=3),
        changed(ctrl_deps=[1]),
        changed(inputs={}),
        changed(inputs=None),
        changed(inputs={"values": [], "types": [], "shapes": []}),
        changed(inputs={"values": [1], "types": ["String"], "shapes": []}),
        changed(outputs=None),
        {**product(3), "inputs": {"values": [], "types": [3], "shapes": [[1, 2], [2, 1]]}},
        node(3, "nccl:all_reduce", [[1, 2]], ["Tensor(float)"]),
        node(3, "nccl:all_reduce", [[1, 2, 3, "x", 4, 5]], ["Tensor(float)"]),
        node(3, "process_group:init", ["not json"], ["String"]),
        node(3, "process_group:init", ['[{"pg_name": "x", "ranks": ["a"]}]'], ["String"]),
    ],
)
def test_nodes_of_the_wrong_type(tmp_path: Path, bad_node: Any) -> None:
    path = write(tmp_path, [product(2), bad_node])
    with pytest.raises(InputError, match=r"et\.json: byte \d+: a node that cannot be read"):
        pytorch_et.open_(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ('{"schema": "1.0.1", "nodes": []}', "holds no nodes"),
        ('{"schema": "1.0.1"}', "no list nodes"),
        ('{"schema": 3, "nodes": []}', "schema: expected"),
        ('{"nodes": [1', "cut short|cannot be read"),
    ],
)
def test_documents_of_the_wrong_kind(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        pytorch_et.open_(path)


def test_nothing_to_replay(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no collective with tensors and no product"):
        made(tmp_path, node(3, "aten::relu", [tensor(3)], ["Tensor(float)"]))


def test_callers_in_a_circle_end(tmp_path: Path) -> None:
    rows = only(made(tmp_path, product(3, parent=4), product(4, parent=3), product(9, parent=9), product(12)))
    assert len(rows) == 1


# -- words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("allreduce", "all_reduce"),
        ("allreduce_sparse", "all_reduce"),
        ("all_gather_into_tensor", "all_gather"),
        ("nccl:_reduce_scatter_base", "reduce_scatter"),
        ("_broadcast_oop", "broadcast"),
        ("alltoall_base", "all_to_all"),
        ("all_to_all_single", "all_to_all"),
        ("send", "send"),
        ("nccl:recv 0<-2", "recv"),
        ("wait", ""),
        ("init", ""),
        ("coalesced", ""),
        ("", ""),
    ],
)
def test_names_of_collectives(name: str, expected: str) -> None:
    assert c10d.collective(name) == expected


def test_products_of_odd_shapes_are_none() -> None:
    for dims in (
        [],
        [[2, 3]],
        [[2, 3], [4, 5]],
        [[2], [2]],
        [[2, 3], 7],
        [[2, -3], [-3, 4]],
        [["a"], []],
        [None, None],
    ):
        assert c10d.matrix_product("aten::mm", dims, ["float", "float"]) is None
    assert c10d.matrix_product("aten::mm", [[2, 3], [3, 4]], ["odd", "float"]) is None
    assert c10d.matrix_product("aten::add", [[2, 3], [3, 4]], ["float", "float"]) is None


def test_a_convolution_needs_its_strides() -> None:
    dims: list[object] = [[8, 3, 224, 224], [64, 3, 7, 7], [], [], [], [], []]
    types = ["float", "float", "", "", "", "", ""]
    concrete = ["", "", "", "[2, 2]", "[3]", "[1, 1]", "False"]
    found = c10d.matrix_product("aten::convolution", dims, types, concrete)
    assert found is not None and found[0] == 2 * 8 * 64 * 112 * 112 * 3 * 7 * 7
    assert c10d.matrix_product("aten::convolution", dims, types) is None
    assert c10d.matrix_product("aten::convolution", dims, types, [*concrete[:-1], "True"]) is None
