"""Power over time by component, from what ran and what moved.

A package at work draws what being at work takes, and on top of it what its engines add:

    P = min(limit, idle + (active - idle) + sum over k of P_k u_k),   k = compute, memory, link

u_compute and u_memory of an op are the shares of its attainable time that arithmetic and memory need
(`cmsim.compute.power`: a slow kernel burns as much as a fast one), times its share of the cores; u_link is the
port's use, mean of both directions, and what passes ports passes memory. Where the sum exceeds the limit the three
are scaled down together. Between kernels, in bubbles and while it waits in a collective, a package draws
``active``. Energy is the exact integral of that profile, never a sample of it.

Where the watts of a package under load are assumed, everything is worked out three times: as the file has them, at
the low and at the high end of their ranges. ``power_W_low`` and ``power_W_high`` are that band; the ranges of other
parts are not in it.

Leaves out: temperature (leakage grows 0.5 to 1 % per kelvin), and the averaging windows of meters.
Source: docs/models.md, Power.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from cmsim import compute
from cmsim.arrays import Coded, Columns, Floats, Ints, Packed, coded, equal, recurred
from cmsim.energy.parts import COMPONENTS, constant, full_W, switch_chips
from cmsim.errors import InfeasibleError
from cmsim.hardware import BoardWatts, System, band, board_watts
from cmsim.hardware.supplies import fans_W, loss_W, overhead_W
from cmsim.repeats import ONCE, Repeat
from cmsim.topology import fabric
from cmsim.units import BYTES_PER_ELEMENT, PS_PER_S

#: ends of the band of power, as metrics and columns name them
BAND = ("low", "high")

#: finer than this many intervals, power is given on an even grid of so many
MOST_INTERVALS = 2000
#: busy shares are summed in whole units of 2**-36, so that what goes up comes down to exactly zero
_SHARE_UNIT = 2.0**-36
_WH_PER_J = 1 / 3600


def power_columns(system: System, ops: Columns, links: Columns, *, makespan_ps: int, repeat: Repeat = ONCE) -> Columns:
    """One row per component and interval: component, start_ps, end_ps, power_W; by component, then in time.

    ops, links: as ``cmsim.engine.record`` makes them    makespan_ps: length of the run [ps]
    repeat: a stretch that comes more often than they have it

    All components share the intervals: those between the instants where anything changes or, where these are more
    than ``MOST_INTERVALS``, an even grid on which power is the mean, so that integrals are exact. ``power_W_low`` and
    ``power_W_high`` are the band where the watts of packages are assumed, else power itself. Raises InfeasibleError for
    a run that takes no time.

    accelerators_active  what packages draw over low idle for being at work, engines at rest
    hosts        nodes in use: idle and other power, and what feeding the ranks takes of the sockets' power while
                 these have an op in flight
    switch_chips scale-up chips with the ports' use, and scale-out switches at constant power
    fans, power_supplies, facility  see `fans_W`, `loss_W` and `overhead_W`
    """
    if makespan_ps <= 0:
        raise InfeasibleError("a run that takes no time has no power")
    profiles = [replace(one, repeat=repeat) for one in _profiles(system, ops, links)]
    edges = _edges(profiles, makespan_ps)
    beside = _beside(profiles, edges)
    of, interval = np.divmod(np.arange(len(COMPONENTS) * (len(edges) - 1)), len(edges) - 1)
    middle_W = _components_W(system, board_watts(system.accelerator), profiles, edges, beside)
    out: dict[str, Floats | Coded] = {
        "component": coded(of, np.array(COMPONENTS, dtype=object)),
        "start_ps": coded(interval, edges[:-1]),
        "end_ps": coded(interval, edges[1:]),
        "power_W": middle_W,
    }
    ends = band(system.accelerator) or (None, None)
    for name, board in zip(BAND, ends, strict=True):
        out[f"power_W_{name}"] = middle_W if board is None else _components_W(system, board, profiles, edges, beside)
    return Packed(out)


def _beside(profiles: list[_Profile], edges: Ints) -> tuple[Floats, Floats]:
    """How long ports and hosts were busy in each interval, over all ranks, whatever the watts of packages. [s]"""
    ports, feeding = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for profile in profiles:
        ports += profile.count * profile.integral(profile.port, edges)
        feeding += profile.count * profile.integral(profile.feeding, edges)
    return ports, feeding


def _components_W(
    system: System, board: BoardWatts, profiles: list[_Profile], edges: Ints, beside: tuple[Floats, Floats]
) -> Floats:
    """Mean power of each component over each interval, one component after the other. [W]"""
    seconds = np.diff(edges) / PS_PER_S
    engines_J, at_work = np.zeros((3, len(seconds))), 0
    for profile in profiles:
        engines_J += profile.count * profile.joules(board, edges, per_rank=1 / system.ranks_per_package)
        at_work += profile.count
    ports, feeding = beside
    compute_W, memory_W, link_W = engines_J / seconds
    use, fed = ports / seconds / system.ranks, feeding / seconds / system.ranks

    fixed, chips, node = constant(system), system.spec.scale_up.power, system.spec.node
    facility = system.spec.facility
    level = np.ones(len(seconds))
    sockets_W = system.packages / node.accelerators * node.cpus * (node.cpu_active_W - node.cpu_idle_W)
    parts: dict[str, Floats] = {
        "accelerators_idle": system.packages * board.idle * level,
        "accelerators_active": at_work / system.ranks_per_package * (board.active - board.idle) * level,
        "accelerators_compute": compute_W,
        "accelerators_memory": memory_W,
        "accelerators_link": link_W,
        "hosts": fixed.hosts_W + sockets_W * node.cpu_feeding * fed,
        "switch_chips": fixed.switch_chips_W + switch_chips(system) * chips.chip_dynamic_W * use,
        "optical_modules": fixed.optical_modules_W * level,
        "nics": fixed.nics_W * level,
    }
    cooled_W = sum(parts.values())
    parts["fans"] = fans_W(cooled_W, facility.fan_fraction)
    direct_W = cooled_W + parts["fans"]
    parts["power_supplies"] = loss_W(
        direct_W,
        full_W=full_W(system, board),
        psu_efficiency=facility.psu_efficiency,
        standing=facility.psu_standing_loss,
    )
    parts["facility"] = overhead_W(direct_W + parts["power_supplies"], facility.pue)
    assert tuple(parts) == COMPONENTS
    return np.concatenate(list(parts.values()))


@dataclass(frozen=True)
class Busy:
    """How long the packages of a run kept their engines how busy: what a fit of their watts needs.

    seconds    of stretches of rank classes, over all their ranks, shape (stretches,) [s]
    engines    busy shares of compute, memory and link in them, shape (3, stretches)
    at_work_s  of all ranks that run a program [s]    packages_s  of all packages [s]    ranks  of a package
    """

    seconds: Floats
    engines: Floats
    at_work_s: float
    packages_s: float
    ranks: int

    def mean_W(self, board: BoardWatts) -> float:
        """Average power of one package. [W]"""
        engines_J = float(_held_W(self.engines, board).sum(axis=0) @ self.seconds) / self.ranks
        active_J = self.at_work_s / self.ranks * (board.active - board.idle)
        return board.idle + (engines_J + active_J) / self.packages_s


def busy(system: System, ops: Columns, links: Columns, *, makespan_ps: int) -> Busy:
    """How busy a run kept its packages; arguments as of `power_columns`."""
    profiles = _profiles(system, ops, links)
    time_s = makespan_ps / PS_PER_S
    return Busy(
        seconds=np.concatenate([one.count * np.diff(one.at_ps) / PS_PER_S for one in profiles]),
        engines=np.concatenate([one.engines[:, :-1] for one in profiles], axis=1),
        at_work_s=time_s * sum(one.count for one in profiles),
        packages_s=time_s * system.packages,
        ranks=system.ranks_per_package,
    )


def package_W(idle_W: float, max_W: float, use: float) -> float:
    """P = idle + (max - idle) u: the simplest model, one engine. [W]

    >>> package_W(150, 1000, 0.6)
    660.0
    """
    return idle_W + (max_W - idle_W) * use


def energy_by_component(columns: Columns) -> dict[str, float]:
    """Integral of power over time, by component in the order of the rows. [J]"""
    joules = columns["power_W"] * (columns["end_ps"] - columns["start_ps"]) / PS_PER_S
    names = columns["component"]
    starts = np.flatnonzero(np.append(True, names[1:] != names[:-1])[: len(names)])
    out: dict[str, float] = {}
    for name, part in zip(names[starts].tolist(), np.split(joules, starts[1:]), strict=True):
        out[name] = out.get(name, 0.0) + float(part.sum())
    return out


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
    ``power_packages_W`` is of the accelerators alone; ``power_<component>_W`` are means. The peak is the highest of the
    intervals. carbon_g is there if the system file has a carbon intensity.
    """
    by_component = energy_by_component(columns)
    time_s = _length_s(columns, len(by_component))
    out = _totals(by_component, columns["power_W"], time_s)
    out.update({f"power_{name}_W": joules / time_s for name, joules in by_component.items()})
    g_per_kWh = system.spec.facility.carbon_g_per_kWh
    if g_per_kWh is None:
        return out, (f"no carbon_g: {system.spec.name} has no facility.carbon_g_per_kWh",)
    return {**out, "carbon_g": carbon_g(float(sum(by_component.values())), g_per_kWh)}, ()


