"""``cmsim trace``: what a file of ours or of other tools holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cmsim.cli import say
from cmsim.cli.app import app
from cmsim.cli.run import Json
from cmsim.errors import InputError

trace = typer.Typer(no_args_is_help=True, help="Models and traces as other tools write them.")
app.add_typer(trace, name="trace")

#: operators shown; all stand in --json
_SHOWN = 20


@trace.command()
def info(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="ONNX, MindIR, a config.json, or a built-in model's name.")
    ],
    dim: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SIZE", help="Size of a dimension that the file leaves open. May be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Operators by type, parameters, FLOPs, bytes, and what cmsim does not know."""
    sizes = _sizes(dim or [])
    found = [_describe(name, sizes) for name in files]
    if json:
        say.document(found[0] if len(found) == 1 else found)
        return
    for number, one in enumerate(found):
        if number:
            print()
        _print(one)


def _sizes(pairs: list[str]) -> dict[str, int]:
    sizes = {}
    for pair in pairs:
        name, _, size = pair.rpartition("=")
        if not name or not size.isdigit() or int(size) < 1:
            raise InputError(f"--dim: expected NAME=SIZE with a whole number of at least 1, got '{pair}'")
        sizes[name] = int(size)
    return sizes


def _describe(name: str, sizes: dict[str, int]) -> dict[str, Any]:
    from cmsim.workload.graph_load import find_model, load_any, model_format
    from cmsim.workload.graph_work import graph_info
    from cmsim.workload.model import ModelSpec, load_model

    path = find_model(name)
    note = ""
    if model_format(path) == "config" and not sizes and _reads_text(path):
        sizes = {"sequence": load_model(path).max_positions}
        note = f"counted for {sizes['sequence']} tokens, all that fit; --dim sequence=... for another number"
    found = load_any(path, sizes=sizes)
    if isinstance(found, ModelSpec):
        return _decoder(found, path)
    out = {"file": str(path), "kind": "graph", **graph_info(found)}
    if note:
        out["notes"] = [*out["notes"], note]
    return out


def _reads_text(path: Path) -> bool:
    """Whether a config is of an encoder of texts, whose length it leaves open."""
    from cmsim import files
    from cmsim.errors import CmsimError
    from cmsim.workload.model import parse_model

    try:
        model = parse_model(files.read_text(path), name=path.stem, file=str(path))
    except CmsimError:
        return False  # whoever reads it next says what is wrong
    return model.encoder and not model.patch_inputs


def _decoder(model: Any, path: Path) -> dict[str, Any]:
    """Of a decoder FLOPs are per token: the products of one forward pass, attention apart."""
    return {
        "file": str(path),
        "kind": "decoder",
        "name": model.name,
        "format": "config",
        "family": model.family,
        "layers": model.layers,
        "parameters": model.total_parameters,
        "active_parameters": model.active_parameters,
        "parameters_by_part": model.parameters,
        "flops_per_token": 2.0 * model.matmul_parameters,
        "training_flops_per_token_at_4096": model.training_flops_per_token(4096),
        "weight_bytes": 2.0 * model.total_parameters,
        "kv_bytes_per_token": model.kv_bytes_per_token(2.0),
        "notes": [model.window_note] if model.window_note else [],
    }


def _print(one: dict[str, Any]) -> None:
    from cmsim.cli.numbers import count, prefixed

    facts: dict[str, str] = {"format": one["format"]}
    for key in ("family", "producer", "ir_version", "opset"):
        if one.get(key):
            facts[key.replace("_", " ")] = f"{one[key]:g}" if isinstance(one[key], float) else str(one[key])
    if one["kind"] == "decoder":
        facts |= {
            "layers": str(one["layers"]),
            "parameters": count(float(one["parameters"])),
            "active for a token": count(float(one["active_parameters"])),
            **{f"  {part}": count(float(n)) for part, n in one["parameters_by_part"].items() if n},
            "FLOPs a token": f"{prefixed(one['flops_per_token'], 'FLOP')} without attention, forward",
            "FLOPs a token, training": f"{prefixed(one['training_flops_per_token_at_4096'], 'FLOP')} at 4,096 tokens",
            "weights": f"{prefixed(one['weight_bytes'], 'B')} in 16 bits",
            "cache a token": f"{prefixed(one['kv_bytes_per_token'], 'B')} in 16 bits",
        }
        say.show(one["name"], say.table(["", ""], list(facts.items()), left=(0, 1), bare=True), *one["notes"])
        return
    shapes = [f"{name} {'x'.join(map(str, dims)) if dims is not None else '?'}" for name, dims in one["inputs"]]
    facts |= {
        "inputs": ", ".join(shapes),
        "nodes": f"{one['nodes']:,}",
        "parameters": f"{one['parameters']:,} ({one['trainable_parameters']:,} of them trained)",
        "constants": f"{one['constant_elements']:,} elements",
        "FLOPs": f"{prefixed(one['flops'], 'FLOP')}, of which products {prefixed(one['matrix_flops'], 'FLOP')}",
        "weights": prefixed(one["weight_bytes"], "B"),
        "activations": f"{prefixed(one['activation_bytes'], 'B')} written, all operators",
        "traffic": f"{prefixed(one['traffic_bytes'], 'B')}, every operand once, nothing fused",
    }
    rows = [
        [
            row["op"],
            f"{row['count']:,}",
            prefixed(row["flops"], "FLOP"),
            prefixed(row["bytes"], "B"),
            row["kernel"] or "-",
        ]
        for row in one["by_op"]
    ]
    more = [f"... and {len(rows) - _SHOWN} more operators (--json has all)"] if len(rows) > _SHOWN else []
    said = [f"note: {note}" for note in one["notes"]]
    if one["unknown_ops"]:
        listed = ", ".join(f"{name} ({n})" for name, n in one["unknown_ops"].items())
        said.append(f"unknown operators, counted by their operands alone: {listed}")
    if one["nodes_without_shape"]:
        said.append(f"{one['nodes_without_shape']:,} nodes have operands of unknown shape: they cost too little here")
    say.show(
        one["name"],
        say.table(["", ""], list(facts.items()), left=(0, 1), bare=True),
        say.table(["operator", "nodes", "FLOPs", "bytes", "kernel"], rows[:_SHOWN], left=(0, 4)),
        *more,
        *said,
    )
