"""Do networks share fairly, and finish when arithmetic says? (ids are those of the model reference)"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from cmsim.errors import InfeasibleError
from cmsim.network import NETWORKS, SHARE_ONE, Demand, Fluid, Log, Segment, Stretches
from cmsim.network.maxmin import alone_Bps, duration_ps, max_min_Bps
from cmsim.units import PS_PER_S

GBPS = 1e9
US = 1_000_000  # in ps


def rates(capacity, crossings):
    """Max-min rates of flows, each a mapping resource -> share (1 is a whole byte of the resource per byte)."""
    flat = [(r, f, share) for f, flow in enumerate(crossings) for r, share in dict(flow).items()]
    resource, flow, share = (np.array(column) for column in zip(*flat, strict=True))
    return max_min_Bps(
        np.array(capacity, float), resource, flow, share.astype(float) * SHARE_ONE, len(crossings)
    ).tolist()


def whole(*resources):
    return dict.fromkeys(resources, 1)


def demand(size_B, *resources, latency_ps=0, shares=None):
    return Demand(size_B, latency_ps, resources, tuple(shares or [SHARE_ONE] * len(resources)))


def finish_times(network, capacity, starts, changes_ps=()):
    """When each (start in ps, demand) ends [ps], and the network's log."""
    env = simpy.Environment(initial_time=0)
    net = NETWORKS[network](env, capacity, changes_ps)
    ends = [0] * len(starts)

    def one(number, start, what):
        yield env.timeout(start)
        yield net.move(what)
        ends[number] = env.now

    for number, (start, what) in enumerate(starts):
        env.process(one(number, start, what))
    env.run()
    return ends, net.log


# rates


