"""From what was recorded to programs: one way for all formats.

Queues. A recorded stream keeps its name ("stream 7" where it is a bare number). Rows without one go to "host",
"compute", or to queues made up here: "comm", "comm 1", ... one for each communicator, "send 0", "recv 1", ... one for
each channel. A made-up queue that several shared would add waits between ranks that the recording does not have, and
could lock them up.

Order. Rows that stand in the order of issue keep it; others go by `order.in_order`. What the queues imply already is
left out of the dependencies (`order.needed_deps`), and what waits for a row that is not replayed waits for what that
waits for.

Times. Recorded times of kernels and host work go into ``recorded_s``. A kernel without one is priced by its FLOPs and
bytes; without those too it takes no time. FLOPs without a precision count as 16-bit work of the matrix engine: every
accelerator has that one. Communication is simulated, or (``collectives="recorded"``) takes its recorded time, with
the wait for the others in it, as a kernel that meets nobody.

Ranks. Equal ranks (everything but names) share a program. Ranks without a file run copies of those with one; see
`groups` for whom they meet.

``Programs.facts`` are `TraceFacts`: what the file says, and what was recorded, to compare with: the length of the step
and times of one rank added up by class of op (compute, host, collective, send_recv), mean over the ranks of the job,
where anything was recorded; communication with its waits.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.kinds.trace import TraceFacts
from cmsim.reading.bytes_in import bad
from cmsim.traces import groups as meeting
from cmsim.traces import meets
from cmsim.traces import order as orders
from cmsim.traces.gaps import CLOCK_US, NO_GAPS, Gaps, believed, exclusive_us, gap_notes, gaps, with_gaps
from cmsim.traces.gaps import NAME as GAP
from cmsim.traces.groups import Ends, Groups, Job
from cmsim.traces.kernels import OTHER
from cmsim.traces.queues import first_use, queued, row_name
from cmsim.traces.recorded import PASS, RankTrace, Trace, rank_trace
from cmsim.units import US
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, RECV, SEND, OpTable, Programs

#: where the ranks of a job stand, see `lower`
Placement = Literal["contiguous", "strided"] | Sequence[int] | Mapping[int, int]
#: what becomes of communication, see `lower`
Collectives = Literal["modelled", "recorded"]

#: of FLOPs whose precision was not recorded
_PRECISION = "bf16"
_OVERLAPPED = "ops that began before the one before on their queue had ended: they take the time after it"
_CONTRADICTED = "waits for what ended after their row had started: for what had ended by then"
_FACTS = {"compute": (COMPUTE,), "host": (HOST,), "collective": (COLLECTIVE,), "send_recv": (SEND, RECV)}
#: what a rank without ops runs
_IDLE = rank_trace(0, name=["idle"], kind=[HOST], stream=[""], duration_us=[0.0])
_TEXTS = ("name", "stream", "kernel", "precision", "collective", "shape")


@dataclass(frozen=True)
class _Input:
    """One rank as far as it tells programs apart.

    kind  of each row, PASS for what is not replayed
    key   communicator or channel of each row in order of first use, -1 for none; ``ends`` says which they are
    gaps  whether time that nothing explains is kept
    """

    trace: RankTrace
    kind: Ints
    key: Ints
    ends: Ends
    gaps: bool
    digest: bytes


@dataclass(frozen=True)
class _Program:
    """Columns of one program, codes into its own ``texts``, and what is said of it.

    keys          key of each slot
    unawaited     no kernel waits for communication (1), nor communication for a kernel (2); else 0
    recorded_us   recorded times added up, by name in ``_FACTS``; gaps are time of the host
    gaps          time that nothing in the file explains
    """

    columns: dict[str, NDArray[Any]]
    texts: dict[str, tuple[Any, ...]]
    dep_ptr: Ints
    dep_idx: Ints
    keys: Ints
    digest: bytes
    notes: Counter[str]
    unawaited: int
    recorded_us: dict[str, float]
    gaps: Gaps

    def __len__(self) -> int:
        return len(self.columns["kind"])


def lower(
    trace: Trace,
    *,
    ranks: int | None = None,
    placement: Placement = "contiguous",
    host_ops: bool = True,
    collectives: Collectives = "modelled",
) -> Programs:
    """Programs of a recorded job.

    ranks        size of the job; None: as the file says, else one rank for each file. Ranks without a file run copies.
    placement    where ranks stand: "contiguous" (rank r on rank r of the system; groups of which only the size is known
                 take every rank in turn), "strided" (those groups take every ranks/size-th), or a list of the system's
                 ranks, one for each rank of the job
    host_ops     replay host work too; without it, kernels wait for what the host work between them waits for
    collectives  "modelled": simulated on the system; "recorded": kernels of the recorded length, nobody meets

    Raises InputError for missing ranks, rows that wait for themselves, and collectives or channels that never meet.
    """
    inputs = _inputs(trace, host_ops=host_ops, meet=collectives == "modelled")
    used = {which for one in inputs.values() for which in one.ends.group.tolist() if which >= 0}
    job = meeting.job_of(trace, ranks, placement if isinstance(placement, str) else "contiguous", used)
    made: dict[bytes, _Program] = {}
    for one in inputs.values():
        if one.digest not in made:
            made[one.digest] = _program(trace, one, meet=collectives == "modelled")
    # inputs may differ in what makes no difference: dependencies that the queues imply, say
    first: dict[bytes, _Program] = {}
    for done in made.values():
        first.setdefault(done.digest, done)
    distinct = list(first.values())
    number = {digest: i for i, digest in enumerate(first)}
    own = np.zeros(job.ranks, np.int64)
    for rank, one in inputs.items():
        own[rank] = number[made[one.digest].digest]
    program = own[job.template]
    idle = sum(one.trace is _IDLE for one in inputs.values())
    if idle == len(inputs):
        raise bad(trace.source, "holds no op to replay")

    groups = meeting.group_table(job, {rank: one.ends.of(made[one.digest].keys) for rank, one in inputs.items()})
    notes = Counter({"ranks without an op to replay stand idle": idle})
    for one in inputs.values():
        notes.update(made[one.digest].notes)
    sizes_B = meets.check(job, groups, program, distinct, notes)
    at = np.arange(job.ranks)
    if not isinstance(placement, str):
        at[meeting.placed(placement, job.ranks, trace.source)] = np.arange(job.ranks)
    lines = [
        *_order_note(made.values()),
        *gap_notes([made[one.digest].gaps for one in inputs.values()], trace.recorded_us),
        *job.notes,
        *(f"{count} {what}" for what, count in sorted(notes.items()) if count),
    ]
    return Programs(
        ops=_op_table(distinct, sizes_B),
        program_ptr=np.cumsum([0, *(len(one) for one in distinct)]),
        program=program[at],
        slots=_slot_names(trace, job, groups),
        groups=groups.table[at],
        facts=_facts(trace, job, {r: made[one.digest] for r, one in inputs.items()}),
        notes=tuple(dict.fromkeys((*trace.notes, *lines))),
        source=trace.source,
    )


def _slot_names(trace: Trace, job: Job, groups: Groups) -> tuple[str, ...]:
    """The communicator of each slot, where all ranks have the same in it and no other slot is called so."""
    own = {kind.number: trace.communicators[at].name for at, kind in sorted(job.kinds.items(), reverse=True)}
    out: list[str] = []
    for slot, column in enumerate(groups.table.T):
        numbers = np.unique(groups.kind[column[column >= 0]]).tolist()
        names = {own.get(number, "") for number in numbers}
        name = names.pop() if len(names) == 1 else ""
        out.append(name if name and name not in out else f"group {slot}")
    return tuple(out)


# -- what tells ranks apart --------------------------------------------------------------------------------


def _inputs(trace: Trace, *, host_ops: bool, meet: bool) -> dict[int, _Input]:
    """Every recorded rank, ascending. Ranks that share their columns are looked at once."""
    seen: dict[tuple[int, ...], _Input] = {}
    out = {}
    ranks = {rank: trace.ranks[rank] for rank in sorted(trace.ranks)}  # held: the identity of columns is asked for
    for rank, one in ranks.items():
        same = tuple(id(value) for name, value in vars(one).items() if name != "rank")
        if same not in seen:
            kind = one.kind if host_ops else np.where(one.kind == HOST, PASS, one.kind)
            if (kind == PASS).all():
                one, kind = _IDLE, _IDLE.kind  # every program has an op
            key, ends = keys_of(one)
            digest = digest_of(_told_apart(one), (kind, key, *_numbers(one)))
            ends = ends if meet else ends.of(np.zeros(0, np.int64))
            seen[same] = _Input(one, kind, key, ends, host_ops, digest)
        out[rank] = seen[same]
    return out


def _told_apart(one: RankTrace) -> tuple[object, ...]:
    return one.in_order, one.streams, one.kernels, one.precisions, one.collectives, one.shapes


def _numbers(one: RankTrace) -> tuple[NDArray[Any], ...]:
    kinds = (one.kind, one.stream, one.kernel, one.precision, one.collective, one.dep_ptr, one.dep_idx)
    clock = () if np.isnan(one.start_us).all() else (one.start_us,)
    return (*kinds, one.duration_us, one.flops, one.bytes_B, one.shape, one.cores, *clock)


def digest_of(texts: object, columns: Iterable[NDArray[Any]]) -> bytes:
    """SHA-256 of texts and columns, whatever the type of whole numbers."""
    digest = hashlib.sha256(repr(texts).encode())
    for column in columns:
        if column.dtype == np.int64:  # codes are small, and hashing is what takes longest
            least, most = int(column.min(initial=0)), int(column.max(initial=0))
            column = column.astype(np.min_scalar_type(min(least, -most - 1)))
        digest.update(f"{column.dtype.str}{len(column)}".encode())
        digest.update(np.ascontiguousarray(column).data)
    return digest.digest()


def keys_of(one: RankTrace) -> tuple[Ints, Ends]:
    """Communicator or channel of each row, numbered in order of first use, and which these are."""
    key = np.full(len(one), -1, np.int64)
    rows = np.flatnonzero(one.kind >= COLLECTIVE)
    kind, group = one.kind[rows], one.group[rows]
    _, peer = np.unique(one.peer[rows], return_inverse=True)
    tags, tag = np.unique(one.tag[rows], return_inverse=True)
    channel = (peer * 2 + (kind == SEND)) * max(len(tags), 1) + tag
    code = np.where(kind == COLLECTIVE, group, group.max(initial=0) + 1 + channel)
    _, first, found = np.unique(code, return_index=True, return_inverse=True)
    by_use = np.argsort(first)
    number = np.empty(len(by_use), np.int64)
    number[by_use] = np.arange(len(by_use))
    key[rows] = number[found]
    head = rows[first[by_use]]
    its_group = np.where(one.kind[head] == COLLECTIVE, one.group[head], -1)
    return key, Ends(group=its_group, peer=one.peer[head], tag=one.tag[head], sends=one.kind[head] == SEND)


# -- one program -------------------------------------------------------------------------------------------


def _program(trace: Trace, given: _Input, *, meet: bool) -> _Program:
    one, kind = given.trace, given.kind
    _check_numbers(trace, one)
    lined_up = queued(trace, one, kind, given.key)
    order, slot, stream, row, dep = lined_up.order, lined_up.slot, lined_up.queue, lined_up.row, lined_up.dep
    replayed = stream >= 0
    take: Any = slice(None)
    if order is not None or not replayed.all():
        take = np.flatnonzero(replayed) if order is None else order[replayed]
        slot, stream = slot[replayed], stream[replayed]
        position = np.cumsum(replayed) - 1
        row, dep = position[row], position[dep]
    count = len(slot)
    notes: Counter[str] = Counter()
    start_us, taken_us = one.start_us[take], one.duration_us[take]
    lone_us, clock = taken_us, not np.isnan(start_us).all()
    if clock:
        row, dep, notes[_CONTRADICTED] = believed(start_us, taken_us, stream, row, dep)
        lone_us = exclusive_us(start_us, taken_us, stream)
        notes[_OVERLAPPED] = int((taken_us - lone_us > CLOCK_US).sum())
    needed_ptr = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=count), out=needed_ptr[1:])
    columns, texts = _columns(one, kind, take, lone_us, meet, notes)
    columns |= {"stream": stream, "slot": slot if meet else np.full(count, -1, np.int64)}
    texts["stream"] = lined_up.names
    asked = given.gaps and (clock or not np.isnan(trace.recorded_us))
    held = gaps(start_us, lone_us, stream, needed_ptr, dep) if asked else NO_GAPS
    if len(held.before):
        texts["name"] = (*texts["name"], GAP)
        columns, needed_ptr, dep = with_gaps(held, columns, len(texts["name"]) - 1, needed_ptr, dep)
    notes["host ops left out"] = int(((kind == PASS) & (one.kind == HOST)).sum())
    told = [texts[key] for key in _TEXTS if key != "name"]
    values = [column for key, column in sorted(columns.items()) if key != "name"]
    return _Program(
        columns=columns,
        texts=texts,
        dep_ptr=needed_ptr,
        dep_idx=dep,
        keys=lined_up.keys if meet else np.zeros(0, np.int64),
        digest=digest_of(told, (*values, needed_ptr, dep)),
        notes=notes,
        unawaited=_unawaited(one),
        recorded_us={
            name: float(np.nansum(one.duration_us[(one.kind >= kinds[0]) & (one.kind <= kinds[-1])]))
            + (held.total_us if name == "host" else 0.0)
            for name, kinds in _FACTS.items()
        },
        gaps=held,
    )


def _check_numbers(trace: Trace, one: RankTrace) -> None:
    """What no pricing could make sense of, said with the file and the row."""
    columns = {"%g FLOPs": one.flops, "%g bytes": one.bytes_B, "a recorded time of %g us": one.duration_us}
    for what, column in columns.items():
        least, most = (np.fmin, np.fmax) if column is one.duration_us else (np.minimum, np.maximum)
        if least.reduce(column, initial=0.0) >= 0 and most.reduce(column, initial=0.0) < np.inf:
            continue
        wrong = np.isinf(column) | (column < 0) | (np.isnan(column) & (column is not one.duration_us))
        here = int(np.argmax(wrong))
        raise bad(trace.source, f"{row_name(one, here)}: {what % column[here]}; must be 0 or more and finite")


def _columns(
    one: RankTrace, kind: Ints, take: Any, duration_us: Floats, meet: bool, notes: Counter[str]
) -> tuple[dict[str, NDArray[Any]], dict[str, tuple[Any, ...]]]:
    """Columns of a program that need no other row, rows ``take`` of the trace, which take
    ``duration_us``; notes are added to ``notes``."""
    kind = kind[take]
    talks = kind >= COLLECTIVE
    kernel = kind == COMPUTE
    flops = np.where(kernel, one.flops[take], 0.0)
    bytes_B = np.where(kernel | talks, one.bytes_B[take], 0.0)
    kernel_of, kernels = np.where(kernel, one.kernel[take], -1), one.kernels
    collective = np.where(kind == COLLECTIVE, one.collective[take], -1)
    unknown = np.isnan(duration_us)
    if not meet and talks.any():
        notes["communication ops take their recorded time, with the wait for the others in it"] = int(talks.sum())
        notes["communication ops without a recorded time take none"] = int((talks & unknown).sum())
        kernels = (*kernels, OTHER)
        kernel_of[talks], collective[talks], bytes_B[talks] = len(kernels) - 1, -1, 0.0
        kind = np.where(talks, COMPUTE, kind)
    priced = kernel & unknown & ((flops > 0) | (bytes_B > 0))
    works = kind <= HOST
    precision, precisions = np.where(kernel, one.precision[take], -1), one.precisions
    assumed = (flops > 0) & (precision < 0)
    if assumed.any():
        precisions = (*precisions, _PRECISION)
        precision[assumed] = len(precisions) - 1
    timeless = unknown & ~priced & (kernel | (kind == HOST))
    notes["kernels without a recorded time priced by the roofline of FLOPs and bytes"] = int(priced.sum())
    notes[f"kernels with FLOPs, read as {_PRECISION} on the matrix engine"] = int(assumed.sum())
    notes["kernels and host ops without a recorded time, FLOPs or bytes take no time"] = int(timeless.sum())
    shape = np.where(kernel, one.shape[take], -1) if len(one.shape) else np.full(len(kind), -1, np.int64)
    coded: dict[str, tuple[Ints, tuple[Any, ...]]] = {
        "shape": (shape, one.shapes),
        "name": (one.name[take], one.names),
        "kernel": (kernel_of, kernels),
        "precision": (precision, precisions),
        "collective": (collective, one.collectives),
    }
    columns: dict[str, NDArray[Any]] = {
        "kind": kind,
        "flops": flops,
        "bytes_B": bytes_B,
        "cores": np.where(kernel, one.cores[take], 1.0) if len(one.cores) else np.ones(len(kind)),
        "recorded_s": np.where(works & ~priced, np.nan_to_num(duration_us) * US, np.nan),
    }
    texts = {}
    for key, (codes, words) in coded.items():
        columns[key], used = first_use(codes)
        texts[key] = tuple(words[i] for i in used.tolist())
    return columns, texts


# -- what is said ------------------------------------------------------------------------------------------


def _unawaited(one: RankTrace) -> int:
    """Of a profile (it has host work or a clock): 1 where no work waits for communication, 2 where neither waits."""
    talks, kernel, host = one.kind >= COLLECTIVE, one.kind == COMPUTE, one.kind == HOST
    profile = host.any() or not np.isnan(one.start_us).all()
    if not (profile and talks.any() and kernel.any()):
        return 0
    here, there = orders.rows_of(one.dep_ptr), one.dep_idx
    shared = set(np.unique(one.stream[talks]).tolist()) & set(np.unique(one.stream[kernel]).tolist()) - {-1}
    if shared or (kernel[here] & talks[there]).any():
        return 0
    return 1 if (talks[here] & kernel[there]).any() else 2


def _order_note(made: Iterable[_Program]) -> list[str]:
    """What is missing in the order of kernels and communication."""
    found = {one.unawaited for one in made} - {0}
    return [
        f"no dependency has a kernel wait for communication{also}: a replay overlaps them more than the real run could"
        for level, also in ((1, ""), (2, ", nor the other way round"))
        if level in found
    ]


def _facts(trace: Trace, job: Job, programs: Mapping[int, _Program]) -> TraceFacts:
    """What the trace says, and recorded times to compare with."""
    copies = np.bincount(job.template, minlength=job.ranks)
    totals_us = {
        name: sum(one.recorded_us[name] * int(copies[rank]) for rank, one in programs.items()) for name in _FACTS
    }
    return TraceFacts(
        told=dict(trace.facts),
        recorded_s=None if np.isnan(trace.recorded_us) else trace.recorded_us * US,
        recorded_class_s={name: total_us / job.ranks * US for name, total_us in totals_us.items() if total_us},
    )


# -- programs ----------------------------------------------------------------------------------------------


def _op_table(programs: Sequence[_Program], sizes_B: Mapping[int, Floats]) -> OpTable:
    """Columns of all programs, one after the other; texts numbered in order of first use."""
    known: dict[str, dict[Any, int]] = {key: {"": -1} for key in _TEXTS}
    parts: dict[str, list[NDArray[Any]]] = {key: [] for key in programs[0].columns}
    for number, one in enumerate(programs):
        for key, column in one.columns.items():
            if key in known:
                its = known[key]
                codes = [its.setdefault(text, len(its) - 1) for text in one.texts[key]]
                if codes != list(range(len(codes))):
                    column = np.array([*codes, -1], np.int64)[column]
            elif key == "bytes_B":
                column = sizes_B.get(number, column)
            parts[key].append(column)
    columns = {key: np.concatenate(part) for key, part in parts.items()}
    names = {key: tuple(text for text in its if text) for key, its in known.items()}
    dep_ptr = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(one.dep_ptr) for one in programs]))])
    return OpTable.of_columns(columns, names, dep_ptr, np.concatenate([one.dep_idx for one in programs]))
