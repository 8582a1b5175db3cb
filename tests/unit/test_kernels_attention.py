"""The pages of attention: what their parts add up to, how they grow, what tables are refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cmsim.calibration import calibrate, predict
from cmsim.calibration.explain_kernel import explain_kernel
from cmsim.errors import InputError
from cmsim.kernels import Machine
from cmsim.kernels.attention import (
    DECODE_DEFAULTS,
    PREFILL_DEFAULTS,
    decode_parts,
    prefill_parts,
    smooth_max,
)

MACHINE = Machine("m", 100, {"bf16": 1e15, "fp8": 2e15}, 1e14, 3e12)
ROW = {
    "system": "h100_sxm",
    "batch_size": 4,
    "isl": 2048,
    "num_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "attn_dtype": "bfloat16",
    "kv_cache_dtype": "bfloat16",
    "step": 0,
    "window_size": 0,
}


def prefill(**other):
    columns = {"sequences": 4, "tokens": 2048, "heads": 32, "kv_heads": 8, "d_qk": 128, "d_v": 128, "prefix": 0}
    columns = {**columns, "window": 0, **other}
    columns = {name: np.array([float(value)]) for name, value in columns.items()}
    found = prefill_parts(PREFILL_DEFAULTS, MACHINE, **columns, precision="bf16", in_B=2.0, kv_B=2.0)
    return {name: value[0] for name, value in found.items()}


def decode(kv_B=2.0, each=False, **other):
    columns = {"sequences": 64, "context": 4096, "heads": 32, "kv_heads": 8, "d_qk": 128, "d_v": 128, "cached": 256}
    columns = {**columns, "window": 0, **other}
    columns = {name: np.array([float(value)]) for name, value in columns.items()}
    found = decode_parts(DECODE_DEFAULTS, MACHINE, **columns, precision="bf16", in_B=2.0, kv_B=kv_B, each=each)
    return {name: value[0] for name, value in found.items()}


def test_smooth_max_is_between_the_largest_and_the_sum():
    one, other = np.array([1.0, 1.0, 0.0]), np.array([1.0, 100.0, 0.0])
    found = smooth_max(one, other)
    assert found == pytest.approx([2**0.25, 100.0, 0.0], rel=1e-6)


def test_parts_add_up():
    parts = prefill()
    assert parts["physics_us"] == pytest.approx(parts["fixed_us"] + parts["prepare_us"] + parts["core_us"])
    parts = decode()
    added = parts["fixed_us"] + parts["prepare_us"] + parts["combine_us"] + parts["core_us"]
    assert parts["physics_us"] == pytest.approx(added)


def test_causal_blocks():
    """16 blocks of queries see 1, 2, ... 16 blocks of keys."""
    pairs = 4 * 32 * 128 * 128 * (16 * 17 / 2)
    assert prefill()["flops"] == pytest.approx(2 * pairs * 256)


def test_window_leaves_blocks_out():
    """A window of 256 tokens touches 3 blocks; the first two rows of blocks see 1 and 2."""
    pairs = 4 * 32 * 128 * 128 * (1 + 2 + 14 * 3)
    assert prefill(window=256)["flops"] == pytest.approx(2 * pairs * 256)
    assert prefill(window=2048)["flops"] == prefill()["flops"]


def test_prefix_is_seen_by_every_block():
    more = prefill(prefix=1024)["flops"] - prefill()["flops"]
    assert more == pytest.approx(2 * 4 * 32 * 128 * 128 * 16 * 8 * 256)


@pytest.mark.parametrize("name", ["sequences", "tokens", "heads"])
def test_prefill_grows(name):
    assert prefill(**{name: 8192})["physics_us"] > prefill(**{name: 4096})["physics_us"]


def test_decode_reads_the_cache_once_for_a_group():
    few, many = decode(heads=8), decode(heads=64)
    cache_B = 64 * 8 * 4096 * 256 * 2
    assert few["bytes_B"] >= cache_B and many["bytes_B"] < 1.1 * cache_B
    # queries and outputs of 56 heads more
    more_us = 64 * 56 * 256 * 2 / 3e6 / DECODE_DEFAULTS["memory"]
    assert many["memory_us"] - few["memory_us"] == pytest.approx(more_us)


def test_new_tokens_are_more_rows_of_a_group():
    one, four = decode(heads=256), decode(heads=256, queries=4)
    assert four["flops"] == pytest.approx(4 * one["flops"], rel=0.1)
    assert one["memory_us"] < four["memory_us"] < 1.1 * one["memory_us"]
    alone, two = decode(each=True), decode(each=True, queries=2)
    assert two["compute_us"] == 2 * alone["compute_us"]


def test_narrow_cache_and_window_move_less():
    assert decode(kv_B=1.0)["memory_us"] == pytest.approx(decode()["memory_us"] / 2, rel=0.01)
    assert decode(window=512)["memory_us"] == pytest.approx(decode()["memory_us"] / 8, rel=0.01)


def test_few_workers_split_the_cache():
    assert decode(sequences=1, kv_heads=1)["splits"] > 8
    assert decode(sequences=4096)["splits"] == 1
    assert decode(sequences=4096)["combine_us"] < decode(sequences=1, kv_heads=1)["combine_us"]


def test_each_head_alone_has_a_worker():
    assert decode(each=True)["tiles"] == 64 * 32
    assert decode()["tiles"] == 64 * 8


def test_long_batch_reaches_the_bandwidth():
    parts = decode(sequences=1024, context=131072)
    share = parts["memory_us"] * DECODE_DEFAULTS["memory"] / parts["physics_us"]
    assert 0.75 < share < 0.86


@pytest.mark.parametrize("column", ["isl", "num_heads", "num_key_value_heads", "attn_dtype", "window_size"])
def test_missing_columns_are_named(tmp_path, column):
    frame = pd.DataFrame([ROW]).drop(columns=column)
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match=column):
        predict("attention_context", tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("column", "value"),
    [("isl", 0), ("num_heads", -4), ("batch_size", float("nan")), ("step", -1), ("num_key_value_heads", 5)],
)
def test_bad_shapes_name_column_and_row(tmp_path, column, value):
    frame = pd.DataFrame([ROW, {**ROW, column: value}])
    frame.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match=rf"row 1: {column}"):
        predict("attention_context", tmp_path / "t.csv")


def test_unknown_format_lists_the_known(tmp_path):
    pd.DataFrame([{**ROW, "kv_cache_dtype": "fp99"}]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match=r"row 0: kv_cache_dtype.*bfloat16"):
        predict("attention_context", tmp_path / "t.csv")


def test_predictions_keep_the_order(tmp_path):
    rows = [{**ROW, "isl": 1, "step": step} for step in (4095, 15, 65535, 15)]
    pd.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    found = predict("attention_generation", tmp_path / "t.parquet", out=tmp_path / "o.parquet")
    time = found["predicted_us"].to_numpy()
    assert time[1] == time[3] < time[0] < time[2]
    assert list(pd.read_parquet(tmp_path / "o.parquet")["step"]) == [4095, 15, 65535, 15]


def test_calibrate_knows_prefill_from_decode(tmp_path):
    """Times of the page itself, fitted again: the constants come back as times."""
    rng = np.random.default_rng(0)
    rows = [
        {**ROW, "isl": 1, "step": int(step), "batch_size": int(batch)}
        for step, batch in zip(2 ** rng.integers(0, 15, 40), 2 ** rng.integers(0, 9, 40), strict=True)
    ]
    frame = pd.DataFrame(rows).drop_duplicates()
    frame.to_parquet(tmp_path / "t.parquet")
    frame = predict("attention_generation", tmp_path / "t.parquet").rename(columns={"predicted_us": "latency_us"})
    frame.to_parquet(tmp_path / "t.parquet")
    fit = calibrate(tmp_path / "t.parquet", accelerator="h100_sxm")
    assert fit.kind == "attention_generation"
    assert fit.fitted_pct[0] < 3


def test_explained_parts():
    found = explain_kernel("h100_sxm", "attention_context", {"isl": 8192, "num_heads": 64, "num_key_value_heads": 8})
    assert found.binds == "compute"
    assert found.predicted_us == pytest.approx(found.parts["physics_us"] * found.parts["residual"])
    assert explain_kernel("h100_sxm", "gemm", {"m": 1, "n": 8192, "k": 8192}).binds == "memory"


def test_explained_refusals():
    with pytest.raises(InputError, match="gemm"):
        explain_kernel("h100_sxm", "gem", {})
    with pytest.raises(InputError, match="num_heads"):
        explain_kernel("h100_sxm", "mla_context", {"heads": 3})
    with pytest.raises(InputError, match="isl"):
        explain_kernel("h100_sxm", "mla_context", {"num_heads": 3})


def test_explain_from_the_command_line():
    command = [sys.executable, "-m", "cmsim", "explain", "kernel", "h100_sxm", "gemm", "m=64", "n=4096"]
    assert subprocess.run(command, capture_output=True, text=True).returncode == 2
    done = subprocess.run([*command, "k=4096"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "memory_us" in done.stdout and "binds: memory" in done.stderr + done.stdout
