"""Power by component and its integral, against sums worked out another way."""

from __future__ import annotations

import csv
import itertools

import numpy as np
import pytest

from cmsim.energy import (
    COMPONENTS,
    band_metrics,
    busy,
    carbon_g,
    constant,
    full_W,
    power_metrics,
    power_over_time,
    scale_up_modules,
    switch_chips,
)
from cmsim.energy import power as power_page
from cmsim.energy.power import package_W
from cmsim.errors import InfeasibleError
from cmsim.hardware import band, board_watts, load_system
from cmsim.hardware.supplies import overhead_W, supplies_W
from cmsim.reading import builtin_files
from cmsim.topology import fabric, totals
from cmsim.units import PS_PER_S

SYSTEMS = sorted(builtin_files("topologies"))
MS = PS_PER_S // 1000
NO_LINKS = {
    "resource": np.array([], dtype=object),
    "rank_class": np.array([], np.int64),
    "port_share": np.array([], np.float64),
    "start_ps": np.array([], np.int64),
    "end_ps": np.array([], np.int64),
    "utilization": np.array([], np.float64),
}


def ops_of(system, rows, *, multiplicity=None):
    """rows: (rank class, start [ms], end [ms], share of the bf16 peak, share of memory bandwidth)."""
    rank_class, start, end, compute, memory = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    seconds = (end - start) / 1e3
    peak = np.full(len(rows), system.rank_peak_FLOPps("bf16"))
    count = np.array(multiplicity or [system.ranks], np.int64)
    return {
        "rank_class": rank_class.astype(np.int64),
        "multiplicity": count[rank_class.astype(np.int64)],
        "kind": np.array(["compute"] * len(rows), dtype=object),
        "kernel": np.array(["gemm"] * len(rows), dtype=object),
        "limit": np.array(["compute"] * len(rows), dtype=object),
        "start_ps": (start * MS).astype(np.int64),
        "end_ps": (end * MS).astype(np.int64),
        "flops": compute * peak * seconds,
        "peak_FLOPps": peak,
        "cores": np.ones(len(rows)),
        "weights": np.array([""] * len(rows), dtype=object),
        "bytes_B": memory * system.rank_memory_Bps * seconds,
    }


def links_of(rows):
    """rows: (resource, start [ms], end [ms], utilization)."""
    names, start, end, use = zip(*rows, strict=True)
    return {
        "resource": np.array(names, dtype=object),
        "rank_class": np.zeros(len(names), np.int64),
        "port_share": np.array([0.5 if name.startswith("port.") else 0.0 for name in names]),
        "start_ps": np.array(start, np.int64) * MS,
        "end_ps": np.array(end, np.int64) * MS,
        "utilization": np.array(use, np.float64),
    }


def mean_W(drawn, makespan_ps):
    return {name: joules / (makespan_ps / PS_PER_S) for name, joules in drawn.joules().items()}


@pytest.mark.parametrize("name", SYSTEMS)
def test_idle_power_is_that_of_the_derived_totals(name):
    system = load_system(name)
    rows = totals(system)
    fixed = constant(system)
    assert fixed.accelerators_W == pytest.approx(rows["power_accelerators_idle_kW"].value * 1e3)
    assert fixed.hosts_W == pytest.approx(rows["power_hosts_idle_kW"].value * 1e3)
    parts_W = fixed.switch_chips_W + fixed.optical_modules_W
    expected = sum(rows[f"power_{part}_idle_kW"].value for part in ("switch_chips", "modules", "scale_out"))
    assert parts_W == pytest.approx(expected * 1e3)
    assert fixed.nics_W == pytest.approx(rows["power_nics_idle_kW"].value * 1e3)
    assert switch_chips(system) == rows["switch_chips"].value
    assert scale_up_modules(system) == rows["scale_up_modules"].value


