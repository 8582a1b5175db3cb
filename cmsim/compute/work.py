"""What a kernel asks of the machine: arithmetic and memory traffic, as numbers or as columns of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

#: a number, or one number per row
Column: TypeAlias = float | NDArray[Any]


@dataclass(frozen=True)
class Work:
    """Demand of one kernel, or of a column of kernels.

    flops    arithmetic, a multiply and an add counted as two [FLOP]
    bytes_B  memory read and written, each operand once [B]
    """

    flops: Column
    bytes_B: Column

    def __add__(self, other: Work) -> Work:
        """Two kernels one after the other, or fused without saving traffic."""
        return Work(self.flops + other.flops, self.bytes_B + other.bytes_B)

    def __mul__(self, times: Column) -> Work:
        """The same kernel ``times`` times."""
        return Work(self.flops * times, self.bytes_B * times)

    @property
    def intensity(self) -> Column:
        """Arithmetic intensity, to compare with the ridge point peak / bandwidth. [FLOP/B]"""
        return self.flops / self.bytes_B
