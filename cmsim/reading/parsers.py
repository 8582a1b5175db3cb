"""What a column of a table holds: texts in, an array of the same length out, ValueError where one is not allowed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints

#: how tools write a value that is not there
BLANK = ("", "nan", "NaN", "NaT", "None", "null")
#: what `Clock` gives for a time that is not there
NO_TIME = np.iinfo(np.int64).min


class Parser(Protocol):
    """Values of a column as they are read, as an array of the same length; ValueError where one is not allowed."""

    @property
    def allowed(self) -> str:
        """What the column may hold, to end an error message."""
        ...

    def __call__(self, values: Sequence[Any]) -> NDArray[Any]: ...


def _plain(values: Sequence[str]) -> None:
    """Python reads '1_000' and digits of other scripts as numbers; a trace does not write them."""
    text = "".join(values)
    if "_" in text or not text.isascii():
        raise ValueError


@dataclass(frozen=True)
class Whole(Parser):
    """Whole numbers from ``low`` to ``high``; '12.0' counts as 12."""

    low: int = 0
    high: int = 10**9

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def __call__(self, values: Sequence[str]) -> Ints:
        _plain(values)
        try:
            found = np.fromiter(map(int, values), np.int64, len(values))
        except OverflowError:
            raise ValueError from None
        except ValueError:
            real = np.fromiter(map(float, values), np.float64, len(values))
            if not (np.abs(real) < 2**53).all() or (real != np.floor(real)).any():
                raise ValueError from None
            found = real.astype(np.int64)
        if len(found) and (found.min() < self.low or found.max() > self.high):
            raise ValueError
        return found


@dataclass(frozen=True)
class Real(Parser):
    """Numbers from ``low`` to ``high``; with ``blank`` also none at all, which is NaN."""

    low: float = 0.0
    high: float = 1e15
    blank: bool = False

    @property
    def allowed(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}{', or nothing' if self.blank else ''}"

    def __call__(self, values: Sequence[str]) -> Floats:
        _plain(values)
        if self.blank:
            values = ["nan" if value in BLANK else value for value in values]
        found = np.fromiter(map(float, values), np.float64, len(values))
        inside = (found >= self.low) & (found <= self.high)
        if not (inside | np.isnan(found) if self.blank else inside).all():
            raise ValueError
        return found


@dataclass(frozen=True)
class Label(Parser):
    """Words as codes in order of first use; -1 where there is none. ``names`` has the words met so far."""

    _known: dict[str, int] = field(default_factory=lambda: dict.fromkeys(BLANK, -1))

    @property
    def allowed(self) -> str:
        return "any text"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(itertools.islice(self._known, len(BLANK), None))

    def counts(self, codes: Ints) -> dict[str, int]:
        """How often each word occurs, "" for none, by word."""
        many = np.bincount(codes + 1, minlength=len(self.names) + 1).tolist()
        return {name: count for name, count in sorted(zip(("", *self.names), many, strict=True)) if count}

    def __call__(self, values: Sequence[str]) -> Ints:
        known = self._known
        for value in dict.fromkeys(values):
            known.setdefault(value, len(known) - len(BLANK))
        return np.fromiter(map(known.__getitem__, values), np.int64, len(values))


@dataclass
class Clock(Parser):
    """Dates with time as nanoseconds since 1970 UTC: 'YYYY-MM-DD HH:MM:SS[.up to nine digits][Z or +HH:MM]'.

    blank  a time may be missing: `NO_TIME`
    zoned, local  how many said their zone and how many did not (taken as UTC)
    """

    #: characters of a time in full: date, nine digits of a second, zone
    LONGEST: ClassVar[int] = 35

    blank: bool = False
    zoned: int = 0
    local: int = 0

    @property
    def allowed(self) -> str:
        return f"YYYY-MM-DD HH:MM:SS[.fraction][+HH:MM]{', or nothing' if self.blank else ''}"

    def __call__(self, values: Sequence[str]) -> Ints:
        out = np.full(len(values), NO_TIME, np.int64)
        there = np.array([value not in BLANK for value in values], bool)
        if not there.all():
            if not self.blank:
                raise ValueError
            values = list(itertools.compress(values, there))
        if not values:
            return out
        size = np.fromiter(map(len, values), np.int64, len(values))
        self.check(size)
        longest = self.LONGEST
        raw = np.array(values, f"S{longest}").view(np.uint8).reshape(len(values), longest)
        out[there] = self.of_codes(raw, size)
        return out

    def check(self, size: Ints) -> None:
        """ValueError where a time is too short or too long to be one."""
        if size.min() < 19 or size.max() > self.LONGEST:
            raise ValueError

    def of_codes(self, raw: NDArray[np.uint8], size: Ints) -> Ints:
        """Times of texts as codes of their characters, one row each, of ``size`` [1]; ValueError for what is none."""
        # a zone is cut off first, so that what is left of one length has one layout
        offset_ns = np.zeros(len(raw), np.int64)
        sign = raw[np.arange(len(raw)), size - 6]
        far = np.flatnonzero((size >= 25) & ((sign == ord("+")) | (sign == ord("-"))))
        zone = raw[far[:, None], size[far, None] - 6 + np.arange(6)]
        if (zone[:, 3] != ord(":")).any():
            raise ValueError
        hour, minute = _number(zone[:, 1:3]), _number(zone[:, 4:6])
        if (hour > 23).any() or (minute > 59).any():
            raise ValueError
        offset_ns[far] = np.where(zone[:, 0] == ord("+"), 1, -1) * (hour * 60 + minute) * (60 * 10**9)
        zulu = raw[np.arange(len(raw)), size - 1] == ord("Z")
        body = size.copy()
        body[far] -= 6
        body[zulu] -= 1
        found: Ints = np.empty(len(raw), np.int64)
        for length in np.unique(body):
            rows = np.flatnonzero(body == length)
            found[rows] = _date_ns(raw[rows, :length])
        self.zoned += len(far) + int(zulu.sum())
        self.local += len(raw) - len(far) - int(zulu.sum())
        return found - offset_ns

    def notes(self) -> list[str]:
        if not (self.zoned and self.local):
            return []
        return [f"{self.local} of {self.zoned + self.local} times do not say their zone: taken as UTC"]


def _number(digits: NDArray[np.uint8]) -> Ints:
    """Numbers from ASCII digits, one row each."""
    value = digits - np.uint8(ord("0"))  # what stands below "0" wraps around
    if (value > 9).any():
        raise ValueError
    number: Ints = np.zeros(len(value), np.int64)
    for column in value.T:
        number = number * 10 + column
    return number


def _date_ns(text: NDArray[np.uint8]) -> Ints:
    """Nanoseconds since 1970 of dates of one length, as ASCII codes, one row each."""
    length = text.shape[1]
    if length == 20 or length > 29:
        raise ValueError
    marks = text[:, [4, 7, 13, 16]]
    split = text[:, 10]
    if (marks != [ord("-"), ord("-"), ord(":"), ord(":")]).any() or not np.isin(split, (ord(" "), ord("T"))).all():
        raise ValueError
    year, month, day = _number(text[:, 0:4]), _number(text[:, 5:7]), _number(text[:, 8:10])
    hour, minute, second = _number(text[:, 11:13]), _number(text[:, 14:16]), _number(text[:, 17:19])
    inside = (year >= 1970) & (year <= 2261) & (month >= 1) & (month <= 12) & (day >= 1)
    if not (inside & (hour < 24) & (minute < 60) & (second < 60)).all():
        raise ValueError
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1)
    if (days.astype("datetime64[M]") != months).any():
        raise ValueError
    ns = ((days.astype(np.int64) * 24 + hour) * 60 + minute) * (60 * 10**9) + second * 10**9
    if length > 19:
        if (text[:, 19] != ord(".")).any():
            raise ValueError
        ns += _number(text[:, 20:]) * 10 ** (29 - length)
    return np.asarray(ns, np.int64)


def seconds(*times_ns: Ints) -> tuple[Floats, ...]:
    """Columns of `Clock` in seconds since the earliest time of the first one, NaN for `NO_TIME`. [s]"""
    known = times_ns[0][times_ns[0] != NO_TIME]
    zero = known.min() if len(known) else np.int64(0)
    # a difference of whole nanoseconds has no rounding; one of seconds since 1970 would have
    return tuple(np.where(time == NO_TIME, np.nan, (time - zero * (time != NO_TIME)) / 1e9) for time in times_ns)
