"""Traces of jobs on clusters, and lists of their nodes: one module a format, found by what they hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.workload.bytes_in import LIMIT_B, bad, head, read_bytes
from cmsim.workload.jobs import dlrm, openb, pai, philly, slurm
from cmsim.workload.jobs.jobs import Jobs, Nodes


class Open(Protocol):
    """Reads a file; InputError names file and line."""

    def __call__(self, path: Path, *, limit_B: int = LIMIT_B) -> Jobs | Nodes: ...


@dataclass(frozen=True)
class Importer:
    """One format.

    sniff  says from the first bytes (expanded) and the path whether the format is this one
    open_  reads it
    """

    sniff: Callable[[bytes, Path], bool]
    open_: Open


#: importers by name, asked in this order; a new format is one module and one line
IMPORTERS: dict[str, Importer] = {
    openb.NAME: Importer(openb.sniff, openb.open_),
    dlrm.NAME: Importer(dlrm.sniff, dlrm.open_),
    slurm.HELIOS: Importer(slurm.sniff_helios, slurm.open_helios),
    slurm.ACME: Importer(slurm.sniff_acme, slurm.open_acme),
    philly.NAME: Importer(philly.sniff, philly.open_),
    pai.NAME: Importer(pai.sniff, pai.open_),
}

_LFS = b"https://git-lfs.github.com/spec"


def sniffed(path: Path) -> str | None:
    """Name of the format of a file, None where it is none of these."""
    start = head(path)
    return next((name for name, importer in IMPORTERS.items() if start and importer.sniff(start, path)), None)


def open_jobs(path: Path | str, *, format: str | None = None, limit_B: int = LIMIT_B) -> Jobs | Nodes:
    """What a file of a cluster trace holds: jobs, or the nodes of the cluster.

    format   name in `IMPORTERS`, where it should not be guessed
    limit_B  size above which an expanded file is refused [B]

    Raises InputError naming file and line.
    """
    path = Path(path)
    if format is not None and format not in IMPORTERS:
        raise InputError(f"no format of jobs is named '{format}'. {did_you_mean(format, IMPORTERS)}")
    if not path.is_file():
        raise InputError(Problem("is a folder" if path.is_dir() else "no such file", str(path)))
    found = format or sniffed(path)
    if found is None:
        start = head(path)
        if not start:
            read_bytes(path, limit_B=limit_B)  # says what is wrong with it
        if _LFS in start:
            raise bad(path, "is a pointer of Git LFS; fetch the file itself with 'git lfs pull'")
        raise bad(path, f"no known format of jobs ({', '.join(IMPORTERS)})")
    return IMPORTERS[found].open_(path, limit_B=limit_B)


def load_jobs(path: Path | str, *, format: str | None = None, limit_B: int = LIMIT_B) -> Jobs:
    """The jobs of a file, in whichever known format it is; arguments and errors as of `open_jobs`."""
    found = open_jobs(path, format=format, limit_B=limit_B)
    if isinstance(found, Nodes):
        raise bad(path, f"holds nodes of a cluster ({found.format}) and no jobs")
    return found


def load_nodes(path: Path | str, *, format: str | None = None, limit_B: int = LIMIT_B) -> Nodes:
    """The nodes of a file, in whichever known format it is; arguments and errors as of `open_jobs`."""
    found = open_jobs(path, format=format, limit_B=limit_B)
    if isinstance(found, Jobs):
        raise bad(path, f"holds jobs ({found.format}) and no nodes of a cluster")
    return found


__all__ = ["IMPORTERS", "Importer", "Jobs", "Nodes", "Open", "load_jobs", "load_nodes", "open_jobs", "sniffed"]
