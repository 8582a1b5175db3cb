"""Kernels: predictions for tables, and fits to measured ones, of every kind in ``cmsim.kernels.kinds``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from cmsim import reading
from cmsim.arrays import Floats, Ints
from cmsim.calibration import least, tables
from cmsim.calibration.held_out import FEWEST, HOW, errors_pct, folds_of
from cmsim.errors import InputError, Problem, did_you_mean, tell
from cmsim.hardware import AcceleratorSpec, load_accelerator, load_system
from cmsim.kernels import (
    Found,
    Machine,
    Residual,
    fit_residual,
    kernel_data,
    kernel_machine,
    write_residuals,
)
from cmsim.kernels.kinds import KINDS
from cmsim.kernels.kinds.kind import KernelKind, KernelRows, from_zero
from cmsim.kernels.times import Timed, times_us

if TYPE_CHECKING:
    import pandas as pd


def predict_kernels(frame: pd.DataFrame, kind: str, *, file: str = "", system: str | None = None) -> Floats:
    """Predicted time of every row. [us]

    system: accelerator (or system) of every row, instead of the table's column

    Warns (CmsimWarning) of constants that are a relative's or another format's, and of rows outside the measured range.
    InputError: as `kernel_times`.
    """
    us, notes = kernel_times(frame, kind, file=file, system=system)
    tell(notes)
    return us


def kernel_times(frame: pd.DataFrame, kind: str, *, file: str = "", system: str | None = None) -> Timed:
    """Predicted time of every row, arguments as of `predict_kernels`; and what is to be said of where it comes from.

    InputError: columns are absent; not a number, zero or negative; an unknown accelerator: each with column and row.
    """
    one = KINDS[kind]
    folded = _distinct(frame, one, system)
    first = np.arange(len(frame)) if folded is None else folded[0]
    part = frame
    if folded is not None:
        wanted = {"system", *one.numbers, *one.texts, *one.optional, *one.defaults}
        part = frame[[name for name in frame.columns if name in wanted]].iloc[first].reset_index(drop=True)
    rows, where = kernel_rows(part, one, file, system, first)
    out = np.empty(len(first))
    notes: list[str] = []
    names, code = where
    for number in np.unique(code).tolist():
        here = np.flatnonzero(code == number)
        spec = accelerator_of(names[number], file=file, row=int(first[here[0]]))
        data = kernel_data(spec, kind)
        out[here], said = times_us(one, rows.take(here), spec, data, file=file, row=first[here])
        notes += said
    return Timed(out if folded is None else out[folded[1]], tuple(notes))


def accelerator_of(name: str, *, file: str = "", row: int = 0) -> AcceleratorSpec:
    """An accelerator by its name or alias, or a system's.

    InputError: neither is known; the nearest names are said.
    """
    try:
        return load_accelerator(name)
    except InputError as unknown:
        try:
            return load_system(name).accelerator
        except InputError:
            message = "\n".join(one.message for one in unknown.problems)
            raise InputError(Problem(message, file, key=f"row {row}: system")) from None


def _distinct(frame: pd.DataFrame, kind: KernelKind, system: str | None) -> tuple[Ints, Ints] | None:
    """Positions of the first of equal rows, and for every row which of them it is; None where most differ."""
    import pandas as pd

    own = [*kind.numbers, *kind.texts, *kind.optional, *kind.defaults, *([] if system else ["system"])]
    key = np.zeros(len(frame), dtype=np.uint64)
    codes: list[NDArray[Any]] = []
    for name in own:
        if name not in frame.columns:
            continue
        column = frame[name]
        whole = isinstance(column.dtype, np.dtype) and column.dtype.kind in "iu"
        code = column.to_numpy() if whole else pd.factorize(column, use_na_sentinel=False)[0]
        codes.append(code)
        # an odd multiplier spreads the columns over 64 bits; that equal keys are equal rows is checked below
        key = (key ^ code.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    few = key[::50]
    if len(few) > 1000 and len(np.unique(few)) == len(few):
        return None
    back, different = pd.factorize(key)
    if 2 * len(different) > len(frame):
        return None
    first = np.empty(len(different), dtype=np.int64)
    first[back[::-1]] = np.arange(len(frame) - 1, -1, -1)
    if any((code != code[first][back]).any() for code in codes):
        return None
    return first, back.astype(np.int64)


def kernel_rows(
    frame: pd.DataFrame, kind: KernelKind, file: str, system: str | None, row: Ints
) -> tuple[KernelRows, tuple[tuple[str, ...], Ints]]:
    """The columns of a table, checked, and the system of every row.

    row: what errors call each row of the frame
    """
    have = [str(name) for name in frame.columns]
    missing = [name for name in (*([] if system else ["system"]), *kind.numbers, *kind.texts) if name not in have]
    if missing:
        raise InputError(
            Problem(f"no such column. {did_you_mean(name, have, limit=20)}", file, key=name) for name in missing
        )
    problems: list[Problem] = []
    numbers = {
        name: tables.numbers(
            frame,
            name,
            file,
            problems,
            rule="a whole number" + ("" if name in kind.zero else " above 0"),
            good=from_zero if name in kind.zero else tables.whole,
            row=row,
        )
        for name in (*kind.numbers, *(name for name in kind.defaults if name in have))
    }
    count = len(frame)
    numbers.update({name: np.full(count, value) for name, value in kind.defaults.items() if name not in have})
    texts = {name: tables.codes(frame[name]) for name in kind.texts}
    for name, (names, code) in texts.items():
        for empty in np.flatnonzero(np.isin(code, [i for i, one in enumerate(names) if not one]))[:1].tolist():
            problems.append(Problem("must not be empty", file, key=f"row {row[empty]}: {name}"))
    for name, default in kind.optional.items():
        texts[name] = tables.codes(frame[name]) if name in have else tables.one_name(default, count)
    where = tables.one_name(system, count) if system else tables.codes(frame["system"])
    rows = KernelRows(numbers, texts)
    if not problems:
        for column, rule, good in kind.rules:
            for bad in np.flatnonzero(~good(rows))[:5].tolist():
                got = rows.texts[column][0][rows.texts[column][1][bad]] if column in rows.texts else rows[column][bad]
                shown = f"{got:g}" if isinstance(got, float) else f"'{got}'"
                problems.append(Problem(f"must be {rule}, got {shown}", file, key=f"row {row[bad]}: {column}"))
    if problems:
        raise InputError(problems)
    return rows, where


def kind_of(frame: pd.DataFrame) -> str | None:
    """The kind of a table, by its columns; None where it is no table of kernels.

    InputError: what a prediction raises, where kinds share columns.
    """
    have = set(map(str, frame.columns))
    found = [one for one in KINDS.values() if set(one.known) <= have]
    if len(found) > 1:
        few = frame.head(1000).reset_index(drop=True)
        place = np.arange(len(few))
        found = [one for one in found if one.is_one(kernel_rows(few, one, "", "any", place)[0])]
    return found[0].name if found else None


@dataclass(frozen=True)
class KernelConstants:
    """Constants and residuals by variant."""

    constants: Mapping[str, Mapping[str, float]]
    residuals: Mapping[str, Residual]
    seen: Mapping[str, Mapping[str, tuple[float, float]]]


def fit_kernels(
    kind: KernelKind,
    rows: KernelRows,
    time_us: Floats,
    machine: Machine,
    *,
    start: Mapping[str, Mapping[str, float]] | None = None,
    residual: bool = True,
) -> KernelConstants:
    """Constants of every variant in the rows, then the residual of each.

    start: constants by variant to start from, instead of the kind's own    residual: whether to fit one
    """
    names, code = kind.variants(rows)
    constants: dict[str, Mapping[str, float]] = {}
    residuals: dict[str, Residual] = {}
    seen: dict[str, Mapping[str, tuple[float, float]]] = {}
    # most rows first: the first of a format is what an unknown kernel takes
    for number in np.argsort(-np.bincount(code, minlength=len(names)), kind="stable").tolist():
        here = np.flatnonzero(code == number)
        if len(here) < FEWEST:
            continue
        name, part, wanted = names[number], rows.take(here), time_us[here]

        def model(c: Mapping[str, float], part: KernelRows = part, name: str = name) -> Floats:
            return kind.time_us(part, machine, name, c)

        begins = (start[name],) if start and name in start else kind.starts(name)
        tried = [
            least.fit(
                [least.Part(name, wanted, model, np.ones(len(here)))], begin, width=kind.width, shares=kind.shares
            )[0][name]
            for begin in begins
        ]
        found = min(tried, key=lambda c: float(np.mean(np.abs(np.log(model(c) / wanted)))))
        constants[name] = {key: float(f"{value:.5g}") for key, value in found.items()}
        axes = kind.all_axes(part, machine)
        seen[name] = {key: (float(values.min()), float(values.max())) for key, values in axes.items()}
        if residual:
            ratio = np.log2(wanted / model(constants[name]))
            residuals[name] = fit_residual(axes, ratio, kind.terms, smooth=kind.smooth, small=kind.small)
    return KernelConstants(constants, residuals, seen)


def held_out_us(
    kind: KernelKind, rows: KernelRows, time_us: Floats, spec: AcceleratorSpec, fold: Ints, *, residual: bool = True
) -> Floats:
    """Every row as a fit without the rows of its fold has it; not a number where nothing was left to fit. [us]"""
    machine = kernel_machine(spec)
    out = np.full(len(fold), np.nan)
    for number in np.unique(fold).tolist():
        here = fold == number
        found = fit_kernels(kind, rows.take(~here), time_us[~here], machine, residual=residual)
        if found.constants:
            out[here] = times_us(kind, rows.take(here), spec, as_found(spec.name, found)).us
    return out


def as_found(accelerator: str, fitted: KernelConstants) -> Found:
    """A fit as data that predictions take."""
    from cmsim.kernels import Variant

    variants = {
        name: Variant(constants=constants, seen=fitted.seen[name]) for name, constants in fitted.constants.items()
    }
    return Found(accelerator, accelerator, variants, fitted.residuals)


def configurations(rows: KernelRows) -> Ints:
    """A number for each different row: repeats are one."""
    key = np.stack([*rows.numbers.values(), *(code for _, code in rows.texts.values())], axis=1)
    found: Ints = np.unique(key, axis=0, return_inverse=True)[1].reshape(-1)
    return found


@dataclass(frozen=True)
class KernelsFit:
    """What ``calibrate`` found for one kind on one accelerator.

    rows, configurations: how many    fitted_pct, held_out_pct: median and 90th percentile of absolute errors [%]
    by_variant: rows, median and 90th percentile of the rows held out, of each variant [%]
    host: kind of host that the accelerator sits beside    held_us: every row of the accelerator, in the order of the
    table, as a fit without its fold has it; not a number where left out, as faster than its bytes or FLOPs allow
    """

    accelerator: str
    kind: str
    host: str | None
    found: KernelConstants
    rows: int
    configurations: int
    fitted_pct: tuple[float, float]
    held_out_pct: tuple[float, float]
    by_variant: Mapping[str, tuple[int, float, float]]
    source: str
    held_us: Floats

    def text(self) -> str:
        """As YAML, in the form of ``topologies/kernels``."""
        data = {
            "accelerator": self.accelerator,
            "kind": self.kind,
            **({"host_kind": self.host} if self.host else {}),
            "description": f"{self.kind} kernels of {self.accelerator}, fitted",
            "variants": {
                name: {
                    **_parts(KINDS[self.kind], constants),
                    "seen": {key: [float(f"{v:.6g}") for v in pair] for key, pair in self.found.seen[name].items()},
                }
                for name, constants in self.found.constants.items()
            },
            "fits": {
                name: {
                    "what": f"constants and residual of {name}",
                    "rows": f"{self.source}, {self.accelerator}",
                    "count": count,
                    "median_pct": round(median, 2),
                    "p90_pct": round(tail, 2),
                    "held_out": HOW,
                }
                for name, (count, median, tail) in self.by_variant.items()
            },
            "sources": {"variants": f"fitted to {self.source}, see fits{self._left_out()}"},
        }
        return yaml.safe_dump(data, sort_keys=False, width=110, default_flow_style=None)

    def _left_out(self) -> str:
        out = int(np.isnan(self.held_us).sum())
        return f"; left out {out} rows that are faster than their bytes or FLOPs at the peaks" if out else ""

    def residual_text(self) -> str:
        """As CSV, to stand beside the YAML file under the same name."""
        return write_residuals(self.found.residuals)

    def write(self, out: Path) -> None:
        """Both files."""
        reading.write_text(out, self.text())
        if self.found.residuals:
            reading.write_text(out.with_suffix(".csv"), self.residual_text())


def _parts(kind: KernelKind, constants: Mapping[str, float]) -> dict[str, dict[str, float]]:
    device, host = kind.parted(constants)
    return {"constants": device, **({"host": host} if host else {})}


def possible(kind: KernelKind, rows: KernelRows, time_us: Floats, machine: Machine) -> NDArray[np.bool_]:
    """Which rows take as long as their FLOPs and bytes at the peaks; of others a label is wrong, or a cache had all."""
    names, code = kind.variants(rows)
    out = np.ones(len(time_us), dtype=bool)
    for number, name in enumerate(names):
        here = np.flatnonzero(code == number)
        out[here] = time_us[here] >= kind.least_us(rows.take(here), machine, name)
    return out


def calibrate_kernels(frame: pd.DataFrame, kind: str, *, file: str, accelerator: str) -> KernelsFit:
    """Constants and residuals of one accelerator's kernels from measured rows.

    Rows of other accelerators are left out, and with a warning those that are faster than the accelerator can be.

    InputError: what a prediction raises; no measured time; fewer than eight rows of the accelerator.
    """
    one = KINDS[kind]
    spec = accelerator_of(accelerator, file=file)
    if "system" in frame.columns:
        same = {name: _is(str(name), spec) for name in frame["system"].unique()}
        frame = frame[frame["system"].map(same).astype(bool)].reset_index(drop=True)
    name = next((name for name in ("latency_us", "time_us") if name in frame.columns), None)
    if name is None:
        raise InputError(Problem("no such column", file, key="latency_us"))
    if len(frame) < FEWEST:
        raise InputError(Problem(f"{len(frame)} rows of {accelerator}; at least {FEWEST} are needed", file))
    rows, _ = kernel_rows(frame, one, file, spec.name, np.arange(len(frame)))
    problems: list[Problem] = []
    time = tables.numbers(frame, name, file, problems, rule="above 0", good=lambda v: v > 0)
    if problems:
        raise InputError(problems)
    good = possible(one, rows, time, kernel_machine(spec))
    if not good.all():
        rows, time = rows.take(good), time[good]
        tell([f"{int((~good).sum())} rows of {spec.name} take less time than its peaks allow; left out"])
    if len(time) < FEWEST:
        raise InputError(Problem(f"{len(time)} rows of {accelerator} that can be; at least {FEWEST} are needed", file))
    configuration = configurations(rows)
    held = held_out_us(one, rows, time, spec, folds_of(configuration, file=file))
    held_us = np.full(len(good), np.nan)
    held_us[good] = held
    found = fit_kernels(one, rows, time, kernel_machine(spec))
    ours = times_us(one, rows, spec, as_found(spec.name, found)).us
    names, code = one.variants(rows)
    for number, name in enumerate(names):
        if name in found.constants and not np.isfinite(held[code == number]).any():
            message = f"{name}: the {int((code == number).sum())} rows are too few to fit without those held out"
            raise InputError(Problem(message, file))
    return KernelsFit(
        accelerator=spec.name,
        kind=kind,
        host=spec.host_kind,
        found=found,
        rows=len(time),
        configurations=len(np.unique(configuration)),
        fitted_pct=errors_pct(ours, time),
        held_out_pct=errors_pct(held, time),
        by_variant={
            name: (int((code == number).sum()), *errors_pct(held[code == number], time[code == number]))
            for number, name in enumerate(names)
            if name in found.constants
        },
        source=Path(file).name,
        held_us=held_us,
    )


def _is(name: str, spec: AcceleratorSpec) -> bool:
    try:
        return accelerator_of(name).name == spec.name
    except InputError:
        return False
