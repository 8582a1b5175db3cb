"""Models on Ascend, as the table of MindSpeed-LLM has them, with the flags of the scripts it names."""

from __future__ import annotations

import re
from typing import Any

from cmsim.published.case import NoPlan, RowPlan
from cmsim.published.forms.form import Cells, TableForm, needed, real, whole
from cmsim.published.names import config_of, found, names

_COLUMNS = ("model", "params", "cluster", "tokens_per_s_per_npu", "tp", "pp", "mbs", "gbs", "seq", "flags")


def _plan(cells: Cells) -> RowPlan:
    if not cells["tp"]:
        raise NoPlan("no script of this row: its plan is not known")
    cluster = re.fullmatch(r"(\d+)x(\d+)", cells["cluster"])
    if cluster is None:
        raise NoPlan(f"cluster: got {cells['cluster']!r}")
    count = int(cluster[1]) * int(cluster[2])
    tp, pp, cp = needed(cells, "tp"), needed(cells, "pp"), whole(cells, "cp") or 1
    layers, chunk = needed(cells, "layers"), whole(cells, "vpp_layers")
    virtual = layers // pp // chunk if chunk else None
    keys: dict[str, Any] = {
        "sequence_length": needed(cells, "seq"),
        "global_batch": needed(cells, "gbs"),
        "micro_batch": needed(cells, "mbs"),
        "parallel.tp": tp,
        "parallel.pp": pp,
        "parallel.cp": cp,
        "parallel.ep": whole(cells, "ep"),
        "parallel.sequence_parallel": "sequence-parallel" in cells["flags"],
        "parallel.virtual_stages": virtual,
        "schedule": "interleaved" if virtual and virtual > 1 else None,
    }
    if cells.get("nodes_match") != "False":
        keys["parallel.dp"] = max(count // (tp * pp * cp), 1)
    unsaid = () if "use-flash-attn" in cells["flags"] else ("attention without a fused kernel",)
    precision = "FP16" if "fp16" in cells["flags"].split() else "BF16"
    text = f"{cells['model']} {cells['params']}"
    return RowPlan("mindspeed", text, precision, count, keys, config=_config(cells, text), unsaid=unsaid)


def _config(cells: Cells, text: str) -> dict[str, Any]:
    """The model as the row and what is known of its family say it."""
    hidden, heads, layers = needed(cells, "hidden"), needed(cells, "heads"), needed(cells, "layers")
    line = found(names().sizes, f"mindspeed {text}", "sizes of a model")
    if line.model:
        return {**config_of(line.model), **line.set, "num_hidden_layers": layers}
    ffn, experts = whole(cells, "ffn"), whole(cells, "experts")
    length, tied = needed(cells, "seq"), "untie-embeddings-and-output-weights" not in cells["flags"].split()
    known = {"vocab_size": whole(cells, "vocab"), **line.set}
    if not known["vocab_size"]:
        raise NoPlan(f"no vocabulary known for '{text}'")
    if not ffn:
        if experts:
            raise NoPlan("experts without a gate: no family here has them")
        return {
            "model_type": "gpt2",
            "n_embd": hidden,
            "n_head": heads,
            "n_layer": layers,
            "n_positions": length,
            "tie_word_embeddings": tied,
            **known,
        }
    config: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": whole(cells, "kv_groups") or heads,
        "max_position_embeddings": length,
        "tie_word_embeddings": tied,
        **known,
    }
    if experts:
        config |= {"model_type": "mixtral", "num_local_experts": experts, "num_experts_per_tok": needed(cells, "topk")}
    return config


def _step_s(cells: Cells, _: float) -> float | None:
    rate, batch, length = real(cells, "tokens_per_s_per_npu"), real(cells, "gbs"), real(cells, "seq")
    if not rate or not batch or not length:
        return None
    nodes, each = cells["cluster"].split("x")
    return batch * length / rate / int(nodes) / int(each)


def _id(cells: Cells, number: int) -> str:
    return f"mindspeed-{number:02d}-{cells['model']}-{cells['params']}"


FORM = TableForm("mindspeed", _COLUMNS, _plan, _step_s, _id)
