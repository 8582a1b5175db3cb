"""``cmsim list``: what is built in."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmsim.cli import complete, say
from cmsim.cli.app import app
from cmsim.cli.run import Json
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.numbers import count

if TYPE_CHECKING:
    from cmsim.reading.formats import Importer

#: kinds that `cmsim show` knows -> (folder, files); asked in this order
FOLDERS = {
    "system": ("topologies", "*.yaml"),
    "accelerator": ("topologies/accelerators", "*.yaml"),
    "stack": ("topologies/stacks", "*.yaml"),
    "failures": ("topologies/failures", "*.yaml"),
    "price": ("topologies/costs", "*.yaml"),
    "region": ("topologies/regions", "*.yaml"),
    "model": ("workloads/models", "*.json"),
    "denoiser": ("workloads/denoisers", "*.json"),
}

#: columns that have no room in a table; --json has them, and `cmsim show`
_APART = ("aliases", "stacks", "algorithms")

Rows = list[dict[str, Any]]


@app.command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND", help="What to list; default: all, in short.", autocompletion=lambda: list(KINDS)
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List what is built in: systems, stacks, failures, prices, regions, models, scenarios, traces, and more."""
    if kind is not None and kind not in KINDS:
        near = {**{name: name for name in KINDS}, **SAME}
        if kind not in near:
            raise InputError(Problem(f"no such kind. {did_you_mean(kind, KINDS)}", key=kind))
        kind = near[kind]
    found = {name: make() for name, make in KINDS.items() if kind in (None, name)}
    if json:
        say.document(found)
        return
    tables = []
    for name, rows in found.items():
        if kind is None:  # one line each
            rows = [{"name": row["name"], "description": row["description"]} for row in rows]
        heads = [head for head in rows[0] if head not in _APART] if rows else ["name"]
        words = [j for j, head in enumerate(heads) if not isinstance(rows[0][head], int | float)] if rows else []
        cells = [[_cell(row[head]) for head in heads] for row in rows]
        tables.append(say.table([head.replace("_", " ") for head in heads], cells, title=name, left=words, whole=(0,)))
    say.show(*tables)


def systems() -> Rows:
    return [
        {
            "name": name,
            "accelerators": data["accelerators"] * data.get("domains", 1),
            "of": data["accelerator"],
            "fabric": data["scale_up"]["wiring"],
            "stacks": [data["stack"], *data.get("stacks", [])],
            "description": data["description"] + _without_sources(data),
            "aliases": data.get("aliases", []),
        }
        for name, data in _yaml("system")
    ]


def accelerators() -> Rows:
    return [
        {
            "name": name,
            "bf16_TFLOPps": data["peak_TFLOPps"].get("bf16", data["peak_TFLOPps"].get("fp16", 0.0)),
            "memory_GB": data["memory_GB"],
            "memory_GBps": data["memory_GBps"],
            "max_W": data["power"]["max_W"],
            "description": data["description"] + _without_sources(data),
            "aliases": data.get("aliases", []),
        }
        for name, data in _yaml("accelerator")
    ]


def stacks() -> Rows:
    from cmsim.hardware import load_stack

    return [
        {
            "name": name,
            "launch": load_stack(name).host.launch,
            "description": data["description"],
            "aliases": data.get("aliases", []),
        }
        for name, data in _yaml("stack")
    ]


def failures() -> Rows:
    return [
        {
            "name": name,
            "causes": list(data["causes"]),
            "description": data["description"],
            "aliases": data.get("aliases", []),
        }
        for name, data in _yaml("failures")
    ]


def prices() -> Rows:
    return [
        {
            "name": name,
            "accelerators": len(data["accelerators"]),
            "currencies": ", ".join(data["currencies"]),
            "description": data["description"],
            "aliases": data.get("aliases", []),
        }
        for name, data in _yaml("price")
    ]


def regions() -> Rows:
    return [
        {
            "name": name,
            "electricity_per_kWh": f"{data['electricity_per_kWh']:g} {data['currency']}",
            "carbon_g_per_kWh": data["carbon_g_per_kWh"],
            "description": data["description"],
            "aliases": data.get("aliases", []),
        }
        for name, data in _yaml("region")
    ]


