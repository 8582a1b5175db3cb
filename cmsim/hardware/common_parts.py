"""What parts draw that machines have in common: kinds of modules, memory of hosts, buildings in warm weather."""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from cmsim import reading
from cmsim.hardware.specs import FacilitySpec, Module, ScaleOut, Sources, SwitchPower, SystemSpec
from cmsim.reading import Spec
from cmsim.reading.quantities import Coefficient, Factor, ShareOrNone

FOLDER = "topologies/parts"


class CommonParts(Spec):
    """The one file in ``topologies/parts``."""

    name: str
    description: str
    modules: dict[Module, Factor] = Field(description="watts of an optical module, over those of one with a DSP")
    host_memory_share: ShareOrNone = Field(description="of the watts of a socket with its memory")
    over_pue_by_C: tuple[tuple[float, Coefficient], ...] = Field(
        min_length=2, description="[temperature outside, what PUE is above 1 over that at 15 C], going up"
    )
    sources: Sources

    def module_W(self, of: SwitchPower | ScaleOut, instead: Module | None = None) -> float:
        """One module of the kind that is in place of the one that watts were given for. [W]"""
        kind = instead or of.instead or of.module
        return of.module_W * self.modules[kind] / self.modules[of.module]

    @model_validator(mode="after")
    def _all_kinds(self) -> CommonParts:
        if missing := [kind for kind in ("dsp", "lpo", "copper") if kind not in self.modules]:
            raise ValueError(f"modules: {missing[0]} is missing")
        return self


def common_parts() -> CommonParts:
    """As the built-in file has them."""
    (path,) = reading.builtin_files(FOLDER).values()
    return reading.validate(CommonParts, reading.read_yaml(path))


def as_built(spec: SystemSpec) -> SystemSpec:
    """The system with the watts of the modules it has, and the PUE of the temperature outside."""
    inner, outer, facility = spec.scale_up.power, spec.scale_out, spec.facility
    if inner.instead is None and outer.instead is None and facility.outside_C is None:
        return spec
    common = common_parts()
    inner = inner.model_copy(update={"module_W": common.module_W(inner)})
    outer = outer.model_copy(update={"module_W": common.module_W(outer)})
    if facility.outside_C is not None:
        facility = facility.model_copy(update={"pue": pue_at(facility, facility.outside_C, common)})
    up = spec.scale_up.model_copy(update={"power": inner})
    return spec.model_copy(update={"scale_up": up, "scale_out": outer, "facility": facility})


def pue_at(facility: FacilitySpec, outside_C: float, common: CommonParts) -> float:
    """Facility power over IT power at a temperature outside; beyond the points of a table as at its ends. [1]"""
    points = facility.pue_by_C or common.over_pue_by_C
    found = float(np.interp(outside_C, [at for at, _ in points], [share for _, share in points]))
    return found if facility.pue_by_C else 1.0 + (facility.pue - 1.0) * found
