"""Reading what users write: built-in files by name, YAML with line numbers, specs that refuse unknown keys."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cmsim.errors import InputError, Problem, did_you_mean, nearest

_PACKAGE = Path(__file__).parent
#: ``topologies/``, ``workloads/`` and ``scenarios/``: beside the package in a checkout, inside it in a wheel
DATA = _PACKAGE / "data" if (_PACKAGE / "data").is_dir() else _PACKAGE.parent

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """YAML 1.1 without dates: ``2026-11-01`` is text here, as it is in JSON and for whoever wrote it."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }


#: ends a message about a value that the file does not have
SET_OVER = " (set over the file)"
_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")

SpecT = TypeVar("SpecT", bound="Spec")
Path_ = tuple[str | int, ...]


class Spec(BaseModel):
    """Base of everything read from a file: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FitNote(Spec):
    """How a group of constants was fitted, and what the fit leaves. Errors are absolute, of rows not fitted. [%]"""

    what: str
    rows: str = Field(description="which measured rows, and how many")
    count: int
    median_pct: float = Field(description="held-out rows: median absolute error")
    p90_pct: float = Field(description="held-out rows: 90th percentile")
    held_out: str = Field(description="how rows were held out")


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


def validate(spec: type[SpecT], document: Document, *, data: Any = None, at: Path_ = ()) -> SpecT:
    """Build ``spec`` from a document (or the part of it at ``at``), turning every complaint into file, line, key.

    ``data`` replaces the document's own data where overrides were applied; ``at`` is where it stands.
    """
    if data is None:
        data = _value_at(document.data, at)
    try:
        return spec.model_validate(data)
    except ValidationError as error:
        found = [_explain(spec, document, at, data, dict(detail)) for detail in error.errors(include_url=False)]
    raise InputError(_tidy(document, found))


#: pydantic's words for a wrong value, and ours
_WORDS = {
    "Input should be ": "must be ",
    "a valid integer": "a whole number",
    "a valid tuple": "a list",
    "a valid string": "text",
    "a valid boolean": "true or false",
    "a valid ": "a ",
}


@dataclass(frozen=True)
class _Complaint:
    path: Path_
    message: str
    #: about the kind of value; says nothing new where something below the same place was also found wrong
    of_type: bool = False
    shown: str = ""
    overridden: bool = False


def _explain(spec: type[BaseModel], document: Document, at: Path_, data: Any, detail: dict[str, Any]) -> _Complaint:
    loc, kind, got, ctx = detail["loc"], detail["type"], detail.get("input"), detail.get("ctx", {})
    inner = _present(data, loc)
    path = (*at, *inner)
    shown = "" if isinstance(got, dict) else ", got a list" if isinstance(got, list | tuple) else f", got {got!r}"
    # A value that is not the file's own came from --set, a sweep or a scenario: the file's line would mislead.
    overridden = bool(inner) and _differs(_value_at(document.data, path), _value_at(data, inner))
    if kind == "extra_forbidden":
        hint = did_you_mean(str(loc[-1]), _fields_at(spec, loc[:-1]))
        return _Complaint(path, f"unknown key '{loc[-1]}'. {hint}", overridden=overridden)
    if kind == "missing":
        return _Complaint((*path, loc[-1]), "the key is required")
    if kind == "union_tag_not_found":
        return _Complaint((*path, ctx["discriminator"].strip("'")), "the key is required")
    if kind == "union_tag_invalid":
        tag = ctx["discriminator"].strip("'")
        overridden = _differs(_value_at(document.data, (*path, tag)), _value_at(data, (*inner, tag)))
        hint = did_you_mean(str(ctx["tag"]), _quoted(ctx["expected_tags"]))
        return _Complaint((*path, tag), f"got '{ctx['tag']}'. {hint}", overridden=overridden)
    if kind in ("literal_error", "enum"):
        expected = _quoted(ctx["expected"])
        if isinstance(got, str | int | float):
            return _Complaint(path, f"got {got!r}. {did_you_mean(str(got), expected)}", overridden=overridden)
        return _Complaint(path, f"must be one of {', '.join(expected)}", True, shown, overridden)
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if kind in ("value_error", "assertion_error"):
        # A check over several keys names the one to mend: "accelerators: 7 does not fill nodes of 8".
        key, colon, rest = message.partition(": ")
        named = tuple(key.split("."))
        if colon and _present(data, (*inner, *named)) == (*inner, *named):
            return _Complaint((*path, *named), rest)
        return _Complaint(path, message)
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return _Complaint(path, "must be a mapping of keys to values", True, shown, overridden)
    message = message.split(", unable to parse")[0].split(", got a number")[0]
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    return _Complaint(path, message[:1].lower() + message[1:], kind.endswith("_type"), shown, overridden)


def _tidy(document: Document, found: list[_Complaint]) -> list[Problem]:
    """In file order; what the members of a union say about one place becomes one problem."""
    problems: list[Problem] = []
    kinds: dict[Path_, list[_Complaint]] = {}
    for one in found:
        below = any(len(other.path) > len(one.path) and other.path[: len(one.path)] == one.path for other in found)
        if one.of_type and not below:
            kinds.setdefault(one.path, []).append(one)
        elif not one.of_type:
            problems.append(_problem(document, one, one.message + one.shown))
    for group in kinds.values():
        first, *others = [one.message for one in group]
        message = " or ".join([first, *dict.fromkeys(other.removeprefix("must be ") for other in others)])
        problems.append(_problem(document, group[0], message + group[0].shown))
    unique = list(dict.fromkeys(problems))
    return sorted(unique, key=lambda problem: problem.line if problem.line is not None else len(document.text) + 1)


def _problem(document: Document, one: _Complaint, message: str) -> Problem:
    if one.overridden:
        return Problem(message + SET_OVER, document.file, None, dotted(one.path))
    return document.problem(one.path, message)


def _present(data: Any, loc: tuple[Any, ...]) -> Path_:
    """The part of a pydantic location that names keys of the data (union tags and the like dropped)."""
    path: Path_ = ()
    here = data
    for part in loc:
        if (isinstance(here, Mapping) and part in here) or (
            isinstance(here, list | tuple) and isinstance(part, int) and part < len(here)
        ):
            path, here = (*path, part), here[part]
    return path


def _value_at(data: Any, path: Path_) -> Any:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _differs(one: Any, other: Any) -> bool:
    return one is not other and bool(one != other)  # not a number is not equal to itself


def _quoted(expected: str) -> list[str]:
    """``"'a', 'b' or 'c'"`` as names."""
    return [part.strip(" '") for part in expected.replace(" or ", ",").split(",")]


def _fields_at(spec: Any, loc: tuple[Any, ...]) -> list[str]:
    """Keys allowed at a place in a nested spec."""
    options: list[Any] = [spec]
    for part in loc:
        holders = [option for option in options if part in option.model_fields]
        if holders:
            options = [leaf for option in holders for leaf in _flatten(option.model_fields[part].annotation)]
        else:  # an index, a key of a mapping, or the tag of a union, which is a class's name or a literal in it
            options = [option for option in options if part in _tags(option)] or options
    return sorted({field.alias or name for option in options for name, field in option.model_fields.items()})


def _tags(option: Any) -> set[Any]:
    literals = {value for field in option.model_fields.values() for value in typing.get_args(field.annotation)}
    return {option.__name__, *(value for value in literals if isinstance(value, str))}


def _flatten(annotation: Any) -> list[Any]:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType, list, tuple, dict, typing.Annotated):
        return [leaf for arg in typing.get_args(annotation) for leaf in _flatten(arg)]
    return [annotation] if isinstance(annotation, type) and issubclass(annotation, BaseModel) else []


def parts_of(key: str) -> list[str]:
    """Names of a dotted key.

    >>> parts_of("systems[0].set.host.pue")
    ['systems', '0', 'set', 'host', 'pue']
    """
    return re.sub(r"\[(\d+)\]", r".\1", key).split(".")


def set_dotted(data: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Set ``a.b.0.c`` (or ``a.b[0].c``) in nested data, in place.

    Mappings on the way are made where they are absent, for a file leaves out what has a default; a misspelt
    one is found when the data is validated. Raises InputError where the way leads through a value or past
    the end of a list.

    >>> data = {"links": [{"GBps": 50}]}
    >>> set_dotted(data, "links[0].GBps", 100, where="--set")
    >>> set_dotted(data, "host.pue", 1.1, where="--set")
    >>> data
    {'links': [{'GBps': 100}], 'host': {'pue': 1.1}}
    """
    parts = parts_of(key)
    if not all(parts):
        raise InputError(Problem("a key has names joined by dots, none of them empty", where, key=key))
    here: Any = data
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if isinstance(here, list):
            if not part.isdigit() or int(part) >= len(here):
                raise InputError(Problem(f"no entry '{part}' in a list of {len(here)}", where, key=key))
            step: Any = int(part)
        elif isinstance(here, dict):
            step = int(part) if part not in here and part.isdigit() and int(part) in here else part
            if not last and here.get(step) is None:
                here[step] = {}
        else:
            raise InputError(Problem(f"'{'.'.join(parts[:i])}' is {here!r} and has no keys below it", where, key=key))
        if last:
            here[step] = value
        else:
            here = here[step]


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


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A file that is about to be written: its folder is made. InputError where either cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
    except OSError as error:
        raise InputError(Problem(f"cannot be written ({error.strerror or error})", str(path))) from None


