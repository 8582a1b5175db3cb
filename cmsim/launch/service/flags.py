"""Command lines and trees of serving tools as settings: switches, dotted JSON, ``--no-``, old names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from cmsim.launch.settings import LaunchSetting, Settings, from_words
from cmsim.launch.vocabulary import NameMeaning, Vocabulary, data, plain

#: keys whose values are JSON, whole or a part a flag
_JSON = frozenset({"speculative", "hf_overrides", "kv_transfer", "rope_scaling"})


def of_words(words: Iterable[str], vocabulary: Vocabulary, file: str, settings: Settings) -> list[str]:
    """Read a command line into ``settings``; gives the words that stand alone."""
    found, strays = from_words([word for word in words if word != "--"], vocabulary, file)
    switches = {plain(one) for one in vocabulary.table_list("switches")}
    alone: list[str] = list(strays)
    for one in found:
        if plain(one.name) in switches and one.values and str(one.values[0]).lower() in ("true", "false"):
            one = replace(one, values=one.values[:1])  # as older releases take them
        elif plain(one.name) in switches and one.values:
            alone += [str(value) for value in one.values]
            one = replace(one, values=())
        add(one, vocabulary, settings)
    return alone


def of_tree(
    tree: Mapping[str, Any], vocabulary: Vocabulary, file: str, settings: Settings, line: Any = lambda _: None
) -> None:
    """Read keys that are a server's flags without dashes. A switch that is off is no flag at all."""
    for key, value in tree.items():
        if value is False or value is None:
            meaning = vocabulary.meaning(str(key))
            if value is False and meaning.sort == "plan" and meaning.key in ("prefix_caching", "chunked_prefill"):
                message = f"{file}: {key}: false is passed on as no flag at all, and has no effect"
                settings.notes.append(message)
            continue
        values = () if value is True else tuple(value) if isinstance(value, list) else (value,)
        meaning = vocabulary.meaning(str(key))
        add(LaunchSetting(str(key), values, int(line(key) or 0), file, meaning), vocabulary, settings)


def add(one: LaunchSetting, vocabulary: Vocabulary, settings: Settings) -> None:
    """Put one flag where it belongs: its key, or the list of its sort."""
    name = plain(one.name)
    meaning = one.meaning
    base, dot, _ = name.partition(".")
    if dot and vocabulary.meaning(base).sort == "plan" and vocabulary.meaning(base).key in _JSON:
        path = one.name.lstrip("-").split(".")[1:]
        _part(replace(one, meaning=vocabulary.meaning(base)), path, settings)
        return
    if meaning.sort == "unknown" and name.startswith("no-"):
        meant = vocabulary.meaning(name[3:])
        if meant.sort == "plan":
            settings.add(replace(one, values=(False,), meaning=meant))
            return
        meaning = meant
    if meaning.sort == "old" and meaning.key in ("unread", "ignored"):
        settings.deprecated[one.name] = None
        getattr(settings, meaning.key)[one.name] = None
        return
    if meaning.sort == "old":
        settings.deprecated[one.name] = None
        meaning = NameMeaning("plan", meaning.key)
    if meaning.key in _JSON:
        one = replace(one, values=(_loaded(one.value),))
    settings.add(replace(one, meaning=meaning))


def _part(one: LaunchSetting, path: list[str], settings: Settings) -> None:
    """``--flag.key value``: one key of what another flag says as JSON."""
    before = settings.by_key.get(one.meaning.key)
    whole = dict(before.value) if before is not None and isinstance(before.value, dict) else {}
    at = whole
    for key in path[:-1]:
        inner = at.get(key)
        at[key] = dict(inner) if isinstance(inner, dict) else {}
        at = at[key]
    at[path[-1]] = _loaded(one.value)
    settings.by_key[one.meaning.key] = replace(one, values=(whole,))


def _loaded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def mapping(settings: Settings, key: str) -> dict[str, Any]:
    """JSON of a flag; what is no mapping is a problem and none."""
    value = settings.get(key)
    if value is None or value is True:
        return {}
    if not isinstance(value, dict):
        settings.wrong(settings.by_key[key], f"got '{str(value)[:80]}'; allowed: JSON, keys and values")
        return {}
    return value


def environment(names: Mapping[str, str], given: Iterable[str], settings: Settings) -> None:
    """Variables that touch performance, those known not to, and old ones."""
    table = data("serving")
    given = set(given)
    for name in names:
        if name in given:
            continue
        if _in(name, table["old"]):
            settings.deprecated[name] = None
        if _in(name, table["ignored"]):
            settings.ignored[name] = None
        elif _in(name, table["unread"]):
            settings.unread[name] = None


def _in(name: str, listed: Iterable[str]) -> bool:
    for one in listed:
        start, star, end = one.partition("*")
        if name == one or (star and name.startswith(start) and name.endswith(end)):
            return True
    return False
