"""Failures of large machines as published, Daly's closed form, and a trace of faults gone through by hand."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

import cmsim
from cmsim import reading, validation
from cmsim.reliability import checkpoint

TRACE = reading.DATA / "topologies/failures/stepfun_400_servers.json.gz"
DAY, HOUR = 86400.0, 3600.0


def metrics(workload, **entry):
    usual = {"kind": "reliability", "checkpoint": {"write_s": 30}, "runs": 200}
    return cmsim.run({"systems": [entry], "workload": {**usual, **workload}})[0].metrics


def test_published_machines_fail_as_rates_of_others_say():
    rows = validation.validate(["reliability"]).areas["reliability"]
    assert [row.id for row in rows if not row.ok] == []
    assert sum(row.role == "judged" for row in rows) == 8


def test_causes_of_llama_3_add_up_to_what_was_counted():
    """Data beside data, no prediction: rates derived from its table give the table back."""
    found = metrics({"failures": "llama3_h100", "days": 54, "spares": 64}, system="hgx_h100", domains=2048)
    assert found["interruptions"] == pytest.approx(419, rel=0.01)


@pytest.mark.parametrize(
    ("mtbf_h", "write_s", "restart_s", "interval_s"),
    [
        (3.09, 60, 600, 1155.37),
        (3.09, 60, 600, "daly"),
        (1.0, 300, 60, 600),
        (24, 5, 3600, "young"),
        (2, 0.5, 10, 9000),
    ],
)
def test_goodput_is_that_of_daly(mtbf_h, write_s, restart_s, interval_s):
    found = metrics(
        {
            "causes": {"any": {"part": "job", "mtbf_h": mtbf_h}},
            "checkpoint": {"write_s": write_s, "interval_s": interval_s},
            "restart_s": restart_s,
            "days": 200,
        },
        system="hgx_h100",
    )
    expected = checkpoint.goodput(found["checkpoint_interval_s"], write_s, restart_s + write_s, mtbf_h * HOUR)
    assert found["goodput_fraction"] == pytest.approx(expected, rel=0.01)


def test_what_a_job_takes_is_that_of_daly():
    work = {"causes": {"any": {"part": "job", "mtbf_h": 3.09}}, "restart_s": 540, "work_days": 60}
    found = metrics({**work, "checkpoint": {"write_s": 60}}, system="hgx_h100")
    share = checkpoint.goodput(found["checkpoint_interval_s"], 60, 600, 3.09 * HOUR)
    assert found["run_time_s"] == pytest.approx(60 * DAY / share, rel=0.01)


@pytest.mark.parametrize(("hosts", "spares"), [(400, 0), (380, 20), (380, 12)])
def test_goodput_on_a_trace_is_that_of_a_walk_through_it(hosts, spares):
    keys = {"path": str(TRACE), "hosts": 400, "leave_out": ["Stress Test Failure"]}
    said = {"trace": keys, "spares": spares, "checkpoint": {"write_s": 60, "interval_s": 1800}, "restart_s": 540}
    found = metrics(said, system="hgx_h800", domains=hosts)
    goodput, stops = walked(hosts, spares, interval=1800.0, stall=60.0, start=600.0)
    assert found["goodput_fraction"] == pytest.approx(goodput, rel=0.001)
    assert found["interruptions"] == stops


def walked(hosts, spares, *, interval, stall, start):
    """Goodput and failures that stop the job: change after change of the trace, without any of the package."""
    events = json.loads(gzip.decompress(TRACE.read_bytes()))
    end = max(one["event_time"] for one in events) * DAY
    numbers = {name: i for i, name in enumerate(sorted(named(events)))}
    away = []
    for name, number in numbers.items():
        own = sorted(
            (one["event_time"], one["event_type"] == "fault_end")
            for one in events
            if one["node_id"] == name and one["fault_type"]["Class"] != "Stress Test Failure"
        )
        # one is away while more of its faults began than ended; what touches is one stretch
        level, since = 0, 0.0
        for at, ends in own:
            level += -1 if ends else 1
            if not ends and level == 1:
                since = at
            if ends and not level:
                away.append((since * DAY, at * DAY, number))
        if level:
            away.append((since * DAY, end, number))
    # who is back is back before others leave; a fault of no length stops the job all the same
    turns = [(begin, until > begin, True, number) for begin, until, number in away]
    turns += [(until, False, False, number) for _, until, number in away]
    mine = np.random.default_rng(0).permutation(400)[: hosts + spares].tolist()
    used, idle, short = set(mine[:hosts]), mine[hosts:], 0
    useful = resumes = 0.0
    stops, waits = 0, False
    for at, _, leaves, number in sorted(turns, key=lambda one: (one[0], one[1])):
        if number not in mine or at >= end:
            continue
        if not leaves:
            if short:
                short -= 1
                used.add(number)
                if not short and waits:
                    waits, resumes = False, max(resumes, at + start)
            else:
                idle.append(number)
            continue
        if number not in used:
            idle.remove(number)
            continue
        stops += 1
        if not waits and at > resumes:
            useful += (at - resumes) // (interval + stall) * interval
        used.remove(number)
        if idle:
            used.add(idle.pop(0))
        else:
            short += 1
            waits = True
        resumes = max(resumes, at + start)
    if not waits and end > resumes:
        whole, rest = divmod(end - resumes, interval + stall)
        useful += whole * interval + min(rest, interval)
    return useful / end, stops


def named(events):
    return {one["node_id"] for one in events if one["fault_type"]["Class"] != "Stress Test Failure"}
