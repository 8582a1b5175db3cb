"""Graphs on a system: one forward pass of a batch, or a training step, data parallel.

A compiler appends what works element by element to the kernel that made its input (conv, norm, activation and sum in
one); an eager stack launches every operator. Gradients are reduced in buckets while the backward pass still runs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmsim import compute
from cmsim.arrays import Floats, Ints
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.graphs.graph import ACTIVATION, Graph
from cmsim.graphs.load import find_model, load_any, load_graph, model_format
from cmsim.graphs.ops import OPS, UNKNOWN
from cmsim.graphs.work import GraphWork, graph_work
from cmsim.hardware import System
from cmsim.kinds.encoder import EncoderFacts, EncoderSpec
from cmsim.kinds.training import TrainingFacts, TrainingSpec
from cmsim.units import BYTES_PER_ELEMENT, TERA
from cmsim.workload import memory, whole
from cmsim.workload.generate import layers
from cmsim.workload.generate.parallel import Layout, resolve
from cmsim.workload.generate.stored import trained_as
from cmsim.workload.model import ModelSpec
from cmsim.workload.ops import Least, ProgramBuilder, Programs, assemble, awaited
from cmsim.workload.schedules import OneForwardOneBackward

#: gradients travel in pieces of at least this. Source: PyTorch, DistributedDataParallel, bucket_cap_mb [B]
_BUCKET_B = 25 * 2**20


def encoder(spec: EncoderSpec, system: System, base: Path | None = None) -> Programs:
    """One forward pass of every rank's samples."""
    graph = load_graph(spec.model, base=base, sizes=_sizes(spec, base))
    layout = _layout(spec, system)
    total, notes = whole.counted(spec.batch_per_accelerator, layout.ranks / system.ranks_per_package, "samples")
    passes = _Pass(graph, spec, system, whole.busiest(total, layout.ranks), training=False)
    build = ProgramBuilder()
    for row in range(len(passes.rows)):
        passes.forward(build, row)
    work = passes.work
    facts = EncoderFacts(
        samples_per_run=total,
        steps=1.0,
        model_flops_per_sample=float(work.flops[work.product].sum()) / graph.samples,
    )
    widest = float((passes.read_B + passes.written_B).max(initial=0.0))
    return assemble(
        [build],
        program=np.zeros(layout.ranks, np.int64),
        groups={},
        facts=facts,
        least=Least(layout.ranks, passes.least_flops(total), passes.least_B(total)),
        notes=[*notes, *_notes(graph, work)],
        footprint_B={
            "weights": [_weights(graph) * passes.form.weight_B],
            # the widest kernel's operands, and as much again for what waits to be summed later
            "activations": [2 * widest],
        },
        plan={**layout.sizes, "samples_per_rank": int(whole.busiest(total, layout.ranks))},
    )


def training(spec: TrainingSpec, system: System, base: Path | None = None) -> Programs:
    """One optimizer step, of a decoder or of a graph."""
    found = load_any(spec.model, base=base, sizes=_sizes(spec, base))
    if isinstance(found, ModelSpec):
        if not spec.sequence_length:
            raise InputError(Problem("the key is required for a model of text", key="sequence_length"))
        if spec.dims:
            raise InputError(Problem(f"{found.name} leaves no sizes open", key="dims"))
        from cmsim.workload.generate import training as of_decoders

        made = of_decoders.programs(spec, system, base)
        notes = (*trained_as(spec, found), *found.said)
        return replace(made, notes=(*made.notes, *notes)) if notes else made
    _check_keys(spec)
    layout = _layout(spec, system)
    if spec.zero_stage == 3:
        raise InfeasibleError(Problem("got 3; a graph's weights are not split. Allowed: 0, 1, 2.", key="zero_stage"))
    if spec.global_batch % (spec.micro_batch * layout.dp):
        raise InfeasibleError(
            Problem(
                f"got {spec.global_batch}, which is not a multiple of micro_batch {spec.micro_batch} x dp {layout.dp}",
                key="global_batch",
            )
        )
    return _Step(spec, system, found, layout).programs()


#: keys of training that say something of a decoder's layers
_OF_DECODERS = (
    *(("parallel", key) for key in ("expert_tp", "stage_layers")),
    ("precision", "recipe"),
    *(("", key) for key in ("tp_overlap", "capacity_factor", "lora")),
)


