"""Registries of file formats: found by what a file holds, or asked for by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.reading.bytes_in import HEADS_B, LIMIT_B, bad, head, heads, read_bytes

T_co = TypeVar("T_co", covariant=True)

#: what people also have, and why it is not read: a mark in the first bytes, and what to say
_KNOWN_OTHERS = {
    b"https://git-lfs.github.com/spec": "is a pointer of Git LFS; fetch the file itself with 'git lfs pull'",
    b'"conversations"': "holds conversations: it is read where requests are asked for",
}
#: files of a folder that a note names, others are counted
_NAMED = 20


class Opener(Protocol[T_co]):
    """Reads a file or folder, or raises InputError with the place of what is wrong."""

    def __call__(self, path: Path, *, limit_B: int = LIMIT_B) -> T_co: ...


@dataclass(frozen=True)
class Importer(Generic[T_co]):
    """One format.

    sniff  says from the first bytes (expanded; empty for a folder) and the path whether the format is this one
    open_  reads it
    module where the two stand, when that is imported only for a file that may be of the format
    holds  says whether a folder is of this format, by so many first bytes of its files [B]; None: ``sniff`` says it
    """

    sniff: Callable[[bytes, Path], bool]
    open_: Opener[T_co]
    module: str = ""
    holds: Callable[[Path, int], bool] | None = None


def later(module: str, may: Callable[[bytes, Path], bool]) -> Importer[Any]:
    """A format whose module, with its ``sniff`` and ``open_``, is imported when a file may be one.

    may: false only of what is none
    """

    def sniff(start: bytes, path: Path) -> bool:
        return may(start, path) and bool(importlib.import_module(module).sniff(start, path))

    def open_(path: Path, *, limit_B: int = LIMIT_B) -> Any:
        return importlib.import_module(module).open_(path, limit_B=limit_B)

    def holds(path: Path, size_B: int) -> bool:
        if not may(b"", path):
            return False
        form = importlib.import_module(module)
        return bool(form.holds(path, size_B) if hasattr(form, "holds") else form.sniff(b"", path))

    return Importer(sniff, open_, module, holds)


def sniffed(path: Path, importers: Mapping[str, Importer[T_co]]) -> str | None:
    """Name of the first format that knows a file or folder, None where none does.

    All are asked with the first 4 KiB; long lines, preambles and metadata may fill these, so that more is read, up to
    the last of ``HEADS_B``, where none of them knows the file.
    """
    if path.is_dir():
        for size_B in HEADS_B:
            for name, importer in importers.items():
                if importer.sniff(b"", path) if importer.holds is None else importer.holds(path, size_B):
                    return name
        return None
    for start in heads(path):
        for name, importer in importers.items():
            if importer.sniff(start, path):
                return name
    return None


def not_used(paths: Iterable[Path], why: str) -> list[str]:
    """The note that names what a folder also holds and nothing was read of; [] for nothing.

    >>> not_used([Path("a/b.txt"), Path("a/c.bin")], "no profile")
    ['not used: b.txt, c.bin (no profile)']
    """
    names = sorted({one.name + ("/" if one.is_dir() else "") for one in paths if not one.name.startswith(".")})
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [f"not used: {', '.join(names[:_NAMED])}{more} ({why})"] if names else []


def inside(path: Path) -> str:
    """What a folder of no format of its own holds, to end an error with; "" for a file."""
    names = sorted(one.name for one in path.iterdir()) if path.is_dir() else []
    if not names:
        return "; the folder is empty" if path.is_dir() else ""
    return (
        f"; the folder holds {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}: name one"
    )


def opened(
    path: Path | str,
    importers: Mapping[str, Importer[T_co]],
    *,
    of: str,
    format: str | None = None,
    folders: bool = False,
    limit_B: int = LIMIT_B,
) -> T_co:
    """What a file holds, in whichever known format it is.

    importers  asked in this order    of: what they are formats of, for errors    format: not to be guessed
    folders    whether a folder may hold one    limit_B: size above which an expanded file is refused [B]

    Raises InputError naming the file.
    """
    path = Path(path)
    if format is not None and format not in importers:
        raise InputError(f"no format of {of} is named '{format}'. {did_you_mean(format, importers)}")
    if not path.exists():
        raise InputError(Problem("no such file or folder" if folders else "no such file", str(path)))
    if path.is_dir() and not folders:
        raise InputError(Problem("is a folder", str(path)))
    found = format or sniffed(path, importers)
    if found is None:
        start = head(path)
        if not start and not path.is_dir():
            read_bytes(path, limit_B=limit_B)  # says what is wrong with it
        for mark, message in _KNOWN_OTHERS.items():
            if mark in start:
                raise bad(path, message)
        raise bad(path, f"no known format of {of} ({', '.join(importers)}){inside(path)}")
    return importers[found].open_(path, limit_B=limit_B)
