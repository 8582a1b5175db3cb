"""Reading a scenario: extends, overrides and sweeps resolved to runs, every error with its place."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from cmsim import kinds, markup, reading
from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.identity import Entry, Identity
from cmsim.kinds import Kind
from cmsim.kinds.parts import WorkloadSpec
from cmsim.scenario import axes, best, forms, sizes
from cmsim.scenario.best import Open
from cmsim.scenario.perturb import read_perturb
from cmsim.scenario.run import Run
from cmsim.scenario.schema import FaultSpec, PerturbSpec, Record, ReportSpec, ScenarioSpec, SystemEntry
from cmsim.version import unread

#: scenarios laid over each other, runs of one scenario, and problems after which no more are looked for
_MOST_EXTENDED, _MOST_RUNS, _ENOUGH = 32, 100_000, 100


@dataclass(frozen=True)
class Scenario:
    """A validated scenario.

    Attributes
    ----------
    name
        As the file says, or the file's own name.
    runs
        In file order: workloads, then systems, then sweep points.
    report
        What the report is asked for.
    data
        The scenario in long form, with changes.
    text
        The file as it was read.
    file
        Its path; empty where it was given as data or text.
    """

    name: str
    runs: tuple[Run, ...]
    report: ReportSpec
    data: Mapping[str, Any]
    text: str = field(repr=False)
    file: str = ""

    def __repr__(self) -> str:
        runs = f"{len(self.runs)} run{'s' * (len(self.runs) != 1)}"
        return f"<Scenario {' '.join(self.name.split())}: {runs}>" if self.name else f"<Scenario: {runs}>"

    @property
    def base(self) -> Path | None:
        """Folder that relative paths in the scenario start from."""
        return Path(self.file).parent if self.file else None

    def recorded(self, record: Record) -> Scenario:
        """The scenario with that much kept of each run.

        Parameters
        ----------
        record
            full, summary or none.

        Returns
        -------
        Scenario
            Another one; this stays as it is.

        Raises
        ------
        InputError
            For a word that is none of the three.
        """
        if record not in get_args(Record):
            raise InputError(Problem(f"got {record!r}. {did_you_mean(str(record), get_args(Record))}", key="record"))
        runs = tuple(replace(run, record=record) for run in self.runs)
        return replace(self, runs=runs, data={**self.data, "record": record})

    def allowing_policies(self) -> Scenario:
        """The scenario, whose runs may call a function of the user's that it names (``policy: module:function``).

        Returns
        -------
        Scenario
            Another one; this stays as it is.
        """
        return replace(self, runs=tuple(replace(run, allow_policies=True) for run in self.runs))

    def _repr_html_(self) -> str:
        rows = [(run.key, run.spec.kind, run.network) for run in self.runs]
        return markup.table(rows, head=("run", "kind", "network"), title=self.name or self.file, align="left")


def load_scenario(
    source: str | Path | Mapping[str, Any] | Scenario, *, set: Mapping[str, Any] | None = None
) -> Scenario:
    """A scenario from a file, a built-in name, YAML-like data, YAML text with a line break, or another scenario.

    Parameters
    ----------
    source
        Path, name, text, data, or a scenario: as it is, its paths from where it stands.
    set
        Dotted keys to change, as on the command line (``workloads.decode.batch_per_accelerator``).

    Returns
    -------
    Scenario
        Checked; its runs are ready to be played.

    Raises
    ------
    InputError
        With all problems of the file.
    """
    return _scenario(*_read(source, set))


def _scenario(document: reading.Document, data: dict[str, Any]) -> Scenario:
    try:
        spec = reading.validate(ScenarioSpec, document, data=best.without(data))
        swept = axes.read(document, data, _MOST_RUNS)
    except InputError as error:
        raise InputError(_sorted([*error.problems, *_workload_problems(document, data)])) from None
    runs = _runs(document, data, swept)
    return Scenario(spec.name or Path(document.file).stem, runs, spec.report, data, document.text, document.file)


def _read(
    source: str | Path | Mapping[str, Any] | Scenario, set: Mapping[str, Any] | None
) -> tuple[reading.Document, dict[str, Any]]:
    """A document, and its data in long form with changes."""
    if isinstance(source, Scenario):
        document, data = reading.parse_yaml(source.text, source.file), copy.deepcopy(dict(source.data))
    else:
        document = _document(source)
        data = copy.deepcopy(forms.long_form(document, _extended(document)))
    for key, value in (set or {}).items():
        _set(data, key, value, where="--set")
    # before anything else: what a newer form has more would be so many unknown keys
    if "schema_version" in data and (why := unread(data["schema_version"])):
        raise InputError(document.problem(("schema_version",), f"got {why}"))
    return document, data


@dataclass(frozen=True)
class SweepSpace:
    """A scenario with a sweep of more points than anybody lists.

    Attributes
    ----------
    swept
        Its axes and conditions.
    data, document
        The scenario in long form, with changes; as it was read.
    """

    swept: axes.Sweep
    data: Mapping[str, Any]
    document: reading.Document

    def at(self, point: Mapping[str, Any]) -> Scenario:
        """The scenario at one point of it. Raises InputError for a point that is none."""
        data = {**self.data, "sweep": {key: [value] for key, value in point.items()}}
        return _scenario(self.document, copy.deepcopy(data))


def load_space(source: str | Path | Mapping[str, Any], *, set: Mapping[str, Any] | None = None) -> SweepSpace:
    """What `load_scenario` reads, without the runs.

    Parameters
    ----------
    source, set
        As of `load_scenario`.

    Returns
    -------
    SweepSpace
        Its points can be asked for.

    Raises
    ------
    InputError
        For what is wrong around workloads.
    """
    document, data = _read(source, set)
    reading.validate(ScenarioSpec, document, data=best.without(data))
    return SweepSpace(axes.read(document, data, _MOST_RUNS), data, document)


def _document(source: str | Path | Mapping[str, Any]) -> reading.Document:
    if isinstance(source, Mapping):
        import yaml

        return reading.parse_yaml(yaml.safe_dump(_plain(source), sort_keys=False), "")
    if isinstance(source, str) and "\n" in source:
        return reading.parse_yaml(source, "")
    return reading.read_yaml(reading.find(str(source), "scenarios", "scenario"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _extended(document: reading.Document) -> dict[str, Any]:
    """The document's data over those of the scenarios it extends, of several each over those before it."""
    return reading.merge(_over_others(document, (document,), []), {})  # type: ignore[no-any-return]