@pytest.mark.parametrize("name", SYSTEMS)
def test_power_at_full_use_is_that_of_the_derived_totals(name):
    system = load_system(name, set={"node.cpu_feeding": 1.0})
    ops = ops_of(system, [(0, 0, 2, 1, 1)])
    links = links_of([("port.out[0]", 0, 2, 1), ("port.in[0]", 0, 2, 1)])
    drawn = power_over_time(system, ops, links, makespan_ps=2 * MS)
    watts = mean_W(drawn, 2 * MS)
    rows = totals(system)
    accelerators_W = sum(value for part, value in watts.items() if part.startswith("accelerators_"))
    assert accelerators_W == pytest.approx(rows["power_accelerators_full_kW"].value * 1e3)
    assert watts["hosts"] == pytest.approx(rows["power_hosts_full_kW"].value * 1e3)
    assert watts["fans"] == pytest.approx(rows["power_fans_full_kW"].value * 1e3)
    assert watts["power_supplies"] == pytest.approx(rows["power_psu_losses_full_kW"].value * 1e3)
    assert sum(watts.values()) == pytest.approx(rows["power_facility_full_kW"].value * 1e3)
    delivered_W = sum(watts.values()) - watts["power_supplies"] - watts["facility"]
    assert full_W(system, board_watts(system.accelerator)) == pytest.approx(delivered_W)


def test_components_are_exactly_these():
    system = load_system("gb200_nvl72")
    drawn = power_over_time(system, ops_of(system, [(0, 0, 1, 0.5, 0.1)]), NO_LINKS, makespan_ps=MS)
    columns = drawn.columns()
    assert tuple(dict.fromkeys(columns["component"])) == COMPONENTS
    assert len({len(column) for column in columns.values()}) == 1
    assert columns["start_ps"].dtype == columns["end_ps"].dtype == np.int64


def test_energy_is_the_sum_over_ops_where_nothing_is_held_back():
    system = load_system("hgx_h100", set={"accelerator.power.max_W": 5000.0})
    rng = np.random.default_rng(5)
    cuts = np.cumsum(rng.integers(1, 9, 40))
    rows = [(i % 2, int(cuts[i]), int(cuts[i + 1]), rng.random() * 0.3, rng.random() * 0.3) for i in range(39)]
    ops = ops_of(system, rows, multiplicity=[5, 3])
    links = links_of([("port.in[0]", 3, 9, 0.4), ("port.out[0]", 3, 20, 0.25), ("nic.out[0]", 3, 9, 1.0)])
    end_ps = int(ops["end_ps"].max())
    joules = power_over_time(system, ops, links, makespan_ps=end_ps).joules()
    power = system.accelerator.power
    took_s = (ops["end_ps"] - ops["start_ps"]) / PS_PER_S
    attainable = np.stack([ops["flops"] / ops["peak_FLOPps"] / 0.7, ops["bytes_B"] / system.rank_memory_Bps / 0.85])
    compute, memory = attainable / attainable.max(axis=0)
    assert joules["accelerators_compute"] == pytest.approx(
        np.sum(ops["multiplicity"] * power.compute_W * compute * took_s), rel=1e-9
    )
    memory_J = np.sum(ops["multiplicity"] * power.memory_W * memory * took_s)
    # what passes ports is read from memory and written to it, beside a kernel that does not fill it
    passing = 2 * fabric(system).port_Bps / (0.85 * system.rank_memory_Bps)
    assert memory_J < joules["accelerators_memory"] < memory_J + 5 * power.memory_W * passing * 17e-3 * 0.4
    link_J = 5 * power.link_W * (0.4 * 6e-3 + 0.25 * 17e-3) / 2
    assert joules["accelerators_link"] == pytest.approx(link_J, rel=1e-9)
    assert joules["accelerators_idle"] == pytest.approx(8 * power.idle_W * end_ps / PS_PER_S, rel=1e-12)
    active_J = 8 * (power.active_W - power.idle_W) * end_ps / PS_PER_S
    assert joules["accelerators_active"] == pytest.approx(active_J, rel=1e-12)


