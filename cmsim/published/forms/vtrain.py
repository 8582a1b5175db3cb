"""Iterations of GPT models on one node, as vTrain was validated with (arXiv:2312.12391)."""

from __future__ import annotations

from cmsim.published.case import RowPlan
from cmsim.published.forms.form import Cells, TableForm, gpt, needed, real

_TIME = "iteration time (ms)"
_COLUMNS = (
    *("# GPUs", "global batch", "micro batch", "hidden size", "attention heads", "# layers", "sequence length"),
    *("tensor parallelism", "data parallelism", "pipeline parallelism"),
)


def _plan(cells: Cells) -> RowPlan:
    length = needed(cells, "sequence length")
    keys = {
        "sequence_length": length,
        "global_batch": needed(cells, "global batch"),
        "micro_batch": needed(cells, "micro batch"),
        "parallel.tp": needed(cells, "tensor parallelism"),
        "parallel.dp": needed(cells, "data parallelism"),
        "parallel.pp": needed(cells, "pipeline parallelism"),
    }
    hidden, heads, layers = (needed(cells, name) for name in ("hidden size", "attention heads", "# layers"))
    config = gpt("vtrain", hidden, heads, layers, length)
    return RowPlan("vtrain", "", "FP16", needed(cells, "# GPUs"), keys, config)


def _step_s(cells: Cells, _: float) -> float | None:
    value = real(cells, _TIME)
    return None if value is None else value / 1e3


FORM = TableForm("vtrain", _COLUMNS, _plan, _step_s, lambda _, number: f"vtrain-{number:03d}")
