"""ONNX files: counts established by others, costs against formulas, and files that are damaged."""

from __future__ import annotations

import json
import math
import random
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from cmsim.cli.app import app
from cmsim.errors import InputError
from cmsim.graphs.load import load_graph
from cmsim.graphs.ops import OPS
from cmsim.graphs.work import graph_info, graph_work
from cmsim.reading import DATA

onnx = pytest.importorskip("onnx", reason="the onnx package, an optional extra, is absent")
from onnx import TensorProto, helper  # noqa: E402

SAMPLES = DATA / "workloads" / "traces" / "onnx"
FLOAT, INT64, INT8, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT8, TensorProto.UINT8


def given(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name, shape, kind=FLOAT):
    numpy_of = {FLOAT: np.float32, INT64: np.int64, INT8: np.int8, UINT8: np.uint8}
    return onnx.numpy_helper.from_array(np.ones(shape, numpy_of[kind]), name)


def model(tmp_path, nodes, inputs, outputs, weights=(), *, functions=(), opset=20, name="model"):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("mine", 1), helper.make_opsetid("com.microsoft", 1)]
    path = tmp_path / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10), path)
    return path


def one(tmp_path, op, inputs, weights, out, *, out_kind=FLOAT, domain="", opset=20, **attributes):
    """Info of a model of one node."""
    names = [value.name for value in inputs] + [tensor.name for tensor in weights]
    if "order" in attributes:
        names = attributes.pop("order")
    node = helper.make_node(op, names, ["y"], domain=domain, **attributes)
    path = model(tmp_path, [node], inputs, [given("y", out, out_kind)], weights, opset=opset)
    return graph_info(load_graph(path))


# counts that were established by other means


@pytest.mark.parametrize("name", ["light_resnet50", "light_bvlc_alexnet", "light_squeezenet"])
def test_counts_of_the_samples(shared, name):
    truth = json.loads((shared / "traces" / "TRUTH.json").read_text())[f"onnx/{name}.onnx"]
    found = graph_info(load_graph(shared / "traces" / "onnx" / f"{name}.onnx"))
    assert found["matrix_macs"] == truth["conv_gemm_macs"]
    assert found["matrix_weights"] == truth["conv_gemm_weight_elems"]
    assert found["op_types"] == truth["op_types"]
    assert found["nodes"] == truth["nodes"]
    assert found["ir_version"] == truth["ir_version"]
    assert found["inputs"] == truth["inputs_not_initializers"]
    assert found["nodes_without_shape"] == truth["conv_gemm_nodes_without_shape"] == 0
    assert not found["unknown_ops"]


def test_resnet_50_as_file_and_as_config():
    file, config = graph_info(load_graph(SAMPLES / "light_resnet50.onnx")), graph_info(load_graph("resnet50"))
    for key in ("trainable_parameters", "parameters", "matrix_macs", "matrix_weights"):
        assert file[key] == config[key], key
    assert file["trainable_parameters"] == 25_557_032


# what operators cost


