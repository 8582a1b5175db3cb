"""One optimizer step: pipeline, tensor, context, data and expert parallel.

Each stage does the passes of its schedule in order (``workload.schedules``; 1F1B today). With ``overlap_experts`` the
forward and backward of the steady state run side by side, so that each hides the other's dispatch and combine.
Gradients of a layer are reduced as soon as its last backward ends; with ``overlap_data_parallel`` weights are gathered
just before the first forward that needs them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmsim.errors import InfeasibleError, Problem
from cmsim.hardware import StackSpec, System
from cmsim.kinds.training import TrainingFacts, TrainingSpec
from cmsim.units import BYTES_PER_ELEMENT, TERA, US
from cmsim.workload.generate import layers, least, stages
from cmsim.workload.generate.chain import Comm, Kernel, Piece, interleave, joined
from cmsim.workload.generate.experts import Experts, plan_experts
from cmsim.workload.generate.footprint import footprint_B
from cmsim.workload.generate.parallel import Layout, resolve, with_channels
from cmsim.workload.generate.sharding import Sharding, Split
from cmsim.workload.model import ModelSpec, load_model
from cmsim.workload.ops import Loop, ProgramBuilder, Programs, assemble, awaited
from cmsim.workload.schedules import OneForwardOneBackward, Turn
from cmsim.workload.whole import busiest

#: a step is laid out in full unless it has at least so many times the micro-batches that show how it goes on
_SHORTER = 2


def programs(spec: TrainingSpec, system: System, base: Path | None = None) -> Programs:
    """The step of every rank: one program per pipeline stage. Of many micro-batches the steady part is a loop."""
    model = load_model(spec.model, base=base)
    layout, mixture = _layout(spec, model, system, base)
    micro_batches = _micro_batches(spec, layout)
    stage_layers = stages.layers_of(model, layout)
    notes = list(mixture.notes) if mixture else []
    if len({len(part) for part in stage_layers}) > 1:
        counts = ", ".join(str(len(part)) for part in stage_layers)
        notes.append(f"{model.layers} layers do not divide by {layout.pp} stages: they hold {counts}")
    form = layers.formats(spec.precision)
    schedule = stages.pipeline(spec, layout, mixture, micro_batches)
    laid = _laid_out(schedule)
    stages_ = [
        _Stage(
            spec,
            model,
            layout,
            mixture,
            form,
            stage,
            stage_layers[stage],
            laid,
            system.stack,
        )
        for stage in range(layout.pp)
    ]
    tokens = float(spec.global_batch * spec.sequence_length)
    facts = TrainingFacts(
        tokens_per_step=tokens,
        model_flops_per_token=model.training_flops_per_token(spec.sequence_length, causal=True),
        hardware_flops_per_token=_hardware_flops(spec, model),
        # MFU is stated on the 16-bit peak, as published figures are, whatever format GEMMs run in
        peak_FLOPps=system.accelerator.peak_TFLOPps["bf16"] * TERA,
        micro_batches=float(micro_batches),
        stages=float(layout.pp),
    )
    return assemble(
        [stage.build() for stage in stages_],
        program=layout.stage,
        groups=with_channels(layout),
        facts=facts,
        notes=notes,
        footprint_B=footprint_B(spec, model, layout, mixture, stage_layers, schedule),
        plan={
            **layout.sizes,
            "sequences_per_rank": spec.micro_batch * micro_batches,
            "micro_batches": micro_batches,
        },
        least=least.training(spec, model, ranks=spec.ranks or system.ranks, base=base),
        loop=_loop(stages_, micro_batches - laid.micro_batches),
    )


def _laid_out(schedule: OneForwardOneBackward) -> OneForwardOneBackward:
    """The schedule with as many micro-batches as are laid out: few where most would be alike.

    A pipeline whose inner stages have the same work often comes again after as many turns as there are of them: what
    is left out is a multiple of that, so that it need not be played twice. See ``cmsim.engine.steady``.
    """
    few, inner = schedule.recurring(), max(schedule.stages - 2, 1)
    few += (schedule.micro_batches - few) % inner
    return replace(schedule, micro_batches=few) if _SHORTER * few <= schedule.micro_batches else schedule


def _loop(laid: Sequence[_Stage], left_out: int) -> Loop | None:
    if not left_out:
        return None
    first, rows, times = zip(*(stage.loop() for stage in laid), strict=True)
    return Loop(np.array(first), np.array(rows), np.array(times), left_out)


def _layout(spec: TrainingSpec, model: ModelSpec, system: System, base: Path | None) -> tuple[Layout, Experts | None]:
    plain = resolve(
        spec.parallel.model_copy(update={"ep": 1}), system, ranks=spec.ranks, experts=model.experts, heads=model.heads
    )
    if not model.experts:
        return resolve(spec.parallel, system, ranks=spec.ranks, experts=0, heads=model.heads), None
    tokens = busiest(spec.micro_batch * busiest(spec.sequence_length, plain.cp), plain.tp)
    mixture = plan_experts(
        model,
        spec.parallel,
        spec.balance,
        ranks=plain.stage_ranks,
        tokens_per_rank=tokens,
        system=system,
        message_B=BYTES_PER_ELEMENT[spec.precision.activations],
        once_per_domain=True,
        base=base,
    )
    mixture = replace(mixture, costs=system.stack.training.experts)
    layout = resolve(spec.parallel, system, ranks=spec.ranks, experts=model.experts, ep=mixture.ranks)
    return layout, mixture


def _micro_batches(spec: TrainingSpec, layout: Layout) -> int:
    per_step = spec.micro_batch * layout.dp
    if spec.global_batch % per_step:
        raise InfeasibleError(
            Problem(
                f"got {spec.global_batch}, which is not a multiple of micro_batch {spec.micro_batch} x dp {layout.dp}",
                key="global_batch",
            )
        )
    return spec.global_batch // per_step


def _hardware_flops(spec: TrainingSpec, model: ModelSpec) -> float:
    """FLOPs per token that are executed, recomputation included."""
    plain = model.training_flops_per_token(spec.sequence_length, causal=True)
    if spec.recompute == "full":
        return plain * 4 / 3
    return plain


class _Stage:
    """Builds the program of one pipeline stage."""

    def __init__(
        self,
        spec: TrainingSpec,
        model: ModelSpec,
        layout: Layout,
        mixture: Experts | None,
        form: layers.Formats,
        stage: int,
        held: range,
        schedule: OneForwardOneBackward,
        stack: StackSpec,
    ):
        self.spec, self.model, self.layout, self.mixture, self.form = spec, model, layout, mixture, form
        self.stage, self.held, self.schedule = stage, held, schedule
        self.queries = busiest(spec.sequence_length, layout.cp)
        self.tokens = spec.micro_batch * self.queries
        self.split = Split(spec, model, layout, form, self.tokens)
        self.tuning = stack.training
        self.sharding = Sharding(spec, model, layout, mixture, form, stage, held, stack.training)
        self.first, self.last = stage == 0, stage == layout.pp - 1
        self.build_ = ProgramBuilder()
        self._blocks: dict[str, tuple[ProgramBuilder, list[int]]] = {}
        # kernels of each kind of turn; of the last turn, and the rows it received
        self._kernels: dict[str, int] = {}
        self.kernels, self.awaits = 0, list[int]()
        per_rank = layout.tp if spec.parallel.sequence_parallel else 1
        self.boundary_B = self.tokens * model.hidden * form.stream_B / per_rank
        self.reduced: list[int] = []
        # the first row of each turn
        self.turns: list[int] = []
        self._chain_rows = 0
        # kernels that move tokens take cores from those that compute beside them
        self.cores = 1.0 - stack.overlap.bulk.communication_cores if schedule.side_by_side else 1.0

    def build(self) -> ProgramBuilder:
        gathered = self.sharding.gather_first(self.build_)
        for turn in self.schedule.order(self.stage):
            self.turns.append(len(self.build_))
            self._turn(turn, gathered)
        self.sharding.update(self.build_, self.reduced[-1:])
        return self.build_

    def loop(self) -> tuple[int, int, int]:
        """First row of the steady part, rows of a period, periods."""
        turn, period, times = self.schedule.steady(self.stage)
        first = self.turns[turn]
        return first, self.turns[turn + period] - first, times

    # one micro-batch through the stage

    def _turn(self, turn: Turn, gathered: Sequence[int]) -> None:
        """One pass, or two side by side, and what each sends on."""
        first = any(one.kind == "F" and one.micro_batch == 0 for one in turn)
        ends = self._dispatched(self._pass(turn, gathered if first else ()))
        for one, end in zip(turn, ends, strict=True):
            if one.kind == "F":
                self._send("next.out", end, self.last)
            else:
                self._send("previous.out", end, self.first)
                self._reduced(one.micro_batch, end)

    def _pass(self, turn: Turn, gathered: Sequence[int]) -> list[int]:
        """The last row of each pass of a turn.

        Turns recur, so each kind is built once as a block; layer k of the first forward also waits for its weights.
        """
        kinds = "".join(one.kind for one in turn)
        key = f"{kinds} {bool(gathered)}"
        if key not in self._blocks:
            block = ProgramBuilder()
            weights = [awaited(len(turn) + k) for k in range(len(gathered))]
            chains = [
                self._forward_chain(weights or self.sharding.gather_for(block, self.held))
                if kind == "F"
                else self._gathered_backward(block)
                for kind in kinds
            ]
            for piece in itertools.chain(*chains) if len(chains) > 1 else ():
                piece.cores = self.cores
            ends = interleave(block, chains, after=[[awaited(i)] for i in range(len(chains))])
            self._blocks[key] = block, ends
            self._kernels[key] = sum(len(piece.kernels) for piece in itertools.chain(*chains))
        block, ends = self._blocks[key]
        self.kernels = self._kernels[key]
        arrived = [self._received("previous.in" if kind == "F" else "next.in") for kind in kinds]
        self.awaits = [row for rows in arrived for row in rows]
        first = self.build_.append(block, [*arrived, *([row] for row in gathered)])
        return [first + end for end in ends]

    def _dispatched(self, ends: list[int]) -> list[int]:
        """The ends of a turn's passes, where its host may be the slower: no pass ends before all of it is launched."""
        each_s = self.tuning.kernel_us * US
        if not each_s:
            return ends
        after = self.awaits if self.tuning.blocking else ()
        launched = self.build_.host("launches", stream="host", recorded_s=self.kernels * each_s, after=after)
        # on the stream of the kernels, so that the next pass starts after it
        return [self.build_.host("launched", stream="compute", recorded_s=0.0, after=[launched, *ends])] * len(ends)

    def _gathered_backward(self, block: ProgramBuilder) -> list[Piece]:
        chain = self._backward_chain()
        rows = self.sharding.gather_for(block, list(reversed(self.held)))
        if rows:
            # gathered in the order of use: the first and the last hold the pass up, if any does
            chain[0].after += (rows[0],)
            chain[-1].after += (rows[-1],)
        return chain

    def _received(self, slot: str) -> list[int]:
        end = self.first if slot == "previous.in" else self.last
        if end:
            return []
        return [self.build_.recv(slot, stream=slot, size_B=self.boundary_B, slot=slot)]

    def _send(self, slot: str, row: int, end: bool) -> None:
        if not end:
            self.build_.send(slot, stream=slot, size_B=self.boundary_B, slot=slot, after=[row])

    # chains

    def _forward_chain(self, gathered: Sequence[int]) -> list[Piece]:
        model, form, tp = self.model, self.form, self.layout.tp
        pieces: list[Piece] = []
        if self.first:
            pieces.append(Piece(layers.embedding(model, self.tokens, form)))
        for number, layer in enumerate(self.held):
            pieces += self._layer(layer, after=(gathered[number],) if gathered else ())
        if self.last:
            pieces.append(Piece([], self.split.tensor("gather", "all_gather")))
            pieces.append(Piece(layers.head(model, self.tokens, tp, form, sample=False)))
        return joined(pieces)

    def _layer(self, layer: int, *, after: tuple[int, ...] = ()) -> list[Piece]:
        model, form, tp = self.model, self.form, self.layout.tp
        split = busiest(self.tokens, tp) if self.spec.parallel.sequence_parallel else self.tokens
        mixer, ffn = model.kind(layer)
        pieces: list[Piece] = []
        if mixer:
            first, *rest = self._mixer(mixer)
            norm = [_shrunk(first, split / self.tokens)]
            pieces = [
                Piece(norm, self.split.tensor("gather", "all_gather")),
                *self.split.context(mixer),
                Piece(rest, self.split.tensor("reduce", "reduce_scatter")),
            ]
        if ffn == "experts" and self.mixture is not None:
            pieces += self.mixture.pieces(model, form, slot="ep")
        elif ffn:
            norm = layers.ffn_norm(model, split, form)
            pieces += [
                Piece(norm, self.split.tensor("gather", "all_gather")),
                Piece(layers.dense_ffn(model, self.tokens, tp, form), self.split.tensor("reduce", "reduce_scatter")),
            ]
        pieces[0].after = after
        return pieces

    def _mixer(self, mixer: str) -> list[Kernel]:
        """The half of a layer that mixes tokens, its norm first."""
        model, form, tp = self.model, self.form, self.layout.tp
        if mixer == "recurrence":
            return layers.recurrence(model, self.spec.micro_batch, self.queries, tp, form, stepwise=False)
        context = _causal_context(self.spec.sequence_length, self.layout.cp)
        pairs = self.queries * (context - self.queries / 2)
        core = layers.core_prefill(model, self.spec.micro_batch, self.queries, context, tp, form)
        return [
            *layers.attention_in(model, self.tokens, tp, form),
            *layers.index_scores(model, self.spec.micro_batch, pairs, context, self.queries),
            *core[:-1],
            layers.unfused(core[-1], model, self.spec.micro_batch * self.queries * context, tp, self.tuning.scores_moved),
            *layers.attention_out(model, self.tokens, tp, form),
        ]

    def _backward_chain(self) -> list[Piece]:
        """Forward pieces, last first: each piece's backward, then the communication that stood before it, mirrored."""
        forward = self._forward_chain(())
        again = _recomputed(self.spec.recompute)
        gradient_B = BYTES_PER_ELEMENT[self.spec.precision.gradients]
        accumulates = self.schedule.micro_batches > 1
        pieces: list[Piece] = []
        for number in range(len(forward) - 1, -1, -1):
            kernels = [kernel for kernel in forward[number].kernels if again(kernel)]
            before = forward[number - 1].comm if number else None
            gradients = layers.backward(forward[number].kernels)
            if accumulates:
                gradients = layers.accumulated(gradients, gradient_B, fused=self.tuning.fused_accumulation)
            pieces.append(Piece(kernels + gradients, _mirrored(before)))
        # the message after the last forward piece is the first of the backward pass
        opening = _mirrored(forward[-1].comm)
        return ([Piece([], opening)] if opening else []) + pieces

    # gradients

    def _reduced(self, i: int, end: int) -> None:
        """Gradients are reduced after the last backward, or after each."""
        if i == self.schedule.micro_batches - 1 or self.sharding.reduces_each():
            self.reduced += self.sharding.reduce(self.build_, end, lambda layer: self._layer_done(end, layer))

    def _layer_done(self, row: int, layer: int) -> int:
        """Row of the last backward pass at which a layer's gradients are whole: rows are spread evenly over layers."""
        if self._chain_rows == 0:
            self._chain_rows = sum(len(piece.kernels) + (piece.comm is not None) for piece in self._backward_chain())
        share = (layer - self.held[0]) / len(self.held)
        return max(row - int(self._chain_rows * share), 0)


