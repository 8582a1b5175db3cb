"""One person's question: told at once from what is known, then played, then written down. Nobody else's.

Knows nothing of the library that shows it. What takes long (`prepare`, `play`, `report`, `frames`) takes a scenario
and gives what came of it, so that it may be done elsewhere while the person asks on.
"""

from __future__ import annotations

import dataclasses
import io
import math
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmsim import api
from cmsim.errors import CmsimError, InputError
from cmsim.kinds.serving import ServingSpec
from cmsim.plots import style, waterfall
from cmsim.results import Outcome, Result, Results
from cmsim.scenario import Run, Scenario, load_scenario
from cmsim.ui.form import FilledForm, FormField
from cmsim.ui.told import GROWS, ToldLine, ToldRow, WhatIsKnown, axes_of, load_of, metrics_of

#: the scenario that the page starts from where nobody names one
START = "supernode_against_rack"
#: systems that are held against the first one
_OTHERS = 3
#: metrics of a row, by kind
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "decode": (
        *("tokens_per_s_per_user", "tpot_s", "tokens_per_s_per_accelerator"),
        *("energy_per_token_J", "memory_peak_B"),
    ),
    "prefill": ("ttft_s", "tokens_per_s_per_accelerator", "energy_per_token_J", "memory_peak_B"),
    "serving": (
        *("tokens_per_s_per_user", "tpot_mean_s", "ttft_s_p90", "output_tokens_per_s_per_accelerator"),
        *("utilization", "slo_attainment", "energy_per_token_J"),
    ),
}


@dataclass(frozen=True)
class Why:
    """What makes one system quicker than another: parts that lead from the time of the one to that of the other. [s]"""

    first: str
    second: str
    whole_s: tuple[float, float]
    steps_s: Mapping[str, float]


