"""A plan of a service as a scenario file, with the keys that this version's workloads have."""

from __future__ import annotations

import json
import re
from typing import Any

from cmsim import kinds
from cmsim.errors import InputError
from cmsim.hardware import load_system
from cmsim.launch import guesses, model_file
from cmsim.launch.plan import LaunchPlan
from cmsim.launch.scenario import NO_SYSTEM, Written, inline
from cmsim.launch.service.plan import Engine, ServicePlan, squeezed
from cmsim.launch.spec_keys import SpecKeys
from cmsim.launch.vocabulary import data, vocabulary

#: what is asked of a service where the file says of no load, or not all of it
_ASSUMED = {"isl": 1024, "osl": 256, "concurrency": 64}
#: words in a model's name for the format of its weights, the first that is there
_NAMED = (("w8a8", "int8"), ("w4a8", "int8"), ("nvfp4", "fp4"), ("mxfp4", "fp4"), ("fp4", "fp4"), ("fp8", "fp8"))
_FORMATS = {
    "fp8": "fp8",
    "fp4": "fp4",
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "modelopt_fp4": "fp4",
    "int8": "int8",
    "w8a8_int8": "int8",
    "w8a8_fp8": "fp8",
    "modelopt": "fp8",
    "bf16": "bf16",
    "fp16": "fp16",
}


def scenario_of(plan: ServicePlan, *, system: str | None, model_name: str) -> Written:
    """The scenario of a plan: of kind `serving` where this version has it, else a step of decoding.

    system: a name instead of the one that the file's words mean    model_name: of the file to put the model's sizes in

    InputError: the plan has problems, or starts no server; a system is unknown.
    """
    if plan.problems:
        raise InputError(plan.problems)
    if plan.kind == "benchmark":
        raise plan_error(plan, "starts no server; --explain says what it asks of one")
    notes: list[str] = []
    model, text = _model(plan, model_name, notes)
    name = system or plan.system_name or NO_SYSTEM
    if name == NO_SYSTEM:
        said = plan.values.get("system")
        notes.append(f"no built-in system is named{f' ({said})' if said else ''}; fill in one of `cmsim list systems`")
    elif system is None:
        notes.append(f"the system is read from: {plan.values.get('system')}")
    packages = _ranks_of_package(name)
    load = _load(plan, notes)
    entry: dict[str, Any] = {"system": name}
    if kinds.known("serving"):
        workload = _serving(plan, model, load, packages, notes)
        _promises(plan, workload, notes)
    else:
        workload = _decode(plan, model, load, packages, notes)
    if {one.lstrip("-").replace("_", "-") for one in plan.unread} & set(data("serving")["two_batches"]):
        workload["microbatches"] = 2
    entry |= _domains(name, int(plan.values.get("accelerators_used") or 1))
    body = {"name": _title(plan), "systems": [entry], "workload": workload}
    lines = [f"name: {inline(body['name'])}\n", "systems:\n", f"  - {inline(entry)}\n", "workload:\n"]
    lines += [f"  {key}: {inline(value)}\n" for key, value in workload.items()]
    return Written(_head(plan, notes) + "".join(lines), text, notes, workload)


def plan_error(plan: ServicePlan, message: str) -> InputError:
    plan.wrong(message)
    return InputError(plan.problems)


def _title(plan: ServicePlan) -> str:
    what = plan.values.get("model_guess") or plan.values.get("model") or "service"
    return f"{what}, from {plan.files[0]} ({plan.tool})"


def _model(plan: ServicePlan, model_name: str, notes: list[str]) -> tuple[str | None, str | None]:
    """(name or path, text of a config.json)"""
    said = plan.values.get("model_guess") or plan.values.get("model")
    known = guesses.model_of_words(said)
    if known is None:
        notes.append(
            f"the sizes of the model {said} are not known here; name one of `cmsim list models` or a config.json"
        )
        return None, None
    notes.append(f"the model is guessed from its name, {said}")
    if known.get("model"):
        return str(known["model"]), None
    shown = LaunchPlan(tool=plan.tool, files=plan.files, model=str(said))
    shown.details["known"] = known
    made, more = model_file.config(shown)
    notes += more
    if made is None:
        return None, None
    about = {"source": f"dimensions of {known['guess']}, by the name in {plan.files[0]}"}
    return model_name, json.dumps({"_cmsim": about, **made}, indent=2) + "\n"


