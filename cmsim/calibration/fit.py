"""``calibrate``: constants of one accelerator's link class from measured rows, with the fit's own error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from cmsim import libraries, reading
from cmsim.arrays import Floats
from cmsim.calibration import kernels, least, tables
from cmsim.calibration.expert_fit import ExpertFit, calibrate_expert
from cmsim.calibration.held_out import FEWEST, HOW, errors_pct, folds_of
from cmsim.calibration.kernels import KernelsFit, calibrate_kernels
from cmsim.calibration.places import place, unmeasured
from cmsim.calibration.tables import Calls
from cmsim.errors import InputError, Problem, did_you_mean, tell
from cmsim.libraries import Place, time_us

#: how far constants may go from where they start, in the logarithm; 1 where nothing is said
INSIDE_WIDTH: dict[str, float] = {
    "own_block": 0.4,
    "simple_rate": 0.3,
    "simple_power": 0.5,
    "step_power": 0.2,
    "sharp": 0.5,
    "simple_bias": 0.15,
    "ll128_bias": 0.3,
    "nvls_crowd": 0.3,
}
MESH_WIDTH: dict[str, float] = {"switch_B": 0.1, "rate": 0.03, "add_rate": 0.2}
#: names of measured times in tables [us]
_TIMES = ("latency_us", "time_us")


@dataclass(frozen=True)
class Fit:
    """What ``calibrate`` found.

    accelerator: of the rows    kind: "ring" or "mesh"    constants: by name    rows, configurations: how many
    fitted, held_out: median and 90th percentile of absolute errors, of rows fitted and of rows held out [%]
    ranks, size_B: the range that was covered; outside it the model extrapolates
    """

    accelerator: str
    kind: str
    constants: Mapping[str, float]
    rows: int
    configurations: int
    fitted_pct: tuple[float, float]
    held_out_pct: tuple[float, float]
    ranks: tuple[int, int]
    size_B: tuple[float, float]
    source: str

    def text(self) -> str:
        """As YAML, in the form of ``topologies/libraries``."""
        data = {
            "accelerators": [self.accelerator],
            "constants": {name: float(f"{value:.5g}") for name, value in self.constants.items()},
            "fits": {
                self.kind: {
                    "what": f"constants inside a domain of {self.accelerator}",
                    "rows": f"{self.source}: {self.rows} rows, {self.configurations} configurations, "
                    f"{self.ranks[0]} to {self.ranks[1]} ranks, {self.size_B[0]:g} to {self.size_B[1]:g} B",
                    "count": self.rows,
                    "median_pct": round(self.held_out_pct[0], 2),
                    "p90_pct": round(self.held_out_pct[1], 2),
                    "held_out": HOW,
                }
            },
        }
        return yaml.safe_dump(data, sort_keys=False, width=110)


def calibrate(
    table: str | Path,
    *,
    accelerator: str,
    out: str | Path | None = None,
    collective: str | None = None,
    n_ranks: int | None = None,
) -> Fit | ExpertFit | KernelsFit:
    """Fit the constants of one accelerator to measured rows: of its collective library, or of its kernels.

    Parameters
    ----------
    table
        A table that ``predict`` takes, with ``latency_us`` or ``time_us`` (of pairs: ``dispatch_us``, ``combine_us``)
        [us]; or a log of nccl-tests, rccl-tests or hccl_test. Rows of other systems are left out, and of collectives
        those beyond one domain as well.
    accelerator
        A name that ``predict`` knows.
    out
        A file to write (YAML).
    collective
        Of a log that does not say it.
    n_ranks
        Of a log that does not say them.

    Returns
    -------
    Fit, ExpertFit or KernelsFit
        Constants, and errors on rows fitted and held out.

    Raises
    ------
    InputError
        What ``predict`` raises; no measured time; fewer than eight rows that can be used.
    """
    frame = tables.read(table, collective=collective, n_ranks=n_ranks)
    file = str(table)
    if (kind := kernels.kind_of(frame)) is not None:
        fitted_kernels = calibrate_kernels(frame, kind, file=file, accelerator=accelerator)
        if out is not None:
            fitted_kernels.write(Path(out))
        return fitted_kernels
    if {"kernel_source", "mode"} & set(map(str, frame.columns)):
        experts = calibrate_expert(frame, file=file, accelerator=accelerator)
        if out is not None:
            reading.write_text(Path(out), experts.text())
        return experts
    time_name = next((name for name in _TIMES if name in frame.columns), None)
    if time_name is None:
        raise InputError(
            Problem(f"no such column. {did_you_mean('latency_us', map(str, frame.columns))}", file, key=_TIMES[0])
        )
    if "kernel" in frame.columns and "collective" not in frame.columns:
        raise InputError(Problem("rows of serving engines' kernels; a library's rows are needed", file, key="kernel"))
    at = place(accelerator)
    tell(unmeasured([at]))
    if "system" in frame.columns:
        same = {name: _same(str(name), at) for name in frame["system"].unique()}
        frame = frame[frame["system"].map(same).astype(bool)]
    frame = frame.reset_index(drop=True)
    calls = tables.calls(frame, file=file, system=accelerator)
    problems: list[Problem] = []
    time = tables.numbers(frame, time_name, file, problems, rule="above 0", good=lambda v: v > 0)
    if problems:
        raise InputError(problems)
    inside = calls.ranks <= at.domain_ranks
    calls, time = take(calls, inside), time[inside]
    if len(time) < FEWEST:
        message = f"{len(time)} rows of {accelerator} inside a domain; at least {FEWEST} are needed"
        raise InputError(Problem(message, file))
    start = dict(at.constants)
    width, kind = (MESH_WIDTH, "mesh") if at.mesh else (INSIDE_WIDTH, "ring")

    def fitted(rows: NDArray[np.bool_]) -> dict[str, float]:
        part = part_of(at, take(calls, rows), time[rows])
        found, _ = least.fit([part], start, width=width, apart=0.7)
        return found[part.name]

    every = np.ones(len(time), dtype=bool)
    constants = fitted(every)
    folds = folds_of(configurations(calls), file=file)
    held = np.empty(len(time))
    for fold in np.unique(folds).tolist():
        held[folds == fold] = model(at, take(calls, folds == fold))(fitted(folds != fold))
    done = Fit(
        accelerator=accelerator,
        kind=kind,
        constants=constants,
        rows=len(time),
        configurations=len(np.unique(configurations(calls))),
        fitted_pct=errors_pct(model(at, calls)(constants), time),
        held_out_pct=errors_pct(held, time),
        ranks=(int(calls.ranks.min()), int(calls.ranks.max())),
        size_B=(float(calls.size_B.min()), float(calls.size_B.max())),
        source=Path(file).name,
    )
    if out is not None:
        reading.write_text(Path(out), done.text())
    return done


def _same(name: str, at: Place) -> bool:
    try:
        return place(name).name == at.name
    except InputError:
        return False


def take(calls: Calls, rows: Any) -> Calls:
    """Some rows of a table."""

    def text(column: tuple[tuple[str, ...], NDArray[np.int64]]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
        return column[0], column[1][rows]

    return Calls(
        system=text(calls.system),
        accelerator=text(calls.accelerator),
        collective=text(calls.collective),
        kernel=text(calls.kernel),
        ranks=calls.ranks[rows],
        per_node=calls.per_node[rows],
        size_B=calls.size_B[rows],
        narrow=calls.narrow[rows],
    )


def configurations(calls: Calls) -> NDArray[np.int64]:
    """A number for each system, collective, rank count and size: repeats and other widths of elements are one."""
    key = np.stack([calls.system[1], calls.collective[1], calls.ranks, calls.size_B], axis=1)
    found: NDArray[np.int64] = np.unique(key, axis=0, return_inverse=True)[1].reshape(-1)
    return found


def model(at: Place, calls: Calls) -> Callable[[Mapping[str, float]], Floats]:
    """The rows' times as a function of the constants inside a domain."""
    names, code = calls.collective
    groups = [(names[i], np.flatnonzero(code == i)) for i in range(len(names)) if np.any(code == i)]

    def times(constants: Mapping[str, float]) -> Floats:
        out = np.empty(len(calls.ranks))
        for name, rows in groups:
            ranks, size_B, narrow = calls.ranks[rows], calls.size_B[rows], calls.narrow[rows]
            if at.mesh:
                out[rows] = libraries.mesh_us(
                    constants, collective=name, ranks=ranks, size_B=size_B, port_Bps=at.domain.port_Bps
                )
            elif name in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
                out[rows] = libraries.inside_us(
                    constants, at.domain, collective=name, ranks=ranks, size_B=size_B, narrow=narrow
                )
            else:
                out[rows] = time_us(at, collective=name, ranks=ranks, size_B=size_B, narrow=narrow)
        return out

    return times


def part_of(at: Place, calls: Calls, time_us: Floats) -> least.Part:
    """The rows as a part of a fit."""
    return least.Part(at.name, time_us, model(at, calls), np.ones(len(time_us)))
