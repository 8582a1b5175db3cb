"""One prefill batch or one decode step: attention with tensor or data parallelism, experts spread over ranks.

With data-parallel attention every rank holds whole sequences and meets the others only to exchange tokens with
experts. Two micro-batches hide that exchange: they take turns on one compute stream, or, where the stack says so,
attention and experts own a share of the cores each and run side by side.

Sequences are whole: every rank is priced as the busiest, and fills up with empty ones what it has less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cmsim.compute import Work
from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.hardware import Sharing, System
from cmsim.kinds.decode import ChunkSpec, DecodeFacts, DecodeSpec
from cmsim.kinds.prefill import PrefillFacts, PrefillSpec
from cmsim.units import MB, US
from cmsim.workload import memory, whole
from cmsim.workload.generate import layers, least
from cmsim.workload.generate.chain import Comm, Kernel, Piece, interleave, joined
from cmsim.workload.generate.experts import Experts, plan_experts
from cmsim.workload.generate.parallel import Layout, resolve
from cmsim.workload.generate.stored import as_stored
from cmsim.workload.model import LayerKind, ModelSpec, load_model, speculative_tokens_per_step
from cmsim.workload.ops import Least, ProgramBuilder, Programs, assemble

#: builds the attention core of one layer, with a window or not, for a share of the rank's sequences
Core = Callable[[float, bool], list[Kernel]]


def prefill(spec: PrefillSpec, system: System, base: Path | None = None) -> Programs:
    """A batch of prompts, from the token table to the first token of each."""
    model = _decoder(spec, base)
    spec, said = as_stored(spec, model, system)
    own = whole.busiest(spec.prompt_tokens, spec.parallel.cp)
    layout, mixture, batch = _layout(spec, model, system, base, tokens_per_sequence=own)
    form = layers.formats(spec.precision, model.stored)

    def core(held: float, narrow: bool) -> list[Kernel]:
        seen = float(spec.cached_tokens + spec.prompt_tokens)
        # ranks that share prompts have parts near their ends and near their beginnings, so that all see as many
        mean = seen if own == spec.prompt_tokens else spec.cached_tokens + (spec.prompt_tokens + own) / 2
        pairs = own * (mean - own / 2)
        tp = _heads_tp(layout, spec)
        return [
            *layers.index_scores(model, held, pairs, seen, own),
            *layers.core_prefill(model, held, own, mean, tp, form, narrow=narrow, made=seen),
        ]

    step = _Step(spec, system, model, layout, mixture, form, core, batch, tokens_per_sequence=own)
    facts = PrefillFacts(tokens_per_run=batch.worked * spec.prompt_tokens, steps=1.0, layers=float(model.layers))
    need = least.prefill(spec, model, prompts=batch.worked, ranks=layout.ranks, base=base)
    cached = float(spec.cached_tokens)
    return _assemble(step.build(), layout, facts, mixture, spec, model, form, batch, need, own, cached, said)


def decode(spec: DecodeSpec, system: System, base: Path | None = None) -> Programs:
    """One step of a full batch: draft tokens verified beside the last accepted one, then the next drafts."""
    model = _decoder(spec, base)
    spec, said = as_stored(spec, model, system)
    draft = spec.speculative.draft_tokens if spec.speculative else 0
    q_tokens = 1.0 + draft
    if spec.chunk is not None and model.recurrence:
        raise InfeasibleError(Problem("prompts beside sequences are not modelled for layers with a state", key="chunk"))
    layout, mixture, batch = _layout(spec, model, system, base, tokens_per_sequence=q_tokens)
    form = layers.formats(spec.precision, model.stored)

    def of(new: float) -> Core:
        def core(held: float, narrow: bool) -> list[Kernel]:
            context = spec.context_tokens
            seen = min(context, model.index_top) if model.index_top else context
            return [
                *layers.index_scores(model, held, new * context, context, new),
                *layers.core_decode(model, held, new, seen, _heads_tp(layout, spec), form, narrow=narrow),
            ]

        return core

    def mixed(held: float, narrow: bool) -> list[Kernel]:
        chunk = spec.chunk
        beside = [] if chunk is None else _chunk(chunk, model, held / batch.held, _heads_tp(layout, spec), form, narrow)
        return [*of(q_tokens)(held, narrow), *beside]

    step = _Step(spec, system, model, layout, mixture, form, mixed, batch, tokens_per_sequence=q_tokens)
    build = step.build()
    notes = list(said)
    if draft and not model.mtp_layers:
        notes.append("the model has no draft layer of its own: drafts are priced as one more layer and head per token")
    for _ in range(draft):
        # one more layer and head guess the next token from the last, of all micro-batches at once
        guess = _Step(
            spec,
            system,
            model,
            layout,
            mixture and mixture.at(batch.held / batch.tokens(batch.parts[0], q_tokens)),
            form,
            of(1.0),
            batch,
            tokens_per_sequence=1.0,
            alone=True,
        )
        guess.draft(build)
    accepted = speculative_tokens_per_step(spec.speculative.acceptance, draft) if spec.speculative else 1.0
    facts = DecodeFacts(
        tokens_per_run=batch.worked * accepted,
        steps=1.0,
        tokens_per_step_per_sequence=accepted,
        layers=float(model.layers),
    )
    need = least.decode(spec, model, sequences=batch.worked, ranks=layout.ranks, base=base)
    cached = float(spec.context_tokens)
    return _assemble(build, layout, facts, mixture, spec, model, form, batch, need, q_tokens, cached, notes)


def _decoder(spec: PrefillSpec | DecodeSpec, base: Path | None) -> ModelSpec:
    """The model that a workload runs. Raises InputError where it is an encoder."""
    model = load_model(spec.model, base=base)
    if model.encoder:
        raise InputError(
            Problem(f"{model.name} is an encoder, which has no {spec.kind}: run it with kind encoder", key="model")
        )
    return model


@dataclass(frozen=True)
class _Batch:
    """Whole sequences of a run.

    total  of all ranks, were they as full as the busiest    worked  of all as they are
    held   of the busiest rank with data-parallel attention, of the busiest tensor group otherwise
    parts  its micro-batches, the largest first    notes  what to say of them
    beside tokens of prompts that are worked on with those of the busiest one, shared out over its sequences
    """

    total: float
    worked: float
    held: float
    parts: tuple[float, ...]
    notes: tuple[str, ...] = ()
    beside: float = 0.0

    def tokens(self, held: float, per_sequence: float) -> float:
        """Tokens that a step works on for so many of the busiest one's sequences. [1]"""
        return held * per_sequence + self.beside * (held / self.held)


