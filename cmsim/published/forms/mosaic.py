"""Fully sharded training of MPT models, as the tables of mosaicml/llm-foundry have it."""

from __future__ import annotations

from typing import Any

from cmsim.published.case import NoPlan, RowPlan
from cmsim.published.forms.form import Cells, TableForm, needed, real

_COLUMNS = (
    *("Model", "SeqLen (T)", "# GPUs", "GPU", "MicroBatchSize", "GradAccum", "GlobalBatchSize", "Precision"),
    *("Sharding Strategy", "Activation Checkpointing", "section"),
)


def _plan(cells: Cells) -> RowPlan:
    count, micro, batch = needed(cells, "# GPUs"), needed(cells, "MicroBatchSize"), needed(cells, "GlobalBatchSize")
    length = needed(cells, "SeqLen (T)")
    if batch % (count * micro):
        raise NoPlan(f"{batch} sequences are no whole micro-batches of {micro} on {count} ranks")
    if cells["Sharding Strategy"] != "FULL_SHARD":
        raise NoPlan(f"sharding {cells['Sharding Strategy'] or 'not said'}")
    keys: dict[str, Any] = {
        "sequence_length": length,
        "global_batch": batch,
        "micro_batch": micro,
        "parallel.dp": count,
    }
    machine = f"{cells['GPU']} {cells['section']}".replace("_", " ")
    return RowPlan(machine, f"mpt-{cells['Model']}", cells["Precision"], count, keys, change={"n_positions": length})


def _step_s(cells: Cells, _: float) -> float | None:
    tokens, rate = real(cells, "GlobalBatchSize (T)"), real(cells, "Throughput (T/s)")
    return tokens / rate if tokens and rate else None


def _id(cells: Cells, number: int) -> str:
    return f"mosaic-{number:03d}-{cells['GPU']}-{cells['Model']}"


FORM = TableForm("mosaic", _COLUMNS, _plan, _step_s, _id)
