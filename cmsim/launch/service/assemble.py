"""Engines and clients of one file as plans: copies, roles, cases, and the load that goes with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from cmsim.launch.service.plan import Engine, ServicePlan
from cmsim.launch.settings import Settings, unknown_problems
from cmsim.launch.vocabulary import vocabulary

#: what a role has of its own; the rest is said once where both agree
_OF_ROLE = (
    *("instances", "nodes", "tp", "pp", "dp", "attention_dp", "attention_tp", "cp", "decode_context_parallel"),
    *("ep", "expert_tp", "max_num_seqs", "max_num_seqs_per_dp_rank", "max_num_batched_tokens", "prefill_chunk"),
    *("max_prefill_tokens", "gpu_memory_fraction"),
)
#: said once where all roles have the same, else by role
_SHARED = (
    *("model", "precision", "quantization", "kv_cache_dtype", "kv_block_size", "kv_host_cache", "max_model_len"),
    *("max_input_len", "osl_limit", "prefix_caching", "chunked_prefill", "speculative", "hf_overrides"),
)
#: plan keys of one case, without what is about the file
_ABOUT = (
    *("tool", "engine", "tool_version_basis", "files", "assume", "system", "nodes", "accelerators_per_node"),
    *("accelerators_used", "max_num_seqs_scope", "max_num_batched_tokens_scope", "prefill_chunk_scope", "model_guess"),
)


def copies(engines: list[Engine]) -> list[Engine]:
    """Engines that differ, each with how many there are of it; further nodes of one are not counted again."""
    out: list[Engine] = []
    for one in engines:
        same = next((other for other in out if _alike(other, one)), None)
        if one.follows and any(_alike(other, one) for other in engines if other is not one and not other.follows):
            continue
        if same is None:
            out.append(one)
        else:
            same.instances += one.instances
            merge(same.settings, one.settings)
    return out


def _alike(one: Engine, other: Engine) -> bool:
    if one is other:
        return False
    same = (one.values, one.role, one.tool) == (other.values, other.role, other.tool)
    return same and one.name == other.name


def merge(settings: Settings, other: Settings) -> None:
    for key in ("unread", "ignored", "deprecated", "unknown"):
        getattr(settings, key).update(getattr(other, key))
    settings.notes += [one for one in other.notes if one not in settings.notes]
    settings.problems += [one for one in other.problems if one not in settings.problems]


def sets(plan: ServicePlan, settings: Settings, name: str) -> None:
    """Put a tool's flags by their sort into a plan."""
    for key in ("unread", "ignored", "deprecated", "unknown"):
        listed = getattr(plan, key)
        listed += [one for one in getattr(settings, key) if one not in listed]
    for part in [one for one in plan.unread if one.partition(".")[0] in plan.unread and "." in one]:
        plan.unread.remove(part)  # a whole section says it
    notes = [*settings.notes, *unknown_problems(settings, vocabulary(name))]
    plan.warn += [one for one in notes if one not in plan.warn]
    plan.problems += [one for one in settings.problems if one not in plan.problems]


def together(plan: ServicePlan, engine: Engine) -> None:
    """One engine that does prefill and decode."""
    plan.values |= engine.values
    plan.defaults |= engine.defaults
    plan.warn += engine.notes
    if engine.nodes:
        plan.values["nodes"] = engine.nodes
    if engine.per_node:
        plan.values["accelerators_per_node"] = engine.per_node
    plan.values["accelerators_used"] = engine.world * engine.instances
    if engine.instances > 1:
        plan.values["replicas"] = engine.instances
    plan.details["engines"] = {"": engine}


def apart(plan: ServicePlan, engines: list[Engine], *, style: str) -> None:
    """Engines of prefill and of decode.

    style: vllm, sglang, trt or srt-slurm: what of a role is said with it
    """
    roles: dict[str, Any] = {}
    by_role: dict[str, list[Engine]] = {}
    for engine in engines:
        by_role.setdefault(engine.role or "decode", []).append(engine)
    plan.details["engines"] = {role: found[0] for role, found in by_role.items()}
    every = list(engines)
    for key in _SHARED:
        found = [one.values.get(key) for one in every]
        said = [one for one in found if one is not None]
        if key == "speculative":
            on = [role for role, listed in by_role.items() if any(key in one.values for one in listed)]
            if on and len(on) < len(by_role):
                plan.values[key] = {**said[0], "on": on[0]}
                continue
        if said and all(one == said[0] for one in said) and len(said) == len(found):
            plan.values[key] = said[0]
    for role, listed in by_role.items():
        made = [_role(one, plan, style) for one in listed]
        roles[role] = made[0] if len(made) == 1 else made
    transfer = next((one.transfer for one in engines if one.transfer), None)
    ordered = {role: roles[role] for role in ("prefill", "decode", "both") if role in roles}
    plan.values["disaggregated"] = {**({"transfer": transfer} if transfer else {}), **ordered}
    plan.values["accelerators_used"] = sum(one.world * one.instances for one in engines)
    _nodes(plan, engines)
    shares = {one.role: one.values["gpu_memory_fraction"] for one in engines if "gpu_memory_fraction" in one.values}
    if style == "sglang" and shares:
        plan.values["gpu_memory_fraction"] = next(iter(shares.values())) if len(set(shares.values())) == 1 else shares
    for one in engines:
        plan.warn += [note for note in one.notes if note not in plan.warn]
        for key, value in one.defaults.items():
            if key == "disaggregated.transfer":
                plan.defaults[key] = value
                continue
            top = key in plan.values or style == "vllm"
            if top and (key in ("pp", "dp") or plan.values.get(key) == value):
                plan.defaults[key] = value
            elif key in roles_of(plan, one.role):
                plan.defaults[f"disaggregated.{one.role}.{key}"] = value


