"""Are programs played in order, and do ranks meet, send and wait as they should?"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cmsim.engine import Options, Perturbation, plan, play, record
from cmsim.errors import FailedError, InfeasibleError, InputError
from cmsim.hardware import load_system
from cmsim.workload.ops import ProgramBuilder, assemble
from cmsim.workload.schedules import OneForwardOneBackward

US = 1_000_000  # in ps
SYSTEM = "gb200_nvl72"


def job(*builders, groups=None, program=None, options=None):
    """A plan: one rank per program unless ``program`` says more."""
    program = range(len(builders)) if program is None else program
    groups = {name: np.asarray(column) for name, column in (groups or {}).items()}
    programs = assemble(builders, program=np.asarray(list(program)), groups=groups)
    return plan(programs, load_system(SYSTEM), options or Options())


def run(*builders, network="ideal", **changes):
    """(plan, timeline) with start, end and wait of every row, by rank class."""
    made = job(*builders, **changes)
    return made, play(made, network)


def work(build, name, us, *, stream="main", after=()):
    return build.host(name, stream=stream, recorded_s=us * 1e-6, after=after)


def meet(build, name="sum", *, stream="comm", size_B=1e6, slot="all", collective="all_reduce", after=()):
    return build.collective(name, stream=stream, collective=collective, size_B=size_B, slot=slot, after=after)


def call_ps(made, rank_class, row):
    """Time of a communication row with nobody else on the network."""
    return round(made.calls[made.call[rank_class][row]].ideal_s * 1e12)


# one rank


def test_a_stream_runs_in_order_and_streams_side_by_side():
    build = ProgramBuilder()
    for us in (3, 1, 2):
        work(build, "a", us)
    work(build, "b", 5, stream="other")
    _, line = run(build)
    assert line.start_ps[0].tolist() == [0, 3 * US, 4 * US, 0]
    assert line.end_ps[0].tolist() == [3 * US, 4 * US, 6 * US, 5 * US]
    assert line.makespan_ps == 6 * US


def test_an_op_waits_for_all_it_depends_on():
    build = ProgramBuilder()
    short, long = work(build, "short", 1), work(build, "long", 7, stream="other")
    work(build, "then", 2, stream="third", after=[short, long])
    _, line = run(build)
    assert line.start_ps[0].tolist() == [0, 0, 7 * US]
    assert line.makespan_ps == 9 * US


def test_a_dependency_may_point_forward_in_the_program():
    """Rows of another stream are no order: a row may wait for a later one there."""
    build = ProgramBuilder()
    work(build, "waits", 1, after=[1])
    work(build, "goes first", 4, stream="other")
    _, line = run(build)
    assert line.start_ps[0].tolist() == [4 * US, 0]


def test_an_op_without_length_takes_none():
    build = ProgramBuilder()
    first = work(build, "nothing", 0)
    work(build, "next", 1, stream="other", after=[first])
    _, line = run(build)
    assert line.start_ps[0].tolist() == [0, 0] and line.makespan_ps == US


def test_a_rank_by_itself_needs_nobody():
    build = ProgramBuilder()
    meet(build, collective="all_reduce")
    made, line = run(build, groups={"all": [0]})
    assert made.calls[0].algorithm == "none"
    assert line.makespan_ps == 0


# collectives


def test_the_last_to_come_starts_the_collective():
    early, late = ProgramBuilder(), ProgramBuilder()
    for build, us in ((early, 2), (late, 9)):
        meet(build, after=[work(build, "before", us)])
    made, line = run(early, late, groups={"all": [0, 0]})
    took = line.makespan_ps - 9 * US
    assert abs(took - call_ps(made, 0, 1)) <= 1
    assert [start[1] for start in line.start_ps] == [2 * US, 9 * US]  # when each arrives
    assert [wait[1] for wait in line.wait_ps] == [7 * US, 0]
    assert [end[1] for end in line.end_ps] == [line.makespan_ps] * 2


def test_every_call_meets_anew():
    fast, slow = ProgramBuilder(), ProgramBuilder()
    for build, us in ((fast, 1), (slow, 4)):
        for _ in range(3):
            work(build, "step", us, stream="comm")
            meet(build)
    _, line = run(fast, slow, groups={"all": [0, 0]})
    assert line.wait_ps[0][[1, 3, 5]].tolist() == [3 * US] * 3
    assert line.wait_ps[1].max() == 0


def test_calls_match_in_program_order_whatever_stream_comes_by_first():
    """Rank 0's first stream is early, rank 1's late: its second call waits its turn with rank 0's second."""

    def build(us):
        made = ProgramBuilder()
        meet(made, "first", after=[work(made, "x", us, stream="one")])
        meet(made, "second", stream="comm.1", collective="all_gather", after=[work(made, "y", 3, stream="two")])
        return made

    _, line = run(build(1), build(5), groups={"all": [0, 0]})
    assert [start.tolist() for start in line.start_ps] == [[0, US, 0, 3 * US], [0, 5 * US, 0, 3 * US]]
    assert [wait.tolist() for wait in line.wait_ps] == [[0, 4 * US, 0, 0], [0] * 4]