def band_metrics(system: System, columns: Columns) -> tuple[dict[str, float], tuple[str, ...]]:
    """Ends of the band of energy, power and carbon, and a note that says why; nothing where watts were measured.

    Names as of `power_metrics`, ending in ``_low`` and ``_high``.
    """
    if band(system.accelerator) is None:
        return {}, ()
    g_per_kWh = system.spec.facility.carbon_g_per_kWh
    out: dict[str, float] = {}
    for name in BAND:
        power_W = columns[f"power_W_{name}"]
        by_component = energy_by_component({**columns, "power_W": power_W})
        ends = _totals(by_component, power_W, _length_s(columns, len(by_component)))
        out.update({f"{metric}_{name}": value for metric, value in ends.items()})
        if g_per_kWh is not None:
            out[f"carbon_g_{name}"] = carbon_g(ends["energy_J"], g_per_kWh)
    return out, (_assumed_note(system),)


def _length_s(columns: Columns, components: int) -> float:
    """Length of a run, from the intervals of its first component. [s]"""
    last = len(columns["power_W"]) // components - 1
    return int(columns["end_ps"][last] - columns["start_ps"][0]) / PS_PER_S


def _totals(by_component: Mapping[str, float], power_W: Floats, time_s: float) -> dict[str, float]:
    """Energy, and the mean, peak and IT part of power, of the integrals by component and of power over intervals."""
    energy_J = float(sum(by_component.values()))
    packages_J = sum(joules for name, joules in by_component.items() if name.startswith("accelerators_"))
    return {
        "energy_J": energy_J,
        "power_avg_W": energy_J / time_s,
        "power_peak_W": float(power_W.reshape(len(by_component), -1).sum(axis=0).max()),
        "power_it_W": (energy_J - by_component["facility"]) / time_s,
        "power_packages_W": packages_J / time_s,
    }


