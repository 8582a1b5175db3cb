"""What is powered: how many of each part a run uses, and what each draws. [W]"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cmsim.hardware import BoardWatts, System, board_watts
from cmsim.hardware.supplies import lost_W
from cmsim.reading.look import of_one
from cmsim.topology import Powered, powered, wiring

#: every component, in the order in which power passes them: what is on boards, then what feeds and cools it
COMPONENTS = (
    "accelerators_idle",
    "accelerators_active",
    "accelerators_compute",
    "accelerators_memory",
    "accelerators_link",
    "hosts",
    "switch_chips",
    "optical_modules",
    "nics",
    "fans",
    "power_supplies",
    "facility",
)


@dataclass(frozen=True)
class Constant:
    """What draws the same whatever the load, over all parts in use. [W]"""

    accelerators_W: float
    hosts_W: float
    switch_chips_W: float
    optical_modules_W: float
    nics_W: float


def constant(system: System) -> Constant:
    """Power of everything in use with nothing to do. [W]

    Switches and modules of a domain used in part count in proportion to the nodes used. Source:
    cmsim.topology.powered, whose state with nothing to do this is.
    """
    return of_one("constant", system, lambda: _constant(system))


def _constant(system: System) -> Constant:
    parts = _powered(system, board_watts(system.accelerator))
    return Constant(
        accelerators_W=parts.packages * parts.package_idle_W,
        hosts_W=parts.hosts_idle_W,
        switch_chips_W=parts.chips_idle_W + parts.outer_switches_W,
        optical_modules_W=parts.modules_W + parts.outer_modules_W,
        nics_W=parts.nics_W,
    )


def full_W(system: System, board: BoardWatts) -> float:
    """Everything in use at its most at once, fans included, boards under the limit as delivered: what power supplies
    are sized for. [W]"""
    return _full_W(system, replace(board, limit=board.built))


def _full_W(system: System, board: BoardWatts) -> float:
    return _powered(system, board).full_W * (1 + system.spec.facility.fan_fraction)


def rated_W(system: System) -> float:
    """What the facility draws with everything in use at its most at once: the line its power stays under. [W]"""
    facility = system.spec.facility
    board = board_watts(system.accelerator)
    direct_W = _full_W(system, board)
    lost = lost_W(direct_W, full_W=full_W(system, board), facility=facility)
    return float((direct_W + lost) * facility.pue)


def _powered(system: System, board: BoardWatts) -> Powered:
    return powered(system, board, chips=switch_chips(system), modules=scale_up_modules(system))


def switch_chips(system: System) -> float:
    """Switch chips of the scale-up fabric that serve the nodes in use. [1]"""
    return wiring(system).parts(system, system.spec.scale_up).switch_chips


def scale_up_modules(system: System) -> float:
    """Optical modules on the uplinks of the nodes in use, all ends. [1]"""
    return wiring(system).parts(system, system.spec.scale_up).modules
