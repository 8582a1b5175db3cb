"""Settings of SGLang as an engine."""

from __future__ import annotations

from typing import Any

from cmsim.launch.service.flags import mapping
from cmsim.launch.service.plan import Engine, has_experts, number, rank, share, size, squeezed
from cmsim.launch.settings import Settings
from cmsim.launch.vocabulary import Vocabulary, data

_TYPES = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}


def resolve(settings: Settings, vocabulary: Vocabulary, engine: Engine, *, chip: str | None) -> None:
    """Fill an engine. chip: the device that words name"""
    role = settings.text("role")
    engine.role = role if role in ("prefill", "decode") else ""
    if engine.role:
        engine.transfer = settings.text("transfer") or "mooncake"
    _parallel(settings, vocabulary, engine)
    values = engine.values
    dtype = (settings.text("dtype") or "auto").lower()
    engine.put("precision", None if dtype == "auto" else _TYPES.get(dtype, dtype))
    engine.put("max_model_len", size(settings, "max_model_len"))
    _batches(settings, vocabulary, engine, chip=chip)
    off = settings.true("prefix_off")
    if off:
        values["prefix_caching"] = False
    elif not engine.role:
        values["prefix_caching"] = engine.default("prefix_caching", True)
    engine.put("kv_cache_dtype", settings.text("kv_cache_dtype"), "auto")
    engine.put("quantization", settings.text("quantization"))
    if settings.true("host_cache"):
        _host(settings, engine)
    engine.put("gpu_memory_fraction", share(settings, "memory"))
    _speculative(settings, vocabulary, engine)
    engine.put("hf_overrides", mapping(settings, "hf_overrides") or None)


def _parallel(settings: Settings, vocabulary: Vocabulary, engine: Engine) -> None:
    values = engine.values
    apart = bool(engine.role)
    tp = engine_size(settings, engine, "tp")
    pp = size(settings, "pp")
    if pp is not None or not apart:
        engine.put("pp", pp, 1)
    dp, groups = size(settings, "dp"), size(settings, "attn_dp")
    if settings.true("dp_attention"):
        groups, dp = groups or dp or 1, 1
    experts = has_experts(values.get("model")) or settings.has("ep")
    if not apart:
        engine.put("dp", dp, 1)
        if groups is None and (experts or values["dp"] == 1):
            values["attention_dp"] = 1 if values["dp"] > 1 else engine.default("attention_dp", 1)
    if groups is not None:
        values["attention_dp"] = groups
    width = int(values.get("attention_dp") or 1)
    if width > 1:
        if tp % width:
            key = "attn_dp" if settings.has("attn_dp") else "dp"
            settings.wrong(settings.by_key[key], f"{width} attention groups do not divide tp = {tp}")
        else:
            values["attention_tp"] = tp // width
    engine.put("cp", size(settings, "cp"))
    engine.put("decode_context_parallel", size(settings, "dcp"))
    engine.world = tp * (pp or 1) * (dp or 1)
    nodes = size(settings, "nodes")
    if nodes:
        engine.nodes = nodes
        if engine.world % nodes == 0:
            engine.per_node = engine.world // nodes
    engine.follows = rank(settings, "rank") > 0
    if settings.has("a2a") or settings.true("deepep"):
        back_end = settings.text("a2a") or "deepep"
        if back_end in vocabulary.table_list("whole_experts"):
            values["ep"], values["expert_tp"] = tp, 1
            return
    if experts:
        ep = size(settings, "ep")
        engine.put("ep", ep, 1)
        if tp % int(values["ep"]):
            settings.wrong(settings.by_key["ep"], f"ep = {values['ep']} does not divide tp = {tp}")
        values["expert_tp"] = max(tp // int(values["ep"]), 1)


def engine_size(settings: Settings, engine: Engine, key: str) -> int:
    engine.put(key, size(settings, key), 1)
    return int(engine.values[key])


def _batches(settings: Settings, vocabulary: Vocabulary, engine: Engine, *, chip: str | None) -> None:
    values = engine.values
    width = int(values.get("attention_dp") or 1)
    speculative = 48 if settings.has("spec_method") and not engine.role else None
    engine.put("max_num_seqs", size(settings, "max_num_seqs"), speculative)
    if width > 1 and values.get("max_num_seqs"):
        if engine.role == "decode":
            values["max_num_seqs_per_dp_rank"] = values["max_num_seqs"] // width
        elif not engine.role:
            values["max_num_seqs_scope"] = "whole_instance"
    chunk = number(settings, "prefill_chunk")
    if engine.role != "decode":
        memory = data("serving")["memory_GiB"].get(chip or "")
        if chunk is None and memory is not None and not engine.role:
            chunk = next(tokens for most, tokens in vocabulary.data["chunks"] if memory <= most)
            engine.defaults["prefill_chunk"] = chunk // width
        if chunk is not None and chunk > 0:
            values["prefill_chunk"] = chunk // width
            if width > 1 and not engine.role:
                values["prefill_chunk_scope"] = "per_dp_rank"
        if not engine.role:
            values["chunked_prefill"] = chunk is None or chunk > 0
            if not settings.has("prefill_chunk"):
                engine.defaults["chunked_prefill"] = True
        elif chunk is not None and chunk <= 0:
            values["chunked_prefill"] = False
    tokens = size(settings, "max_prefill_tokens")
    engine.put("max_prefill_tokens", tokens, None if engine.role else 16384)


def _host(settings: Settings, engine: Engine) -> None:
    held: dict[str, Any] = {}
    for key, name in (("host_ratio", "ratio_to_device"), ("host_size", "GB")):
        if settings.has(key) and (value := settings.text(key)):
            held[name] = float(value) if value.replace(".", "", 1).isdigit() else value
    if held.get("GB"):
        held.pop("ratio_to_device", None)
    if not held:
        held = {"ratio_to_device": engine.default("kv_host_cache.ratio_to_device", 2.0)}
    if policy := settings.said.get("hicache-write-policy"):
        held["write_policy"] = str(policy)
    engine.values["kv_host_cache"] = held


def _speculative(settings: Settings, vocabulary: Vocabulary, engine: Engine) -> None:
    if not (said := settings.text("spec_method")):
        return
    method = str(vocabulary.table("methods").get(said.lower(), said.lower()))
    steps, topk, window = (size(settings, key) for key in ("spec_steps", "spec_topk", "spec_window"))
    if steps is None and topk is None and window is None and method in ("eagle", "eagle3", "standalone"):
        kin = "llama" if "llama" in squeezed(engine.values.get("model")) else "other"
        steps, topk, window = vocabulary.data["drafts"][kin]
        engine.defaults["speculative"] = f"steps {steps}, topk {topk}, verify_tokens {window}"
    out: dict[str, Any] = {"method": method}
    if steps is not None and (topk in (None, 1)):
        topk = topk or 1
        if window is not None and window != steps + 1:
            message = f"is {window}, but with top-k 1 it is steps + 1 = {steps + 1}, which the server takes"
            settings.notes.append(f"{settings.by_key['spec_window'].name} {message}")
        window = steps + 1
    if window is not None:
        out |= {"draft_tokens": window - 1, "verify_tokens": window}
    out |= {name: value for name, value in (("topk", topk), ("steps", steps)) if value is not None}
    if model := settings.text("draft_model"):
        out["draft_model"] = model
    engine.values["speculative"] = out
