"""Bytes of a trace file: gzip by magic, a limit on the expanded size, errors that name file and byte."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from cmsim.errors import InputError, Problem
from cmsim.reading import regular

#: expanded size above which a trace file is refused unless the caller allows more [B]
LIMIT_B = 4 * 2**30
GZIP_MAGIC = b"\x1f\x8b"
#: how much of a file is asked for its format: the next only where no format knows the file by less [B]
HEADS_B = (2**12, 2**16, 2**20, 2**23)
#: what is read of the files of one folder for that, at each of these sizes [B]
_FOLDER_B = 2**26
#: what is expanded at a time [B]
_PART_B = 2**24


def bad(path: Path | str, message: str, *, byte: int | None = None) -> InputError:
    """The error for a file that is not what it should be; ``byte`` counts in the expanded file."""
    return InputError(Problem(message if byte is None else f"byte {byte}: {message}", str(path)))


def read_bytes(path: Path, *, limit_B: int = LIMIT_B) -> bytes:
    """The whole file, expanded where it starts with the gzip magic (names are not trusted). [B]

    Raises InputError where it cannot be read, is empty, is cut short, or expands beyond ``limit_B``.
    """
    with regular.opened(path) as (file, there):
        if there == 0:
            raise bad(path, "is empty")
        zipped = file.read(2) == GZIP_MAGIC
        file.seek(0)
        # what is asked for is set aside at once: no more than there is
        data = _expanded(path, file, limit_B) if zipped else file.read(min(there, limit_B) + 1)
    if len(data) > limit_B:
        raise bad(path, f"is larger than {limit_B} bytes when expanded; raise limit_B if that is meant")
    if not data:
        raise bad(path, "is empty")
    return data


def _expanded(path: Path, file: BinaryIO, limit_B: int) -> bytes:
    """What a zipped file holds, a byte more than ``limit_B`` at most."""
    parts, size = [], 0
    try:
        with gzip.GzipFile(fileobj=file) as expanded:
            while size <= limit_B and (part := expanded.read(min(_PART_B, limit_B + 1 - size))):
                parts.append(part)
                size += len(part)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise bad(path, f"broken gzip data ({error})") from None
    return b"".join(parts)


def head(path: Path, size: int = HEADS_B[0]) -> bytes:
    """The first bytes of a file, expanded, for sniffing; empty for a folder or where nothing can be read."""
    try:
        with regular.opened(path) as (file, there):
            start = file.read(size) if there else b""
            if not start.startswith(GZIP_MAGIC):
                return start
            start += file.read(_GZIP_MORE_B)
    except (InputError, OSError):
        return b""
    try:
        return zlib.decompressobj(wbits=31).decompress(start, size)
    except zlib.error:
        return b""


#: gzip may make a file longer than it was, by its head and a few bytes of each block [B]
_GZIP_MORE_B = 2**10


def heads(path: Path) -> Iterator[bytes]:
    """The first bytes of a file, expanded: ever more of them, up to the last of ``HEADS_B`` or the end of the file."""
    for size_B in HEADS_B:
        start = head(path, size_B)
        yield start
        if len(start) < size_B:
            return


def known(path: Path, knows: Callable[[bytes], bool]) -> bool:
    """Whether a file of JSON has a form by its first bytes; of other files no more than the least is looked at."""
    return any(knows(start) for start in heads(path) if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["))


def folder_heads(files: Sequence[Path], size_B: int) -> Iterator[bytes]:
    """The first bytes of the files of a folder: of fewer files the more is asked, so that a large folder costs little.

    What a smaller part shows whole is not given again.
    """
    less_B = max((one for one in HEADS_B if one < size_B), default=-1)
    for path in files[: max(_FOLDER_B // size_B, 1)]:
        start = head(path, size_B)
        if len(start) > less_B:
            yield start
