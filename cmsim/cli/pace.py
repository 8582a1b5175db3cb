"""``cmsim pace``: race to idle against slow and steady, for runs with a deadline."""

from __future__ import annotations

from typing import Annotated

import typer

from cmsim.cli import say
from cmsim.cli.app import app
from cmsim.cli.run import Json, ScenarioName


@app.command()
def pace(
    scenario: ScenarioName,
    deadline: Annotated[
        float | None,
        typer.Option(min=1e-9, help="Seconds for all repetitions. Default: half as much again as at full clock."),
    ] = None,
    times: Annotated[int, typer.Option(min=1, help="How often each run is repeated before it waits.")] = 1,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As for `cmsim run`. May be repeated.")
    ] = None,
    json: Json = False,
) -> None:
    """Is it better to run at full clock and then wait, or as slowly as a deadline allows?"""
    from cmsim import pace as paces
    from cmsim.execution import Machines
    from cmsim.numbers import digits
    from cmsim.scenario import load_scenario

    asked = load_scenario(scenario, set=say.settings(set_ or []))
    machines = Machines(asked.base)
    found = [paces.pace(one, machines, deadline_s=deadline, times=times) for one in asked.runs]
    if json:
        say.document([one.data() for one in found])
        return
    parts: list[object] = []
    for one in found:
        rows = []
        for at in one.paced:
            names = {one.race.clock: "race", one.steady.clock: "steady"}
            marks = [names.get(at.clock, ""), "least energy" if at is one.best else ""]
            ends = [digits(each / 1e3) if each is not None else "late" for each in (at.idle_J, at.asleep_J)]
            shown = ends if one.sleeps else ends[:1]
            told = [f"{at.clock:.3g}", digits(at.took_s), digits(at.run_J / 1e3), *shown]
            rows.append([*told, ", ".join(filter(None, marks))])
        heads = ["clock", "takes s", "run kJ", "then idle kJ", *(["then asleep kJ"] if one.sleeps else []), ""]
        title = f"{one.run}: {one.times} in {digits(one.deadline_s)} s, facility energy until then"
        parts.append(say.table(heads, rows, title=title, left=(len(heads) - 1,)))
    say.show(*parts)
