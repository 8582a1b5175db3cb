"""Clocks of ranks recorded apart."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim.traces.clocks import aligned, late_note
from cmsim.traces.recorded import rank_trace
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST


def recorded(rank: int, *, before_us: float, start_us: float = 0.0, group: int = 0):
    """A kernel, then a collective that ends 10 us after the last rank came; then a kernel."""
    return rank_trace(
        rank,
        name=["a", "sum", "b"],
        kind=[COMPUTE, COLLECTIVE, COMPUTE],
        stream=["1", "2", "1"],
        start_us=np.array([0.0, before_us, 2000.0]) + start_us,
        duration_us=[before_us, 1000.0 - before_us, 5.0],
        kernel=["generic", "", "generic"],
        collective=["", "all_reduce", ""],
        group=[-1, group, -1],
        deps=([1, 2], [0, 1]),
    )


def test_a_rank_that_starts_later_waits_on_all_queues():
    # both came to the same collective, which ended at 1000 on the clock of rank 0 and at 300 on that of rank 1
    one, other = recorded(0, before_us=900.0), recorded(1, before_us=250.0)
    short = other.duration_us.copy()
    short[1] = 50.0
    other = type(other)(**{**vars(other), "duration_us": short})
    made, late_us = aligned({0: one, 1: other})
    assert late_us == {0: 0.0, 1: 700.0}
    assert made[0] is one
    late = made[1]
    assert late.names[late.name[0]] == "starts later than the first rank"
    assert late.kind.tolist() == [HOST, COMPUTE, COLLECTIVE, COMPUTE]
    assert late.duration_us.tolist() == [700.0, 250.0, 50.0, 5.0]
    assert late.start_us.tolist() == [0.0, 700.0, 950.0, 2700.0]
    # the first row of each queue waits for it, and what waited before still does
    deps = [late.dep_idx[late.dep_ptr[row] : late.dep_ptr[row + 1]].tolist() for row in range(4)]
    assert deps == [[], [0], [0, 1], [2]]
    assert late.kernel.tolist() == [-1, 0, -1, 0] and late.group.tolist() == [-1, -1, 0, -1]
    assert late_note(late_us) == ["clocks of 2 ranks set by the ends of collectives: the last starts 700 us late"]


@pytest.mark.parametrize("shift_us", [0.0, 123456.0])
def test_the_clock_of_a_file_does_not_matter(shift_us):
    made, late_us = aligned({0: recorded(0, before_us=900.0), 1: recorded(1, before_us=900.0, start_us=shift_us)})
    assert late_us == {0: 0.0, 1: 0.0}
    assert len(made[1]) == 3
    assert late_note(late_us) == []


def test_ranks_that_share_no_collective_keep_their_clocks():
    ranks = {0: recorded(0, before_us=900.0), 1: recorded(1, before_us=100.0, start_us=50.0, group=1)}
    _, late_us = aligned(ranks)
    assert late_us == {0: 0.0, 1: 50.0}


def test_one_rank_alone():
    one = recorded(0, before_us=900.0)
    assert aligned({0: one}) == ({0: one}, {0: 0.0})
