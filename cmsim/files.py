"""Reading what users write: built-in files by name, YAML with line numbers, specs that refuse unknown keys."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cmsim.errors import InputError, Problem, did_you_mean

_PACKAGE = Path(__file__).parent
#: ``topologies/``, ``workloads/`` and ``scenarios/``: beside the package in a checkout, inside it in a wheel
DATA = _PACKAGE / "data" if (_PACKAGE / "data").is_dir() else _PACKAGE.parent

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

SpecT = TypeVar("SpecT", bound="Spec")
Path_ = tuple[str | int, ...]


class Spec(BaseModel):
    """Base of everything read from a file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(Problem(f"cannot be read ({error.strerror or error})", str(path))) from None
    except UnicodeDecodeError as error:
        raise InputError(Problem(f"is not UTF-8 text (byte {error.start})", str(path))) from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, file: str) -> Document:
    """Parse YAML text; ``file`` only names it in errors. Duplicate keys are refused."""
    loader = _Loader(text)
    problems: list[Problem] = []
    lines: dict[Path_, int] = {}
    try:
        node = loader.get_single_node()
        data = None if node is None else _build(loader, node, (), lines, problems, file)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error)
        raise InputError(Problem(f"not valid YAML: {what}", file, mark.line + 1 if mark else None)) from None
    finally:
        loader.dispose()
    if not isinstance(data, dict) and not problems:
        got = "nothing" if data is None else type(data).__name__
        problems.append(Problem(f"expected a mapping of keys to values, got {got}", file, 1))
    if problems:
        raise InputError(problems)
    return Document(data, lines, file, text)


def _build(loader: Any, node: Any, path: Path_, lines: dict[Path_, int], problems: list[Problem], file: str) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        out: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            here = (*path, key)
            if not isinstance(key, str | int):
                problems.append(
                    Problem(f"a key must be text or a whole number, got {key!r}", file, key_node.start_mark.line + 1)
                )
                continue
            if key in out:
                problems.append(Problem("the key stands twice", file, key_node.start_mark.line + 1, dotted(here)))
            lines[here] = key_node.start_mark.line + 1
            out[key] = _build(loader, value_node, here, lines, problems, file)
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, item, (*path, i), lines, problems, file) for i, item in enumerate(node.value)]
    value = loader.construct_object(node, deep=True)
    if isinstance(value, str) and node.style is None:
        # YAML 1.1 reads 1e9 as text; people mean the number.
        try:
            number = float(value)
        except ValueError:
            return value
        return number if value[0] in "+-.0123456789" else value
    return value


def validate(spec: type[SpecT], document: Document, *, data: Any = None, at: Path_ = ()) -> SpecT:
    """Build ``spec`` from a document (or a part of it), turning every complaint into file, line, key.

    ``data`` replaces the document's own data where overrides were applied; ``at`` is where it stands.
    """
    try:
        return spec.model_validate(document.data if data is None else data)
    except ValidationError as error:
        raise InputError([_explain(spec, document, at, detail) for detail in error.errors()]) from None


def _explain(spec: type[BaseModel], document: Document, at: Path_, detail: Any) -> Problem:
    loc = tuple(part for part in detail["loc"])
    path = (*at, *_present(document, at, loc))
    kind, got = detail["type"], detail.get("input")
    if kind == "extra_forbidden":
        allowed = _fields_at(spec, loc[:-1])
        return document.problem(path, f"unknown key '{loc[-1]}'. {did_you_mean(str(loc[-1]), allowed)}")
    if kind == "missing":
        parent = document.problem(path, "")
        return Problem(f"the key '{loc[-1]}' is required", parent.file, parent.line, dotted((*at, *loc)))
    if kind in ("literal_error", "enum"):
        allowed = [part.strip(" '") for part in str(detail["ctx"]["expected"]).replace(" or ", ",").split(",")]
        return document.problem(path, f"got {got!r}. {did_you_mean(str(got), allowed)}")
    message = detail["msg"]
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    shown = "" if isinstance(got, dict | list) or kind == "value_error" else f", got {got!r}"
    return document.problem(path, message[:1].lower() + message[1:] + shown)


