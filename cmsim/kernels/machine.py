"""What pages ask of an accelerator. Numbers of one device: a die where dies are devices of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Machine:
    """One device.

    cores: matrix cores [1]    peak_FLOPps: dense, by precision [FLOP/s]    vector_FLOPps: 16-bit [FLOP/s]
    memory_Bps: peak bandwidth [B/s]
    """

    name: str
    cores: float
    peak_FLOPps: Mapping[str, float]
    vector_FLOPps: float
    memory_Bps: float

    def scaled(self, devices: float, cores: float) -> Machine:
        """Several devices that share each kernel, of whose cores it may use a part: memory is theirs all the same."""
        part = devices * cores
        return replace(
            self,
            cores=self.cores * part,
            peak_FLOPps={name: peak * part for name, peak in self.peak_FLOPps.items()},
            vector_FLOPps=self.vector_FLOPps * part,
            memory_Bps=self.memory_Bps * devices,
        )
