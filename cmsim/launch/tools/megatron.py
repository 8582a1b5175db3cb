"""Settings of Megatron-LM and its kin (MindSpeed-LLM, Megatron-Bridge, Primus, Megatron-DeepSpeed) as a plan."""

from __future__ import annotations

import ast
import re
from typing import Any

from cmsim.launch.plan import LaunchPlan
from cmsim.launch.python import Values
from cmsim.launch.settings import Settings
from cmsim.launch.sizes import JobSizes
from cmsim.launch.vocabulary import Vocabulary

#: what sharding strategies leave on every rank, as a stage of ZeRO
_STAGES = {"no_shard": 0, "optim": 1, "optim_grads": 2, "optim_grads_params": 3}
_DIMS = (
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
    settings: Settings, sizes: JobSizes, vocabulary: Vocabulary, plan: LaunchPlan, *, recipe: bool = False
) -> None:
    """Fill a plan. ``recipe``: what the file does not say is a named recipe's, and no default of the tool."""
    dims(settings, plan, recipe=recipe)
    parallel(settings, sizes, plan, recipe=recipe)
    stages(settings, vocabulary, plan, recipe=recipe)
    batches(settings, plan, recipe=recipe)
    formats(settings, vocabulary, plan, recipe=recipe)
    recompute(settings, plan, recipe=recipe)
    sharding(settings, plan, recipe=recipe)


def dims(settings: Settings, plan: LaunchPlan, *, recipe: bool) -> None:
    out: dict[str, Any] = {}
    layers = settings.whole("layers")
    absent = [word for word in settings.words("noop_layers") if word.isdigit()]
    if layers is not None:
        out["layers"] = layers - len(absent)
        if absent:
            out["layers_padded"] = layers
    is_latent = settings.true("mla")
    for key in _DIMS:
        if is_latent and key in ("kv_groups", "head_dim"):
            continue
        value = settings.whole(key)
        if value is not None and not (key == "experts" and value <= 1):
            out[key] = value
    if "kv_groups" in out and settings.has("gqa") is False and not recipe and "group" not in plan.tool and _is_lm(plan):
        plan.warn.append("query groups are given without --group-query-attention, and so have no effect")
        del out["kv_groups"]
    shared = settings.whole("shared_experts")
    if shared and "shared_expert_ffn" not in out and out.get("expert_ffn"):
        out["shared_expert_ffn"] = shared * out["expert_ffn"]
    if "experts" in out:
        if "topk" not in out and not recipe:
            out["topk"] = plan.default("model_dims.topk", 2)
        _dense_layers(settings, out, plan)
    else:
        out.pop("topk", None)
    mtp = settings.whole("mtp_layers")
    if mtp:
        out["mtp_layers"] = mtp
    if is_latent:
        out["attention"] = "mla"
        plan.details |= {key: value for key in _LATENT if (value := settings.whole(key)) is not None}
    if out.get("hidden") and "ffn" not in out and not recipe:
        plan.default("model_dims.ffn", "4 x hidden")
    plan.details |= {
        "gated": settings.true("gated"),
        "tied": not settings.true("untied"),
        "max_positions": settings.whole("max_positions"),
        "expert_groups": settings.whole("expert_groups"),
        "topk_groups": settings.whole("topk_groups"),
        "hybrid": settings.text("hybrid_pattern"),
    }
    order = ("layers", "layers_padded", *_DIMS, "dense_layers", "mtp_layers", "attention")
    plan.model_dims = {key: out[key] for key in order if key in out} or None


def _is_lm(plan: LaunchPlan) -> bool:
    return plan.tool in ("megatron-lm", "mindspeed-llm")


def _dense_layers(settings: Settings, out: dict[str, Any], plan: LaunchPlan) -> None:
    """Layers without experts, in front: by a number, or by a pattern of zeros and ones."""
    if (dense := settings.whole("dense_layers")) is not None:
        if dense:
            out["dense_layers"] = dense
        return
    freq = settings.get("moe_layer_freq")
    pattern = freq if isinstance(freq, list | tuple) else None
    if isinstance(freq, str) and not freq.strip().isdigit():
        try:
            pattern = Values("").of(ast.parse(freq.strip()[:500], mode="eval").body, {})
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pattern = None
        if not isinstance(pattern, list | tuple):
            settings.wrong(
                settings.by_key["moe_layer_freq"], f"got '{freq}'; allowed: a number, or a list such as ([0]*3+[1]*58)"
            )
            return
    if pattern is None:
        every = settings.whole("moe_layer_freq") or 1
        if every > 1 and out.get("layers"):
            pattern = [1 if n % every == 0 else 0 for n in range(out["layers"])]
        else:
            return
    zeros = [n for n, one in enumerate(pattern) if not one]
    if zeros:
        out["dense_layers"] = len(zeros)
        if zeros != list(range(len(zeros))):
            plan.warn.append("dense layers stand between those with experts; they are taken as the first ones")


