"""Workloads as text, a layer a record: ASTRA-sim's first, and SimAI's that adds groups, pipelines, micro-batches.

The first line names a policy and its arguments, the second the number of layers; then come 12 tokens a layer (13 under
``HYBRID_CUSTOMIZED``): name, reserved, then compute time [ns], collective and bytes of the forward pass, of the input
gradient and of the weight gradient, and the delay of the weights' update [ns]. Tokens count, line breaks do not.

The two flavours look alike and size an all-gather differently, so a file counts as SimAI's where something in it is
written by SimAI's tools only: header keys (ep, pp, vpp, ga, all_gpus, pp_comm), groups named after a collective
(``ALLTOALL_EP``), layers all called ``micro_test``, or the policy with recomputation and nothing to recompute.

Source: ASTRA-sim 1.0 and SimAI, workload/Workload.cc; AICB, workload_generator.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np

from cmsim.arrays import Ints
from cmsim.errors import InputError, Problem
from cmsim.reading.bytes_in import LIMIT_B, bad, read_bytes
from cmsim.traces.layers import schedule
from cmsim.traces.layers.schedule import LayerLine
from cmsim.traces.recorded import Trace

ASTRA, SIMAI = "astra-v1-text", "simai-workload"
PHASES = ("fwd", "input_grad", "weight_grad")

_SIMAI_KEYS = frozenset({"ep", "pp", "vpp", "ga", "all_gpus", "pp_comm"})
_LISTS = ("checkpoints", "checkpoint_initiates")
_MICRO_LAYER = "micro_test"

_WHOLE = re.compile(r"-?\d{1,18}")
_KEY = re.compile(r"([A-Za-z_]\w*):?", re.ASCII)
_TOKEN = re.compile(r"\S+")
_WORD = re.compile(r"[A-Z][A-Z_]*")
_RESERVED = re.compile(r"[-+]?\d{1,300}(\.\d*)?")
#: keys that come without a colon
_BARE = ("pp_comm",)
#: tokens of a header; a longer one is damage
_MOST_HEADER = 2**16
#: a policy nobody knows is one still where a layer of the usual form follows
_RECORD = re.compile(rb"\s-?\d+\s+\d+\s+[A-Z_]+\s+\d+\s+\d+\s+[A-Z_]+\s+\d+\s+\d+\s+[A-Z_]+\s+\d+\s+\d+\s")


@dataclass(frozen=True)
class LayerColumns(Sequence[LayerLine]):
    """Records as columns, shape (layers,) or (layers, 3) by phase; texts are numbers into tuples."""

    names: tuple[str, ...]
    words: tuple[str, ...]
    name: Ints
    compute_ns: Ints
    comm: Ints
    size_B: Ints
    update_ns: Ints
    policy: Ints

    def __len__(self) -> int:
        return len(self.name)

    @overload
    def __getitem__(self, i: int) -> LayerLine: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[LayerLine]: ...
    def __getitem__(self, i: int | slice) -> LayerLine | Sequence[LayerLine]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        return LayerLine(
            self.names[self.name[i]],
            tuple(self.compute_ns[i].tolist()),
            tuple(self.words[word] for word in self.comm[i].tolist()),
            tuple(self.size_B[i].tolist()),
            int(self.update_ns[i]),
            self.words[self.policy[i]],
        )


@dataclass(frozen=True)
class LayersFile:
    """A file as read.

    format    ``ASTRA`` or ``SIMAI``
    header    arguments of the policy by name; lists of layers, whole numbers, else text; bare ones in ``positional``
    declared  layers that the second line announces
    left      tokens after the last layer
    """

    path: Path
    format: str
    policy: str
    header: dict[str, Any]
    layers: LayerColumns
    declared: int
    left: int

    def counts(self) -> dict[str, Any]:
        """Layers, and by phase compute time [ns], collectives and their bytes [B] (``NONE`` has none)."""
        own = self.layers
        number: dict[str, dict[str, int]] = {phase: {} for phase in PHASES}
        size_B: dict[str, dict[str, int]] = {phase: {} for phase in PHASES}
        for word, name in sorted(enumerate(own.words), key=lambda pair: pair[1]):
            for i, phase in enumerate(PHASES):
                here = own.comm[:, i] == word
                if here.any():
                    number[phase][name] = int(here.sum())
                    if name != schedule.NONE:
                        size_B[phase][name] = sum(own.size_B[here, i].tolist())
        return {
            "format": self.format,
            "policy": self.policy,
            "header": {key: list(value) if isinstance(value, list) else value for key, value in self.header.items()},
            "layers_declared": self.declared,
            "layers_present": len(own),
            "tokens_after_layers": self.left,
            "compute": {phase: sum(own.compute_ns[:, i].tolist()) for i, phase in enumerate(PHASES)},
            "update_sum": sum(own.update_ns.tolist()),
            "comm_counts": number,
            "comm_bytes": size_B,
            "total_comm_bytes": sum(sum(sizes.values()) for sizes in size_B.values()),
        }

    def trace(self, *, ranks: int | None = None) -> Trace:
        """One training pass, the same on every rank; see `schedule.trace`."""
        notes = []
        if self.declared > len(self.layers):
            notes.append(f"line 2 announces {self.declared} layers, {len(self.layers)} follow: those are taken")
        if self.left:
            notes.append(f"{self.left} tokens after the last of {self.declared} layers are left out")
        return schedule.trace(
            self.path, self.format, self.policy, self.header, self.layers, full_size=self.format == SIMAI,
            ranks=ranks, notes=notes,
        )  # fmt: skip


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001 (all importers are asked alike)
    """Whether a file starts with a policy and the number of layers, or with records of a layer."""
    tokens = start.split(None, 1)
    if len(tokens) < 2:
        return False
    try:
        word = tokens[0].decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    if not _WORD.fullmatch(word):
        return False
    if word in schedule.POLICIES:
        return re.search(rb"(?:^|\s)\d+(?:\s|$)", tokens[1]) is not None
    return _RECORD.search(tokens[1]) is not None


def open_(path: Path, *, limit_B: int = LIMIT_B) -> LayersFile:
    """Read a file, gzipped or not. Raises InputError naming the line."""
    path = Path(path)
    data = read_bytes(path, limit_B=limit_B)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad(path, "is not text", byte=error.start) from None
    del data
    return _Reader(path, text).read()


class _Reader:
    """Takes one token after the other; ``_at`` is where the last one stands."""

    def __init__(self, path: Path, text: str):
        self._path, self._text = path, text
        self._rest: Iterator[re.Match[str]] = iter(())
        self._at = 0
        self._names: dict[str, int] = {}
        self._words: dict[str, int] = {"": 0}

    def read(self) -> LayersFile:
        first, head, after = self._head()
        if not _WORD.fullmatch(first):
            raise self._wrong("expected a policy in capitals", first)
        self._rest = iter(head)
        header = self._header()
        self._rest = _TOKEN.finditer(self._text, after)
        declared = self._whole("the number of layers")
        columns: tuple[array[int], ...] = tuple(array("q") for _ in range(6))
        layers = 0
        while layers < declared and self._layer(columns, first == schedule.CUSTOMIZED, layers + 1, declared):
            layers += 1
        if not layers:
            raise self._error(f"{declared} layers are announced and none follows")
        for key in _LISTS:
            for layer in header.get(key, ()):
                if not 0 <= layer < declared:
                    raise bad(self._path, f"{key}: there is no layer {layer}; layers are 0 to {declared - 1}")
        name, compute_ns, comm, size_B, update_ns, policy = (np.frombuffer(column, np.int64) for column in columns)
        made = LayerColumns(
            names=tuple(self._names),
            words=tuple(self._words),
            name=name,
            compute_ns=compute_ns.reshape(-1, 3),
            comm=comm.reshape(-1, 3),
            size_B=size_B.reshape(-1, 3),
            update_ns=update_ns,
            policy=policy,
        )
        left = sum(1 for _ in self._rest)
        return LayersFile(self._path, _flavour(first, header, made), first, header, made, declared, left)

    def _head(self) -> tuple[str, list[re.Match[str]], int]:
        """The policy, the tokens between it and the number of layers, and where those end.

        A bare number may belong to the policy (``HYBRID_DLRM 4``), so the line break decides where the second line
        starts with a number; else it is the first number before a token that is none.
        """
        first = _TOKEN.search(self._text)
        if first is None:
            raise self._error("expected the name of a policy, got nothing")
        end = self._text.find("\n", first.end())
        end = len(self._text) if end < 0 else end
        line = [*islice(_TOKEN.finditer(self._text, first.end(), end), _MOST_HEADER)]
        then = _TOKEN.search(self._text, end)
        self._at = first.start()
        if then and _WHOLE.fullmatch(then[0]):
            return first[0], line, end
        ahead = [*islice(_TOKEN.finditer(self._text, first.end()), _MOST_HEADER)]
        before = first[0]
        for i, (here, after) in enumerate(pairwise(ahead)):
            if (
                _WHOLE.fullmatch(here[0])
                and not _WHOLE.fullmatch(after[0])
                and before[-1] != ":"
                and before not in _BARE
            ):
                return first[0], ahead[:i], here.start()
            before = here[0]
        raise self._error("expected the number of layers after the policy")

    def _header(self) -> dict[str, Any]:
        header: dict[str, Any] = {}
        while (token := self._next()) is not None:
            key = _KEY.fullmatch(token)
            if not key:
                header.setdefault("positional", []).append(token)
                continue
            name = key[1]
            if name in header:
                raise self._error(f"{name} stands twice")
            if name in _LISTS:
                count = self._whole(f"{name}: the number of layers that follow")
                header[name] = []
                while len(header[name]) < count:
                    header[name].append(self._whole(f"{name}: layer {len(header[name]) + 1} of {count}"))
                continue
            value = self._next()
            if value is None:
                raise self._error(f"{name}: expected a value, got nothing more")
            header[name] = int(value) if _WHOLE.fullmatch(value) else value
        return header

    def _layer(self, columns: tuple[array[int], ...], own_policy: bool, number: int, declared: int) -> bool:
        """Take one record; False at the end of the file."""
        name, compute_ns, comm, size_B, update_ns, policy = columns
        called = self._next()
        if called is None:
            return False
        what = f"layer {number} of {declared} ('{called:.40}')"
        reserved = self._need(what)
        if not _RESERVED.fullmatch(reserved):
            raise self._wrong(f"{what}: expected a reserved number", reserved)
        name.append(self._names.setdefault(called, len(self._names)))
        for phase in PHASES:
            compute_ns.append(self._whole(f"{what}: {phase} compute time in ns"))
            word = self._need(what)
            if not _WORD.fullmatch(word):
                raise self._wrong(f"{what}: {phase}: expected a collective in capitals", word)
            comm.append(self._words.setdefault(word, len(self._words)))
            size_B.append(self._whole(f"{what}: {phase} bytes"))
        update_ns.append(self._whole(f"{what}: update delay in ns"))
        policy.append(self._words.setdefault(self._need(what), len(self._words)) if own_policy else 0)
        return True

    def _next(self) -> str | None:
        match = next(self._rest, None)
        if match is None:
            return None
        self._at = match.start()
        return match[0]

    def _need(self, what: str) -> str:
        token = self._next()
        if token is None:
            raise self._error(f"{what} is cut short")
        return token

    def _whole(self, what: str) -> int:
        token = self._next()
        if token is None:
            raise self._error(f"{what}: expected a whole number, got nothing more")
        if not _WHOLE.fullmatch(token) or token[0] == "-":
            raise self._wrong(f"{what}: expected a whole number from 0", token)
        return int(token)

    def _wrong(self, message: str, token: str) -> InputError:
        return self._error(f"{message}, got '{token:.40}'")

    def _error(self, message: str) -> InputError:
        return InputError(Problem(message, str(self._path), self._text.count("\n", 0, self._at) + 1))


def _flavour(policy: str, header: dict[str, Any], layers: LayerColumns) -> str:
    if _SIMAI_KEYS & set(header) or any(word.endswith(schedule.SUFFIXES) for word in layers.words):
        return SIMAI
    if policy == schedule.RECOMPUTE and not any(header.get(key) for key in _LISTS):
        return SIMAI
    return SIMAI if layers.names == (_MICRO_LAYER,) else ASTRA
