"""A store of results: written as they come, in parts of many runs each, and read back over all parts.

    store = Store(folder)
    store.add(outcome, digest)          # of a run that `done()` does not have
    store.flush()                       # else every so many runs, or seconds
    store.metrics()                     # all runs as one tidy frame, as `Results.metrics`

    store.json                          says that the folder is a store
    runs/PART.parquet                   a row a run: digest, metrics and all else of its tidy row, and all as JSON
    ops/, links/, power/PART.parquet    frames of the runs of a part that were recorded in full

A part is written beside its place and renamed, its runs last: a process may end at any time, and what is there is
whole. Parts are called by the runs in them, so that several processes may write to one store; of a run that two have
made, one is read.

What waits for its part is lost with the process, unless the store is `sole`: written to by one process at a time, which
notes each run as it comes (``waiting.jsonl``). How all come into one order stands in `cmsim.results.settled`.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cmsim.arrays import Columns
from cmsim.errors import InputError, Problem
from cmsim.reading import sweep, whole_file, written
from cmsim.results import store, tidy
from cmsim.results.outcome import Outcome, became, entry, missing_of
from cmsim.results.result import FRAMES, Result, frames_of
from cmsim.version import SCHEMA_VERSION, unread

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

#: what makes a folder a store
MARK = "store.json"
_RUNS = "runs"
#: runs that wait for their part, of a store that one process writes to
_NOTED = "waiting.jsonl"
#: a part is written once it has so many runs, so many bytes of frames, or has waited so long
_MOST_RUNS, _MOST_B, _MOST_s = 256, 64e6, 10.0
#: parts of a row whose values may be anything that a scenario says: kept as JSON
_ANYTHING = frozenset({"point", "chosen"})
#: where a part says which names its rows have, in its metadata
_SHAPES = b"cmsim shapes"


class Store:
    """A folder of results, which need not be there yet.

    most_runs, most_s   a part is written once so many runs wait, or one has waited so long    clock: for tests
    sole     nobody else writes here, which is for the caller to see to: no run that was added is ever lost

    Raises InputError for a folder that holds something else, or a store of another version.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        most_runs: int = _MOST_RUNS,
        most_s: float = _MOST_s,
        clock: Callable[[], float] = time.monotonic,
        sole: bool = False,
    ):
        self.folder = Path(folder).absolute()
        self._sole = sole
        self._most_runs, self._most_s, self._clock = most_runs, most_s, clock
        self._waiting: dict[str, Outcome] = {}
        self._waiting_B = 0
        self._since_s = 0.0
        self._swept = False
        _check(self.folder)
        if sole:
            self._recover()

    def __repr__(self) -> str:
        return f"<Store {self.folder.name}: {len(self.done())} runs>"

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def add(self, outcome: Outcome, digest: str) -> None:
        """Take what became of a run; written at once or with others. Raises InputError where it cannot be written."""
        if not self._waiting:
            self._since_s = self._clock()
        self._waiting[digest] = outcome
        if isinstance(outcome, Result):
            self._waiting_B += sum(column.nbytes for kind in outcome.columns.values() for column in kind.values())
        full = len(self._waiting) >= self._most_runs or self._waiting_B >= (1 if self._sole else _MOST_B)
        if full or self._clock() - self._since_s >= self._most_s:
            self.flush()
        elif self._sole:
            self._note(digest, outcome)

    def flush(self) -> None:
        """Write what waits, as one part."""
        if not self._waiting:
            return
        name = _part_name(self._waiting)
        with self._marked():
            done = [one for one in self._waiting.values() if isinstance(one, Result)]
            for kind in dict.fromkeys(kind for one in done for kind in frames_of(one.columns)):
                self._write_frames(kind, name)
            self._write_runs(name)
            if self._sole:
                (self.folder / _NOTED).unlink(missing_ok=True)
        self._waiting.clear()
        self._waiting_B = 0

    def settle(self, digests: Sequence[str]) -> None:
        """Bring these runs into this order, in parts of `_MOST_RUNS`, and leave all others out.

        Equal runs give equal bytes. Raises InputError for a run that is not there.
        """
        self.flush()
        files = self._files()
        _known(self.done(), digests)
        if not files:
            return
        there = _Schema(files)
        table = _chosen(_read(there, there.columns.names), digests)
        shapes = {key: there.shapes[key] for key in dict.fromkeys(table["shape"].to_pylist())}
        table = table.replace_schema_metadata({_SHAPES: json.dumps(shapes)})
        kinds = [path.name for path in sorted(self.folder.iterdir()) if path.is_dir()]
        new: dict[str, set[str]] = {kind: set() for kind in (_RUNS, *kinds)}
        for first in range(0, len(table), _MOST_RUNS):
            rows = table.slice(first, _MOST_RUNS)
            name = _part_name(rows["digest"].to_pylist())
            for kind in self._settle_frames(rows, name):
                new[kind].add(name)
            part = table.column_names.index("part")
            self._write_table(rows.set_column(part, "part", [[name] * len(rows)]), name)
            new[_RUNS].add(name)
        for kind, names in new.items():  # rows before the frames that they name
            for path in (self.folder / kind).glob("[!.]*.parquet"):
                if path.stem not in names:
                    path.unlink()
            if not names:
                (self.folder / kind).rmdir()

    def _settle_frames(self, rows: pa.Table, name: str) -> list[str]:
        """Frames of some runs as the part of that name; which kinds there were."""
        has = [_kinds_of(json.loads(text)) for text in rows["document"].to_pylist()]
        places = list(zip(rows["digest"].to_pylist(), rows["part"].to_pylist(), has, strict=True))
        kinds = list(dict.fromkeys(kind for its in has for kind in its))
        for kind in kinds:
            frames = ((d, _Kept(self.folder, part, d, its)[kind]) for d, part, its in places if kind in its)
            self._write_columns(kind, name, ((digest, columns) for digest, columns in frames if columns))
        return kinds

    def done(self) -> set[str]:
        """Digests of the runs that are there, and of those that wait."""
        found = set(self._waiting)
        if files := self._files():
            found.update(_read(_Schema(files), ["digest"])["digest"].to_pylist())
        return found

    def outcomes(self) -> dict[str, str]:
        """By the digests of runs that are there, what became of them: result, infeasible or failed."""
        files = self._files()
        there = _read(_Schema(files), ["digest", "outcome/outcome"]).to_pydict() if files else {"digest": []}
        found = dict(zip(there["digest"], there["outcome/outcome"], strict=True)) if there["digest"] else {}
        return found | {digest: became(one) for digest, one in self._waiting.items()}

    def metrics(self, digests: Sequence[str] | None = None) -> pd.DataFrame:
        """A row per run, as `Results.metrics` has them.

        digests: of the runs, in the order of their rows; default: all, by their labels. Raises InputError for one that
        is not there.
        """
        import pandas as pd

        self.flush()
        files = self._files()
        if not files:
            _known((), digests)
            return pd.DataFrame()
        there = _Schema(files)
        names = [name for name in there.columns.names if name not in ("document", "part")]
        table = _chosen(_read(there, names), digests)
        shapes = [there.shapes[key] for key in dict.fromkeys(table["shape"].to_pylist())]
        columns = {
            name: _values([(table[f"{tidy.PARTS[at]}/{key}"], tidy.PARTS[at]) for at, key in places])
            for name, places in tidy.layout(shapes).items()
        }
        return pd.DataFrame(columns)

    def results(self, digests: Sequence[str] | None = None) -> Iterator[Outcome]:
        """Runs one by one, as of `metrics`; frames are read when somebody looks at them."""
        self.flush()
        files = self._files()
        if not files:
            _known((), digests)
            return iter(())
        table = _chosen(_read(_Schema(files), ["digest", "run/run", "part", "document"]), digests)
        rows = (table[name].to_pylist() for name in ("digest", "part", "document"))
        return itertools.starmap(self._outcome, zip(*rows, strict=True))

    def _outcome(self, digest: str, part: str, document: str) -> Outcome:
        said = json.loads(document)
        if "facts" not in said:
            return missing_of(said)
        has = _kinds_of(said)
        return store.result_of(said["summary"], said["facts"], _Kept(self.folder, part, digest, has) if has else {})

    @contextlib.contextmanager
    def _marked(self) -> Iterator[None]:
        """The folder as a store. Raises InputError where it cannot be written, now or by the end."""
        if not self._swept:
            for kind in (_RUNS, *FRAMES):
                sweep(self.folder / kind)
            self._swept = True
        with written(self.folder / MARK) as mark:
            mark.write_text(_MARK_TEXT, encoding="utf-8", newline="\n")
            yield

    def _recover(self) -> None:
        """Runs that a process noted and did not write; a line that it was killed in is none."""
        try:
            lines = (self.folder / _NOTED).read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return
        noted = (json.loads(line) for line in lines)
        self._waiting = {one["digest"]: self._outcome(one["digest"], "", one["document"]) for one in noted}
        self.flush()
        (self.folder / _NOTED).unlink(missing_ok=True)  # nothing but the line that was cut

    def _note(self, digest: str, outcome: Outcome) -> None:
        if not (self.folder / _NOTED).exists():
            with self._marked():
                pass
        line = json.dumps({"digest": digest, "document": _text(outcome)}).encode() + b"\n"
        try:
            with (self.folder / _NOTED).open("ab", buffering=0) as file:
                file.write(line)
        except OSError as error:
            problem = Problem(f"cannot be written ({error.strerror or error})", str(self.folder / _NOTED))
            raise InputError(problem) from None

    def _files(self) -> list[Path]:
        return sorted((self.folder / _RUNS).glob("[!.]*.parquet"))

    def _write_frames(self, kind: str, name: str) -> None:
        kept = {
            digest: one.columns[kind]
            for digest, one in self._waiting.items()
            if isinstance(one, Result) and one.columns.get(kind)
        }
        if kept:
            self._write_columns(kind, name, kept.items())

    def _write_columns(self, kind: str, name: str, kept: Iterable[tuple[str, Columns]]) -> None:
        import pyarrow.parquet as pq

        def write(path: Path) -> None:
            tables = (store.frame_table("digest", digest, columns) for digest, columns in kept)
            first = next(tables)
            # a run is a group of rows of its own, so that a reader passes over the others
            with pq.ParquetWriter(path, first.schema, compression="zstd", version="2.6", store_schema=False) as file:
                for table in itertools.chain([first], tables):
                    if len(table):
                        file.write_table(table, row_group_size=len(table))

        _written_whole(self.folder / kind / f"{name}.parquet", write)

    def _write_runs(self, name: str) -> None:
        self._write_table(_rows(self._waiting, name), name)

    def _write_table(self, table: pa.Table, name: str) -> None:
        import pyarrow.parquet as pq

        _written_whole(
            self.folder / _RUNS / f"{name}.parquet",
            lambda path: pq.write_table(table, path, compression="zstd", version="2.6"),
        )


