"""The folder of a sweep: one process at a time writes to it, and what it has is never left out in silence."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from cmsim.errors import InputError, Problem

#: held by the process that writes to a folder, and let go by the system when that ends
LOCK = ".lock"


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else writes to the folder meanwhile. Raises InputError where somebody does, and where nobody can."""
    from filelock import FileLock, Timeout

    try:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
        if not folder.is_dir():
            raise InputError(Problem("is no folder", str(folder)))
        lock = FileLock(folder / LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        message = "another sweep is writing to it. Wait for its end, or choose another folder with --out"
        raise InputError(Problem(message, str(folder))) from None
    except OSError as error:
        raise InputError(Problem(f"cannot be written ({error.strerror or error})", str(folder))) from None
    try:
        yield
    finally:
        lock.release()


def check(folder: Path, done: Collection[str], wanted: Collection[str] | None, *, resume: bool) -> None:
    """Raises InputError where the folder has points that are not to be touched: any without ``resume``, and others than
    those that are wanted, where these are known."""
    if done and not resume:
        message = f"has {len(done)} points of a sweep. Go on with --resume, or choose another folder with --out"
        raise InputError(Problem(message, str(folder)))
    if wanted is not None and (others := len(set(done) - set(wanted))):
        message = (
            f"has {others} points that this scenario does not have, of another scenario, system file, `record` or "
            "version of cmsim. Choose another folder with --out"
        )
        raise InputError(Problem(message, str(folder)))


__all__ = ["LOCK", "alone", "check"]