def test_ranks_that_call_different_things_are_told():
    one, two = ProgramBuilder(), ProgramBuilder()
    meet(one)
    meet(two, collective="all_gather")
    with pytest.raises(InputError, match=r"disagree: rank 1 calls all_gather of 1e\+06 B .* all_reduce of 1e\+06 B"):
        run(one, two, groups={"all": [0, 0]})


def test_ranks_that_bring_different_sizes_are_told():
    one, two = ProgramBuilder(), ProgramBuilder()
    meet(one)
    meet(two, size_B=2e6)
    with pytest.raises(InputError, match="disagree"):
        run(one, two, groups={"all": [0, 0]})


def test_a_slot_without_a_group_is_told():
    build = ProgramBuilder()
    meet(build, "tp sum", slot="tp")
    with pytest.raises(InputError, match="op 'tp sum' uses slot 'tp'"):
        run(build, groups={"tp": [-1]})


# messages


def pair(sender, receiver, **changes):
    return run(sender, receiver, groups={"to": [0, -1], "from": [-1, 0]}, **changes)


def test_a_send_does_not_wait_for_the_receiver():
    sender, receiver = ProgramBuilder(), ProgramBuilder()
    sender.send("send", stream="net", size_B=1e6, slot="to")
    work(sender, "after", 1, stream="net")
    busy = work(receiver, "busy", 500)
    receiver.recv("recv", stream="net", size_B=1e6, slot="from", after=[busy])
    made, line = pair(sender, receiver)
    arrived = int(line.end_ps[0][0])
    assert abs(arrived - call_ps(made, 0, 0)) <= 1 and arrived < 500 * US
    assert line.start_ps[0][1] == arrived
    # it has long been there: the receive takes no time
    assert line.start_ps[1][1] == line.end_ps[1][1] == 500 * US


def test_a_receive_waits_for_the_message():
    sender, receiver = ProgramBuilder(), ProgramBuilder()
    sender.send("send", stream="net", size_B=1e6, slot="to", after=[work(sender, "busy", 40)])
    receiver.recv("recv", stream="net", size_B=1e6, slot="from")
    _, line = pair(sender, receiver)
    assert line.start_ps[1][0] == 0
    assert line.end_ps[1][0] == line.end_ps[0][1] > 40 * US


def test_the_nth_receive_is_of_the_nth_send():
    sender, receiver = ProgramBuilder(), ProgramBuilder()
    for us in (10, 20, 30):
        work(sender, "make", us, stream="net")
        sender.send("send", stream="net", size_B=1.0, slot="to")
    # three receives on streams of their own, the last listed first in time
    for stream in ("first", "second", "third"):
        receiver.recv("recv", stream=stream, size_B=1.0, slot="from")
    _, line = pair(sender, receiver)
    assert line.end_ps[1].tolist() == line.end_ps[0][[1, 3, 5]].tolist()
    assert (np.diff(line.end_ps[1]) > 0).all()


def test_a_ring_of_equal_ranks_sends_and_receives():
    """Everybody sends to the next: one class, which is both ends of its channel."""
    build = ProgramBuilder()
    sent = build.send("send", stream="out", size_B=1e6, slot="to")
    got = build.recv("recv", stream="in", size_B=1e6, slot="from")
    work(build, "use", 3, after=[sent, got])
    ranks = np.arange(4)
    groups = {"to": ranks, "from": (ranks - 1) % 4}
    made, line = run(build, groups=groups, program=[0] * 4, network="fluid")
    assert made.classes == 1
    assert line.end_ps[0][0] == line.end_ps[0][1] == line.start_ps[0][2]
    assert line.makespan_ps == line.end_ps[0][0] + 3 * US


