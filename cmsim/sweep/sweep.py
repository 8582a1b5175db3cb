"""A sweep: every point of a scenario once, into a folder that is whole at any moment.

A point is done when the folder has it, and then it is never run again: who was killed goes on there, and the folder
that comes out has the bytes of one that was made without a stop. One process at a time writes to a folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cmsim import api
from cmsim.execution import Machines
from cmsim.results import Outcome, Results, Store, became, settle
from cmsim.scenario import Record, Scenario, load_scenario
from cmsim.sweep import points
from cmsim.sweep.folder import alone, check
from cmsim.sweep.standing import Progress, Standing


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
    allow_policies: bool = False,
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
    allow_policies
        Whether runs may call a function of yours that the scenario names (``policy: module:function``).

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
    if allow_policies:
        loaded = loaded.allowing_policies()
    machines = Machines(loaded.base)
    api.check_asked(loaded, machines)
    runs = dict(zip(api.digests(loaded, machines), loaded.runs, strict=True))
    folder = Path(out).absolute()
    with alone(folder), Store(folder, sole=True) as store:
        done = store.outcomes()
        check(folder, done.keys(), runs.keys(), resume=resume)
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


__all__ = ["sweep"]
