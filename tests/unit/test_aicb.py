"""AICB logs: counts established by others, groups and sizes of their ops, and files that are damaged."""

from __future__ import annotations

import gzip
import json
import math
import random
from pathlib import Path

import numpy as np
import pytest

from cmsim.errors import InputError
from cmsim.reading import DATA
from cmsim.reading.bytes_in import head
from cmsim.traces import aicb
from cmsim.workload.ops import COLLECTIVE, COMPUTE

SAMPLES = DATA / "workloads" / "traces" / "aicb"
SHARED = Path(__file__).parents[2].parent / "shared" / "traces"
MEASURED = "A100_example_measured.csv.gz"
PLANNED = "L7B-M1-C04_Llama7B_megatron_tp2_pp1_mbs1.csv.gz"
OLDER = "all_to_all_workload.csv.gz"
HEADER = "comm_type,comm_group,comm_group_size,msg_size,stage,dst,src,additional,_elapsed_time,algbw,busbw,count"


def opened(tmp_path, *rows, before="", header=HEADER):
    path = tmp_path / "log.csv"
    path.write_text("\n".join([*([before] if before else []), header, *rows, ""]), encoding="utf-8")
    return aicb.open_(path)


def row(kind, group, members, size, *, stage="forward.x", ms="None", alg="None", bus="None"):
    group = "None" if group is None else f"CommGroup.{group}"
    return f"CommType.{kind},{group},{members},{size},{stage},None,None,,{ms},{alg},{bus},1"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the files are not in the checkout")
@pytest.mark.parametrize("name", [MEASURED, PLANNED, OLDER])
def test_counts_are_those_another_parser_found(name):
    truth = json.loads((SHARED / "TRUTH.json").read_text())[f"aicb/{name}"]
    assert aicb.open_(SHARED / "aicb" / name).counts() == truth
    assert (SAMPLES / name).read_bytes() == (SHARED / "aicb" / name).read_bytes()


@pytest.mark.parametrize("name", [MEASURED, PLANNED, OLDER])
def test_samples_are_known(name):
    assert aicb.sniff(head(SAMPLES / name), SAMPLES / name)
    counts = aicb.open_(SAMPLES / name).counts()
    assert counts["format"] == "aicb-csv" and counts["rows"] == sum(counts["comm_types"].values())


def test_a_measured_log():
    """Every collective keeps its time; whole iterations are the length of the recording and are no ops."""
    file = aicb.open_(SAMPLES / MEASURED)
    trace = file.trace()
    one = trace.ranks[0]
    assert trace.world_size == 8
    assert {group.name: group.members for group in trace.communicators} == {
        "tp": (0, 1),
        "dp": (0, 2, 4, 6),
        "ep": (0, 2, 4, 6),
    }
    assert len(one) == 8538 - 11 - 10 and (one.kind == COLLECTIVE).all()
    assert trace.recorded_us == pytest.approx((25762.827 - 10506.755) * 1e3, abs=2)
    # the 10 rows of 0 bytes took 1 ms in all
    empty = sum(r.elapsed_ms for r in file.rows() if r.kind != "epoch_end" and not r.size_B)
    assert one.duration_us.sum() == pytest.approx((10506.755 - empty) * 1e3, abs=2)
    assert one.bytes_B[one.collective == one.collectives.index("all_to_all")].sum() == 53687091200
    said = "\n".join(trace.notes)
    assert "1920 of 7201 rows of tp_group give another size or none: 2 is taken" in said
    assert "tp_group: busbw / algbw of its all_gather rows is that of 8 ranks, comm_group_size says 2" in said
    assert "the size of ep_group is not in the file: taken as the whole data-parallel group, 4" in said


def test_a_planned_log_names_its_ranks():
    trace = aicb.open_(SAMPLES / PLANNED).trace()
    assert trace.world_size == 128 and math.isnan(trace.recorded_us)
    assert {group.name: group.members for group in trace.communicators} == {
        "tp": (0, 1),
        "dp": tuple(range(0, 128, 2)),
    }
    one = trace.ranks[0]
    assert np.isnan(one.duration_us).all()
    after = np.repeat(np.arange(len(one)), np.diff(one.dep_ptr))
    assert after.tolist() == list(range(1, len(one))) and one.dep_idx.tolist() == list(range(len(one) - 1))


