"""A transformer as numbers: read from a Hugging Face ``config.json``, counted by part.

To add a family: a function in ``cmsim.workload.families`` that turns its keys into a `ModelSpec`, and
one line in its ``FAMILIES``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from cmsim import reading
from cmsim.compute import kv_bytes_per_token, mla_kv_bytes_per_token
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.reading.look import seen
from cmsim.workload.families import FAMILIES, Keys, Stored, settle, stored_in, text_tower, vision_tower
from cmsim.workload.recurrence import Recurrence
from cmsim.workload.vision import VisionTower
from cmsim.workload.whole import busiest

MODELS = "workloads/models"


class LayerKind(NamedTuple):
    """What a layer does: how it mixes tokens, then what it does with each. Either half may be absent, ""."""

    mixer: str = "attention"
    ffn: str = "dense"


@dataclass(frozen=True)
class ModelSpec:
    """Sizes of a transformer. Counts of parameters are whole numbers [1], FLOPs are [FLOP].

    attention     mha, gqa (fewer key-value heads than heads, one included) or mla (latent attention)
    head_dim      size of a query-key head; for mla ``nope_dim + rope_dim``
    v_head_dim    size of a value head
    q_lora_rank, kv_lora_rank, nope_dim, rope_dim   mla only, else 0 (``q_lora_rank`` 0: queries not compressed)
    ffn           inner width of a dense FFN
    gated         FFN and experts have a gate (SwiGLU): three matrices, not two
    dense_layers  layers with a dense FFN; all of them in a dense model
    kinds         (mixer, ffn) of every layer: attention, recurrence or ""; dense, experts or "". Empty where all layers
                  have attention and the dense ones are the first
    experts, top_k, shared_experts, expert_ffn   of the other layers; 0 in a dense model
    shared_ffn    inner width of all shared experts together, where it is not that of so many routed ones; else 0
    expert_groups, topk_groups   node-limited routing: a token's experts lie in topk_groups of expert_groups; 1, 1
                  where routing is free
    small_parameters   norm weights and biases, all layers (multi-token prediction left out)
    learned_positions  rows of a learned position table, 0 with rotary positions
    mtp_layers    extra layers that predict further tokens (speculative decoding)
    window, window_layers   layers whose tokens see only this many before them, 0 where all see everything
    chunked       windows do not slide: tokens see their own chunk of this length
    bounded       the activation of experts is clamped and shifted: a kernel of its own, where a framework has one
    gated_queries   attention's results are gated: queries have twice the columns
    index_heads, index_dim, index_top   an indexer that chooses ``index_top`` tokens; 0 without one
    recurrence    the mixer of layers with a state of fixed size
    stored        number formats of the file's weights, None where it names none
    tower         of a multimodal model the one that sees, where it is read: counts are of the text tower alone
    notes         what of the file is left out, to say beside every run
    encoder       every token sees every other: images or whole texts in, nothing cached
    patch_inputs  of an image, the numbers in a patch, which one matrix turns into a token
    classes, pooler   of an encoder: labels of its classifier; a square layer on the first token
    """

    name: str
    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    attention: Literal["mha", "gqa", "mla"]
    vocab: int
    ffn: int
    dense_layers: int
    max_positions: int
    gated: bool = True
    tied_embeddings: bool = False
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    nope_dim: int = 0
    rope_dim: int = 0
    experts: int = 0
    top_k: int = 0
    shared_experts: int = 0
    expert_ffn: int = 0
    expert_groups: int = 1
    topk_groups: int = 1
    mtp_layers: int = 0
    small_parameters: int = 0
    learned_positions: int = 0
    window: int = 0
    window_layers: int = 0
    encoder: bool = False
    patch_inputs: int = 0
    classes: int = 0
    pooler: bool = False
    kinds: tuple[LayerKind, ...] = ()
    shared_ffn: int = 0
    chunked: bool = False
    gated_queries: bool = False
    bounded: bool = False
    index_heads: int = 0
    index_dim: int = 0
    index_top: int = 0
    recurrence: Recurrence | None = None
    stored: Stored | None = None
    tower: VisionTower | None = None
    notes: tuple[str, ...] = ()

    def kind(self, layer: int) -> LayerKind:
        """What layer number ``layer`` does."""
        if self.kinds:
            return LayerKind(*self.kinds[layer])
        return LayerKind("attention", "dense" if layer < self.dense_layers or not self.experts else "experts")

    def narrow(self, layer: int) -> bool:
        """Whether tokens see a window only in layer number ``layer``: such layers are spread evenly over all."""
        times = self.window_layers if self.window else 0
        return -(-(layer + 1) * times // self.layers) > -(-layer * times // self.layers)

    def within(self, context: float) -> float:
        """Tokens that one sees of ``context`` ones in a layer with a window; of chunks, as the mean of tokens that
        stand anywhere in theirs, where this one has no more. [1]"""
        if not self.window or context <= self.window:
            return context
        return max(context % self.window, self.window / 2) if self.chunked else float(self.window)

    @property
    def attention_layers(self) -> int:
        return sum(mixer == "attention" for mixer, _ in self.kinds) if self.kinds else self.layers

    @property
    def recurrent_layers(self) -> int:
        return sum(mixer == "recurrence" for mixer, _ in self.kinds)

    @functools.cached_property
    def each_layer(self) -> tuple[tuple[LayerKind, bool], ...]:
        """`kind` and `narrow` of every layer."""
        return tuple((self.kind(layer), self.narrow(layer)) for layer in range(self.layers))

    @functools.cached_property
    def drafting_layer(self) -> int:
        """The layer that a draft layer is like: the last one with attention, or the last one."""
        return max((n for n in range(self.layers) if self.kind(n).mixer == "attention"), default=self.layers - 1)

    @property
    def is_moe(self) -> bool:
        return self.experts > 0

    @property
    def said(self) -> tuple[str, ...]:
        """What to say beside a run: what of the file is left out, and what generators do not know."""
        notes = self.notes
        if self.window and self.window_layers:
            sees = f"their chunk of {self.window} tokens" if self.chunked else f"a window of {self.window} tokens"
            notes += (
                f"{self.window_layers} of {self.layers} layers see {sees}; "
                "their attention and cache are priced so, in training over the whole context",
            )
        if self.index_top:
            notes += (
                f"an indexer chooses the {self.index_top} tokens that attention sees; it is priced, "
                "and in prefill and training so is attention over the whole context",
            )
        if self.recurrence:
            notes += (
                f"{self.recurrent_layers} of {self.layers} layers keep a state of fixed size; kernels that work on it "
                "were not measured, and are priced as others that are no product",
            )
        return notes

    @property
    def moe_layers(self) -> int:
        """Layers with experts."""
        if self.kinds:
            return sum(ffn == "experts" for _, ffn in self.kinds)
        return self.layers - self.dense_layers

    @property
    def shared_width(self) -> int:
        """Inner width of the shared experts together."""
        return self.shared_ffn or self.shared_experts * self.expert_ffn

    @property
    def shared_parameters(self) -> int:
        """Shared experts of one layer."""
        return self._ffn_matrices * self.hidden * self.shared_width

    @property
    def query_dim(self) -> int:
        """Columns a head's queries take, gates with them."""
        return self.head_dim * (2 if self.gated_queries else 1)

    @property
    def index_parameters(self) -> int:
        """Products of one layer's indexer: queries of latents, one key, weights of the heads."""
        of = self.q_lora_rank or self.hidden
        return self.index_heads * (of * self.index_dim + self.hidden) + self.hidden * self.index_dim * bool(
            self.index_heads
        )

    @property
    def attention_parameters(self) -> int:
        """Projections of one layer's attention."""
        return int(self.attention_parameters_on(1))

    def attention_parameters_on(self, tp: int) -> float:
        """Those of them that the busiest of ``tp`` ranks holds: whole heads, at least one of keys and values. What
        makes latents has no heads, and every rank holds all of it. [1]"""
        heads, kv_heads = busiest(self.heads, tp), busiest(self.kv_heads, tp)
        out = heads * self.v_head_dim * self.hidden
        queries = heads * self.query_dim
        if self.attention != "mla":
            return self.hidden * (queries + kv_heads * (self.head_dim + self.v_head_dim)) + out
        q = self.q_lora_rank * (self.hidden + queries) if self.q_lora_rank else self.hidden * queries
        kv_down = self.hidden * (self.kv_lora_rank + self.rope_dim)
        kv_up = self.kv_lora_rank * heads * (self.nope_dim + self.v_head_dim)
        return q + kv_down + kv_up + out + self.index_parameters

    def mixer_parameters_on(self, layer: int, tp: int) -> float:
        """Products of what mixes tokens in one layer, on the busiest of ``tp`` ranks. [1]"""
        mixer = self.kind(layer).mixer
        if mixer == "recurrence":
            return self.recurrent_parameters_on(tp)
        return self.attention_parameters_on(tp) if mixer else 0.0

    def recurrent_parameters_on(self, tp: int) -> float:
        """Products of one layer with a state, on the busiest of ``tp`` ranks. [1]"""
        return self.recurrence.parameters_on(self.hidden, tp) if self.recurrence else 0.0

    def dense_ffn_parameters_on(self, tp: int) -> float:
        """Dense FFN of one layer on the busiest of ``tp`` ranks. [1]"""
        return self._ffn_matrices * self.hidden * busiest(self.ffn, tp)

    def table_parameters_on(self, tp: int) -> float:
        """Token table on the busiest of ``tp`` ranks. [1]"""
        return busiest(self.vocab, tp) * self.hidden

    def head_parameters_on(self, tp: int) -> float:
        """Output head of a decoder on the busiest of ``tp`` ranks, 0 where it is the token table. [1]"""
        return 0.0 if self.tied_embeddings else self.table_parameters_on(tp)

    @property
    def dense_ffn_parameters(self) -> int:
        """Dense FFN of one layer."""
        return self._ffn_matrices * self.hidden * self.ffn

    @property
    def expert_parameters(self) -> int:
        """One routed or shared expert."""
        return self._ffn_matrices * self.hidden * self.expert_ffn

    def expert_parameters_on(self, tp: int) -> float:
        """One expert on the busiest of ``tp`` ranks that share it. [1]"""
        return self._ffn_matrices * self.hidden * busiest(self.expert_ffn, tp)

    @property
    def router_parameters(self) -> int:
        """Router of one MoE layer."""
        return self.hidden * self.experts

    @property
    def embedding_parameters(self) -> int:
        """Token table (which is the output head too, where they are tied)."""
        return self.vocab * self.hidden

    @property
    def head_parameters(self) -> int:
        """Output head, 0 where it is the token table; of an encoder its pooler and classifier."""
        if self.encoder:
            return self.hidden * (self.classes + (self.hidden if self.pooler else 0))
        return 0 if self.tied_embeddings else self.vocab * self.hidden

    @property
    def mtp_parameters(self) -> int:
        """All multi-token-prediction layers: an ordinary last layer each, and a projection from two inputs.

        Token table and head are shared with the model. Not part of ``parameters``.
        """
        last = self._moe_layer if self.moe_layers else self.dense_ffn_parameters
        return self.mtp_layers * (self.attention_parameters + last + 2 * self.hidden**2)

    @property
    def parameters(self) -> dict[str, int]:
        """Parameters of the whole model by part."""
        patches = {"patches": self.patch_inputs * self.hidden} if self.patch_inputs else {}
        states = {"recurrence": self.recurrent_layers * int(self.recurrent_parameters_on(1))} if self.recurrence else {}
        return {
            **patches,
            "attention": self.attention_layers * self.attention_parameters,
            **states,
            "dense_ffn": self.dense_layers * self.dense_ffn_parameters,
            "experts": self.moe_layers * self.experts * self.expert_parameters,
            "shared_experts": self.moe_layers * self.shared_parameters,
            "router": self.moe_layers * self.router_parameters,
            "embedding": self.embedding_parameters + self.learned_positions * self.hidden,
            "head": self.head_parameters,
            "norms_and_biases": self.small_parameters,
        }

    @property
    def total_parameters(self) -> int:
        """All parameters, multi-token prediction left out, as model cards count."""
        return sum(self.parameters.values())

    @property
    def active_parameters(self) -> int:
        """Parameters one token meets: ``top_k`` routed experts a layer instead of all; tables counted whole."""
        idle = self.moe_layers * (self.experts - self.top_k) * self.expert_parameters
        return self.total_parameters - idle

    @property
    def matmul_parameters(self) -> int:
        """Parameters a token is multiplied with: active ones without tables, norms and biases, with the head.

        The head of an encoder is left out: it is for one token of each sample.
        """
        parts = self.parameters
        tables = parts["embedding"] + parts["head"] + parts["norms_and_biases"]
        return self.active_parameters - tables + (0 if self.encoder else self.vocab * self.hidden)

    def attention_flops_per_token(self, sequence: float, *, causal: bool = True) -> float:
        """Forward FLOPs of the attention cores of all layers, mean over the tokens of a sequence. [FLOP]

        2 s heads (d_qk + d_v) layers, half of it if causal; a window of w tokens sees w (1 - w/2s) of them on average.
        Latent attention is counted not absorbed. An encoder's is never causal. A state is worked step by step.
        """
        seen = sequence / 2 if causal and not self.encoder else sequence
        layer = 2.0 * self.heads * (self.head_dim + self.v_head_dim)
        narrow = self.window_layers if self.window and self.window < sequence else 0
        windowed = self.window / 2 if self.chunked else self.window * (1 - self.window / (2 * sequence))
        indexed = 0.0
        if self.index_top and self.index_top < sequence:
            # every token is scored, few are seen
            indexed = 2.0 * self.index_heads * self.index_dim * seen * self.attention_layers
            seen = self.index_top * (1 - self.index_top / (2 * sequence))
        attended = layer * ((self.attention_layers - narrow) * seen + narrow * windowed) + indexed
        return attended + (self.recurrent_layers * self.recurrence.flops_per_token if self.recurrence else 0.0)

    def forward_flops_per_token(self, sequence: float, *, causal: bool = True) -> float:
        """FLOPs of one forward pass: 2 per matrix parameter, plus the attention cores. [FLOP]"""
        return 2.0 * self.matmul_parameters + self.attention_flops_per_token(sequence, causal=causal)

    def training_flops_per_token(self, sequence: float, *, causal: bool = True) -> float:
        """FLOPs the model needs for one token of a training step, nothing recomputed: three forwards. [FLOP]

        State ``causal`` beside any utilisation: counting the full square makes it larger.
        Source: Narayanan et al., SC'21, doi:10.1145/3458817.3476209 (full square); the causal half as in the
        counter of Megatron-LM (training.py) and in arXiv:2505.09343, table 4.
        """
        return 3.0 * self.forward_flops_per_token(sequence, causal=causal)

    def cached_tokens(self, context: float) -> float:
        """Tokens of ``context`` ones that a sequence keeps, the mean of layers with attention: of windows the last."""
        if not self.window or context <= self.window:
            return context
        share = self.window_layers / max(self.attention_layers, 1)
        return (1.0 - share) * context + share * self.window

    def kv_bytes_per_token(self, element_bytes: float) -> float:
        """Cache of one token over all layers, the whole model's (not one rank's); an encoder has none. [B]"""
        if self.encoder:
            return 0.0
        if self.attention == "mla":
            layer = mla_kv_bytes_per_token(self.kv_lora_rank, self.rope_dim, element_bytes=element_bytes)
        else:
            layer = float(
                kv_bytes_per_token(self.kv_heads, self.head_dim, self.v_head_dim, element_bytes=element_bytes)
            )
        # the one key of an indexer, of one byte and its scale (DeepSeek-AI, DeepSeek-V3.2, 2025: FP8)
        return self.attention_layers * (layer + self.index_dim * min(element_bytes, 1.0))

    def state_B_on(self, tp: int) -> float:
        """What one sequence keeps beside its cache, whatever its length, on the busiest of ``tp`` ranks. [B]"""
        return self.recurrent_layers * self.recurrence.state_B_on(tp) if self.recurrence else 0.0

    @property
    def _ffn_matrices(self) -> int:
        return 3 if self.gated else 2

    @property
    def _moe_layer(self) -> int:
        return self.experts * self.expert_parameters + self.shared_parameters + self.router_parameters


