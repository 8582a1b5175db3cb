"""Does a collective played message by message take what formulas, textbooks and a shared network say?"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import simpy

from cmsim.collectives import ALGORITHMS, candidates, time_s
from cmsim.engine.calls import link
from cmsim.errors import InfeasibleError, InputError
from cmsim.hardware import System, load_system
from cmsim.messages import Messages, Software, all_to_all_v, collective_time, plan, rounds
from cmsim.messages.collective import software
from cmsim.messages.messages import _QUICK, _from_schedule
from cmsim.messages.rounds import solve
from cmsim.messages.schedule import LogGP, Op, programs, replay
from cmsim.network import SHARE_ONE, Demand, Fluid
from cmsim.topology import fabric, paths
from cmsim.units import PS_PER_S

US = 1e-6
IDEAL = Software()
#: nothing but bytes
BYTES = Software(wire=False)


def clos(**kwargs: Any) -> System:
    return load_system("cloudmatrix384", **{"rank": "package", **kwargs})


def crossbar(ranks: int, **kwargs: Any) -> System:
    """One switch chip that nothing blocks; 100 GB/s and 1 us to every rank."""
    power = {"chip_static_W": 0, "chip_dynamic_W": 0}
    switch = {"wiring": "switch", "switches": 1, "links_per_accelerator": 1, "link_GBps": 100.0, "domain_us": 1.0}
    switch |= {"switch_us": 0.2, "in_network_reduction": True, "power": power}
    return load_system("hgx_h100", set={"accelerators": ranks, "node.accelerators": 1, "scale_up": switch}, **kwargs)


# --- rounds of algorithms -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", _QUICK, ids="-".join)
@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8, 12])
def test_patterns_are_those_of_the_schedule(key, ranks):
    collective, name = key
    (algorithm,) = (one for one in candidates(collective) if one.name == name)

    def flat(messages: list[Messages]) -> list[list[tuple[int, int, float]]]:
        out = []
        for one in messages:
            size = np.broadcast_to(one.size_B, one.src.shape).tolist()
            out += [sorted(zip(one.src.tolist(), one.dst.tolist(), size, strict=True))] * one.times
        return out

    quick, slow = flat(rounds(algorithm, ranks, 1000.0)), flat(_from_schedule(algorithm, ranks, 1000.0))
    assert [[line[:2] for line in one] for one in quick] == [[line[:2] for line in one] for one in slow]
    assert [line[2] for one in quick for line in one] == pytest.approx([line[2] for one in slow for line in one])


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda one: f"{one.collective}-{one.name}")
@pytest.mark.parametrize("ranks", [2, 3, 7, 8, 16])
def test_flow_is_the_formula_where_nothing_contends(algorithm, ranks):
    if not np.all(algorithm.applies(ranks)) or (algorithm.collective == "send_recv" and ranks > 2):
        pytest.skip("not defined")
    library = Software(step_s=2e-6, gamma_s_per_B=1e-12)
    got = collective_time(crossbar(ranks), algorithm.collective, algorithm=algorithm.name, size_B=1e6, library=library)
    formula = float(time_s(algorithm, ranks, size_B=1e6, alpha_s=3e-6, bandwidth_Bps=100e9, gamma_s_per_B=1e-12))
    if algorithm.name == "expert":
        # its coefficient of alpha is fitted, not a count of rounds
        formula += (1 - algorithm.steps(ranks)) * 3e-6
    assert got.time_s == pytest.approx(formula, rel=1e-7)
    assert got.ratio >= 1 - 1e-9


def test_one_rank_and_no_bytes():
    assert collective_time(crossbar(8), "all_reduce", algorithm="ring", size_B=1e6, ranks=1).time_s == 0.0
    got = collective_time(crossbar(8), "all_reduce", algorithm="ring", size_B=0.0, library=IDEAL)
    assert got.time_s == pytest.approx(14e-6)
    barrier = collective_time(crossbar(8), "barrier", algorithm="dissemination", size_B=0.0, library=IDEAL)
    assert barrier.time_s == pytest.approx(3e-6)
    assert all_to_all_v(crossbar(8), np.zeros((8, 8))).time_s == 0.0


# --- textbook rates, through routes ---------------------------------------------------------------------------


def rates(messages: list[tuple[int, int]]) -> list[float]:
    """Max-min rates of equal messages on the crossbar, as shares of a port."""
    routes = paths(crossbar(8))
    src, dst = (np.array(column, np.int32) for column in zip(*messages, strict=True))
    (one,) = plan(
        [Messages(src, dst, np.array([1e6]))], routes, ranks=np.arange(8), software=IDEAL, together=False
    ).distinct
    return (solve(one.classes, IDEAL).rate_Bps / 100e9).tolist()


def test_victim_of_an_incast_keeps_two_thirds():
    """N29"""
    assert rates([(1, 0), (2, 0), (3, 0), (3, 4)]) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3])


def test_parking_lot():
    """N01 with ports for links: A leaves rank 0 for rank 1; B leaves rank 0; C enters rank 1."""
    assert rates([(0, 1), (0, 2), (3, 1), (4, 1)]) == pytest.approx([1 / 3, 2 / 3, 1 / 3, 1 / 3])


def test_incast_is_work_conserving():
    """N25: 32 senders, one receiver."""
    got = collective_time(crossbar(40), "gather", algorithm="direct", size_B=33e6, ranks=33, library=BYTES)
    assert got.time_s == pytest.approx(32 * 1e6 / 100e9)


def test_uniform_all_to_all():
    """N28: every pair gets B / (p - 1), and the whole takes f S / B."""
    system = clos()
    got = collective_time(system, "all_to_all", algorithm="direct", size_B=1e9, library=BYTES)
    assert got.time_s == pytest.approx(383 / 384 * 1e9 / 392e9, rel=1e-9)
    src, dst = np.divmod(np.arange(384 * 384), 384)
    apart = src != dst
    one = Messages(src[apart].astype(np.int32), dst[apart].astype(np.int32), np.array([1e6]))
    laid = plan([one], paths(system), ranks=np.arange(384), software=BYTES)
    assert solve(laid.distinct[0].classes, BYTES).rate_Bps.min() == pytest.approx(1.02349869e9, rel=1e-6)


def test_nvlink_rack():
    """N14"""
    system = load_system("gb200_nvl72")
    got = collective_time(system, "all_to_all", algorithm="direct", size_B=72e6, library=BYTES)
    assert got.time_s == pytest.approx(78.8888889 * US, rel=1e-6)


def test_oversubscribed_leaves():
    """N27: eight leaves of 32 ranks, twice oversubscribed: what leaves a leaf sets the pace."""
    alone = {"accelerators": 1, "node.accelerators": 1}
    system = load_system(
        "hgx_h100", domains=256, set={**alone, "scale_out.switch_ports": 48, "scale_out.oversubscription": 2.0}
    )
    got = collective_time(system, "all_to_all", algorithm="direct", size_B=256e6, library=BYTES)
    assert got.time_s == pytest.approx(8960 * US, rel=1e-6)
    assert got.busiest[0].name.startswith("spine.")
    assert got.busiest[0].utilisation == pytest.approx(1.0)
    assert got.bound_s.bisection_s == pytest.approx(8960 * US, rel=1e-6)


# --- faults ---------------------------------------------------------------------------------------------------


def test_one_plane_of_seven_down_at_one_accelerator():
    """N12 and R14: one slow rank gates the ring, by 7/6."""
    system = clos()
    whole, broken = (
        collective_time(system, "all_reduce", algorithm="ring", size_B=1e9, library=BYTES, faults=faults)
        for faults in ((), ["accelerator/100/plane/3"])
    )
    assert broken.time_s / whole.time_s == pytest.approx(7 / 6, rel=1e-6)
    assert broken.time_s == pytest.approx(5936.87996 * US, rel=1e-6)
    # the sixfold bundle of its own port, and that of the neighbour that sends to it
    assert {busy.name.partition(" [")[0] for busy in broken.busiest[:2]} == {"port.out rank 99", "port.in rank 100"}
    assert [busy.instances for busy in broken.busiest[:2]] == [2, 2]


@pytest.mark.parametrize("routing", ["sprayed", "hashed"])
@pytest.mark.parametrize("part", ["module/2/3/4", "l2/0/3/4", "l1/2/3", "accelerator/17/plane/3"])
def test_one_link_moves_the_result(part, routing):
    """Nothing stands for the flows: with one link slower, the result moves, by no more than the link is worth."""
    system = clos(accelerators=48)
    slow = [
        collective_time(
            system, "all_to_all", algorithm="direct", size_B=1e9, library=IDEAL, routing=routing, faults={part: factor}
        ).time_s
        for factor in (1.0, 0.5, 0.05)
    ]
    if routing == "sprayed" and part.startswith(("module", "l2")):
        # uplinks of these few nodes have room; that of the node is not the narrowest place
        assert slow[0] <= slow[1] <= slow[2]
    elif routing == "sprayed":
        assert slow[0] < slow[1] < slow[2]
    else:
        # a collision elsewhere may be slower than half of this link
        assert slow[0] <= slow[1] < slow[2]


@pytest.mark.slow  # two plays of 384 ranks, link by link; a case of tests/regression has such a module
def test_a_module_moves_the_result_where_uplinks_are_full():
    system = clos(rank="package", accelerators=384)
    whole, broken = (
        collective_time(system, "all_to_all", algorithm="pairwise", size_B=1e9, library=IDEAL, faults=faults).time_s
        for faults in ((), ["module/2/3/4"])
    )
    # in most rounds all of a node's bytes leave it: 111 paths carry what 112 did
    assert 1.001 < broken / whole < 112 / 111 * 1.01


def test_what_is_down_for_everybody_costs_its_share():
    system = clos()
    whole, broken = (
        collective_time(system, "all_to_all", algorithm="direct", size_B=1e9, library=BYTES, faults=faults).time_s
        for faults in ((), {f"rank/{rank}/plane/0": 0.0 for rank in range(384)})
    )
    assert broken / whole == pytest.approx(7 / 6, rel=1e-6)


def test_unreachable_is_an_error():
    faults = [f"accelerator/3/plane/{plane}" for plane in range(7)]
    with pytest.raises(InfeasibleError, match="no path is left from rank 0 to rank 3"):
        collective_time(clos(), "all_to_all", algorithm="direct", size_B=1e9, faults=faults)


# --- merging --------------------------------------------------------------------------------------------------

FAULTS = {"accelerator/3/plane/2": 0.0, "module/4/1/3": 0.0, "l2/0/3/3": 0.0, "module/1/3/4": 0.3, "l1/2/6": 0.0}


@pytest.mark.parametrize("faults", [{}, FAULTS], ids=["whole", "broken"])
@pytest.mark.parametrize(
    ("collective", "name"),
    [("all_to_all", "direct"), ("all_reduce", "nhr"), ("broadcast", "ring"), ("all_to_all", "bruck")],
)
def test_merged_is_every_message_by_itself(collective, name, faults):
    merged, apart = (
        collective_time(
            clos(accelerators=48),
            collective,
            algorithm=name,
            size_B=1e8,
            library=IDEAL,
            faults=faults,
            together=together,
        )
        for together in (True, False)
    )
    assert merged.time_s == apart.time_s
    assert max(one.classes for one in merged.rounds) < max(one.messages for one in apart.rounds)
    assert [busy.utilisation for busy in merged.busiest] == pytest.approx([busy.utilisation for busy in apart.busiest])


def test_classes_of_an_all_to_all():
    """Within the node and beyond it: two classes of 147,072 messages."""
    got = collective_time(clos(), "all_to_all", algorithm="direct", size_B=1e9)
    assert [(one.messages, one.classes, one.times) for one in got.rounds] == [(384 * 383, 2, 1)]
    ring = collective_time(clos(), "all_reduce", algorithm="ring", size_B=1e9)
    assert [(one.messages, one.classes, one.times) for one in ring.rounds] == [(384, 2, 766)]


# --- unequal blocks -------------------------------------------------------------------------------------------


def test_skewed_all_to_all_takes_its_largest_row_or_column():
    matrix = np.random.default_rng(3).gamma(0.5, 1e6, (32, 32))
    got = all_to_all_v(crossbar(32), matrix, library=BYTES)
    np.fill_diagonal(matrix, 0.0)
    busiest_B = max(matrix.sum(axis=0).max(), matrix.sum(axis=1).max())
    assert got.time_s == pytest.approx(busiest_B / 100e9, rel=1e-6)
    assert got.ratio == pytest.approx(1.0, rel=1e-6)
    assert [one.classes for one in got.rounds] == [32 * 31]


def test_equal_blocks_are_the_all_to_all():
    matrix = np.full((48, 48), 1e6)
    one = all_to_all_v(clos(accelerators=48), matrix)
    other = collective_time(clos(accelerators=48), "all_to_all", algorithm="direct", size_B=48e6)
    assert one.time_s == pytest.approx(other.time_s, rel=1e-12)
    assert one.rounds[0].classes == 2
    assert one.bound_s.time_s == pytest.approx(other.bound_s.time_s)


def test_bad_matrices():
    for matrix, message in (
        (np.ones((3, 4)), "a square of bytes"),
        ([[0, -1.0], [1, 0]], "from rank 0 to 1: -1.0"),
        ([[0, np.nan], [1, 0]], "from rank 0 to 1: nan"),
    ):
        with pytest.raises(InputError, match=message):
            all_to_all_v(crossbar(8), matrix)
    with pytest.raises(InputError, match="4 rows, the group 3 ranks"):
        all_to_all_v(crossbar(8), np.ones((4, 4)), ranks=[1, 2, 3])


# --- latency, gaps, bounds, groups ----------------------------------------------------------------------------


def test_latency_is_that_of_the_farthest_message():
    system = clos()
    near, far = (
        collective_time(system, "all_to_all", algorithm="direct", size_B=8.0, ranks=ranks, library=IDEAL).time_s
        for ranks in (8, 16)
    )
    assert near == pytest.approx(1.3e-6, rel=1e-3)
    assert far == pytest.approx(2.1e-6, rel=1e-3)


def test_gaps_between_messages_are_loggp_s():
    """C47: 383 sends of 7,168 B; and small ones, where the gap rules."""
    system = crossbar(384)
    for size_B, gap_s in ((7168.0, 0.0), (8.0, 50e-9)):
        library = Software(overhead_s=0.3e-6 if gap_s else 0.0, gap_s=gap_s)
        got = collective_time(system, "all_to_all", algorithm="direct", size_B=384 * size_B, library=library).time_s
        G = 1 / 100e9
        # T = o + (m - 1) max(g, o, k G) + (k - 1) G + L + o
        each_s = max(gap_s, library.overhead_s, size_B * G)
        expected = 2 * library.overhead_s + 1e-6 + 382 * each_s + (size_B - 1) * G
        assert got == pytest.approx(float(expected) + G, rel=1e-9)


def test_a_longer_way_may_end_last():
    """Two messages of a rank: the near one carries more bytes and sets the pace, the far one has the longer latency."""
    system = clos(accelerators=16)
    matrix = np.zeros((16, 16))
    matrix[1, 0], matrix[2, 0], matrix[3, 12] = 1e5, 1e5, 2e5 - 1e3
    got = all_to_all_v(system, matrix, library=IDEAL)
    assert got.time_s == pytest.approx(2.1e-6 + (2e5 - 1e3) / 392e9, rel=1e-6)


def test_software_is_what_the_engine_prices():
    system = load_system("hgx_h100")
    library = software(system, "all_reduce", ranks=8)
    tuning = system.stack.collectives
    got = collective_time(system, "all_reduce", algorithm="two_shot", size_B=1e9)
    port = 450e9 * tuning.scale_up_efficiency
    alpha = system.spec.scale_up.domain_us * US + tuning.step_us * US
    assert got.time_s == pytest.approx(tuning.base_us * US + 2 * (alpha + 7 / 8 * 1e9 / port), rel=1e-9)
    assert library.scale_out == tuning.scale_out_efficiency
    dispatch = software(system, "dispatch", ranks=8)
    assert not dispatch.wire
    assert dispatch.base_s == pytest.approx(
        (system.stack.dispatch.base_us + 3 * system.stack.dispatch.doubling_us) * US
    )


@pytest.mark.parametrize("ranks", [6, 8, 20])
@pytest.mark.parametrize("collective", ["all_reduce", "dispatch", "combine"])
def test_levels_and_links_pay_the_same_software(collective, ranks):
    """A call whose bytes take no time: base, steps of fused kernels, shares of the port."""
    system = load_system("mi300x_8")
    tuning = {"dispatch": system.stack.dispatch, "combine": system.stack.combine}.get(collective)
    priced = link(system, fabric(system), collective, np.array([ranks]))
    played = software(system, collective, ranks=ranks)
    # what follows the doublings of a group on levels is in the call on links, where rounds are those of the messages
    doublings = 0.0 if tuning is None else np.log2(ranks)
    assert played.base_s == pytest.approx(priced.base_s + doublings * priced.step_s, rel=1e-12)
    assert played.step_s == (priced.step_s if tuning is None else 0.0)
    assert (played.scale_up, played.scale_out) == (priced.port_efficiency, priced.nic_efficiency)
    assert played.wire == (priced.domain_s > 0)
    assert tuning is None or tuning.doubling_us > 0


def test_groups():
    system = clos()
    spread = collective_time(system, "all_reduce", algorithm="two_shot", size_B=1e9, ranks=range(0, 384, 8))
    assert spread.ranks == 48
    for ranks, message in (
        ([0, 384], "ranks 0 to 383; got 384"),
        ([0, 1, 0], "rank 0 stands twice"),
        ([], "at least one rank"),
    ):
        with pytest.raises(InputError, match=message):
            collective_time(system, "all_reduce", algorithm="ring", size_B=1e9, ranks=ranks)


def test_bad_algorithms_and_sizes():
    with pytest.raises(InputError, match=r"no flat algorithm 'rings' for all_reduce. Did you mean 'ring'"):
        collective_time(clos(), "all_reduce", algorithm="rings", size_B=1e9)
    with pytest.raises(InfeasibleError, match="not defined for 6 ranks"):
        collective_time(clos(), "all_gather", algorithm="halving_doubling", size_B=1e9, ranks=6)
    with pytest.raises(InfeasibleError, match="needs switches that add"):
        collective_time(clos(), "all_reduce", algorithm="in_network", size_B=1e9)
    for size_B in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="finite number of bytes"):
            collective_time(clos(), "all_reduce", algorithm="ring", size_B=size_B)


# --- the seam to the shared network ---------------------------------------------------------------------------


def played_s(laid: Any) -> float:
    """A plan round by round on a fluid network of single resources."""
    env = simpy.Environment(initial_time=0)
    network = Fluid(env, laid.routes.capacity_Bps.tolist())

    def run():
        for demands, times in laid.demands():
            for _ in range(times):
                yield env.all_of([network.move(demand) for demand in demands])

    env.process(run())
    env.run()
    return env.now / PS_PER_S


@pytest.mark.parametrize("name", ["ring", "nhr", "two_shot"])
def test_demands_on_a_fluid_network_take_the_same(name):
    system = load_system("hgx_h100", domains=2)
    (algorithm,) = (one for one in candidates("all_reduce") if one.name == name)
    laid = plan(rounds(algorithm, 16, 1e8), paths(system), ranks=np.arange(16), software=IDEAL)
    alone = collective_time(system, "all_reduce", algorithm=name, size_B=1e8, library=IDEAL)
    # messages of a shorter path start their bytes earlier there
    spread = 2.8e-6 * sum(one.times for one in alone.rounds)
    assert alone.time_s - spread <= played_s(laid) <= alone.time_s * (1 + 1e-6)


def test_two_groups_in_flight_share_what_both_cross():
    """Rings of two groups that interleave in the same nodes: half of each uplink, where one alone has all."""
    system = clos(accelerators=16)
    routes = paths(system)
    matrix = np.zeros((16, 16))
    for rank in range(8):
        matrix[rank, rank + 8] = 1e6
    env = simpy.Environment(initial_time=0)
    network = Fluid(env, routes.capacity_Bps.tolist())
    src = np.arange(8, dtype=np.int32)
    laid = plan([Messages(src, src + np.int32(8), np.array([1e6]))], routes, ranks=np.arange(16), software=BYTES)
    ((demands, _),) = laid.demands()
    ends = []

    def one():
        yield env.all_of([network.move(demand) for demand in demands])
        ends.append(env.now)

    env.process(one())
    env.process(one())
    env.run()
    assert ends == pytest.approx([2e6 / 392e9 * PS_PER_S] * 2, rel=1e-6)


# --- LogGP schedules ------------------------------------------------------------------------------------------

EXAMPLE = LogGP(L_ps=2_500_000, o_ps=1_500_000, g_ps=1_000_000, G_ps_per_B=6_000)


def test_published_binomial_reduce():
    """C45: LogGOPSim's README, eight hosts, 1 KiB: host 0 ends at 34,914 ns, on private wires and on a network."""
    schedule = programs("reduce", algorithm="binomial", ranks=8, size_B=1024)
    assert replay(schedule, EXAMPLE)[0] == 34_914_000

    def demand(src: int, dst: int, size_B: int) -> Demand:
        return Demand(float(size_B - 1), EXAMPLE.L_ps, (src, 8 + dst), (SHARE_ONE, SHARE_ONE))

    ends = replay(schedule, EXAMPLE, network=lambda env: Fluid(env, [1e12 / EXAMPLE.G_ps_per_B] * 16), demand=demand)
    assert ends[0] == 34_914_000
    assert ends == replay(schedule, EXAMPLE)