@pytest.mark.parametrize(
    ("op", "inputs", "weights", "out", "attributes", "flops", "kernel"),
    [
        pytest.param("MatMul", [(5, 7)], [(7, 3)], (5, 3), {}, 2 * 5 * 7 * 3, "gemm", id="product"),
        pytest.param("MatMul", [(2, 5, 7), (2, 7, 3)], [], (2, 5, 3), {}, 2 * 2 * 5 * 7 * 3, "gemm", id="batched"),
        pytest.param("Gemm", [(7, 5)], [(7, 3)], (5, 3), {"transA": 1}, 2 * 5 * 7 * 3, "gemm", id="turned"),
        pytest.param("Gemm", [(5, 7)], [(3, 7)], (5, 3), {"transB": 1}, 2 * 5 * 7 * 3, "gemm", id="turned weight"),
        pytest.param("Conv", [(1, 8, 6, 6)], [(4, 8, 3, 3)], (1, 4, 4, 4), {}, 2 * 64 * 72, "gemm", id="conv"),
        pytest.param(
            "Conv", [(1, 8, 6, 6)], [(8, 1, 3, 3)], (1, 8, 4, 4), {"group": 8}, 2 * 128 * 9, "generic", id="depthwise"
        ),
        pytest.param("ConvTranspose", [(1, 8, 4, 4)], [(8, 4, 3, 3)], (1, 4, 6, 6), {}, 2 * 128 * 36, "gemm", id="up"),
        pytest.param(
            "MaxPool", [(1, 8, 6, 6)], [], (1, 8, 4, 4), {"kernel_shape": [3, 3]}, 128 * 9, "generic", id="pool"
        ),
        pytest.param("GlobalAveragePool", [(1, 8, 6, 6)], [], (1, 8, 1, 1), {}, 288, "generic", id="mean"),
        pytest.param(
            "Einsum", [(5, 7), (7, 3)], [], (5, 3), {"equation": "ij,jk->ik"}, 2 * 5 * 7 * 3, "gemm", id="einsum"
        ),
        pytest.param("Add", [(5, 7), (5, 7)], [], (5, 7), {}, 35, "generic", id="sum"),
        pytest.param("Softmax", [(5, 7)], [], (5, 7), {}, 175, "generic", id="softmax"),
        pytest.param("LayerNormalization", [(5, 7)], [(7,)], (5, 7), {}, 175, "norm", id="norm"),
        pytest.param("Transpose", [(5, 7)], [], (7, 5), {}, 0, "generic", id="transpose"),
        pytest.param("Flatten", [(5, 7, 2)], [], (5, 14), {}, 0, "", id="view"),
        pytest.param(
            "LSTM",
            [(10, 2, 6)],
            [(1, 32, 6), (1, 32, 8)],
            (10, 1, 2, 8),
            {"hidden_size": 8},
            2 * 20 * (32 * 6 + 32 * 8),
            "gemm",
            id="lstm",
        ),
    ],
)
def test_work_of_one_operator(tmp_path, op, inputs, weights, out, attributes, flops, kernel):
    xs = [given(f"x{i}", shape) for i, shape in enumerate(inputs)]
    ws = [weight(f"w{i}", shape) for i, shape in enumerate(weights)]
    found = one(tmp_path, op, xs, ws, out, **attributes)
    (row,) = found["by_op"]
    assert (row["flops"], row["kernel"]) == (flops, kernel)
    operands = sum(int(np.prod(shape)) for shape in (*inputs, *weights, out))
    assert row["bytes"] == (4 * operands if kernel else 0)


def test_a_fused_attention_core(tmp_path):
    xs = [given(name, (2, 4, 16, 8)) for name in "qkv"]
    found = one(tmp_path, "Attention", xs, [], (2, 4, 16, 8), opset=23)
    # both products over 16 keys
    assert found["flops"] == 2 * (2 * 2 * 4 * 16 * 16 * 8)


def test_a_table_is_read_by_rows(tmp_path):
    found = one(tmp_path, "Gather", [given("i", (6,), INT64)], [weight("t", (1000, 32))], (6, 32), order=["t", "i"])
    assert found["traffic_bytes"] == 2 * 4 * 6 * 32 + 8 * 6


def test_quantised_forms(tmp_path):
    x, out = given("x", (1, 8, 6, 6), UINT8), (1, 4, 4, 4)
    ws = [weight("s", ()), weight("z", (), UINT8), weight("w", (4, 8, 3, 3), INT8), weight("wz", (), INT8)]
    order = ["x", "s", "z", "w", "s", "wz", "s", "z"]
    found = one(tmp_path, "QLinearConv", [x], ws, out, out_kind=UINT8, order=order)
    assert found["flops"] == 2 * 64 * 72
    path = tmp_path / "model.onnx"
    work = graph_work(load_graph(path))
    assert work.precisions[work.precision[0]] == "int8"


def test_weights_that_are_widened_are_folded(tmp_path):
    nodes = [
        helper.make_node("DequantizeLinear", ["w8", "s"], ["w"]),
        helper.make_node("Transpose", ["w"], ["wt"]),
        helper.make_node("MatMul", ["x", "wt"], ["y"]),
    ]
    ws = [weight("w8", (3, 7), INT8), weight("s", ())]
    found = graph_info(load_graph(model(tmp_path, nodes, [given("x", (5, 7))], [given("y", (5, 3))], ws)))
    kernels = {row["op"]: row["kernel"] for row in found["by_op"]}
    assert kernels == {"DequantizeLinear": "", "Transpose": "", "MatMul": "gemm"}
    assert found["parameters"] == 21 + 1


