"""Answers from built-in files, kept for as long as the files stay as they are.

A process may live for days, a page's or a worker's, and people edit files under it. What is read once is therefore kept
under the state of the files that it was read from: where each is, when it changed, how large it is. An edit is seen at
the next question, and threads may ask side by side: two that ask first both read, and get equal answers.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from cmsim.reading import names

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
    found: list[_File] = []
    with os.scandir(where) as entries:
        for entry in entries:
            if entry.is_file():
                at = entry.stat()
                found.append((entry.name, at.st_mtime_ns, at.st_ctime_ns, at.st_size, at.st_ino))
    return (str(where), *sorted(found))