def test_sends_wait_for_the_gap_and_receives_for_the_processor():
    sends = [Op("send", 1, 1, tag) for tag in range(3)]
    receives = [Op("calc", 20_000_000), *(Op("recv", 1, 0, tag) for tag in range(3))]
    model = LogGP(L_ps=2_000_000, o_ps=500_000, g_ps=1_000_000, G_ps_per_B=1)
    assert replay([sends, receives[1:]], model)[1] == 500_000 + 2 * 1_000_000 + 2_000_000 + 500_000
    assert replay([sends, receives], model) == [1_500_000, 21_500_000]


def test_schedules_that_cannot_end():
    with pytest.raises(InfeasibleError, match=r"never sent: \[1\]"):
        replay([[], [Op("recv", 1, 0)]], EXAMPLE)
    with pytest.raises(InputError, match="rank 0 names rank 7"):
        replay([[Op("send", 1, 7)]], EXAMPLE)
    with pytest.raises(InputError, match="below 0"):
        replay([[Op("calc", -1)]], EXAMPLE)
    with pytest.raises(InputError, match="switch"):
        programs("all_reduce", algorithm="in_network", ranks=8, size_B=1024)
    with pytest.raises(InputError, match="no flat algorithm"):
        programs("reduce", algorithm="tree", ranks=8, size_B=1024)
