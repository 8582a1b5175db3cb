"""What is powered: how many of each part a run uses, and what each draws. [W]"""

from __future__ import annotations

from dataclasses import dataclass

from cmsim.hardware import BoardWatts, System
from cmsim.topology import wiring
from cmsim.topology.fat_tree import shares

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

    P_opt = modules x module_W: optics and serial links send idle frames, so that modules are always on. Switches and
    modules of a domain used in part count in proportion to the nodes used; the scale-out network
    counts with the switches and modules that the accelerators account for in a large cluster.
    Source: cmsim.topology.totals, of which this is the state with nothing to do; the numbers are the system file's.
    """
    spec, n = system.spec, system.packages
    node, out, fabric = spec.node, spec.scale_out, spec.scale_up.power
    return Constant(
        accelerators_W=n * system.accelerator.power.idle_W,
        hosts_W=system.nodes * (node.cpus * node.cpu_idle_W + node.other_W),
        switch_chips_W=switch_chips(system) * fabric.chip_static_W + shares(out, nics=n) * out.switch_W,
        optical_modules_W=scale_up_modules(system) * fabric.module_W + n * out.modules_per_accelerator * out.module_W,
        nics_W=n * out.nic_W,
    )


def full_W(system: System, board: BoardWatts) -> float:
    """Everything in use at its most at once, fans included: what power supplies are sized for. [W]

    Source: cmsim.topology.totals, of which this is the state of full use.
    """
    spec, fixed = system.spec, constant(system)
    package_W = min(board.active + board.compute + board.memory + board.link, board.limit)
    sockets_W = system.nodes * spec.node.cpus * (spec.node.cpu_active_W - spec.node.cpu_idle_W)
    chips_W = switch_chips(system) * spec.scale_up.power.chip_dynamic_W
    parts_W = system.packages * package_W + fixed.hosts_W + sockets_W + fixed.switch_chips_W + chips_W
    return (parts_W + fixed.optical_modules_W + fixed.nics_W) * (1 + spec.facility.fan_fraction)


def switch_chips(system: System) -> float:
    """Switch chips of the scale-up fabric that serve the nodes in use. [1]"""
    return wiring(system).parts(system, system.spec.scale_up).switch_chips


def scale_up_modules(system: System) -> float:
    """Optical modules on the uplinks of the nodes in use, all ends. [1]"""
    return wiring(system).parts(system, system.spec.scale_up).modules
