"""Bytes of a trace file: gzip by magic, a limit on the expanded size, errors that name file and byte."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO

from cmsim.errors import InputError, Problem
from cmsim.reading import regular

#: expanded size above which a trace file is refused unless the caller allows more [B]
LIMIT_B = 4 * 2**30
GZIP_MAGIC = b"\x1f\x8b"
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


def head(path: Path, size: int = 4096) -> bytes:
    """The first bytes of a file, expanded, for sniffing; empty for a folder or where nothing can be read."""
    try:
        with regular.opened(path) as (file, there):
            start = file.read(size) if there else b""
    except InputError:
        return b""
    if not start.startswith(GZIP_MAGIC):
        return start
    try:
        return zlib.decompressobj(wbits=31).decompress(start, size)
    except zlib.error:
        return b""
