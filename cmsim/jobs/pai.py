"""Alibaba PAI 2020: the task table of a cluster of training and inference jobs; it has no header.

Source: github.com/alibaba/clusterdata, cluster-trace-gpu-v2020/README.md and data/pai_task_table.header; Weng et al.,
MLaaS in the Wild, NSDI 2022. Read from that description: no file of it was at hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmsim.jobs.jobs import Jobs, jobs_of
from cmsim.reading.bytes_in import LIMIT_B
from cmsim.reading.parsers import BLANK, Label, Real
from cmsim.reading.tables import header_names, read_table

NAME = "alibaba-pai-2020"
_HEADER = "job_name,task_name,inst_num,status,start_time,end_time,plan_cpu,plan_mem,plan_gpu,gpu_type"
COLUMNS = tuple(_HEADER.split(","))
STATUSES = ("Running", "Terminated", "Failed", "Waiting")
#: of one GPU
PERCENT = 100


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001
    """Ten fields, the fourth a status and numbers where they should be: no other table of the trace is like that."""
    first = header_names(start)
    if first == COLUMNS:
        return True
    numbers = (first[index] for index in (2, 4, 5, 6, 7, 8)) if len(first) == len(COLUMNS) else ()
    return len(first) == len(COLUMNS) and first[3] in STATUSES and all(map(_number_or_blank, numbers))


def _number_or_blank(text: str) -> bool:
    try:
        return text in BLANK or float(text) >= 0
    except ValueError:
        return False


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Jobs:
    """Raises InputError naming file and line."""
    status, kind = Label(), Label()
    real = Real(blank=True)
    table = read_table(
        path,
        {"inst_num": Real(high=10**6, blank=True), "status": status, "gpu_type": kind}
        | {"start_time": real, "end_time": real, "plan_gpu": Real(high=10**6, blank=True)},
        known=COLUMNS,
        names=COLUMNS,
        limit_B=limit_B,
    )
    notes = ["submission is taken as the start: the time of submission is in the job table"]
    for name, meant in (("plan_gpu", 0), ("inst_num", 1)):
        blank = int(np.isnan(table[name]).sum())
        if blank:
            notes.append(f"no '{name}' of {blank} of {len(table)} tasks: taken as {meant}")
    each = np.nan_to_num(table["plan_gpu"], nan=0.0) / PERCENT
    gpus = each * np.nan_to_num(table["inst_num"], nan=1.0)
    return jobs_of(
        NAME,
        path,
        submit_s=table["start_time"],
        start_s=table["start_time"],
        end_s=table["end_time"],
        gpus=gpus,
        gpus_per_node=each,
        gpu_type=(kind.names, table["gpu_type"]),
        status=(status.names, table["status"]),
        facts={
            "rows": len(table),
            "gpus": round(float(gpus.sum()), 3),
            "statuses": status.counts(table["status"]),
            "gpu_types": kind.counts(table["gpu_type"]),
        },
        notes=notes,
    )
