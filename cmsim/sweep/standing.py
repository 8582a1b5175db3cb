"""How far a sweep is, for whoever watches it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Standing:
    """How far a sweep is.

    total     points of the scenario         found    of these, done before
    results, infeasible, failed   what became of those that are done, before or now
    """

    total: int
    found: int = 0
    results: int = 0
    infeasible: int = 0
    failed: int = 0
    began_s: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> int:
        return self.results + self.infeasible + self.failed

    @property
    def per_s(self) -> float:
        """Points a second since it began; 0 before the first."""
        return (self.done - self.found) / max(time.monotonic() - self.began_s, 1e-9)

    @property
    def left_s(self) -> float | None:
        """What is left at this rate; None before there is one. [s]"""
        return (self.total - self.done) / self.per_s if self.per_s else None

    def count(self, one: str) -> None:
        """One more of ``result``, ``infeasible`` or ``failed``."""
        name = "results" if one == "result" else one
        setattr(self, name, getattr(self, name) + 1)


#: called with how far it is after each point
Progress = Callable[[Standing], None]


__all__ = ["Progress", "Standing"]
