"""YAML, TOML and JSON of other people's tools, with the line of every key."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from cmsim.errors import InputError, Problem

#: values of a file, those of an alias counted wherever it stands, and how deep they lie
_MOST, _DEEPEST = 50_000, 40


@dataclass(frozen=True)
class Tree:
    """Keys and values; ``line`` tells where a key stands, or None."""

    data: Mapping[str, Any]
    line: Callable[[tuple[str | int, ...]], int | None]
    comments: Mapping[int, str]


def read_tree(text: str, file: str, *, kind: str) -> Tree:
    """A file's settings. InputError with a line where it is none of its kind, or no mapping."""
    if kind == "toml":
        return _toml(text, file)
    if kind == "json":
        return _json(text, file)
    return _yaml(text, file)


def _comments(text: str) -> dict[int, str]:
    """What stands behind # in a line, outside of quotes."""
    out = {}
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"""(?:[^'"#]|'[^']*'|"[^"]*")*?(?:^|\s)#(.*)""", line[:2_000]):
            out[number] = found[1].strip()
    return out


def _toml(text: str, file: str) -> Tree:
    try:
        loaded = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        message = f"is not valid TOML: {str(error).partition(' (at ')[0]}"
        raise InputError(Problem(message, file, int(found[1]) if found else None)) from None
    except RecursionError:
        raise InputError(Problem("is not valid TOML: values lie too deep in each other", file)) from None
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\s*\[+([^\]]+)\]+", line):
            section = re.sub(r"[\s\"']", "", found[1]) + "."
            lines.setdefault(section[:-1], number)
        elif found := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            lines.setdefault(section + re.sub(r"[\"']", "", found[1]), number)
    return Tree(loaded, lambda path: lines.get(".".join(map(str, path))), _comments(text))


def _json(text: str, file: str) -> Tree:
    try:
        loaded = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            Problem(f"is not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}", file, error.lineno)
        ) from None
    except (ValueError, RecursionError):
        raise InputError(Problem("is not valid JSON: too deep, or a number too long", file)) from None
    if not isinstance(loaded, dict):
        raise InputError(Problem("expected keys and values", file, 1))
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for found in re.finditer(r'"((?:[^"\\]|\\.)*)"\s*:', line):
            lines.setdefault(found[1], number)
    return Tree(loaded, lambda path: lines.get(str(path[-1])) if path else None, {})


class _Plain(yaml.SafeLoader):
    """YAML 1.1 without dates."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Builder:
    def __init__(self, loader: _Plain, file: str):
        self.loader = loader
        self.file = file
        self.lines: dict[tuple[str | int, ...], int] = {}
        self.count = 0

    def of(self, node: yaml.Node, path: tuple[str | int, ...]) -> Any:
        self.count += 1
        line = node.start_mark.line + 1
        if self.count > _MOST or len(path) > _DEEPEST:
            raise InputError(
                Problem(f"holds more than {_MOST} values, or lies deeper than {_DEEPEST}", self.file, line)
            )
        self.lines.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.of(one, (*path, n)) for n, one in enumerate(node.value)]
        try:
            value = self.loader.construct_object(node, deep=True) if node.tag.startswith("tag:yaml.org") else node.value
        except (ValueError, yaml.YAMLError, OverflowError):
            return str(node.value)
        if (
            isinstance(value, str)
            and not getattr(node, "style", None)
            and re.fullmatch(r"[-+]?\d[\d_]*(\.\d*)?[eE][-+]?\d+", value)
        ):
            return float(value.replace("_", ""))
        if isinstance(value, int) and not isinstance(value, bool) and ":" in node.value:
            return str(node.value)
        return value

    def _mapping(self, node: yaml.MappingNode, path: tuple[str | int, ...]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            if key == "<<":
                made = self.of(value_node, (*path, "<<"))
                for one in made if isinstance(made, list) else [made]:
                    merged = {**(one if isinstance(one, dict) else {}), **merged}
                continue
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            out[key] = self.of(value_node, (*path, key))
        return {**merged, **out}


def _yaml(text: str, file: str) -> Tree:
    documents = []
    try:
        loader = _Plain(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                documents += [node] if node is not None else []
                if len(documents) > 200:
                    raise InputError(Problem("holds more than 200 documents", file))
            builder = _Builder(loader, file)
            trees = [builder.of(node, () if not n else (f"--- {n}",)) for n, node in enumerate(documents)]
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(Problem(f"is not valid YAML: {what}", file, mark.line + 1 if mark else None)) from None
    except RecursionError:
        raise InputError(Problem("is not valid YAML: values lie too deep in each other", file)) from None
    trees = [tree for tree in trees if isinstance(tree, dict)]
    if not trees:
        raise InputError(Problem("expected keys and values", file, 1))
    whole = trees[0] if len(trees) == 1 else {**trees[0], **{f"--- {n}": tree for n, tree in enumerate(trees) if n}}
    return Tree(whole, builder.lines.get, _comments(text))
