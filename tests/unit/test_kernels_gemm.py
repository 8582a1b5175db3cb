"""Products of matrices: what the page says holds of its numbers; tables in, predictions and fits out."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import yaml

from cmsim.calibration import calibrate, predict
from cmsim.calibration.kernels import predict_kernels
from cmsim.errors import CmsimWarning, InputError
from cmsim.kernels import Machine, choose_variant, fit_residual, read_residuals, write_residuals
from cmsim.kernels.gemm import GEMM_DEFAULTS, gemm_kernel_us
from cmsim.kernels.kinds import KINDS
from cmsim.kernels.residual import carried

MACHINE = Machine("made up", cores=100, peak_FLOPps={"bf16": 1e15}, vector_FLOPps=1e14, memory_Bps=2e12)


def gemm_us(m, n, k, machine=MACHINE, groups=1.0, **constants):
    columns = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (m, n, k)))
    m, n, k = (np.atleast_1d(v).astype(float) for v in columns)
    c = {**GEMM_DEFAULTS, **constants}
    return gemm_kernel_us(c, machine, m=m, n=n, k=k, precision="bf16", in_B=2, weight_B=2, out_B=2, groups=groups)


def table(tmp_path, ending="csv", **changes):
    rows = {
        "system": ["h100_sxm", "gb200", "h100_sxm", "a100_sxm"],
        "dtype": ["bfloat16", "fp8", "bfloat16", "bfloat16"],
        "m": [128, 4096, 128, 16],
        "n": [4096, 7168, 4096, 1024],
        "k": [4096, 2048, 4096, 7168],
    }
    frame = pd.DataFrame({**rows, **changes})
    path = tmp_path / f"rows.{ending}"
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path, index=False)
    return path


def test_large_products_reach_the_share_of_the_peak():
    flops = 2.0 * 16384**3
    assert gemm_us(16384, 16384, 16384)[0] == pytest.approx(flops / 0.85e15 * 1e6, rel=0.1)


def test_one_row_takes_as_long_as_its_weights():
    bytes_B = 2.0 * 16384 * 16384
    assert gemm_us(1, 16384, 16384)[0] == pytest.approx(3.0 + bytes_B / (2e12 * 0.85) * 1e6, rel=0.25)


def test_one_tile_more_is_one_wave_more():
    only = {"tile_m": 128.0, "tile_n": 128.0, "sharp": 50.0, "memory": 99.0, "draw_GBps": 1e4, "core_GBps": 1e4}
    full, more = gemm_us([12800, 12801], 128, 8192, **only)
    assert (more - 3.0) / (full - 3.0) == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("column", range(3))
def test_more_work_never_takes_less(column):
    """Of columns of tiles' multiples: less ragged shapes may win otherwise, as on the machine."""
    sizes = [np.full(8, 512.0) for _ in range(3)]
    sizes[column] = 256.0 * 2.0 ** np.arange(8)
    assert np.all(np.diff(gemm_us(*sizes)) >= -1e-9)


def test_groups_are_as_many_tiles():
    assert gemm_us(4096, 4096, 4096, groups=4.0)[0] == pytest.approx(gemm_us(16384, 4096, 4096)[0], rel=0.02)


def test_host_work_is_a_floor_and_ragged_rows_cost_more():
    assert gemm_us(8, 64, 64, host_us=100.0)[0] == pytest.approx(100.0, rel=0.01)
    assert gemm_us(9, 64, 64, ragged_us=7.0)[0] - gemm_us(9, 64, 64)[0] == pytest.approx(7.0)
    assert gemm_us(8, 64, 64, ragged_us=7.0)[0] == gemm_us(8, 64, 64)[0]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_rows_order_and_equal_rows(tmp_path, ending):
    frame = predict("gemm", table(tmp_path, ending), out=tmp_path / f"out.{ending}")
    assert list(frame["m"]) == [128, 4096, 128, 16]
    assert frame["predicted_us"][0] == frame["predicted_us"][2]
    assert np.all(frame["predicted_us"] > 0)


def test_folding_changes_nothing(tmp_path):
    few = pd.read_csv(table(tmp_path))
    many = pd.concat([few] * 5, ignore_index=True)
    assert predict_kernels(many, "gemm").tolist() == predict_kernels(few, "gemm").tolist() * 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"m": [128, 0, 128, 16]}, "row 1: m: must be a whole number above 0, got 0"),
        ({"n": [4096, 7168, 4096, -1]}, "row 3: n: must be a whole number above 0, got -1"),
        ({"k": [4096, None, 4096, 64]}, "row 1: k: must be a whole number above 0, got nan"),
        ({"m": ["x", 1, 1, 1]}, "row 0: m: must be a whole number above 0, got x"),
        ({"dtype": ["bfloat16", "fp9", "bfloat16", "bfloat16"]}, "row 1: dtype: must be one of bfloat16"),
        ({"system": ["h100_sxm", "h100_sxm", "h10", "a100_sxm"]}, "row 2: system: no accelerator named 'h10'"),
        ({"dtype": ["bfloat16", "fp8", "bfloat16", "fp8"]}, "row 3: dtype: a100_sxm has no peak for 'fp8'"),
    ],
)
def test_bad_rows_are_named(tmp_path, changes, message):
    with pytest.raises(InputError) as error:
        predict("gemm", table(tmp_path, **changes))
    assert message in str(error.value)


