"""Power over time by component, from what ran and what moved.

A package draws idle power, and on top of it each engine's full power times that engine's use:

    P = idle + sum over k of P_k u_k,   k = compute, memory, link,   held under max

u_compute is achieved FLOP/s over the peak of the op's engine and precision, u_memory achieved over peak bandwidth,
u_link the port's use, mean of both directions. Where the sum exceeds the board limit the three are scaled down
together. A rank that waits in a collective draws idle power. Energy is the exact integral of that profile, never
a sample of it.

Leaves out: clocks that change with power or temperature (leakage grows 0.5 to 1 % per kelvin), polling while waiting.
Source: linear component model, e.g. Hong and Kim, An integrated GPU power and performance model, ISCA 2010,
doi:10.1145/1815961.1815998.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmsim.energy.parts import COMPONENTS, constant, switch_chips
from cmsim.errors import InfeasibleError
from cmsim.hardware import System
from cmsim.units import PS_PER_S

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]

#: finer than this many intervals, power is given on an even grid of so many
MOST_INTERVALS = 2000
#: engines are summed in whole units of 2**-36 W, so that what goes up comes down to exactly zero
_POWER_UNIT = 2.0**-36
_COMPUTE, _MEMORY, _LINK, _HOST = range(4)
_WH_PER_J = 1 / 3600


def power_columns(system: System, ops: Columns, links: Columns, *, makespan_ps: int) -> dict[str, NDArray[Any]]:
    """One row per component and interval: component, start_ps, end_ps, power_W; by component, then in time.

    ops, links: as ``cmsim.engine.record`` makes them    makespan_ps: length of the run [ps]

    All components share the intervals: those between the instants where anything changes or, where these are more
    than ``MOST_INTERVALS``, an even grid on which power is the mean, so that integrals are exact. Raises
    InfeasibleError for a run that takes no time.

    hosts        nodes in use: idle and other power, and the rest of the sockets' power while their ranks have an op
                 in flight
    switch_chips scale-up chips with the ports' use, and scale-out switches at constant power
    fans, power_supplies, facility  see `fans_W`, `supplies_W` and `overhead_W`
    """
    if makespan_ps <= 0:
        raise InfeasibleError("a run that takes no time has no power")
    profiles = _profiles(system, ops, links)
    edges = _edges(profiles, makespan_ps)
    seconds = np.diff(edges) / PS_PER_S

    ranks_J = np.zeros((4, len(seconds)))
    ports = np.zeros(len(seconds))
    for profile in profiles:
        ranks_J += profile.count * profile.joules(edges)
        ports += profile.count * profile.port_seconds(edges)
    mean_W = ranks_J / seconds
    use = ports / seconds / system.ranks

    fixed, fabric = constant(system), system.spec.scale_up.power
    facility = system.spec.facility
    level = np.ones(len(seconds))
    out: dict[str, Floats] = {
        "accelerators_idle": fixed.accelerators_W * level,
        "accelerators_compute": mean_W[_COMPUTE],
        "accelerators_memory": mean_W[_MEMORY],
        "accelerators_link": mean_W[_LINK],
        "hosts": fixed.hosts_W + mean_W[_HOST],
        "switch_chips": fixed.switch_chips_W + switch_chips(system) * fabric.chip_dynamic_W * use,
        "optical_modules": fixed.optical_modules_W * level,
        "nics": fixed.nics_W * level,
    }
    cooled_W = sum(out.values())
    out["fans"] = fans_W(cooled_W, facility.fan_fraction)
    direct_W = cooled_W + out["fans"]
    out["power_supplies"] = supplies_W(direct_W, facility.psu_efficiency)
    out["facility"] = overhead_W(direct_W + out["power_supplies"], facility.pue)
    assert tuple(out) == COMPONENTS
    intervals = len(seconds)
    return {
        "component": np.repeat(np.array(COMPONENTS, dtype=object), intervals),
        "start_ps": np.tile(edges[:-1], len(COMPONENTS)),
        "end_ps": np.tile(edges[1:], len(COMPONENTS)),
        "power_W": np.concatenate(list(out.values())),
    }


def package_W(idle_W: float, max_W: float, use: float) -> float:
    """P = idle + (max - idle) u: the simplest model, one engine. [W]

    >>> package_W(150, 1000, 0.6)
    660.0
    """
    return idle_W + (max_W - idle_W) * use


def fans_W(cooled_W: Any, fan_fraction: float) -> Any:
    """Fans and pumps: a fraction of the power they cool. [W]"""
    return cooled_W * fan_fraction


def supplies_W(direct_W: Any, psu_efficiency: float) -> Any:
    """Lost in power supplies that deliver ``direct_W``: P (1 / eta - 1). [W]"""
    return direct_W * (1 / psu_efficiency - 1)


def overhead_W(it_W: Any, pue: float) -> Any:
    """Cooling and distribution of the building: IT power, taken from the wall, times (PUE - 1). [W]"""
    return it_W * (pue - 1)


def facility_W(direct_W: Any, *, psu_efficiency: float, pue: float) -> Any:
    """P_facility = P_direct / eta x PUE. [W]

    Source: definition of power usage effectiveness, ISO/IEC 30134-2.

    >>> round(facility_W(559e3, psu_efficiency=0.94, pue=1.2), 3)
    713617.021
    """
    it_W = direct_W + supplies_W(direct_W, psu_efficiency)
    return it_W + overhead_W(it_W, pue)


def energy_by_component(columns: Columns) -> dict[str, float]:
    """Integral of power over time, by component in the order of the rows. [J]"""
    joules = columns["power_W"] * (columns["end_ps"] - columns["start_ps"]) / PS_PER_S
    names, first, code = np.unique(columns["component"].astype(str), return_index=True, return_inverse=True)
    total = np.bincount(code, joules, minlength=len(names))
    return {str(names[i]): float(total[i]) for i in np.argsort(first)}


def carbon_g(energy_J: float, carbon_g_per_kWh: float) -> float:
    """Emissions of the electricity used: kWh x g/kWh. [g CO2e]

    energy_J: of the facility, PUE included

    >>> round(carbon_g(559e3 * 1.2 * 24 * 3600, 500), 3)
    8049600.0
    """
    return energy_J * _WH_PER_J / 1000 * carbon_g_per_kWh


def power_metrics(system: System, columns: Columns) -> tuple[dict[str, float], tuple[str, ...]]:
    """Metrics of a run's power, and notes on those that are left out.

    energy_J, power_avg_W, power_peak_W count the whole facility; ``power_it_W`` leaves out what PUE adds;
    ``power_<component>_W`` are means. The peak is the highest of the intervals. carbon_g and cost_per_hour_USD
    (rent of the accelerators) are there if the system file has a carbon intensity and a price.
    """
    by_component = energy_by_component(columns)
    intervals = len(columns["power_W"]) // len(by_component)
    time_s = int(columns["end_ps"][intervals - 1] - columns["start_ps"][0]) / PS_PER_S
    energy_J = float(sum(by_component.values()))
    out = {
        "energy_J": energy_J,
        "power_avg_W": energy_J / time_s,
        "power_peak_W": float(columns["power_W"].reshape(-1, intervals).sum(axis=0).max()),
        "power_it_W": (energy_J - by_component["facility"]) / time_s,
    }
    out.update({f"power_{name}_W": joules / time_s for name, joules in by_component.items()})
    facility = system.spec.facility
    notes = []
    if facility.carbon_g_per_kWh is None:
        notes.append(f"no carbon_g: {system.spec.name} has no facility.carbon_g_per_kWh")
    else:
        out["carbon_g"] = carbon_g(energy_J, facility.carbon_g_per_kWh)
    if facility.price_per_accelerator_hour_USD is None:
        notes.append(f"no cost_per_hour_USD: {system.spec.name} has no facility.price_per_accelerator_hour_USD")
    else:
        out["cost_per_hour_USD"] = system.packages * facility.price_per_accelerator_hour_USD
    return out, tuple(notes)


@dataclass(frozen=True)
class _Profile:
    """Power above idle of one rank of a class, constant between instants.

    at_ps     instants where it may change, from 0; the last stretch has no power
    engine_W  compute, memory, link (held under the limit) and the rank's part of its host, shape (4, instants)
    port      use of the port, mean of both directions, shape (instants,)
    count     ranks of the class
    """

    at_ps: Ints
    engine_W: Floats
    port: Floats
    count: int

    def joules(self, edges: Ints) -> Floats:
        return np.stack([self._integral(row, edges) for row in self.engine_W])

    def port_seconds(self, edges: Ints) -> Floats:
        return self._integral(self.port, edges)

    def _integral(self, value: Floats, edges: Ints) -> Floats:
        """Of a step function, over every interval between edges; the unit of time is one second."""
        until = np.concatenate([[0.0], np.cumsum(value[:-1] * np.diff(self.at_ps))])
        integral: Floats = np.diff(np.interp(edges, self.at_ps, until)) / PS_PER_S
        return integral


def _profiles(system: System, ops: Columns, links: Columns) -> list[_Profile]:
    """Of every rank class that has ops or a busy port."""
    power, node = system.accelerator.power, system.spec.node
    ranks_per_node = node.accelerators * system.ranks_per_package
    host_W = node.cpus * (node.cpu_active_W - node.cpu_idle_W) / ranks_per_node
    room_W = max(power.max_W - power.idle_W, 0.0) / system.ranks_per_package
    per_rank = 1 / system.ranks_per_package

    span = ops["end_ps"] - ops["start_ps"]
    took_s = np.where(span > 0, span, 1) / PS_PER_S
    compute = np.where(ops["flops"] > 0, _share(ops["flops"], ops["peak_FLOPps"] * took_s), _unknown_use(system, ops))
    kernel = ops["kind"] == "compute"
    memory = np.where(kernel, _share(ops["bytes_B"], system.rank_memory_Bps * took_s), 0.0)
    timed = span > 0
    op_W = np.stack([compute * kernel * power.compute_W * per_rank, memory * power.memory_W * per_rank])

    port_class = np.where(links["port_share"] > 0, links["rank_class"], -1)
    port_use = np.minimum(links["utilization"], 1.0) * links["port_share"]

    out = []
    classes, first = np.unique(ops["rank_class"], return_index=True)
    by_class = _groups(np.where(timed, ops["rank_class"], -1), classes)
    by_port = _groups(port_class, classes)
    for at, mine, mine_port in zip(first.tolist(), by_class, by_port, strict=True):
        start = np.concatenate([ops["start_ps"][mine], links["start_ps"][mine_port]])
        end = np.concatenate([ops["end_ps"][mine], links["end_ps"][mine_port]])
        use = port_use[mine_port]
        height = np.zeros((5, len(start)))
        height[_COMPUTE : _MEMORY + 1, : len(mine)] = op_W[:, mine]
        height[_LINK, len(mine) :] = use * power.link_W * per_rank
        height[_HOST, : len(mine)] = 1.0
        height[4, len(mine) :] = use
        at_ps, level = _steps(start, end, height)
        engines = level[: _LINK + 1]
        total = engines.sum(axis=0)
        # over the board limit all three engines give way alike
        engines = engines * np.divide(room_W, total, out=np.ones_like(total), where=total > room_W)
        host = np.where(level[_HOST] > 0, host_W, 0.0)
        count = int(ops["multiplicity"][at])
        out.append(_Profile(at_ps, np.concatenate([engines, host[None]]), level[4], count))
    return out


def _groups(number: Ints, wanted: Ints) -> list[Ints]:
    """Rows that have each of the wanted numbers."""
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], [wanted, wanted + 1])
    return [order[a:b] for a, b in ends.T.tolist()]


def _steps(start: Ints, end: Ints, height: Floats) -> tuple[Ints, Floats]:
    """Sum of rectangles: instants (0 among them) and the height from each to the next, shape (rows, instants)."""
    at_ps: Ints
    at_ps, position = np.unique(np.concatenate([start, end, [0]]), return_inverse=True)
    units = np.rint(height / _POWER_UNIT).astype(np.int64)
    change = np.zeros((len(height), len(at_ps)), np.int64)
    for row, column in zip(change, units, strict=True):
        np.add.at(row, position[: len(start)], column)
        np.subtract.at(row, position[len(start) : 2 * len(start)], column)
    level: Floats = np.cumsum(change, axis=1) * np.float64(_POWER_UNIT)
    return at_ps, level


def _share(done: Floats, possible: Floats) -> Floats:
    """Done over possible, at most 1; 0 where nothing is possible."""
    return np.minimum(np.divide(done, possible, out=np.zeros(len(done)), where=possible > 0), 1.0)


def _unknown_use(system: System, ops: Columns) -> Floats:
    """Use of the engines by recorded kernels of which only the time is known: their class's fitted efficiency."""
    unknown = (ops["flops"] == 0) & (ops["bytes_B"] == 0) & (ops["limit"] == "compute")
    use = np.zeros(len(unknown))
    for name in np.unique(ops["kernel"][unknown].astype(str)):
        fitted = system.stack.kernels.get(str(name)) or system.stack.kernels.get("generic")
        use[unknown & (ops["kernel"] == name)] = fitted.compute if fitted else 1.0
    return use


def _edges(profiles: list[_Profile], makespan_ps: int) -> Ints:
    """Shared ends of intervals: every instant where something changes, or an even grid. [ps]"""
    edges = np.array([0, makespan_ps], np.int64)
    for profile in profiles:
        edges = np.union1d(edges, np.clip(profile.at_ps, 0, makespan_ps))
        if len(edges) > MOST_INTERVALS + 1:
            grid = np.rint(np.linspace(0, makespan_ps, MOST_INTERVALS + 1)).astype(np.int64)
            return np.unique(grid)
    return edges
