"""What a service draws and costs: machines that wait, and steps on top of them, in sum and over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from cmsim import cost, energy, results
from cmsim.arrays import Floats
from cmsim.hardware import System
from cmsim.serving import idle, plans
from cmsim.serving.measure import by_row, ramp, rows
from cmsim.serving.replica import Replica
from cmsim.serving.scaling import Scaler
from cmsim.units import PS_PER_S

#: of a band: all of it, and its middle alone
_BAND, _MIDDLE = slice(3), slice(1, 2)


def used(machines: Iterable[plans.PoolMachine]) -> list[System]:
    """Machines that pools are on, each with the packages that are in use."""
    packages: dict[int, tuple[System, int]] = {}
    for one in machines:
        packages[id(one.machine)] = one.machine, packages.get(id(one.machine), (one.machine, 0))[1] + one.accelerators
    return [replace(system, packages=many) for system, many in packages.values()]


def idle_W(systems: Sequence[System]) -> Floats:
    """Facility power of machines that wait: the least, the middle, the most. [W]"""
    out: Floats = np.array([idle.idle_W(one) for one in systems]).sum(axis=0)
    return out


def on_share(machines: Sequence[plans.PoolMachine], scalers: Sequence[Scaler | None], edges_s: Floats) -> Floats:
    """Share of accelerators that are with the service, mean of each stretch; others are given back. [1]"""
    wide, with_ = np.diff(edges_s), np.zeros(len(edges_s) - 1)
    for one, scaler in zip(machines, scalers, strict=True):
        each = one.each
        if scaler is None:
            with_ += one.accelerators
            continue
        at_s, many = (np.array(column, float) for column in zip(*scaler.on, strict=True))
        sums = ramp(edges_s, at_s / PS_PER_S, np.diff(many, prepend=0.0))
        with_ += each * np.divide(np.diff(sums), wide, out=np.full(len(wide), many[0]), where=wide > 0)
    out: Floats = with_ / sum(one.accelerators for one in machines)
    return out


def joules(replicas: Sequence[Replica]) -> Floats:
    """Facility energy of steps, over that of machines that wait: the least, the middle, the most. [J]"""
    out = np.zeros(3)
    for replica in replicas:
        out += np.frombuffer(replica.record.joules).reshape(-1, 3).sum(axis=0)
        for row, jumps in by_row(replica):
            out += row.joules(jumps[:, 1], jumps[:, 1] + jumps[:, 2]).sum(axis=1)
    return out


def joules_over(replicas: Sequence[Replica], edges_s: Floats, ends_of: slice = _BAND) -> Floats:
    """Facility energy of steps within each stretch between edges, over that of machines that wait: the least, the
    middle, the most, or some of them; shape (3, stretches). Of a jump it is spread evenly; a step that runs on after
    the last of them has gone counts as if it ended then. [J]"""
    begins, ends, spent = [], [], []
    for replica in replicas:
        for row, jumps in by_row(replica):
            first, last = jumps[:, 1], jumps[:, 1] + jumps[:, 2]
            sums = np.frombuffer(row.sums, np.int64)
            begins.append(jumps[:, 4])
            ends.append(jumps[:, 4] + sums[last] - sums[first])
            spent.append(row.joules(first, last)[ends_of])
        mixed = rows(replica.record.mixed, 3)
        begins.append(mixed[:, 2])
        ends.append(mixed[:, 2] + mixed[:, 0])
        spent.append(np.frombuffer(replica.record.joules).reshape(-1, 3).T[ends_of])
    begin_s, end_s = (np.concatenate(one) / PS_PER_S for one in (begins, ends))
    end_s = np.minimum(end_s, edges_s[-1])
    begin_s = np.minimum(begin_s, end_s * (1 - 1e-9))
    out: Floats = np.array(
        [
            np.diff(ramp(edges_s, begin_s, draws_W) - ramp(edges_s, end_s, draws_W))
            for draws_W in np.concatenate(spent, axis=1) / np.maximum(end_s - begin_s, 1e-12)
        ]
    )
    return out


def power_W(replicas: Sequence[Replica], waits_W: Floats | float, edges_s: Floats) -> Floats:
    """Facility power, mean of each stretch between edges. [W]"""
    spent_J, wide = joules_over(replicas, edges_s, _MIDDLE)[0], np.diff(edges_s)
    out: Floats = waits_W + np.divide(spent_J, wide, out=np.zeros(len(wide)), where=wide > 0)
    return out


def metrics(
    systems: Sequence[System],
    steps_J: Floats,
    took_s: float,
    output_per_s: float,
    done: float,
    on: float = 1.0,
) -> dict[str, float | str]:
    """Energy of all pools, with its band; money and carbon where the systems have them.

    steps_J  of steps, over that of machines that wait: the least, the middle, the most [J]    took_s  in so long [s]
    on       share of accelerators that are with the service, mean over time [1]
    """
    low, middle, high = (idle_W(systems) * on * took_s + steps_J).tolist()
    power: dict[str, float] = {"energy_J": middle, "power_avg_W": middle / took_s}
    if high > low:
        power |= {"energy_J_low": low, "energy_J_high": high}
        power |= {"power_avg_W_low": low / took_s, "power_avg_W_high": high / took_s}
    grams = [one.spec.facility.carbon_g_per_kWh for one in systems]
    if all(of_kWh == grams[0] for of_kWh in grams) and grams[0] is not None:
        power["carbon_g"] = energy.carbon_g(middle, grams[0])
    rents = [cost.rent(one)[0] for one in systems]
    if all(rents):
        power["cost_per_hour_USD"] = on * sum(one["cost_per_hour_USD"] for one in rents)
    if not done:
        return {**power}
    per_request = {
        name.replace("energy_J", "energy_per_request_J"): spent / done
        for name, spent in power.items()
        if name.startswith("energy_J")
    }
    return {**per_request, **results.per_token(output_per_s, power), **power}
