"""Areas of system totals: what the built-in system files say was published, beside what follows from their parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import Field, NonNegativeFloat

from cmsim import reading
from cmsim.errors import InputError, did_you_mean
from cmsim.hardware import load_system
from cmsim.reading import Spec
from cmsim.topology import Comparison, Total, comparison, totals
from cmsim.validation import reference
from cmsim.validation.area import Progress
from cmsim.validation.reference import AreaSpec
from cmsim.validation.row import Role, Row


class TotalSpec(Spec):
    """What one published total is used for, where that is not the rule."""

    role: Literal["judged", "fitted", "left_out"]
    tolerance_pct: NonNegativeFloat | None = None
    note: str = Field(min_length=1, description="the reason")


class TotalsSpec(AreaSpec):
    """An area of totals."""

    quantities: tuple[str, ...] = Field(description="patterns of the names of totals that belong here")
    except_quantities: tuple[str, ...] = ()
    count_tolerance_pct: NonNegativeFloat = Field(default=0.0, description="of totals without a unit")
    totals: dict[str, TotalSpec] = Field(default={}, description="by id: system/quantity, @value where it stands twice")


def rows(area: str, progress: Progress) -> list[Row]:
    """A row per published total of every built-in system, then the rows of the area's CSV that are left out."""
    spec, document = reference.read_spec(area, TotalsSpec)
    published = reference.read_rows(area)
    reference.all_used(area, published, [id_ for group in spec.left_out for id_ in group.rows])
    systems = list(reading.builtin_files("topologies"))
    found: list[Row] = []
    for number, name in enumerate(systems):
        progress(f"{area}/{name}", number / len(systems))
        found += _of_system(area, spec, name)
    ids = {row.id for row in found}
    unknown = [id_ for id_ in spec.totals if id_ not in ids]
    if unknown:
        raise InputError(
            document.problem(("totals", id_), f"no such total. {did_you_mean(id_, ids)}") for id_ in unknown
        )
    return found + reference.left_out_rows(area, spec.left_out, published)


def _of_system(area: str, spec: TotalsSpec, name: str) -> Iterator[Row]:
    system = load_system(name)
    compared = [one for one in comparison(system) if _belongs(one.quantity, spec)]
    derived = totals(system) if compared else {}
    twice = Counter(one.quantity for one in compared)
    for one in compared:
        id_ = f"{name}/{one.quantity}" + (f"@{one.published:g}" if twice[one.quantity] > 1 else "")
        rule = spec.totals.get(id_)
        tolerance_pct = spec.tolerance_pct if one.unit else spec.count_tolerance_pct
        if rule is not None and rule.tolerance_pct is not None:
            tolerance_pct = rule.tolerance_pct
        role: Role = rule.role if rule else "judged"
        notes = [rule.note if rule else "", _span(one, derived)]
        yield Row(
            id=id_,
            area=area,
            role=role,
            system=system.spec.name,
            what=f"{one.quantity} ({one.basis})",
            published=one.published,
            unit=one.unit,
            source=one.source,
            note="; ".join(note for note in notes if note),
            predicted=one.derived,
            tolerance_pct=tolerance_pct,
        )


def _belongs(quantity: str, spec: TotalsSpec) -> bool:
    inside = any(fnmatchcase(quantity, pattern) for pattern in spec.quantities)
    return inside and not any(fnmatchcase(quantity, pattern) for pattern in spec.except_quantities)


def _span(one: Comparison, derived: dict[str, Total]) -> str:
    """Power from idle to full use, for the totals that have both."""
    idle = derived.get(one.quantity.replace("_full_", "_idle_"))
    full = derived.get(one.quantity.replace("_idle_", "_full_"))
    if idle is None or full is None or idle is full:
        return ""
    return f"predicted {idle.value:.4g} {one.unit} idle to {full.value:.4g} {one.unit} at full use"
