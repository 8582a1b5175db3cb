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
from cmsim.traces.layers.schedule import kernel_of
from cmsim.traces.recorded import Communicator, RankTrace, Trace, rank_trace
from cmsim.workload.ops import COLLECTIVE, COMPUTE

FORMAT = "aicb-csv"
_EPOCH_END, _COMPUTATION = "epoch_end", "computation"
_COLLECTIVES = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "all_gather_into_tensor": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "reduce_scatter_tensor": "reduce_scatter",
    "all_to_all": "all_to_all",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "barrier": "barrier",
}
_POINT_TO_POINT = ("isend", "irecv")
#: the first and the last pipeline stage; the others have no part in it
_EMBEDDING = "embedding_group"
_GROUPS = {
    "tp_group": "tp",
    "dp_group": "dp",
    "pp_group": "pp",
    "ep_group": "ep",
    "ep_dp_group": "dp_ep",
    "ep_tp_group": "ep_tp",
    _EMBEDDING: "",
    "all": "all",
}
#: busbw / algbw of a group of n ranks is this times (n - 1) / n
_BUS = {"all_gather": 1, "reduce_scatter": 1, "all_reduce": 2}
_MISSING = ("", "None")
_HEADER = re.compile(rb"^[^\n]*\bcomm_type\s*,[^\n]*\bmsg_size\b", re.MULTILINE)
_RANKS = re.compile(r"rank\s*(\d{1,9})(?:\s*[~-]\s*(?:rank)?\s*(\d{1,9}))?")
_SHAPE = re.compile(r"[(\[]\s*(\d{1,15}(?:\s*,\s*\d{1,15})*)\s*,?\s*[)\]]")
_NUMBER = re.compile(r"[-+]?(\d{1,300}(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?")
#: lines before the header that are read over
_MOST_PREAMBLE = 64
_MOST_RANKS = 2**20
_US_PER_MS = 1e3


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
        iteration = self.of("kind", _EPOCH_END)
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
            return _of_stages(self, ranks, notes)
        world, groups = _groups(self, ranks, notes)
        made = _Made(self.path)
        one = made.rank(self, 0, 0, groups)
        notes.extend(made.notes())
        return _trace(self, {0: one}, made, world, notes)

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
        if high >= _MOST_RANKS:
            raise bad(self._path, f"ranks: expected 1 to {_MOST_RANKS} ranks, got {high + 1}")
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


