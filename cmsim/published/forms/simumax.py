"""Steps and peaks of memory on one node, as SimuMax was checked with; the plan stands in the name of a case."""

from __future__ import annotations

import re
from typing import Any

from cmsim.published.case import NoPlan, RowPlan
from cmsim.published.forms.form import Cells, TableForm, real

_COLUMNS = ("case", "real_ms")
_PART = re.compile(r"_(tp|pp|dp|ep|cp|mbc|seq|l)(\d+)")
_GPUS, _LENGTH = 8, 4096


def _plan(cells: Cells) -> RowPlan:
    name = cells["case"]
    said = {part: int(value) for part, value in _PART.findall(name)}
    missing = [part for part in ("tp", "pp", "dp", "mbc", "l") if part not in said]
    if missing:
        raise NoPlan(f"the name of the case says no {missing[0]}")
    keys: dict[str, Any] = {
        "sequence_length": said.get("seq", _LENGTH),
        "global_batch": said["mbc"] * said["dp"],
        "micro_batch": 1,
        "parallel.tp": said["tp"],
        "parallel.pp": said["pp"],
        "parallel.dp": said["dp"],
        "parallel.cp": said.get("cp", 1),
        "parallel.ep": said.get("ep"),
    }
    change: dict[str, Any] = {"num_hidden_layers": said["l"]}
    return RowPlan("simumax", f"simumax {name}", "BF16", _GPUS, keys, change=change)


def _step_s(cells: Cells, _: float) -> float | None:
    value = real(cells, "real_ms")
    return None if value is None else value / 1e3


def _memory_GiB(cells: Cells) -> float | None:
    return real(cells, "real_alloc_gib")


FORM = TableForm("simumax", _COLUMNS, _plan, _step_s, lambda cells, _: cells["case"], _memory_GiB)
