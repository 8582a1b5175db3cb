"""Predictions for the rows of a table: the same rows in the same order, plus ``predicted_us``."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cmsim import libraries
from cmsim.arrays import Floats
from cmsim.calibration import expert, kernels, tables
from cmsim.calibration.places import place, unmeasured
from cmsim.calibration.tables import Calls
from cmsim.errors import InputError, Problem, did_you_mean, tell
from cmsim.kernels.kinds import KINDS as KERNEL_KINDS
from cmsim.libraries import Place, time_us

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("collective", "moe_alltoall", "deepep", *KERNEL_KINDS)
_CHUNK = 65_536


def predict(
    kind: str,
    table: str | Path,
    *,
    out: str | Path | None = None,
    system: str | None = None,
    collective: str | None = None,
    n_ranks: int | None = None,
) -> pd.DataFrame:
    """Predicted times for a table of measured ones.

    Parameters
    ----------
    kind
        ``collective``, ``moe_alltoall``, ``deepep``, or a kind of kernel (``cmsim.kernels.kinds``: gemm, ...).
    table
        CSV or Parquet (rows, columns). collective: system, collective, n_ranks, message_bytes (nccl-tests' size [B]),
        or kernel, dtype, message_elements for serving engines' all-reduces; accelerator, ranks_per_node, dtype are
        optional. moe_alltoall: system, op_name, kernel_source, moe_dtype, num_tokens, hidden_size, topk, num_experts,
        moe_ep_size; distribution is optional. deepep: system, mode, node_num, hidden_size, num_token, num_topk,
        num_experts; sms is optional. Kernels: system and what the kind declares.
    out
        A file to write, .parquet or .csv.
    system
        Of every row, instead of the column.
    collective
        Of a log that does not say it.
    n_ranks
        Of a log that does not say them.

    Returns
    -------
    DataFrame
        The table with ``predicted_us`` [us] (rows, columns and one); of deepep also ``predicted_dispatch_us`` and
        ``predicted_combine_us``, and ``predicted_us`` is their sum, or the one of the two that the table measured
        alone. Of all but kernels also ``note`` where any row lies outside what was measured of its library: in which
        way, and what was measured, or "".

    Raises
    ------
    InputError
        An unknown kind or system, a missing column, a negative size, not a number: each with column and row.
    """
    if kind not in KINDS:
        raise InputError(f"no predictions of kind '{kind}'. {did_you_mean(kind, KINDS)}")
    frame = tables.read(table, collective=collective, n_ranks=n_ranks)
    file = str(table)
    if kind in KERNEL_KINDS:
        frame["predicted_us"] = kernels.predict_kernels(frame, kind, file=file, system=system)
    elif kind == "moe_alltoall":
        calls = expert.alltoall_calls(frame, file=file, system=system)
        frame["predicted_us"], said, texts = expert.predict_noted(calls, file=file)
        _note(frame, said, texts)
    elif kind == "deepep":
        wanted = expert.pair_operations(tuple(map(str, frame.columns)))
        pairs = {name: expert.pair_calls(frame, file=file, operation=name, system=system) for name in wanted}
        noted = {name: expert.predict_noted(calls, file=file) for name, calls in pairs.items()}
        for name, (time, _, _) in noted.items():
            frame[f"predicted_{name}_us"] = time
        frame["predicted_us"] = sum(time for time, _, _ in noted.values())
        # dispatch and combine of a row lie alike
        for _, said, texts in list(noted.values())[:1]:
            _note(frame, said, texts)
    else:
        frame["predicted_us"], said, texts = _predicted(tables.calls(frame, file=file, system=system), file)
        _note(frame, said, texts)
    if out is not None:
        tables.write(frame, out)
    return frame


def _predicted(calls: Calls, file: str) -> tuple[Floats, NDArray[np.int64], list[str]]:
    """Times [us], and notes of rows that lie outside what was measured: of every row its position among the texts."""
    places, at = _places(calls, file)
    tell(unmeasured(places))
    out = np.empty(len(calls.ranks))
    said = np.zeros(len(out), np.int64)
    texts = [""]
    names, code = calls.collective
    kernels, kernel = calls.kernel
    group = (at * len(names) + code) * len(kernels) + kernel
    for number in np.unique(group).tolist():
        rows = np.flatnonzero(group == number)
        rest, which = divmod(number, len(kernels))
        there, collective = places[rest // len(names)], names[rest % len(names)]
        # in blocks that fit the cache
        for start in range(0, len(rows), _CHUNK):
            block = rows[start : start + _CHUNK]
            ranks, size_B, narrow = calls.ranks[block], calls.size_B[block], calls.narrow[block]
            known = there
            if kernels[which]:
                out[block] = _kernel_us(there, kernels[which], ranks, size_B)
                known = replace(there, library=kernels[which], rows=there.kernel_rows, between_rows=())
            else:
                out[block] = time_us(there, collective=collective, ranks=ranks, size_B=size_B, narrow=narrow)
            ways = libraries.reach(known, collective, ranks=ranks, size_B=size_B)
            if ways.any():
                # one bit more: whether domains are left
                far = (ranks > known.domain_ranks).view(np.int8)
                said[block] = tables.noted(2 * ways + far, functools.partial(_text, known, collective), texts)
    return out, said, texts


def _text(at: Place, collective: str, key: int) -> str:
    """The note of a call. key: twice the ways of ``libraries.reach``, 1 more between domains."""
    return libraries.note(at, collective, key // 2, far=bool(key % 2))


def _note(frame: pd.DataFrame, said: NDArray[np.int64], texts: list[str]) -> None:
    """A column of notes where any row has one. said: of every row its position among the texts."""
    import pandas as pd

    if len(texts) > 1:
        frame["note"] = pd.Categorical.from_codes(said, pd.Index(texts))


def _kernel_us(at: Place, kernel: str, ranks: Floats, size_B: Floats) -> Floats:
    family = kernel.split("_")[0].lower()
    constants = at.kernels[family]
    eager = np.full(len(ranks), float("eager" in kernel.lower()))
    return libraries.fused_us(constants, at.ring, at.domain, ranks=ranks, size_B=size_B, eager=eager)


def _places(calls: Calls, file: str) -> tuple[list[Place], NDArray[np.int64]]:
    """The distinct places, and the position of every row's."""
    names, code = calls.system
    chips, chip = calls.accelerator
    per_node, node = np.unique(calls.per_node, return_inverse=True)
    combined = (code * len(chips) + chip) * len(per_node) + node
    values, at = np.unique(combined, return_inverse=True)
    places: list[Place] = []
    problems: list[Problem] = []
    for position, value in enumerate(values.tolist()):
        rest, of_node = divmod(value, len(per_node))
        name, accelerator = names[rest // len(chips)], chips[rest % len(chips)]
        try:
            places.append(place(name, accelerator, int(per_node[of_node])))
        except InputError as error:
            row = int(np.flatnonzero(at == position)[0])
            problems += [Problem(one.message, file, key=f"row {row}: system") for one in error.problems]
    if problems:
        raise InputError(problems)
    kernels, kernel = calls.kernel
    for number, name in enumerate(kernels):
        for position, there in enumerate(places):
            if name and name.split("_")[0].lower() not in there.kernels:
                found = np.flatnonzero((kernel == number) & (at == position))
                if len(found):
                    hint = did_you_mean(name, there.kernels or ["none on this system"])
                    problems.append(Problem(f"got '{name}'. {hint}", file, key=f"row {found[0]}: kernel"))
    if problems:
        raise InputError(problems)
    return places, at.astype(np.int64)
