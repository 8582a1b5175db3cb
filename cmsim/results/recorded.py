"""A replay beside its recording: where the time went, by class of op."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cmsim.units import PS_PER_S

if TYPE_CHECKING:
    from cmsim.kinds.trace import TraceFacts

#: class of op: kinds of rows in it
CLASSES = {"compute": ("compute",), "host": ("host",), "collective": ("collective",), "send_recv": ("send", "recv")}
_TALKS = ("collective", "send", "recv")
#: communicators that get a line of their own, at most
_GROUPS = 12

Row = dict[str, float]


def beside_recorded(
    facts: TraceFacts, ops: Mapping[str, NDArray[Any]], *, makespan_s: float, exposed_comm_s: float
) -> dict[str, Row]:
    """Recorded and simulated time by class, mean over ranks; only what was recorded has ``recorded_s``. [s]

    facts  of a trace: recorded times    ops: columns of `cmsim.engine.record.ops_columns`

    step: the whole. compute, host, collective, send_recv: ops of the class added up, communication with its waits.
    exposed_comm: communication while nothing computes; of each communicator (``exposed_comm NAME``) what those before
    it do not cover. idle: neither computes nor communicates.
    """
    ranks = _ranks(ops)
    length_s = (ops["end_ps"] - ops["start_ps"]) / PS_PER_S * ops["multiplicity"]
    out: dict[str, Row] = {"step": _row(facts.recorded_s, makespan_s)}
    for name, kinds in CLASSES.items():
        of = np.isin(ops["kind"], kinds)
        recorded_s = facts.recorded_class_s.get(name)
        if of.any() or recorded_s is not None:
            out[name] = _row(recorded_s, float(length_s[of].sum()) / ranks)
    out["exposed_comm"] = {"simulated_s": exposed_comm_s}
    computes = ops["kind"] == "compute"
    covered, before_s = computes, _covered_s(ops, computes)
    named = dict.fromkeys(ops["group"][np.isin(ops["kind"], _TALKS)].tolist())
    for group in named if 1 < len(named) <= _GROUPS else ():
        covered = covered | (ops["group"] == group)
        now_s = _covered_s(ops, covered)
        out[f"exposed_comm {group}"] = {"simulated_s": (now_s - before_s) / ranks}
        before_s = now_s
    device_s = _covered_s(ops, ops["kind"] != "host") / ranks
    # below a picosecond it is rounding
    idle_s = round(makespan_s - device_s, 12)
    out["idle"] = {"simulated_s": idle_s if idle_s > 0 else 0.0}
    return out


def _row(recorded_s: float | None, simulated_s: float) -> Row:
    return ({} if recorded_s is None else {"recorded_s": recorded_s}) | {"simulated_s": simulated_s}


def _ranks(ops: Mapping[str, NDArray[Any]]) -> int:
    _, first = np.unique(ops["rank_class"], return_index=True)
    return int(ops["multiplicity"][first].sum())


def _covered_s(ops: Mapping[str, NDArray[Any]], rows: NDArray[np.bool_]) -> float:
    """Time in which any of the rows runs on a rank, added up over ranks. [s]"""
    start, end, of = ops["start_ps"][rows], ops["end_ps"][rows], ops["rank_class"][rows]
    if not len(start):
        return 0.0
    order = np.lexsort((start, of))
    start, end, of, times = start[order], end[order], of[order], ops["multiplicity"][rows][order]
    # classes one after the other on one axis, so that one running maximum serves all
    shift = of.astype(np.int64) * (int(end.max()) + 1)
    start, end = start + shift, end + shift
    covered = np.concatenate([[-1], np.maximum.accumulate(end)[:-1]])
    return float((np.maximum(end - np.maximum(start, covered), 0) * times).sum()) / PS_PER_S
