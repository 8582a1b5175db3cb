"""What a machine costs: its price, its rent, the bill of one's own by the hour, and what a million tokens come to."""

from cmsim.cost.bill import OF_ELECTRICITY, OF_PRICE, PARTS, Bought, embodied_g, hour_by_part, price_by_part
from cmsim.cost.book import (
    COSTS,
    REGIONS,
    BookSpec,
    Input,
    RegionSpec,
    embodied,
    intensity,
    known,
    load_book,
    load_region,
    priced,
    sourced,
    values,
)
from cmsim.cost.keys import CarbonSpec, CostSpec
from cmsim.cost.price import PRICE, RENT, check_priced, million_USD, price_USD, rent

__all__ = [
    "COSTS",
    "OF_ELECTRICITY",
    "OF_PRICE",
    "PARTS",
    "PRICE",
    "REGIONS",
    "RENT",
    "BookSpec",
    "Bought",
    "CarbonSpec",
    "CostSpec",
    "Input",
    "RegionSpec",
    "check_priced",
    "embodied",
    "embodied_g",
    "hour_by_part",
    "intensity",
    "known",
    "load_book",
    "load_region",
    "million_USD",
    "price_USD",
    "price_by_part",
    "priced",
    "rent",
    "sourced",
    "values",
]
