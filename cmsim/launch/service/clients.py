"""Benchmark commands: how long requests are, how they come, how many."""

from __future__ import annotations

import math
from typing import Any

from cmsim.launch.service.flags import of_words
from cmsim.launch.service.plan import size
from cmsim.launch.settings import Settings
from cmsim.launch.vocabulary import Vocabulary

#: data sets whose lengths are in a file that is not here
_FILES = "data set"


def read(words: list[str], vocabulary: Vocabulary, file: str) -> tuple[Settings, dict[str, Any], dict[str, Any]]:
    """(settings, values, defaults) of one run of a client."""
    settings = Settings()
    of_words(words, vocabulary, file, settings)
    values: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    values["model"] = settings.text("model")
    style = str(vocabulary.data["style"])
    {"vllm": _vllm, "sglang": _sglang, "perf": _perf}[style](settings, vocabulary, values, defaults)
    warm = _count(settings, "warmup")
    if warm:
        values["warmup_requests"] = warm
    _slo(settings, values)
    return settings, values, defaults


def _count(settings: Settings, key: str) -> int | None:
    value = settings.whole(key) if settings.has(key) else None
    return value if value is not None and value >= 0 else None


def _real(settings: Settings, key: str) -> float | int | None:
    text = settings.text(key)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        settings.wrong(settings.by_key[key], f"got '{text}'; allowed: a number")
        return None
    return int(value) if math.isfinite(value) and value == int(value) else value


def _rate(settings: Settings) -> float | int | str | None:
    value = _real(settings, "rate")
    return "inf" if isinstance(value, float) and math.isinf(value) else value


def _load(settings: Settings, values: dict[str, Any], defaults: dict[str, Any]) -> None:
    rate = _rate(settings)
    if rate is None:
        rate = defaults["request_rate"] = "inf"
    values["request_rate"] = rate
    values["concurrency"] = size(settings, "concurrency")
    if values["concurrency"] is None:
        defaults["concurrency"] = "unlimited"


def _vllm(settings: Settings, vocabulary: Vocabulary, values: dict[str, Any], defaults: dict[str, Any]) -> None:
    table = vocabulary.data["defaults"]
    data_set = settings.text("dataset") or table["dataset"]
    _load(settings, values, defaults)
    if "burstiness" in table and not settings.has("burstiness"):
        defaults["burstiness"] = table["burstiness"]
    values["num_prompts"] = size(settings, "num_prompts") or table["num_prompts"]
    if not settings.has("num_prompts"):
        defaults["num_prompts"] = table["num_prompts"]
    if settings.has("burstiness"):
        _burstiness(settings)
    if data_set in ("random", "random-mm", "random-rerank"):
        _random(settings, values, defaults, table)
    elif data_set == "prefix_repetition":
        prefix = size(settings, "rep_prefix") or 256
        suffix = size(settings, "rep_suffix") or 256
        groups = size(settings, "rep_groups") or 10
        values |= {"isl": prefix + suffix, "osl": size(settings, "rep_output") or size(settings, "output") or 128}
        values["shared_prefix"] = {"tokens": prefix, "groups": groups}
        if values["num_prompts"] >= groups:
            values["shared_prefix"]["per_group"] = values["num_prompts"] // groups
    elif data_set == "sonnet":
        values["isl"] = size(settings, "sonnet_input") or size(settings, "input") or 550
        values["osl"] = size(settings, "sonnet_output") or size(settings, "output") or 150
        shared = size(settings, "sonnet_prefix") or 200
        values["shared_prefix"] = {"tokens": shared, "groups": 1}
    else:
        values["isl"] = _FILES
        values["osl"] = (
            size(settings, "sharegpt_output") or size(settings, "custom_output") or size(settings, "output") or _FILES
        )
    if settings.has("path"):
        settings.unread[settings.by_key["path"].name] = None


def _burstiness(settings: Settings) -> None:
    """Of 1.0 it is what a Poisson process has, and says nothing; of another it does."""
    value = _real(settings, "burstiness")
    (settings.ignored if value == 1 else settings.unread)[settings.by_key["burstiness"].name] = None


def _random(settings: Settings, values: dict[str, Any], defaults: dict[str, Any], table: dict[str, Any]) -> None:
    isl = size(settings, "random_input") or size(settings, "input")
    osl = size(settings, "random_output") or size(settings, "output")
    for key, value in (("isl", isl), ("osl", osl)):
        values[key] = defaults.setdefault(key, table[key]) if value is None else value
    ratio = _real(settings, "ratio")
    if ratio is None:
        ratio = defaults["random_range_ratio"] = 0.0
    if not 0 <= ratio < 1:
        settings.wrong(settings.by_key["ratio"], f"got '{ratio}'; allowed: 0 up to, not with, 1")
        ratio = 0.0
    prefix = _count(settings, "random_prefix") or 0
    if ratio:
        for key, extra in (("isl", prefix), ("osl", 0)):
            # a sum that is whole but for rounding stays whole
            low, high = (round(values[key] * (1 + sign * ratio), 6) for sign in (-1, 1))
            values[f"{key}_range"] = [extra + math.floor(low), extra + math.ceil(high)]
    if prefix:
        values["isl"] += prefix
        values["shared_prefix"] = {"tokens": prefix, "groups": 1}


