"""Settings of trtllm-serve and of its YAML as an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cmsim.launch.service.flags import add
from cmsim.launch.service.plan import Engine, has_experts, share, size
from cmsim.launch.settings import LaunchSetting, Settings
from cmsim.launch.vocabulary import Vocabulary, plain

_TYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def of_options(
    tree: Mapping[str, Any], vocabulary: Vocabulary, file: str, settings: Settings, line: Any = lambda _: None
) -> None:
    """Read the keys of an engine's YAML into ``settings``."""
    sections = set(vocabulary.sections)
    for key, value in tree.items():
        at = int(line(key) or 0)
        if isinstance(value, Mapping) and plain(str(key)) not in sections and value:
            for inner, said in value.items():
                name = f"{key}.{inner}"
                meaning = vocabulary.meaning(name)
                if meaning.sort == "unknown":
                    meaning = vocabulary.meaning(str(inner))
                if said is None and meaning.sort == "plan":
                    continue
                one = LaunchSetting(name, (said,), at, file, meaning)
                if meaning.sort in ("unread", "ignored"):
                    settings.add(one, str(inner))
                else:
                    add(one, vocabulary, settings)
        elif isinstance(value, Mapping) and value and plain(str(key)) == "moe-config" and list(value) == ["backend"]:
            settings.add(LaunchSetting(str(key), (value,), at, file, vocabulary.meaning(str(key))), f"{key}.backend")
        else:
            meaning = vocabulary.meaning(str(key))
            if value is None and meaning.sort == "plan":
                continue
            add(LaunchSetting(str(key), (value,), at, file, meaning), vocabulary, settings)


def resolve(settings: Settings, vocabulary: Vocabulary, engine: Engine, *, chip: str | None) -> None:  # noqa: ARG001
    """Fill an engine. chip: not asked"""
    role = (settings.text("role") or "").lower()
    engine.role = {"prefill": "prefill", "context": "prefill", "decode": "decode", "generation": "decode"}.get(
        role, engine.role
    )
    values = engine.values
    for key in ("tp", "pp"):
        engine.put(key, size(settings, key), 1)
    tp, pp = int(values["tp"]), int(values["pp"])
    engine.put("cp", size(settings, "cp"))
    engine.world = tp * pp * int(values.get("cp") or 1)
    per_node = size(settings, "per_node")
    if per_node and engine.world > per_node and engine.world % per_node == 0:
        engine.nodes, engine.per_node = engine.world // per_node, per_node
    experts = has_experts(values.get("model")) or settings.has("ep")
    wide = settings.true("attention_dp")
    apart = bool(engine.role)
    if not apart:
        values["dp"] = 1 if wide else engine.default("dp", 1)
    if experts or wide:
        values["attention_dp"] = tp if wide else 1
    if experts:
        cut = size(settings, "expert_tp")
        engine.put("ep", size(settings, "ep"), tp // cut if cut and tp % cut == 0 and not settings.has("ep") else 1)
        if tp % int(values["ep"]):
            settings.wrong(settings.by_key["ep"], f"ep = {values['ep']} does not divide tp = {tp}")
        values["expert_tp"] = max(tp // int(values["ep"]), 1)
    dtype = (settings.text("dtype") or "auto").lower()
    engine.put("precision", None if dtype == "auto" else _TYPES.get(dtype, dtype))
    engine.put("max_model_len", size(settings, "max_model_len"))
    engine.put("max_input_len", size(settings, "max_input_len"))
    engine.put("max_num_seqs", size(settings, "max_num_seqs"), 2048)
    engine.put("max_num_batched_tokens", size(settings, "max_num_batched_tokens"), 8192)
    if wide and not apart:
        for key in ("max_num_seqs", "max_num_batched_tokens"):
            values[f"{key}_scope"] = "per_dp_rank"
    if settings.has("chunked_prefill"):
        values["chunked_prefill"] = settings.true("chunked_prefill")
    elif engine.role != "decode":
        values["chunked_prefill"] = engine.default("chunked_prefill", False)
    if settings.has("prefix_caching"):
        values["prefix_caching"] = settings.true("prefix_caching")
    else:
        values["prefix_caching"] = engine.default("prefix_caching", True)
    engine.put("kv_cache_dtype", settings.text("kv_cache_dtype"), "auto")
    engine.put("kv_block_size", size(settings, "block"))
    if (held := size(settings, "host_B") if settings.get("host_B") not in (None, 0) else None) is not None:
        values["kv_host_cache"] = {"bytes": held}
    engine.put("quantization", settings.text("quantization"))
    engine.put("gpu_memory_fraction", share(settings, "memory"))
    _speculative(settings, vocabulary, engine)
    if apart or settings.has("transfer"):
        engine.transfer = (settings.text("transfer") or "default").lower()


def _speculative(settings: Settings, vocabulary: Vocabulary, engine: Engine) -> None:
    if not (said := settings.text("spec_method")):
        return
    out: dict[str, Any] = {"method": str(vocabulary.table("methods").get(said.lower(), said.lower()))}
    tokens = size(settings, "spec_layers") or size(settings, "spec_length")
    if tokens:
        out["draft_tokens"] = tokens
    if model := settings.text("draft_model"):
        out["draft_model"] = model
    engine.values["speculative"] = out
