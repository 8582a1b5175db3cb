"""cmsim's own form of a recorded trace: one parquet file, read and written a column at a time.

One row an op, the ranks one after the other; texts are dictionary-coded, null stands for what is not there (-1, NaN).
``deps`` counts rows from the first of the rank; ``shape`` is JSON: kind, numbers, formats of a `cmsim.compute.Shape`.
What belongs to no row stands as JSON in the schema's metadata under ``cmsim_trace``, with the version of the form, and
beside it a checksum of everything: parquet has none of its own that covers all of a file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.compute import Shape
from cmsim.reading import written
from cmsim.reading.bytes_in import LIMIT_B, bad
from cmsim.traces.lower import digest_of
from cmsim.traces.queues import first_use
from cmsim.traces.recorded import PASS, Communicator, RankTrace, Trace
from cmsim.workload.ops import KINDS

#: of the form; a file of a newer one is refused. 2: with ``copies``; files without them are written as 1
VERSION = 2
MAGIC = b"PAR1"

_KEY, _SUM = b"cmsim_trace", b"cmsim_trace_sha256"
#: columns of texts, and where ``RankTrace`` has the texts and the codes
_TEXTS = {
    "name": ("names", "name"),
    "stream": ("streams", "stream"),
    "kernel": ("kernels", "kernel"),
    "precision": ("precisions", "precision"),
    "collective": ("collectives", "collective"),
}
_INTS = {"group": "int32", "peer": "int64", "tag": "int64"}
_FLOATS = ("start_us", "duration_us", "flops", "bytes_B")
_COLUMNS = ("rank", "kind", *_TEXTS, "shape", *_FLOATS, "cores", *_INTS, "deps")
#: of a row in memory, whatever it takes in the file [B]
_ROW_B = 8 * len(_COLUMNS)


@dataclass(frozen=True)
class OpenedColumnar:
    """A trace, read, and what it was converted from. See `cmsim.traces.recorded.Opened`."""

    recorded: Trace
    converted_from: str

    def counts(self) -> dict[str, Any]:
        """What it holds; recorded_format and converted_from are format and source of the recording."""
        return {
            "format": "cmsim",
            "recorded_format": self.recorded.format,
            "converted_from": self.converted_from,
            "ranks": len(self.recorded.ranks),
            "rows": sum(len(one) for one in self.recorded.ranks.values()),
            "communicators": len(self.recorded.communicators),
        }

    def trace(self, *, ranks: int | None = None) -> Trace:  # noqa: ARG002
        """The trace as it was written; sizes that depended on the number of ranks were settled then."""
        return self.recorded


# -- writing -----------------------------------------------------------------------------------------------


def write_trace(trace: Trace, path: Path | str) -> None:
    """Write a trace, all of it or nothing; a file that stands there is replaced.

    Nothing is lost but texts that no row uses. Raises InputError where the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    ranks = {rank: _plain(trace.ranks[rank]) for rank in sorted(trace.ranks)}
    about = json.dumps(_about(trace), separators=(",", ":")).encode()
    schema = _schema().with_metadata({_KEY: about, _SUM: _sum(about, ranks)})
    with written(path) as beside, pq.ParquetWriter(beside, schema, **_packed()) as file:
        for rank, one in ranks.items():
            columns = _columns(rank, one)
            file.write_table(pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema))


def _packed() -> dict[str, Any]:
    """How columns are packed."""
    return {"compression": "zstd", "compression_level": 1, "use_dictionary": [*_TEXTS]}


def _plain(one: RankTrace) -> RankTrace:
    """The same rows with texts in order of first use, and one kind of NaN."""
    changed: dict[str, Any] = {}
    for texts, codes in _TEXTS.values():
        changed[codes], used = first_use(getattr(one, codes))
        changed[texts] = tuple(getattr(one, texts)[i] for i in used.tolist())
    for name in _FLOATS:
        values = getattr(one, name)
        changed[name] = np.where(np.isnan(values), np.nan, values)
    return _optional(replace(one, **changed))


def _optional(one: RankTrace) -> RankTrace:
    """Columns that say nothing are empty."""
    shape, used = first_use(one.shape)
    cores = one.cores if len(one.cores) and (one.cores != 1.0).any() else np.zeros(0)
    shapes = tuple(one.shapes[i] for i in used.tolist())
    return replace(one, shapes=shapes, shape=shape if len(used) else np.zeros(0, np.int64), cores=cores)


def _sum(about: bytes, ranks: Mapping[int, RankTrace]) -> str:
    """The checksum of a trace."""
    texts = [[*(getattr(one, many) for many, _ in _TEXTS.values()), _spelt(one)] for one in ranks.values()]
    names = ("kind", *(its for _, its in _TEXTS.values()), "shape", *_FLOATS, "cores", *_INTS, "dep_ptr", "dep_idx")
    columns = (getattr(one, name) for one in ranks.values() for name in names)
    return digest_of((about, list(ranks), texts), columns).hex()


def _spelt(one: RankTrace) -> list[str]:
    """Shapes as JSON."""
    plain = (
        (kind, [(name, float(value)) for name, value in numbers], formats) for kind, numbers, formats in one.shapes
    )
    return [json.dumps(shape, separators=(",", ":")) for shape in plain]


