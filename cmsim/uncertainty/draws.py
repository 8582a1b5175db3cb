"""Draws of a run's figures, in columns: first order in the logarithm of each metric.

    ln m = ln m0 + sum over assumptions of effect(x) + sum over areas of power x sigma x z

x is even in [-1, 1], from the low to the high end of a range, 0 where the file's value is: as likely below as above it.
Between the ends, which were played, an effect is straight on either side. z is normal. An input is drawn from its own
stream, made of the seed and of its text, so that runs, systems and folders that share an assumption share its draws,
and nothing changes where another input comes or goes.

Leaves out: what two inputs do together beyond the product of what each does alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from cmsim.arrays import Floats
from cmsim.uncertainty.ledger import Ledger

#: quantiles of an interval: nine of ten draws lie in it
LEVELS = {"low": 0.05, "median": 0.5, "high": 0.95}


def sampled(ledger: Ledger, metrics: Mapping[str, float], names: Sequence[str]) -> dict[str, Floats]:
    """Draws of metrics, each of shape (draws,), in the metric's unit.

    metrics: as they are    names: of those that are wanted; what nothing changes is the same in all draws
    """
    log = np.zeros((len(names), ledger.draws))
    moving = [one for one in ledger.assumptions if any(name in one.effects for name in names)]
    if moving:
        x = np.stack([_even(ledger, one.draw) for one in moving])
        low, high = (
            np.array([[one.effects.get(name, (0.0, 0.0))[end] for one in moving] for name in names]) for end in (0, 1)
        )
        log += low @ np.maximum(-x, 0.0) + high @ np.maximum(x, 0.0)
    for error in ledger.errors:
        powers = np.array([error.powers.get(name, 0.0) for name in names])
        if powers.any():
            log += powers[:, None] * (error.sigma * _normal(ledger, error.draw))
    return {name: metrics[name] * np.exp(row) for name, row in zip(names, log, strict=True)}


def intervals(ledger: Ledger, metrics: Mapping[str, float], names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Metric -> low, median and high: the 5th, 50th and 95th percentile of its draws, in its unit."""
    wanted = [name for name in names if name in metrics]
    found = sampled(ledger, metrics, wanted)
    levels = list(LEVELS.values())
    return {
        name: dict(zip(LEVELS, map(float, np.quantile(values, levels)), strict=True)) for name, values in found.items()
    }


def beats(first: Floats, second: Floats) -> float:
    """Probability that the first is more than the second, of draws in common; ties count half. [1]

    >>> beats(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.0, 2.0, 4.0, 3.0]))
    0.625
    """
    return float(np.mean(first > second) + np.mean(first == second) / 2)


def _stream(ledger: Ledger, text: str) -> np.random.Generator:
    words = np.frombuffer(hashlib.sha256(f"{ledger.seed} {text}".encode()).digest(), "<u4")
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(words.tolist())))


def _even(ledger: Ledger, text: str) -> Floats:
    out: Floats = _stream(ledger, text).uniform(-1.0, 1.0, ledger.draws)
    return out


def _normal(ledger: Ledger, text: str) -> Floats:
    out: Floats = _stream(ledger, text).standard_normal(ledger.draws)
    return out
