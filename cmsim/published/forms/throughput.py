"""Throughput of served models where all requests are there at once: output tokens a second, a row a pair of lengths.

Source: performance overview of NVIDIA/TensorRT-LLM, as collected in a table of published runs of inference. The engine
begins as many requests as its cache holds (`published.tuned`); the rest stands in ``serving.yaml``. Rows of other
sources in such tables say nothing of how requests came.
"""

from __future__ import annotations

import json
import re
from typing import Any

from cmsim.hardware import load_system
from cmsim.published.build import model_of
from cmsim.published.case import NoPlan
from cmsim.published.forms.form import Cells, needed, real, whole
from cmsim.published.forms.service import ServiceForm, ServiceMeasured
from cmsim.published.names import found, names
from cmsim.published.service_row import ServicePool, ServiceRow, serving_file
from cmsim.published.tuned import TunedLimits, tuned
from cmsim.units import GIB
from cmsim.workload.model import load_model, parse_model

_COLUMNS = ("id", "system", "model", "n_accelerators", "precision", "tp", "metric", "value", "conditions")
_RATE, _ALL_AT_ONCE = "output_tokens_per_sec_total", "offline max throughput"
_LENGTHS = re.compile(r"ISL (\d+) OSL (\d+)")
_APART = "attention DP"
#: bytes of a weight; caches are in 8 bits
_BYTES = {"FP4": 0.5, "FP8": 1.0, "BF16": 2.0}


def _row(cells: Cells) -> ServiceRow:
    said = _LENGTHS.search(cells["conditions"])
    if cells["metric"] != _RATE or _ALL_AT_ONCE not in cells["conditions"] or said is None:
        raise NoPlan("no throughput of requests that are all there at once")
    if (whole(cells, "pp") or 1) > 1:
        raise NoPlan(f"{cells['pp']} pipeline stages: steps of services have none")
    prompt, answer = int(said[1]), int(said[2])
    ranks, experts_apart = needed(cells, "tp"), _APART in cells["conditions"]
    limits = _limits(cells["system"], cells["model"], cells["precision"].upper(), ranks, prompt, answer)
    keys: dict[str, Any] = {
        "arrivals.process": "closed",
        "lengths.prompt_tokens": prompt,
        "lengths.output_tokens": answer,
        "batching.sequences": limits.sequences,
        "batching.step_tokens": limits.step_tokens,
    }
    alone = experts_apart and ranks > 1
    plan = {
        "parallel.tp": 1 if alone else ranks,
        "parallel.dp": ranks if alone else 1,
        "parallel.ep": ranks if alone else None,
        "parallel.attention": "dp" if alone else None,
    }
    return ServiceRow(cells["system"], cells["model"], keys, {"": ServicePool(1, ranks, plan)})


def _limits(system: str, model: str, precision: str, ranks: int, prompt: int, answer: int) -> TunedLimits:
    machine = found((*serving_file().machines, *names().machines), system, "system")
    if machine.why:
        raise NoPlan(machine.why)
    config, named = model_of(model, {}, (*serving_file().models, *names().models))
    spec = load_model(named) if isinstance(named, str) else parse_model(json.dumps(config), name=model, file="")
    if precision not in _BYTES:
        raise NoPlan(f"no number format known for '{precision}'")
    copies = max(ranks / spec.kv_heads, 1.0) if spec.kv_heads else 1.0
    # data sheets print GB where drivers report nearly as many GiB
    memory_B = load_system(machine.system).accelerator.memory_GB * GIB * ranks
    return tuned(
        memory_B,
        spec.total_parameters * _BYTES[precision],
        spec.kv_bytes_per_token(1.0) * copies,
        prompt=prompt,
        answer=answer,
    )


def _measured(cells: Cells) -> ServiceMeasured:
    rate = real(cells, "value") if cells["metric"] == _RATE else None
    return ServiceMeasured(output_tokens_per_s=rate)


def _id(cells: Cells, number: int) -> str:
    return cells.get("id") or str(number)


FORM = ServiceForm("throughput", _COLUMNS, _row, _measured, _id)
