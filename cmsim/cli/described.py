"""What ``cmsim trace info`` prints of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cmsim.cli import say
from cmsim.numbers import count, prefixed
from cmsim.units import US

#: rows shown of a long table; all stand in --json
_SHOWN = 20
#: keys of counts whose values are no numbers to add up, or long
_LONG = 6


def show(one: dict[str, Any]) -> None:
    """Tables of what `cmsim.describe.describe` returned."""
    if one["kind"] in ("graph", "decoder"):
        _model(one)
        return
    parts: list[Any] = [one["file"], say.table(["", ""], _counts(one["counts"]), left=(0, 1), bare=True)]
    if "trace" in one:
        parts += _trace(one["trace"])
    notes = [f"note: {note}" for note in one.get("notes", ())]
    if "not_replayed" in one:
        notes.append(f"nothing here to replay: {one['not_replayed']}")
    say.show(*parts, *notes)


def _counts(counts: Mapping[str, Any], inside: str = "") -> list[list[str]]:
    """One line for each number; short lists and tables on one line, long ones counted."""
    rows = []
    for key, value in counts.items():
        name = f"{inside}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping) and value and any(isinstance(v, Mapping) for v in value.values()):
            if len(value) > _LONG:
                rows.append([name, f"{len(value):,} (--json has them)"])
            else:
                rows += _counts(value, f"{name}: ")
        else:
            rows.append([name, _cell(value)])
    return rows


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_cell(one)}" for key, one in value.items()) or "-"
    if isinstance(value, list | tuple):
        if len(value) > _LONG or any(isinstance(one, list | tuple | Mapping) for one in value):
            return f"{len(value):,} (--json has them)"
        return ", ".join(_cell(one) for one in value) or "-"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.10g}" if isinstance(value, float) else str(value)


def _trace(found: Mapping[str, Any]) -> list[Any]:
    facts = {
        "ranks recorded": f"{found['ranks']:,}" + (f" of {found['world_size']:,}" if found["world_size"] else ""),
        "ops": ", ".join(f"{name} {number:,}" for name, number in found["ops"].items()),
    }
    for name, key in (("recorded", "recorded_us"), ("span", "span_us"), ("critical path", "critical_path_us")):
        if found[key] is not None:
            facts[name] = _time(found[key])
    if found["steps"] and found["steps"] > 1 and found["step_us"] is not None:
        facts["recorded"] += f", {found['steps']:,} steps of {_time(found['step_us'])}"
    if found["busy_us"]:
        facts["busy, mean of a rank"] = ", ".join(f"{name} {_time(us)}" for name, us in found["busy_us"].items())
        facts["overlapped communication"] = _time(found["overlap_us"])
        facts["exposed communication"] = _time(found["exposed_us"])
    out = [say.table(["", ""], list(facts.items()), title="as a trace", left=(0, 1), bare=True)]
    moved = {**found["collectives"], **found["messages"]}
    if moved:
        rows = [
            [name, f"{one['count']:,}", prefixed(one["bytes_B"], "B"), _time(one["time_us"]) if one["time_us"] else "-"]
            for name, one in moved.items()
        ]
        out.append(say.table(["communication", "ops", "bytes", "recorded"], rows, left=(0,)))
    if found["communicators"]:
        rows = [
            [one["name"] or "(all)", "all" if one["ranks"] is None else f"{one['ranks']:,}", f"{one['ops']:,}"]
            for one in found["communicators"]
        ]
        out += _cut(["communicator", "ranks", "ops"], rows)
    if found["kernels"]:
        rows = [
            [one["name"][:60], f"{one['count']:,}", _time(one["time_us"]), f"{one['share']:.1%}"]
            for one in found["kernels"]
        ]
        out += _cut(["kernel", "calls", "time", "share"], rows)
    return out


def _cut(heads: list[str], rows: list[list[str]]) -> list[Any]:
    more = [f"... and {len(rows) - _SHOWN} more (--json has all)"] if len(rows) > _SHOWN else []
    return [say.table(heads, rows[:_SHOWN], left=(0,)), *more]


def _time(time_us: float) -> str:
    return prefixed(time_us * US, "s")


def _model(one: dict[str, Any]) -> None:
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
