"""Files of settings that start services: recipes of a cluster, nightly cases, TensorRT-LLM's roles, MindIE's config."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from cmsim.errors import InputError, Problem
from cmsim.launch.config_files import Tree
from cmsim.launch.service import assemble, mindie
from cmsim.launch.service.flags import environment, of_tree, of_words
from cmsim.launch.service.plan import Engine, ServicePlan
from cmsim.launch.service.trt import of_options
from cmsim.launch.settings import LaunchSetting, Settings
from cmsim.launch.vocabulary import NameMeaning, vocabulary
from cmsim.launch.vocabulary import data as table

#: (tool, settings, model, chip, wrapper) -> an engine
Resolve = Callable[..., Engine]
_ROLES = {"prefill": "prefill", "decode": "decode", "aggregated": "", "agg": ""}


#: keys of vLLM's file of flags: two of them make one
_OF_VLLM = frozenset(
    [
        "tensor-parallel-size",
        "max-num-seqs",
        "max-model-len",
        "gpu-memory-utilization",
        "max-num-batched-tokens",
        "speculative-config",
        "no-enable-prefix-caching",
        "enable-expert-parallel",
        "max-cudagraph-capture-size",
        "async-scheduling",
    ]
)


def kind_of(tree: Mapping[str, Any]) -> str | None:
    """Which of these files it is."""
    backend = tree.get("backend")
    if isinstance(backend, dict) and any(str(key).endswith("_config") for key in backend) and "resources" in tree:
        return "cluster"
    if isinstance(tree.get("test_cases"), list) and any(
        isinstance(one, dict) and "server_cmd" in one for one in tree["test_cases"]
    ):
        return "nightly"
    if isinstance(tree.get("deployment"), list) and any(
        isinstance(one, dict) and "server_cmd" in one for one in tree["deployment"]
    ):
        return "nightly"
    if "context_servers" in tree or "generation_servers" in tree:
        return "roles"
    if isinstance(tree.get("BackendConfig"), dict):
        return "mindie"
    if isinstance(section(tree, "servingEngineSpec").get("modelSpec"), list):
        return "stack"
    if any("llm_configs" in section(one, "args") for one in tree.get("applications") or () if isinstance(one, dict)):
        return "ray"
    plainly = {str(key).replace("_", "-") for key in tree}
    if (
        plainly & {"kv-cache-config", "enable-attention-dp", "moe-config", "cuda-graph-config"}
        and "services" not in tree
    ):
        return "options"
    if len(plainly & _OF_VLLM) + ("model" in tree) > 1:
        return "vllm"
    if plainly & {"model-path"} and plainly & {
        "tp-size",
        "tensor-parallel-size",
        "mem-fraction-static",
        "tp",
        "chunked-prefill-size",
    }:
        return "sglang"
    return None


def said(settings: Settings, key: str, value: Any, file: str) -> None:
    """A value that something else than a flag says, where no flag does."""
    if value is not None and not settings.has(key):
        settings.by_key[key] = LaunchSetting(key, (value,), 0, file, NameMeaning("plan", key))


def section(tree: Mapping[str, Any], *path: str) -> dict[str, Any]:
    at: Any = tree
    for key in path:
        at = at.get(key) if isinstance(at, Mapping) else None
    return dict(at) if isinstance(at, Mapping) else {}


def whole(value: Any) -> int | None:
    text = str(value)
    return int(text) if not isinstance(value, bool) and re.fullmatch(r"\d{1,7}", text) else None


def cluster(tree: Tree, file: str, plan: ServicePlan, resolve: Resolve) -> None:
    """A recipe that says how many workers of each role run on how many nodes, and the settings of each."""
    data = tree.data
    backend, resources = section(data, "backend"), section(data, "resources")
    named = next((str(key) for key in backend if str(key).endswith("_config") and isinstance(backend[key], dict)), "")
    known = table("serving")["engines"]
    tool = known.get(str(backend.get("type"))) or known.get(named.removesuffix("_config"))
    if tool is None:
        raise InputError(Problem(f"backend: got '{backend.get('type')}'; allowed: {', '.join(known)}", file))
    model = section(data, "identity", "model").get("repo") or section(data, "model").get("path")
    plan.values["model"] = str(model) if model else None
    plan.details["texts"] = [(f"{resources.get('gpu_type', '')}".upper(), "resources")]
    each = whole(resources.get("gpus_per_node"))
    engines = []
    for role, settings_of in section(backend, named).items():
        if role not in _ROLES or not isinstance(settings_of, dict):
            continue
        settings = Settings()
        if tool == "trt":
            of_options(
                settings_of,
                vocabulary(tool),
                file,
                settings,
                lambda key, role=role: tree.line(("backend", named, role, key)),
            )
        else:
            of_tree(
                settings_of,
                vocabulary(tool),
                file,
                settings,
                lambda key, role=role: tree.line(("backend", named, role, key)),
            )
        variables = section(backend, f"{role}_environment")
        environment({str(key): str(value) for key, value in variables.items()}, (), settings)
        said(settings, "role", _ROLES[role] or None, file)
        engine = resolve(tool, settings, plan.values["model"], wrapper="srt-slurm")
        engine.role = _ROLES[role]
        short = {"": "agg"}.get(engine.role, role)
        engine.instances = whole(resources.get(f"{short}_workers", resources.get(f"{role}_workers"))) or 1
        engine.nodes = whole(resources.get(f"{short}_nodes", resources.get(f"{role}_nodes")))
        engine.per_node = each
        if tool == "trt" and "chunked_prefill" in engine.defaults:  # off, and so for all of them
            engine.defaults.pop("chunked_prefill")
            engine.values.pop("chunked_prefill")
        engines.append(engine)
        assemble.sets(plan, settings, tool)
    text = str(section(data, "model").get("precision") or "").lower()
    finish(plan, engines, style="srt-slurm" if tool != "sglang" else "sglang")
    if text:
        plan.values["precision"] = text
    first = next((one for one in engines if one.role == "prefill"), None)
    if tool == "sglang" and first is not None and "prefix_caching" in first.values:
        plan.values["prefix_caching"] = first.values["prefix_caching"]
        if isinstance(found := plan.values.get("disaggregated", {}).get("prefill"), dict):
            found.pop("prefix_caching", None)
    if each:
        plan.values["accelerators_per_node"] = each
    total = sum(whole(resources.get(key)) or 0 for key in ("prefill_nodes", "decode_nodes", "agg_nodes"))
    if total:
        plan.values["nodes"] = total
    image = str(section(data, "model").get("container") or "")
    version = re.search(r":v?(\d+\.\d+(?:\.\d+)?)", image)
    if version:
        plan.details["basis"] = f"{table('serving')['versions'][tool]} {version[1]} (container tag)"
    for key in ("slurm", "frontend", "health_check"):
        plan.ignored += [key] if key in data and key not in plan.ignored else []
    plan.ignored += ["container"] if image and not version else []
    _bench(section(data, "benchmark"), plan)


def _bench(said_of: Mapping[str, Any], plan: ServicePlan) -> None:
    if not said_of:
        return
    load: dict[str, Any] = {}
    for key in ("isl", "osl"):
        if (value := whole(said_of.get(key))) is not None:
            load[key] = value
    if "req_rate" in said_of:
        rate = said_of["req_rate"]
        load["request_rate"] = "inf" if str(rate).lower().lstrip(".") == "inf" else rate
    if "concurrencies" in said_of:
        found = assemble.numbers(said_of["concurrencies"])
        load["concurrency"] = found[0] if len(found) == 1 else found
        if many := whole(said_of.get("num_prompts_mult")):
            counts = [one * many for one in found]
            load["num_prompts"] = counts[0] if len(counts) == 1 else counts
    plan.values["workload"] = load


def finish(plan: ServicePlan, engines: list[Engine], *, style: str) -> None:
    """Engines of one service: together, or apart by role."""
    found = assemble.copies(engines)
    if any(one.role in ("prefill", "decode") for one in found):
        assemble.apart(plan, found, style=style)
    elif found:
        assemble.together(plan, found[0])


def roles(tree: Tree, file: str, plan: ServicePlan, resolve: Resolve) -> None:
    """TensorRT-LLM's file of context and generation servers; what stands above both holds where neither says else."""
    words = vocabulary("trt")
    data = tree.data
    common = {key: value for key, value in data.items() if key not in ("context_servers", "generation_servers")}
    plan.values["model"] = str(data["model"]) if data.get("model") else None
    engines = []
    for name, role in (("context_servers", "prefill"), ("generation_servers", "decode")):
        if not (own := section(data, name)):
            continue
        settings = Settings()
        of_options(common, words, file, settings, lambda key: tree.line((key,)))
        settings.notes.clear()
        for key in list(settings.by_key):
            settings.by_key[key] = LaunchSetting(
                key, settings.by_key[key].values, 0, "above", settings.by_key[key].meaning
            )
        of_options(own, words, file, settings, lambda key, name=name: tree.line((name, key)))
        said(settings, "role", role, file)
        engine = resolve("trt", settings, plan.values["model"])
        engine.instances = settings.whole("instances") or 1
        urls = own.get("urls")
        if isinstance(urls, list) and len(urls) not in (0, engine.instances):
            plan.warn.append(f"{name}: {len(urls)} addresses for num_instances {engine.instances}")
        engines.append(engine)
        assemble.sets(plan, settings, "trt")
    finish(plan, engines, style="trt")


