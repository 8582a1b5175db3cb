"""GOAL schedules as text: per rank, calculations, sends and receives, and which waits for which.

``num_ranks N``, then ``rank R { ... }`` with one statement a line:

    [label:] send <bytes>b to <rank> [tag T] [cpu C] [nic K]
    [label:] recv <bytes>b from <rank|-1|any> [tag T|-1|any] [cpu C] [nic K]
    [label:] calc <ns> [cpu C]
    <label> requires <label>        starts after the other has ended
    <label> irequires <label>       starts after the other has started

Labels belong to their rank and are defined before they are used. The statements that LogGOPSim2 adds for Portals are
counted, and refused by `GoalText.trace`.

Source: LogGOPSim, txt2bin.re.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmsim.arrays import Ints
from cmsim.errors import InputError, Problem
from cmsim.reading.bytes_in import LIMIT_B, read_bytes
from cmsim.traces.goal import schedule as schedules
from cmsim.traces.goal.schedule import ANY, CALCS, PORTALS, RECVS, SENDS, GoalSchedule
from cmsim.traces.recorded import Trace

Flags = NDArray[np.bool_]
TEXT, PORTALS_TEXT = "goal-text", "goal-text-portals"
_PUTS = ("put", "append", "tput", "tappend")

#: one statement, or the rest of a line that is none. Numbers are short enough for 64 bits.
_STATEMENT = re.compile(
    r"""[ \t\r\n]*(?:
    (?:([A-Za-z]\w*)[ \t]*:[ \t]*)?(?:
        (send|recv|calc)[ \t]+(\d{1,18})
        (?:[ \t]*b[ \t]+(to|from)[ \t]+(-1|\d{1,9})(?:[ \t]+tag[ \t]+(-1|\d{1,10}))?)?
        (?:[ \t]+cpu[ \t]+(\d{1,9}))?(?:[ \t]+nic[ \t]+(\d{1,9}))?
      | (tappend|append|tput|put|tget|get|test|calcgem5)\b[^\r\n]*
    )[ \t\r]*(?=\n|\Z)
  | ([A-Za-z]\w*)[ \t]+(i?)requires[ \t]+([A-Za-z]\w*)[ \t\r]*(?=\n|\Z)
  | (rank[ \t]+\d{1,9}[ \t]*\{|num_ranks[ \t]+\d{1,9}|\}|[^ \t\r\n][^\n]*)
)""",
    re.VERBOSE | re.ASCII,
)
_LABEL, _OP, _SIZE, _WAY, _PEER, _TAG, _CPU, _NIC, _PORTAL, _A, _I, _B, _OTHER = range(13)
_COMMENT = re.compile(rb"//[^\n]*|/\*.*?\*/", re.DOTALL)
_BLANKS = re.compile(rb"[^\n]+")
#: the word that some write for -1
_ANY = re.compile(rb"(\b(?:from|tag)[ \t]+)any\b")
_KIND = {"send": SENDS, "recv": RECVS, "calc": CALCS, "": PORTALS}
_WAYS = {("send", "to"), ("recv", "from"), ("calc", ""), ("", "")}
#: columns while a file is read, no wider than they must be: a damaged one shall not take more memory than it is long
_WIDTHS = {
    "kind": np.int8, "size": np.int64, "peer": np.int32, "tag": np.int64, "cpu": np.int32, "nic": np.int32,
    "at": np.int32, "a": np.int32, "b": np.int32, "i": np.int8, "used": np.int32,
}  # fmt: skip
#: bytes of text whose statements are Python objects at a time; small ones stay in the cache (2.2 to 1.7 s a million)
_CHUNK_B = 2**15


@dataclass(frozen=True)
class GoalText:
    """A file as read; rows in the order of the file."""

    path: Path
    schedule: GoalSchedule
    portals: tuple[str, ...]
    cpu_fields: int
    nic_fields: int
    _text: bytes

    def counts(self) -> dict[str, Any]:
        """Statements of each kind, bytes [B] and calculation [ns]."""
        own = self.schedule
        send, recv, calc = (own.kind == kind for kind in (SENDS, RECVS, CALCS))
        more = {"portals_statements": len(self.portals)} if self.portals else {}
        return {
            "format": PORTALS_TEXT if self.portals else TEXT,
            "num_ranks": own.num_ranks,
            "rank_blocks": len(own.rank),
            "sends": int(send.sum()),
            "recvs": int(recv.sum()),
            "calcs": int(calc.sum()),
            "send_bytes": sum(own.size[send].tolist()),
            "recv_bytes": sum(own.size[recv].tolist()),
            "calc_sum": sum(own.size[calc].tolist()),
            "requires": len(own.after),
            "irequires": len(own.after_start),
            "wildcard_recv": int((recv & ((own.peer == ANY) | (own.tag == ANY))).sum()),
            "cpu_fields": self.cpu_fields,
            "nic_fields": self.nic_fields,
            "put_or_append": sum(word in _PUTS for word in self.portals),
            **more,
        }

    def trace(self, *, ranks: int | None = None) -> Trace:
        """The ops of all ranks; see `schedules.trace`. Errors name the line."""
        return schedules.trace(self.schedule, format=TEXT, path=self.path, ranks=ranks, place=self._place)

    def _place(self, row: int, message: str) -> Problem:
        """A problem with the statement of a row: found by reading the file again, for it happens once."""
        number = -1
        for match, line in _statements(self._text):
            number += bool(match[_OP + 1] or match[_PORTAL + 1])
            if number == row:
                return Problem(f"{' '.join(match[0].split()):.60}: {message}", str(self.path), line)
        raise AssertionError(row)


def sniff(start: bytes, path: Path) -> bool:  # noqa: ARG001 (all importers are asked alike)
    """Whether a text starts with the number of ranks, comments apart."""
    return re.match(rb"\s*num_ranks\s+\d", _COMMENT.sub(b" ", start)) is not None


def open_(path: Path, *, limit_B: int = LIMIT_B) -> GoalText:
    """Read a file, gzipped or not. Raises InputError naming the line."""
    path = Path(path)
    text = read_bytes(path, limit_B=limit_B)
    if b"/" in text:
        text = _COMMENT.sub(lambda match: _BLANKS.sub(b" ", match[0]), text)
    if b"any" in text:
        text = _ANY.sub(rb"\1-1", text)
    return _Reader(path, text).read()


def _chunks(text: bytes) -> Iterator[str]:
    """Pieces of whole lines."""
    at = 0
    while at < len(text):
        end = text.find(b"\n", at + _CHUNK_B)
        end = len(text) if end < 0 else end + 1
        yield text[at:end].decode("latin-1")
        at = end


def _statements(text: bytes) -> Iterator[tuple[re.Match[str], int]]:
    """Statements and the line of each."""
    line = 1
    for chunk in _chunks(text):
        for match in _STATEMENT.finditer(chunk):
            yield match, line + chunk.count("\n", 0, match.end() - len(match[0].lstrip()))
        line += chunk.count("\n")


def _whole(word: str) -> bool:
    """Whether a word is a whole number, in digits of ASCII."""
    return word.isascii() and word.isdigit()


class _Reader:
    """Statements taken chunk by chunk: as Python objects for a moment, as columns to keep."""

    def __init__(self, path: Path, text: bytes):
        self._path, self._text = path, text
        self._num_ranks = 0
        self._rank = -1
        self._labels: dict[str, int] = {}
        self._ranks: list[int] = []
        self._first: list[int] = []
        self._count = 0
        self._statements = 0
        self._columns: dict[str, list[NDArray[Any]]] = {name: [] for name in _WIDTHS}
        self._portals: list[str] = []
        self._fields = [0, 0]

    def read(self) -> GoalText:
        for chunk in _chunks(self._text):
            self._take(chunk)
        if self._rank >= 0:
            raise self._error(None, f"rank {self._rank}: the closing brace is missing")
        if not self._num_ranks:
            raise self._error(None, "num_ranks is missing")
        column = {name: _joined(self._columns.pop(name)) for name in _WIDTHS}
        self._check(column)
        column = {name: values.astype(np.int64) for name, values in column.items()}
        starts = column["i"] > 0
        schedule = GoalSchedule(
            num_ranks=self._num_ranks,
            rank=np.array(self._ranks, np.int64),
            first=np.array([*self._first, self._count], np.int64),
            kind=column["kind"],
            size=column["size"],
            peer=column["peer"],
            tag=column["tag"],
            cpu=column["cpu"],
            nic=column["nic"],
            after=column["a"][~starts],
            before=column["b"][~starts],
            after_start=column["a"][starts],
            before_start=column["b"][starts],
        )
        return GoalText(self._path, schedule, tuple(self._portals), self._fields[0], self._fields[1], self._text)

    def _take(self, chunk: str) -> None:
        found = _STATEMENT.findall(chunk)
        if not found:
            return
        columns: list[tuple[str, ...]] = list(zip(*found, strict=True))
        ops, dependent = columns[_OP], columns[_A]
        if any(columns[_PORTAL]):
            ops = tuple(op or portal for op, portal in zip(ops, columns[_PORTAL], strict=True))
            self._portals.extend(portal for portal in columns[_PORTAL] if portal)
        if not set(zip(columns[_OP], columns[_WAY], strict=True)) <= _WAYS:
            wrong = next(i for i, s in enumerate(found) if (s[_OP], s[_WAY]) not in _WAYS)
            raise self._unknown(self._statements + wrong)
        is_op, is_dep = _where(ops), _where(dependent)
        op_at, dep_at = np.flatnonzero(is_op), np.flatnonzero(is_dep)
        self._op_columns(columns, is_op)
        labels = [columns[_LABEL][i] for i in op_at.tolist()]
        pairs = [columns[_A][i] for i in dep_at.tolist()], [columns[_B][i] for i in dep_at.tolist()]
        events = [*np.flatnonzero(~(is_op | is_dep)).tolist(), len(found)]
        op_end, dep_end = np.searchsorted(op_at, events).tolist(), np.searchsorted(dep_at, events).tolist()
        a_rows: list[int] = []
        b_rows: list[int] = []
        op = dep = 0
        for event, last_op, last_dep in zip(events, op_end, dep_end, strict=True):
            if self._rank < 0 and (last_op > op or last_dep > dep):
                raise self._error(event - (last_op - op) - (last_dep - dep), "stands outside of a rank")
            self._define(labels[op:last_op], self._count + op, op_at[op:last_op])
            a_rows += self._rows(pairs[0][dep:last_dep], dep_at[dep:last_dep])
            b_rows += self._rows(pairs[1][dep:last_dep], dep_at[dep:last_dep])
            op, dep = last_op, last_dep
            if event < len(found):
                self._event(found[event][_OTHER], event, self._count + op)
        self._keep("at", op_at + self._statements)
        self._keep("a", a_rows)
        self._keep("b", b_rows)
        self._keep("i", [columns[_I][i] != "" for i in dep_at.tolist()])
        self._keep("used", dep_at + self._statements)
        self._count += len(op_at)
        self._statements += len(found)

    def _keep(self, name: str, values: ArrayLike) -> None:
        self._columns[name].append(np.asarray(values, _WIDTHS[name]))

    def _op_columns(self, columns: Sequence[Sequence[str]], is_op: Flags) -> None:
        ops, plain = columns[_OP], not any(columns[_PORTAL])
        number = int(is_op.sum())
        if plain:
            kind = np.array([_KIND[op] for op in ops if op], np.int64)
        else:
            kind = np.array([_KIND[op] for op, keep in zip(ops, is_op.tolist(), strict=True) if keep], np.int64)
        size = np.zeros(number, np.int64)
        size[kind != PORTALS] = _numbers(filter(None, columns[_SIZE]))
        peer = np.zeros(number, np.int64)
        peer[(kind == SENDS) | (kind == RECVS)] = _numbers(filter(None, columns[_PEER]))
        self._keep("kind", kind)
        self._keep("size", size)
        self._keep("peer", peer)
        for name, where in (("tag", _TAG), ("cpu", _CPU), ("nic", _NIC)):
            given = _where(columns[where])[is_op]
            values = np.zeros(number, np.int64)
            values[given] = _numbers(filter(None, columns[where]))
            self._keep(name, values)
            if name != "tag":
                self._fields[name == "nic"] += int(given.sum())

    def _define(self, labels: list[str], row: int, at: Ints) -> None:
        before, named = len(self._labels), len(labels) - labels.count("")
        self._labels.update(zip(labels, range(row, row + len(labels)), strict=True))
        self._labels.pop("", None)
        if len(self._labels) != before + named:
            seen: set[str] = {label for label, known in self._labels.items() if known < row}
            for i, label in enumerate(labels):
                if label and label in seen:
                    raise self._error(int(at[i]), f"rank {self._rank}: label {label:.40} stands twice")
                seen.add(label)
            raise self._error(int(at[0]), f"rank {self._rank}: a label stands twice")

    def _rows(self, labels: list[str], at: Ints) -> list[int]:
        try:
            return [self._labels[label] for label in labels]
        except KeyError as error:
            wrong = int(at[labels.index(error.args[0])])
            raise self._error(wrong, f"rank {self._rank}: there is no label {error.args[0]:.40}") from None

    def _event(self, text: str, at: int, row: int) -> None:
        """The start or the end of a rank, the number of ranks, or what is no statement."""
        words = text.replace("{", " { ").split()
        if not words:  # blanks, a vertical tab among them
            return
        if words[0] == "num_ranks" and len(words) == 2 and _whole(words[1]) and not self._num_ranks:
            self._num_ranks = int(words[1])
            if not self._num_ranks:
                raise self._error(at, "num_ranks must be 1 or more")
        elif text == "}" and self._rank >= 0:
            self._rank = -1
        elif words[0] == "rank" and words[2:] == ["{"] and _whole(words[1]) and self._rank < 0:
            self._rank = int(words[1])
            if self._rank >= self._num_ranks:
                allowed = f"0 to {self._num_ranks - 1}" if self._num_ranks else "not announced by num_ranks before"
                raise self._error(at, f"there is no rank {self._rank}: ranks are {allowed}")
            self._ranks.append(self._rank)
            self._first.append(row)
            self._labels = {}
        elif text.startswith("/*"):
            raise self._error(at, "the comment does not end")
        else:
            raise self._unknown(self._statements + at)

    def _check(self, column: dict[str, NDArray[Any]]) -> None:
        ranks, times = np.unique(np.array(self._ranks, np.int64), return_counts=True)
        if len(ranks) and times.max() > 1:
            raise InputError(Problem(f"rank {ranks[np.argmax(times)]} has more than one block", str(self._path)))
        late = (column["at"][column["a"]] > column["used"]) | (column["at"][column["b"]] > column["used"])
        for wrong, what in (
            (late, "uses a label before it is defined"),
            (column["a"] == column["b"], "an op that waits for itself"),
        ):
            if wrong.any():
                raise self._error_at(int(column["used"][np.argmax(wrong)]), what)
        message = (column["kind"] == SENDS) | (column["kind"] == RECVS)
        allowed = (column["peer"] < self._num_ranks) & ((column["peer"] >= 0) | (column["kind"] == RECVS))
        wrong = message & ~allowed
        if wrong.any():
            at = int(np.argmax(wrong))
            what = f"there is no rank {column['peer'][at]}: ranks are 0 to {self._num_ranks - 1}"
            raise self._error_at(int(column["at"][at]), what)
        wrong = (column["tag"] == ANY) & (column["kind"] == SENDS)
        if wrong.any():
            raise self._error_at(int(column["at"][np.argmax(wrong)]), "only a receive can leave the tag open")

    def _unknown(self, statement: int) -> InputError:
        return self._error_at(
            statement, "is no statement of GOAL: send, recv, calc, requires, irequires, rank R {, } or num_ranks"
        )

    def _error(self, at: int | None, message: str) -> InputError:
        """The error for a statement of this chunk; None for the end of the file."""
        if at is None:
            line = self._text.count(b"\n") + (not self._text.endswith(b"\n"))
            return InputError(Problem(message, str(self._path), line))
        return self._error_at(self._statements + at, message)

    def _error_at(self, statement: int, message: str) -> InputError:
        match, line = next(islice(_statements(self._text), statement, None))
        return InputError(Problem(f"'{' '.join(match[0].split()):.60}': {message}", str(self._path), line))


def _where(column: Iterable[str]) -> Flags:
    return np.fromiter(map(bool, column), np.bool_)


def _numbers(column: Iterable[str]) -> Ints:
    return np.array([int(text) for text in column], np.int64)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
