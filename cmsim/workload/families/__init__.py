"""How a ``config.json`` becomes the sizes of a model: a function per family, by the file's ``model_type``.

Each turns its family's keys into the fields of `cmsim.workload.model.ModelSpec`. What of a file is not read is judged
by one list (`settings`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cmsim.workload.families import grouped, latent, mixtures, states
from cmsim.workload.families.encoder import bert, vit
from cmsim.workload.families.gpt import gpt2
from cmsim.workload.families.keys import Keys
from cmsim.workload.families.settings import SETTINGS, settle
from cmsim.workload.families.stored import Stored, stored_in
from cmsim.workload.families.towers import text_tower, vision_tower

#: how each ``model_type`` is read
FAMILIES: dict[str, Callable[[Keys], dict[str, Any]]] = {
    "llama": grouped.llama,
    "mistral": grouped.mistral,
    "phi3": grouped.phi3,
    "qwen2": grouped.qwen2,
    "qwen2_vl": grouped.qwen2,
    "qwen2_vl_text": grouped.qwen2,
    "qwen2_5_vl": grouped.qwen2,
    "qwen2_5_vl_text": grouped.qwen2,
    "qwen2_5_omni_text": grouped.qwen2,
    "qwen3": grouped.qwen3,
    "qwen3_vl_text": grouped.qwen3,
    "glm": grouped.glm,
    "glm4": grouped.glm4,
    "glm4v_text": grouped.glm4,
    "gemma": grouped.gemma,
    "gemma2": grouped.gemma2,
    "gemma3": grouped.gemma3,
    "gemma3_text": grouped.gemma3,
    "hunyuan_v1_dense": grouped.hunyuan_dense,
    "ernie4_5": grouped.ernie,
    "nemotron": grouped.nemotron,
    "PanguEmbedded": grouped.pangu_embedded,
    "qwen2_moe": mixtures.qwen2_moe,
    "qwen3_moe": mixtures.qwen3_moe,
    "qwen3_vl_moe_text": mixtures.qwen3_moe,
    "qwen3_omni_moe_text": mixtures.qwen3_moe,
    "mixtral": mixtures.mixtral,
    "gpt_oss": mixtures.gpt_oss,
    "glm4_moe": mixtures.glm4_moe,
    "glm4v_moe_text": mixtures.glm4_moe,
    "minimax_m2": mixtures.minimax_m2,
    "llama4": mixtures.llama4,
    "llama4_text": mixtures.llama4,
    "hunyuan": mixtures.hunyuan_moe,
    "hunyuan_v1_moe": mixtures.hunyuan_moe,
    "ernie4_5_moe": mixtures.ernie_moe,
    "PanguProMoE": mixtures.pangu_pro_moe,
    "deepseek_v2": latent.deepseek,
    "deepseek_v3": latent.deepseek,
    "kimi_k2": latent.deepseek,
    "deepseek_v32": latent.deepseek_indexed,
    "pangu_ultra_moe": latent.pangu_ultra_moe,
    "qwen3_next": states.qwen3_next,
    "qwen3_5_text": states.qwen3_5,
    "qwen3_5_moe_text": states.qwen3_next,
    "minimax": states.minimax,
    "minimax_m1": states.minimax,
    "minimax_text_01": states.minimax,
    "nemotron_h": states.nemotron_h,
    "gpt2": gpt2,
    "vit": vit,
    "bert": bert,
}

__all__ = ["FAMILIES", "SETTINGS", "Keys", "Stored", "settle", "stored_in", "text_tower", "vision_tower"]
