"""A row as it was read, and as a scenario."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class NoPlan(Exception):  # noqa: N818  # no error of the user's: the row goes out empty, with the reason
    """A row that cannot become a run, with the reason."""


@dataclass(frozen=True)
class RowPlan:
    """What a row says of a run, in our words.

    system, model, precision   as the table spells them; ``names`` says what they are here
    accelerators   packages in use [1]
    keys           dotted keys of the workload that the row itself says
    config         the model as the keys of a ``config.json``, where the row has its sizes; empty: by its name
    change         keys of the named model's file to set over it
    unsaid         what the row says and no key of this program can
    """

    system: str
    model: str
    precision: str
    accelerators: int
    keys: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    change: Mapping[str, Any] = field(default_factory=dict)
    unsaid: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A row as a scenario, or the reason why there is none.

    scenario    as a file would say it; its model may be the keys of a config. None: see ``reason``
    documented  details that the row leaves out, as its source documents them for such runs
    taken       details that nobody states of this run: it is reported apart
    unsaid      what this program has no key for, and left out
    extras      dotted keys that may be dropped where the run is refused for them
    """

    scenario: Mapping[str, Any] | None = None
    reason: str = ""
    documented: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()
    unsaid: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What to say beside a prediction, or why there is none."""
        if self.scenario is None:
            return self.reason
        parts = (("taken", self.taken), ("not expressed", self.unsaid), ("documented", self.documented))
        return "; ".join(f"{word}: {', '.join(said)}" for word, said in parts if said)
