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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cmsim import compute
from cmsim.arrays import Columns, Floats, Ints, Packed, coded, equal, recurred
from cmsim.energy.parts import COMPONENTS, constant, full_W, switch_chips
from cmsim.errors import InfeasibleError
from cmsim.hardware import BoardWatts, System, band, board_watts
from cmsim.hardware.supplies import fans_W, lost_W, overhead_W
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


#: columns of ops, and of links, that power follows from
OPS = (
    *("rank_class", "multiplicity", "start_ps", "end_ps", "kind", "kernel", "flops", "bytes_B", "peak_FLOPps", "cores"),
    *("weights", "limit", "clock"),
)
LINKS = ("rank_class", "start_ps", "end_ps", "utilization", "port_share", "times", "each_ps")


@dataclass(frozen=True)
class Power:
    """Mean power of every component over every interval.

    edges_ps   ends of the intervals that all components share, shape (intervals + 1,)
    middle_W   as the file has the watts of packages, shape (components, intervals)
    low_W, high_W   at the ends of their ranges; ``middle_W`` itself where they are not assumed
    """

    edges_ps: Ints
    middle_W: Floats
    low_W: Floats
    high_W: Floats

    @property
    def length_s(self) -> float:
        return int(self.edges_ps[-1] - self.edges_ps[0]) / PS_PER_S

    def joules(self, power_W: Floats | None = None) -> dict[str, float]:
        """Integral over time by component, in their order; of ``middle_W`` if of nothing else. [J]"""
        joules = (self.middle_W if power_W is None else power_W) * np.diff(self.edges_ps)
        joules /= PS_PER_S
        return dict(zip(COMPONENTS, joules.sum(axis=1).tolist(), strict=True))

    def columns(self) -> Columns:
        """One row per component and interval: component, start_ps, end_ps, power_W and its band; by component, then in
        time."""
        of, interval = np.divmod(np.arange(self.middle_W.size), len(self.edges_ps) - 1)
        return Packed(
            {
                "component": coded(of, np.array(COMPONENTS, dtype=object)),
                "start_ps": coded(interval, self.edges_ps[:-1]),
                "end_ps": coded(interval, self.edges_ps[1:]),
                "power_W": self.middle_W.ravel(),
                "power_W_low": self.low_W.ravel(),
                "power_W_high": self.high_W.ravel(),
            }
        )


def power_over_time(system: System, ops: Columns, links: Columns, *, makespan_ps: int, repeat: Repeat = ONCE) -> Power:
    """Power of a run by component over time, and its band where the watts of packages are assumed.

    ops, links: as ``cmsim.engine.record`` makes them, of which ``OPS`` and ``LINKS`` are read
    makespan_ps: length of the run [ps]    repeat: a stretch that comes more often than they have it

    All components share the intervals: those between the instants where anything changes or, where these are more
    than ``MOST_INTERVALS``, an even grid on which power is the mean, so that integrals are exact. Raises
    InfeasibleError for a run that takes no time.

    accelerators_active  what packages draw over low idle for being at work, engines at rest
    hosts        nodes in use: idle and other power, and what feeding the ranks takes of the sockets' power while
                 these have an op in flight
    switch_chips scale-up chips with the ports' use, and scale-out switches at constant power
    fans, power_supplies, facility  see `fans_W`, `lost_W` and `overhead_W`
    """
    if makespan_ps <= 0:
        raise InfeasibleError("a run that takes no time has no power")
    profiles = [replace(one, repeat=repeat) for one in profiles_of(system, ops, links)]
    edges = edges_of(profiles, makespan_ps)
    boards = [board_watts(system.accelerator), *(band(system.accelerator) or ())]
    use, engines_J = integrals_of(system, boards, profiles, edges)
    at_work = sum(profile.count for profile in profiles)
    seconds = np.diff(edges) / PS_PER_S
    return Power(edges, *banded_W(system, boards, engines_J, seconds, use, at_work=at_work))


