"""``cmsim show``: everything known of a system, accelerator, stack or model, each number with its source."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app
from cmsim.cli.catalogue import FOLDERS
from cmsim.cli.run import Json
from cmsim.errors import InputError, did_you_mean
from cmsim.numbers import count, digits

if TYPE_CHECKING:
    from cmsim.reading import Document

#: keys of a file that are not numbers of the machine
_APART = ("published", "sources")


@dataclass(frozen=True)
class Number:
    """A value of a file and where it comes from: a citation, or the range in which it is assumed to lie."""

    key: str
    value: Any
    source: str = ""
    assumed: tuple[float, float] | None = None

    def document(self) -> dict[str, Any]:
        out = {"key": self.key, "value": self.value, "source": self.source}
        return out if self.assumed is None else {**out, "assumed": list(self.assumed)}

    def said(self) -> str:
        """For the table."""
        if self.assumed is None:
            return self.source or "NO SOURCE"
        low, high = self.assumed
        return f"ASSUMED{f', {low:g} to {high:g}' if low < high else ''}: {self.source}"


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A name, an alias, or a file.", autocompletion=complete.names)
    ],
    power: Annotated[
        bool, typer.Option("--power", help="Of a system: what each part draws in each state, and totals.")
    ] = False,
    json: Json = False,
) -> None:
    """Show a system or its parts, failures, prices, regions, a model: numbers with sources, beside published ones."""
    (kind, path), *others = found(name)
    if power:
        _show_power(kind, path, json=json)
        return
    document = {"system": _system, "model": _model, "denoiser": _denoiser}.get(kind, _part)(kind, path)
    if json:
        say.document(document)
        return
    if others:
        said = ", ".join(f"{kind} {path.stem}" for kind, path in others)
        say.message(f"note: '{name}' is also the name of: {said}")
    _print(document)


def _show_power(kind: str, path: Path, *, json: bool) -> None:
    from cmsim.cli import show_power
    from cmsim.hardware import load_system

    if kind != "system":
        raise InputError(f"--power: '{path.stem}' is a {kind}. Allowed: systems (cmsim list systems)")
    told = show_power.document(load_system(str(path)))
    if json:
        say.document(told)
    else:
        say.show(*show_power.tables(told))


def found(name: str) -> list[tuple[str, Path]]:
    """(kind, file) of everything of that name: names before aliases, systems before their parts.

    Raises InputError with the nearest names.
    """
    from cmsim.reading import aliases_of, builtin_files, exists

    if exists(Path(name)):
        return [(_kind_of_file(Path(name)), Path(name))]
    exact, by_alias = [], []
    known: dict[str, None] = {}
    for kind, (folder, pattern) in FOLDERS.items():
        for stem, path in builtin_files(folder, pattern).items():
            aliases = aliases_of(path) if path.suffix == ".yaml" else []
            known.update(dict.fromkeys([stem, *aliases]))
            if name == stem:
                exact.append((kind, path))
            elif name.lower() in [alias.lower() for alias in (*aliases, stem)]:
                by_alias.append((kind, path))
    if not exact + by_alias:
        raise InputError(f"no system, accelerator, stack or model named '{name}'. {did_you_mean(name, known)}")
    return exact + by_alias


def kind_of(document: Document) -> str:
    """What a YAML file describes, told by its keys."""
    keys = set(document.data)
    stack = keys & {"kernels", "host", "collectives", "overlap", "training"}
    if keys & {"systems", "workload", "workloads"} or ("extends" in keys and not stack):
        return "scenario"
    if keys & {"scale_up", "scale_out", "facility", "node"}:
        return "system"
    if stack:
        return "stack"
    if "causes" in keys:
        return "failures"
    if "currencies" in keys:
        return "price"
    if {"electricity_per_kWh", "carbon_g_per_kWh"} & keys:
        return "region"
    if keys & {"peak_TFLOPps", "memory_GBps", "vector_TFLOPps", "dies"}:
        return "accelerator"
    raise InputError(
        document.problem(
            (),
            "is neither a scenario (systems, workloads), nor a system (scale_up), accelerator (memory_GBps), stack or "
            "failures (causes), prices (currencies) or region (electricity_per_kWh)",
        )
    )


def numbers(data: Mapping[str, Any], sources: Mapping[str, Any]) -> list[Number]:
    """Every number of a file's data with the source of its key, or of the nearest key around it."""
    from cmsim.reading import dotted

    out = []
    for path, value in _leaves({key: value for key, value in data.items() if key not in _APART}):
        key = dotted(path)
        source: Any = next((sources[above] for above in _upwards(key) if above in sources), None)
        if isinstance(value, bool | str) and key not in sources:
            continue  # words need none
        if hasattr(source, "assumed"):
            out.append(Number(key, value, source.why, tuple(source.assumed)))
        else:
            out.append(Number(key, value, str(source or "")))
    return out


