"""Who waits, in the order in which they are begun."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence


class Waiting:
    """A queue: those of a lower priority number first, of one priority in their order.

    priority  of each request
    """

    __slots__ = ("_lines", "_priority")

    def __init__(self, priority: Sequence[int] | None, classes: int):
        self._priority = priority
        self._lines: list[deque[int]] = [deque() for _ in range(classes)]

    def __bool__(self) -> bool:
        return any(self._lines)

    def __iter__(self) -> Iterator[int]:
        return (one for line in self._lines for one in line)

    @property
    def first(self) -> int:
        """Who is next; -1 where nobody waits."""
        for line in self._lines:
            if line:
                return line[0]
        return -1

    def take(self) -> int:
        """Who is next, and waits no more."""
        return next(line for line in self._lines if line).popleft()

    def append(self, one: int) -> None:
        """Behind all others of its priority."""
        self._lines[0 if self._priority is None else self._priority[one]].append(one)

    def again(self, one: int) -> None:
        """Before all others of its priority."""
        self._lines[0 if self._priority is None else self._priority[one]].appendleft(one)
