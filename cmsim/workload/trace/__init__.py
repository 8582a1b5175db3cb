"""Traces of real runs as programs: one importer a format, found by what the files hold; one lowering for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.workload.bytes_in import LIMIT_B, head
from cmsim.workload.ops import Programs
from cmsim.workload.trace import aicb, ascend, chakra, columnar, goal, kineto, layers, pytorch_et
from cmsim.workload.trace.lower import Collectives, Placement, lower
from cmsim.workload.trace.recorded import Opened


class Opener(Protocol):
    """Reads a file or folder, or raises InputError."""

    def __call__(self, path: Path, *, limit_B: int = LIMIT_B) -> Opened: ...


@dataclass(frozen=True)
class Importer:
    """One trace format.

    sniff  says from the first bytes (expanded; empty for a folder) and the path whether the format is this one
    open_  reads it
    """

    sniff: Callable[[bytes, Path], bool]
    open_: Opener


#: importers by name, asked in this order; a new format is a module (or a folder) and a line. Chakra has no magic: last
IMPORTERS: dict[str, Importer] = {
    name: Importer(sniff=form.sniff, open_=form.open_)
    for name, form in {
        "cmsim": columnar,
        "ascend": ascend,
        "kineto": kineto,
        "pytorch_et": pytorch_et,
        "astra": layers,
        "aicb": aicb,
        "goal": goal,
        "chakra": chakra,
    }.items()
}


def open_trace(path: Path | str, *, format: str | None = None, limit_B: int = LIMIT_B) -> Opened:
    """A trace file or folder, read, in whichever known format it is.

    format   name in ``IMPORTERS``, where the format should not be guessed
    limit_B  expanded size above which a file is refused [B]

    Raises InputError naming the file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(Problem("no such file or folder", str(path)))
    if format is not None:
        if format not in IMPORTERS:
            raise InputError(f"no trace format named '{format}'. {did_you_mean(format, IMPORTERS)}")
        return IMPORTERS[format].open_(path, limit_B=limit_B)
    start = head(path)
    for importer in IMPORTERS.values():
        if importer.sniff(start, path):
            return importer.open_(path, limit_B=limit_B)
    raise InputError(Problem(f"no known trace format ({', '.join(IMPORTERS)})", str(path)))


def load_trace(
    path: Path | str,
    *,
    ranks: int | None = None,
    format: str | None = None,
    limit_B: int = LIMIT_B,
    placement: Placement = "contiguous",
    host_ops: bool = True,
    collectives: Collectives = "modelled",
) -> Programs:
    """Programs of a trace file or folder: `open_trace`, then `lower`, which says what the other arguments mean.

    Raises InputError naming the file.
    """
    trace = open_trace(path, format=format, limit_B=limit_B).trace(ranks=ranks)
    return lower(trace, ranks=ranks, placement=placement, host_ops=host_ops, collectives=collectives)


__all__ = ["IMPORTERS", "Importer", "Opener", "load_trace", "lower", "open_trace"]