def banded_W(
    system: System,
    boards: Sequence[BoardWatts],
    engines_J: Sequence[Floats],
    seconds: Floats,
    use: tuple[Floats, Floats],
    *,
    at_work: int,
) -> list[Floats]:
    """Power of components as files have the watts of packages, and at both ends of their ranges. [W]"""
    parts_W = [
        _components_W(system, board, mine_J, seconds, use, at_work=at_work)
        for board, mine_J in zip(boards, engines_J, strict=True)
    ]
    return parts_W if len(parts_W) > 1 else parts_W * 3


def integrals_of(
    system: System, boards: Sequence[BoardWatts], profiles: Sequence[Profile], edges: Ints
) -> tuple[tuple[Floats, Floats], list[Floats]]:
    """Mean use of all ports, and share of ranks with an op in flight, over each interval [1]; and for each board the
    energy of compute, memory and link, held under its limit, shape (3, intervals) [J]."""
    seconds = np.diff(edges) / PS_PER_S
    total = np.zeros((2 + 3 * len(boards), len(seconds)))
    for profile in profiles:
        total += profile.count * profile.integral(profile_rows(system, boards, profile), edges)
    return shared_out(system, total, seconds)


def profile_rows(system: System, boards: Sequence[BoardWatts], profile: Profile) -> Floats:
    """Use of the port, whether an op is in flight [1], and for each board what engines draw [W], of one rank, shape
    (rows, instants)."""
    per_rank = 1 / system.ranks_per_package
    held_W = [per_rank * _held_W(profile.engines, board) for board in boards]
    return np.concatenate([profile.port[None], profile.feeding[None], *held_W])


def shared_out(system: System, total: Floats, seconds: Floats) -> tuple[tuple[Floats, Floats], list[Floats]]:
    """Integrals of `profile_rows` over all ranks and intervals, as `integrals_of` gives them."""
    ports, feeding = total[:2] / seconds / system.ranks
    return (ports, feeding), [total[row : row + 3] for row in range(2, len(total), 3)]


def over_intervals(moved: Floats) -> Floats:
    """Integrals over intervals of what moves in each, as differences of running sums: as a whole run has them."""
    until = np.zeros((len(moved), moved.shape[1] + 1))
    np.cumsum(moved, axis=1, out=until[:, 1:])
    out: Floats = np.diff(until, axis=1) / PS_PER_S
    return out


def _components_W(
    system: System, board: BoardWatts, engines_J: Floats, seconds: Floats, use: tuple[Floats, Floats], *, at_work: int
) -> Floats:
    """Mean power of each component over each interval, shape (components, intervals). [W]

    engines_J: of compute, memory and link, shape (3, intervals) [J]    at_work: ranks that run a program [1]
    """
    ports, fed = use
    fixed, chips, node = constant(system), system.spec.scale_up.power, system.spec.node
    facility = system.spec.facility
    sockets_W = system.packages / node.accelerators * node.cpus * (node.cpu_active_W - node.cpu_idle_W)
    out = np.empty((len(COMPONENTS), len(seconds)))
    part = dict(zip(COMPONENTS, out, strict=True))
    part["accelerators_idle"][:] = system.packages * board.idle
    part["accelerators_active"][:] = at_work / system.ranks_per_package * (board.active - board.idle)
    for name, joules in zip(("compute", "memory", "link"), engines_J, strict=True):
        np.divide(joules, seconds, out=part[f"accelerators_{name}"])
    part["hosts"][:] = fixed.hosts_W + sockets_W * node.cpu_feeding * fed
    part["switch_chips"][:] = fixed.switch_chips_W + switch_chips(system) * chips.chip_dynamic_W * ports
    part["optical_modules"][:] = fixed.optical_modules_W
    part["nics"][:] = fixed.nics_W
    cooled_W = sum(out[: COMPONENTS.index("fans")])
    part["fans"][:] = fans_W(cooled_W, facility.fan_fraction)
    direct_W = cooled_W + part["fans"]
    part["power_supplies"][:] = lost_W(direct_W, full_W=full_W(system, board), facility=facility)
    part["facility"][:] = overhead_W(direct_W + part["power_supplies"], facility.pue)
    return out


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
    """How busy a run kept its packages; arguments as of `power_over_time`."""
    profiles = profiles_of(system, ops, links)
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


