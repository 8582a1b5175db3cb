"""Communication logs of AICB (csv): what a rank of a training run sends, planned or measured, one op a row.

Optional lines such as ``[rank0 ~ rank127]`` or ``[ pp_stage0: [rank0, rank1, ...] ]`` say whose log it is: one rank's,
which all run alike. Of a job in pipeline stages each stage has such a line, a header and rows of its own, one after the
other. A header has ``comm_type``, ``comm_group``, ``msg_size`` [B, the whole array], ``stage``, ``_elapsed_time`` [ms],
``algbw`` and ``busbw``; newer files have ``comm_group_size``. The word ``None`` is a missing value. ``epoch_end`` rows
hold the time of a whole iteration.

AICB issues a row when the one before has ended, so the ops form a chain, and all ranks run the same. Groups are laid
out as AICB makes them, tensor-parallel ranks next to each other, then expert, data and pipeline parallelism.

Where ``comm_group_size`` and the ratio of ``busbw`` to ``algbw`` disagree about a group, the column is taken and a note
says so: in the measured log that is known, the ratio is that of the whole job in every group.

Source: AICB, log_analyzer/log.py and workload_applyer.py (order "tp-cp-ep-dp-pp").
"""

from __future__ import annotations

import csv
import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.errors import InputError, Problem
from cmsim.reading.bytes_in import LIMIT_B, bad, read_bytes
from cmsim.traces.aicb_ops import EPOCH_END, FORMAT, MOST_RANKS, of_one, of_stages
from cmsim.traces.recorded import Trace

_MISSING = ("", "None")
_HEADER = re.compile(rb"^[^\n]*\bcomm_type\s*,[^\n]*\bmsg_size\b", re.MULTILINE)
_RANKS = re.compile(r"rank\s*(\d{1,9})(?:\s*[~-]\s*(?:rank)?\s*(\d{1,9}))?")
_NUMBER = re.compile(r"[-+]?(\d{1,300}(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?")
#: lines before the header that are read over
_MOST_PREAMBLE = 64


class LayerRow(NamedTuple):
    """One row; see `AicbLog`."""

    line: int
    kind: str
    group: str
    stage: str
    shape: str
    size_B: float
    elapsed_ms: float


