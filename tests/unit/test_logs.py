"""Logs of collective benchmarks as people have them: layouts of all years, several runs, launchers' prefixes, failures.

Each file of tests/cases/logs stands for a kind; the right values were established by hand.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from cmsim.calibration import read_log
from cmsim.errors import InputError

LOGS = Path(__file__).parents[1] / "cases" / "logs"
MB = 2**20


def rows(frame):
    """(collective, ranks, bytes, time) of every row."""
    columns = ["collective", "n_ranks", "message_bytes", "latency_us"]
    return list(frame[columns].itertuples(index=False, name=None))


USUAL = [("all_reduce", 4, MB, 50.0), ("all_reduce", 4, 4 * MB, 100.0)]
RIGHT = {
    "a_old_allreduce.log": USUAL,
    "b_old_broadcast.log": [("broadcast", 4, MB, 50.0), ("broadcast", 4, 4 * MB, 100.0)],
    "e_new_allreduce.log": USUAL,
    "f_tagged.log": USUAL,
    "g_srun_label.log": USUAL,
    "h_timestamps.log": USUAL,
    "i_two_programs.log": [*USUAL, ("all_gather", 4, MB, 50.0)],
    "i2_two_sizes_of_job.log": [*USUAL, ("all_reduce", 8, MB, 60.0)],
    "j_size_zero.log": [("reduce_scatter", 4, MB, 50.0)],
    "l_two_jobs_no_mpi.log": [("all_reduce", 4, MB, 50.0), ("all_reduce", 4, MB, 51.0)],
    "m_tuning_table.log": USUAL[:1],
    "n_per_iter.log": USUAL[:1],
    "o_inplace_only.log": [("all_reduce", 4, MB, 49.0)],
    "p_fp8.log": USUAL[:1],
    "q_mscclpp.log": USUAL[:1],
    "u_report.json": [("all_reduce", 1, MB, 50.0)],
    "x_two_nodes.log": [("all_reduce", 8, MB, 50.0)],
    "b_with_command.log": [("all_reduce", 8, 8192, 64.0), ("all_reduce", 8, 16384, 65.0)],
}


@pytest.mark.parametrize("name", RIGHT)
def test_each_kind_of_log(name):
    assert rows(read_log(LOGS / name)) == RIGHT[name]


def test_every_file_is_of_a_kind_that_is_tested():
    refused = {"s_wrong_results.log", "a_as_printed.log", "all_reduce_test_8p.log"}
    assert {path.name for path in LOGS.iterdir()} == {*RIGHT, *refused}


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("j_size_zero.log", "1 row of 0 bytes is left out"),
        ("o_inplace_only.log", "1 row of one time instead of two: that is taken"),
        ("b_with_command.log", "1 row whose result was wrong is left out"),
    ],
)
def test_what_is_not_used_is_said(name, note):
    assert read_log(LOGS / name).attrs["notes"] == (note,)


def test_hosts_tell_ranks_of_a_node():
    assert read_log(LOGS / "x_two_nodes.log")["ranks_per_node"].tolist() == [4]
    assert read_log(LOGS / "l_two_jobs_no_mpi.log")["ranks_per_node"].tolist() == [4, 4]


def test_formats_of_eight_bits_are_kept():
    assert read_log(LOGS / "p_fp8.log")["dtype"].tolist() == ["f8e4m3"]


def test_a_log_that_says_neither_is_told():
    for name in ("a_as_printed.log", "all_reduce_test_8p.log"):
        with pytest.raises(InputError, match=r"--collective"):
            read_log(LOGS / name)
        with pytest.raises(InputError, match=r"--ranks"):
            read_log(LOGS / name, collective="all_reduce")
        told = read_log(LOGS / name, collective="all_reduce", n_ranks=8)
        assert rows(told) == RIGHT["b_with_command.log"]


def test_failed_rows_alone_are_no_result():
    with pytest.raises(InputError, match=r"1 row whose result was wrong is left out"):
        read_log(LOGS / "s_wrong_results.log")


def test_a_row_whose_bandwidth_is_another_is_never_used():
    text = (LOGS / "e_new_allreduce.log").read_text().replace("50.00   20.97", "51.00   20.97")
    frame = read_log(text)
    assert rows(frame) == USUAL[1:]
    assert frame.attrs["notes"] == ("1 row whose size over time is not the bandwidth beside it is left out",)


def test_groups_of_a_split_job_are_communicators():
    text = (LOGS / "x_two_nodes.log").read_text()
    for rank in range(4, 8):
        text = text.replace(f"Rank  {rank} Group  0", f"Rank  {rank} Group  1")
    frame = read_log(text)
    assert frame[["n_ranks", "ranks_per_node"]].to_numpy().tolist() == [[4, 4]]


def test_without_a_header_the_bandwidth_tells_the_time():
    text = "# reduce_perf\n# rank_size 4\n 1048576 262144 float sum 0 50.00 20.97 20.97 0 49.00 21.40 21.40 0\n"
    assert rows(read_log(text)) == [("reduce", 4, MB, 50.0)]


@pytest.mark.parametrize("number", ["0.11e9992800", "0e999", "1e-99999", "0e" + "9" * 5000])
def test_powers_beyond_a_float_are_no_times(tmp_path, number):
    text = (LOGS / "b_with_command.log").read_text(encoding="utf-8")
    assert text.count("0.12800") == 1
    damaged = tmp_path / "damaged.log"
    damaged.write_text(text.replace("0.12800", number), encoding="utf-8")
    assert rows(read_log(damaged)) == RIGHT["b_with_command.log"][1:]


@pytest.mark.parametrize("digits", [400, 5000])
def test_a_size_that_no_buffer_has_is_left_out(tmp_path, digits):
    text = (LOGS / "b_with_command.log").read_text(encoding="utf-8")
    damaged = tmp_path / "damaged.log"
    damaged.write_text(text.replace("8192  ", "9" * digits + "  "), encoding="utf-8")
    found = read_log(damaged)
    assert rows(found) == RIGHT["b_with_command.log"][1:]
    assert any("of a size that no buffer has" in note for note in found.attrs["notes"])
