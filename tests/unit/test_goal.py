"""GOAL schedules, text and binary: counts established by others, dependencies, wildcards, and damaged files."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from cmsim.errors import InputError
from cmsim.reading import DATA
from cmsim.reading.bytes_in import head
from cmsim.traces.goal import binary as goal_binary
from cmsim.traces.goal import text as goal
from cmsim.traces.recorded import PASS
from cmsim.workload.ops import COMPUTE, RECV, SEND

SAMPLES = DATA / "workloads" / "traces" / "goal"
SHARED = Path(__file__).parents[2].parent / "shared" / "traces"
PAIR = "goal/binomialtreebcast_128_1024"
TEXTS = (
    "goal/binary_tree_32.goal",
    f"{PAIR}.goal",
    "goal/blocking.goal",
    "goal/portals_ext_test.goal",
    "goal/schedgen_schedule_4.goal",
)
NEEDS_FILES = pytest.mark.skipif(not SHARED.is_dir(), reason="the files are not in the checkout")


def opened(tmp_path, text):
    path = tmp_path / "s.goal"
    path.write_bytes(text.encode())
    return goal.open_(path)


def ranks_of(*blocks):
    """A schedule from the statements of each rank."""
    parts = [f"rank {rank} {{\n{block}\n}}\n" for rank, block in enumerate(blocks)]
    return f"num_ranks {len(blocks)}\n" + "".join(parts)


def deps(one):
    """Rows each row waits for."""
    return [one.dep_idx[a:b].tolist() for a, b in zip(one.dep_ptr[:-1], one.dep_ptr[1:], strict=True)]


def node(kind, *, peer=0, size=0, tag=0, cpu=0, nic=0, waits=0, after=(), after_start=()):
    """A node of a binary schedule; ``after`` are the nodes that wait for its end."""
    return kind, peer, size, tag, cpu, nic, waits, tuple(after), tuple(after_start)


def binary(blocks, *, record=39, cookie=4223):
    """A binary schedule, node by node, as the table of fields says."""
    out = []
    for nodes in blocks:
        roots = [i for i, one in enumerate(nodes) if not one[6]]
        body, listed = b"", []
        for kind, peer, size, tag, cpu, nic, waits, after, after_start in nodes:
            at = len(listed)
            listed += [*after, *after_start]
            body += struct.pack("<IbIQIBBIIII", waits, kind, peer, size, tag, cpu, nic, len(after), at,
                                len(after_start), at + len(after))  # fmt: skip
            body += bytes(record - 39)
        out.append(struct.pack(f"<II{len(roots)}I", len(nodes), len(roots), *roots) + body)
        out[-1] += struct.pack(f"<{len(listed)}I", *listed)
    at, table = 6 + 16 * len(blocks), b""
    for block in out:
        table += struct.pack("<QQ", at, at + len(block))
        at += len(block)
    return struct.pack("<QIBB", cookie, len(blocks), 7, 0) + table + b"".join(out)


def written(tmp_path, data):
    path = tmp_path / "s.bin"
    path.write_bytes(data)
    return goal_binary.open_(path)


def assert_equal(first, second):
    assert first.ranks.keys() == second.ranks.keys() and first.notes == second.notes
    assert first.world_size == second.world_size
    for rank, one in first.ranks.items():
        for field in dataclasses.fields(one):
            a, b = getattr(one, field.name), getattr(second.ranks[rank], field.name)
            same = np.array_equal(a, b, equal_nan=a.dtype.kind == "f") if isinstance(a, np.ndarray) else a == b
            assert same, (rank, field.name)


# -- counts ------------------------------------------------------------------------------------------------


@NEEDS_FILES
@pytest.mark.parametrize("name", TEXTS)
def test_counts_are_those_another_parser_found(name):
    path = SHARED / name
    assert goal.sniff(head(path), path)
    truth = json.loads((SHARED / "TRUTH.json").read_text())[name]
    counts = goal.open_(path).counts()
    more = {"portals_statements": 7} if "portals" in name else {}
    assert counts == truth | more


@NEEDS_FILES
def test_counts_of_the_binary_form():
    path = SHARED / f"{PAIR}.bin"
    assert goal_binary.sniff(head(path), path)
    assert goal_binary.open_(path).counts() == json.loads((SHARED / "TRUTH.json").read_text())[f"{PAIR}.bin"]


@NEEDS_FILES
def test_text_and_binary_form_are_one_schedule():
    text, made = goal.open_(SHARED / f"{PAIR}.goal").trace(), goal_binary.open_(SHARED / f"{PAIR}.bin").trace()
    assert_equal(text, made)
    assert sum(len(one) for one in text.ranks.values()) == 254
    assert sum(len(one.dep_idx) for one in made.ranks.values()) == 120


@NEEDS_FILES
def test_the_sample_is_that_file():
    assert (SAMPLES / "blocking.goal").read_bytes() == (SHARED / "goal" / "blocking.goal").read_bytes()


@NEEDS_FILES
def test_a_receive_that_three_ranks_could_meet_is_refused():
    with pytest.raises(InputError, match=r"schedule_4\.goal:47: .*could be met by rank 1 .*rank 2 .*rank 3"):
        goal.open_(SHARED / "goal" / "schedgen_schedule_4.goal").trace()


@NEEDS_FILES
def test_portals_statements_are_refused_by_name():
    with pytest.raises(InputError, match=r"portals_ext_test\.goal:3: l0: put 1b to 1 ct 0 tag 10: .*Portals"):
        goal.open_(SHARED / "goal" / "portals_ext_test.goal").trace()


# -- text --------------------------------------------------------------------------------------------------


def test_a_blocking_send_and_receive():
    trace = goal.open_(SAMPLES / "blocking.goal").trace()
    assert trace.format == "goal-text" and trace.world_size == 2 and sorted(trace.ranks) == [0, 1]
    zero, one = trace.ranks[0], trace.ranks[1]
    assert zero.kind.tolist() == [SEND, COMPUTE, COMPUTE] and one.kind.tolist() == [RECV, COMPUTE, COMPUTE]
    assert deps(zero) == [[1], [], [0]] and not zero.in_order
    assert np.nan_to_num(zero.duration_us).tolist() == [0, 1, 2]
    assert (zero.peer[0], zero.tag[0], zero.bytes_B[0]) == (1, 1, 4) == (one.peer[0] + 1, one.tag[0], one.bytes_B[0])
    assert [zero.streams[s] if s >= 0 else "" for s in zero.stream] == ["", "cpu 0", "cpu 0"]
    assert zero.kernels == ("generic",) and zero.kernel.tolist() == [-1, 0, 0]


def test_a_binomial_tree_waits_for_its_parent(tmp_path):
    blocks = []
    for rank in range(16):
        lines, first = [], 0
        if rank:
            first = rank.bit_length()
            lines.append(f"l0: recv 8b from {rank - (1 << (first - 1))} tag 3")
        for k in range(first, 4):
            lines.append(f"l{k + 1}: send 8b to {rank + (1 << k)} tag 3")
            lines += [f"l{k + 1} requires l0"] if rank else []
        blocks.append("\n".join(lines))
    file = opened(tmp_path, ranks_of(*blocks))
    counts = file.counts()
    assert (counts["sends"], counts["recvs"], counts["requires"], counts["send_bytes"]) == (15, 15, 11, 120)
    trace = file.trace()
    assert [len(one) for one in trace.ranks.values()] == [4, 4, 3, 3, 2, 2, 2, 2, *[1] * 8]
    assert deps(trace.ranks[1]) == [[], [0], [0], [0]] and trace.ranks[1].peer.tolist() == [0, 3, 5, 9]


def test_every_form_of_a_statement(tmp_path):
    text = (
        "// a schedule\n/* of\n two */ num_ranks 2\r\n\r\nrank 1 { a: calc 5 cpu 3\n"
        "send 1 b to 0 tag 4 cpu 1 nic 2  \n  b_2 :recv 2b from 0 tag 7\n\tb_2 requires a // why\n}\n"
        "rank 0{\nrecv 1b from 1 tag 4 nic 1\nsend 2b to 1 tag 7\ncalc 0\n}"
    )
    file = opened(tmp_path, text)
    counts = file.counts()
    assert (counts["cpu_fields"], counts["nic_fields"], counts["calcs"], counts["rank_blocks"]) == (2, 2, 2, 2)
    assert goal.sniff(text.encode(), file.path)
    trace = file.trace()
    assert list(trace.ranks) == [0, 1]
    assert [trace.ranks[1].streams[s] for s in trace.ranks[1].stream if s >= 0] == ["cpu 3"]
    assert trace.ranks[0].kind.tolist() == [RECV, SEND, PASS], "a calculation of no time takes no queue"
    assert deps(trace.ranks[1]) == [[], [], [0]]
    assert trace.notes == ("2 ops name another nic than 0: a rank has one port here",)


def test_ops_that_wait_for_a_start_wait_for_what_it_waits_for(tmp_path):
    block = "a: calc 1\nb: calc 2\nc: calc 3\nd: calc 4\nb requires a\nc irequires b\nd irequires c\nd requires b"
    trace = opened(tmp_path, ranks_of(block)).trace()
    one = trace.ranks[0]
    assert one.kind.tolist() == [COMPUTE] * 4 + [PASS, PASS]
    # 4 is the start of b, 5 the start of c: b waits for its own, which waits for a
    assert deps(one) == [[], [4], [5], [1, 5], [0], [4]]
    assert trace.notes == ("2 waits for the start of another op (irequires): for what that op waits for",)
    assert opened(tmp_path, ranks_of(block)).counts()["irequires"] == 2


def test_labels_of_many_chunks(tmp_path, monkeypatch):
    """Labels outlive the pieces in which a file is read, those of another rank do not."""
    lines = ["l0: calc 1"] + [f"l{i}: calc {i}\nl{i} requires l{i - 1}" for i in range(1, 300)]
    text = ranks_of("\n".join([*lines, "l299 requires l0"]), "l0: calc 7\n")
    whole = opened(tmp_path, text).trace()
    monkeypatch.setattr(goal, "_CHUNK_B", 64)
    file = opened(tmp_path, text)
    assert_equal(file.trace(), whole)
    assert file.counts()["calc_sum"] == sum(range(300)) + 1 + 7 and deps(whole.ranks[0])[299] == [0, 298]
    with pytest.raises(InputError, match=r"s\.goal:606: 'l0 requires l299': rank 1: there is no label l299"):
        opened(tmp_path, text.replace("l0: calc 7", "l0: calc 7\nl0 requires l299"))


def test_wildcards_that_only_one_message_fits(tmp_path):
    """What receives that name their sender take, and what others must take, is not left to a wildcard."""
    zero = "recv 8b from -1 tag -1\nrecv 8b from 2 tag -1\nrecv 8b from 1 tag 5\n" + "recv 9b from -1 tag 6\n" * 2
    one = "send 8b to 0 tag 5\nsend 8b to 0 tag 6"
    two = "send 8b to 0 tag 4\nsend 9b to 0 tag 6\nsend 9b to 0 tag 6"
    file = opened(tmp_path, ranks_of(zero, one, two))
    assert file.counts()["wildcard_recv"] == 4
    trace = file.trace()
    assert trace.ranks[0].peer.tolist() == [1, 2, 1, 2, 2] and trace.ranks[0].tag.tolist() == [6, 4, 5, 6, 6]
    said = "4 receives from any source or of any tag: only one message fits each, which is named"
    assert trace.notes == (said,)
    open_to_two = ranks_of("recv 8b from -1", "send 8b to 0", "send 8b to 0")
    with pytest.raises(InputError, match=r"s\.goal:3: recv 8b from -1: .*rank 1 \(tag 0\), rank 2 \(tag 0\)"):
        opened(tmp_path, open_to_two).trace()
    with pytest.raises(InputError, match=r"s\.goal:4: .*from any source of tag 0 waits for .* never sent"):
        opened(tmp_path, ranks_of("calc 3\nrecv 8b from -1", "calc 1")).trace()


def test_messages_of_a_rank_to_itself_take_no_time(tmp_path):
    trace = opened(
        tmp_path, ranks_of("a: send 8b to 0 tag 2\nb: recv 8b from 0 tag 2\nc: calc 4\nc requires b")
    ).trace()
    assert trace.ranks[0].kind.tolist() == [PASS, PASS, COMPUTE] and deps(trace.ranks[0]) == [[], [0], [1]]
    assert trace.notes == ("1 messages of ranks to themselves take no time",)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (("send 8b to 1", "calc 1"), r":3: send 8b to 1: is never received by rank 1"),
        (("recv 8b from 1", "calc 1"), r":3: recv 8b from 1: waits for a message that rank 1 never sends"),
        (("send 8b to 1", "recv 9b from 0"), r":6: .* of 9 bytes meets a send of 8 bytes: sizes must agree"),
        (("send 8b to 1 tag 1", "recv 8b from 0 tag 2"), r":3: .*: is never received by rank 1"),
        (("send 8b to 1\nsend 8b to 1", "recv 8b from 0"), r":[34]: .*: is never received by rank 1"),
    ],
)
def test_messages_without_a_partner(tmp_path, blocks, message):
    with pytest.raises(InputError, match=r"s\.goal" + message):
        opened(tmp_path, ranks_of(*blocks)).trace()


def test_ranks_without_a_block_are_idle(tmp_path):
    file = opened(tmp_path, "num_ranks 3\nrank 1 {\ncalc 4\n}\n")
    trace = file.trace()
    assert [len(trace.ranks[rank]) for rank in range(3)] == [0, 1, 0]
    assert trace.notes == ("2 of 3 ranks have no block: they are idle",)
    with pytest.raises(InputError, match="the schedule is for 3 ranks, not 4"):
        file.trace(ranks=4)
    with pytest.raises(InputError, match="have no block: damaged"):
        opened(tmp_path, "num_ranks 999999999\nrank 1 {\ncalc 4\n}\n").trace()
    with pytest.raises(InputError, match="holds no op to replay"):
        opened(tmp_path, "num_ranks 1\nrank 0 {\n}\n").trace()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rank 0 {\n}\n", r":1: 'rank 0 \{': there is no rank 0: ranks are not announced by num_ranks before"),
        ("num_ranks 0\n", r":1: 'num_ranks 0': num_ranks must be 1 or more"),
        ("num_ranks 2\nrank 2 {\n}", r":2: .*there is no rank 2: ranks are 0 to 1"),
        ("num_ranks 2\nrank 1 {\n}\nrank 1 {\n}", r"s\.goal: rank 1 has more than one block"),
        ("num_ranks 1\nrank 0 {\ncalc 1\n", r":3: rank 0: the closing brace is missing"),
        ("num_ranks 1\ncalc 1\n", r":2: 'calc 1': stands outside of a rank"),
        ("num_ranks 1\n}\n", r":2: '\}': is no statement"),
        ("num_ranks 1\nnum_ranks 1\n", r":2: 'num_ranks 1': is no statement"),
        ("hello\n", r":1: 'hello': is no statement"),
        ("\n\n", r": num_ranks is missing"),
        ("/* num_ranks 1\n", r":1: .*: the comment does not end"),
        (ranks_of("b requires a"), r":3: 'b requires a': rank 0: there is no label b"),
        (ranks_of("a: calc 1\nb requires a"), r":4: .*there is no label b"),
        (ranks_of("a: calc 1\na requires b\nb: calc 1"), r":4: 'a requires b': uses a label before it is defined"),
        (ranks_of("a: calc 1\nb requires a\nb: calc 1"), r":4: 'b requires a': uses a label before it is defined"),
        (ranks_of("a: calc 1\na: calc 2"), r":4: 'a: calc 2': rank 0: label a stands twice"),
        (ranks_of("a: calc 1\n// x\na requires a"), r":5: 'a requires a': an op that waits for itself"),
        (ranks_of("a: calc 1\na irequires a"), r":4: .*an op that waits for itself"),
        (ranks_of("send 1b to 1"), r":3: 'send 1b to 1': there is no rank 1: ranks are 0 to 0"),
        (ranks_of("send 1b to -1"), r":3: .*there is no rank -1"),
        (ranks_of("send 1b to 0 tag -1"), r":3: .*only a receive can leave the tag open"),
        (ranks_of("send 1b from 0"), r":3: 'send 1b from 0': is no statement of GOAL"),
        (ranks_of("recv 1b to 0"), r":3: .*is no statement"),
        (ranks_of("send 1b"), r":3: .*is no statement"),
        (ranks_of("calc 1b to 0"), r":3: .*is no statement"),
        (ranks_of("calc 1 nic"), r":3: .*is no statement"),
        (ranks_of("calc " + "9" * 40), r":3: .*is no statement"),
        (ranks_of("calc 1\ncalc -3"), r":4: 'calc -3': is no statement"),
        (ranks_of("send 1b to 0 cpu 1 tag 1"), r":3: .*is no statement"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        opened(tmp_path, text)


def test_files_may_be_zipped(tmp_path):
    path = tmp_path / "s"
    path.write_bytes(gzip.compress((SAMPLES / "blocking.goal").read_bytes()))
    assert goal.sniff(head(path), path) and not goal_binary.sniff(head(path), path)
    assert goal.open_(path).counts()["calc_sum"] == 8000
    assert not goal.sniff(b"", path) and not goal.sniff(b"DATA\n1\n", path) and not goal_binary.sniff(b"\x7f", path)


# -- binary ------------------------------------------------------------------------------------------------

SAME = ranks_of(
    "a: calc 10 cpu 1\nb: send 8b to 1 tag 3 cpu 2\nc: calc 20\nd: calc 30\n"
    "b requires a\nc irequires b\nd requires c\nd requires a",
    "a: recv 8b from 0 tag 3\nb: calc 5\nb requires a",
)
BLOCKS = [
    [
        node(3, size=10, cpu=1, after=[1, 3]),
        node(1, peer=1, size=8, tag=3, cpu=2, waits=1, after_start=[2]),
        node(3, size=20, waits=1, after=[3]),
        node(3, size=30, waits=2),
    ],
    [node(2, peer=0, size=8, tag=3, after=[1]), node(3, size=5, waits=1)],
]


@pytest.mark.parametrize("record", [39, 104])
def test_both_records_are_told_apart(tmp_path, record):
    file = written(tmp_path, binary(BLOCKS, record=record))
    counts = file.counts()
    assert counts["node_record_bytes"] == record and counts["last_end"] == counts["file_bytes"]
    assert counts["ops"] == {"calc": 4, "recv": 1, "send": 1} and counts["max_cpu"] == 7
    assert (counts["requires"], counts["irequires"], counts["calc_sum"]) == (4, 1, 65)
    assert_equal(file.trace(), opened(tmp_path, SAME).trace())


def test_wildcards_of_the_binary_form(tmp_path):
    nobody = 2**32 - 1
    file = written(tmp_path, binary([[node(2, peer=nobody, size=8, tag=nobody)], [node(1, peer=0, size=8, tag=4)]]))
    assert (file.trace().ranks[0].peer[0], file.trace().ranks[0].tag[0]) == (1, 4)
    twice = written(tmp_path, binary([[node(2, peer=nobody, size=8)], [node(1, size=8)], [node(1, size=8)]]))
    at = 14 + 3 * 16 + 12
    with pytest.raises(InputError, match=rf"byte {at}: rank 0, node 0 \(recv\): from any source of tag 0 could be met"):
        twice.trace()


def test_operations_of_portals_in_binary_form(tmp_path):
    file = written(tmp_path, binary([[node(3, size=1), node(5, size=1)]], record=104))
    assert file.counts()["ops"] == {"portals": 1, "calc": 1}
    with pytest.raises(InputError, match=r"rank 0, node 1 \(another type\): is an operation of Portals"):
        file.trace()


def test_a_schedule_that_was_read_destructively(tmp_path):
    data = binary(BLOCKS, cookie=2342)
    assert goal_binary.sniff(data, Path("x"))
    with pytest.raises(InputError, match=r"byte 0: .*destructively"):
        written(tmp_path, data)


def patched(at, form, *values):
    data = bytearray(binary(BLOCKS))
    struct.pack_into(form, data, at, *values)
    return bytes(data)


FIRST = 14 + 2 * 16 + 8 + 4  # the first record of rank 0: its roots are node 0 alone


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x7f\x10\0\0\0\0\0\0", r"byte 0: expected the cookie 4223, got 4223, in a file of 8 bytes"),
        (patched(0, "<Q", 4224), r"byte 0: expected the cookie 4223, got 4224"),
        (patched(8, "<I", 2**32 - 1), r"byte 8: 4294967295 ranks are announced"),
        (patched(8, "<I", 0), r"byte 8: 0 ranks are announced"),
        (patched(14, "<Q", 2**63), r"byte 22: rank 0: its block goes from|byte 14: rank 0: its block goes from"),
        (patched(22, "<Q", 1), r"byte 22: rank 0: its block goes from 38 to 1"),
        (patched(46, "<I", 2**32 - 1), r"byte 46: rank 0: nodes of 39 or 104 bytes .* do not fill"),
        (binary(BLOCKS)[:-1], r"byte 38: rank 1: its block goes from"),
        (binary(BLOCKS) + b"x", None),
        (patched(FIRST + 4, "<b", 2), r"byte \d+: rank 0, node 0 \(recv\): waits for a message"),
        (patched(FIRST, "<I", 1), rf"byte {FIRST}: rank 0, node 0: waits for 1 nodes, but stands in the lists of 0"),
        (
            patched(FIRST + 27, "<I", 2**31),
            rf"byte {FIRST}: rank 0, node 0: 2 entries from 2147483648 on, in a list of 4",
        ),
        (patched(FIRST + 9, "<Q", 2**63), rf"byte {FIRST}: rank 0, node 0: its size is"),
        (patched(FIRST + 39 + 5, "<I", 9), rf"byte {FIRST + 39}: rank 0, node 1: its peer is none of the 2 ranks"),
        (patched(FIRST + 4 * 39, "<I", 77), rf"byte {FIRST}: rank 0, node 0: node 77 waits for it; there are 4"),
        (patched(FIRST + 4 * 39, "<I", 0), rf"byte {FIRST}: rank 0, node 0: waits for"),
    ],
)
def test_damage_is_named_with_its_byte(tmp_path, data, message):
    if message is None:
        written(tmp_path, data).trace()
        return
    with pytest.raises(InputError, match=message):
        written(tmp_path, data).trace()


# -- damage ------------------------------------------------------------------------------------------------


def test_nothing_but_input_errors_from_damaged_texts(tmp_path):
    """Cut, changed, doubled and swapped words: a schedule or an InputError."""
    generator = random.Random(20261103)
    texts = [
        (SAMPLES / "blocking.goal").read_text(),
        SAME,
        ranks_of("recv 8b from -1 tag -1", "send 8b to 0", "calc 1"),
    ]
    odd = [
        "}",
        "{",
        "rank",
        "-1",
        "0",
        "9" * 30,
        "a:",
        "requires",
        "irequires",
        "put 1",
        "/*",
        "*/",
        "//",
        "\n",
        "é",
        "tag",
    ]
    wrong = 0
    for _ in range(400):
        words = generator.choice(texts).replace("\n", " \n ").split(" ")
        for _ in range(generator.randint(1, 2)):
            at, other = generator.randrange(len(words)), generator.randrange(len(words))
            what = generator.randrange(4)
            if what == 0:
                words = words[:at] or ["x"]
            elif what == 1:
                words[at] = generator.choice(odd)
            elif what == 2:
                words.insert(at, generator.choice(odd))
            else:
                words[at], words[other] = words[other], words[at]
        try:
            file = opened(tmp_path, " ".join(words))
            file.counts()
            file.trace()
        except InputError as error:
            wrong += 1
            assert "s.goal" in str(error)
    assert 100 < wrong < 400


def test_nothing_but_input_errors_from_damaged_bytes(tmp_path):
    """Cut files and changed numbers: a schedule or an InputError."""
    generator = random.Random(20261104)
    wrong = 0
    for _ in range(600):
        data = bytearray(binary(BLOCKS, record=generator.choice([39, 104])))
        for _ in range(generator.randint(1, 3)):
            at = generator.randrange(len(data) - 8)
            if generator.random() < 0.1:
                del data[at + 8 :]
                break
            size = generator.choice([1, 4, 8])
            value = generator.choice([0, 1, 3, 2**31, 2**64 - 1, generator.randrange(2**64)])
            data[at : at + size] = (value % 2 ** (8 * size)).to_bytes(size, "little")
        try:
            file = written(tmp_path, bytes(data))
            file.counts()
            file.trace()
        except InputError as error:
            wrong += 1
            assert "s.bin" in str(error)
    assert 100 < wrong < 600


def test_other_blanks_between_statements(tmp_path):
    """A line of a vertical tab alone is blank."""
    path = tmp_path / "tabs.goal"
    path.write_bytes(b"num_ranks 1\n\x0b\nrank 0 {\n\x0b\nl1: calc 5\n}\n\x0b\n")
    counts = goal.open_(path).counts()
    assert (counts["num_ranks"], counts["calcs"]) == (1, 1)