def config(tree: Tree, file: str, plan: ServicePlan, resolve: Resolve) -> None:
    """MindIE's config.json."""
    settings = Settings()
    mindie.of_config(tree.data, vocabulary("mindie"), file, settings, tree.line)
    plan.values["model"] = settings.text("model") if settings.has("model") else None
    engine = resolve("mindie", settings, plan.values["model"])
    copies = settings.whole("instances") if settings.has("instances") else None
    engine.instances = copies or 1
    assemble.sets(plan, settings, "mindie")
    finish(plan, [engine], style="mindie")
    if settings.true("many_nodes") and settings.has("world"):
        plan.values["note"] = (
            "in multi-node runs worldSize is not used, the rank table tells the size; here dp x tp x cp give it"
        )


def options(tree: Tree, file: str, plan: ServicePlan, resolve: Resolve, tool: str) -> None:
    """A file of one engine's settings, without its command."""
    settings = Settings()
    if tool == "trt":
        of_options(tree.data, vocabulary(tool), file, settings, lambda key: tree.line((key,)))
    else:
        of_tree(tree.data, vocabulary(tool), file, settings, lambda key: tree.line((key,)))
    plan.values["model"] = settings.text("model") if settings.has("model") else None
    engine = resolve(tool, settings, plan.values["model"])
    assemble.sets(plan, settings, tool)
    finish(plan, [engine], style=tool)