@dataclass(frozen=True)
class AicbLog:
    """A log as read, a column each; texts are numbers into ``texts``, numbers that are missing are NaN.

    preamble  lines before headers
    stages    ranks of each pipeline stage as those lines say, ascending; empty where they do not
    stage_of  into ``stages``, by row
    staged    those lines are of pipeline stages, not of the whole job
    shape     a size that is no number, else empty
    """

    path: Path
    preamble: int
    stages: tuple[range, ...]
    texts: tuple[str, ...]
    line: Ints
    kind: Ints
    group: Ints
    stage: Ints
    shape: Ints
    group_size: Floats
    size_B: Floats
    elapsed_ms: Floats
    algbw: Floats
    busbw: Floats
    stage_of: Ints
    staged: bool = False

    def __len__(self) -> int:
        return len(self.kind)

    @property
    def ranks(self) -> int:
        """Ranks of the job, 0 where the file does not say."""
        return max((stage.stop for stage in self.stages), default=0)

    def counts(self) -> dict[str, Any]:
        """Rows, bytes [B] and elapsed time [ms, to 3 decimals]; sizes and times that are missing count as 0."""
        number = {f"CommType.{self.texts[k]}": self.kind == k for k in np.unique(self.kind).tolist()}
        timed = ~np.isnan(self.elapsed_ms)
        iteration = self.of("kind", EPOCH_END)
        return {
            "format": FORMAT,
            "rows": len(self),
            "preamble_lines": self.preamble,
            **({"pipeline_stages": len(self.stages)} if len(self.stages) > 1 else {}),
            "comm_types": {name: int(here.sum()) for name, here in sorted(number.items())},
            "groups": self._counted(self.group, lambda name: f"CommGroup.{name}" if name else "None"),
            "stages": self._counted(self.stage, lambda name: name.split(".")[0]),
            "bytes": {name: math.fsum(np.nan_to_num(self.size_B[here])) for name, here in sorted(number.items())},
            "iterations": int(iteration.sum()),
            "rows_with_elapsed": int(timed.sum()),
            "rows_without_numeric_size": int(np.isnan(self.size_B).sum()),
            "elapsed_sum_ms_all_rows": round(math.fsum(self.elapsed_ms[timed]), 3),
            "elapsed_sum_ms_without_epoch_end": round(math.fsum(self.elapsed_ms[timed & ~iteration]), 3),
        }

    def rows(self) -> Iterator[LayerRow]:
        columns = (self.line, self.kind, self.group, self.stage, self.shape, self.size_B, self.elapsed_ms)
        for line, kind, group, stage, shape, size_B, elapsed_ms in zip(*(c.tolist() for c in columns), strict=True):
            texts = self.texts
            yield LayerRow(line, texts[kind], texts[group], texts[stage], texts[shape], size_B, elapsed_ms)

    def _counted(self, column: Ints, name: Callable[[str], str]) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for code, number in zip(*np.unique(column, return_counts=True), strict=True):
            counts[name(self.texts[code])] += int(number)
        return dict(sorted(counts.items()))

    def of(self, column: str, *names: str) -> NDArray[np.bool_]:
        """Rows with one of these texts."""
        codes = [i for i, text in enumerate(self.texts) if text in names]
        return np.isin(getattr(self, column), codes)

    def trace(self, *, ranks: int | None = None) -> Trace:
        """All iterations of one rank, which all ranks run.

        ranks  size of the job; None where the file gives it, or the sizes of its groups

        Raises InputError where sizes are missing or do not fit together.
        """
        notes: list[str] = []
        if len(self.stages) > 1:
            return of_stages(self, ranks, notes)
        return of_one(self, ranks, notes)

    def of_stage(self, number: int) -> AicbLog:
        """The rows of one pipeline stage, as the log of a job that has no other."""
        here = self.stage_of == number
        columns = {
            one.name: getattr(self, one.name)[here]
            for one in fields(self)
            if isinstance(getattr(self, one.name), np.ndarray)
        }
        return replace(self, stages=(range(len(self.stages[number])),), **columns)


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001 (all importers are asked alike)
    """Whether a text has the header of a log among its first lines."""
    return _HEADER.search(start) is not None


def open_(path: Path, *, limit_B: int = LIMIT_B) -> AicbLog:
    """Read a file, gzipped or not. Raises InputError naming the line."""
    path = Path(path)
    data = read_bytes(path, limit_B=limit_B)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad(path, "is not text", byte=error.start) from None
    del data
    lines = _lines(text)
    before: list[str] = []
    for line in islice(lines, _MOST_PREAMBLE):
        if _is_header(line):
            break
        before.append(line)
    else:
        raise bad(path, "not an AICB log: no header that starts with comm_type")
    read = _Reader(path, len(before) + 1)
    read.stage(before, line.split(","))
    read.take(lines)
    return read.log()


def _is_header(line: str) -> bool:
    return line.replace(" ", "").startswith("comm_type,")