def carbon_g(energy_J: float, carbon_g_per_kWh: float) -> float:
    """Emissions of the electricity used: kWh x g/kWh. [g CO2e]

    energy_J: of the facility, PUE included

    >>> round(carbon_g(559e3 * 1.2 * 24 * 3600, 500), 3)
    8049600.0
    """
    return energy_J * _WH_PER_J / 1000 * carbon_g_per_kWh


def power_metrics(system: System, power: Power) -> tuple[dict[str, float], tuple[str, ...]]:
    """Metrics of a run's power, and notes on those that are left out.

    energy_J, power_avg_W, power_peak_W count the whole facility; ``power_it_W`` leaves out what PUE adds;
    ``power_packages_W`` is of the accelerators alone; ``power_<component>_W`` are means. The peak is the highest of the
    intervals. carbon_g is there if the system file has a carbon intensity.
    """
    by_component, time_s = power.joules(), power.length_s
    out = _totals(by_component, power.middle_W, time_s)
    out.update({f"power_{name}_W": joules / time_s for name, joules in by_component.items()})
    g_per_kWh = system.spec.facility.carbon_g_per_kWh
    if g_per_kWh is None:
        return out, (f"no carbon_g: {system.spec.name} has no facility.carbon_g_per_kWh",)
    return {**out, "carbon_g": carbon_g(float(sum(by_component.values())), g_per_kWh)}, ()


def band_metrics(system: System, power: Power) -> tuple[dict[str, float], tuple[str, ...]]:
    """Ends of the band of energy, power and carbon, and a note that says why; nothing where watts were measured.

    Names as of `power_metrics`, ending in ``_low`` and ``_high``.
    """
    if band(system.accelerator) is None:
        return {}, ()
    g_per_kWh = system.spec.facility.carbon_g_per_kWh
    out: dict[str, float] = {}
    for name, power_W in zip(BAND, (power.low_W, power.high_W), strict=True):
        ends = _totals(power.joules(power_W), power_W, power.length_s)
        out.update({f"{metric}_{name}": value for metric, value in ends.items()})
        if g_per_kWh is not None:
            out[f"carbon_g_{name}"] = carbon_g(ends["energy_J"], g_per_kWh)
    return out, (_assumed_note(system),)


def _totals(by_component: Mapping[str, float], power_W: Floats, time_s: float) -> dict[str, float]:
    """Energy, and the mean, peak and IT part of power, of the integrals by component and of power over intervals."""
    energy_J = float(sum(by_component.values()))
    packages_J = sum(joules for name, joules in by_component.items() if name.startswith("accelerators_"))
    return {
        "energy_J": energy_J,
        "power_avg_W": energy_J / time_s,
        "power_peak_W": float(power_W.sum(axis=0).max()),
        "power_it_W": (energy_J - by_component["facility"]) / time_s,
        "power_packages_W": packages_J / time_s,
    }


def _assumed_note(system: System) -> str:
    power = system.accelerator.power
    whose = f"shares of the limit as the {power.shares_of}" if power.shares_of else "assumed"
    return f"power of the {system.accelerator.name} under load was not measured ({whose}): power and energy are a band"


@dataclass(frozen=True)
class Profile:
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

    def integral(self, value: Floats, edges: Ints) -> Floats:
        """Of step functions, shape (rows, instants), over every interval between edges; the unit of time is one
        second."""
        moved = value[:, :-1] * np.diff(self.at_ps)
        if edges is self.at_ps:
            return over_intervals(moved)
        until = np.zeros(value.shape)
        np.cumsum(moved, axis=1, out=until[:, 1:])
        integral: Floats = self.repeat.integrals(edges, self.at_ps, until) / PS_PER_S
        return integral


