"""Tables of measured collectives: reading, checking, and the columns that models take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmsim.calibration.logs import read_log
from cmsim.errors import InputError, Problem, did_you_mean, tell
from cmsim.reading import exists, written

if TYPE_CHECKING:
    import pandas as pd

#: names of collectives in tables, and ours
COLLECTIVES: dict[str, str] = {
    "all_reduce": "all_reduce",
    "allreduce": "all_reduce",
    "all_gather": "all_gather",
    "allgather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "reducescatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "all_to_all": "all_to_all",
    "all2all": "all_to_all",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "sendrecv": "send_recv",
    "send_recv": "send_recv",
}
#: bytes of an element by the names that tables use
WIDTHS: dict[str, float] = {
    **dict.fromkeys(("int8", "uint8", "fp8", "float8", "fp8_e4m3", "fp8_e5m2", "f8e4m3", "f8e5m2"), 1.0),
    **dict.fromkeys(("half", "fp16", "float16", "bfloat16", "bf16", "int16"), 2.0),
    **dict.fromkeys(("float", "fp32", "float32", "int32", "uint32"), 4.0),
    **dict.fromkeys(("double", "fp64", "float64", "int64", "uint64"), 8.0),
}
_SHOWN = 5


@dataclass(frozen=True)
class Calls:
    """One call a row. Text columns are codes into their names.

    system, accelerator, collective, kernel: names with codes; "" where the table has none
    ranks, per_node: [1]; per_node 0 where the table has none
    size_B: S as nccl-tests prints it [B]    narrow: 1 where an element has one byte
    """

    system: tuple[tuple[str, ...], NDArray[np.int64]]
    accelerator: tuple[tuple[str, ...], NDArray[np.int64]]
    collective: tuple[tuple[str, ...], NDArray[np.int64]]
    kernel: tuple[tuple[str, ...], NDArray[np.int64]]
    ranks: NDArray[np.float64]
    per_node: NDArray[np.float64]
    size_B: NDArray[np.float64]
    narrow: NDArray[np.float64]


def read(table: str | Path, *, collective: str | None = None, n_ranks: int | None = None) -> pd.DataFrame:
    """A table as written: Parquet, CSV, or the text that nccl-tests, rccl-tests and hccl_test print.

    collective, n_ranks: of a text, instead of what it says

    InputError: the file is absent or is none of these.
    """
    import pandas as pd

    path = Path(table)
    if not exists(path):
        raise InputError(f"no such table: {path}")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix == ".csv":
            return pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(Problem(f"cannot be read as {path.suffix[1:]}: {error}", str(path))) from error
    frame = read_log(path, collective=collective, n_ranks=n_ranks)
    tell(f"{path}: {note}" for note in frame.attrs["notes"])
    return frame


def write(frame: pd.DataFrame, out: str | Path) -> None:
    """The frame as Parquet or CSV, by the ending of the name."""
    path = Path(out)
    if path.suffix not in (".parquet", ".csv"):
        raise InputError(Problem("a table ends in .parquet or .csv", str(path)))
    import pyarrow as pa
    from pyarrow import csv

    with written(path) as beside:
        if path.suffix == ".parquet":
            frame.to_parquet(beside, index=False)
        else:
            csv.write_csv(pa.Table.from_pandas(frame, preserve_index=False), beside)


def calls(frame: pd.DataFrame, *, file: str, system: str | None = None) -> Calls:
    """The columns of a table, checked.

    system: of every row, instead of the table's column

    InputError: columns are absent; a size or rank count is negative, not a number or not whole; a name is unknown.
    Each problem names its column and row (the first data row is 0).
    """
    have = [str(name) for name in frame.columns]
    serving = "kernel" in have and "collective" not in have
    needed = ["n_ranks"] + ([] if system else ["system"])
    needed += ["kernel", "message_elements", "dtype"] if serving else ["collective"]
    if not serving and "message_bytes" not in have:
        needed += ["message_bytes"] if "message_elements" not in have else ["message_elements", "dtype"]
    missing = [name for name in dict.fromkeys(needed) if name not in have]
    if missing:
        raise InputError(
            Problem(f"no such column. {did_you_mean(name, have, limit=20)}", file, key=name) for name in missing
        )
    problems: list[Problem] = []
    count = len(frame)
    ranks = numbers(frame, "n_ranks", file, problems, rule="a whole number above 0", good=whole)
    per_node = np.zeros(count)
    if "ranks_per_node" in have:
        per_node = numbers(frame, "ranks_per_node", file, problems, rule="a whole number above 0", good=whole)
    width, narrow = np.ones(count), np.zeros(count)
    if "dtype" in have:
        names, code = codes(frame["dtype"])
        table = np.array([WIDTHS.get(name.lower(), np.nan) for name in names] or [0.0])
        width = table[code]
        unknown(problems, file, "dtype", names, code, [name for name in names if name.lower() not in WIDTHS], WIDTHS)
        narrow = (width == 1.0).astype(float)
    if serving or "message_bytes" not in have:
        rule = "above 0"
        size_B = numbers(frame, "message_elements", file, problems, rule=rule, good=lambda v: v > 0) * width
    else:
        size_B = numbers(frame, "message_bytes", file, problems, rule="above 0", good=lambda v: v > 0)
    if serving:
        kernel, collective = codes(frame["kernel"]), one_name("all_reduce", count)
    else:
        kernel = one_name("", count)
        names, code = codes(frame["collective"])
        bad = [name for name in names if name.lower() not in COLLECTIVES]
        unknown(problems, file, "collective", names, code, bad, COLLECTIVES)
        collective = (tuple(COLLECTIVES.get(name.lower(), "") for name in names), code)
    where = one_name(system, count) if system else codes(frame["system"])
    accelerator = codes(frame["accelerator"]) if "accelerator" in have and not system else one_name("", count)
    if problems:
        raise InputError(problems)
    return Calls(where, accelerator, collective, kernel, ranks, per_node, size_B, narrow)


def whole(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    good: NDArray[np.bool_] = (values >= 1) & (values == np.floor(values))
    return good


def numbers(
    frame: pd.DataFrame,
    name: str,
    file: str,
    problems: list[Problem],
    *,
    rule: str,
    good: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
    row: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """A column as numbers; what is wrong with it goes to problems, by row.

    row: what problems call each row, where it is not its position
    """
    import pandas as pd

    column = frame[name]
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(~(np.isfinite(values) & good(values)))
    for at in bad[:_SHOWN].tolist():
        shown = at if row is None else row[at]
        problems.append(Problem(f"must be {rule}, got {column.iloc[at]}", file, key=f"row {shown}: {name}"))
    if len(bad) > _SHOWN:
        problems.append(Problem(f"must be {rule}; {len(bad) - _SHOWN} more rows", file, key=name))
    return values


def codes(column: Any) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    import pandas as pd

    code, names = pd.factorize(column, use_na_sentinel=False)
    return tuple("" if name != name else str(name) for name in names), code.astype(np.int64)


def one_name(name: str, count: int) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """A text column that is the same everywhere."""
    return (name,), np.zeros(count, dtype=np.int64)


def unknown(
    problems: list[Problem],
    file: str,
    column: str,
    names: tuple[str, ...],
    code: NDArray[np.int64],
    bad: list[str],
    allowed: dict[str, Any],
) -> None:
    for name in bad[:_SHOWN]:
        row = int(np.flatnonzero(code == names.index(name))[0])
        hint = did_you_mean(name, allowed, limit=len(allowed))
        problems.append(Problem(f"got '{name}'. {hint}", file, key=f"row {row}: {column}"))


def noted(ways: NDArray[np.int8], text: Callable[[int], str], texts: list[str]) -> NDArray[np.int64]:
    """Of every row the position of its note among the texts, which new ones join.

    ways: of rows, small numbers from 0    text: the note of one number
    """
    table = np.zeros(128, np.int64)
    for value in np.flatnonzero(np.bincount(ways, minlength=1)).tolist():
        said = text(value)
        if said not in texts:
            texts.append(said)
        table[value] = texts.index(said)
    return table[ways]
