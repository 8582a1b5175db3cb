"""predict, calibrate and explain on the command line."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from cmsim.cli.app import app

MEASURED = "system,collective,n_ranks,message_bytes,dtype,latency_us\n" + "".join(
    f"hgx_h100,all_reduce,{ranks},{size},float16,{time}\n"
    for ranks, size, time in [
        (2, 1 << 16, 11), (2, 1 << 20, 18), (4, 1 << 16, 13), (4, 1 << 20, 22), (8, 1 << 16, 16),
        (8, 1 << 20, 30), (8, 1 << 24, 110), (8, 1 << 26, 330), (4, 1 << 24, 90), (2, 1 << 24, 75),
    ]
)  # fmt: skip


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(MEASURED)
    return path


def cmsim(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_predict_keeps_rows_and_order(table, tmp_path):
    out = tmp_path / "out.csv"
    said = cmsim("predict", "collective", table, "--out", out)
    assert said.exit_code == 0, said.output
    frame = pd.read_csv(out)
    assert frame["message_bytes"].tolist() == pd.read_csv(table)["message_bytes"].tolist()
    assert (frame["predicted_us"] > 1).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("latency_us", "ltncy_us"), None),
        (("n_ranks", "nranks"), "n_ranks"),
        (("hgx_h100", "hgx_x100"), "Did you mean"),
        ((",65536,", ",-1,"), "message_bytes"),
    ],
)
def test_predict_names_what_is_wrong(table, tmp_path, change, says):
    table.write_text(MEASURED.replace(*change))
    said = cmsim("predict", "collective", table, "--out", tmp_path / "out.csv")
    assert said.exit_code == (0 if says is None else 2), said.output
    assert says is None or says in said.stderr
    assert (tmp_path / "out.csv").exists() == (says is None), "nothing half-written"


def test_predict_knows_its_kinds(table, tmp_path):
    said = cmsim("predict", "colective", table, "--out", tmp_path / "out.csv")
    assert said.exit_code == 2
    assert "Did you mean 'collective'?" in said.stderr


def test_calibrate_writes_a_fit_and_says_its_error(table, tmp_path):
    said = cmsim("calibrate", table, "--accelerator", "hgx_h100", "--out", tmp_path / "fit.yaml")
    assert said.exit_code == 0, said.output
    assert "held out: median" in said.stderr
    assert "constants:" in (tmp_path / "fit.yaml").read_text()


def test_explain_lists_candidates():
    said = cmsim("explain", "collective", "hgx_h100", "all_reduce", "64M", "--ranks", 8)
    assert said.exit_code == 0, said.output
    assert "ring Simple" in said.stdout
    assert said.stdout.rstrip().splitlines()[-1].startswith("predicted")
    document = json.loads(
        cmsim("explain", "collective", "hgx_h100", "all_reduce", "64M", "--ranks", 8, "--json").stdout
    )
    assert document["predicted_us"] > 0


def test_explain_one_algorithm_and_one_rank_of_each_domain():
    said = cmsim("explain", "collective", "cm384", "all_reduce", "16M", "--ranks", 20, "--algorithm", "AHC", "--json")
    assert [one["name"] for one in json.loads(said.stdout)["candidates"]] == ["ahc"]
    said = cmsim("explain", "collective", "hgx_h100", "all_gather", "64K", "--ranks", 8, "--per-domain", 1)
    assert "tuner: pat Simple" in said.stdout
    wrong = cmsim("explain", "collective", "cm384", "all_reduce", "16M", "--ranks", 16, "--algorithm", "rdh")
    assert wrong.exit_code == 2
    assert "Did you mean 'RHD'" in wrong.stderr


def test_wrong_sizes_and_names_are_said():
    assert "got '1X'" in cmsim("explain", "collective", "hgx_h100", "all_reduce", "1X", "--ranks", 8).stderr
    assert "Did you mean" in cmsim("explain", "collective", "hgx_h100", "allreduc", "1K", "--ranks", 8).stderr


def test_explain_kernel_says_what_is_missing():
    said = cmsim("explain", "kernel", "h100_sxm", "gemm", "m=4096")
    assert said.exit_code == 2 and "error: gemm needs n=..., k=...; it may have dtype" in said.stderr
    none = cmsim("explain", "kernel", "h100_sxm", "gemm")
    assert none.exit_code == 2 and "gemm needs m=..., n=..., k=..." in none.stderr
