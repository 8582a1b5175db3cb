"""Columns of ops and links, the bound and the breakdown, on plans small enough to work out by hand."""

from __future__ import annotations

import dataclasses
import itertools
import pickle

import numpy as np
import pytest

from cmsim.arrays import equal
from cmsim.collectives import COLLECTIVES, Link, Rows, wire_bound_s
from cmsim.engine.bound import memory_drawn, run_bound
from cmsim.engine.plan import Options, Perturbation, Plan, plan
from cmsim.engine.play import play
from cmsim.engine.record import LIMITERS, breakdown, links_columns, ops_columns
from cmsim.execution import played
from cmsim.hardware import load_system
from cmsim.network import Log, Segment
from cmsim.units import PS_PER_S
from cmsim.workload.ops import Least, ProgramBuilder, assemble

MESH = "gb200_nvl72"


def layered(layers: int = 3, *, size_B: float = 1e8, overlap: bool = False) -> ProgramBuilder:
    build = ProgramBuilder()
    last: list[int] = []
    for i in range(layers):
        gemm = build.compute(
            f"gemm{i}", stream="compute", kernel="gemm", precision="bf16", flops=2e12, bytes_B=1e8, after=last
        )
        build.compute(f"norm{i}", stream="compute", kernel="norm", flops=1e6, bytes_B=4e8)
        reduce = build.collective(
            f"sum{i}", stream="comm", collective="all_reduce", size_B=size_B, slot="tp", after=[gemm]
        )
        last = [] if overlap else [reduce]
    return build


