"""What a cluster was asked to run, as columns: the one form that all readers of job traces make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cmsim.arrays import Floats, Ints

#: words of a column as codes: names, and the code of each row (-1: none)
Coded = tuple[tuple[str, ...], Ints]


@dataclass(frozen=True)
class Jobs:
    """One row per job, task or pod, in order of submission; those submitted before the trace began come first.

    submit_s       from the first submission in the trace; NaN: before it, or not recorded [s]
    start_s, end_s  on the same clock, NaN where not recorded or not yet [s]
    duration_s     time it ran, NaN where not recorded [s]
    gpus           asked for in all, 0.5 is half of one; NaN where not recorded
    gpus_per_node  of these on one node, NaN where the file does not say
    gpu_type       into ``gpu_types``, -1 where any will do or the file does not say; 'A|B' is one of two
    status         into ``statuses``, words of the file; -1 where it has none
    facts          what the file holds, in the words of its format
    notes          assumptions and omissions, to say beside a result
    """

    format: str
    source: str
    submit_s: Floats
    start_s: Floats
    end_s: Floats
    duration_s: Floats
    gpus: Floats
    gpus_per_node: Floats
    gpu_types: tuple[str, ...]
    gpu_type: Ints
    statuses: tuple[str, ...]
    status: Ints
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.gpus)

    def counts(self) -> dict[str, Any]:
        """What the file holds, for ``cmsim trace info``; the key ``format`` names the format."""
        return {"format": self.format, **self.facts}


@dataclass(frozen=True)
class Nodes:
    """One row per node of a cluster, in file order.

    gpus      [1]
    cpus      cores [1]
    memory_B  [B]
    gpu_type  into ``gpu_types``, -1 where the node has none
    """

    format: str
    source: str
    gpus: Ints
    cpus: Floats
    memory_B: Floats
    gpu_types: tuple[str, ...]
    gpu_type: Ints
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.gpus)

    def counts(self) -> dict[str, Any]:
        """What the file holds, for ``cmsim trace info``; the key ``format`` names the format."""
        return {"format": self.format, **self.facts}


def jobs_of(
    format: str,
    path: Path,
    *,
    gpus: Floats,
    gpus_per_node: Floats | None = None,
    submit_s: Floats | None = None,
    start_s: Floats | None = None,
    end_s: Floats | None = None,
    duration_s: Floats | None = None,
    gpu_type: Coded | None = None,
    status: Coded | None = None,
    facts: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> Jobs:
    """`Jobs` from columns in file order, sorted by submission (stable) and from 0 on; None: the file does not say.

    submit_s, start_s, end_s  on one clock of any zero [s]
    duration_s                as the file says; None: end less start
    """
    said = list(notes)
    count = len(gpus)
    unknown, none = np.full(count, np.nan), ((), np.full(count, -1))
    submit, start, end = (unknown if time is None else time for time in (submit_s, start_s, end_s))
    for what, time in (("submission", submit), ("start", start), ("end", end)):
        missing = int(np.isnan(time).sum())
        if missing:
            said.append(f"no {what} recorded of {missing} of {count} jobs")
    ran = end - start if duration_s is None else duration_s
    negative = int((ran < 0).sum())
    if negative:
        said.append(f"{negative} of {count} jobs end before they start: their duration is taken as not recorded")
        ran = np.where(ran < 0, np.nan, ran)
    # what was there before the trace began has no time, and comes first
    key = np.where(np.isnan(submit), -np.inf, submit)
    back = int((key[1:] < key[:-1]).sum())
    rows = np.argsort(key, kind="stable")
    if back:
        said.append(f"{back} of {count} jobs were submitted before the one above them: sorted by submission")
    zero = 0.0 if np.isnan(submit).all() else np.nanmin(submit)
    gpu_types, gpu_code = gpu_type or none
    statuses, status_code = status or none
    return Jobs(
        format=format,
        source=str(path),
        submit_s=submit[rows] - zero,
        start_s=start[rows] - zero,
        end_s=end[rows] - zero,
        duration_s=ran[rows],
        gpus=gpus[rows],
        gpus_per_node=(unknown if gpus_per_node is None else gpus_per_node)[rows],
        gpu_types=gpu_types,
        gpu_type=gpu_code[rows],
        statuses=statuses,
        status=status_code[rows],
        facts=facts,
        notes=tuple(said),
    )
