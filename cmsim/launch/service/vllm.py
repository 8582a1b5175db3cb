"""Settings of vLLM and vllm-ascend as an engine."""

from __future__ import annotations

import re
from typing import Any

from cmsim.launch.service.flags import mapping
from cmsim.launch.service.plan import Engine, has_experts, has_states, number, rank, share, size
from cmsim.launch.settings import Settings
from cmsim.launch.vocabulary import Vocabulary, data, plain

_TYPES = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}
#: from this length on the old engine cut prompts in chunks by itself
_LONG = 32768


def resolve(settings: Settings, vocabulary: Vocabulary, engine: Engine, *, chip: str | None) -> None:
    """Fill an engine. chip: the device that words name"""
    values = engine.values
    old = _is_old(settings, vocabulary)
    if old:
        names = " and ".join(settings.deprecated)
        engine.basis = str(vocabulary.data.get("old_engine_basis") or engine.basis).format(flags=names)
    _parallel(settings, engine)
    dtype = (settings.text("dtype") or "auto").lower()
    engine.put("precision", None if dtype == "auto" else _TYPES.get(dtype, dtype))
    engine.put("max_model_len", _length(settings))
    _batches(settings, engine, chip=chip, old=old)
    states = has_states(values.get("model"))
    if settings.has("prefix_off") and settings.true("prefix_off"):
        values["prefix_caching"] = False
    elif settings.has("prefix_caching"):
        values["prefix_caching"] = settings.true("prefix_caching")
    elif not states:  # of models with states the engine decides by itself
        values["prefix_caching"] = engine.default("prefix_caching", not old)
    else:
        engine.notes.append("prefix caching: of models with states the engine decides by itself")
    engine.put("kv_cache_dtype", settings.text("kv_cache_dtype"), "auto")
    engine.put("quantization", settings.text("quantization"))
    if (held := number(settings, "host_GiB")) is not None:
        values["kv_host_cache"] = {"GiB": held}
    engine.put("gpu_memory_fraction", share(settings, "memory"))
    _speculative(settings, vocabulary, engine)
    overrides = mapping(settings, "hf_overrides")
    if scaling := mapping(settings, "rope_scaling"):
        overrides = {**overrides, "rope_scaling": scaling}
    engine.put("hf_overrides", overrides or None)
    _transfer(settings, engine)


def _is_old(settings: Settings, vocabulary: Vocabulary) -> bool:
    names = set(vocabulary.table_list("old_engine"))
    return any(plain(one) in names for one in settings.deprecated)


def _length(settings: Settings) -> int | None:
    value = number(settings, "max_model_len")
    return None if value is None or value < 1 else value


def _parallel(settings: Settings, engine: Engine) -> None:
    values = engine.values
    for key in ("tp", "pp", "dp"):
        engine.put(key, size(settings, key), 1)
    tp, pp, dp = (int(values[key]) for key in ("tp", "pp", "dp"))
    dcp, pcp = size(settings, "dcp"), size(settings, "pcp")
    if dcp and tp % dcp:
        settings.wrong(
            settings.by_key["dcp"], f"decode context parallel {dcp} reuses the ranks of tp = {tp} and must divide it"
        )
    if dcp or pcp:
        values["cp"] = pcp or 1
    engine.put("decode_context_parallel", dcp)
    group = tp * dp * (pcp or 1)
    engine.world = group * pp
    local = size(settings, "dp_local")
    nodes = size(settings, "nodes")
    if local and dp % local == 0 and dp > local:
        engine.nodes, engine.per_node = dp // local, local * tp * pp
    elif nodes and nodes > 1 and engine.world % nodes == 0:
        engine.nodes, engine.per_node = nodes, engine.world // nodes
    engine.follows = bool(settings.true("headless") or (rank(settings, "dp_start")) > 0 or (rank(settings, "rank")) > 0)
    if rank(settings, "dp_rank") > 0:
        engine.follows = True
    together = settings.true("expert_parallel")
    if not (together or has_experts(values.get("model"))):
        return
    if dp > 1:
        values["attention_dp"] = dp
    values["ep"], values["expert_tp"] = (group, 1) if together else (1, group)


