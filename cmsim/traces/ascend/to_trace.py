"""A job's trace from the files of its ranks: rows of each rank, communicators, and what was assumed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from cmsim.reading.bytes_in import bad
from cmsim.traces.ascend import groups as hccl
from cmsim.traces.ascend.comm import RankFiles, comm_rows
from cmsim.traces.ascend.documents import NamedGroup
from cmsim.traces.ascend.groups import CommRow, Communicators, Seen, marks_of
from cmsim.traces.ascend.rows import Meaning, rows
from cmsim.traces.ascend.tables import ABSENT, STEP_PARTS, step_totals_us
from cmsim.traces.ascend.timeline import ViewTimeline, timeline
from cmsim.traces.clocks import aligned, late_note
from cmsim.traces.recorded import Trace
from cmsim.workload.ops import COLLECTIVE, RECV, SEND

#: ranks that started this much later than others have another clock, not another start [ns], assumed
_APART_NS = 60 * 10**9


def assemble(
    source: str,
    found: Sequence[RankFiles],
    named: Sequence[NamedGroup],
    world: int,
    ranks: int | None,
    before: Sequence[str],
) -> Trace:
    """The trace of the ranks that are there. Raises InputError where one of them has no device tasks.

    named   communicators that side files list
    world   ranks of the job as the files say, 0 where they do not: then ``ranks``
    before  notes from opening the files
    """
    texts, notes = list(before), Counter[str]()
    if ranks is not None and ranks <= max(files.rank for files in found):
        raise bad(source, f"ranks={ranks}, but there is a rank {max(files.rank for files in found)}")
    if ranks is not None and world and ranks != world:
        texts.append(f"the files say that the job has {world} ranks, not {ranks}")
    world = world or ranks or 0
    seen: dict[str, Seen] = {}
    lines: dict[int, ViewTimeline] = {}
    for files in sorted(found, key=lambda one: one.rank):
        line = timeline(files, comm_rows(files, seen))
        if line is None:
            looked = "trace_view.json with tasks of Ascend Hardware, kernel_details.csv, communication.json, a database"
            raise bad(source, f"rank {files.rank} ({files.label}) holds no device tasks (looked for {looked})")
        lines[files.rank] = line
        notes.update(line.notes)
    groups = Communicators(seen, named, world)
    notes.update(groups.notes)
    peers = _Peers(groups, lines)
    first = min(line.origin_ns for line in lines.values())
    apart = any(line.origin_ns - first > _APART_NS for line in lines.values())
    if apart:
        texts.append("the ranks' clocks are over a minute apart: each rank's times count from its own first task")
    out = {}
    for rank, line in lines.items():
        meaning = [_meaning(row, rank, groups, peers, notes) for row in line.comm]
        offset_us = 0.0 if apart else (line.origin_ns - first) / 1000
        out[rank] = rows(line, meaning, offset_us=offset_us, notes=notes)
    made, late_us = aligned(out)
    texts += late_note(late_us)
    recorded_us = max(_recorded_us(files, lines[files.rank], notes) + late_us[files.rank] for files in found)
    prepared = [float(text) for files in found for text in _preparing(files)]
    if prepared:
        texts.append(
            f"{min(prepared):.0f} to {max(prepared):.0f} us of preparation before the first kernel are not in the step"
        )
    steps = max(_steps(files) for files in found)
    return Trace(
        format="ascend",
        source=source,
        ranks=made,
        communicators=tuple(groups.list),
        world_size=world,
        recorded_us=recorded_us,
        notes=(*texts, *(f"{count} {text}" for text, count in notes.items() if count)),
        facts={"steps": float(steps)} if steps > 1 else {},
    )


def _steps(files: RankFiles) -> int:
    """Steps that the files of a rank tell apart, 0 where they tell none."""
    if files.marked_steps:
        return files.marked_steps
    if files.steps is not None and len(files.steps):
        return len(step_totals_us(files.steps))
    return len({step for step in files.kernels.step if step not in ABSENT}) if files.kernels is not None else 0


class _Peers:
    """The rank at the other end of a send or receive."""

    def __init__(self, groups: Communicators, lines: Mapping[int, ViewTimeline]) -> None:
        self._groups = groups
        self._ends: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for rank, line in lines.items():
            for row in line.comm:
                if row.word in (hccl.SEND, hccl.RECEIVE):
                    self._ends.setdefault((row.key, marks_of(row.name)[1]), []).append((rank, row.word))

    def of(self, row: CommRow, rank: int, seen: Seen) -> int:
        """-1 where no file says."""
        own = seen.local.get(rank, -1)
        local = {end for end in row.peers or seen.ends.get((rank, row.name), ()) if end != own}
        if len(local) == 1:
            return self._groups.rank_at(row.key, local.pop())
        # A send and its receive carry the same number in their communicator.
        other = hccl.RECEIVE if row.word == hccl.SEND else hccl.SEND
        ends = [
            end for end, word in self._ends.get((row.key, marks_of(row.name)[1]), ()) if word == other and end != rank
        ]
        if len(ends) == 1:
            return ends[0]
        members = self._groups.list[self._groups.index[row.key]].members
        return next(end for end in members if end != rank) if len(members) == 2 and rank in members else -1


def _meaning(row: CommRow, rank: int, groups: Communicators, peers: _Peers, notes: Counter[str]) -> Meaning:
    """What an op is in a replay; one that is not known well enough is device work of its recorded time."""
    group = groups.index[row.key]
    members = groups.size(row.key)
    if row.word in (hccl.SEND, hccl.RECEIVE):
        peer = peers.of(row, rank, groups.seen[row.key])
        size = hccl.size_B(row, members)
        if peer < 0 or size < 0:
            notes[
                f"{row.word} ops without a known {'peer' if peer < 0 else 'size'}, kept as work of recorded time"
            ] += 1
            return Meaning()
        return Meaning(SEND if row.word == hccl.SEND else RECV, peer=peer, tag=group, size_B=size)
    if row.word not in hccl.COLLECTIVES:
        notes[f"{row.word} ops, whose parts are not recorded, kept as work of recorded time"] += 1
        return Meaning()
    if members == 1:
        notes["collectives of a communicator of one rank, kept as work of recorded time"] += 1
        return Meaning()
    size = hccl.size_B(row, members)
    if size < 0:
        what = "communicator's size" if row.size_B >= 0 else "size"
        notes[f"{row.word} ops without a known {what}, kept as work of recorded time"] += 1
        return Meaning()
    if row.size_B < 0:
        notes[f"{row.word} ops whose size was taken from the bytes their ranks moved over links"] += 1
    elif row.word in hccl.UNEQUAL:
        notes[f"{row.word} ops counted as if all ranks had the share of this one"] += 1
    return Meaning(COLLECTIVE, collective=hccl.COLLECTIVES[row.word][0], group=group, size_B=size)


def _recorded_us(files: RankFiles, line: ViewTimeline, notes: Counter[str]) -> float:
    """The step of step_trace_time.csv, else the span from the first kernel or communication op to the last end."""
    if files.steps is None or not len(files.steps):
        return line.span_us
    total = step_totals_us(files.steps)
    if len(total) > 1:
        notes["ranks with several steps: their recorded time is from the first kernel to the last end"] += 1
        return line.span_us
    step_us = float(total[0])
    if abs(line.span_us - step_us) > 0.01 * step_us:
        notes["ranks whose tasks span more or less than their step: files cut short, or of another step"] += 1
    if files.view is not None and files.view.overlap_us:
        own_us = sum(files.view.overlap_us.get(name, 0.0) for name in STEP_PARTS)
        if abs(own_us - step_us) > 0.001 * step_us:
            notes["ranks whose timeline does not sum to step_trace_time.csv"] += 1
    return step_us


def _preparing(files: RankFiles) -> list[str]:
    texts = files.steps.columns.get("Preparing", []) if files.steps is not None else []
    return [text for text in texts[:1] if text.isascii() and text.replace(".", "", 1).isdigit()]
