"""All results of a scenario: tables, frames, and the folder they are kept in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmsim import kinds, markup
from cmsim.errors import CmsimError, FailedError, InfeasibleError, InputError, did_you_mean
from cmsim.numbers import shown
from cmsim.reading import exists
from cmsim.results import categories, parts, settled, spread, store, sure, tidy
from cmsim.results.outcome import Failed, Infeasible, Outcome, entry
from cmsim.results.result import Result, rate_name
from cmsim.results.result import per as throughput_per
from cmsim.results.verdict import verdict
from cmsim.version import SCHEMA_VERSION

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Results:
    """What became of a scenario's runs, in their order, and how it came about.

    Iteration, length and numbers are of the results, and raise the reasons where no run gave any; ``missing`` holds the
    runs that gave none.

    Attributes
    ----------
    outcomes
        Of every run: a Result, Infeasible or Failed.
    scenario
        The scenario as data.
    manifest
        Scenario text, system files and their hashes, version of ``cmsim``, seed, command, sources.
    """

    outcomes: Sequence[Outcome]
    scenario: Mapping[str, Any] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        words = [one.outcome for one in self.missing]
        counted = [f"{len(self.outcomes)} run{'s' * (len(self.outcomes) != 1)}"]
        counted += [f"{words.count(word)} {word}" for word in dict.fromkeys(words)]
        return f"<Results: {', '.join(counted)}>"

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """The runs that gave a result."""
        return tuple(one for one in self.outcomes if isinstance(one, Result))

    @cached_property
    def missing(self) -> tuple[Infeasible | Failed, ...]:
        """The runs that gave none, with the reason."""
        return tuple(one for one in self.outcomes if not isinstance(one, Result))

    def __iter__(self) -> Iterator[Result]:
        self.require()
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, run: str | int) -> Result:
        """A result by its run, or by its place among the results.

        Raises InfeasibleError or FailedError, with the reason, for a run that gave none, and where no run gave any.
        """
        if isinstance(run, int):
            self.require()
            return self.results[run]
        found = [one for one in self.outcomes if one.run == run]
        if not found:
            raise InputError(f"no run '{run}'. {did_you_mean(run, [one.run for one in self.outcomes])}")
        if not isinstance(found[0], Result):
            raise found[0].error()
        return found[0]

    def require(self) -> None:
        """Nothing where a run gave a result.

        Raises
        ------
        InfeasibleError, FailedError
            With every reason, where no run gave a result.
        """
        if self.missing and not self.results:
            raise _together(self.missing)

    @property
    def version(self) -> str:
        """Version of cmsim that made them."""
        return str(self.manifest.get("cmsim", ""))

    def summary(self) -> dict[str, Any]:
        """The document ``summary.json``.

        Returns
        -------
        dict
            schema_version, cmsim, scenario, results (`Result.summary`), outcomes.
        """
        return {
            "schema_version": SCHEMA_VERSION,
            "cmsim": self.version,
            "scenario": dict(self.scenario),
            "results": [result.summary() for result in self.results],
            "outcomes": [entry(one) for one in self.outcomes],
        }

    @cached_property
    def ops(self) -> pd.DataFrame:
        """Ops of all runs (rows of all runs, columns of `Result.ops`); times in ps, sizes in B."""
        return self.frame("ops")

    @cached_property
    def links(self) -> pd.DataFrame:
        """Links of all runs (rows of all runs, columns of `Result.links`); times in ps, sizes in B."""
        return self.frame("links")

    @cached_property
    def power(self) -> pd.DataFrame:
        """Power of all runs (rows of all runs, columns of `Result.power`); times in ps, power in W."""
        return self.frame("power")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per run, also of those that gave no result (runs, columns).

        Columns are ``workload`` and ``system``, each swept key, ``outcome``, the resolved plan, and the metrics with
        their units in their names (`tidy.rows`).
        """
        import pandas as pd

        return pd.DataFrame(tidy.rows(self.outcomes))

    @cached_property
    def spread(self) -> pd.DataFrame:
        """How metrics are distributed over seeds (metrics of groups of runs, columns); empty where none were swept.

        Columns are ``workload``, ``kind``, ``system``, other swept keys, ``metric``, ``seeds``, ``mean``, ``std``,
        ``min``, ``p05``, ``p50``, ``p95``, ``max`` (`spread.over_seeds`).
        """
        import pandas as pd

        return pd.DataFrame(spread.over_seeds(self.outcomes))

    @cached_property
    def intervals(self) -> pd.DataFrame:
        """How sure the main metrics are (metrics of runs, columns); empty where the scenario has no `uncertainty`.

        Columns are ``run``, ``metric``, ``value``, ``low``, ``median``, ``high``: the 5th, 50th and 95th percentile of
        the draws, in the metric's unit.
        """
        import pandas as pd

        return pd.DataFrame(sure.rows(self.results))

    def table(self, *, per: Sequence[str] = ()) -> list[dict[str, float | str]]:
        """One row per run: headline metrics, what limits it, and throughput per each of ``per``.

        Parameters
        ----------
        per
            What throughput is divided by: ``accelerator``, ``rack``, ``megawatt``, ``million_dollars``.

        Returns
        -------
        list of dict
            All rows have the same keys in the same order, units in the names; "" stands where a run has no such number.
            Where a run gave no result there are also ``outcome`` (result, infeasible or failed) and ``message``; where
            `best` was asked for, what each key became.

        Raises
        ------
        InputError
            Where throughput is asked for per something that a run does not know.
        """
        names = self._headline()
        rows: list[dict[str, float | str]] = []
        for result in self.outcomes:
            if not isinstance(result, Result):
                rows.append({"run": result.run, "outcome": result.outcome, "message": result.message})
                continue
            row: dict[str, float | str] = {"run": result.run, "accelerators": result.accelerators}
            row.update(result.chosen)
            if self.missing:
                row.update(outcome="result", message="")
            row.update({name: result.metrics.get(name, "") for name in names})
            row.update({f"{rate_name(result)}_per_{what}": throughput_per(result, what) for what in per})
            row.update(limiter=result.limiter)
            if result.bound:
                row.update(bound=str(result.bound["name"]), bound_fraction=result.bound["fraction"])
            rows.append(row)
        keys = list(dict.fromkeys(key for row in rows for key in row))
        return [{key: row.get(key, "") for key in keys} for row in rows]

    def verdict(self) -> list[str]:
        """Who gives more, how quickly, and what limits, for every workload that two systems ran.

        Returns
        -------
        list of str
            Two or three sentences a workload.
        """
        return verdict(self.outcomes)

    def save(self, folder: str | Path) -> Path:
        """Write the folder, all of it or nothing. One of ours that stands there is replaced.

        Parameters
        ----------
        folder
            Where to.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        InputError
            Where something else stands there, or it cannot be written.
        FailedError
            Where a result fails its check.
        """
        return store.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Results:
        """Read a folder that `save` or a sweep wrote.

        Parameters
        ----------
        folder
            Of results.

        Returns
        -------
        Results
            As they were saved.

        Raises
        ------
        InputError
            For a folder that is absent, foreign or damaged.
        """
        folder = Path(folder)
        return cls(*(settled.load if exists(folder / parts.MARK) else store.load)(folder))

    @classmethod
    def joined(cls, several: Sequence[Results], names: Sequence[str] = ()) -> Results:
        """Several as one, side by side.

        Parameters
        ----------
        several
            In the order wanted.
        names
            What to call them: ``source`` of their results; numbers from 1 where they are not given or alike.

        Returns
        -------
        Results
            All runs; one that was there before gets a number: ``run#2``.
        """
        by_label: dict[str, Outcome] = {}
        for result in _marked(several, names):
            numbered = (result.run if number == 1 else f"{result.run}#{number}" for number in itertools.count(1))
            label = next(label for label in numbered if label not in by_label)
            by_label[label] = result if label == result.run else replace(result, run=label)
        manifest = {"cmsim": ", ".join(dict.fromkeys(part.version for part in several))}
        return cls(
            tuple(by_label.values()),
            {"joined": [dict(part.scenario) for part in several]},
            {**manifest, "joined": [dict(part.manifest) for part in several]},
        )

    def _headline(self) -> list[str]:
        """Metrics of a row among others, those of every kind here that a run has."""
        by_kind = {result.declared.name: result.declared.headline for result in self.results}
        in_order = {name: by_kind[name] for name in (*kinds.BUILT_IN, *by_kind) if name in by_kind}
        names = kinds.merged_headline(in_order)
        return [name for name in names if any(name in result.metrics for result in self.results)]

    def frame(self, name: str) -> pd.DataFrame:
        """A frame by its name, of all runs whose kind has one.

        Parameters
        ----------
        name
            Of the frame.

        Returns
        -------
        DataFrame
            One row per row of the frame and run (rows, columns), units in the names of columns; text is categorical.

        Raises
        ------
        InputError
            Where no run's kind has such a frame.
        InfeasibleError, FailedError
            Where no run gave a result.
        """
        self.require()
        having = [one for one in self.results if name in (frame.name for frame in one.declared.frames)]
        frames = [one.frame(name) for one in having or self.results[:1]]
        # an empty frame has columns of no type, which would spoil those of the others
        return categories.joined([frame for frame in frames if len(frame)] or frames[:1])

    def _repr_html_(self) -> str:
        rows = self.table()
        head = tuple(rows[0]) if rows else ()
        cells = [tuple(shown(cell) for cell in row.values()) for row in rows]
        return markup.table(cells, head=head, title=str(self.scenario.get("name") or ""))

    def _ipython_key_completions_(self) -> list[str]:
        """What may stand in brackets: the runs."""
        return [one.run for one in self.outcomes]


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder of results, of a scenario or of a sweep.

    Parameters
    ----------
    path
        Of what may be one.

    Returns
    -------
    bool
        Nothing is said of whether it can be read.
    """
    return any(exists(Path(path) / name) for name in (store.SUMMARY, parts.MARK))


def _marked(several: Sequence[Results], names: Sequence[str]) -> Iterator[Outcome]:
    """Outcomes of all parts; results of several with the one they came from."""
    if len(set(names) - {""}) < len(several):
        names = [str(number) for number in range(1, len(several) + 1)]
    for part, name in zip(several, names, strict=True):
        for one in part.outcomes:
            yield replace(one, source=name) if isinstance(one, Result) and len(several) > 1 else one


def _together(missing: Sequence[Infeasible | Failed]) -> CmsimError:
    """One error that gives every reason."""
    errors = [one.error() for one in missing]
    if len(errors) == 1:
        return errors[0]
    problems = [problem for error in errors for problem in error.problems]
    kind = InfeasibleError if any(isinstance(error, InfeasibleError) for error in errors) else FailedError
    return kind(problems)
