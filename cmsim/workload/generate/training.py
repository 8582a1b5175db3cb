"""One optimizer step: pipeline, tensor, context, data and expert parallel.

Each stage does the passes of its schedule in order (``workload.schedules``), through the parts of the model that it
holds. Where a forward and a backward are one turn they run side by side, so that each hides the other's dispatch and
combine. Gradients of a layer are reduced as soon as its last backward (or what that leaves for later, the gradients of
weights) ends; with ``overlap_data_parallel`` weights are gathered just before the first forward that needs them.

One page of more than 500 lines: passes, and the chains of pieces that they are made of, look at the same parts.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cmsim.hardware import StackSpec, System
from cmsim.kinds.training import TrainingFacts, TrainingSpec
from cmsim.units import BYTES_PER_ELEMENT, TERA
from cmsim.workload.generate import (
    adapters,
    context,
    formats,
    framework,
    further_tokens,
    gradients,
    layers,
    least,
    offload,
    recompute,
    seeing,
    stages,
)
from cmsim.workload.generate.chain import Comm, Kernel, Piece, interleave, joined
from cmsim.workload.generate.experts import Experts
from cmsim.workload.generate.footprint import crowded
from cmsim.workload.generate.offload import Offload
from cmsim.workload.generate.parallel import Layout, with_channels
from cmsim.workload.generate.plan import memory_of, plan_of
from cmsim.workload.generate.sharding import LOSS, WEIGHTS, Sharding, Split
from cmsim.workload.model import ModelSpec
from cmsim.workload.ops import Loop, ProgramBuilder, Programs, assemble, awaited
from cmsim.workload.schedules import Pass, PipelineSchedule, Turn
from cmsim.workload.whole import busiest

#: a step is laid out in full unless it has at least so many times the micro-batches that show how it goes on, and this
#: share of that where they go in rounds: 5 of 8 rounds show it, while 28 of 48 micro-batches through 12 unequal stages
#: are played in vain
_SHORTER, _OF_ROUNDS = 2.0, 0.8

#: formats of attention whose tables are of kernels of serving engines, which read a cache in that format: training has
#: others, priced by their share as their backward is
_OF_SERVING = ("fp8",)

#: what a turn is made of, and its rows as a block with the last row of each pass
_Key = tuple[Any, ...]
_Block = tuple[ProgramBuilder, list[int]]


def programs(
    spec: TrainingSpec, system: System, base: Path | None = None, *, model: ModelSpec | None = None
) -> Programs:
    """The step of every rank: one program per pipeline stage. Of many micro-batches the steady part is a loop.

    model: instead of the one that ``spec`` names, such as a few of its layers
    """
    plan = plan_of(spec, system, base, model=model)
    model, layout, mixture, micro_batches = plan.model, plan.layout, plan.mixture, plan.micro_batches
    schedule, parts = plan.schedule, plan.parts
    notes = [*(mixture.notes if mixture else ()), *stages.said(spec, model, parts, schedule)]
    form = layers.formats(spec.precision)
    if spec.lora is not None and form.recipe is not None:
        # frozen weights have no gradient, which would read the other layout of what is cast
        form = replace(form, recipe=form.recipe.frozen)
    laid = _laid_out(schedule)
    blocks: dict[_Key, _Block] = {}
    stages_ = [
        _Stage(
            spec,
            model,
            layout,
            mixture,
            form,
            stage,
            parts[stage],
            laid,
            system.stack,
            offload.of_stage(spec, model, layout, mixture, parts[stage], system),
            blocks,
        )
        for stage in range(layout.pp)
    ]
    held_B = memory_of(spec, system, plan)
    notes += crowded(held_B, system)
    tokens = float(spec.global_batch * spec.sequence_length)
    facts = TrainingFacts(
        tokens_per_step=tokens,
        model_flops_per_token=_model_flops(spec, model),
        hardware_flops_per_token=_hardware_flops(spec, model, mixture),
        # MFU is stated on the 16-bit peak, as published figures are, whatever format GEMMs run in
        peak_FLOPps=system.accelerator.peak_TFLOPps["bf16"] * TERA,
        micro_batches=float(micro_batches),
        stages=float(layout.pp),
    )
    left_out = (micro_batches - laid.micro_batches) // laid.alike_after
    return assemble(
        [stage.build() for stage in stages_],
        program=layout.placed(layout.stage),
        groups=with_channels(layout),
        facts=facts,
        notes=notes,
        footprint_B=held_B,
        plan={
            **layout.sizes,
            "sequences_per_rank": spec.micro_batch * micro_batches,
            "micro_batches": micro_batches,
        },
        least=least.training(spec, model, ranks=spec.ranks or system.ranks, base=base),
        loop=_loop(stages_, left_out),
    )


def _laid_out(schedule: PipelineSchedule) -> PipelineSchedule:
    """The schedule with as many micro-batches as are laid out: few where most would be alike.

    A pipeline whose inner stages have the same work often comes again after as many turns as there are of them, and one
    in which ranks do the same in pairs after two: what is left out is a multiple of that, so that it need not be played
    twice. See ``cmsim.engine.steady``.
    """
    few, alike_after = schedule.recurring(), schedule.alike_after * schedule.copies
    if not few:
        return schedule
    if alike_after == 1:
        alike_after = max(schedule.stages - 2, 1)
    few += (schedule.micro_batches - few) % alike_after
    worth = _SHORTER * few * (_OF_ROUNDS if schedule.alike_after > 1 else 1.0)
    return replace(schedule, micro_batches=few) if worth <= schedule.micro_batches else schedule


def _loop(laid: Sequence[_Stage], left_out: int) -> Loop | None:
    if not left_out:
        return None
    first, rows, times = zip(*(stage.loop() for stage in laid), strict=True)
    return Loop(np.array(first), np.array(rows), np.array(times), left_out)


def _model_flops(spec: TrainingSpec, model: ModelSpec) -> float:
    """FLOPs per token that the model needs, nothing computed twice."""
    if spec.lora is not None:
        return adapters.flops_per_token(spec.lora, model, spec.sequence_length)
    seen = 3.0 * seeing.flops_per_token(spec, model)
    return model.training_flops_per_token(spec.sequence_length, causal=True) + seen


def _hardware_flops(spec: TrainingSpec, model: ModelSpec, mixture: Experts | None) -> float:
    """FLOPs per token that are executed: recomputation, further tokens and what fills up places of experts included."""
    plain = _model_flops(spec, model)
    plain += 3.0 * spec.mtp_layers * further_tokens.flops_per_token(model, spec.sequence_length)
    if mixture is not None and spec.capacity_factor is not None:
        filled = mixture.copies - model.top_k - (model.shared_experts if mixture.shared_in_slots else 0)
        plain += 6.0 * model.moe_layers * filled * model.expert_parameters
    return plain + recompute.flops_again(spec, model)


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
        parts: Sequence[stages.ModelPart],
        schedule: PipelineSchedule,
        stack: StackSpec,
        moved: Offload,
        blocks: dict[_Key, _Block],
    ):
        self.spec, self.model, self.layout, self.mixture, self.form = spec, model, layout, mixture, form
        self.wide = formats.wide(spec.precision)
        self.stage, self.parts, self.schedule, self.moved = stage, parts, schedule, moved
        self.queries = busiest(spec.sequence_length, layout.cp)
        self.tokens = spec.micro_batch * self.queries
        self.split = Split(spec, model, layout, form, self.tokens)
        self.tuning = stack.training
        self.sharding = Sharding(spec, model, layout, mixture, form, parts, stack.training)
        self.build_ = ProgramBuilder()
        self._blocks = blocks
        self._alike: dict[tuple[str, int], _Key] = {}
        per_rank = layout.tp if spec.parallel.sequence_parallel else 1
        self.boundary_B = self.tokens * model.hidden * form.stream_B / per_rank
        self.reduced: list[int] = []
        # the first row of each turn
        self.turns: list[int] = []
        # the last row of each pass, and backward passes that each virtual stage has before it
        self.ended: dict[Pass, int] = {}
        self.left = Counter(one.virtual for turn in schedule.order(stage) for one in turn if one.kind == "F")
        self._chain_rows: dict[tuple[str, int], int] = {}
        self._around: dict[int, dict[int, tuple[int, int] | None]] = {}
        # kernels that move tokens take cores from those that compute beside them
        self.cores = 1.0 - stack.overlap.bulk.communication_cores
        self.overlap = self.split.overlap(stack.overlap.tp_chunks)

    def build(self) -> ProgramBuilder:
        # in the order of first use, which is that of the counts
        gathered = {virtual: self.sharding.gather_first(self.build_, self.parts[virtual]) for virtual in self.left}
        for turn in self.schedule.order(self.stage):
            self.turns.append(len(self.build_))
            self._turn(turn, gathered)
        self.sharding.update(self.build_, self.moved.update(self.build_, self.reduced[-1:], max(self.ended.values())))
        return self.build_

    def loop(self) -> tuple[int, int, int]:
        """First row of the steady part, rows of a period, periods."""
        turn, period, times = self.schedule.steady(self.stage)
        first = self.turns[turn]
        return first, self.turns[turn + period] - first, times

    # one micro-batch through the stage

    def _turn(self, turn: Turn, gathered: dict[int, list[int]]) -> None:
        """One pass, or two side by side, and what each sends on. The first forward of a part waits for its weights.

        Turns recur, within a stage and from stage to stage, so each kind is built once as a block.
        """
        weights = [row for one in turn if one.kind == "F" for row in gathered.pop(one.virtual, ())]
        key = (len(weights), *map(self._alike_as, turn))
        if key not in self._blocks:
            self._blocks[key] = self._block(turn, len(weights))
        block, ends = self._blocks[key]
        first = len(self.build_)
        if len(block):
            self.build_.append(block, [*map(self._made_here, turn), *([row] for row in weights)])
        for one, end in zip(turn, ends, strict=True):
            # a part without layers has no products whose gradients of weights could wait
            self.ended[one] = first + end if end >= 0 else self.ended[one._replace(kind="I")]
        for one in turn:
            if one.kind in "BW":
                self._reduced(one, self.ended[one])

    def _alike_as(self, one: Pass) -> _Key:
        """What passes have in common whose rows are the same: all that `_block` looks at."""
        key = one.kind, one.virtual
        if key not in self._alike:
            part, model = self.parts[one.virtual], self.model
            held = [
                (model.kind(stages.like(model, layer)), layer >= model.layers, self._form(layer) is self.form)
                for layer in part.layers
            ]
            around = [self._message(one, step) for step in (-1, 1)]
            self._alike[key] = one.kind, part.first, part.last, *around, *held
        return self._alike[key]

    def _block(self, turn: Turn, gathered: int) -> _Block:
        """The rows of a turn, and the last of each pass before it sends. Layer k of a first forward waits for weights
        that the turn is told, and a pass for the one before it where the rank has both."""
        block = ProgramBuilder()
        arrived = [[awaited(i), *self._received(block, one)] for i, one in enumerate(turn)]
        weights = [awaited(len(turn) + k) for k in range(gathered)]
        chains = [
            self.moved.beside(block, one, self._chain(block, one, weights), arrived[number])
            for number, one in enumerate(turn)
        ]
        for piece in itertools.chain(*chains) if len(chains) > 1 else ():
            piece.cores = self.cores
        ends = interleave(block, chains, after=arrived)
        kernels = sum(len(piece.kernels) + len(piece.beside) for piece in itertools.chain(*chains))
        received = [row for rows in arrived for row in rows[1:]]
        ends = framework.launched(block, kernels, self.tuning.kernel_us, received=received, ends=ends)
        for one, end in zip(turn, ends, strict=True):
            self._send(block, one, end)
        return block, ends

    def _chain(self, block: ProgramBuilder, one: Pass, weights: Sequence[int]) -> list[Piece]:
        part = self.parts[one.virtual]
        if one.kind == "F":
            gathered = weights or self.sharding.gather_for(block, part, part.buckets)
            return self.overlap.arranged(self._forward_chain(part, gathered))
        chain = self._backward_chain(part, one.kind)
        if one.kind == "W":
            return chain
        rows = self.sharding.gather_again(block, part, list(reversed(part.buckets)))
        if rows and chain:
            # gathered in the order of use: the first and the last hold the pass up, if any does
            chain[0].after += (rows[0],)
            chain[-1].after += (rows[-1],)
        return chain

    def _made_here(self, one: Pass) -> list[int]:
        """The row of the pass before, where the rank has both."""
        before = self._neighbour(one, -1)
        return [] if before is None or before[0] != self.stage else [self.ended[one._replace(virtual=before[1])]]

    def _received(self, block: ProgramBuilder, one: Pass) -> list[int]:
        slot = self._message(one, -1)
        return [block.recv(slot, stream=slot, size_B=self.boundary_B, slot=slot)] if slot else []

    def _send(self, block: ProgramBuilder, one: Pass, row: int) -> None:
        slot = self._message(one, 1)
        if slot:
            block.send(slot, stream=slot, size_B=self.boundary_B, slot=slot, after=[row])

    def _message(self, one: Pass, step: int) -> str:
        """The channel on which a pass gets what it needs (-1), or sends what it has made (1); "" where there is none.

        On the way back the next rank is the one before.
        """
        other = self._neighbour(one, step)
        if other is None or other[0] == self.stage:
            return ""
        on = one.kind == "F"
        back = self.schedule.turns_back and one.virtual == 1
        way = "next" if (step == 1) == (on != back) else "previous"
        return f"{'back.' if back else ''}{way}.{'in' if step < 0 else 'out'}"

    def _neighbour(self, one: Pass, step: int) -> tuple[int, int] | None:
        """Rank and virtual stage that a pass takes over from (-1) or hands on to (1)."""
        if one.kind == "W":
            # gradients of inputs are of the rank itself, and those of weights go nowhere
            return None
        if one.virtual not in self._around:
            route, place = self.schedule.route(one.micro_batch), self.schedule.part(self.stage, one.virtual)
            self._around[one.virtual] = {
                by: route[place + by] if 0 <= place + by < len(route) else None for by in (-1, 1)
            }
        return self._around[one.virtual][step if one.kind == "F" else -step]

    # chains

    def _forward_chain(self, part: stages.ModelPart, gathered: Sequence[int]) -> list[Piece]:
        model = self.model
        pieces: list[Piece] = []
        if part.first:
            pieces += seeing.pieces(self.spec, model, self.layout, self.wide)
            # every rank has a part of the words: what it finds is added up
            found = self.split.tensor("reduce", "reduce_scatter")
            pieces.append(Piece(layers.embedding(model, self.tokens, self.form), found))
        if part.last and not part.layers:
            pieces.append(Piece())
        if pieces and not part.layers:
            pieces[0].after = tuple(gathered)
        for number, layer in enumerate(part.layers):
            if layer == model.layers:
                pieces += self._head()
            after = (gathered[number],) if gathered else ()
            pieces += [Piece([], weights) for weights in self.sharding.before(part, layer)]
            if layer >= model.layers:
                opening = further_tokens.opening(self.split)
                opening[0].after, after = after, ()
                pieces += [*opening, *self._layer(model.drafting_layer), *self._head()]
                continue
            pieces += self._layer(layer, after=after)
        if part.last and not self.spec.mtp_layers:
            pieces += self._head()
        return joined(adapters.added(self.spec.lora, pieces))

    def _head(self) -> list[Piece]:
        head = layers.head(self.model, self.tokens, self.layout.tp, self.form, sample=False)
        *products, loss = head
        return [
            Piece([], self.split.tensor("gather", "all_gather")),
            Piece(products, self.split.loss("most")),
            Piece([loss], self.split.loss("sum")),
        ]

    def _layer(self, layer: int, *, after: tuple[int, ...] = ()) -> list[Piece]:
        model, form, tp = self.model, self._form(layer), self.layout.tp
        split = busiest(self.tokens, tp) if self.spec.parallel.sequence_parallel else self.tokens
        mixer, ffn = model.kind(layer)
        pieces: list[Piece] = []
        if mixer:
            first, *rest = self._mixer(mixer, form)
            norm = [_shrunk(first, split / self.tokens)]
            if form.recipe is not None and rest[0].kernel == "quantise":
                # what is gathered is cast before
                norm.append(_shrunk(rest.pop(0), split / self.tokens))
            pieces = [
                Piece(norm, self.split.tensor("gather", "all_gather")),
                *self.split.mixing(mixer, rest, self.split.tensor("reduce", "reduce_scatter")),
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

    def _form(self, layer: int) -> formats.Formats:
        """Formats of a layer: some stay in 16 bits beside a recipe."""
        wide = formats.in_16_bits(self.spec.precision, layer, self.model.layers)
        return self.wide if wide else self.form

    def _mixer(self, mixer: str, form: formats.Formats) -> list[Kernel]:
        """The half of a layer that mixes tokens, its norm first."""
        model, tp = self.model, self.layout.tp
        if mixer == "recurrence":
            return layers.recurrence(model, self.spec.micro_batch, self.queries, tp, form, stepwise=False, trained=True)
        sequence, cp = self.spec.sequence_length, self.layout.cp
        seen = _causal_context(sequence, cp)
        # some tokens of all heads, or more of fewer: whole sequences where all ranks of a group exchange heads
        heads = context.by_heads(self.spec, self.layout)
        queries, context_, heads_tp = self.queries, seen, tp
        if heads > 1:
            queries, context_ = busiest(sequence, cp // heads), _causal_context(sequence, cp // heads)
            heads_tp = tp * heads
        pairs = self.queries * (seen - self.queries / 2)
        core = layers.core_prefill(model, self.spec.micro_batch, queries, context_, heads_tp, form)
        *before, attention = core
        if form.attention in _OF_SERVING:
            attention = attention._replace(shape=None)
        scores = self.spec.micro_batch * queries * context_
        return [
            *layers.attention_in(model, self.tokens, tp, form),
            *layers.index_scores(model, self.spec.micro_batch, pairs, seen, self.queries),
            *before,
            framework.unfused(attention, model, scores, heads_tp, self.tuning.scores_moved),
            *layers.attention_out(model, self.tokens, tp, form),
        ]

    def _backward_chain(self, part: stages.ModelPart, kind: str) -> list[Piece]:
        """Forward pieces, last first: each piece's backward, then the communication that stood before it, mirrored.

        Of a backward in two parts the gradients of weights are one piece, products alone.
        """
        forward = self._forward_chain(part, ())
        if kind == "W":
            backward = [kernel for piece in reversed(forward) for kernel in gradients.backward(piece.kernels)]
            trained = [one for one in adapters.trained(self.spec.lora, backward) if gradients.of_weights(one)]
            return [Piece(self._accumulated(trained))]
        again = recompute.runs_again(self.spec, self.model)
        sent_again = recompute.sends_again(self.spec, self.model)
        pieces: list[Piece] = []
        for number in range(len(forward) - 1, -1, -1):
            piece, before = forward[number], forward[number - 1] if number else Piece()
            kernels = [kernel for kernel in [*piece.kernels, *before.beside] if again(kernel)]
            backward = adapters.trained(self.spec.lora, gradients.backward(piece.kernels, self.form.recipe))
            if kind == "I":
                backward = [kernel for kernel in backward if not gradients.of_weights(kernel)]
            if piece.comm is not None and piece.comm.name == WEIGHTS:
                # those of the layer that ends here: as many bytes as of the next
                pieces.append(Piece([], piece.comm))
            gathered = before.comm is not None and before.comm.name == WEIGHTS
            if before.comm is not None and (before.comm.name == context.AGAIN or (sent_again(piece) and not gathered)):
                pieces.append(Piece([], before.comm))
            beside = gradients.backward(before.beside, self.form.recipe)
            pieces.append(Piece(kernels + self._accumulated(backward), _mirrored(before.comm), beside=beside))
        # the message after the last forward piece is the first of the backward pass
        opening = _mirrored(forward[-1].comm)
        return self.overlap.arranged(([Piece([], opening)] if opening else []) + pieces)

    # gradients

    def _accumulated(self, backward: list[Kernel]) -> list[Kernel]:
        """A backward pass that adds to the gradients of the micro-batches before it, where there are any."""
        if self.schedule.micro_batches == 1:
            return backward
        gradient_B = BYTES_PER_ELEMENT[self.spec.precision.gradients]
        return framework.accumulated(backward, gradient_B, fused=self.tuning.fused_accumulation)

    def _reduced(self, one: Pass, end: int) -> None:
        """Gradients of a part are reduced after its last backward, or after each."""
        self.left[one.virtual] -= 1
        last = not self.left[one.virtual]
        if last or self.sharding.reduces_each():
            part = self.parts[one.virtual]
            self.reduced += self.sharding.reduce(
                self.build_, part, end, lambda layer: self._layer_done(one, end, layer), last=last
            )

    def _layer_done(self, one: Pass, row: int, layer: int) -> int:
        """Row of the last backward pass at which a layer's gradients are whole: rows are spread evenly over layers."""
        part, key = self.parts[one.virtual], (one.kind, one.virtual)
        if key not in self._chain_rows:
            chain = self._backward_chain(part, one.kind)
            self._chain_rows[key] = sum(
                len(piece.kernels) + len(piece.beside) + (piece.comm is not None) for piece in chain
            )
        share = (layer - part.buckets[0]) / len(part.buckets)
        return max(row - int(self._chain_rows[key] * share), 0)


def _shrunk(kernel: Kernel, share: float) -> Kernel:
    return kernel._replace(flops=kernel.flops * share, bytes_B=kernel.bytes_B * share, shape=None)


def _causal_context(sequence: int, cp: int) -> float:
    """Context that gives a rank its mean share of causal pairs: with zigzag chunks every rank has s^2 / (2 cp)."""
    return sequence / 2 + sequence / (2 * cp) if cp > 1 else float(sequence)


def _mirrored(comm: Comm | None) -> Comm | None:
    """The message of the backward pass: gathers become reductions, dispatch becomes combine, and the other way."""
    if comm is None or comm.name.startswith(LOSS):
        return None
    if comm.name == context.RING:
        return context.mirrored(comm)
    other = {
        "all_gather": "reduce_scatter",
        "reduce_scatter": "all_gather",
        "dispatch": "combine",
        "combine": "dispatch",
    }
    return comm._replace(name=f"{comm.name} backward", collective=other.get(comm.collective, comm.collective))
