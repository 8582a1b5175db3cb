"""Work spread over processes, its answers in the order of the items: the same as in one process, sooner.

Processes are started anew (spawned), whatever the platform, so that nothing of this one's threads and locks is in them:
a program that asks for them has its own work below ``if __name__ == "__main__":``.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from cmsim.errors import CmsimError, FailedError

T = TypeVar("T")
R = TypeVar("R")

#: what a process takes to start and import what runs need, of its core's time [s]
START_s = 1.0
#: items that go to a process at once, at most: what a stop waits for, and what a reader has to wait with
_AT_ONCE = 16
#: and of work that is quicker with several in hand; either for about so long [s]
_MOST_AT_ONCE, _MOMENT_s = 64, 1.0
#: packets of each process that are under way or wait to be read: more are not begun before they are asked for
_AHEAD = 3


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(here: Callable[[T], R], away: Callable[[T], R], items: Sequence[T], jobs: int | None) -> Iterator[R]:
    """What becomes of each item, in their order, each begun not much before it is asked for.

    here, away   the work in this process, and in another: a function of a module, or a partial of one
    jobs         processes; 1: all is done here; None: as many as there are cores, once the work that is left takes so
                 long, by the mean of what is done, that to start them pays. Answers are the same.

    Errors of the work come where its answer would. Raises FailedError where a process is ended from outside.
    """
    return in_packets(functools.partial(map, here), functools.partial(map, away), items, jobs, most=1)


def in_packets(
    here: Callable[[Sequence[T]], Iterable[R]],
    away: Callable[[Sequence[T]], Iterable[R]],
    items: Sequence[T],
    jobs: int | None,
    *,
    most: int = _MOST_AT_ONCE,
) -> Iterator[R]:
    """As `in_order`, of work that is quicker with several items in hand: it takes some and answers one by one.

    most   items that it has in hand at once; fewer where they take long, for what is in hand is lost with a process
    """
    done, spent_s = 0, 0.0
    while done < len(items) and (jobs == 1 or (jobs is None and not _pays(done, spent_s, len(items) - done))):
        packet = items[done : done + _in_hand(done, spent_s, most)]
        begin_s = time.monotonic()
        for answer in here(packet):
            spent_s += time.monotonic() - begin_s
            done += 1
            yield answer
            begin_s = time.monotonic()
    if done < len(items):
        jobs = min(jobs or cores(), len(items) - done)
        yield from _spread(away, items[done:], jobs, max(_AT_ONCE, most), done, spent_s)


def _in_hand(done: int, spent_s: float, most: int) -> int:
    """Items for a moment's work, by the mean of what is done, and no more than that are: a few may say too little."""
    return max(1, min(most, done, int(_MOMENT_s * done / max(spent_s, 1e-9))))


def _pays(done: int, spent_s: float, left: int) -> bool:
    """Whether all cores are sooner through with what is left, by more than it takes to start them: what is done in the
    time of a start says too little of it, for the first items also fill what is kept for the others."""
    if spent_s < START_s:
        return False
    left_s = spent_s / done * left
    return left_s / min(cores(), left) + 2 * START_s < left_s


def _spread(
    away: Callable[[Sequence[T]], Iterable[R]], items: Sequence[T], jobs: int, most: int, done: int, spent_s: float
) -> Iterator[R]:
    """done, spent_s: items before these, and how long they took together [s]"""
    most, at = max(1, min(most, len(items) // (4 * jobs))), 0
    fresh = multiprocessing.get_context("spawn")
    stop = fresh.Event()
    under_way: deque[Future[tuple[list[R], CmsimError | None, float]]] = deque()
    with ProcessPoolExecutor(jobs, mp_context=fresh, initializer=_begin, initargs=(stop,)) as pool:
        try:
            while True:
                while len(under_way) < _AHEAD * jobs and at < len(items):
                    packet = items[at : at + _in_hand(done, spent_s, most)]
                    at += len(packet)
                    with _undisturbed():  # processes start with the first
                        under_way.append(pool.submit(_done, away, packet))
                if not under_way:
                    return
                answers, error, took_s = under_way.popleft().result()
                done, spent_s = done + len(answers), spent_s + took_s
                yield from answers
                if error is not None:
                    raise error
        except BrokenProcessPool:
            what = "a process that worked on runs was ended from outside, or had no memory left"
            raise FailedError(f"{what}: with `--jobs 1` they run one after the other") from None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


#: in a process that was started: set once nobody asks for more
_STOP: list[Event] = []


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A stop from the keyboard waits, here and in processes that start meanwhile, until they are ready for it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    came: list[tuple[int, Any]] = []
    # those that start are as deaf as this thread; to hear of it for this one, any other thread is enough
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda *said: came.append(said)) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if came and callable(handler):
            handler(*came[0])


def _begin(stop: Event) -> None:
    """A stop from the keyboard goes to all processes: these end without a word, the first says what there is to say."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _STOP.append(stop)


def _done(work: Callable[[Sequence[T]], Iterable[R]], items: Sequence[T]) -> tuple[list[R], CmsimError | None, float]:
    """Answers up to the first error, that, and how long it took. [s]"""
    answers: list[R] = []
    found, begin_s = None, time.monotonic()
    try:
        for answer in work(items):
            answers.append(answer)
            if _STOP[0].is_set():
                break
    except CmsimError as error:
        found = error
    return answers, found, time.monotonic() - begin_s


__all__ = ["START_s", "cores", "in_order", "in_packets"]
