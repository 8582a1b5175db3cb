"""Served models as nightly tests of vllm-project/vllm-ascend expect them: output tokens a second of one node.

Source: vllm-project/vllm-ascend 182b75ea, tests/e2e; thresholds of 0.95 to 0.97, so read as within 5 %.
"""

from __future__ import annotations

import re
from typing import Any

from cmsim.published.case import NoPlan
from cmsim.published.forms.form import Cells, needed, real, whole
from cmsim.published.forms.service import ServiceForm, ServiceMeasured
from cmsim.published.service_row import ServicePool, ServiceRow

_COLUMNS = (
    "file",
    "case",
    "model",
    "tp",
    "dp",
    "ep",
    "max_num_seqs",
    "max_batched",
    "dataset",
    "num_prompts",
    "max_out",
)
#: tokens of a prompt, and the share in hundredths that all prompts begin with, in the name of a data set
_PROMPT, _SHARED = re.compile(r"(?<![a-z])in(\d+)(k?)(?![a-z0-9])", re.IGNORECASE), re.compile(r"prefix(\d+)")
#: words of a machine; nodes that are not named are of the kind that most are
_MACHINES = re.compile(r"(?<![a-z0-9])(310p|a2|a3|a5)(?![a-z0-9])", re.IGNORECASE)
_USUAL = "A3"


def _row(cells: Cells) -> ServiceRow:
    tp, dp = whole(cells, "tp") or 1, whole(cells, "dp") or 1
    if (whole(cells, "pp") or 1) > 1:
        raise NoPlan(f"{cells['pp']} pipeline stages: steps of services have none")
    machine = _MACHINES.search(" ".join(cells.get(name, "") for name in ("file", "case", "model")))
    prompts, users = needed(cells, "num_prompts"), whole(cells, "concurrency")
    length, shared = _lengths(cells["dataset"])
    keys: dict[str, Any] = {
        "arrivals.process": "closed",
        "arrivals.concurrency": min(users or prompts, prompts),
        "arrivals.requests": prompts,
        "arrivals.rate_per_s": real(cells, "request_rate") or None,
        "lengths.prompt_tokens": length,
        "lengths.output_tokens": needed(cells, "max_out"),
        "lengths.shared": shared or None,
        "batching.sequences": whole(cells, "max_num_seqs") or None,
        "batching.step_tokens": whole(cells, "max_batched") or None,
        "batching.prefix_share": 1.0 if shared and prompts > 1 else None,
    }
    plan = {
        "parallel.tp": tp,
        "parallel.dp": dp,
        "parallel.ep": tp * dp if real(cells, "ep") else None,
        "parallel.expert_tp": None if real(cells, "ep") else tp * dp,
        "parallel.attention": "dp" if tp == 1 < dp else None,
    }
    return ServiceRow(
        machine[0] if machine else _USUAL,
        cells["model"],
        keys,
        {"": ServicePool(1, tp * dp, plan)},
        taken=() if machine else (f"an {_USUAL} node (not in the row)",),
    )


def _lengths(data_set: str) -> tuple[int, float]:
    """Tokens of a prompt, and the share of it that all begin with."""
    said, shared = _PROMPT.search(data_set), _SHARED.search(data_set)
    if not said:
        raise NoPlan(f"no length of prompts in '{data_set[:60]}'")
    return int(said[1]) * (1000 if said[2] else 1), int(shared[1]) / 100 if shared else 0.0


def _measured(cells: Cells) -> ServiceMeasured:
    return ServiceMeasured(output_tokens_per_s=real(cells, "baseline_output_tok_s"))


def _id(cells: Cells, number: int) -> str:
    return f"{number:03d}-{cells['case']}-{cells.get('bench', '')}"


FORM = ServiceForm("nightly", _COLUMNS, _row, _measured, _id)