_MARK_TEXT = json.dumps({"schema_version": SCHEMA_VERSION, "store": "results of cmsim, by digest of run"}) + "\n"


def _check(folder: Path) -> None:
    """Raises InputError where a store must not be."""
    # another process may be writing the first file there, beside its place
    if not folder.exists() or (folder.is_dir() and all(one.name.startswith(".") for one in folder.iterdir())):
        return
    try:
        said = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(Problem("holds something that is not a store of results", str(folder))) from None
    if why := unread(said.get("schema_version")):
        raise InputError(Problem(f"is a store of schema_version {why}", str(folder)))


def _written_whole(path: Path, write: Callable[[Path], object]) -> None:
    """A file that takes its place when the disk has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as beside:
        write(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())


class _Kept(Mapping[str, Columns]):
    """Frames of one run of a store, each read when it is asked for."""

    def __init__(self, folder: Path, part: str, digest: str, has: tuple[str, ...]):
        self._folder, self._part, self._digest, self._has = folder, part, digest, has
        self._frames: dict[str, Columns] = {}

    def __getitem__(self, kind: str) -> Columns:
        if kind not in self._has:
            raise KeyError(kind)
        if kind not in self._frames:
            self._frames[kind] = self._read(kind)
        return self._frames[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._has)

    def __len__(self) -> int:
        return len(self._has)

    def _read(self, kind: str) -> Columns:
        import pyarrow as pa
        import pyarrow.dataset as ds

        path = self._folder / kind / f"{self._part}.parquet"
        try:
            found = ds.dataset(path).to_table(filter=ds.field("digest") == self._digest)
        except (OSError, pa.ArrowException) as error:
            raise InputError(Problem(f"cannot be read: {error}", str(path))) from None
        columns = {name: found[name] for name in found.column_names if name != "digest"}
        return {
            name: store.array_of(column.dictionary_encode() if pa.types.is_string(column.type) else column)
            for name, column in columns.items()
        }


# rows of runs


def _rows(outcomes: Mapping[str, Outcome], part: str) -> pa.Table:
    """A row per run: its digest, the part that has its frames, its tidy row by part, and all of it as JSON."""
    import pyarrow as pa

    rows = [tidy.parts(one) for one in outcomes.values()]
    columns: dict[str, list[Any]] = {
        "digest": list(outcomes),
        "part": [part] * len(rows),
        "shape": [_key(tidy.shape(row)) for row in rows],
        "document": [_text(one) for one in outcomes.values()],
    }
    for at, what in enumerate(tidy.PARTS):
        for name in dict.fromkeys(name for row in rows for name in row[at]):
            values = [row[at].get(name) for row in rows]
            if what in _ANYTHING:
                values = [json.dumps(value, default=store.plain) for value in values]
            columns[f"{what}/{name}"] = values
    table = pa.table({name: _column(values) for name, values in columns.items()})
    # runs of a sweep are mostly of one shape, and its names are long
    shapes = {_key(one): one for one in map(tidy.shape, rows)}
    return table.replace_schema_metadata({_SHAPES: json.dumps(shapes)})


def _part_name(digests: Iterable[str]) -> str:
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:32]


def _kinds_of(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Frames of a run that were kept."""
    if "facts" not in document or "record" in document["summary"]:
        return ()
    return tuple(document["summary"].get("frames", FRAMES))


