"""From what a row says to a scenario: names, then what the source documents, then the keys that this program has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cmsim import reading
from cmsim.hardware import STACKS, SYSTEMS, load_system
from cmsim.kinds.parts import WorkloadSpec
from cmsim.kinds.training import TrainingSpec
from cmsim.published.case import Case, NoPlan, RowPlan
from cmsim.published.names import ModelName, RecipeRule, config_of, found, names
from cmsim.reading.kept import while_unchanged

#: keys of a config that say how many experts there are
EXPERTS = ("n_routed_experts", "num_routed_experts", "num_experts", "num_local_experts")


def build(plan: RowPlan, cells: Mapping[str, str], rules: Sequence[RecipeRule]) -> Case:
    """The scenario of a row.

    cells: the row, for patterns of rules    rules: of its form of table

    Raises NoPlan, with the reason.
    """
    known = names()
    config, model = (plan.config, dict(plan.config)) if plan.config else model_of(plan.model, plan.change)
    said = {key: value for key, value in plan.keys.items() if value is not None}
    form = found(known.formats, plan.precision, "number format")
    said.setdefault("precision.weights", form.weights)
    said.setdefault("precision.activations", form.activations)
    if form.recipe:
        said.setdefault("precision.recipe", form.recipe)
    completed: dict[str, RecipeRule] = {}
    for rule in rules:
        if not rule.left_out and rule.holds(cells):
            new = {key: value for key, value in rule.set.items() if key not in said}
            said.update(new)
            completed.update(dict.fromkeys(new, rule))
    keys = {key: value for key, value in said.items() if _bears(key, said, config)}
    there = {key: value for key, value in keys.items() if _there(key, value)}
    absent = {key: value for key, value in keys.items() if key not in there and _SILENT.get(key) != value}
    entry, of_system = _entry(plan)
    if STACK in there:
        entry[STACK] = there[STACK]
    workload = nested({"kind": "training", "model": model, **{k: v for k, v in there.items() if k != STACK}})
    return Case(
        scenario={"systems": [entry], "workload": workload},
        documented=(*completed_by(there, completed, taken=False), *of_system),
        taken=completed_by(there, completed, taken=True),
        unsaid=(*plan.unsaid, *(f"{key} {shown(value)}" for key, value in absent.items())),
        extras=tuple(key for key in there if key in _NEWER),
    )


def completed_by(keys: Mapping[str, Any], completed: Mapping[str, RecipeRule], *, taken: bool) -> tuple[str, ...]:
    """What rules completed, a text for each rule."""
    texts: dict[str, list[str]] = {}
    for key, rule in completed.items():
        if key in keys and rule.taken == taken:
            texts.setdefault(rule.why, []).append(f"{key} {shown(keys[key])}")
    return tuple(f"{', '.join(each)} ({why})" for why, each in texts.items())


#: the key of rules that says which generation of software ran: of the system, not of the workload
STACK = "stack"
#: what runs without a key do anyway
_SILENT: Mapping[str, Any] = {"schedule": "1f1b", "tp_overlap": False, "mtp_layers": 0, "fsdp": "none"}
#: keys whose range this program may not cover: a run that is refused for them is tried without, and says so
_NEWER = (
    "parallel.cp_comm_type",
    "parallel.virtual_stages",
    "schedule",
    "parallel.expert_tp",
    "fsdp",
    "tp_overlap",
    "precision.recipe",
)


def left_out(cells: Mapping[str, str], rules: Sequence[RecipeRule]) -> str:
    """Why a row is no evidence of a step, or ""."""
    return next((rule.left_out for rule in rules if rule.left_out and rule.holds(cells)), "")


def model_of(
    text: str, change: Mapping[str, Any], lines: Sequence[ModelName] | None = None
) -> tuple[Mapping[str, Any], Any]:
    """The keys of a named model's file, and the model as the scenario says it: a name, or the keys themselves.

    text: as a table spells it    change: keys to set over the file's    lines: that say what texts mean; default: ours
    """
    line = found(names().models if lines is None else lines, text, "model")
    if line.why:
        raise NoPlan(f"{text}: {line.why}")
    if line.config:
        config = {**line.config, **change}
        return config, config
    change = {**line.change, **change}
    own = config_of(line.model)
    return ({**own, **change}, {**own, **change}) if change else (own, line.model)


def _entry(plan: RowPlan) -> tuple[dict[str, Any], list[str]]:
    """The systems entry of so many accelerators, and what it follows from."""
    line = found(names().machines, plan.system, "system")
    if line.why:
        raise NoPlan(line.why)
    count, (size, ranks) = plan.accelerators, sizes_of(line.system)
    _check_ranks(plan, count * ranks)
    entry: dict[str, Any] = {"system": line.system}
    change, said = dict(line.set), list[str]()
    if count <= size:
        entry["accelerators"] = count
    else:
        if line.per_domain and count % line.per_domain == 0 and count % size:
            change["accelerators"] = line.per_domain
            said.append(f"{line.per_domain} of {size} accelerators a domain (as jobs over several domains run)")
            size = line.per_domain
        if count % size:
            raise NoPlan(f"{count} accelerators do not fill domains of {size}")
        entry["domains"] = count // size
    if change:
        entry["set"] = change
    return entry, said


@while_unchanged(SYSTEMS)
def sizes_of(system: str) -> tuple[int, int]:
    """Accelerators of a domain, and ranks of an accelerator."""
    loaded = load_system(system)
    return loaded.spec.accelerators, loaded.ranks // loaded.packages


def _check_ranks(plan: RowPlan, ranks: int) -> None:
    sizes = [plan.keys.get(f"parallel.{name}") or 1 for name in ("tp", "pp", "cp", "dp")]
    if "auto" not in sizes and "parallel.dp" in plan.keys and math.prod(sizes) != ranks:
        raise NoPlan(f"a plan of {math.prod(sizes)} ranks on {plan.accelerators} accelerators")


def _bears(key: str, said: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a key says anything of this run: experts of a mixture, stages of a pipeline, formats of 8 bits."""
    if key in ("parallel.ep", "parallel.expert_tp", "capacity_factor", "overlap_experts", "balance.model"):
        return any(name in config for name in EXPERTS)
    if key in ("parallel.virtual_stages", "schedule"):
        interleaved = (said.get("parallel.virtual_stages") or 1) > 1
        # whoever has one stage a rank does not interleave
        return said.get("parallel.pp", 1) > 1 and (interleaved or said[key] not in (1, "interleaved"))
    if key == "precision.recipe":
        return said.get("precision.weights") in ("fp8", "fp4")
    if key in ("precision.weights", "precision.activations"):
        # a recipe says them
        return not (has_key("precision.recipe") and "precision.recipe" in said and said[key] in ("fp8", "fp4"))
    if key == "parallel.cp_comm_type":
        return bool(said.get("parallel.cp", 1) > 1)
    if key == "tp_overlap":
        return bool(said.get("parallel.tp", 1) > 1)
    return True


def _there(key: str, value: Any) -> bool:
    """Whether this program has a key of a rule, or the stack that it names."""
    return value in reading.builtin_files(STACKS) if key == STACK else has_key(key)


def has_key(key: str, spec: type[WorkloadSpec] = TrainingSpec) -> bool:
    """Whether workloads of a kind have a (dotted) key."""
    at: Any = spec
    for name in key.split("."):
        fields = getattr(at, "model_fields", {})
        if name not in fields:
            return False
        at = _spec_in(fields[name].annotation)
    return True


def _spec_in(annotation: Any) -> Any:
    """The spec that an annotation is, or has among its alternatives."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((one for one in getattr(annotation, "__args__", ()) if hasattr(one, "model_fields")), None)


def nested(keys: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in keys.items():
        *path, last = key.split(".")
        at = out
        for name in path:
            at = at.setdefault(name, {})
        at[last] = value
    return out


def shown(value: Any) -> str:
    return {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)
