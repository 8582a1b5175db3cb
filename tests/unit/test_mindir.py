"""MindIR files: counts established by others, costs against formulas, and files that are damaged."""

from __future__ import annotations

import json
import random

import pytest

from cmsim.errors import InputError
from cmsim.graphs import mindir_pb2 as pb
from cmsim.graphs.load import load_graph
from cmsim.graphs.work import graph_info, graph_work
from cmsim.reading import DATA

SAMPLES = DATA / "workloads" / "traces" / "mindir"
FLOAT, INT32 = 1, 6


def tensor(dims, *, name="", kind=FLOAT):
    return pb.Tensor(dims=dims, data_type=kind, name=name)


def node(op, reads, made, shape, **attributes):
    said = [pb.Attribute(name="shape", type=19, tensors=[tensor(shape)])]
    said += [pb.Attribute(name=name, i=value) for name, value in attributes.items() if isinstance(value, int)]
    said += [
        pb.Attribute(name=name, values=[pb.Attribute(ints=[size], type=7) for size in value])
        for name, value in attributes.items()
        if isinstance(value, tuple)
    ]
    said += [pb.Attribute(name=name, s=value) for name, value in attributes.items() if isinstance(value, bytes)]
    return pb.Node(op_type=op, input=reads, output=[made], name=made, attribute=said)


def write(tmp_path, nodes, inputs, weights=(), functions=()):
    graph = pb.Graph(
        node=nodes,
        parameter=[tensor(dims, name=name) for name, dims in weights],
        input=[pb.ValueInfo(name=name, tensor=[tensor(dims)]) for name, dims in inputs],
        output=[pb.ValueInfo(name=nodes[-1].output[0])],
    )
    path = tmp_path / "net.mindir"
    model = pb.Model(ir_version="0.1.1", producer_name="MindSpore", graph=graph, functions=functions)
    path.write_bytes(model.SerializeToString())
    return path


# counts that were established by other means


@pytest.mark.parametrize("name", ["ori_net", "relu"])
def test_counts_of_the_samples(shared, name):
    truth = json.loads((shared / "traces" / "TRUTH.json").read_text())[f"mindir/{name}.mindir"]
    found = graph_info(load_graph(shared / "traces" / "mindir" / f"{name}.mindir"))
    assert found["op_types"] == truth["op_types"]
    assert found["nodes"] == truth["nodes"]
    assert found["parameters"] == truth["parameter_elems"]
    assert [dims for _, dims in found["inputs"]] == truth["inputs"][0]
    assert found["functions"] == truth["functions"]
    assert found["ir_version"] == truth["ir_version"]
    assert found["mind_ir_version"] == (truth["mind_ir_version"] or 0)
    assert found["producer"] == truth["producer"]
    assert not found["unknown_ops"]
    assert not found["nodes_without_shape"]


def test_a_small_convolution_net_by_hand():
    """LeNet on 32 x 32: two convolutions and three products, weights of the latter as constants."""
    found = graph_info(load_graph(SAMPLES / "ori_net.mindir"))
    convolutions = 6 * 28 * 28 * 25 + 16 * 10 * 10 * 6 * 25
    assert found["matrix_macs"] == convolutions + 400 * 120 + 120 * 84 + 84 * 10
    assert found["constant_elements"] == 400 * 120 + 120 * 84 + 84 * 10
    windows = 4 * (6 * 14 * 14 + 16 * 5 * 5)
    assert next(row["flops"] for row in found["by_op"] if row["op"] == "MaxPool") == windows


# what operators cost


