"""A model as a graph of operators over tensors of known shape: the one form that ONNX, MindIR and configs come in.

Operators keep the names of their file, and say which of ONNX's they are (`cmsim.graphs.ops` has their costs).
Everything is a column: a row per operator, a row per tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cmsim.arrays import Floats, Ints

#: what a tensor is: made by an operator or given from outside; a weight; a constant that stands in the graph
ACTIVATION, PARAMETER, CONSTANT = range(3)
#: dimensions of a tensor beyond these are folded into the first
MAX_RANK = 8


@dataclass(frozen=True)
class Tables:
    """Tables of a recommendation model, beside its graph: rows of each, rows a sample looks up in it, and their width.

    What is looked up of a table is summed; the graph's last input has one such sum a table.
    """

    rows: tuple[int, ...]
    lookups: tuple[int, ...]
    width: int

    @property
    def parameters(self) -> int:
        return sum(self.rows) * self.width


@dataclass(frozen=True)
class Graph:
    """A model read from a file.

    op, op_types   operator of each node, into ``op_types``, as the file calls it    names  of the nodes
    like           by operator: the ONNX operator that it is, or its own name
    in_ptr, in_idx, out_ptr, out_idx   CSR: tensors a node reads and writes; -1 for an input left out
    rank, dims     of each tensor; rank -1 where the shape is not known; dims are padded with 1 in front
    width_B        bytes of an element [B]    floating  whether elements are of a floating format
    kind           ACTIVATION, PARAMETER or CONSTANT    trained  whether a training step updates it
    attributes     numbers that operators carry (``group``, ``window``, ...), NaN where a node has none
    samples        first dimension of the first input: how many samples one pass of this graph holds
    facts          what else the file says of itself    notes  assumptions and what was left out
    counts         what the file holds, in the words of its format
    tables         what is looked up beside it, of a recommendation model
    """

    name: str
    source: str
    op_types: tuple[str, ...]
    like: tuple[str, ...]
    op: Ints
    names: tuple[str, ...]
    in_ptr: Ints
    in_idx: Ints
    out_ptr: Ints
    out_idx: Ints
    tensors: tuple[str, ...]
    rank: Ints
    dims: Floats
    width_B: Floats
    floating: np.ndarray[tuple[int], np.dtype[np.bool_]]
    kind: Ints
    trained: np.ndarray[tuple[int], np.dtype[np.bool_]]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: Mapping[str, Floats]
    samples: float = 1.0
    facts: Mapping[str, str | float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    counts: Mapping[str, Any] = field(default_factory=dict)
    tables: Tables | None = None

    def __len__(self) -> int:
        return len(self.op)

    @property
    def elements(self) -> Floats:
        """Elements of each tensor, 0 where the shape is not known. [1]"""
        out: Floats = np.where(self.rank < 0, 0.0, self.dims.prod(axis=1))
        return out

    @property
    def op_counts(self) -> dict[str, int]:
        """Nodes by operator, in the order of their names."""
        counts = np.bincount(self.op, minlength=len(self.op_types)).tolist()
        return dict(sorted(zip(self.op_types, counts, strict=True)))


class GraphBuilder:
    """Collects tensors and nodes in order.

    >>> build = GraphBuilder("tiny", "by hand")
    >>> x, w = build.tensor("x", (1, 4)), build.tensor("w", (4, 8), kind=PARAMETER)
    >>> y = build.tensor("y", (1, 8))
    >>> build.node("MatMul", [x, w], [y])
    >>> build.graph(inputs=[x], outputs=[y]).elements.tolist()
    [4.0, 32.0, 8.0]
    """

    def __init__(self, name: str, source: str):
        self.name, self.source = name, source
        self.notes: list[str] = []
        self.facts: dict[str, str | float] = {}
        self.counts: dict[str, Any] = {}
        self._number: dict[str, int] = {}
        self._tensors: list[str] = []
        self._dims: list[Sequence[int] | None] = []
        self._width: list[float] = []
        self._floating: list[bool] = []
        self._kind: list[int] = []
        self._frozen: set[int] = set()
        self._op_number: dict[str, int] = {}
        self._like: list[str] = []
        self._op: list[int] = []
        self._names: list[str] = []
        self._reads: list[Sequence[int]] = []
        self._writes: list[Sequence[int]] = []
        self._attributes: dict[str, dict[int, float]] = {}

    def tensor(
        self,
        name: str,
        dims: Sequence[int] | None,
        *,
        width_B: float = 4.0,
        floating: bool = True,
        kind: int = ACTIVATION,
    ) -> int:
        """Add a tensor; returns its number. ``dims`` None: shape not known."""
        number = len(self._dims)
        self._number[name] = number
        self._tensors.append(name)
        self._dims.append(dims)
        self._width.append(width_B)
        self._floating.append(floating)
        self._kind.append(kind)
        return number

    def find(self, name: str) -> int | None:
        """Number of a tensor by name, or None."""
        return self._number.get(name)

    def dims(self, number: int) -> Sequence[int] | None:
        return self._dims[number]

    def kind(self, number: int) -> int:
        return self._kind[number]

    def freeze(self, number: int) -> None:
        """Say that no training step updates a weight (running statistics, scales)."""
        self._frozen.add(number)

    def node(
        self,
        op_type: str,
        reads: Sequence[int],
        writes: Sequence[int],
        *,
        name: str = "",
        like: str = "",
        attributes: Mapping[str, float] | None = None,
    ) -> None:
        """Add a node; ``like`` is the ONNX operator that it is, where the file has another word for it."""
        row = len(self._op)
        number = self._op_number.get(op_type)
        if number is None:
            number = self._op_number[op_type] = len(self._like)
            self._like.append(like or op_type)
        self._op.append(number)
        self._names.append(name or op_type)
        self._reads.append(reads)
        self._writes.append(writes)
        for key, value in (attributes or {}).items():
            self._attributes.setdefault(key, {})[row] = value

    def graph(self, *, inputs: Sequence[int], outputs: Sequence[int], tables: Tables | None = None) -> Graph:
        count = len(self._dims)
        rank = np.array([-1 if dims is None else len(dims) for dims in self._dims], np.int64).reshape(count)
        padded = np.ones((count, MAX_RANK))
        for number, dims in enumerate(self._dims):
            if dims:
                if len(dims) > MAX_RANK:
                    extra = len(dims) - MAX_RANK + 1
                    dims = (int(np.prod(dims[:extra], dtype=np.float64)), *dims[extra:])
                padded[number, MAX_RANK - len(dims) :] = dims
        attributes = {}
        for key, values in self._attributes.items():
            column = np.full(len(self._op), np.nan)
            column[list(values)] = list(values.values())
            attributes[key] = column
        trained = (np.array(self._kind) == PARAMETER) & np.array(self._floating, np.bool_)
        trained[list(self._frozen)] = False
        first = self._dims[inputs[0]] if inputs else None
        return Graph(
            name=self.name,
            source=self.source,
            op_types=tuple(self._op_number),
            like=tuple(self._like),
            op=np.array(self._op, np.int64),
            names=tuple(self._names),
            **_csr("in", self._reads),
            **_csr("out", self._writes),
            tensors=tuple(self._tensors),
            rank=rank,
            dims=padded,
            width_B=np.array(self._width, np.float64),
            floating=np.array(self._floating, np.bool_),
            kind=np.array(self._kind, np.int64),
            trained=trained,
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            attributes=attributes,
            samples=max(float(first[0]), 1.0) if first else 1.0,
            facts=dict(self.facts),
            notes=tuple(dict.fromkeys(self.notes)),
            counts=dict(self.counts),
            tables=tables,
        )


def _csr(what: str, lists: Sequence[Sequence[int]]) -> dict[str, Ints]:
    ptr = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(one) for one in lists], out=ptr[1:])
    flat = np.fromiter((number for one in lists for number in one), np.int64, int(ptr[-1]))
    return {f"{what}_ptr": ptr, f"{what}_idx": flat}
