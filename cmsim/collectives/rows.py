"""The columns that go into the chooser, and their checks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.collectives.terms import COLLECTIVES, Column
from cmsim.errors import InputError, Problem, did_you_mean

_SHOWN = 8  # problems of one column that are listed before the rest are counted


@dataclass(frozen=True)
class Rows:
    """Collective calls, one a row; columns of equal length.

    collective: position in COLLECTIVES    size_B: S, as the collective counts it [B]    ranks: size p of the group [1]
    in_node, in_domain, in_leaf: members of the group in one node, in one domain, under one leaf switch of the
    scale-out network; neighbours in the group, in_node <= in_domain <= in_leaf <= ranks [1]
    """

    collective: NDArray[Any]
    size_B: NDArray[Any]
    ranks: NDArray[Any]
    in_node: NDArray[Any]
    in_domain: NDArray[Any]
    in_leaf: NDArray[Any]

    def __len__(self) -> int:
        return len(self.collective)

    def row(self, index: int) -> Rows:
        """One row, as columns of length one."""
        return Rows(*(np.asarray(getattr(self, f.name))[index : index + 1] for f in fields(self)))


@dataclass(frozen=True, kw_only=True)
class Link:
    """What joins the ranks; numbers, or columns as long as the rows.

    node_s, domain_s, cluster_s: latency of a step whose farthest peers meet in the node, domain, cluster [s]
    port_Bps: one direction of one rank's port [B/s]    uplink_Bps: one direction of one node's uplink [B/s]
    nic_Bps: one direction of one rank's share of NICs [B/s]    leaf_Bps: one direction of one leaf's uplinks [B/s]
    base_s: fixed time of a call [s]    step_s: software time added to each step [s]
    port_efficiency, nic_efficiency: payload per byte that the hardware rate counts, above 0, at most 1 [1]
    gamma_s_per_B: cost of adding a byte; 0 where libraries hide it behind the transfer [s/B]
    in_network: whether the domain's switches add and multicast
    grid: where a port is many links that lead different ways, the grid that they make (``on_grid.Grid``); else None
    """

    node_s: Column
    domain_s: Column
    cluster_s: Column
    port_Bps: Column
    nic_Bps: Column
    uplink_Bps: Column = np.inf
    leaf_Bps: Column = np.inf
    base_s: Column = 0.0
    step_s: Column = 0.0
    port_efficiency: Column = 1.0
    nic_efficiency: Column = 1.0
    gamma_s_per_B: Column = 0.0
    in_network: Column = False
    grid: Any = None


def collective_code(name: str) -> int:
    """Position of a collective in COLLECTIVES.

    >>> collective_code("all_gather")
    1
    """
    if name not in COLLECTIVES:
        raise InputError(f"unknown collective {name!r}. {did_you_mean(name, COLLECTIVES)}")
    return COLLECTIVES.index(name)


def checked(rows: Rows, link: Link) -> tuple[Rows, Link]:
    """Rows and link as arrays of the right types; InputError names the rows and columns that cannot be."""
    columns = {f.name: np.asarray(getattr(rows, f.name)) for f in fields(rows)}
    lengths = {name: column.shape for name, column in columns.items()}
    if len(set(lengths.values())) != 1 or len(lengths["collective"]) != 1:
        raise InputError(f"rows: columns must be one-dimensional and of equal length, got {lengths}.")
    problems: list[Problem] = []
    code, size = columns["collective"], columns["size_B"]
    known = (code >= 0) & (code < len(COLLECTIVES))
    _check(problems, "collective", code, known, f"must be 0 to {len(COLLECTIVES) - 1}")
    finite = np.isfinite(size)
    has_bytes = (size > 0) | ((size == 0) & (code == COLLECTIVES.index("barrier")))
    _check(problems, "size_B", size, finite & has_bytes, "must be above 0 and finite")
    below: Any = 1
    for name, least in (("in_node", "1"), ("in_domain", "in_node"), ("in_leaf", "in_domain"), ("ranks", "in_leaf")):
        column = columns[name]
        whole = np.isfinite(column) & (column >= 1)
        if column.dtype.kind not in "iu":
            whole &= column == np.floor(column)
        _check(problems, name, column, whole, "must be a whole number above 0")
        if not problems:
            _check(problems, name, column, column >= below, f"must be at least {least}")
        below = column
    if problems:
        raise InputError(problems)
    counts = {name: columns[name].astype(np.int64) for name in ("ranks", "in_node", "in_domain", "in_leaf")}
    sound = Rows(collective=code.astype(np.int64), size_B=size.astype(np.float64), **counts)
    return sound, _checked_link(link, len(code))


def _checked_link(link: Link, length: int) -> Link:
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    for name in (f.name for f in fields(link)):
        if name == "grid":
            # an array of one object, so that it passes where numbers do; it is the same for all rows
            held = np.array(getattr(link, name), dtype=object)
            values[name] = held.reshape(-1)[:1].reshape(())
            continue
        value = np.asarray(getattr(link, name))
        if name == "in_network":
            value = value.astype(bool)
        else:
            value = value.astype(np.float64)
            if name.endswith("_Bps"):
                good, rule = value > 0, "must be above 0"
            elif name.endswith("_efficiency"):
                good, rule = (value > 0) & (value <= 1), "must be above 0 and at most 1"
            else:
                good, rule = (value >= 0) & np.isfinite(value), "must be 0 or more and finite"
            _check(problems, f"link.{name}", value, good, rule)
        if value.shape not in ((), (1,), (length,)):
            problems.append(
                Problem(f"has shape {value.shape}, allowed: a number or {length} values", key=f"link.{name}")
            )
        values[name] = value if value.shape == (length,) else value.reshape(-1)[:1].reshape(())
    if problems:
        raise InputError(problems)
    return Link(**values)


def _check(problems: list[Problem], name: str, column: NDArray[Any], good: NDArray[Any], rule: str) -> None:
    if np.all(good):
        return
    column, good = np.atleast_1d(column), np.atleast_1d(good)
    bad = np.flatnonzero(~good)
    for row in bad[:_SHOWN]:
        problems.append(Problem(f"{rule}, got {column[row]}", key=f"row {row}: {name}"))
    if len(bad) > _SHOWN:
        problems.append(Problem(f"{rule}; {len(bad) - _SHOWN} more rows", key=name))
