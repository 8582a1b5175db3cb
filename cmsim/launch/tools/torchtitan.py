"""Settings of torchtitan as a plan."""

from __future__ import annotations

from cmsim.launch.plan import LaunchPlan
from cmsim.launch.settings import Settings
from cmsim.launch.sizes import JobSizes
from cmsim.launch.vocabulary import Vocabulary

_TYPES = {"bfloat16": "bf16", "float32": "fp32", "float16": "fp16"}


def resolve(
    settings: Settings, sizes: JobSizes, vocabulary: Vocabulary, plan: LaunchPlan, *, recipe: bool = False
) -> None:
    """Fill a plan. ``recipe``: what is not said is a named config's, and no default of the tool."""
    _model(settings, plan)
    if recipe:
        left = ("tp", "pp", "cp", "local_batch", "seq_len", "recompute")
        plan.from_recipe = [key for key in left if not settings.has(key)] + ["model dimensions", "optimizer"]
    for key in ("tp", "pp", "cp"):
        value = settings.whole(key)
        setattr(plan, key, plan.default(key, 1) if value is None else value)
    _data_parallel(settings, sizes, plan)
    _experts(settings, plan)
    _stages(settings, vocabulary, plan, recipe=recipe)
    _batches(settings, plan, recipe=recipe)
    _formats(settings, vocabulary, plan)
    _recompute(settings, vocabulary, plan, recipe=recipe)


def _model(settings: Settings, plan: LaunchPlan) -> None:
    words = [settings.text("model_name"), settings.text("flavor") or settings.text("config_name")]
    first, second = ((word or "").lower() for word in words)
    if first and second and second.startswith(first):
        words = words[1:]  # llama3 of llama3_70b
    elif second and second in first:
        words = words[:1]
    plan.model = " ".join(word for word in words if word) or plan.model
    plan.details["model_words"] = [settings.text("hf_path"), plan.model]


def _data_parallel(settings: Settings, sizes: JobSizes, plan: LaunchPlan) -> None:
    sizes.settle()
    replicate = settings.whole("dp_replicate") or 1
    shard = settings.whole("dp_shard")
    shard = -1 if shard is None else shard
    cut = (plan.tp or 1) * (plan.pp or 1) * (plan.cp or 1) * replicate
    world = sizes.world
    if world is None and shard is not None and shard > 0:
        world = cut * shard
        sizes.put("total", world, "product of the sizes")
        sizes.settle()
    plan.nodes, plan.accelerators_per_node, plan.accelerators_used = sizes.nodes, sizes.per_node, world
    if shard == -1:
        shard = world // cut if world and world >= cut else None
    elif shard and world and shard * cut != world:
        settings.wrong(
            settings.by_key["dp_shard"],
            f"shard x replicate x tp x pp x cp = {shard * cut}, but there are {world} accelerators; nearest: -1",
        )
    if shard is not None:
        plan.dp = shard * replicate
        plan.fsdp = {"shard": shard, "replicate": replicate}
    has_pipeline = (plan.pp or 1) > 1
    reshard = settings.text("reshard") or "default"
    keeps = reshard == "never" or (reshard == "default" and has_pipeline)
    sharded = (shard or 1) > 1 or (plan.cp or 1) > 1
    plan.zero = (2 if keeps else 3) if sharded else 0
    if plan.fsdp is not None:
        plan.fsdp["reshard_after_forward"] = reshard
    if (plan.tp or 1) > 1:
        said = settings.has("sequence_parallel")
        plan.sequence_parallel = settings.true("sequence_parallel") if said else plan.default("sequence_parallel", True)
    if settings.true("cpu_offload"):
        plan.offload = {"optimizer": True}


