"""Protobuf bytes of Chakra traces to columns: many messages at once, one field of each at a time.

Where messages begin is found one after the other, for each says where the next one is. From there on all nodes of a
block are walked side by side: the n-th step reads the n-th field of every node. What is spelt in an unusual way (other
fields, other wire types, broken bytes) is marked ``odd`` and left to the caller, so that only the plain spelling that
all producers use is decoded here.

Source: the protobuf wire format, https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from mmap import mmap

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from cmsim.arrays import Floats, Ints

#: the bytes of a file, read or mapped
Data = bytes | mmap
Words = NDArray[np.uint64]
Flags = NDArray[np.bool_]

#: what is decoded together: enough messages to make calls of NumPy worth their while, few enough for the cache
_BLOCK, _BLOCK_B = 8192, 1 << 22
#: messages below which stepping side by side costs more than walking them one by one
_FEW = 48
#: zeros behind a block, so that a word can be read at its last byte
_PAD = 16

#: tags of a node: field number times 8 plus wire type (0 varint, 2 length and bytes)
ID, NAME, TYPE, DURATION, INPUTS, ATTR = 0x08, 0x12, 0x18, 0x38, 0x42, 0x52
CTRL_DEP, CTRL_DEPS, DATA_DEP, DATA_DEPS = 0x20, 0x22, 0x28, 0x2A
_START, _OUTPUTS = 0x30, 0x4A
_VARINT, _BYTES = 1, 2
_FORM = np.zeros(256, np.uint8)
_FORM[[ID, TYPE, DURATION, CTRL_DEP, DATA_DEP, _START]] = _VARINT
_FORM[[NAME, INPUTS, _OUTPUTS, ATTR, CTRL_DEPS, DATA_DEPS]] = _BYTES

#: tags of an attribute's value: int32, int64, uint32, uint64; double; bool and string have tags of two bytes
_INT32, _INT64, _UINT32, _UINT64, _DOUBLE, _BOOL, _STRING = 0x38, 0x48, 0x58, 0x68, 0x19, 0x01D8, 0x01EA
_WHOLE_BITS = np.zeros(256, np.uint8)
_WHOLE_BITS[[_INT32, _UINT32]] = 31
_WHOLE_BITS[[_INT64, _UINT64]] = 63


def _u(number: int) -> np.uint64:
    return np.uint64(number)


_ONE, _SEVEN, _EIGHT, _BYTE = _u(1), _u(7), _u(8), _u(0xFF)
_LOW7, _HIGH = _u(0x7F7F7F7F7F7F7F7F), _u(0x8080808080808080)
_PAIRS = (
    (_u(0x007F007F007F007F), _u(0x7F007F007F007F00), _u(1)),
    (_u(0x00003FFF00003FFF), _u(0x3FFF00003FFF0000), _u(2)),
    (_u(0x000000000FFFFFFF), _u(0x0FFFFFFF00000000), _u(4)),
)


class BadMessageError(ValueError):
    """A message that makes no sense, or a value in it; ``row`` counts messages of the block."""

    def __init__(self, message: str, row: int = 0):
        super().__init__(message)
        self.row = row


# -- messages ----------------------------------------------------------------------------------------------


def varint(data: Data | memoryview, at: int) -> tuple[int, int]:
    """The LEB128 number at a byte, and the byte after it. Raises BadMessageError."""
    value = shift = 0
    for i in range(at, min(at + 10, len(data))):
        byte = data[i]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, i + 1
        shift += 7
    short = len(data) - at < 10
    raise BadMessageError("the length of a message is cut short" if short else "a length of over 10 bytes")


def message_offsets(data: Data) -> tuple[Ints, str]:
    """Where each message's length stands, and what is wrong with the last one (then it is no message), else "".

    Only the offsets are kept, so that a length that cannot be costs nothing.
    """
    offsets = array("q")
    append, end, at, wrong = offsets.append, len(data), 0, ""
    while at < end:
        append(at)
        size = data[at]
        if size < 0x80:
            at += size + 1
            continue
        try:
            high = data[at + 1] if at + 1 < end else 0x80
            if high < 0x80:  # most lengths have two bytes
                at += (size & 0x7F | high << 7) + 2
                continue
            size, at = varint(data, at)
        except BadMessageError as error:
            wrong = str(error)
            break
        at += size
    if at > end:
        size, start = varint(data, offsets[-1])
        first = len(offsets) == 1
        wrong = f"a message of {size} bytes is announced but {end - start} bytes are left: " + (
            "not a Chakra trace, or cut short" if first else "the file is cut short"
        )
    return np.frombuffer(offsets, np.int64), wrong


class Block:
    """Some messages.

    data        bytes that hold them, and at least eight more behind the last
    raw         the same as a column
    words       for each position the eight bytes from there as one little-endian number
    start, end  positions of each message, without its length
    """

    def __init__(self, data: Data, start: Ints, end: Ints):
        self.data, self.start, self.end = data, start, end
        self.raw = np.frombuffer(data, np.uint8)
        self.words: Words = as_strided(self.raw[:8].view("<u8"), (len(data) - 7,), (1,), writeable=False)

    def __len__(self) -> int:
        return len(self.start)

    def message(self, row: int) -> memoryview:
        """The bytes of one; no copy, for a message may be as long as the file."""
        return memoryview(self.data)[int(self.start[row]) : int(self.end[row])]

    def respelt(self, spelt: Mapping[int, bytes]) -> Block:
        """The same messages with other bytes for some rows."""
        parts = [spelt.get(row) or self.message(row) for row in range(len(self))]
        end = np.cumsum([len(part) for part in parts])
        return Block(b"".join([*parts, bytes(_PAD)]), np.append(0, end[:-1]), end)


def blocks(data: Data, offsets: Ints) -> Iterator[tuple[int, Block]]:
    """Blocks of some megabytes (a longer message is one of its own), each with the number of its first message.

    offsets  of the messages, and the end of the last one behind them
    """
    count = len(offsets) - 1
    first = 0
    while first < count:
        last = int(np.searchsorted(offsets, offsets[first] + _BLOCK_B, side="right")) - 1
        last = min(max(last, first + 1), first + _BLOCK, count)
        here = offsets[first : last + 1]
        if len(data) - here[-1] < _PAD:
            part = data[int(here[0]) : int(here[-1])] + bytes(_PAD)
            block = Block(part, here[:-1] - here[0], here[1:] - here[0])
        else:
            block = Block(data, here[:-1], here[1:])
        _, size = _varints(block, block.start)
        block.start = block.start + size
        yield first, block
        first = last


# -- numbers -----------------------------------------------------------------------------------------------


def _short(word: Words) -> tuple[Words, Ints]:
    """The LEB128 number at the low end of each word and its length; 8 where it does not end within seven bytes."""
    stop = ~word & _HIGH
    low = stop & (~stop + _ONE)  # the top bit of the number's last byte
    length = ((low.astype(np.float64).view(np.int64) >> 52) - 1022) >> 3  # a power of two: its exponent
    value = word & (low - _ONE) & _LOW7
    for keep, move, by in _PAIRS:
        value = (value & keep) | ((value & move) >> by)
    return value, length


def _varints(block: Block, at: Ints) -> tuple[Words, Ints]:
    """LEB128 numbers at positions, and their lengths; length 0 where there is none of 64 bits."""
    value, length = _short(block.words[at] & _u(0x00FFFFFFFFFFFFFF))
    wide = (length == 8).nonzero()[0]
    if len(wide):
        value[wide], length[wide] = _long(block, at[wide])
    return value, length


def _long(block: Block, at: Ints) -> tuple[Words, Ints]:
    """As `_varints`, byte by byte up to ten."""
    value, length = np.zeros(len(at), np.uint64), np.zeros(len(at), np.int64)
    open_ = np.ones(len(at), bool)
    for i in range(10):
        byte = block.raw[np.minimum(at + i, len(block.raw) - 1)].astype(np.uint64)
        value[open_] |= ((byte & _u(0x7F)) << _u(7 * i))[open_]
        ends = open_ & (byte < 0x80)
        if i == 9:
            ends &= byte < 2  # more does not fit 64 bits
        length[ends] = i + 1
        open_ &= byte >= 0x80
        if not open_.any():
            break
    return value, length


# -- fields ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fields:
    """Fields of a block's messages in the order in which each message has them, messages mixed.

    tag    as on the wire
    row    message
    value  the number, or how many bytes
    after  position behind the field; bytes stand at ``after - value``
    odd    per message: spelt in an unusual way, its fields are not all here
    """

    tag: NDArray[np.uint8]
    row: Ints
    value: Words
    after: Ints
    odd: Flags

    def of(self, tag: int) -> tuple[Ints, Words, Ints]:
        """Rows, values and ends of the fields with a tag."""
        here = (self.tag == tag).nonzero()[0]
        return self.row[here], self.value[here], self.after[here]

    def spans(self, tag: int) -> tuple[Ints, Ints, Ints]:
        """Rows, and where bytes start and end."""
        row, size, after = self.of(tag)
        return row, after - size.astype(np.int64), after


def node_fields(block: Block) -> Fields:
    """The fields of nodes."""
    odd = np.zeros(len(block), bool)
    tags: list[NDArray[np.uint8]] = []
    rows: list[Ints] = []
    values: list[Words] = []
    afters: list[Ints] = []
    row = (block.end > block.start).nonzero()[0]
    at, end = block.start[row], block.end[row]
    while len(row) > _FEW:
        word = block.words[at]
        tag = word.astype(np.uint8)
        value, length = _short(word >> _EIGHT)
        wide = (length == 8).nonzero()[0]
        if len(wide):
            value[wide], length[wide] = _long(block, at[wide] + 1)
        form = _FORM[tag]
        after = at + length + 1
        # a size of over 2**62 would wrap round; over 2**32 it is beyond any block anyway
        after += np.where(form == _BYTES, np.minimum(value, _u(1 << 32)).astype(np.int64), 0)
        wrong = (form == 0) | (length == 0) | (after > end)
        if wrong.any():
            odd[row[wrong]] = True
            keep = (~wrong).nonzero()[0]
            tag, row, value, after, end = tag[keep], row[keep], value[keep], after[keep], end[keep]
        tags.append(tag)
        rows.append(row)
        values.append(value)
        afters.append(after)
        at = after
        if (at == end).any():
            keep = (at < end).nonzero()[0]
            row, at, end = row[keep], at[keep], end[keep]
    for number, first, last in zip(row.tolist(), at.tolist(), end.tolist(), strict=True):
        found = _walk(block.data, first, last)
        if found is None:
            odd[number] = True
            continue
        tags.append(np.array(found[0::3], np.uint8))
        rows.append(np.full(len(found) // 3, number))
        values.append(np.array(found[1::3], np.uint64))
        afters.append(np.array(found[2::3], np.int64))
    return Fields(
        np.concatenate(tags) if tags else np.zeros(0, np.uint8),
        np.concatenate(rows) if rows else np.zeros(0, np.int64),
        np.concatenate(values) if values else np.zeros(0, np.uint64),
        np.concatenate(afters) if afters else np.zeros(0, np.int64),
        odd,
    )


def _walk(data: Data, at: int, end: int) -> array[int] | None:
    """Tag, value and end of each field of one message in turn, as `node_fields` finds them; None for an odd one."""
    found = array("Q")
    forms = _FORM.tobytes()
    while at < end:
        tag, form = data[at], forms[data[at]]
        if not form:
            return None
        value = data[at + 1]  # the zeros behind the block allow to look too far
        if value < 0x80:
            at += 2
        else:
            try:
                value, at = varint(data, at + 1)
            except BadMessageError:
                return None
        if form == _BYTES:
            at += value
        if at > end or value >= 2**64:
            return None
        found.extend((tag, value, at))
    return found


def packed(block: Block, start: Ints, end: Ints) -> tuple[Words, Ints, Flags]:
    """Numbers of packed fields: all of them, how many each field has, and which fields are broken."""
    size = end - start
    first = np.cumsum(size) - size
    if len(size) == 1:
        raw = block.raw[int(start[0]) : int(end[0])]
    else:
        raw = block.raw[np.repeat(start - first, size) + np.arange(int(size.sum()))]
    last = (raw < 0x80).nonzero()[0]
    length = np.diff(last, prepend=-1)
    until = np.searchsorted(last, first + size)
    count = np.diff(until, prepend=0)
    broken = (size > 0) & (block.raw[end - 1] >= 0x80)
    if len(last) and int(length.max()) > 9:
        # the tenth byte has room for one bit
        long = ((length > 10) | ((length == 10) & (raw[last] > 1))).nonzero()[0]
        broken[np.searchsorted(first + size, last[long], side="right")] = True
    if broken.any():
        return np.zeros(0, np.uint64), np.zeros(len(size), np.int64), broken
    value = raw[last].astype(np.uint64)
    for back in range(1, int(length.max(initial=1))):
        here = (length > back).nonzero()[0]
        value[here] = (value[here] << _SEVEN) | (raw[last[here] - back] & 0x7F).astype(np.uint64)
    return value, count, broken


# -- attributes --------------------------------------------------------------------------------------------

OTHER, UNCLEAR = -1, -2


class Names:
    """Finds attributes by name."""

    def __init__(self, names: Sequence[str]):
        self._by_size: dict[int, list[tuple[int, bytes]]] = {}
        for code, name in enumerate(names):
            raw = name.encode()
            assert 0 < len(raw) < 0x80
            self._by_size.setdefault(len(raw), []).append((code, raw))

    def find(self, block: Block, start: Ints, end: Ints) -> tuple[NDArray[np.int8], Ints]:
        """Number of each attribute's name and where its value starts.

        ``OTHER`` for a name not looked for, ``UNCLEAR`` where the attribute does not start with a short name.
        """
        head = block.words[start]
        size = (head >> _EIGHT).astype(np.uint8)
        value = start + 2 + size
        clear = ((head & _BYTE) == 0x0A) & (size < 0x80) & (value <= end)
        code = np.where(clear, OTHER, UNCLEAR).astype(np.int8)
        size[~clear] = 0
        for length, names in self._by_size.items():
            here = (size == length).nonzero()[0]
            if not len(here):
                continue
            at = start[here] + 2
            # eight bytes at a time, the last eight (some of them twice) at the end
            steps = [*range(0, length - 8, 8), length - 8] if length >= 8 else [0]
            mask = _u(2 ** (8 * min(length, 8)) - 1)
            parts = [block.words[at + step] & mask for step in steps]
            for number, name in names:
                same = np.ones(len(here), bool)
                for step, part in zip(steps, parts, strict=True):
                    same &= part == _u(int.from_bytes(name[step : step + 8], "little"))
                code[here[same]] = number
        return code, value


def whole_values(block: Block, at: Ints, end: Ints) -> tuple[Words, Flags, Flags]:
    """Values of attributes where they are whole numbers from 0: number, whether it is one, whether of an integer type.

    at, end  where the value's tag starts, and the attribute ends

    What is not one is for a closer look: negative, text, a list, twice, broken.
    """
    word = block.words[np.minimum(at, len(block.words) - 1)]
    tag = word.astype(np.uint8)
    value, length = _short(word >> _EIGHT)
    wide = (length == 8).nonzero()[0]
    if len(wide):
        value[wide], length[wide] = _long(block, at[wide] + 1)
    bits = _WHOLE_BITS[tag]
    integer = (bits > 0) & (length > 0) & (at + 1 + length == end) & (value >> bits == 0)
    known = integer.copy()
    boolean = (((word & _u(0xFFFF)) == _BOOL) & (at + 3 == end)).nonzero()[0]
    if len(boolean):
        value[boolean] = (word[boolean] >> _u(16)) & _BYTE
        known[boolean] = value[boolean] < 2
    double = ((tag == _DOUBLE) & (at + 9 == end)).nonzero()[0]
    if len(double):
        real = block.words[at[double] + 1].view("<f8")
        with np.errstate(invalid="ignore"):
            fits = (real >= 0) & (real < 2**53) & (real == np.floor(real))
        value[double[fits]] = real[fits].astype(np.uint64)
        known[double] = fits
    return value, known, integer


def text_spans(block: Block, at: Ints, end: Ints) -> tuple[Ints, Flags]:
    """Where the text of attributes starts (it ends with the attribute), and whether the value is one."""
    word = block.words[np.minimum(at, len(block.words) - 1)]
    size, length = _short(word >> _u(16))
    start = at + 2 + length
    return start, ((word & _u(0xFFFF)) == _STRING) & (length < 7) & (start + size.astype(np.int64) == end)


def real_values(block: Block, at: Ints, end: Ints) -> tuple[Floats, Flags]:
    """Values of attributes that are doubles: number, and whether it is one."""
    fits = at + 9 == end
    fits &= block.raw[np.minimum(at, len(block.raw) - 1)] == _DOUBLE
    out = np.full(len(at), np.nan)
    out[fits] = block.words[at[fits] + 1].view("<f8")
    return out, fits