def _new_tokens(spec: PrefillSpec | DecodeSpec) -> float:
    """Tokens that a step works on, of each sequence. [1]"""
    if spec.kind == "prefill":
        return float(spec.prompt_tokens)
    return 1.0 + (spec.speculative.draft_tokens if spec.speculative else 0)


def _sharing(spec: PrefillSpec | DecodeSpec, system: System) -> Sharing:
    """How micro-batches of its kind of work share a rank."""
    return system.stack.overlap.decode if spec.kind == "decode" else system.stack.overlap.bulk


def _batch(spec: PrefillSpec | DecodeSpec, layout: Layout, system: System) -> _Batch:
    what = "prompts" if spec.kind == "prefill" else "sequences"
    total, notes = whole.counted(spec.batch_per_accelerator, layout.ranks / system.ranks_per_package, what)
    holders = layout.ranks // (_heads_tp(layout, spec) * layout.cp)
    held = whole.busiest(total, holders)
    parts = whole.parts(held, spec.microbatches)
    tokens, least = held * _new_tokens(spec), _sharing(spec, system).least_tokens
    if spec.microbatches > 1 and tokens < least:
        parts = (held,)
        notes = (
            *notes,
            f"one micro-batch: {tokens:g} tokens of the busiest rank, and engines cut batches from {least:g} on",
        )
    holder = "rank" if holders == layout.ranks else "group of ranks" if layout.cp > 1 else "tensor group"
    if held * holders > total:
        filled = f"{total:g} {what} on {holders} {holder}s: every {holder} is priced as the busiest, with {held:g}"
        notes = (*notes, filled)
    if len(parts) < spec.microbatches and tokens >= least:
        notes = (*notes, f"the busiest {holder} holds {held:g} of the {what}, too few for {spec.microbatches} parts")
    if spec.evenness < 1:
        mean = (
            f"{what} are of the busiest {holder}; all have {spec.evenness:.3g} of it in the mean, and draw as it does"
        )
        notes = (*notes, mean)
    chunk = getattr(spec, "chunk", None)
    return _Batch(total, total * spec.evenness, held, parts, notes, float(chunk.tokens) if chunk else 0.0)