def _lines(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        yield text[at:end].removesuffix("\r")
        at = end + 1


class _Reader:
    """Rows into columns."""

    def __init__(self, path: Path, line: int):
        self._path, self._line, self._before = path, line, line
        self._names: list[str] = []
        self._at: dict[str, int] = {}
        self._texts: dict[str, int] = {"": 0}
        self._codes = {name: array("q") for name in ("line", "kind", "group", "stage", "shape", "stage_of")}
        self._numbers = {name: array("d") for name in ("group_size", "size_B", "elapsed_ms", "algbw", "busbw")}
        self._stages: list[range] = []
        self._preamble = self._headers = 0
        self._staged = False

    def stage(self, before: Sequence[str], header: Sequence[str]) -> None:
        """Rows of a pipeline stage follow: the lines before its header, which say whose they are, and the header."""
        self._headers += 1
        self._preamble += len(before)
        self._names = [name.strip() for name in header]
        self._at = {name: i for i, name in enumerate(self._names)}
        for name in ("comm_type", "comm_group", "msg_size"):
            if name not in self._names:
                raise self._bad(f"the header has no column {name}")
        text = "\n".join(before)
        self._staged |= "stage" in text
        ranks = self._ranks(text)
        if ranks:
            self._stages.append(ranks)
        if len(self._stages) != self._headers and (ranks or self._stages) and self._headers > 1:
            raise self._bad("a header of another pipeline stage; allowed: a line with its ranks before each of them")

    def _ranks(self, text: str) -> range:
        """Ranks that lines before a header name: the job's, or those of a pipeline stage."""
        found = [(int(first), int(last or first)) for first, last in _RANKS.findall(text)]
        if not found:
            return range(0)
        low, high = min(first for first, _ in found), max(last for _, last in found)
        if high >= MOST_RANKS:
            raise bad(self._path, f"ranks: expected 1 to {MOST_RANKS} ranks, got {high + 1}")
        named = {rank for first, last in found for rank in range(first, last + 1)}
        if len(named) != high + 1 - low:
            raise self._bad(f"ranks {low} to {high} of a pipeline stage: {high + 1 - low - len(named)} are missing")
        return range(low, high + 1)

    def take(self, lines: Iterator[str]) -> None:
        reader = csv.reader(lines)
        before: list[str] = []
        try:
            for fields in reader:
                self._line = self._before + reader.line_num
                if not fields:
                    continue
                if fields[0].strip() == "comm_type":
                    self.stage(before, fields)
                    before = []
                elif fields[0].lstrip().startswith("["):
                    before.append(",".join(fields))
                else:
                    self._row(fields)
        except csv.Error as error:
            self._line = self._before + reader.line_num
            raise self._bad(f"not readable as csv ({error})") from None
        if before:
            raise self._bad("ranks of a pipeline stage, and no header after them: cut short")

    def log(self) -> AicbLog:
        if not self._codes["line"]:
            raise bad(self._path, "holds a header and no rows")
        columns: dict[str, Any] = {name: np.frombuffer(column, np.int64) for name, column in self._codes.items()}
        columns |= {name: np.frombuffer(column, np.float64) for name, column in self._numbers.items()}
        stages = tuple(self._stages)
        return AicbLog(
            path=self._path,
            preamble=self._preamble,
            stages=stages,
            staged=self._staged,
            texts=tuple(self._texts),
            **columns,
        )

    def _row(self, fields: list[str]) -> None:
        size_at, more = self._at["msg_size"], len(fields) - len(self._names)
        if more > 0:  # shapes of a computation hold commas and stand without quotes
            fields[size_at : size_at + more + 1] = [",".join(fields[size_at : size_at + more + 1])]
        size = fields[size_at].strip() if more >= 0 else ""
        if more < 0 or (more > 0 and size[:1] not in ("(", "[")):
            raise self._bad(f"expected {len(self._names)} fields, got {len(self._names) + more}")
        is_number = _NUMBER.fullmatch(size) is not None
        kind = _plain(fields[self._at["comm_type"]], "CommType.")
        if not kind:
            raise self._bad("comm_type is missing")
        for name, text in (
            ("kind", kind),
            ("group", _plain(fields[self._at["comm_group"]], "CommGroup.")),
            ("stage", _plain(fields[self._at["stage"]], "") if "stage" in self._at else ""),
            ("shape", "" if is_number or size in _MISSING else size),
        ):
            self._codes[name].append(self._texts.setdefault(text, len(self._texts)))
        self._codes["line"].append(self._line)
        self._codes["stage_of"].append(self._headers - 1)
        for name, column in (
            ("group_size", "comm_group_size"),
            ("elapsed_ms", "_elapsed_time"),
            ("algbw", "algbw"),
            ("busbw", "busbw"),
        ):
            self._numbers[name].append(self._number(fields, column))
        self._numbers["size_B"].append(self._number(fields, "msg_size") if is_number else math.nan)

    def _number(self, fields: Sequence[str], name: str) -> float:
        text = fields[self._at[name]].strip() if name in self._at else ""
        if text in _MISSING:
            return math.nan
        if not _NUMBER.fullmatch(text):
            raise self._bad(f"{name}: expected a number or None, got '{text:.40}'")
        value = float(text)
        if not 0 <= value < math.inf:
            raise self._bad(f"{name}: expected a number from 0, got {text:.40}")
        return value

    def _bad(self, message: str) -> InputError:
        return InputError(Problem(message, str(self._path), self._line))


def _plain(text: str, prefix: str) -> str:
    text = text.strip()
    return "" if text in _MISSING else text.removeprefix(prefix)