def test_unknown_operators_are_counted_and_said(tmp_path):
    found = one(tmp_path, "Whirl", [given("x", (5, 7))], [], (5, 7), domain="mine")
    assert found["unknown_ops"] == {"mine.Whirl": 1}
    assert found["by_op"][0]["bytes"] == 2 * 4 * 35
    said = CliRunner().invoke(app, ["trace", "info", str(tmp_path / "model.onnx")]).stdout
    assert "unknown operators, counted by their operands alone: mine.Whirl (1)" in said


def test_every_operator_of_the_standard_but_a_few_has_a_line():
    schemas = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    # texts, pictures as files, and what is newer than these lines
    missing = {name for name in schemas - set(OPS) if "String" not in name}
    assert missing <= {
        "CausalConvWithState",
        "ImageDecoder",
        "LinearAttention",
        "RegexFullMatch",
        "SequenceMap",
        "TfIdfVectorizer",
    }


def test_open_dimensions(tmp_path):
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    shapes = [given("x", ("batch", "tokens", 8))], [given("y", ("batch", "tokens", 3))]
    path = model(tmp_path, [node], *shapes, [weight("w", (8, 3))])
    found = graph_info(load_graph(path))
    assert found["inputs"] == [["x", [1, 1, 8]]]
    assert found["notes"] == ["dimension 'tokens' is left open by the file and taken as 1; give its size in dims"]
    found = graph_info(load_graph(path, sizes={"tokens": 50, "batch": 4}))
    assert (found["flops"], found["samples"], found["notes"]) == (2 * 4 * 50 * 8 * 3, 4, [])
    with pytest.raises(InputError, match=r"no open dimension 'words'\. Open: batch, tokens"):
        load_graph(path, sizes={"words": 3})


def test_functions_are_inlined(tmp_path):
    body = [helper.make_node("MatMul", ["a", "b"], ["t"]), helper.make_node("Relu", ["t"], ["c"])]
    function = helper.make_function("mine", "Dense", ["a", "b"], ["c"], body, [helper.make_opsetid("", 20)])
    node = helper.make_node("Dense", ["x", "w"], ["y"], domain="mine")
    path = model(
        tmp_path, [node], [given("x", (5, 7))], [given("y", (5, 3))], [weight("w", (7, 3))], functions=[function]
    )
    assert graph_info(load_graph(path))["op_types"] == {"MatMul": 1, "Relu": 1}


def test_bodies_of_control_flow_are_counted_once(tmp_path):
    def branch(name):
        return helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["r"])], name, [], [given("r", (5, 3))])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("yes"), else_branch=branch("no"))
    inputs = [given("x", (5, 7)), given("c", (), TensorProto.BOOL)]
    found = graph_info(load_graph(model(tmp_path, [node], inputs, [given("y", (5, 3))], [weight("w", (7, 3))])))
    assert found["op_types"] == {"If": 1, "MatMul": 1}
    assert found["flops"] == 2 * 5 * 7 * 3
    assert "If: each body is counted once" in found["notes"][0]


# damaged files, and no package


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    done = CliRunner().invoke(app, ["trace", "info", str(SAMPLES / "light_squeezenet.onnx")])
    assert done.exit_code == 2
    assert "reading ONNX needs the onnx package: pip install 'cmsim[onnx]'" in done.stderr


def test_a_file_that_ends_early_says_where(tmp_path):
    data = (SAMPLES / "light_squeezenet.onnx").read_bytes()
    path = tmp_path / "short.onnx"
    path.write_bytes(data[:9000])
    with pytest.raises(InputError, match=r"byte \d+: graph 1 should be 15586 bytes long, \d+ are left"):
        load_graph(path)


def test_a_field_that_does_not_fit_says_where(tmp_path):
    data = bytearray((SAMPLES / "light_squeezenet.onnx").read_bytes())
    at = data.index(b"Conv")
    data[at - 1] = 120  # the length of the name
    path = tmp_path / "bad.onnx"
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"byte \d+: graph 1, node \d+, field 4 1 should be 120 bytes long"):
        load_graph(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x08\x07", "there is no graph with nodes in it"),
        (b"hello, this is no model", "is no ONNX model, or a damaged one: byte"),
    ],
)
def test_files_that_are_no_model(tmp_path, data, message):
    path = tmp_path / "not.onnx"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        load_graph(path)


