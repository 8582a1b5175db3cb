"""Reading ``workloads/reference/``: published rows as CSV; what each is used for, and why, as YAML beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

from pydantic import Field, NonNegativeFloat

from cmsim import reading
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.reading import Spec
from cmsim.reading.kept import while_unchanged
from cmsim.reading.tables import read_records
from cmsim.validation.row import Row

FOLDER = "workloads/reference"
#: columns that every CSV of rows has; an area may have more (``conditions``)
COLUMNS = ("id", "system", "workload", "metric", "value", "unit", "source", "where", "confidence")


class LeftOut(Spec):
    """Rows that are not compared."""

    rows: tuple[str, ...] = Field(min_length=1, description="ids")
    why: str = Field(min_length=1)


class AreaSpec(Spec):
    """What every area's YAML file says; an area's own spec adds to it."""

    title: str
    compared: str = Field(description="what is compared with what, in one sentence")
    not_covered: str = Field(description="what these rows are no evidence of, in one sentence")
    about: str = Field(description="all there is to know: how, what was fitted, what was seen, what was left out")
    tolerance_pct: NonNegativeFloat = Field(description="absolute error of a judged row, where it has none of its own")
    left_out: tuple[LeftOut, ...] = ()


class FitSpec(Spec):
    """A constant fitted on whole-model rows, as shipped."""

    value: float
    what: str = Field(description="meaning and unit")
    rows: tuple[str, ...] = Field(min_length=1, description="ids of the rows it was fitted on, which are never judged")
    residual_pct: float = Field(description="what the fit leaves")
    how: str


class FitsFile(Spec):
    """``fits.yaml``."""

    fits: dict[str, FitSpec]


class GapsFile(Spec):
    """``not_validated.yaml``."""

    not_validated: tuple[str, ...] = Field(description="what no row here is evidence of")


SpecT = TypeVar("SpecT", bound=Spec)


@dataclass(frozen=True)
class PublishedRow:
    """A row of a reference file, as published."""

    id: str
    system: str
    workload: str
    metric: str
    value: str
    unit: str
    source: str
    where: str
    confidence: str
    conditions: str = ""

    @property
    def number(self) -> float | str:
        """The value, or its text where it is a limit (">94")."""
        try:
            return float(self.value)
        except ValueError:
            return self.value


_FIELDS = tuple(field.name for field in fields(PublishedRow))


def folder() -> Path:
    """Where the reference rows are, in a checkout and in an installed package."""
    return reading.DATA / FOLDER


def read_spec(name: str, spec: type[SpecT], at: Path | None = None) -> tuple[SpecT, reading.Document]:
    """``<name>.yaml`` as a spec, and the document for errors of one's own. at: its folder, if it is not ours"""
    document = reading.read_yaml((at or folder()) / f"{name}.yaml")
    return reading.validate(spec, document), document


def read_head(name: str) -> AreaSpec:
    """Title, texts and tolerance of an area alone; what else the file says is the area's own.

    An area whose files are not here is another package's: its name has to do.
    """
    path = folder() / f"{name}.yaml"
    if not path.exists():
        elsewhere = "as the package says that brings this area."
        return AreaSpec(title=name, compared=elsewhere, not_covered=elsewhere, about="", tolerance_pct=0)
    document = reading.read_yaml(path)
    head = {key: value for key, value in document.data.items() if key in AreaSpec.model_fields}
    return reading.validate(AreaSpec, document, data=head)


@while_unchanged(FOLDER)
def fits() -> Mapping[str, FitSpec]:
    """Constants fitted on whole-model rows, by name."""
    return read_spec("fits", FitsFile)[0].fits


def fitted_value(name: str) -> float:
    """A fitted constant. Raises InputError with the names there are."""
    if name not in fits():
        raise InputError(f"no fitted constant '{name}'. {did_you_mean(name, fits())}")
    return fits()[name].value


def gaps() -> tuple[str, ...]:
    """What is not validated at all."""
    return read_spec("not_validated", GapsFile)[0].not_validated


def read_rows(name: str, at: Path | None = None) -> dict[str, PublishedRow]:
    """Rows of ``<name>.csv`` by id, in the file's order; nothing where there is no such file. at: its folder, if it is
    not ours

    Raises InputError for a missing column or cell and for an id that stands twice.
    """
    path = (at or folder()) / f"{name}.csv"
    if not path.exists():
        return {}
    rows: dict[str, PublishedRow] = {}
    problems = []
    for row in read_records(path, needed=COLUMNS):
        empty = [column for column in COLUMNS if not row[column]]
        if empty or row["id"] in rows:
            what = f"'{empty[0]}' is empty" if empty else f"the id '{row['id']}' stands twice"
            problems.append(Problem(what, str(path), row.line))
            continue
        rows[row["id"]] = PublishedRow(**{name: row[name] for name in _FIELDS if name in row})
    if problems:
        raise InputError(problems)
    return rows


def left_out_rows(area: str, groups: Iterable[LeftOut], published: Mapping[str, PublishedRow]) -> list[Row]:
    """Rows that are shown with their reason only. Raises InputError for an id that is not in the CSV."""
    rows = []
    for group in groups:
        for id_ in group.rows:
            if id_ not in published:
                hint = did_you_mean(id_, published)
                raise InputError(Problem(f"no such row '{id_}'. {hint}", f"{area}.yaml", key="left_out"))
            rows.append(as_row(area, published[id_], note=group.why))
    return rows


def as_row(area: str, row: PublishedRow, *, note: str) -> Row:
    """A published row that is left out."""
    what = f"{row.workload}, {row.metric.replace('_', ' ')}"
    return Row(row.id, area, "left_out", row.system, what, row.number, row.unit, row.source, row.where, note)


def all_used(area: str, published: Mapping[str, PublishedRow], used: Iterable[str]) -> None:
    """Raises InputError where a row of the CSV has no role: nothing is dropped in silence, nothing counted twice."""
    seen: dict[str, int] = {}
    for id_ in used:
        seen[id_] = seen.get(id_, 0) + 1
    problems = [Problem(f"row '{id_}' has no role", f"{area}.yaml") for id_ in published if id_ not in seen]
    problems += [Problem(f"row '{id_}' has {count} roles", f"{area}.yaml") for id_, count in seen.items() if count > 1]
    if problems:
        raise InputError(problems)
