"""Prices an ONNX model of many nodes, as `cmsim trace info` and a scenario do; prints how long it took.

    python benchmarks/models.py [NODES]

The model is made first and is not timed: blocks of convolution, norm, activation, product, softmax and sum.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path


def make(path: Path, nodes: int) -> None:
    """Write a model of so many nodes."""
    from onnx import TensorProto, helper, save

    weights = [
        helper.make_tensor("w", TensorProto.FLOAT, (64, 64, 3, 3), bytes(4 * 64 * 64 * 9), raw=True),
        helper.make_tensor("m", TensorProto.FLOAT, (56, 56), bytes(4 * 56 * 56), raw=True),
        *(helper.make_tensor(f"n{i}", TensorProto.FLOAT, (64,), bytes(4 * 64), raw=True) for i in range(4)),
    ]
    made, x = [], "x"
    while len(made) < nodes:
        at = f"b{len(made)}"
        made += [
            helper.make_node("Conv", [x, "w"], [f"{at}.0"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", [f"{at}.0", "n0", "n1", "n2", "n3"], [f"{at}.1"]),
            helper.make_node("Relu", [f"{at}.1"], [f"{at}.2"]),
            helper.make_node("MatMul", [f"{at}.2", "m"], [f"{at}.3"]),
            helper.make_node("Softmax", [f"{at}.3"], [f"{at}.4"]),
            helper.make_node("Add", [f"{at}.4", x], [f"{at}.5"]),
        ]
        x = f"{at}.5"
    made = made[:nodes]
    last = made[-1].output[0]
    graph = helper.make_graph(
        made,
        "many",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 64, 56, 56))],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        weights,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def main() -> None:
    nodes = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "many.onnx"
        make(path, nodes)
        start_s = time.perf_counter()
        from cmsim.graphs.load import load_graph
        from cmsim.graphs.work import graph_info, graph_work

        graph = load_graph(path)
        read_s = time.perf_counter() - start_s
        found = graph_info(graph, graph_work(graph))
        total_s = time.perf_counter() - start_s
    assert found["nodes"] == nodes and not found["unknown_ops"] and not found["nodes_without_shape"], found
    print(f"{nodes} nodes: read in {read_s:.2f} s, priced in {total_s - read_s:.2f} s, together {total_s:.2f} s")


if __name__ == "__main__":
    main()
