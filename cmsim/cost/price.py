"""Price and rent of the accelerators in use, as the system file has them for one of them.

Both are of an accelerator package with its share of the machine around it: host, fabric, scale-out network. So a
machine used in part costs in part, as energy and racks are counted. One's own has a bill instead: `cmsim.cost.bill`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cmsim.errors import InputError, Problem

if TYPE_CHECKING:
    from cmsim.hardware import System

#: keys of a system file
PRICE, RENT = "facility.price_per_accelerator_USD", "facility.price_per_accelerator_hour_USD"


def price_USD(system: System) -> float | None:
    """Purchase price of the accelerators in use, None where the system file has none. [USD]"""
    each_USD = system.spec.facility.price_per_accelerator_USD
    return None if each_USD is None else system.packages * each_USD


def rent(system: System) -> tuple[dict[str, float], tuple[str, ...]]:
    """cost_per_hour_USD of the accelerators in use, or a note that the system file does not say it."""
    each_USD = system.spec.facility.price_per_accelerator_hour_USD
    if each_USD is None:
        return {}, (f"no cost_per_hour_USD: {system.spec.name} has no {RENT}",)
    return {"cost_per_hour_USD": system.packages * each_USD}, ()


def million_USD(cost_per_hour_USD: float, each_per_s: float) -> float:
    """What a million tokens (or samples) cost: USD/h / (3600 x tokens/s) x 1e6. [USD]

    >>> million_USD(3.6, 1000.0)
    1.0
    """
    return cost_per_hour_USD / (3600 * each_per_s) * 1e6


def check_priced(systems: Iterable[System]) -> None:
    """Raises InputError that names the systems without a purchase price."""
    without = dict.fromkeys(system.spec.name for system in systems if price_USD(system) is None)
    if without:
        names = ", ".join(without)
        has = "has" if len(without) == 1 else "have"
        message = f"million_dollars: {names} {has} no {PRICE}; set it (and say from where), or leave it out"
        raise InputError(Problem(message, key="report.per"))
