"""Traces of real runs as programs: one importer a format, found by what the files hold; one lowering for all."""

from __future__ import annotations

from pathlib import Path

from cmsim.reading.bytes_in import LIMIT_B
from cmsim.reading.formats import Importer, opened
from cmsim.traces import aicb, ascend, chakra, columnar, goal, kineto, layers, pytorch_et
from cmsim.traces.lower import Collectives, Placement, lower
from cmsim.traces.recorded import Opened
from cmsim.workload.ops import Programs

#: importers by name, asked in this order; a new format is a module (or a folder) and a line. Chakra has no magic: last
IMPORTERS: dict[str, Importer[Opened]] = {
    name: Importer(sniff=form.sniff, open_=form.open_, holds=getattr(form, "holds", None))
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
    return opened(path, IMPORTERS, of="traces", format=format, folders=True, limit_B=limit_B)


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


__all__ = ["IMPORTERS", "load_trace", "lower", "open_trace"]
