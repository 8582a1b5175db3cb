"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

from cmsim.errors import InputError, Problem


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """A file that is about to be written: its folder is made. InputError where either cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path
    except OSError as error:
        raise InputError(Problem(f"cannot be written ({error.strerror or error})", str(path))) from None


def write_text(path: Path, text: str) -> None:
    """A text file, in a folder that need not be there yet. InputError where it cannot be written."""
    with written(path):
        path.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """An empty folder to write into that takes the place of ``folder`` when all is written, and leaves no trace if not.

    InputError: the place cannot be written.
    """
    mine = f"{os.getpid()}.{threading.get_ident()}"
    beside, old = (folder.with_name(f".{folder.name}.{mine}.{which}") for which in ("new", "old"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        yield beside
        if folder.exists():
            folder.rename(old)
        try:
            beside.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    except OSError as error:
        raise InputError(Problem(f"cannot be written ({error.strerror or error})", str(folder))) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
