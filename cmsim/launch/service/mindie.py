"""MindIE's config.json as an engine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cmsim.launch.service.plan import Engine, has_experts, size
from cmsim.launch.settings import LaunchSetting, Settings
from cmsim.launch.vocabulary import Vocabulary, plain


def of_config(tree: Mapping[str, Any], vocabulary: Vocabulary, file: str, settings: Settings, line: Any) -> None:
    """Read a config.json into ``settings``; keys are known by their last part."""
    for path, value in _leaves(tree, vocabulary):
        name = str(path[-1])
        one = LaunchSetting(name, (value,), int(line(path) or 0), file, vocabulary.meaning(name))
        if plain(name) == "cpuMemSize":  # of tokens put out to the host; with 0 there are none
            (settings.unread if value else settings.ignored)[name] = None
            continue
        if plain(name) == "templateName" and not _odd(tree, str(value)):
            continue
        if one.meaning.sort == "unread" and value is False:  # a switch that is off
            continue
        settings.add(one)


def _odd(tree: Mapping[str, Any], name: str) -> bool:
    """Whether a template is named after another type than it is of."""
    backend = tree.get("BackendConfig")
    schedule = backend.get("ScheduleConfig") if isinstance(backend, Mapping) else None
    kind = schedule.get("templateType") if isinstance(schedule, Mapping) else None
    return not name.startswith(str(kind or ""))


def _leaves(
    tree: Mapping[str, Any], vocabulary: Vocabulary, path: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    for key, value in tree.items():
        here = (*path, key)
        whole = vocabulary.meaning(str(key)).sort in ("ignored", "unread") or plain(str(key)) in vocabulary.sections
        if isinstance(value, Mapping) and not whole:
            yield from _leaves(value, vocabulary, here)
        elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value) and not whole:
            for one in value[:1]:
                if isinstance(one, Mapping):
                    yield from _leaves(one, vocabulary, here)
        else:
            yield here, value


def resolve(settings: Settings, vocabulary: Vocabulary, engine: Engine, *, chip: str | None) -> None:  # noqa: ARG001
    """Fill an engine. chip: not asked"""
    values = engine.values
    devices = settings.by_key.get("devices")
    listed = devices.values[0] if devices else None
    here = len(listed[0]) if isinstance(listed, list) and listed and isinstance(listed[0], list) else None
    world = size(settings, "world") if settings.has("world") else None
    dp, tp, cp = (_size(settings, key) for key in ("dp", "tp", "cp"))
    if tp is None:
        tp = max((world or here or 1) // ((dp or 1) * (cp or 1)), 1)
        engine.defaults["tp"] = "worldSize"
    values["tp"] = tp
    values["pp"] = engine.default("pp", 1)
    values["dp"] = dp or 1
    if dp is None:
        engine.defaults["dp"] = -1
    if cp is not None:
        values["cp"] = cp
    engine.world = tp * (dp or 1) * (cp or 1)
    many = settings.true("many_nodes")
    each = here or world
    if many and each and engine.world % each == 0:
        engine.nodes, engine.per_node = max(engine.world // each, 1), each
    elif not many:
        engine.nodes = 1
        if each and engine.world != each:
            key = "world" if settings.has("world") else "devices"
            settings.wrong(
                settings.by_key[key],
                f"{each} devices, but dp x tp x cp = {dp or 1} x {tp} x {cp or 1} = {engine.world}",
            )
    if has_experts(values.get("model")) or _size(settings, "ep") or _size(settings, "expert_tp"):
        ep, cut = _size(settings, "ep"), _size(settings, "expert_tp")
        if (dp or 1) > 1:
            values["attention_dp"] = dp
        values["ep"] = ep or (engine.world // cut if cut else engine.default("ep", 1))
        values["expert_tp"] = cut or max(engine.world // int(values["ep"]), 1)
        if ep and cut and ep * cut != engine.world:
            settings.wrong(
                settings.by_key["ep"], f"moe_ep x moe_tp = {ep} x {cut}, but there are {engine.world} devices"
            )
    for key in ("max_model_len", "max_input_len", "osl_limit"):
        engine.put(key, size(settings, key))
    engine.put("max_num_seqs", size(settings, "max_num_seqs"), 200)
    engine.put("max_prefill_seqs", size(settings, "max_prefill_seqs"), 50)
    engine.put("max_prefill_tokens", size(settings, "max_prefill_tokens"), 8192)
    engine.put("kv_block_size", size(settings, "block"))
    _plugins(settings, vocabulary, engine)
    engine.role = {"prefill": "prefill", "decode": "decode"}.get((settings.text("instance_type") or "").lower(), "")


def _size(settings: Settings, key: str) -> int | None:
    """-1 and 0 are off."""
    value = settings.whole(key) if settings.has(key) else None
    return value if value is not None and value > 0 else None


def _plugins(settings: Settings, vocabulary: Vocabulary, engine: Engine) -> None:
    """What stands as JSON in a text: which plug-ins are on, and what they take."""
    said = settings.get("plugin") if settings.has("plugin") else None
    loaded: Any = said
    if isinstance(said, str):
        try:
            loaded = json.loads(said)
        except (ValueError, RecursionError):
            settings.wrong(settings.by_key["plugin"], f"got '{said[:80]}'; allowed: JSON in a text")
    loaded = loaded if isinstance(loaded, dict) else {}
    names = [one.strip() for one in str(loaded.get("plugin_type", "")).split(",") if one.strip()]
    values = engine.values
    split = "splitfuse" in names
    mixed = (settings.text("template") or "Standard") == "Mix"
    values["chunked_prefill"] = split and mixed
    if split and mixed:
        engine.put("prefill_chunk", size(settings, "prefill_chunk"))
    elif split or mixed:
        other = "templateType is not Mix" if split else "the plug-in splitfuse is not there"
        engine.notes.append(f"prompts are not cut in chunks: {other}")
    if not split:
        engine.defaults["chunked_prefill"] = False
    values["prefix_caching"] = "prefix_cache" in names
    method = next((one for one in names if one in vocabulary.table("methods")), None)
    if method:
        out: dict[str, Any] = {"method": vocabulary.table("methods")[method]}
        tokens = loaded.get("num_speculative_tokens")
        if isinstance(tokens, int) and tokens > 0:
            out["draft_tokens"] = tokens
        values["speculative"] = out
