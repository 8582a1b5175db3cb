"""One prefill batch or one decode step: attention with tensor or data parallelism, experts spread over ranks.

With data-parallel attention every rank holds whole sequences and meets the others only to exchange tokens with
experts. Two micro-batches hide that exchange: they take turns on one compute stream, or, where the stack says so,
attention and experts own a share of the cores each and run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cmsim.errors import InfeasibleError, Problem
from cmsim.hardware import System
from cmsim.scenario import DecodeSpec, PrefillSpec
from cmsim.units import BYTES_PER_ELEMENT
from cmsim.workload.generate import layers
from cmsim.workload.generate.chain import Comm, Kernel, Piece, interleave, joined
from cmsim.workload.generate.experts import Experts, plan_experts
from cmsim.workload.generate.parallel import Layout, resolve
from cmsim.workload.model import ModelSpec, load_model, speculative_tokens_per_step
from cmsim.workload.ops import ProgramBuilder, Programs, assemble

#: builds the attention core of one layer for a share of the rank's sequences
Core = Callable[[float], list[Kernel]]


def prefill(spec: PrefillSpec, system: System, base: Path | None = None) -> Programs:
    """A batch of prompts, from the token table to the first token of each."""
    model = load_model(spec.model, base=base)
    layout, mixture = _layout(spec, model, system, base, tokens_per_sequence=float(spec.prompt_tokens))
    form = layers.formats(spec.precision)
    sequences = _sequences(spec.batch_per_accelerator, layout, spec, system)

    def core(held: float) -> list[Kernel]:
        return layers.core_prefill(model, held, spec.prompt_tokens, spec.prompt_tokens, _heads_tp(layout, spec), form)

    step = _Step(spec, system, model, layout, mixture, form, core, tokens_per_sequence=float(spec.prompt_tokens))
    build = step.build(sequences)
    total = spec.batch_per_accelerator * layout.ranks / system.ranks_per_package * spec.prompt_tokens
    facts = {"tokens_per_run": total, "steps": 1.0, "layers": float(model.layers)}
    cache = sequences * spec.prompt_tokens * model.kv_bytes_per_token(form.kv_B) / _cache_split(model, layout, spec)
    return _assemble(build, layout, facts, mixture, spec, model, form, cache, sequences * spec.prompt_tokens)


def decode(spec: DecodeSpec, system: System, base: Path | None = None) -> Programs:
    """One step of a full batch: draft tokens verified beside the last accepted one, then the next drafts."""
    model = load_model(spec.model, base=base)
    draft = spec.speculative.draft_tokens if spec.speculative else 0
    q_tokens = 1.0 + draft
    layout, mixture = _layout(spec, model, system, base, tokens_per_sequence=q_tokens)
    form = layers.formats(spec.precision)
    sequences = _sequences(spec.batch_per_accelerator, layout, spec, system)

    def core(held: float) -> list[Kernel]:
        return layers.core_decode(model, held, q_tokens, spec.context_tokens, _heads_tp(layout, spec), form)

    def draft_core(held: float) -> list[Kernel]:
        return layers.core_decode(model, held, 1.0, spec.context_tokens, _heads_tp(layout, spec), form)

    step = _Step(spec, system, model, layout, mixture, form, core, tokens_per_sequence=q_tokens)
    build = step.build(sequences)
    notes = []
    if draft and not model.mtp_layers:
        notes.append("the model has no draft layer of its own: drafts are priced as one more layer and head per token")
    for _ in range(draft):
        # one more layer and head guess the next token from the last, of all micro-batches at once
        guess = _Step(
            spec,
            system,
            model,
            layout,
            mixture and mixture.at(spec.microbatches / q_tokens),
            form,
            draft_core,
            tokens_per_sequence=1.0,
        )
        guess.draft(build, sequences)
    accepted = speculative_tokens_per_step(spec.speculative.acceptance, draft) if spec.speculative else 1.0
    batch = spec.batch_per_accelerator * layout.ranks / system.ranks_per_package
    facts = {
        "tokens_per_run": batch * accepted,
        "steps": 1.0,
        "tokens_per_step_per_sequence": accepted,
        "layers": float(model.layers),
    }
    cache = sequences * (spec.context_tokens + q_tokens) * model.kv_bytes_per_token(form.kv_B)
    cache /= _cache_split(model, layout, spec)
    return _assemble(build, layout, facts, mixture, spec, model, form, cache, sequences * q_tokens, notes)


def _layout(
    spec: PrefillSpec | DecodeSpec, model: ModelSpec, system: System, base: Path | None, *, tokens_per_sequence: float
) -> tuple[Layout, Experts | None]:
    parallel = spec.parallel
    if parallel.pp > 1 or parallel.cp > 1:
        size = "pp" if parallel.pp > 1 else "cp"
        raise InfeasibleError(Problem(f"{spec.kind} takes 1, got {getattr(parallel, size)}", key=f"parallel.{size}"))
    if not model.experts:
        return resolve(parallel, system, ranks=spec.ranks, experts=0, heads=model.heads), None
    plain = resolve(parallel.model_copy(update={"ep": 1}), system, ranks=spec.ranks, experts=model.experts)
    tokens = spec.batch_per_accelerator / system.ranks_per_package * tokens_per_sequence / spec.microbatches
    mixture = plan_experts(
        model,
        parallel,
        spec.balance,
        ranks=plain.stage_ranks,
        tokens_per_rank=tokens,
        system=system,
        message_B=BYTES_PER_ELEMENT[spec.precision.activations],
        once_per_domain=spec.kind == "prefill",
        base=base,
    )
    return resolve(parallel, system, ranks=spec.ranks, experts=model.experts, ep=mixture.ranks), mixture


def _heads_tp(layout: Layout, spec: PrefillSpec | DecodeSpec) -> int:
    return layout.tp if spec.parallel.attention == "tp" else 1


def _sequences(batch_per_accelerator: float, layout: Layout, spec: PrefillSpec | DecodeSpec, system: System) -> float:
    """Sequences one rank works on: its own with data-parallel attention, its tensor group's otherwise."""
    return batch_per_accelerator / system.ranks_per_package * _heads_tp(layout, spec)