def unsourced(data: Mapping[str, Any], sources: Mapping[str, Any]) -> list[str]:
    """Keys of numbers that no source covers."""
    return [number.key for number in numbers(data, sources) if not number.source]


def _system(kind: str, path: Path) -> dict[str, Any]:
    from cmsim.hardware import load_system
    from cmsim.reading import dotted
    from cmsim.topology import comparison, totals

    system = load_system(str(path))
    spec, stack = system.spec, system.stack
    published: dict[str, list[dict[str, Any]]] = {}
    for row in comparison(system):
        entry = {"published": row.published, "deviation": row.deviation, "basis": row.basis, "source": row.source}
        published.setdefault(row.quantity, []).append(entry)
    # what a stack says for this accelerator lies over what it says for all, and has sources of its own
    own = f"accelerators.{system.accelerator.name}."
    over = {key.removeprefix(own): source for key, source in stack.sources.items() if key.startswith(own)}
    laid = {dotted(path) for path, _ in _leaves(stack.accelerators.get(system.accelerator.name, {}))}
    tuned = {k: v for k, v in stack.model_dump(exclude_unset=True).items() if k != "accelerators"}
    stack_numbers = [
        specific
        if general.key in laid and (specific := numbers(_only(tuned, general.key), over)[0]).source
        else general
        for general in numbers(tuned, stack.sources)
    ]
    parts = {
        f"system {spec.name}": numbers(spec.model_dump(exclude_unset=True), spec.sources),
        f"accelerator {system.accelerator.name}": numbers(
            system.accelerator.model_dump(exclude_unset=True), system.accelerator.sources
        ),
        f"stack {stack.name}": stack_numbers,
    }
    return {
        "kind": kind,
        "name": spec.name,
        "description": spec.description,
        "aliases": list(spec.aliases),
        "facts": {
            "accelerators": f"{system.packages} x {system.accelerator.name} in {spec.racks:g} racks",
            "ranks": f"{system.ranks} ({spec.rank}s)",
            "fabric": spec.scale_up.wiring,
            "stacks": ", ".join(dict.fromkeys([spec.stack, *spec.stacks])),
        },
        "totals": [
            {
                "quantity": name,
                "unit": total.unit,
                "derived": total.value,
                "derivation": total.derivation,
                "published": published.get(name, []),
            }
            for name, total in totals(system).items()
        ],
        "numbers": {title: [number.document() for number in listed] for title, listed in parts.items()},
    }


def _part(kind: str, path: Path) -> dict[str, Any]:
    from cmsim.cost import load_book, load_region
    from cmsim.hardware import load_accelerator, load_stack
    from cmsim.reliability import causes

    load: dict[str, Callable[[str], Any]] = {
        "accelerator": load_accelerator,
        "stack": load_stack,
        "failures": causes.load,
        "price": load_book,
        "region": load_region,
    }
    spec = load[kind](str(path))
    return {
        "kind": kind,
        "name": spec.name,
        "description": spec.description,
        "aliases": list(spec.aliases),
        "numbers": {
            f"{kind} {spec.name}": [
                number.document() for number in numbers(spec.model_dump(exclude_unset=True), spec.sources)
            ]
        },
    }


def _model(kind: str, path: Path) -> dict[str, Any]:
    import json

    from cmsim.workload.model import load_model

    model = load_model(path)
    said = json.loads(path.read_text(encoding="utf-8")).get("_cmsim", {})
    notes = model.said
    sizes = dict(_sizes(dataclasses.asdict(model)))
    return {
        "kind": kind,
        "name": model.name,
        "description": f"{model.family}, {model.attention} attention, {'experts' if model.is_moe else 'dense'}",
        "aliases": [],
        "facts": {key: str(value) for key, value in said.items()} | ({"notes": "; ".join(notes)} if notes else {}),
        "parameters": {
            **model.parameters,
            "total": model.total_parameters,
            "active": model.active_parameters,
        },
        "mtp_parameters": model.mtp_parameters,
        "kv_bytes_per_token": {"bf16": model.kv_bytes_per_token(2.0), "fp8": model.kv_bytes_per_token(1.0)},
        "sizes": sizes,
    }


