"""Alibaba openb 2023: pods of a GPU cluster and its nodes, each a CSV file.

Source: github.com/alibaba/clusterdata, cluster-trace-gpu-v2023/README.md; Weng et al., Beware of Fragmentation, ATC
2023. Sampled files of pods stop after ``gpu_milli``.
"""

from __future__ import annotations

from pathlib import Path

from cmsim.jobs.jobs import Jobs, Nodes, jobs_of
from cmsim.reading.bytes_in import LIMIT_B, head
from cmsim.reading.parsers import Label, Real, Whole
from cmsim.reading.tables import header_names, read_table

NAME = "alibaba-openb"
#: cores and shares of a GPU are in thousandths, memory in MiB
MILLI, MIB_B = 1000, 2**20
PODS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
NODES = ("sn", "cpu_milli", "memory_mib", "gpu", "model")


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001
    names = set(header_names(start))
    return names.issuperset(PODS) or names.issuperset(NODES)


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Jobs | Nodes:
    """Raises InputError naming file and line."""
    is_nodes = set(header_names(head(path))).issuperset(NODES)
    return _nodes(path, limit_B) if is_nodes else _pods(path, limit_B)


def _nodes(path: Path, limit_B: int) -> Nodes:
    model = Label()
    columns = {"cpu_milli": Whole(), "memory_mib": Whole(), "gpu": Whole(high=10**6), "model": model}
    table = read_table(path, columns, known=NODES, limit_B=limit_B)
    return Nodes(
        format=NAME,
        source=str(path),
        gpus=table["gpu"],
        cpus=table["cpu_milli"] / MILLI,
        memory_B=table["memory_mib"] * float(MIB_B),
        gpu_types=model.names,
        gpu_type=table["model"],
        facts={
            "header": list(table.header),
            "rows": len(table),
            "gpus": int(table["gpu"].sum()),
            "models": model.counts(table["model"]),
        },
        notes=tuple(table.notes()),
    )


def _pods(path: Path, limit_B: int) -> Jobs:
    spec, phase, qos = Label(), Label(), Label()
    clock = Real(blank=True)
    table = read_table(
        path,
        {"num_gpu": Whole(high=10**6), "gpu_milli": Whole(high=MILLI)},
        optional={"gpu_spec": spec, "qos": qos, "pod_phase": phase}
        | {"creation_time": clock, "deletion_time": clock, "scheduled_time": clock},
        known=PODS,
        limit_B=limit_B,
    )
    # thousandths of each GPU; only a pod with one GPU asks for less than all of it
    gpus = table["num_gpu"] * (table["gpu_milli"] / MILLI)
    facts = {"header": list(table.header), "rows": len(table), "gpus": round(float(gpus.sum()), 3)}
    for name, label in (("gpu_spec", spec), ("qos", qos), ("pod_phase", phase)):
        if name in table:
            facts[name] = label.counts(table[name])
    return jobs_of(
        NAME,
        path,
        submit_s=table.get("creation_time"),
        start_s=table.get("scheduled_time"),
        end_s=table.get("deletion_time"),
        gpus=gpus,
        gpus_per_node=gpus,
        gpu_type=(spec.names, table["gpu_spec"]) if "gpu_spec" in table else None,
        status=(phase.names, table["pod_phase"]) if "pod_phase" in table else None,
        facts=facts,
        notes=table.notes(),
    )
