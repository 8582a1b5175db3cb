"""One prefill batch or one decode step: attention with tensor or data parallelism, experts spread over ranks.

With data-parallel attention every rank holds whole sequences and meets the others only to exchange tokens with
experts. Two micro-batches hide that exchange: they take turns on one compute stream, or, where the stack says so,
attention and experts own a share of the cores each and run side by side.

Drafts come of one more layer of the model, or of a model of its own, and may be a tree: each depth is one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cmsim.errors import InfeasibleError, InputError, Problem
from cmsim.hardware import System
from cmsim.kinds.decode import ChunkSpec, DecodeFacts, DecodeSpec
from cmsim.kinds.prefill import PrefillFacts, PrefillSpec
from cmsim.workload import whole
from cmsim.workload.generate import inference_memory, layers, least
from cmsim.workload.generate.batches import Batch, batch_of, heads_tp
from cmsim.workload.generate.chain import Kernel
from cmsim.workload.generate.experts import Experts, plan_experts
from cmsim.workload.generate.inference_step import IN, OUT, Core, InferenceStep, stages_of
from cmsim.workload.generate.parallel import Layout, resolve, with_channels
from cmsim.workload.generate.stored import as_stored
from cmsim.workload.model import ModelSpec, load_model
from cmsim.workload.moe import divisors
from cmsim.workload.ops import Least, ProgramBuilder, Programs, assemble


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
        tp = heads_tp(layout, spec)
        if layout.cp > 1 and spec.parallel.cp_comm_type == "a2a":
            # whole prompts, of some heads
            queries = float(spec.prompt_tokens)
            return layers.core_prefill(model, held, queries, seen, tp * layout.cp, form, narrow=narrow, made=seen)
        return [
            *layers.index_scores(model, held, pairs, seen, own),
            *layers.core_prefill(model, held, own, mean, tp, form, narrow=narrow, made=seen),
        ]

    step = InferenceStep(spec, system, model, layout, mixture, form, core, batch, tokens_per_sequence=own)
    facts = PrefillFacts(tokens_per_run=batch.worked * spec.prompt_tokens, steps=1.0, layers=float(model.layers))
    need = least.prefill(spec, model, prompts=batch.worked, ranks=layout.ranks, base=base)
    stages, cached = stages_of(model.layers, layout.pp), float(spec.cached_tokens)
    builds = step.programs(stages)
    held = inference_memory.lines_B(spec, model, form, layout, mixture, batch, stages, new=own, before=cached)
    return _assemble(builds, layout, facts, mixture, model, batch, need, held, said)


def decode(spec: DecodeSpec, system: System, base: Path | None = None) -> Programs:
    """One step of a full batch: draft tokens verified beside the last accepted one, then the next drafts."""
    model = _decoder(spec, base)
    spec, said = as_stored(spec, model, system)
    q_tokens = 1.0 + (spec.speculative.nodes if spec.speculative else 0)
    _check(spec, model)
    layout, mixture, batch = _layout(spec, model, system, base, tokens_per_sequence=q_tokens)
    form, tp = layers.formats(spec.precision, model.stored), heads_tp(layout, spec)

    def mixed(held: float, narrow: bool) -> list[Kernel]:
        chunk = spec.chunk
        beside = [] if chunk is None else _chunk(chunk, model, held / batch.groups[0], tp, form, narrow)
        return [*_core(spec, model, layout, form, batch, q_tokens)(held, narrow), *beside]

    step = InferenceStep(spec, system, model, layout, mixture, form, mixed, batch, tokens_per_sequence=q_tokens)
    guesser = _draft_model(spec, model, base)
    guesses = []
    for width in spec.speculative.passes if spec.speculative else ():
        # a pass of all micro-batches at once guesses what follows each of so many tokens
        own = mixture and mixture.at(batch.own(batch.groups[0]) / batch.tokens(batch.parts[0], q_tokens) * width)
        guesses.append(
            InferenceStep(
                spec,
                system,
                guesser or model,
                layout,
                None if guesser else own,
                form,
                _core(spec, guesser or model, layout, form, batch, float(width)),
                batch,
                tokens_per_sequence=float(width),
                drafting=range(guesser.layers) if guesser else [model.drafting_layer],
                opens=guesser is not None,
            )
        )
    stages = stages_of(model.layers, layout.pp)
    builds = step.programs(stages, guesses)
    notes = list(said)
    if guesses and not guesser and not model.mtp_layers:
        notes.append("the model has no draft layer of its own: drafts are priced as one more layer and head per token")
    accepted = spec.speculative.accepted if spec.speculative else 1.0
    facts = DecodeFacts(
        tokens_per_run=batch.worked * accepted,
        steps=1.0,
        tokens_per_step_per_sequence=accepted,
        layers=float(model.layers),
    )
    need = least.decode(spec, model, sequences=batch.worked, ranks=layout.ranks, base=base)
    cached = float(spec.context_tokens)
    held = inference_memory.lines_B(
        spec, model, form, layout, mixture, batch, stages, new=q_tokens, before=cached, guesser=guesser
    )
    return _assemble(builds, layout, facts, mixture, model, batch, need, held, notes)


def _check(spec: DecodeSpec, model: ModelSpec) -> None:
    """Raises InfeasibleError for what is not modelled."""
    if spec.chunk is None:
        return
    if model.recurrence:
        raise InfeasibleError(Problem("prompts beside sequences are not modelled for layers with a state", key="chunk"))
    if spec.parallel.cp > 1:
        said = (
            f"prompts beside sequences are not modelled for ranks that share a cache; parallel.cp is {spec.parallel.cp}"
        )
        raise InfeasibleError(Problem(said, key="chunk"))


def _core(spec: DecodeSpec, model: ModelSpec, layout: Layout, form: layers.Formats, batch: Batch, new: float) -> Core:
    """Attention of ``new`` tokens of each sequence over its cache, or over a rank's part of it."""
    tp, context = heads_tp(layout, spec), spec.context_tokens
    seen = min(context, model.index_top) if model.index_top else context

    def core(held: float, narrow: bool) -> list[Kernel]:
        sequences = float(held)
        return [
            *layers.index_scores(model, sequences, new * context, context, new),
            *layers.core_decode(
                model,
                sequences,
                new,
                seen,
                tp,
                form,
                narrow=narrow,
                shards=layout.cp,
                own=batch.own(held),
                copies=layout.dcp,
            ),
        ]

    return core


