"""Collectives and messages of 0 bytes: replayed at the latency of one byte, or left out, and counted.

The files of tests/cases/empty stand for formats and operations; right values from what each holds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cmsim
from cmsim.errors import InputError
from cmsim.scenario import load_scenario
from cmsim.traces import load_trace, open_trace
from cmsim.traces.lower import lower
from cmsim.workload.ops import COLLECTIVE

EMPTY = Path(__file__).parents[1] / "cases" / "empty"
COUNTED = "collectives and messages of 0 bytes take the latency of one byte"


def run(name: str, **keys: object):
    workload = {"kind": "trace", "path": str(EMPTY / name), **keys}
    (result,) = cmsim.run(load_scenario({"name": "empty", "systems": ["hgx_h100"], "workload": workload}))
    return result


#: file, how many are empty, recorded compute that is there in any case [us]
FILES = [
    *((f"chakra_{name}", 1, 0) for name in ("all_gather", "all_reduce", "all_to_all", "broadcast", "reduce")),
    ("chakra_reduce_scatter", 1, 0),
    ("chakra_sendrecv", 2, 0),
    ("goal_zero.goal", 2, 0),
    ("kineto_allreduce", 1, 0),
    ("kineto__allgather_base", 1, 0),
    ("kineto_all_to_allv", 1, 0),
    ("mixed", 1, 1000),
]


@pytest.mark.parametrize(("name", "count", "compute_us"), FILES, ids=[name for name, *_ in FILES])
def test_nothing_to_send_takes_a_latency(name, count, compute_us):
    result = run(name)
    assert f"{count} {COUNTED}" in result.warnings
    ops = result.ops
    talks = ops[~ops["kind"].isin(["compute", "host"])]
    least_us = ((talks["end_ps"] - talks["start_ps"]) / 1e6).min()
    # the latency of a fabric of one node, and no time for bytes
    assert 1 < least_us < 50
    assert result.metric("makespan_s") * 1e6 >= compute_us


@pytest.mark.parametrize("network", ["ideal", "flow"])
@pytest.mark.parametrize("name", ["chakra_all_to_all", "chakra_all_reduce", "goal_zero.goal"])
def test_on_every_network(name, network):
    workload = {"kind": "trace", "path": str(EMPTY / name)}
    asked = {"name": "empty", "systems": ["hgx_h100"], "workload": workload, "network": network}
    (result,) = cmsim.run(load_scenario(asked))
    assert 1e-6 < result.metric("makespan_s") < 50e-6


def test_what_the_formats_of_generators_leave_out_is_counted():
    assert "1 collectives of 0 bytes are left out" in run("aicb_zero.csv").warnings


def test_a_rank_with_nothing_to_send_waits_for_the_others():
    made = load_trace(EMPTY / "kineto_a2a_one_rank_empty")
    sizes = made.ops.bytes_B[made.ops.kind == COLLECTIVE]
    assert len(set(sizes.tolist())) == 1 and sizes[0] > 1
    assert not any(COUNTED in note for note in made.notes)


@pytest.mark.parametrize("name", ["mixed", "kineto_allreduce"])
def test_as_recorded_they_take_what_they_took(name):
    recorded = run(name, collectives="recorded")
    assert recorded.metric("makespan_s") == pytest.approx({"mixed": 1e-3, "kineto_allreduce": 400e-6}[name])


def test_a_trace_in_which_nothing_takes_time_is_refused_with_its_file():
    with pytest.raises(InputError, match=r"goal_zero\.goal: no op of the trace takes time.*communication has none"):
        run("goal_zero.goal", collectives="recorded")


@pytest.mark.parametrize("size_B", [np.inf, np.nan, -1.0])
def test_sizes_that_nobody_can_price_are_refused_with_file_and_op(size_B):
    trace = open_trace(EMPTY / "mixed").trace()
    rank = trace.ranks[2]
    wrong = replace(rank, bytes_B=np.where(rank.kind == COLLECTIVE, size_B, rank.bytes_B))
    with pytest.raises(InputError, match=rf"mixed: rank 2, row \d+ \('.+'\): {size_B:g} bytes; must be 0 or more"):
        lower(replace(trace, ranks={**trace.ranks, 2: wrong}))


def test_pricing_names_file_and_op():
    from cmsim import engine
    from cmsim.hardware import load_system

    made = load_trace(EMPTY / "mixed")
    empty = replace(made, ops=replace(made.ops, bytes_B=np.zeros(len(made.ops))))
    with pytest.raises(InputError, match=r"mixed: rank 0: op '.+' is of 0 bytes; must be above 0"):
        engine.plan(empty, load_system("hgx_h100"), engine.Options())
