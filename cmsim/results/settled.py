"""A store in which all runs of a scenario are: in one order, with what is needed to read it as results.

runs/PART.parquet, ops/, ...    as of any store, but in parts of so many runs in the scenario's order: its bytes say
                                nothing of how it came about
metrics.parquet                 a row a run, as `Results.metrics`, for whoever reads tables
manifest.json                   scenario, manifest, and the order of runs; written last
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmsim.errors import InputError, Problem
from cmsim.reading import write_text, written
from cmsim.results.outcome import Outcome
from cmsim.results.parts import Store
from cmsim.results.store import plain

MANIFEST, METRICS = "manifest.json", "metrics.parquet"


def settle(store: Store, digests: Sequence[str], scenario: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """All these runs are there: bring them into this order, and say so. Raises InputError where one is not there, and
    where it cannot be written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    store.settle(digests)
    frame = store.metrics(digests)
    table = pa.table({str(name): _column(frame[name]) for name in frame.columns})
    with written(store.folder / METRICS) as beside:
        pq.write_table(table, beside, compression="zstd", version="2.6", store_schema=False)
    said = {"scenario": dict(scenario), "manifest": dict(manifest), "runs": list(digests)}
    text = json.dumps(said, indent=1, ensure_ascii=False, allow_nan=False, default=plain)
    write_text(store.folder / MANIFEST, text + "\n")


def load(folder: Path) -> tuple[tuple[Outcome, ...], dict[str, Any], dict[str, Any]]:
    """(outcomes, scenario, manifest); frames are read when somebody looks at them.

    Raises InputError for a store that is not settled, or is damaged.
    """
    store = Store(folder)
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        digests, scenario, manifest = said["runs"], said["scenario"], said["manifest"]
    except FileNotFoundError:
        message = f"holds {len(store.done())} runs of a sweep that has not come to its end: go on with --resume"
        raise InputError(Problem(message, str(folder))) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(Problem(f"is damaged: {error}", str(folder / MANIFEST))) from None
    return tuple(store.results(digests)), scenario, manifest


def _column(column: Any) -> Any:
    """A column as a file has it; of values of several types, or of none that files have, as text."""
    import pyarrow as pa

    if column.dtype != object:
        return pa.array(column)
    values = [None if value is None or value != value else value for value in column.tolist()]
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) == 1 and kinds <= {str, bool, int, float}:
        return pa.array(values)
    return pa.array([None if value is None else str(value) for value in values], pa.string())


__all__ = ["MANIFEST", "METRICS", "load", "settle"]