@pytest.mark.parametrize(
    ("check", "capacity", "crossings", "expected"),
    [
        ("N01 parking lot", [1, 2], [whole(0, 1), whole(0), whole(1)], [0.5, 0.5, 1.5]),
        ("N02 triangle", [1, 1, 1], [whole(0, 1), whole(1, 2), whole(2, 0)], [0.5] * 3),
        (
            "N04 three links",
            [3, 4, 10],
            [whole(0), whole(0), whole(0, 1), whole(1, 2), whole(2)],
            [1, 1, 1, 3, 7],
        ),
        # sender 0..2 into receiver 3, sender 2 also to receiver 4: the victim keeps what the incast leaves it
        (
            "N29 incast victim",
            [1, 1, 1, 1, 1],
            [whole(0, 3), whole(1, 3), whole(2, 3), whole(2, 4)],
            [1 / 3, 1 / 3, 1 / 3, 2 / 3],
        ),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_rates_of_textbook_networks(check, capacity, crossings, expected):
    assert rates(capacity, crossings) == pytest.approx(expected, abs=1e-9), check


def test_n03_a_weight_is_a_share():
    # weights 1, 2, 1 on a link of 10, the last flow capped at 1 by a resource of its own: 3, 6 and 1 are carried
    progress = rates([10, 1], [{0: 1}, {0: 2}, {0: 1, 1: 1}])
    assert [weight * x for weight, x in zip((1, 2, 1), progress, strict=True)] == pytest.approx([3, 6, 1], abs=1e-9)


def test_share_above_one_makes_a_flow_slower():
    assert rates([10], [{0: 4}]) == [2.5]
    assert rates([10], [{0: 4}, {0: 1}]) == [2.0, 2.0]


def test_alone_is_what_max_min_gives_one_flow():
    capacity = [7e9, 3e9, 11e9]
    shares = (SHARE_ONE // 3, SHARE_ONE, 5 * SHARE_ONE)
    alone = alone_Bps(Demand(1.0, 0, (0, 1, 2), shares), capacity)
    one = max_min_Bps(np.array(capacity), np.arange(3), np.zeros(3, np.int64), np.array(shares, float), 1)
    assert [alone] == one.tolist()
    assert alone == 11e9 / 5


def test_one_group_alone_leaves_out_the_other_groups():
    both = Demand(1.0, 0, (0, 1), (SHARE_ONE, 8 * SHARE_ONE), (SHARE_ONE, 2 * SHARE_ONE))
    capacity = [10.0, 16.0]
    assert alone_Bps(both, capacity) == 2.0
    assert alone_Bps(both, capacity, one_group=True) == 8.0


def test_a_transfer_never_ends_early():
    assert duration_ps(1.0, 3e12) == 1
    assert duration_ps(1e9, 10e9) == PS_PER_S // 10
    for size, rate in ((12345.0, 7e9), (1e9, 3.3e10), (1.0, 9.99e11)):
        assert duration_ps(size, rate) * rate / PS_PER_S >= size * (1 - 1e-12)


# in time


def test_n05_two_flows_share_one_link():
    ends, _ = finish_times("fluid", [10 * GBPS], [(0, demand(1e9, 0)), (PS_PER_S // 20, demand(1e9, 0))])
    assert [end / PS_PER_S for end in ends] == pytest.approx([0.15, 0.20], abs=1e-9)


def test_ideal_lets_them_pass_each_other():
    ends, _ = finish_times("ideal", [10 * GBPS], [(0, demand(1e9, 0)), (PS_PER_S // 20, demand(1e9, 0))])
    assert ends == [PS_PER_S // 10, 3 * PS_PER_S // 20]


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_latency_is_paid_once(network):
    for latency in (0, 1, 3 * US):
        ends, log = finish_times(network, [1e9], [(5 * US, demand(1e6, 0, latency_ps=latency))])
        assert ends == [5 * US + latency + 1000 * US]
        assert [(s.start_ps, s.end_ps) for s in log] == [(5 * US + latency, ends[0])]


def test_latency_does_not_hold_the_link():
    # the second is still on its way (latency) while the first one has the link to itself
    ends, _ = finish_times("fluid", [1e9], [(0, demand(1e6, 0)), (0, demand(1e6, 0, latency_ps=1000 * US))])
    assert ends == [1000 * US, 2000 * US]


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_nothing_to_move_costs_latency_only(network):
    nothing = [(0, demand(0.0)), (7, demand(0.0, 0)), (7, demand(0.0, 0, latency_ps=3)), (7, demand(1e3, 0))]
    ends, log = finish_times(network, [1e9], nothing)
    assert ends == [0, 7, 10, 7 + US]
    assert len(log) == 1  # of the last one


@pytest.mark.parametrize("count", [2, 3, 7])
def test_equal_demands_of_one_instant_end_together(count):
    ends, log = finish_times("fluid", [1e9], [(11, demand(1e6, 0))] * count)
    assert ends == [11 + duration_ps(1e6, 1e9 / count)] * count
    assert len(log) == count  # one stretch each: rates were solved once for the instant


def test_one_ends_where_another_starts():
    # A has the link until 1 ms; B, which starts at that very instant, never shares with it
    ends, log = finish_times("fluid", [1e9], [(0, demand(1e6, 0)), (1000 * US, demand(1e6, 0))])
    assert ends == [1000 * US, 2000 * US]
    assert {s.rate_Bps for s in log} == {1e9}


def test_rates_change_when_a_flow_ends():
    # two share 1 GB/s until the small one is through after 0.5 ms; the large one then has 0.75 MB left
    ends, log = finish_times("fluid", [1e9], [(0, demand(1e6, 0)), (0, demand(0.25e6, 0))])
    assert ends == [1250 * US, 500 * US]
    assert [(s.start_ps, s.end_ps, s.rate_Bps) for s in log if s.demand.size_B == 1e6] == [
        (0, 500 * US, 0.5e9),
        (500 * US, 1250 * US, 1e9),
    ]


def test_what_happens_elsewhere_leaves_a_flow_alone():
    # flow 0 crosses a link of its own; ten others come and go on another
    others = [(i * 37, demand(1e3 + i, 1)) for i in range(10)]
    ends, log = finish_times("fluid", [1e9, 1e9], [(0, demand(1e6, 0)), *others])
    assert ends[0] == 1000 * US
    assert len([s for s in log if s.demand.resources == (0,)]) == 1


def test_a_flow_whose_rate_stays_is_left_alone():
    # others come and go on the wide link that flow 0 crosses too, but its own narrow one holds it back
    others = [(i * 37 * US, demand(1e6 + i, 1)) for i in range(10)]
    ends, log = finish_times("fluid", [1e9, 1e12], [(0, demand(1e6, 0, 1)), *others])
    assert ends[0] == 1000 * US
    assert [(s.start_ps, s.end_ps) for s in log if s.demand.resources == (0, 1)] == [(0, 1000 * US)]


def test_one_that_follows_within_the_instant_takes_the_place():
    """Ends and starts of an instant count together: the rival never sees the link free in between."""
    env = simpy.Environment(initial_time=0)
    net = NETWORKS["fluid"](env, [1e9], ())
    rival = demand(2e6, 0)

    def one_after_the_other():
        for _ in range(4):
            yield net.move(demand(0.5e6, 0))

    net.move(rival)
    env.process(one_after_the_other())
    env.run()
    assert [(s.start_ps, s.end_ps, s.rate_Bps) for s in net.log if s.demand is rival] == [(0, 4000 * US, 0.5e9)]


def test_a_wide_shared_link_is_no_contention():
    """Ideal and fluid agree to the picosecond where every flow is held back by a link of its own."""
    capacity = [3e9, 7e9, 1.7e9, 1e12]
    starts = [(13, demand(1e6, 0, 3)), (14, demand(2e6 + 1, 1, 3, latency_ps=5)), (500, demand(7.0, 2, 3))]
    assert finish_times("fluid", capacity, starts)[0] == finish_times("ideal", capacity, starts)[0]


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_segments_add_up_to_the_bytes(network):
    rng = np.random.default_rng(5)
    capacity = [1e9, 2e9, 4e9]
    starts = []
    for _ in range(40):
        crossed = sorted(rng.choice(3, size=rng.integers(1, 4), replace=False).tolist())
        size = float(rng.integers(1, 10**6))
        starts.append((int(rng.integers(0, 2000 * US)), demand(size, *crossed, latency_ps=int(rng.integers(0, US)))))
    ends, log = finish_times(network, capacity, starts)
    for (start, what), end in zip(starts, ends, strict=True):
        own = sorted((s for s in log if s.demand is what), key=lambda s: s.start_ps)
        moved = sum(s.rate_Bps * (s.end_ps - s.start_ps) / PS_PER_S for s in own)
        # the end is rounded up to a whole picosecond
        assert what.size_B * (1 - 1e-9) <= moved <= what.size_B * (1 + 1e-9) + 4e9 / PS_PER_S
        assert own[0].start_ps == start + what.latency_ps and own[-1].end_ps == end
        assert all(a.end_ps == b.start_ps for a, b in itertools.pairwise(own))


@pytest.mark.parametrize("network", sorted(NETWORKS))
@pytest.mark.parametrize("rivals", [0, 2])
def test_a_resource_that_is_down_is_infeasible(network, rivals):
    starts = [(0, demand(1e6, 0, 1)), *[(0, demand(1e3, 1))] * rivals]
    with pytest.raises(InfeasibleError, match="capacity"):
        finish_times(network, [0.0, 1e9], starts)


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_bytes_that_cross_nothing_are_refused(network):
    with pytest.raises(InfeasibleError, match="no resource"):
        finish_times(network, [1e9], [(0, demand(1e6))])


# links that change


def changing(size_B, now, *later):
    """A demand on one resource of each state; None for a state without a path."""
    states = [Demand(size_B, 0, *(((one,), (SHARE_ONE,)) if one is not None else ((), ()))) for one in (now, *later)]
    return Demand(size_B, 0, states[0].resources, states[0].shares, later=tuple(states[1:]))


def test_what_is_left_goes_by_the_new_path():
    # 10 B at 1 B/s; from 4 s on at 2 B/s: 4 + 6/2
    ends, log = finish_times("flow", [1.0, 2.0], [(0, changing(10.0, 0, 1))], [4 * PS_PER_S])
    assert ends == [7 * PS_PER_S]
    assert [(one.start_ps, one.end_ps, one.rate_Bps) for one in log] == [
        (0, 4 * PS_PER_S, 1.0),
        (4 * PS_PER_S, 7 * PS_PER_S, 2.0),
    ]
    assert [one.demand.resources for one in log] == [(0,), (1,)]


def test_those_in_flight_share_the_new_path():
    # two of 4 B, each on a link of its own; from 2 s on both on one: 2 B each at 1/2 B/s
    pair = [(0, changing(4.0, 0, 2)), (0, changing(4.0, 1, 2))]
    assert finish_times("flow", [1.0, 1.0, 1.0], pair, [2 * PS_PER_S])[0] == [6 * PS_PER_S] * 2


def test_one_without_a_path_waits_for_the_next_change():
    ends, log = finish_times("flow", [1.0, 1.0], [(0, changing(4.0, 0, None, 1))], [1 * PS_PER_S, 3 * PS_PER_S])
    assert ends == [6 * PS_PER_S]
    assert sum(one.rate_Bps * (one.end_ps - one.start_ps) for one in log) == 4.0 * PS_PER_S
    # nor does one that begins while it is down
    assert finish_times("flow", [1.0, 1.0], [(0, changing(4.0, None, 1))], [3 * PS_PER_S])[0] == [7 * PS_PER_S]


def test_one_without_a_path_for_good_is_infeasible():
    with pytest.raises(InfeasibleError, match="no repair is to come"):
        finish_times("flow", [1.0], [(0, changing(4.0, 0, None))], [1 * PS_PER_S])


def test_one_that_ends_as_the_links_change_has_ended():
    assert finish_times("flow", [1.0], [(0, changing(4.0, 0, None))], [4 * PS_PER_S])[0] == [4 * PS_PER_S]


def test_latency_runs_on_while_links_change():
    demand = dataclasses.replace(changing(2.0, 0, 1), latency_ps=3 * PS_PER_S)
    assert finish_times("flow", [1.0, 2.0], [(0, demand)], [1 * PS_PER_S])[0] == [4 * PS_PER_S]


# demands that go ahead


class Step(Fluid):
    """Fluid with every start an event."""

    def _goes_ahead(self, flow, begin_ps):
        return False


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),  # asked for at [ns]
            st.integers(0, 30),  # begins later by [ns]
            st.integers(0, 10),  # latency [ns]
            st.integers(1, 60),  # size [B]
            st.sets(st.integers(0, 5), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=14,
    )
)
def test_going_ahead_changes_nothing(asked):
    """Ends and stretches to the bit, however many turn out to have company."""

    def played(kind):
        env = simpy.Environment(initial_time=0)
        net = kind(env, [1e9, 2e9, 3e9, 0.7e9, 1e9, 5e9])
        ends = [0] * len(asked)

        def one(number, at, delay, latency, size, resources):
            yield env.timeout(at * 1000)
            yield net.move(demand(size, *sorted(resources), latency_ps=latency * 1000), delay * 1000)
            ends[number] = env.now

        for number, what in enumerate(asked):
            env.process(one(number, *what))
        env.run()
        assert not any(net._on) and not any(net._ahead)
        return ends, sorted((s.start_ps, s.end_ps, s.rate_Bps, s.demand.resources, s.demand.size_B) for s in net.log)

    assert played(Fluid) == played(Step)


def test_a_demand_alone_is_one_event():
    env = simpy.Environment(initial_time=0)
    net = Fluid(env, [1e9, 1e9])
    net.move(demand(1000, 0, latency_ps=500), 100)
    net.move(demand(1000, 1), 0)
    net.move(demand(1000, 0), 100 + 500 + 1_000_000)  # begins as the first one ends
    assert len(env._queue) == 3
    env.run()
    assert [(s.start_ps, s.end_ps) for s in net.log] == [(0, 1_000_000), (600, 1_000_600), (1_000_600, 2_000_600)]


def test_one_that_is_slowed_may_meet_the_next():
    """A on both links, B after it on the second; C slows A down on the first, so that A is still there as B begins."""
    env = simpy.Environment(initial_time=0)
    net = Fluid(env, [1e9, 1e9])
    ends = {}

    def ask(name, what, delay_ps):
        net.move(what, delay_ps).callbacks.append(lambda _: ends.update({name: env.now}))

    ask("A", demand(10_000, 0, 1), 0)
    ask("B", demand(10_000, 1), 10 * US)
    env.timeout(5 * US).callbacks.append(lambda _: ask("C", demand(10_000, 0), 0))
    env.run()
    assert ends == {"A": 15 * US, "C": 20 * US, "B": 22.5 * US}


def test_a_log_is_the_same_one_by_one_and_as_columns():
    one, two, three = (demand(size_B, 0) for size_B in (1000, 2000, 3000))
    train = Stretches.of([one, two, one], [0, 10, 20], [5, 15, 25], [1e9, 2e9, 3e9])
    log = Log([Segment(three, 1, 2, 4e9), train.rows(slice(1, 3), 100), Segment(one, 3, 4, 5e9)])
    said = [(s.demand, s.start_ps, s.end_ps, s.rate_Bps) for s in log]
    assert said == [
        (three, 1, 2, 4e9),
        (two, 110, 115, 2e9),
        (one, 120, 125, 3e9),
        (one, 3, 4, 5e9),
    ]
    columns = log.columns()
    assert len(log) == len(columns.demand) == 4 and len(columns.demands) == 3
    assert [(s.demand, s.start_ps, s.end_ps, s.rate_Bps) for s in columns.segments()] == [said[i] for i in (0, 3, 1, 2)]
    moved = log.moved(1, {id(one): three})
    assert [(s.demand, s.start_ps) for s in moved] == [(three, 0), (two, 109), (three, 119), (three, 2)]