def load_model(name_or_path: str | Path, *, base: Path | None = None) -> ModelSpec:
    """A built-in model by name, or a Hugging Face ``config.json`` (or the folder it lies in) by path.

    base: folder a relative path starts from, beside the working folder. Keys that no family reads are judged by one
    list (``families.settings``): of no matter, said in a note, or refused. Keys that start with ``_cmsim`` are ours.
    Raises InputError with all problems of the file.
    """
    return seen(("model", str(name_or_path), base), lambda: _load(str(name_or_path), base))


def _load(name_or_path: str, base: Path | None) -> ModelSpec:
    path = reading.find(name_or_path, MODELS, "model", pattern="*.json", base=base)
    if path.is_dir():
        path = path / "config.json"
    text = reading.read_text(path)
    name = path.parent.resolve().name if path.name == "config.json" else path.stem
    return parse_model(text, name=name, file=str(path))


# runs of a scenario ask for the same model
@functools.lru_cache(maxsize=16)
def parse_model(text: str, *, name: str, file: str) -> ModelSpec:
    """A model from the text of a ``config.json``; ``file`` only names it in errors."""
    data = reading.parse_json(text, file)
    if not isinstance(data, dict):
        raise InputError(Problem(f"expected an object of keys and values, got {type(data).__name__}", file, 1))
    outer, keys = Keys(data, file, text), text_tower(data, file, text)
    family = keys.data.get("model_type")
    if family is None:
        keys.complain(
            "model_type", f"the key 'model_type' is required. {did_you_mean('', FAMILIES, limit=len(FAMILIES))}"
        )
    elif not isinstance(family, str) or family not in FAMILIES:
        keys.complain(
            "model_type",
            f"got {family!r}, a family cmsim does not read. {did_you_mean(str(family), FAMILIES, limit=len(FAMILIES))}",
        )
    if keys.problems:
        raise InputError(keys.problems)
    sizes = FAMILIES[str(family)](keys)
    stored = stored_in(outer, keys)
    settle(keys)
    tower = vision_tower(data, file, text)
    spec = ModelSpec(name=name, family=str(family), stored=stored, tower=tower, notes=tuple(keys.notes), **sizes)
    _check_experts(spec, keys)
    if keys.problems:
        raise InputError(keys.problems)
    return spec


def _check_experts(spec: ModelSpec, keys: Keys) -> None:
    if spec.dense_layers > spec.layers:
        keys.mismatch("num_hidden_layers", f"{spec.dense_layers} dense layers are more than the {spec.layers} layers")
    if spec.top_k > spec.experts:
        keys.mismatch("num_experts_per_tok", f"{spec.top_k} is more than the {spec.experts} experts")
    if spec.experts % spec.expert_groups:
        keys.mismatch("n_group", f"{spec.expert_groups} groups do not divide {spec.experts} experts")
    if spec.topk_groups > spec.expert_groups:
        keys.mismatch("topk_group", f"{spec.topk_groups} is more than the {spec.expert_groups} groups")
