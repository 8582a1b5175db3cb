"""Network files of ASTRA-sim's analytical backend, read as the dimensions of a fabric.

    topology: [ Ring, FullyConnected, Switch ]     innermost dimension first
    npus_count: [ 2, 8, 4 ]
    bandwidth: [ 200.0, 100.0, 50.0 ]              of one link, one direction, in GB/s of 2^30 bytes
    latency: [ 50.0, 500.0, 2000.0 ]               of one link, in ns; a switch is two links away from the next rank

Its ring has links both ways. A ring of two is one link, as that backend wires it.
Source: astra-sim/astra-sim, inputs/network/analytical/Ring_FullyConnected_Switch.yml.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cmsim import reading
from cmsim.errors import InputError
from cmsim.hardware.specs import AstraSim, Dimensions
from cmsim.reading import Spec
from cmsim.reading.quantities import GiBps, Nanoseconds, Places

_KINDS = {"Ring": "ring", "FullyConnected": "mesh", "Switch": "switch"}
#: its GB, in ours
_GB = 2**30 / 1e9


class NetworkFile(Spec):
    """The four keys of the file, one entry a dimension."""

    topology: Annotated[tuple[Literal["Ring", "FullyConnected", "Switch"], ...], Field(min_length=1)]
    npus_count: tuple[Places, ...]
    bandwidth: tuple[GiBps, ...]
    latency: tuple[Nanoseconds, ...]

    @model_validator(mode="after")
    def _one_a_dimension(self) -> NetworkFile:
        for key in ("npus_count", "bandwidth", "latency"):
            if len(getattr(self, key)) != len(self.topology):
                raise ValueError(f"{key}: has {len(getattr(self, key))} entries, topology {len(self.topology)}")
        return self


def read_network(document: reading.Document, wired: AstraSim, *, accelerators: int) -> Dimensions:
    """The fabric of a network file. Raises InputError where it cannot be, or joins another number of accelerators."""
    found = reading.validate(NetworkFile, document)
    dimensions: dict[str, dict[str, Any]] = {}
    for i, kind in enumerate(found.topology):
        size = found.npus_count[i]
        dimensions[f"dim{i + 1}"] = {
            "kind": "line" if kind == "Ring" and size == 2 else _KINDS[kind],
            "size": size,
            "link_GBps": found.bandwidth[i] * _GB,
            "hop_us": found.latency[i] * (2 if kind == "Switch" else 1) / 1e3,
        }
    fabric = Dimensions.model_validate({"wiring": "dimensions", "dimensions": dimensions, "power": wired.power})
    if fabric.accelerators != accelerators:
        raise InputError(
            document.problem(("npus_count",), f"joins {fabric.accelerators}; the system file has {accelerators}")
        )
    return fabric