def parallel(settings: Settings, sizes: JobSizes, plan: LaunchPlan, *, recipe: bool) -> None:
    for key in ("tp", "pp", "cp"):
        value = settings.whole(key)
        if value is None and not recipe:
            value = plan.default(key, 1)
        setattr(plan, key, value)
    sizes.settle()
    plan.nodes, plan.accelerators_per_node, plan.accelerators_used = sizes.nodes, sizes.per_node, sizes.world
    cut = (plan.tp or 1) * (plan.pp or 1) * (plan.cp or 1)
    left = [key for key in ("tp", "pp", "cp") if getattr(plan, key) is None]
    if plan.accelerators_used and plan.accelerators_used >= cut and not {"tp", "pp"} & set(left):
        plan.dp = plan.accelerators_used // cut
        if left:
            plan.warn.append(f"{', '.join(left)} is left to the recipe; dp is worked out as if it were 1")
    _experts(settings, plan, recipe=recipe)
    plan.details["cp_comm"] = settings.text("cp_algorithm") or settings.said.get("cp-comm-type")
    plan.details["cp_a2a"] = settings.said.get("hierarchical-context-parallel-sizes")
    if (
        settings.has("cp_algorithm") and (plan.cp or 1) > 1
    ):  # says how, which is not modelled; without cp it says nothing
        settings.unread[settings.by_key["cp_algorithm"].name] = None
    if settings.true("sequence_parallel"):
        if (plan.tp or 1) > 1:
            plan.sequence_parallel = True
        elif not recipe:
            plan.warn.append("sequence parallel without tensor parallel has no effect")
    elif settings.has("sequence_parallel") or not recipe:
        plan.sequence_parallel = False if (plan.tp or 1) > 1 else None


