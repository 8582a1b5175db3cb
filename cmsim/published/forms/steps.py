"""Steps as many sources publish them: a metric a row, with the plan of its run (``validation_training.csv``)."""

from __future__ import annotations

import re
from typing import Any

from cmsim.published.case import NoPlan, RowPlan
from cmsim.published.forms.form import Cells, TableForm, gpt, needed, real, whole
from cmsim.units import TERA

_SIZES = re.compile(r"heads (\d+), hidden (\d+), layers (\d+)(?:, vocab (\d+))?")
_LAYERS = re.compile(r"layers (\d+)")
_COLUMNS = (
    *("id", "system", "model", "n_accelerators", "precision", "tp", "pp", "cp", "ep", "dp", "vpp"),
    *("micro_batch", "global_batch", "seq_len", "conditions", "source", "where"),
)


def _plan(cells: Cells) -> RowPlan:
    length, batch = needed(cells, "seq_len"), needed(cells, "global_batch")
    stages, virtual, experts = whole(cells, "pp") or 1, whole(cells, "vpp"), whole(cells, "ep")
    sharded = re.search(r"FSDP=(\d+)", cells["conditions"])
    keys: dict[str, Any] = {
        "sequence_length": length,
        "global_batch": batch,
        "micro_batch": whole(cells, "micro_batch") or None,
        "parallel.tp": whole(cells, "tp") or 1,
        "parallel.pp": stages,
        "parallel.cp": whole(cells, "cp") or 1,
        "parallel.dp": whole(cells, "dp") or "auto",
        "parallel.ep": experts or None,
        "parallel.virtual_stages": virtual or None,
        "schedule": "interleaved" if virtual and virtual > 1 else None,
    }
    # of a row with two precisions the condition is about the other one
    if sharded and int(sharded[1]) and "parenthesised" not in cells["precision"]:
        keys |= {"zero_stage": 3, "fsdp": "full"}
    sizes, layers = _SIZES.search(cells["model"]), _LAYERS.search(cells["model"])
    config: dict[str, Any] = {}
    change: dict[str, Any] = {}
    if sizes:
        config = _gpt(sizes, length)
    elif layers:
        change = {"num_hidden_layers": int(layers[1])}
    return RowPlan(
        cells["system"], cells["model"], cells["precision"], needed(cells, "n_accelerators"), keys, config, change
    )


def _gpt(sizes: re.Match[str], length: int) -> dict[str, Any]:
    heads, hidden, layers, vocab = (int(one) if one else None for one in sizes.groups())
    assert hidden and heads and layers
    return gpt("steps gpt", hidden, heads, layers, length, vocab)


def _step_s(cells: Cells, model_FLOP: float) -> float | None:
    """A step's time from whichever metric the row has. model_FLOP: of the predicted step, counted
    causal, where the source counts so; else 0 [FLOP]"""
    try:
        value, count = real(cells, "value"), needed(cells, "n_accelerators")
        batch, length = needed(cells, "global_batch"), needed(cells, "seq_len")
    except NoPlan:
        return None
    if not value:
        return None
    tokens, metric = batch * length, cells["metric"]
    if metric == "step_time":
        return value
    if metric == "tokens_per_sec_per_gpu":
        return tokens / count / value
    if metric == "tokens_per_sec_total":
        return tokens / value
    sizes = _SIZES.search(cells["model"])
    if sizes and metric in ("hw_tflops_per_gpu", "model_tflops_per_gpu"):
        return _gpt_FLOP(sizes, length, batch, recomputed=metric.startswith("hw")) / count / value / TERA
    if metric == "model_tflops_per_gpu" and model_FLOP:
        return model_FLOP / count / value / TERA
    return None


def _gpt_FLOP(sizes: re.Match[str], length: int, batch: int, *, recomputed: bool) -> float:
    """FLOPs of a step as the source counts them. Source: Narayanan et al., arXiv:2104.04473, equation 3; without
    recomputation three quarters of the layers' part."""
    config = _gpt(sizes, length)
    hidden, layers, vocab = (float(config[key]) for key in ("n_embd", "n_layer", "vocab_size"))
    each = 96 if recomputed else 72
    of_layers = each * batch * length * layers * hidden**2 * (1 + length / (6 * hidden))
    return of_layers + 6 * batch * length * hidden * vocab


def _id(cells: Cells, number: int) -> str:
    return cells.get("id") or str(number)


FORM = TableForm("steps", _COLUMNS, _plan, _step_s, _id)
