"""Fitting the kernels of dispatch and combine: constants from measured rows, and times of rows held out of the fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.calibration import least, tables
from cmsim.calibration.expert import (
    ExpertCalls,
    ExpertGroup,
    alltoall_calls,
    exchange,
    groups,
    pair_calls,
    pair_operations,
)
from cmsim.calibration.held_out import FEWEST, HOW, errors_pct, folds_of
from cmsim.errors import InputError, Problem
from cmsim.hardware import load_system
from cmsim.libraries.experts import EXPERT_DEFAULTS, Exchange, expert_library

if TYPE_CHECKING:
    import pandas as pd

#: how far constants may go from where they start, in the logarithm; 1 where nothing is said
WIDTH: dict[str, float] = {
    "near_rate": 0.2,
    "far_rate": 0.2,
    "rate": 0.3,
    "sharp": 0.5,
    "core_power": 0.2,
    "crowd_tokens": 4.0,
}
#: by page. bulk: published, and rows say little of it; fused: a share of the cores' rate as much as of the port's
_WIDTH_OF = {"bulk": {"near_rate": 1e-3}, "fused": {"rate": 1.0}}


@dataclass(frozen=True)
class MeasuredPart:
    """Rows of a table that one set of constants prices.

    name: profile, operation, "between" or not    class_: class of accelerators    rows: positions in the table
    """

    name: str
    class_: str
    group: ExpertGroup
    at: Exchange
    time_us: Floats
    rows: Ints


@dataclass(frozen=True)
class Constants:
    """Of one operation: by class of accelerators, and common."""

    common: Mapping[str, float]
    classes: Mapping[str, Mapping[str, float]]

    def of(self, class_: str) -> Mapping[str, float]:
        """Those of a class, or the common ones where it had no rows."""
        return self.classes.get(class_, self.common)


def measured(calls: ExpertCalls, time_us: Floats, *, file: str = "") -> list[MeasuredPart]:
    """The rows by what prices them.

    InputError: what a prediction raises.
    """
    library = expert_library()
    return [
        MeasuredPart(
            name=group.name,
            class_=library.class_of(group.system.accelerator.name),
            group=group,
            at=exchange(calls, group, group.rows),
            time_us=time_us[group.rows],
            rows=group.rows,
        )
        for group in groups(calls, file=file)
    ]


def fit_constants(
    parts: Sequence[MeasuredPart], keep: NDArray[np.bool_], *, shipped: bool = False, apart: float = 0.5
) -> dict[str, Constants]:
    """Constants of every operation, fitted to the rows where ``keep``.

    shipped: constants start from, and are pulled to, the shipped values instead of the pages' own
    """
    out: dict[str, Constants] = {}
    for name in dict.fromkeys(part.name for part in parts):
        own = [part for part in parts if part.name == name]
        form = own[0].group.profile.form
        names = own[0].group.operation.common
        start = {key: names[key] if shipped else EXPERT_DEFAULTS[form][key] for key in names}
        width = {**WIDTH, **_WIDTH_OF.get(form, {})}
        by_class: dict[str, list[MeasuredPart]] = {}
        for part in own:
            if keep[part.rows].any():
                by_class.setdefault(part.class_, []).append(part)
        fits = [_part(class_, members, keep) for class_, members in by_class.items()]
        classes, common = least.fit(fits, start, width=width, apart=apart) if fits else ({}, dict(start))
        out[name] = Constants(common, classes)
    return out


def _part(name: str, members: Sequence[MeasuredPart], keep: NDArray[np.bool_]) -> least.Part:
    """Rows of one class as a part of a fit."""
    kept = [(one.group, one.at.take(keep[one.rows]), one.time_us[keep[one.rows]]) for one in members]

    def times(constants: Mapping[str, float]) -> Floats:
        return np.concatenate([group.us(at, constants) for group, at, _ in kept])

    time = np.concatenate([time for _, _, time in kept])
    return least.Part(name, time, times, np.ones(len(time)))


def held_out_us(parts: Sequence[MeasuredPart], fold: Ints, *, shipped: bool = False) -> Floats:
    """Every row as a fit without the rows of its fold has it. [us]

    fold: a number for each row of the table    shipped: as ``fit_constants``
    """
    out = np.empty(len(fold))
    for number in np.unique(fold).tolist():
        found = fit_constants(parts, fold != number, shipped=shipped)
        for part in parts:
            here = fold[part.rows] == number
            if here.any():
                out[part.rows[here]] = part.group.us(part.at.take(here), found[part.name].of(part.class_))
    return out


def configurations(calls: ExpertCalls) -> Ints:
    """A number for each system, kernel, format, size and number of cores: repeats are one."""
    columns = [names[1] for names in (calls.system, calls.kernel, calls.operation, calls.form, calls.skew)]
    numbers = [calls.ranks, calls.nodes, calls.tokens, calls.hidden, calls.top_k, calls.experts, calls.sms]
    key = np.stack([*columns, *numbers], axis=1)
    found: Ints = np.unique(key, axis=0, return_inverse=True)[1].reshape(-1)
    return found


@dataclass(frozen=True)
class ExpertFit:
    """What ``calibrate`` found.

    operations: constants by profile and operation    rows, configurations: how many
    fitted_pct, held_out_pct: median and 90th percentile of absolute errors, of rows fitted and of rows held out [%]
    """

    accelerator: str
    operations: Mapping[str, Mapping[str, float]]
    rows: int
    configurations: int
    fitted_pct: tuple[float, float]
    held_out_pct: tuple[float, float]
    source: str

    def text(self) -> str:
        """As YAML, in the form of ``topologies/libraries``: constants of a class, operation by operation."""
        data = {
            "accelerators": [self.accelerator],
            "operations": {
                name: {key: float(f"{value:.5g}") for key, value in constants.items()}
                for name, constants in self.operations.items()
            },
            "fits": {
                "expert": {
                    "what": f"dispatch and combine of {self.accelerator}",
                    "rows": f"{self.source}: {self.rows} times, {self.configurations} configurations",
                    "count": self.rows,
                    "median_pct": round(self.held_out_pct[0], 2),
                    "p90_pct": round(self.held_out_pct[1], 2),
                    "held_out": HOW,
                }
            },
        }
        return yaml.safe_dump(data, sort_keys=False, width=110)


def calibrate_expert(frame: pd.DataFrame, *, file: str, accelerator: str) -> ExpertFit:
    """Constants of one accelerator's kernels from measured rows of either table.

    InputError: what a prediction raises; no measured time; fewer than eight rows of the accelerator.
    """
    wanted = load_system(accelerator).accelerator.name
    if "system" in frame.columns:
        same = {name: _accelerator(str(name)) == wanted for name in frame["system"].unique()}
        frame = frame[frame["system"].map(same).astype(bool)].reset_index(drop=True)
    problems: list[Problem] = []
    if "mode" in frame.columns:
        operations = pair_operations(tuple(map(str, frame.columns)))
        tables_ = [
            (pair_calls(frame, file=file, operation=name, system=accelerator), f"{name}_us") for name in operations
        ]
    else:
        tables_ = [(alltoall_calls(frame, file=file, system=accelerator), "latency_us")]
    fitted: list[Floats] = []
    held: list[Floats] = []
    count, different = 0, 0
    found: dict[str, Mapping[str, float]] = {}
    for calls, column in tables_:
        if column not in frame.columns:
            raise InputError(Problem("no such column", file, key=column))
        time = tables.numbers(frame, column, file, problems, rule="above 0", good=lambda v: v > 0)
        if problems:
            raise InputError(problems)
        if len(time) < FEWEST:
            raise InputError(Problem(f"{len(time)} rows of {accelerator}; at least {FEWEST} are needed", file))
        parts = measured(calls, time, file=file)
        constants = fit_constants(parts, np.ones(len(time), dtype=bool), shipped=True)
        configuration = configurations(calls)
        held.append(held_out_us(parts, folds_of(configuration, file=file), shipped=True) / time)
        ours = np.empty(len(time))
        for part in parts:
            found[part.name] = constants[part.name].of(part.class_)
            ours[part.rows] = part.group.us(part.at, found[part.name])
        fitted.append(ours / time)
        count += len(time)
        different += len(np.unique(configuration))
    return ExpertFit(
        accelerator=accelerator,
        operations=found,
        rows=count,
        configurations=different,
        fitted_pct=errors_pct(np.concatenate(fitted), np.ones(count)),
        held_out_pct=errors_pct(np.concatenate(held), np.ones(count)),
        source=Path(file).name,
    )


def _accelerator(name: str) -> str:
    try:
        return load_system(name).accelerator.name
    except InputError:
        return ""
