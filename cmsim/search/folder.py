"""The folder of a search: its document, tables of plans and results, which figures read and a search goes on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmsim.errors import InputError, Problem
from cmsim.reading import write_text, written
from cmsim.results import Results
from cmsim.version import unread

#: the document, the table of plans, results, and what a search goes on from
MARK, PLANS, RESULTS, STORE = "search.json", "plans.parquet", "results", "store"


def save(folder: Path, tables: Mapping[str, Mapping[str, Any]], results: Results, document: Mapping[str, Any]) -> None:
    """Write tables by file name, results and the document; of these the document comes last."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    for name, columns in tables.items():
        table = pa.table({key: pa.array(_plain(column)) for key, column in columns.items()})
        with written(folder / name) as beside:
            pq.write_table(table, beside, compression="zstd", version="2.6", store_schema=False)
    if not (folder / RESULTS).exists() or Results.load(folder / RESULTS).summary() != results.summary():
        if (folder / RESULTS).exists():
            shutil.rmtree(folder / RESULTS)
        results.save(folder / RESULTS)
    write_text(folder / MARK, json.dumps(document, indent=2, allow_nan=False) + "\n")


def load(folder: Path, tables: Sequence[str], kind: str = "") -> tuple[dict[str, Any], list[dict[str, Any]], Results]:
    """The document, tables and results of what `save` wrote; ``kind`` is what its document says of what was searched.

    Raises InputError for another folder.
    """
    import pyarrow.parquet as pq

    try:
        said = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = None
    if not isinstance(said, dict) or said.get("kind", "") != kind:
        of = f" of {kind}" if kind else ""
        raise InputError(Problem(f"is no folder of a search{of}: it has no {MARK} of ours", str(folder)))
    if why := unread(said.get("schema_version")):
        raise InputError(Problem(f"was written with schema_version {why}", str(folder / MARK)))
    results = Results.load(folder / RESULTS)
    by_run = {one.run: one for one in results.outcomes}
    order = [by_run[run] for run in said["order"]]
    order += [one for one in results.outcomes if one.run not in said["order"]]
    frames = [pq.read_table(folder / name) for name in tables]
    columns = [{name: one[name].to_numpy(zero_copy_only=False) for name in one.column_names} for one in frames]
    return said, columns, Results(order, scenario=results.scenario, manifest=results.manifest)


def _plain(column: Any) -> Any:
    """A column as files have it; of values of several types, as text."""
    if column.dtype != object:
        return column
    values = column.tolist()
    return values if len({type(one) for one in values}) == 1 else [str(one) for one in values]


__all__ = ["MARK", "PLANS", "RESULTS", "STORE", "load", "save"]
