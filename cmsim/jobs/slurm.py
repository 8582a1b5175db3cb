"""Job logs as Slurm and the like keep them: Helios (SenseTime 2020) and Acme (Shanghai AI Lab 2023).

Source: github.com/S-Lab-System-Group/HeliosData, README; github.com/InternLM/AcmeTrace, README. Read from these
descriptions: no file was at hand. Times of Helios are local, those of Acme say their zone (+08:00 in one cluster,
+00:00 in the other). The column ``duration`` is end less start, but end less submission in the rows that are shown of
Acme's second cluster: it is not used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cmsim.jobs.jobs import Jobs, jobs_of
from cmsim.reading.bytes_in import LIMIT_B
from cmsim.reading.parsers import Clock, Label, Real, Whole, seconds
from cmsim.reading.tables import header_names, read_table

HELIOS, ACME = "helios", "acme"
KEYS = ("job_id", "user", "gpu_num", "node_num", "state", "submit_time", "start_time", "end_time")
#: columns that are not read: who, where else, and what follows from the others
KNOWN = (
    *("job_id", "user", "vc", "cpu_num", "mem_per_pod_GB", "shared_mem_per_pod"),
    *("fail_time", "stop_time", "queue", "gpu_time"),
)


def sniff_helios(start: bytes, path: Path) -> bool:  # noqa: ARG001
    return set(header_names(start)).issuperset((*KEYS, "vc"))


def sniff_acme(start: bytes, path: Path) -> bool:  # noqa: ARG001
    return set(header_names(start)).issuperset((*KEYS, "type"))


def open_helios(path: Path, *, limit_B: int = LIMIT_B) -> Jobs:
    """Raises InputError naming file and line."""
    return _open(HELIOS, path, limit_B)


def open_acme(path: Path, *, limit_B: int = LIMIT_B) -> Jobs:
    """Raises InputError naming file and line."""
    return _open(ACME, path, limit_B)


def _open(name: str, path: Path, limit_B: int) -> Jobs:
    state, kind, clock = Label(), Label(), Clock(blank=True)
    table = read_table(
        path,
        {"gpu_num": Whole(high=10**6), "node_num": Whole(high=10**6), "state": state}
        | {"submit_time": clock, "start_time": clock, "end_time": clock},
        optional={"type": kind, "duration": Real(low=-1e15, blank=True)},
        known=KNOWN,
        limit_B=limit_B,
    )
    submit, start, end = seconds(table["submit_time"], table["start_time"], table["end_time"])
    notes = [*clock.notes(), *table.notes()]
    if clock.local:
        notes.append("times are local: where clocks were changed, an hour is missing or double")
    if "duration" in table:
        differ = int((np.abs(table["duration"] - (end - start)) > 1).sum())
        if differ:
            notes.append(f"'duration' of {differ} of {len(table)} jobs is not end less start: not used")
    gpus, nodes = table["gpu_num"], table["node_num"]
    facts = {
        "header": list(table.header),
        "rows": len(table),
        "gpus": int(gpus.sum()),
        "states": state.counts(table["state"]),
    }
    if "type" in table:
        facts["types"] = kind.counts(table["type"])
    return jobs_of(
        name,
        path,
        submit_s=submit,
        start_s=start,
        end_s=end,
        gpus=gpus.astype(np.float64),
        gpus_per_node=np.where(nodes > 0, gpus / np.maximum(nodes, 1), np.nan),
        status=(state.names, table["state"]),
        facts=facts,
        notes=notes,
    )
