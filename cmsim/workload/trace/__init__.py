"""Traces of real runs as programs: one importer a format, found by what the files hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.workload.ops import Programs
from cmsim.workload.trace import job, programs
from cmsim.workload.bytes_in import head


class Reader(Protocol):
    """Programs of a file or folder; ``ranks`` asks for a larger job than there are files."""

    def __call__(self, path: Path, *, ranks: int | None = None) -> Programs: ...


@dataclass(frozen=True)
class Importer:
    """One trace format.

    sniff  says from the first bytes (expanded; empty for a folder) and the path whether the format is this one
    read   reads it
    """

    sniff: Callable[[bytes, Path], bool]
    read: Reader


#: importers by name, asked in this order; a new format is one module and one line
IMPORTERS: dict[str, Importer] = {
    "chakra": Importer(sniff=job.sniff, read=programs.read),
}


def load_trace(path: Path | str, *, ranks: int | None = None, format: str | None = None) -> Programs:
    """Programs of a trace file or folder, in whichever known format it is.

    ranks   size of the job where it is larger than the files that are there: the rest run copies
    format  name in ``IMPORTERS``, where the format should not be guessed

    Raises InputError naming the file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(Problem("no such file or folder", str(path)))
    if format is not None:
        if format not in IMPORTERS:
            raise InputError(f"no trace format named '{format}'. {did_you_mean(format, IMPORTERS)}")
        return IMPORTERS[format].read(path, ranks=ranks)
    start = head(path)
    for importer in IMPORTERS.values():
        if importer.sniff(start, path):
            return importer.read(path, ranks=ranks)
    raise InputError(Problem(f"no known trace format ({', '.join(IMPORTERS)})", str(path)))


__all__ = ["IMPORTERS", "Importer", "Reader", "load_trace"]
