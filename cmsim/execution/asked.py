"""What no run of a scenario could answer, refused before any is played."""

from __future__ import annotations

from collections.abc import Sequence

from cmsim import cost
from cmsim.execution import money
from cmsim.execution.machines import Machines
from cmsim.hardware import System
from cmsim.scenario import Scenario


def check_asked(scenario: Scenario, machines: Machines) -> None:
    """Refuse what no run of a scenario could answer, before any is played.

    Parameters
    ----------
    scenario
        What its report and its bill ask for.
    machines
        Its systems.

    Raises
    ------
    InputError
        For a system that cannot be read, and one without a price where one is asked for.
    """
    systems = [machines.uncapped(one) for one in scenario.runs]
    check_report(scenario, systems)
    money.check(zip(scenario.runs, systems, strict=True), machines.base)


def check_report(scenario: Scenario, systems: Sequence[System]) -> None:
    """Refuse throughput per something that is not known of every system.

    Parameters
    ----------
    scenario
        What the report asks for.
    systems
        Those of its runs.

    Raises
    ------
    InputError
        Where a system has no price and throughput per million dollars is asked for.
    """
    # a bill has a price of its own, or is refused
    if "million_dollars" in scenario.report.per and any(one.cost is None for one in scenario.runs):
        cost.check_priced(systems)


__all__ = ["check_asked", "check_report"]
