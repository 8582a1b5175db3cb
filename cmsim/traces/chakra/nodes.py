"""Nodes of a Chakra trace under construction, whichever way the file is written, and what attributes mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints
from cmsim.traces.chakra.wire import BadMessageError

NODE_TYPES = ("INVALID", "METADATA", "MEM_LOAD", "MEM_STORE", "COMP", "COMM_SEND", "COMM_RECV", "COMM_COLL")
INVALID, METADATA, MEM_LOAD, MEM_STORE, COMP, COMM_SEND, COMM_RECV, COMM_COLL = range(len(NODE_TYPES))
COMM_TYPES = (
    "ALL_REDUCE",
    "REDUCE",
    "ALL_GATHER",
    "GATHER",
    "SCATTER",
    "BROADCAST",
    "ALL_TO_ALL",
    "REDUCE_SCATTER",
    "REDUCE_SCATTER_BLOCK",
    "BARRIER",
)

#: attributes with a meaning for replay, by name on the wire; those of cmsim are what `write` adds
_SIZES = ("num_ops", "tensor_size", "comm_size")
NUMBERS = (*_SIZES, "is_cpu_op", "comm_type", "comm_src", "comm_dst", "comm_tag", "cmsim_duration_ps")
REALS = ("cmsim_flops", "cmsim_bytes", "cmsim_cores")
WORDS = (
    *("pg_name", "comm_group", "stream", "tid"),
    *("cmsim_kernel", "cmsim_precision", "cmsim_collective", "cmsim_shape"),
)
MARKS = ("rf_id", "fw_parent")
DIMS = "involved_dim"
NAMES = (*NUMBERS, *REALS, *WORDS, *MARKS, DIMS)
#: two names of one thing
ALIAS = {"comm_group": "pg_name"}
_SIGNED = {"comm_src", "comm_dst", "comm_tag"}
#: whole numbers above are kept as this one: they are only compared with small ones
_TOP = 2**62


class NodeColumns:
    """Columns under construction, in parts."""

    def __init__(self) -> None:
        self.name: list[str] = []
        self.profiled = False
        self.groups: dict[str, tuple[int, ...]] = {}
        self.texts: dict[str, int] = {"": 0}
        self._fixed: dict[str, list[NDArray[Any]]] = {"id": [], "type": [], "duration": []}
        self._deps: dict[str, list[tuple[NDArray[Any], NDArray[Any]]]] = {"ctrl": [], "data": []}
        self._attrs: dict[str, list[tuple[Ints, NDArray[Any]]]] = {}

    def __len__(self) -> int:
        return len(self.name)

    def fixed(self, key: str, values: NDArray[Any]) -> None:
        """Ids, types or durations of more nodes, numbers from 0."""
        self._fixed[key].append(_small(values))

    def deps(self, key: str, values: NDArray[np.uint64], count: Ints) -> None:
        """Ids that more nodes depend on, and how many each of them has."""
        self._deps[key].append((_small(values), _small(count)))

    def put(self, name: str, rows: Ints, values: Sequence[Any] | NDArray[Any]) -> None:
        """Values of an attribute; of a row with two, the last counts."""
        if name in WORDS:
            known = self.texts
            values = np.array([known.setdefault(text, len(known)) for text in values], np.int64)
        self.put_codes(name, rows, values)

    def put_codes(self, name: str, rows: Ints, values: Sequence[Any] | NDArray[Any]) -> None:
        """As `put`, for numbers, or for texts as numbers in ``texts``."""
        if name in MARKS:
            self.profiled |= len(rows) > 0
            return
        if name in _SIZES or name in REALS:
            column: NDArray[Any] = np.asarray(values, np.float64)
        elif isinstance(values, np.ndarray):
            column = np.minimum(values, _TOP).astype(np.int64)
        else:
            column = np.array([min(value, _TOP) for value in values], np.int64)
        self._attrs.setdefault(ALIAS.get(name, name), []).append((rows, column))

    def columns(self) -> tuple[NDArray[np.uint64], Ints, Floats]:
        """Ids, types and durations."""
        fixed = {key: np.concatenate(parts) for key, parts in self._fixed.items()}
        return fixed["id"].astype(np.uint64), fixed["type"].astype(np.int64), fixed["duration"].astype(np.float64)

    def edges(self, key: str) -> tuple[NDArray[np.uint64], Ints]:
        """Ids of all dependencies of a kind, and how many each node has."""
        values, counts = zip(*self._deps[key], strict=True)
        return np.concatenate(values).astype(np.uint64), np.concatenate(counts).astype(np.int64)

    def attribute(self, name: str, default: float, type_: type = np.int64) -> NDArray[Any]:
        """One value a node."""
        out: NDArray[Any] = np.full(len(self), default, type_)
        for rows, values in self._attrs.get(name, ()):
            out[rows] = values
        return out


def _small(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers from 0 in the smallest type, in which they take little more room than in the file."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def coerce(name: str, value: Any) -> tuple[str, Any] | None:
    """Name and value of an attribute, None for one that is not kept. Raises BadMessageError.

    Producers disagree on the type: 1, 1.0, "1" and true are the same number.
    """
    if name in NUMBERS:
        number = whole(value)
        if number is None or not (-(2**63) <= number < 2**63 if name in _SIGNED else 0 <= number < 2**64):
            raise BadMessageError(f"attribute {name}: expected a whole number of a sensible size, got {value!r:.60}")
        return name, number
    if name in REALS:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadMessageError(f"attribute {name}: expected a number, got {value!r:.60}")
        return name, float(value)
    if name in WORDS:
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        return ALIAS.get(name, name), str(value)
    if name == DIMS:
        return name, isinstance(value, list) and not all(value)
    return (name, value) if name in MARKS else None


def whole(value: Any) -> int | None:
    """The whole number that a value of any type stands for, None for one that stands for none.

    >>> whole("12"), whole(3.0), whole(True), whole(0.5), whole([1])
    (12, 3, 1, None, None)
    """
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if isinstance(value, str):
        try:
            return int(value) if len(value) <= 20 else None
        except ValueError:
            return None
    if isinstance(value, float):
        return int(value) if math.isfinite(value) and value == int(value) else None
    return int(value) if isinstance(value, int) else None
