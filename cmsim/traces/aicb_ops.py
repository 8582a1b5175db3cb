"""Ops and groups of AICB logs: what a rank, or the first of each pipeline stage, runs, and who runs the same."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cmsim.arrays import Ints
from cmsim.errors import InputError, Problem
from cmsim.reading.bytes_in import bad
from cmsim.traces.layers.schedule import kernel_of
from cmsim.traces.recorded import Communicator, RankTrace, Trace, rank_trace
from cmsim.workload.ops import COLLECTIVE, COMPUTE

if TYPE_CHECKING:
    from cmsim.traces.aicb import AicbLog, LayerRow

FORMAT = "aicb-csv"
EPOCH_END, _COMPUTATION = "epoch_end", "computation"
MOST_RANKS = 2**20
_US_PER_MS = 1e3
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
_SHAPE = re.compile(r"[(\[]\s*(\d{1,15}(?:\s*,\s*\d{1,15})*)\s*,?\s*[)\]]")


def of_one(log: AicbLog, ranks: int | None, notes: list[str]) -> Trace:
    """One rank, which all ranks run."""
    world, groups = _groups(log, ranks, notes)
    made = _Made(log.path)
    one = made.rank(log, 0, 0, groups)
    notes.extend(made.notes())
    return _trace(log, {0: one}, made, world, notes)


def _groups(log: AicbLog, ranks: int | None, notes: list[str]) -> tuple[int, dict[str, tuple[int, int]]]:
    """Size of the job; distance from member to member and number of members of each group, for rank 0."""
    path = log.path
    used = {log.texts[code] or "all" for code in np.unique(log.group[log.of("kind", *_COLLECTIVES)])}
    stated = {name: _stated(log, name, notes) for name in sorted(used) if name in _GROUPS}
    if ranks is not None and log.ranks and ranks != log.ranks:
        notes.append(f"the log is of {log.ranks} ranks; {ranks} are asked for")
    world = log.ranks if ranks is None else ranks
    for what, value in (("ranks", world), *stated.items()):
        if not 0 <= value <= MOST_RANKS:
            raise bad(path, f"{what}: expected 1 to {MOST_RANKS} ranks, got {value}")
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
        if not 0 < bus < factor * alg * (1 - 1 / MOST_RANKS):
            continue
        shown = round(1 / (1 - bus / alg / factor))
        if shown != size:
            said = f"comm_group_size says {size:.0f}: the latter is taken"
            notes.append(f"{name}: busbw / algbw of its {kind} rows is that of {shown} ranks, {said}")
            break
    return int(min(size, MOST_RANKS + 1))


def of_stages(log: AicbLog, ranks: int | None, notes: list[str]) -> Trace:
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
        if row.kind == EPOCH_END:
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
    whole = log.of("kind", EPOCH_END)
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
