"""The one place where units are converted.

Outside, numbers carry the data sheet's unit in their key (``bandwidth_GBps``, ``latency_us``); inside they
are SI (``_s``, ``_B``, ``_Bps``, ``_FLOPps``, ``_W``, ``_J``). The engine's clock counts whole picoseconds
(``_ps``). GB is 1e9 bytes, GiB is 2**30.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

GB = 1e9
TB = 1e12
TERA = 1e12
GIGA = 1e9
US = 1e-6
NS = 1e-9
PS_PER_S = 10**12

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
    """
    return np.rint(np.asarray(seconds, dtype=np.float64) * PS_PER_S).astype(np.int64)


def to_s(picoseconds: Any) -> Any:
    """Picoseconds (number or array) to seconds. [ps] -> [s]

    >>> to_s(2_000_000)
    2e-06
    """
    return picoseconds / PS_PER_S
