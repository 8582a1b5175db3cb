"""The long list of a large JSON file, a block of elements at a time, from a stream that may be gzipped.

Traces are one object with one list of millions of events in it. The whole of it as Python objects takes ten times its
size; here only one block is expanded at once.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import orjson

from cmsim.arrays import Ints
from cmsim.reading.bytes_in import GZIP_MAGIC, LIMIT_B, bad

#: text read at a time: its objects still fit a processor's cache, which doubles the speed over a few MiB [B]
BLOCK_B = 2**18
#: largest element, and largest text before or after the list: these are held whole [B]
WHOLE_B = 256 * 2**20
#: deepest nesting that is read; the parser of the elements stops at the same depth
DEPTH = 1024

_PIECE_B = 2**20
_GUESS_B = 2**16
_GUESSES = 3
#: white space allowed around the colon before the list [B]
_SPACE_B = 2**12
_BOM = b"\xef\xbb\xbf"
_FIRST_KEY = re.compile(rb'\s*(\{\s*"[^"\\]{0,100}"\s*:)')
_QUOTE, _COMMA, _OPEN, _CLOSE, _BACKSLASH = 0x22, 0x2C, 0x7B, 0x7D, 0x5C


class Blocks:
    """Iterates once over the elements of the list, in lists of some thousands.

    header    the other values of the object, those after the list too: whole after the iteration
    bare      the file is a list, with no object around it
    start_B   where the text of the block last given starts in the expanded file [B]
    size_B    expanded text read so far [B]
    lenient   blocks that are JSON only by the looser rules of Python's json (NaN, inf, raw control characters, broken
              UTF-8)
    """

    def __init__(self, path: Path, *, key: str | None, limit_B: int, block_B: int) -> None:
        self.header: dict[str, Any] = {}
        self.bare = key is None
        self.start_B = 0
        self.size_B = 0
        self.lenient = 0
        self._path, self._key, self._limit_B, self._block_B = path, key, limit_B, max(block_B, 1)

    def __iter__(self) -> Iterator[list[Any]]:
        try:
            with self._path.open("rb") as file:
                zipped = file.read(2) == GZIP_MAGIC
                file.seek(0)
                if zipped:
                    with gzip.GzipFile(fileobj=file) as expanded:
                        yield from self._elements(expanded)
                else:
                    yield from self._elements(file)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise bad(self._path, f"broken gzip data ({error})", byte=self.size_B) from None
        except OSError as error:
            raise bad(self._path, f"cannot be read ({error.strerror or error})") from None

    def _read(self, file: BinaryIO | gzip.GzipFile) -> bytes:
        # A gzip member of a few bytes may expand to any size: never ask for more than the limit leaves.
        data = file.read(min(self._block_B, self._limit_B + 1 - self.size_B))
        self.size_B += len(data)
        if self.size_B > self._limit_B:
            raise bad(self._path, f"is larger than {self._limit_B} bytes when expanded; raise limit_B if that is meant")
        return data

    def _elements(self, file: BinaryIO | gzip.GzipFile) -> Iterator[list[Any]]:
        rest, base = self._before(file)
        # Elements start alike, lists of objects inside them otherwise, as a rule.
        alike = _FIRST_KEY.match(rest)
        guess = re.compile(rb"\}\s*(,)\s*" + re.escape(alike[1])) if alike else None
        guesses, ended, comma, scan = _GUESSES, False, False, _Scan()
        while True:
            cut, closed, elements = -1, False, None
            if guess and guesses and not ended and not scan.at:
                for found in guess.finditer(rest, max(len(rest) - _GUESS_B, 0)):
                    cut = found.start(1)
                if cut >= 0:
                    try:
                        elements = _loads(rest, cut)
                    except orjson.JSONDecodeError:
                        # Only at a comma of the list itself is the text before it a run of whole elements.
                        guesses, cut = guesses - 1, -1
            if elements is None:
                cut, closed = self._boundary(rest, scan, base)
                if cut >= 0:
                    elements = self._parsed(rest, cut, base, comma and closed)
            if elements:
                self.start_B = base
                yield elements
            if cut >= 0:
                rest, base, comma, scan = rest[cut + 1 :], base + cut + 1, True, _Scan()
            if closed:
                return self._after(file, rest, base)
            if ended and cut < 0:
                what = "the list" if self.bare else f"the list {self._key}"
                raise bad(self._path, f"cut short: {what} is not closed", byte=self.size_B)
            if len(rest) > WHOLE_B:
                raise bad(self._path, f"an element of over {WHOLE_B} bytes", byte=base)
            ended, rest = self._longer(file, rest)

    def _boundary(self, text: bytes, scan: _Scan, base: int) -> tuple[int, bool]:
        """The last comma between elements, or the bracket that closes the list (True); -1 where there is neither."""
        cut = scan.cut
        while scan.at < len(text):
            at = scan.at
            pos, kind, depth = scan.piece(text, self._path, base)
            out = np.flatnonzero(depth < 0)
            if len(out):
                return at + int(pos[out[0]]), True
            between = np.flatnonzero((kind == _COMMA) & (depth == 0))
            if len(between):
                cut = scan.cut = at + int(pos[between[-1]])
        return cut, False

    def _parsed(self, text: bytes, end: int, base: int, after_comma: bool) -> list[Any]:
        if not text[:end].strip():
            if after_comma or text[end : end + 1] == b",":
                raise bad(self._path, "not valid JSON (an element is missing)", byte=base + end)
            return []
        try:
            return _loads(text, end)
        except orjson.JSONDecodeError as error:
            value = self._loose(b"[" + text[:end] + b"]", error, base - 1)
            assert isinstance(value, list)
            return value

    def _loose(self, text: bytes, error: orjson.JSONDecodeError, base: int) -> Any:
        """Profilers write ``inf`` and ``nan`` for rates over no time, and names as they are (paths of Windows)."""
        numbers = _INFINITE.sub(rb"\1Infinity", text)
        try:
            value = _python(numbers)
        except (ValueError, RecursionError):
            try:
                value = _python(_ESCAPE.sub(_escaped, _NAN.sub(b"NaN", numbers)))
            except (ValueError, RecursionError):
                raise bad(self._path, f"not valid JSON ({error.msg})", byte=base + _byte(text, error)) from None
        self.lenient += 1
        return value

    def _object(self, text: bytes, base: int) -> None:
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            value = self._loose(text, error, base)
        if not isinstance(value, dict):
            raise bad(self._path, "not valid JSON (no object)", byte=base)
        for name, one in value.items():
            if name == self._key or name in self.header:
                raise bad(self._path, f"the key {name!r:.60} stands twice")
            self.header[name] = one

    def _before(self, file: BinaryIO | gzip.GzipFile) -> tuple[bytes, int]:
        """What follows the opening bracket of the list, and where that stands."""
        text, ended = b"", False
        while not ended and len(text.lstrip()) < 4:
            more = self._read(file)
            ended, text = not more, text + more
            if len(text) > WHOLE_B:
                raise bad(self._path, "not JSON: only white space")
        skip = len(_BOM) if text.startswith(_BOM) else 0
        skip += len(text[skip:]) - len(text[skip:].lstrip())
        opening = text[skip : skip + 1]
        if not text:
            raise bad(self._path, "is empty")
        if opening == b"[":
            self.bare = True
            return text[skip + 1 :], skip + 1
        if opening != b"{" or self._key is None:
            expected = "[" if self._key is None else "{ or ["
            raise bad(self._path, f"not the JSON expected: got {opening!r}, expected {expected}", byte=skip)
        return self._at_key(file, text, skip)

    def _at_key(self, file: BinaryIO | gzip.GzipFile, text: bytes, skip: int) -> tuple[bytes, int]:
        quoted = orjson.dumps(self._key)
        key_value = re.compile(re.escape(quoted) + rb"\s*:\s*(\S)")
        scan, ended = _Scan(), False
        scan.at = skip
        while True:
            while scan.at < len(text):
                at = scan.at
                pos, kind, depth = scan.piece(text, self._path, 0)
                for place in (at + pos[(kind == _QUOTE) & (depth == 1)]).tolist():
                    while not ended and place + len(quoted) + _SPACE_B > len(text):
                        ended, text = self._longer(file, text)
                    match = key_value.match(text, place, place + len(quoted) + _SPACE_B)
                    if match and match[1] != b"[":
                        raise bad(self._path, f"{self._key} is not a list", byte=match.start(1))
                    if match:
                        self._object(text[skip:place].rstrip().rstrip(b",") + b"}", skip)
                        return text[match.end() :], match.end()
                if len(depth) and depth[-1] <= 0:
                    raise bad(self._path, f"no list {self._key} in it", byte=scan.at)
            if ended:
                raise bad(self._path, f"cut short, or no JSON: no list {self._key} in it", byte=self.size_B)
            if len(text) > WHOLE_B:
                raise bad(self._path, f"no list {self._key} in the first {WHOLE_B} bytes")
            ended, text = self._longer(file, text)

    def _longer(self, file: BinaryIO | gzip.GzipFile, text: bytes) -> tuple[bool, bytes]:
        """Whether the file has ended, and the text with more of it.

        Text without what is looked for doubles, so that no byte is copied often.
        """
        more = [self._read(file)]
        while more[-1] and sum(map(len, more)) < len(text):
            more.append(self._read(file))
        return not more[-1], b"".join((text, *more))

    def _after(self, file: BinaryIO | gzip.GzipFile, rest: bytes, base: int) -> None:
        chunks, size = [rest], len(rest)
        while chunks[-1] or len(chunks) == 1:
            chunks.append(self._read(file))
            size += len(chunks[-1])
            if size > WHOLE_B:
                raise bad(self._path, f"over {WHOLE_B} bytes after the list", byte=base)
        text = b"".join(chunks)
        start = base + len(text) - len(text.lstrip())
        text = text.strip()
        if self.bare:
            if text:
                raise bad(self._path, f"not valid JSON (got {text[:10]!r} after the list)", byte=start)
        elif text[:1] == b",":
            self._object(b"{" + text[1:], start)
        elif not text:
            raise bad(self._path, "cut short after the list", byte=self.size_B)
        elif text != b"}":
            raise bad(self._path, f"not valid JSON (got {text[:10]!r} after the list)", byte=start)


_INFINITE = re.compile(rb"(?<=[:,\[\s])(-?)inf(?:inity)?(?=\s*[,\]}])", re.IGNORECASE)
_NAN = re.compile(rb"(?<=[:,\[\s])-?nan(?=\s*[,\]}])", re.IGNORECASE)
#: a backslash with what it may stand before, or alone
_ESCAPE = re.compile(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})?')


def _escaped(found: re.Match[bytes]) -> bytes:
    """A backslash that escapes nothing stands for itself."""
    return rb"\\" if len(found[0]) == 1 else found[0]


def _python(text: bytes) -> Any:
    return json.loads(text.decode("utf-8", "replace"), strict=False)


def _loads(text: bytes, end: int) -> list[Any]:
    value = orjson.loads(b"".join((b"[", memoryview(text)[:end], b"]")))
    assert isinstance(value, list)
    return value


def _byte(text: bytes, error: orjson.JSONDecodeError) -> int:
    """Byte of an error that counts in characters."""
    try:
        return len(text.decode()[: error.pos].encode())
    except UnicodeDecodeError as broken:
        return broken.start


class _Scan:
    """Brackets, commas and starts of strings from a place that is in no string, carried over pieces of text.

    at    up to where the text was looked at
    depth brackets open there, those before the start not counted
    cut   for the caller
    """

    def __init__(self) -> None:
        self.at, self.depth, self.cut = 0, 0, -1
        self._inside, self._escaped = 0, False

    def piece(self, text: bytes, path: Path, base: int) -> tuple[Ints, Ints, Ints]:
        """Of the next piece: positions from its start, characters ({ and } for all brackets), depth after each."""
        raw = np.frombuffer(text, np.uint8, min(_PIECE_B, len(text) - self.at), self.at)
        low = raw | 0x20  # [ and ] become { and }
        mark = (raw == _QUOTE) | (raw == _COMMA) | (low == _OPEN) | (low == _CLOSE)
        self._unmark_escaped(raw, mark)
        pos = np.flatnonzero(mark)
        quote = raw[pos] == _QUOTE
        inside = (np.cumsum(quote) + self._inside) & 1
        if len(pos):
            self._inside = int(inside[-1])
        pos = pos[inside == quote]
        kind = np.where(raw[pos] < _OPEN, raw[pos], 0)
        kind = np.where((low[pos] == _OPEN) | (low[pos] == _CLOSE), low[pos], kind)
        depth = self.depth + np.cumsum((kind == _OPEN).astype(np.int64) - (kind == _CLOSE))
        if len(depth):
            if int(depth.max()) > DEPTH:
                place = base + self.at + int(pos[int(np.argmax(depth > DEPTH))])
                raise bad(path, f"nested deeper than {DEPTH}", byte=place)
            self.depth = int(depth[-1])
        self.at += len(raw)
        return pos, kind.astype(np.int64), depth

    def _unmark_escaped(self, raw: Any, mark: Any) -> None:
        start = int(self._escaped)
        if start and len(mark):
            mark[0] = False
        self._escaped = False
        slash = np.flatnonzero(raw[start:] == _BACKSLASH) + start
        if not len(slash):
            return
        # In a run of backslashes each second one stands for itself: the character after an odd run is escaped.
        first = np.flatnonzero(np.diff(slash, prepend=-2) > 1)
        last = np.append(first[1:] - 1, len(slash) - 1)
        after = slash[last][(last - first) % 2 == 0] + 1
        if len(after) and after[-1] == len(raw):
            self._escaped, after = True, after[:-1]
        mark[after] = False


def blocks(path: Path, *, key: str | None, limit_B: int = LIMIT_B, block_B: int = BLOCK_B) -> Blocks:
    """The elements of the list under ``key`` of the file's object, or of the file where that is a list.

    key      None: the file must be a list
    limit_B  largest expanded size [B]
    block_B  text to parse at a time [B]

    The iteration raises InputError, with the byte in the expanded file, where the file is no such JSON, is cut short,
    or expands beyond ``limit_B``.
    """
    return Blocks(path, key=key, limit_B=limit_B, block_B=block_B)
