"""Alibaba spot GPUs 2026: jobs of a cluster whose idle GPUs are lent, and its nodes, each a CSV file.

Source: github.com/alibaba/clusterdata, cluster-trace-v2026-spot-gpu, README. Read from that description: no file of it
was at hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmsim.jobs.jobs import Jobs, Nodes, jobs_of
from cmsim.reading.bytes_in import LIMIT_B, head
from cmsim.reading.parsers import Label, Real
from cmsim.reading.tables import header_names, read_table

NAME = "alibaba-spot"
JOBS = ("job_name", "gpu_model", "gpu_request", "worker_num", "submit_time", "duration", "job_type")
NODES = ("node_name", "gpu_model", "gpu_capacity_num")
_KNOWN = ("job_name", "node_name", "organization", "cpu_request")


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001
    names = set(header_names(start))
    return names.issuperset(JOBS) or names.issuperset(NODES)


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Jobs | Nodes:
    """Raises InputError naming file and line."""
    is_nodes = set(header_names(head(path))).issuperset(NODES)
    return _nodes(path, limit_B) if is_nodes else _jobs(path, limit_B)


def _nodes(path: Path, limit_B: int) -> Nodes:
    model, count = Label(), Real(high=10**6, blank=True)
    table = read_table(
        path,
        {"gpu_model": model, "gpu_capacity_num": count},
        optional={"cpu_num": count},
        known=_KNOWN,
        limit_B=limit_B,
    )
    gpus = np.nan_to_num(table["gpu_capacity_num"], nan=0.0)
    return Nodes(
        format=NAME,
        source=str(path),
        gpus=np.round(gpus).astype(np.int64),
        cpus=table["cpu_num"] if "cpu_num" in table else np.full(len(table), np.nan),
        memory_B=np.full(len(table), np.nan),
        gpu_types=model.names,
        gpu_type=table["gpu_model"],
        facts={
            "header": list(table.header),
            "rows": len(table),
            "gpus": int(gpus.sum()),
            "models": model.counts(table["gpu_model"]),
        },
        notes=("the format has no memory of nodes", *table.notes()),
    )


def _jobs(path: Path, limit_B: int) -> Jobs:
    model, kind = Label(), Label()
    table = read_table(
        path,
        {"gpu_model": model, "job_type": kind}
        | {"gpu_request": Real(high=10**6), "worker_num": Real(high=10**6, blank=True)}
        | {"submit_time": Real(blank=True), "duration": Real(blank=True)},
        known=_KNOWN,
        limit_B=limit_B,
    )
    gpus = table["gpu_request"] * np.nan_to_num(table["worker_num"], nan=1.0)
    facts = {"header": list(table.header), "rows": len(table), "gpus": round(float(gpus.sum()), 3)}
    facts["models"] = model.counts(table["gpu_model"])
    facts["types"] = kind.counts(table["job_type"])
    return jobs_of(
        NAME,
        path,
        submit_s=table["submit_time"],
        start_s=None,
        end_s=None,
        duration_s=table["duration"],
        gpus=gpus,
        gpus_per_node=table["gpu_request"],
        gpu_type=(model.names, table["gpu_model"]),
        status=(kind.names, table["job_type"]),
        facts=facts,
        notes=[
            "gpu_request is of one worker, each on a node of its own; status is the type of the job",
            *table.notes(),
        ],
    )
