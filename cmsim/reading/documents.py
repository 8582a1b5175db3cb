"""YAML with the line of every key, so that an error names its place."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cmsim.errors import InputError, Problem
from cmsim.reading import regular

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """YAML 1.1 without dates: ``2026-11-01`` is text here, as it is in JSON and for whoever wrote it."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }


_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = (f"{_TAG}map", f"{_TAG}seq")
_SCALAR_TAGS = tuple(f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "str", "value", "merge"))
#: size of a text that is read as YAML [B]; what people write has a thousandth of it
TEXT_LIMIT_B = 2 * 2**20
#: values of a document, those of an alias counted wherever it stands, and how deep they lie
_MOST, _DEEPEST = 200_000, 60
#: whole numbers are held in 64 bits
_WHOLE = 2**64

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
    return parse_yaml(read_text(path, limit_B=TEXT_LIMIT_B), str(path))


def read_shared(path: Path) -> Document:
    """As `read_yaml`, but a text is parsed once: systems share files, and are loaded for run after run.

    Nobody may change what it holds.
    """
    return _parsed(read_text(path, limit_B=TEXT_LIMIT_B), str(path))


@functools.lru_cache(maxsize=64)
def _parsed(text: str, file: str) -> Document:
    return parse_yaml(text, file)


def read_text(path: Path, *, limit_B: int = 2**28) -> str:
    """A whole text file. Raises InputError for one that is missing, unreadable, larger than ``limit_B`` or no text."""
    try:
        return regular.content(path, limit_B).decode("utf-8-sig")  # editors on Windows put a byte order mark first
    except UnicodeDecodeError as error:
        raise InputError(Problem(f"is not UTF-8 text (byte {error.start})", str(path))) from None


def parse_json(text: str, file: str) -> Any:
    """Parse a JSON text; ``file`` only names it in errors. Raises InputError with the line where it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise InputError(Problem(f"not valid JSON: {what} (column {error.colno})", file, error.lineno)) from None
    except ValueError:  # a number of more digits than the machine turns into one
        raise InputError(Problem("not valid JSON: holds a number of thousands of digits", file)) from None
    except RecursionError:
        raise InputError(Problem("not valid JSON: values lie too deep in each other", file)) from None


def parse_yaml(text: str, file: str) -> Document:
    """Parse YAML text; ``file`` only names it in errors. Duplicate keys are refused, and what is too large or deep."""
    if len(text) > TEXT_LIMIT_B:
        raise InputError(Problem(f"has {len(text)} characters of YAML; allowed: up to {TEXT_LIMIT_B}", file))
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
    except UnicodeEncodeError as error:
        raise InputError(Problem(f"is not UTF-8 text (character {error.start})", file)) from None
    except RecursionError:
        raise InputError(Problem(f"values lie too deep in each other; allowed: {_DEEPEST} levels", file)) from None
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
    if len(path) > _DEEPEST:
        raise InputError(Problem(f"values lie too deep in each other; allowed: {_DEEPEST} levels", file, line))
    if len(lines) > _MOST:
        raise InputError(Problem(f"holds more than {_MOST} values, those of aliases counted wherever they stand", file))
    if node.tag not in (_SCALAR_TAGS if isinstance(node, yaml.ScalarNode) else _PLAIN_TAGS):
        problems.append(Problem(f"the tag '{node.tag}' is not read", file, line, dotted(path)))
        return None
    if isinstance(node, yaml.MappingNode):
        out: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            here_line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                problems.append(Problem("'<<' is not read; write the keys out", file, here_line, dotted(path)))
                continue
            known = len(problems)
            plain = isinstance(key_node, yaml.ScalarNode)
            key = _scalar(loader, key_node, problems, file, path) if plain else None
            if len(problems) > known:
                continue
            if isinstance(key, bool) or not isinstance(key, str | int):
                sort = "a list" if isinstance(key_node, yaml.SequenceNode) else "a mapping"
                message = f"a key must be text or a whole number, got {repr(key_node.value) if plain else sort}"
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


#: tags of YAML in words
_SAID = {"int": "a whole number", "float": "a number", "bool": "true or false"}


def _scalar(loader: Any, node: Any, problems: list[Problem], file: str, path: Path_) -> Any:
    try:
        value = loader.construct_object(node, deep=True)
    except (ValueError, LookupError, AttributeError):  # a value that looks like a number, or is said to be, and is none
        got = str(node.value)[:40]
        what = node.tag.removeprefix(_TAG)
        message = f"not valid YAML: {got!r} is not {_SAID.get(what, what)}"
        problems.append(Problem(message, file, node.start_mark.line + 1, dotted(path)))
        return None
    if isinstance(value, int) and abs(value) >= _WHOLE:
        message = f"got a whole number of {value.bit_length()} bits; allowed: 64"
        problems.append(Problem(message, file, node.start_mark.line + 1, dotted(path)))
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
