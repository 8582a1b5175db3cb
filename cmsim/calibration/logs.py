"""The text that nccl-tests, rccl-tests and hccl_test print, as a table.

nccl-tests and rccl-tests print  size count type redop root time algbw busbw #wrong  and once more time algbw busbw for
in-place; hccl_test prints  data_size aveg_time alg_bandwidth  between bars. The collective comes from the program's
name in the text, the ranks from the lines ``Rank  0 ...`` or from ``rank_size``.

Source: NVIDIA/nccl-tests doc, ROCm/rccl-tests, Ascend hccl_test user guide.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from cmsim.errors import InputError, Problem

if TYPE_CHECKING:
    import pandas as pd

_PROGRAM = re.compile(
    r"(all_?reduce|all_?gather|reduce_?scatter|all_?to_?all|broadcast|sendrecv|reduce)(?:_perf|_test|\b)", re.IGNORECASE
)
_RANK = re.compile(r"^#?\s*Rank\s+(\d+)\b", re.MULTILINE | re.IGNORECASE)
_HOST = re.compile(r"^#?\s*Rank\s+\d+.*?\bon\s+(\S+)", re.MULTILINE | re.IGNORECASE)
_RANK_SIZE = re.compile(r"rank_?size\s*[:=]?\s*(\d+)|\bn[_ ]?ranks\s*[:=]?\s*(\d+)", re.IGNORECASE)
_NAMES = {
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "reducescatter": "reduce_scatter",
    "alltoall": "alltoall",
    "broadcast": "broadcast",
    "sendrecv": "sendrecv",
    "reduce": "reduce",
}


def read_log(log: str | Path, *, collective: str | None = None, n_ranks: int | None = None) -> pd.DataFrame:
    """Rows of a log: collective, n_ranks, message_bytes, dtype, latency_us, algbw_GBps, busbw_GBps.

    The out-of-place time is taken; times are as printed. [us]

    Parameters
    ----------
    log
        A file, or the text itself where it has several lines.
    collective, n_ranks
        Where the text does not say.

    Returns
    -------
    DataFrame
        A row a line of the log (rows, 7).

    Raises
    ------
    InputError
        No row was found, or the collective or the number of ranks is not in the text.

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
    text = str(log) if is_text else Path(log).read_text(encoding="utf-8", errors="replace")
    file = "" if is_text else str(log)
    if collective is None:
        found = _PROGRAM.search(text) or _PROGRAM.search(Path(file).name)
        if found is None:
            message = "the text names no collective (all_reduce_perf, ...); tables of rows end in .parquet or .csv"
            raise InputError(Problem(message, file, key="collective"))
        collective = _NAMES[found[1].lower().replace("_", "")]
    if n_ranks is None:
        size = _RANK_SIZE.search(text)
        listed = {int(number) for number in _RANK.findall(text)}
        n_ranks = len(listed) or (int(size[1] or size[2]) if size else 0)
        if not n_ranks:
            raise InputError(Problem("the text lists no ranks", file, key="n_ranks"))
    rows = [row for line in text.splitlines() if (row := _row(line)) is not None]
    if not rows:
        raise InputError(Problem("no line of results: size, count, type, ..., time, algbw, busbw", file))
    hosts = len(set(_HOST.findall(text)))
    frame = pd.DataFrame(rows, columns=["message_bytes", "dtype", "latency_us", "algbw_GBps", "busbw_GBps"])
    frame.insert(0, "collective", collective)
    frame.insert(1, "n_ranks", n_ranks)
    if hosts and n_ranks % hosts == 0:
        frame.insert(2, "ranks_per_node", n_ranks // hosts)
    return frame


def _row(line: str) -> tuple[int, str, float, float, float] | None:
    words = [word.strip() for word in line.strip().strip("|").split("|")] if "|" in line else line.split()
    if len(words) < 3 or not words[0].isdigit():
        return None
    try:
        if len(words) >= 6 and not _number(words[2]):
            # with redop and root, or (all-to-all, all-gather of old releases) without
            at = 5 if not _number(words[3]) else 3
            time, algbw, busbw = (float(word) for word in words[at : at + 3])
            return int(words[0]), words[2], time, algbw, busbw
        time, algbw = float(words[1]), float(words[2])
        return int(words[0]), "float", time, algbw, float("nan")
    except ValueError:
        return None


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