def _assumed_note(system: System) -> str:
    power = system.accelerator.power
    whose = f"shares of the limit as the {power.shares_of}" if power.shares_of else "assumed"
    return f"power of the {system.accelerator.name} under load was not measured ({whose}): power and energy are a band"


@dataclass(frozen=True)
class _Profile:
    """How busy one rank of a class is, constant between instants.

    at_ps     instants where it may change, from 0; the last stretch has none
    engines   busy shares of compute, memory and link, shape (3, instants)
    feeding   1 while an op is in flight, which its host feeds, shape (instants,)
    port      use of the port, mean of both directions, shape (instants,)
    count     ranks of the class
    repeat    a stretch between these instants that comes again
    """

    at_ps: Ints
    engines: Floats
    feeding: Floats
    port: Floats
    count: int
    repeat: Repeat = ONCE

    def joules(self, board: BoardWatts, edges: Ints, *, per_rank: float) -> Floats:
        """Energy of compute, memory and link over every interval, held under the limit, shape (3, intervals). [J]"""
        return np.stack([self.integral(per_rank * row, edges) for row in _held_W(self.engines, board)])

    def integral(self, value: Floats, edges: Ints) -> Floats:
        """Of a step function, over every interval between edges; the unit of time is one second."""
        until = np.concatenate([[0.0], np.cumsum(value[:-1] * np.diff(self.at_ps))])
        return self.repeat.integrals(edges, self.at_ps, until) / PS_PER_S


def _held_W(engines: Floats, board: BoardWatts) -> Floats:
    """Power that busy engines add to one package, held under its limit, shape of ``engines``. [W]"""
    engines_W: Floats = engines * np.array([[board.compute], [board.memory], [board.link]])
    room_W, total_W = board.limit - board.active, engines_W.sum(axis=0)
    # over the limit all three engines give way alike
    engines_W *= np.divide(room_W, total_W, out=np.ones_like(total_W), where=total_W > room_W)
    return engines_W


