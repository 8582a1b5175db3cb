"""Served models as ai-dynamo/aiconfigurator collects them: a row a plan at a concurrency, aggregated or disaggregated.

Source: ai-dynamo/aiconfigurator 095f58a5; runs of InferenceX and of its own. Lengths, requests and the meaning of the
columns by the rules in ``serving.yaml``.
"""

from __future__ import annotations

import re
from typing import Any

from cmsim.published.case import NoPlan
from cmsim.published.forms.form import Cells, needed, real, whole
from cmsim.published.forms.service import ServiceForm, ServiceMeasured
from cmsim.published.service_row import ServicePool, ServiceRow

_COLUMNS = (
    "id",
    "backend",
    "model_path",
    "system",
    "isl",
    "osl",
    "batch_size",
    "tp_size",
    "moe_tp_size",
    "moe_ep_size",
)
_CONCURRENCY = re.compile(r"silicon_concurrency=(\d+)")
#: what sizes of plans are when their columns hold concurrency instead: half a node, or a node
_NODE, _HALF, _AS_NODE, _AS_HALF = 8, 4, 64, 16
#: rows of aiconfigurator's own runs, and tokens of a step beside sequences and one prompt
_OWN, _BESIDE = "auto-gap-analysis", 1500
#: both sizes of a recipe, in the names of some rows
_RECIPE = re.compile(r"_tp(\d+)(?:_0)?_ep(\d+)(?:_0)?_")


def _row(cells: Cells) -> ServiceRow:
    apart = cells.get("mode", "") == "disagg"
    taken: list[str] = []
    users = _users(cells)
    keys: dict[str, Any] = {
        "arrivals.process": "closed",
        "arrivals.concurrency": users,
        "lengths.prompt_tokens": needed(cells, "isl"),
        "lengths.output_tokens": needed(cells, "osl"),
    }
    if _OWN in cells.get("silicon_data_source", ""):
        # what its generator gives engines: all sequences, one prompt and some (rules of benchmarks, agg max_num_tokens)
        keys["batching.step_tokens"] = users + needed(cells, "isl") + _BESIDE
    pools = {}
    for name in ("prefill", "decode") if apart else ("",):
        plan = _plan(cells, f"{name}_" if name else "", 0 if apart else users)
        copies = whole(cells, f"{name}_num_workers") if apart else 1
        if not copies:
            taken.append(f"{name}.replicas 1 (not in the row)")
        pools[name] = ServicePool(copies or 1, plan["tp"] * plan["dp"], _keys(plan))
    return ServiceRow(cells["system"], cells["model_path"], keys, pools, taken=tuple(taken))


def _users(cells: Cells) -> int:
    said = _CONCURRENCY.search(cells.get("silicon_data_source", ""))
    if said:
        return int(said[1])
    batch = whole(cells, "batch_size")
    if not batch:
        raise NoPlan("neither a concurrency nor a batch in the row")
    return batch * (whole(cells, "attention_dp_size") or 1)


def _plan(cells: Cells, before: str, users: int) -> dict[str, int]:
    """Sizes of a plan. What is not there follows from the others: experts take all ranks."""
    tp, dp = whole(cells, f"{before}tp_size") or 1, whole(cells, f"{before}attention_dp_size")
    expert_tp, ep = (whole(cells, f"{before}moe_{name}_size") or 1 for name in ("tp", "ep"))
    if _is_product(cells, tp * (dp or 1), expert_tp, ep):
        tp, dp, expert_tp = min(tp, ep), dp and min(dp, ep), 1
    stages = whole(cells, f"{before}pp_size") or 1
    if stages > 1:
        raise NoPlan(f"{stages} pipeline stages: steps of services have none")
    if expert_tp * ep > 1 or (tp, dp) in ((_AS_NODE, 1), (_AS_HALF, 1)):
        tp, dp = _size(tp, expert_tp * ep), dp and _size(dp, expert_tp * ep)
    if not dp:
        batch = whole(cells, "batch_size")
        shared = round(users / batch) if users and batch else 1
        whole_plan = expert_tp * ep
        dp = shared if shared > 1 and tp * shared == whole_plan else max(whole_plan // tp, 1)
    return {"tp": tp, "dp": dp, "ep": ep, "expert_tp": expert_tp}


def _is_product(cells: Cells, ranks: int, expert_tp: int, ep: int) -> bool:
    """Whether the columns of experts hold the two sizes of a recipe, each of all ranks, and attention's their product:
    8 by 8 is a node, not eight of them."""
    if expert_tp != ep or ranks != ep * ep or ep == 1:
        return False
    named = _RECIPE.search(cells.get("id", ""))
    return ranks in (_AS_NODE, _AS_HALF) or (named is not None and int(named[1]) == int(named[2]) == ep)


def _size(said: int, experts: int) -> int:
    """A size of attention's plan, which experts' ranks correct where it cannot be."""
    if said in (_AS_NODE, _AS_HALF) and experts < said:
        return _NODE if said == _AS_NODE else _HALF
    return said


def _keys(plan: dict[str, int]) -> dict[str, Any]:
    tp, dp = plan["tp"], plan["dp"]
    return {
        "parallel.tp": tp,
        "parallel.dp": dp,
        "parallel.ep": plan["ep"] if plan["ep"] > 1 or plan["expert_tp"] == tp * dp else None,
        "parallel.expert_tp": plan["expert_tp"] if plan["expert_tp"] > 1 else None,
        "parallel.attention": "dp" if tp == 1 and dp > 1 else None,
    }


def _measured(cells: Cells) -> ServiceMeasured:
    return ServiceMeasured(real(cells, "silicon_ttft_ms"), real(cells, "silicon_tpot_ms"))


def _id(cells: Cells, number: int) -> str:
    return cells.get("id") or str(number)


FORM = ServiceForm("aiconfigurator", _COLUMNS, _row, _measured, _id)
