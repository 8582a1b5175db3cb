"""``cmsim schema``: what files may say, printed from the models that read them."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import typer

from cmsim.cli import say
from cmsim.cli.app import app
from cmsim.errors import InputError, Problem, did_you_mean

KINDS = ("scenario", "system", "accelerator", "stack", "failures", "price", "region")

_HEAD = """\
# Reference: scenario and system files

Made by `cmsim schema` (`make docs`) from the models that read the files; do not edit. Unknown keys are refused.
`cmsim schema --json` prints the same as JSON Schema, for completion in editors.
"""


@app.command()
def schema(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help=f"Only {', '.join(KINDS)}.", autocompletion=lambda: list(KINDS))
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON Schema instead of Markdown.")] = False,
) -> None:
    """Print the reference of scenario, system, accelerator and stack files."""
    if kind is not None and kind not in KINDS:
        raise InputError(Problem(f"no such kind of file. {did_you_mean(kind, KINDS)}", key=kind))
    if json:
        found = json_schemas()
        say.document(found if kind is None else found[kind])
    else:
        print(markdown(KINDS if kind is None else (kind,)), end="")


def markdown(kinds: tuple[str, ...] = KINDS) -> str:
    """The reference, a section per file and per model in it."""
    parts = [_HEAD]
    seen: set[type] = set()
    for kind in kinds:
        title, models = _files()[kind]
        parts.append(f"## {title}\n")
        for model in models:
            parts += _sections(model, seen)
        if kind == "scenario":
            parts += [*_best(models), *_measured()]
    return "\n".join(parts).rstrip() + "\n"


def json_schemas() -> dict[str, Any]:
    """JSON Schema of each kind of file."""
    out = {}
    for kind in KINDS:
        models = _files()[kind][1]
        document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **models[0].model_json_schema()}
        if kind == "scenario":
            _with_workloads(document, models[1:])
        out[kind] = document
    return out


def _files() -> dict[str, tuple[str, list[Any]]]:
    """Title and models of each kind of file, the whole file's first."""
    from cmsim import kinds
    from cmsim.cost import BookSpec, RegionSpec
    from cmsim.hardware import AcceleratorSpec, StackSpec, SystemSpec
    from cmsim.reliability.causes import FailuresSpec
    from cmsim.scenario import ScenarioSpec

    return {
        "scenario": ("Scenario files", [ScenarioSpec, *(kind.spec for kind in kinds.every())]),
        "system": ("System files (`topologies/`)", [SystemSpec]),
        "accelerator": ("Accelerator files (`topologies/accelerators/`)", [AcceleratorSpec]),
        "stack": ("Stack files (`topologies/stacks/`)", [StackSpec]),
        "failures": ("Files of failures (`topologies/failures/`)", [FailuresSpec]),
        "price": ("Files of prices (`topologies/costs/`)", [BookSpec]),
        "region": ("Regions (`topologies/regions/`)", [RegionSpec]),
    }


def _with_workloads(document: dict[str, Any], models: list[Any]) -> None:
    """Workloads are read in a second step, per system and sweep point; an editor wants them with the rest."""
    from cmsim import kinds

    listed = {kind.spec: kind.listed for kind in kinds.every()}
    names = []
    for model in models:
        own = model.model_json_schema(ref_template="#/$defs/{model}")
        document["$defs"].update(own.pop("$defs", {}))
        own["properties"]["per_system"] = {
            "type": "object",
            "additionalProperties": {"type": "object"},
            "description": "by system: keys of the workload to change there",
        }
        if listed[model]:
            one = own["properties"][listed[model]]
            number = {key: one.pop(key) for key in [*one] if key not in ("title", "description", "default")}
            one["anyOf"] = [number, {"type": "array", "items": number}]
        document["$defs"][model.__name__] = own
        names.append({"$ref": f"#/$defs/{model.__name__}"})
    _with_best(document, models)
    document["properties"]["workloads"]["additionalProperties"] = {"anyOf": names}
    document["properties"]["workload"] = {"anyOf": names, "description": "short form of `workloads` for one"}
    document["required"] = [name for name in document["required"] if name != "workloads"]


def _with_best(document: dict[str, Any], models: list[Any]) -> None:
    """Any key of a workload or a system's entry may be a list of values to choose from, some the word `best` alone."""
    from cmsim.scenario import SystemEntry, words

    alone = {word.split(".")[-1] for model in (*models, SystemEntry) for word in words(model)}
    listed = {
        "type": "object",
        "properties": {"best": {"type": "array", "minItems": 1}, "of": {"type": "string"}},
        "required": ["best"],
        "additionalProperties": False,
    }
    inner = {part for model in models for field in model.model_fields.values() for part in _models(field.annotation)}
    # a kind may have the keys of another among its own
    parts = dict.fromkeys((*models, SystemEntry, *sorted(inner, key=lambda one: str(one.__name__))))
    for part in parts:
        for name, one in document["$defs"][part.__name__]["properties"].items():
            if name in ("kind", "per_system", "dims", "set"):
                continue
            kept = {key: one.pop(key) for key in [*one] if key not in ("title", "description", "default")}
            one["anyOf"] = [kept, *([{"const": "best"}] if name in alone else []), listed]


