"""The one place where files are opened to be read: regular ones, no larger than allowed, and as large as they say.

Devices never end, pipes wait for somebody, and files of ``/proc`` say that they hold nothing: none of them is opened.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cmsim.errors import InputError, Problem


def exists(path: Path, *, folders: bool = False) -> bool:
    """Whether a file, or anything else that is no folder, is there; a name that no file can have is not there.

    folders: may be one as well
    """
    try:
        return path.exists() and (folders or not path.is_dir())
    except (OSError, ValueError):  # a name too long, or with a zero in it
        return False


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file, open for reading, and its size. [B] Raises InputError where it is none or cannot be read."""
    try:
        what = _what(path.stat().st_mode)
        if what:
            raise InputError(Problem(f"is {what}; allowed: regular files", str(path)))
        with path.open("rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(Problem(f"cannot be read ({error.strerror or error})", str(path))) from None
    except ValueError as error:
        raise InputError(Problem(f"is no name of a file ({error})", repr(str(path)))) from None


def content(path: Path, limit_B: int) -> bytes:
    """A whole file. Raises InputError where it is no regular one, cannot be read, or is larger than ``limit_B``."""
    with opened(path) as (file, size):
        if size > limit_B:
            raise InputError(Problem(f"is {size} bytes; allowed: up to {limit_B}", str(path)))
        return file.read(size)


def _what(mode: int) -> str:
    """What a file is that is no regular one; nothing of one that is."""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # a folder says so itself when it is opened
        return ""
    kinds = {stat.S_ISFIFO: "a pipe", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device", stat.S_ISSOCK: "a socket"}
    return next((word for test, word in kinds.items() if test(mode)), "no regular file")