def _chunk(
    chunk: ChunkSpec, model: ModelSpec, share: float, tp: int, form: layers.Formats, narrow: bool
) -> list[Kernel]:
    """The attention core of a share of a chunk, as one prompt."""
    new, seen = float(chunk.tokens), float(chunk.cached_tokens + chunk.tokens)
    pairs = new * chunk.cached_tokens + new**2 / 2
    return [
        *layers.index_scores(model, share, pairs, seen, new),
        *layers.core_prefill(model, share, new, seen, tp, form, narrow=narrow),
    ]


def _layout(
    spec: PrefillSpec | DecodeSpec, model: ModelSpec, system: System, base: Path | None, *, tokens_per_sequence: float
) -> tuple[Layout, Experts | None, _Batch]:
    parallel = spec.parallel
    if parallel.pp > 1 or (parallel.cp > 1 and (spec.kind == "decode" or model.recurrence)):
        size = "pp" if parallel.pp > 1 else "cp"
        raise InfeasibleError(Problem(f"{spec.kind} takes 1, got {getattr(parallel, size)}", key=f"parallel.{size}"))
    heads = model.heads if parallel.attention == "tp" else 0
    if not model.experts:
        layout = resolve(parallel, system, ranks=spec.ranks, experts=0, heads=heads, expert_tp=parallel.expert_tp)
        return layout, None, _batch(spec, layout, system)
    alone = parallel.model_copy(update={"ep": 1})
    tp = parallel.expert_tp
    plain = resolve(alone, system, ranks=spec.ranks, experts=model.experts, heads=heads, expert_tp=tp)
    batch = _batch(spec, plain, system)
    mixture = plan_experts(
        model,
        parallel,
        spec.balance,
        ranks=plain.stage_ranks,
        # a tensor group shares its tokens out: all of its ranks have each of them
        tokens_per_rank=batch.tokens(batch.parts[0], tokens_per_sequence) / _heads_tp(plain, spec),
        system=system,
        message_B=layers.of_experts(spec.precision).activation_B,
        once_per_domain=spec.kind == "prefill",
        base=base,
        expert_tp=tp,
    )
    joined = _heads_tp(plain, spec) == mixture.ranks * tp > 1
    costs = system.stack.steps
    late = costs.late if spec.kind == "decode" else None
    mixture = replace(mixture, joined=joined, served=costs.cast_experts, late=late, evenness=spec.evenness)
    layout = resolve(parallel, system, ranks=spec.ranks, experts=model.experts, ep=mixture.ranks, expert_tp=tp)
    return layout, mixture, batch


def _heads_tp(layout: Layout, spec: PrefillSpec | DecodeSpec) -> int:
    return layout.tp if spec.parallel.attention == "tp" else 1


