"""Kineto traces: Chrome trace JSON of the PyTorch profiler, one file a rank.

A file is an object with the list ``traceEvents`` and some facts about the job beside it, or the bare list. See
`events` for what is read and `to_trace` for what becomes of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cmsim.reading.bytes_in import HEADS_B, LIMIT_B, bad, folder_heads, known
from cmsim.reading.formats import not_used
from cmsim.traces import pytorch_et
from cmsim.traces.kineto import to_trace
from cmsim.traces.kineto.events import Events, read_events, whole_number
from cmsim.traces.numbered import ranks_of
from cmsim.traces.recorded import Trace

_LIST = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{")
_CATEGORY = re.compile(rb'"cat"\s*:\s*"(?:cpu_op|kernel|cuda_runtime|user_annotation|python_function|Operator|Kernel)"')
#: arguments that only this profiler writes; others borrow its categories
_OURS = re.compile(rb'"(?:External id|external id|Ev Idx|correlation)"')
_HEADER = (b'"deviceProperties"', b'"distributedInfo"', b'"record_shapes"', b'"profile_memory"', b'"with_stack"')


@dataclass(frozen=True)
class Kineto:
    """Files by rank, ascending; ``hosts`` are execution traces of some of the ranks, from the same folder.

    notes  of what else is in the folder
    """

    source: Path
    files: Mapping[int, Events]
    hosts: Mapping[int, pytorch_et.HostTrace]
    notes: tuple[str, ...] = ()

    def counts(self) -> dict[str, Any]:
        """Of one file its counts; of a folder those of each file, by name.

        events, phases                  events in all, and by phase
        complete_events_by_cat          events with a length, by category
        kernels, kernel_dur_sum_us      kernels, without copies and memsets [us]
        gpu_streams                     streams with kernels
        comm_kernels_by_name, comm_kernel_dur_us  kernels of communication libraries, by operation [us]
        kernels_with_collective_args, in_bytes_from_args, out_bytes_from_args  those that name their collective [B]
        record_param_comms, record_param_comms_with_collective_name  host calls of collectives
        nccl_user_annotations           host ranges named nccl:<operation>
        steps                           recorded steps (ProfilerStep#n)
        span_us                         first start to last end, the profiler's own span left out [us]
        nonint_ts                       times have fractions of a microsecond
        rank, world_size                as the file says
        """
        if not self.source.is_dir():
            return dict(next(iter(self.files.values())).counts)
        return {"format": "kineto", "files": {one.path.name: dict(one.counts) for one in self.files.values()}}

    def trace(self, *, ranks: int | None = None) -> Trace:
        """Kernels, copies, collectives, and the host work between launches. InputError where there is nothing of it."""
        hosts = {rank: one.collectives() for rank, one in self.hosts.items()}
        made = to_trace.trace(self.source, self.files, hosts, ranks=ranks)
        return replace(made, notes=(*self.notes, *made.notes)) if self.notes else made


def sniff(start: bytes, path: Path) -> bool:
    """Whether a file, or a file in a folder, looks like a profile of PyTorch."""
    return holds(path) if not start and path.is_dir() else _looks(start)


def holds(path: Path, size_B: int = HEADS_B[0]) -> bool:
    """Whether a file in a folder looks like one by so many first bytes."""
    return any(map(_looks, folder_heads(_files(path), size_B)))


def _looks(start: bytes) -> bool:
    if _LIST.match(start):
        return b'"ph"' in start and _CATEGORY.search(start) is not None and _OURS.search(start) is not None
    if not start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return False
    return b'"traceEvents"' in start or (b'"schemaVersion"' in start and any(key in start for key in _HEADER))


def _files(folder: Path) -> list[Path]:
    return [one for one in _entries(folder) if one.is_file()]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise bad(folder, f"cannot be read ({error.strerror or error})") from None


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Kineto:
    """Read a file, or a folder with one file for each rank.

    The rank is that of ``distributedInfo``, else that of `numbered.ranks_of`: a file alone is rank 0. A folder may also
    hold the ranks' PyTorch execution traces: they tell the sizes of collectives where a profile does not.

    limit_B  largest expanded size of a file [B]

    Raises InputError.
    """
    if not path.is_dir():
        one = read_events(path, limit_B=limit_B)
        return Kineto(path, {max(_rank(one), 0): one}, {})
    files: dict[Path, Events] = {}
    hosts: list[pytorch_et.HostTrace] = []
    others: list[Path] = []
    for name in _entries(path):
        if name.is_file() and known(name, _looks):
            files[name] = read_events(name, limit_B=limit_B)
        elif name.is_file() and known(name, pytorch_et.looks):
            hosts.append(pytorch_et.read_host(name, limit_B=limit_B))
        else:
            others.append(name)
    if not files:
        raise bad(path, "holds no Kineto trace")
    ranks = ranks_of(
        path, {name: _rank(one) for name, one in files.items()}, {name: _meets(one) for name, one in files.items()}
    )
    by_rank, of_none = _hosts(hosts, ranks)
    notes = [
        *not_used(others, "no profile of PyTorch and no execution trace"),
        *not_used(of_none, "execution traces of no rank that has a profile here"),
    ]
    return Kineto(path, {rank: files[name] for rank, name in ranks.items()}, by_rank, tuple(notes))


def _hosts(
    hosts: Sequence[pytorch_et.HostTrace], ranks: Mapping[int, Path]
) -> tuple[dict[int, pytorch_et.HostTrace], list[Path]]:
    """Execution traces by rank, and those of no rank that has a profile."""
    out: dict[int, pytorch_et.HostTrace] = {}
    left: list[Path] = []
    for host in hosts:
        alone = len(hosts) == len(ranks) == 1
        rank = host.rank if host.said else next(iter(ranks)) if alone else pytorch_et.rank_in_name(host.path)
        if rank in ranks and rank not in out:
            out[rank] = host
        else:
            left.append(host.path)
    return dict(sorted(out.items())), left


def _meets(events: Events) -> bool:
    """Whether a file names communicators: calls, ranges or kernels of a communication library."""
    names = ("comm_kernels_by_name", "record_param_comms", "nccl_user_annotations", "kernels_with_collective_args")
    return any(events.counts[name] for name in names) or any("nccl" in name or "msccl" in name for name in events.names)


def _rank(events: Events) -> int:
    """The rank that a file says, -1 where it says none."""
    given = events.job.get("rank")
    if given is None:
        return -1
    rank = whole_number(given)
    if not 0 <= rank < 2**31:
        raise bad(events.path, f"distributedInfo.rank: expected a whole number from 0, got {given!r:.40}")
    return rank
