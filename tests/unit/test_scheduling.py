"""Jobs on machines: schedules worked out by hand for each policy, files of jobs, policies of one's own, bad input."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from typer.testing import CliRunner

import cmsim
from cmsim.cli.app import app
from cmsim.errors import InfeasibleError, InputError
from cmsim.kinds.submitting import LengthSpec
from cmsim.scheduling.asked import lengths_s
from cmsim.scheduling.hall import Floor, Hall, fill
from cmsim.scheduling.measure import means

BOX, TWO = "hgx_h100", {"system": "hgx_h100", "domains": 2}
FOUR = [(0, 4, 100), (1, 8, 100), (2, 4, 50), (3, 4, 200)]


def jobs(rows, **columns):
    """Jobs of (at_s, accelerators, seconds), and further columns."""
    said = [dict(zip(("at_s", "accelerators", "seconds"), row, strict=True)) for row in rows]
    for key, values in columns.items():
        said = [{**one, key: value} for one, value in zip(said, values, strict=True)]
    return said


def ran(rows, system=BOX, *, columns=None, seed=0, **keys):
    listed = {"jobs": jobs(rows, **(columns or {}))} if rows else {}
    return cmsim.run({"systems": [system], "workload": {"kind": "jobs", **listed, **keys}, "seed": seed})[0]


def spans(one):
    """Of each job: first start and end."""
    rows = one.frame("jobs")
    return list(zip(rows["start_s"].tolist(), rows["end_s"].tolist(), strict=True))


# schedules by hand


@pytest.mark.parametrize(
    ("keys", "columns", "expected"),
    [
        ({"backfill": "none"}, {}, [(0, 100), (100, 200), (200, 250), (200, 400)]),
        # the third is done before the second could start, the fourth is not
        ({}, {}, [(0, 100), (100, 200), (2, 52), (200, 400)]),
        # all are taken for longer than they are: the same are done in time
        ({"overestimate": 5}, {}, [(0, 100), (100, 200), (2, 52), (200, 400)]),
        ({"queue": "shortest", "backfill": "none"}, {}, [(0, 100), (100, 200), (2, 52), (200, 400)]),
        (
            {"queue": "priority", "backfill": "none"},
            {"priority": [0, 0, 0, 5]},
            [(0, 100), (203, 303), (303, 353), (3, 203)],
        ),
    ],
)
def test_a_queue_by_hand(keys, columns, expected):
    assert spans(ran(FOUR, columns=columns, **keys)) == expected


def test_a_fair_share_goes_to_who_has_least():
    rows = [(0, 4, 100), (0, 4, 60), (1, 4, 30), (2, 4, 50)]
    teams = {"teams": {"a": {}, "b": {}}, "queue": "fair_share"}
    assert spans(ran(rows, columns={"team": ["a", "a", "a", "b"]}, **teams))[2:] == [(100, 130), (60, 110)]


def test_priority_stops_who_has_less():
    columns = {"priority": [0, 1]}
    keys = {"queue": "priority", "preemption": "priority", "checkpoint_s": 100, "restart_s": 50}
    one = ran([(0, 8, 1000), (250, 8, 100)], columns=columns, **keys)
    # 200 of 250 s were saved: 50 for starting again, 800 that are left
    assert spans(one) == [(0, 350 + 50 + 800), (250, 350)]
    rows, tries = one.frame("jobs"), one.frame("attempts")
    assert rows["lost_s"].tolist() == [100, 0] and rows["preemptions"].tolist() == [1, 0]
    assert tries["ended_by"].tolist() == ["preemption", "end", "end"] and tries["kept_s"].tolist() == [200, 100, 800]
    assert one.metrics["lost_preemption_fraction"] == pytest.approx(100 / 1200)
    assert one.metrics["lost_fraction"] == one.metrics["lost_preemption_fraction"]


def test_a_quota_is_a_limit_or_a_promise():
    rows, columns = [(0, 4, 100), (0, 4, 100), (10, 4, 50)], {"team": ["a", "a", "b"]}
    teams = {"a": {"quota": 4}, "b": {"quota": 4}}
    # a limit holds up nobody but its team
    assert spans(ran(rows, columns=columns, teams=teams)) == [(0, 100), (100, 200), (10, 60)]
    keys = {"preemption": "quota", "checkpoint_s": 5, "restart_s": 0}
    assert spans(ran(rows, columns=columns, teams=teams, **keys)) == [(0, 100), (0, 60 + 90), (10, 60)]


def test_placement_and_what_it_costs():
    rows = [(0, 6, 100), (0, 6, 100), (0, 4, 100)]
    one = ran(rows, TWO, across=0.5)
    assert spans(one)[2] == (0, 200) and one.frame("jobs")["domains"].tolist() == [1, 1, 2]
    assert one.metrics["across_fraction"] == pytest.approx(4 * 200 / (4 * 200 + 1200))
    assert one.metrics["slow_fraction"] == pytest.approx(4 * 100 / (4 * 200 + 1200))
    assert spans(ran(rows, TWO, across=0.5, placement="one_domain"))[2] == (100, 200)
    # what no domain holds is over two on the reference, too
    assert spans(ran([(0, 16, 100)], TWO, across=0.5)) == [(0, 100)]
    domains = ran([(0, 2, 100), (0, 2, 100)], TWO, placement="scatter").frame("attempts")
    assert ran([(0, 2, 100), (0, 2, 100)], TWO).metrics["fragmentation_fraction"] == pytest.approx(4 / 12)
    assert domains["domains"].tolist() == [1, 1]
    spread = ran([(0, 2, 100), (0, 2, 100)], TWO, placement="scatter").metrics["fragmentation_fraction"]
    assert spread == pytest.approx(6 / 12)


def test_places_are_filled_and_spread():
    assert [one.tolist() for one in fill(np.array([3, 8, 8]), 3)] == [[0], [3]]
    assert [one.tolist() for one in fill(np.array([3, 8, 8]), 10)] == [[1, 0], [8, 2]]
    hall = Hall([Floor("big", (16, 16), 4)], placement="scatter")
    take = hall.place(0, 8)
    assert take is not None and take.by_domain == (4, 4)
    hall.take(take)
    assert hall.machine_free == [24] and hall.scattered(0) == 12
    hall.leave(0, take.hosts[:1])
    assert hall.machine_free == [24], "its accelerators are somebody's"
    hall.give(take)
    assert hall.machine_free == [28]
    assert hall.come_back(0, take.hosts[:1]) == 4 and hall.free.sum() == 32


def test_machines_of_two_speeds():
    beside = {"racks": {"machine": "gb200_nvl72", "accelerators": 8}}
    rows = [(0, 8, 100), (0, 8, 100), (0, 8, 100)]
    one = ran(rows, beside=beside, speeds={"racks": 2.0})
    assert spans(one) == [(0, 50), (0, 100), (50, 100)]
    assert one.frame("jobs")["machine"].tolist() == ["racks", "hgx_h100", "racks"]
    assert one.frame("machines")["jobs"].tolist() == [1, 2] and one.accelerators == 16
    only = ran(rows, beside=beside, speeds={"racks": 2.0}, columns={"machine": [None, None, "hgx_h100"]})
    assert spans(only)[2] == (100, 200)
    assert one.metrics["cost_per_hour_USD"] == pytest.approx(8 * 2.5 + 8 * 4.5)


TRAINING = {"model": "llama-3.1-8b", "sequence_length": 1024, "global_batch": 16, "recompute": "full", "zero_stage": 3}


def test_what_jobs_do_is_simulated():
    task = {"tasks": {"dense": {"training": TRAINING}}, "beside": {"racks": {"machine": "gb200_nvl72"}}}
    listed = [
        {"accelerators": 8, "steps": 10, "task": "dense", "machine": "hgx_h100"},
        {"accelerators": 8, "steps": 10, "task": "dense", "machine": "racks"},
    ]
    one = cmsim.run({"systems": [BOX], "workload": {"kind": "jobs", "jobs": listed, **task}})[0]
    for number, system in enumerate((BOX, {"system": "gb200_nvl72", "accelerators": 8})):
        step = cmsim.run({"systems": [system], "workload": {"kind": "training", **TRAINING}})[0].metrics
        row = one.frame("jobs").iloc[number]
        assert row["ran_s"] == pytest.approx(10 * step["step_time_s"], abs=1e-5)
    assert one.facts.simulated >= 2
    # seconds are those of the reference
    said = {"kind": "jobs", "jobs": [{"accelerators": 8, "seconds": 100, "task": "dense", "machine": "racks"}], **task}
    quick = cmsim.run({"systems": [BOX], "workload": said})[0].frame("jobs")["ran_s"][0]
    ratio = one.frame("jobs")["ran_s"]
    assert quick == pytest.approx(100 * ratio[1] / ratio[0], rel=1e-4)


# what stops jobs


def test_faults_as_recorded_stop_and_take_hosts(tmp_path):
    def event(kind, at_s):
        fault = {"Level": 1, "Class": "GPU", "Desc": "x"}
        return {"node_id": "n", "event_time": at_s / 86400, "event_type": kind, "fault_type": fault}

    path = tmp_path / "faults.json"
    path.write_text(json.dumps([event("fault_start", 100.5), event("fault_end", 300)]))
    keys = {"recorded_faults": {"hgx_h100": {"path": str(path)}}, "checkpoint_s": 50, "restart_s": 10}
    one = ran([(0, 8, 200)], **keys)
    assert spans(one) == [(0, 410)] and one.metrics["interruptions"] == 1
    assert one.metrics["down_fraction"] == pytest.approx(199.5 / 410)
    assert one.metrics["lost_failures_fraction"] == pytest.approx(10.5 / 410)


def test_maintenance_loses_no_work():
    keys = {"maintenance": [{"at_s": 100, "lasts_s": 50}], "restart_s": 10}
    one = ran([(0, 8, 200)], **keys)
    assert spans(one) == [(0, 260)] and one.metrics["lost_fraction"] == pytest.approx(10 / 260)
    assert one.metrics["interruptions"] == one.metrics["preemptions"] == 0


def test_a_service_takes_what_the_hour_asks_for():
    service = {"chat": {"accelerators": [[0, 4], [1, 8]], "replica": 4}}
    one = ran([(0, 4, 5000)], services=service)
    # at one o'clock it makes room, with two checkpoints; at midnight it goes on
    assert spans(one) == [(0, 86400 + 600 + 1400)]
    assert one.metrics["service_met_fraction"] == pytest.approx(1) and one.metrics["preemptions"] == 1
    tries = one.frame("attempts")
    assert tries[tries["service"] == "chat"]["ended_by"].tolist() == ["clock", "service"]
    alone = ran([], services=service, days=0.5)
    assert alone.metrics["makespan_s"] == 43200 and alone.metrics["service_fraction"] == pytest.approx(23 / 24)
    left = ran([(0, 8, 10)], services={"chat": {"accelerators": [[0, 4]], "replica": 4}})
    assert left.metrics["jobs_left"] == 1 and any("1 jobs wait or run though" in note for note in left.warnings)


def test_a_run_without_jobs_says_so():
    none = {"per_hour": 1e-6, "days": 0.1, "length": {"median_s": 60}, "sizes": {1: 1.0}}
    assert any("no job comes" in note for note in ran([], arrivals=none).warnings)


def test_a_budget_of_power_lets_one_wait():
    rows = [(0, 4, 100), (0, 4, 100)]
    free = ran(rows)
    idle = float(free.frame("machines")["idle_J"][0]) / 100
    one_W = (free.metrics["power_peak_W"] - idle) / 2
    one = ran(rows, power_budget_W=idle + 1.5 * one_W)
    assert spans(one) == [(0, 100), (100, 200)]
    assert one.metrics["power_peak_W"] == pytest.approx(idle + one_W)
    none = ran(rows, power_budget_W=idle + 0.5 * one_W)
    assert none.frame("jobs")["state"].tolist() == ["over the power budget"] * 2
    with pytest.raises(InfeasibleError, match="below what the hall draws while it waits"):
        ran(rows, power_budget_W=idle - 1)


def test_what_can_never_run_is_said():
    rows = [(0, 9, 10), (0, 4, 10), (0, 2, 10)]
    one = ran(rows, columns={"team": ["a", "a", "b"]}, teams={"a": {"quota": 3}, "b": {}})
    assert one.frame("jobs")["state"].tolist() == ["too large", "over its quota", "done"]
    assert one.metrics["jobs_refused"] == 2
    assert [note for note in one.warnings if note.startswith("warning: 1 of 3 jobs")]


def test_the_clock_may_be_stopped():
    one = ran([(0, 8, 86400), (0, 8, 10)], days=0.5)
    assert one.frame("jobs")["state"].tolist() == ["left", "left"] and one.metrics["jobs_left"] == 2
    assert one.metrics["makespan_s"] == 43200 and "jct_s_mean" not in one.metrics
    assert one.metrics["useful_fraction"] == 1


# jobs that are drawn, or recorded


def test_jobs_come_by_the_hour_and_their_law():
    arrivals = {"per_hour": [0, 60] + [0] * 22, "days": 2, "length": {"law": "constant", "mean_s": 5}, "sizes": {1: 1}}
    rows = ran([], arrivals=arrivals, backfill="none").frame("jobs")
    assert ((rows["submit_s"] % 86400) // 3600).unique().tolist() == [1.0]
    assert 80 < len(rows) < 160 and rows["alone_s"].unique().tolist() == [5.0]
    drawn = lengths_s(LengthSpec(median_s=60, sigma=1.0), 20_000, np.random.default_rng(0))
    assert np.log(drawn).std() == pytest.approx(1, rel=0.02) and np.median(drawn) == pytest.approx(60, rel=0.03)
    mixed = {"per_hour": 60, "length": {"median_s": 60, "most_s": 90}, "sizes": {1: 0.75, 2: 0.25}, "days": 0.5}
    rows = ran([], arrivals=mixed, seed=2).frame("jobs")
    assert (rows["accelerators"] == 2).mean() == pytest.approx(0.25, abs=0.07) and rows["alone_s"].max() == 90
    assert ran([], arrivals=mixed, seed=2).frame("jobs").equals(rows)


def kiefer_wolfowitz(submit, length, servers):
    """Waits of a queue with several servers, first come first served."""
    free, out = np.zeros(servers), []
    for at, takes in zip(submit, length, strict=True):
        start = max(at, free.min())
        free[free.argmin()] = start + takes
        out.append(start - at)
    return np.array(out)


def erlang_c(load, servers):
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) / (1 - load / servers)
    return last / (sum(terms) + last)


def queue_of(jobs, seed, *, servers=8, utilization=0.7):
    arrivals = {"per_hour": 200, "days": jobs / 200 / 24, "sizes": {1: 1.0}}
    arrivals["length"] = {"law": "exponential", "mean_s": 3600 * servers * utilization / 200}
    return ran([], {"system": BOX, "accelerators": servers}, arrivals=arrivals, seed=seed).frame("jobs")


def test_one_accelerator_each_is_a_queue_with_eight_servers():
    rows = queue_of(2000, 1)
    expected = kiefer_wolfowitz(rows["submit_s"], rows["alone_s"], 8)
    assert rows["wait_s"].to_numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_waits_are_those_of_erlang():
    ratios = []
    for seed in range(8):
        rows = queue_of(100_000, seed, servers=2, utilization=0.5)
        # at the load that was drawn; a mean of 100,000 waits still scatters by 2 %, that of eight by 0.7 %
        rate, mean = len(rows) / rows["submit_s"].max(), rows["alone_s"].mean()
        ratios.append(rows["wait_s"].mean() / (erlang_c(rate * mean, 2) * mean / (2 - rate * mean)))
    assert np.mean(ratios) == pytest.approx(1, abs=0.01)


OPENB = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
p1,6000,12288,1,460,,LS,Running,100,500,110
p2,88000,327680,8,1000,A|B,Burstable,Succeeded,200,400,200
p3,11908,47104,0,0,,BE,Pending,300,627,
"""
HELIOS = """job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,duration,queue
1,u1,v1,1,1,1,COMPLETED,2020-06-09 18:41:01,2020-06-09 18:41:01,2020-06-09 19:41:01,3600,0
2,u2,v1,4,16,1,FAILED,2020-06-09 18:41:27,2020-06-09 18:41:37,2020-06-09 18:45:36,239,10
"""
ACME = """job_id,user,node_num,gpu_num,cpu_num,type,state,submit_time,start_time,end_time,duration,queue,gpu_time
5,u,1,8,128,Other,FAILED,2023-03-01 00:18:22+08:00,2023-03-01 00:18:54+08:00,2023-03-01 00:20:51+08:00,117,32,936.0
"""
PAI = """a,tensorflow,1.0,Terminated,1739162.0,1739200.0,600.0,29.3,50.0,MISC
b,worker,4.0,Failed,1739100.0,1739150.0,600.0,29.3,200.0,T4
"""
SPOT = """job_name,organization,gpu_model,cpu_request,gpu_request,worker_num,submit_time,duration,job_type
j1,o,A10,8,2,3,5,100,HP
j2,o,H800,8,0.5,1,7,50,Spot
"""
DLRM = """instance_sn,role,app_name,cpu_request,cpu_limit,gpu_request,gpu_limit,rdma_request,rdma_limit,memory_request,\
memory_limit,disk_request,disk_limit,max_instance_per_node,creation_time,scheduled_time,deletion_time
i1,HN,app_0,12,12,1,1,25,25,120.0,120.0,640.0,800.0,8,100.0,100.0,700.5
i2,CN,app_1,64,64,0,0,1,1,320.0,320.0,255.0,300.0,-1,1435629.0,1435639.0,1435760.0
"""
PHILLY = """[{"status": "Pass", "vc": "x", "jobid": "a", "attempts": [
  {"start_time": "2017-10-07 01:12:09", "end_time": "2017-10-07 01:13:23", "detail": [{"ip": "m", "gpus": ["g0"]}]}],
  "submitted_time": "2017-10-07 01:11:39", "user": "c"}]
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OPENB, [(0, 1, 390), (100, 8, 200)]),
        (HELIOS, [(0, 1, 3600), (26, 4, 239)]),
        (ACME, [(0, 8, 117)]),
        (PAI, [(0, 8, 50), (62, 1, 38)]),
        (SPOT, [(0, 6, 100), (2, 1, 50)]),
        (DLRM, [(0, 1, 600.5)]),
        (PHILLY, [(0, 1, 74)]),
    ],
    ids=["openb", "helios", "acme", "pai", "spot", "dlrm", "philly"],
)
def test_every_format_of_jobs_is_played(tmp_path, text, expected):
    path = tmp_path / "trace"
    path.write_text(text)
    one = ran([], trace={"path": str(path)})
    rows = one.frame("jobs")
    assert list(zip(rows["submit_s"], rows["accelerators"], rows["alone_s"], strict=True)) == expected
    assert (rows["state"] == "done").all()
    if text == OPENB:
        assert any("1 of 2 jobs ask for a part" in note for note in one.warnings)
        assert any("1 of 3 recorded jobs are left out" in note for note in one.warnings)


def test_types_of_a_trace_may_have_their_machines(tmp_path):
    path = tmp_path / "trace"
    path.write_text(SPOT)
    beside = {"racks": {"machine": "gb200_nvl72"}}
    trace = {"path": str(path), "machines": {"A10": "racks"}, "faster": 2}
    one = ran([], trace=trace, beside=beside, speeds={"racks": 0.5})
    assert one.frame("jobs")["machine"].tolist() == ["racks", "hgx_h100"]
    assert one.frame("jobs")["submit_s"].tolist() == [0, 1]
    with pytest.raises(InputError, match="no accelerators 'B'"):
        ran([], trace={"path": str(path), "machines": {"B": "hgx_h100"}})


# policies of one's own

POLICY = """
def largest(offer):
    return sorted(range(len(offer.waiting["job"])), key=lambda i: -offer.waiting["accelerators"][i])
