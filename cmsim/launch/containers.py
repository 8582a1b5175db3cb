"""Commands in files for containers: ``command`` and ``args`` of Kubernetes, compose and their like."""

from __future__ import annotations

import re
import shlex
from typing import Any

from cmsim.launch.config_files import Tree

#: commands of one file
_MOST = 64


def command_lists(tree: Tree) -> list[tuple[list[str], dict[str, str], int]]:
    """(words, environment, line) of every command of a file for containers."""
    out: list[tuple[list[str], dict[str, str], int]] = []

    def words(value: Any) -> list[str]:
        if isinstance(value, str):
            return [value]
        return [str(one) for one in value] if isinstance(value, list) else []

    def walk(value: Any, path: tuple[str | int, ...]) -> None:
        if isinstance(value, dict):
            command, args = words(value.get("command") or value.get("entrypoint")), words(value.get("args"))
            if isinstance(value.get("entrypoint"), list | str) and value.get("command"):
                args = words(value.get("command"))
            if command or args:
                line = next(
                    (tree.line((*path, key)) for key in ("command", "entrypoint", "args") if key in value), None
                )
                out.append(([*command, *args], _env(value.get("env") or value.get("environment")), line or 1))
            for key, one in value.items():
                walk(one, (*path, key))
        elif isinstance(value, list):
            for n, one in enumerate(value):
                walk(one, (*path, n))

    walk(tree.data, ())
    return out[:_MOST]


def _env(value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return {str(key): str(one) for key, one in value.items() if one is not None}
    out = {}
    for one in value if isinstance(value, list) else []:
        if isinstance(one, dict) and "name" in one and one.get("value") is not None:
            out[str(one["name"])] = str(one["value"])
        elif isinstance(one, str) and "=" in one:
            out[one.partition("=")[0]] = one.partition("=")[2]
    return out


def quoted(word: str) -> str:
    return re.sub(r"\$\((\w+)\)", r"'\"${\1}\"'", shlex.quote(word)) if "$(" in word else shlex.quote(word)
