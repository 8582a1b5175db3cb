"""The text, or the JSON report, that nccl-tests, rccl-tests and hccl_test print, as a table.

Source: NVIDIA/nccl-tests doc, ROCm/rccl-tests, Ascend hccl_test user guide.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmsim.calibration.log_text import NAMES, LogRun, left_out, runs
from cmsim.errors import InputError, Problem
from cmsim.reading.regular import content

if TYPE_CHECKING:
    import pandas as pd

#: largest log that is read [B]
_MOST_B = 2**28


def read_log(log: str | Path, *, collective: str | None = None, n_ranks: int | None = None) -> pd.DataFrame:
    """Rows of a log: collective, n_ranks, message_bytes, dtype, latency_us, algbw_GBps, busbw_GBps.

    Several runs may stand in one file; each has a collective and ranks of its own. The out-of-place time is taken.

    Parameters
    ----------
    log
        A file, or the text itself where it has several lines.
    collective, n_ranks
        Instead of what the text says.

    Returns
    -------
    DataFrame
        A row a line of the log (rows, 7), times in us; ``attrs["notes"]`` says which rows are not used.

    Raises
    ------
    InputError
        No row was found, or the collective or the number of ranks of a run is not in the text.

    Examples
    --------
    >>> text = '''# all_reduce_perf
    ... # Rank  0 Group  0 Pid 1 on a device  0
    ... # Rank  1 Group  0 Pid 2 on a device  1
    ...     1024   256  float  sum  -1   10.50  0.10  0.10  0   10.20  0.10  0.10  0
    ... '''
    >>> frame = read_log(text)
    >>> print(frame[["collective", "n_ranks", "message_bytes", "latency_us"]].to_string(index=False))
    collective  n_ranks  message_bytes  latency_us
    all_reduce        2           1024        10.5
    """
    import pandas as pd

    is_text = isinstance(log, str) and "\n" in log
    text = str(log) if is_text else content(Path(log), _MOST_B).decode(errors="replace")
    file = "" if is_text else str(log)
    found = _report(text, file) if text.lstrip()[:1] == "{" else runs(text.splitlines())
    rows = []
    for number, run in enumerate(found, 1):
        of = f" of run {number}" if len(found) > 1 else ""
        name, ranks = collective or run.collective, n_ranks or run.n_ranks
        if not run.rows:
            continue
        if not name:
            message = f"the text names no collective{of} (all_reduce_perf, ...): give it (--collective)"
            raise InputError(Problem(message, file, key="collective"))
        if not ranks:
            raise InputError(Problem(f"the text lists no ranks{of}: give their number (--ranks)", file, key="n_ranks"))
        per_node = run.per_node if ranks == run.n_ranks else 0
        rows += [(name, ranks, per_node, *row) for row in run.rows]
    notes = tuple(left_out(found))
    if not rows:
        why = f" ({'; '.join(notes)})" if notes else ""
        raise InputError(Problem(f"no line of results: size, count, type, ..., time, algbw, busbw{why}", file))
    names = [
        "collective",
        "n_ranks",
        "ranks_per_node",
        "message_bytes",
        "dtype",
        "latency_us",
        "algbw_GBps",
        "busbw_GBps",
    ]
    frame = pd.DataFrame(rows, columns=names)
    if not frame["ranks_per_node"].all():
        frame = frame.drop(columns="ranks_per_node")
    frame.attrs["notes"] = notes
    return frame


def _report(text: str, file: str) -> list[LogRun]:
    """The JSON report of nccl-tests (``-J``)."""
    try:
        document = json.loads(text)
        config, results = document.get("config", {}), document["results"]
        run = LogRun(collective=_named(document.get("args", [])))
        for device in config.get("devices", []):
            run.ranks[int(device["rank"])] = (str(device.get("group", "")), str(device.get("hostname", "")))
        for row in results:
            _reported(row, run)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        message = f"is JSON, but no report of a collective benchmark ({type(error).__name__}: {error})"
        raise InputError(Problem(message, file)) from None
    return [run]


def _named(args: list[str]) -> str:
    program = str(args[0]).rsplit("/", 1)[-1].lower() if args else ""
    stem = program.removesuffix("_perf").removesuffix("_test").replace("_", "")
    return NAMES.get(stem, "")


def _reported(row: Mapping[str, Any], run: LogRun) -> None:
    of = row.get("out_of_place") or row["in_place"]
    if not int(row["size"]):
        run.left_out["of 0 bytes"] += 1
    elif float(of.get("nwrong") or 0) > 0:
        run.left_out["whose result was wrong"] += 1
    else:
        run.rows.append(
            (int(row["size"]), str(row["type"]), float(of["time"]), float(of["alg_bw"]), float(of["bus_bw"]))
        )


__all__ = ["read_log"]
