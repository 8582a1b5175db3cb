"""Alibaba DLRM 2025: instances of recommendation services, with GPUs (role HN) and without (CN).

Source: github.com/alibaba/clusterdata, cluster-trace-gpu-v2025/README.md; Yang et al., GPU-Disaggregated Serving, NSDI
2025. Times are seconds from the start of the trace; blank before it, and deletions also after it.
"""

from __future__ import annotations

from pathlib import Path

from cmsim.jobs.jobs import Jobs, jobs_of
from cmsim.reading.bytes_in import LIMIT_B
from cmsim.reading.parsers import Label, Real
from cmsim.reading.tables import header_names, read_table

NAME = "alibaba-dlrm"
_OTHERS = [f"{what}_{end}" for what in ("cpu", "rdma", "memory", "disk") for end in ("request", "limit")]
KEYS = ("instance_sn", "role", "app_name", "gpu_request", "creation_time", "scheduled_time", "deletion_time")


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001
    return set(header_names(start)).issuperset(KEYS)


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Jobs:
    """Raises InputError naming file and line."""
    role, app = Label(), Label()
    clock = Real(blank=True)
    table = read_table(
        path,
        {"role": role, "app_name": app, "gpu_request": Real(high=10**6)}
        | {"creation_time": clock, "scheduled_time": clock, "deletion_time": clock},
        known=("instance_sn", "gpu_limit", "max_instance_per_node", *_OTHERS),
        limit_B=limit_B,
    )
    return jobs_of(
        NAME,
        path,
        submit_s=table["creation_time"],
        start_s=table["scheduled_time"],
        end_s=table["deletion_time"],
        gpus=table["gpu_request"],
        gpus_per_node=table["gpu_request"],
        facts={
            "header": list(table.header),
            "rows": len(table),
            "gpus": float(table["gpu_request"].sum()),
            "roles": role.counts(table["role"]),
            "apps": len(app.names),
        },
        notes=table.notes(),
    )
