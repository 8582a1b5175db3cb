"""What must hold of max-min rates, and of bytes in time, whatever the network looks like."""

from __future__ import annotations

import numpy as np
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from cmsim.network import SHARE_ONE, Demand, Fluid
from cmsim.network.maxmin import max_min_Bps, max_min_of_few_Bps
from cmsim.units import PS_PER_S

#: capacities of real ports and some that make ties
CAPACITIES = st.sampled_from([1e9, 2.5e10, 4.5e11, 1.96e11, 3e9, 7.7e10, 1e9 / 3])
#: whole bytes, thirds, and sums over many members
SHARES = st.sampled_from([SHARE_ONE, SHARE_ONE // 3, 1, 7 * SHARE_ONE, 5, SHARE_ONE // 2, 1536 * SHARE_ONE])


@st.composite
def networks(draw, most=12):
    """(capacity, one dict resource -> share per flow)."""
    capacity = draw(st.lists(CAPACITIES, min_size=1, max_size=8))
    crossing = st.dictionaries(st.integers(0, len(capacity) - 1), SHARES, min_size=1, max_size=4)
    return capacity, draw(st.lists(crossing, min_size=1, max_size=most))


def solve(capacity, flows):
    flat = [(r, f, s) for f, flow in enumerate(flows) for r, s in flow.items()]
    resource, flow, share = (np.array(column) for column in zip(*flat, strict=True))
    return max_min_Bps(np.array(capacity), resource, flow, share.astype(float), len(flows))


def load(capacity, flows, rate):
    """What each resource carries. [B/s]"""
    carried = np.zeros(len(capacity))
    for flow, x in zip(flows, rate, strict=True):
        for resource, share in flow.items():
            carried[resource] += x * share / SHARE_ONE
    return carried


@given(networks())
def test_no_resource_carries_more_than_it_can(network):
    capacity, flows = network
    assert (load(capacity, flows, solve(capacity, flows)) <= np.array(capacity) * (1 + 1e-9)).all()


@given(networks())
def test_every_flow_has_a_bottleneck(network):
    """The definition: a resource that is full, and on which nobody is faster."""
    capacity, flows = network
    rate = solve(capacity, flows)
    full = load(capacity, flows, rate) >= np.array(capacity) * (1 - 1e-9)
    fastest = [
        max((x for flow, x in zip(flows, rate, strict=True) if r in flow), default=0.0) for r in range(len(full))
    ]
    for flow, x in zip(flows, rate, strict=True):
        assert any(full[r] and x >= fastest[r] * (1 - 1e-9) for r in flow)


@given(networks())
def test_a_handful_is_shared_without_columns_and_to_the_bit(network):
    capacity, flows = network
    demands = [Demand(1.0, 0, tuple(flow), tuple(flow.values())) for flow in flows]
    assert max_min_of_few_Bps(capacity, demands) == solve(capacity, flows).tolist()


@given(networks(), st.randoms(use_true_random=False))
def test_order_means_nothing(network, random):
    """Renumbered flows and resources, and crossings in another order: the same rates to the bit."""
    capacity, flows = network
    rate = solve(capacity, flows)
    new_flow, new_resource = list(range(len(flows))), list(range(len(capacity)))
    random.shuffle(new_flow)
    random.shuffle(new_resource)
    shuffled: list[dict[int, int]] = [{}] * len(flows)
    for old, flow in enumerate(flows):
        crossings = [(new_resource[r], s) for r, s in flow.items()]
        random.shuffle(crossings)
        shuffled[new_flow[old]] = dict(crossings)
    moved = [0.0] * len(capacity)
    for old, new in enumerate(new_resource):
        moved[new] = capacity[old]
    again = solve(moved, shuffled)
    assert [again[new_flow[i]] for i in range(len(flows))] == rate.tolist()


@given(networks(most=6), st.data())
def test_a_flow_stands_for_equal_ones(network, data):
    """One flow of share 8 s is eight flows of share s, to the bit: what folding rests on."""
    capacity, flows = network
    times = data.draw(st.sampled_from([2, 3, 8]))
    which = data.draw(st.integers(0, len(flows) - 1))
    # the eight cross what is shared, and one private port each, which the folded flow crosses once
    port = len(capacity)
    port_Bps = data.draw(CAPACITIES)
    folded = [*flows]
    folded[which] = {r: s * times for r, s in flows[which].items()} | {port: SHARE_ONE}
    split = [*flows]
    split[which] = flows[which] | {port: SHARE_ONE}
    split += [flows[which] | {port + i: SHARE_ONE} for i in range(1, times)]
    one = solve([*capacity, port_Bps], folded)
    many = solve([*capacity, *[port_Bps] * times], split)
    assert many[: len(flows)].tolist() == one.tolist()
    assert many[len(flows) :].tolist() == [one[which]] * (times - 1)


@given(networks(), networks())
def test_parts_that_do_not_touch_are_solved_alike_together_or_apart(one, two):
    (capacity_1, flows_1), (capacity_2, flows_2) = one, two
    shifted = [{r + len(capacity_1): s for r, s in flow.items()} for flow in flows_2]
    both = solve(capacity_1 + capacity_2, flows_1 + shifted)
    assert both.tolist() == [*solve(capacity_1, flows_1), *solve(capacity_2, flows_2)]


@given(networks(), st.data())
def test_more_capacity_never_slows_the_slowest(network, data):
    """Single rates may fall when another resource grows; the smallest of all rates never does."""
    capacity, flows = network
    wider = [c * data.draw(st.sampled_from([1, 2, 10])) for c in capacity]
    assert solve(wider, flows).min() >= solve(capacity, flows).min() * (1 - 1e-12)


@settings(max_examples=60)
@given(networks(), st.data())
def test_bytes_in_are_bytes_out(network, data):
    """Everything arrives, at rates that fit; no resource is busier than it can be at any time."""
    capacity, flows = network
    env = simpy.Environment(initial_time=0)
    net = Fluid(env, capacity)
    demands, done = [], []
    for flow in flows:
        size = data.draw(st.sampled_from([1.0, 1e3, 12345.0, 1e6]))
        latency = data.draw(st.sampled_from([0, 1, 1000, 10**6]))
        demands.append(Demand(size, latency, tuple(flow), tuple(flow.values())))

    def go(what, after):
        yield env.timeout(after)
        yield net.move(what)
        done.append(what)

    for what in demands:
        env.process(go(what, data.draw(st.sampled_from([0, 0, 500, 10**6]))))
    env.run()
    assert len(done) == len(demands)
    moved = {id(what): 0.0 for what in demands}
    most = {id(what): 0.0 for what in demands}
    for segment in net.log:
        moved[id(segment.demand)] += segment.rate_Bps * (segment.end_ps - segment.start_ps) / PS_PER_S
        most[id(segment.demand)] = max(most[id(segment.demand)], segment.rate_Bps)
    for what in demands:
        # ends are rounded up to a whole picosecond
        assert moved[id(what)] >= what.size_B * (1 - 1e-9)
        assert moved[id(what)] <= what.size_B * (1 + 1e-9) + most[id(what)] / PS_PER_S
    for at in sorted({s.start_ps for s in net.log}):
        carried = np.zeros(len(capacity))
        for s in net.log:
            if s.start_ps <= at < s.end_ps:
                for resource, share in zip(s.demand.resources, s.demand.shares, strict=True):
                    carried[resource] += s.rate_Bps * share / SHARE_ONE
        assert (carried <= np.array(capacity) * (1 + 1e-9)).all()