def several(tree: Tree, file: str, begin: Callable[[], ServicePlan], resolve: Resolve, kind: str) -> list[ServicePlan]:
    """vLLM's flags as keys, a model each: values of the production stack's chart, or a file of Ray Serve."""
    words = vocabulary("vllm")
    plans = []
    for name, model, flags, extra, copies, device in _models(tree.data, kind):
        settings = Settings()
        plan = begin()
        # here what is off is said to be
        flags = {f"no-{key}" if value is False else key: value is False or value for key, value in flags.items()}
        of_tree(flags, words, file, settings, lambda key: tree.line((key,)))
        of_words(extra, words, file, settings)
        plan.values["model"] = model
        engine = resolve("vllm", settings, model)
        engine.instances = max(copies, 1)
        plan.details |= {"name": name, "texts": [(device, "accelerator")] if device else []}
        assemble.sets(plan, settings, "vllm")
        finish(plan, [engine], style="vllm")
        plans.append(plan)
    return plans


def _models(data: Mapping[str, Any], kind: str) -> list[tuple[str, str | None, dict[str, Any], list[str], int, str]]:
    """(name, model, flags, more words, copies, device in words) of each model."""
    out = []
    if kind == "stack":
        for one in section(data, "servingEngineSpec")["modelSpec"]:
            if not isinstance(one, dict):
                continue
            own = section(one, "vllmConfig")
            extra = [str(word) for word in own.pop("extraArgs", None) or ()]
            flags = {re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", str(key)).lower(): value for key, value in own.items()}
            flags.pop("v1", None)
            model = one.get("modelURL")
            out.append(
                (
                    str(one.get("name", "")),
                    str(model) if model else None,
                    flags,
                    extra,
                    whole(one.get("replicaCount")) or 1,
                    "",
                )
            )
        return out
    for app in data.get("applications") or ():
        for one in section(app, "args").get("llm_configs") or ():
            if not isinstance(one, dict):
                continue
            loading, scaling = section(one, "model_loading_config"), section(one, "deployment_config")
            model = loading.get("model_source") or loading.get("model_id")
            copies = whole(scaling.get("num_replicas")) or whole(
                section(scaling, "autoscaling_config").get("min_replicas")
            )
            flags = section(one, "engine_kwargs")
            name, device = str(loading.get("model_id", "")), str(one.get("accelerator_type") or "")
            out.append((name, str(model) if model else None, flags, [], copies or 1, device))
    return out


def nightly(
    tree: Tree, file: str, begin: Callable[[], ServicePlan], resolve: Resolve, split: Callable[[str, int], list[str]]
) -> list[ServicePlan]:
    """Cases of vllm-ascend's nightly tests, one node or several."""
    data = tree.data
    plans = []
    for n, case in enumerate(data.get("test_cases") or ()):
        if not isinstance(case, dict) or "server_cmd" not in case:
            continue
        plan = begin()
        plan.details["name"] = str(case.get("name") or n + 1)
        words = [*_listed(case.get("server_cmd"), split, 1), *_listed(case.get("server_cmd_extra"), split, 1)]
        _served(words, case.get("model"), section(case, "envs"), file, plan, resolve, [])
        _perf(section(case, "benchmarks"), plan)
        plans.append(plan)
    servers = [one for one in data.get("deployment") or () if isinstance(one, dict) and "server_cmd" in one]
    if servers:
        plan = begin()
        index = section(data, "disaggregated_prefill")
        engines: list[Engine] = []
        for n, one in enumerate(servers):
            line = tree.line(("deployment", n, "server_cmd")) or 1
            words = _listed(one["server_cmd"], split, line)
            engine = _served(
                words,
                data.get("model"),
                {**section(data, "env_common"), **section(one, "envs")},
                file,
                plan,
                resolve,
                engines,
            )
            for key, role in (("prefiller_host_index", "prefill"), ("decoder_host_index", "decode")):
                if index.get("enabled") and n in assemble.numbers(index.get(key) or []):
                    engine.role = role
            engine.nodes = 1 if engine.nodes is None else engine.nodes
            engine.per_node = whole(data.get("npu_per_node"))
        _join(engines)
        finish(plan, engines, style="vllm")
        plan.values |= {"nodes": whole(data.get("num_nodes")), "accelerators_per_node": whole(data.get("npu_per_node"))}
        if data.get("test_name"):
            plan.details.setdefault("texts", []).append((str(data["test_name"]), "name"))
        _perf(section(data, "benchmarks"), plan)
        plans.append(plan)
    return plans


def _join(engines: list[Engine]) -> None:
    """Further nodes of an engine run on its ranks: the first one has them all."""
    for role in {one.role for one in engines}:
        listed = [one for one in engines if one.role == role]
        firsts = [one for one in listed if not one.follows]
        if len(firsts) == 1 and len(listed) > 1:
            firsts[0].nodes = len(listed)
            for one in listed:
                if one is not firsts[0]:
                    assemble.merge(firsts[0].settings, one.settings)
                    engines.remove(one)


def _listed(value: Any, split: Callable[[str, int], list[str]], line: int) -> list[str]:
    if isinstance(value, str):
        return split(value, line)
    return [str(one) for one in value] if isinstance(value, list) else []


def _served(
    words: list[str],
    model: Any,
    variables: Mapping[str, Any],
    file: str,
    plan: ServicePlan,
    resolve: Resolve,
    engines: list[Engine],
) -> Engine:
    settings = Settings()
    words = words[2:] if words[:2] == ["vllm", "serve"] else words
    alone = of_words(words, vocabulary("vllm_ascend"), file, settings)
    settings.notes = [one for one in settings.notes if "stands twice" not in one]
    named = alone[0] if alone else settings.text("model") or model
    environment({str(key): str(value) for key, value in variables.items()}, (), settings)
    plan.values["model"] = str(named) if named else None
    engine = resolve("vllm_ascend", settings, plan.values["model"])
    if "kv_cache_dtype" in engine.defaults:
        engine.defaults.pop("kv_cache_dtype")
        engine.values.pop("kv_cache_dtype")
    assemble.sets(plan, settings, "vllm_ascend")
    engines.append(engine)
    if len(engines) == 1 and engine.transfer is None:
        finish(plan, [engine], style="vllm")
    return engine


def _perf(benchmarks: Mapping[str, Any], plan: ServicePlan) -> None:
    """The load of a case; its batch_size is how many are under way at once."""
    found = next(
        (one for one in benchmarks.values() if isinstance(one, dict) and one.get("case_type") == "performance"), None
    )
    if found is None:
        return
    load: dict[str, Any] = {}
    if whole(found.get("max_out_len")):
        load["osl"] = found["max_out_len"]
    for key, name in (("batch_size", "concurrency"), ("request_rate", "request_rate"), ("num_prompts", "num_prompts")):
        value = found.get(key)
        if value not in (None, 0):
            load[name] = value
    if "request_rate" not in load:
        load["request_rate"] = "inf"
    plan.values["workload"] = load
    hint = re.search(r"in(\d{2,7})", str(found.get("dataset_path", "")))
    if plan.details.get("name"):
        plan.defaults["isl"] = "unknown" + (f" (only the data set's name hints {hint[1]})" if hint else "")
        plan.ignored += [key for key in ("baseline", "threshold") if key in found and key not in plan.ignored]
