"""A plan as a scenario file: what it says, what is guessed, and what no key expresses."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import yaml

from cmsim.errors import InputError, Problem
from cmsim.hardware import load_system
from cmsim.launch.model_file import config, known_name
from cmsim.launch.plan import LaunchPlan
from cmsim.launch.spec_keys import SpecKeys
from cmsim.launch.vocabulary import data, plain

#: what stands for a system that nobody named
NO_SYSTEM = "SYSTEM"


@dataclass
class Written:
    """Texts of a scenario and, where the model is not a built-in one, of its file."""

    scenario: str
    model: str | None
    notes: list[str]
    workload: dict[str, Any] = field(default_factory=dict)


def scenario_of(plan: LaunchPlan, *, system: str | None, model_name: str) -> Written:
    """The scenario of a plan.

    system: a name instead of the one that the file's words mean    model_name: of the file to put the model's sizes in

    InputError: the plan has problems, or a system is unknown.
    """
    if plan.problems:
        raise InputError(plan.problems)
    notes: list[str] = []
    workload = _workload(plan, notes)
    model = known_name(plan)
    text = None
    if model is None:
        made, said = config(plan)
        notes += said
        if made is None:
            workload["model"] = None
        else:
            workload["model"] = model_name
            about = {"source": f"dimensions of {plan.files[0]}, a launch file of {plan.tool}"}
            text = json.dumps({"_cmsim": about, **made}, indent=2) + "\n"
    else:
        workload["model"] = model
        if not (plan.model_dims or {}).get("layers"):
            notes.append(f"the model is guessed from its name, {plan.model}")
    name = system or plan.system_name or NO_SYSTEM
    entry: dict[str, Any] = {"system": name}
    if name == NO_SYSTEM:
        where = f" ({plan.system})" if plan.system else ""
        notes.append(f"no built-in system is named{where}; fill in one of `cmsim list systems`")
    else:
        if system is None:
            notes.append(f"the system is read from: {plan.system}")
        entry |= _places(plan, name, workload, notes)
    ordered = {key: workload[key] for key in _ORDER if key in workload}
    head = _head(plan, notes)
    body = {"name": _title(plan), "systems": [entry], "workload": {**ordered, **workload}}
    return Written(head + _text(body), text, notes, workload)


_ORDER = (
    "kind",
    "model",
    "ranks",
    "sequence_length",
    "global_batch",
    "micro_batch",
    "parallel",
    "schedule",
    "precision",
)


def _title(plan: LaunchPlan) -> str:
    what = plan.model_guess or plan.model or "training"
    return f"{what}, from {plan.files[0]} ({plan.tool})"


def _places(plan: LaunchPlan, name: str, workload: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """How many domains of the system, and how many of their ranks."""
    world = plan.accelerators_used
    if not world:
        notes.append("the file does not say how many accelerators; all of the system are used")
        return {}
    each = load_system(name).ranks
    domains = -(-world // each)
    if world != domains * each:
        workload["ranks"] = world
    return {"domains": domains} if domains > 1 else {}


def _workload(plan: LaunchPlan, notes: list[str]) -> dict[str, Any]:
    keys = SpecKeys()
    out: dict[str, Any] = {"kind": "training", "sequence_length": plan.seq_len, "global_batch": plan.global_batch}
    for key, value in (("sequence_length", plan.seq_len), ("global_batch", plan.global_batch)):
        if value is None:
            notes.append(f"the file does not say {key}; fill it in")
    if plan.micro_batch:
        out["micro_batch"] = plan.micro_batch
    out["parallel"] = _parallel(plan, keys, notes)
    _schedule(plan, keys, out, notes)
    out["precision"] = _precision(plan, keys, notes)
    _recompute(plan, keys, out, notes)
    _sharding(plan, keys, out)
    _switches(plan, keys, out, notes)
    if plan.capacity_factor is not None:
        _put(keys, out, "capacity_factor", plan.capacity_factor, notes)
    if plan.lora:
        targets = [one for one in plan.lora["targets"] if one in keys.of_list("lora", "targets")]
        _put(keys, out, "lora", {"rank": plan.lora["rank"], **({"targets": targets} if targets else {})}, notes)
    mtp = (plan.model_dims or {}).get("mtp_layers")
    if mtp and keys.has("mtp_layers"):
        out["mtp_layers"] = mtp
    return out


def _sharding(plan: LaunchPlan, keys: SpecKeys, out: dict[str, Any]) -> None:
    if plan.zero is None:
        return
    out["zero_stage"] = plan.zero
    if not keys.has("fsdp"):
        return
    fsdp = plan.fsdp or {}
    replicate = int(fsdp.get("replicate", 1))
    if "reshard_after_forward" in fsdp and plan.zero == 2 and keys.has("reshard_after_forward"):
        # gathered once a step and kept: sharded weights that are not let go after forward
        out |= {"zero_stage": 3, "reshard_after_forward": False}
    if out["zero_stage"] == 3:
        out["fsdp"] = "hybrid" if replicate > 1 else "full"
        if replicate > 1 and keys.has("fsdp_shards"):
            out["fsdp_shards"] = int(fsdp["shard"]) * (plan.cp or 1)


def _put(keys: SpecKeys, out: dict[str, Any], key: str, value: Any, notes: list[str]) -> None:
    if keys.has(key):
        out[key] = value
    else:
        notes.append(f"not expressed, for there is no such key yet: {key} {value}")


def _parallel(plan: LaunchPlan, keys: SpecKeys, notes: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key in ("tp", "cp", "pp", "dp", "ep"):
        value = getattr(plan, key)
        if value is not None and (value > 1 or key == "dp"):
            out[key] = value
    for key, value in (("virtual_stages", plan.virtual_stages), ("expert_tp", plan.expert_tp)):
        if value is None or (key == "virtual_stages" and value == 1) or (key == "expert_tp" and not (plan.ep or 0)):
            continue
        if key == "virtual_stages" and data("scenario")["schedules"].get(plan.schedule) in ("zb_v", "dualpipe"):
            continue  # two by nature
        if keys.has("parallel", key):
            out[key] = value
        elif value > 1:
            notes.append(f"not expressed, for there is no such key yet: parallel.{key} {value}")
    if plan.sequence_parallel is not None:
        out["sequence_parallel"] = plan.sequence_parallel
    pieces = _pieces(plan)
    if pieces and keys.has("parallel", "stage_layers"):
        out["stage_layers"] = pieces
    elif pieces:
        notes.append(f"not expressed, for there is no such key yet: parallel.stage_layers {pieces}")
    if (plan.cp or 1) > 1 and keys.has("parallel", "cp_comm_type"):
        table = data("scenario")["cp_comm"]
        own = next(iter(table)) if plan.tool in data("scenario")["own_order"] else None
        if (named := table.get(plan.details.get("cp_comm") or own)) is not None:
            out["cp_comm_type"] = named
        near = str(plan.details.get("cp_a2a") or "")
        if named == "a2a+p2p" and near.isdecimal() and keys.has("parallel", "cp_a2a"):
            out["cp_a2a"] = int(near)
    return out


def _pieces(plan: LaunchPlan) -> list[int] | None:
    """Layers of every (virtual) stage in the order of the model, where they are not as equal as can be."""
    pp, virtual = plan.pp or 1, plan.virtual_stages or 1
    if plan.details.get("pieces"):
        return list(plan.details["pieces"])
    dims = plan.model_dims or {}
    layers, padded = dims.get("layers"), dims.get("layers_padded")
    if isinstance(plan.stage_layers, list):
        return list(plan.stage_layers) if virtual == 1 else None
    if isinstance(plan.stage_layers, dict) and layers and virtual == 1:
        first, last = plan.stage_layers.get("first"), plan.stage_layers.get("last")
        inner = pp - (first is not None) - (last is not None)
        left = layers - (first or 0) - (last or 0)
        if inner > 0 and left % inner == 0:
            return [
                *([first] if first is not None else []),
                *[left // inner] * inner,
                *([last] if last is not None else []),
            ]
    count = pp * virtual
    if padded and padded % count == 0 and count > 1:
        each, absent = padded // count, set(plan.details.get("absent", ()))
        return [sum(n not in absent for n in range(piece * each, (piece + 1) * each)) for piece in range(count)]
    counted = plan.details.get("counted") or [False, False]
    if layers and any(counted) and count > 1 and (layers + sum(counted)) % count == 0:
        out = [(layers + sum(counted)) // count] * count
        out[0] -= counted[0]
        out[-1] -= counted[1]
        return out
    return None


def _schedule(plan: LaunchPlan, keys: SpecKeys, out: dict[str, Any], notes: list[str]) -> None:
    if plan.schedule in (None, "none") or (plan.pp or 1) == 1:
        return
    named = data("scenario")["schedules"].get(plan.schedule)
    if named in keys.words("schedule"):
        out["schedule"] = named
        if plan.schedule in data("scenario")["nearest"]:
            notes.append(f"the schedule {plan.schedule} is played as {data('scenario')['nearest'][plan.schedule]}")
    elif named != "1f1b":
        notes.append(f"not expressed: the schedule {plan.schedule}; it is played as 1F1B")


def _precision(plan: LaunchPlan, keys: SpecKeys, notes: list[str]) -> dict[str, Any]:
    table = data("scenario")
    named = table["formats"].get(plan.precision or "", None)
    if named is None:
        notes.append(f"the file does not say the number format ({plan.precision}); bf16 is taken")
        named = "bf16"
    out = {"weights": named, "activations": named}
    recipe = "nvfp4" if plan.precision == "nvfp4" else table["recipes"].get((plan.fp8 or {}).get("recipe", ""))
    if recipe and keys.has("precision", "recipe"):
        # weights as they are gathered: in 16 bits, unless a flag says else
        narrow = any(plain(name) in table["narrow_gathering"] for name in plan.unread)
        out = {"recipe": recipe, "weights": named if narrow else "bf16", "activations": named}
    elif plan.fp8:
        notes.append(f"not expressed: scaling {plan.fp8.get('recipe')} of fp8")
    if _flag(plan, "gradients_bf16"):
        out["gradients"] = "bf16"
    return out


def _recompute(plan: LaunchPlan, keys: SpecKeys, out: dict[str, Any], notes: list[str]) -> None:
    if plan.recompute is None:
        notes.append("the file does not say what is recomputed; nothing is taken to be")
        out["recompute"] = "none"
        return
    if isinstance(plan.recompute, str):
        out["recompute"] = plan.recompute
        return
    granularity, modules = plan.recompute["granularity"], plan.recompute.get("modules")
    known = keys.of_list("recompute")
    if granularity == "selective" and modules and (known or modules != ["core_attn"]):
        if kept := [module for module in modules if module in known]:
            out["recompute"] = kept
            if others := [module for module in modules if module not in known]:
                notes.append(f"not expressed: that {', '.join(others)} is recomputed")
            return
        notes.append(f"not expressed: which modules are recomputed ({', '.join(modules)}); selective is taken")
    if granularity == "full" and plan.recompute.get("method") == "block":
        notes.append(
            f"not expressed: only {plan.recompute.get('num_layers')} layers of each (virtual) stage are recomputed; "
            "all are taken"
        )
    out["recompute"] = granularity if granularity in ("selective", "full") else "selective"


def _switches(plan: LaunchPlan, keys: SpecKeys, out: dict[str, Any], notes: list[str]) -> None:
    if plan.from_recipe is None and plan.tool not in ("torchtitan", "mindformers") and (plan.dp or 1) > 1:
        out["overlap_data_parallel"] = _flag(plan, "overlap_data_parallel")
    if plan.ep and _flag(plan, "overlap_experts"):
        if out.get("schedule", "1f1b") in data("scenario")["beside"]:
            out["overlap_experts"] = True
        else:
            notes.append(f"not expressed: a forward beside a backward in the schedule {out['schedule']}")
    if (plan.tp or 1) > 1 and plan.sequence_parallel:
        if _flag(plan, "tp_overlap"):
            _put(keys, out, "tp_overlap", "pipelined", notes)
        elif "bulk" in keys.words("tp_overlap") and plan.tool in data("scenario")["own_order"]:
            out["tp_overlap"] = "bulk"  # gradients of inputs are scattered beside gradients of weights
    if plan.ep and _flag(plan, "balanced"):
        out["balance"] = {"model": "balanced"}
    offload: dict[str, Any] = {}
    options = plan.zero_options or {}
    if (plan.offload or {}).get("optimizer") or options.get("offload_optimizer") or _flag(plan, "offload_optimizer"):
        offload["optimizer"] = True
    moved = (plan.offload or {}).get("activations")
    layers = (plan.model_dims or {}).get("layers")
    if isinstance(moved, int) and not isinstance(moved, bool) and layers:  # so many layers of a stage
        offload["activations"] = round(min(moved * (plan.pp or 1) / layers, 1.0), 4)
    elif moved or _flag(plan, "offload_activations"):
        offload["activations"] = True
    if offload:
        _put(keys, out, "offload", offload, notes)


def _flag(plan: LaunchPlan, key: str) -> bool:
    """Whether one of the unread flags is one that this key stands for."""
    names = {plain(name) for name in plan.unread}
    return any(name in names for name in data("scenario")["switches"][key])


def _head(plan: LaunchPlan, notes: list[str]) -> str:
    lines = [f"Written by `cmsim new --from {plan.files[0]}`: {plan.tool}, {plan.tool_version_basis}."]
    lines += [f"{note[:1].upper()}{note[1:]}." for note in notes]
    if plan.assume:
        lines.append(f"Assumed: {plan.assume}.")
    if plan.defaults:
        said = ", ".join(f"{key} {value}" for key, value in plan.defaults.items())
        lines.append(f"Defaults of the tool, not said by the file: {said}.")
    if plan.from_recipe:
        lines.append(f"Left to a recipe that is not here: {', '.join(plan.from_recipe)}.")
    if plan.unread:
        lines.append(f"Touches performance and is not read as a plan: {', '.join(plan.unread)}.")
    if plan.deprecated:
        lines.append(f"Old spellings: {', '.join(plan.deprecated)}.")
    if plan.unknown:
        lines.append(f"Unknown to the tool: {', '.join(plan.unknown)}.")
    lines += [f"{one[:1].upper()}{one[1:]}." for one in plan.warn]
    return "".join(f"# {' '.join(line.rstrip('.').split())}.\n" for line in lines)


def _text(body: dict[str, Any]) -> str:
    """YAML, a key a line; what lies deeper stands in one line."""
    out = [f"name: {inline(body['name'])}\n", "systems:\n"]
    out += [f"  - {inline(entry)}\n" for entry in body["systems"]]
    out.append("workload:\n")
    out += [f"  {key}: {inline(value)}\n" for key, value in body["workload"].items()]
    return "".join(out)


def inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def problem(message: str, plan: LaunchPlan) -> InputError:
    return InputError(Problem(message, plan.file))
