"""``best`` as a value: the keys that a scenario leaves open, the values each may take, and the metric that decides.

    microbatches: best                                   # a key with few values: all of them are tried
    parallel: {tp: best}                                 # a size: those that model and ranks allow
    precision: {weights: {best: [fp8, int8], of: energy_per_token_J}}     # any key, from a list

Values are tried in order, for every system and sweep point by itself; those that are not possible drop out, and of
equally good ones the first is taken.
"""

from __future__ import annotations

import copy
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

from cmsim import reading
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.kinds import Kind
from cmsim.kinds.parts import ASKED
from cmsim.scenario import sizes

WORD = "best"
#: whole numbers that are all tried
_FEW = 16
#: sizes whose values follow from model and ranks
SIZES = tuple(f"parallel.{size}" for size in ("tp", "cp", "pp", "dp", "ep"))
_FORM = "Allowed: {best: [VALUE, ...], of: METRIC}."

Path_ = tuple[str, ...]


@dataclass(frozen=True)
class Open:
    """A key that is left open.

    path      in the workload or, where ``of_system``, in the system's entry
    values    in the order in which they are tried; None: sizes that follow from model and ranks
    """

    path: Path_
    values: tuple[Any, ...] | None
    of_system: bool = False

    @property
    def key(self) -> str:
        """How results and tables call it."""
        return ".".join(("system", *self.path) if self.of_system else self.path)


@dataclass(frozen=True)
class _Found:
    """``best`` as it stands in a file: the open key, the metric named there, and where."""

    open: Open
    of: Any
    place: tuple[Any, ...]


def without(data: Mapping[str, Any]) -> dict[str, Any]:
    """A scenario's data without the keys of systems' entries that are left open: their defaults stand."""
    entries = data.get("systems")
    if not isinstance(entries, list):
        return dict(data)
    return {**data, "systems": [_closed(entry) if isinstance(entry, dict) else entry for entry in entries]}


