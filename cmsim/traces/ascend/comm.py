"""Whole communication ops of a rank: from the timeline or, without it, from the tables of ops and kernels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cmsim.arrays import Ints
from cmsim.traces.ascend.documents import CommOp, LinkTraffic
from cmsim.traces.ascend.groups import COLLECTIVES, RECEIVE, SEND, UNEQUAL, CommRow, Seen, marks_of, word_of
from cmsim.traces.ascend.tables import COMMUNICATION_CORES, Kernels, SummaryTable
from cmsim.traces.ascend.view import View, dtype_B

_PLANE = re.compile(r"Plane", re.IGNORECASE)
#: link types of tasks that reach no other rank
_INSIDE = ("", "INVALID_TYPE", "ON_CHIP", "LOCAL")


@dataclass
class RankFiles:
    """What is there of one rank. ``comm``, ``marked_steps``: of a database, which has whole ops and marks of steps."""

    rank: int
    label: str
    view: View | None = None
    kernels: Kernels | None = None
    ops: Sequence[CommOp] = ()
    links: Sequence[LinkTraffic] = ()
    steps: SummaryTable | None = None
    comm: Sequence[CommRow] = ()
    marked_steps: int = 0
    alg_types: Mapping[str, int] = field(default_factory=dict)


def comm_rows(files: RankFiles, seen: dict[str, Seen]) -> list[CommRow]:
    """Communication ops of a rank in order of their start; adds to ``seen`` what its files say of communicators."""
    view = files.view
    if files.comm:
        rows = list(files.comm)
    else:
        rows = _of_view(files, view) if view is not None and len(view.comm) else _of_tables(files)
    rows.sort(key=lambda row: (row.start_ns, row.name))
    # A mesh shows in the names of its algorithms: "MESH-RING" is a mesh inside the node and a ring between nodes.
    algorithms = [name for name in files.alg_types if name]
    for row in rows:
        here = seen.setdefault(row.key, Seen())
        here.ranks.add(files.rank)
        if algorithms:
            meshed = all("MESH" in name.upper().split("-")[0] for name in algorithms)
            here.meshed = meshed if here.meshed is None else here.meshed and meshed
    by_key: dict[str, list[LinkTraffic]] = {}
    for link in files.links or (_plane_links(view, rows) if view is not None else ()):
        by_key.setdefault(link.group, []).append(link)
    for key, links in by_key.items():
        if key in seen:
            seen[key].add_links(files.rank, links)
    return rows


def _known_ids(files: RankFiles) -> list[str]:
    return sorted({op.group for op in files.ops if op.group} | {link.group for link in files.links if link.group})


class _Keys:
    """Keys of communicators: the id where a file joins it to the op's name, else the digits in the name."""

    def __init__(self, files: RankFiles) -> None:
        self._ids = _known_ids(files)
        self._by_name: dict[str, list[tuple[float, str]]] = {}
        for op in files.ops:
            self._by_name.setdefault(op.name, []).append((op.start_us, op.group))

    def of(self, name: str, start_us: float) -> str:
        found = self._by_name.get(name)
        if found:
            group = min(found, key=lambda one: abs(one[0] - start_us))[1]
            if group:
                return group
        digits, _ = marks_of(name)
        ids = [one for one in self._ids if digits and one.endswith(digits)]
        return ids[0] if len(ids) == 1 else digits


def _of_view(files: RankFiles, view: View) -> list[CommRow]:
    keys, comm = _Keys(files), view.comm
    planes = _planes(view)
    start, thread = comm.start_ns.tolist(), comm.thread.tolist()
    duration, count = comm.duration_us.tolist(), view.count.tolist()
    named = [keys.of(name, at / 1e3) for name, at in zip(comm.name, start, strict=True)]
    on: dict[str, set[int]] = {}
    for key, here in zip(named, thread, strict=True):
        on.setdefault(key, set()).add(here)
    rows = []
    for i, name in enumerate(comm.name):
        key, queue = named[i], view.labels[thread[i]] or "communication"
        if len(on[key]) > 1 and key not in keys._ids:
            key = f"{key} {queue}".strip()
        word, one_B = word_of(name), dtype_B(comm.type[i])
        peers, hw = _inside(view, planes.get(thread[i]), start[i], duration[i], word in (SEND, RECEIVE))
        known = one_B and (count[i] > 0 or (count[i] == 0 and word not in (*UNEQUAL, "batchsendrecv")))
        size = count[i] * one_B if known else -1.0
        rows.append(CommRow(name, word, key or queue, queue, start[i], duration[i], size, -1.0, peers, hw))
    return rows


