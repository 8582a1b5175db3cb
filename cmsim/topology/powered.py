"""What every part of a system draws with nothing to do and at its most: added up here, for totals and for runs alike.

Totals count switch chips and modules in the graph; a run, which uses part of a system, has a share of them. Either way
the sum is this one. Source: the watts of system and accelerator files.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmsim.hardware import BoardWatts, System
from cmsim.topology.fat_tree import shares


@dataclass(frozen=True)
class Powered:
    """Power of what does the work, before fans and supplies. [W]

    ``_idle``: with nothing to do    ``_added``: what full use adds; parts without draw the same whatever the load
    """

    package_idle_W: float
    package_full_W: float
    packages: int
    host_idle_W: float
    host_added_W: float
    nodes: int
    chips: float
    chip_idle_W: float
    chip_added_W: float
    modules_W: float
    nics_W: float
    outer_switches: float
    outer_switches_W: float
    outer_modules: float
    outer_modules_W: float

    @property
    def hosts_idle_W(self) -> float:
        return self.nodes * self.host_idle_W

    @property
    def chips_idle_W(self) -> float:
        return self.chips * self.chip_idle_W

    @property
    def chips_added_W(self) -> float:
        return self.chips * self.chip_added_W

    @property
    def outside_W(self) -> float:
        """The scale-out network's switches and modules."""
        return self.outer_switches_W + self.outer_modules_W

    @property
    def full_W(self) -> float:
        """Everything at its most at once."""
        hosts_W = self.hosts_idle_W + self.nodes * self.host_added_W
        chips_W = self.chips_idle_W + self.outer_switches_W + self.chips_added_W
        packages_W = self.packages * self.package_full_W
        return packages_W + hosts_W + chips_W + self.modules_W + self.outer_modules_W + self.nics_W


def powered(system: System, board: BoardWatts, *, chips: float, modules: float) -> Powered:
    """The watts of a system's parts.

    board: of a package    chips, modules: switch chips and optical modules of the scale-up fabric that count for it [1]

    Modules are always on: optics and serial links send idle frames. The scale-out network counts with the switches and
    modules that the accelerators account for in a large cluster.
    """
    node, out, fabric = system.spec.node, system.spec.scale_out, system.spec.scale_up.power
    switches, outer = shares(out, nics=system.packages), system.packages * out.modules_per_accelerator
    return Powered(
        package_idle_W=board.idle,
        package_full_W=min(board.active + board.compute + board.memory + board.link, board.limit),
        packages=system.packages,
        host_idle_W=node.cpus * node.cpu_idle_W + node.other_W,
        host_added_W=node.cpus * (node.cpu_active_W - node.cpu_idle_W),
        nodes=system.nodes,
        chips=chips,
        chip_idle_W=fabric.chip_static_W,
        chip_added_W=fabric.chip_dynamic_W,
        modules_W=modules * fabric.module_W,
        nics_W=system.packages * out.nic_W,
        outer_switches=switches,
        outer_switches_W=switches * out.switch_W,
        outer_modules=outer,
        outer_modules_W=outer * out.module_W,
    )
