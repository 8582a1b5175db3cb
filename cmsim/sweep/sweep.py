"""A sweep: every point of a scenario once, into a folder that is whole at any moment.

A point is done when the folder has it, and then it is never run again: who was killed goes on there, and the folder
that comes out has the bytes of one that was made without a stop. One process at a time writes to a folder.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cmsim import api
from cmsim.errors import InputError, Problem
from cmsim.execution import Machines
from cmsim.results import Outcome, Results, Store, became, settle
from cmsim.scenario import Record, Scenario, load_scenario
from cmsim.sweep import points

#: held by the process that writes to a folder, and let go by the system when that ends
LOCK = ".lock"


@dataclass
class Standing:
    """How far a sweep is.

    total     points of the scenario         found    of these, done before
    results, infeasible, failed   what became of those that are done, before or now
    """

    total: int
    found: int = 0
    results: int = 0
    infeasible: int = 0
    failed: int = 0
    began_s: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        return self.results + self.infeasible + self.failed

    @property
    def per_s(self) -> float:
        """Points a second since it began; 0 before the first."""
        return (self.done - self.found) / max(time.monotonic() - self.began_s, 1e-9)

    @property
    def left_s(self) -> float | None:
        """What is left at this rate; None before there is one. [s]"""
        return (self.total - self.done) / self.per_s if self.per_s else None

    def count(self, one: str) -> None:
        """One more of ``result``, ``infeasible`` or ``failed``."""
        name = "results" if one == "result" else one
        setattr(self, name, getattr(self, name) + 1)


#: called with how far it is after each point
Progress = Callable[[Standing], None]


def sweep(
    scenario: Scenario | str | Path | Mapping[str, Any],
    *,
    out: str | Path,
    set: Mapping[str, Any] | None = None,
    record: Record = "summary",
    resume: bool = False,
    jobs: int | None = None,
    dask: str | None = None,
    progress: Progress | None = None,
) -> Results:
    """Every point of a scenario, each run once, into a folder.

    Parameters
    ----------
    scenario
        A Scenario, a file, a built-in name, YAML text, or data.
    out
        Folder to write: ``runs/*.parquet``, ``metrics.parquet`` (a row a run), ``manifest.json``, frames as recorded.
    set
        Dotted keys to change first, as ``--set`` does.
    record
        What is kept of a run: full, summary or none.
    resume
        Go on with a folder in which a sweep was ended, or one that is whole, of fewer points.
    jobs
        Processes to run in; None: as many as cores, where that is sooner. The bytes are the same.
    dask
        Address of a Dask scheduler to run on, or ``local`` for one that is started for it.
    progress
        Called after each point with how far it is.

    Returns
    -------
    Results
        What became of each point, in the scenario's order; frames are read when somebody looks at them.

    Raises
    ------
    InputError
        For what is wrong with the scenario, a folder that another sweep writes to or that holds something else, and a
        Dask scheduler that does not answer. What the folder has stays.
    """
    loaded = load_scenario(scenario, set=set).recorded(record)
    machines = Machines(loaded.base)
    api.check_report(loaded, [machines(one) for one in loaded.runs])
    runs = dict(zip(api.digests(loaded, machines), loaded.runs, strict=True))
    folder = Path(out).absolute()
    with _alone(folder), Store(folder, sole=True) as store:
        done = store.outcomes()
        _check(folder, done.keys(), runs.keys(), resume=resume)
        standing = Standing(len(runs), found=len(done))
        for one in done.values():
            standing.count(one)
        left = {digest: run for digest, run in runs.items() if digest not in done}
        if progress is not None:
            progress(standing)
        with contextlib.closing(points.each(left, loaded.base, jobs, dask)) as coming:
            _into(store, coming, standing, progress)
        settle(store, list(runs), loaded.data, api.manifest(loaded, machines.loaded()))
    return Results.load(folder)


def _into(store: Store, coming: Iterator[tuple[str, Outcome]], standing: Standing, progress: Progress | None) -> None:
    for digest, outcome in coming:
        store.add(outcome, digest)
        standing.count(became(outcome))
        if progress is not None:
            progress(standing)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else writes to the folder meanwhile. Raises InputError where somebody does, and where nobody can."""
    from filelock import FileLock, Timeout

    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
        if not folder.is_dir():
            raise InputError(Problem("is no folder", str(folder)))
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        message = "another sweep is writing to it. Wait for its end, or choose another folder with --out"
        raise InputError(Problem(message, str(folder))) from None
    except OSError as error:
        raise InputError(Problem(f"cannot be written ({error.strerror or error})", str(folder))) from None
    try:
        yield
    finally:
        lock.release()


def _check(folder: Path, done: Any, wanted: Any, *, resume: bool) -> None:
    """Raises InputError where the folder has points that are not to be touched."""
    if done and not resume:
        message = f"has {len(done)} points of a sweep. Go on with --resume, or choose another folder with --out"
        raise InputError(Problem(message, str(folder)))
    if others := len(done - wanted):
        message = (
            f"has {others} points that this scenario does not have, of another scenario, system file, `record` or "
            "version of cmsim. Choose another folder with --out"
        )
        raise InputError(Problem(message, str(folder)))


__all__ = ["LOCK", "Progress", "Standing", "sweep"]