def models() -> Rows:
    from cmsim.workload.model import load_model

    rows = []
    for name in complete.builtin(*FOLDERS["model"][:1], pattern=FOLDERS["model"][1]):
        model = load_model(name)
        experts = f"{model.experts} experts, {model.top_k} a token" if model.is_moe else "dense"
        rows.append(
            {
                "name": name,
                "parameters": model.total_parameters,
                "active": model.active_parameters,
                "layers": model.layers,
                "attention": model.attention,
                "description": f"{model.family}, {experts}",
            }
        )
    return rows


def denoisers() -> Rows:
    from cmsim.workload.denoiser import load_denoiser

    return [
        {
            "name": name,
            "parameters": model.parameters,
            "layers": model.layers,
            "description": f"{model.family}, {'video' if model.frames > 1 else 'images'}",
        }
        for name in complete.builtin(*FOLDERS["denoiser"][:1], pattern=FOLDERS["denoiser"][1])
        for model in [load_denoiser(name)]
    ]


def scenarios() -> Rows:
    from cmsim.reading import builtin_files, read_yaml

    rows = []
    for name, path in builtin_files("scenarios").items():
        data = read_yaml(path).data
        workloads = data.get("workloads") or {"": data.get("workload") or {}}
        kinds = list(dict.fromkeys(str(one.get("kind", "")) for one in workloads.values() if isinstance(one, dict)))
        entries = [entry if isinstance(entry, str) else entry.get("system", "") for entry in data.get("systems") or []]
        rows.append(
            {"name": name, "kinds": kinds, "systems": list(dict.fromkeys(entries)), "description": data.get("name", "")}
        )
    return rows


def traces() -> Rows:
    from cmsim.reading import builtin_tree

    return [
        {
            "name": name,
            "files": sum(path.is_file() for path in trace.rglob("*")) if trace.is_dir() else 1,
            "description": f"{trace.parent.name} trace",
        }
        for name, trace in builtin_tree("workloads/traces").items()
    ]


def formats() -> Rows:
    from cmsim import jobs, requests, traces

    return [
        {"name": name, "of": kind, "description": _about(module)}
        for kind, known in (("runs", traces.IMPORTERS), ("requests", requests.IMPORTERS), ("jobs", jobs.IMPORTERS))
        for name, importer in known.items()
        for module in [inspect.getmodule(_reader(importer))]
    ]


def _reader(importer: Importer[Any]) -> Any:
    return importlib.import_module(importer.module).open_ if importer.module else importer.open_


def _about(module: Any) -> str:
    """First sentence of a module's docstring."""
    return " ".join(inspect.cleandoc(module.__doc__ or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".")


def collectives() -> Rows:
    from cmsim.collectives import CANDIDATES, COLLECTIVES

    rows = []
    for name, group in zip(COLLECTIVES, CANDIDATES, strict=True):
        names = list(dict.fromkeys(one.name for one in group))
        flat = [one for one in names if "(" not in one]
        pairs = len(names) - len(flat)
        said = ", ".join(flat) + (f", {pairs} hierarchical (in the domain, between domains)" if pairs else "")
        rows.append({"name": name, "description": said, "algorithms": names})
    return rows


def workloads() -> Rows:
    from cmsim import kinds

    return [
        {
            "name": kind.name,
            "needs": [name for name, field in kind.spec.model_fields.items() if field.is_required() and name != "kind"],
            "description": inspect.cleandoc(kind.spec.__doc__ or "").split("\n")[0],
        }
        for kind in kinds.every()
    ]


#: what can be listed
KINDS: dict[str, Callable[[], Rows]] = {
    "systems": systems,
    "accelerators": accelerators,
    "stacks": stacks,
    "failures": failures,
    "prices": prices,
    "regions": regions,
    "models": models,
    "denoisers": denoisers,
    "scenarios": scenarios,
    "traces": traces,
    "formats": formats,
    "collectives": collectives,
    "workloads": workloads,
}
#: other words for them
SAME = {"algorithms": "collectives", **{name.removesuffix("s"): name for name in KINDS}}


def _yaml(kind: str) -> list[tuple[str, dict[str, Any]]]:
    from cmsim.reading import builtin_files, read_yaml

    return [(name, read_yaml(path).data) for name, path in builtin_files(*FOLDERS[kind]).items()]


def _without_sources(data: dict[str, Any]) -> str:
    """What is said of a file whose numbers come from nowhere."""
    return "" if data.get("sources") else " (NO SOURCES)"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int | float):
        return f"{value / 1e9:,.1f} G" if value >= 1e9 else count(value)
    return str(value)