def test_missing_column_is_named(tmp_path):
    path = tmp_path / "rows.csv"
    pd.read_csv(table(tmp_path)).drop(columns=["k", "dtype"]).to_csv(path, index=False)
    with pytest.raises(InputError, match=r"k: no such column[\s\S]*dtype: no such column"):
        predict("gemm", path)


def test_relatives_are_said_and_scaled(tmp_path):
    rows = {"m": [8192], "n": [8192], "k": [8192], "dtype": ["bfloat16"]}
    own = predict_kernels(pd.DataFrame(rows), "gemm", system="h100_sxm")
    with pytest.warns(CmsimWarning, match="h20 has no measured rows of 'gemm': constants of h100_sxm"):
        slow = predict_kernels(pd.DataFrame(rows), "gemm", system="h20")
    # a sixth of the peak; the residual of waves differs
    assert slow[0] / own[0] == pytest.approx(989 / 148, rel=0.15)


@pytest.mark.parametrize(("name", "peak"), [("mi300x", 1307e12), ("tpu_v5p", 459e12), ("h200_sxm", 989e12)])
def test_unlike_cores_still_reach_their_peak(name, peak):
    """Rates of one core go with the core: few large ones, or many small."""
    frame = pd.DataFrame({"m": [16384], "n": [16384], "k": [16384], "dtype": ["bfloat16"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CmsimWarning)
        found = predict_kernels(frame, "gemm", system=name)
    assert 0.5 < 2.0 * 16384**3 / (found[0] * 1e-6) / peak < 1.0


def test_beyond_the_rows_is_physics_alone():
    frame = pd.DataFrame({"m": [4_000_000], "n": [8192], "k": [8192], "dtype": ["bfloat16"]})
    with pytest.warns(CmsimWarning, match="1 of 1 different rows of 'gemm' lie outside"):
        found = predict_kernels(frame, "gemm", system="h100_sxm")
    flops = 2.0 * 4e6 * 8192 * 8192
    assert found[0] == pytest.approx(flops / (0.867 * 989e12) * 1e6, rel=0.05)


def test_variant_of_an_unknown_kernel():
    known = ["fp8/a", "bfloat16/b", "fp8/c"]
    assert choose_variant("bfloat16/z", known) == "bfloat16/b"
    assert choose_variant("fp8/c", known) == "fp8/c"
    assert choose_variant("int8/", known) == "fp8/a"


def test_residual_finds_a_surface_and_is_held_at_its_edge():
    rng = np.random.default_rng(0)
    columns = {"m": 2.0 ** rng.uniform(0, 10, 2000), "k": 2.0 ** rng.uniform(5, 12, 2000)}
    wanted = 0.2 * np.sin(np.log2(columns["m"]) / 2) + 0.05 * (np.log2(columns["k"]) - 8)
    found = fit_residual(columns, wanted, [(("m", "k"), 1.0)], smooth=0.05)
    factor, beyond = found.factor(columns)
    assert not beyond.any()
    assert np.abs(np.log2(factor) - wanted).max() < 0.05
    far, beyond = found.factor({"m": np.array([2.0**14]), "k": np.array([256.0])})
    edge, _ = found.factor({"m": np.array([2.0 ** found.high["m"]]), "k": np.array([256.0])})
    assert far == pytest.approx(edge)
    assert beyond[0] == pytest.approx(14 - found.high["m"])
    again = read_residuals(write_residuals({"a": found}))["a"]
    assert np.allclose(again.factor(columns)[0], factor, rtol=1e-4)


@pytest.mark.parametrize("factor", [0.25, 0.9, 1.0, 1.1, 4.0])
def test_what_is_left_of_a_residual_outside(factor):
    """That of the edge at the edge, none far out, and never so little that more work would take less time."""
    time_us = 10.0 * 2.0 ** np.linspace(-12, 12, 97)
    found = carried(np.full(97, factor), np.full(97, 10.0), time_us)
    assert found[48] == pytest.approx(factor)
    assert found[[0, -1]] == pytest.approx([1.0, 1.0], abs=1e-3)
    assert np.all(np.diff(found * time_us) > 0)


def test_broken_residual_names_its_line():
    text = write_residuals({})
    with pytest.raises(InputError, match=r"x\.csv:2"):
        read_residuals(text + "a,surface,m,0,1,3,1 2\n", file="x.csv")


def made_rows(tmp_path, count=300):
    rng = np.random.default_rng(1)
    m, n, k = (2.0 ** rng.integers(4, 13, count) for _ in range(3))
    frame = pd.DataFrame({"system": "h100_sxm", "dtype": "bfloat16", "m": m, "n": n, "k": k})
    machine = Machine("h100", 132, {"bf16": 989e12}, 134e12, 3.35e12)
    truth = gemm_us(m, n, k, machine, compute=0.6, memory=0.7, fixed_us=6.0)
    path = tmp_path / "measured.csv"
    frame.assign(latency_us=truth * rng.lognormal(0, 0.02, count)).to_csv(path, index=False)
    return path


def test_calibrate_finds_constants_and_its_files_are_read(tmp_path):
    fit = calibrate(made_rows(tmp_path), accelerator="h100_sxm", out=tmp_path / "h100_sxm_gemm.yaml")
    (constants,) = fit.found.constants.values()
    assert constants["compute"] == pytest.approx(0.6, rel=0.1)
    assert constants["fixed_us"] == pytest.approx(6.0, rel=0.15)
    assert fit.held_out_pct[0] < 4
    data = yaml.safe_load((tmp_path / "h100_sxm_gemm.yaml").read_text())
    assert data["fits"]["bfloat16/"]["count"] == 300
    assert read_residuals((tmp_path / "h100_sxm_gemm.csv").read_text())


def test_calibrate_wants_rows_and_times(tmp_path):
    with pytest.raises(InputError, match="latency_us"):
        calibrate(table(tmp_path), accelerator="h100_sxm")
    frame = pd.read_csv(table(tmp_path)).assign(latency_us=5.0)
    frame.to_csv(tmp_path / "few.csv", index=False)
    with pytest.raises(InputError, match="2 rows of h100_sxm; at least 8"):
        calibrate(tmp_path / "few.csv", accelerator="h100_sxm")


def test_every_accelerator_has_constants_of_every_kind():
    from cmsim import reading
    from cmsim.hardware import ACCELERATORS, load_accelerator
    from cmsim.kernels import kernel_data

    for name in reading.builtin_files(ACCELERATORS):
        for kind in KINDS:
            assert kernel_data(load_accelerator(name), kind).variants


def test_predictions_of_the_shipped_constants_do_not_warn(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predicted = predict("gemm", table(tmp_path))
    assert (predicted["predicted_us"] > 0).all()


def test_rows_that_cannot_be_are_left_out(tmp_path):
    """A product that reads its weights at four times the bandwidth: its label is wrong, or a cache held them."""
    path = made_rows(tmp_path)
    frame = pd.read_csv(path)
    odd = {"system": "h100_sxm", "dtype": "bfloat16", "m": 1, "n": 16384, "k": 16384, "latency_us": 40.0}
    pd.concat([frame, pd.DataFrame([odd])], ignore_index=True).to_csv(path, index=False)
    with pytest.warns(CmsimWarning, match="1 rows of h100_sxm take less time than its peaks allow; left out"):
        fit = calibrate(path, accelerator="h100_sxm", out=tmp_path / "h100_sxm_gemm.yaml")
    assert np.isnan(fit.held_us[-1]) and np.isfinite(fit.held_us[:-1]).all()
    assert "left out 1 rows" in (tmp_path / "h100_sxm_gemm.yaml").read_text()


def test_shares_stay_below_1(tmp_path):
    """Of a machine that is said to be a third of what it is, rows that are possible still want more than the peak."""
    frame = pd.read_csv(made_rows(tmp_path))
    frame = frame[frame["m"] * frame["n"] * frame["k"] < 2**27]
    frame.assign(latency_us=frame["latency_us"] / 3).to_csv(tmp_path / "measured.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CmsimWarning)
        fit = calibrate(tmp_path / "measured.csv", accelerator="h100_sxm")
    (constants,) = fit.found.constants.values()
    assert 0 < constants["compute"] < 1
    assert 0 < constants["memory"] < 1


def test_calibrate_wants_several_shapes(tmp_path):
    frame = pd.DataFrame({"system": "h100_sxm", "dtype": "bfloat16", "m": [128] * 12, "n": 4096, "k": 4096})
    frame = frame.assign(latency_us=np.linspace(15, 16, 12))
    frame.to_csv(tmp_path / "one.csv", index=False)
    with pytest.raises(InputError, match="the 12 rows are one configuration"):
        calibrate(tmp_path / "one.csv", accelerator="h100_sxm")
    frame.assign(m=[128] * 4 + [256] * 8)[:8].to_csv(tmp_path / "two.csv", index=False)
    with pytest.raises(InputError, match="bfloat16/: the 8 rows are too few to fit without those held out"):
        calibrate(tmp_path / "two.csv", accelerator="h100_sxm", out=tmp_path / "out.yaml")
    assert not (tmp_path / "out.yaml").exists()