def _denoiser(kind: str, path: Path) -> dict[str, Any]:
    import json

    from cmsim.workload.denoiser import load_denoiser

    model = load_denoiser(path)
    said = json.loads(path.read_text(encoding="utf-8")).get("_cmsim", {})
    sizes = {"parameters": model.parameters, **dict(_sizes(dataclasses.asdict(model)))}
    return {
        "kind": kind,
        "name": model.name,
        "description": f"{model.family}, a diffusion transformer of {'video' if model.frames > 1 else 'images'}",
        "aliases": [],
        "facts": {key: str(value) for key, value in (said | sizes).items() if value},
    }


def _sizes(model: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Numbers and words of a model, those of its parts under the part's name."""
    for name, value in model.items():
        if name in ("name", "family", "notes", "kinds"):
            continue
        if isinstance(value, dict):
            yield from ((f"{name}.{part}", one) for part, one in value.items())
        elif value is not None:
            yield name, value


def _print(document: dict[str, Any]) -> None:
    parts: list[Any] = [f"{document['name']} ({document['kind']}): {document['description']}"]
    facts = dict(document.get("facts", {}))
    if document["aliases"]:
        facts["aliases"] = ", ".join(document["aliases"])
    if facts:
        parts.append(say.table(["", ""], list(facts.items()), left=(0, 1), bare=True))
    if "totals" in document:
        rows = [row for total in document["totals"] for row in _total_rows(total)]
        heads = ["total", "derived", "published", "off by", "basis and source, or how it is derived"]
        parts.append(say.table(heads, rows, title="totals", left=(0, 4), whole=(0, 1, 2, 3)))
    if "parameters" in document:
        listed = {**document["parameters"], "beside these: mtp": document["mtp_parameters"]}
        rows = [[name, f"{value / 1e9:,.3f} G"] for name, value in listed.items() if value]
        parts.append(say.table(["part", "parameters"], rows, title="parameters"))
        rows = [[name, f"{value / 1024:,.1f} KiB"] for name, value in document["kv_bytes_per_token"].items()]
        parts.append(say.table(["format", "cache of a token"], rows, title="key-value cache"))
        rows = [[name, _value(value)] for name, value in document["sizes"].items() if value]
        parts.append(say.table(["size", "value"], rows, title="sizes"))
    for title, listed in document.get("numbers", {}).items():
        found = [Number(n["key"], n["value"], n["source"], _range(n)) for n in listed]
        assumed = sum(number.assumed is not None for number in found)
        rows = [[number.key, _value(number.value), number.said()] for number in found]
        bare = sum(not number.source for number in found)
        counted = f"{title}: {len(found)} numbers, {assumed} of them assumed"
        counted += f", {bare} with no source" if bare else ""
        parts.append(
            say.table(["key", "value", "source"], rows, title=counted, left=(0, 2), whole=(0, 1), marked="ASSUMED")
        )
    say.show(*parts)


def _total_rows(total: dict[str, Any]) -> Iterator[list[str]]:
    name, derived = total["quantity"], _amount(total["derived"])
    if not total["published"]:
        yield [name, derived, "", "", total["derivation"]]
    for i, entry in enumerate(total["published"]):
        off = f"{100 * entry['deviation']:+.1f} %"
        said = f"{entry['basis']}: {entry['source']}" if entry["basis"] else entry["source"]
        yield [name if not i else "", derived if not i else "", _amount(entry["published"]), off, said]


def _amount(value: float) -> str:
    # one more digit than elsewhere: published totals are told apart by it
    if 100 <= abs(value) < 1000 and value != int(value):
        return f"{value:.1f}"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else digits(value)


def _range(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    return (entry["assumed"][0], entry["assumed"][1]) if "assumed" in entry else None


def _value(value: Any) -> str:
    if isinstance(value, bool | str):
        return str(value).lower() if isinstance(value, bool) else value
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if abs(value) < 1e5 else count(value)


def _kind_of_file(path: Path) -> str:
    if path.suffix == ".json":
        from cmsim.workload.denoiser import is_denoiser

        return "denoiser" if is_denoiser(path) else "model"
    from cmsim.reading import read_yaml

    document = read_yaml(path)
    kind = kind_of(document)
    if kind not in FOLDERS:
        raise InputError(document.problem((), f"is a {kind}; `cmsim check` and `cmsim run` read those"))
    return kind


def _leaves(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    items: Any = (
        data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list | tuple) else None
    )
    if items is None:
        if data is not None:
            yield path, data
        return
    for key, value in items:
        yield from _leaves(value, (*path, key))


def _upwards(key: str) -> Iterator[str]:
    while key:
        yield key
        # of a list the source is that of all of it
        key = key.rpartition("[" if key.endswith("]") else ".")[0]


def _only(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The part of nested data that one dotted key names."""
    head, _, rest = key.partition(".")
    return {head: _only(data[head], rest) if rest else data[head]}
