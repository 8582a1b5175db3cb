"""Settings of MindFormers' YAML as a plan."""

from __future__ import annotations

from typing import Any

from cmsim.launch.plan import LaunchPlan
from cmsim.launch.settings import Settings
from cmsim.launch.sizes import JobSizes
from cmsim.launch.vocabulary import Vocabulary

_DIMS = (
    "layers",
    "hidden",
    "ffn",
    "heads",
    "kv_groups",
    "head_dim",
    "vocab",
    "experts",
    "topk",
    "expert_ffn",
    "shared_expert_ffn",
)
_LATENT = ("q_lora_rank", "kv_lora_rank", "nope_dim", "rope_dim", "v_head_dim")


def resolve(
    settings: Settings,
    sizes: JobSizes,
    vocabulary: Vocabulary,
    plan: LaunchPlan,
    *,
    recipe: bool = False,  # noqa: ARG001
) -> None:
    plan.model = settings.text("model_word")
    dims(settings, plan)
    for key in ("tp", "pp", "cp", "dp"):
        value = settings.whole(key)
        setattr(plan, key, value if value is not None else plan.default(key, 1))
    cut = (plan.tp or 1) * (plan.pp or 1) * (plan.cp or 1)
    world = cut * (plan.dp or 1)
    sizes.settle()
    if sizes.world is not None and sizes.world != world and "comment" not in sizes.where.values():
        plan.wrong(
            f"dp x tp x pp x cp = {world}, but {sizes.world} devices are started; "
            f"nearest: dp = {sizes.world // cut or 1}"
        )
    plan.accelerators_used = world
    if sizes.world == world:
        plan.nodes, plan.accelerators_per_node = sizes.nodes, sizes.per_node
    if (plan.model_dims or {}).get("experts"):
        ep = settings.whole("ep")
        plan.ep = ep if ep is not None else plan.default("ep", 1)
        plan.expert_tp = plan.tp
        plan.expert_dp = max(world // ((plan.ep or 1) * (plan.tp or 1) * (plan.pp or 1)), 1)
    if (plan.tp or 1) > 1:
        plan.sequence_parallel = settings.true("sequence_parallel")
    _stages(settings, vocabulary, plan)
    _batches(settings, plan)
    named = settings.text("compute_dtype")
    types = vocabulary.table("types")
    plan.precision = types.get(named or "", named) if named else plan.default("precision", "fp16")
    _recompute(settings, plan)
    plan.zero = 1 if settings.true("parallel_optimizer") else 0


def dims(settings: Settings, plan: LaunchPlan) -> None:
    out: dict[str, Any] = {}
    for key in _DIMS:
        value = settings.whole(key)
        if value is not None and not (key == "experts" and value <= 1):
            out[key] = value
    shared = settings.whole("shared_experts")
    if shared and out.get("expert_ffn"):
        out["shared_expert_ffn"] = shared * out["expert_ffn"]
    for key in ("dense_layers", "mtp_layers"):
        value = settings.whole(key)
        if value:
            out[key] = value
    if settings.whole("kv_lora_rank"):
        out["attention"] = "mla"
        out.pop("kv_groups", None)
        plan.details |= {key: value for key in _LATENT if (value := settings.whole(key)) is not None}
    if "experts" not in out:
        out.pop("topk", None)
    plan.details |= {"gated": True, "tied": False}
    plan.model_dims = out or None


def _stages(settings: Settings, vocabulary: Vocabulary, plan: LaunchPlan) -> None:
    if plan.pp == 1:
        plan.virtual_stages, plan.schedule = 1, "none"
        return
    virtual = settings.whole("virtual_stages") or 1
    on = settings.true("interleave")
    named = settings.text("scheduler")
    if virtual > 1 and settings.has("interleave") and not on:
        plan.warn.append("pp_interleave_num has no effect without pipeline_interleave")
        virtual = 1
    plan.virtual_stages = virtual
    plan.schedule = "interleaved_1f1b" if virtual > 1 else "1f1b"
    if named and on:
        known = vocabulary.table("schedulers")
        if named not in known:
            allowed = ", ".join(sorted(known))
            settings.wrong(settings.by_key["scheduler"], f"got '{named}'; allowed: {allowed}")
        elif not (known[named] == "1f1b" and virtual > 1):
            plan.schedule = known[named]


def _batches(settings: Settings, plan: LaunchPlan) -> None:
    plan.seq_len = settings.whole("seq_len")
    plan.micro_batch = settings.whole("micro_batch") or plan.default("micro_batch", 1)
    count = settings.whole("micro_batches")
    copies = settings.whole("copies") or 1
    if copies > 1:  # counts in the batch; that copies hide each other's communication is not modelled
        settings.unread[settings.by_key["copies"].name] = None
    steps = settings.whole("accumulation") or 1
    dp = plan.dp or 1
    if (plan.pp or 1) > 1:
        plan.micro_batches = count if count else plan.default("micro_batches", 1)
        plan.global_batch = (plan.micro_batch or 1) * dp * (plan.micro_batches or 1) * copies
        if steps > 1:
            plan.warn.append("gradient_accumulation_steps has no effect with a pipeline")
        if plan.micro_batches and plan.micro_batches < (plan.pp or 1):
            plan.wrong(f"micro_batch_num = {plan.micro_batches} is below pipeline_stage; allowed: {plan.pp} or more")
        return
    plan.global_batch = (plan.micro_batch or 1) * dp * copies * steps
    if steps > 1:
        plan.grad_accumulation = steps


def _recompute(settings: Settings, plan: LaunchPlan) -> None:
    whole, some = settings.by_key.get("recompute"), settings.by_key.get("select_recompute")
    if whole is not None and (whole.value is True or (len(whole.values) > 1 and any(whole.values))):
        plan.recompute = {"granularity": "full"}
        if len(whole.values) > 1 or isinstance(whole.value, list | tuple):
            plan.recompute["layers_of_stages"] = list(whole.values)
    elif whole is not None and isinstance(whole.value, int) and whole.value:
        plan.recompute = {"granularity": "full", "num_layers": whole.value}
    elif some is not None and some.value not in (False, None):
        plan.recompute = {"granularity": "selective"}
    elif whole is None:
        plan.recompute = plan.default("recompute", "none")
    else:
        plan.recompute = "none"
