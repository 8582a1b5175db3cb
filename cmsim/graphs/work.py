"""What the operators of a graph ask of the machine, all at once: arithmetic and traffic as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Bools, Floats, Ints
from cmsim.graphs import ops as graph_ops
from cmsim.graphs.graph import ACTIVATION, CONSTANT, PARAMETER, Graph
from cmsim.graphs.ops import FREE, OPS, UNKNOWN, Rule

#: operators whose arithmetic is a product of matrices
_PRODUCTS = (
    graph_ops.CONV,
    graph_ops.CONV_TRANSPOSE,
    graph_ops.MATMUL,
    graph_ops.GEMM,
    graph_ops.INNER,
    graph_ops.ATTENTION,
    graph_ops.RECURRENT,
)


@dataclass(frozen=True)
class GraphWork:
    """A row per node of a graph, for the samples the graph holds.

    kernel     into ``kernels``, -1 for what costs nothing
    precision  the format the file dictates, into ``precisions``, -1 where it dictates none
    product    whether the node multiplies matrices    depthwise  a convolution of one channel each, on vectors
    flops      [FLOP]
    read, written   floating activations [1]    weights  floating weights and constants read [1]
    trained    of the weights, those that a training step updates [1]
    other_B, fixed_B   what is not floating (indices, masks, quantised tensors): activations, and weights [B]
    file_B     the same traffic in the formats of the file [B]
    known      whether ``graph_ops`` has a line for the operator
    shaped     whether all shapes that its cost follows from are known
    """

    kernels: tuple[str, ...]
    precisions: tuple[str, ...]
    kernel: Ints
    precision: Ints
    product: Bools
    depthwise: Bools
    flops: Floats
    read: Floats
    written: Floats
    weights: Floats
    trained: Floats
    other_B: Floats
    fixed_B: Floats
    file_B: Floats
    known: Bools
    shaped: Bools
    joins: Bools


def graph_work(graph: Graph) -> GraphWork:
    """Cost of every node.

    Convolution: 2 x results x (channels in / groups) x window; a product: 2 x results x inner size; an attention
    core: both of its products over the whole context; pooling: results x window; a reduction: what it reads; other
    operators a few FLOPs per result. Traffic: every operand once; of a table only the rows that are looked up.
    """
    nodes = len(graph)
    rules = [OPS.get(name, UNKNOWN) for name in graph.like]
    kernels = tuple(sorted({rule.kernel for rule in rules} - {FREE} | {UNKNOWN.kernel}))
    precisions = tuple(sorted({rule.precision for rule in rules} - {""}))
    elements = np.append(graph.elements, 0.0)
    unknown = np.append(graph.rank < 0, False)

    def of_rules(values: list[Any], kind: type) -> NDArray[Any]:
        return np.array(values, kind)[graph.op] if nodes else np.zeros(0, kind)

    def summed(ptr: Ints, values: Floats) -> Floats:
        return _segments(ptr, values)

    kernel = of_rules([kernels.index(rule.kernel) if rule.kernel else -1 for rule in rules], np.int64)
    # what is made of weights alone is made once, not in every pass
    reads_activation = _segments(graph.in_ptr, _pick(np.append(graph.kind == ACTIVATION, False), graph.in_idx)) > 0
    has_inputs = np.diff(graph.in_ptr) > 0
    kernel[has_inputs & ~reads_activation] = -1
    free = kernel < 0

    operand = _Operands(graph, elements)
    flops = np.zeros(nodes)
    shaped = ~free & (summed(graph.out_ptr, _pick(unknown, graph.out_idx).astype(float)) == 0)
    for number, rule in enumerate(rules):
        rows = np.flatnonzero((graph.op == number) & ~free)
        if not len(rows):
            continue
        value, clear = _flops(rule, operand, rows)
        flops[rows] = value
        shaped[rows] &= clear
    shaped |= free

    kinds = np.append(graph.kind, ACTIVATION)
    floating = np.append(graph.floating, False)
    width = np.append(graph.width_B, 0.0)
    trained = np.append(graph.trained, False)
    read, written = graph.in_idx, graph.out_idx
    reads, writes = elements[read], elements[written]
    gathers = of_rules([rule.gathers for rule in rules], np.bool_)
    if gathers.any():
        first = graph.in_ptr[:-1][gathers & has_inputs]
        reads = reads.copy()
        reads[first] = np.minimum(reads[first], operand.results[gathers & has_inputs])
    held = kinds[read] == ACTIVATION
    taken = summed(graph.in_ptr, reads * (held & floating[read]))
    made = summed(graph.out_ptr, writes * floating[written])
    weights = summed(graph.in_ptr, reads * (~held & floating[read]))
    other = summed(graph.in_ptr, reads * width[read] * (held & ~floating[read]))
    fixed = summed(graph.in_ptr, reads * width[read] * (~held & ~floating[read]))
    other += summed(graph.out_ptr, writes * width[written] * ~floating[written])
    file_B = summed(graph.in_ptr, reads * width[read]) + summed(graph.out_ptr, writes * width[written])
    # a weight that several nodes read is updated once: with the first
    first_use = np.zeros(len(read), bool)
    where = np.flatnonzero(trained[read])
    first_use[where[np.unique(read[where], return_index=True)[1]]] = True
    updated = summed(graph.in_ptr, elements[read] * first_use)
    for column in (taken, made, weights, other, fixed, file_B, updated):
        column[free] = 0.0
    product = of_rules([rule.flops in _PRODUCTS for rule in rules], np.bool_) & ~free
    # a filter of one channel has too little to multiply for a matrix engine
    depthwise = product & operand.depthwise
    kernel[depthwise] = kernels.index(UNKNOWN.kernel)
    return GraphWork(
        kernels=kernels,
        precisions=precisions,
        kernel=kernel,
        precision=of_rules([precisions.index(r.precision) if r.precision else -1 for r in rules], np.int64),
        product=product,
        depthwise=depthwise,
        flops=flops,
        read=taken,
        written=made,
        weights=weights,
        trained=updated,
        other_B=other,
        fixed_B=fixed,
        file_B=file_B,
        known=of_rules([name in OPS for name in graph.like], np.bool_),
        shaped=shaped,
        joins=of_rules([rule.joins for rule in rules], np.bool_) & ~free,
    )


class _Operands:
    """Shapes of the first operands and of the result of every node."""

    def __init__(self, graph: Graph, elements: Floats):
        self.graph = graph
        self.elements = elements
        self.dims = np.vstack([graph.dims, np.ones((1, graph.dims.shape[1]))])
        self.rank = np.append(graph.rank, -1)
        self.result = _nth(graph.out_ptr, graph.out_idx, 0)
        self.results = elements[self.result]
        self._inputs = [_nth(graph.in_ptr, graph.in_idx, n) for n in range(3)]
        weight = self._inputs[1]
        group = graph.attributes.get("group", np.full(len(graph), np.nan))
        # a group for each channel
        self.depthwise = np.nan_to_num(group, nan=1.0) > 1
        self.depthwise &= self._per_filter(weight) == self._window(weight)

    def tensor(self, number: int, rows: Ints) -> Ints:
        """The ``number``-th input of some nodes; -1 where there is none."""
        return self._inputs[number][rows]

    def attribute(self, name: str, rows: Ints, default: float) -> Floats:
        column = self.graph.attributes.get(name)
        if column is None:
            return np.full(len(rows), default)
        return np.nan_to_num(column[rows], nan=default)

    def per_filter(self, tensor: Ints) -> Floats:
        return self._per_filter(tensor)

    def last(self, tensor: Ints, back: int = 1) -> Floats:
        """Size of the last dimension, or of that before it."""
        return np.asarray(self.dims[tensor, self.dims.shape[1] - back], np.float64)

    def _per_filter(self, weight: Ints) -> Floats:
        """Elements of a weight over its first dimension."""
        return np.asarray(self.elements[weight] / np.maximum(self._at(weight, 0), 1.0), np.float64)

    def _window(self, weight: Ints) -> Floats:
        """Elements of a weight over its first two dimensions."""
        return self._per_filter(weight) / np.maximum(self._at(weight, 1), 1.0)

    def _at(self, tensor: Ints, axis: int) -> Floats:
        """A dimension counted from the front; 1 where there is none."""
        place = self.dims.shape[1] - self.rank[tensor] + axis
        inside = (self.rank[tensor] > axis) & (place < self.dims.shape[1])
        return np.where(inside, self.dims[tensor, np.where(inside, place, 0)], 1.0)


def _flops(rule: Rule, operand: _Operands, rows: Ints) -> tuple[Floats, Bools | bool]:
    """FLOPs of nodes under one rule, and whether the shapes they follow from are known."""
    results, first, second = operand.results[rows], operand.tensor(0, rows), operand.tensor(1, rows)
    known = operand.rank >= 0
    if not isinstance(rule.flops, str):
        return rule.flops * results, True
    if rule.flops == graph_ops.CONV:
        if rule.precision and operand.graph.source != "mindir":
            # quantised forms give scale and zero point between input and weight
            fourth = _nth(operand.graph.in_ptr, operand.graph.in_idx, 3)[rows]
            second = np.where(operand.rank[second] >= 3, second, fourth)
        return 2.0 * results * operand.per_filter(second), known[second]
    if rule.flops == graph_ops.CONV_TRANSPOSE:
        return 2.0 * operand.elements[first] * operand.per_filter(second), known[first] & known[second]
    if rule.flops == graph_ops.MATMUL:
        swapped = operand.attribute("trans_a", rows, 0.0) > 0
        return 2.0 * results * np.where(swapped, operand.last(first, 2), operand.last(first)), known[first]
    if rule.flops == graph_ops.GEMM:
        swapped = operand.attribute("trans_a", rows, 0.0) > 0
        return 2.0 * results * np.where(swapped, operand.last(first, 2), operand.last(first)), known[first]
    if rule.flops == graph_ops.INNER:
        inner = operand.attribute("inner", rows, 0.0)
        return 2.0 * results * inner, inner > 0
    if rule.flops == graph_ops.ATTENTION:
        # queries x keys, then scores x values: both contract over what the other spans
        context = operand.attribute("context", rows, 0.0)
        context = np.where(context > 0, context, operand.last(second, 2))
        share = np.where(operand.attribute("causal", rows, 0.0) > 0, 0.5, 1.0)
        return 2.0 * share * context * (operand.elements[first] + results), known[first] & known[second]
    if rule.flops == graph_ops.RECURRENT:
        third = operand.tensor(2, rows)
        steps = operand.elements[first] / np.maximum(operand.last(first), 1.0)
        both = operand.elements[second] + operand.elements[third]
        return 2.0 * steps * both, known[first] & known[second] & known[third]
    if rule.flops == graph_ops.WINDOW:
        return results * operand.attribute("window", rows, 1.0), True
    return operand.elements[first], known[first]


def _nth(ptr: Ints, idx: Ints, number: int) -> Ints:
    """The ``number``-th entry of every row, -1 where a row is shorter."""
    place = ptr[:-1] + number
    there = place < ptr[1:]
    if not len(idx):
        return np.full(len(ptr) - 1, -1, np.int64)
    return np.where(there, idx[np.where(there, place, 0)], -1)


def _segments(ptr: Ints, values: NDArray[Any]) -> Floats:
    """Sums over the rows of a CSR."""
    total = np.concatenate([[0.0], np.cumsum(np.asarray(values, np.float64))])
    return np.asarray(total[ptr[1:]] - total[ptr[:-1]], np.float64)


def _pick(values: NDArray[Any], index: Ints) -> NDArray[Any]:
    return values[index]


def graph_info(graph: Graph, work: GraphWork | None = None) -> dict[str, Any]:
    """What a graph holds, for people and machines: operators, parameters, arithmetic, traffic, what is not known."""
    done = work or graph_work(graph)
    elements = graph.elements
    in_bytes = elements * graph.width_B
    used = np.zeros(len(elements), bool)
    used[graph.in_idx[graph.in_idx >= 0]] = True
    # 64-bit whole numbers are shapes and indices, not weights
    weight = graph.floating | (graph.width_B <= 1)
    parameter = (graph.kind == PARAMETER) & weight & used
    constant = (graph.kind == CONSTANT) & weight & (elements > 1) & ~made_of_others(graph)
    operand = _Operands(graph, np.append(elements, 0.0))
    of_product = np.zeros(len(elements) + 1, bool)
    second = operand.tensor(1, np.arange(len(graph)))
    of_product[second[done.product]] = True
    matrices = of_product[:-1] & (graph.kind != ACTIVATION)
    held = done.kernel >= 0
    by_op: list[dict[str, Any]] = []
    for number, name in enumerate(graph.op_types):
        rows = graph.op == number
        by_op.append(
            {
                "op": name,
                "count": int(rows.sum()),
                "flops": float(done.flops[rows].sum()),
                "bytes": float(done.file_B[rows].sum()),
                "kernel": "" if not (held & rows).any() else done.kernels[int(done.kernel[held & rows][0])],
            }
        )
    by_op.sort(key=lambda row: (-row["flops"], -row["bytes"], row["op"]))
    made = np.zeros(len(elements), bool)
    made[graph.out_idx[np.repeat(held, np.diff(graph.out_ptr))]] = True
    like = dict(zip(graph.op_types, graph.like, strict=True))
    unknown = {name: count for name, count in graph.op_counts.items() if like[name] not in OPS}
    in_tables = graph.tables.parameters if graph.tables is not None else 0
    return {
        "name": graph.name,
        "format": graph.source,
        **graph.facts,
        "nodes": len(graph),
        "op_types": graph.op_counts,
        "inputs": [[graph.tensors[i], _shape(graph, i)] for i in graph.inputs],
        "outputs": [[graph.tensors[i], _shape(graph, i)] for i in graph.outputs],
        "samples": graph.samples,
        "parameters": int(elements[parameter].sum()) + in_tables,
        "trainable_parameters": int(elements[parameter & graph.trained].sum()) + in_tables,
        "constant_elements": int(elements[constant].sum()),
        "matrix_weights": int(elements[matrices].sum()),
        "flops": float(done.flops.sum()),
        "matrix_flops": float(done.flops[done.product].sum()),
        "matrix_macs": float(done.flops[done.product].sum() / 2),
        "weight_bytes": float(in_bytes[parameter | constant].sum()),
        "activation_bytes": float(in_bytes[made].sum()),
        "traffic_bytes": float(done.file_B.sum()),
        "by_op": by_op,
        "unknown_ops": unknown,
        "nodes_without_shape": int((~done.shaped).sum()),
        "notes": list(graph.notes),
    }


def made_of_others(graph: Graph) -> Bools:
    """Tensors that a node makes out of others (a weight reshaped is no second weight)."""
    out = np.zeros(len(graph.kind), bool)
    out[graph.out_idx[np.repeat(np.diff(graph.in_ptr) > 0, np.diff(graph.out_ptr))]] = True
    return out


def _shape(graph: Graph, tensor: int) -> list[int] | None:
    rank = int(graph.rank[tensor])
    if rank < 0:
        return None
    return [int(size) for size in graph.dims[tensor, graph.dims.shape[1] - rank :]]
