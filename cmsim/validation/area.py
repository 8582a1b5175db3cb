"""What an area is: a name, the data files of that name, and a function that gives its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cmsim.validation import pairs
from cmsim.validation.pairs import Pairs
from cmsim.validation.row import Row

#: called with what is being predicted and the share that is done, 0 to 1
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Area:
    """A kind of evidence.

    name   of the area and of its files: ``workloads/reference/<name>.yaml`` has title, text and tolerance,
           ``<name>.csv`` the published rows
    rows   predicts and returns all rows with their roles; told the area's name, so that one function can serve several
    pairs  what its figure shows, from the area's name and its rows; default: the rows that have a prediction

    An area of another package (entry point ``cmsim.areas``) has its files where its ``rows`` reads them.
    """

    name: str
    rows: Callable[[str, Progress], Sequence[Row]]
    pairs: Callable[[str, Sequence[Row]], Sequence[Pairs]] = lambda _, rows: pairs.of_rows(rows)