# what can never end


def test_a_member_that_never_comes_is_named():
    one, two = ProgramBuilder(), ProgramBuilder()
    meet(one, "tp sum")
    meet(one, "tp sum of layer 2")
    meet(two, "tp sum")
    with pytest.raises(FailedError, match=r"rank 0 waits in 'tp sum of layer 2' \(all_reduce, 1e\+06 B\)"):
        run(one, two, groups={"all": [0, 0]})


def test_a_message_that_is_never_sent_is_told():
    sender, receiver = ProgramBuilder(), ProgramBuilder()
    work(sender, "nothing to say", 1)
    receiver.recv("recv", stream="net", size_B=1e6, slot="from")
    with pytest.raises(FailedError, match="rank 1 waits in 'recv' for a message that is never sent"):
        pair(sender, receiver)


def test_ops_that_wait_in_a_circle_are_told():
    build = ProgramBuilder()
    work(build, "a", 1, after=[1])
    work(build, "b", 1, stream="other", after=[0])
    with pytest.raises(FailedError, match="circle"):
        run(build)


def test_calls_crossed_between_groups_lock_up():
    """Rank 0 meets x then y, rank 1 y then x, on one stream each: NCCL hangs here, and so do we, with names."""
    one, two = ProgramBuilder(), ProgramBuilder()
    for build, order in ((one, "xy"), (two, "yx")):
        for slot in order:
            meet(build, f"sum over {slot}", slot=slot)
    with pytest.raises(FailedError, match=r"rank 0 waits in 'sum over x'.*rank 1 waits in 'sum over y'"):
        run(one, two, groups={"x": [0, 0], "y": [1, 1]})


def test_an_op_that_waits_for_its_own_future_is_told():
    build = ProgramBuilder()
    work(build, "early", 1, after=[1])
    work(build, "late", 1)
    with pytest.raises(InputError, match="op 'early' waits for a later op of its own stream 'main'"):
        run(build)


def test_a_dependency_outside_the_program_is_told():
    build = ProgramBuilder()
    work(build, "a", 1, after=[7])
    with pytest.raises(InputError, match="outside its program"):
        run(build)


# perturbation


def test_a_perturbed_rank_is_slower_by_its_factor():
    build = ProgramBuilder()
    work(build, "step", 10)
    options = Options(perturb={2: Perturbation(compute=1.5)})
    made, line = run(build, program=[0] * 4, options=options)
    assert made.folding.rank_class.tolist() == [0, 0, 1, 0]
    assert [end[0] for end in line.end_ps] == [10 * US, 15 * US]


@pytest.mark.parametrize("rank", [4, 1000, -1])
def test_a_rank_that_is_not_there_cannot_be_perturbed(rank):
    build = ProgramBuilder()
    work(build, "step", 10)
    with pytest.raises(InputError, match=rf"no rank {rank}: the workload has ranks 0 to 3"):
        run(build, program=[0] * 4, options=Options(perturb={rank: Perturbation(compute=2.0)}))


def test_more_ranks_than_the_system_has_are_told():
    build = ProgramBuilder()
    work(build, "step", 10)
    with pytest.raises(InfeasibleError, match="needs 73 ranks; gb200_nvl72 has 72"):
        run(build, program=[0] * 73)


# progress


@pytest.mark.parametrize("calls", [1, 5000])
def test_progress_grows_to_one(calls):
    one, two = ProgramBuilder(), ProgramBuilder()
    for build in (one, two):
        for _ in range(calls):
            meet(build, size_B=1.0)
    said: list[float] = []
    made = job(one, two, groups={"all": [0, 0]})
    play(made, progress=said.append)
    assert said == sorted(said)
    assert said[-1] == 1.0
    assert all(0 <= share <= 1 for share in said)
    assert len(said) > (calls > 1)


# a pipeline


