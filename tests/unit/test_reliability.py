"""A job under failures: laws of parts, hosts that are missing, checkpoints, and what a job makes of them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import cmsim
from cmsim.errors import InfeasibleError, InputError
from cmsim.hardware import load_system
from cmsim.kinds.reliability import CauseSpec, FaultTraceSpec
from cmsim.reliability import causes, checkpoint, draw, job, outages, replay
from cmsim.reliability.causes import Cause
from cmsim.reliability.events import US_PER_S, Failures, to_us

DAY = 86400.0
JOB = {"kind": "reliability", "causes": {"all": {"part": "job", "mtbf_h": 3}}, "checkpoint": {"write_s": 60}}


def asked(system="hgx_h100", *, extra=None, **keys):
    entry = {"system": system, **(extra or {})}
    return cmsim.run({"systems": [entry], "workload": {**JOB, "runs": 50, **keys}})[0]


def cause(**keys):
    usual = {"name": "part", "parts": 1000, "scale_s": 400 * DAY, "shape": 1.0, "age_s": 0.0, "detect_s": 0.0}
    usual |= {"repair_h": 0.0, "breaks": 1.0, "hosts": 0, "wide": False, "slowdown": 1.0, "fault": None}
    return Cause(**usual | keys)


# laws of parts


@pytest.mark.parametrize("shape", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("age_days", [0, 200])
def test_parts_fail_by_their_law(shape, age_days):
    one = cause(shape=shape, age_s=age_days * DAY)
    found = draw.events([one], runs=400, window_s=90 * DAY, seed=1)
    past, end = (age_days / 400) ** shape, ((age_days + 90) / 400) ** shape
    first = 1000 * 400 * -math.expm1(past - end)  # those in their place come on top, few where the old fail
    assert len(found.run) == pytest.approx(first, rel=0.05) if shape == 3.0 else len(found.run) > first
    if shape == 1.0:
        assert len(found.run) / 400 == pytest.approx(draw.expected(one, 90 * DAY), rel=0.01)
    assert found.start_us.min() >= 0 and found.start_us.max() <= found.window_us
    assert (np.diff(found.run * found.span_us + found.start_us) >= 0).all()


def test_what_takes_the_place_of_a_part_fails_too():
    # a renewal process with a shape of its own: n parts of mean life 1 day give n a day in the long run
    mean = 1.0 * DAY
    one = cause(parts=3, shape=3.0, scale_s=mean / math.gamma(1 + 1 / 3))
    found = draw.events([one], runs=100, window_s=200 * DAY, seed=2)
    assert len(found.run) / 100 / 200 == pytest.approx(3, rel=0.01)


def test_draws_of_a_cause_do_not_change_with_others():
    one, other = cause(name="a"), cause(name="b")
    alone = draw.events([one], runs=5, window_s=90 * DAY, seed=3)
    both = draw.events([one, other], runs=5, window_s=90 * DAY, seed=3)
    assert (both.start_us[both.cause == 0] == alone.start_us).all()
    assert len(both.run) > len(alone.run)


def test_parts_are_counted_in_the_machine():
    said = {part: CauseSpec(part=part, FIT=1) for part in ("accelerator", "host", "switch_chip", "scale_up_module")}
    said |= {part: CauseSpec(part=part, FIT=1) for part in ("scale_out_module", "rack", "domain", "job")}
    for name, domains, counts in (
        ("cloudmatrix384", 1, (384, 48, 448, 5376, 0, 12, 1, 1)),
        ("cloudmatrix384", 2, (768, 96, 896, 10752, 3072, 24, 2, 1)),
        ("gb200_nvl72", 1, (72, 18, 18, 0, 0, 1, 1, 1)),
    ):
        found = causes.counted(None, said, load_system(name, domains=domains))
        assert tuple(one.parts for one in found) == counts, name


def test_keys_of_a_scenario_lie_over_those_of_a_file():
    system = load_system("hgx_h100", domains=4)
    plain = {one.name: one for one in causes.counted("llama3_h100", {}, system)}
    over = {"accelerator": CauseSpec(mtbf_h=10), "meteor": CauseSpec(part="domain", FIT=5, takes="domain")}
    changed = {one.name: one for one in causes.counted("llama3_h100", over, system)}
    assert changed["accelerator"].scale_s == 36000 and changed["accelerator"].hosts == 1
    assert changed["nic"] == plain["nic"] and changed["meteor"].wide
    assert plain["accelerator"].scale_s == pytest.approx(3600e9 / 12621)


# the job against one that is lived through, failure by failure


def failures(rows, *, runs=1, window_s, hosts=1):
    """Failures of (run, start, until, breaks, slows, and how long nobody notices)."""
    rows = [row if len(row) > 5 else (*row, 0.0) for row in rows]
    run, start, until, breaks, slows, unseen = (np.array(column) for column in zip(*rows, strict=True))
    order = np.lexsort((start, run))
    zero = np.zeros(len(run), np.int64)
    return Failures(
        runs,
        int(to_us(window_s)),
        run[order],
        to_us(start[order]),
        to_us((start + unseen)[order]),
        to_us(until[order]),
        zero,
        breaks[order],
        np.where(breaks[order], hosts, 0),
        slows[order],
    )


def lived_through(rows, window_s, *, interval, stall, start, lag=0.0, crew, step=1.0):
    """One draw, second by second: (kept work, seconds down)."""
    breaks = sorted((one[1], one[5]) for one in rows if one[3])
    kept = done = 0.0
    down = 0
    ready, begun = 0.0, 0.0
    pending = []
    t = 0.0
    while t < window_s:
        while breaks and breaks[0][0] <= t:
            _, unseen = breaks.pop(0)
            ready, pending, done = max(ready, t + unseen + start), [], kept
        away = sum(one[1] <= t < one[2] for one in rows if one[3])
        speed = float(crew.speed(np.array([away]))[0])
        for factor in {one[4] for one in rows if one[4] > 1 and one[1] <= t < one[2]}:
            speed /= factor
        if speed == 0:
            ready = max(ready, t + step + start)
        if t < ready:
            down += step
            begun = t + step
        else:
            phase = (t - begun) % (interval + stall)
            if phase < interval:
                done += step * speed
            if phase + step == interval + stall:
                pending.append((t + step + lag, done))
            while pending and pending[0][0] <= t + step:
                kept = pending.pop(0)[1]
        t += step
    return done, down


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("lag", [0.0, 15.0])
@pytest.mark.parametrize("shrinks", [False, True])
def test_a_job_is_as_lived_through(seed, lag, shrinks):
    random = np.random.default_rng(seed)
    rows = []
    for at in np.sort(random.choice(np.arange(50, 4000), 16, replace=False)).tolist():
        stops = bool(random.random() < 0.6)
        unseen = int(random.choice([0, 5, 200]))
        rows.append((0, at, at + int(random.integers(20, 500)), stops, 1.0 if stops else 1.25, unseen))
    crew = outages.Crew(hosts=6, spares=1, replica_hosts=2.0 if shrinks else 0.0, least=0.3)
    saving = job.Saving(*(int(to_us(value)) for value in (40, 10, lag, 25)))
    events = failures(rows, window_s=4000)
    found = job.live(events, outages.speeds(events, crew), saving, wide=np.zeros(1, np.bool_))
    done, down = lived_through(rows, 4000, interval=40, stall=10, start=25, lag=lag, crew=crew)
    assert found.down[0] / US_PER_S == down
    assert found.useful[0] / US_PER_S == pytest.approx(done, abs=1e-6)
    parts = found.useful + found.stood + found.lost + found.down + found.slow
    assert parts[0] == pytest.approx(found.clock[0])


def test_a_job_gives_up_whole_replicas():
    crew = outages.Crew(hosts=12, spares=1, replica_hosts=3.0, least=0.5)
    away = np.array([0, 1, 2, 4, 5, 7, 8])
    assert crew.speed(away).tolist() == [1, 1, 0.75, 0.75, 0.5, 0.5, 0]
    halves = outages.Crew(hosts=4, replica_hosts=0.5, least=0.25)  # two replicas in a host
    assert halves.speed(np.array([1, 3, 4])).tolist() == [0.75, 0.25, 0]
    assert outages.Crew(hosts=12, spares=1).speed(away).tolist() == [1, 1, 0, 0, 0, 0, 0]


def test_draws_do_not_meet():
    rows = [(0, 95.0, 900.0, True, 1.0), (2, 10.0, 20.0, True, 1.0), (2, 50.0, 60.0, False, 2.0)]
    crew = outages.Crew(hosts=1)
    saving = job.Saving(*(int(to_us(value)) for value in (10, 1, 0, 5)))
    together = failures(rows, runs=3, window_s=100)
    all_ = job.live(together, outages.speeds(together, crew), saving, wide=np.zeros(1, np.bool_))
    for number in range(3):
        own = [(0, *row[1:]) for row in rows if row[0] == number] or [(0, 1.0, 2.0, False, 1.0)]
        alone = failures(own, window_s=100)
        one = job.live(alone, outages.speeds(alone, crew), saving, wide=np.zeros(1, np.bool_))
        assert one.useful[0] == pytest.approx(all_.useful[number]) and one.down[0] == all_.down[number]


def test_what_is_in_memory_is_lost_with_a_rack():
    # a checkpoint every 10 s, one in three stored: at 30, 60, 90. Nothing else takes time.
    saving = job.Saving(10 * US_PER_S, 0, 0, 0, in_memory=True, stored_every=3)
    for at, kept in ((55.0, 30.0), (65.0, 60.0), (25.0, 0.0)):
        rows = [(0, at, at, True, 1.0)]
        events = failures(rows, window_s=at, hosts=0)
        events = Failures(**{**vars(events), "window_us": int(to_us(at + 1))})
        for wide, left in ((True, kept), (False, at // 10 * 10)):
            one = job.live(events, outages.speeds(events, outages.Crew(1)), saving, wide=np.array([wide]))
            assert one.useful[0] / US_PER_S == pytest.approx(left + 1), (at, wide)
    # two in a row come back to the same one, and the count begins there again: 30 + 30 - 10 is kept at 60 s
    events = failures([(0, 45.0, 45.0, True, 1.0), (0, 50.0, 50.0, True, 1.0), (0, 85.0, 85.0, True, 1.0)], window_s=85)
    events = Failures(**{**vars(events), "window_us": int(to_us(86)), "hosts": np.zeros(3, np.int64)})
    one = job.live(events, outages.speeds(events, outages.Crew(1)), saving, wide=np.array([True]))
    assert one.useful[0] / US_PER_S == pytest.approx(30 + 30 + 1)
    assert one.lost[0] / US_PER_S == pytest.approx(15 + 5 + 5)


def test_the_end_of_a_job_is_found():
    # work of 25 s: 10 + stall, fails at 20 (one kept), starts again after 5, 15 more with a stall between
    saving = job.Saving(*(int(to_us(value)) for value in (10, 1, 0, 5)))
    events = failures([(0, 20.0, 20.0, True, 1.0)], window_s=100, hosts=0)
    found = outages.speeds(events, outages.Crew(1))
    one = job.live(events, found, saving, wide=np.zeros(1, np.bool_), work_us=25 * US_PER_S)
    assert one.end[0] / US_PER_S == pytest.approx(20 + 5 + 10 + 1 + 5)
    never = job.live(events, found, saving, wide=np.zeros(1, np.bool_), work_us=1e9 * US_PER_S)
    assert never.end[0] == -1


# runs from a scenario


def test_a_run_says_where_its_time_went():
    one = asked(failures="by_part", extra={"domains": 64}, spares=4, work_days=30)
    metrics = one.metrics
    assert sum(one.breakdown.values()) == pytest.approx(metrics["makespan_s"])
    assert metrics["goodput_fraction"] == pytest.approx(30 * DAY / metrics["run_time_s"])
    assert metrics["finished_fraction"] == 1.0
    assert metrics["run_time_s_p5"] < metrics["run_time_s_p50"] < metrics["run_time_s_p95"]
    rows = one.frame("causes")
    assert rows["share"].sum() == pytest.approx(1) and set(rows["cause"]) >= {"accelerator", "software", "all"}
    assert rows["interruptions"].sum() == pytest.approx(metrics["interruptions"])
    assert len(one.frame("runs")) == 50 and one.frame("runs")["interruptions"].mean() == metrics["interruptions"]
    assert one.warnings[0].startswith("stopped by: all ")
    again = asked(failures="by_part", extra={"domains": 64}, spares=4, work_days=30)
    assert again.metrics == metrics


def test_spares_and_shrinking_keep_a_job_going():
    causes_ = {"gpu": {"part": "accelerator", "FIT": 4e5, "takes": "host", "repair_h": 48}}
    many = {"domains": 64}
    waits, spares = (asked(extra=many, causes=causes_, spares=count).metrics for count in (0, 16))
    shrinks = asked(extra=many, causes=causes_, elastic={"replica_accelerators": 64}).metrics
    assert waits["availability"] < 0.2 < 0.7 < shrinks["availability"]
    assert shrinks["slow_fraction"] > 0.1 and spares["slow_fraction"] == 0
    assert waits["goodput_fraction"] < shrinks["goodput_fraction"] < spares["goodput_fraction"]


def test_a_rack_takes_its_hosts_together():
    one = {"part": "rack", "FIT": 2e6, "takes": "rack", "repair_h": 24}
    few, enough = (
        asked("cloudmatrix384", causes={"power": one}, spares=spares).metrics["availability"] for spares in (3, 12)
    )
    assert few < 0.8 < 0.98 < enough


def test_modes_of_checkpoints():
    size = {"size_GB": 5000, "storage_GBps": 50}
    found = {
        mode: asked(extra={"domains": 128}, checkpoint={"mode": mode, **size}).metrics
        for mode in ("synchronous", "asynchronous", "in_memory")
    }
    assert [found[mode]["checkpoint_write_s"] for mode in found] == [pytest.approx(100)] * 3
    assert found["synchronous"]["checkpoint_stall_s"] == pytest.approx(100)
    assert found["asynchronous"]["checkpoint_stall_s"] < 1 and found["in_memory"]["checkpoint_stall_s"] < 1
    for mode in ("asynchronous", "in_memory"):
        assert found[mode]["goodput_fraction"] > found["synchronous"]["goodput_fraction"]
    # a copy to the host waits for the one before to be in storage
    assert found["asynchronous"]["checkpoint_interval_s"] >= 99
    fixed = asked(checkpoint={"write_s": 60, "interval_s": 500}).metrics
    assert fixed["checkpoint_interval_s"] == 500
    young = asked(checkpoint={"write_s": 60, "interval_s": "young"}).metrics
    assert young["checkpoint_interval_s"] == pytest.approx(checkpoint.young_s(60, 3 * 3600))


def test_a_step_slows_while_a_part_is_down():
    causes_ = {"optics": {"part": "job", "mtbf_h": 50, "breaks": 0.0, "slowdown": 1.25, "repair_h": 50}}
    one = asked(causes={"all": {"part": "job", "FIT": 0}, **causes_}, runs=400, days=365).metrics
    # at any time so many are down as come in a repair: 1 of mean, none with exp(-1)
    assert one["slow_fraction"] == pytest.approx(0.2 * (1 - math.exp(-1)), rel=0.03)
    assert "mtbf_s" not in one and one["availability"] == 1


TRAINING = {"model": "llama-3.1-8b", "sequence_length": 2048, "global_batch": 16, "parallel": {"tp": 8}}


def test_a_step_is_simulated_with_faults():
    training = {**TRAINING, "parallel": {"tp": 16}, "recompute": "full"}
    link = {"part": "scale_up_module", "FIT": 1e6, "breaks": 0.0, "repair_h": 24, "fault": "module/0/0/0"}
    one = asked(
        *("cloudmatrix384",),
        extra={"accelerators": 16},
        training=training,
        causes={"all": {"part": "job", "mtbf_h": 30}, "optics": link},
        checkpoint={},
    ).metrics
    assert one["step_time_s"] > 0 and one["slow_fraction"] > 0
    whole = cmsim.run(
        {"systems": [{"system": "cloudmatrix384", "accelerators": 16}], "workload": {"kind": "training", **training}}
    )
    step = whole[0].metrics
    assert one["step_time_s"] == step["step_time_s"]
    assert one["tokens_per_s"] == pytest.approx(step["tokens_per_s"] * one["goodput_fraction"])
    faulty = asked("hgx_h100", extra={"faults": ["rank/0/plane/1"]}, training=TRAINING, checkpoint={}).metrics
    assert faulty["fault_slowdown"] > 1


# recorded faults


def recorded(folder, events):
    path = folder / "faults.json"
    path.write_text(
        json.dumps(
            [
                {"node_id": host, "event_time": at, "event_type": what, "fault_type": {"Class": kind, "Desc": "x"}}
                for host, at, what, kind in events
            ]
        )
    )
    return path


def test_faults_are_replayed(tmp_path):
    path = recorded(
        tmp_path,
        [
            ("b", 2.0, "fault_end", "GPU"),
            ("b", 1.0, "fault_start", "GPU"),
            ("b", 1.5, "fault_start", "NIC"),
            ("b", 2.5, "fault_end", "NIC"),
            ("c", 3.0, "fault_start", "Test"),
            ("a", 4.0, "fault_start", "GPU"),
            ("a", 5.0, "fault_end", "GPU"),
        ],
    )
    away, last_s = replay.read(FaultTraceSpec(path=str(path), leave_out=("Test",)))
    assert [(one.host, one.start_s / DAY, one.end_s / DAY, one.cause) for one in away] == [
        ("b", 1.0, 2.5, "GPU"),
        ("a", 4.0, 5.0, "GPU"),
    ]
    assert last_s == 5 * DAY
    keys = {"path": str(path), "leave_out": ["Test"]}
    one = cmsim.run(
        {
            "systems": [{"system": "hgx_h100", "domains": 4}],
            "workload": {"kind": "reliability", "trace": keys, "checkpoint": {"write_s": 60}, "restart_s": 540},
        }
    )[0].metrics
    assert one["interruptions"] == 2 and one["availability"] == pytest.approx(1 - (2.5 + 600 / DAY) / 5)
    with pytest.raises(InputError, match=r"trace\.hosts: got 1"):
        cmsim.run(
            {
                "systems": ["hgx_h100"],
                "workload": {"kind": "reliability", "trace": keys, "checkpoint": {"write_s": 60}},
            }
        )


def test_a_spare_host_takes_over():
    away = [
        replay.Away(10.0, 1000.0, "x", "h0"),
        replay.Away(20.0, 30.0, "x", "h1"),
        replay.Away(40.0, 50.0, "x", "h2"),
    ]
    all_, names = replay.events(away, fleet=3, hosts=2, spares=1, window_s=100, seed=0)
    assert names == ("x",)
    order = np.random.default_rng(0).permutation(3).tolist()
    used, idle, expected = set(order[:2]), order[2:], []
    for one in away:  # by hand: none comes back before the next leaves but h1
        host = int(one.host[1])
        expected.append(host in used)
        if host in used:
            used.remove(host)
            used |= {idle.pop(0)} if idle else set()
        else:
            idle.remove(host)
        if one.host == "h1":
            (used.add if len(used) < 2 else idle.append)(1)
    assert all_.breaks.tolist() == expected


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ("{}", "a list of events is required"),
        ('[{"node_id": "a", "event_time": -1}]', r"\[0\].event_time: days from 0 are required, got -1"),
        ('[{"node_id": "a", "event_time": 1, "event_type": "stop"}]', r"\[0\].event_type: got 'stop'"),
        ('[{"event_time": 1, "event_type": "fault_end"}]', "node_id and fault_type.Class are required"),
        ("[", "not valid JSON"),
    ],
)
def test_a_broken_trace_is_told(tmp_path, events, message):
    (tmp_path / "x.json").write_text(events)
    with pytest.raises(InputError, match=message):
        replay.read(FaultTraceSpec(path=str(tmp_path / "x.json")))


# bad input


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"causes": {"all": {"part": "job", "mtbf_h": 0}}},
            "causes.all.mtbf_h: must be greater than or equal to 0.001",
        ),
        ({"causes": {"all": {"part": "job", "FIT": -1}}}, "causes.all.FIT: must be greater than or equal to 0"),
        ({"causes": {"all": {"part": "job"}}}, "causes.all.FIT: the key is required"),
        ({"causes": {"all": {"FIT": 1}}}, "causes.all.part: the key is required"),
        ({"causes": {"all": {"part": "job", "FIT": 1, "mtbf_h": 1}}}, "FIT says it already"),
        ({"causes": {"all": {"part": "job", "FIT": 1, "breaks": 0.5}}}, "causes.all: 50% of its failures do not stop"),
        ({"causes": {"all": {"part": "job", "FIT": 1, "breaks": 0.5, "fault": "nic/0"}}}, "needs `training`"),
        ({"failures": "lama3_h100"}, "Did you mean 'llama3_h100'"),
        ({"causes": {}}, "one of failures, causes and trace is required"),
        ({"trace": {"path": "x.json"}}, "goes without failures and causes"),
        ({"spares": 2}, "spares: got 2; the job has 1 hosts. Allowed: 0 to 1"),
        ({"spares": -1}, "spares: must be greater"),
        ({"checkpoint": {}}, "checkpoint.write_s: one of size_GB, training"),
        ({"checkpoint": {"mode": "asynchronous", "write_s": 60, "stall_s": 1, "interval_s": 5}}, "got 5; one is in"),
        ({"elastic": {}}, "elastic.replica_accelerators: required without"),
        ({"elastic": {"replica_accelerators": 9}}, "elastic.replica_accelerators: got 9"),
        ({"days": 3, "work_days": 3}, "goes without work_days"),
        ({"days": 3650, "runs": 100000, "causes": {"all": {"part": "job", "FIT": 1}}}, "runs: got 100000; of a window"),
        (
            {"days": 3650, "runs": 100, "causes": {"all": {"part": "accelerator", "mtbf_h": 1}}},
            "runs: 7.01e\\+07 failures in 100 runs",
        ),
    ],
)
def test_bad_input_is_told(keys, message):
    with pytest.raises(InputError, match=message):
        asked(**keys)


def test_faults_need_a_step():
    with pytest.raises(InputError, match="faults slow a step"):
        asked(extra={"faults": ["nic/0"]})


def test_a_job_that_never_ends_is_told():
    with pytest.raises(InfeasibleError, match=r"never ends: the job stands 1\.2e\+04 s for a checkpoint.*1\.08e\+04 s"):
        asked(checkpoint={"write_s": 12000})
    with pytest.raises(InfeasibleError, match="never ends"):
        asked(restart_s=200000)
    slow = asked(checkpoint={"write_s": 9000, "interval_s": 45000}, work_days=10, restart_s=0, runs=20)
    assert slow.metrics["finished_fraction"] < 1
    assert any("do not end within 32 times the work" in note for note in slow.warnings)


# names of faults


def test_a_share_of_parts_is_down():
    from cmsim.topology import drawn, paths

    system = load_system("cloudmatrix384", accelerators=16)
    some = paths(system, faults=[drawn("module/*/*/*", 0.25, 3)]).capacity_Bps
    assert (some == 0).sum() == 2 * 2 * 7 * 16 // 4  # there and back
    for seed, same in ((3, True), (4, False)):
        assert np.array_equal(paths(system, faults=[drawn("module/*/*/*", 0.25, seed)]).capacity_Bps, some) == same
    row = paths(system, faults={"module/1/*/*": 0.5}).capacity_Bps
    each = {f"module/1/{plane}/{chip}": 0.5 for plane in range(7) for chip in range(16)}
    assert np.array_equal(row, paths(system, faults=each).capacity_Bps)
    with pytest.raises(InputError, match=r"has no part 'module/9/0/0'\. Did you mean 'module/1/0/0'"):
        paths(system, faults=["module/9/*/*"])
    with pytest.raises(InputError, match=r"has no part 'modul/\*/\*/\*'. Did you mean 'module/NODE"):
        paths(system, faults=["modul/*/*/*"])
    with pytest.raises(InputError, match="share: goes with a part that is many"):
        cmsim.load_scenario({"systems": ["hgx_h100"], "faults": [{"part": "nic/0", "share": 0.5}], "workload": JOB})
