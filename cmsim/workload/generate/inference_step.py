"""The program that ranks of a stage run in a step of inference: chains of layers, of one group of sequences or several.

With pipeline stages as many groups are in flight: while one is at a stage, the next is at the stage before. What is
built is one round of a steady state: every stage begins with the group that is there, hands on what it has made, and
after as many turns every group has passed all stages, tokens of the last one having come back to the first. So a token
takes the sum over stages and the messages between them, or as many times the slowest stage as there are groups. Beside
hidden states go residuals, each rank of a tensor group its share of the columns, which the next stage gathers.

Source: vLLM, distributed/utils.py (get_pp_indices: layers of a stage), v1/worker/gpu_worker.py (send_tensor_dict with
all_gather_group), model_executor/models/llama.py (IntermediateTensors: hidden_states, residual).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from cmsim.compute import Work
from cmsim.hardware import System
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.prefill import PrefillSpec
from cmsim.units import MB, US
from cmsim.workload import whole
from cmsim.workload.generate import layers
from cmsim.workload.generate.batches import Batch, heads_tp, sharing
from cmsim.workload.generate.chain import Comm, Kernel, Piece, interleave, joined
from cmsim.workload.generate.experts import Experts
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.model import LayerKind, ModelSpec
from cmsim.workload.ops import ProgramBuilder

#: builds the attention core of one layer, with a window or not, for a share of a holder's sequences
Core = Callable[[float, bool], list[Kernel]]
#: kernels of it that read the cache
_READS_CACHE = ("attention_decode", "mla_decode")
#: a sampled token, as it goes back to the first stage [B]
_TOKEN_B = 4.0
#: channels between stages, both ends
OUT, IN = "next.out", "previous.in"


def stages_of(layers_: int, stages: int) -> list[range]:
    """Layers of each stage: where they do not divide, those before the last have one more, the nearest first.

    >>> stages_of(10, 4)
    [range(0, 2), range(2, 5), range(5, 8), range(8, 10)]
    """
    base, more = divmod(layers_, stages)
    counts = [base + (0 < stages - 1 - stage <= more) for stage in range(stages)]
    ends = [sum(counts[:stage]) for stage in range(stages + 1)]
    return [range(first, last) for first, last in itertools.pairwise(ends)]


class InferenceStep:
    """Builds the programs that ranks run, one for each stage.

    drafting  of one that drafts, the layers that a pass runs, of sequences without prompts beside them, on whole cores
    opens     whether such a pass begins with the token table, as that of a model of its own
    """

    def __init__(
        self,
        spec: PrefillSpec | DecodeSpec,
        system: System,
        model: ModelSpec,
        layout: Layout,
        mixture: Experts | None,
        form: layers.Formats,
        core: Core,
        batch: Batch,
        *,
        tokens_per_sequence: float,
        drafting: Sequence[int] = (),
        opens: bool = False,
    ):
        self.spec, self.model, self.layout, self.mixture, self.form = spec, model, layout, mixture, form
        self.core, self.per_sequence = core, tokens_per_sequence
        self.drafting, self.opens = drafting, opens
        # drafts are of sequences alone
        self.batch = replace(batch, beside=0.0) if drafting else batch
        self.system, self.costs = system, system.stack.steps
        self.tp = heads_tp(layout, spec)
        several = len(batch.parts) > 1
        overlap = sharing(spec, system)
        split = overlap.mode == "split" and several and mixture is not None
        self.attention = ("attention", overlap.attention_cores) if split else ("compute", 1.0)
        self.expert = ("experts", overlap.expert_cores) if split else ("compute", 1.0)
        # layers without experts, and the ends of the model, share their cores with nobody
        self.alone = ("attention" if split else "compute", 1.0)
        self.in_line = overlap.attention_in_line and several
        self.exchanged = layout.cp > 1 and spec.parallel.cp_comm_type == "a2a"
        taken = overlap.communication_cores if several and not split else 0.0
        if taken:
            self.attention = self.expert = self.alone = ("compute", 1.0 - taken)
        if drafting:
            self.attention, self.expert = self.alone, (self.expert[0], self.alone[1])

    def programs(self, stages: Sequence[range], guesses: Sequence[InferenceStep] = ()) -> list[ProgramBuilder]:
        """A program for each stage, ``guesses`` behind the last layer in their order."""
        return [self._stage(number, stages, guesses) for number in range(len(stages))]

    def _stage(self, stage: int, stages: Sequence[range], guesses: Sequence[InferenceStep]) -> ProgramBuilder:
        build, count = ProgramBuilder(), len(stages)
        groups, last = self.batch.groups, stage == len(stages) - 1
        for turn in range(count):
            number = (turn - stage) % count
            if number >= len(groups):
                continue
            arrived = self._prepared(build, groups[number])
            if turn:
                arrived = [*arrived, self._received(build, groups[number], first=stage == 0)]
            ends = self._group(build, groups[number], stages[stage], arrived, first=stage == 0, last=last)
            for guess in guesses if last else ():
                ends = guess.draft(build, groups[number])
            if count > 1:
                size_B = self._message_B(groups[number], back=last)
                build.send(OUT, stream=OUT, size_B=size_B, slot=OUT, after=ends)
        if count > 1 and -stage % count < len(groups):
            # the group that was here when the round began has come as far again
            self._received(build, groups[-stage % count], first=stage == 0)
        return build

    def _group(
        self, build: ProgramBuilder, group: float, which: range, after: list[int], *, first: bool, last: bool
    ) -> list[int]:
        """The layers of a stage over a group, its micro-batches side by side; their last rows."""
        parts, largest = self.batch.cut(group), self.batch.own(self.batch.parts[0])
        # micro-batches of one size are alike
        chains = {
            part: self._chain(
                part,
                which,
                self.mixture and self.mixture.at(self.batch.own(part) / largest),
                opening=first,
                closing=last,
                arriving=not first,
            )
            for part in dict.fromkeys(parts)
        }
        return interleave(build, [chains[part] for part in parts], after=[after] * len(parts))

    def _message_B(self, group: float, *, back: bool) -> float:
        """What a rank hands on of a group: a share of hidden states and residuals, or tokens back to the first. [B]"""
        if back:
            return self.batch.own(group) * self.per_sequence * _TOKEN_B
        return 2.0 * self.batch.tokens(group, self.per_sequence) * self.model.hidden * self.form.stream_B / self.tp

    def _received(self, build: ProgramBuilder, group: float, *, first: bool) -> int:
        return build.recv(IN, stream=IN, size_B=self._message_B(group, back=first), slot=IN)

    def _prepared(self, build: ProgramBuilder, group: float) -> list[int]:
        """What kernels wait for: the host, where it has not prepared this step while the last one ran."""
        host_s = (self.costs.host_us + self.costs.sequence_us * group) * US
        if not host_s:
            return []
        row = build.host("prepare step", stream="host", recorded_s=host_s)
        return [] if self.costs.overlapped else [row]

    def draft(self, build: ProgramBuilder, group: float) -> list[int]:
        """A pass that guesses, then the head, after all that is built; the last row."""
        last = len(build) - 1
        mixture = self.mixture and self.mixture.at(self.batch.own(group) / self.batch.own(self.batch.groups[0]))
        chain = self._chain(group, self.drafting, mixture, opening=self.opens)
        return interleave(build, [chain], after=[[last]])

    def _chain(
        self,
        held: float,
        which: Sequence[int],
        mixture: Experts | None,
        *,
        opening: bool,
        closing: bool = True,
        arriving: bool = False,
    ) -> list[Piece]:
        """Layers of a share of a group, with the token table before them, the head behind them, or what gathers that
        which comes from the stage before."""
        model, form = self.model, self.form
        tokens = self.batch.tokens(held, self.per_sequence)
        stream, cores = self.alone
        pieces: list[Piece] = []
        if arriving and self.tp > 1:
            size_B = 2.0 * tokens * model.hidden * form.stream_B
            pieces.append(Piece([], Comm("stage gather", "all_gather", size_B, "tp"), stream, cores))
        if opening:
            pieces.append(Piece(layers.embedding(model, tokens, form), stream=stream, cores=cores))
        # layers of one kind are the same pieces
        kinds = [model.each_layer[layer] for layer in which]
        made = {kind: self._layer(held, mixture, *kind) for kind in dict.fromkeys(kinds)}
        for kind in kinds:
            pieces += made[kind]
        pieces = self._fused(pieces)
        if not closing:
            return joined(pieces)
        # of prompts beside sequences one is done at most
        own = self.batch.own(held)
        last = own if self.spec.kind == "prefill" else own * self.per_sequence + bool(self.batch.beside)
        gathered = self._gathered("all_gather", last)
        if gathered:
            pieces.append(Piece([], gathered, stream, cores))
        sampled_B = self.costs.sampling_MB * MB
        sampled = Work(sampled_B * self.costs.sampling_FLOP_per_B, sampled_B)
        ends = layers.head(model, last * self._joined, self.layout.tp, form, sample=True, sampled=sampled)
        pieces.append(Piece(ends, stream=stream, cores=cores))
        return joined(pieces)

    def _fused(self, pieces: list[Piece]) -> list[Piece]:
        """The chain without what kernels before do in passing: a norm, and the cast of what it makes, behind a small
        sum; casts of what a kernel has just made. Pieces that are alike stay the same one."""
        small = self.system.stack.collectives.small
        inside = self.layout.tp <= self.system.spec.accelerators * self.system.ranks_per_package
        upto_B = small.upto_B if small is not None and small.with_norm and inside else -1.0
        casts = self.costs.casts_fused
        if upto_B < 0 and not casts:
            return pieces
        made: dict[tuple[int, bool], Piece] = {}
        out, summed = [], False
        for piece in pieces:
            key = id(piece), summed
            if key not in made:
                made[key] = replace(piece, kernels=_without(piece.kernels, casts=casts, summed=summed))
            out.append(made[key])
            added = piece.comm
            summed = added is not None and added.collective == "all_reduce" and added.size_B <= upto_B
        return out

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
        if self.exchanged:
            return self._by_heads(held, narrow, on)
        before = layers.attention_in(self.model, tokens, self.tp, self.form)
        core, out = self.core(held, narrow), layers.attention_out(self.model, tokens, self.tp, self.form)
        added = self._sum(tokens, self.tp, inside=True)
        if self.layout.cp * self.layout.dcp > 1 and self.spec.kind == "decode":
            return self._over_parts(held, [*before, *core, *out], added, on)
        after = [*core, *out]
        if self.layout.cp == 1:
            return [Piece([*before, *after], added, *on)]
        return [Piece(before, self._keys(held, tokens), *on), Piece(after, added, *on)]

    def _by_heads(self, held: float, narrow: bool, on: tuple[str, float]) -> list[Piece]:
        """Attention whose ranks exchange heads for tokens of the prompts they share: each makes queries, keys and
        values of its own tokens, or their latents; works with its own heads on whole prompts; and gets the results of
        its own tokens back (DeepSpeed-Ulysses, arXiv:2309.14509; with latents SP-TP-SP, arXiv:2506.12708 sec 4.3.1)."""
        model, form, ranks = self.model, self.form, self.layout.cp
        tokens, tp = self.batch.tokens(held, self.per_sequence), self.tp * ranks
        before = layers.attention_in(model, tokens, self.tp, form)
        if model.attention == "mla":
            # latents as products read them, and those that are cached in 16 bits
            size_B = tokens * ranks * model.q_lora_rank * form.activation_B
            size_B += (tokens * ranks + held * self._cached) * (model.kv_lora_rank + model.rope_dim) * form.stream_B
            within = layers.attention_in(model, tokens * ranks, tp, form)
            ups = [[kernel.name for kernel in kernels].index(layers.QUERIES_UP) for kernels in (before, within)]
            asked = Comm("cp latents", "all_gather", size_B, "cp", in_line=self.in_line)
            before, within = before[: ups[0]], within[ups[1] :]
        else:
            kv_heads = max(whole.busiest(model.kv_heads, self.tp), float(ranks))
            width = whole.busiest(model.heads, self.tp) * model.head_dim
            width += kv_heads * (model.head_dim + model.v_head_dim)
            size_B, within = tokens * width * form.stream_B, []
            asked = Comm("cp queries, keys, values", "all_to_all", size_B, "cp", in_line=self.in_line)
        results_B = tokens * whole.busiest(model.heads, self.tp) * model.v_head_dim * form.stream_B
        back = Comm("cp results", "all_to_all", results_B, "cp", in_line=self.in_line)
        return [
            Piece(before, asked, *on),
            Piece([*within, *self.core(held, narrow)], back, *on),
            Piece(layers.attention_out(model, tokens, self.tp, form), self._sum(tokens, self.tp, inside=True), *on),
        ]

    def _over_parts(self, held: float, kernels: list[Kernel], added: Comm | None, on: tuple[str, float]) -> list[Piece]:
        """Attention whose ranks have a part of the cache of each sequence: queries of all of the group's sequences come
        to every rank, and of what it finds in its part every rank gets the sum of its own, weighed by the softmax's
        denominators (vLLM, v1/attention/ops/common.py, cp_lse_ag_out_rs)."""
        model, heads = self.model, whole.busiest(self.model.heads, self.tp)
        slot, ranks, tokens = "cp", self.layout.cp, held * self.per_sequence
        if self.layout.dcp > 1:
            # all have the same sequences, and heads of their own
            slot, ranks = "dcp", self.layout.dcp
            heads *= ranks
        asked, found = model.head_dim, model.v_head_dim
        if model.attention == "mla":
            asked, found = model.kv_lora_rank + model.rope_dim, model.kv_lora_rank
        at = next(n for n, kernel in enumerate(kernels) if kernel.kernel in _READS_CACHE)
        row_B, found_B = heads * self.form.stream_B, tokens * heads * found * self.form.stream_B
        weighed = Kernel("weigh parts", "generic", "", 0.0, 2.0 * found_B)
        return [
            Piece(kernels[:at], Comm("cp queries", "all_gather", tokens * row_B * asked, slot), *on),
            Piece([kernels[at]], Comm("cp weights", "all_gather", tokens * heads * 4.0 * ranks, slot), *on),
            Piece([weighed], Comm("cp results", "reduce_scatter", found_B, slot), *on),
            Piece(kernels[at + 1 :], added, *on),
        ]

    def _keys(self, held: float, tokens: float) -> Comm:
        """Keys and values, or latents, of all parts of the prompts and of what is cached before them, in 16 bits, to
        the ranks that share them."""
        model = self.model
        if model.attention == "mla":
            width = float(model.kv_lora_rank + model.rope_dim)
        else:
            width = whole.busiest(model.kv_heads, self.tp) * (model.head_dim + model.v_head_dim)
        seen = tokens * self.layout.cp + held * self._cached
        size_B = seen * (width + model.index_dim) * self.form.stream_B
        return Comm("cp gather", "all_gather", size_B, "cp", in_line=self.in_line)

    @property
    def _cached(self) -> float:
        """Tokens of a prompt that are in the cache already. [1]"""
        return float(self.spec.cached_tokens) if self.spec.kind == "prefill" else 0.0

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

    def _sum(self, tokens: float, tp: int, *, inside: bool = False) -> Comm | None:
        """Results of ranks that split heads, ``inside`` attention, or columns."""
        if tp == 1:
            return None
        size_B = tokens * self.model.hidden * self.form.stream_B
        return Comm("tp sum", "all_reduce", size_B, "tp", in_line=inside and self.in_line)


def _without(kernels: list[Kernel], *, casts: bool, summed: bool) -> list[Kernel]:
    """Kernels but for those that the sum before them did (``summed``), and casts of what one has just made."""
    first = 0
    while summed and first < len(kernels) and kernels[first].kernel in ("norm", "quantise"):
        first += 1
    left = kernels[first:]
    return [one for at, one in enumerate(left) if not (casts and at and one.kernel == "quantise")]
