"""Files and folders that are written whole or not at all.

What is not ready yet lies hidden beside its place, as ``.NAME.cmsim-HOST-PID-THREAD.new``, and what it is about to
replace as ``.old``. Whoever writes there next sweeps away what processes of this host left that are gone.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from cmsim.errors import InputError, Problem

_LEFT = re.compile(r"\.(?P<name>.+)\.cmsim-(?P<host>[0-9a-f]{8})-(?P<pid>[0-9]{1,10})-[0-9]+\.(?P<which>new|old)")
#: how often two runs may take each other's place
_TRIES = 100


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """Where to write a file that takes the place of ``path`` when all is written; its folder is made.

    InputError where it cannot be written; what stood there stays as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        with whole_file(path) as beside:
            yield beside
    except OSError as error:
        raise InputError(Problem(f"cannot be written ({error.strerror or error})", str(path))) from None


def write_text(path: Path, text: str) -> None:
    """A text file, in a folder that need not be there yet. InputError where it cannot be written."""
    with written(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """As `written`, with errors of the system as they come, and without a look at what others left."""
    if path.exists() and not path.is_file():  # a terminal, a pipe
        yield path
        return
    path = Path(os.path.realpath(path))  # a link stays one
    beside = _beside(path, "new")
    try:
        yield beside
        beside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write into that takes the place of ``folder`` when all is written, and leaves no trace if not.

    Of several at once the last to be ready stands there, whole. InputError: the place cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    beside, old = _beside(folder, "new"), _beside(folder, "old")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        yield beside
        _take_place(beside, folder, old)
    except OSError as error:
        raise InputError(Problem(f"cannot be written ({error.strerror or error})", str(folder))) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what processes of this host that are gone left in a folder, half-written.

    What one was about to replace is put back. What other hosts left, on a disk that is shared, stays.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in list(entries):
            found = _LEFT.fullmatch(entry.name)
            if found is None or found["host"] != _host() or not _is_gone(int(found["pid"])):
                continue
            left, place = Path(entry.path), folder / found["name"]
            with contextlib.suppress(OSError):
                if found["which"] == "old" and not place.exists():
                    left.rename(place)
                elif entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink()


def _take_place(new: Path, folder: Path, old: Path) -> None:
    """``new`` becomes ``folder``, whatever stands there and whoever else does the same."""
    for left in reversed(range(_TRIES)):
        shutil.rmtree(old, ignore_errors=True)  # of the try before: another whole one is there by now
        with contextlib.suppress(FileNotFoundError):
            folder.rename(old)
        try:
            new.rename(folder)
            break
        except (OSError, KeyboardInterrupt) as error:
            came_between = isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST)
            if not (came_between and left):
                with contextlib.suppress(OSError):
                    old.rename(folder)
                raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, which: str) -> Path:
    return path.with_name(f".{path.name}.cmsim-{_host()}-{os.getpid()}-{threading.get_ident()}.{which}")


@functools.lru_cache(maxsize=1)
def _host() -> str:
    """What tells this host's process numbers from those of others: its name, and of containers their own numbering."""
    try:
        numbering = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116  # no file of a user's
    except OSError:
        numbering = 0
    return hashlib.blake2s(f"{platform.node()} {numbering}".encode(), digest_size=4).hexdigest()


def _is_gone(pid: int) -> bool:
    """Whether there is no process of that number; where that cannot be asked, no."""
    if os.name != "posix":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
