"""What a run's figures stand on that nobody is sure of, as data: small enough to be kept beside its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Assumption:
    """A number that nobody printed, and what its ends do to the run.

    name     file and key    value, low, high: as it is, and the range
    draw     what is drawn once for all that have the same text: name, range and reason
    effects  metric -> logarithm of what it becomes over what it is, with the number at its low and at its high end
    """

    name: str
    draw: str
    value: float
    low: float
    high: float
    effects: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class ModelError:
    """What validation found predictions of this kind to be off by, as a factor whose logarithm is normal.

    area    of validation    draw: as of an assumption; one machine has the same error in all its runs
    sigma   standard deviation of the logarithm
    powers  metric -> exponent with which the factor enters it
    """

    area: str
    draw: str
    sigma: float
    powers: Mapping[str, float]


@dataclass(frozen=True)
class Ledger:
    """Everything that is drawn of a run.

    draws, seed   of the scenario    notes: what is not in it, in sentences
    """

    draws: int
    seed: int
    assumptions: Sequence[Assumption]
    errors: Sequence[ModelError]
    notes: Sequence[str] = ()

    def data(self) -> dict[str, Any]:
        """As JSON can hold it; `of_data` reads it back."""
        return {
            "draws": self.draws,
            "seed": self.seed,
            "assumptions": [
                {
                    "name": one.name,
                    "draw": one.draw,
                    "value": one.value,
                    "low": one.low,
                    "high": one.high,
                    "effects": {metric: list(ends) for metric, ends in one.effects.items()},
                }
                for one in self.assumptions
            ],
            "errors": [
                {"area": one.area, "draw": one.draw, "sigma": one.sigma, "powers": dict(one.powers)}
                for one in self.errors
            ],
            "notes": list(self.notes),
        }


def of_data(data: Mapping[str, Any]) -> Ledger:
    """A ledger from what `Ledger.data` gave. Raises KeyError and TypeError for one that is damaged."""
    return Ledger(
        int(data["draws"]),
        int(data["seed"]),
        [
            Assumption(
                one["name"],
                one["draw"],
                one["value"],
                one["low"],
                one["high"],
                {metric: (low, high) for metric, (low, high) in one["effects"].items()},
            )
            for one in data["assumptions"]
        ],
        [ModelError(one["area"], one["draw"], one["sigma"], one["powers"]) for one in data["errors"]],
        tuple(data.get("notes", ())),
    )
