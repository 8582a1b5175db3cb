"""Iterations of GPT models on one node of A100, as vTrain was validated with (arXiv:2312.12391)."""

from __future__ import annotations

from cmsim.published.case import Plan
from cmsim.published.forms.form import Cells, Form, gpt, needed, real

_TIME = "iteration time (ms)"
_COLUMNS = (
    *("# GPUs", "global batch", "micro batch", "hidden size", "attention heads", "# layers", "sequence length"),
    *("tensor parallelism", "data parallelism", "pipeline parallelism"),
)
_VOCAB = 50257


def _plan(cells: Cells) -> Plan:
    length = needed(cells, "sequence length")
    keys = {
        "sequence_length": length,
        "global_batch": needed(cells, "global batch"),
        "micro_batch": needed(cells, "micro batch"),
        "parallel.tp": needed(cells, "tensor parallelism"),
        "parallel.dp": needed(cells, "data parallelism"),
        "parallel.pp": needed(cells, "pipeline parallelism"),
    }
    config = gpt(
        needed(cells, "hidden size"), needed(cells, "attention heads"), needed(cells, "# layers"), _VOCAB, length
    )
    return Plan("A100", "GPT", "FP16", needed(cells, "# GPUs"), keys, config)


def _step_s(cells: Cells, _: float) -> float | None:
    value = real(cells, _TIME)
    return None if value is None else value / 1e3


FORM = Form("vtrain", _COLUMNS, _plan, _step_s, lambda _, number: f"vtrain-{number:03d}")