def _key(shape: tidy.Shape) -> str:
    return hashlib.sha256(json.dumps(shape).encode()).hexdigest()[:16]


def _column(values: Sequence[Any]) -> pa.Array:
    """Whole numbers where all are, else floats; or text."""
    import pyarrow as pa

    numbers = [value for value in values if value is not None and not isinstance(value, str)]
    if not numbers:
        return pa.array(values, pa.string())
    whole = all(isinstance(value, int | np.integer) for value in numbers)
    return pa.array([None if value is None else (int if whole else float)(value) for value in values])


def _text(one: Outcome) -> str:
    return json.dumps(_document(one), default=store.plain, allow_nan=False)


def _document(one: Outcome) -> dict[str, Any]:
    if not isinstance(one, Result):
        return entry(one)
    return {"summary": one.summary(), "facts": {**one.facts.named(), **one.machine.named()}}


class _Schema:
    """What all parts hold: ``columns``, where whole numbers here and others there are numbers, and ``shapes``, the
    names in rows by key. Raises InputError for a part that cannot be read."""

    def __init__(self, files: Sequence[Path]):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.files = files
        self.shapes: dict[str, tidy.Shape] = {}
        schemas = []
        for path in files:
            try:
                schemas.append(pq.read_schema(path))
                said = json.loads(schemas[-1].metadata[_SHAPES])
            except (OSError, pa.ArrowException, TypeError, KeyError) as error:
                raise InputError(Problem(f"is no part that can be read: {error}", str(path))) from None
            self.shapes.update({key: tuple(map(tuple, shape)) for key, shape in said.items()})
        self.columns = pa.unify_schemas(schemas, promote_options="permissive")


