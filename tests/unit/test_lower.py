"""Recorded traces as programs: queues, order, dependencies, copies and their groups, what is refused."""

from __future__ import annotations

import heapq
import importlib
import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmsim.compute import gemm_shape
from cmsim.errors import InputError
from cmsim.reading.bytes_in import head
from cmsim.traces import IMPORTERS, load_trace, open_trace
from cmsim.traces import order as orders
from cmsim.traces.groups import read_placement
from cmsim.traces.lower import lower
from cmsim.traces.recorded import PASS, Communicator, RankTrace, Trace, edges_csr, rank_trace
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, RECV, SEND, Programs

NAN = float("nan")
SAMPLES = Path(__file__).parents[2] / "workloads" / "traces" / "chakra"


class Rows:
    """Rows of one rank, added one by one."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def _add(self, kind: int, name: str, stream: str, us: float, after: Sequence[int], **more: Any) -> int:
        self.rows.append({"kind": kind, "name": name, "stream": stream, "duration_us": us, "after": after, **more})
        return len(self.rows) - 1

    def kernel(
        self, name: str = "k", us: float = 1.0, *, stream: str = "", after: Sequence[int] = (), **more: Any
    ) -> int:
        return self._add(COMPUTE, name, stream, us, after, **{"kernel": "generic", **more})

    def host(self, name: str = "h", us: float = 1.0, *, stream: str = "", after: Sequence[int] = ()) -> int:
        return self._add(HOST, name, stream, us, after)

    def meet(
        self, group: int = 0, *, size_B: float = 8, what: str = "all_reduce", us: float = NAN, stream: str = "",
        after: Sequence[int] = (),
    ) -> int:  # fmt: skip
        return self._add(COLLECTIVE, what, stream, us, after, collective=what, group=group, bytes_B=size_B)

    def send(self, peer: int, *, tag: int = 0, us: float = NAN, after: Sequence[int] = ()) -> int:
        return self._add(SEND, "send", "", us, after, peer=peer, tag=tag, bytes_B=8)

    def recv(self, peer: int, *, tag: int = 0, us: float = NAN, after: Sequence[int] = ()) -> int:
        return self._add(RECV, "recv", "", us, after, peer=peer, tag=tag, bytes_B=8)

    def nothing(self, after: Sequence[int] = ()) -> int:
        return self._add(PASS, "nothing", "", NAN, after)

    def rank(self, rank: int = 0, *, in_order: bool = True) -> RankTrace:
        def column(key: str, other: Any) -> list[Any]:
            return [row.get(key, other) for row in self.rows]

        edges = [(at, dep) for at, row in enumerate(self.rows) for dep in row["after"]]
        pairs = np.array(edges, np.int64).reshape(-1, 2)
        return rank_trace(
            rank,
            name=column("name", ""),
            kind=column("kind", 0),
            stream=column("stream", ""),
            duration_us=column("duration_us", NAN),
            start_us=column("start_us", NAN),
            kernel=column("kernel", ""),
            precision=column("precision", ""),
            flops=column("flops", 0.0),
            bytes_B=column("bytes_B", 0.0),
            collective=column("collective", ""),
            group=column("group", -1),
            peer=column("peer", -1),
            tag=column("tag", 0),
            deps=(pairs[:, 0], pairs[:, 1]),
            in_order=in_order,
        )


def job(*ranks: RankTrace, communicators: Sequence[Communicator] = (Communicator("all"),), **more: Any) -> Trace:
    return Trace("test", "job.file", {one.rank: one for one in ranks}, tuple(communicators), **more)


def deps(got: Programs, row: int) -> list[int]:
    return got.ops.dep_idx[got.ops.dep_ptr[row] : got.ops.dep_ptr[row + 1]].tolist()


def streams(got: Programs) -> list[str]:
    return [got.ops.streams[i] for i in got.ops.stream]


def names(got: Programs) -> list[str]:
    return [got.ops.names[i] for i in got.ops.name_id]


# -- rows of one rank --------------------------------------------------------------------------------------


def test_columns_of_an_ordered_rank() -> None:
    rows = Rows()
    launch = rows.host("launch", 2.0)
    kernel = rows.kernel(
        "gemm", 5.0, stream="7", after=[launch], kernel="gemm", precision="bf16", flops=3.0, bytes_B=4.0
    )
    rows.meet(stream="20", us=9.0, after=[kernel], size_B=16)
    rows.kernel("add", 1.0, stream="copy engine", after=[kernel])
    got = lower(job(rows.rank(), recorded_us=17.0, facts={"tokens_per_run": 3.0}, notes=("said",)))
    ops = got.ops
    assert names(got) == ["launch", "gemm", "all_reduce", "add"]
    assert streams(got) == ["host", "stream 7", "stream 20", "copy engine"]
    assert ops.kind.tolist() == [HOST, COMPUTE, COLLECTIVE, COMPUTE]
    assert [ops.kernels[i] if i >= 0 else "" for i in ops.kernel] == ["", "gemm", "", "generic"]
    assert ops.precisions == ("bf16",) and ops.precision.tolist() == [-1, 0, -1, -1]
    assert ops.recorded_s == pytest.approx([2e-6, 5e-6, NAN, 1e-6], nan_ok=True)
    assert ops.flops.tolist() == [0, 3, 0, 0] and ops.bytes_B.tolist() == [0, 4, 16, 0]
    assert ops.cores.tolist() == [1] * 4 and ops.slot.tolist() == [-1, -1, 0, -1]
    assert ops.collectives == ("all_reduce",) and ops.collective.tolist() == [-1, -1, 0, -1]
    assert [deps(got, row) for row in range(4)] == [[], [0], [1], [1]]
    assert got.groups.tolist() == [[0]] and got.slots == ("all",) and got.program.tolist() == [0]
    assert got.facts.named() == pytest.approx(
        {"tokens_per_run": 3.0, "recorded_s": 17e-6, "recorded_host_s": 2e-6, "recorded_compute_s": 6e-6,
         "recorded_collective_s": 9e-6}
    )  # fmt: skip
    assert got.notes[0] == "said"


def test_rows_without_a_stream_get_queues_that_nobody_shares() -> None:
    rows = Rows()
    for group in (1, 0, 1):
        rows.meet(group)
    rows.send(1), rows.recv(1), rows.send(1, tag=5), rows.kernel(), rows.host(stream="3"), rows.host(stream="thread 4")
    two = Rows()
    two.meet(1), two.meet(0), two.meet(1), two.recv(0), two.send(0), two.recv(0, tag=5)
    got = lower(job(rows.rank(0), two.rank(1), communicators=[Communicator("a"), Communicator("b")]))
    first = streams(got)[:9]
    assert first == ["comm", "comm 1", "comm", "send 2", "recv 3", "send 4", "compute", "host 3", "thread 4"]
    assert got.groups.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_a_recorded_stream_of_a_made_up_name_is_the_same_queue() -> None:
    rows = Rows()
    first = rows.kernel(stream="compute")
    rows.kernel(after=[first])
    got = lower(job(rows.rank()))
    assert got.ops.streams == ("compute",) and got.ops.stream.tolist() == [0, 0] and not len(got.ops.dep_idx)


def test_traffic_and_flops_are_those_of_kernels() -> None:
    rows = Rows()
    rows.host(), rows.meet(), rows.kernel()
    one = replace(rows.rank(), flops=np.full(3, 5.0), bytes_B=np.full(3, 7.0))
    ops = lower(job(one)).ops
    assert ops.flops.tolist() == [0, 0, 5] and ops.bytes_B.tolist() == [0, 7, 7]


def test_times_that_are_not_known() -> None:
    rows = Rows()
    (
        rows.kernel(us=NAN),
        rows.kernel(us=NAN, flops=4.0),
        rows.kernel(us=NAN, bytes_B=4.0),
        rows.kernel(us=0.0, flops=1.0),
    )
    rows.host(us=NAN)
    got = lower(job(rows.rank()))
    assert got.ops.recorded_s == pytest.approx([0, NAN, NAN, 0, 0], nan_ok=True)
    assert got.notes == (
        "2 kernels and host ops without a recorded time, FLOPs or bytes take no time",
        "2 kernels with FLOPs, read as bf16 on the matrix engine",
        "2 kernels without a recorded time priced by the roofline of FLOPs and bytes",
    )
    assert [got.ops.precisions[i] if i >= 0 else "" for i in got.ops.precision] == ["", "bf16", "", "bf16", ""]


def test_what_is_not_replayed_passes_its_waits_on() -> None:
    rows = Rows()
    a, b = rows.kernel("a", stream="1"), rows.kernel("b", stream="2")
    one = rows.nothing([a])
    two = rows.nothing([one, b])
    three = rows.nothing()
    rows.kernel("c", stream="3", after=[two, three])
    rows.kernel("d", stream="1", after=[two])
    got = lower(job(rows.rank()))
    assert names(got) == ["a", "b", "c", "d"]
    assert [deps(got, row) for row in range(4)] == [[], [], [0, 1], [1]]


def test_without_host_work_kernels_wait_for_what_it_waited_for() -> None:
    rows = Rows()
    first = rows.kernel("first", stream="1")
    wait = rows.host("wait", after=[first])
    rows.kernel("second", stream="2", after=[wait])
    with_it, without = lower(job(rows.rank())), lower(job(rows.rank()), host_ops=False)
    assert names(with_it) == ["first", "wait", "second"]
    assert names(without) == ["first", "second"] and deps(without, 1) == [0]
    assert "1 host ops left out" in without.notes


def test_recorded_communication_takes_its_time_and_meets_nobody() -> None:
    rows = Rows()
    kernel = rows.kernel(us=2.0, kernel="gemm", flops=3.0)
    rows.meet(us=5.0, after=[kernel], stream="9"), rows.send(1, us=7.0), rows.recv(3)
    got = lower(job(rows.rank(), world_size=4), collectives="recorded")
    ops = got.ops
    assert set(ops.kind) == {COMPUTE} and set(ops.slot) == {-1} and set(ops.collective) == {-1}
    assert [ops.kernels[i] for i in ops.kernel] == ["gemm", "generic", "generic", "generic"]
    assert ops.recorded_s.tolist() == pytest.approx([2e-6, 5e-6, 7e-6, 0])
    assert ops.bytes_B.tolist() == [0, 0, 0, 0] and streams(got) == ["compute", "stream 9", "send 1", "recv 2"]
    assert got.groups.shape == (4, 0) and deps(got, 1) == [0]
    assert got.facts.named() == pytest.approx(
        {"recorded_compute_s": 2e-6, "recorded_collective_s": 5e-6, "recorded_send_recv_s": 7e-6}
    )
    assert "3 communication ops take their recorded time, with the wait for the others in it" in got.notes
    assert "1 communication ops without a recorded time take none" in got.notes


def test_a_profile_in_which_nothing_waits_for_communication_says_so() -> None:
    def notes(waits: bool, stream: str) -> str:
        rows = Rows()
        launch = rows.host()
        kernel = rows.kernel(stream="1", after=[launch])
        talk = rows.meet(stream=stream, after=[kernel])
        rows.kernel(stream="1", after=[talk] if waits else [])
        return " ".join(lower(job(rows.rank())).notes)

    assert "no dependency has a kernel wait for communication: a replay" in notes(False, "2")
    assert "no dependency" not in notes(True, "2")
    assert "no dependency" not in notes(False, "1")  # one queue for both is an order


def test_shapes_and_shares_of_cores_are_kept() -> None:
    rows = Rows()
    rows.host(), rows.kernel(), rows.nothing(), rows.kernel(), rows.meet()
    shape = gemm_shape(2, 3, 4, "fp8")
    one = replace(
        rows.rank(), shapes=(shape,), shape=np.array([0, -1, -1, 0, 0]), cores=np.array([0.5, 1.0, 1.0, 0.25, 0.5])
    )
    alone = [Communicator("alone", size=1)]
    ops = lower(job(one, communicators=alone)).ops
    assert ops.shapes == (shape,) and ops.shape.tolist() == [-1, -1, 0, -1]
    assert ops.cores.tolist() == [1.0, 1.0, 0.25, 1.0]
    two = replace(one, rank=1, shapes=(gemm_shape(2, 3, 5, "fp8"),))
    three = replace(one, rank=2, cores=one.cores / 2)
    assert lower(job(one, two, three, communicators=alone)).program.tolist() == [0, 1, 2]


# -- order and dependencies against plain readings of their definitions ------------------------------------


def random_graph(rng: random.Random, forward: bool = False) -> tuple[int, list[tuple[int, int]]]:
    count, most = rng.randrange(1, 60), rng.choice([2, 4, 9])
    number = list(range(count))
    if forward:
        rng.shuffle(number)
    edges = {(number[i], number[rng.randrange(i)]) for i in range(1, count) for _ in range(rng.randrange(most))}
    return count, sorted(edges)


def csr(count: int, edges: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.array(edges, np.int64).reshape(-1, 2)
    return edges_csr(count, pairs[:, 0], pairs[:, 1])


def by_heap(count: int, edges: Sequence[tuple[int, int]], length: Sequence[float]) -> tuple[list[int], list[float]]:
    """Rows by (ready, row), one at a time."""
    waiting = [sum(row == r for row, _ in edges) for r in range(count)]
    ready = [0.0] * count
    heap = [(0.0, r) for r in range(count) if not waiting[r]]
    out = []
    while heap:
        start, here = heapq.heappop(heap)
        out.append(here)
        for row in (row for row, dep in edges if dep == here):
            ready[row] = max(ready[row], start + length[here])
            waiting[row] -= 1
            if not waiting[row]:
                heapq.heappush(heap, (ready[row], row))
    return out, ready


@pytest.mark.parametrize("seed", range(60))
def test_order_is_the_one_of_its_definition(seed: int) -> None:
    rng = random.Random(seed)
    count, edges = random_graph(rng, forward=seed % 3 > 0)
    length = [rng.choice([0.0, 0.0, 0.5, 1.0, 3.0]) for _ in range(count)]
    key = [rng.choice([-1, -1, 0, 1]) for _ in range(count)]
    _, steps = by_heap(count, edges, [1.0] * count)
    meets = sorted((r for r in range(count) if key[r] >= 0), key=lambda r: (key[r], steps[r], r))
    chain = [(b, a) for a, b in itertools.pairwise(meets) if key[a] == key[b]]
    expected, _ = by_heap(count, [*edges, *(e for e in chain if e not in edges)], length)
    got = orders.in_order(*csr(count, edges), np.array(length), np.array(key, np.int64))
    assert got is not None and got.tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_ready_and_topological_order(seed: int) -> None:
    count, edges = random_graph(random.Random(seed), forward=True)
    ptr, idx = csr(count, edges)
    order = orders.topological(ptr, idx)
    assert order is not None and sorted(order.tolist()) == list(range(count))
    position = {row: at for at, row in enumerate(order.tolist())}
    assert all(position[dep] < position[row] for row, dep in edges)
    length = [float(i % 5) for i in range(count)]
    assert orders.ready(ptr, idx, np.array(length), order).tolist() == by_heap(count, edges, length)[1]


def test_circles_are_found() -> None:
    edges = [(1, 0), (2, 1), (3, 2), (1, 3), (4, 3)]
    ptr, idx = csr(5, edges)
    assert orders.topological(ptr, idx) is None
    assert orders.on_circle(ptr, idx) == 1
    ptr, idx = csr(3, [(1, 0), (2, 2)])
    assert orders.topological(ptr, idx) is None
    assert orders.on_circle(ptr, idx) == 2


def needed(count: int, edges: Sequence[tuple[int, int]], queue: Sequence[int]) -> list[tuple[int, int]]:
    """Row by row, with what each queue knows of the others."""
    waits: list[dict[int, int]] = []
    known: dict[int, dict[int, int]] = {}
    out = []
    for row in range(count):
        latest: dict[int, int] = {}
        for dep in (d for r, d in edges if r == row):
            for q, at in ({queue[dep]: dep} if queue[dep] >= 0 else waits[dep]).items():
                latest[q] = max(latest.get(q, -1), at)
        waits.append(latest)
        if queue[row] >= 0:
            mine = known.setdefault(queue[row], {})
            fresh = {q: at for q, at in latest.items() if q != queue[row] and at > mine.get(q, -1)}
            mine.update(fresh)
            out += [(row, at) for at in sorted(fresh.values())]
    return out


@pytest.mark.parametrize("seed", range(60))
def test_needed_dependencies_are_those_of_their_definition(seed: int) -> None:
    rng = random.Random(seed)
    count, edges = random_graph(rng)
    queue = [rng.choice(([0, 1, 2], [-1, 0, 1, 2], [-1, -1, -1, 0, 1, 2])[seed % 3]) for _ in range(count)]
    row, dep = orders.needed_deps(*csr(count, edges), np.array(queue, np.int64))
    assert list(zip(row.tolist(), dep.tolist(), strict=True)) == needed(count, edges, queue)


def test_many_queues_are_told_apart() -> None:
    # of 300 queues, the pairs (0, 1) and (218, 137) are 65536 apart
    edges, queue = [(2, 1), (3, 0), (4, 0)], [137, 1, 0, 218, 299]
    row, dep = orders.needed_deps(*csr(5, edges), np.array(queue))
    assert list(zip(row.tolist(), dep.tolist(), strict=True)) == edges


def test_what_takes_no_time_or_an_unknown_one_when_rows_are_put_in_order() -> None:
    rows = Rows()
    talk = rows.meet()
    rows.kernel("after talk", after=[talk])
    short = rows.kernel("short", 0.5)
    rows.kernel("after short", after=[short])
    nothing = rows._add(PASS, "", "", 9.0, ())
    rows.kernel("after nothing", after=[nothing])
    got = lower(job(rows.rank(in_order=False)))
    # communication of unknown length is taken for 1 us
    assert names(got) == ["all_reduce", "short", "after nothing", "after short", "after talk"]


def test_rows_out_of_order_are_put_in_order() -> None:
    rows = Rows()
    rows.kernel("late", 1.0, after=[2]), rows.kernel("b", 1.0), rows.kernel("a", 3.0), rows.meet(after=[1])
    got = lower(job(rows.rank(in_order=False)))
    assert names(got) == ["b", "a", "all_reduce", "late"]
    assert deps(got, 2) == [0]


def test_order_that_cannot_be_is_refused() -> None:
    rows = Rows()
    rows.kernel("a", after=[1]), rows.kernel("b", after=[0])
    with pytest.raises(InputError, match=r"job\.file: rank 0, row 0 \('a'\) waits for itself through others"):
        lower(job(rows.rank(in_order=False)))
    with pytest.raises(InputError, match=r"row 0 \('a'\) waits for row 1, which was issued no earlier"):
        lower(job(rows.rank()))
    for us in (-1.0, float("inf")):
        wrong = Rows()
        wrong.kernel(), wrong.kernel("x", us)
        with pytest.raises(InputError, match=r"row 1 \('x'\): a recorded time of"):
            lower(job(wrong.rank()))


# -- equal ranks -------------------------------------------------------------------------------------------


def ddp(rank: int, *, us: float = 1.0, name: str = "k", redundant: bool = False) -> RankTrace:
    rows = Rows()
    first = rows.kernel(name, us)
    second = rows.kernel(name, us)
    rows.meet(after=[first, second] if redundant else [second])
    return rows.rank(rank)


def test_equal_ranks_share_a_program_whatever_their_ops_are_called() -> None:
    got = lower(job(ddp(0), ddp(1, name="other"), ddp(2, us=2.0), ddp(3, redundant=True)))
    assert got.program.tolist() == [0, 0, 1, 0]
    assert got.program_ptr.tolist() == [0, 3, 6]
    assert names(got) == ["k", "k", "all_reduce"] * 2
    assert got.facts.recorded_class_s["compute"] == pytest.approx(2.5e-6)


def test_streams_and_kernel_classes_tell_programs_apart() -> None:
    def one(rank: int, stream: str, kernel: str) -> RankTrace:
        rows = Rows()
        rows.kernel(stream=stream, kernel=kernel)
        return rows.rank(rank)

    got = lower(job(one(0, "1", "gemm"), one(1, "2", "gemm"), one(2, "1", "generic"), one(3, "1", "gemm")))
    assert got.program.tolist() == [0, 1, 2, 0]
    assert got.ops.streams == ("stream 1", "stream 2") and got.ops.kernels == ("gemm", "generic")


def test_equal_columns_are_lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    needed_deps = orders.needed_deps
    monkeypatch.setattr(orders, "needed_deps", lambda *args: calls.append(1) or needed_deps(*args))
    template = ddp(0)
    copies = {
        f.name: getattr(template, f.name).copy()
        for f in fields(RankTrace)
        if isinstance(getattr(template, f.name), np.ndarray)
    }
    shared = [replace(template, rank=rank) for rank in range(4)]
    equal = [replace(template, rank=rank, **copies) for rank in range(4, 8)]
    got = lower(job(*shared, *equal), ranks=512)
    assert got.ranks == 512 and set(got.program) == {0} and len(got.ops) == 3
    assert calls == [1]


# -- groups of copies --------------------------------------------------------------------------------------


def members(got: Programs, slot: int = 0) -> list[tuple[int, ...]]:
    """Ranks of each group of a slot, by first rank."""
    column = got.groups[:, slot]
    return sorted(tuple(np.flatnonzero(column == g).tolist()) for g in np.unique(column[column >= 0]))


def meets(rank: int, *groups: int, size_B: float = 8, what: str = "all_reduce") -> RankTrace:
    rows = Rows()
    for group in groups:
        rows.meet(group, size_B=size_B, what=what)
    return rows.rank(rank)


@pytest.mark.parametrize(
    ("listed", "ranks", "expected"),
    [
        ((0, 1), 6, [(0, 1), (2, 3), (4, 5)]),
        ((0, 2), 8, [(0, 2), (1, 3), (4, 6), (5, 7)]),
        ((0, 4), 8, [(0, 4), (1, 5), (2, 6), (3, 7)]),
        ((0, 2, 4), 12, [(0, 2, 4), (1, 3, 5), (6, 8, 10), (7, 9, 11)]),
        ((0,), 3, [(0,), (1,), (2,)]),
        ((0, 1, 2, 3), 4, [(0, 1, 2, 3)]),
        ((0, 3), 6, [(0, 3), (1, 4), (2, 5)]),
    ],
)
def test_groups_of_copies_tile_the_job(listed: tuple[int, ...], ranks: int, expected: list[tuple[int, ...]]) -> None:
    got = lower(job(meets(0, 0), communicators=[Communicator("g", listed)]), ranks=ranks)
    assert members(got) == expected


def test_groups_that_do_not_start_a_block_tile_too() -> None:
    got = lower(job(meets(1, 0), communicators=[Communicator("g", (1, 2))]), ranks=4)
    assert members(got) == [(0, 3), (1, 2)]
    got = lower(job(meets(5, 0), communicators=[Communicator("g", (1, 5))]), ranks=16)
    assert members(got)[:5] == [(0, 4), (1, 5), (2, 6), (3, 7), (8, 12)]


def test_copies_join_the_groups_of_recorded_ranks_whatever_their_names() -> None:
    two = [
        Communicator("1", (0, 1)),
        Communicator("2", (2, 3)),
        Communicator("dp", (0, 2)),
        Communicator("dp2", (1, 3)),
    ]
    got = lower(job(meets(0, 0, 2), meets(3, 1, 3), communicators=two), ranks=8)
    assert members(got, 0) == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert members(got, 1) == [(0, 2), (1, 3), (4, 6), (5, 7)]


def test_communicators_of_the_same_members_are_kept_apart() -> None:
    same = [Communicator("a", (0, 1)), Communicator("b", (0, 1)), Communicator("all"), Communicator("", ())]
    got = lower(job(meets(0, 1, 0, 2, 3), communicators=same), ranks=4)
    assert got.groups.shape == (4, 4)
    assert len(np.unique(got.groups)) == 2 + 2 + 1 + 1
    assert got.groups[0].tolist() == got.groups[1].tolist() == [0, 1, 2, 3]


def test_the_whole_recorded_world_becomes_the_whole_job() -> None:
    world = [Communicator("world", tuple(range(8))), Communicator("tp", (0, 1))]
    got = lower(job(meets(0, 0, 1), communicators=world, world_size=8), ranks=32)
    assert len(members(got)) == 1 and len(members(got, 1)) == 16
    assert "communicator 'world' had all 8 recorded ranks; here it has all 32 of the job" in got.notes
    alone = lower(job(meets(0, 0, 1), communicators=world, world_size=8))
    assert alone.ranks == 8 and not any("recorded ranks;" in note for note in alone.notes)


@pytest.mark.parametrize(
    ("placement", "expected"), [("contiguous", [(0, 1, 2), (3, 4, 5)]), ("strided", [(0, 2, 4), (1, 3, 5)])]
)
def test_groups_known_by_size_are_placed(placement: Any, expected: list[tuple[int, ...]]) -> None:
    known = [Communicator("tp", size=3), Communicator("tp", (), 6), Communicator("listed", (0, 1, 2))]
    got = lower(job(meets(0, 0, 1, 2), communicators=known), ranks=6, placement=placement)
    assert members(got, 0) == expected and members(got, 1) == [tuple(range(6))]
    assert members(got, 2) == [(0, 1, 2), (3, 4, 5)]
    assert len(np.unique(got.groups)) == 5  # a size and a list are not the same communicator
    assert any("communicator 'tp' is known by its size (3) only" in note for note in got.notes)


@pytest.mark.parametrize("placement", [[1, 2, 3, 0], {0: 1, 1: 2, 2: 3, 3: 0}])
def test_a_list_places_ranks(placement: Any) -> None:
    trace = job(ddp(0), ddp(1), ddp(2, us=2.0), ddp(3, us=3.0))
    assert lower(trace).program.tolist() == [0, 0, 1, 2]
    got = lower(trace, placement=placement)
    assert got.program.tolist() == [2, 0, 0, 1]
    pairs = job(meets(0, 0), meets(1, 1), meets(2, 0), meets(3, 1), communicators=[
        Communicator("a", (0, 2)), Communicator("b", (1, 3)),
    ])  # fmt: skip
    assert members(lower(pairs, placement=[0, 2, 1, 3])) == [(0, 1), (2, 3)]
    for wrong in ([0, 1, 2], [0, 0, 1, 2], [0, 1, 2, 4], {0: 0, 1: 1, 2: 2, 5: 3}):
        with pytest.raises(InputError, match=r"the placement has \d entries; expected each of 0 to 3 once"):
            lower(trace, placement=wrong)


def test_placements_are_read_from_json(tmp_path: Path) -> None:
    path = tmp_path / "place.json"
    for data, expected in (([1, 0], [1, 0]), ({"0": 1, "1": 0}, {0: 1, 1: 0})):
        path.write_text(json.dumps(data))
        assert read_placement(path) == expected
    for text, message in (
        ("[1,", "not valid JSON"),
        ('{"a": 1}', "'a' is no rank"),
        ("[-1]", "not a placement"),
        ("3", "not"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            read_placement(path)


@pytest.mark.parametrize(
    ("communicator", "ranks", "message"),
    [
        (Communicator("g", (0, 1, 3)), 8, "communicator 'g' has ranks 0, 1, 3, which are no equal steps"),
        (Communicator("g", (0, 1, 2)), 8, "cannot be repeated over 8 ranks; give ranks= a multiple of 3"),
        (Communicator("g", (0, 9)), 8, "communicator 'g' has rank 9, the job has 8 ranks; give ranks="),
        (Communicator("g", (1, 2)), 8, "rank 0 uses communicator 'g' and is not in it"),
        (Communicator("g", size=3), 8, "cannot be shared out into groups of that size"),
        (Communicator("g", size=16), 8, "cannot be shared out into groups of that size"),
    ],
)
def test_groups_that_copies_cannot_have(communicator: Communicator, ranks: int, message: str) -> None:
    with pytest.raises(InputError, match=f"job.file: .*{message}"):
        lower(job(meets(0, 0), communicators=[communicator]), ranks=ranks)


def test_uneven_groups_are_fine_where_all_ranks_have_files() -> None:
    uneven = [Communicator("g", (0, 1, 3)), Communicator("h", (2,)), Communicator("unused", (7, 9))]
    got = lower(job(meets(0, 0), meets(1, 0), meets(2, 1), meets(3, 0), communicators=uneven))
    assert members(got) == [(0, 1, 3), (2,)]


def test_messages_of_copies_move_with_the_rank() -> None:
    def ring(rank: int) -> RankTrace:
        rows = Rows()
        rows.send((rank + 1) % 4, tag=3), rows.recv((rank - 1) % 4, tag=3)
        return rows.rank(rank)

    got = lower(job(*(ring(rank) for rank in range(4))), ranks=8)
    assert len(got.program_ptr) == 2
    ends = {(rank, slot): int(got.groups[rank, slot]) for rank in range(8) for slot in range(2)}
    for rank in range(4):  # channels of recorded ranks are theirs, those of copies lie four further on
        assert ends[rank, 0] == ends[(rank + 1) % 4, 1]
        assert ends[rank + 4, 0] == ends[4 + (rank + 1) % 4, 1]
    assert len(set(ends.values())) == 8


def test_tags_tell_channels_apart() -> None:
    a, b = Rows(), Rows()
    a.send(1, tag=1), a.send(1, tag=2), a.send(1, tag=1)
    b.recv(0, tag=2), b.recv(0, tag=1), b.recv(0, tag=1)
    got = lower(job(a.rank(0), b.rank(1)))
    assert got.ops.slot.tolist() == [0, 1, 0, 0, 1, 1]
    assert got.groups.tolist() == [[0, 1], [1, 0]]


# -- what can never meet -----------------------------------------------------------------------------------


def test_what_never_meets_is_refused_and_the_way_out_works() -> None:
    a = [Communicator("a")]
    for ranks, message in (
        ([meets(0, 0), meets(1, 0, what="all_gather")],
         r"communicator 'a': rank 1 issues other collectives than rank 0 \(1 all_gather against 1 all_reduce\)"),
        ([meets(0, 0, 0), meets(1, 0)], r"\(1 all_reduce against 2 all_reduce\)"),
        ([meets(0, 0), only_kernel(1)], "rank 0 waits for rank 1, which never joins"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"job.file: .*{message}"):
            lower(job(*ranks, communicators=a))
        assert lower(job(*ranks, communicators=a), collectives="recorded").ranks == 2
    first, second = Rows(), Rows()
    first.meet(), first.meet(what="all_gather"), second.meet(what="all_gather"), second.meet()
    with pytest.raises(InputError, match="rank 1 issues other collectives than rank 0 in another order"):
        lower(job(first.rank(0), second.rank(1)))


def only_kernel(rank: int) -> RankTrace:
    rows = Rows()
    rows.kernel()
    return rows.rank(rank)


def test_messages_without_a_second_end_are_refused() -> None:
    def sends(peer: int) -> RankTrace:
        rows = Rows()
        rows.send(peer, tag=4)
        return rows.rank(0)

    with pytest.raises(InputError, match="channel 0 -> 1, tag 4: 1 sends and 0 receives"):
        lower(job(sends(1), only_kernel(1)))
    with pytest.raises(InputError, match="a send from rank 0 to rank 7 in a job of 2 ranks"):
        lower(job(sends(7), only_kernel(1)))
    with pytest.raises(InputError, match="a rank does not send to itself"):
        lower(job(sends(0), only_kernel(1)))


def test_sizes_that_differ_between_ranks_become_the_largest() -> None:
    def one(rank: int, *sizes_B: float) -> RankTrace:
        rows = Rows()
        for size_B in sizes_B:
            rows.meet(size_B=size_B, what="all_to_all")
        return rows.rank(rank)

    got = lower(job(one(0, 8, 16), one(1, 8, 24), one(2, 8, 4)))
    assert got.ops.bytes_B.tolist() == [8, 24] * 3
    assert "1 collectives differ in size between ranks: all are given the largest" in got.notes


def test_a_rank_without_ops_stands_idle() -> None:
    host = Rows()
    host.host()
    trace = job(ddp(0), Rows().rank(1), host.rank(2), communicators=[Communicator("alone", (0,))])
    got = lower(trace, host_ops=False)
    assert np.diff(got.program_ptr).tolist() == [3, 1] and got.program.tolist() == [0, 1, 1]
    assert names(got)[3] == "idle" and got.ops.recorded_s[3] == 0.0 and got.groups[1:].tolist() == [[-1], [-1]]
    assert "2 ranks without an op to replay stand idle" in got.notes
    with pytest.raises(InputError, match="holds no op to replay"):
        lower(job(host.rank(0)), host_ops=False)


def test_jobs_that_are_not_whole() -> None:
    with pytest.raises(InputError, match="files of ranks 1 are missing"):
        lower(job(ddp(0), ddp(2)))
    with pytest.raises(InputError, match="more than a job of 2 ranks"):
        lower(job(ddp(0), ddp(2)), ranks=2)
    with pytest.raises(InputError, match="more than a job of 2 ranks"):
        lower(job(ddp(0), ddp(2), world_size=2))
    with pytest.raises(InputError, match="at most 1048576 are replayed"):
        lower(job(ddp(0), world_size=2**31))
    with pytest.raises(InputError, match="holds no op to replay"):
        lower(job())
    rows = Rows()
    rows.nothing()
    with pytest.raises(InputError, match="holds no op to replay"):
        lower(job(rows.rank()))
    got = lower(job(ddp(0), ddp(2, us=3.0)), ranks=4)
    assert got.program.tolist() == [0, 1, 1, 1]


# -- the front door ----------------------------------------------------------------------------------------


def test_the_front_door_passes_choices_on() -> None:
    path = SAMPLES / "resnet50_ddp_rank0"
    assert open_trace(path).counts()["format"] == "chakra-et"
    whole = load_trace(path, ranks=8)
    assert len(load_trace(path, ranks=8, host_ops=False).ops) == 1216 < len(whole.ops)
    recorded = load_trace(path, ranks=8, collectives="recorded")
    assert COLLECTIVE not in recorded.ops.kind and len(recorded.ops) == len(whole.ops)
    with pytest.raises(InputError, match="expected each of 0 to 7 once"):
        load_trace(path, ranks=8, placement=[0])
    with pytest.raises(InputError, match="larger than 10 bytes"):
        open_trace(path, limit_B=10)
    with pytest.raises(InputError, match=f"no known format of traces .{', '.join(IMPORTERS)}."):
        open_trace(Path(__file__))


TRACES = Path(__file__).parents[2] / "workloads" / "traces"
SHARED = Path(__file__).parents[2].parent / "shared" / "traces"
FOLDERS = ("aicb", "ascend", "astra_v1", "chakra", "goal", "kineto", "pytorch_et", "simai")


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("root", [TRACES, SHARED], ids=["ours", "shared"])
def test_each_sample_is_known_by_its_content(root: Path, folder: str) -> None:
    """Files of one format are never taken for those of another, whatever order importers are asked in."""
    beside = ("mergedAB.json", "LICENSE-MulanPSL-2.0.txt")
    files = sorted(p for p in (root / folder).rglob("*") if p.is_file() and p.name not in beside)
    if not files:
        pytest.skip(f"no samples in {root / folder}")
    name = {"astra_v1": "astra", "simai": "astra"}.get(folder, folder)
    for path in files:
        start = head(path)
        claimed = [key for key, importer in IMPORTERS.items() if importer.sniff(start, path)]
        # what is looked at before a reader is imported never speaks for it
        readers = {key: importlib.import_module(importer.module) for key, importer in IMPORTERS.items()}
        assert claimed == [key for key, reader in readers.items() if reader.sniff(start, path)]
        above = [key for key, importer in IMPORTERS.items() if importer.sniff(b"", path.parent)]
        assert above == [key for key, reader in readers.items() if reader.sniff(b"", path.parent)]
        assert claimed and claimed[0] == name, (path.name, claimed)
        # a text may by chance be a protobuf message: that importer is asked last
        assert set(claimed) - {"chakra"} <= {name}, (path.name, claimed)