def test_busy_time_gives_the_same_mean_as_the_columns():
    system = load_system("cloudmatrix384", accelerators=16)
    ops = ops_of(system, [(0, 0, 2, 0.5, 0.1), (0, 4, 5, 0.2, 0.9), (1, 0, 9, 0.9, 0.9)], multiplicity=[20, 8])
    links = links_of([("port.out[0]", 1, 7, 0.8), ("port.in[0]", 1, 7, 0.8)])
    found, _ = power_metrics(system, power_over_time(system, ops, links, makespan_ps=10 * MS))
    used = busy(system, ops, links, makespan_ps=10 * MS)
    assert 16 * used.mean_W(board_watts(system.accelerator)) == pytest.approx(found["power_packages_W"], rel=1e-9)


def test_what_passes_ports_passes_memory():
    system = load_system("hgx_h100")
    ops = ops_of(system, [(0, 0, 1, 0, 0)])
    ops["kind"][:] = "collective"
    links = links_of([("port.out[0]", 0, 1, 1), ("port.in[0]", 0, 1, 1)])
    watts = mean_W(power_over_time(system, ops, links, makespan_ps=MS), MS)
    share = 2 * 450e9 / (0.85 * 3350e9)
    assert watts["accelerators_memory"] == pytest.approx(8 * share * system.accelerator.power.memory_W)


def test_a_slow_kernel_burns_as_much_as_a_fast_one():
    system = load_system("hgx_h100")
    fast, slow = (
        mean_W(power_over_time(system, ops_of(system, [(0, 0, 1, *busy)]), NO_LINKS, makespan_ps=MS), MS)
        for busy in ((0.7, 0.1), (0.07, 0.01))
    )
    assert slow == pytest.approx(fast)


def test_a_package_never_exceeds_its_limit():
    system = load_system("gb200_nvl72", set={"accelerator.power.max_W": 900.0})
    power = system.accelerator.power
    rows = [(0, 0, 1, 1, 1), (0, 0, 2, 0.5, 1)]
    links = links_of([("port.out[0]", 0, 1, 1), ("port.in[0]", 0, 1, 1)])
    drawn = power_over_time(system, ops_of(system, rows), links, makespan_ps=2 * MS)
    columns = drawn.columns()
    watts = columns["power_W"].reshape(len(COMPONENTS), -1)[:5] / system.packages
    assert watts.sum(axis=0).max() <= power.max_W * (1 + 1e-12)
    assert watts.sum(axis=0)[0] == pytest.approx(power.max_W)
    # all three give way alike: memory at its full share, the port in full
    assert watts[3, 0] / watts[4, 0] == pytest.approx(power.memory_W / power.link_W)


def test_narrow_weights_of_grouped_products_draw_as_full_ones():
    system = load_system("hgx_h100", set={"accelerator.power.max_W": 5000.0})
    draws = {}
    for weights in ("", "bf16", "fp8", "fp4"):
        ops = ops_of(system, [(0, 0, 1, 0.0, 0.4)])
        ops["weights"][:] = weights
        draws[weights] = mean_W(power_over_time(system, ops, NO_LINKS, makespan_ps=MS), MS)["accelerators_memory"]
    assert draws[""] == draws["bf16"] == pytest.approx(8 * system.accelerator.power.memory_W)
    assert draws["fp8"] == pytest.approx(2 * draws[""]) and draws["fp4"] == pytest.approx(4 * draws[""])


