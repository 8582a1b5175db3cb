"""YAML with the line of every key, so that an error names its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cmsim.errors import InputError, Problem

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """YAML 1.1 without dates: ``2026-11-01`` is text here, as it is in JSON and for whoever wrote it."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }


_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")

Path_ = tuple[str | int, ...]


class Document:
    """A YAML file's data with the line of every key, so that errors can name the place."""

    def __init__(self, data: Any, lines: Mapping[Path_, int], file: str, text: str):
        self.data = data
        self.lines = dict(lines)
        self.file = file
        self.text = text

    def line(self, path: Path_) -> int | None:
        """Line of a key, or of the nearest enclosing key that has one."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def problem(self, path: Path_, message: str) -> Problem:
        return Problem(message, self.file, self.line(path), dotted(path))


def dotted(path: Path_) -> str:
    """``("links", 0, "GBps")`` as ``links[0].GBps``.

    >>> dotted(("links", 0, "GBps"))
    'links[0].GBps'
    """
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else (f".{part}" if out else part)
    return out


def read_yaml(path: Path) -> Document:
    """Read one YAML mapping with positions. Raises InputError for a missing, unreadable or malformed file."""
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """A whole text file. Raises InputError for one that is missing, unreadable or no text."""
    try:
        return path.read_text(encoding="utf-8-sig")  # editors on Windows put a byte order mark first
    except OSError as error:
        raise InputError(Problem(f"cannot be read ({error.strerror or error})", str(path))) from None
    except UnicodeDecodeError as error:
        raise InputError(Problem(f"is not UTF-8 text (byte {error.start})", str(path))) from None


def parse_yaml(text: str, file: str) -> Document:
    """Parse YAML text; ``file`` only names it in errors. Duplicate keys are refused."""
    problems: list[Problem] = []
    lines: dict[Path_, int] = {}
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = None if node is None else _build(loader, node, (), lines, problems, file, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
        raise InputError(Problem(f"not valid YAML: {what}", file, mark.line + 1 if mark else None)) from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(data, dict) and not problems:
        got = "nothing" if data is None else "a list" if isinstance(data, list) else repr(data)
        problems.append(Problem(f"expected a mapping of keys to values, got {got}", file, 1))
    if problems:
        raise InputError(problems)
    return Document(data, lines, file, text)


def _build(
    loader: Any,
    node: Any,
    path: Path_,
    lines: dict[Path_, int],
    problems: list[Problem],
    file: str,
    inside: tuple[int, ...],
) -> Any:
    """Data of a node; ``inside`` holds the nodes around it, to refuse an alias of one of them."""
    line = node.start_mark.line + 1
    lines.setdefault(path, line)
    if id(node) in inside:
        problems.append(Problem("the alias contains itself", file, lines[path], dotted(path)))
        return None
    inside = (*inside, id(node))
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
        problems.append(Problem(f"the tag '{node.tag}' is not read", file, line, dotted(path)))
    if isinstance(node, yaml.MappingNode):
        out: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            here_line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                problems.append(Problem("'<<' is not read; write the keys out", file, here_line, dotted(path)))
                continue
            key = _scalar(loader, key_node, problems, file, path)
            if isinstance(key, bool) or not isinstance(key, str | int):
                got = key_node.value if isinstance(key_node, yaml.ScalarNode) else key
                message = f"a key must be text or a whole number, got {got!r}"
                if isinstance(key, bool):
                    message += " (put it in quotes: YAML reads it as true or false)"
                problems.append(Problem(message, file, here_line, dotted(path)))
                continue
            here = (*path, key)
            if key in out:
                message = f"the key stands twice (first on line {lines[here]})"
                problems.append(Problem(message, file, here_line, dotted(here)))
                continue
            lines[here] = here_line
            out[key] = _build(loader, value_node, here, lines, problems, file, inside)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, item, (*path, i), lines, problems, file, inside) for i, item in enumerate(node.value)]
    return _scalar(loader, node, problems, file, path)


def _scalar(loader: Any, node: Any, problems: list[Problem], file: str, path: Path_) -> Any:
    try:
        value = loader.construct_object(node, deep=True)
    except ValueError as error:  # a value that looks like a number and is none
        problems.append(Problem(f"not valid YAML: {error}", file, node.start_mark.line + 1, dotted(path)))
        return None
    if node.id == "scalar" and not node.style:  # plain: the C loader says '', the Python loader None
        text: str = node.value
        if isinstance(value, str) and text[:1] in "+-.0123456789":
            # YAML 1.1 reads 1e9 as text; people mean the number.
            try:
                return float(text)
            except ValueError:
                return value
        if ":" in text and isinstance(value, int | float):
            return text  # YAML 1.1 reads 8:30 as 510, in base 60; nobody means it
    return value
