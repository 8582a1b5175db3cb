"""What must hold of every run: critical paths, order, coalescing, and that runs repeat to the byte."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import cmsim
from cmsim.engine import Options, Perturbation, plan, play
from cmsim.hardware import load_system
from cmsim.workload.ops import COLLECTIVE, HOST, RECV, SEND, ProgramBuilder, assemble

SYSTEM = load_system("hgx_h100", domains=2)
RANKS = 16


@st.composite
def programs(draw):
    """Two lists of ops that can end: collectives of two groups in one order, dependencies on rows before only."""
    calls = draw(
        st.lists(st.tuples(st.sampled_from(["tp", "all"]), st.sampled_from([1e3, 1e6, 3e7])), min_size=1, max_size=6)
    )
    out = []
    for _ in range(2):
        ops = []

        def add(stream, *, us=0, slot="", size_B=0.0, chained=False, ops=ops):
            before = len(ops)
            after = draw(st.lists(st.integers(0, before - 1), max_size=2, unique=True)) if before else []
            ops.append((stream, us, slot, size_B, [*after, before - 1] if chained and before else after))

        for slot, size_B in calls:
            for _ in range(draw(st.integers(0, 3))):
                add(draw(st.sampled_from(["main", "side"])), us=draw(st.sampled_from([0, 1, 7, 50])))
            add(f"comm {slot}", slot=slot, size_B=size_B, chained=True)
        add("main", us=1)
        out.append(ops)
    return out


def built(ops, *, watched=False):
    """The ops as a program; ``watched``: with a stream that waits for every single one of them."""
    build = ProgramBuilder()
    for stream, us, slot, size_B, after in ops:
        if slot:
            build.collective("sum", stream=stream, collective="all_reduce", size_B=size_B, slot=slot, after=after)
        else:
            build.host("work", stream=stream, recorded_s=us * 1e-6, after=after)
    for row in range(len(ops)) if watched else ():
        build.host("watch", stream="watcher", recorded_s=0.0, after=[row])
    return build


def planned(jobs, perturb=None, *, fold=True, watched=False):
    rank = np.arange(RANKS)
    builders = [built(ops, watched=watched) for ops in jobs]
    made = assemble(builders, program=rank // 4 % 2, groups={"tp": rank // 4, "all": rank * 0 + RANKS})
    return plan(made, SYSTEM, Options(fold=fold, perturb=perturb or {}))


def rows_of(made, rank_class):
    """(kind, stream, dependencies) of every row of a class."""
    ops, rows = made.programs.ops, made.rows_of(rank_class)
    deps = [ops.dep_idx[ops.dep_ptr[i] : ops.dep_ptr[i + 1]].tolist() for i in range(rows.start, rows.stop)]
    return ops.kind[rows].tolist(), ops.stream[rows].tolist(), deps


@given(programs(), st.sampled_from(["ideal", "fluid"]), st.sampled_from([{}, {5: Perturbation(compute=1.7)}]))
def test_order_and_lengths(jobs, network, perturb):
    """Dependencies and streams are in order; host work takes exactly its time; nothing beats its own transfer."""
    made = planned(jobs, perturb)
    line = play(made, network)
    for rank_class in range(made.classes):
        kind, stream, deps = rows_of(made, rank_class)
        start, end, wait = line.start_ps[rank_class], line.end_ps[rank_class], line.wait_ps[rank_class]
        last = {}
        for row in range(len(kind)):
            assert all(end[dep] <= start[row] for dep in deps[row])
            assert last.get(stream[row], 0) <= start[row]
            last[stream[row]] = end[row]
            if kind[row] == HOST:
                assert end[row] - start[row] == made.hold_ps[rank_class][row]
                assert wait[row] == 0
            else:
                call = made.calls[made.call[rank_class][row]]
                assert end[row] - start[row] - wait[row] >= round(call.ideal_s * 1e12) * (1 - 1e-6) - len(call.phases)


@given(programs(), st.sampled_from(["ideal", "fluid"]))
def test_makespan_is_at_least_the_critical_path(jobs, network):
    """The longest chain through dependencies, streams and meetings, with transfers alone on the network."""
    made = planned(jobs)
    line = play(made, network)
    table = [rows_of(made, rank_class) for rank_class in range(made.classes)]
    earliest = [np.zeros(len(kind)) for kind, _, _ in table]
    changed = True
    while changed:  # relaxation: a row's end only grows, and only along what must come before
        changed = False
        ready: dict[tuple[int, int], float] = {}
        for again in (False, True):
            for rank_class, (kind, stream, deps) in enumerate(table):
                last: dict[int, float] = {}
                turn: dict[int, int] = {}
                for row in range(len(kind)):
                    at = max([last.get(stream[row], 0.0), *(earliest[rank_class][dep] for dep in deps[row])])
                    took = float(made.hold_ps[rank_class][row])
                    if kind[row] == COLLECTIVE:
                        slot = int(made.programs.ops.slot[made.rows_of(rank_class).start + row])
                        key = (int(made.folding.group_class[rank_class, slot]), turn.setdefault(slot, 0))
                        turn[slot] += 1
                        ready[key] = max(ready.get(key, 0.0), at)
                        call = made.calls[made.call[rank_class][row]]
                        at, took = ready[key], call.ideal_s * 1e12 * (1 - 1e-6) - 1 - len(call.phases)
                    if again and at + took > earliest[rank_class][row]:
                        earliest[rank_class][row], changed = at + took, True
                    last[stream[row]] = max(earliest[rank_class][row], at)
    assert line.makespan_ps >= max(float(end.max()) for end in earliest)
    for rank_class, (_, stream, _) in enumerate(table):
        own = np.asarray(stream)
        for number in set(stream):
            busy = (line.end_ps[rank_class] - line.start_ps[rank_class])[own == number]
            assert line.makespan_ps >= busy.sum()


@given(programs(), st.sampled_from(["ideal", "fluid"]), st.sampled_from([{}, {5: Perturbation(compute=1.7)}]))
def test_runs_of_ops_are_one_hold_and_nobody_can_tell(jobs, network, perturb):
    """A watcher that waits for every op forbids all coalescing; the watched ops run at the same picoseconds."""
    one, two = planned(jobs, perturb), planned(jobs, perturb, watched=True)
    plain, seen = play(one, network), play(two, network)
    assert one.folding.rank_class.tolist() == two.folding.rank_class.tolist()
    for rank_class in range(one.classes):
        rows = len(plain.start_ps[rank_class])
        for column in ("start_ps", "end_ps", "wait_ps"):
            assert np.array_equal(getattr(plain, column)[rank_class], getattr(seen, column)[rank_class][:rows])


@given(
    programs(),
    st.sampled_from(["ideal", "fluid"]),
    st.dictionaries(
        st.integers(0, RANKS - 1),
        st.sampled_from([Perturbation(compute=1.7), Perturbation(port=0.3), Perturbation(nic=0.5)]),
        max_size=3,
    ),
)
def test_folded_is_unfolded(jobs, network, perturb):
    folded, unfolded = planned(jobs, perturb), planned(jobs, perturb, fold=False)
    one, two = play(folded, network), play(unfolded, network)
    for rank in range(RANKS):
        mine = folded.folding.rank_class[rank]
        for column in ("start_ps", "end_ps", "wait_ps"):
            assert np.array_equal(getattr(one, column)[mine], getattr(two, column)[rank])


@given(programs(), st.sampled_from(["ideal", "fluid"]))
def test_every_byte_that_was_asked_for_moves(jobs, network):
    made = planned(jobs)
    line = play(made, network)
    # how often each group class makes each call: as often as any one of its members does
    times: dict[int, int] = {}
    for rank_class in range(made.classes):
        for call in set(made.call[rank_class].tolist()) - {-1}:
            times[call] = int((made.call[rank_class] == call).sum())
    for call, count in times.items():
        for (phase,) in made.calls[call].phases:
            own = [s for s in line.segments if s.demand is phase]
            moved = sum(s.rate_Bps * (s.end_ps - s.start_ps) / 1e12 for s in own)
            # each ends at a whole picosecond, never early
            late = count * max((s.rate_Bps for s in own), default=0.0) / 1e12
            assert count * phase.size_B * (1 - 1e-9) <= moved <= count * phase.size_B * (1 + 1e-9) + late


def test_kinds_are_as_this_page_takes_them():
    assert HOST < COLLECTIVE < SEND < RECV


# repeats

SCENARIO = """
name: repeats
systems: [{system: hgx_h100, domains: 4}, {system: cloudmatrix384, accelerators: 16}]
workloads:
  step:
    {kind: training, model: llama-3.1-8b, sequence_length: 2048, global_batch: 16, ranks: 32,
     parallel: {tp: 4, pp: 2}}
  serve:
    {kind: decode, model: qwen3-235b-a22b, batch_per_accelerator: 32, context_tokens: 1024, ranks: 32,
     microbatches: 2, parallel: {ep: 32, attention: dp}}
perturb: {3: {compute: 1.2}, 6: {port: 0.7}}
"""

RUN = "import sys, cmsim; cmsim.run(sys.stdin.read(), out=sys.argv[1])"


def digests(folder):
    names = sorted(path.name for path in folder.iterdir())
    assert {"summary.json", "ops.parquet", "links.parquet", "power.parquet"} <= set(names)
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def test_the_same_scenario_twice_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        cmsim.run(SCENARIO, out=tmp_path / name)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_nothing_depends_on_the_order_of_sets(tmp_path):
    """Two processes whose hashes of strings differ write the same bytes."""
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", RUN, str(tmp_path / seed)],
            input=SCENARIO, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed},
        )  # fmt: skip
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