@pytest.mark.parametrize(
    ("nodes", "inputs", "weights", "flops"),
    [
        pytest.param([node("MatMul", ["x", "w"], "y", [5, 3])], {"x": [5, 7]}, {"w": [7, 3]}, 210, id="product"),
        pytest.param(
            [node("MatMul", ["x", "w"], "y", [5, 3], transpose_a=1)], {"x": [7, 5]}, {"w": [7, 3]}, 210, id="turned"
        ),
        pytest.param([node("Dense", ["x", "w"], "y", [5, 3])], {"x": [5, 7]}, {"w": [3, 7]}, 210, id="dense"),
        pytest.param(
            [node("Conv2D", ["x", "w"], "y", [1, 4, 4, 4])], {"x": [1, 8, 6, 6]}, {"w": [4, 8, 3, 3]}, 9216, id="conv"
        ),
        pytest.param(
            [node("Conv2D", ["x", "w"], "y", [1, 8, 4, 4], group=8)],
            {"x": [1, 8, 6, 6]},
            {"w": [8, 1, 3, 3]},
            2304,
            id="depthwise",
        ),
        pytest.param(
            [node("AvgPool", ["x"], "y", [1, 8, 4, 4], kernel_size=(1, 1, 3, 3))],
            {"x": [1, 8, 6, 6]},
            {},
            128 * 9,
            id="pool",
        ),
        pytest.param(
            [node("FlashAttentionScore", ["q", "k", "v"], "y", [2, 16, 4, 8], input_layout=b"BSND")],
            {"q": [2, 16, 4, 8], "k": [2, 16, 4, 8], "v": [2, 16, 4, 8]},
            {},
            2 * 2 * 2 * 4 * 16 * 16 * 8,
            id="attention",
        ),
    ],
)
def test_work_of_one_operator(tmp_path, nodes, inputs, weights, flops):
    graph = load_graph(write(tmp_path, nodes, inputs.items(), weights.items()))
    assert graph_work(graph).flops.tolist() == [flops]
    assert graph_info(graph)["traffic_bytes"] == 4 * graph.elements.sum()


def test_unknown_primitives_are_counted_and_said(tmp_path):
    path = write(tmp_path, [node("Whirl", ["x"], "y", [5, 7])], [("x", [5, 7])])
    found = graph_info(load_graph(path))
    assert found["unknown_ops"] == {"Whirl": 1}
    assert found["traffic_bytes"] == 2 * 4 * 35


def test_communication_in_the_file_is_said(tmp_path):
    found = load_graph(write(tmp_path, [node("AllReduce", ["x"], "y", [5, 7])], [("x", [5, 7])]))
    assert "communication of the file's own is not priced: 1 AllReduce" in found.notes


def test_functions_are_counted_once(tmp_path):
    inner = pb.Graph(
        node=[node("ReLU", ["a"], "b", [5, 7])], input=[pb.ValueInfo(name="a", tensor=[tensor([5, 7])])], name="inner"
    )
    graph = load_graph(write(tmp_path, [node("Call", ["inner", "x"], "y", [5, 7])], [("x", [5, 7])], functions=[inner]))
    assert graph.op_counts == {"Call": 1, "ReLU": 1}
    assert "functions: each is counted once, however often it is called" in graph.notes


# damaged files


def test_a_file_that_ends_early_says_where(tmp_path):
    path = tmp_path / "short.mindir"
    path.write_bytes((SAMPLES / "ori_net.mindir").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"damaged or encrypted one: byte \d+: graph 1 should be \d+ bytes long"):
        load_graph(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x0a\x050.1.1", "there is no graph with nodes in it"),
        (bytes(range(200, 250)), "is no MindIR model, or a damaged or encrypted one: byte 0"),
    ],
)
def test_files_that_are_no_model(tmp_path, data, message):
    path = tmp_path / "not.mindir"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        load_graph(path)


def test_a_node_that_reads_what_nothing_makes(tmp_path):
    with pytest.raises(InputError, match=r"node 0 \('y', ReLU\) reads 'z', which nothing makes"):
        load_graph(write(tmp_path, [node("ReLU", ["z"], "y", [5, 7])], [("x", [5, 7])]))


def test_a_file_fixes_its_sizes():
    with pytest.raises(InputError, match="a MindIR file fixes all sizes"):
        load_graph(SAMPLES / "relu.mindir", sizes={"batch": 4})


def test_damage_is_always_told(tmp_path):
    data = (SAMPLES / "relu.mindir").read_bytes()
    draw = random.Random(7)
    path = tmp_path / "damaged.mindir"
    for turn in range(400):
        broken = bytearray(data)
        for _ in range(1 + turn % 6):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        path.write_bytes(bytes(broken[: draw.randrange(len(broken))] if turn % 3 == 0 else broken))
        try:
            graph_info(load_graph(path))
        except InputError as error:
            assert str(path) in str(error)