@pytest.mark.parametrize("network", ["ideal", "fluid"])
def test_t08_makespan_of_1f1b(network):
    """(m + p - 1)(F + B) = 81 for p = 8, m = 20, F = 1, B = 2, when messages take no time (they take 1e-9 of it)."""
    p, m, unit_s = 8, 20, 1000.0
    builders = []
    for stage in range(p):
        build = ProgramBuilder()

        def forward(build=build, stage=stage):
            after = [build.recv("x", stream="x in", size_B=1.0, slot="x in")] if stage else []
            row = build.host("F", stream="main", recorded_s=unit_s, after=after)
            if stage < p - 1:
                build.send("x", stream="x out", size_B=1.0, slot="x out", after=[row])

        def backward(build=build, stage=stage):
            after = [build.recv("g", stream="g in", size_B=1.0, slot="g in")] if stage < p - 1 else []
            row = build.host("B", stream="main", recorded_s=2 * unit_s, after=after)
            if stage:
                build.send("g", stream="g out", size_B=1.0, slot="g out", after=[row])

        for (one,) in OneForwardOneBackward(p, m).order(stage):
            {"F": forward, "B": backward}[one.kind]()
        builders.append(build)
    rank = np.arange(p)
    groups = {
        "x out": np.where(rank < p - 1, rank, -1),
        "x in": np.where(rank > 0, rank - 1, -1),
        "g out": np.where(rank > 0, p + rank, -1),
        "g in": np.where(rank < p - 1, p + rank + 1, -1),
    }
    _, line = run(*builders, groups=groups, network=network)
    assert line.makespan_ps / 1e12 / unit_s == pytest.approx(81, rel=1e-6)


# --- hosts that issue every op -------------------------------------------------------------------------------------


def eager(op_us, ops_us, *, fold=True, ranks=2):
    """A step of kernels of given times on an eager stack: (plan, timeline)."""
    system = load_system(
        "hgx_h100",
        accelerators=ranks,
        stack="cuda_eager",
        set={"stack.host.op_us": op_us, "stack.host.launches_per_op": 1},
    )
    build = ProgramBuilder()
    for i in range(len(ops_us)):
        build.compute(f"op {i}", stream="compute", kernel="gemm", precision="bf16", flops=1.0, bytes_B=1.0)
    programs = assemble([build], program=np.zeros(ranks, np.int64), groups={})
    made = plan(programs, system, Options(fold=fold))
    # device times as the test wants them
    held = [np.rint(np.array(ops_us) * 1e6).astype(np.int64) for _ in made.hold_ps]
    made = dataclasses.replace(made, hold_ps=held)
    return made, play(made)


@pytest.mark.parametrize(("kernel_us", "makespan_us"), [(3, 5003), (8, 8005)])
def test_k23_k24_equal_ops_take_what_the_slower_of_host_and_device_needs(kernel_us, makespan_us):
    _, line = eager(5, [kernel_us] * 1000)
    assert line.makespan_ps == makespan_us * 1_000_000


def test_a_host_that_is_ahead_hides_in_long_kernels():
    """The larger of host and device for each op would add up to 40: but the host issues while the long one runs."""
    made, line = eager(5, [1, 20, 1, 1, 1])
    assert line.start_ps[0].tolist() == [us * 1_000_000 for us in (5, 10, 30, 31, 32)]
    assert line.host_ps[0].tolist() == [us * 1_000_000 for us in (5, 4, 0, 0, 0)]
    assert line.makespan_ps == 33_000_000
    # end_i = max(issued_i, end_{i-1}) + k_i
    end, ends = 0.0, []
    for issued, kernel in zip((5, 10, 15, 20, 25), (1, 20, 1, 1, 1), strict=True):
        end = max(issued, end) + kernel
        ends.append(end)
    assert (line.end_ps[0] / 1e6).tolist() == ends
    went = record.breakdown(made, line)
    assert went.parts_s["host_s"] == pytest.approx(9e-6)
    assert went.parts_s["bubble_s"] == 0


def test_graphs_have_no_host_in_the_way():
    system = load_system("hgx_h100", accelerators=2)
    build = ProgramBuilder()
    build.compute("op", stream="compute", kernel="gemm", precision="bf16", flops=1.0, bytes_B=1.0)
    programs = assemble([build], program=np.zeros(2, np.int64), groups={})
    assert plan(programs, system).issue_ps == []