def write_text(path: Path, text: str) -> None:
    """A text file, in a folder that need not be there yet. InputError where it cannot be written."""
    with written(path):
        path.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write into that takes the place of ``folder`` when all is written, and leaves no trace if not.

    InputError: the place cannot be written.
    """
    mine = f"{os.getpid()}.{threading.get_ident()}"
    beside, old = (folder.with_name(f".{folder.name}.{mine}.{which}") for which in ("new", "old"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        yield beside
        if folder.exists():
            folder.rename(old)
        try:
            beside.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    except OSError as error:
        raise InputError(Problem(f"cannot be written ({error.strerror or error})", str(folder))) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)


def builtin_files(folder: str, pattern: str = "*.yaml") -> dict[str, Path]:
    """Built-in files of a folder by name (file name without ending), sorted."""
    return {path.name.removesuffix(pattern.lstrip("*")): path for path in sorted((DATA / folder).glob(pattern))}


def find(name: str, folder: str, what: str, *, pattern: str = "*.yaml", base: Path | None = None) -> Path:
    """A user's path (relative to ``base``, or to the working folder) or a built-in file's name.

    A bare name is a built-in one first, so that a file of the same name in the working folder changes nothing.
    Raises InputError with the nearest built-in name.
    """
    files = builtin_files(folder, pattern)
    looks_like_path = name.endswith(pattern.lstrip("*")) or "/" in name or "\\" in name
    if name in files and not looks_like_path:
        return files[name]
    for root in ([base] if base else []) + [Path.cwd()] + ([DATA] if looks_like_path else []):
        path = root / name
        if path.is_file() if not looks_like_path else path.exists():
            return path
    if looks_like_path:
        near = nearest(Path(name).name.removesuffix(pattern.lstrip("*")), files)
        hint = f". Built in is '{near}'" if near else ""
        raise InputError(f"no such {what} file: {name}{hint}")
    raise InputError(f"no {what} named '{name}'. {did_you_mean(name, files)}")
