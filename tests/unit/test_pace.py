"""Race to idle against slow and steady: energies to a deadline, and what is refused."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from cmsim import energy
from cmsim.cli.app import app
from cmsim.errors import InfeasibleError, InputError
from cmsim.execution import Machines
from cmsim.hardware import load_system
from cmsim.pace import pace
from cmsim.scenario import load_scenario

STEP = {"kind": "decode", "model": "llama-3.1-8b", "batch_per_accelerator": 512, "context_tokens": 256}


def asked(workload=STEP, **more):
    return load_scenario({"systems": ["hgx_h100"], "workload": {**workload, **more}}).runs[0]


def test_energies_to_a_deadline_are_those_of_runs_and_of_waiting():
    found = pace(asked(), Machines(), times=10)
    race, steady = found.race, found.steady
    assert race.clock == 1.0 and race.took_s <= steady.took_s <= found.deadline_s == pytest.approx(1.5 * race.took_s)
    system = load_system("hgx_h100")
    for state, told_J in (("idle", race.idle_J), ("asleep", race.asleep_J)):
        waits_W = energy.waiting_W(system, state)[1]
        assert told_J == pytest.approx(race.run_J + waits_W * (found.deadline_s - race.took_s))
    took = [one.took_s for one in found.paced]
    assert took == sorted(took)
    assert found.best.asleep_J == min(one.asleep_J for one in found.paced if one.asleep_J is not None)
    assert found.best.asleep_J < race.asleep_J


def test_the_lowest_clock_that_keeps_a_deadline_is_found():
    compute_bound = {"kind": "prefill", "model": "llama-3.1-8b", "batch_per_accelerator": 1, "prompt_tokens": 2048}
    one, machines = asked(compute_bound), Machines()
    full_s = pace(one, machines).race.took_s
    found = pace(one, machines, deadline_s=1.3 * full_s)
    assert 0.98 * found.deadline_s <= found.steady.took_s <= found.deadline_s
    assert [one.idle_J for one in found.paced if one.took_s > found.deadline_s] == [None] * sum(
        one.took_s > found.deadline_s for one in found.paced
    )


def test_a_deadline_that_is_missed_at_full_clock_and_a_kind_without_clocks_are_refused():
    with pytest.raises(InfeasibleError, match="at full clock 1 of"):
        pace(asked(), Machines(), deadline_s=1e-6)
    with pytest.raises(InputError, match=r"has no .power.clock"):
        pace(asked({"kind": "collective", "collective": "all_reduce", "message_bytes": 1024}), Machines())


def test_the_command_prints_a_table_and_json(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(json.dumps({"systems": ["hgx_h100"], "workload": STEP}))
    said = CliRunner().invoke(app, ["pace", str(file), "--times", "3"])
    assert said.exit_code == 0, said.output
    assert "race" in said.output and "least energy" in said.output and "then asleep kJ" in said.output
    said = CliRunner().invoke(app, ["pace", str(file), "--json"])
    assert json.loads(said.stdout)[0]["race"]["clock"] == 1.0