def _check_keys(spec: TrainingSpec) -> None:
    """Raises InfeasibleError for keys that a graph has no use for."""
    problems = []
    for within, key in _OF_DECODERS:
        part = getattr(spec, within) if within else spec
        default = type(part).model_fields[key].default
        if (got := getattr(part, key)) != default:
            said = f"got {got!r}; only decoders take it. Allowed for a graph: {default!r}."
            problems.append(Problem(said, key=f"{within}.{key}" if within else key))
    if problems:
        raise InfeasibleError(problems)


def _sizes(spec: EncoderSpec | TrainingSpec, base: Path | None) -> dict[str, int]:
    """Sizes that a file leaves open; the tokens of a text are one of them in a config."""
    sizes = dict(spec.dims)
    if spec.sequence_length and model_format(find_model(spec.model, base=base)) == "config":
        sizes.setdefault("sequence", spec.sequence_length)
    return sizes


def _layout(spec: EncoderSpec | TrainingSpec, system: System) -> Layout:
    parallel = spec.parallel
    problems = [
        Problem(
            f"got {getattr(parallel, size)!r}; a graph runs data parallel only. Allowed: 1.", key=f"parallel.{size}"
        )
        for size in ("tp", "cp", "pp", "ep", "virtual_stages")
        if getattr(parallel, size, 1) != 1
    ]
    if isinstance(spec, TrainingSpec):
        problems += [
            Problem(f"got {getattr(spec, key)!r}; a graph is not cut into stages. Allowed: {allowed!r}.", key=key)
            for key, allowed in (("schedule", "auto"), ("mtp_layers", 0))
            if getattr(spec, key) != allowed
        ]
    if problems:
        raise InfeasibleError(problems)
    return resolve(parallel, system, ranks=spec.ranks, experts=0)


def _weights(graph: Graph) -> float:
    """Weights and constants that lie in memory. [1]"""
    return float(graph.elements[(graph.kind != ACTIVATION) & graph.floating].sum())


def _trained(graph: Graph) -> float:
    """Weights that a training step updates. [1]"""
    used = np.zeros(len(graph.kind) + 1, bool)
    used[graph.in_idx] = True
    return float(graph.elements[graph.trained & used[:-1]].sum())


def _notes(graph: Graph, work: GraphWork) -> list[str]:
    notes = list(graph.notes)
    unknown = {name: count for name, count in graph.op_counts.items() if not _known(graph, work, name)}
    if unknown:
        said = ", ".join(f"{count} {name}" for name, count in unknown.items())
        notes.append(f"operators that cmsim does not know, priced by their operands alone: {said}")
    blind = int((~work.shaped).sum())
    if blind:
        notes.append(f"{blind} nodes of {len(graph)} have operands of unknown shape, and too small a cost")
    return notes


def _known(graph: Graph, work: GraphWork, name: str) -> bool:
    return bool(work.known[np.argmax(graph.op == graph.op_types.index(name))])


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


class _Pass:
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
        rest = _trained(graph) - float(self.trained.sum())
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
        wrote, and write a gradient. As in ``layers.backward``.
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


