"""Which watts and prices nobody printed, of all built-in systems and files of prices: no row is evidence of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cmsim import cost, reading
from cmsim.hardware import SYSTEMS, System, load_system
from cmsim.hardware.specs import Assumed, Source
from cmsim.validation.markdown import table

#: watts under load, each measured or assumed
_LOAD = ("active_W", "compute_W", "memory_W", "max_W")
_RENT, _PRICE, _CARBON = (
    f"facility.{key}" for key in ("price_per_accelerator_hour_USD", "price_per_accelerator_USD", "carbon_g_per_kWh")
)


def section() -> str:
    """Markdown: systems by what of their power and money is assumed, then files of prices and regions."""
    rows = [_row(load_system(name)) for name in reading.builtin_files(SYSTEMS)]
    head = ("system", "accelerator under load", "of its power assumed", "rent [USD/h]", "price [USD]", "carbon [g/kWh]")
    return "\n\n".join(
        (
            "Watts of accelerators under load are measured on few parts; on all others they are shares of the limit as "
            "on a measured one, and power is a band. In brackets stands the range that is assumed; *none* is refused "
            "where it is asked for. `uncertainty:` in a scenario draws all of them.",
            table(head, rows, right=()),
            "\n".join(_files()),
        )
    )


def _row(system: System) -> list[str]:
    spec, chip = system.spec, system.accelerator
    open_ = [key for key in _LOAD if isinstance(chip.sources.get(f"power.{key}"), Assumed)]
    load = "measured" if not open_ else f"assumed: {', '.join(key.removesuffix('_W') for key in open_)}"
    watts = [
        source
        for part in (spec.sources, chip.sources)
        for key, source in part.items()
        if key.endswith("_W") or (key.startswith(("facility.p", "facility.f")) and "price" not in key)
    ]
    facility = spec.facility
    return [
        system.name,
        f"{chip.name}: {load}",
        f"{sum(isinstance(source, Assumed) for source in watts)} of {len(watts)}",
        _said(facility.price_per_accelerator_hour_USD, spec.sources.get(_RENT)),
        _said(facility.price_per_accelerator_USD, spec.sources.get(_PRICE)),
        _said(facility.carbon_g_per_kWh, spec.sources.get(_CARBON)),
    ]


def _said(value: float | None, source: Source | None) -> str:
    if value is None:
        return "none"
    return (
        f"{value:g} ({source.assumed[0]:g} to {source.assumed[1]:g})" if isinstance(source, Assumed) else f"{value:g}"
    )


def _files() -> Iterator[str]:
    for name in reading.builtin_files(cost.COSTS):
        book = cost.load_book(name)
        yield f"- **Prices, `{name}`:** {_counted(book.sources)}; {', '.join(_open(book.sources))}."
    for name in reading.builtin_files(cost.REGIONS):
        region = cost.load_region(name)
        said = ", ".join(_open(region.sources)) or "none"
        yield f"- **Region, `{name}`:** {_counted(region.sources)}; {said}."


def _counted(sources: Mapping[str, Source]) -> str:
    return f"{len(_open(sources))} of {len(sources)} numbers are assumed"


def _open(sources: Mapping[str, Source]) -> list[str]:
    return [
        f"{key} ({source.assumed[0]:g} to {source.assumed[1]:g})"
        for key, source in sources.items()
        if isinstance(source, Assumed)
    ]
