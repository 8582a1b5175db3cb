"""The one place where units are converted.

Outside, numbers carry the data sheet's unit in their key (``bandwidth_GBps``, ``latency_us``); inside they
are SI (``_s``, ``_B``, ``_Bps``, ``_FLOPps``, ``_W``, ``_J``). The engine's clock counts whole picoseconds
(``_ps``). GB is 1e9 bytes, GiB is 2**30.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.errors import FailedError

MB = 1e6
GB = 1e9
TB = 1e12
TERA = 1e12
GIGA = 1e9
GIB = 2**30
US = 1e-6
NS = 1e-9
PS_PER_S = 10**12
#: end of the clock, which counts in 64 bits [ps]
CLOCK_PS = 2**63 - 1

#: sizes of messages and of memory that people count in powers of two, largest first [B]
BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))

#: what an ending multiplies by, in capitals: bare letters as nccl-tests has them, decimal ones with a B, binary with iB
_OF_TOKENS = {"": 1} | {end: size for size, name in BINARY for end in (name[0], name[:2].upper())}
_OF_BYTES = (
    _OF_TOKENS
    | {"B": 1}
    | {name.upper(): size for size, name in BINARY}
    | {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)}
)
_SIZE = re.compile(r"([0-9]{1,40}(?:\.[0-9]{0,40})?(?:[eE][+-]?[0-9]{1,3})?) ?([A-Za-z]{0,3})")

#: bytes of one element, by precision name
BYTES_PER_ELEMENT: dict[str, float] = {
    "fp32": 4.0,
    "tf32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp6": 0.75,
    "fp4": 0.5,
}


def size(text: str, *, of: str = "bytes") -> int | float:
    """A number of bytes or of tokens as people write it: ``64K``, ``1 KiB``, ``256 MB``. [B or 1]

    K, M, G and T are powers of 1024, as nccl-tests counts bytes and models their context (128K tokens are 131,072);
    Ki and KiB say the same; KB, MB, GB and TB are powers of 1000, of bytes only. A whole number is an int.
    ValueError: anything else, with what is allowed; so is a small b behind a letter, which stands for bits.

    >>> size("64K"), size("1 KiB"), size("256 MB"), size("1.5G"), size("4096"), size("128k", of="tokens")
    (65536, 1024, 256000000, 1610612736, 4096, 131072)
    """
    found = _SIZE.fullmatch(text.strip())
    ends = _OF_BYTES if of == "bytes" else _OF_TOKENS
    end = found[2] if found else ""
    bits = len(end) == 2 and end.endswith("b")
    if found is None or end.upper() not in ends or bits or not math.isfinite(float(found[1])):
        more = ", KB (1,000) or KiB (1,024)" if of == "bytes" else ""
        raise ValueError(f"must be a number of {of}, or one with K, M, G or T (powers of 1,024){more}, got {text!r}")
    value: int | float = float(found[1]) * ends[end.upper()]
    if found[1].isdigit():  # exact, however many digits there are
        value = int(found[1]) * ends[end.upper()]
    return int(value) if math.isfinite(value) and value == int(value) else value


def to_ps(seconds: Any) -> NDArray[np.int64]:
    """Seconds (number or array) to whole picoseconds, rounded to nearest. [s] -> [ps]

    >>> int(to_ps(1.5e-6))
    1500000

    Raises FailedError for a time that the clock does not reach, or that is none.
    """
    found = np.rint(np.asarray(seconds, dtype=np.float64) * PS_PER_S)
    on_clock(float(np.abs(found).max(initial=0.0)))  # not a number stays what it is
    return found.astype(np.int64)


def on_clock(picoseconds: float) -> None:
    """Raises FailedError for a time that the clock does not reach, or that is none. [ps]"""
    if not picoseconds < CLOCK_PS:
        took_s = picoseconds / PS_PER_S
        raise FailedError(f"takes {took_s:.3g} s; the clock counts picoseconds, and ends after 106 days (9.2e+06 s)")


def to_s(picoseconds: Any) -> Any:
    """Picoseconds (number or array) to seconds. [ps] -> [s]

    >>> to_s(2_000_000)
    2e-06
    """
    return picoseconds / PS_PER_S
