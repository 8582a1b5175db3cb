"""cmsim's own form of a trace: what is written is what is read, and what is wrong is named."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cmsim.compute import gemm_shape
from cmsim.errors import InputError
from cmsim.traces import columnar, load_trace, open_trace
from cmsim.traces.columnar import open_, write_trace
from cmsim.traces.recorded import PASS, Communicator, RankTrace, Trace, rank_trace
from cmsim.workload.ops import COLLECTIVE, COMPUTE, HOST, RECV, SEND

NAN = float("nan")
SAMPLES = Path(__file__).parents[2] / "workloads" / "traces" / "chakra"


def random_rank(rank: int, rng: random.Random, count: int) -> RankTrace:
    kind = [rng.choice([COMPUTE, HOST, COLLECTIVE, SEND, RECV, PASS]) for _ in range(count)]
    edges = {(row, rng.randrange(count)) for row in range(count) for _ in range(rng.randrange(4))}
    return rank_trace(
        rank,
        name=[rng.choice(["", "größe", "a" * 300, f"k{i}"]) for i in range(count)],
        kind=kind,
        stream=[rng.choice(["", "7", "copy"]) for _ in kind],
        start_us=[rng.choice([NAN, rng.random() * 1e6]) for _ in kind],
        duration_us=[rng.choice([NAN, 0.0, rng.random()]) for _ in kind],
        kernel=[rng.choice(["gemm", "generic"]) if k == COMPUTE else "" for k in kind],
        precision=[rng.choice(["", "bf16", "fp8"]) for _ in kind],
        flops=[rng.choice([0.0, 1e15 * rng.random()]) for _ in kind],
        bytes_B=[rng.choice([0.0, float(2**60)]) for _ in kind],
        collective=["all_to_all" if k == COLLECTIVE else "" for k in kind],
        group=[rng.randrange(2) if k == COLLECTIVE else -1 for k in kind],
        peer=[rng.randrange(9) if k in (SEND, RECV) else -1 for k in kind],
        tag=[rng.choice([0, -1, 2**62]) for _ in kind],
        deps=tuple(np.array(sorted(edges), np.int64).reshape(-1, 2).T),
        in_order=rng.random() < 0.5,
        shape=[rng.choice([None, gemm_shape(1, 2, 3.5, "bf16"), gemm_shape(4, 5, 6, "fp8")]) for _ in kind],
        cores=rng.choice([None, [rng.choice([0.25, 1.0]) for _ in kind]]),
    )


def random_trace(seed: int = 1) -> Trace:
    rng = random.Random(seed)
    sizes = rng.sample([0, 1, 30, 50], 4)
    ranks = {rank: random_rank(rank, rng, size) for rank, size in zip(rng.sample(range(100), 4), sizes, strict=True)}
    return Trace(
        "a format",
        "somewhere.json",
        dict(sorted(ranks.items())),
        (Communicator("", (), 0), Communicator("tp", (0, 4, 8), 3), Communicator("dp", (), 16))[: seed % 2 + 2],
        world_size=seed % 3 * 64,
        recorded_us=NAN if seed % 2 else 12.25,
        notes=("one", "zwei ü"),
        facts={"tokens_per_run": 0.1, "steps": 3.0},
    )


def same(one: Trace, two: Trace) -> None:
    for name in ("format", "communicators", "world_size", "notes", "facts"):
        assert getattr(one, name) == getattr(two, name), name
    assert one.recorded_us == pytest.approx(two.recorded_us, rel=0, nan_ok=True)
    assert list(one.ranks) == list(two.ranks)
    for rank in one.ranks:
        for field in fields(RankTrace):
            a, b = getattr(one.ranks[rank], field.name), getattr(two.ranks[rank], field.name)
            if isinstance(a, np.ndarray):
                assert a.dtype == b.dtype, field.name
                assert np.array_equal(a, b, equal_nan=a.dtype == np.float64), field.name
            else:
                assert a == b, field.name


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_lost(tmp_path: Path, seed: int) -> None:
    trace, path = random_trace(seed), tmp_path / "t.parquet"
    write_trace(trace, path)
    opened = open_trace(path)
    same(trace, opened.trace())
    rows = sum(len(one) for one in trace.ranks.values())
    assert opened.counts() == {
        "format": "cmsim", "recorded_format": "a format", "converted_from": "somewhere.json",
        "ranks": 4, "rows": rows, "communicators": len(trace.communicators),
    }  # fmt: skip
    assert opened.trace().source == str(path)


def test_same_trace_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_trace(random_trace(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_texts_that_no_row_uses_are_dropped(tmp_path: Path) -> None:
    one = replace(random_rank(0, random.Random(3), 5), streams=("x", "7", "copy", "y"))
    write_trace(Trace("f", "s", {0: one}, (Communicator("a"), Communicator("b"))), tmp_path / "t")
    got = open_(tmp_path / "t").trace().ranks[0]
    texts = [one.streams[i] if i >= 0 else "" for i in one.stream]
    assert [got.streams[i] if i >= 0 else "" for i in got.stream] == texts
    assert set(got.streams) == set(texts) - {""}


@pytest.mark.parametrize("sample", ["ring_allreduce_8npus_1MB", "stg_merged_two_jobs_8npus", "resnet50_ddp_rank0"])
def test_a_converted_trace_replays_alike(tmp_path: Path, sample: str) -> None:
    path = tmp_path / "converted"  # no name says what it is
    write_trace(open_trace(SAMPLES / sample).trace(ranks=8), path)
    before, after = load_trace(SAMPLES / sample, ranks=8), load_trace(path, ranks=8)
    assert before.notes == after.notes and before.facts == after.facts
    assert np.array_equal(before.groups, after.groups) and np.array_equal(before.program, after.program)
    for field in fields(before.ops):
        a, b = getattr(before.ops, field.name), getattr(after.ops, field.name)
        assert np.array_equal(a, b, equal_nan=a.dtype == float) if isinstance(a, np.ndarray) else a == b, field.name


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    write_trace(random_trace(), path)
    before = path.read_bytes()

    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(columnar, "_columns", fails)
    with pytest.raises(InputError, match=r"t\.parquet: cannot be written \(No space left on device\)"):
        write_trace(random_trace(2), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["t.parquet"]
    with pytest.raises(InputError, match="cannot be written"):
        write_trace(random_trace(), tmp_path / "none" / "t.parquet")


def refused(path: Path, message: str, **more: Any) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_(path, **more)
    assert str(path) in str(caught.value)


def rewritten(path: Path, change: Any = None, **about: Any) -> Path:
    """A file of ours with a change to its table or to what its metadata say."""
    write_trace(random_trace(), path)
    table = pq.read_table(path)
    said = json.loads(table.schema.metadata[b"cmsim_trace"]) | about
    sums = table.schema.metadata[b"cmsim_trace_sha256"]
    if change is not None:
        table = change(table)
    text = json.dumps(said, separators=(",", ":"))
    pq.write_table(table.replace_schema_metadata({"cmsim_trace": text, "cmsim_trace_sha256": sums}), path)
    return path


def with_column(name: str, row: int, value: Any) -> Any:
    def change(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index(name)
        values = table.column(name).to_pylist()
        values[row] = value
        kind = table.schema.field(at).type
        column = (
            pa.array(values, pa.string()).dictionary_encode()
            if pa.types.is_dictionary(kind)
            else pa.array(values, kind)
        )
        return table.set_column(at, table.schema.field(at), column)

    return change


def test_foreign_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    refused(path, "that cmsim did not write: its metadata has no 'cmsim_trace'")
    with pytest.raises(InputError, match="that cmsim did not write"):
        open_trace(path)
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"cmsim_trace": "{"}), path)
    refused(path, "the metadata 'cmsim_trace' is damaged: expected JSON with a version")
    refused(rewritten(path, version=3), "written with version 3 of the form; this cmsim reads up to 2")
    refused(rewritten(path, version="1"), "written with version '1'")
    refused(rewritten(path, ranks=[[0, 1]]), "'ranks' is missing or of the wrong kind")
    refused(rewritten(path, communicators=[["a", -1]]), "'communicators' is missing or of the wrong kind")
    refused(rewritten(path, world_size=None), "'world_size' is missing or of the wrong kind")
    refused(rewritten(path, ranks=[[0, 7, True]]), r"has \d+ rows, its metadata tells of 7")


def test_columns_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    refused(rewritten(path, lambda t: t.drop_columns(["flops"])), "column 'flops' is missing")
    refused(
        rewritten(
            path,
            lambda t: t.set_column(
                t.schema.get_field_index("tag"), "tag", t.column("tag").cast(pa.float64(), safe=False)
            ),
        ),
        "column 'tag' is of type double, expected int64",
    )


def test_changed_values_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    wrong = "is damaged, or was changed by another tool: it is not what its checksum says"
    open_(rewritten(path))
    refused(rewritten(path, notes=["another"]), wrong)
    for name, row, value in (
        ("kind", 3, 6), ("kind", 3, None), ("name", 2, "another"), ("kernel", 2, "magic"), ("collective", 0, "magic"),
        ("group", 1, 300), ("peer", 5, -2), ("duration_us", 1, -1.0), ("deps", 0, [10**6]),
        ("deps", 0, [-1]), ("deps", 0, [None]), ("cores", 0, 0.5),
    ):  # fmt: skip
        refused(rewritten(path, with_column(name, row, value)), wrong)


def test_damage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_trace(random_trace(), path)
    data = path.read_bytes()
    rng = random.Random(4)
    for size in [0, 3, 4, 8, len(data) - 1, *rng.sample(range(len(data)), 40)]:
        path.write_bytes(data[:size])
        refused(path, "t.parquet: ")
    whole = 0
    for _ in range(250):
        damaged = bytearray(data)
        at = rng.randrange(len(data)) if rng.random() < 0.5 else len(data) - 1 - rng.randrange(5000)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            got = open_(path).trace()
        except InputError as error:
            assert str(path) in str(error)
            continue
        same(random_trace(), got)  # it was padding, statistics, the name of the writer
        whole += 1
    assert 0 < whole < 150


def test_size_and_compression(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_trace(random_trace(), path)
    refused(path, "is larger than 1000 bytes when expanded; raise limit_B", limit_B=1000)
    path.write_bytes(gzip.compress(path.read_bytes()))
    refused(path, "not a parquet file that can be read")
    refused(tmp_path / "none", "not a parquet file that can be read")
    assert columnar.sniff(b"PAR1\x15", path) and not columnar.sniff(b"", path) and not columnar.sniff(b"{", path)