def _experts(settings: Settings, plan: LaunchPlan, *, recipe: bool) -> None:
    if not (plan.model_dims or {}).get("experts") and not settings.has("ep"):
        return
    ep = settings.whole("ep")
    plan.ep = plan.default("ep", 1) if ep is None and not recipe else ep
    etp = settings.whole("expert_tp")
    if settings.true("tp_extends_ep") and plan.ep:
        plan.ep_flag, plan.ep, plan.expert_tp = plan.ep, plan.ep * (plan.tp or 1), 1
    elif etp is not None:
        plan.expert_tp = etp
    elif not recipe and plan.tp is not None:
        plan.expert_tp = plan.tp
        plan.defaults["expert_tp"] = "tp"
    if plan.accelerators_used and plan.ep and plan.expert_tp and plan.pp:
        plan.expert_dp = max(plan.accelerators_used // (plan.ep * plan.expert_tp * plan.pp), 1)


def stages(settings: Settings, vocabulary: Vocabulary, plan: LaunchPlan, *, recipe: bool) -> None:
    pp = plan.pp
    layers = (plan.model_dims or {}).get("layers_padded") or (plan.model_dims or {}).get("layers")
    given = settings.whole("virtual_stages")
    chunk = settings.whole("layers_per_chunk")
    if given is not None and chunk is not None:
        settings.wrong(
            settings.by_key["virtual_stages"],
            "contradicts --num-layers-per-virtual-pipeline-stage; allowed: one of them",
        )
    virtual: int | None = given
    if layout := settings.text("layout"):
        pieces = layout_pieces(layout)
        if pieces is None or not pp or len(pieces) % pp:
            settings.wrong(
                settings.by_key["layout"], f"has {len(pieces or [])} pieces between |; allowed: a multiple of pp = {pp}"
            )
        else:
            virtual = len(pieces) // pp
            plan.details["pieces"] = pieces
            plan.stage_layers = [sum(pieces[stage::pp]) for stage in range(pp)]
    elif chunk and layers and pp:
        first, last = settings.whole("first_stage_layers"), settings.whole("last_stage_layers")
        each = layers / pp if first is None and last is None else _middle(layers, pp, first, last)
        if each % chunk:
            settings.wrong(
                settings.by_key["layers_per_chunk"],
                f"{each:g} layers of a stage ({layers} layers / pp {pp}) do not divide by {chunk} a virtual stage",
            )
        virtual = max(int(each // chunk), 1)
    if listed := settings.words("layer_list"):
        counts = [int(one) for one in listed if one.isdigit()]
        if len(counts) != pp or (layers and sum(counts) != layers):
            allowed = f"{pp} numbers, one a stage, of {layers} layers together"
            settings.wrong(settings.by_key["layer_list"], f"got {','.join(listed)}; allowed: {allowed}")
        plan.stage_layers = counts
    ends = {key: settings.whole(f"{key}_stage_layers") for key in ("first", "last")}
    if any(value is not None for value in ends.values()) and not plan.stage_layers:
        plan.stage_layers = {key: value for key, value in ends.items() if value is not None}
    plan.details["counted_layers"] = sum(settings.true(key) for key in ("embedding_counts", "loss_counts"))
    plan.details["absent"] = [int(word) for word in settings.words("noop_layers") if word.isdigit()]
    plan.details["counted"] = [settings.true(key) for key in ("embedding_counts", "loss_counts")]
    named = settings.text("schedule")
    if named:
        plan.virtual_stages = int(vocabulary.table("schedules").get(named, virtual or 1))
        plan.schedule = named
        return
    if pp is None:
        plan.virtual_stages = virtual
        return
    if virtual is None and pp > 1 and not recipe:
        plan.default("virtual_stages", 1)
    if pp == 1 and virtual and virtual > 1:
        plan.warn.append("virtual stages without a pipeline have no effect")
        virtual = 1
    plan.virtual_stages = virtual if virtual is not None or (recipe and settings.has("virtual_stages") is False) else 1
    if plan.virtual_stages is None and recipe:
        plan.virtual_stages = 1 if pp == 1 else None
    if plan.virtual_stages is None:
        return  # the recipe's, and with it the schedule
    plan.schedule = "none" if pp == 1 else "interleaved_1f1b" if (plan.virtual_stages or 1) > 1 else "1f1b"


def _middle(layers: int, pp: int, first: int | None, last: int | None) -> float:
    inner = pp - (first is not None) - (last is not None)
    return (layers - (first or 0) - (last or 0)) / max(inner, 1)


def layout_pieces(text: str) -> list[int] | None:
    """Layers of each piece of a pipeline layout such as ``Et*3|(tt|)*29m|L``; None where it is none.

    >>> layout_pieces("Et|(tt|)*2L")
    [1, 2, 2, 0]
    """
    text = text.replace(",", "").replace(" ", "")
    if len(text) > 2_000 or re.search(r"[^EtmL|()*\d]", text):
        return None
    for _ in range(20):
        found = re.search(r"\(([^()]*)\)(?:\*(\d{1,4}))?|([EtmL|])\*(\d{1,4})", text)
        if not found:
            break
        body, times = (found[1], int(found[2] or 1)) if found[1] is not None else (found[3], int(found[4]))
        if len(body) * times > 50_000:
            return None
        text = text[: found.start()] + body * times + text[found.end() :]
    else:
        while found := re.search(r"([EtmL|])\*(\d{1,4})", text):
            text = text[: found.start()] + found[1] * int(found[2]) + text[found.end() :]
            if len(text) > 50_000:
                return None
    if re.search(r"[()*\d]", text):
        return None
    return [piece.count("t") for piece in text.split("|")]


def batches(settings: Settings, plan: LaunchPlan, *, recipe: bool) -> None:
    plan.micro_batch = settings.whole("micro_batch")
    plan.global_batch = settings.whole("global_batch")
    if plan.global_batch is None and plan.micro_batch and plan.dp and not recipe:
        plan.global_batch = plan.micro_batch * plan.dp
        plan.defaults["global_batch"] = "micro_batch x dp"
    plan.seq_len = settings.whole("seq_len")
    if settings.has("capacity_factor"):
        text = settings.text("capacity_factor") or ""
        plan.capacity_factor = float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else None


def formats(settings: Settings, vocabulary: Vocabulary, plan: LaunchPlan, *, recipe: bool) -> None:
    if settings.true("bf16") and settings.true("fp16"):
        settings.wrong(settings.by_key["fp16"], "contradicts bf16; allowed: one of them")
    base = "bf16" if settings.true("bf16") else "fp16" if settings.true("fp16") else None
    named = settings.text("compute_dtype") or settings.text("mixed_precision")
    if named:
        _named_format(named, settings, vocabulary, plan)
        return
    recipe_name = settings.text("fp8_recipe")
    if settings.true("fp4_format"):
        plan.precision = "nvfp4"
        plan.fp8 = None
        return
    old = "e4m3" if settings.true("fp8_e4m3") else "hybrid" if settings.true("fp8_hybrid") else None
    if old or settings.true("fp8_format"):
        said = old or settings.text("fp8_format") or "hybrid"
        plan.precision = "fp8"
        default = vocabulary.table("recipes").get("delayed", "delayed")
        plan.fp8 = {"format": said, "recipe": recipe_name or plan.default("fp8.recipe", default)}
    else:
        plan.precision = base if base or recipe else plan.default("precision", "fp32")


def _named_format(named: str, settings: Settings, vocabulary: Vocabulary, plan: LaunchPlan) -> None:
    known = vocabulary.table("formats")
    found = known.get(named.lower())
    if not isinstance(found, dict):
        key = "compute_dtype" if settings.has("compute_dtype") else "mixed_precision"
        allowed = ", ".join(sorted(name for name, one in known.items() if isinstance(one, dict)))
        settings.wrong(settings.by_key[key], f"got '{named}'; allowed: {allowed}")
        return
    plan.precision = found["precision"]
    if found.get("recipe"):
        said = settings.text("fp8_recipe")
        # the command line may say fp8 alone, and which in a flag of its own
        said_format = known.get(f"{named}_{said}") if said else None
        plan.fp8 = {"recipe": (said_format or found)["recipe"] if said_format or not said else said}


def recompute(settings: Settings, plan: LaunchPlan, *, recipe: bool) -> None:
    granularity = settings.text("recompute_granularity")
    granularity = None if granularity in ("None", "none", "null") else granularity
    modules = settings.words("recompute_modules")
    if settings.true("recompute_full") or settings.has("recompute_old_method"):
        granularity = "full"
    elif settings.true("recompute_selective"):
        if granularity == "full":
            settings.wrong(
                settings.by_key["recompute_selective"], "contradicts --recompute-granularity full; allowed: one of them"
            )
        granularity = "selective"
    elif settings.true("recompute_moe"):
        granularity, modules = granularity or "selective", [*modules, "moe"]
    elif granularity is None and modules:
        granularity = "selective"
    if granularity is None:
        if not recipe:
            plan.recompute = plan.default("recompute", "none")
        elif settings.has("recompute_granularity"):
            plan.recompute = "none"
        return
    if granularity not in ("full", "selective"):
        settings.wrong(settings.by_key["recompute_granularity"], f"got '{granularity}'; allowed: full, selective")
        return
    out: dict[str, Any] = {"granularity": granularity}
    if granularity == "selective":
        out["modules"] = modules or plan.default("recompute.modules", ["core_attn"])
    else:
        method = settings.text("recompute_method") or settings.text("recompute_old_method")
        if method is None and settings.true("recompute_full"):
            method = plan.default("recompute.method", "uniform")
        if method:
            out["method"] = method
        layers = settings.whole("recompute_layers")
        if layers is None and method and not recipe:
            layers = plan.default("recompute.num_layers", 1)
        if layers is not None:
            out["num_layers"] = layers
    plan.recompute = out


def sharding(settings: Settings, plan: LaunchPlan, *, recipe: bool) -> None:
    if settings.true("megatron_fsdp"):
        strategy = settings.text("sharding") or plan.default("fsdp.strategy", "optim_grads_params")
        plan.fsdp = {"implementation": "megatron", "strategy": strategy}
        plan.zero = _STAGES.get(strategy)
        if plan.zero is None:
            settings.wrong(settings.by_key["sharding"], f"got '{strategy}'; allowed: {', '.join(_STAGES)}")
    elif settings.true("torch_fsdp2"):
        plan.zero = 2 if settings.true("no_reshard") else 3
        plan.fsdp = {"implementation": "torch"}
    elif settings.true("zero3"):
        plan.zero = 3
    elif settings.has("zero"):
        plan.zero = settings.whole("zero")
    elif settings.true("distributed_optimizer"):
        plan.zero = 1
        copies = settings.whole("optimizer_instances")
        if copies and copies > 1:
            plan.zero_options = {"instances": copies}
    elif not recipe or settings.has("distributed_optimizer"):
        plan.zero = 0
    offload: dict[str, Any] = {}
    if settings.true("offload_optimizer"):
        offload["optimizer"] = True
    if (layers := settings.whole("offload_activations")) and layers > 0:
        offload["activations"] = layers
    if settings.true("offload_activations_fine"):
        offload["activations"] = True
    plan.offload = offload or None
    if (rank := settings.whole("lora_rank")) and (settings.has("lora_targets") or recipe):
        plan.lora = {"rank": rank, "targets": settings.words("lora_targets")}
    elif (settings.text("peft") or "").lower() == "lora":
        plan.lora = {"rank": plan.default("lora.rank", 32), "targets": []}
