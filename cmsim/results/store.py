"""The folder of results: ``summary.json``, ``manifest.json`` and one parquet file per frame.

Equal results give equal bytes. A folder is complete or absent: it is written beside its place and renamed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cmsim import kinds
from cmsim.arrays import Columns
from cmsim.errors import InputError, Problem
from cmsim.kinds import Facts, MachineFacts
from cmsim.reading import whole_folder
from cmsim.reading.regular import content
from cmsim.results.outcome import Outcome, missing_of
from cmsim.results.result import FRAMES, Result, check, frames_of, identity_of
from cmsim.version import unread

if TYPE_CHECKING:
    import pyarrow as pa

    from cmsim.results.results import Results

SUMMARY, MANIFEST = "summary.json", "manifest.json"
_ROW_GROUP = 1 << 20
#: largest summary or manifest that is read [B]
_MOST_B = 1 << 30
#: keys of one entry in summary.json that become fields of a Result
_FIELDS = ("run", "workload", "system", "accelerators", "ranks", "metrics", "bound", "limiter", "breakdown")


def save(results: Results, folder: Path) -> Path:
    """Write and rename into place.

    Raises InputError where the place is taken or cannot be written, FailedError where a result fails its check.
    """
    for result in results.results:
        check(result)
    runs = [one.run for one in results.outcomes]
    assert len(set(runs)) == len(runs), f"a run stands twice: {runs}"
    folder = folder.absolute()
    check_folder(folder)
    with whole_folder(folder) as beside:
        _write(results, beside)
    return folder


def load(folder: Path) -> tuple[tuple[Outcome, ...], dict[str, Any], dict[str, Any]]:
    """(outcomes, scenario, manifest) of a folder. Raises InputError for one that is absent, foreign or damaged."""
    if not folder.is_dir():
        raise InputError(Problem("no such folder of results", str(folder)))
    if not _ours(folder):
        raise InputError(Problem(f"is not a folder of results: it has no {SUMMARY} of ours", str(folder)))
    summary, manifest = _json(folder / SUMMARY), _json(folder / MANIFEST)
    if why := unread(summary["schema_version"]):
        raise InputError(Problem(f"was written with schema_version {why}", str(folder / SUMMARY)))
    runs = [str(entry.get("run")) for entry in summary["results"]]
    has = [tuple(entry.get("frames", FRAMES)) for entry in summary["results"]] or [FRAMES]
    frames = {name: _read(folder / f"{name}.parquet", runs) for name in dict.fromkeys(sum(has, ()))}
    facts = manifest.pop("facts", {})
    try:
        results = [
            result_of(entry, facts.get(run, {}), {name: frames[name][run] for name in its})
            for run, entry, its in zip(runs, summary["results"], has, strict=False)
        ]
        return _in_order(results, summary.get("outcomes", [])), summary["scenario"], manifest
    except (KeyError, TypeError) as error:
        raise InputError(
            Problem(f"is damaged: {error} is missing or of the wrong kind", str(folder / SUMMARY))
        ) from None


def result_of(said: Mapping[str, Any], facts: Mapping[str, float], columns: Mapping[str, Columns]) -> Result:
    """A result from its entry in ``summary.json``. Raises KeyError and TypeError for one that is damaged."""
    return Result(
        **{key: said[key] for key in _FIELDS},
        warnings=tuple(said["warnings"]),
        faults=said.get("faults", {}),
        recorded=said.get("recorded", {}),
        facts=_facts(said, facts),
        machine=MachineFacts.of(facts),
        columns=columns,
        kind=said.get("kind", ""),
        chosen=said.get("chosen", {}),
        plan=said.get("plan", {}),
        record=said.get("record", "full"),
        uncertainty=said.get("uncertainty", {}),
        **identity_of(said),
    )


def _facts(entry: Mapping[str, Any], named: Mapping[str, float]) -> Facts:
    """Facts of a workload, without what its machine added."""
    own = {name: value for name, value in named.items() if name not in MachineFacts.__dataclass_fields__}
    if not own:
        return Facts()
    kind = kinds.get(entry["kind"]) if "kind" in entry else kinds.marked(entry["metrics"])
    return kind.facts.of(own)


def _in_order(results: Sequence[Result], entries: Sequence[Mapping[str, Any]]) -> tuple[Outcome, ...]:
    """Results with the runs between them that gave none; a folder of an older version says nothing of those."""
    by_run = {result.run: result for result in results}
    found = [by_run.pop(entry["run"]) if entry["run"] in by_run else missing_of(entry) for entry in entries]
    return (*found, *by_run.values())


def check_folder(folder: str | Path) -> None:
    """Raises InputError where results must not be written: the place holds something else."""
    folder = Path(folder)
    if folder.exists() and not _replaceable(folder):
        raise InputError(Problem("holds something that is not a folder of results, so it is left alone", str(folder)))


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and (_ours(folder) or not any(folder.iterdir()))


def _ours(folder: Path) -> bool:
    """Whether a folder has a summary with the keys that ours have."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(summary, dict) and {"schema_version", "cmsim", "results"} <= summary.keys()