def _ranks_of_package(name: str) -> int:
    """Ranks (dies) of one package: launch files count dies where a tool starts a process for each."""
    if name == NO_SYSTEM:
        return 1
    return load_system(name).ranks_per_package


def _domains(name: str, used: int) -> dict[str, Any]:
    if name == NO_SYSTEM:
        return {}
    domains = -(-used // load_system(name).ranks)
    return {"domains": domains} if domains > 1 else {}


def _load(plan: ServicePlan, notes: list[str]) -> dict[str, Any]:
    """Lengths and how requests come, from the client in the same file; the first of several."""
    said = plan.values.get("workload") or {}
    said = said[0] if isinstance(said, list) else said
    out: dict[str, Any] = {}
    for key in ("isl", "osl", "concurrency", "num_prompts", "request_rate"):
        value = said.get(key)
        if isinstance(value, list):
            notes.append(f"{key} has the values {', '.join(map(str, value))}; the first is taken")
            value = value[0]
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            out[key] = value
    for key in ("isl_range", "osl_range"):
        if isinstance(said.get(key), list) and said[key] and isinstance(said[key][0], int):
            out[key] = said[key]
    missing = [key for key in ("isl", "osl") if key not in out]
    if missing:
        taken = ", ".join(f"{key} {_ASSUMED[key]}" for key in missing)
        notes.append(f"the file does not say how long requests are: {taken} is taken")
        out |= {key: _ASSUMED[key] for key in missing}
    if "concurrency" not in out and "request_rate" not in out:
        out["concurrency"] = _ASSUMED["concurrency"]
        notes.append(f"the file does not say how requests come: {_ASSUMED['concurrency']} users at once are taken")
    return out


def _precision(plan: ServicePlan, engine: Engine, notes: list[str]) -> dict[str, str]:
    values = engine.values
    said = str(values.get("quantization") or plan.values.get("precision") or "").lower()
    name = squeezed(values.get("model") or plan.values.get("model"))
    weights = _FORMATS.get(said) or next((to for word, to in _NAMED if word in name), None)
    if weights is None:
        weights = "fp8" if re.search(data("serving")["narrow"], name) else "bf16"
        notes.append(f"the file does not say the weights' format; {weights} is taken")
    elif not _FORMATS.get(said):
        notes.append(f"the format of weights, {weights}, is read from the model's name")
    cache = str(values.get("kv_cache_dtype") or plan.values.get("kv_cache_dtype") or "auto")
    kv = "fp8" if "fp8" in cache else "fp4" if "fp4" in cache else "int8" if "int8" in cache else "bf16"
    return {
        "weights": weights,
        "activations": "fp8" if weights == "fp4" and "w4a8" in name else weights,
        "kv_cache": kv,
    }


def _parallel(engine: Engine, notes: list[str]) -> dict[str, Any]:
    """Sizes as scenarios have them: world is tp x cp x pp x dp; attention by dp gives every rank whole sequences."""
    values = engine.values
    tp, pp, dp = (int(values.get(key) or 1) for key in ("tp", "pp", "dp"))
    wide = int(values.get("attention_dp") or 1)
    ep = int(values.get("ep") or 1)
    out: dict[str, Any] = {}
    inner = int(values.get("attention_tp") or 0) or (tp if wide == dp else max(tp // wide, 1))
    if wide > 1 and inner == 1:
        out["attention"] = "dp"
    elif inner > 1:
        out["tp"] = inner
    if pp > 1:
        out["pp"] = pp
    if ep > 1:
        out["ep"] = ep
    if (cut := int(values.get("expert_tp") or 1)) > 1 and ep > 1:
        keys = SpecKeys(_kind())
        if keys.has("parallel", "expert_tp"):
            out["expert_tp"] = cut
        else:
            notes.append(f"not expressed, for there is no such key yet: parallel.expert_tp {cut}")
    if (cp := int(values.get("cp") or 1)) > 1:
        out["cp"] = cp
    if (dcp := int(values.get("decode_context_parallel") or 1)) > 1:
        out["dcp"] = dcp
    return out


def _kind() -> str:
    return "serving" if kinds.known("serving") else "decode"


def _drafts(plan: ServicePlan, notes: list[str]) -> dict[str, Any] | None:
    said = plan.values.get("speculative")
    if not said or not said.get("draft_tokens"):
        return None
    notes.append(f"how many draft tokens are accepted is not in the file; 0.7 is taken ({said['method']})")
    return {"draft_tokens": int(said["draft_tokens"]), "acceptance": 0.7}


def _batching(plan: ServicePlan, engine: Engine, keys: SpecKeys, notes: list[str]) -> dict[str, Any]:
    values = {**plan.values, **engine.values}
    out: dict[str, Any] = {}
    tokens = values.get("max_num_batched_tokens") or values.get("prefill_chunk") or values.get("max_prefill_tokens")
    wide = int(values.get("attention_dp") or 1)
    seqs = values.get("max_num_seqs")
    if seqs and engine.tool == "sglang":  # of the whole engine
        seqs = max(seqs // wide, 1)
    found = {"step_tokens": tokens, "sequences": seqs, "block_tokens": values.get("kv_block_size")}
    share = values.get("gpu_memory_fraction")
    if share and vocabulary(engine.page).data.get("share_of_rest"):
        notes.append(f"not expressed: {share} of the memory that weights leave is the cache's")
        share = None
    found |= {
        "memory_share": share if isinstance(share, float | int) else None,
        "context_tokens": values.get("max_model_len"),
    }
    for key, value in found.items():
        if value is None:
            continue
        if keys.has("batching", key):
            out[key] = value
        else:
            notes.append(f"not expressed, for there is no such key yet: batching.{key} {value}")
    return out


def _serving(
    plan: ServicePlan, model: str | None, load: dict[str, Any], packages: int, notes: list[str]
) -> dict[str, Any]:
    keys = SpecKeys("serving")
    engines: dict[str, Engine] = plan.details["engines"]
    first = next(iter(engines.values()))
    out: dict[str, Any] = {"kind": "serving", "model": model}
    if "request_rate" in load:
        arrivals: dict[str, Any] = {"process": "poisson", "rate_per_s": load["request_rate"]}
        if "concurrency" in load:
            notes.append(f"not expressed: a limit of {load['concurrency']} requests at once beside a rate")
    else:
        arrivals = {"process": "closed", "concurrency": load["concurrency"]}
    if "num_prompts" in load:
        arrivals["requests"] = load["num_prompts"]
    out["arrivals"] = arrivals
    lengths: dict[str, Any] = {"prompt_tokens": int(load["isl"]), "output_tokens": int(load["osl"])}
    if "isl_range" in load or "osl_range" in load:
        low, high = load.get("isl_range") or load["osl_range"]
        lengths = {
            key: load[f"{short}_range"][1] if f"{short}_range" in load else lengths[key]
            for key, short in (("prompt_tokens", "isl"), ("output_tokens", "osl"))
        }
        lengths["least"] = round(max(low / high, 1e-3), 4)
        notes.append("lengths are drawn evenly between a share of the longest and the longest, the same share for both")
    out["lengths"] = lengths
    out["precision"] = _precision(plan, first, notes)
    drafts = _drafts(plan, notes)
    if drafts:
        out["speculative"] = drafts
    if "" in engines:
        out |= {"replicas": first.instances * _replicas(first)}
        out |= {"accelerators": _packages(first, packages), "parallel": _parallel(first, notes)}
        if batching := _batching(plan, first, keys, notes):
            out["batching"] = batching
        return out
    for role, engine in engines.items():
        pool: dict[str, Any] = {
            "replicas": engine.instances * _replicas(engine),
            "accelerators": _packages(engine, packages),
        }
        pool["parallel"] = _parallel(engine, notes)
        if batching := _batching(plan, engine, keys, notes):
            pool["batching"] = batching
        if role in ("prefill", "decode"):
            out[role] = pool
    if not {"prefill", "decode"} <= set(engines):
        missing = "decode" if "prefill" in engines else "prefill"
        notes.append(f"the file starts no {missing}; the other's plan is taken for it too")
        out[missing] = dict(out["prefill" if missing == "decode" else "decode"])
    return out


def _promises(plan: ServicePlan, workload: dict[str, Any], notes: list[str]) -> None:
    """What the client asks beside lengths and a load: promises, beginnings that prompts share, turns."""
    said = plan.values.get("workload") or {}
    said = said[0] if isinstance(said, list) else said
    slo = said.get("slo") or {}
    if {"ttft_ms", "tpot_ms"} <= set(slo):
        workload["slo"] = {key.replace("_ms", "_s"): slo[key] / 1000 for key in ("ttft_ms", "tpot_ms")}
    elif slo:
        notes.append(f"not expressed: promises without both, first token and those after it: {slo}")
    if shared := said.get("shared_prefix"):
        notes.append(f"not expressed: prompts share their first {shared['tokens']} tokens in {shared['groups']} groups")
    if turns := said.get("turns"):
        notes.append(f"not expressed: conversations of {turns['mean']} turns; each request is alone")


def _replicas(engine: Engine) -> int:
    """Data parallel ranks that share nothing are copies of the model."""
    dp = int(engine.values.get("dp") or 1)
    return dp if int(engine.values.get("attention_dp") or 1) == 1 else 1


def _packages(engine: Engine, packages: int) -> int:
    return max(engine.world // _replicas(engine) // packages, 1)


def _decode(
    plan: ServicePlan, model: str | None, load: dict[str, Any], packages: int, notes: list[str]
) -> dict[str, Any]:
    """One decoding step of what is under way at once."""
    notes.append("this version has no workloads of kind serving; one decoding step of the plan is written")
    engines: dict[str, Engine] = plan.details["engines"]
    engine = engines.get("decode") or next(iter(engines.values()))
    world = engine.world // _replicas(engine)
    many = load.get("concurrency") or _ASSUMED["concurrency"]
    each = max(round(many / (engine.instances * _replicas(engine)) / max(world // packages, 1)), 1)
    out: dict[str, Any] = {"kind": "decode", "model": model, "ranks": world}
    out |= {"batch_per_accelerator": each, "context_tokens": int(load["isl"]) + int(load["osl"]) // 2}
    out |= {"parallel": _parallel(engine, notes), "precision": _precision(plan, engine, notes)}
    if drafts := _drafts(plan, notes):
        out["speculative"] = drafts
    return out


def _head(plan: ServicePlan, notes: list[str]) -> str:
    lines = [f"Written by `cmsim new --from {plan.files[0]}`: {plan.tool}, {plan.values.get('tool_version_basis')}"]
    lines += [f"{note[:1].upper()}{note[1:]}" for note in dict.fromkeys(notes)]
    if assume := plan.values.get("assume"):
        lines.append(f"Assumed: {assume}")
    for text, listed in (
        ("Defaults of the tool, not said by the file", [f"{key} {value}" for key, value in plan.defaults.items()]),
        ("Touches performance and is not read as a plan", plan.unread),
        ("Old spellings", plan.deprecated),
        ("Unknown to the tool", plan.unknown),
    ):
        if listed:
            lines.append(f"{text}: {', '.join(listed)}")
    lines += [f"{one[:1].upper()}{one[1:]}" for one in plan.warn]
    return "".join(f"# {' '.join(line.rstrip('.').split())}.\n" for line in lines)
