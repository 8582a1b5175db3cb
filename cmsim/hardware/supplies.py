"""What feeds and cools: fans, power supplies and the building, as functions of the power they serve. [W]"""

from __future__ import annotations

from typing import Any


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


def overhead_W(it_W: Any, pue: float) -> Any:
    """Cooling and distribution of the building: IT power, taken from the wall, times (PUE - 1). [W]"""
    return it_W * (pue - 1)
