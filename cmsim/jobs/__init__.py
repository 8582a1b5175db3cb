"""Traces of jobs on clusters, and lists of their nodes: one module a format, found by what they hold."""

from __future__ import annotations

from pathlib import Path

from cmsim.jobs import dlrm, openb, pai, philly, slurm, spot
from cmsim.jobs.jobs import Jobs, Nodes
from cmsim.reading.bytes_in import LIMIT_B, bad
from cmsim.reading.formats import Importer, opened

#: importers by name, asked in this order; a new format is one module and one line
IMPORTERS: dict[str, Importer[Jobs | Nodes]] = {
    openb.NAME: Importer(openb.sniff, openb.open_),
    spot.NAME: Importer(spot.sniff, spot.open_),
    dlrm.NAME: Importer(dlrm.sniff, dlrm.open_),
    slurm.HELIOS: Importer(slurm.sniff_helios, slurm.open_helios),
    slurm.ACME: Importer(slurm.sniff_acme, slurm.open_acme),
    philly.NAME: Importer(philly.sniff, philly.open_),
    pai.NAME: Importer(pai.sniff, pai.open_),
}


def open_jobs(path: Path | str, *, format: str | None = None, limit_B: int = LIMIT_B) -> Jobs | Nodes:
    """What a file of a cluster trace holds: jobs, or the nodes of the cluster.

    format   name in `IMPORTERS`, where it should not be guessed
    limit_B  size above which an expanded file is refused [B]

    Raises InputError naming file and line.
    """
    return opened(path, IMPORTERS, of="jobs", format=format, limit_B=limit_B)


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


__all__ = ["IMPORTERS", "Jobs", "Nodes", "load_jobs", "load_nodes", "open_jobs"]