def test_a_log_without_sizes_of_groups_asks_for_the_number_of_ranks():
    file = aicb.open_(SAMPLES / OLDER)
    with pytest.raises(InputError, match="does not say how many ranks the job has"):
        file.trace()
    trace = file.trace(ranks=16)
    assert trace.communicators[0].members == tuple(range(16)) and len(trace.ranks[0]) == 2000


def test_groups_of_all_kinds(tmp_path):
    rows = [
        row("all_reduce", "tp_group", 2, 8),
        row("all_to_all", "ep_group", 4, 8),
        row("reduce_scatter_tensor", "ep_dp_group", 2, 8),
        row("all_gather_into_tensor", "ep_tp_group", 8, 8),
        row("reduce", "dp_group", 8, 8),
        row("broadcast", "pp_group", 3, 8),
        row("barrier", "all", "None", 8),
        row("barrier", None, "None", 0),
        row("all_reduce", "embedding_group", 2, 8),
        row("isend", "pp_group", 3, 8),
        row("irecv", "pp_group", 3, 8),
    ]
    trace = opened(tmp_path, *rows, before="[rank0 ~ rank47]").trace()
    assert [(group.name, group.members[:3], group.size) for group in trace.communicators] == [
        ("tp", (0, 1), 2),
        ("ep", (0, 2, 4), 4),
        ("dp_ep", (0, 8), 2),
        ("ep_tp", (0, 1, 2), 8),
        ("dp", (0, 2, 4), 8),
        ("pp", (0, 16, 32), 3),
        ("all", (0, 1, 2), 48),
    ]
    one = trace.ranks[0]
    assert [one.collectives[c] for c in one.collective] == [
        "all_reduce", "all_to_all", "reduce_scatter", "all_gather", "reduce", "broadcast", "barrier", "barrier",
    ]  # fmt: skip
    assert one.bytes_B.tolist() == [8] * 6 + [0, 0]
    assert trace.notes == ("3 ops between pipeline stages are left out: all ranks run the ops of this one",)


def test_computations(tmp_path):
    shapes = "((4096, 1, 512), (512, 192))"
    rows = [
        row("computation", "all", "None", shapes, stage="forward.attention", ms=2.5),
        row("computation", None, "None", 0, stage="forward.layernorm"),
        row("all_reduce", "tp_group", 2, 64),
    ]
    file = opened(tmp_path, *rows)
    counts = file.counts()
    assert counts["rows_without_numeric_size"] == 1 and counts["bytes"]["CommType.computation"] == 0
    trace = file.trace()
    one = trace.ranks[0]
    assert one.kind.tolist() == [COMPUTE, COMPUTE, COLLECTIVE]
    assert one.flops.tolist() == [2 * 4096 * 512 * 192, 0, 0] and one.duration_us[0] == 2500
    assert [one.kernels[k] for k in one.kernel[:2]] == ["gemm", "norm"]
    assert "1 computations without time and shapes take no time" in trace.notes