def test_the_band_is_the_ranges_of_the_watts_and_holds_for_every_figure():
    system = load_system("cloudmatrix384")
    low, high = band(system.accelerator)
    middle = board_watts(system.accelerator)
    # shares of the limit, each at its end: 0.8 x share x 600 W, 1.25 x share x 1,000 W
    assert low.memory == pytest.approx(middle.memory / 750 * 600 * 0.8, abs=0.1)
    assert high.memory == pytest.approx(middle.memory / 750 * 1000 * 1.25, abs=0.1)
    assert (low.active, high.active, low.limit, high.limit) == (182, 300, 600, 1000)
    ops = ops_of(system, [(0, 0, 2, 0.5, 0.1), (0, 4, 5, 0.2, 0.9)])
    drawn = power_over_time(system, ops, NO_LINKS, makespan_ps=10 * MS)
    columns = drawn.columns()
    found, _ = power_metrics(system, drawn)
    ends, notes = band_metrics(system, drawn)
    found.update(ends)
    for name in ("energy_J", "power_avg_W", "power_peak_W", "power_it_W", "power_packages_W", "carbon_g"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    seconds = (columns["end_ps"] - columns["start_ps"]) / PS_PER_S
    assert found["energy_J_high"] == pytest.approx((columns["power_W_high"] * seconds).sum(), rel=1e-12)
    assert any("not measured" in note and "h100_sxm" in note for note in notes)


def test_a_measured_part_has_no_band():
    system = load_system("hgx_h100")
    assert band(system.accelerator) is None
    drawn = power_over_time(system, ops_of(system, [(0, 0, 1, 0.5, 0.1)]), NO_LINKS, makespan_ps=MS)
    columns = drawn.columns()
    found, notes = power_metrics(system, drawn)
    assert not notes and not [name for name in found if name.endswith(("_low", "_high"))]
    assert band_metrics(system, drawn) == ({}, ())
    assert (columns["power_W_low"] == columns["power_W"]).all()


def test_the_grid_keeps_every_integral(monkeypatch):
    system = load_system("gb200_nvl72")
    rng = np.random.default_rng(7)
    cuts = np.cumsum(rng.integers(1, 9, 300))
    rows = [(0, int(a), int(b), rng.random(), rng.random()) for a, b in itertools.pairwise(cuts)]
    ops = ops_of(system, rows)
    links = links_of([("port.out[0]", 5, 77, 0.3)])
    end_ps = int(ops["end_ps"].max())
    exact = power_over_time(system, ops, links, makespan_ps=end_ps)
    monkeypatch.setattr(power_page, "MOST_INTERVALS", 37)
    binned = power_over_time(system, ops, links, makespan_ps=end_ps)
    assert binned.middle_W.size == 37 * len(COMPONENTS) < exact.middle_W.size
    one, two = exact.joules(), binned.joules()
    assert two == pytest.approx(one, rel=1e-11)
    columns = binned.columns()
    start, end = columns["start_ps"][:37], columns["end_ps"][:37]
    assert (start[0], end[-1]) == (0, end_ps) and (start[1:] == end[:-1]).all()


def test_metrics_are_integrals_of_the_columns():
    system = load_system("cloudmatrix384")
    ops = ops_of(system, [(0, 0, 2, 0.5, 0.1), (0, 4, 5, 0.2, 0.9)])
    drawn = power_over_time(system, ops, NO_LINKS, makespan_ps=10 * MS)
    columns = drawn.columns()
    found, notes = power_metrics(system, drawn)
    seconds = (columns["end_ps"] - columns["start_ps"]) / PS_PER_S
    assert found["energy_J"] == pytest.approx((columns["power_W"] * seconds).sum(), rel=1e-12)
    assert found["power_avg_W"] * 0.01 == pytest.approx(found["energy_J"], rel=1e-12)
    assert (
        found["power_avg_W"]
        < found["power_peak_W"]
        == pytest.approx(columns["power_W"].reshape(len(COMPONENTS), -1)[:, 0].sum())
    )
    assert found["power_it_W"] * system.spec.facility.pue == pytest.approx(found["power_avg_W"])
    assert sum(found[f"power_{name}_W"] for name in COMPONENTS) == pytest.approx(found["power_avg_W"])
    assert not notes


def test_without_a_carbon_intensity_carbon_is_left_out_and_said():
    system = load_system("gb200_nvl72", set={"facility.carbon_g_per_kWh": None})
    drawn = power_over_time(system, ops_of(system, [(0, 0, 1, 1, 1)]), NO_LINKS, makespan_ps=MS)
    found, notes = power_metrics(system, drawn)
    assert "carbon_g" not in found and not [name for name in band_metrics(system, drawn)[0] if "carbon" in name]
    assert notes == ("no carbon_g: gb200_nvl72 has no facility.carbon_g_per_kWh",)


def test_ranks_that_wait_draw_active_idle_and_unused_accelerators_low_idle():
    system = load_system("gb200_nvl72")
    ops = ops_of(system, [(0, 0, 1, 0, 0)], multiplicity=[4])
    ops["kind"][:] = "collective"
    watts = mean_W(power_over_time(system, ops, NO_LINKS, makespan_ps=MS), MS)
    power = system.accelerator.power
    assert watts["accelerators_compute"] == watts["accelerators_memory"] == watts["accelerators_link"] == 0
    assert watts["accelerators_idle"] == pytest.approx(72 * power.idle_W)
    assert watts["accelerators_active"] == pytest.approx(4 * (power.active_W - power.idle_W))
    # one node of eighteen has work in flight, and feeding it keeps part of its sockets busy
    node = system.spec.node
    feeding_W = node.cpu_feeding * node.cpus * (node.cpu_active_W - node.cpu_idle_W)
    assert watts["hosts"] == pytest.approx(constant(system).hosts_W + feeding_W)


@pytest.mark.parametrize(("kernel", "part"), [("gemm", "compute"), ("norm", "memory"), ("generic", "memory")])
def test_a_kernel_known_only_by_its_time_keeps_its_engine_busy(kernel, part):
    system = load_system("hgx_h100")
    ops = ops_of(system, [(0, 0, 1, 0, 0)])
    ops["kernel"][:] = kernel
    watts = mean_W(power_over_time(system, ops, NO_LINKS, makespan_ps=MS), MS)
    assert watts[f"accelerators_{part}"] == pytest.approx(8 * getattr(system.accelerator.power, f"{part}_W"))


def test_power_supplies_lose_by_load():
    system = load_system("hgx_h100")
    facility = system.spec.facility
    busy, idle = (
        mean_W(power_over_time(system, ops_of(system, [(0, 0, 1, *use)]), NO_LINKS, makespan_ps=MS), MS)
        for use in ((1, 1), (0, 0))
    )
    full = full_W(system, board_watts(system.accelerator)) * (1 / facility.psu_efficiency - 1)
    assert full * facility.psu_standing_loss < idle["power_supplies"] < busy["power_supplies"] < full


def test_part_of_a_domain_has_part_of_its_fabric():
    whole, half = load_system("cloudmatrix384"), load_system("cloudmatrix384", accelerators=192)
    assert switch_chips(half) == switch_chips(whole) / 2
    assert scale_up_modules(half) == scale_up_modules(whole) / 2
    assert constant(half).switch_chips_W == pytest.approx(constant(whole).switch_chips_W / 2)


def test_a_run_without_time_has_no_power():
    system = load_system("gb200_nvl72")
    with pytest.raises(InfeasibleError, match="takes no time"):
        power_over_time(system, ops_of(system, [(0, 0, 1, 1, 1)]), NO_LINKS, makespan_ps=0)


def _p01(n):
    return package_W(n["idle_W"], n["max_W"], n["util"])


def _p07(n):
    system = load_system("cloudmatrix384")
    return scale_up_modules(system) + system.packages * system.spec.scale_out.modules_per_accelerator


def _p08(n):
    system = load_system("cloudmatrix384", set={"scale_up.power.module_W": n["W"], "scale_out.module_W": n["W"]})
    return constant(system).optical_modules_W / 1e3


def _p11(n):
    it_kW = n["it_kW"] + supplies_W(n["it_kW"], n["psu_eff"])
    return it_kW + overhead_W(it_kW, n["pue"])


def _p14(n):
    it_J = n["kW"] * 1e3 * n["h"] * 3600
    return carbon_g(it_J + overhead_W(it_J, n["pue"]), n["g_per_kWh"]) / 1e3


@pytest.mark.parametrize(("check", "ours"), [("P01", _p01), ("P07", _p07), ("P08", _p08), ("P11", _p11), ("P14", _p14)])
def test_worked_examples(shared, check, ours):
    with (shared / "reference" / "model_checks.csv").open(encoding="utf-8") as lines:
        (row,) = [row for row in csv.DictReader(lines) if row["id"] == check]
    numbers = {key: float(value) for key, value in (pair.split("=") for pair in row["inputs"].split(";"))}
    assert ours(numbers) == pytest.approx(float(row["expected"]), rel=1e-6)


def test_supplies_lose_nothing_when_perfect():
    assert supplies_W(100.0, 1.0) == 0
    assert supplies_W(95.0, 0.95) == pytest.approx(5.0)