class _Step:
    """A training step of a graph: passes over micro-batches, gradients reduced, weights updated."""

    def __init__(self, spec: TrainingSpec, system: System, graph: Graph, layout: Layout):
        self.spec, self.system, self.graph, self.layout = spec, system, graph, layout
        self.passes = _Pass(graph, spec, system, float(spec.micro_batch), training=True)
        self.count = spec.global_batch // (spec.micro_batch * layout.dp)
        # a graph is not cut into stages: a pipeline of one
        self.schedule = OneForwardOneBackward(1, self.count)
        self.gradient_B = BYTES_PER_ELEMENT[spec.precision.gradients]
        self.done = 0.0

    def programs(self) -> Programs:
        spec, layout, graph, work = self.spec, self.layout, self.graph, self.passes.work
        build = ProgramBuilder()
        reduced = self._passes(build)
        trained = float(self.passes.trained.sum())
        self._update(build, trained, reduced)
        # forward, and gradients of weights and inputs; of pixels nobody asks for one
        times = np.where(self.passes.reads_input_only, 2.0, 3.0)
        facts = TrainingFacts(
            samples_per_step=float(spec.global_batch),
            model_flops_per_sample=float((times * work.flops)[work.product].sum()) / graph.samples,
            hardware_flops_per_sample=self.done / spec.micro_batch,
            # MFU is stated on the 16-bit peak, as published figures are, whatever format GEMMs run in
            peak_FLOPps=self.system.accelerator.peak_TFLOPps["bf16"] * TERA,
            micro_batches=float(self.count),
        )
        shards = layout.dp
        states = float(
            memory.state_B_per_parameter(stage=spec.zero_stage, shards=shards, gradient_bytes=self.gradient_B)
        )
        frozen = max(_weights(graph) - trained, 0.0) * self.passes.form.weight_B
        images = float(spec.global_batch)
        least = Least(
            spec.ranks or self.system.ranks,
            self.passes.least_flops(images, times=times),
            self.passes.least_B(images) + float(self._optimizer(trained).bytes_B),
            # gradients out and sums in, or updated weights: of half of them with two ranks, of more with more
            exchange_B=trained * min(self.gradient_B, self.passes.form.weight_B),
        )
        return assemble(
            [build],
            program=np.zeros(layout.ranks, np.int64),
            groups={"dp": layout.groups()["dp"]},
            facts=facts,
            notes=_notes(graph, work),
            least=least,
            footprint_B={
                "weights, gradients, optimizer": [states * trained + frozen],
                "activations": [self.schedule.in_flight(0).activations * self._kept_B()],
            },
            plan={
                **layout.sizes,
                "samples_per_rank": spec.micro_batch * self.count,
                "micro_batches": self.count,
            },
        )

    def _kept_B(self) -> float:
        """Activations of a micro-batch; recomputation is of whole passes: then only one kernel's operands. [B]"""
        written_B = self.passes.written_B
        return float(written_B.sum() if self.spec.recompute != "full" else 2 * written_B.max())

    def _passes(self, build: ProgramBuilder) -> list[int]:
        """The micro-batches, those before the last as blocks; rows of the reduced gradients."""
        ahead, back = self._blocks()
        reduced: list[int] = []
        for (one,) in self.schedule.order(0):
            last = one.micro_batch == self.count - 1
            if one.kind == "B" and last:
                reduced = self._last(build)
            elif one.kind == "F":
                build.append(ahead, [()])
            else:
                build.append(back, [])
        return reduced

    def _blocks(self) -> tuple[ProgramBuilder, ProgramBuilder]:
        """A micro-batch forward, and one backward whose gradients are only added up."""
        ahead, back = ProgramBuilder(), ProgramBuilder()
        self._forward(ahead, (awaited(0),))
        for row in range(len(self.passes.rows) - 1, -1, -1):
            self.passes.backward(back, row)
        return ahead, back

    def _forward(self, build: ProgramBuilder, after: tuple[int, ...] = ()) -> None:
        for turn in range(2 if self.spec.recompute == "full" else 1):
            for row in range(len(self.passes.rows)):
                self.passes.forward(build, row, after if not (row or turn) else ())

    def _last(self, build: ProgramBuilder) -> list[int]:
        """The last backward: gradients leave in buckets as they are made."""
        passes, spec = self.passes, self.spec
        matrix = passes.work.product[passes.rows]
        self.done = float(passes.flops[passes.rows][matrix].sum()) * (2 if spec.recompute == "full" else 1)
        held, out = 0.0, []
        ends: list[tuple[float, int]] = []
        for number in range(len(passes.rows) - 1, -1, -1):
            end, flops = passes.backward(build, number)
            self.done += flops if matrix[number] else 0.0
            held += float(passes.trained[passes.rows[number]]) * self.gradient_B
            if held and (held >= _BUCKET_B or not number):
                ends.append((held, end))
                held = 0.0
        if self.layout.dp == 1:
            return []
        last = ends[-1][1] if ends else 0
        for size, end in ends:
            out.append(
                build.collective(
                    "reduce gradients",
                    stream="dp",
                    collective="reduce_scatter" if spec.zero_stage else "all_reduce",
                    size_B=size,
                    slot="dp",
                    after=[end if spec.overlap_data_parallel else last],
                )
            )
        return out

    def _optimizer(self, parameters: float) -> compute.Work:
        return compute.optimizer(parameters, weight_bytes=self.passes.form.stream_B, gradient_bytes=self.gradient_B)

    def _update(self, build: ProgramBuilder, trained: float, reduced: list[int]) -> None:
        spec, form = self.spec, self.passes.form
        own = trained / self.layout.dp if spec.zero_stage else trained
        work = self._optimizer(own)
        row = build.compute(
            "optimizer",
            stream="compute",
            kernel="optimizer",
            flops=float(work.flops),
            bytes_B=float(work.bytes_B),
            after=reduced[-1:],
        )
        if spec.zero_stage and self.layout.dp > 1 and trained:
            build.collective(
                "gather weights",
                stream="dp",
                collective="all_gather",
                size_B=trained * form.weight_B,
                slot="dp",
                after=[row],
            )
