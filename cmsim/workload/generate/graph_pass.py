"""The kernels of a graph: which nodes run in one, what each takes forward and backward."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.graphs.graph import ACTIVATION, Graph
from cmsim.graphs.ops import OPS, UNKNOWN
from cmsim.graphs.work import GraphWork, graph_work
from cmsim.hardware import System
from cmsim.kinds.encoder import EncoderSpec
from cmsim.kinds.training import TrainingSpec
from cmsim.workload.generate import layers
from cmsim.workload.ops import ProgramBuilder


def weights_of(graph: Graph) -> float:
    """Weights and constants that lie in memory. [1]"""
    return float(graph.elements[(graph.kind != ACTIVATION) & graph.floating].sum())


def trained_of(graph: Graph) -> float:
    """Weights that a training step updates. [1]"""
    used = np.zeros(len(graph.kind) + 1, bool)
    used[graph.in_idx] = True
    return float(graph.elements[graph.trained & used[:-1]].sum())


def roots(graph: Graph, work: GraphWork, *, norms: bool) -> tuple[Ints, Floats]:
    """For every node the node whose kernel it runs in, and the elements that then stay on chip between the two. [1]

    A node joins the maker of its latest input where nothing else reads that input. Views cost nothing and are looked
    through. norms: whether a batch norm joins too (it is a scale in inference; a training step needs its means first)
    """
    nodes = len(graph)
    tensors = len(graph.kind)
    maker = np.full(tensors + 1, -1, np.int64)
    writer = np.repeat(np.arange(nodes), np.diff(graph.out_ptr))
    maker[graph.out_idx] = writer
    reader = np.repeat(np.arange(nodes), np.diff(graph.in_ptr))
    readers = np.bincount(graph.in_idx[graph.in_idx >= 0], minlength=tensors + 1)
    readers[list(graph.outputs)] += 1  # whoever called the model
    kind = np.append(graph.kind, -1)
    # the latest maker of an input, and the tensor between
    makers = np.where(kind[graph.in_idx] == ACTIVATION, maker[graph.in_idx], -1)
    latest = np.full(nodes, -1, np.int64)
    np.maximum.at(latest, reader, makers)
    mine = (makers == latest[reader]) & (makers >= 0)
    between = np.full(nodes, -1, np.int64)
    between[reader[mine]] = graph.in_idx[mine]
    own = np.arange(nodes)
    # a name that is made twice may stand behind its reader
    alone = (between >= 0) & (readers[between] == 1) & (latest < own)
    free = work.kernel < 0
    source = _followed(np.where(free & alone, latest, own))
    joins = work.joins & alone & ~free
    if not norms:
        batch_norms = np.array([name == "BatchNormalization" for name in graph.like])
        joins &= ~batch_norms[graph.op] if nodes else False
    ahead = source[np.where(latest >= 0, latest, own)]
    joins &= ~free[ahead]
    kept: Floats = np.where(joins, np.append(graph.elements * graph.floating, 0.0)[between], 0.0)
    return _followed(np.where(joins, ahead, own)), kept


def _followed(parent: Ints) -> Ints:
    """The end of each row's chain of parents; parents stand before their children."""
    while True:
        further = parent[parent]
        if (further == parent).all():
            return parent
        parent = further


def _by(root: Ints, values: Floats, nodes: int) -> Floats:
    """Sums over the nodes of each kernel."""
    return np.asarray(np.bincount(root, values, nodes), np.float64)


