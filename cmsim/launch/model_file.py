"""A model's sizes as a ``config.json``, in the form of the family that has such parts."""

from __future__ import annotations

from typing import Any

from cmsim.launch.plan import LaunchPlan
from cmsim.launch.vocabulary import data


def known_name(plan: LaunchPlan) -> str | None:
    """The built-in model with the same dimensions, or the one that the file's words mean where it gives none."""
    known = plan.details.get("known")
    if not known or not known.get("model"):
        return None
    dims = plan.model_dims or {}
    vocab = dims.get("vocab")
    if vocab and abs(vocab - known["vocab"]) >= 1024:
        return None
    if dims.get("dense_layers", known.get("dense_layers", 0)) != known.get("dense_layers", 0):
        return None
    return str(known["model"])


def config(plan: LaunchPlan) -> tuple[dict[str, Any] | None, list[str]]:
    """The keys of a config.json, and what of it was taken from elsewhere. None where sizes are missing.

    The notes say also why there is none.
    """
    sizes, notes = _sizes(plan)
    missing = [key for key in ("layers", "hidden", "heads") if not sizes.get(key)]
    if missing:
        return None, [f"the file does not give the model's {', '.join(missing)}"]
    if plan.details.get("hybrid"):
        notes.append("layers with a state (a hybrid pattern) are written as layers with attention")
    common = {
        "hidden_size": sizes["hidden"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "vocab_size": sizes["vocab"],
        "max_position_embeddings": max(sizes["max_positions"], plan.seq_len or 1),
        "tie_word_embeddings": bool(sizes["tied"]),
        "torch_dtype": "bfloat16",
    }
    if sizes.get("attention") == "mla":
        return common | _latent(sizes), notes
    common |= {"num_key_value_heads": sizes.get("kv_groups") or sizes["heads"]}
    if sizes.get("head_dim"):
        common |= {"head_dim": sizes["head_dim"]}
    if sizes.get("experts"):
        return common | _experts(sizes, notes), notes
    ffn = sizes.get("ffn") or 4 * sizes["hidden"]
    family = "llama" if sizes["gated"] else "nemotron"
    return {"model_type": family, **common, "intermediate_size": ffn}, notes


def _sizes(plan: LaunchPlan) -> tuple[dict[str, Any], list[str]]:
    """Dimensions that the file gives, filled up from the model it is guessed to be."""
    notes: list[str] = []
    sizes = {key: value for key, value in plan.details.items() if value is not None} | (plan.model_dims or {})
    known = plan.details.get("known")
    if known and not (plan.model_dims or {}).get("layers"):
        names = ("layers", "hidden", "heads", "kv_groups", "ffn", "experts", "topk", "expert_ffn")
        filled = {key: value for key, value in zip(names, known["dims"], strict=True) if value}
        sizes = {**sizes, **filled, **known.get("mla", {}), "attention": "mla" if known.get("mla") else ""}
        sizes |= {key: known[key] for key in ("head_dim", "dense_layers") if key in known}
        sizes |= {"gated": not known.get("plain"), "tied": known.get("tied", False)}
        sizes |= {"shared_expert_ffn": known["shared"] * filled["expert_ffn"]} if known.get("shared") else {}
        notes.append(f"the file gives no dimensions; they are those of {known['guess']}, by its name")
    if not sizes.get("vocab"):
        assumed = known["vocab"] if known else data("models")["assumed"]["vocab"]
        notes.append(
            f"the file gives no vocabulary; {assumed} is taken" + (f", as {known['guess']} has" if known else "")
        )
        sizes["vocab"] = assumed
    multiple = sizes.get("vocab_multiple") or 1
    sizes["vocab"] = -(-sizes["vocab"] // multiple) * multiple
    return {"max_positions": 1, "tied": False, "gated": True, **sizes}, notes


def _latent(sizes: dict[str, Any]) -> dict[str, Any]:
    assumed = data("models")["assumed"]["latent"]
    experts = sizes.get("experts") or 1
    shared = (sizes.get("shared_expert_ffn") or 0) // (sizes.get("expert_ffn") or 1)
    return {
        "model_type": "deepseek_v3",
        "intermediate_size": sizes.get("ffn") or 4 * sizes["hidden"],
        "q_lora_rank": sizes.get("q_lora_rank") or None,
        "kv_lora_rank": sizes.get("kv_lora_rank") or assumed["kv_lora_rank"],
        "qk_nope_head_dim": sizes.get("nope_dim") or assumed["nope_dim"],
        "qk_rope_head_dim": sizes.get("rope_dim") or assumed["rope_dim"],
        "v_head_dim": sizes.get("v_head_dim") or assumed["v_head_dim"],
        "num_key_value_heads": sizes["heads"],
        "n_routed_experts": experts,
        "num_experts_per_tok": sizes.get("topk") or 1,
        "moe_intermediate_size": sizes.get("expert_ffn") or sizes.get("ffn"),
        "n_shared_experts": shared,
        "first_k_dense_replace": sizes.get("dense_layers", 0),
        "moe_layer_freq": 1,
        "n_group": sizes.get("expert_groups") or 1,
        "topk_group": sizes.get("topk_groups") or 1,
        "num_nextn_predict_layers": sizes.get("mtp_layers", 0),
    }


def _experts(sizes: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    width = sizes.get("expert_ffn") or sizes.get("ffn") or 4 * sizes["hidden"]
    shared = sizes.get("shared_expert_ffn") or 0
    if not (shared or sizes.get("dense_layers") or sizes.get("mtp_layers")):
        return {
            "model_type": "mixtral",
            "intermediate_size": width,
            "num_local_experts": sizes["experts"],
            "num_experts_per_tok": sizes["topk"],
        }
    if shared % width:
        notes.append(f"a shared expert of {shared} is written as {-(-shared // width)} of {width}")
    return {
        "model_type": "glm4_moe",
        "intermediate_size": sizes.get("ffn") or width,
        "n_routed_experts": sizes["experts"],
        "num_experts_per_tok": sizes["topk"],
        "moe_intermediate_size": width,
        "n_shared_experts": -(-shared // width),
        "first_k_dense_replace": sizes.get("dense_layers", 0),
        "num_nextn_predict_layers": sizes.get("mtp_layers", 0),
        "n_group": sizes.get("expert_groups") or 1,
        "topk_group": sizes.get("topk_groups") or 1,
    }
