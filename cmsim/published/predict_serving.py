"""``cmsim predict serving``: the rows of a table, and what users of each service wait for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cmsim import api
from cmsim.calibration import tables
from cmsim.published.forms import service_form_of
from cmsim.published.predict import cells_of, filled, told_of
from cmsim.published.serve import serve_all

if TYPE_CHECKING:
    import pandas as pd

#: of a second
_MS = 1e3
SERVING_COLUMNS = ("predicted_ttft_ms", "predicted_tpot_ms", "predicted_output_tokens_per_s", "note")


def predict_serving(
    table: str | Path, *, out: str | Path | None = None, jobs: int | None = 1, progress: api.Progress | None = None
) -> pd.DataFrame:
    """Predicted times and throughput for a table of served models.

    Parameters
    ----------
    table
        CSV or Parquet of a form in ``cmsim.published.forms.SERVICE_FORMS``, which is told by its columns.
    out
        A file to write, .parquet or .csv.
    jobs
        Processes to run in, with the same rows; None: as many as cores, where that is sooner.
    progress
        Called with the table and the share of its runs that is done, 0 to 1.

    Returns
    -------
    DataFrame
        The rows in their order (rows, columns and four): ``predicted_ttft_ms`` and ``predicted_tpot_ms``, means over
        requests [ms], ``predicted_output_tokens_per_s`` [1/s], empty where a row cannot be predicted; and ``note``:
        what was taken, completed or not expressed, or why there is nothing.

    Raises
    ------
    InputError
        A table of no known form, or one that cannot be read.
    """
    frame = tables.read(table)
    form = service_form_of([str(name) for name in frame.columns], str(table))
    cases = [form.case(cells) for cells in cells_of(frame)]
    played = serve_all(cases, jobs=jobs, progress=told_of(table, progress))
    ttft_ms, tpot_ms = (
        [None if value is None else value * _MS for value in column]
        for column in ([one.ttft_s for one in played], [one.tpot_s for one in played])
    )
    values = ttft_ms, tpot_ms, [one.output_tokens_per_s for one in played]
    return filled(frame, SERVING_COLUMNS, values, cases, played, out)
