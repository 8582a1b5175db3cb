"""Steps of MLPerf Training 5.1, from its result logs, with the plan of the one configuration that fits."""

from __future__ import annotations

from typing import Any

from cmsim.published.build import has_key
from cmsim.published.case import NoPlan, RowPlan
from cmsim.published.forms.form import Cells, TableForm, needed, real, whole

#: what the logs call throughput is the time of a step [s]
_TIME = "median_throughput_samples_s"
_PLAN = "plan_tp_pp_cp_dp_microbatches"
_COLUMNS = ("dir", "gbs", "seq", "chip", "n_gpus", _PLAN, "config_files")
#: LoRA: packed sequences, rank and targets. Source: mlcommons/training, llama2_70b_lora, README
_LORA_LENGTH, _LORA = 8192, {"rank": 16, "targets": ["linear_qkv", "linear_proj"]}


def _plan(cells: Cells) -> RowPlan:
    plans = [one for one in cells[_PLAN].split(";") if one]
    if len(plans) != 1:
        raise NoPlan(f"{len(plans) or 'no'} plans fit this row")
    tp, pp, cp, dp, micro_batches = (int(one) for one in plans[0].split("/"))
    batch, name = needed(cells, "gbs"), cells["dir"].rsplit("/", 1)[-1]
    keys: dict[str, Any] = {
        "sequence_length": whole(cells, "seq") or _LORA_LENGTH,
        "global_batch": batch,
        "micro_batch": max(batch // dp // micro_batches, 1),
        "parallel.tp": tp,
        "parallel.pp": pp,
        "parallel.cp": cp,
        "parallel.dp": dp,
    }
    if "lora" in name:
        if not has_key("lora"):
            raise NoPlan("LoRA: there is no key for it")
        keys["lora"] = _LORA
    narrow = {"fp4" in one for one in cells["config_files"].split(";")}
    if len(narrow) > 1:
        raise NoPlan("configurations in FP8 and in FP4 fit this row")
    precision = "NVFP4" if True in narrow else "FP8"
    return RowPlan(cells["chip"], name, precision, needed(cells, "n_gpus"), keys)


def _step_s(cells: Cells, _: float) -> float | None:
    return real(cells, _TIME)


def _id(cells: Cells, number: int) -> str:
    return f"mlperf51-{number:02d}-{cells['chip']}"


FORM = TableForm("mlperf", _COLUMNS, _plan, _step_s, _id)
