"""CSV files of the Ascend profilers: columns by name, times as whole nanoseconds, errors that name the row.

The header is not fixed: its columns come and go with the level of the profiler and the version of its tools.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from cmsim.arrays import Floats, Ints
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.reading.arrow_csv import BY_ARROW_B, after_line, read_texts
from cmsim.reading.bytes_in import LIMIT_B, read_bytes

#: what stands for "not there"
ABSENT = ("", "N/A", "NA", "null", "NULL")
#: cores of rows that are whole communication ops, by the versions of the tools
COMMUNICATION_CORES = ("HCCL", "COMMUNICATION")
#: tasks of a queue that compute nothing, by how their type starts
QUEUE_TYPES = ("EVENT", "NOTIFY", "SDMA", "PCIE", "RDMA", "WRITE", "PLACE_HOLDER", "UB_", "CCU")
#: columns of a step that sum to its length
STEP_PARTS = ("Computing", "Communication(Not Overlapped)", "Free")
HCOM = re.compile(r"(hcom_[A-Za-z]+?)_*(?:_|$)", re.IGNORECASE)

_TIME = re.compile(r"(\d{1,15}|[1-8]\d{15})(?:\.(\d*))?")
_TIMES = ("Start Time(us)", "Task Start Time(us)")
#: names of the needed columns of a table of kernels: of the frameworks' profilers, and of msprof
_KERNELS = (
    ("Name", "Type", "Accelerator Core", "Duration(us)"),
    ("Op Name", "OP Type", "Task Type", "Task Duration(us)"),
)
_SHAPES = (
    "Input Shapes",
    "Input Data Types",
    "Input Formats",
    "Output Shapes",
    "Output Data Types",
    "Output Formats",
    "HF32 Eligible",
)


@dataclass(frozen=True)
class SummaryTable:
    """Chosen columns of a CSV file.

    header   all columns, as in the file
    columns  texts of the chosen ones, stripped, one a row; "" where the row is too short or the file lacks the column
    line     line of the file each row starts at
    fields   how many fields each row has
    """

    path: Path
    header: tuple[str, ...]
    columns: dict[str, list[str]]
    line: list[int]
    fields: list[int]

    def __len__(self) -> int:
        return len(self.line)


@dataclass(frozen=True)
class Kernels:
    """A table of device tasks (kernel_details.csv, op_summary*.csv), one row each, in file order.

    format       "ascend-kernel_details" or "ascend-op_summary"
    names_used   the file's words for name, type, core, start and duration
    start_ns     since the epoch [ns]
    duration_us  as recorded [us]
    stream       as recorded, "" where the file does not say
    whole        the row has as many fields as the header; its shapes are used only then
    """

    path: Path
    format: str
    header: tuple[str, ...]
    names_used: tuple[str, ...]
    name: list[str]
    type: list[str]
    core: list[str]
    start_ns: Ints
    start_text: list[str]
    duration_us: Floats
    stream: list[str]
    step: list[str]
    whole: list[bool]
    shapes: dict[str, list[str]]

    def __len__(self) -> int:
        return len(self.name)

    def counts(self) -> dict[str, Any]:
        """What the table holds, for people; ``span_us`` in double precision, as tools print it (0.25 us today)."""
        by_core: dict[str, float] = {}
        for core, duration in zip(self.core, self.duration_us.tolist(), strict=True):
            by_core[core] = by_core.get(core, 0.0) + duration
        start = [float(text) for text in self.start_text]
        span = max((s + d for s, d in zip(start, self.duration_us.tolist(), strict=True)), default=0.0)
        return {
            "format": self.format,
            "rows": len(self),
            "columns": len(self.header),
            "column_names_used": list(self.names_used),
            "rows_by_core": dict(sorted(Counter(self.core).items())),
            "duration_us_by_core": {core: round(total, 3) for core, total in sorted(by_core.items())},
            "hcom_rows": dict(sorted(Counter(_op(name) for name in self.name if name.startswith("hcom_")).items())),
            "span_us": span - min(start, default=0.0),
            "steps": sorted({step for step in self.step if step not in ABSENT}),
        }


def _op(name: str) -> str:
    found = HCOM.match(name)
    return found[1] if found else name


def problem(path: Path, message: str, line: int | None = None) -> InputError:
    """The error for a row of a text file."""
    return InputError(Problem(message, str(path), line))


def read_table(path: Path, wanted: Sequence[str] | None, *, limit_B: int = LIMIT_B) -> SummaryTable:
    """Chosen columns (None: all) of a CSV file; a column that the file lacks is empty. Raises InputError."""
    data = read_bytes(path, limit_B=limit_B)
    lines = csv.reader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline=""))
    rows = _rows(path, lines)
    try:
        header = tuple(name.strip() for name in next(rows))
    except StopIteration:
        raise problem(path, "is empty") from None
    names = tuple(header if wanted is None else (name for name in wanted if name in header))
    for name in names:
        if header.count(name) > 1:
            raise problem(path, f"column '{name}' stands twice", 1)
    table = _through_arrow(path, data, header, names, lines.line_num) or _by_rows(
        path, data, header, names, rows, lines
    )
    for name in wanted or ():
        table.columns.setdefault(name, [""] * len(table))
    return table


def _through_arrow(
    path: Path, data: bytes, header: tuple[str, ...], names: Sequence[str], above: int
) -> SummaryTable | None:
    """A large table whose rows are all whole; ``above``: lines of the header [1]."""
    if len(data) < BY_ARROW_B:
        return None
    found = read_texts(data, after_line(data, above), header, names)
    if found is None:
        return None
    columns, line = found
    return SummaryTable(path, header, columns, line=(line + above + 1).tolist(), fields=[len(header)] * len(line))


def _by_rows(
    path: Path, data: bytes, header: tuple[str, ...], names: Sequence[str], rows: Iterator[list[str]], lines: Any
) -> SummaryTable:
    """The rest of the rows, some of which may be short."""
    places = [header.index(name) for name in names]
    pick = itemgetter(*places) if len(places) > 1 else (lambda row: tuple(row[p] for p in places))
    last = max(places, default=-1)
    kept: list[tuple[str, ...]] = []
    line, fields, before = [], [], lines.line_num
    for row in rows:
        at, before = before + 1, lines.line_num
        if not any(row):
            continue
        line.append(at)
        fields.append(len(row))
        kept.append(pick(row if len(row) > last else row + [""] * (last + 1 - len(row))))
    if fields and fields[-1] < len(header) and not data.endswith((b"\n", b"\r")):
        raise problem(path, f"cut short: the last row has {fields[-1]} of {len(header)} fields and no end", line[-1])
    columns = {name: [row[i].strip() for row in kept] for i, name in enumerate(names)}
    return SummaryTable(path=path, header=header, columns=columns, line=line, fields=fields)


def _rows(path: Path, lines: Any) -> Iterator[list[str]]:
    try:
        yield from lines
    except csv.Error as error:
        raise problem(path, f"not a readable CSV row ({error})", lines.line_num) from None
    except UnicodeDecodeError as error:
        raise problem(path, f"not text in UTF-8 ({error.reason})", lines.line_num + 1) from None


def read_kernels(path: Path, *, limit_B: int = LIMIT_B) -> Kernels:
    """kernel_details.csv or op_summary*.csv, told apart by their columns. Raises InputError naming the row."""
    wanted = [*_KERNELS[0], *_KERNELS[1], *_TIMES, *_SHAPES, "Stream ID", "Stream Id", "Step Id"]
    table = read_table(path, wanted, limit_B=limit_B)
    is_msprof = "Op Name" in table.header
    needed = _KERNELS[is_msprof]
    times = [name for name in _TIMES if name in table.header] or [_TIMES[0]]
    used = (needed[0], needed[1], needed[2], times[0], needed[3])
    for name in used:
        if name not in table.header:
            raise problem(path, f"no column '{name}'. {did_you_mean(name, table.header)}", 1)
    stream = next((name for name in ("Stream ID", "Stream Id") if name in table.header), "Stream ID")
    return Kernels(
        path=path,
        format="ascend-op_summary" if is_msprof else "ascend-kernel_details",
        header=table.header,
        names_used=used,
        name=table.columns[used[0]],
        type=table.columns[used[1]],
        core=table.columns[used[2]],
        start_ns=times_ns(table, used[3]),
        start_text=table.columns[used[3]],
        duration_us=numbers(table, used[4]),
        stream=["" if text in ABSENT else text for text in table.columns[stream]],
        step=table.columns["Step Id"],
        whole=[fields == len(table.header) for fields in table.fields],
        shapes={name: table.columns[name] for name in _SHAPES},
    )


def read_statistic(path: Path, *, limit_B: int = LIMIT_B) -> SummaryTable:
    """api_statistic.csv, op_statistic.csv: all columns."""
    return read_table(path, None, limit_B=limit_B)


def read_steps(path: Path, *, limit_B: int = LIMIT_B) -> SummaryTable:
    """step_trace_time.csv and cluster_step_trace_time.csv: all columns. Raises InputError."""
    table = read_table(path, None, limit_B=limit_B)
    for name in ("Step", *STEP_PARTS):
        if name not in table.header:
            raise problem(path, f"no column '{name}'. {did_you_mean(name, table.header)}", 1)
    return table


def step_totals_us(table: SummaryTable) -> Floats:
    """Computing, communication that is not overlapped and idle time of each step, summed. [us]"""
    computing, communication, free = (numbers(table, name) for name in STEP_PARTS)
    return computing + communication + free


def numbers(table: SummaryTable, name: str) -> Floats:
    """A column as numbers of 0 or more. Raises InputError naming row and column."""
    out = np.empty(len(table), np.float64)
    for i, text in enumerate(table.columns[name]):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < 1e15:
            raise problem(table.path, f"{name}: expected a number of 0 or more, got {text!r:.60}", table.line[i])
        out[i] = value
    return out


def times_ns(table: SummaryTable, name: str) -> Ints:
    """A column of times since the epoch, in whole nanoseconds. Raises InputError naming row and column."""
    texts = table.columns[name]
    out, wrong = epoch_ns(texts)
    if wrong >= 0:
        message = f"{name}: expected microseconds since the epoch, got {texts[wrong]!r:.60}"
        raise problem(table.path, message, table.line[wrong])
    return out


def epoch_ns(times: Sequence[Any]) -> tuple[Ints, int]:
    """Microseconds since the epoch (texts of up to three decimals, or numbers) as whole ns, and the first wrong one.

    Double precision keeps 0.25 us of such a time, so the digits are read as they stand.

    >>> epoch_ns(["1736408883704643.212", "1736408883704643.5"])
    (array([1736408883704643212, 1736408883704643500]), -1)
    >>> epoch_ns(["1.0", "x"])[1]
    1
    """
    try:
        return _alike_ns(times), -1
    except (TypeError, ValueError):
        pass
    out = np.zeros(len(times), np.int64)
    for i, time in enumerate(times):
        value = _one_ns(time)
        if value is None:
            return out, i
        out[i] = value
    return out, -1


def _alike_ns(times: Sequence[Any]) -> Ints:
    """Texts of one length with three decimals, all at once; ValueError or TypeError where they are not."""
    width = len(times[0]) if times else 0
    if not 5 <= width <= 20 or set(map(len, times)) != {width}:
        raise ValueError
    raw = np.frombuffer("".join(times).encode("ascii"), np.uint8).reshape(-1, width)
    digit = np.delete(raw, width - 4, axis=1)
    if (raw[:, width - 4] != ord(".")).any() or (digit < ord("0")).any() or (digit > ord("9")).any():
        raise ValueError
    if width == 20 and (digit[:, 0] > ord("8")).any():
        raise ValueError
    value = np.zeros(len(raw), np.int64)
    for column in digit.T:
        value = value * 10 + (column - ord("0"))
    return value


def _one_ns(time: Any) -> int | None:
    if isinstance(time, str):
        found = _TIME.fullmatch(time.strip())
        return int(found[1]) * 1000 + int(((found[2] or "") + "000")[:3]) if found else None
    if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time < 9e15:
        return None
    return int(time) * 1000 + round((time - int(time)) * 1000)