def _draft_model(spec: DecodeSpec, model: ModelSpec, base: Path | None) -> ModelSpec | None:
    """The model that drafts, where it is one of its own. Raises InfeasibleError for one that cannot."""
    if spec.speculative is None or spec.speculative.model is None:
        return None
    found = load_model(spec.speculative.model, base=base)
    why = "it is an encoder" if found.encoder else "it has experts" if found.experts else ""
    tp = spec.parallel.tp if spec.parallel.attention == "tp" else 1
    if not why and found.heads % tp:
        why = f"its {found.heads} heads do not go on tp {tp} ranks"
    if not why and found.vocab < model.vocab // 2:
        why = f"it knows {found.vocab} tokens, {model.name} {model.vocab}"
    if why:
        raise InfeasibleError(
            Problem(f"got {found.name}, which drafts for no {model.name}: {why}", key="speculative.model")
        )
    return found


def _decoder(spec: PrefillSpec | DecodeSpec, base: Path | None) -> ModelSpec:
    """The model that a workload runs. Raises InputError where it is an encoder."""
    model = load_model(spec.model, base=base)
    if model.encoder:
        raise InputError(
            Problem(f"{model.name} is an encoder, which has no {spec.kind}: run it with kind encoder", key="model")
        )
    return model


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
) -> tuple[Layout, Experts | None, Batch]:
    parallel = spec.parallel
    _check_sizes(spec, model)
    heads = model.heads if parallel.attention == "tp" else 0
    if not model.experts:
        layout = resolve(parallel, system, ranks=spec.ranks, experts=0, heads=heads, expert_tp=parallel.expert_tp)
        layout = replace(layout, wraps=layout.pp > 1, dcp=parallel.dcp)
        return layout, None, batch_of(spec, layout, system)
    alone = parallel.model_copy(update={"ep": 1})
    tp = parallel.expert_tp
    plain = resolve(alone, system, ranks=spec.ranks, experts=model.experts, heads=heads, expert_tp=tp)
    batch = batch_of(spec, plain, system)
    mixture = plan_experts(
        model,
        parallel,
        spec.balance,
        ranks=plain.stage_ranks,
        # a tensor group shares its tokens out: all of its ranks have each of them
        tokens_per_rank=batch.tokens(batch.parts[0], tokens_per_sequence) / heads_tp(plain, spec),
        system=system,
        message_B=layers.of_experts(spec.precision).activation_B,
        once_per_domain=spec.kind == "prefill",
        base=base,
        expert_tp=tp,
    )
    joined = heads_tp(plain, spec) == mixture.ranks * tp > 1
    costs = system.stack.steps
    late = costs.late if spec.kind == "decode" else None
    mixture = replace(mixture, joined=joined, served=costs.cast_experts, late=late, evenness=spec.evenness)
    layout = resolve(parallel, system, ranks=spec.ranks, experts=model.experts, ep=mixture.ranks, expert_tp=tp)
    return replace(layout, wraps=layout.pp > 1, dcp=parallel.dcp), mixture, batch


