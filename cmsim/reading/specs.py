"""Specs: what a file may say, and every complaint about it with file, line and key."""

from __future__ import annotations

import threading
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.reading.documents import Document, Path_, dotted

#: ends a message about a value that the file does not have
SET_OVER = " (set over the file)"

_BUILDING = threading.Lock()

SpecT = TypeVar("SpecT", bound="Spec")


class Spec(BaseModel):
    """Base of everything read from a file: frozen, and unknown keys are refused.

    Checks of a spec are built when a file of it is read: a run reads a few kinds of the many there are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class FitNote(Spec):
    """How a group of constants was fitted, and what the fit leaves. Errors are absolute, of rows not fitted. [%]"""

    what: str
    rows: str = Field(description="which measured rows, and how many")
    count: int
    median_pct: float = Field(description="held-out rows: median absolute error")
    p90_pct: float = Field(description="held-out rows: 90th percentile")
    held_out: str = Field(description="how rows were held out")


def validate(spec: type[SpecT], document: Document, *, data: Any = None, at: Path_ = ()) -> SpecT:
    """Build ``spec`` from a document (or the part of it at ``at``), turning every complaint into file, line, key.

    ``data`` replaces the document's own data where overrides were applied; ``at`` is where it stands.
    """
    if data is None:
        data = _value_at(document.data, at)
    if not spec.__pydantic_complete__:
        with _BUILDING:  # two threads that build one spec at once could meet it half built
            spec.model_rebuild()
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
        return _Complaint(path, message, overridden=overridden)
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