def test_a_node_that_reads_what_nothing_makes(tmp_path):
    node = helper.make_node("Relu", ["z"], ["y"], name="last")
    path = model(tmp_path, [node], [given("x", (5, 7))], [given("y", (5, 7))])
    with pytest.raises(InputError, match=r"node 0 \('last', Relu\) reads 'z', which nothing makes"):
        load_graph(path)


def test_damage_is_always_told(tmp_path):
    data = (SAMPLES / "light_squeezenet.onnx").read_bytes()
    draw = random.Random(7)
    path = tmp_path / "damaged.onnx"
    for turn in range(150):
        broken = bytearray(data)
        for _ in range(1 + turn % 12):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        path.write_bytes(bytes(broken[: draw.randrange(len(broken))] if turn % 3 == 0 else broken))
        try:
            graph_info(load_graph(path))
        except InputError as error:
            assert str(path) in str(error)


# the command


def test_info_as_json():
    done = CliRunner().invoke(app, ["trace", "info", str(SAMPLES / "light_resnet50.onnx"), "--json"])
    found = json.loads(done.stdout)
    assert found["matrix_macs"] == 4_089_184_256
    assert found["by_op"][0] == {
        "op": "Conv",
        "count": 53,
        "flops": 2 * (4_089_184_256 - 2048 * 1000),
        "bytes": found["by_op"][0]["bytes"],
        "kernel": "gemm",
    }


def test_info_of_several():
    files = [str(SAMPLES / "light_squeezenet.onnx"), "vit-b-16", "bert-base", "deepseek-r1"]
    done = CliRunner().invoke(app, ["trace", "info", *files, "--json"])
    kinds = [(one["name"], one["kind"]) for one in json.loads(done.stdout)]
    assert kinds == [
        ("light_squeezenet", "graph"),
        ("vit-b-16", "graph"),
        ("bert-base", "graph"),
        ("deepseek-r1", "decoder"),
    ]
    shown = CliRunner().invoke(app, ["trace", "info", *files])
    assert shown.exit_code == 0
    assert "86,567,656" in shown.stdout


@pytest.mark.parametrize("dim", ["tokens", "tokens=0", "=3", "tokens=many"])
def test_a_size_must_be_a_number(dim):
    done = CliRunner().invoke(app, ["trace", "info", "bert-base", "--dim", dim])
    assert done.exit_code == 2
    assert "expected NAME=SIZE" in done.stderr


def test_attention_of_grouped_queries_and_packed_products(tmp_path):
    def macs(op: str, inputs: list[tuple[str, list[int]]], weights: list[tuple[str, list[int]]], **more: int) -> float:
        ins = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, dims) for name, dims in inputs]
        out = [helper.make_tensor_value_info("o", TensorProto.FLOAT16, [2, 128, 1024])]
        made = [
            helper.make_tensor(name, TensorProto.FLOAT16, dims, b"\0" * 2 * math.prod(dims), raw=True)
            for name, dims in weights
        ]
        node = helper.make_node(op, [name for name, _ in (*inputs, *weights)], ["o"], domain="com.microsoft", **more)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        path = tmp_path / "x.onnx"
        graph = helper.make_graph([node], "g", ins, out, made)
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
        return float(graph_info(load_graph(path))["matrix_macs"])

    q, k, v = ("q", [2, 128, 1024]), ("k", [2, 128, 256]), ("v", [2, 128, 256])
    cache = [("pk", [2, 4, 64, 64]), ("pv", [2, 4, 64, 64])]
    # queries meet half of the new keys and all of the cache, in two products
    assert macs("GroupQueryAttention", [q, k, v, *cache], [], num_heads=16, kv_num_heads=4) == 2 * 2 * 128 * 1024 * 128
    packed = macs("Attention", [q], [("w", [1024, 3072]), ("b", [3072])], num_heads=16)
    assert packed == 2 * 128 * 1024 * 3072 + 2 * 2 * 128 * 1024 * 128
