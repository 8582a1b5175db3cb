"""Jobs on machines: nobody has what another has, all ends once, sums agree, and the queue keeps its order."""

from __future__ import annotations

import heapq
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cmsim
from cmsim.scheduling.decisions import Decisions

JOBS = st.lists(
    st.fixed_dictionaries(
        {
            "at_s": st.integers(0, 300),
            "accelerators": st.integers(1, 18),
            "seconds": st.integers(1, 200),
            "team": st.sampled_from(["a", "b"]),
            "priority": st.integers(0, 2),
        }
    ),
    min_size=1,
    max_size=25,
)


def ran(jobs, *, system=None, **keys):
    said = {"kind": "jobs", "jobs": jobs, "teams": {"a": {}, "b": {}}, "checkpoint_s": 20, "restart_s": 5, **keys}
    system = system or {"system": "hgx_h100", "domains": 2}
    return cmsim.run({"systems": [system], "workload": said, "seed": 3})[0]


def sound(one, capacity=16):
    """What must hold of every run."""
    rows, tries = one.frame("jobs"), one.frame("attempts")
    assert set(rows["state"]) <= {"done", "too large", "over its quota"}
    mine = tries[tries["service"] == ""]
    ends = mine[mine["ended_by"] == "end"]["job"]
    assert sorted(ends) == sorted(rows[rows["state"] == "done"]["job"])
    # nobody has what another has
    steps = sorted(
        [(s, 1, n) for s, n in zip(tries["start_s"], tries["accelerators"], strict=True)]
        + [(e, 0, -n) for e, n in zip(tries["end_s"], tries["accelerators"], strict=True)]
    )
    used = np.cumsum([n for *_, n in steps]) if steps else np.zeros(1)
    assert used.max() <= capacity and used.min() >= 0 and used[-1] == 0
    # accelerators times time: what was had is what was kept and lost
    wall = (tries["end_s"] - tries["start_s"]) * tries["accelerators"]
    m = one.metrics
    whole = capacity * m["makespan_s"]
    assert m["utilization"] <= 1 + 1e-12 and math.isclose(wall.sum(), m["utilization"] * whole, abs_tol=1e-3)
    parts = m["useful_fraction"] + m["lost_fraction"] + m["service_fraction"]
    assert math.isclose(parts, m["utilization"], abs_tol=1e-9)
    assert m["lost_failures_fraction"] + m["lost_preemption_fraction"] <= m["lost_fraction"] + 1e-9
    done = rows[rows["state"] == "done"]
    spent = done["wait_s"] + done["ran_s"]
    assert np.allclose(done["end_s"] - done["submit_s"], spent, atol=1e-5)
    machines, teams = one.frame("machines"), one.frame("teams")
    assert math.isclose(machines["energy_J"].sum() + machines["idle_J"].sum(), m["energy_J"], rel_tol=1e-9)
    assert math.isclose(teams["busy_s"].sum(), rows["ran_s"] @ rows["accelerators"], abs_tol=1e-3)
    over_time = one.frame("cluster")
    hall = over_time[over_time["machine"] == "all"]
    spans = hall["end_s"] - hall["start_s"]
    assert math.isclose((hall["power_W"] * spans).sum(), m["energy_J"], rel_tol=1e-9)
    assert math.isclose((hall["busy"] * spans).sum(), wall.sum(), abs_tol=1e-3)
    assert math.isclose((hall["queued"] * spans).sum(), rows["wait_s"].sum(), abs_tol=1e-3)