def _best(models: list[Any]) -> list[str]:
    """The section on `best`: which keys take the word, and what may decide."""
    from cmsim import kinds
    from cmsim.scenario import SystemEntry, words

    keys = dict.fromkeys(word for model in models[1:] for word in words(model))
    of_system = [f"`{word}` (of a system's entry)" for word in words(SystemEntry)]
    taken = ", ".join([*(f"`{key}`" for key in keys), *of_system])
    rows = "\n".join(
        f"| `{kind.name}` | {', '.join(f'`{name}`' for name in kind.deciding)} |" for kind in kinds.every()
    )
    return [
        "### best\n",
        "A key of a workload or of a system's entry that is left open: its values are tried for every system and sweep "
        "point, those that are not possible drop out, and of equally good ones the first is taken. Results say in "
        "`chosen` what it became.\n",
        f"* `KEY: best`, where values are few or follow from model and ranks: {taken}.",
        "* `KEY: {best: [VALUE, ...], of: METRIC}`, any key; `of` may be left out.\n",
        f"| kind | metrics that may decide, the usual one first |\n| --- | --- |\n{rows}\n",
    ]


def _measured() -> list[str]:
    """What runs of each kind leave: metrics and frames, as their pages declare them."""
    from cmsim import kinds

    kinds_of: dict[kinds.Metric, list[str]] = {}
    for kind in kinds.every():
        for metric in kind.metrics:
            kinds_of.setdefault(metric, []).append(kind.name)
    shown = ["| name | unit | better | meaning | of |", "| --- | --- | --- | --- | --- |"]
    for one, of in kinds_of.items():
        name = f"`{one.name}`{' †' if one.banded else ''}"
        its = "all" if len(of) == len(kinds.names()) else ", ".join(of)
        shown.append(f"| {name} | {_cell(one.unit)} | {one.better} | {_cell(one.text)} | {its} |")
    parts = ["### metrics\n", "\n".join(shown) + "\n"]
    parts.append("† `NAME_low` and `NAME_high` are the ends of its band, where power is one.\n")
    frames = {frame.name: frame for kind in kinds.every() for frame in kind.frames}
    for name, frame in frames.items():
        rows = [f"| `{column}` | {_cell(text)} |" for column, text in {**frame.columns, **frame.some}.items()]
        parts.append(f"### frame {name}\n")
        parts.append(f"{frame.text[:1].upper()}{frame.text[1:]}. `run` stands before these columns.\n")
        parts.append("\n".join(["| column | meaning |", "| --- | --- |", *rows]) + "\n")
    return parts


def _sections(model: Any, seen: set[type]) -> list[str]:
    """A model's section, and those of the models in it that had none yet."""
    if model in seen:
        return []
    seen.add(model)
    rows = [["key", "type", "default", "meaning"], ["---"] * 4]
    for name, field in model.model_fields.items():
        said = _cell(field.description or "")
        rows.append([f"`{field.alias or name}`", _cell(_type(field.annotation, field.metadata)), _default(field), said])
    about = inspect.cleandoc(model.__doc__ or "")
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    out = [f"### {_title(model)}\n", f"{about}\n", f"{table}\n"]
    for field in model.model_fields.values():
        for inner in _models(field.annotation):
            out += _sections(inner, seen)
    return out


def _title(model: Any) -> str:
    """A workload is known by its kind, anything else by its class: what holds a workload among others is none."""
    from cmsim import kinds

    kind = model.model_fields.get("kind")
    values = typing.get_args(kind.annotation) if kind is not None else ()
    one = kind is not None and typing.get_origin(kind.annotation) is Literal and len(values) == 1
    return f"workload of kind `{values[0]}`" if one and kinds.get(values[0]).spec is model else str(model.__name__)


def _type(annotation: Any, metadata: Any = ()) -> str:
    """A type as people write it, with its limits."""
    from cmsim import reading

    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _type(args[0], annotation.__metadata__)
    limits = _limits(metadata)
    if origin is Literal:
        return ", ".join(f"`{_yaml(value)}`" for value in args)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(arg) for arg in args if arg is not types.NoneType)) + limits
    if origin is tuple and args and args[-1] is not Ellipsis:
        return f"[{', '.join(_type(arg) for arg in args)}]"
    if origin in (tuple, list):
        return f"list of {_type(args[0])}{limits}"
    if origin is dict:
        return f"mapping of {_type(args[0])} to {_type(args[1])}"
    if inspect.isclass(annotation) and hasattr(annotation, "model_fields"):
        title = _title(annotation)
        return f"[{title.replace('`', '')}](#{title.lower().replace('`', '').replace(' ', '-')})"
    words = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any", object: "any"}
    said = words.get(annotation, str(getattr(annotation, "__name__", annotation)))
    size = next((one for one in metadata if isinstance(one, reading.Size)), None)
    return said + limits + (f", or text as `{size.example}`" if size else "")


def _limits(metadata: Any) -> str:
    """Limits of a number or a length, ", > 0"."""
    out = ""
    for one in metadata:
        if hasattr(one, "metadata"):  # a field inside Annotated keeps its limits so
            out += _limits(one.metadata)
        for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
            if getattr(one, name, None) is not None:
                out += f", {sign} {getattr(one, name):g}"
        if getattr(one, "min_length", None):
            out += f", at least {one.min_length}"
    return out


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return ""
    if hasattr(value, "model_fields_set"):
        return "its defaults"
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple | list):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    if isinstance(value, dict):
        return "{}" if not value else str(value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else '""'


def _models(annotation: Any) -> Iterator[Any]:
    """Models named in a type, in order."""
    if inspect.isclass(annotation) and hasattr(annotation, "model_fields"):
        yield annotation
    for arg in typing.get_args(annotation):
        yield from _models(arg)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
