"""Traces of real runs as programs: one importer a format, found by what the files hold; one lowering for all."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from cmsim.reading.bytes_in import LIMIT_B, head
from cmsim.reading.formats import Importer, later, opened
from cmsim.traces.lower import Collectives, Placement, lower
from cmsim.traces.recorded import Opened
from cmsim.workload.ops import Programs

#: how the files of a format can begin, byte order marks and blanks apart; readers look closer. An object may be
#: anybody's, a table has commas
_BEGINS = {
    "cmsim": rb"PAR1",
    "ascend": rb"[\[{]|SQLite|.*,",
    "kineto": rb"[\[{]",
    "pytorch_et": rb"{",
    "astra": rb"[A-Z]",
    "aicb": rb".*,",
    "goal": rb".",
}
_FORMS = {name: re.compile(rb"(?:\xef\xbb\xbf|\s)*(?:%b)" % begins, re.DOTALL) for name, begins in _BEGINS.items()}
#: formats with a folder for a job, and those with a file for each rank in one; Chakra's files are found by name
_JOBS, _RANKS = ("ascend",), ("kineto", "pytorch_et")


def _may_be(name: str) -> Callable[[bytes, Path], bool]:
    """Whether a file or folder may be of a format: what nobody wrote in it, its reader is not imported for."""

    def file(start: bytes) -> bool:
        return name not in _FORMS or _FORMS[name].match(start) is not None

    def may(start: bytes, path: Path) -> bool:
        if start or name not in (*_JOBS, *_RANKS) or not path.is_dir():
            return file(start)
        try:
            inside = list(path.iterdir())
        except OSError:
            return True  # the reader says what is wrong
        if name in _JOBS:
            return any(
                one.is_dir() or one.name.removesuffix(".gz").endswith((".json", ".csv", ".db")) for one in inside
            )
        return any(one.is_file() and file(head(one)) for one in inside)

    return may


#: importers by name, asked in this order; a new format is a module (or a folder) and a line. Chakra has no magic: last
IMPORTERS: dict[str, Importer[Opened]] = {
    name: later(f"cmsim.traces.{module}", _may_be(name))
    for name, module in {
        "cmsim": "columnar",
        "ascend": "ascend",
        "kineto": "kineto",
        "pytorch_et": "pytorch_et",
        "astra": "layers",
        "aicb": "aicb",
        "goal": "goal",
        "chakra": "chakra",
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