def _cache_split(model: ModelSpec, layout: Layout, spec: PrefillSpec | DecodeSpec) -> float:
    """Over how many ranks the cache of a tensor group is split: latents are not, key-value heads are."""
    if model.attention == "mla":
        return 1.0
    return float(min(_heads_tp(layout, spec), model.kv_heads))


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
        *,
        tokens_per_sequence: float,
    ):
        self.spec, self.model, self.layout, self.mixture, self.form = spec, model, layout, mixture, form
        self.core, self.per_sequence = core, tokens_per_sequence
        self.tp = _heads_tp(layout, spec)
        overlap = system.stack.overlap.decode if spec.kind == "decode" else system.stack.overlap.bulk
        split = overlap.mode == "split" and spec.microbatches > 1 and mixture is not None
        self.attention = ("attention", overlap.attention_cores) if split else ("compute", 1.0)
        self.expert = ("experts", overlap.expert_cores) if split else ("compute", 1.0)
        taken = overlap.communication_cores if spec.microbatches > 1 and not split else 0.0
        if taken:
            self.attention = self.expert = ("compute", 1.0 - taken)

    def build(self, sequences: float) -> ProgramBuilder:
        build = ProgramBuilder()
        held = sequences / self.spec.microbatches
        # micro-batches are alike
        chain = self._chain(held, range(self.model.layers), opening=True)
        interleave(build, [chain] * self.spec.microbatches)
        return build

    def draft(self, build: ProgramBuilder, sequences: float) -> None:
        """One more layer of the expert kind, then the head, after all that is built."""
        last = len(build) - 1
        chain = self._chain(sequences, range(self.model.layers - 1, self.model.layers), opening=False)
        interleave(build, [chain], after=[[last]])

    def _chain(self, held: float, which: Sequence[int], *, opening: bool) -> list[Piece]:
        model, form = self.model, self.form
        tokens = held * self.per_sequence
        stream, cores = self.attention
        pieces: list[Piece] = []
        if opening:
            pieces.append(Piece(layers.embedding(model, tokens, form), stream=stream, cores=cores))
        dense, sparse = self._dense(held), self._sparse(held)
        for layer in which:
            pieces += dense if sparse is None or layer < model.dense_layers else sparse
        last = tokens if self.spec.kind == "decode" else held
        pieces.append(Piece(layers.head(model, last, self.layout.tp, form, sample=True), stream=stream, cores=cores))
        return joined(pieces)

    def _dense(self, held: float) -> list[Piece]:
        """A layer with a dense feed-forward network."""
        tokens, tp = held * self.per_sequence, self.layout.tp
        ffn = [*layers.ffn_norm(self.model, tokens, self.form), *layers.dense_ffn(self.model, tokens, tp, self.form)]
        return [self._core(held), Piece(ffn, self._sum(tokens, tp), *self.attention)]

    def _sparse(self, held: float) -> list[Piece] | None:
        """A layer with experts; None without them."""
        if self.mixture is None:
            return None
        experts = self.mixture.pieces(self.model, self.form, slot="ep", routing=self.attention, working=self.expert)
        return [self._core(held), *experts]

    def _core(self, held: float) -> Piece:
        """A layer's attention with its projections."""
        tokens = held * self.per_sequence
        kernels = [
            *layers.attention_in(self.model, tokens, self.tp, self.form),
            *self.core(held),
            *layers.attention_out(self.model, tokens, self.tp, self.form),
        ]
        return Piece(kernels, self._sum(tokens, self.tp), *self.attention)

    def _sum(self, tokens: float, tp: int) -> Comm | None:
        if tp == 1:
            return None
        return Comm("tp sum", "all_reduce", tokens * self.model.hidden * self.form.stream_B, "tp")


def _assemble(
    build: ProgramBuilder,
    layout: Layout,
    facts: dict[str, float],
    mixture: Experts | None,
    spec: PrefillSpec | DecodeSpec,
    model: ModelSpec,
    form: layers.Formats,
    cache_B: float,
    tokens: float,
    notes: Sequence[str] = (),
) -> Programs:
    groups = {name: layout.groups()[name] for name in ("tp", "ep")}
    tp = layout.tp
    weights = model.layers * model.attention_parameters / _heads_tp(layout, spec)
    moe_layers = model.layers - model.dense_layers if mixture else 0
    weights += (model.layers - moe_layers) * model.dense_ffn_parameters / tp
    if mixture:
        local_shared = 0 if mixture.shared_in_slots else model.shared_experts
        weights += moe_layers * (
            model.router_parameters + (mixture.experts_per_rank + local_shared) * model.expert_parameters
        )
    ends = (model.embedding_parameters + model.head_parameters) / tp * 2.0
    widest = max(model.ffn / tp * (2 if model.gated else 1), 4 * model.hidden)
    return assemble(
        [build],
        program=np.zeros(layout.ranks, np.int64),
        groups=groups,
        facts=facts,
        notes=[*notes, *(mixture.notes if mixture else ())],
        footprint_B={
            "weights": [weights * form.weight_B + ends],
            "cache": [cache_B],
            # the residual stream and the widest layer's temporaries, for the tokens in flight
            "activations": [tokens * (model.hidden * 4 + widest) * form.stream_B / spec.microbatches],
        },
    )
