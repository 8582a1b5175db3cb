"""What feeds and cools: fans, power supplies and the building, as functions of the power they serve. [W]"""

from __future__ import annotations

from typing import Any

import numpy as np

from cmsim.hardware.specs import FacilitySpec


def fans_W(cooled_W: Any, fan_fraction: float) -> Any:
    """Fans and pumps: a fraction of the power they cool. [W]"""
    return cooled_W * fan_fraction


def supplies_W(direct_W: Any, psu_efficiency: float) -> Any:
    """Lost in power supplies that deliver ``direct_W``: P (1 / eta - 1). [W]"""
    return direct_W * (1 / psu_efficiency - 1)


def loss_W(direct_W: Any, *, full_W: Any, psu_efficiency: float, standing: float) -> Any:
    """Lost in power supplies by load: at full load P (1 / eta - 1), of which a part stands whatever the load. [W]

    direct_W: delivered    full_W: delivered at full load    standing: share of the full-load loss at no load [1]

    >>> [round(loss_W(P, full_W=6800.0, psu_efficiency=0.972, standing=0.8)) for P in (0.0, 1939.0, 6800.0)]
    [157, 168, 196]
    """
    return supplies_W(full_W, psu_efficiency) * (standing + (1 - standing) * direct_W / full_W)


def lost_W(direct_W: Any, *, full_W: Any, facility: FacilitySpec) -> Any:
    """Lost in the power supplies of a facility, by their curve where it has one. [W]

    Between points of a curve losses are on straight lines; below the first they are as there, for what a supply needs
    for itself it needs at no load; above the last the efficiency stays.
    """
    curve = facility.psu_curve
    if not curve:
        standing = facility.psu_standing_loss
        return loss_W(direct_W, full_W=full_W, psu_efficiency=facility.psu_efficiency, standing=standing)
    load, share = (np.array(column) for column in zip(*curve, strict=True))
    at = np.asarray(direct_W, np.float64) / full_W
    lost = np.interp(at, load, load * (1 / share - 1))
    return full_W * np.where(at > load[-1], at * (1 / share[-1] - 1), lost)


def efficiency(load: float, facility: FacilitySpec) -> float:
    """Direct current out over alternating current in, at a share of the full load. [1]

    load: above 0
    """
    return load / (load + float(lost_W(load, full_W=1.0, facility=facility)))


def overhead_W(it_W: Any, pue: float) -> Any:
    """Cooling and distribution of the building: IT power, taken from the wall, times (PUE - 1). [W]"""
    return it_W * (pue - 1)