class _Step:
    """Builds the program that every rank runs."""

    def __init__(
        self,
        spec: PrefillSpec | DecodeSpec,
        system: System,
        model: ModelSpec,
        layout: Layout,
        mixture: Experts | None,
        form: layers.Formats,
        core: Core,
        batch: _Batch,
        *,
        tokens_per_sequence: float,
        alone: bool = False,
    ):
        self.spec, self.model, self.layout, self.mixture, self.form = spec, model, layout, mixture, form
        self.core, self.per_sequence = core, tokens_per_sequence
        # drafts are of sequences alone
        self.batch = replace(batch, beside=0.0) if alone else batch
        self.costs = system.stack.steps
        self.tp = _heads_tp(layout, spec)
        several = len(batch.parts) > 1
        overlap = _sharing(spec, system)
        split = overlap.mode == "split" and several and mixture is not None
        self.attention = ("attention", overlap.attention_cores) if split else ("compute", 1.0)
        self.expert = ("experts", overlap.expert_cores) if split else ("compute", 1.0)
        # layers without experts, and the ends of the model, share their cores with nobody
        self.alone = ("attention" if split else "compute", 1.0)
        taken = overlap.communication_cores if several and not split else 0.0
        if taken:
            self.attention = self.expert = self.alone = ("compute", 1.0 - taken)

    def build(self) -> ProgramBuilder:
        build = ProgramBuilder()
        prepared = self._prepared(build)
        parts, every = self.batch.parts, range(self.model.layers)
        # micro-batches of one size are alike
        chains = {
            part: self._chain(part, every, self.mixture and self.mixture.at(part / parts[0]), opening=True)
            for part in dict.fromkeys(parts)
        }
        interleave(build, [chains[part] for part in parts], after=[prepared] * len(parts))
        return build

    def _prepared(self, build: ProgramBuilder) -> list[int]:
        """What kernels wait for: the host, where it has not prepared this step while the last one ran."""
        host_s = (self.costs.host_us + self.costs.sequence_us * self.batch.held) * US
        if not host_s:
            return []
        row = build.host("prepare step", stream="host", recorded_s=host_s)
        return [] if self.costs.overlapped else [row]

    def draft(self, build: ProgramBuilder) -> None:
        """One more layer, as the last one with attention, then the head, after all that is built."""
        last = len(build) - 1
        self.attention, self.expert = self.alone, (self.expert[0], self.alone[1])
        which = [self.model.drafting_layer]
        chain = self._chain(self.batch.held, which, self.mixture, opening=False)
        interleave(build, [chain], after=[[last]])

    def _chain(self, held: float, which: Sequence[int], mixture: Experts | None, *, opening: bool) -> list[Piece]:
        model, form = self.model, self.form
        tokens = self.batch.tokens(held, self.per_sequence)
        stream, cores = self.alone
        pieces: list[Piece] = []
        if opening:
            pieces.append(Piece(layers.embedding(model, tokens, form), stream=stream, cores=cores))
        # layers of one kind are the same pieces
        kinds = [(model.kind(layer), model.narrow(layer)) for layer in which]
        made = {kind: self._layer(held, mixture, *kind) for kind in dict.fromkeys(kinds)}
        for kind in kinds:
            pieces += made[kind]
        # of prompts beside sequences one is done at most
        last = held if self.spec.kind == "prefill" else held * self.per_sequence + bool(self.batch.beside)
        gathered = self._gathered("all_gather", last)
        if gathered:
            pieces.append(Piece([], gathered, stream, cores))
        sampled_B = self.costs.sampling_MB * MB
        sampled = Work(sampled_B * self.costs.sampling_FLOP_per_B, sampled_B)
        ends = layers.head(model, last * self._joined, self.layout.tp, form, sample=True, sampled=sampled)
        pieces.append(Piece(ends, stream=stream, cores=cores))
        return joined(pieces)

    def _layer(self, held: float, mixture: Experts | None, kind: LayerKind, narrow: bool) -> list[Piece]:
        """A layer of one kind, whose tokens see a window or all."""
        on = self.attention if kind.ffn == "experts" and mixture is not None else self.alone
        pieces = self._mixer(held, kind.mixer, narrow, on) if kind.mixer else []
        if kind.ffn == "experts" and mixture is not None:
            return pieces + mixture.pieces(
                self.model,
                layers.of_experts(self.spec.precision, self.model.stored),
                slot="ep",
                routing=self.attention,
                working=self.expert,
            )
        return pieces + self._dense(held) if kind.ffn else pieces

    def _mixer(self, held: float, mixer: str, narrow: bool, on: tuple[str, float]) -> list[Piece]:
        """What mixes tokens, with its projections: attention, or a state. ``on``: its stream and share of the cores."""
        tokens = self.batch.tokens(held, self.per_sequence)
        if mixer == "recurrence":
            stepwise = self.spec.kind == "decode"
            kernels = layers.recurrence(self.model, held, self.per_sequence, self.tp, self.form, stepwise=stepwise)
            return [Piece(kernels, self._sum(tokens, self.tp), *on)]
        before = layers.attention_in(self.model, tokens, self.tp, self.form)
        after = [*self.core(held, narrow), *layers.attention_out(self.model, tokens, self.tp, self.form)]
        added = self._sum(tokens, self.tp)
        if self.layout.cp == 1:
            return [Piece([*before, *after], added, *on)]
        return [Piece(before, self._keys(tokens), *on), Piece(after, added, *on)]

    def _keys(self, tokens: float) -> Comm:
        """Keys and values, or latents, of all parts of the prompts, in 16 bits, to the ranks that share them."""
        model = self.model
        if model.attention == "mla":
            width = float(model.kv_lora_rank + model.rope_dim)
        else:
            width = whole.busiest(model.kv_heads, self.tp) * (model.head_dim + model.v_head_dim)
        size_B = tokens * self.layout.cp * (width + model.index_dim) * self.form.stream_B
        return Comm("cp gather", "all_gather", size_B, "cp")

    def _dense(self, held: float) -> list[Piece]:
        """A dense FFN, split over the tensor group. Ranks that hold sequences of their own bring their
        tokens together for it, and each takes its own of the sums."""
        model, form, tp = self.model, self.form, self.layout.tp
        tokens = self.batch.tokens(held, self.per_sequence)
        norm = layers.ffn_norm(model, tokens, form)
        ffn = layers.dense_ffn(model, tokens * self._joined, tp, form)
        gathered = self._gathered("all_gather", tokens)
        if gathered is None:
            return [Piece([*norm, *ffn], self._sum(tokens, tp), *self.alone)]
        return [
            Piece(norm, gathered, *self.alone),
            Piece(ffn, self._gathered("reduce_scatter", tokens), *self.alone),
        ]

    @property
    def _joined(self) -> int:
        """Ranks whose tokens meet in the parts that tensor parallelism splits."""
        return self.layout.tp // self.tp

    def _gathered(self, collective: str, tokens: float) -> Comm | None:
        if self._joined == 1:
            return None
        size_B = tokens * self._joined * self.model.hidden * self.form.stream_B
        return Comm("tp gather" if collective == "all_gather" else "tp scatter", collective, size_B, "tp")

    def _sum(self, tokens: float, tp: int) -> Comm | None:
        if tp == 1:
            return None
        return Comm("tp sum", "all_reduce", tokens * self.model.hidden * self.form.stream_B, "tp")