def roles_of(plan: ServicePlan, role: str) -> dict[str, Any]:
    found = plan.values["disaggregated"].get(role, {})
    return found if isinstance(found, dict) else {}


def _role(engine: Engine, plan: ServicePlan, style: str) -> dict[str, Any]:
    values = engine.values
    out: dict[str, Any] = {"instances": engine.instances}
    if engine.nodes:
        out["nodes"] = engine.nodes
    for key in _OF_ROLE:
        if key in values and not (style == "sglang" and key == "gpu_memory_fraction"):
            out[key] = values[key]
    for key in _SHARED:
        if key in values and key not in plan.values and key != "model":
            out[key] = values[key]
    return out


def _nodes(plan: ServicePlan, engines: Iterable[Engine]) -> None:
    found = list(engines)
    each = {one.per_node for one in found}
    if all(one.nodes for one in found):
        plan.values["nodes"] = sum((one.nodes or 0) for one in found)
        if len(each) == 1 and None not in each:
            plan.values["accelerators_per_node"] = each.pop()


def cases(plans: list[ServicePlan]) -> dict[str, Any]:
    """Several plans of one file: each whole under ``cases``, and above them what all have in common."""
    found = [plan.explained() for plan in plans]
    top: dict[str, Any] = {}
    sorts = ("warn", "deprecated", "unknown", "unread", "ignored")
    for key in dict.fromkeys(key for one in found for key in one):
        if key in sorts:
            top[key] = list(dict.fromkeys(item for one in found for item in one.get(key) or ()))
        elif key == "defaults":
            top[key] = {name: value for one in found for name, value in one[key].items()}
        elif all(key in one and one[key] == found[0].get(key) for one in found) and key != "workload":
            top[key] = found[0][key]
    hidden = {*_ABOUT, *sorts, "defaults", "kind", "note"}
    listed = []
    for plan, one in zip(plans, found, strict=True):
        name = plan.details.get("name")
        keys = {
            key: value
            for key, value in one.items()
            if key not in hidden or (key not in top and key not in sorts and key != "defaults")
        }
        keys = {key: value for key, value in keys.items() if value is not None}
        listed.append({**({"name": name} if name else {}), **{k: v for k, v in keys.items() if k != "name"}})
    head: dict[str, Any] = {
        key: top[key] for key in ("tool", "engine", "tool_version_basis", "kind", "files", "assume") if key in top
    }
    return {**head, "cases": listed, **{key: value for key, value in top.items() if key not in head}}


def runs(found: list[tuple[dict[str, Any], dict[str, Any]]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(values, defaults) of all runs of a client: a value where all have the same, else a list.

    Lists are over shapes (lengths) and loads where every shape meets every load, else over runs.
    """
    values: list[dict[str, Any]] = []
    for one, _ in found:
        values += [one] if one not in values else []
    defaults = {key: value for _, one in found for key, value in one.items()}
    if len(values) == 1:
        return values[0], defaults
    lengths = (
        "isl",
        "isl_range",
        "isl_mean",
        "isl_stddev",
        "osl",
        "osl_range",
        "osl_mean",
        "osl_stddev",
        "shared_prefix",
    )
    keys = list(dict.fromkeys(key for one in values for key in one))

    def distinct(of: Sequence[str]) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        for one in values:
            part = {key: one.get(key) for key in of}
            if part not in out:
                out.append(part)
        return out

    shapes = distinct(lengths)
    loads = distinct([key for key in keys if key not in lengths])
    grid = len(shapes) * len(loads) == len(values)
    out: dict[str, Any] = {}
    for key in keys:
        over = values if not grid else shapes if key in lengths else loads
        listed = [one.get(key) for one in over]
        out[key] = listed[0] if all(one == listed[0] for one in listed) else listed
    if grid:
        out["sweep"] = {"shapes": len(shapes), "loads": len(loads), "runs": len(values)}
    else:
        out["sweep"] = {"runs": len(values)}
    return out, defaults


def numbers(text: Any) -> list[int]:
    """Numbers of a list or of a text such as ``16x48`` or ``1,2,4``."""
    if isinstance(text, int) and not isinstance(text, bool):
        return [text]
    if isinstance(text, list):
        return [one for item in text for one in numbers(item)]
    return [int(one) for one in re.findall(r"\d{1,9}", str(text))]