def _planes(view: View) -> dict[int, Ints]:
    """Plane tasks, by start, of each thread of whole ops: the threads of planes follow that of their communicator."""
    order = []
    for i, ((process, thread), label) in enumerate(zip(view.threads, view.labels, strict=True)):
        if thread.isascii() and thread.isdigit() and len(thread) < 16:
            order.append((process, int(thread), i, label))
    owner = np.full(len(view.threads), -1)
    whole, last = set(view.comm.thread.tolist()), (-1, "")
    for process, _, i, label in sorted(order):
        if i in whole:
            last = (i, process)
        elif last[1] == process and _PLANE.match(label):
            owner[i] = last[0]
    if not len(view.plane):
        return {}
    of_task = owner[view.plane.thread]
    out = {}
    for i in sorted(whole):
        tasks = np.flatnonzero(of_task == i)
        out[i] = tasks[np.argsort(view.plane.start_ns[tasks], kind="stable")]
    return out


def _inside(
    view: View, tasks: Ints | None, start_ns: int, duration_us: float, with_peers: bool
) -> tuple[tuple[int, ...], str]:
    """Local ranks at the other end of an op's tasks, and the stream of the device that they start on."""
    if tasks is None or not len(tasks):
        return (), ""
    at = view.plane.start_ns[tasks]
    first, last = np.searchsorted(at, [start_ns, start_ns + int(duration_us * 1e3) + 1])
    here = tasks[first:last]
    if not len(here):
        return (), ""
    main = here[np.lexsort((view.plane.start_ns[here], view.plane.thread[here]))[0]]
    peers: tuple[int, ...] = ()
    if with_peers:
        src, dst = view.src[here], view.dst[here]
        away = (dst >= 0) & (src >= 0) & (src != dst)
        ends = [set(src[away].tolist()), set(dst[away].tolist())]
        # A rank's own number stands in all of its tasks, that of the other in all of the other's places.
        peers = tuple(sorted(ends[1])) if len(ends[0]) == 1 else tuple(sorted(ends[0] | ends[1]))
    return peers, view.hw_stream[int(main)]


def _plane_links(view: View, rows: Sequence[CommRow]) -> list[LinkTraffic]:
    """Links by the tasks of the timeline, where there is no matrix."""
    planes = _planes(view)
    queue_key = {row.queue: row.key for row in rows}
    words = {row.key: row.word for row in rows}
    out = []
    for thread, tasks in planes.items():
        key = queue_key.get(view.labels[thread], "")
        payload = tasks[(view.size_B[tasks] > 0) & (view.src[tasks] >= 0) & (view.dst[tasks] >= 0)]
        src, dst = view.src[payload].tolist(), view.dst[payload].tolist()
        links = [view.plane.type[i] for i in payload.tolist()]
        for one in sorted({(s, d, t) for s, d, t in zip(src, dst, links, strict=True) if t not in _INSIDE}):
            out.append(LinkTraffic("collective", words.get(key, ""), key, one[0], one[1], one[2], 0.0))
    return out


def _of_tables(files: RankFiles) -> list[CommRow]:
    keys = _Keys(files)
    rows, named = [], set()
    for op in files.ops:
        key = op.group or marks_of(op.name)[0] or "communication"
        named.add(op.name)
        start_ns = int(op.start_us) * 1000 + round((op.start_us - int(op.start_us)) * 1000)
        rows.append(
            CommRow(
                op.name, word_of(op.name), key, f"communication {key}", start_ns, op.duration_us, moved_B=op.moved_B
            )
        )
    kernels = files.kernels
    if kernels is not None:
        start, duration = kernels.start_ns.tolist(), kernels.duration_us.tolist()
        for i in np.flatnonzero(is_communication(kernels)).tolist():
            name = kernels.name[i]
            if name not in named:
                key = keys.of(name, start[i] / 1e3) or "communication"
                rows.append(CommRow(name, word_of(name), key, f"communication {key}", start[i], duration[i]))
    return rows


def is_communication(kernels: Kernels) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Rows that are whole communication ops: by their core, or by their name where the level records no cores."""
    return np.array(
        [
            core in COMMUNICATION_CORES or (core in ("", "N/A") and word_of(name) in _WORDS)
            for core, name in zip(kernels.core, kernels.name, strict=True)
        ],
        bool,
    )


_WORDS = {*COLLECTIVES, SEND, RECEIVE, "batchsendrecv"}
