"""Supplies by their curve, buildings by the weather, kinds of modules, and ``cmsim show --power``."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from cmsim import reading
from cmsim.cli.app import app
from cmsim.cli.show_power import document
from cmsim.errors import InputError
from cmsim.hardware import load_system
from cmsim.hardware.supplies import efficiency, lost_W
from cmsim.topology import totals

CURVE = [[0.1, 0.9], [0.5, 0.96], [1.0, 0.94]]


def test_losses_follow_a_curve_and_meet_its_points():
    facility = load_system("hgx_h100", set={"facility.psu_curve": CURVE}).spec.facility
    assert [efficiency(load, facility) for load, _ in CURVE] == pytest.approx([share for _, share in CURVE])
    lost = [float(lost_W(load, full_W=1.0, facility=facility)) for load in (0.0, 0.05, 0.1, 0.3, 1.0, 1.2)]
    assert lost[0] == lost[1] == lost[2]  # what a supply needs for itself
    assert lost[2] < lost[3] < lost[4] < lost[5]
    plain = load_system("hgx_h100").spec.facility
    assert efficiency(1.0, plain) == pytest.approx(plain.psu_efficiency)
    assert efficiency(0.1, plain) < efficiency(0.5, plain)


def test_supplies_are_sized_for_boards_as_delivered():
    whole, held = (totals(load_system("hgx_h100", set=set_)) for set_ in ({}, {"accelerator.power.limit_W": 350.0}))
    # at a lower load, of the same supplies: what stands is as before
    assert held["power_psu_losses_idle_kW"].value == whole["power_psu_losses_idle_kW"].value
    assert held["power_psu_losses_full_kW"].value < whole["power_psu_losses_full_kW"].value


def test_the_building_takes_more_when_it_is_warm_outside():
    pue = [load_system("hgx_h100", set={"facility.outside_C": at}).spec.facility.pue for at in (-40, 0, 15, 25, 40)]
    assert pue == sorted(pue) and pue[2] == load_system("hgx_h100").spec.facility.pue and pue[-1] < 1.5
    own = {"facility.outside_C": 20, "facility.pue_by_C": [[10, 1.1], [30, 1.3]]}
    assert load_system("hgx_h100", set=own).spec.facility.pue == pytest.approx(1.2)


def test_modules_of_another_kind_draw_in_proportion():
    there = load_system("gb200_nvl72").spec.scale_out.module_W
    lpo = load_system("gb200_nvl72", set={"scale_out.instead": "lpo"}).spec.scale_out
    assert lpo.module_W == 0.5 * there
    # those of the supernode have no DSP: with one they would draw twice as much
    there = load_system("cloudmatrix384").spec.scale_up.power.module_W
    dsp = load_system("cloudmatrix384", set={"scale_up.power.instead": "dsp"})
    assert dsp.spec.scale_up.power.module_W == 2 * there
    assert (
        totals(dsp)["power_modules_full_kW"].value
        > totals(load_system("cloudmatrix384"))["power_modules_full_kW"].value
    )


@pytest.mark.parametrize(
    ("set_", "said"),
    [
        ({"facility.psu_efficiency": 1.02}, "facility.psu_efficiency"),
        ({"facility.psu_curve": [[0.1, 1.2]]}, "facility.psu_curve[0][1]"),
        ({"facility.psu_curve": [[0.5, 0.9], [0.1, 0.9]]}, "points must go up; got 0.5, 0.1"),
        ({"facility.pue_by_C": [[0, 1.1], [0, 1.2]]}, "pue_by_C: points must go up"),
        ({"facility.outside_C": 200}, "facility.outside_C"),
        ({"node.cpu_idle_W": -3}, "node.cpu_idle_W"),
        ({"scale_out.instead": "glass"}, "scale_out.instead"),
        ({"accelerator.power.sleep_W": 90}, "sleep_W: must be at most idle_W (70), got 90"),
        ({"accelerator.power.clock": 0}, "power.clock"),
    ],
)
def test_wrong_numbers_are_refused_by_name(set_, said):
    with pytest.raises(InputError) as caught:
        load_system("hgx_h100", set=set_)
    assert said in str(caught.value)


#: whose fabrics take seconds to count
LARGE = ("atlas950_superpod", "tpu_v4_pod", "tpu_v5p_pod", "ub_mesh_pod")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE))
        for name in sorted(reading.builtin_files("topologies"))
    ],
)
def test_every_system_shows_its_parts_by_state_and_what_totals_leave_over(name):
    told = document(load_system(name))
    parts = {one["part"] for one in told["states"]}
    assert {"accelerator", "host CPU", "host DRAM", "boards, drives, DPU", "NIC", "scale-out module"} <= parts
    assert {"idle", "active idle", "+ memory", "+ link"} <= {one["state"] for one in told["states"]}
    for one in told["states"]:
        assert one["each_W"] >= 0 and one["total_kW"] == pytest.approx(one["each_W"] * one["count"] / 1e3)
        assert one["sources"] and all(source["source"] for source in one["sources"])
    for total in told["totals"]:
        for one in total["published"]:
            assert one["left_over_kW"] == pytest.approx(one["kW"] - total["derived_kW"])
            assert one["basis"] and one["source"]
    # the states that stand in totals add up to them
    idle = {"accelerator": "idle", "host CPU": "idle", "host DRAM": "idle", "switch chip": "no traffic"}
    alone = [one for one in told["states"] if idle.get(one["part"], "always") == one["state"]]
    there = {total["quantity"]: total["derived_kW"] for total in told["totals"]}
    names = ("accelerators", "hosts", "switch_chips", "modules", "nics", "scale_out")
    assert sum(one["total_kW"] for one in alone) == pytest.approx(
        sum(there[f"power_{part}_idle_kW"] for part in names), rel=1e-6
    )


def test_the_command_prints_tables_and_json_and_refuses_what_is_no_system(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)  # a pipe: nothing is broken over lines
    said = CliRunner().invoke(app, ["show", "gb200_nvl72", "--power"])
    assert said.exit_code == 0, said.output
    for text in ("active idle", "pJ/FLOP", "rectifiers", "35 C outside", "left over", "ASSUMED"):
        assert text in said.output
    said = CliRunner().invoke(app, ["show", "gb200_nvl72", "--power", "--json"])
    assert json.loads(said.stdout)["name"] == "gb200_nvl72"
    assert CliRunner().invoke(app, ["show", "h100_sxm", "--power"]).exit_code in (0, 2)
    assert CliRunner().invoke(app, ["show", "megatron_fused", "--power"]).exit_code == 2
