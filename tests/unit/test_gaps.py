"""Time that nothing in a recording explains: kept before the row that starts late, on its queue."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmsim.traces.gaps import UNIT, believed, exclusive_us, gap_notes, gaps, with_gaps
from cmsim.traces.lower import lower
from cmsim.traces.recorded import Communicator, RankTrace, Trace, edges_csr, rank_trace
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, Programs

NAN = float("nan")


def found(start, length, queue, pairs=()):
    """Gaps of rows in order; ``pairs`` of (row, row it waits for)."""
    ptr, idx = edges_csr(len(start), [row for row, _ in pairs], [dep for _, dep in pairs])
    return gaps(np.array(start, float), np.array(length, float), np.array(queue), ptr, idx)


def held(one):
    return dict(zip(one.before.tolist(), one.length_us.tolist(), strict=True))


def test_a_gap_is_what_is_left_after_all_that_a_row_waits_for():
    # queue 0: 0..10, 30..40; queue 1: 5..25, the second row of queue 0 waits for it
    assert held(found([0, 5, 30], [10, 20, 10], [0, 1, 0])) == {1: 5, 2: 20}
    assert held(found([0, 5, 30], [10, 20, 10], [0, 1, 0], [(2, 1)])) == {1: 5, 2: 5}
    explained = found([0, 0, 20], [10, 20, 10], [0, 1, 0], [(2, 1)])
    assert held(explained) == {} and explained.span_us == explained.bare_us == 30


def test_the_first_row_of_a_queue_counts_from_the_first_row_of_the_rank():
    assert held(found([100, 150], [1000, 10], [0, 1])) == {1: 50}


def test_short_gaps_add_up_until_they_are_long_enough():
    # 1,000 kernels of 9 us, 1 us between them: no gap by itself is a thousandth of the 10 ms
    one = found(10.0 * np.arange(1000), [9.0] * 1000, [0] * 1000)
    assert one.span_us == pytest.approx(9999, rel=UNIT) and one.bare_us == 9000
    assert 80 <= len(one.before) <= 100 and one.total_us == pytest.approx(999, rel=0.02)


def test_what_was_recorded_out_of_order_does_not_move_the_rest():
    # row 1 started 50 us before the row that it is said to wait for had ended; row 2 is back in time
    one = found([0, 50, 200], [100, 10, 10], [0, 1, 1], [(1, 0)])
    assert held(one) == {2: 90} and one.span_us == 210


@pytest.mark.parametrize(
    ("start", "instead"),
    [
        (95, 1),  # the last tenth may drain
        (50, 0),  # the row before it on its queue had ended
        (5, -1),  # nothing had ended
    ],
)
def test_what_ran_on_was_not_waited_for(start, instead):
    starts, lengths = np.array([0.0, 20, start, 30e3]), np.array([20.0, 80, 5, 1])
    row, dep, wrong = believed(starts, lengths, np.array([0, 0, 1, 0]), np.array([2]), np.array([1]))
    assert (row.tolist(), dep.tolist()) == (([2], [instead]) if instead >= 0 else ([], []))
    assert wrong == (instead != 1)


def test_rows_without_a_start_make_no_gap():
    assert held(found([NAN, NAN], [10, 10], [0, 0])) == {}
    assert held(found([0, NAN, 50], [10, 10, 10], [0, 0, 0])) == {2: 30}


def test_rows_that_overlap_on_a_queue_take_the_time_after_the_one_before():
    start, length = np.array([0.0, 5, 6, 3, 40, NAN]), np.array([10.0, 10, 2, 4, 5, 7])
    assert exclusive_us(start, length, np.array([0, 0, 0, 1, 0, 0])).tolist() == [10, 5, 0, 4, 5, 7]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.floats(0, 1e5), st.floats(0, 1e4), st.integers(0, 8)), min_size=1, max_size=60
    )
)
def test_a_replay_as_recorded_ends_as_recorded(rows):
    """Whatever stands in a file, as long as nothing starts before what it waits for has ended."""
    rows = sorted(rows, key=lambda row: row[1])
    queue, start, length = (np.array([row[i] for row in rows]) for i in range(3))
    length = exclusive_us(start, length, queue)
    end = np.maximum(start, [max([0.0, *(start + length)[:i][queue[:i] == queue[i]]]) for i in range(len(rows))])
    end = end + length
    pairs = [(i, i - row[3]) for i, row in enumerate(rows) if 0 < row[3] <= i and end[i - row[3]] <= start[i]]
    one = found(start, length, queue, pairs)
    span = end.max() - start.min()
    assert span * (1 - 2 * UNIT) - 1e-6 <= one.span_us <= span + 1e-6
    assert one.bare_us <= one.span_us + 1e-6 and len(one.before) <= 4 / UNIT


def test_gaps_in_columns():
    columns = {
        "kind": np.array([COMPUTE, COMPUTE]),
        "stream": np.array([0, 1]),
        "name": np.array([0, 1]),
        "recorded_s": np.array([1e-6, 2e-6]),
        "kernel": np.array([0, 0]),
    }
    one = found([0, 30], [1, 2], [0, 1], [(1, 0)])
    made, ptr, idx = with_gaps(one, columns, 2, *edges_csr(2, [1], [0]))
    assert made["kind"].tolist() == [COMPUTE, HOST, COMPUTE] and made["stream"].tolist() == [0, 1, 1]
    assert made["name"].tolist() == [0, 2, 1] and made["kernel"].tolist() == [0, -1, 0]
    assert made["recorded_s"] == pytest.approx([1e-6, 29e-6, 2e-6])
    # what the row waited for, its gap waits for
    assert ptr.tolist() == [0, 0, 1, 1] and idx.tolist() == [0]


def profile() -> Trace:
    """A launch and a kernel, 100 us of nothing, a sum of 30 us, and 70 us after it another kernel."""
    rank = rank_trace(
        0,
        name=["launch", "first", "sum", "second"],
        kind=[HOST, COMPUTE, COLLECTIVE, COMPUTE],
        stream=["host", "7", "comm", "7"],
        start_us=[0, 10, 120, 220],
        duration_us=[10, 10, 30, 50],
        kernel=["", "gemm", "", "gemm"],
        collective=["", "", "all_reduce", ""],
        group=[-1, -1, 0, -1],
        bytes_B=[0, 0, 1e6, 0],
        deps=([1, 2, 3], [0, 1, 2]),
    )
    return Trace("kineto", "made up", {0: rank}, (Communicator("world", (0, 1), 2),), 2, recorded_us=270.0)


def rows(made: Programs) -> list[tuple[str, str, float]]:
    ops = made.ops
    return [
        (ops.names[n], ops.streams[s], round(float(t) * 1e6, 6) if not np.isnan(t) else NAN)
        for n, s, t in zip(ops.name_id, ops.stream, ops.recorded_s, strict=True)
    ]


def test_gaps_stay_whatever_becomes_of_communication():
    recorded = rows(lower(profile(), ranks=2, collectives="recorded"))
    assert recorded == [
        ("launch", "host", 10),
        ("first", "stream 7", 10),
        ("gap", "comm", 100),
        ("sum", "comm", 30),
        ("gap", "stream 7", 70),
        ("second", "stream 7", 50),
    ]
    modelled = rows(lower(profile(), ranks=2))
    assert [row for row in modelled if row[0] == "gap"] == [("gap", "comm", 100), ("gap", "stream 7", 70)]


def test_gaps_are_time_of_the_host_and_left_out_with_it():
    made = lower(profile(), ranks=2)
    assert made.facts.recorded_class_s["host"] == pytest.approx(180e-6)
    assert not any(name == "gap" for name, *_ in rows(lower(profile(), ranks=2, host_ops=False)))


def test_what_is_said_of_gaps():
    note = (
        "2 gaps without a cause in the file stay as they were: 0.170 ms of all queues; without them the step would be"
    )
    (said,) = [one for one in lower(profile(), ranks=2).notes if "gaps" in one]
    assert said == f"warning: {note} 63.0 % shorter"
    (said,) = gap_notes([found([0, 1000, 1010], [990, 9, 9], [0, 0, 0])], NAN)
    assert said.startswith("1 gaps") and said.endswith("1.0 % shorter")


def test_a_step_longer_than_its_ops_is_told():
    made = lower(replace(profile(), recorded_us=300.0), ranks=2)
    assert (
        "warning: with everything as recorded the ops of the file take 0.270 ms, the recorded step 0.300 ms (-10.0 %): "
        "the rest is not in the file" in made.notes
    )
    assert not any("everything as recorded" in note for note in lower(profile(), ranks=2).notes)


def test_ranks_that_differ_in_gaps_alone_are_not_alike():
    trace = profile()
    later = replace(trace.ranks[0], rank=1, start_us=trace.ranks[0].start_us + np.array([0, 0, 500, 500]))
    made = lower(replace(trace, ranks={0: trace.ranks[0], 1: later}))
    assert made.program.tolist() == [0, 1]
    assert isinstance(later, RankTrace)
