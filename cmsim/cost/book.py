"""Prices, habits of owners, and regions: files of ``topologies/costs`` and ``topologies/regions``, and what a scenario
lays over them.

Every number comes out with the range that is assumed for it, so that it can be drawn: `Input`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from cmsim import reading
from cmsim.cost.keys import PLAIN, PRICES, CarbonSpec, CostSpec, Money, Years, taken
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.hardware.specs import Assumed, Source, Sources
from cmsim.reading.kept import while_unchanged
from cmsim.reading.quantities import NUMBER, Average, GramsPerKWh, Share, ShareOrNone

COSTS, REGIONS = "topologies/costs", "topologies/regions"
HOURS = 24
Curve = Annotated[tuple[Annotated[float, NUMBER, Field(ge=0, le=1e3)], ...], Field(min_length=HOURS, max_length=HOURS)]


class BookSpec(reading.Spec):
    """Prices in USD and habits of owners: ``topologies/costs/NAME.yaml``."""

    name: str
    description: str
    aliases: tuple[str, ...] = ()
    accelerators: dict[str, Money] = Field(description="price of one package alone, by name of the accelerator")
    socket: Money
    switch_chip: Money
    module: Money
    nic: Money
    scale_out_switch: Money
    rack: Money
    life_years: Years
    interest: ShareOrNone
    residual: ShareOrNone
    utilisation: Share
    idle_share: ShareOrNone
    electricity_per_kWh: Money
    space_per_kW_month: Money
    staff_per_thousand: Average
    staff_per_year: Money
    spares_per_year: ShareOrNone
    licences_per_accelerator_year: Money
    engineer_months: Average
    engineer_per_month: Money
    embodied_kg: dict[str, Average] = Field(description="of making an accelerator with its board, and a host's socket")
    currencies: dict[str, Annotated[float, NUMBER, Field(ge=1e-9, le=1e12)]] = Field(description="units for a USD")
    sources: Sources

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for key, source in self.sources.items():
            if key in PRICES and isinstance(source, Assumed):
                taken("sources", key, source.assumed)
        return self


class RegionSpec(reading.Spec):
    """A place with a grid: ``topologies/regions/NAME.yaml``."""

    name: str
    description: str
    aliases: tuple[str, ...] = ()
    currency: str = Field(description="of the price, as a file of costs has it")
    electricity_per_kWh: Money = Field(description="mean of a day")
    price_by_hour: Curve | None = Field(default=None, description="factors of the price at the hours of a day, from 0")
    carbon_g_per_kWh: GramsPerKWh = Field(description="mean of a day")
    carbon_by_hour: Curve | None = Field(default=None, description="factors of the intensity at the hours of a day")
    sources: Sources


@dataclass(frozen=True)
class Input:
    """A number that money or carbon is made of, and the range it may lie in; equal ends where it is known.

    name   what it is called, after its file: ``FILE: rack``
    why    what the range rests on; inputs of one name, range and reason are one assumption
    """

    name: str
    value: float
    low: float
    high: float
    why: str = ""


def known(name: str, value: float) -> Input:
    """A number without a range."""
    return Input(name, value, value, value)


def sourced(name: str, value: float, source: Source | None, factor: float = 1.0) -> Input:
    """A number with the range that its source assumes, all of it times ``factor``."""
    if not isinstance(source, Assumed):
        return known(name, value * factor)
    low, high = source.assumed
    return Input(name, value * factor, min(low, value) * factor, max(high, value) * factor, source.why)


def load_book(name: str | None, base: Path | None = None, *, key: str = "prices") -> BookSpec:
    """A file of prices by name or path; None: the first that is built in.

    Raises InputError with file, line and key; with ``key`` for one that there is not.
    """
    if name is None or name in reading.builtin_files(COSTS):
        return _built_in(name)
    return reading.validate(BookSpec, _read(name, COSTS, "file of prices", base, key))


@while_unchanged(COSTS)
def _built_in(name: str | None) -> BookSpec:
    files = reading.builtin_files(COSTS)
    return reading.validate(BookSpec, reading.read_yaml(files[name] if name else next(iter(files.values()))))


def load_region(name: str, base: Path | None = None, *, key: str = "region") -> RegionSpec:
    """A region by name, alias or path.

    Raises InputError with file, line and key; with ``key`` for one that there is not.
    """
    return reading.validate(RegionSpec, _read(name, REGIONS, "region", base, key))


def _read(name: str, folder: str, what: str, base: Path | None, key: str) -> reading.Document:
    try:
        path = reading.find(name, folder, what, base=base)
    except InputError as error:
        raise InputError(Problem(one.message, key=key) for one in error.problems) from None
    return reading.read_yaml(path)


def over_day(curve: tuple[float, ...] | None, hours: tuple[int, int] | None) -> float:
    """Mean factor of a curve of a day over the hours at which the machine works. [1]

    >>> curve = (0.5,) * 12 + (1.5,) * 12
    >>> over_day(curve, None), over_day(curve, (22, 2)), over_day(curve, (0, 12))
    (1.0, 1.0, 0.5)
    """
    if curve is None:
        return 1.0
    if hours is None:
        return math.fsum(curve) / HOURS
    start, end = hours[0] % HOURS, hours[1] % HOURS or HOURS
    at = range(start, end) if start < end else (*range(start, HOURS), *range(end))
    return math.fsum(curve[hour] for hour in at) / len(at)


def priced(said: CostSpec, accelerator: str, base: Path | None = None) -> dict[str, Input]:
    """Every number of a bill by its key, in USD; ``accelerator`` among them only where it is known.

    said: of the scenario    accelerator: name of the package

    Raises InputError for a currency, a region or a file that there is not.
    """
    book = load_book(said.prices, base, key="cost.prices")
    rate = _rate(book, said.currency, "cost.currency")
    found: dict[str, Input] = {}
    for key in PRICES:
        given = getattr(said, key)
        if given is not None:
            to_USD = 1.0 if key in PLAIN else 1 / rate
            low, high = said.ranges.get(key, (given, given))
            found[key] = Input(f"cost: {key}", given * to_USD, low * to_USD, high * to_USD, "the scenario's own range")
        elif key != "accelerator":
            found[key] = sourced(f"{book.name}: {key}", getattr(book, key), book.sources.get(key))
        elif accelerator in book.accelerators:
            place = f"accelerators.{accelerator}"
            found[key] = sourced(f"{book.name}: {place}", book.accelerators[accelerator], book.sources.get(place))
    if said.region is not None:
        region = load_region(said.region, base, key="cost.region")
        if said.electricity_per_kWh is None:
            its = _rate(book, region.currency, f"currency of the region {region.name}")
            key = "electricity_per_kWh"
            found[key] = sourced(f"{region.name}: {key}", region.electricity_per_kWh, region.sources.get(key), 1 / its)
        found["electricity_per_kWh"] = _times(found["electricity_per_kWh"], over_day(region.price_by_hour, said.hours))
    return found


def intensity(said: CarbonSpec | None, own: Input | None, base: Path | None = None) -> Input | None:
    """Carbon of a kWh: of the scenario, its region or the system (``own``); None where nobody says. [g/kWh]"""
    if said is None:
        return own
    region = None if said.region is None else load_region(said.region, base, key="carbon.region")
    if said.g_per_kWh is not None:
        found: Input | None = known("carbon: g_per_kWh", said.g_per_kWh)
    elif region is not None:
        key = "carbon_g_per_kWh"
        found = sourced(f"{region.name}: {key}", region.carbon_g_per_kWh, region.sources.get(key))
    else:
        found = own
    if found is None or region is None:
        return found
    return _times(found, over_day(region.carbon_by_hour, said.hours))


def embodied(said: CarbonSpec, prices: str | None = None, base: Path | None = None) -> dict[str, Input]:
    """What making the machine emitted, by part, and over what it is spread: accelerator, socket [kg], life_years,
    utilisation.

    prices: where the section of carbon names no file of its own
    """
    book = load_book(said.prices or prices, base, key="carbon.prices")
    parts = {
        part: sourced(f"{book.name}: embodied_kg.{part}", kg, book.sources.get(f"embodied_kg.{part}"))
        for part, kg in book.embodied_kg.items()
    }
    spread = {
        key: sourced(f"{book.name}: {key}", getattr(book, key), book.sources.get(key))
        for key in ("life_years", "utilisation")
    }
    return {**parts, **spread}


def _times(one: Input, factor: float) -> Input:
    return Input(one.name, one.value * factor, one.low * factor, one.high * factor, one.why)


def _rate(book: BookSpec, currency: str, key: str) -> float:
    if currency not in book.currencies:
        hint = did_you_mean(currency, book.currencies)
        raise InputError(Problem(f"got '{currency}', which {book.name} has no rate of. {hint}", key=key))
    return book.currencies[currency]


def values(inputs: Mapping[str, Input]) -> dict[str, float]:
    """The numbers themselves."""
    return {key: one.value for key, one in inputs.items()}
