"""Settings and values of files as their tools mean them: what is off, what is put in, what stands for another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cmsim.launch.python import Thing
from cmsim.launch.settings import LaunchSetting
from cmsim.launch.vocabulary import plain, vocabulary


def negated(one: LaunchSetting, tool: str) -> LaunchSetting:
    """``--x.no-y`` of dotted command lines is y, off."""
    if tool != "torchtitan" or ".no-" not in plain(one.name):
        return one
    name = plain(one.name).replace(".no-", ".", 1)
    return LaunchSetting(one.name, (False,), one.line, one.file, vocabulary(tool).meaning(name))


def switched(one: LaunchSetting) -> LaunchSetting | None:
    """A key that is off says nothing where the tool's switch is off anyway."""
    if one.value in (None, "null", "None") and one.meaning.sort in ("plan", "model", "unread", "unknown", "old"):
        return one if one.meaning.key == "virtual_stages" else None
    if one.value is False and one.meaning.sort in ("unread", "unknown"):
        return one if one.meaning.sort == "unread" and "fusion" in one.name else None
    return one


def filled(value: Any, given: Mapping[str, str]) -> Any:
    """``${NAME:default}`` in texts, as values of YAML."""
    import yaml

    if isinstance(value, dict):
        return {key: filled(one, given) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, given) for one in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    text = value
    for _ in range(10):
        text, count = re.subn(r"\$\{(\w+)(?::-?([^${}]*))?\}", lambda m: given.get(m[1], m[2] or ""), text)
        if not count:
            break
    if re.fullmatch(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?|true|false|True|False|null", text):
        return yaml.safe_load(text)
    return text


def plainly(value: Any) -> Any:
    """A value as settings have it: things of a list by their names, with the recipe that was given to them."""
    if not isinstance(value, list | tuple | set):
        return value
    return [one.name if isinstance(one, Thing) else one for one in value]