class GraphPass:
    """The kernels of one pass of ``samples`` samples, forward and backward."""

    def __init__(
        self, graph: Graph, spec: EncoderSpec | TrainingSpec, system: System, samples: float, *, training: bool
    ):
        self.graph, self.work = graph, graph_work(graph)
        self.form = form = layers.formats(spec.precision)
        work, scale = self.work, samples / graph.samples
        stream_B = max(form.stream_B, form.activation_B)
        nodes = len(graph)
        own = np.arange(nodes)
        if system.stack.host.launch == "graph":
            root, kept = roots(graph, work, norms=not training)
        else:
            root, kept = own, np.zeros(nodes)
        self.root = root
        narrow = np.where(work.product, form.activation_B, stream_B)
        # a backward pass needs what was between, so it is written all the same
        hidden = kept * stream_B * (0.0 if training else 1.0)
        read = work.read * narrow - kept * stream_B
        other = work.other_B * scale
        self.read_B = _by(root, np.maximum(read, 0.0) * scale, nodes)
        self.written_B = _by(root, (work.written * stream_B - hidden) * scale, nodes)
        self.weights_B = _by(root, work.weights * form.weight_B, nodes)
        self.bytes_B: Floats = self.read_B + self.written_B + self.weights_B + _by(root, other + work.fixed_B, nodes)
        on_vectors = _by(root, work.flops * ~work.product, nodes)
        self.flops: Floats = np.where(
            work.product & ~work.depthwise, work.flops, on_vectors + work.flops * work.depthwise
        )
        self.flops = self.flops * scale
        self.trained = _by(root, work.trained, nodes)
        # a weight that is turned or cut before its use belongs to no kernel: it goes with the first
        rest = trained_of(graph) - float(self.trained.sum())
        self.rows: Ints = np.flatnonzero((root == own) & (work.kernel >= 0))
        if len(self.rows):
            self.trained[self.rows[0]] += max(rest, 0.0)
        self.reads_input_only = self._reads_input_only()
        self._names = graph.names

    def _reads_input_only(self) -> NDArray[np.bool_]:
        """Nodes whose activations all come from outside: nobody asks for their gradient."""
        graph = self.graph
        made = np.append(graph.kind == ACTIVATION, False)
        made[list(graph.inputs)] = False
        reader = np.repeat(np.arange(len(graph)), np.diff(graph.in_ptr))
        writer = np.repeat(np.arange(len(graph)), np.diff(graph.out_ptr))
        while True:
            out: NDArray[np.bool_] = np.bincount(reader, made[graph.in_idx], len(graph)) == 0
            # a view of what comes from outside does so too
            seen = graph.out_idx[(out & (self.work.kernel < 0))[writer]]
            if not made[seen].any():
                return out
            made[seen] = False

    def first_reader(self, tensor: int) -> int:
        """Number of the first kernel that reads a tensor."""
        reader = np.repeat(np.arange(len(self.graph)), np.diff(self.graph.in_ptr))
        node = int(reader[np.argmax(self.graph.in_idx == tensor)])
        return int(np.searchsorted(self.rows, self.root[node]))

    def least_flops(self, samples: float, *, times: Floats | float = 1.0) -> dict[str, float]:
        """FLOPs of the products by format, ``times`` those of a forward pass. [FLOP]"""
        work = self.work
        flops = np.broadcast_to(times, work.flops.shape) * work.flops * (samples / self.graph.samples)
        out: dict[str, float] = {}
        for node in self.rows[work.product[self.rows] & ~work.depthwise[self.rows]].tolist():
            precision = self.kernel(node)[1]
            out[precision] = out.get(precision, 0.0) + float(flops[node])
        return out

    def least_B(self, samples: float) -> float:
        """Every weight that a kernel reads, once, and the samples; tables whose rows are looked up are left out. [B]"""
        graph, form = self.graph, self.form
        reader = np.repeat(np.arange(len(graph)), np.diff(graph.in_ptr))
        first = np.zeros(len(graph.in_idx), bool)
        first[graph.in_ptr[:-1][np.diff(graph.in_ptr) > 0]] = True
        gathers = np.array([OPS.get(name, UNKNOWN).gathers for name in graph.like], bool)[graph.op]
        read = (graph.in_idx >= 0) & (self.work.kernel[reader] >= 0) & ~(first & gathers[reader])
        used = np.bincount(graph.in_idx[read], minlength=len(graph.kind)) > 0
        elements = np.where(used & graph.floating, graph.elements, 0.0)
        given = float(elements[list(graph.inputs)].sum()) * samples / graph.samples
        return float(elements[graph.kind != ACTIVATION].sum()) * form.weight_B + given * form.activation_B

    def kernel(self, node: int) -> tuple[str, str]:
        """Class and precision of a node's kernel."""
        work = self.work
        name = work.kernels[work.kernel[node]]
        if not work.product[node] or work.depthwise[node]:
            return name, ""
        if work.precision[node] >= 0:
            return name, work.precisions[work.precision[node]]
        return name, self.form.attention if name == "attention_prefill" else self.form.gemm

    def forward(self, build: ProgramBuilder, row: int, after: tuple[int, ...] = ()) -> int:
        node = int(self.rows[row])
        return self._add(build, node, self._names[node], 1.0, 1.0, after)

    def backward(self, build: ProgramBuilder, row: int, after: tuple[int, ...] = ()) -> tuple[int, float]:
        """Gradients of one kernel: the last row, and FLOPs done.

        A product becomes two, for its input and for its weight (or its two inputs); the first layer's input needs
        none. A fused attention core recomputes its scores: 2.5 times the work. Others read what forward read and
        wrote, and write a gradient. As in ``gradients.backward``.
        """
        node = int(self.rows[row])
        name, flops = self._names[node], float(self.flops[node])
        if self.kernel(node)[0] == "attention_prefill":
            return self._add(build, node, f"{name} backward", 2.5, 2.0, after), 2.5 * flops
        if not self.work.product[node] or self.work.depthwise[node]:
            return self._add(build, node, f"{name} backward", 2.0, 1.5, after), 2.0 * flops
        parts = ["wgrad"] if self.reads_input_only[node] else ["dgrad", "wgrad"]
        last = -1
        for part in parts:
            last = self._add(build, node, f"{name} {part}", 1.0, 1.0, after)
            after = ()
        return last, flops * len(parts)

    def _add(
        self, build: ProgramBuilder, node: int, name: str, flops: float, traffic: float, after: tuple[int, ...]
    ) -> int:
        kernel, precision = self.kernel(node)
        return build.compute(
            name,
            stream="compute",
            kernel=kernel,
            precision=precision,
            flops=flops * float(self.flops[node]),
            bytes_B=traffic * float(self.bytes_B[node]),
            after=after,
        )