def _shape(text: str) -> Shape:
    """A shape from JSON. ValueError: it is none."""
    try:
        kind, numbers, formats = json.loads(text)
        pairs = tuple((str(name), float(value)) for name, value in numbers)
        return Shape(str(kind), pairs, tuple((str(name), str(value)) for name, value in formats))
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"column 'shape': {text!r:.60}") from None


def _schema() -> Any:
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    types = {
        "rank": pa.int32(),
        "kind": pa.int8(),
        **dict.fromkeys((*_TEXTS, "shape"), text),
        **dict.fromkeys((*_FLOATS, "cores"), pa.float64()),
        **{name: getattr(pa, kind)() for name, kind in _INTS.items()},
        "deps": pa.list_(pa.int32()),
    }
    return pa.schema([(name, types[name]) for name in _COLUMNS])


def _about(trace: Trace) -> dict[str, Any]:
    """What belongs to no row."""
    return {
        "version": VERSION if trace.copies else 1,
        "format": trace.format,
        "source": trace.source,
        "world_size": trace.world_size,
        "recorded_us": None if math.isnan(trace.recorded_us) else trace.recorded_us,
        "notes": list(trace.notes),
        "facts": dict(trace.facts),
        "communicators": [[one.name, one.size, *one.members] for one in trace.communicators],
        "ranks": [[rank, len(trace.ranks[rank]), trace.ranks[rank].in_order] for rank in sorted(trace.ranks)],
        **({"copies": list(trace.copies)} if trace.copies else {}),
    }


def _columns(rank: int, one: RankTrace) -> dict[str, Any]:
    import pyarrow as pa

    out = {
        "rank": pa.array(np.full(len(one), rank, np.int32)),
        "kind": pa.array(np.where(one.kind == PASS, len(KINDS), one.kind).astype(np.int8)),
        "deps": pa.ListArray.from_arrays(pa.array(one.dep_ptr.astype(np.int32)), one.dep_idx.astype(np.int32)),
    }
    none = np.full(len(one), -1, np.int32)
    coded = {name: (getattr(one, texts), getattr(one, codes)) for name, (texts, codes) in _TEXTS.items()}
    for name, (texts, codes) in {**coded, "shape": (_spelt(one), one.shape if one.shapes else none)}.items():
        code = codes.astype(np.int32)
        out[name] = pa.DictionaryArray.from_arrays(pa.array(code, mask=code < 0), pa.array(texts, pa.string()))
    out["cores"] = pa.array(one.cores if len(one.cores) else np.ones(len(one)))
    for name in _FLOATS:
        values = getattr(one, name)
        out[name] = pa.array(values, mask=np.isnan(values))
    for name, kind in _INTS.items():
        whole = getattr(one, name).astype(kind)
        out[name] = pa.array(whole, mask=whole == -1)
    return out


# -- reading -----------------------------------------------------------------------------------------------


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001
    """Whether the first bytes are those of a parquet file: no other format of traces is one."""
    return start.startswith(MAGIC)