def _present(document: Document, at: Path_, loc: tuple[Any, ...]) -> Path_:
    """The part of a pydantic location that names keys of the file (union tags and the like dropped)."""
    path: Path_ = ()
    for part in loc:
        if (*at, *path, part) in document.lines:
            path = (*path, part)
        elif part is loc[-1] and isinstance(part, str | int):
            path = (*path, part)
    return path


def _fields_at(spec: Any, loc: tuple[Any, ...]) -> list[str]:
    """Keys allowed at a place in a nested spec."""
    options: list[Any] = [spec]
    for part in loc:
        following: list[Any] = []
        for option in options:
            fields = getattr(option, "model_fields", None)
            if fields and part in fields:
                following += _flatten(fields[part].annotation)
            elif not fields or part not in (fields or {}):
                following.append(option)
        options = following or options
    names = {name for option in options for name in (getattr(option, "model_fields", None) or {})}
    return sorted(names)


def _flatten(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, list, tuple, dict, typing.Annotated):
        return [leaf for arg in typing.get_args(annotation) for leaf in _flatten(arg)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def set_dotted(data: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Set ``a.b.0.c`` in nested data, in place; the parent must exist. Raises InputError with the nearest name."""
    parts = key.split(".")
    here: Any = data
    for i, part in enumerate(parts[:-1]):
        if isinstance(here, list) and part.isdigit() and int(part) < len(here):
            here = here[int(part)]
        elif isinstance(here, dict) and part in here:
            here = here[part]
        elif isinstance(here, dict):
            here = here.setdefault(part, {})
        else:
            raise InputError(Problem(f"no such key '{'.'.join(parts[: i + 1])}'", where, key=key))
        if not isinstance(here, dict | list):
            raise InputError(Problem(f"'{'.'.join(parts[: i + 1])}' has no keys below it", where, key=key))
    last = parts[-1]
    if isinstance(here, list):
        if not last.isdigit() or int(last) >= len(here):
            raise InputError(Problem(f"no entry '{last}' in a list of {len(here)}", where, key=key))
        here[int(last)] = value
    else:
        here[last] = value


def merge(base: Any, over: Any) -> Any:
    """``over`` laid on ``base``: mappings merge key by key, everything else is replaced. Neither is changed.

    >>> merge({"a": 1, "b": {"c": 2}}, {"b": {"d": 3}})
    {'a': 1, 'b': {'c': 2, 'd': 3}}
    """
    if isinstance(base, dict) and isinstance(over, dict):
        out = dict(base)
        for key, value in over.items():
            out[key] = merge(base[key], value) if key in base else value
        return out
    return over


def builtin_files(folder: str, pattern: str = "*.yaml") -> dict[str, Path]:
    """Built-in files of a folder by name (file name without ending), sorted."""
    return {path.name.removesuffix(pattern.lstrip("*")): path for path in sorted((DATA / folder).glob(pattern))}


def find(name: str, folder: str, what: str, *, pattern: str = "*.yaml", base: Path | None = None) -> Path:
    """A user's path (relative to ``base``, or to the working folder) or a built-in file's name.

    Raises InputError with the nearest built-in name.
    """
    ending = pattern.lstrip("*")
    if name.endswith(ending) or "/" in name:
        for root in ([base] if base else []) + [Path.cwd()]:
            if (root / name).exists():
                return root / name
        built_in = DATA / name
        if built_in.exists():
            return built_in
        raise InputError(f"no such {what} file: {name}")
    files = builtin_files(folder, pattern)
    if name in files:
        return files[name]
    raise InputError(f"no {what} named '{name}'. {did_you_mean(name, files)}")


def nearest(name: str, allowed: typing.Iterable[str]) -> str | None:
    """The closest of the allowed names, or None."""
    found = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.5)
    return found[0] if found else None
