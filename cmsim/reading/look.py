"""One look at what is built in, for as long as something is made that has to fit together.

Who makes a run, or several, looks at folders again and again, and asks the same of one system. Within `one_look` each
is as it was when it was first looked at: that is quicker, and no half of a run sees an edit that another half did not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_SEEN: ContextVar[dict[Hashable, Any] | None] = ContextVar("seen", default=None)


@contextlib.contextmanager
def one_look() -> Iterator[None]:
    """Until the end, folders are as they were when first looked at; inside of another, it is the same look."""
    token = _SEEN.set({}) if _SEEN.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _SEEN.reset(token)


def seen(what: Hashable, look: Callable[[], T]) -> T:
    """What a look shows, or showed before within `one_look`; nobody may change it."""
    known = _SEEN.get()
    if known is None:
        return look()
    if what not in known:
        known[what] = look()
    found: T = known[what]
    return found


def of_one(what: Hashable, whose: object, look: Callable[[], T]) -> T:
    """The same of something that follows from one object, told from others by its identity; it is kept beside the
    answer, so that nothing else gets that."""
    if _SEEN.get() is None:
        return look()
    return seen((what, id(whose)), lambda: (whose, look()))[1]


__all__ = ["of_one", "one_look", "seen"]