def _read(there: _Schema, columns: Sequence[str]) -> pa.Table:
    """Some columns of all parts, a file after the other: they are small, and threads would each hold memory."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    try:
        found = ds.dataset([str(path) for path in there.files], schema=there.columns)
        return found.to_table(columns=list(columns), use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise InputError(Problem(f"holds a part that cannot be read: {error}", str(there.files[0].parent))) from None


def _chosen(table: pa.Table, digests: Sequence[str] | None) -> pa.Table:
    """Rows of the wanted runs in their order; of equal ones the first."""
    at: dict[str, int] = {}
    for row, digest in enumerate(table["digest"].to_pylist()):
        at.setdefault(digest, row)
    if digests is None:
        label = table["run/run"].to_pylist()
        digests = sorted(at, key=lambda digest: (label[at[digest]], digest))
    _known(at, digests)
    return table.take([at[digest] for digest in digests])


def _known(there: Collection[str], digests: Sequence[str] | None) -> None:
    missing = [digest for digest in digests or () if digest not in there]
    if missing:
        raise InputError(
            f"{len(missing)} of the runs asked for are not in the store, the first with digest {missing[0]}"
        )


def _values(places: Sequence[tuple[pa.ChunkedArray, str]]) -> Any:
    """A column of the tidy table, as pandas takes it: of several parts of rows the last that has a value."""
    import pyarrow as pa

    ((column, part),) = places[:1]
    if len(places) == 1 and part not in _ANYTHING and not pa.types.is_string(column.type):
        return column.to_numpy()  # NaN where there is none
    out: list[Any] = [None] * len(column)
    for column, part in places:
        values = column.to_pylist()
        if part in _ANYTHING:
            known = {text: json.loads(text) for text in dict.fromkeys(values) if text is not None}
            values = [known.get(text) for text in values]
        out = [b if a is None else a for a, b in zip(values, out, strict=True)]
    return out


__all__ = ["Store"]
