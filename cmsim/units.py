"""The one place where units are converted.

Outside, numbers carry the data sheet's unit in their key (``bandwidth_GBps``, ``latency_us``); inside they
are SI (``_s``, ``_B``, ``_Bps``, ``_FLOPps``, ``_W``, ``_J``). The engine's clock counts whole picoseconds
(``_ps``). GB is 1e9 bytes, GiB is 2**30.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.errors import FailedError

GB = 1e9
TB = 1e12
TERA = 1e12
GIGA = 1e9
US = 1e-6
NS = 1e-9
PS_PER_S = 10**12
#: end of the clock, which counts in 64 bits [ps]
CLOCK_PS = 2**63 - 1

#: sizes of messages and of memory that people count in powers of two, largest first [B]
BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))

#: bytes of one element, by precision name
BYTES_PER_ELEMENT: dict[str, float] = {
    "fp32": 4.0,
    "tf32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5,
}


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