def open_(path: Path, *, limit_B: int = LIMIT_B) -> OpenedColumnar:
    """A file that `write_trace` wrote.

    Raises InputError naming what is wrong with it: no parquet, not of cmsim, of a newer version, a column missing or
    of another type, damaged, or larger than ``limit_B`` when expanded.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            found, said = file.metadata, file.schema_arrow.metadata or {}
            about = _checked_about(path, file.schema_arrow, found.num_rows)
            groups_B = sum(found.row_group(i).total_byte_size for i in range(found.num_row_groups))
            if max(groups_B, found.num_rows * _ROW_B) > limit_B:
                raise bad(path, f"is larger than {limit_B} bytes when expanded; raise limit_B if that is meant")
            table = file.read(columns=[*_COLUMNS])
        table.validate(full=True)
        if any(len(column) != found.num_rows for column in table.columns):
            raise ValueError("columns of different lengths")
        columns = _read_columns(table)
    except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
        raise bad(path, f"not a parquet file that can be read ({str(error).splitlines()[0]:.200})") from None
    ranks = dict(_ranks(about, columns))
    if _sum(said[_KEY], ranks).encode() != said.get(_SUM):
        raise bad(path, "is damaged, or was changed by another tool: it is not what its checksum says")
    return OpenedColumnar(
        Trace(
            format=about["format"],
            source=str(path),
            ranks=ranks,
            communicators=tuple(Communicator(name, tuple(of), size) for name, size, *of in about["communicators"]),
            world_size=about["world_size"],
            recorded_us=math.nan if about["recorded_us"] is None else float(about["recorded_us"]),
            notes=tuple(about["notes"]),
            facts=about["facts"],
            copies=tuple(about.get("copies", ())),
        ),
        about["source"],
    )


def _whole(value: Any, least: int = 0) -> bool:
    return type(value) is int and least <= value < 2**31


_ABOUT: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: isinstance(value, str),
    "source": lambda value: isinstance(value, str),
    "world_size": _whole,
    "recorded_us": lambda value: value is None or isinstance(value, int | float),
    "notes": lambda value: isinstance(value, list) and all(isinstance(line, str) for line in value),
    "facts": lambda value: isinstance(value, dict) and all(isinstance(x, int | float) for x in value.values()),
    "communicators": lambda value: (
        isinstance(value, list)
        and all(isinstance(one, list) and len(one) >= 2 and isinstance(one[0], str) for one in value)
        and all(_whole(number) for one in value for number in one[1:])
    ),
    "ranks": lambda value: (
        isinstance(value, list)
        and all(isinstance(one, list) and len(one) == 3 and isinstance(one[2], bool) for one in value)
        and all(_whole(number) for one in value for number in one[:2])
        and len({one[0] for one in value}) == len(value)
    ),
}


def _checked_about(path: Path, schema: Any, rows: int) -> dict[str, Any]:
    """What belongs to no row, and whether the columns are there."""
    text = (schema.metadata or {}).get(_KEY)
    if text is None:
        raise bad(path, f"is a parquet file that cmsim did not write: its metadata has no '{_KEY.decode()}'")
    try:
        about = json.loads(text)
        version = about["version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise bad(path, f"the metadata '{_KEY.decode()}' is damaged: expected JSON with a version") from None
    if type(version) is not int or not 1 <= version <= VERSION:
        raise bad(path, f"was written with version {version!r:.20} of the form; this cmsim reads up to {VERSION}")
    for key, right in _ABOUT.items():
        if key not in about or not right(about[key]):
            raise bad(path, f"the metadata '{_KEY.decode()}' is damaged: '{key}' is missing or of the wrong kind")
    for wanted in _schema():
        if wanted.name not in schema.names:
            raise bad(path, f"column '{wanted.name}' is missing")
        kind = schema.field(wanted.name).type
        if not kind.equals(wanted.type):
            raise bad(path, f"column '{wanted.name}' is of type {kind}, expected {wanted.type}")
    copies, given = about.get("copies", []), {one[0] for one in about["ranks"]}
    if not isinstance(copies, list) or not all(_whole(rank) and rank in given for rank in copies):
        raise bad(path, f"its metadata has copies: {copies!r:.40}; allowed: of each rank of the job one that is there")
    if sum(count for _, count, _ in about["ranks"]) != rows:
        raise bad(path, f"has {rows} rows, its metadata tells of {sum(count for _, count, _ in about['ranks'])}")
    checked: dict[str, Any] = about
    return checked


def _read_columns(table: Any) -> dict[str, Any]:
    """Columns as NumPy: of texts (texts, codes), of dependencies (ends of rows, rows)."""
    import pyarrow as pa

    table = table.unify_dictionaries().combine_chunks()

    def one(name: str) -> Any:
        column = table.column(name)
        return column.chunk(0) if column.num_chunks else pa.array([], column.type)

    out: dict[str, Any] = {}
    for name in (*_TEXTS, "shape"):
        column = one(name)
        codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        out[name] = [text or "" for text in column.dictionary.to_pylist()], codes
    for name in (*_FLOATS, "cores"):
        out[name] = one(name).to_numpy(zero_copy_only=False).astype(np.float64)
    for name in ("kind", *_INTS):
        none = -1 if name in _INTS else len(KINDS) + 1
        out[name] = one(name).fill_null(none).to_numpy(zero_copy_only=False).astype(np.int64)
    texts, codes = out["shape"]
    out["shape"] = tuple(map(_shape, texts)), codes
    deps = one("deps")
    offsets, values = deps.offsets.to_numpy(zero_copy_only=False), deps.values
    out["dep_ptr"] = offsets.astype(np.int64)
    out["dep_idx"] = values.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return out


def _ranks(about: dict[str, Any], columns: dict[str, Any]) -> Iterator[tuple[int, RankTrace]]:
    first = 0
    dep_ptr, dep_idx = columns["dep_ptr"], columns["dep_idx"]
    for rank, count, in_order in about["ranks"]:
        rows = slice(first, first + count)
        texts: dict[str, tuple[str, ...]] = {}
        codes: dict[str, Ints] = {}
        for name, (many, its) in _TEXTS.items():
            known, all_codes = columns[name]
            codes[its], used = first_use(all_codes[rows])
            texts[many] = tuple(known[i] for i in used.tolist())
        numbers: dict[str, Ints | Floats] = {name: columns[name][rows] for name in (*_FLOATS, *_INTS)}
        shapes, all_codes = columns["shape"]
        one = RankTrace(
            rank=rank,
            kind=np.where(columns["kind"][rows] == len(KINDS), PASS, columns["kind"][rows]),
            dep_ptr=dep_ptr[first : first + count + 1] - dep_ptr[first],
            dep_idx=dep_idx[dep_ptr[first] : dep_ptr[first + count]],
            in_order=in_order,
            shapes=shapes,
            shape=all_codes[rows],
            cores=columns["cores"][rows],
            **texts,  # type: ignore[arg-type]
            **codes,  # type: ignore[arg-type]
            **numbers,  # type: ignore[arg-type]
        )
        yield rank, _optional(one)
        first += count