def _assemble(
    build: ProgramBuilder,
    layout: Layout,
    facts: PrefillFacts | DecodeFacts,
    mixture: Experts | None,
    spec: PrefillSpec | DecodeSpec,
    model: ModelSpec,
    form: layers.Formats,
    batch: _Batch,
    need: Least,
    new: float,
    before: float,
    notes: Sequence[str] = (),
) -> Programs:
    """Programs of a step that adds ``new`` tokens to the ``before`` cached ones of each sequence."""
    groups = {name: group for name, group in layout.groups().items() if name in ("tp", "cp", "ep", "expert_tp")}
    tp, heads_tp = layout.tp, _heads_tp(layout, spec)
    weights = model.attention_layers * model.attention_parameters_on(heads_tp)
    weights += model.recurrent_layers * model.recurrent_parameters_on(heads_tp)
    weights += model.dense_layers * model.dense_ffn_parameters_on(tp)
    weights_B = weights * form.weight_B
    if mixture:
        share = layout.tp if mixture.joined else 1
        local_shared = 0 if mixture.shared_in_slots else model.shared_parameters / share
        held = mixture.experts_per_rank * model.expert_parameters_on(mixture.tp) + local_shared
        weights_B += model.moe_layers * model.router_parameters * form.weight_B
        weights_B += model.moe_layers * held * layers.of_experts(spec.precision).weight_B
    ends = (model.table_parameters_on(tp) + model.head_parameters_on(tp)) * 2.0
    # of tokens that are brought together every rank has a part of the columns
    columns = tp // heads_tp * whole.busiest(model.ffn, tp) * (2 if model.gated else 1)
    widest = max(columns, 4 * model.hidden, model.recurrence.columns_on(heads_tp) if model.recurrence else 0.0)
    kv_heads = 1 if model.attention == "mla" else model.kv_heads
    # ranks that share prompts share their cache
    kept = model.cached_tokens(before / layout.cp + new)
    cache_B = memory.kv_cache_B(model.kv_bytes_per_token(form.kv_B), kept, tp=heads_tp, kv_heads=kv_heads)
    cache_B += model.state_B_on(heads_tp)
    chunk = getattr(spec, "chunk", None)
    prompts_B = chunk and memory.kv_cache_B(
        model.kv_bytes_per_token(form.kv_B),
        model.cached_tokens(chunk.tokens + chunk.cached_tokens),
        tp=heads_tp,
        kv_heads=kv_heads,
    )
    return assemble(
        [build],
        program=np.zeros(layout.ranks, np.int64),
        groups=groups,
        facts=facts,
        least=need,
        notes=[
            *notes,
            *batch.notes,
            *(mixture.notes if mixture else ()),
            *model.said,
        ],
        footprint_B={
            "weights": [weights_B + ends],
            "cache": [float(batch.held * cache_B + (prompts_B or 0.0))],
            # the residual stream and the widest layer's temporaries, for the tokens in flight
            "activations": [batch.tokens(batch.parts[0], new) * (model.hidden * 4 + widest) * form.stream_B],
        },
        plan={**layout.sizes, "sequences_per_rank": int(batch.held), "micro_batches": len(batch.parts)},
    )
