"""Communication logs of AICB (csv): what one rank of a training run sends, planned or measured, one op a row.

An optional line such as ``[rank0 ~ rank127]`` says whose log it is. Then a header with ``comm_type``, ``comm_group``,
``msg_size`` [B, the whole array], ``stage``, ``_elapsed_time`` [ms], ``algbw`` and ``busbw``; newer files have
``comm_group_size``. The word ``None`` is a missing value. ``epoch_end`` rows hold the time of a whole iteration.

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
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.errors import InputError, Problem
from cmsim.reading.bytes_in import LIMIT_B, bad, read_bytes
from cmsim.traces.layers.schedule import kernel_of
from cmsim.traces.recorded import Communicator, Trace, rank_trace
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
_RANKS = re.compile(r"rank\s*(\d{1,9})\s*~\s*rank\s*(\d{1,9})")
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

    preamble  lines before the header
    ranks     ranks of the job as those lines say, 0 where they do not
    shape     a size that is no number, else empty
    """

    path: Path
    preamble: int
    ranks: int
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

    def __len__(self) -> int:
        return len(self.kind)

    def counts(self) -> dict[str, Any]:
        """Rows, bytes [B] and elapsed time [ms, to 3 decimals]; sizes and times that are missing count as 0."""
        number = {f"CommType.{self.texts[k]}": self.kind == k for k in np.unique(self.kind).tolist()}
        timed = ~np.isnan(self.elapsed_ms)
        iteration = self.of("kind", _EPOCH_END)
        return {
            "format": FORMAT,
            "rows": len(self),
            "preamble_lines": self.preamble,
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
        world, groups = _groups(self, ranks, notes)
        return _trace(self, world, groups, notes)


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
        if line.replace(" ", "").startswith("comm_type,"):
            break
        before.append(line)
    else:
        raise bad(path, "not an AICB log: no header that starts with comm_type")
    names = [name.strip() for name in line.split(",")]
    for name in ("comm_type", "comm_group", "msg_size"):
        if name not in names:
            raise InputError(Problem(f"the header has no column {name}", str(path), len(before) + 1))
    said = _RANKS.search("\n".join(before))
    read = _Reader(path, names, len(before) + 1)
    read.take(lines)
    return read.log(len(before), int(said[2]) + 1 if said else 0)


def _lines(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        yield text[at:end].removesuffix("\r")
        at = end + 1


class _Reader:
    """Rows into columns."""

    def __init__(self, path: Path, names: Sequence[str], before: int):
        self._path, self._names, self._before = path, names, before
        self._at = {name: i for i, name in enumerate(names)}
        self._line = 0
        self._texts: dict[str, int] = {"": 0}
        self._codes = {name: array("q") for name in ("line", "kind", "group", "stage", "shape")}
        self._numbers = {name: array("d") for name in ("group_size", "size_B", "elapsed_ms", "algbw", "busbw")}

    def take(self, lines: Iterator[str]) -> None:
        reader = csv.reader(lines)
        try:
            for fields in reader:
                self._line = self._before + reader.line_num
                if fields:
                    self._row(fields)
        except csv.Error as error:
            self._line = self._before + reader.line_num
            raise self._bad(f"not readable as csv ({error})") from None

    def log(self, preamble: int, ranks: int) -> AicbLog:
        if not self._codes["line"]:
            raise bad(self._path, "holds a header and no rows")
        columns: dict[str, Any] = {name: np.frombuffer(column, np.int64) for name, column in self._codes.items()}
        columns |= {name: np.frombuffer(column, np.float64) for name, column in self._numbers.items()}
        return AicbLog(path=self._path, preamble=preamble, ranks=ranks, texts=tuple(self._texts), **columns)

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
    pp = world // (tp * dp)
    return world, {
        "tp": (1, tp),
        "dp": (tp, dp),
        "ep": (tp, ep),
        "dp_ep": (tp * ep, dp // ep),
        "ep_tp": (1, tp * ep),
        "pp": (tp * dp, pp),
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


def _trace(log: AicbLog, world: int, groups: dict[str, tuple[int, int]], notes: list[str]) -> Trace:
    communicators: list[Communicator] = []
    number: dict[str, int] = {}
    left: Counter[str] = Counter()
    columns: dict[str, list[Any]] = {
        key: []
        for key in ("name", "kind", "stream", "duration_us", "kernel", "flops", "bytes_B", "collective", "group")
    }

    def add(**values: Any) -> None:
        for key, value in values.items():
            columns[key].append(value)

    for row in log.rows():
        duration_us = row.elapsed_ms * _US_PER_MS
        if row.kind == _EPOCH_END:
            continue
        if row.kind == _COMPUTATION:
            flops = _matmul_flops(row.shape)
            left["computations without time and shapes take no time"] += not flops and math.isnan(duration_us)
            kernel = "gemm" if flops else kernel_of(row.stage)
            add(name=f"{row.stage} {_COMPUTATION}".strip(), kind=COMPUTE, stream="compute", duration_us=duration_us)
            add(kernel=kernel, flops=flops, bytes_B=0.0, collective="", group=-1)
            continue
        if row.kind in _POINT_TO_POINT or row.group == _EMBEDDING:
            left["ops between pipeline stages are left out: all ranks run the ops of this one"] += 1
            continue
        if row.kind not in _COLLECTIVES:
            left[f"rows of the unknown kind {row.kind:.40} are left out"] += 1
            continue
        role = _GROUPS.get(row.group or "all")
        if role is None:
            known = ", ".join(_GROUPS)
            raise InputError(Problem(f"unknown comm_group '{row.group:.40}'; known: {known}", str(log.path), row.line))
        collective = _COLLECTIVES[row.kind]
        if collective != "barrier" and math.isnan(row.size_B):
            raise InputError(Problem(f"{row.kind} without a msg_size", str(log.path), row.line))
        stride, size = groups[role]
        if size == 1 or (collective != "barrier" and not row.size_B):
            left[f"collectives of {'groups of one rank' if size == 1 else '0 bytes'} are left out"] += 1
            continue
        if role not in number:
            number[role] = len(communicators)
            communicators.append(Communicator(role, tuple(range(0, stride * size, stride)), size))
        size_B = 0.0 if collective == "barrier" else row.size_B
        add(name=f"{row.stage} {collective}".strip(), kind=COLLECTIVE, stream=f"comm {role}", duration_us=duration_us)
        add(kernel="", flops=0.0, bytes_B=size_B, collective=collective, group=number[role])
    count = len(columns["kind"])
    if not count:
        raise bad(log.path, "holds no op to replay")
    notes.extend(f"{many} {what}" for what, many in left.items() if many)
    whole = log.elapsed_ms[log.of("kind", _EPOCH_END)]
    return Trace(
        format=FORMAT,
        source=str(log.path),
        ranks={
            0: rank_trace(
                0,
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
        },
        communicators=tuple(communicators),
        world_size=world,
        recorded_us=math.fsum(whole) * _US_PER_MS if len(whole) else math.nan,
        notes=tuple(notes),
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