@settings(max_examples=20, deadline=None)
@given(
    jobs=JOBS,
    queue=st.sampled_from(["fifo", "shortest", "priority", "fair_share"]),
    backfill=st.sampled_from(["none", "easy"]),
    placement=st.sampled_from(["pack", "one_domain", "scatter"]),
    preemption=st.sampled_from(["none", "priority", "quota"]),
    overestimate=st.sampled_from([1.0, 3.0]),
    quota=st.sampled_from([None, 6]),
    service=st.booleans(),
    fails=st.booleans(),
)
def test_whatever_is_asked_adds_up(jobs, queue, backfill, placement, preemption, overestimate, quota, service, fails):
    teams = {"a": {"quota": quota or 9}, "b": {"share": 2.0}} if preemption == "quota" or quota else {"a": {}, "b": {}}
    keys = {"services": {"chat": {"accelerators": [[0, 2], [0.02, 6], [0.05, 2]], "replica": 2}}} if service else {}
    if fails:
        keys["causes"] = {
            "host": {"part": "host", "mtbf_h": 0.3, "takes": "host", "repair_h": 0.01, "detect_s": 3},
            "chip": {"part": "accelerator", "mtbf_h": 2},
        }
        keys["maintenance"] = [{"at_s": 100, "lasts_s": 30, "domains": 1}]
    queue = "priority" if preemption == "priority" else queue
    said = {"queue": queue, "backfill": backfill, "placement": placement, "preemption": preemption}
    one = ran(jobs, **said, overestimate=overestimate, teams=teams, **keys)
    if one.metrics["jobs_left"]:
        # a service has what they would need, for ever
        assert service
        return
    sound(one)


def alone(jobs, capacity, *, easy):
    """Starts of jobs in the order of their submission, worked out apart: second by second, on counts alone."""
    order = sorted(range(len(jobs)), key=lambda i: jobs[i]["at_s"])
    waits, runs, starts = [], [], {}
    times = [jobs[i]["at_s"] for i in order]
    heapq.heapify(times)
    coming = list(order)
    while times:
        now = heapq.heappop(times)
        runs = [(end, n) for end, n in runs if end > now]
        while coming and jobs[coming[0]]["at_s"] <= now:
            waits.append(coming.pop(0))

        def begin(i, now=now, runs=runs):
            starts[i] = now
            runs.append((now + jobs[i]["seconds"], jobs[i]["accelerators"]))
            heapq.heappush(times, now + jobs[i]["seconds"])
            waits.remove(i)

        while waits and jobs[waits[0]]["accelerators"] <= capacity - sum(n for _, n in runs):
            begin(waits[0])
        if not waits or not easy:
            continue
        need, free, at = jobs[waits[0]]["accelerators"], capacity - sum(n for _, n in runs), now
        for end, n in sorted(runs):
            if free >= need and end > at:
                break
            free, at = free + n, end
        spare = free - need
        for i in waits[1:]:
            n = jobs[i]["accelerators"]
            if n > capacity - sum(m for _, m in runs):
                continue
            if now + jobs[i]["seconds"] <= at:
                begin(i)
            elif n <= spare:
                spare -= n
                begin(i)
    return starts


@settings(max_examples=20, deadline=None)
@given(jobs=JOBS, easy=st.booleans())
def test_queues_are_as_worked_out_apart(jobs, easy):
    small = [one for one in jobs if one["accelerators"] <= 8]
    if not small:
        return
    one = ran(small, backfill="easy" if easy else "none", system="hgx_h100")
    rows = one.frame("jobs")
    order = sorted(range(len(small)), key=lambda i: small[i]["at_s"])
    expected = alone(small, 8, easy=easy)
    assert rows["start_s"].tolist() == [expected[i] for i in order]
    if not easy:
        assert (np.diff(rows["start_s"]) >= 0).all()


@settings(max_examples=20, deadline=None)
@given(
    jobs=JOBS,
    placement=st.sampled_from(["pack", "one_domain", "scatter"]),
    queue=st.sampled_from(["fifo", "shortest"]),
    overestimate=st.sampled_from([1.0, 2.0]),
)
def test_nobody_delays_the_first(jobs, placement, queue, overestimate):
    told: dict[int, int] = {}
    promise = Decisions._promise

    def heard(self, head, now):
        found = promise(self, head, now)
        told[head] = min(told.get(head, found.at), found.at)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decisions, "_promise", heard)
        one = ran(jobs, placement=placement, queue=queue, overestimate=overestimate)
    rows = one.frame("jobs")
    taken = rows[rows["state"] == "done"]["start_s"].tolist()
    if queue == "fifo":
        # who is first stays so, whatever comes
        assert all(taken[job] <= at / 1e6 + 1e-6 for job, at in told.items())
    sound(one)
