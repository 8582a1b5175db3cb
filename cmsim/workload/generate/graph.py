"""Graphs on a system: one forward pass of a batch, or a training step, data parallel.

A compiler appends what works element by element to the kernel that made its input (conv, norm, activation and sum in
one); an eager stack launches every operator. Gradients are reduced in buckets while the backward pass still runs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cmsim import compute
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.graphs.graph import Graph
from cmsim.graphs.load import find_model, load_any, load_graph, model_format
from cmsim.graphs.work import GraphWork
from cmsim.hardware import System
from cmsim.kinds.encoder import EncoderFacts, EncoderSpec
from cmsim.kinds.training import TrainingFacts, TrainingSpec
from cmsim.units import BYTES_PER_ELEMENT, TERA
from cmsim.workload import memory, whole
from cmsim.workload.generate import tables
from cmsim.workload.generate.graph_pass import GraphPass, weights_of
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
    if graph.tables is not None:
        raise InfeasibleError(Problem(f"{graph.name} looks rows up in tables: its kind is training", key="model"))
    layout = _layout(spec, system)
    total, notes = whole.counted(spec.batch_per_accelerator, layout.ranks / system.ranks_per_package, "samples")
    passes = GraphPass(graph, spec, system, whole.busiest(total, layout.ranks), training=False)
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
            "weights": [weights_of(graph) * passes.form.weight_B],
            # the widest kernel's operands, and as much again for what waits to be summed later
            "activations": [2 * widest],
        },
        plan={**layout.sizes, "samples_per_rank": int(whole.busiest(total, layout.ranks))},
    )


def training(spec: TrainingSpec, system: System, base: Path | None = None) -> Programs:
    """One optimizer step, of a decoder or of a graph."""
    found = load_any(spec.model, base=base, sizes=_sizes(spec, base), trained=True)
    if isinstance(found, ModelSpec):
        if not spec.sequence_length:
            raise InputError(Problem("the key is required for a model of text", key="sequence_length"))
        if spec.dims:
            raise InputError(Problem(f"{found.name} leaves no sizes open", key="dims"))
        from cmsim.workload.generate import training as of_decoders

        made = of_decoders.programs(spec, system, base)
        # where images are seen, their tower is not left out
        notes = (
            *trained_as(spec, found),
            *(one for one in found.said if not (spec.images_per_sample and "vision" in one)),
        )
        return replace(made, notes=(*made.notes, *notes)) if notes else made
    _check_keys(spec)
    layout = _layout(spec, system)
    if spec.zero_stage == 3:
        raise InfeasibleError(Problem("got 3; a graph's weights are not split. Allowed: 0, 1, 2.", key="zero_stage"))
    if isinstance(spec.recompute, list):
        raise InfeasibleError(Problem("got parts of layers; a graph has none. Allowed: none, full.", key="recompute"))
    if spec.offload.activations or spec.offload.optimizer:
        raise InfeasibleError(Problem("nothing of a graph is moved to the host. Allowed: false.", key="offload"))
    if found.tables is not None and spec.recompute == "full":
        raise InfeasibleError(Problem("got full; what is looked up is kept. Allowed: none.", key="recompute"))
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
    *(("", key) for key in ("tp_overlap", "capacity_factor", "lora", "images_per_sample", "image_size")),
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


class _Step:
    """A training step of a graph: passes over micro-batches, gradients reduced, weights updated."""

    def __init__(self, spec: TrainingSpec, system: System, graph: Graph, layout: Layout):
        self.spec, self.system, self.graph, self.layout = spec, system, graph, layout
        self.passes = GraphPass(graph, spec, system, float(spec.micro_batch), training=True)
        self.count = spec.global_batch // (spec.micro_batch * layout.dp)
        # a graph is not cut into stages: a pipeline of one
        self.schedule = OneForwardOneBackward(1, self.count)
        self.gradient_B = BYTES_PER_ELEMENT[spec.precision.gradients]
        self.done = 0.0
        # tables of a recommendation model, and the first kernel that needs what is looked up in them
        self.tables, self.needs = None, -1
        if graph.tables is not None:
            samples = float(spec.micro_batch * layout.dp)
            self.tables = tables.TablesOnRank(graph.tables, layout.dp, samples, self.passes.form.stream_B)
            self.needs = self.passes.first_reader(graph.inputs[-1])

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
        frozen = max(weights_of(graph) - trained, 0.0) * self.passes.form.weight_B
        images = float(spec.global_batch)
        least = Least(
            spec.ranks or self.system.ranks,
            self.passes.least_flops(images, times=times),
            self.passes.least_B(images) + float(self._optimizer(trained).bytes_B),
            # gradients out and sums in, or updated weights: of half of them with two ranks, of more with more
            exchange_B=trained * min(self.gradient_B, self.passes.form.weight_B),
        )
        footprint_B = {
            "weights, gradients, optimizer": [states * trained + frozen],
            "activations": [self.schedule.in_flight(0).activations * self._kept_B()],
        }
        if self.tables is not None:
            footprint_B |= {"tables": [self.tables.held_B], "looked-up rows": [2 * self.tables.sums_B]}
        return assemble(
            [build],
            program=np.zeros(layout.ranks, np.int64),
            groups={"dp": layout.groups()["dp"]},
            facts=facts,
            notes=_notes(graph, work),
            least=least,
            footprint_B=footprint_B,
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
        sent = -1
        for row in range(len(self.passes.rows) - 1, -1, -1):
            end, _ = self.passes.backward(back, row)
            sent = self._given_back(back, row, end, sent)
        self._rows_updated(back, sent)
        return ahead, back

    def _given_back(self, build: ProgramBuilder, row: int, end: int, sent: int) -> int:
        """Gradients of looked-up rows leave when the first kernel that read them has been passed again."""
        return self.tables.back(build, end) if self.tables is not None and row == self.needs else sent

    def _rows_updated(self, build: ProgramBuilder, sent: int) -> None:
        if self.tables is not None:
            self.tables.update(build, sent)

    def _forward(self, build: ProgramBuilder, after: tuple[int, ...] = ()) -> None:
        found = () if self.tables is None else (self.tables.ahead(build, after),)
        for turn in range(2 if self.spec.recompute == "full" else 1):
            for row in range(len(self.passes.rows)):
                waits = after if not (row or turn) else ()
                self.passes.forward(build, row, (*waits, *found) if row == self.needs else waits)

    def _last(self, build: ProgramBuilder) -> list[int]:
        """The last backward: gradients leave in buckets as they are made."""
        passes, spec = self.passes, self.spec
        matrix = passes.work.product[passes.rows]
        self.done = float(passes.flops[passes.rows][matrix].sum()) * (2 if spec.recompute == "full" else 1)
        held, out, sent = 0.0, [], -1
        ends: list[tuple[float, int]] = []
        for number in range(len(passes.rows) - 1, -1, -1):
            end, flops = passes.backward(build, number)
            self.done += flops if matrix[number] else 0.0
            sent = self._given_back(build, number, end, sent)
            held += float(passes.trained[passes.rows[number]]) * self.gradient_B
            if held and (held >= _BUCKET_B or not number):
                ends.append((held, end))
                held = 0.0
        self._rows_updated(build, sent)
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
