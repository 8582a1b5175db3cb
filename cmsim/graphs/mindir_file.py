"""MindIR files as graphs. A node's result shape stands in the file, so nothing is inferred."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cmsim.graphs import wire
from cmsim.graphs.graph import ACTIVATION, CONSTANT, PARAMETER, Graph, GraphBuilder
from cmsim.graphs.wire import text
from cmsim.reading.bytes_in import bad, read_bytes

#: bytes of an element and whether it is of a floating format, by MindIR's number of the type
_TYPES: dict[int, tuple[float, bool]] = {
    1: (4, True),
    2: (1, False),
    3: (1, False),
    4: (2, False),
    5: (2, False),
    6: (4, False),
    7: (8, False),
    8: (8, False),
    9: (1, False),
    10: (2, True),
    11: (8, True),
    12: (4, False),
    13: (8, False),
    14: (8, True),
    15: (16, True),
    16: (2, True),
    17: (8, True),
}
_TENSOR: wire.Layout = {1: ("dims", None), 7: ("name", None), 9: ("raw_data", None)}
_ATTRIBUTE: wire.Layout = {1: ("name", None), 6: ("t", _TENSOR), 12: ("tensors", _TENSOR)}
_GRAPH: wire.Layout = {
    1: ("node", {1: ("input", None), 2: ("output", None), 5: ("attribute", _ATTRIBUTE)}),
    3: ("parameter", _TENSOR),
    5: ("input", {2: ("tensor", _TENSOR)}),
    6: ("output", {2: ("tensor", _TENSOR)}),
}
_LAYOUT: wire.Layout = {
    7: ("graph", _GRAPH),
    8: ("function", _GRAPH),
    12: ("primitive", {3: ("attribute", _ATTRIBUTE)}),
}

#: primitives under ONNX's names; those that are not here are called alike, or are not known
_ONNX = {
    "Conv2D": "Conv",
    "Conv3D": "Conv",
    "Conv2DTranspose": "ConvTranspose",
    "Conv2DBackpropInput": "ConvTranspose",
    "DepthwiseConv2dNative": "Conv",
    "BatchMatMul": "MatMul",
    "MatMulV2": "MatMul",
    "MatMulExt": "MatMul",
    "BatchMatMulExt": "MatMul",
    "Dense": "Gemm",
    "Linear": "Gemm",
    "FlashAttentionScore": "Attention",
    "PromptFlashAttention": "Attention",
    "QuantBatchMatmul": "MatMulInteger",
    "BatchNorm": "BatchNormalization",
    "BatchNormWithActivation": "BatchNormalization",
    "LayerNorm": "LayerNormalization",
    "LayerNormExt": "LayerNormalization",
    "RmsNorm": "RMSNormalization",
    "GroupNorm": "GroupNormalization",
    "InstanceNorm": "InstanceNormalization",
    "ReLU": "Relu",
    "ReLU6": "Clip",
    "ReLUV2": "Relu",
    "PReLU": "PRelu",
    "LeakyReLU": "LeakyRelu",
    "GeLU": "Gelu",
    "FastGeLU": "Gelu",
    "FastGelu": "Gelu",
    "SiLU": "Swish",
    "HSwish": "HardSwish",
    "HSigmoid": "HardSigmoid",
    "AvgPool": "AveragePool",
    "MaxPool3D": "MaxPool",
    "AvgPool3D": "AveragePool",
    "TensorAdd": "Add",
    "AddN": "Sum",
    "AddExt": "Add",
    "SubExt": "Sub",
    "RealDiv": "Div",
    "FloorDiv": "Div",
    "Minimum": "Min",
    "Maximum": "Max",
    "Square": "Mul",
    "Rsqrt": "Sqrt",
    "Select": "Where",
    "LogicalNot": "Not",
    "LogicalAnd": "And",
    "LogicalOr": "Or",
    "ExpandDims": "Unsqueeze",
    "ReshapeExt": "Reshape",
    "BroadcastTo": "Expand",
    "TransposeExt": "Transpose",
    "ConcatV2": "Concat",
    "SliceExt": "Slice",
    "Stack": "Concat",
    "Unstack": "Split",
    "SoftmaxV2": "Softmax",
    "Embedding": "Gather",
    "EmbeddingLookup": "Gather",
    "GatherV2": "Gather",
    "GatherD": "GatherElements",
    "OneHotExt": "OneHot",
    "Argmax": "ArgMax",
    "Argmin": "ArgMin",
    "ApplyRotaryPosEmb": "RotaryEmbedding",
    "TensorShape": "Shape",
    "DynamicShape": "Shape",
    "SumExt": "ReduceSum",
    "MeanExt": "ReduceMean",
    "SoftmaxCrossEntropyWithLogits": "SoftmaxCrossEntropyLoss",
    "SparseSoftmaxCrossEntropyWithLogits": "SoftmaxCrossEntropyLoss",
    "Quant": "QuantizeLinear",
    "QuantV2": "QuantizeLinear",
    "Dequant": "DequantizeLinear",
    "AscendQuant": "QuantizeLinear",
    "AscendDequant": "DequantizeLinear",
}
_COMMUNICATION = (
    "AllReduce",
    "AllGather",
    "ReduceScatter",
    "AlltoAll",
    "AlltoAllV",
    "NeighborExchange",
    "Send",
    "Receive",
    "Broadcast",
)
#: what makes of a weight the same weight
_KEPT_BACK = ("Load", "Depend", "UpdateState", "MakeTuple", "TupleGetItem", "Return", "Reshape", "Transpose", "Cast")


def read_mindir(path: Path) -> Graph:
    """A graph from a MindIR file. Weights beside the file are not read.

    Raises InputError for a file that is damaged or encrypted, saying where it broke.
    """
    from google.protobuf.message import DecodeError

    from cmsim.graphs import mindir_pb2

    data = read_bytes(path)
    model = mindir_pb2.Model()  # type: ignore[attr-defined]
    try:
        model.ParseFromString(data)
    except DecodeError:
        found = wire.broken_at(data, _LAYOUT)
        raise bad(
            path, f"is no MindIR model, or a damaged or encrypted one: {found or 'a name in it is not UTF-8 text'}"
        ) from None
    if not model.HasField("graph") or not model.graph.node:
        raise bad(path, "is no MindIR model: there is no graph with nodes in it")
    return _Reader(path, model).read()


class _Reader:
    def __init__(self, path: Path, model: Any):
        self.path, self.model = path, model
        self.build = GraphBuilder(path.stem, "mindir")
        self.primitives = {primitive.name: primitive for primitive in model.primitives}
        self.fixed: set[int] = set()
        #: as the file names them, before they get ONNX's names
        self.named: Counter[str] = Counter()

    def read(self) -> Graph:
        model, build = self.model, self.build
        graphs = [model.graph, *model.functions]
        build.facts.update(
            ir_version=text(model.ir_version, self.path, "ir_version"),
            mind_ir_version=float(model.mind_ir_version),
            producer=" ".join(
                filter(
                    None, (text(one, self.path, "producer") for one in (model.producer_name, model.producer_version))
                )
            ),
            functions=float(len(model.functions)),
        )
        build.counts.update(
            ir_version=model.ir_version,
            mind_ir_version=int(model.mind_ir_version) if model.HasField("mind_ir_version") else None,
            producer=model.producer_name,
            functions=len(model.functions),
            primitives=len(model.primitives),
            inputs=[[list(tensor.dims) for tensor in value.tensor] for value in model.graph.input],
            parameters=len(model.graph.parameter),
            parameter_elems=sum(math.prod(tensor.dims) for tensor in model.graph.parameter),
            nodes_with_REF_op_type=sum(node.op_type.startswith("REF::") for node in model.graph.node),
        )
        if model.functions:
            build.notes.append("functions: each is counted once, however often it is called")
        inputs = [self._value(value) for value in model.graph.input]
        for graph in graphs:
            for parameter in graph.parameter:
                self.fixed.add(self._new(parameter.name, parameter, kind=PARAMETER))
        for number, graph in enumerate(graphs):
            if number:
                for value in graph.input:
                    self._value(value)
            self._nodes(graph, f"function {number}, " if number else "")
        outputs = [found for value in model.graph.output if (found := build.find(value.name)) is not None]
        sent = {name: self.named[name] for name in _COMMUNICATION if self.named[name]}
        if sent:
            said = ", ".join(f"{count} {name}" for name, count in sent.items())
            build.notes.append(f"communication of the file's own is not priced: {said}")
        return build.graph(inputs=inputs, outputs=outputs)

    def _value(self, value: Any) -> int:
        return self._new(value.name, value.tensor[0] if value.tensor else None)

    def _new(self, name: str, tensor: Any, *, kind: int = ACTIVATION) -> int:
        found = self.build.find(name)
        if found is not None:
            return found
        name = text(name, self.path, "a tensor")
        if tensor is None:
            return self.build.tensor(name, None, kind=kind)
        width, floating = _TYPES.get(tensor.data_type, (4.0, True))
        dims: tuple[int, ...] | None = tuple(tensor.dims)
        if any(size > 2**48 or size < -2 for size in tensor.dims):
            raise bad(self.path, f"the tensor '{name}' has a dimension of {min(tensor.dims)}")
        if any(size < 0 for size in tensor.dims):
            self.build.notes.append("some shapes are left open by the file: their nodes have no cost")
            dims = None
        return self.build.tensor(name, dims, width_B=width, floating=floating, kind=kind)

    def _nodes(self, graph: Any, where: str) -> None:
        build = self.build
        for number, node in enumerate(graph.node):
            place = f"{where}node {number}"
            title = text(node.name, self.path, place)
            key = text(node.op_type, self.path, place).removeprefix("REF::")
            primitive = self.primitives.get(key)
            said = primitive.op_type or primitive.instance_name if primitive is not None else ""
            name = text(said, self.path, place) or key.partition(":")[0] or "(no name)"
            self.named[name] += 1
            attributes = {one.name: one for one in (*(primitive.attribute if primitive else ()), *node.attribute)}
            reads = []
            for read in node.input:
                found = build.find(read)
                if found is None and not self.model.functions:
                    raise bad(
                        self.path, f"{where}node {number} ('{node.name}', {name}) reads '{read}', which nothing makes"
                    )
                reads.append(-1 if found is None else found)
            op = _ONNX.get(name, name)
            constant = op == "Constant"
            still = bool(reads) and all(read in self.fixed for read in reads) and op in _KEPT_BACK
            writes = []
            for written in node.output:
                tensor = _value_of(attributes) if constant else _shape_of(node)
                made = self._new(written, tensor, kind=CONSTANT if constant or still else ACTIVATION)
                if constant or still:
                    self.fixed.add(made)
                writes.append(made)
            if op == "BatchNormalization":
                for read in reads[3:5]:
                    build.freeze(read)
            build.node(name, reads, writes, name=title, like=op, attributes=self._numbers(op, attributes, reads))

    def _numbers(self, op: str, attributes: Mapping[str, Any], reads: list[int]) -> dict[str, float]:
        """What of a node's attributes its cost hangs on."""
        out: dict[str, float] = {}
        group = attributes.get("group", attributes.get("groups"))
        if group is not None:
            out["group"] = next(iter(group.ints), group.i)
        kernel = attributes.get("kernel_size")
        if kernel is not None and op.endswith("Pool"):
            out["window"] = math.prod(
                [*kernel.ints, *(size for value in kernel.values for size in value.ints or [value.i])]
            )
        if any(name in attributes and attributes[name].i for name in ("transpose_a", "transpose_x1")):
            out["trans_a"] = 1.0
        layout = attributes.get("input_layout")
        if op == "Attention" and layout is not None and layout.s == b"BSND" and len(reads) > 1:
            dims = self.build.dims(reads[1])
            if dims:
                out["context"] = dims[1]
        return out


def _shape_of(node: Any) -> Any:
    """The tensor that tells a result's shape: of a tuple its first."""
    for attribute in node.attribute:
        if attribute.name == "shape" or (not attribute.name and attribute.tensors):
            while not attribute.tensors and attribute.values:
                attribute = attribute.values[0]
            return attribute.tensors[0] if attribute.tensors else None
    return None


def _value_of(attributes: Mapping[str, Any]) -> Any:
    value = attributes.get("value")
    if value is None:
        return None
    return value.t if value.HasField("t") else value.tensors[0] if value.tensors else None
