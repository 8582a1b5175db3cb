"""Formats that multiply at the peak of another, by kernels of their own: scales by block of a tensor."""

from __future__ import annotations

from collections.abc import Mapping

#: format: the one whose peak it has, and the one that a matrix engine must have, too, to scale such blocks itself.
#: Engines that take 4 bits scale blocks of 32 floats on the way; none is known to scale blocks of integers, which would
#: have to stand among an accelerator's peaks by their own name.
#: Source: NVIDIA, PTX ISA 8.7, tcgen05.mma, kinds mxf8f6f4 and mxf4; Open Compute Project, Microscaling Formats 1.0
VARIANTS = {
    "fp8_block": ("fp8", "fp8"),
    "mxfp8": ("fp8", "fp4"),
    "mxfp6": ("fp6", "fp4"),
    "mxfp4": ("fp4", "fp4"),
    "mxint8": ("int8", "mxint8"),
}


def plain(precision: str) -> str:
    """The format whose peak a format multiplies at.

    >>> plain("mxfp8"), plain("bf16")
    ('fp8', 'bf16')
    """
    return VARIANTS.get(precision, (precision,))[0]


def with_variants(peaks: Mapping[str, float]) -> dict[str, float]:
    """Peaks by format, with those of formats that follow from them.

    >>> sorted(with_variants({"fp6": 2.0, "fp4": 4.0}))
    ['fp4', 'fp6', 'mxfp4', 'mxfp6']

    >>> with_variants({"fp8": 2.0})
    {'fp8': 2.0, 'fp8_block': 2.0}
    """
    found = {
        name: peaks[of] for name, (of, also) in VARIANTS.items() if of in peaks and also in peaks and name not in peaks
    }
    return {**peaks, **found}


def share_of(precision: str, shares: Mapping[str, float], otherwise: float) -> float:
    """What kernels reach of the peak in a format: its own share, that of the format whose peak it has, or any's."""
    return shares.get(precision, shares.get(plain(precision), otherwise))
