"""Answers that are kept: from built-in files for as long as the files stay as they are, of arrays by what they hold.

A process may live for days, a page's or a worker's, and people edit files under it. What is read once is therefore kept
under the state of the files that it was read from: where each is, when it changed, how large it is. An edit is seen at
the next question, and threads may ask side by side: two that ask first both read, and get equal answers.

Runs of one scenario ask the same of equal arrays again and again, which ranks are equal among them: such an answer is
kept under the bytes that it follows from.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np

from cmsim.reading import names
from cmsim.reading.look import seen

P = ParamSpec("P")
T = TypeVar("T")

#: of one file: name, when it was written and when its entry changed [ns], size [B], number on its disk (a file that is
#: put in the place of another has a new one)
_File = tuple[str, int, int, int, int]


def while_unchanged(*folders: str, most: int = 64) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Keeps the answers of a function that reads built-in files of ``folders`` and nothing else that can change.

    folders: below ``cmsim.reading.DATA``; those inside of them do not count    most: answers that are kept [1]

    Arguments must be hashable, and nobody may change an answer.
    """

    def keep(read: Callable[P, T]) -> Callable[P, T]:
        # the state is taken before the files are read: what is written in between is seen by the next who asks
        @functools.lru_cache(maxsize=most)
        def kept(state: tuple[object, ...], *args: P.args, **more: P.kwargs) -> T:  # noqa: ARG001  # a key
            return read(*args, **more)

        @functools.wraps(read)
        def answer(*args: P.args, **more: P.kwargs) -> T:
            # functools has no word for arguments that are hashable
            return kept(tuple(map(_state, folders)), *args, **more)  # type: ignore[arg-type]

        return answer

    return keep


def _state(folder: str) -> tuple[object, ...]:
    """A folder as it is now: where it stands, and the state of every file in it."""
    where = names.DATA / folder
    return seen(("state", where), lambda: _looked_at(where))


def _looked_at(where: Path) -> tuple[object, ...]:
    found: list[_File] = []
    with os.scandir(where) as entries:
        for entry in entries:
            if entry.is_file():
                at = entry.stat()
                found.append((entry.name, at.st_mtime_ns, at.st_ctime_ns, at.st_size, at.st_ino))
    return (str(where), *sorted(found))


def while_equal(*, most: int = 8, most_B: int = 1 << 20) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Keeps the last answers of a function whose arguments are arrays, records of arrays, and what can be hashed.

    most: answers that are kept [1]    most_B: of arguments with more, none is kept: who asks of a million ranks asks
    once [B]

    The function follows from its arguments alone, and nobody may change an argument's arrays or an answer.
    """

    def keep(work: Callable[P, T]) -> Callable[P, T]:
        kept: OrderedDict[Hashable, T] = OrderedDict()
        turn = threading.Lock()

        @functools.wraps(work)
        def answer(*args: P.args, **more: P.kwargs) -> T:
            key = _content((args, more), [most_B])
            if key is None:
                return work(*args, **more)
            with turn:
                if key in kept:
                    kept.move_to_end(key)
                    return kept[key]
            # outside of the lock: two that ask first both work, and get equal answers
            made = work(*args, **more)
            with turn:
                kept[key] = made
                if len(kept) > most:
                    kept.popitem(last=False)
            return made

        return answer

    return keep


def _parts(value: Any) -> Iterable[Any] | None:
    """What a record, a sequence or a mapping is made of; None of what is one thing."""
    kind = type(value)
    if kind is tuple or kind is list or isinstance(value, list | tuple):
        return cast(Iterable[Any], value)
    if isinstance(value, dict):
        return (*value, *value.values())
    names = _fields(kind)  # type: ignore[arg-type]  # a type is hashable
    return None if names is None else [getattr(value, name) for name in names]


@functools.lru_cache(maxsize=256)
def _fields(kind: type[Any]) -> tuple[str, ...] | None:
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def _content(value: Any, room_B: list[int]) -> Hashable | None:
    """A key that is equal where all that a value holds is; None where its arrays are larger than the room there is,
    which they take."""
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray):
        room_B[0] -= value.nbytes
        return None if room_B[0] < 0 else (value.dtype.str, value.shape, value.tobytes())
    parts = _parts(value)
    if parts is None:
        return type(value), value
    out: list[Any] = [type(value)]
    for part in parts:
        key = _content(part, room_B)
        if key is None:
            return None
        out.append(key)
    return tuple(out)
