"""The garbage collector, paused while millions of objects come and go of which none is in a cycle.

Whether it runs is one thing for the whole process, which threads share: whoever comes first pauses it, whoever leaves
last lets it go on, so that it is never left off, whatever overlaps. Where runs follow each other so closely that there
is no last one, each that leaves has it look once.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator


class _Pause:
    """Who is inside, and whether the collector ran before the first of them came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._ran = False

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._ran = gc.isenabled()
                gc.disable()
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            last, ran = self._inside == 0, self._ran
            if last and ran:
                gc.enable()
        if ran and not last:
            gc.collect()


_PAUSE = _Pause()


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Inside, nobody looks for cycles: worth it only where there are many objects and none is in one."""
    _PAUSE.enter()
    try:
        yield
    finally:
        _PAUSE.leave()


def off() -> None:
    """For a program that starts: nobody looks until `settled`, for what is imported lives to the end."""
    gc.disable()


def settled() -> None:
    """For a program that has started: look from here on, but not among what was imported."""
    gc.freeze()
    gc.enable()