def _batches(settings: Settings, engine: Engine, *, chip: str | None, old: bool) -> None:
    values = engine.values
    memory = data("serving")["memory_GiB"].get(chip or "")
    large = memory is not None and memory >= 70 and chip not in data("vllm")["small_defaults"]
    alone = int(values["dp"]) == 1
    seqs = size(settings, "max_num_seqs")
    usual: int | None = None
    if old or memory is not None:
        usual = 1024 if large and not old else 256
        if not old and settings.text("mode") == "throughput":
            usual *= 2
    if settings.has("chunked_off") and settings.true("chunked_off"):
        values["chunked_prefill"] = False
    elif settings.has("chunked_prefill"):
        values["chunked_prefill"] = settings.true("chunked_prefill")
    else:
        long = (values.get("max_model_len") or 0) > _LONG
        values["chunked_prefill"] = engine.default("chunked_prefill", long if old else True)
    tokens: int | None = None
    if not old and not alone and settings.text("a2a") in vocabulary_list("small_steps"):
        tokens = 256
    elif not old and memory is not None:
        tokens = 16384 if memory >= 160 else 8192 if large else 2048
        tokens *= 2 if settings.text("mode") == "throughput" else 1
    elif old:
        tokens = 2048 if values["chunked_prefill"] else max(2048, values.get("max_model_len") or 0)
    if tokens is not None and not values["chunked_prefill"]:
        tokens = max(tokens, values.get("max_model_len") or 0)
    said_tokens = size(settings, "max_num_batched_tokens")
    length = values.get("max_model_len")
    if tokens and said_tokens is None and length and (seqs or usual) and not old:
        tokens = min(tokens, (seqs or usual or 1) * length)
    engine.put("max_num_batched_tokens", said_tokens, tokens)
    if usual and not old:
        usual = min(usual, values.get("max_num_batched_tokens") or usual)
    engine.put("max_num_seqs", seqs, usual)
    missing = [key for key in ("max_num_batched_tokens", "max_num_seqs") if key not in values]
    if missing:
        message = "the tool's default depends on the memory of the device, which no words here name"
        engine.notes.append(f"{', '.join(missing)}: {message}")
    if not alone:
        for key in ("max_num_seqs", "max_num_batched_tokens"):
            if key in values:
                values[f"{key}_scope"] = "per_dp_rank"
    said, length = values.get("max_num_batched_tokens"), values.get("max_model_len")
    if (
        not values["chunked_prefill"]
        and said
        and length
        and said < length
        and "max_num_batched_tokens" not in engine.defaults
    ):
        message = (
            f"without chunked prefill a step must hold the longest prompt: {said} tokens for a context of {length}"
        )
        settings.wrong(settings.by_key["max_num_batched_tokens"], message)
    if settings.has("a2a"):
        settings.unread[settings.by_key["a2a"].name] = None
    if settings.has("mode"):
        settings.unread[settings.by_key["mode"].name] = None


def vocabulary_list(key: str) -> list[str]:
    return list(data("vllm")[key])


def _speculative(settings: Settings, vocabulary: Vocabulary, engine: Engine) -> None:
    said = mapping(settings, "speculative")
    model = said.get("model") or settings.text("spec_model")
    method = said.get("method") or settings.text("spec_method")
    tokens = said.get("num_speculative_tokens")
    if tokens is None:
        tokens = size(settings, "spec_tokens")
    if not (said or model or method):
        return
    if model and str(model).strip("[]").lower() == "ngram":
        method, model = "ngram", None
    if not method and model:
        found = re.search(r"eagle-?3|eagle|medusa|mlp|dflash", str(model).lower())
        method = found[0].replace("-", "") if found else "draft_model"
    named = str(method or "draft_model")
    if named in vocabulary.table_list("old_words"):
        settings.deprecated[named] = None
    named = str(vocabulary.table("methods").get(named, named))
    out: dict[str, Any] = {"method": named}
    if isinstance(tokens, int | float | str) and str(tokens).isdigit():
        out["draft_tokens"] = int(tokens)
    if model:
        out["draft_model"] = str(model)
    tp = said.get("draft_tensor_parallel_size") or (size(settings, "draft_tp") if settings.has("draft_tp") else None)
    if tp:
        out["draft_tp"] = int(tp)
    engine.values["speculative"] = out


def _transfer(settings: Settings, engine: Engine) -> None:
    """Who makes caches and who takes them, by the connector's role."""
    said = mapping(settings, "kv_transfer")
    if not said:
        return
    name = str(said.get("kv_connector", ""))
    engine.transfer = str(data("serving")["transfers"].get(name.lower(), name.lower().removesuffix("connector") or "?"))
    role = str(said.get("kv_role", ""))
    engine.role = {"kv_producer": "prefill", "kv_consumer": "decode"}.get(role, "both")
    inner = said.get("kv_connector_extra_config")
    listed = inner.get("connectors") if isinstance(inner, dict) else None
    if engine.transfer == "multi" and isinstance(listed, list):
        names = [str(one.get("kv_connector", "")).lower() for one in listed if isinstance(one, dict)]
        known = [data("serving")["transfers"].get(one, one) for one in names]
        engine.transfer = next((one for one in known if one in ("nixl", "mooncake", "p2p_nccl")), engine.transfer)
