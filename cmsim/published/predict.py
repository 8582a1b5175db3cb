"""``cmsim predict training``: the rows of a table, and what a step takes and holds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cmsim import api
from cmsim.calibration import tables
from cmsim.published.case import Case
from cmsim.published.forms import form_of
from cmsim.published.play import play_all
from cmsim.units import GIB

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("predicted_step_time_s", "predicted_tokens_per_s_per_accelerator", "predicted_memory_GiB", "note")


def predict_training(
    table: str | Path, *, out: str | Path | None = None, jobs: int | None = 1, progress: api.Progress | None = None
) -> pd.DataFrame:
    """Predicted steps for a table of training runs.

    Parameters
    ----------
    table
        CSV or Parquet of a form in ``cmsim.published.forms``, which is told by its columns.
    out
        A file to write, .parquet or .csv.
    jobs
        Processes to run in, with the same rows; None: as many as cores, where that is sooner.
    progress
        Called with the table and the share of its runs that is done, 0 to 1.

    Returns
    -------
    DataFrame
        The rows in their order (rows, columns and four): ``predicted_step_time_s`` [s],
        ``predicted_tokens_per_s_per_accelerator`` [1/s], ``predicted_memory_GiB`` (the fullest rank), empty where a
        row cannot be predicted; and ``note``: what was taken, completed or not expressed, or why there is nothing.

    Raises
    ------
    InputError
        A table of no known form, or one that cannot be read.
    """
    frame = tables.read(table)
    form = form_of([str(name) for name in frame.columns], str(table))
    cases = [form.case(cells) for cells in cells_of(frame)]
    played = play_all(cases, jobs=jobs, progress=told_of(table, progress))
    memory_GiB = [None if one.memory_B is None else one.memory_B / GIB for one in played]
    values = [one.step_time_s for one in played], [one.rate for one in played], memory_GiB
    return filled(frame, COLUMNS, values, cases, played, out)


class _Played(Protocol):
    """What became of a case: without numbers there is a reason."""

    @property
    def reason(self) -> str: ...

    @property
    def notes(self) -> tuple[str, ...]: ...


def told_of(table: str | Path, progress: api.Progress | None) -> Callable[[float], None] | None:
    """Who is told of the share of a table that is done."""
    return None if progress is None else functools.partial(progress, Path(table).name)


def filled(
    frame: pd.DataFrame,
    names: Sequence[str],
    values: Sequence[Sequence[float | None]],
    cases: Sequence[Case],
    played: Sequence[_Played],
    out: str | Path | None,
) -> pd.DataFrame:
    """A table with its columns of numbers, and the last of ``names``, the note; written where it is to be."""
    for name, column in zip(names[:-1], values, strict=True):
        frame[name] = column
        frame[name] = frame[name].astype(float)
    frame[names[-1]] = [
        one.reason or "; ".join(filter(None, (*one.notes, case.note))) for case, one in zip(cases, played, strict=True)
    ]
    if out is not None:
        tables.write(frame, out)
    return frame


def cells_of(frame: pd.DataFrame) -> list[dict[str, str]]:
    """Rows as text by column; nothing where a cell is empty."""
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, map(_text, row), strict=True)) for row in frame.itertuples(index=False, name=None)]


def _text(value: object) -> str:
    # what is missing is None, or unlike itself
    return "" if value is None or value != value else str(value).strip()
