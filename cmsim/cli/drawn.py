"""What ``cmsim plot`` draws that is no result: a system with its faults, and predictions beside what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cmsim.errors import InputError, Problem, did_you_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from cmsim.topology import Sketch


def predicted(areas: list[str]) -> Axes:
    """Points of areas of validation, as `cmsim validate --out` draws them. Raises InputError for areas without any."""
    from cmsim import validation
    from cmsim.plots import predicted
    from cmsim.validation import reference

    found = validation.validate(areas=areas).pairs
    titles = [reference.read_head(name).title for name in found]
    return predicted.draw([one for pairs in found.values() for one in pairs], title=" and ".join(titles))


def system(sources: list[str], entry: str | None) -> Sketch:
    """A system, or of a scenario the one that an entry names: default the first with faults, else the first.

    Faults that begin or end during a run are drawn as they are while they last. Raises InputError for several sources,
    and for names that are neither.
    """
    from cmsim.cli.compare import _is_built_in
    from cmsim.cli.show import kind_of
    from cmsim.hardware import load_system
    from cmsim.reading import exists, read_yaml
    from cmsim.topology import sketch

    if len(sources) != 1:
        raise InputError(Problem(f"topology draws one system or scenario, got {len(sources)}", key="topology"))
    (source,) = sources
    path = Path(source)
    is_file = exists(path) and path.suffix in (".yaml", ".yml")
    is_ours = _is_built_in(path.stem if path.parent.name == "scenarios" else source)
    if kind_of(read_yaml(path)) == "scenario" if is_file else is_ours:
        return _of_scenario(source, entry)
    if exists(path, folders=True) and path.is_dir():
        raise InputError(Problem("is a folder; topology draws a system or a scenario, of its name or file", source))
    if entry is not None:
        raise InputError(Problem("is for scenarios, which have several systems", key="--run"))
    return sketch(load_system(source))


def _of_scenario(source: str, entry: str | None) -> Sketch:
    from cmsim import api
    from cmsim.identity import place
    from cmsim.scenario import load_scenario
    from cmsim.topology import drawn, sketch

    scenario = load_scenario(source)
    runs = {place(one.identity.entry, one.identity.point): one for one in reversed(scenario.runs)}
    by_label = {one.system.label: one for one in reversed(scenario.runs)} | runs
    if entry is not None and entry not in by_label:
        raise InputError(Problem(f"no system '{entry}' in the scenario. {did_you_mean(entry, by_label)}", key="--run"))
    one = by_label[entry] if entry else next((run for run in scenario.runs if run.faults), scenario.runs[0])
    system = api.Machines(scenario.base).uncapped(one)
    faults = {
        fault.part if fault.share == 1 else drawn(fault.part, fault.share, one.seed): fault.left for fault in one.faults
    }
    return sketch(system, faults, name=one.system.label)
