"""What belongs to a kind of kernel and to no accelerator: one file of ``topologies/kernels``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import Field

from cmsim import reading
from cmsim.reading import Spec
from cmsim.reading.kept import while_unchanged

FOLDER = "topologies/kernels"


class Family(Spec):
    """Kernels of one kind that have constants of their own."""

    variants: str = Field(description="regular expression that matches the start of a variant's name, in any case")
    beside: tuple[Mapping[str, float], ...] = Field(
        description="constants beside the usual ones that a fit starts from; of several, the one that fits best"
    )


class KindsFile(Spec):
    """The one file of the folder that is about kinds."""

    sizes: Mapping[str, Mapping[str, float]] = Field(description="by kind: columns that all measured rows share")
    families: Mapping[str, tuple[Family, ...]] = Field(description="by kind")
    measured: Mapping[str, tuple[tuple[int, ...], ...]] = Field(
        description="by what is timed on a device at hand: sizes of models, each with all lengths and batches"
    )


@while_unchanged(FOLDER)
def _kinds() -> KindsFile:
    paths = reading.builtin_files(FOLDER).values()
    found = next(path for path in paths if "\nfamilies:" in reading.read_text(path))
    return reading.validate(KindsFile, reading.read_yaml(found))


def sizes_of(kind: str) -> Mapping[str, float]:
    """Columns that tables of a kind leave out, for all measured rows have the same; of most kinds there are none."""
    return _kinds().sizes.get(kind, {})


def beside(kind: str, variant: str) -> tuple[Mapping[str, float], ...]:
    """Constants that kernels of a variant may have beside the usual ones, each set to be tried."""
    for family in _kinds().families.get(kind, ()):
        if re.match(family.variants, variant, re.IGNORECASE):
            return family.beside
    return ({},)


def measured(what: str) -> tuple[tuple[int, ...], ...]:
    """Sizes that are timed on a device at hand: (n, k) of products, (heads, heads of keys, width of a head)."""
    return _kinds().measured[what]