def _write(results: Results, folder: Path) -> None:
    facts = {one.run: {**one.facts.named(), **one.machine.named()} for one in results.results}
    manifest = {**results.manifest, "facts": facts}
    for name, document in ((SUMMARY, results.summary()), (MANIFEST, manifest)):
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False, default=plain)
        (folder / name).write_text(text + "\n", encoding="utf-8", newline="\n")
    names = dict.fromkeys(name for result in results.results for name in frames_of(result.columns))
    for name in names or FRAMES:
        parts = [(one.run, one.columns.get(name, {})) for one in results.results]
        _write_frame(parts, folder / f"{name}.parquet")


def plain(value: Any) -> Any:
    """What JSON does not know: numbers of NumPy, tuples' cousins, paths."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "items"):
        return dict(value)
    raise InputError(f"cannot be saved as JSON: {value!r}")


def _write_frame(parts: list[tuple[str, Columns]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # a run without rows has nothing to say about types
    parts = [(run, columns) for run, columns in parts if len(next(iter(columns.values()), ()))] or parts[:1]
    tables = [frame_table("run", run, columns) for run, columns in parts]
    # a file has one list of words for a column, whatever runs it is of
    table = pa.concat_tables(tables).unify_dictionaries() if tables else pa.table({"run": pa.array([], pa.string())})
    pq.write_table(
        table,
        path,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        compression_level=3,
        version="2.6",
        store_schema=False,
    )


def frame_table(head: str, label: str, columns: Columns) -> pa.Table:
    """A frame of one run, which stands in every row of the first column. Text is numbers into a list of words."""
    import pyarrow as pa

    rows = len(next(iter(columns.values()), ()))
    arrays = {head: pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), [label])}
    for name, column in columns.items():
        text = column.dtype.kind in "OUT"
        arrays[name] = pa.array(column, pa.string()).dictionary_encode() if text else pa.array(column)
    return pa.table(arrays)


def _read(path: Path, runs: list[str]) -> dict[str, Columns]:
    """Columns by run; a run without rows has empty ones."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(path)
        # text comes as numbers into a list of words, which is far quicker than as words
        text = [name for name in schema.names if schema.field(name).type == pa.string()]
        table = pq.read_table(path, read_dictionary=text)
    except (OSError, pa.ArrowException) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else "is not a readable parquet file"
        raise InputError(Problem(what, str(path))) from None
    if "run" not in table.column_names:
        raise InputError(Problem("has no column 'run'", str(path)))
    columns = {name: array_of(table[name]) for name in table.column_names}
    run = columns.pop("run")
    starts = np.flatnonzero(np.append(True, run[1:] != run[:-1])[: len(run)])
    lengths = np.diff(np.append(starts, len(run)))
    found = {run[a]: slice(a, a + n) for a, n in zip(starts.tolist(), lengths.tolist(), strict=True)}
    return {name: {key: value[found.get(name, slice(0))] for key, value in columns.items()} for name in runs}


def array_of(column: Any) -> Any:
    """A column as a NumPy array; text as objects."""
    if not hasattr(column.type, "index_type"):
        return column.to_numpy()
    chunk = column.unify_dictionaries().combine_chunks()
    words = np.array([*chunk.dictionary.to_pylist(), ""], dtype=object)
    return words[chunk.indices.to_numpy(zero_copy_only=False)]


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(content(path, _MOST_B).decode())
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(f"is not JSON: {error}", str(path))) from None
    if not isinstance(data, dict):
        raise InputError(Problem("is not a JSON object", str(path)))
    return data