def _held_W(engines: Floats, board: BoardWatts) -> Floats:
    """Power that busy engines add to one package, held under its limit, shape of ``engines``. [W]"""
    engines_W: Floats = engines * np.array([[board.compute], [board.memory], [board.link]])
    room_W, total_W = board.limit - board.active, engines_W.sum(axis=0)
    # over the limit all three engines give way alike
    engines_W *= np.divide(room_W, total_W, out=np.ones_like(total_W), where=total_W > room_W)
    return engines_W


def profiles_of(system: System, ops: Columns, links: Columns, begin_ps: Sequence[int] | Ints = (0,)) -> list[Profile]:
    """Of every rank class that has ops or a busy port. ``begin_ps``: of runs that follow each other"""
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
        level[3] = np.minimum(level[3], 1.0)  # fed is fed, however many ops are in flight
        # kernels side by side share the engines: none is busier than the busiest of them alone would make it
        most = height[:2].max(axis=1, initial=0.0)[:, None]
        if len(begin_ps) > 1:
            most, of_run = np.zeros((2, len(begin_ps))), np.searchsorted(begin_ps, start, side="right") - 1
            for row, column in zip(most, height[:2], strict=True):
                np.maximum.at(row, of_run, column)
            most = most[:, np.maximum(np.searchsorted(begin_ps, at_ps, side="right") - 1, 0)]
        level[:2] = np.minimum(level[:2], most)
        level[1] = np.maximum(level[1], np.minimum(level[1] + passing * level[2], 1.0))
        out.append(Profile(at_ps, level[:3], level[3], level[2], int(ops["multiplicity"][at])))
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
    if "clock" in ops:
        arithmetic, memory = compute.clocked(arithmetic, memory, ops["clock"])
    cores = np.where(kernel, ops["cores"], 0.0)
    return arithmetic * cores, memory * cores


def _groups(number: Ints, wanted: Ints) -> list[Ints]:
    """Rows that have each of the wanted numbers."""
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], [wanted, wanted + 1])
    return [order[a:b] for a, b in ends.T.tolist()]


def _steps(start: Ints, end: Ints, height: Floats) -> tuple[Ints, Floats]:
    """Sum of rectangles: instants (0 among them) and the height from each to the next, shape (rows, instants)."""
    # as `np.unique` with its inverse: both columns come nearly in order, which a stable sort is quick with
    instants = np.concatenate([start, end, [0]])
    order = np.argsort(instants, kind="stable")
    ordered = instants[order]
    new = np.append(True, ordered[1:] != ordered[:-1])
    at_ps: Ints = ordered[new]
    position = np.empty(len(order), np.int64)
    position[order] = np.cumsum(new) - 1
    units = np.rint(height / _SHARE_UNIT).astype(np.int64)
    change = np.zeros((len(height), len(at_ps)), np.int64)
    for row, column in zip(change, units, strict=True):
        np.add.at(row, position[: len(start)], column)
        np.subtract.at(row, position[len(start) : 2 * len(start)], column)
    level: Floats = np.cumsum(change, axis=1) * np.float64(_SHARE_UNIT)
    return at_ps, level


def edges_of(profiles: list[Profile], makespan_ps: int) -> Ints:
    """Shared ends of intervals: every instant where something changes, or an even grid. [ps]"""
    if len(profiles) == 1 and profiles[0].at_ps[-1] == makespan_ps and len(profiles[0].at_ps) <= MOST_INTERVALS + 1:
        return profiles[0].at_ps  # of one class of ranks, its own instants
    edges = np.array([0, makespan_ps], np.int64)
    for profile in profiles:
        # instants of one class are all different, and lie within the run
        if profile.repeat.true_count(profile.at_ps) <= MOST_INTERVALS + 1:
            edges = np.union1d(edges, np.clip(profile.repeat.true_ps(profile.at_ps), 0, makespan_ps))
            if len(edges) <= MOST_INTERVALS + 1:
                continue
        return np.unique(np.rint(np.linspace(0, makespan_ps, MOST_INTERVALS + 1)).astype(np.int64))
    return edges