def _profiles(system: System, ops: Columns, links: Columns) -> list[_Profile]:
    """Of every rank class that has ops or a busy port."""
    timed = ops["end_ps"] > ops["start_ps"]
    busy = np.stack(_busy(system, ops))
    # rows of single links stand for several equal stretches
    recur = "times" in links
    port_class = np.where(links["port_share"] > 0, links["rank_class"], -1)
    port_use = np.minimum(links["utilization"], 1.0) * links["port_share"]
    # what passes a port at full rate, both ways, is read from memory and written to it
    passing = 2 * fabric(system).port_Bps / (system.rank_memory_Bps * compute.ATTAINABLE_MEMORY)

    out = []
    classes, first = np.unique(ops["rank_class"], return_index=True)
    by_class = _groups(np.where(timed, ops["rank_class"], -1), classes)
    by_port = _groups(port_class, classes)
    for at, mine, mine_port in zip(first.tolist(), by_class, by_port, strict=True):
        begins, ends = links["start_ps"][mine_port], links["end_ps"][mine_port]
        if recur:
            row, begins, ends = recurred(begins, ends, links["times"][mine_port], links["each_ps"][mine_port])
            mine_port = mine_port[row]
        start = np.concatenate([ops["start_ps"][mine], begins])
        end = np.concatenate([ops["end_ps"][mine], ends])
        height = np.zeros((4, len(start)))
        height[:2, : len(mine)] = busy[:, mine]
        height[2, len(mine) :] = port_use[mine_port]
        height[3, : len(mine)] = 1.0
        at_ps, level = _steps(start, end, height)
        # kernels side by side share the engines: none is busier than the busiest of them alone would make it
        level[:2] = np.minimum(level[:2], height[:2].max(axis=1, initial=0.0)[:, None])
        level[1] = np.maximum(level[1], np.minimum(level[1] + passing * level[2], 1.0))
        out.append(_Profile(at_ps, level[:3], level[3], level[2], int(ops["multiplicity"][at])))
    return out


def _busy(system: System, ops: Columns) -> tuple[Floats, Floats]:
    """How busy each op keeps arithmetic and memory, of all cores. [1]"""
    weight_B = np.full(len(ops["flops"]), compute.FULL_WEIGHT_B)
    for name, each_B in BYTES_PER_ELEMENT.items():
        if each_B < compute.FULL_WEIGHT_B:
            weight_B[equal(ops, "weights", name)] = each_B
    kernel = equal(ops, "kind", "compute")
    arithmetic, memory = compute.busy_shares(
        ops["flops"],
        ops["bytes_B"],
        peak_FLOPps=ops["peak_FLOPps"],
        memory_Bps=system.rank_memory_Bps,
        weight_B=weight_B,
    )
    # of recorded kernels only the time is known: matrix kernels count as arithmetic, all others as memory traffic
    unknown = kernel & (ops["flops"] == 0) & (ops["bytes_B"] == 0) & equal(ops, "limit", "compute")
    on_matrix = np.zeros(len(unknown), bool)
    if unknown.any():
        for name, one in compute.KERNELS.items():
            on_matrix |= equal(ops, "kernel", name) & one.matrix
    arithmetic = np.where(unknown & on_matrix, 1.0, arithmetic)
    memory = np.where(unknown & ~on_matrix, 1.0, memory)
    cores = np.where(kernel, ops["cores"], 0.0)
    return arithmetic * cores, memory * cores


def _groups(number: Ints, wanted: Ints) -> list[Ints]:
    """Rows that have each of the wanted numbers."""
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], [wanted, wanted + 1])
    return [order[a:b] for a, b in ends.T.tolist()]


def _steps(start: Ints, end: Ints, height: Floats) -> tuple[Ints, Floats]:
    """Sum of rectangles: instants (0 among them) and the height from each to the next, shape (rows, instants)."""
    at_ps: Ints
    at_ps, position = np.unique(np.concatenate([start, end, [0]]), return_inverse=True)
    units = np.rint(height / _SHARE_UNIT).astype(np.int64)
    change = np.zeros((len(height), len(at_ps)), np.int64)
    for row, column in zip(change, units, strict=True):
        np.add.at(row, position[: len(start)], column)
        np.subtract.at(row, position[len(start) : 2 * len(start)], column)
    level: Floats = np.cumsum(change, axis=1) * np.float64(_SHARE_UNIT)
    return at_ps, level


def _edges(profiles: list[_Profile], makespan_ps: int) -> Ints:
    """Shared ends of intervals: every instant where something changes, or an even grid. [ps]"""
    edges = np.array([0, makespan_ps], np.int64)
    for profile in profiles:
        # instants of one class are all different, and lie within the run
        if profile.repeat.true_count(profile.at_ps) <= MOST_INTERVALS + 1:
            edges = np.union1d(edges, np.clip(profile.repeat.true_ps(profile.at_ps), 0, makespan_ps))
            if len(edges) <= MOST_INTERVALS + 1:
                continue
        return np.unique(np.rint(np.linspace(0, makespan_ps, MOST_INTERVALS + 1)).astype(np.int64))
    return edges
