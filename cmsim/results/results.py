"""All results of a scenario: tables, frames, and the folder they are kept in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmsim.errors import InputError, did_you_mean
from cmsim.results import store
from cmsim.results.result import Result, html_table, rate_name, shown
from cmsim.results.result import per as throughput_per

if TYPE_CHECKING:
    import pandas as pd

#: shown in tables where a run has them, in this order
HEADLINES = (
    "time_s",
    "algorithm",
    "algbw_GBps",
    "busbw_GBps",
    "step_time_s",
    "ttft_s",
    "tpot_s",
    "tokens_per_s",
    "tokens_per_s_per_accelerator",
    "samples_per_s",
    "samples_per_s_per_accelerator",
    "mfu",
    "energy_per_token_J",
    "energy_per_sample_J",
    "makespan_s",
    "power_avg_W",
)


@dataclass(frozen=True)
class Results:
    """Results in the order of the scenario's runs, and how they came about.

    scenario   the scenario as data
    manifest   scenario text, system files and their hashes, version of ``cmsim``, seed, command, sources
    """

    results: Sequence[Result]
    scenario: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, run: str | int) -> Result:
        """A result by its run, or by its place."""
        if isinstance(run, int):
            return self.results[run]
        found = [result for result in self.results if result.run == run]
        if not found:
            raise InputError(f"no run '{run}'. {did_you_mean(run, [result.run for result in self.results])}")
        return found[0]

    @property
    def version(self) -> str:
        """Version of cmsim that made them."""
        return str(self.manifest.get("cmsim", ""))

    def summary(self) -> dict[str, Any]:
        """The document ``summary.json``."""
        return {
            "schema_version": store.SCHEMA_VERSION,
            "cmsim": self.version,
            "scenario": dict(self.scenario),
            "results": [result.summary() for result in self.results],
        }

    @cached_property
    def ops(self) -> pd.DataFrame:
        """Ops of all runs."""
        return self._frame("ops")

    @cached_property
    def links(self) -> pd.DataFrame:
        """Links of all runs."""
        return self._frame("links")

    @cached_property
    def power(self) -> pd.DataFrame:
        """Power of all runs."""
        return self._frame("power")

    def table(self, *, per: Sequence[str] = ()) -> list[dict[str, float | str]]:
        """One row per run: headline metrics, what limits it, and throughput per each of ``per``.

        All rows have the same keys in the same order; "" stands where a run has no such number.
        """
        names = [name for name in HEADLINES if any(name in result.metrics for result in self.results)]
        rows: list[dict[str, float | str]] = []
        for result in self.results:
            row: dict[str, float | str] = {"run": result.run, "accelerators": result.accelerators}
            row.update({name: result.metrics.get(name, "") for name in names})
            row.update({f"{rate_name(result)}_per_{what}": throughput_per(result, what) for what in per})
            row.update(limiter=result.limiter, bound=str(result.bound["name"]), bound_fraction=result.bound["fraction"])
            rows.append(row)
        keys = list(dict.fromkeys(key for row in rows for key in row))
        return [{key: row.get(key, "") for key in keys} for row in rows]

    def save(self, folder: str | Path) -> Path:
        """Write the folder, all of it or nothing. One of ours that stands there is replaced.

        Raises InputError where something else stands there, or it cannot be written, InfeasibleError where a result
        fails its check.
        """
        return store.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Results:
        """Read a folder that `save` wrote. Raises InputError for one that is absent, foreign or damaged."""
        return cls(*store.load(Path(folder)))

    @classmethod
    def joined(cls, parts: Sequence[Results]) -> Results:
        """Several as one, side by side. A run that was there before gets a number: ``run#2``."""
        seen: dict[str, int] = {}
        results = []
        for result in (result for part in parts for result in part):
            seen[result.run] = seen.get(result.run, 0) + 1
            number = seen[result.run]
            results.append(result if number == 1 else replace(result, run=f"{result.run}#{number}"))
        manifest = {"cmsim": ", ".join(dict.fromkeys(part.version for part in parts))}
        return cls(
            tuple(results),
            {"joined": [dict(part.scenario) for part in parts]},
            {**manifest, "joined": [dict(part.manifest) for part in parts]},
        )

    def _frame(self, kind: str) -> pd.DataFrame:
        import pandas as pd

        frames = [getattr(result, kind) for result in self.results]
        # an empty frame has columns of no type, which would spoil those of the others
        out: pd.DataFrame = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
        return out

    def _repr_html_(self) -> str:
        rows = self.table()
        head = tuple(rows[0]) if rows else ()
        return html_table([tuple(shown(cell) for cell in row.values()) for row in rows], head)
