"""Modules that predict further tokens while a model is trained: behind the last layer, each a layer and the head.

Source: DeepSeek-AI, arXiv:2412.19437, section 2.2 (norms of both inputs, a projection of them, a layer, the shared
head); order of kernels and messages as Megatron-LM (transformer/multi_token_prediction.py): the projection is split by
columns. FLOPs that MFU is stated on leave them out, as the paper's own do.
"""

from __future__ import annotations

from cmsim import compute
from cmsim.workload.generate import layers
from cmsim.workload.generate.chain import Comm, Kernel, Piece
from cmsim.workload.generate.sharding import Split
from cmsim.workload.model import ModelSpec
from cmsim.workload.whole import busiest


def opening(split: Split) -> list[Piece]:
    """What makes one input of a token's result and of the token behind it."""
    model, form, tp, tokens = split.model, split.form, split.layout.tp, split.tokens
    own = busiest(tokens, tp) if split.spec.parallel.sequence_parallel else tokens
    norm = compute.norm(own, model.hidden, element_bytes=form.stream_B)
    norms = [
        Kernel(f"{of} norm", "norm", "", float(norm.flops), float(norm.bytes_B)) for of in ("next token", "result")
    ]
    before = [*layers.embedding(model, tokens, form), *norms]
    both = split.tensor("gather", "all_gather")
    joined = Comm("tp join", "all_gather", tokens * model.hidden * form.stream_B, "tp") if tp > 1 else None
    return [
        Piece(before, both and both._replace(size_B=2 * both.size_B)),
        Piece([layers.product("further tokens", form, tokens, busiest(model.hidden, tp), 2 * model.hidden)], joined),
    ]


def flops_per_token(model: ModelSpec, sequence: int) -> float:
    """Of one module, a forward pass. [FLOP]"""
    mixer, ffn = model.kind(model.drafting_layer)
    active = model.mixer_parameters_on(model.drafting_layer, 1) + 2 * model.hidden**2 + model.vocab * model.hidden
    if ffn == "experts":
        active += model.top_k * model.expert_parameters + model.shared_parameters + model.router_parameters
    elif ffn:
        active += model.dense_ffn_parameters
    cores = model.attention_flops_per_token(sequence) / model.layers if mixer else 0.0
    return 2.0 * active + cores