def planned(builders, *, ranks=8, program=None, groups=None, options=None, system=MESH, **overrides) -> Plan:
    where = load_system(system, **overrides)
    number = np.arange(ranks)
    programs = assemble(
        builders,
        program=np.zeros(ranks, np.int64) if program is None else np.asarray(program),
        groups={"tp": number // 8} if groups is None else groups,
    )
    return plan(programs, where, options or Options())


def shifted_pair() -> Plan:
    """Rank 0 computes and sends to rank 1, which waits for it, then computes."""
    first, second = ProgramBuilder(), ProgramBuilder()
    done = first.compute("gemm", stream="compute", kernel="gemm", precision="bf16", flops=2e12, bytes_B=1e8)
    first.send("send", stream="comm", size_B=1e9, slot="to", after=[done])
    got = second.recv("recv", stream="comm", size_B=1e9, slot="from")
    second.compute("gemm", stream="compute", kernel="gemm", precision="bf16", flops=1e12, bytes_B=1e8, after=[got])
    groups = {"to": np.array([0, -1]), "from": np.array([-1, 0])}
    return planned([first, second], ranks=2, program=[0, 1], groups=groups)


def test_one_row_per_op_of_each_class_in_program_order():
    made = planned([layered()], ranks=16, options=Options(perturb={3: Perturbation(compute=1.5)}))
    ops = ops_columns(made, play(made))
    assert made.classes > 1
    assert len({len(column) for column in ops.values()}) == 1
    assert len(ops["op"]) == 9 * made.classes
    assert ops["op"][:9].tolist() == ["gemm0", "norm0", "sum0", "gemm1", "norm1", "sum1", "gemm2", "norm2", "sum2"]
    assert (np.diff(ops["rank_class"]) >= 0).all()
    assert ops["multiplicity"][::9].sum() == 16
    assert ops["start_ps"].dtype == ops["end_ps"].dtype == ops["wait_ps"].dtype == np.int64
    assert (ops["end_ps"] > ops["start_ps"]).all()


def test_text_and_numbers_of_ops():
    made = planned([layered(1)])
    ops = ops_columns(made, play(made))
    assert ops["kind"].tolist() == ["compute", "compute", "collective"]
    assert ops["stream"].tolist() == ["compute", "compute", "comm"]
    assert ops["precision"].tolist() == ["bf16", "", ""]
    assert ops["kernel"].tolist() == ["gemm", "norm", ""]
    assert ops["limit"].tolist() == ["compute", "memory", "link"]
    assert ops["algorithm"][:2].tolist() == ["", ""] and ops["algorithm"][2]
    peaks = [made.system.rank_peak_FLOPps("bf16"), made.system.rank_vector_FLOPps, 0]
    assert ops["peak_FLOPps"].tolist() == peaks
    assert ops["sent_B"][2] == made.calls[0].sent_B > 0
    assert ops["sent_B"][:2].tolist() == [0, 0]


def test_a_tiny_collective_is_limited_by_latency():
    made = planned([layered(1, size_B=8)])
    assert ops_columns(made, play(made))["limit"][2] == "latency"


def test_a_kernel_known_only_by_its_time_counts_as_compute():
    build = ProgramBuilder()
    build.compute("traced", stream="compute", kernel="generic", recorded_s=1e-3)
    made = planned([build])
    timeline = play(made)
    assert ops_columns(made, timeline)["limit"].tolist() == ["compute"]
    assert run_bound(made, timeline) == {"name": "compute", "time_s": 1e-3, "fraction": 1.0}
    assert breakdown(made, timeline).parts_s["compute_s"] == 1e-3


def test_send_and_receive():
    made = shifted_pair()
    ops = ops_columns(made, play(made))
    by_name = {name: i for i, name in enumerate(ops["kind"].tolist())}
    send, recv = by_name["send"], by_name["recv"]
    assert ops["sent_B"][[send, recv]].tolist() == [1e9, 0]
    assert ops["received_B"][[send, recv]].tolist() == [0, 1e9]
    # the receive was posted at once and waited until the send was under way
    assert ops["wait_ps"][recv] == pytest.approx(ops["start_ps"][send], rel=1e-6)


def test_a_straggler_makes_others_wait():
    made = planned([layered(1)], options=Options(perturb={3: Perturbation(compute=2.0)}))
    ops = ops_columns(made, play(made))
    gemm = ops["end_ps"][ops["op"] == "gemm0"]
    wait = ops["wait_ps"][ops["kind"] == "collective"]
    assert wait.tolist() == (gemm.max() - gemm).tolist()
    assert wait.max() > 0


@pytest.mark.parametrize("network", ["fluid", "ideal"])
def test_links_carry_what_moved(network):
    made = planned([layered()], ranks=16)
    timeline = play(made, network)
    links = links_columns(made, timeline)
    capacity = dict(zip(made.resources.name, made.resources.capacity_Bps, strict=True))
    for name in np.unique(links["resource"].astype(str)):
        mine = links["resource"] == name
        start, end = links["start_ps"][mine], links["end_ps"][mine]
        assert (start[1:] >= end[:-1]).all() and (end > start).all()
        number = made.resources.name.index(name)
        through = sum(
            s.rate_Bps * (s.end_ps - s.start_ps) / PS_PER_S * share / 2**24
            for s in timeline.segments
            for resource, share in zip(s.demand.resources, s.demand.shares, strict=True)
            if resource == number
        )
        assert links["bytes_B"][mine].sum() == pytest.approx(through, rel=1e-9)
        expected = links["bytes_B"][mine] / (end - start) * PS_PER_S / capacity[name]
        assert links["utilization"][mine] == pytest.approx(expected, rel=1e-9)
    assert links["utilization"].max() <= 1 + 1e-9
    assert links["instances"].min() >= 1


def test_shared_links_stay_under_their_capacity():
    build = ProgramBuilder()
    for i in range(4):
        build.collective(f"sum{i}", stream=f"comm{i}", collective="all_reduce", size_B=1e8 * (i + 1), slot="tp")
    made = planned([build])
    links = links_columns(made, play(made))
    # something always wants more, so each port is full from the first byte to the last: one stretch
    assert links["resource"].tolist() == ["port.out[0]", "port.in[0]"]
    assert links["utilization"].max() <= 1 + 1e-9
    assert links["utilization"].min() == pytest.approx(1)


def test_segments_that_overlap_are_summed():
    made = planned([layered(1)])
    timeline = play(made)
    (one,) = timeline.segments
    capacity = made.resources.capacity_Bps[one.demand.resources[0]]
    rate = capacity / 4 / (one.demand.shares[0] / 2**24)
    twice = Log(
        [
            Segment(one.demand, 0, 1000, rate),
            Segment(one.demand, 500, 1500, rate),
            Segment(one.demand, 2000, 3000, rate),
        ]
    )
    links = links_columns(made, dataclasses.replace(timeline, segments=twice))
    mine = links["resource"] == made.resources.name[one.demand.resources[0]]
    assert links["start_ps"][mine].tolist() == [0, 500, 1000, 2000]
    assert links["end_ps"][mine].tolist() == [500, 1000, 1500, 3000]
    assert links["utilization"][mine] == pytest.approx([0.25, 0.5, 0.25, 0.25])


def test_no_communication_no_links():
    build = ProgramBuilder()
    build.compute("gemm", stream="compute", kernel="gemm", precision="bf16", flops=1e12, bytes_B=1e8)
    made = planned([build])
    timeline = play(made)
    links = links_columns(made, timeline)
    assert all(len(column) == 0 for column in links.values())
    assert breakdown(made, timeline).exposed_comm_s == 0


def test_bound_of_compute_and_of_memory():
    build = ProgramBuilder()
    build.compute("gemm", stream="compute", kernel="gemm", precision="bf16", flops=5e12, bytes_B=1e8)
    build.compute("norm", stream="compute", kernel="norm", flops=1e6, bytes_B=1e8)
    made = planned([build])
    found = run_bound(made, play(made))
    assert found["name"] == "compute"
    # one after the other on one stream, each at the peak of its engine
    one_s, other_s = 5e12 / made.system.rank_peak_FLOPps("bf16"), 1e6 / made.system.rank_vector_FLOPps
    assert found["time_s"] == pytest.approx(one_s + other_s)
    build.compute("cache", stream="compute", kernel="norm", flops=1e6, bytes_B=1e11)
    made = planned([build])
    found = run_bound(made, play(made))
    assert found["name"] == "HBM"
    assert found["time_s"] == pytest.approx((1e8 + 1e8 + 1e11) / made.system.rank_memory_Bps)
    assert 0 < found["fraction"] <= 1


def bound_of_a(collective, size_B=1e9, **kw):
    build = ProgramBuilder()
    build.collective("one", stream="comm", collective=collective, size_B=size_B, slot="tp")
    made = planned([build], **kw)
    found = run_bound(made, play(made))
    assert 0 < found["fraction"] <= 1
    return found, made.fabric


def test_bound_of_the_port():
    found, wires = bound_of_a("all_gather")
    assert found["name"] == "port"
    assert found["time_s"] == pytest.approx(7 / 8 * 1e9 / wires.port_Bps)


def test_bound_of_domains_is_the_largest_of_their_levels():
    """What joins two racks does not hold an all-gather up: all of it must still come in by every rank's own ways."""
    racks = {"ranks": 128, "groups": {"tp": np.zeros(128, np.int64)}, "domains": 2}
    found, wires = bound_of_a("all_gather", **racks)
    assert found["name"] == "port"
    assert found["time_s"] == pytest.approx(127 / 128 * 1e9 / (wires.port_Bps + wires.nic_Bps))
    found, wires = bound_of_a("all_to_all", **racks)
    assert found["name"] == "NIC"
    assert found["time_s"] == pytest.approx(1 / 2 * 1e9 / wires.nic_Bps)


def test_bound_of_a_leaf_that_is_narrower_than_its_nics():
    """Leaves of 16 NICs with a quarter of their rate into the spines: three quarters of the bytes leave a leaf."""
    narrow = {"scale_out.oversubscription": 4.0, "scale_out.switch_ports": 20}
    boxes = {"system": "hgx_h100", "ranks": 64, "groups": {"tp": np.zeros(64, np.int64)}, "domains": 8, "set": narrow}
    found, wires = bound_of_a("all_to_all", **boxes)
    assert found["name"] == "bisection"
    assert found["time_s"] == pytest.approx(16 * 48 / 64 * 1e9 / wires.leaf_Bps)
    assert found["time_s"] > 56 / 64 * 1e9 / wires.nic_Bps  # all that leaves the box, by its own NICs


def test_bound_of_a_node_that_is_as_wide_as_its_ports():
    """On the supernode a node's way out carries what all its ports do, and holds no pair of dies up."""
    one_each = {"system": "cloudmatrix384", "ranks": 32, "groups": {"tp": np.arange(32) % 16}, "accelerators": 16}
    found, wires = bound_of_a("all_reduce", **one_each)
    assert found["name"] == "port"
    assert found["time_s"] == pytest.approx(1e9 / wires.port_Bps)


def test_bounds_of_levels_by_hand():
    """24 ranks: nodes of 4, domains of 8, leaves of 16; 1 byte, port 8, uplink 2, NIC 1, leaf 4 bytes a second."""
    rows = Rows(*(np.array([value]) for value in (COLLECTIVES.index("all_to_all"), 24.0, 24, 4, 8, 16)))
    wire = Link(
        node_s=0.0, domain_s=0.0, cluster_s=0.0, port_Bps=8.0, uplink_Bps=2.0, nic_Bps=1.0, leaf_Bps=4.0
    )  # fmt: skip
    found = wire_bound_s("all_to_all", rows, wire)
    assert found.port_s[0] == pytest.approx(23 / 24 * 24 / (8 + 1))
    assert found.nic_s[0] == pytest.approx(8 * 16 / 24 * 24 / 8)
    # out of a node by its uplink and four NICs: 4 x 20 bytes over 6; out of a leaf: 16 x 8 bytes over 4
    assert found.bisection_s[0] == pytest.approx(max(80 / 6, 128 / 4))
    reduced = wire_bound_s("all_reduce", rows, wire)
    assert (reduced.nic_s[0], reduced.bisection_s[0]) == (24 / 8, max(24 / 6, 24 / 4))


def test_the_bound_is_zero_only_if_nothing_moves():
    build = ProgramBuilder()
    build.host("launch", stream="host", recorded_s=1e-3)
    made = planned([build])
    found = run_bound(made, play(made))
    assert (found["time_s"], found["fraction"]) == (0, 0)


def in_turn_or_side_by_side(streams, least=None):
    """Two kernels of memory traffic, on one stream or on two."""
    build = ProgramBuilder()
    for stream in streams:
        build.compute("read", stream=stream, kernel="gemm", precision="bf16", flops=1e6, bytes_B=1e10, cores=0.5)
    programs = assemble([build], program=np.zeros(8, np.int64), groups={}, least=least)
    made = plan(programs, load_system(MESH), Options())
    return made, play(made)


def test_the_bound_of_a_question_is_over_all_its_ranks():
    least = Least(ranks=16, flops={"bf16": 8e15, "fp8": 8e15}, bytes_B=16e9, exchange_B=9e6)
    made, timeline = in_turn_or_side_by_side(["one"], least)
    peak = made.system.rank_peak_FLOPps
    time_s = 8e15 / (16 * peak("bf16")) + 8e15 / (16 * peak("fp8"))
    assert run_bound(made, timeline)["name"] == "compute"
    assert run_bound(made, timeline)["time_s"] == pytest.approx(time_s)
    small = dataclasses.replace(least, flops={})
    made, timeline = in_turn_or_side_by_side(["one"], small)
    found = run_bound(made, timeline)
    assert found["name"] == "HBM" and found["time_s"] == pytest.approx(1e9 / made.system.rank_memory_Bps)
    made, timeline = in_turn_or_side_by_side(["one"], dataclasses.replace(small, exchange_B=9e9))
    found = run_bound(made, timeline)
    # what two ranks must exchange takes longer than one of them alone with all the work
    assert found["name"] == "port" and found["time_s"] == pytest.approx(16e9 / made.system.rank_memory_Bps)
    made, timeline = in_turn_or_side_by_side(["one"], dataclasses.replace(small, exchange_B=9e8))
    assert run_bound(made, timeline)["time_s"] == pytest.approx(9e8 / made.fabric.port_Bps)


def test_kernels_side_by_side_that_draw_more_than_there_is_are_told():
    least = Least(ranks=8, flops={}, bytes_B=1e9)
    made, timeline = in_turn_or_side_by_side(["one", "one"], least)
    assert 0.5 < memory_drawn(made, timeline) < 1
    assert not played.beyond(run_bound(made, timeline), memory_drawn(made, timeline))
    made, timeline = in_turn_or_side_by_side(["one", "other"], least)
    assert memory_drawn(made, timeline) > 1
    (said,) = played.beyond(run_bound(made, timeline), memory_drawn(made, timeline))
    assert "draw 1." in said and "times the memory bandwidth" in said
    # without a question the ops are what is asked for, and their bound says so
    made, timeline = in_turn_or_side_by_side(["one", "other"])
    (said,) = played.beyond(run_bound(made, timeline), memory_drawn(made, timeline))
    assert said.startswith("faster than the HBM bound (1.")


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("slow", [1.0, 1.7])
def test_parts_add_up_to_the_makespan(overlap, slow):
    made = planned([layered(5, overlap=overlap)], ranks=16, options=Options(perturb={3: Perturbation(compute=slow)}))
    timeline = play(made)
    found = breakdown(made, timeline)
    assert sum(found.parts_s.values()) == pytest.approx(timeline.makespan_ps / PS_PER_S, rel=1e-12)
    assert min(found.parts_s.values()) >= 0
    assert found.parts_s[f"{found.limiter}_s"] == max(found.parts_s.values())
    assert tuple(found.parts_s) == tuple(f"{name}_s" for name in LIMITERS)


def test_parts_agree_with_a_walk_through_every_instant():
    made = planned([layered(4, overlap=True)], options=Options(perturb={3: Perturbation(compute=1.4)}))
    timeline = play(made)
    found = breakdown(made, timeline)
    ops = ops_columns(made, timeline)
    mine = ops["rank_class"] == found.rank_class
    start, end, wait = (ops[name][mine] for name in ("start_ps", "end_ps", "wait_ps"))
    kind, limit = ops["kind"][mine], ops["limit"][mine]
    edges = np.unique(np.concatenate([start, end, start + wait, [0, timeline.makespan_ps]]))
    parts = dict.fromkeys(LIMITERS, 0.0)
    for a, b in itertools.pairwise(edges.tolist()):
        on = (start <= a) & (end >= b)
        kernels = on & (kind == "compute")
        moving = on & (kind == "collective") & (start + wait <= a)
        if kernels.any():
            for name in limit[kernels]:
                parts[name] += (b - a) / kernels.sum() / PS_PER_S
        elif moving.any():
            parts["link"] += (b - a) / PS_PER_S
        elif on.any():
            parts["imbalance"] += (b - a) / PS_PER_S
        else:
            parts["bubble"] += (b - a) / PS_PER_S
    for name in ("compute", "memory", "host", "bubble", "imbalance"):
        assert found.parts_s[f"{name}_s"] == pytest.approx(parts[name], abs=1e-15)
    # the walk does not tell the fixed part of a call from the rest
    assert found.parts_s["link_s"] <= parts["link"]
    whole = found.parts_s["link_s"] + found.parts_s["latency_s"]
    assert whole == pytest.approx(parts["link"] + parts["latency"], abs=1e-15)


def test_exposed_communication_is_what_no_kernel_hides():
    made = planned([layered(1)])
    timeline = play(made)
    ops = ops_columns(made, timeline)
    norm_end = ops["end_ps"][1]
    exposed_ps = ops["end_ps"][2] - max(ops["start_ps"][2], norm_end)
    assert breakdown(made, timeline).exposed_comm_s == pytest.approx(exposed_ps / PS_PER_S)


def test_a_receive_that_waits_for_its_sender_is_a_bubble():
    made = shifted_pair()
    timeline = play(made)
    found = breakdown(made, timeline)
    # rank 0 is busier; it has nothing to do while rank 1 computes
    assert found.rank_class == 0
    ops = ops_columns(made, timeline)
    second = ops["end_ps"][ops["rank_class"] == 1].max() - ops["end_ps"][ops["kind"] == "recv"].max()
    assert found.parts_s["bubble_s"] == pytest.approx(second / PS_PER_S, rel=1e-3)
    assert found.parts_s["imbalance_s"] == 0
    assert found.exposed_comm_s == pytest.approx(made.calls[0].ideal_s, rel=1e-3)


def test_host_work_nobody_waits_for_on_the_device():
    build = ProgramBuilder()
    issued = build.host("issue", stream="host", recorded_s=1e-3)
    build.compute("gemm", stream="compute", kernel="gemm", precision="bf16", flops=2e12, bytes_B=1e8, after=[issued])
    made = planned([build])
    found = breakdown(made, play(made))
    assert found.parts_s["host_s"] == pytest.approx(1e-3)
    assert found.limiter == ("compute" if found.parts_s["compute_s"] > 1e-3 else "host")


def test_same_run_same_columns():
    made = [planned([layered()], options=Options(perturb={3: Perturbation(compute=1.5)})) for _ in range(2)]
    one, two = (ops_columns(each, play(each)) for each in made)
    assert all((one[name] == two[name]).all() for name in one)


def test_columns_of_few_values_are_held_as_numbers():
    """Of many runs words, rates and shares stand once, not in every row."""
    made = planned([layered(500)])
    ops = ops_columns(made, play(made))
    assert len(pickle.dumps(ops)) < sum(column.nbytes for column in ops.values()) / 2
    assert equal(ops, "kernel", "gemm").sum() == 500 and not equal(ops, "kernel", "copy").any()
    again = pickle.loads(pickle.dumps(ops))
    assert list(again) == list(ops) and all((again[name] == ops[name]).all() for name in ops)
