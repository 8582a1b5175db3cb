"""What a scenario may say of money and carbon: keys laid over a file of ``topologies/costs`` and one of regions."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from cmsim.reading import Spec
from cmsim.reading.quantities import NUMBER, Average, GramsPerKWh, Share, ShareOrNone

#: of any currency
Money = Annotated[float, NUMBER, Field(ge=0, le=1e12)]
#: of a clock, from one to another, past midnight too
Hour = Annotated[int, NUMBER, Field(ge=0, le=24)]
Years = Annotated[float, NUMBER, Field(ge=0.1, le=100)]
Tokens = Annotated[float, NUMBER, Field(ge=1, le=1e18)]


class _Hours(Spec):
    """When the machine works."""

    hours: tuple[Hour, Hour] | None = Field(
        default=None, description="of the day, from and until, [22, 6] over midnight; default: all. For curves of a day"
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.hours is not None and self.hours[0] == self.hours[1]:
            raise ValueError(
                f"hours: from and until must differ, got {self.hours[0]} twice. Leave it out for all hours"
            )
        return self


class CostSpec(_Hours):
    """What it costs to own the machine and run it. Every key of money is in ``currency``; a number given here is known,
    and has a range only where ``ranges`` gives one."""

    prices: str | None = Field(
        default=None,
        description="a name in topologies/costs, or a path: prices and habits, with ranges; default: the one that is "
        "built in",
    )
    region: str | None = Field(
        default=None, description="a name in topologies/regions, or a path: price of electricity by hour"
    )
    currency: str = Field(default="USD", description="of what is given here: one that the file of prices has")
    accelerator: Money | None = Field(default=None, description="price of one package alone")
    socket: Money | None = Field(default=None, description="price of one host processor with its share of the node")
    switch_chip: Money | None = Field(
        default=None, description="price of one chip of the scale-up fabric with its share"
    )
    module: Money | None = Field(default=None, description="price of one optical module")
    nic: Money | None = Field(default=None, description="price of one NIC; none where it is on the package")
    scale_out_switch: Money | None = Field(default=None, description="price of one switch of the scale-out network")
    rack: Money | None = Field(default=None, description="price of one cabinet with power shelves and cooling")
    life_years: Years | None = Field(default=None, description="years over which the price is written off, evenly")
    interest: ShareOrNone | None = Field(default=None, description="of what is not paid back yet, a year")
    residual: ShareOrNone | None = Field(default=None, description="share of the price that is left at the end")
    utilisation: Share | None = Field(
        default=None, description="share of hours at which work runs; the others are paid by these"
    )
    idle_share: ShareOrNone | None = Field(
        default=None, description="power while no work runs, over power while it does"
    )
    electricity_per_kWh: Money | None = Field(default=None, description="mean over a day; the region's curve scales it")
    space_per_kW_month: Money | None = Field(default=None, description="building and cooling, per kW that IT may draw")
    staff_per_thousand: Average | None = Field(default=None, description="people for a thousand accelerators")
    staff_per_year: Money | None = Field(default=None, description="one of them, a year")
    spares_per_year: ShareOrNone | None = Field(
        default=None, description="spare parts and support over the price, a year"
    )
    licences_per_accelerator_year: Money | None = Field(default=None, description="software, one package, a year")
    engineer_months: Average | None = Field(
        default=None, description="work to move a code base to this machine, once; spread over its life"
    )
    engineer_per_month: Money | None = Field(default=None, description="one engineer, a month")
    training_tokens: Tokens | None = Field(
        default=None, description="tokens of a whole training run: gives cost_per_training_run_USD"
    )
    ranges: dict[str, tuple[float, float]] = Field(
        default={}, description="key of this section: least and most it may be, for `uncertainty`"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for key, (low, high) in self.ranges.items():
            value = getattr(self, key, None) if key in PRICES else None
            if key not in PRICES:
                raise ValueError(f"ranges: '{key}' has none. Allowed: {', '.join(PRICES)}")
            if low > high:
                raise ValueError(f"ranges: {key} must go from least to most, got [{low:g}, {high:g}]")
            taken("ranges", key, (low, high))
            if value is None:
                raise ValueError(f"ranges: {key} needs its value beside it: {key}: ...")
            if not low <= value <= high:
                raise ValueError(f"ranges: {key} is {value:g}, which does not lie in [{low:g}, {high:g}]")
        return self


def taken(where: str, key: str, ends: tuple[float, float]) -> None:
    """Raises ValueError for the end of a range that the key itself does not take, as use in none of the hours."""
    for end in ends:
        try:
            CostSpec.model_validate({key: end})
        except ValidationError as error:
            said = error.errors()[0]["msg"].replace("Input should be", "must be")
            raise ValueError(f"{where}: {key} {said}, got {end:g}") from None


#: keys that have a value in a file of prices, and may have a range
PRICES = (
    *("accelerator", "socket", "switch_chip", "module", "nic", "scale_out_switch", "rack"),
    *("life_years", "interest", "residual", "utilisation", "idle_share", "electricity_per_kWh", "space_per_kW_month"),
    *("staff_per_thousand", "staff_per_year", "spares_per_year", "licences_per_accelerator_year"),
    *("engineer_months", "engineer_per_month"),
)
#: those of them that are no money
PLAIN = frozenset(
    {"life_years", "interest", "residual", "utilisation", "idle_share", "staff_per_thousand", "spares_per_year"}
    | {"engineer_months"}
)


class CarbonSpec(_Hours):
    """What is emitted, beside the energy times the system's own intensity."""

    region: str | None = Field(
        default=None, description="a name in topologies/regions, or a path: intensity of the grid by hour"
    )
    g_per_kWh: GramsPerKWh | None = Field(
        default=None, description="instead of the region's or the system's, mean of a day"
    )
    embodied: bool = Field(
        default=False, description="whether making the machine counts too, spread over the life and use of `prices`"
    )
    prices: str | None = Field(
        default=None,
        description="a name in topologies/costs, or a path: kg of parts, life, use; default: of `cost`",
    )
