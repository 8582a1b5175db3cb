"""The systems of a scenario's runs."""

from __future__ import annotations

from pathlib import Path

from cmsim import energy, kinds
from cmsim.hardware import System, load_system
from cmsim.scenario import Run


class Machines:
    """The systems of a scenario's runs, each loaded once.

    Parameters
    ----------
    base
        Folder that relative paths of the scenario start from.
    """

    def __init__(self, base: Path | None = None):
        self.base = base
        self._systems: dict[str, System] = {}
        self._capped: dict[str, System] = {}

    def __call__(self, one: Run) -> System:
        """That of a run, under the caps of its workload. Raises InfeasibleError where they leave nothing."""
        power = getattr(one.spec, "power", None)
        # what executes itself has runs of its own, which its caps are for
        if power is None or not isinstance(kinds.get(one.spec.kind).execution, kinds.PlayedKind):
            return self.uncapped(one)
        key = f"{one.system_key} {power.model_dump_json(exclude={'over_time'})}"
        if key not in self._capped:
            self._capped[key] = energy.limited(self.uncapped(one), power.caps_W, power.clock)
        return self._capped[key]

    def uncapped(self, one: Run) -> System:
        """That of a run, whatever its workload is held to.

        Parameters
        ----------
        one
            A run of a scenario.

        Returns
        -------
        System
            Loaded once.
        """
        if one.system_key not in self._systems:
            self._systems[one.system_key] = system(one, base=self.base)
        return self._systems[one.system_key]

    def loaded(self) -> list[System]:
        """In the order in which they were first asked for.

        Returns
        -------
        list of System
            Those that a run was on so far.
        """
        return list(self._systems.values())


def system(one: Run, *, base: Path | None = None) -> System:
    """The system of a run, with the scenario's changes.

    Parameters
    ----------
    one
        A run of a scenario.
    base
        Folder that relative paths of the scenario start from.

    Returns
    -------
    System
        Checked, with all sizes resolved.

    Raises
    ------
    InputError
        For a file that cannot be read, or says what cannot be.
    """
    entry = one.system
    return load_system(
        entry.system,
        accelerators=entry.accelerators,
        domains=entry.domains,
        rank=entry.rank,
        stack=entry.stack,
        set=entry.set,
        label=entry.label,
        base=base,
        kind=one.spec.kind,
    )
