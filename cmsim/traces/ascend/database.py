"""The database form of the Ascend profilers (``ascend_pytorch_profiler_<rank>.db``, ``analysis.db``, msprof's): SQLite.

Read are ``TASK`` with ``COMPUTE_TASK_INFO`` (kernels with their shapes, and copies), ``COMMUNICATION_OP``,
``STEP_TIME``, ``RANK_DEVICE_MAP`` and, of ``META_DATA``, who is in which communicator; texts are numbers into
``STRING_IDS``. Calls of the host and their links to tasks are not read: what passes between tasks stays as gaps.

Source: the profiler's documentation of its db export (tables and columns), and msprof-analyze, which reads them.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from cmsim.reading.bytes_in import LIMIT_B, bad
from cmsim.traces.ascend.documents import Metadata, read_metadata
from cmsim.traces.ascend.groups import UNEQUAL, CommRow, word_of
from cmsim.traces.ascend.tables import Kernels
from cmsim.traces.ascend.view import dtype_B

MAGIC = b"SQLite format 3\x00"
#: tables of which a database of the profiler has one at least
_TABLES = ("TASK", "COMMUNICATION_OP")
_RANK = re.compile(r"_profiler_(\d{1,7})\.db$")
#: HcclDataType by number, where the file has no ENUM_HCCL_DATA_TYPE
_HCCL_TYPES = (
    *("INT8", "INT16", "INT32", "FP16", "FP32", "INT64", "UINT64"),
    *("UINT8", "UINT16", "UINT32", "FP64", "BFP16", "INT128"),
)
#: other names of element types in that table
_CALLED = {"BFP16": "BF16", "BFLOAT16": "BF16"}
_INFO = (
    ("inputShapes", "Input Shapes"),
    ("inputDataTypes", "Input Data Types"),
    ("inputFormats", "Input Formats"),
    ("outputShapes", "Output Shapes"),
    ("outputDataTypes", "Output Data Types"),
    ("outputFormats", "Output Formats"),
    ("hf32Eligible", "HF32 Eligible"),
)
#: times beyond are none of a clock [ns]
_LATEST_NS = 2**63 - 1


@dataclass(frozen=True)
class Database:
    """What one database holds of a rank. ``steps``: as marked, 0 where they are not."""

    kernels: Kernels
    comm: tuple[CommRow, ...]
    rank: int | None
    metadata: Metadata | None
    steps: int
    counted: dict[str, Any]


def is_database(path: Path) -> bool:
    """Whether a SQLite file has the tables of the profiler."""
    try:
        with _opened(path) as db:
            return any(name in _names(db) for name in _TABLES)
    except (sqlite3.Error, OSError):
        return False


def read_database(path: Path, *, limit_B: int = LIMIT_B) -> Database:
    """Read one file. Raises InputError naming the table, where it is damaged or no database of the profiler."""
    try:
        if path.stat().st_size > limit_B:
            raise bad(path, f"is larger than {limit_B} bytes; raise limit_B if that is meant")
        with _opened(path) as db:
            return _Reader(path, db).read()
    except sqlite3.Error as error:
        raise bad(path, f"is no readable SQLite database ({error})") from None
    except OSError as error:
        raise bad(path, f"cannot be read ({error.strerror or error})") from None


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    # immutable: nothing is written beside the file, whoever it belongs to
    with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1", uri=True)) as db:
        db.text_factory = lambda text: text.decode("utf-8", "replace")
        yield db


def _names(db: sqlite3.Connection) -> set[str]:
    return {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}


class _Reader:
    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self._path, self._db, self._tables = path, db, _names(db)
        self._texts: dict[int, str] = {}

    def read(self) -> Database:
        if not any(name in self._tables for name in _TABLES):
            listed = ", ".join(sorted(self._tables)[:6]) or "none"
            raise bad(
                self._path,
                f"is a database without the tables TASK and COMMUNICATION_OP of the Ascend profiler (it has {listed}); "
                "allowed: ascend_pytorch_profiler_<rank>.db, or the text export (export_type: text)",
            )
        self._texts = dict(self._rows("STRING_IDS", ("id", "value"), texts=("value",)))
        kernels, comm = self._kernels(), self._comm()
        steps = len(self._rows("STEP_TIME", ("startNs", "endNs")))
        found = Counter(row.word for row in comm)
        return Database(
            kernels=kernels,
            comm=comm,
            rank=self._rank(),
            metadata=self._metadata(),
            steps=steps,
            counted={
                "format": "ascend-database",
                "tables": sorted(self._tables),
                "tasks": len(kernels),
                "tasks_by_type": dict(sorted(Counter(kernels.core).items())),
                "communication_ops": dict(sorted(found.items())),
                "steps": steps,
            },
        )

    def _rows(
        self, table: str, columns: Sequence[str], *, texts: Sequence[str] = (), least: int = 0
    ) -> list[tuple[Any, ...]]:
        """Rows of a table, None where it lacks a column; [] where the file lacks the table. Whole numbers, but texts.

        least  so many of the first columns must be there
        """
        if table not in self._tables:
            return []
        there = {row[1] for row in self._db.execute(f'PRAGMA table_info("{table}")')}
        lacking = [name for name in columns[:least] if name not in there]
        if lacking:
            raise bad(self._path, f"table {table} has no column {lacking[0]}")
        picked = ", ".join(f'"{name}"' if name in there else "NULL" for name in columns)
        rows = self._db.execute(f'SELECT {picked} FROM "{table}"').fetchall()
        whole = [i for i, name in enumerate(columns) if name not in texts]
        for number, row in enumerate(rows):
            for i in whole:
                if row[i] is not None and type(row[i]) is not int:
                    message = (
                        f"table {table}, row {number + 1}: {columns[i]}: got {row[i]!r:.40}; allowed: whole numbers"
                    )
                    raise bad(self._path, message)
        return rows

    def _text(self, number: int | None) -> str:
        return self._texts.get(number, "") if number is not None else ""

    def _kernels(self) -> Kernels:
        """Tasks that compute, with what is said of them, and copies; parts of communication ops are none of these."""
        told = {
            row[0]: row[1:]
            for row in self._rows(
                "COMPUTE_TASK_INFO", ("globalTaskId", "name", "taskType", "opType", *(key for key, _ in _INFO)), least=2
            )
        }
        moves = {row[0] for row in self._rows("COMMUNICATION_TASK_INFO", ("globalTaskId",))}
        name, kind, core, start, length, stream = [], [], [], [], [], []
        shapes: dict[str, list[str]] = {title: [] for _, title in _INFO}
        columns = ("startNs", "endNs", "globalTaskId", "taskType", "streamId")
        for begin, end, task, task_type, on in self._rows("TASK", columns, least=2):
            if task in moves:
                continue
            its = told.get(task, (None,) * (3 + len(_INFO)))
            type_ = self._text(its[1]) or self._text(task_type)
            self._check("TASK", begin, end)
            start.append(begin)
            length.append((end - begin) / 1000)
            name.append(self._text(its[0]) or type_)
            core.append(type_ if task not in told or type_ else "AI_CORE")
            kind.append(self._text(its[2]) or type_)
            stream.append("" if on is None else str(on))
            for (_, title), number in zip(_INFO, its[3:], strict=True):
                shapes[title].append(self._text(number))
        return Kernels(
            path=self._path,
            format="ascend-database",
            header=("TASK", "COMPUTE_TASK_INFO"),
            names_used=("name", "opType", "taskType", "startNs", "endNs"),
            name=name,
            type=kind,
            core=core,
            start_ns=np.array(start, np.int64),
            start_text=[str(one) for one in start],
            duration_us=np.array(length, np.float64),
            stream=stream,
            step=[""] * len(name),
            whole=[True] * len(name),
            shapes=shapes,
        )

    def _check(self, table: str, begin: int | None, end: int | None) -> None:
        if begin is None or end is None or not 0 <= begin <= end <= _LATEST_NS:
            raise bad(self._path, f"table {table}: a row from {begin} to {end} ns; allowed: times in order, from 0")

    def _comm(self) -> tuple[CommRow, ...]:
        named = dict(self._rows("ENUM_HCCL_DATA_TYPE", ("id", "name"), texts=("name",)))
        types = named or dict(enumerate(_HCCL_TYPES))
        out = []
        columns = ("startNs", "endNs", "opName", "groupName", "dataType", "count", "opType")
        for begin, end, op, group, data, count, kind in self._rows("COMMUNICATION_OP", columns, least=3):
            self._check("COMMUNICATION_OP", begin, end)
            name, key = self._text(op), self._text(group) or "communication"
            word = word_of(name) if name else word_of(self._text(kind))
            # a number of the enumeration, or of its text
            element = str(types.get(data, "") or self._text(data))
            one_B = dtype_B(_CALLED.get(element.upper(), element))
            known = (
                one_B and count is not None and (count > 0 or (count == 0 and word not in (*UNEQUAL, "batchsendrecv")))
            )
            size_B = float(count * one_B) if known else -1.0
            out.append(CommRow(name, word, key, f"communication {key}", begin, (end - begin) / 1000, size_B))
        return tuple(sorted(out, key=lambda row: (row.start_ns, row.name)))

    def _rank(self) -> int | None:
        ranks = {
            rank for (rank,) in self._rows("RANK_DEVICE_MAP", ("rankId",)) if rank is not None and 0 <= rank < 2**24
        }
        if len(ranks) == 1:
            return int(ranks.pop())
        found = _RANK.search(self._path.name)
        return int(found[1]) if found else None

    def _metadata(self) -> Metadata | None:
        """Communicators and size of the job, where META_DATA has them as JSON."""
        document: dict[str, Any] = {}
        for key, value in self._rows("META_DATA", ("name", "value"), texts=("name", "value")):
            if key in ("parallel_group_info", "distributed_args"):
                try:
                    document[key] = json.loads(value)
                except (TypeError, ValueError, RecursionError):
                    raise bad(self._path, f"table META_DATA: {key} is no JSON") from None
        return read_metadata(self._path, document) if document else None