@dataclass(frozen=True)
class Answer:
    """What is known of a question.

    error      what is wrong with it; then there is nothing else
    lines      of the chart    rows  of the table, a system each
    missing    systems of which something is still to be played: they have no row yet
    played     whether rows are of runs of the question itself    verdict, notes  sentences of the runs
    why        of pairs of systems
    """

    kind: str
    scenario: Scenario | None = None
    error: str = ""
    lines: tuple[ToldLine, ...] = ()
    rows: tuple[ToldRow, ...] = ()
    missing: tuple[str, ...] = ()
    played: bool = False
    verdict: tuple[str, ...] = ()
    why: tuple[Why, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def axes(self) -> tuple[str, str]:
        """The metrics of the chart."""
        return axes_of(self.kind)

    @property
    def columns(self) -> tuple[str, ...]:
        """The metrics of the table that any row has."""
        return tuple(name for name in COLUMNS[self.kind] if any(name in row.metrics for row in self.rows))


class WhatIf:
    """What one person has filled in, and what is known of it.

    known   what was made for all who ask    start  scenario that the form is filled in from; default: a shipped one
    """

    def __init__(self, known: WhatIsKnown, start: Scenario | None = None):
        self.known = known
        self.form = FilledForm.of_scenario(start or load_scenario(START))
        self._colours: dict[str, str] = {}

    @property
    def fields(self) -> tuple[FormField, ...]:
        """What is asked now."""
        return self.form.fields

    def change(self, values: Mapping[str, Any]) -> None:
        """What the person has filled in."""
        self.form.change(values)

    def colour(self, system: str) -> str:
        """Of a system: one that it keeps while it is chosen."""
        chosen = {name: its for name, its in self._colours.items() if name in self.form.systems}
        free = [one for one in style.SERIES if one not in chosen.values()]
        if system not in chosen:
            chosen[system] = (free or list(style.SERIES))[0]
        self._colours = chosen
        return chosen[system]

    def scenario(self) -> Scenario:
        """What is asked. Raises InputError with all that is wrong with it."""
        data = self.form.scenario()
        if not data["systems"]:
            raise InputError("no system is chosen: tick one or several")
        loaded = load_scenario(data)
        if odd := [run.key for run in loaded.runs if run.point]:
            raise InputError(f"a page asks one point: {len(odd)} runs have values of a sweep. `cmsim sweep` takes all")
        for run in loaded.runs:
            if run.spec.kind != self.form.kind:
                raise InputError(
                    f"more keys make it {run.spec.kind}, and the workload that is chosen is {self.form.kind}"
                )
            if isinstance(run.spec, ServingSpec):
                load_of(run)
        return loaded

    def yaml(self) -> str:
        """What is asked as the text of a scenario file. Raises InputError as `scenario` does."""
        import yaml

        self.scenario()
        head = "# asked on the page of `cmsim ui`\n"
        return head + str(yaml.safe_dump(self.form.scenario(), sort_keys=False, allow_unicode=True, width=120))

    def answer(self) -> Answer:
        """What is known at once, in milliseconds; `missing` says what is still to be prepared."""
        kind = self.form.kind
        try:
            scenario = self.scenario()
            return self._told(kind, scenario)
        except CmsimError as error:
            return Answer(kind, error=str(error))

    def _told(self, kind: str, scenario: Scenario) -> Answer:
        lines, rows, missing = [], [], []
        for run in scenario.runs:
            told = self.known.get(scenario, run)
            if told is None:
                missing.append(run.system.label)
                continue
            lines.append(told.line(run))
            rows.append(told.row(run))
        return Answer(kind, scenario, "", tuple(lines), tuple(rows), tuple(missing))

    # what takes long

    def prepare(self, scenario: Scenario) -> None:
        """Makes one thing that is lacking, of the first system that lacks something."""
        run = next((one for one in scenario.runs if self.known.get(scenario, one) is None), None)
        if run is not None:
            self.known.make(scenario, run)

    def more(self, scenario: Scenario) -> bool:
        """Plays something that is likely asked for next, while nobody waits; whether there was anything."""
        return self.known.more(scenario)

    def play(self, answer: Answer) -> Answer:
        """The same answer from runs of its scenario, with what makes the difference between its systems."""
        scenario = answer.scenario
        assert scenario is not None, "what is wrong is not played"
        became = [self._played(run) for run in scenario.recorded("summary").runs]
        done = [one for one in became if isinstance(one, Result)]
        return dataclasses.replace(
            answer,
            rows=tuple(_row(one) for one in became),
            played=True,
            verdict=tuple(Results(became, scenario=dict(scenario.data)).verdict()) if done else (),
            why=_why([one for one in self._steps(scenario, done) if one.breakdown], _OTHERS),
            notes=tuple(dict.fromkeys(text for one in done for text in one.warnings)),
        )

    def _played(self, run: Run) -> Outcome:
        """What becomes of a run; what is wrong with it on one system is a failure of that one."""
        try:
            return api.evaluate(run, self.known.machines)
        except CmsimError as error:
            return api.failed(run, str(error))

    def report(self, scenario: Scenario) -> bytes:
        """The page of `cmsim report` for what is asked. Raises CmsimError where no run gives a result."""
        from cmsim.report import write_report

        with tempfile.TemporaryDirectory() as folder:
            return write_report(api.run(scenario, record="full"), Path(folder) / "report.html").read_bytes()

    def frames(self, scenario: Scenario) -> bytes:
        """The folder of results of what is asked, zipped. Raises CmsimError as `report`."""
        with tempfile.TemporaryDirectory() as folder:
            results = api.run(scenario, record="full")
            results.require()
            root = results.save(Path(folder) / "results")
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
                for path in sorted(one for one in root.rglob("*") if one.is_file()):
                    file.writestr(zipfile.ZipInfo(f"results/{path.relative_to(root).as_posix()}"), path.read_bytes())
        return packed.getvalue()

    def _steps(self, scenario: Scenario, done: list[Result]) -> list[Result]:
        """Runs with parts of their time: those that were played or, of services, a step of theirs at this load."""
        if not isinstance(scenario.runs[0].spec, ServingSpec):
            return done
        runs = {run.key: run for run in scenario.runs}
        steps = [self._played(_step(runs[one.run], one, self.known.machines)) for one in done if _answers(one)]
        return [one for one in steps if isinstance(one, Result)]


def _step(run: Run, done: Result, machines: api.Machines) -> Run:
    """A step of a service's answers, with as many sequences as were there at once in the mean."""
    spec = run.spec
    assert isinstance(spec, ServingSpec)
    ranks_per_package = machines(run).ranks_per_package
    held = float(done.metrics["output_tokens_per_s"]) * float(done.metrics["tpot_mean_s"]) / done.accelerators
    each = ranks_per_package / spec.parallel.ranks_of_holder
    prompt, output = spec.lengths.prompt_tokens or 0, spec.lengths.output_tokens or 0
    data = spec.model_dump(mode="json", exclude_unset=True, include={"model", "parallel", "precision", "speculative"})
    workload = {
        "kind": "decode",
        **data,
        "microbatches": spec.microbatches,
        "batch_per_accelerator": max(math.ceil(held / each), 1) * each,
        "context_tokens": max(int(prompt + output / 2), 1),
        "ranks": done.accelerators // int(spec.replicas) * ranks_per_package,
    }
    entry = run.system.model_dump(mode="json", exclude_unset=True)
    [one] = load_scenario({"systems": [entry], "workload": workload}).recorded("summary").runs
    return one


def _row(one: Outcome) -> ToldRow:
    """What became of a run, under the name that its scenario has for the system."""
    system = one.system if one.entry is None else one.entry.label
    if not isinstance(one, Result):
        return ToldRow(system, reason=" ".join(one.message.split()))
    said = {name: value for name, value in metrics_of(one).items() if math.isfinite(value)}
    return ToldRow(system, said, one.limiter, GROWS if _late(one) else "")


def _answers(one: Result) -> bool:
    """Whether a service keeps up, and has steps of answers: one token comes with the prompt."""
    return not _late(one) and "tpot_mean_s" in one.metrics


def _late(one: Result) -> bool:
    """Whether a service did not keep up."""
    return one.metrics.get("stable") == "no"


def _why(runs: Sequence[Result], most: int) -> tuple[Why, ...]:
    """From the first run to each of some others."""
    return tuple(Why(runs[0].system, other.system, *waterfall.between(runs[0], other)) for other in runs[1 : most + 1])


__all__ = ["COLUMNS", "START", "Answer", "WhatIf", "Why"]