def breaks(offer):
    return 1 / 0
def twice(offer):
    return [0, 0]
def words(offer):
    return ["all"]
def far(offer):
    return [7]
def none(offer):
    return None
def writes(offer):
    offer.waiting["job"][:] = 0
    return []
def never(offer):
    return []
"""


def own(folder, name, **keys):
    (folder / "mine.py").write_text(POLICY)
    (folder / "jobs.yaml").write_text(
        json.dumps({"systems": [BOX], "workload": {"kind": "jobs", "jobs": jobs(FOUR), "policy": f"mine:{name}"}})
    )
    return cmsim.run(folder / "jobs.yaml", **keys)[0]


def test_a_policy_runs_where_it_is_allowed(tmp_path):
    with pytest.raises(InputError, match="--allow-policies"):
        own(tmp_path, "largest")
    assert spans(own(tmp_path, "largest", allow_policies=True)) == [(0, 100), (252, 352), (2, 52), (52, 252)]
    said = CliRunner().invoke(app, ["run", str(tmp_path / "jobs.yaml"), "--quiet"])
    assert said.exit_code == 2 and "--allow-policies" in said.output
    said = CliRunner().invoke(app, ["run", str(tmp_path / "jobs.yaml"), "--quiet", "--allow-policies"])
    assert said.exit_code == 0, said.output
    sweep = ["sweep", str(tmp_path / "jobs.yaml"), "--jobs", "1", "--quiet", "--out", str(tmp_path / "swept")]
    assert CliRunner().invoke(app, sweep).exit_code == 1, "its one point has failed"
    said = CliRunner().invoke(app, [*sweep, "--resume", "--allow-policies"])
    assert said.exit_code == 1, "and is never run again"
    sweep[-1] = str(tmp_path / "allowed")
    assert CliRunner().invoke(app, [*sweep, "--allow-policies"]).exit_code == 0
    left = own(tmp_path, "never", allow_policies=True)
    assert left.metrics["jobs_left"] == 4


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("breaks", r"mine:breaks: at 0 s it raised ZeroDivisionError"),
        ("twice", r"returned \[0, 0\], where a row stands twice"),
        ("words", r"returned \['all'\]: 'all' is no row"),
        ("far", r"returned \[7\]: 7 is no row of `waiting`. Allowed: each of 0 to 0"),
        ("none", "returned None, which is no list of rows"),
        ("writes", "read-only"),
        ("lacking", "has no function 'lacking'"),
    ],
)
def test_what_a_policy_does_wrong_is_told(tmp_path, name, said):
    with pytest.raises(InputError, match=said):
        own(tmp_path, name, allow_policies=True)


def test_a_policy_counts_in_digests(tmp_path):
    own(tmp_path, "largest", allow_policies=True)
    scenario = cmsim.load_scenario(tmp_path / "jobs.yaml")
    before = cmsim.api.digests(scenario)
    assert before == cmsim.api.digests(scenario.allowing_policies())
    (tmp_path / "mine.py").write_text(POLICY + "\n")
    assert cmsim.api.digests(scenario) != before


# bad input


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"jobs": [{"accelerators": 0, "seconds": 1}]}, r"jobs\[0\]\.accelerators"),
        ({"jobs": [{"accelerators": 1, "seconds": -1}]}, r"jobs\[0\]\.seconds"),
        ({"jobs": [{"accelerators": 1}]}, "seconds, steps: one of them is required"),
        ({"jobs": [{"accelerators": 1, "seconds": 1, "team": "x"}]}, "team: got 'x'"),
        ({"jobs": [{"accelerators": 1, "seconds": 1, "machine": "x"}]}, r"jobs\[0\].machine: got 'x'"),
        ({"jobs": [{"accelerators": 1, "steps": 1}]}, "steps: are those of a task"),
        ({}, "one of jobs, trace and arrivals is required"),
        ({"jobs": jobs(FOUR), "beside": {"r": {"machine": "gb200_nvl72"}}}, "speeds: r is required"),
        ({"jobs": jobs(FOUR), "beside": {"hgx_h100": {"machine": "gb200_nvl72"}}}, "is called 'hgx_h100', too"),
        ({"jobs": jobs(FOUR), "speeds": {"r": 1}}, "speeds: got 'r'"),
        ({"jobs": jobs(FOUR), "reference": "r"}, "reference: got 'r'"),
        ({"jobs": jobs(FOUR), "policy": "a b"}, "Allowed: module:function"),
        ({"jobs": jobs(FOUR), "policy": "a:b", "queue": "fifo"}, "queue: policy decides it"),
        ({"jobs": jobs(FOUR), "preemption": "priority"}, "goes with `queue: priority`"),
        ({"jobs": jobs(FOUR), "preemption": "quota"}, "quota needs a team"),
        ({"jobs": jobs(FOUR), "maintenance": [{"at_s": 0, "lasts_s": 9, "every_s": 9}]}, "must be longer"),
        ({"jobs": jobs(FOUR), "maintenance": [{"at_s": 0, "lasts_s": 9, "domains": 2}]}, "hgx_h100 has 1"),
        ({"jobs": jobs(FOUR), "services": {"s": {"accelerators": [[0, 9]]}}}, "asks for 9; hgx_h100 has 8"),
        ({"jobs": jobs(FOUR), "services": {"s": {"accelerators": [[9, 1], [8, 1]]}}}, "hours must ascend"),
        ({"arrivals": {"per_hour": 0, "length": {"median_s": 1}, "sizes": {1: 1}}}, "no job ever comes"),
        ({"arrivals": {"per_hour": 1, "length": {"median_s": 1}, "sizes": {1: 0.5}}}, "sizes: shares are 0.5"),
        ({"arrivals": {"per_hour": 1, "length": {"law": "constant"}, "sizes": {1: 1}}}, "mean_s: required"),
        ({"trace": {"path": "nothing.csv"}}, "no such file"),
        ({"jobs": jobs(FOUR), "causes": {"x": {"part": "host", "mtbf_h": 0}}}, "mtbf_h"),
    ],
)
def test_what_is_wrong_is_named(keys, said):
    with pytest.raises(InputError, match=said):
        ran([], **keys)


def test_jobs_out_of_order_are_sorted():
    one = ran([(5, 1, 10), (0, 1, 10), (5, 2, 10)])
    assert one.frame("jobs")["submit_s"].tolist() == [0, 5, 5] and one.frame("jobs")["accelerators"].tolist() == [
        1,
        1,
        2,
    ]


def test_means_over_stretches():
    found = means(np.array([0.0, 10, 20]), np.array([5, 15]), np.array([4, -4]))
    assert found.tolist() == [2, 2]