def _over_others(
    document: reading.Document, chain: tuple[reading.Document, ...], read: list[reading.Document]
) -> dict[str, Any]:
    """``chain``: from the first document to this one    ``read``: what is extended so far, which grows"""
    names = document.data.get("extends")
    data: dict[str, Any] = {}
    for name in [names] if isinstance(names, str) else names if isinstance(names, list) else ():
        if not isinstance(name, str):  # refused with the rest of the file
            continue
        base_folder = Path(document.file).parent if document.file else None
        below = reading.read_yaml(reading.find(name, "scenarios", "scenario", base=base_folder))
        if any(below.file == one.file for one in chain):
            raise InputError(document.problem(("extends",), f"scenarios extend each other in a circle: {below.file}"))
        read.append(below)
        if len(read) > _MOST_EXTENDED:
            message = f"more than {_MOST_EXTENDED} scenarios extend each other"
            raise InputError(chain[0].problem(("extends",), message))
        data = reading.merge(*forms.alike(data, _over_others(below, (*chain, below), read)))
    return reading.merge(*forms.alike(data, document.data))  # type: ignore[no-any-return]


def _set(data: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Set a dotted key, in place; ``workload.x`` reaches the one workload."""
    reading.set_dotted(data, forms.whole_key(data, key), value, where=where)


def _runs(document: reading.Document, data: dict[str, Any], swept: axes.Sweep) -> tuple[Run, ...]:
    problems: list[Problem] = []
    runs: list[Run] = []
    if (count := _count(data, swept)) > _MOST_RUNS:
        message = f"asks for {count} runs: workloads x systems x points; allowed: up to {_MOST_RUNS}"
        raise InputError(document.problem(("sweep",) if swept.axes else ("systems",), message))
    for name in data["workloads"]:
        for number in range(len(data["systems"])):
            if len(problems) > _ENOUGH:
                break
            for point in swept.points(name, number):
                try:
                    runs += _at_point(document, data, name, number, point)
                except InputError as error:
                    problems += [problem for problem in error.problems if problem not in problems]
    problems = problems or list(_alike(document, runs))
    if problems:
        raise InputError(_sorted(problems))
    return tuple(runs)


def _count(data: Mapping[str, Any], swept: axes.Sweep) -> int:
    """How many runs there will be, conditions left aside."""
    count = 0
    for name, raw in data["workloads"].items():
        lists = [len(value) for value in raw.values() if isinstance(value, list)] if isinstance(raw, dict) else []
        for number in range(len(data["systems"])):
            count += swept.most(name, number) * max(lists, default=1)
    return count


def _alike(document: reading.Document, runs: Sequence[Run]) -> Iterator[Problem]:
    """Runs that would be called alike: names can hold what holds a label together."""
    seen: dict[str, Run] = {}
    for run in runs:
        first = seen.setdefault(run.key, run)
        if first is not run:
            yield document.problem(
                ("systems", run.identity.entry.number),
                f"two runs would be called '{run.key}'. Give this system, or systems[{first.identity.entry.number}], "
                "another `name:`.",
            )


def _called(
    document: reading.Document, systems: Sequence[str | SystemEntry], number: int
) -> tuple[Entry, list[Problem]]:
    """An entry's number and label, and what is wrong where another is called so too: no table could tell them apart."""
    labels = [(SystemEntry(system=one) if isinstance(one, str) else one).label for one in systems]
    label = labels[number]
    problems = []
    for other in (other for other, its in enumerate(labels) if its == label and other != number):
        first, second = sorted((number, other))
        message = f"is called '{label}', and so is systems[{first}]. Tell them apart: give one of them a `name:`."
        problems.append(document.problem(("systems", second), message))
    return Entry(number, label), problems


def _sorted(problems: Sequence[Problem]) -> list[Problem]:
    """Each problem once, in file order."""
    return sorted(dict.fromkeys(problems), key=lambda problem: problem.line or 0)


def _workload_problems(document: reading.Document, data: Mapping[str, Any]) -> list[Problem]:
    """What is wrong inside workloads, whatever is wrong around them: all problems of a file are said at once."""
    problems: list[Problem] = []
    workloads = data.get("workloads")
    for name, raw in workloads.items() if isinstance(workloads, dict) else ():
        if not isinstance(raw, dict):
            continue
        place = ("workload",) if "workload" in document.data else ("workloads", name)
        try:
            _taken(document, {key: value for key, value in raw.items() if key != "per_system"}, [place])
        except InputError as error:
            problems += error.problems
    return problems


def _taken(
    document: reading.Document, raw: dict[str, Any], places: Sequence[tuple[str, ...]]
) -> tuple[dict[str, Any], tuple[Open, ...], str | None]:
    """A workload with values where `best` stands, which keys that are, and by which metric; all of it checked."""
    kind = _kind(document, raw, places[-1])
    raw, left_open, of = best.take(document, raw, kind.spec, places, kind=kind)
    _workload(document, raw, places[-1])
    return raw, left_open, of


def _kind(document: reading.Document, raw: Mapping[str, Any], place: tuple[str, ...]) -> Kind:
    """The kind of a workload. Raises InputError where there is no such kind, or none is said."""
    name = raw.get("kind")
    if not kinds.known(name):
        what = "the key 'kind' is required." if name is None else f"got {name!r}."
        raise InputError(document.problem((*place, "kind"), f"{what} {did_you_mean(str(name), kinds.names())}"))
    return kinds.get(str(name))


def _workload(document: reading.Document, raw: dict[str, Any], place: tuple[str, ...]) -> WorkloadSpec:
    """One workload; the first of the values where a key that may be a list has several."""
    kind = _kind(document, raw, place)
    if isinstance(raw.get(kind.listed), list):
        raw = raw | {kind.listed: next(iter(raw[kind.listed]), None)}
    return reading.validate(kind.spec, document, data=raw, at=place)


def _at_point(
    document: reading.Document, data: dict[str, Any], name: str, number: int, point: Mapping[str, Any]
) -> list[Run]:
    """The run of one workload and system at a sweep point; several where a key that may be a list is one."""
    at = copy.deepcopy(data)
    for key, value in point.items():
        _set(at, key, value, where="sweep")
    whole = reading.validate(ScenarioSpec, document, data=best.without(at))
    entry = whole.systems[number]
    entry = SystemEntry(system=entry) if isinstance(entry, str) else entry
    called, problems = _called(document, whole.systems, number)
    raw = dict(at["workloads"][name])
    place = ("workload",) if "workload" in document.data else ("workloads", name)
    per_system = raw.pop("per_system", None) or {}
    if not isinstance(per_system, dict):
        raise InputError(document.problem((*place, "per_system"), "expected system names with keys of the workload"))
    known = [e if isinstance(e, str) else e.name or e.system for e in whole.systems] + [
        e.system for e in whole.systems if not isinstance(e, str)
    ]
    for other, keys in per_system.items():
        if other not in known:
            raise InputError(
                document.problem(
                    (*place, "per_system", other), f"no such system here. {did_you_mean(str(other), known)}"
                )
            )
        if not isinstance(keys, dict):
            message = f"expected keys of the workload, got {keys!r}"
            raise InputError(document.problem((*place, "per_system", other), message))
    places = [place]
    for other in (entry.system, entry.name):
        if other in per_system:
            raw = reading.merge(raw, per_system[other])
            places.insert(0, (*place, "per_system", str(other)))
    try:
        entry, of_system, system_of = _system_taken(document, at["systems"][number], entry, number, raw.get("kind"))
    except InputError as error:
        problems += error.problems
    try:
        raw, left_open, of = _taken(document, raw, places)
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(problems)
    if None not in (of, system_of) and of != system_of:
        message = f"`best` is decided by {system_of} here and by {of} in the workload. Allowed: one metric."
        raise InputError(document.problem(("systems", number), message))
    listed = kinds.get(raw["kind"]).listed
    values = sizes.known(kinds.get(raw["kind"]).spec, (listed,), raw.get(listed))
    if isinstance(values, list) and (problem := axes.twice(document, (*place, listed), values)):
        raise InputError(problem)
    runs = []
    for value in values if isinstance(values, list) else [None]:
        here = dict(point)
        if value is not None:
            raw = raw | {listed: value}
            here[f"workloads.{name}.{listed}"] = value
        spec = _workload(document, raw, place)
        faults = tuple(
            FaultSpec(part=fault) if isinstance(fault, str) else fault for fault in (*whole.faults, *entry.faults)
        )
        runs.append(
            Run(
                identity=Identity(name, called, here),
                spec=spec,
                system=entry,
                # what is broken shows on single links only
                network="flow" if faults else whole.network,
                routing=whole.routing,
                faults=faults,
                fold=whole.fold,
                perturb=_perturb(document, whole),
                jitter=whole.jitter,
                seed=whole.seed,
                open=(*of_system, *left_open),
                of=of or system_of,
                exclusive=whole.exclusive,
                record=whole.record,
                cost=whole.cost,
                carbon=whole.carbon,
                uncertainty=whole.uncertainty,
            )
        )
    return runs


def _system_taken(
    document: reading.Document, raw: Any, entry: SystemEntry, number: int, kind: Any
) -> tuple[SystemEntry, tuple[Open, ...], str | None]:
    """A system's entry with values where `best` stands, which keys that are, and by which metric."""
    if not isinstance(raw, dict) or not kinds.known(kind):  # which is complained of at the workload
        return entry, (), None
    place = ("systems", number)
    data, left_open, of = best.take(document, raw, SystemEntry, [place], kind=kinds.get(kind), of_system=True)
    if not left_open:
        return entry, (), None
    return reading.validate(SystemEntry, document, data=data, at=place), left_open, of


def _perturb(document: reading.Document, whole: ScenarioSpec) -> Mapping[int, PerturbSpec]:
    """Slow ranks as they stand, or of a file beside the scenario or in the working folder."""
    if not isinstance(whole.perturb, str):
        return whole.perturb
    found = reading.locate(whole.perturb, base=Path(document.file).parent if document.file else None)
    if found is None:
        raise InputError(document.problem(("perturb",), f"no such file: {whole.perturb}"))
    return read_perturb(found)