def _check_sizes(spec: PrefillSpec | DecodeSpec, model: ModelSpec) -> None:
    """Raises InfeasibleError for ways to share a model or its sequences that it does not have."""
    parallel = spec.parallel
    if parallel.pp > model.layers:
        said = f"got {parallel.pp} stages for {model.layers} layers. Allowed: at most {model.layers}."
        raise InfeasibleError(Problem(said, key="parallel.pp"))
    if parallel.dcp > 1:
        _check_copies(spec, model)
    if parallel.cp == 1:
        return
    if parallel.cp_comm_type == "a2a":
        _check_exchange(spec, model)
    why = "layers with a state" if model.recurrence else ""
    if spec.kind == "decode" and model.index_top:
        why = "an indexer that chooses among all cached tokens"
    if why:
        said = f"got {parallel.cp}; {spec.kind} takes 1 of a model with {why}"
        raise InfeasibleError(Problem(said, key="parallel.cp"))


def _check_copies(spec: PrefillSpec | DecodeSpec, model: ModelSpec) -> None:
    """Raises InfeasibleError where ranks have no copies of one cache that they could share."""
    parallel = spec.parallel
    tp = parallel.tp if parallel.attention == "tp" else 1
    most = tp // (1 if model.attention == "mla" else model.kv_heads)
    why = ""
    if parallel.cp > 1 or model.recurrence or model.index_top:
        why = "it goes without cp, layers with a state and indexers"
    elif parallel.dcp > most or tp % parallel.dcp:
        allowed = ", ".join(str(size) for size in divisors(tp) if size <= max(most, 1))
        why = f"of a cache there are {max(most, 1)} copies in a tensor group of {tp}. Allowed: {allowed}."
    elif spec.kind == "decode" and spec.chunk is not None:
        why = "prompts beside sequences are not modelled with it"
    if why:
        raise InfeasibleError(Problem(f"got {parallel.dcp}; {why}", key="parallel.dcp"))


def _check_exchange(spec: PrefillSpec | DecodeSpec, model: ModelSpec) -> None:
    """Raises InfeasibleError where ranks cannot exchange heads for tokens."""
    parallel = spec.parallel
    split = parallel.cp * (parallel.tp if parallel.attention == "tp" else 1)
    why = ""
    if spec.kind == "decode":
        why = "decode takes all_gather"
    elif model.index_top or (model.attention == "mla" and not model.q_lora_rank):
        why = "the model has an indexer, or queries that are made of no latents; it takes all_gather"
    elif model.heads % split:
        why = f"{model.heads} heads do not go on {split} ranks"
    if why:
        raise InfeasibleError(Problem(f"got a2a; {why}", key="parallel.cp_comm_type"))


def _assemble(
    builds: Sequence[ProgramBuilder],
    layout: Layout,
    facts: PrefillFacts | DecodeFacts,
    mixture: Experts | None,
    model: ModelSpec,
    batch: Batch,
    need: Least,
    held_B: dict[str, list[float]],
    notes: Sequence[str] = (),
) -> Programs:
    used = ("tp", "cp", "ep", "expert_tp", "dcp", *((OUT, IN) if layout.pp > 1 else ()))
    return assemble(
        builds,
        program=layout.stage,
        groups={name: group for name, group in with_channels(layout).items() if name in used},
        facts=facts,
        least=need,
        notes=[
            *notes,
            *batch.notes,
            *(mixture.notes if mixture else ()),
            *model.said,
        ],
        footprint_B=held_B,
        plan={**layout.sizes, "sequences_per_rank": int(batch.held), "micro_batches": len(batch.parts)},
    )
