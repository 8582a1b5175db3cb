"""A transformer as numbers: read from a Hugging Face ``config.json``, counted by part.

To add a family: a function in ``cmsim.workload.families`` that turns its keys into a `ModelSpec`, and
one line in its ``FAMILIES``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cmsim import reading
from cmsim.compute import kv_bytes_per_token, mla_kv_bytes_per_token
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.workload.families import FAMILIES, Keys
from cmsim.workload.whole import busiest

MODELS = "workloads/models"


@dataclass(frozen=True)
class ModelSpec:
    """Sizes of a transformer. Counts of parameters are whole numbers [1], FLOPs are [FLOP].

    attention     mha, gqa (fewer key-value heads than heads, one included) or mla (latent attention)
    head_dim      size of a query-key head; for mla ``nope_dim + rope_dim``
    v_head_dim    size of a value head
    q_lora_rank, kv_lora_rank, nope_dim, rope_dim   mla only, else 0 (``q_lora_rank`` 0: queries not compressed)
    ffn           inner width of a dense FFN
    gated         FFN and experts have a gate (SwiGLU): three matrices, not two
    dense_layers  layers with a dense FFN, the first ones; all of them in a dense model
    experts, top_k, shared_experts, expert_ffn   of the other layers; 0 in a dense model
    expert_groups, topk_groups   node-limited routing: a token's experts lie in topk_groups of expert_groups; 1, 1
                  where routing is free
    small_parameters   norm weights and biases, all layers (multi-token prediction left out)
    learned_positions  rows of a learned position table, 0 with rotary positions
    mtp_layers    extra layers that predict further tokens (speculative decoding)
    window, window_layers   layers whose tokens see only this many before them, 0 where all see everything
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

    @property
    def is_moe(self) -> bool:
        return self.experts > 0

    @property
    def window_note(self) -> str:
        """What to say beside a run of a model with windows, which generators do not know; "" of others."""
        if not (self.window and self.window_layers):
            return ""
        return (
            f"{self.window_layers} of {self.layers} layers see a window of {self.window} tokens; "
            "their attention and cache are priced over the whole context"
        )

    @property
    def moe_layers(self) -> int:
        return self.layers - self.dense_layers

    @property
    def attention_parameters(self) -> int:
        """Projections of one layer's attention."""
        return int(self.attention_parameters_on(1))

    def attention_parameters_on(self, tp: int) -> float:
        """Those of them that the busiest of ``tp`` ranks holds: whole heads, at least one of keys and values. What
        makes latents has no heads, and every rank holds all of it. [1]"""
        heads, kv_heads = busiest(self.heads, tp), busiest(self.kv_heads, tp)
        out = heads * self.v_head_dim * self.hidden
        queries = heads * self.head_dim
        if self.attention != "mla":
            return self.hidden * (queries + kv_heads * (self.head_dim + self.v_head_dim)) + out
        q = self.q_lora_rank * (self.hidden + queries) if self.q_lora_rank else self.hidden * queries
        kv_down = self.hidden * (self.kv_lora_rank + self.rope_dim)
        kv_up = self.kv_lora_rank * heads * (self.nope_dim + self.v_head_dim)
        return q + kv_down + kv_up + out

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
        return {
            **patches,
            "attention": self.layers * self.attention_parameters,
            "dense_ffn": self.dense_layers * self.dense_ffn_parameters,
            "experts": self.moe_layers * self.experts * self.expert_parameters,
            "shared_experts": self.moe_layers * self.shared_experts * self.expert_parameters,
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
        Latent attention is counted not absorbed. An encoder's is never causal.
        """
        seen = sequence / 2 if causal and not self.encoder else sequence
        layer = 2.0 * self.heads * (self.head_dim + self.v_head_dim)
        narrow = self.window_layers if self.window and self.window < sequence else 0
        windowed = self.window * (1 - self.window / (2 * sequence))
        return layer * ((self.layers - narrow) * seen + narrow * windowed)

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
        return self.layers * layer

    @property
    def _ffn_matrices(self) -> int:
        return 3 if self.gated else 2

    @property
    def _moe_layer(self) -> int:
        return (self.experts + self.shared_experts) * self.expert_parameters + self.router_parameters


def load_model(name_or_path: str | Path, *, base: Path | None = None) -> ModelSpec:
    """A built-in model by name, or a Hugging Face ``config.json`` (or the folder it lies in) by path.

    base: folder a relative path starts from, beside the working folder. Keys that cmsim does not use are ignored,
    as are those that start with ``_cmsim``. Raises InputError with all problems of the file.
    """
    path = reading.find(str(name_or_path), MODELS, "model", pattern="*.json", base=base)
    if path.is_dir():
        path = path / "config.json"
    text = reading.read_text(path)
    name = path.parent.resolve().name if path.name == "config.json" else path.stem
    return parse_model(text, name=name, file=str(path))


def parse_model(text: str, *, name: str, file: str) -> ModelSpec:
    """A model from the text of a ``config.json``; ``file`` only names it in errors."""
    data = reading.parse_json(text, file)
    if not isinstance(data, dict):
        raise InputError(Problem(f"expected an object of keys and values, got {type(data).__name__}", file, 1))
    keys = Keys(data, file, text)
    family = data.get("model_type")
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
    spec = ModelSpec(name=name, family=str(family), **FAMILIES[str(family)](keys))
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


def speculative_tokens_per_step(acceptance: float, draft_tokens: int) -> float:
    """Mean tokens a decode step yields when each of ``draft_tokens`` drafts is accepted in turn. [1]

    E = 1 + a + ... + a^k = (1 - a^(k+1)) / (1 - a), a = ``acceptance``, independent from draft to draft.
    Source: Leviathan, Kalman and Matias, ICML 2023, arXiv:2211.17192, eq. 1

    >>> speculative_tokens_per_step(0.7, 1)
    1.7
    """
    return sum(acceptance**i for i in range(draft_tokens + 1))