def _closed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry without what is left open; of several systems the first."""
    out = {}
    for key, value in entry.items():
        listed = isinstance(value, dict) and WORD in value
        if listed and key == "system" and isinstance(value[WORD], list) and value[WORD]:
            out[key] = value[WORD][0]
        elif isinstance(value, dict) and not listed:
            out[key] = _closed(value)
        elif not listed and (value != WORD or key in ("name", "system", "stack")):
            out[key] = value
    return out


def take(
    document: reading.Document,
    raw: Mapping[str, Any],
    spec: type[BaseModel],
    places: Sequence[tuple[Any, ...]],
    *,
    kind: Kind,
    of_system: bool = False,
) -> tuple[dict[str, Any], tuple[Open, ...], str | None]:
    """(raw with the first value at every open key, what is open, the metric named).

    spec    the model that reads ``raw``    places: where it stands in the document, what is laid over the rest first
    kind    of the workload, which says what metrics may decide

    Raises InputError, with file, line and key, for a key without few values, an empty list, a metric that is none, a
    value that its key does not take, and for two metrics.
    """
    out = copy.deepcopy(dict(raw))
    problems: list[Problem] = []
    found = list(_walk(document, out, spec, (), places, of_system, problems))
    problems += _metric_problems(document, found, kind)
    for one in found:
        _put(out, one.open.path, one.open.values[0] if one.open.values else None)
    problems += [problem for one in found for problem in _value_problems(document, out, spec, one, places)]
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return out, tuple(one.open for one in found), next((one.of for one in found if one.of is not None), None)


def put(spec: reading.SpecT, path: Path_, value: Any) -> reading.SpecT:
    """``spec`` with a value at a key. Raises InputError where it does not go with the others."""
    data = spec.model_dump(exclude_unset=True)
    _put(data, path, value)
    return reading.validate(type(spec), reading.Document(data, {}, "", ""))


def _put(data: dict[str, Any], path: Path_, value: Any) -> None:
    """Set a key; None takes it out, so that its default stands."""
    *above, last = path
    for part in above:
        data = data.setdefault(part, {})
    if value is None:
        data.pop(last, None)
    else:
        data[last] = value


def _walk(
    document: reading.Document,
    data: Mapping[str, Any],
    spec: Any,
    path: Path_,
    places: Sequence[tuple[Any, ...]],
    of_system: bool,
    problems: list[Problem],
) -> Iterator[_Found]:
    fields = spec.model_fields if spec is not None else {}
    for name, value in data.items():
        here, field = (*path, str(name)), fields.get(name)
        if isinstance(value, dict) and WORD in value and here[0] != "dims":
            place = _place(document, places, here)
            if error := _not_a_list(value):
                problems.append(document.problem(place, error))
            elif here[-1] == "kind":
                problems.append(document.problem(place, "says what is asked: give one kind"))
            else:
                values = sizes.known(spec, (str(name),), value[WORD])
                yield _Found(Open(here, tuple(values), of_system), value.get("of"), place)
        elif isinstance(value, dict):
            inner = next(iter(_models(field.annotation)), None) if field is not None else None
            yield from _walk(document, value, inner, here, places, of_system, problems)
        elif value == WORD and field is not None and not _takes_text(field.annotation):
            place = _place(document, places, here)
            values = choices(field, here)
            if values is None and ".".join(here) not in SIZES:
                problems.append(document.problem(place, _no_choice(field)))
            else:
                yield _Found(Open(here, values, of_system), None, place)


def choices(field: Any, path: Path_) -> tuple[Any, ...] | None:
    """The values of a key that has few; None where it has many, or they follow from model and ranks."""
    if ".".join(path) in SIZES or _is_asked(field, path):
        return None
    limits = {name: getattr(one, name) for one in field.metadata for name in ("ge", "le") if hasattr(one, name)}
    values: list[Any] = []
    for kind in _kinds(field.annotation):
        if typing.get_origin(kind) is Literal:
            values += typing.get_args(kind)
        elif kind is bool:
            values += [False, True]
        elif kind is int and len(limits) == 2 and limits["le"] - limits["ge"] < _FEW:
            values += range(limits["ge"], limits["le"] + 1)
        elif kind is not types.NoneType and not (values and typing.get_origin(kind) is list):
            # words taken together are too many to try; those that stand alone are tried
            return None
    return tuple(values)


def words(spec: type[BaseModel], path: Path_ = ()) -> Iterator[str]:
    """Keys of a model, and of those in it, that take the word alone."""
    for name, field in spec.model_fields.items():
        here = (*path, name)
        inner = list(_models(field.annotation))
        if inner:
            yield from (word for model in inner for word in words(model, here))
        elif not _takes_text(field.annotation) and (".".join(here) in SIZES or choices(field, here)):
            yield ".".join(here)


def _is_asked(field: Any, path: Path_) -> bool:
    """Whether a key says what is asked, which nobody chooses for the user."""
    return path == ("kind",) or ASKED in field.metadata


def _no_choice(field: Any) -> str:
    if ASKED in field.metadata:
        return "says what is asked or assumed, not how it is done. Allowed: one of its values."
    return f"got 'best', but the key takes more values than can be tried. {_FORM}"


def _not_a_list(value: Mapping[str, Any]) -> str:
    unknown = [name for name in value if name not in (WORD, "of")]
    if unknown:
        return f"unknown key '{unknown[0]}' beside 'best'. Allowed: best, of."
    if not isinstance(value[WORD], list) or not value[WORD]:
        return f"best: expected a list of values to try, got {value[WORD]!r}. {_FORM}"
    return ""


def _metric_problems(document: reading.Document, found: Sequence[_Found], kind: Kind) -> Iterator[Problem]:
    named = [one for one in found if one.of is not None]
    for one in named:
        if one.of not in kind.deciding:
            hint = did_you_mean(str(one.of), kind.deciding, limit=40)
            yield document.problem((*one.place, "of"), f"a {kind.name} has no metric {one.of!r} to decide by. {hint}")
        elif one.of != named[0].of:
            message = f"got {one.of}, but '{named[0].open.key}' is decided by {named[0].of}. Allowed: one metric."
            yield document.problem((*one.place, "of"), message)


def _value_problems(
    document: reading.Document,
    raw: dict[str, Any],
    spec: type[BaseModel],
    one: _Found,
    places: Sequence[tuple[Any, ...]],
) -> Iterator[Problem]:
    """What is wrong with the values of one key, said at that key; what is wrong elsewhere is said by others."""
    for value in one.open.values or ():
        data = copy.deepcopy(raw)
        _put(data, one.open.path, value)
        try:
            reading.validate(spec, document, data=data, at=places[-1])  # type: ignore[type-var]
        except InputError as error:
            key = reading.dotted((*places[-1], *one.open.path))
            for problem in error.problems:
                if problem.key == key or problem.key.startswith((f"{key}.", f"{key}[")):
                    message = problem.message.removesuffix(reading.SET_OVER)
                    yield document.problem(one.place, f"best: {message}")


def _place(document: reading.Document, places: Sequence[tuple[Any, ...]], path: Path_) -> tuple[Any, ...]:
    """Where a key stands: in the first of the places that has it."""
    return next(((*at, *path) for at in places if (*at, *path) in document.lines), (*places[-1], *path))


def _kinds(annotation: Any) -> list[Any]:
    """The members of a union, whatever it is wrapped in."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return [kind for arg in typing.get_args(annotation) for kind in _kinds(arg)]
    if origin is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    return [annotation]


def _takes_text(annotation: Any) -> bool:
    return str in _kinds(annotation)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    for kind in _kinds(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield kind
