"""Totals of a whole system, derived from its parts, and how they compare with what was published.

Counts of chips and modules are taken from the graph; everything else is a sum over the fields of the system and
accelerator files. Power at full use is every component at its maximum at once, which no workload does; at idle it
is every component powered with nothing to do. Switches of the scale-out network are shared with the rest of a
cluster, so that a system is charged for the ports it fills; the count of switches is that of the graph, in whole.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from cmsim.errors import InputError, Problem, did_you_mean
from cmsim.hardware import System, board_watts
from cmsim.hardware.supplies import fans_W, lost_W, overhead_W
from cmsim.topology.graph import build
from cmsim.topology.levels import fabric
from cmsim.topology.powered import Powered, powered
from cmsim.topology.wirings import wiring
from cmsim.units import GIGA, TERA

_KILO = 1e3
#: kinds of node that are no chip of a domain's fabric
_NO_CHIPS = frozenset({"rank", "cpu", "nic", "leaf", "spine"})


@dataclass(frozen=True)
class Total:
    """A derived total: its value, its unit, and the sum that gave it."""

    value: float
    unit: str
    derivation: str


@dataclass(frozen=True)
class Comparison:
    """A derived total beside a published one; ``deviation`` is derived over published, minus one."""

    quantity: str
    unit: str
    derived: float
    published: float
    deviation: float
    basis: str
    source: str


@dataclass(frozen=True)
class _Counts:
    """What the graph was found to hold."""

    l1_chips: int
    l2_chips: int
    switch_chips: int
    uplink_lanes: float
    leaves: int
    spines: int


def totals(system: System) -> dict[str, Total]:
    """Derived totals by name, in the order of a data sheet; units are in the names and in each entry."""
    counts = _count(build(system))
    return dict([*_compute(system), *_fabric(system, counts), *_power(system, counts)])


def comparison(system: System) -> list[Comparison]:
    """Every published total of the system file beside the derived one, in the file's order.

    Raises InputError where the file names a total that is not derived.
    """
    derived = totals(system)
    problems, rows = [], []
    for i, entry in enumerate(system.spec.published):
        total = derived.get(entry.quantity)
        if total is None:
            message = f"no such total '{entry.quantity}'. {did_you_mean(entry.quantity, derived, limit=40)}"
            problems.append(Problem(message, system.spec.name, key=f"published[{i}].quantity"))
            continue
        rows.append(
            Comparison(
                quantity=entry.quantity,
                unit=total.unit,
                derived=total.value,
                published=entry.value,
                deviation=total.value / entry.value - 1,
                basis=entry.basis,
                source=entry.source,
            )
        )
    if problems:
        raise InputError(problems)
    return rows


def _count(graph: Any) -> _Counts:
    kinds = Counter(kind for _, kind in graph.nodes(data="kind"))
    # each lane is two edges, there and back
    lanes = sum(data["lanes"] for _, _, data in graph.edges(data=True) if data["tier"] == "uplink") / 2
    return _Counts(
        l1_chips=kinds["l1"],
        l2_chips=kinds["l2"],
        switch_chips=sum(count for kind, count in kinds.items() if kind not in _NO_CHIPS),
        uplink_lanes=lanes,
        leaves=kinds["leaf"],
        spines=kinds["spine"],
    )


def _compute(system: System) -> Iterator[tuple[str, Total]]:
    n, chip = system.packages, system.accelerator
    for precision, peak in chip.peak_TFLOPps.items():
        yield (
            f"compute_{precision}_PFLOPps",
            Total(n * peak / 1e3, "PFLOP/s", f"{n} accelerators x {peak:g} TFLOP/s, dense"),
        )
    yield "memory_TB", Total(n * chip.memory_GB / 1e3, "TB", f"{n} accelerators x {chip.memory_GB:g} GB")
    yield (
        "memory_TBps",
        Total(n * chip.memory_GBps / 1e3, "TB/s", f"{n} accelerators x {chip.memory_GBps:g} GB/s"),
    )


def _fabric(system: System, counts: _Counts) -> Iterator[tuple[str, Total]]:
    port_Bps, out = fabric(system).port_Bps, system.spec.scale_out
    yield (
        "injection_TBps",
        Total(
            system.ranks * port_Bps / TERA,
            "TB/s",
            f"{system.ranks} ranks x {port_Bps / GIGA:g} GB/s into the domain's fabric, one direction",
        ),
    )
    yield from _bisection(system)
    yield (
        "scale_out_Tbps",
        Total(
            system.packages * out.nic_GBps * 8 / 1e3,
            "Tb/s",
            f"{system.packages} NICs x {out.nic_GBps * 8:g} Gb/s, one direction",
        ),
    )
    yield "l1_chips", Total(counts.l1_chips, "", "first-tier chips, counted from the graph")
    yield "l2_chips", Total(counts.l2_chips, "", "second-tier chips, counted from the graph")
    yield "switch_chips", Total(counts.switch_chips, "", "all chips of the domain's fabric, counted from the graph")
    per_lane = _modules_per_lane(system)
    modules = counts.uplink_lanes * per_lane
    yield (
        "scale_up_modules",
        Total(modules, "", f"{counts.uplink_lanes:g} uplink lanes, counted from the graph, x {per_lane:g} modules"),
    )
    scale_out = system.packages * out.modules_per_accelerator
    yield (
        "scale_out_modules",
        Total(scale_out, "", f"{system.packages} accelerators x {out.modules_per_accelerator:g}"),
    )
    yield "modules", Total(modules + scale_out, "", "scale-up and scale-out modules")
    yield (
        "scale_out_switches",
        Total(counts.leaves + counts.spines, "", f"{counts.leaves} leaves + {counts.spines} spines, from the graph"),
    )


def _bisection(system: System) -> Iterator[tuple[str, Total]]:
    """Of a domain whose ranks lie on a grid: the narrowest cut in half across one dimension."""
    grid = fabric(system).grid
    if grid is None or not grid.dims:
        return
    ranks = math.prod(dim.size for dim in grid.dims)
    # links that leave one half of a row
    crossing = {dim.name: dim.links_across for dim in grid.dims}
    narrow = min(grid.dims, key=lambda dim: crossing[dim.name] * dim.link_Bps / dim.size)
    links = crossing[narrow.name] * ranks // narrow.size
    yield (
        "bisection_TBps",
        Total(
            links * narrow.link_Bps / TERA,
            "TB/s",
            f"{links} links of {narrow.link_Bps / GIGA:g} GB/s across {narrow.name}, one domain, one direction",
        ),
    )


def _power(system: System, counts: _Counts) -> Iterator[tuple[str, Total]]:
    for state in ("idle", "full"):
        parts = _components_W(system, counts, full=state == "full")
        for name, (watts, derivation) in parts.items():
            yield f"power_{name}_{state}_kW", Total(watts / _KILO, "kW", derivation)


def _components_W(system: System, counts: _Counts, *, full: bool) -> dict[str, tuple[float, str]]:
    """Power by component and the sums over them. [W]"""
    facility = system.spec.facility
    modules = counts.uplink_lanes * _modules_per_lane(system)
    board = board_watts(system.accelerator)
    there = powered(system, board, chips=counts.switch_chips, modules=modules)
    sized = powered(system, replace(board, limit=board.built), chips=counts.switch_chips, modules=modules)
    parts = _powered_W(system, there, modules, full=full)
    outside_W, inside_W = parts["scale_out"][0], sum(watts for name, (watts, _) in parts.items() if name != "scale_out")
    cooled_W = inside_W + outside_W
    parts["fans"] = (fans_W(cooled_W, facility.fan_fraction), f"{facility.fan_fraction:g} of all above")
    direct_W = cooled_W + parts["fans"][0]
    most_W = sized.full_W + fans_W(sized.full_W, facility.fan_fraction)
    supplies_W = float(lost_W(direct_W, full_W=most_W, facility=facility))
    it_W = direct_W + supplies_W
    said = f"power supplies at {facility.psu_efficiency:g} of full load, {facility.psu_standing_loss:g} of that loss"
    by = f"power supplies by their curve, at {direct_W / most_W:.0%} load" if facility.psu_curve else f"{said} standing"
    parts["psu_losses"] = (supplies_W, by)
    share = inside_W / cooled_W
    parts["system"] = (it_W * share, "all but the scale-out network, with its fans and supply losses")
    parts["it"] = (it_W, "all of the above, at the wall of the rack")
    parts["facility"] = (it_W + overhead_W(it_W, facility.pue), f"IT power x PUE {facility.pue:g}")
    return parts


def _powered_W(system: System, there: Powered, modules: float, *, full: bool) -> dict[str, tuple[float, str]]:
    """Power of what does the work, before fans and supplies, each with its sum. [W]"""
    out, module_W = system.spec.scale_out, system.spec.scale_up.power.module_W
    package_W = there.package_full_W if full else there.package_idle_W
    host_W = there.host_idle_W + (there.host_added_W if full else 0.0)
    chip_W = there.chip_idle_W + (there.chip_added_W if full else 0.0)
    outside = (
        f"a share of {there.outer_switches:g} switches x {out.switch_W:g} W + {there.outer_modules:g} modules x "
        f"{out.module_W:g} W"
    )
    return {
        "accelerators": (there.packages * package_W, f"{there.packages} x {package_W:g} W"),
        "hosts": (there.nodes * host_W, f"{there.nodes} nodes x {host_W:g} W"),
        "switch_chips": (there.chips * chip_W, f"{there.chips:g} chips x {chip_W:g} W"),
        "modules": (there.modules_W, f"{modules:g} modules x {module_W:g} W"),
        "nics": (there.nics_W, f"{there.packages} x {out.nic_W:g} W"),
        "scale_out": (there.outside_W, outside),
    }


def _modules_per_lane(system: System) -> float:
    return wiring(system).parts(system, system.spec.scale_up).modules_per_lane