def _sglang(settings: Settings, vocabulary: Vocabulary, values: dict[str, Any], defaults: dict[str, Any]) -> None:
    table = vocabulary.data["defaults"]
    data_set = settings.text("dataset") or table["dataset"]
    _load(settings, values, defaults)
    count = size(settings, "num_prompts")
    if data_set == "generated-shared-prefix":
        groups, each = size(settings, "gsp_groups") or 64, size(settings, "gsp_each") or 16
        shared, question = size(settings, "gsp_system") or 2048, size(settings, "gsp_question") or 128
        values |= {"isl": shared + question, "osl": size(settings, "gsp_output") or 256}
        values["shared_prefix"] = {"tokens": shared, "groups": groups, "per_group": each}
        values["num_prompts"] = groups * each
        if settings.has("num_prompts"):
            settings.ignored[settings.by_key["num_prompts"].name] = None
        if (ratio := _real(settings, "gsp_ratio")) is None:
            defaults["gsp_range_ratio"] = 1.0
        elif ratio < 1:
            for key, extra, spread in (("isl", shared, question), ("osl", 0, values["osl"])):
                low = max(int(spread * ratio), 1)
                values[f"{key}_range"] = [extra + low, extra + spread]
                values[f"{key}_mean"] = extra + (low + spread) / 2
        if (turns := size(settings, "gsp_turns")) and turns > 1:
            values["turns"] = {"mean": turns}
        return
    values["num_prompts"] = count or table["num_prompts"]
    if count is None:
        defaults["num_prompts"] = table["num_prompts"]
    if data_set in ("random", "random-ids", "image"):
        ratio = _real(settings, "ratio")
        if ratio is None:
            ratio = defaults["random_range_ratio"] = 0.0
        if not 0 <= ratio <= 1:
            settings.wrong(settings.by_key["ratio"], f"got '{ratio}'; allowed: 0 to 1")
            ratio = 0.0
        for key, name in (("isl", "random_input"), ("osl", "random_output")):
            full = size(settings, name)
            full = defaults.setdefault(key, table[key]) if full is None else full
            values[key] = full
            if ratio < 1:  # drawn evenly from this share of the number up to all of it
                low = max(int(full * ratio), 1)
                values |= {f"{key}_range": [low, full], f"{key}_mean": (low + full) / 2}
    else:
        values["isl"] = _FILES
        values["osl"] = size(settings, "sharegpt_output") or _FILES
        if data_set == "mooncake" and count is None:
            values["num_prompts"] = _FILES
            defaults.pop("num_prompts", None)
    if settings.has("path"):
        settings.unread[settings.by_key["path"].name] = None


def _perf(settings: Settings, vocabulary: Vocabulary, values: dict[str, Any], defaults: dict[str, Any]) -> None:
    """genai-perf and aiperf."""
    table = vocabulary.data["defaults"]
    from_file = settings.has("path")
    for key in ("isl", "osl"):
        value = _real(settings, key)
        if value is not None:
            values[key] = value
        elif from_file:
            values[key] = _FILES
        elif table.get(key):
            values[key] = defaults.setdefault(key, table[key])
        if spread := _real(settings, f"{key}_stddev"):
            values[f"{key}_stddev"] = spread
    if from_file:
        settings.unread[settings.by_key["path"].name] = None
    groups, tokens = size(settings, "prefixes"), _count(settings, "prefix_tokens")
    if groups:
        if tokens is None:
            tokens = defaults.setdefault("shared_prefix.tokens", table["prefix_tokens"])
        if tokens:
            values["shared_prefix"] = {"tokens": tokens, "groups": groups}
    elif shared := size(settings, "system_tokens"):
        values["shared_prefix"] = {"tokens": shared, "groups": 1}
    if (mean := _real(settings, "turns")) is not None:
        turns = {"mean": mean}
        for name, key in (("stddev", "turns_stddev"), ("delay_ms", "delay")):
            if (value := _real(settings, key)) is not None:
                turns[name] = value
        values["turns"] = turns
    if conversations := size(settings, "conversations"):
        values["conversations"] = conversations
    values["concurrency"] = size(settings, "concurrency")
    rate = _rate(settings)
    values["request_rate"] = rate
    if rate is None and table.get("request_rate"):
        defaults["request_rate"] = table["request_rate"]
    if values["concurrency"] is None and rate is None:
        values["concurrency"] = defaults.setdefault("concurrency", 1)
    count = size(settings, "count")
    if count is not None:
        values["num_prompts"] = count
    elif not settings.has("duration") and not conversations:
        values["num_prompts"] = defaults.setdefault("num_prompts", table["count"])
    if distinct := size(settings, "distinct"):
        values["distinct_prompts"] = distinct


def _slo(settings: Settings, values: dict[str, Any]) -> None:
    """Promises in milliseconds, ``name:value`` each."""
    names = {"ttft": "ttft_ms", "tpot": "tpot_ms", "e2el": "e2el_ms", "itl": "itl_ms"}
    names |= {"time_to_first_token": "ttft_ms", "inter_token_latency": "itl_ms", "request_latency": "e2el_ms"}
    out: dict[str, float | int] = {}
    for word in settings.words("goodput"):
        name, colon, text = word.partition(":")
        if not colon or not text.replace(".", "", 1).isdigit():
            settings.wrong(settings.by_key["goodput"], f"got '{word}'; allowed: name:milliseconds")
            continue
        value = float(text)
        out[names.get(name, name)] = int(value) if value == int(value) else value
    if out:
        values["slo"] = out