def _groups(log: AicbLog, ranks: int | None, notes: list[str]) -> tuple[int, dict[str, tuple[int, int]]]:
    """Size of the job; distance from member to member and number of members of each group, for rank 0."""
    path = log.path
    used = {log.texts[code] or "all" for code in np.unique(log.group[log.of("kind", *_COLLECTIVES)])}
    stated = {name: _stated(log, name, notes) for name in sorted(used) if name in _GROUPS}
    if ranks is not None and log.ranks and ranks != log.ranks:
        notes.append(f"the log is of {log.ranks} ranks; {ranks} are asked for")
    world = log.ranks if ranks is None else ranks
    for what, value in (("ranks", world), *stated.items()):
        if not 0 <= value <= _MOST_RANKS:
            raise bad(path, f"{what}: expected 1 to {_MOST_RANKS} ranks, got {value}")
    tp, dp = stated.get("tp_group", 1), stated.get("dp_group", 0)
    if not tp:
        if not (world and dp):
            raise bad(path, "the size of tp_group is not in the file")
        tp = max(world // dp, 1)
    shared = bool(used & {"dp_group", "ep_group", "ep_dp_group", "all", "pp_group"})
    if not dp:
        if not world and shared:
            raise bad(path, "the file does not say how many ranks the job has: give their number (ranks)")
        pp = stated.get("pp_group", 0) or 1
        dp = max(world // (tp * pp), 1)
        if "dp_group" in used:
            notes.append(f"the size of dp_group is not in the file: taken as {dp}, all {world} ranks there are")
    if not world:
        world = tp * dp
        notes.append(f"the file does not say how many ranks the job has: taken as tp times dp, {world}")
    if world % (tp * dp):
        raise bad(path, f"{world} ranks are no multiple of tp_group {tp} times dp_group {dp}")
    ep = stated.get("ep_group", 0)
    if not ep and stated.get("ep_dp_group"):
        ep = max(dp // stated["ep_dp_group"], 1)
    if not ep and used & {"ep_group", "ep_dp_group", "ep_tp_group"}:
        ep = dp
        notes.append(f"the size of ep_group is not in the file: taken as the whole data-parallel group, {ep}")
    ep = ep or 1
    if dp % ep:
        raise bad(path, f"ep_group {ep} does not divide dp_group {dp}")
    # in a stage, what data parallelism leaves stands next to each other: tensor and context parallelism
    inner = world // dp if log.staged else tp
    if inner != tp:
        notes.append(
            f"{world} ranks of a stage in dp_groups of {dp}, tp_group {tp}: every {inner}th rank is in a dp_group"
        )
    pp = world // (inner * dp)
    return world, {
        "tp": (1, tp),
        "dp": (inner, dp),
        "ep": (inner, ep),
        "dp_ep": (inner * ep, dp // ep),
        "ep_tp": (1, tp * ep),
        "pp": (inner * dp, pp),
        "all": (1, world),
    }


def _stated(log: AicbLog, name: str, notes: list[str]) -> int:
    """Size of a group as most rows give it, 0 where none does."""
    here = log.of("group", name) & log.of("kind", *_COLLECTIVES)
    sizes, times = np.unique(log.group_size[here & (log.group_size >= 1)], return_counts=True)
    if not len(sizes):
        return 0
    most = len(times) - 1 - int(np.argmax(times[::-1]))
    size, others = float(sizes[most]), int(here.sum() - times[most])
    if others:
        notes.append(f"{others} of {here.sum()} rows of {name} give another size or none: {size:.0f} is taken")
    for kind, factor in _BUS.items():
        shown_by = here & log.of("kind", kind) & (log.algbw > 0) & (log.busbw > 0)
        alg, bus = math.fsum(log.algbw[shown_by]), math.fsum(log.busbw[shown_by])
        if not 0 < bus < factor * alg * (1 - 1 / _MOST_RANKS):
            continue
        shown = round(1 / (1 - bus / alg / factor))
        if shown != size:
            said = f"comm_group_size says {size:.0f}: the latter is taken"
            notes.append(f"{name}: busbw / algbw of its {kind} rows is that of {shown} ranks, {said}")
            break
    return int(min(size, _MOST_RANKS + 1))


def _of_stages(log: AicbLog, ranks: int | None, notes: list[str]) -> Trace:
    """Ranks of all pipeline stages: those of a stage run its rows, with members of their own in each group."""
    if ranks not in (None, log.ranks):
        raise bad(log.path, f"{ranks} ranks are asked for; the log is of the {log.ranks} of {len(log.stages)} stages")
    given = sorted(rank for stage in log.stages for rank in stage)
    if given != list(range(log.ranks)):
        raise bad(
            log.path, f"the ranks of its {len(log.stages)} pipeline stages are not 0 to {log.ranks - 1}, each once"
        )
    made = _Made(log.path, log.ranks)
    out: dict[int, RankTrace] = {}
    for number, stage in enumerate(log.stages):
        rows, said = log.of_stage(number), list[str]()
        _, groups = _groups(rows, None, said)
        notes += [f"pipeline stage {number}: {text}" for text in said]
        out[stage.start] = made.rank(rows, stage.start, number, groups)
    copies = np.empty(log.ranks, np.int64)
    for stage in log.stages:
        copies[stage.start : stage.stop] = stage.start
    notes.extend(made.notes())
    return _trace(log, out, made, log.ranks, notes, copies)


class _Made:
    """Rows of ranks, and the communicators and omissions of all of them."""

    def __init__(self, path: Path, world: int = 0) -> None:
        self.path, self._world = path, world
        self.communicators: list[Communicator] = []
        self._number: dict[tuple[str, int], int] = {}
        self._left: Counter[str] = Counter()

    @property
    def staged(self) -> bool:
        return self._world > 0

    def notes(self) -> list[str]:
        return [f"{many} {what}" for what, many in self._left.items() if many]

    def rank(self, log: AicbLog, rank: int, stage: int, groups: dict[str, tuple[int, int]]) -> RankTrace:
        """Rows of a rank, the first of its pipeline stage.

        groups  distance from member to member and number of members of each group
        """
        columns: dict[str, list[Any]] = {
            key: []
            for key in ("name", "kind", "stream", "duration_us", "kernel", "flops", "bytes_B", "collective", "group")
        }
        for row in log.rows():
            for key, value in self._row(row, rank, stage, groups).items():
                columns[key].append(value)
        count = len(columns["kind"])
        if not count and not self._world:
            raise bad(self.path, "holds no op to replay")
        return rank_trace(
            rank,
            name=columns["name"],
            kind=columns["kind"],
            stream=columns["stream"],
            duration_us=columns["duration_us"],
            kernel=columns["kernel"],
            flops=columns["flops"],
            bytes_B=columns["bytes_B"],
            collective=columns["collective"],
            group=columns["group"],
            deps=(np.arange(1, count), np.arange(count - 1)),
        )

    def _row(self, row: LayerRow, rank: int, stage: int, groups: dict[str, tuple[int, int]]) -> dict[str, Any]:
        """What a row is in a replay; {} where it is nothing."""
        duration_us = row.elapsed_ms * _US_PER_MS
        nothing: dict[str, Any] = {}
        if row.kind == _EPOCH_END:
            return nothing
        if row.kind == _COMPUTATION:
            flops = _matmul_flops(row.shape)
            self._left["computations without time and shapes take no time"] += not flops and math.isnan(duration_us)
            kernel = "gemm" if flops else kernel_of(row.stage)
            name = f"{row.stage} {_COMPUTATION}".strip()
            told = {"name": name, "kind": COMPUTE, "stream": "compute", "duration_us": duration_us}
            return told | {"kernel": kernel, "flops": flops, "bytes_B": 0.0, "collective": "", "group": -1}
        if row.kind in _POINT_TO_POINT or row.group == _EMBEDDING:
            same = "" if self._world else ": all ranks run the ops of this one"
            self._left[f"ops between pipeline stages are left out{same}"] += 1
            return nothing
        if row.kind not in _COLLECTIVES:
            self._left[f"rows of the unknown kind {row.kind:.40} are left out"] += 1
            return nothing
        role = _GROUPS.get(row.group or "all")
        if role is None:
            known = ", ".join(_GROUPS)
            raise InputError(Problem(f"unknown comm_group '{row.group:.40}'; known: {known}", str(self.path), row.line))
        collective = _COLLECTIVES[row.kind]
        if collective != "barrier" and math.isnan(row.size_B):
            raise InputError(Problem(f"{row.kind} without a msg_size", str(self.path), row.line))
        stride, size = (1, self._world) if role == "all" and self._world else groups[role]
        if size == 1 or (collective != "barrier" and not row.size_B):
            self._left[f"collectives of {'groups of one rank' if size == 1 else '0 bytes'} are left out"] += 1
            return nothing
        key = role, 0 if role == "all" else stage
        if key not in self._number:
            self._number[key] = len(self.communicators)
            first = 0 if role == "all" else rank
            members = tuple(range(first, first + stride * size, stride))
            self.communicators.append(Communicator(role, members, size))
        size_B = 0.0 if collective == "barrier" else row.size_B
        name = f"{row.stage} {collective}".strip()
        told = {"name": name, "kind": COLLECTIVE, "stream": f"comm {role}", "duration_us": duration_us}
        group = self._number[key]
        return told | {"kernel": "", "flops": 0.0, "bytes_B": size_B, "collective": collective, "group": group}


def _trace(
    log: AicbLog, ranks: dict[int, RankTrace], made: _Made, world: int, notes: list[str], copies: Ints | None = None
) -> Trace:
    if not any(map(len, ranks.values())):
        raise bad(log.path, "holds no op to replay")
    whole = log.of("kind", _EPOCH_END)
    # stages run side by side: the job takes as long as the longest
    lengths = [math.fsum(log.elapsed_ms[whole & (log.stage_of == i)]) for i in np.unique(log.stage_of[whole]).tolist()]
    counts = [int((whole & (log.stage_of == i)).sum()) for i in np.unique(log.stage_of[whole]).tolist()]
    recorded_ms = (max(lengths) if made.staged else math.fsum(log.elapsed_ms[whole])) if lengths else math.nan
    steps = (max(counts) if made.staged else sum(counts)) if counts else 0
    return Trace(
        format=FORMAT,
        source=str(log.path),
        ranks=ranks,
        communicators=tuple(made.communicators),
        world_size=world,
        recorded_us=recorded_ms * _US_PER_MS,
        notes=tuple(notes),
        facts={"steps": float(steps)} if steps > 1 else {},
        copies=() if copies is None else tuple(copies.tolist()),
    )


def _matmul_flops(shape: str) -> float:
    """FLOPs of a product of two arrays, from their shapes; 0 where the text is something else. [FLOP]

    >>> _matmul_flops("((4096, 1, 5120), (5120, 1920))") == 2 * 4096 * 5120 * 1920
    True
    """
    shapes = [[int(n) for n in text.split(",")] for text in _SHAPE.findall(shape)]
    if len(shapes) != 2 or len(shapes[1]) < 2 or shapes[0][-1] != shapes[1][-2]:
        return 0.0
    return 2.0 * math.prod(shapes[0]) * shapes[1][-1]