def test_ratios_of_bandwidths_that_agree_are_no_news(tmp_path):
    trace = opened(tmp_path, row("all_reduce", "tp_group", 4, 64, ms=1, alg=10, bus=15)).trace()
    assert not any("busbw" in note for note in trace.notes)
    trace = opened(tmp_path, row("all_reduce", "tp_group", 2, 64, ms=1, alg=10, bus=15)).trace()
    assert any("is that of 4 ranks, comm_group_size says 2" in note for note in trace.notes)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["CommType.all_reduce,CommGroup.tp_group,2"], r"log\.csv:2: expected 12 fields, got 3"),
        ([row("all_reduce", "tp_group", 2, "1,2")], r"log\.csv:2: expected 12 fields, got 13"),
        (
            [row("all_reduce", "tp_group", "two", 8)],
            r"log\.csv:2: comm_group_size: expected a number or None, got 'two'",
        ),
        ([row("all_reduce", "tp_group", 2, -8)], r"log\.csv:2: msg_size: expected a number from 0, got -8"),
        ([row("all_reduce", "tp_group", 2, 8, ms="1e999")], r"log\.csv:2: _elapsed_time: expected a number from 0"),
        ([row("all_reduce", "tp_group", 2, 8, ms="nan")], r"log\.csv:2: _elapsed_time: expected a number or None"),
        ([row("all_reduce", "tp_group", 2, 8), ",,,,,,,,,,,"], r"log\.csv:3: comm_type is missing"),
        ([], r"log\.csv: holds a header and no rows"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        opened(tmp_path, *rows)


@pytest.mark.parametrize(
    ("rows", "ranks", "message"),
    [
        ([row("all_reduce", "tp_group", 2, "None")], None, r"log\.csv:2: all_reduce without a msg_size"),
        ([row("all_reduce", "my_group", 2, 8)], 2, r"log\.csv:2: unknown comm_group 'my_group'; known: tp_group"),
        ([row("all_reduce", "tp_group", "None", 8)], 8, "the size of tp_group is not in the file"),
        ([row("all_reduce", "tp_group", 3, 8)], 8, r"8 ranks are no multiple of tp_group 3"),
        (
            [row("all_to_all", "ep_group", 3, 8), row("reduce", "dp_group", 4, 8)],
            8,
            "ep_group 3 does not divide dp_group 4",
        ),
        ([row("all_reduce", "tp_group", 1e12, 8)], None, "tp_group: expected 1 to 1048576 ranks"),
        ([row("epoch_end", None, "None", 0)], 8, "holds no op to replay"),
    ],
)
def test_logs_that_cannot_be_replayed(tmp_path, rows, ranks, message):
    with pytest.raises(InputError, match=message):
        opened(tmp_path, *rows).trace(ranks=ranks)


def test_what_is_left_out_is_counted(tmp_path):
    rows = [row("all_reduce", "tp_group", 2, 8), row("all_reduce", "tp_group", 2, 0), row("mystery", "tp_group", 2, 8)]
    rows += [row("all_reduce", "dp_group", 1, 8), row("epoch_end", None, "None", 0, stage="", ms=3)]
    trace = opened(tmp_path, *rows).trace()
    assert len(trace.ranks[0]) == 1 and trace.recorded_us == 3000
    for note in (
        "1 collectives of 0 bytes are left out",
        "1 collectives of groups of one rank are left out",
        "1 rows of the unknown kind mystery are left out",
    ):
        assert note in trace.notes


def test_files_that_are_no_log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("a,b\n1,2\n")
    assert not aicb.sniff(head(path), path)
    with pytest.raises(InputError, match="no header that starts with comm_type"):
        aicb.open_(path)
    path.write_text("comm_type,stage\nx,y\n")
    with pytest.raises(InputError, match=r"log\.csv:1: the header has no column comm_group"):
        aicb.open_(path)
    path.write_bytes(HEADER.encode() + b"\n\xff\xff")
    with pytest.raises(InputError, match=rf"byte {len(HEADER) + 1}: is not text"):
        aicb.open_(path)


def test_nothing_but_input_errors_from_damaged_files(tmp_path):
    """Cut, changed and joined rows: a result or an InputError."""
    generator = random.Random(20261102)
    texts = [gzip.decompress((SAMPLES / name).read_bytes()).decode().split("\n") for name in (MEASURED, PLANNED, OLDER)]
    odd = [
        "-1",
        "",
        "9" * 400,
        "None",
        "((1, 2), (2, 3))",
        '"',
        "\r",
        "\0",
        "1e300",
        "CommGroup.ep_group",
        "rank1 ~ rank9",
    ]
    wrong = 0
    for _ in range(300):
        lines = generator.choice(texts)
        start = generator.randrange(max(len(lines) - 30, 1)) + 2
        lines = lines[:2] + lines[start : start + 20]
        for _ in range(generator.randint(1, 3)):
            at = generator.randrange(len(lines))
            fields = lines[at].split(",")
            fields[generator.randrange(len(fields))] = generator.choice(odd)
            lines[at] = ",".join(fields)[: generator.choice([None, None, None, 9])]
        path = tmp_path / "log.csv"
        path.write_text("\n".join(lines), encoding="utf-8", newline="")
        try:
            file = aicb.open_(path)
            file.counts()
            file.trace(ranks=generator.choice([None, 8, 128]))
        except InputError as error:
            wrong += 1
            assert "log.csv" in str(error)
    assert 50 < wrong < 300
