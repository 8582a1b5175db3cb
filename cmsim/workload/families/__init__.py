"""How a ``config.json`` becomes the sizes of a model: a function per family, by the file's ``model_type``.

Each turns its family's keys into the fields of `cmsim.workload.model.ModelSpec`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cmsim.workload.families.encoder import bert, vit
from cmsim.workload.families.gpt import gpt2
from cmsim.workload.families.grouped import (
    gpt_oss,
    llama,
    mixtral,
    pangu_embedded,
    pangu_pro_moe,
    qwen2,
    qwen3,
    qwen3_moe,
)
from cmsim.workload.families.keys import Keys
from cmsim.workload.families.latent import deepseek, pangu_ultra_moe

#: how each ``model_type`` is read
FAMILIES: dict[str, Callable[[Keys], dict[str, Any]]] = {
    "llama": llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "qwen3_moe": qwen3_moe,
    "mixtral": mixtral,
    "deepseek_v2": deepseek,
    "deepseek_v3": deepseek,
    "gpt2": gpt2,
    "gpt_oss": gpt_oss,
    "pangu_ultra_moe": pangu_ultra_moe,
    "PanguEmbedded": pangu_embedded,
    "PanguProMoE": pangu_pro_moe,
    "vit": vit,
    "bert": bert,
}

__all__ = ["FAMILIES", "Keys"]
