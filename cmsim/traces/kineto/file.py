"""Kineto traces: Chrome trace JSON of the PyTorch profiler, one file a rank.

A file is an object with the list ``traceEvents`` and some facts about the job beside it, or the bare list. See
`events` for what is read and `to_trace` for what becomes of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmsim.reading.bytes_in import LIMIT_B, bad, head
from cmsim.traces import pytorch_et
from cmsim.traces.kineto import to_trace
from cmsim.traces.kineto.events import Events, read_events, whole_number
from cmsim.traces.recorded import Trace

_LIST = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[\s*\{")
_CATEGORY = re.compile(rb'"cat"\s*:\s*"(?:cpu_op|kernel|cuda_runtime|user_annotation|python_function|Operator|Kernel)"')
#: arguments that only this profiler writes; others borrow its categories
_OURS = re.compile(rb'"(?:External id|external id|Ev Idx|correlation)"')
_HEADER = (b'"deviceProperties"', b'"distributedInfo"', b'"record_shapes"', b'"profile_memory"', b'"with_stack"')


@dataclass(frozen=True)
class Kineto:
    """Files by rank, ascending; ``hosts`` are execution traces of some of the ranks, from the same folder."""

    source: Path
    files: Mapping[int, Events]
    hosts: Mapping[int, pytorch_et.HostTrace]

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
        return to_trace.trace(self.source, self.files, hosts, ranks=ranks)


def sniff(start: bytes, path: Path) -> bool:
    """Whether a file, or a file in a folder, looks like a profile of PyTorch."""
    if not start and path.is_dir():
        return any(_looks(head(one)) for one in _files(path))
    return _looks(start)


def _looks(start: bytes) -> bool:
    if _LIST.match(start):
        return b'"ph"' in start and _CATEGORY.search(start) is not None and _OURS.search(start) is not None
    if not start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return False
    return b'"traceEvents"' in start or (b'"schemaVersion"' in start and any(key in start for key in _HEADER))


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(one for one in folder.iterdir() if one.is_file())
    except OSError as error:
        raise bad(folder, f"cannot be read ({error.strerror or error})") from None


def open_(path: Path, *, limit_B: int = LIMIT_B) -> Kineto:
    """Read a file, or a folder with one file for each rank.

    The rank is that of ``distributedInfo``, else the number in the name, else 0. A folder may also hold the ranks'
    PyTorch execution traces: they tell the sizes of collectives where a profile does not.

    limit_B  largest expanded size of a file [B]

    Raises InputError.
    """
    if not path.is_dir():
        one = read_events(path, limit_B=limit_B)
        return Kineto(path, {_rank(one): one}, {})
    files: dict[int, Events] = {}
    hosts: dict[int, pytorch_et.HostTrace] = {}
    for name in _files(path):
        start = head(name)
        if _looks(start):
            one = read_events(name, limit_B=limit_B)
            rank = _rank(one)
            if rank in files:
                raise bad(path, f"rank {rank} has two files ({files[rank].path.name}, {name.name}); keep one of them")
            files[rank] = one
        elif pytorch_et.sniff(start, name):
            host = pytorch_et.read_host(name, limit_B=limit_B)
            hosts[host.rank] = host
    if not files:
        raise bad(path, "holds no Kineto trace")
    return Kineto(path, dict(sorted(files.items())), {rank: hosts[rank] for rank in sorted(hosts) if rank in files})


def _rank(events: Events) -> int:
    given = events.job.get("rank")
    if given is None:
        return max(pytorch_et.rank_in_name(events.path), 0)
    rank = whole_number(given)
    if not 0 <= rank < 2**31:
        raise bad(events.path, f"distributedInfo.rank: expected a whole number from 0, got {given!r:.40}")
    return rank