def _experts(settings: Settings, plan: LaunchPlan) -> None:
    ep = settings.whole("ep")
    if ep is not None:
        plan.ep = ep
        given = settings.whole("expert_tp")
        # experts take their ranks from data and tensor parallel alike; only a size of their own cuts them inside
        plan.expert_tp = given if given is not None else plan.default("expert_tp", 1)
        if plan.accelerators_used and plan.pp:
            plan.expert_dp = max(plan.accelerators_used // (plan.pp * ep * (plan.expert_tp or 1)), 1)


def _stages(settings: Settings, vocabulary: Vocabulary, plan: LaunchPlan, *, recipe: bool) -> None:
    if plan.pp is None:
        return
    if plan.pp == 1:
        plan.virtual_stages, plan.schedule = 1, "none"
        return
    named = settings.text("schedule") or ("" if recipe else plan.default("schedule", "1F1B"))
    known = vocabulary.table("schedules")
    found = next((one for name, one in known.items() if str(name).lower() == named.lower()), None)
    if found is None:
        if settings.has("schedule"):
            allowed = ", ".join(map(str, known))
            settings.wrong(settings.by_key["schedule"], f"got '{named}'; allowed: {allowed}")
        return
    plan.schedule = found["name"]
    layers, chunk = plan.details.get("layers"), settings.whole("layers_per_chunk")
    if chunk and layers:
        plan.virtual_stages = max(round(layers / chunk / plan.pp), 1)
    elif found["stages"] > 1:
        plan.virtual_stages = plan.default("virtual_stages", found["stages"])
    else:
        plan.virtual_stages = 1


def _batches(settings: Settings, plan: LaunchPlan, *, recipe: bool) -> None:
    plan.seq_len = settings.whole("seq_len")
    if plan.seq_len is None and not recipe:
        plan.seq_len = plan.default("seq_len", 2048)
    local = settings.whole("local_batch")
    total = settings.whole("global_batch")
    tokens, each = settings.whole("tokens_per_step"), settings.whole("tokens_per_micro_batch")
    if each and plan.seq_len:
        local = max(each // plan.seq_len, 1)
    if tokens and plan.seq_len:
        total = tokens // plan.seq_len
    if local is None:
        local = None if recipe else plan.default("local_batch", 8)
    if local is None:
        plan.global_batch = total
        return
    if total in (None, -1):
        total = local * plan.dp if plan.dp else None
        if not recipe:
            plan.defaults["global_batch"] = "local batch x dp"
    plan.global_batch = total
    plan.micro_batch = local
    if (plan.pp or 1) > 1:
        given = settings.whole("pp_micro_batch")
        if (count := settings.whole("pp_micro_batches")) and local % count == 0:
            given = local // count
        plan.micro_batch = given if given else plan.default("pipeline_parallel_microbatch_size", 1)
        if plan.micro_batch and local % plan.micro_batch == 0:
            plan.micro_batches = local // plan.micro_batch
        else:
            plan.wrong(f"a local batch of {local} is no multiple of the pipeline's micro-batch of {plan.micro_batch}")
    if total and plan.dp:
        if total % (local * plan.dp):
            plan.wrong(f"a global batch of {total} is no multiple of local batch x dp = {local} x {plan.dp}")
        else:
            plan.grad_accumulation = total // (local * plan.dp)


def _formats(settings: Settings, vocabulary: Vocabulary, plan: LaunchPlan) -> None:
    plan.precision = _TYPES.get(settings.text("compute_dtype") or "bfloat16", "bf16")
    converters = vocabulary.table("converters")
    made = [converters.get(word) or converters.get(word.rpartition(".")[0]) for word in settings.words("converters")]
    made += ["fp8"] if settings.true("fp8_old") else []
    if "nvfp4" in made:
        plan.precision = "nvfp4"
    elif "mxfp8" in made:
        plan.precision, plan.fp8 = "fp8", {"recipe": "mxfp8"}
    elif "fp8" in made:
        recipe = settings.text("fp8_recipe")
        plan.precision, plan.fp8 = "fp8", {"recipe": f"dynamic {recipe or 'tensorwise'}"}


def _recompute(settings: Settings, vocabulary: Vocabulary, plan: LaunchPlan, *, recipe: bool) -> None:
    mode = settings.text("recompute")
    if mode is None and (named := settings.text("recompute_class")):
        mode = next((word for word in ("selective", "full") if word in named.lower()), None)
    if mode is None:
        if not recipe:
            plan.recompute = {
                "granularity": plan.default("recompute", "selective"),
                "method": _option(plan, vocabulary),
            }
        return
    if mode not in ("none", "selective", "full", "memory_budget"):
        settings.wrong(settings.by_key["recompute"], f"got '{mode}'; allowed: none, selective, full, memory_budget")
        return
    if mode == "none":
        plan.recompute = "none"
    elif mode == "selective":
        option = settings.text("recompute_option")
        plan.recompute = {
            "granularity": "selective",
            "method": option or plan.default("recompute.method", _option(plan, vocabulary)),
        }
    else:
        plan.recompute = {"granularity": mode}


def _option(plan: LaunchPlan, vocabulary: Vocabulary) -> str:
    """What selective recomputation chooses by default: every second layer in the TOML's time, operators since."""
    return "2" if plan.tool_version_basis == vocabulary.data["old_basis"] else "op"
