"""Settings of DeepSpeed's JSON, its launcher, and the arguments of the script it starts, as a plan."""

from __future__ import annotations

from typing import Any

from cmsim.launch.plan import LaunchPlan
from cmsim.launch.settings import Settings
from cmsim.launch.sizes import JobSizes
from cmsim.launch.vocabulary import Vocabulary


def resolve(
    settings: Settings,
    sizes: JobSizes,
    vocabulary: Vocabulary,  # noqa: ARG001
    plan: LaunchPlan,
    *,
    recipe: bool = False,  # noqa: ARG001
) -> None:
    """Fill a plan; ``auto`` in the JSON is what the script's own argument says."""
    for key in ("micro_batch", "global_batch", "accumulation", "zero"):
        if settings.text(key) == "auto":
            del settings.by_key[key]
    sizes.settle()
    plan.nodes, plan.accelerators_per_node, plan.accelerators_used = sizes.nodes, sizes.per_node, sizes.world
    tp = settings.whole("tp")
    plan.tp = tp if tp and tp > 0 else plan.default("tp", 1)
    pp = settings.whole("pp")
    plan.pp = pp if pp else plan.default("pp", 1)
    plan.cp = settings.whole("cp") or 1
    cut = plan.tp * plan.pp * plan.cp
    if plan.accelerators_used and plan.accelerators_used >= cut:
        plan.dp = plan.accelerators_used // cut
    if plan.pp == 1:
        plan.virtual_stages, plan.schedule = 1, "none"
    plan.model = settings.text("model_word")
    plan.seq_len = settings.whole("seq_len")
    batches(settings, plan)
    if _on(settings, "bf16") and _on(settings, "fp16"):
        settings.wrong(settings.by_key["fp16"], "contradicts bf16; allowed: one of them")
    plan.precision = "bf16" if _on(settings, "bf16") else "fp16" if _on(settings, "fp16") else settings.text("dtype")
    if plan.precision is None:
        plan.precision = plan.default("precision", "fp32")
    if settings.true("recompute") or settings.has("recompute_section"):
        plan.recompute = {"granularity": "full"}
    else:
        plan.recompute = plan.default("recompute", "none")
    zero(settings, plan)
    if rank := settings.whole("lora_rank"):
        plan.lora = {"rank": rank, "targets": settings.words("lora_targets")}
    if settings.has("seq_len") or settings.has("recompute"):
        plan.note = "seq_len and recompute are arguments of the training script, and so its own convention"


def _on(settings: Settings, key: str) -> bool:
    return settings.has(key) and settings.text(key) != "auto" and settings.true(key)


def batches(settings: Settings, plan: LaunchPlan) -> None:
    """Micro-batch, steps of accumulation and global batch: the third of them where two are given."""
    micro, steps, total = (settings.whole(key) for key in ("micro_batch", "accumulation", "global_batch"))
    dp = plan.dp
    if dp:
        if total is None and micro:
            steps = steps or plan.default("grad_accumulation", 1)
            total = micro * steps * dp
        elif total and micro and steps is None:
            if total % (micro * dp) == 0:
                steps = total // (micro * dp)
            else:
                wrong(settings, plan, f"{total} is no multiple of micro-batch x dp = {micro} x {dp}")
        elif total and micro is None:
            steps = steps or plan.default("grad_accumulation", 1)
            if total % (steps * dp) == 0:
                micro = total // (steps * dp)
            else:
                wrong(settings, plan, f"{total} is no multiple of accumulation x dp = {steps} x {dp}")
        elif total and micro and steps and total != micro * steps * dp:
            said = f"{total} is not micro-batch x accumulation x dp = {micro} x {steps} x {dp} = {micro * steps * dp}"
            wrong(settings, plan, said)
    plan.micro_batch, plan.grad_accumulation, plan.global_batch = micro, steps, total


def wrong(settings: Settings, plan: LaunchPlan, message: str) -> None:
    setting = settings.by_key.get("global_batch")
    if setting is None:
        plan.wrong(message)
    else:
        settings.wrong(setting, f"a global batch of {message}")


def zero(settings: Settings, plan: LaunchPlan) -> None:
    stage = settings.whole("zero")
    plan.zero = stage if stage is not None else plan.default("zero", 0)
    options: dict[str, Any] = {}
    for key in ("offload_optimizer", "offload_param"):
        device = settings.text(key)
        if device and device != "none":
            options[key] = device
    if settings.true("offload_optimizer_flag"):
        options["offload_optimizer"] = "cpu"
    for key in ("hpz_partition", "mics_shard"):
        size = settings.whole(key)
        if size and size > 1:
            options[key] = size
    for key in ("quantized_weights", "quantized_gradients"):
        if settings.true(key):
            options[key] = True
    plan.zero_options = options or None
