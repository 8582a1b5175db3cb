"""What an hour of work on a machine of one's own costs, part by part, and what a machine costs to buy.

    price           sum over parts of count x price, or the whole price that the system has
    hours           8,766 a year, of which ``utilisation`` are worked and pay for the rest
    depreciation    (price - what is left of it) / (life x hours)
    financing       annuity of the price at ``interest``, less depreciation
    electricity     power at work x price of a kWh, and what the idle hours draw
    space, staff, spares, licences   of a year over its worked hours
    migration       engineer-months x rate, once, over the worked hours of the machine's life

Functions of numbers, or of columns of draws, all alike. Leaves out: taxes, insurance, failures (`kind: reliability`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

#: of a mean year
YEAR_H = 8766.0
MONTHS = 12
#: what an hour is made of, in the order in which people read it
PARTS = (
    *("depreciation", "financing", "electricity", "space", "staff", "spares", "licences"),
    "migration",
)
#: parts that go with the price of the machine, and with the price of electricity
OF_PRICE, OF_ELECTRICITY = ("depreciation", "financing", "spares"), ("electricity",)


@dataclass(frozen=True)
class Bought:
    """What is bought.

    accelerators, sockets, switch_chips, modules, nics, scale_out_switches, racks: how many of each [1]
    it_W       what IT may draw at most, which space is rented for [W]
    """

    accelerators: float
    sockets: float
    switch_chips: float
    modules: float
    nics: float
    scale_out_switches: float
    racks: float
    it_W: float


def price_by_part(counts: Bought, of: Mapping[str, Any]) -> dict[str, Any]:
    """What the machine costs to buy, by part; ``machine`` alone where that is known as a whole. [USD]

    of: prices by key, as `cmsim.cost.book.priced` has them, each a number or a column; ``machine`` is of an accelerator
    with its share of everything around it
    """
    if "machine" in of:
        return {"machine": counts.accelerators * of["machine"]}
    return {
        "accelerators": counts.accelerators * of["accelerator"],
        "hosts": counts.sockets * of["socket"],
        "switch_chips": counts.switch_chips * of["switch_chip"],
        "modules": counts.modules * of["module"],
        "nics": counts.nics * of["nic"],
        "scale_out_switches": counts.scale_out_switches * of["scale_out_switch"],
        "racks": counts.racks * of["rack"],
    }


def hour_by_part(counts: Bought, of: Mapping[str, Any], power_W: Any) -> dict[str, Any]:
    """What an hour of work costs, by ``PARTS``. [USD/h]

    of: as `price_by_part`    power_W: of the facility at work, mean [W]

    >>> counts = Bought(8, 2, 0, 0, 0, 0, 1, it_W=10e3)
    >>> of = dict.fromkeys(("interest", "residual", "idle_share", "space_per_kW_month", "staff_per_thousand"), 0.0)
    >>> of |= dict.fromkeys(("staff_per_year", "spares_per_year", "licences_per_accelerator_year"), 0.0)
    >>> of |= {"engineer_months": 0.0, "engineer_per_month": 0.0, "life_years": 4, "utilisation": 0.5}
    >>> hour = hour_by_part(counts, of | {"electricity_per_kWh": 0.1, "machine": 43830.0}, 8e3)
    >>> round(hour["depreciation"], 9), round(hour["electricity"], 9), hour["financing"]
    (20.0, 0.8, 0.0)
    """
    price = sum(price_by_part(counts, of).values())
    used, life, rate = of["utilisation"], of["life_years"], of["interest"]
    hours = YEAR_H * used
    depreciation = price * (1 - of["residual"]) / (life * hours)
    # an annuity pays back what is lost and bears interest on what is left
    annuity = price * (1 - of["residual"] * (1 + rate) ** -life) * _annuity(rate, life)
    idle_kWh = of["idle_share"] * (1 - used) / used
    return {
        "depreciation": depreciation,
        "financing": _at_least_0(annuity / hours - depreciation),
        "electricity": power_W / 1e3 * (1 + idle_kWh) * of["electricity_per_kWh"],
        "space": counts.it_W / 1e3 * of["space_per_kW_month"] * MONTHS / hours,
        "staff": counts.accelerators / 1e3 * of["staff_per_thousand"] * of["staff_per_year"] / hours,
        "spares": price * of["spares_per_year"] / hours,
        "licences": counts.accelerators * of["licences_per_accelerator_year"] / hours,
        "migration": of["engineer_months"] * of["engineer_per_month"] / (life * hours),
    }


def embodied_g(counts: Bought, of: Mapping[str, Any], time_s: Any) -> Any:
    """What making the machine emitted, for the time of a run: spread over the worked hours of its life. [g]

    of: accelerator, socket [kg], life_years, utilisation
    """
    kg = counts.accelerators * of["accelerator"] + counts.sockets * of["socket"]
    return kg * 1e3 * time_s / (of["life_years"] * YEAR_H * of["utilisation"] * 3600)


def _annuity(rate: Any, years: Any) -> Any:
    """Paid a year for each unit lent: r / (1 - (1 + r)^-n), and 1/n without interest. [1/year]"""
    small = np.less(rate, 1e-9)
    safe = np.where(small, 1.0, rate)
    found = np.where(small, 1 / np.asarray(years, float), safe / (1 - (1 + safe) ** -np.asarray(years, float)))
    return float(found) if found.ndim == 0 else found


def _at_least_0(value: Any) -> Any:
    """Rounding may leave less than nothing where there is no interest."""
    found = np.maximum(value, 0.0)
    return float(found) if np.ndim(found) == 0 else found