def _shrunk(kernel: Kernel, share: float) -> Kernel:
    return kernel._replace(flops=kernel.flops * share, bytes_B=kernel.bytes_B * share, shape=None)


def _causal_context(sequence: int, cp: int) -> float:
    """Context that gives a rank its mean share of causal pairs: with zigzag chunks every rank has s^2 / (2 cp)."""
    return sequence / 2 + sequence / (2 * cp) if cp > 1 else float(sequence)


def _mirrored(comm: Comm | None) -> Comm | None:
    """The message of the backward pass: gathers become reductions, dispatch becomes combine, and the other way."""
    if comm is None:
        return None
    other = {
        "all_gather": "reduce_scatter",
        "reduce_scatter": "all_gather",
        "dispatch": "combine",
        "combine": "dispatch",
    }
    return comm._replace(name=f"{comm.name} backward", collective=other.get(comm.collective, comm.collective))


def _recomputed(recompute: str) -> Callable[[Kernel], bool]:
    """Which forward kernels run again in the backward pass."""
    if recompute == "full":
        return lambda kernel: kernel.kernel != "embedding"
    if recompute == "selective":
        # cheap to compute, large to keep: norms, activations, and the up-projections of latents
        return lambda kernel: (
            kernel.kernel in ("norm", "activation", "rope", "quantise") or kernel.name in ("q up", "k, v up")
        )
    return lambda _: False
