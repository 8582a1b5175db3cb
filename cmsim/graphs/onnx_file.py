"""ONNX files as graphs, with the shapes that the ``onnx`` package infers (an optional extra: ``cmsim[onnx]``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmsim.errors import InputError, Problem
from cmsim.graphs import wire
from cmsim.graphs.graph import ACTIVATION, CONSTANT, PARAMETER, Graph, GraphBuilder
from cmsim.graphs.wire import text
from cmsim.reading.bytes_in import bad, read_bytes

#: bytes of an element and whether it is of a floating format, by ONNX's number of the type
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
    17: (1, True),
    18: (1, True),
    19: (1, True),
    20: (1, True),
    21: (0.5, False),
    22: (0.5, False),
    23: (0.5, True),
}
_TENSOR: wire.Layout = {1: ("dims", None), 8: ("name", None), 9: ("raw_data", None)}
_NODE: wire.Layout = {5: ("attribute", {1: ("name", None), 5: ("t", _TENSOR)})}
_LAYOUT: wire.Layout = {
    7: ("graph", {1: ("node", _NODE), 5: ("initializer", _TENSOR), 11: ("input", {}), 12: ("output", {})}),
    8: ("opset_import", {}),
}
#: a weight of more elements is not needed to infer shapes; its values are dropped first
_SMALL = 4096
#: operators whose window is an attribute
_PACKED = ("com.microsoft.Attention", "com.microsoft.GroupQueryAttention")
_POOLS = ("MaxPool", "AveragePool", "LpPool")
_MAX_DIM = 2**48


def read_onnx(path: Path, *, sizes: Mapping[str, int] | None = None) -> Graph:
    """A graph from an ONNX file. Weights beside the file are not read.

    sizes: of dimensions that the file leaves open, by name; an open batch (first of an input) is 1, others are 1
    and said in the notes

    Raises InputError where the ``onnx`` package is absent, and for a file that is damaged, saying where it broke.
    """
    try:
        import onnx
        from onnx import shape_inference
    except ImportError:
        raise InputError(Problem("reading ONNX needs the onnx package: pip install 'cmsim[onnx]'", str(path))) from None
    from google.protobuf.message import DecodeError

    data = read_bytes(path)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        found = wire.broken_at(data, _LAYOUT)
        raise bad(path, f"is no ONNX model, or a damaged one: {found or 'a name in it is not UTF-8 text'}") from None
    if not model.HasField("graph") or not model.graph.node:
        raise bad(path, "is no ONNX model: there is no graph with nodes in it")
    notes: list[str] = []
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    _drop_values(model.graph)
    _fix_sizes(model.graph, dict(sizes or {}), notes, str(path))
    try:
        model = shape_inference.infer_shapes(model, data_prop=True)
    except shape_inference.InferenceError as error:
        raise bad(path, f"shapes cannot be inferred: {_first_line(error)}") from None
    except ValueError as error:
        raise bad(path, f"is no valid ONNX model: {_first_line(error)}") from None
    reader = _Reader(path, model)
    reader.build.notes += notes
    return reader.read()


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()


def _drop_values(graph: Any) -> None:
    for tensor in graph.initializer:
        if math.prod(tensor.dims) > _SMALL:
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(field)


def _fix_sizes(graph: Any, sizes: dict[str, int], notes: list[str], file: str) -> None:
    """Give every open dimension of the inputs a size, the same wherever its name stands."""
    weights = {tensor.name for tensor in graph.initializer}
    opened: dict[str, int] = {}
    names: list[str] = []
    for value in graph.input:
        if value.name in weights or not value.type.HasField("tensor_type"):
            continue
        for place, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                continue
            name = dim.dim_param or f"{value.name}.{place}"
            names.append(name)
            size = sizes.get(name, opened.get(name))
            if size is None:
                size = 1
                if place:
                    notes.append(f"dimension '{name}' is left open by the file and taken as 1; give its size in dims")
            opened[name] = size
            dim.dim_value = size
    for name in sizes:
        if name not in names:
            allowed = ", ".join(dict.fromkeys(names)) or "none; the file fixes all sizes"
            raise InputError(Problem(f"no open dimension '{name}'. Open: {allowed}.", file, key="dims"))
    for value in (*graph.value_info, *graph.output):
        if value.type.HasField("tensor_type"):
            for dim in value.type.tensor_type.shape.dim:
                if not dim.HasField("dim_value") and dim.dim_param in opened:
                    dim.dim_value = opened[dim.dim_param]


class _Reader:
    """Walks nodes in the file's order, which is that of their dependencies."""

    def __init__(self, path: Path, model: Any):
        self.path, self.model = path, model
        self.build = GraphBuilder(path.stem, "onnx")
        self.shapes: dict[str, Any] = {}
        #: tensors that hang on no input: weights, and what is made of them
        self.fixed: set[str] = set()

    def read(self) -> Graph:
        graph = self.model.graph
        opset = {
            text(entry.domain, self.path, "opset") or "ai.onnx": int(entry.version) for entry in self.model.opset_import
        }
        self.build.facts.update(
            ir_version=float(self.model.ir_version),
            opset=", ".join(f"{domain} {version}" for domain, version in opset.items()),
            producer=text(self.model.producer_name, self.path, "producer"),
        )
        self._scope(graph)
        given = [value.name for value in graph.input if value.name not in self.fixed]
        inputs = [self._tensor(name) for name in given]
        self.build.counts.update(
            ir_version=int(self.model.ir_version),
            opset=opset,
            graph_inputs=len(graph.input),
            initializers=len(graph.initializer),
            inputs_not_initializers=[
                [name, list(self.build.dims(number) or ())] for name, number in zip(given, inputs, strict=True)
            ],
        )
        self._nodes(graph, "")
        outputs = []
        for value in graph.output:
            found = self.build.find(value.name)
            if found is None:
                raise bad(self.path, f"nothing makes the output '{value.name}'")
            outputs.append(found)
        return self.build.graph(inputs=inputs, outputs=outputs)

    def _scope(self, graph: Any) -> None:
        """Shapes and weights of a graph."""
        for values in (graph.input, graph.value_info, graph.output):
            for value in values:
                self.shapes[value.name] = value
        for tensor in graph.initializer:
            self._weight(tensor.name, tensor)
        for sparse in graph.sparse_initializer:
            self._weight(sparse.values.name, sparse.values, dims=tuple(sparse.dims))

    def _weight(self, name: str, tensor: Any, *, dims: tuple[int, ...] | None = None, kind: int = PARAMETER) -> None:
        width, floating = _TYPES.get(tensor.data_type, (4.0, True))
        name = text(name, self.path, "a weight")
        if self.build.find(name) is not None:
            raise bad(self.path, f"the weight '{name}' is there twice")
        shape = tuple(tensor.dims) if dims is None else dims
        self._check(name, shape)
        self.build.tensor(name, shape, width_B=width, floating=floating, kind=kind)
        self.fixed.add(name)

    def _check(self, name: str, dims: Sequence[int]) -> None:
        for size in dims:
            if size < 0 or size > _MAX_DIM:
                raise bad(self.path, f"the tensor '{name}' has a dimension of {size}")

    def _tensor(self, name: str, *, kind: int = ACTIVATION) -> int:
        found = self.build.find(name)
        if found is not None:
            return found
        value = self.shapes.get(text(name, self.path, "a tensor"))
        dims: tuple[int, ...] | None = None
        width, floating = 4.0, True
        if value is not None and value.type.HasField("tensor_type"):
            kind_of = value.type.tensor_type
            width, floating = _TYPES.get(kind_of.elem_type, (4.0, True))
            if kind_of.HasField("shape"):
                sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind_of.shape.dim]
                if -1 not in sizes:
                    dims = tuple(sizes)
                    self._check(name, dims)
        return self.build.tensor(name, dims, width_B=width, floating=floating, kind=kind)

    def _nodes(self, graph: Any, where: str) -> None:
        build, fixed = self.build, self.fixed
        for number, node in enumerate(graph.node):
            op = text(node.op_type, self.path, f"{where}node {number}")
            if node.domain not in ("", "ai.onnx"):
                op = f"{text(node.domain, self.path, f'{where}node {number}')}.{op}"
            title = text(node.name, self.path, f"{where}node {number}")
            reads = []
            still = True
            for name in node.input:
                if not name:
                    reads.append(-1)
                    continue
                found = build.find(name)
                if found is None:
                    raise bad(
                        self.path, f"{where}node {number} ('{node.name}', {op}) reads '{name}', which nothing makes"
                    )
                still = still and name in fixed
                reads.append(found)
            attributes, graphs = self._attributes(op, node, reads)
            # a shape is known before the run, and so is what hangs on weights alone
            constant = op in ("Shape", "Size") or (still and not op.startswith("Random"))
            if not reads and op not in ("Constant", "ConstantOfShape"):
                constant = False
            writes = []
            for name in node.output:
                if not name:
                    continue
                if constant:
                    fixed.add(name)
                made = constant and op in ("Constant", "ConstantOfShape")
                kind = ACTIVATION if not constant else PARAMETER if op == "ConstantOfShape" else CONSTANT
                if made and op == "Constant":
                    self._constant(name, node)
                writes.append(self._tensor(name, kind=kind))
            if op == "BatchNormalization":
                for read in reads[3:5]:
                    build.freeze(read)
            build.node(op, reads, writes, name=title, attributes=attributes)
            for inner in graphs:
                build.notes.append(f"{op}: each body is counted once, however often it runs")
                self._scope(inner)
                for value in inner.input:
                    self._tensor(value.name)
                self._nodes(inner, f"{where}node {number} ({op}), ")

    def _constant(self, name: str, node: Any) -> None:
        """A constant's shape, where inference did not give it."""
        for attribute in node.attribute:
            if attribute.name == "value":
                self._weight(name, attribute.t, kind=CONSTANT)

    def _attributes(self, op: str, node: Any, reads: Sequence[int]) -> tuple[dict[str, float], list[Any]]:
        """What of a node's attributes its cost hangs on, and the graphs among them."""
        out: dict[str, float] = {}
        graphs: list[Any] = []
        for attribute in node.attribute:
            if attribute.type == 5:
                if attribute.name != "else_branch":
                    graphs.append(attribute.g)
                continue
            name = attribute.name
            if name == "group":
                out["group"] = attribute.i
            elif name == "kernel_shape" and op in _POOLS:
                out["window"] = math.prod(attribute.ints)
            elif name == "size" and op == "LRN":
                out["window"] = 2.0 * attribute.i + 4
            elif name == "transA":
                out["trans_a"] = attribute.i
            elif name == "is_causal":
                out["causal"] = attribute.i
            elif name == "K" and op == "com.microsoft.MatMulNBits":
                out["inner"] = attribute.i
            elif name == "equation":
                inner = self._einsum(attribute.s.decode("utf-8", "replace"), reads)
                if inner is not None:
                    out["inner"] = inner
        if op in ("MaxRoiPool", "RoiAlign"):
            out.setdefault("window", 4.0)
        if op in _PACKED and (context := self._context(op, node, reads)):
            out["context"] = context
        return out, graphs

    def _context(self, op: str, node: Any, reads: Sequence[int]) -> float:
        """Keys that a query of an attention meets, on average; 0 where shapes do not say.

        A packed one first makes queries, keys and values by one product with its weights, which are as wide as three
        results: per element of input and result as many products as half that width.
        """

        def dim(read: int, at: int, rank: int) -> float:
            dims = self.build.dims(reads[read]) if len(reads) > read and reads[read] >= 0 else None
            return float(dims[at]) if dims is not None and len(dims) == rank else 0.0

        if op == "com.microsoft.Attention":
            causal = any(one.name == "unidirectional" and one.i for one in node.attribute)
            return dim(1, 1, 2) / 2 + dim(0, 1, 3) * (0.5 if causal else 1.0)
        # grouped queries: of the new keys those before, of the cache all
        return (dim(1, 1, 3) or dim(0, 1, 3)) / 2 + dim(3, 2, 4)

    def _einsum(self, equation: str, reads: Sequence[int]) -> float | None:
        """Product of the sizes that an equation sums over; None where it or a shape is not understood."""
        left, _, right = equation.replace(" ", "").partition("->")
        sizes: dict[str, int] = {}
        for term, read in zip(left.split(","), reads, strict=False):
            dims = self.build.dims(read) if read >= 0 else None
            if dims is None or len(term) != len(dims) or "." in term:
                return None
            sizes.update(zip(term, dims, strict=True))
        return float(math.prod(size for letter, size in sizes.items() if letter not in right)) if right else None
