"""Whatever bytes a trace file holds, it is read or refused with InputError; orders honour every dependency."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from cmsim.errors import InputError
from cmsim.traces import load_trace
from cmsim.traces.chakra import chakra_pb2
from cmsim.traces.chakra.file import read_chakra
from cmsim.traces.chakra.job import read_job
from cmsim.traces.chakra.to_trace import to_trace
from cmsim.traces.lower import lower

SAMPLES = Path(__file__).parents[2] / "workloads" / "traces" / "chakra"
SEEDS = {
    "stg": SAMPLES / "stg_merged_two_jobs_8npus" / "mergedAB.0.et",
    "ring": SAMPLES / "ring_allreduce_8npus_1MB" / "custom_allreduce.0.et",
    "no metadata": SAMPLES / "resnet50_no_metadata" / "resnet50_DataParallel.1.et",
    "micro": SAMPLES / "micro_all_gather_4npus_1MB" / "all_gather.1.et",
}
pb: Any = chakra_pb2


def messages_of(data: bytes) -> list[bytes]:
    """The messages of a whole file, each with its length before it."""
    out, at = [], 0
    while at < len(data):
        end, size, shift = at, 0, 0
        while True:
            size |= (data[end] & 0x7F) << shift
            shift, end = shift + 7, end + 1
            if data[end - 1] < 0x80:
                break
        out.append(data[at : end + size])
        at = end + size
    return out


def changed(messages: list[bytes], rng: random.Random) -> bytes:
    """A few changes that keep most messages whole: numbers overwritten in place, messages dropped, doubled, moved."""
    out = list(messages)
    for _ in range(rng.choice([1, 2, 4])):
        at = rng.randrange(len(out))
        edit = rng.randrange(5)
        if edit == 0 and len(out) > 1:
            del out[at]
        elif edit == 1:
            out.insert(rng.randrange(len(out)), out[at])
        elif edit == 2:
            out.insert(rng.randrange(len(out)), out.pop(at))
        elif len(out[at]) > 2:
            message = bytearray(out[at])
            message[rng.randrange(2, len(message))] = rng.choice([0, 1, 2, 7, 9, 127, rng.randrange(256)])
            out[at] = bytes(message)
    return b"".join(out)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few edits: flipped, inserted, deleted, repeated and overwritten bytes, or a cut."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(len(out) + 1)
        edit = rng.randrange(6)
        if edit == 0 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif edit == 1:
            out[at:at] = rng.randbytes(rng.choice([1, 2, 8]))
        elif edit == 2:
            del out[at : at + rng.choice([1, 2, 30])]
        elif edit == 3:
            out[at:at] = out[max(0, at - 40) : at]
        elif edit == 4:
            out[at : at + 3] = rng.choice([b"\xff\xff\xff", b"\x80\x80\x80", b"\0\0\0"])
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


@pytest.mark.parametrize("seed", SEEDS)
def test_mutations_are_read_or_refused(tmp_path: Path, seed: str) -> None:
    messages = messages_of(SEEDS[seed].read_bytes())
    if seed == "ring":
        messages = messages[1:]  # its metadata embeds 20 kB of XML, most changes would land there
    data = b"".join(messages)
    rng = random.Random(seed)
    path = tmp_path / "fuzz.0.et"
    outcomes = {True: 0, False: 0}
    for turn in range(8 * settings.default.max_examples):
        mutant = changed(messages, rng) if turn % 2 else mutated(data, rng)
        path.write_bytes(mutated(gzip.compress(mutant, 1), rng) if turn % 10 == 0 else mutant)
        try:
            lower(to_trace(read_job(path), ranks=8), ranks=8)
            outcomes[True] += 1
        except InputError as error:
            assert str(path) in str(error)
            outcomes[False] += 1
    assert min(outcomes.values()) > 20, outcomes  # both ways are really tried


def test_random_bytes_and_cuts_are_refused(tmp_path: Path) -> None:
    rng = random.Random(1)
    path = tmp_path / "fuzz.0.et"
    for _ in range(500):
        path.write_bytes(rng.randbytes(rng.randrange(200)))
        try:
            read_chakra(path)
        except InputError:
            continue
    data = SEEDS["micro"].read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(InputError):
            read_chakra(path)


def random_trace(rng: random.Random, path: Path) -> dict[int, list[int]]:
    """A random graph written in random file order; its dependencies by node id."""
    count = rng.randrange(2, 60)
    ids = rng.sample(range(1, 1000), count)
    deps = {ids[i]: rng.sample(ids[:i], min(i, rng.randrange(5))) for i in range(count)}
    messages = []
    for ident, after in deps.items():
        kind, attrs = 4, {"is_cpu_op": int(rng.random() < 0.3)}
        draw = rng.random()
        if draw < 0.15:
            kind, attrs = 7, {"comm_type": 0, "comm_size": 8, "pg_name": 1 + int(draw < 0.07)}
        elif draw < 0.2:
            kind = 1
        elif draw < 0.3:
            attrs = {"stream": 9}
        raw = [pb.AttributeProto(name=k, int64_val=v).SerializeToString() for k, v in attrs.items()]
        node = pb.Node(
            id=ident, name=str(ident), type=kind, data_deps=after, duration_micros=rng.randrange(9), attr=raw
        )
        node.attr.extend(raw)
        messages.append(node.SerializeToString())
    rng.shuffle(messages)
    sizes = [bytes([n]) if (n := len(m)) < 128 else bytes([n & 127 | 128, n >> 7]) for m in messages]
    path.write_bytes(b"".join(size + m for size, m in zip(sizes, messages, strict=True)))
    return deps


@pytest.mark.parametrize("seed", range(40))
def test_queues_and_kept_dependencies_imply_every_recorded_one(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "t.0.et"
    deps = random_trace(random.Random(seed), path)
    ops = load_trace(path, ranks=2).ops
    row_of = {int(ops.names[name]): row for row, name in enumerate(ops.name_id)}
    before = np.zeros((len(ops), len(ops)), bool)  # before[a, b]: b must have ended when a starts
    last: dict[int, int] = {}
    for row in range(len(ops)):
        direct = ops.dep_idx[ops.dep_ptr[row] : ops.dep_ptr[row + 1]].tolist()
        assert all(d < row for d in direct)
        if int(ops.stream[row]) in last:
            direct.append(last[int(ops.stream[row])])
        last[int(ops.stream[row])] = row
        for d in direct:
            before[row] |= before[d]
            before[row, d] = True

    def implied(row: int, ident: int) -> bool:
        if ident in row_of:
            return bool(before[row, row_of[ident]])
        return all(implied(row, d) for d in deps[ident])  # a metadata node stands for what it waits for

    assert all(implied(row, d) for ident, row in row_of.items() for d in deps[ident])
    assert len(ops.dep_idx) <= sum(map(len, deps.values())) + len(deps)


def test_file_order_changes_nothing(tmp_path: Path) -> None:
    for seed in range(10):
        one, two = tmp_path / "a.0.et", tmp_path / "b.0.et"
        deps = random_trace(random.Random(seed), one)
        file = read_chakra(one)
        messages = messages_of(one.read_bytes())
        two.write_bytes(b"".join(messages[::-1]))
        assert len(messages) == len(file) == len(deps)
        a, b = load_trace(one).ops, load_trace(two).ops
        assert [a.names[i] for i in a.name_id] == [b.names[i] for i in b.name_id]
        assert (a.stream == b.stream).all() and (a.dep_idx == b.dep_idx).all() and (a.dep_ptr == b.dep_ptr).all()
