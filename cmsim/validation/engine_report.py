"""What a fit of the host of a serving engine found, in words and as a stack file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FittedConstant:
    """A constant of the host: as it was, as it is fitted, between which ends nine of ten lie, whether rows tell it."""

    name: str
    before: float
    value: float
    low: float
    high: float
    told: bool


@dataclass(frozen=True)
class EngineFit:
    """The host of an engine on a system, fitted to rows of a benchmark.

    stack          that it is laid over    accelerator   system of the rows    chip  its accelerator
    constants      in the order of a stack    tied  pairs that rows tell only together, with their correlation
    singular       values of the rows' slopes over the widths of constants: above 1 a combination of them is told
    rows, fitted   usable rows, and how many were fitted    left_out  reason -> rows
    held_out       what was held out together    errors_pct  set of rows -> (TPOT before, after, TTFT before, after),
                   each the median and the 90th percentile [%]
    """

    stack: str
    accelerator: str
    chip: str
    source: str
    constants: tuple[FittedConstant, ...]
    tied: tuple[tuple[str, str, float], ...]
    singular: tuple[float, ...]
    rows: int
    fitted: int
    left_out: Mapping[str, int]
    held_out: str
    errors_pct: Mapping[str, tuple[tuple[float, float], ...]]

    @property
    def configurations(self) -> int:
        """Rows that were fitted."""
        return self.fitted

    @property
    def held_out_pct(self) -> tuple[float, float]:
        """Median and 90th percentile of the error of the time of a token, on rows that were held out. [%]"""
        median, tail = self.errors_pct["held out"][1]
        return median, tail

    def text(self, name: str = "my_engine") -> str:
        """A stack file: that of the system with the fitted constants over it, and how they were found."""
        import yaml

        # of what rows say nothing, the stack's own stays
        known = [one for one in self.constants if np.isfinite(one.high)]
        serving = {one.name: _rounded(one.value) for one in known}
        sources = {f"serving.{one.name}": self._source(one) for one in known}
        data = {
            "name": name,
            "extends": self.stack,
            "description": f"{self.stack} with the host as {self.source} has it on {self.accelerator}",
            # of the stack below another value may stand for this accelerator
            "accelerators": {self.chip: {"serving": serving}},
            "sources": sources,
        }
        said = [f"# {line}" for line in self.said()]
        return "\n".join([*said, yaml.safe_dump(data, sort_keys=False, width=110)])

    def _source(self, one: FittedConstant) -> str:
        told = "" if one.told else ", which hardly tell it"
        ends = f"nine of ten between {_rounded(one.low):g} and {_rounded(one.high):g}"
        return f"fitted to {self.fitted} rows of {self.source}{told}; {ends}"

    def said(self) -> list[str]:
        """What the rows could and could not tell apart, and what became of the errors."""
        known = sum(value > 1 for value in self.singular)
        out = [
            f"rows tell {known} of {len(self.singular)} combinations of the constants apart (singular values "
            + ", ".join(f"{value:.2g}" for value in self.singular)
            + ")"
        ]
        if untold := [one.name for one in self.constants if not one.told]:
            out.append(f"not told by these rows, and at or near where they started: {', '.join(untold)}")
        out += [f"{a} and {b} are told only together (correlation {r:+.2f})" for a, b, r in self.tied]
        for name, (tpot, tpot_after, ttft, ttft_after) in self.errors_pct.items():
            what = f"{name} ({self.held_out})" if name == "held out" else name
            out.append(
                f"{what}: TPOT {_of(tpot)} -> {_of(tpot_after)}, TTFT {_of(ttft)} -> {_of(ttft_after)} (median, p90)"
            )
        out += [f"{many} rows left out: {reason}" for reason, many in self.left_out.items()]
        return out


def _of(pair: tuple[float, float]) -> str:
    return "-" if pair[0] != pair[0] else f"{pair[0]:.1f}, {pair[1]:.1f} %"


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
