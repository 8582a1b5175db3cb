"""Kernels of dispatch and combine: bytes, limits of any time, profiles as data, tables and their errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmsim import reading
from cmsim.calibration import ExpertFit, calibrate, expert_us, predict
from cmsim.errors import InputError
from cmsim.libraries import experts
from cmsim.libraries.expert import copies, distinct
from cmsim.workload import moe

ALLTOALL = {
    "system": "gb200",
    "op_name": "alltoall_dispatch",
    "kernel_source": "NVLinkTwoSided",
    "moe_dtype": "fp8",
    "num_tokens": 128,
    "hidden_size": 7168,
    "topk": 8,
    "num_experts": 256,
    "moe_ep_size": 8,
    "distribution": "balanced",
}
PAIR = {
    "system": "h100_sxm",
    "mode": "normal",
    "node_num": 2,
    "hidden_size": 7168,
    "num_token": 128,
    "num_topk": 8,
    "num_experts": 256,
    "sms": 20.0,
}


def table(tmp_path, base, rows=({},), drop=()):
    path = tmp_path / "table.csv"
    pd.DataFrame([{**base, **row} for row in rows]).drop(columns=list(drop)).to_csv(path, index=False)
    return path


def times(tmp_path, kind, base, rows):
    return predict(kind, table(tmp_path, base, rows))["predicted_us"].to_numpy()


def test_distinct_is_that_of_the_workload():
    for slots, k, ranks in ((256, 8, 8), (256, 8, 64), (384, 6, 4), (16, 1, 8), (8, 2, 4)):
        found = distinct(np.array([float(slots)]), np.array([float(k)]), np.array([float(ranks)]))
        assert found[0] == pytest.approx(moe.distinct_ranks(slots, k, ranks))


def test_copies():
    one = {name: np.array([value]) for name, value in (("experts", 256.0), ("top_k", 8.0), ("ranks", 64.0))}
    domains = np.array([8.0])
    assert [float(c[0]) for c in copies("every", **one, domains=domains)] == [8.0, 7.0]
    assert float(copies("even", **one, domains=domains)[0][0]) == 8.0
    near, far = copies("rank", **one, domains=domains, limit=4.0)
    # M11 of the model checks: four of eight nodes, then eight experts of theirs
    assert float(far[0]) == pytest.approx(3.62901092 * 7 / 8)
    assert 6 < float(near[0]) < 8


@pytest.mark.parametrize("profile", experts.expert_library().profiles)
def test_profiles_name_constants_of_their_page(profile):
    one = experts.expert_library().profiles[profile]
    known = experts.EXPERT_DEFAULTS[one.form].keys()
    for operation in (*one.operations.values(), *one.between.values()):
        assert operation.common.keys() <= known
        for constants in operation.classes.values():
            assert constants.keys() == operation.common.keys()
        assert set(operation.classes) <= set(experts.expert_library().classes)
    assert set(one.between) <= set(one.operations)


def test_classes_are_of_known_accelerators():
    found = experts.expert_library()
    known = reading.builtin_files("topologies/accelerators")
    assert {name for members in found.classes.values() for name in members} <= set(known)
    assert all(fit.count > 0 for fit in found.fits.values())
    names = [name.lower() for key, one in found.profiles.items() for name in (key, *one.names)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kernel", ["NVLinkTwoSided", "NVLinkOneSided"])
@pytest.mark.parametrize("operation", ["dispatch", "combine"])
def test_no_domain_kernel_beats_the_port(tmp_path, kernel, operation):
    rows = [
        {"op_name": operation, "kernel_source": kernel, "moe_dtype": "nvfp4", "num_tokens": n, "moe_ep_size": p}
        for p in (2, 8, 64)
        for n in (1, 64, 4096, 262144)
    ]
    got = times(tmp_path, "moe_alltoall", ALLTOALL, rows).reshape(3, 4)
    element_B = 2.0 if operation == "combine" else 0.5 + 1 / 16
    for p, line in zip((2, 8, 64), got, strict=True):
        bound = np.array([1, 64, 4096, 262144]) * min(8, p) * (p - 1) / p * 7168 * element_B / 900e9 * 1e6
        assert np.all(line > bound)
        assert np.all(np.diff(line) > 0)


@pytest.mark.parametrize("mode", ["normal", "low_latency"])
def test_no_pair_beats_its_links(tmp_path, mode):
    tokens = np.array([1, 128, 4096, 131072])
    for nodes in (1, 2, 4, 8):
        rows = [{"mode": mode, "node_num": nodes, "num_token": n} for n in tokens]
        got = times(tmp_path, "deepep", PAIR, rows)
        far = 0.0 if nodes == 1 else (1.0 if mode == "normal" else 8.0) * (nodes - 1) / nodes
        assert np.all(got > tokens * far * (7392 + 14336) / 50e9 * 1e6)
        assert np.all(np.diff(got) > 0)


def test_more_cores_are_quicker_until_links_bind(tmp_path):
    few, some, many = times(tmp_path, "deepep", {**PAIR, "num_token": 16384}, [{"sms": s} for s in (4, 8, 24)])
    assert few > some > many
    assert few / some == pytest.approx(2, rel=0.1)


def test_pairs_and_their_sum(tmp_path):
    frame = predict("deepep", table(tmp_path, PAIR), out=tmp_path / "out.csv")
    both = frame["predicted_dispatch_us"] + frame["predicted_combine_us"]
    assert frame["predicted_us"].tolist() == both.tolist()
    alone = predict("deepep", table(tmp_path, {**PAIR, "combine_us": 1.0}))
    assert alone["predicted_us"].tolist() == frame["predicted_combine_us"].tolist()
    assert pd.read_csv(tmp_path / "out.csv")["predicted_us"].iloc[0] == pytest.approx(both.iloc[0])


def test_cores_may_be_absent(tmp_path):
    base = predict("deepep", table(tmp_path, PAIR))["predicted_us"]
    assert predict("deepep", table(tmp_path, PAIR, drop=["sms"]))["predicted_us"].tolist() == base.tolist()
    rows = [{"mode": "low_latency", "sms": np.nan}, {}]
    assert np.isfinite(times(tmp_path, "deepep", PAIR, rows)).all()


def test_unequal_loads_cost_more(tmp_path):
    skews = ("balanced", "uniform", "power_law_1.2")
    rows = [{"num_tokens": 8192, "moe_ep_size": 32, "distribution": skew} for skew in skews]
    even, uniform, skewed = times(tmp_path, "moe_alltoall", ALLTOALL, rows)
    # a uniform draw meets fewer distinct ranks than dealing out in turn
    assert uniform < even
    assert skewed > uniform


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_tokens": 0}, "row 1: num_tokens: must be a whole number above 0, got 0"),
        ({"num_tokens": -5}, "got -5"),
        ({"hidden_size": np.nan}, "row 1: hidden_size"),
        ({"moe_ep_size": 2.5}, "row 1: moe_ep_size"),
        ({"topk": 300}, "row 1: topk: 300 of 256 experts"),
        ({"system": "nothing9"}, "row 1: system"),
        (
            {"kernel_source": "NVLinkTwoSide"},
            "row 1: kernel_source: no kernel 'NVLinkTwoSide'. Did you mean 'NVLinkTwoSided'?",
        ),
        ({"op_name": "alltoall_dispatched"}, "row 1: op_name: two_sided has no operation 'dispatched'"),
        ({"moe_dtype": "fp7"}, "row 1: moe_dtype: number format 'fp7'"),
        ({"distribution": "odd"}, "row 1: distribution: got 'odd'. Allowed: balanced, uniform, power_law_<exponent>."),
        ({"moe_ep_size": 144}, "row 1: moe_ep_size: 144 ranks; two_sided reaches the 72 of a domain"),
    ],
)
def test_errors_of_alltoall_tables(tmp_path, change, message):
    with pytest.raises(InputError) as caught:
        predict("moe_alltoall", table(tmp_path, ALLTOALL, [{}, change]))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_token": 0}, "row 1: num_token: must be a whole number above 0, got 0"),
        ({"node_num": -1}, "row 1: node_num"),
        ({"sms": np.nan}, "row 1: sms"),
        ({"mode": "slow"}, "row 1: mode: no kernel 'slow'"),
        ({"sms": "many"}, "row 1: sms: must be a whole number above 0, got many"),
        ({"num_topk": 257}, "row 1: num_topk: 257 of 256 experts"),
    ],
)
def test_errors_of_pair_tables(tmp_path, change, message):
    with pytest.raises(InputError) as caught:
        predict("deepep", table(tmp_path, PAIR, [{}, change]))
    assert message in str(caught.value)


@pytest.mark.parametrize(("kind", "base", "name"), [("moe_alltoall", ALLTOALL, "topk"), ("deepep", PAIR, "mode")])
def test_a_missing_column_is_named(tmp_path, kind, base, name):
    with pytest.raises(InputError, match=f"{name}: no such column"):
        predict(kind, table(tmp_path, base, drop=[name]))


#: the layer that the published points are of
WIDE = {"hidden": 7168, "top_k": 8, "experts": 256}


def test_published_points_of_a_system_without_rows():
    """DeepEP on nodes with narrower links (docs/legacy.md; first release, all by NIC: arXiv:2506.12708v2 table 7)."""
    ranks = (8, 16, 32, 64, 128, 256)
    later = [expert_us("hgx_h800", "low_latency", "dispatch", ranks=p, tokens=128, **WIDE) for p in ranks]
    assert later == pytest.approx([77, 118, 155, 173, 192, 194], rel=0.15)
    first = [expert_us("hgx_h800", "latency_by_nic", "combine", ranks=p, tokens=128, **WIDE) for p in (8, 32, 128)]
    assert first == pytest.approx([318, 350, 369], rel=0.08)


def test_published_points_of_a_fabric_of_dies():
    """Fitted rows: a guard of the data file."""
    for operation, wanted in (("dispatch", [116, 133, 152]), ("combine", [118, 146, 150])):
        found = [expert_us("cloudmatrix384", "CANN EP", operation, ranks=p, tokens=128, **WIDE) for p in (8, 32, 128)]
        assert found == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"ranks": 0}, "ranks: must be a whole number above 0"), ({"top_k": 9, "experts": 8}, "top_k: 9 of 8 experts")],
)
def test_errors_of_one_call(change, message):
    with pytest.raises(InputError, match=message):
        expert_us("gb200", "two_sided", "combine", **{**WIDE, "ranks": 8, "tokens": 1, **change})


def test_calibrate_finds_constants_again(tmp_path):
    """Rows made by the model with a slower wire: the fit finds the rate, and says how well."""
    rows = [{"num_tokens": 2**n, "moe_ep_size": p} for n in range(17) for p in (2, 4, 8, 16)]
    frame = predict("moe_alltoall", table(tmp_path, ALLTOALL, rows))
    constants = experts.expert_library().profiles["two_sided"].operations["dispatch"].classes["nvlink5"]
    frame["latency_us"] = frame["predicted_us"] * np.random.default_rng(0).normal(1, 0.01, len(frame))
    path = tmp_path / "rows.csv"
    frame.drop(columns="predicted_us").to_csv(path, index=False)
    fit = calibrate(path, accelerator="gb200", out=tmp_path / "fit.yaml")
    assert isinstance(fit, ExpertFit)
    assert fit.held_out_pct[0] < 2
    assert fit.rows == len(rows)
    assert fit.operations["two_sided/dispatch"]["base_us"] == pytest.approx(constants["base_us"], rel=0.03)
    assert "two_sided/dispatch" in (tmp_path / "fit.yaml").read_text(encoding="utf-8")


def test_calibrate_pairs(tmp_path):
    rows = [{"num_token": 2**n, "sms": s, "node_num": 1} for n in range(15) for s in (4, 20)]
    frame = predict("deepep", table(tmp_path, PAIR, rows))
    frame = frame.rename(columns={"predicted_dispatch_us": "dispatch_us", "predicted_combine_us": "combine_us"})
    path = tmp_path / "rows.parquet"
    frame.to_parquet(path)
    fit = calibrate(path, accelerator="h100_sxm")
    assert fit.operations.keys() == {"bulk/dispatch", "bulk/combine"}
    assert fit.rows == 2 * len(rows)
    assert fit.held_out_pct[1] < 1


@pytest.mark.parametrize(
    ("drop", "count", "message"),
    [(["latency_us"], 9, "latency_us: no such column"), ([], 3, "3 rows of gb200; at least 8 are needed")],
)
def test_errors_of_calibrate(tmp_path, drop, count, message):
    path = table(tmp_path, {**ALLTOALL, "latency_us": 12.0}, [{"num_tokens": n + 1} for n in range(count)], drop)
    with pytest.raises(InputError, match=message):
        calibrate(path, accelerator="gb200")


def test_command_line(tmp_path):
    from typer.testing import CliRunner

    from cmsim.cli import calibrate as page

    rows = table(tmp_path, ALLTOALL, [{}, {"num_tokens": 256}])
    done = CliRunner().invoke(page.app, ["predict", "moe_alltoall", str(rows), "--out", str(tmp_path / "out.parquet")])
    assert done.exit_code == 0
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert list(frame.columns) == [*ALLTOALL, "predicted_us"]
    assert (frame["predicted_us"] > 10).all()


def test_what_was_not_measured_is_said(tmp_path):
    rows = {
        "system": ["h100_sxm", "h200_sxm", "h100_sxm", "gb200"],
        "mode": "low_latency",
        "node_num": [1, 1, 16, 1],
        "hidden_size": 7168,
        "num_token": [128, 128, 128, 4096],
        "num_topk": 8,
        "num_experts": 256,
    }
    pd.DataFrame(rows).to_csv(tmp_path / "t.csv")
    notes = list(predict("deepep", tmp_path / "t.csv")["note"])
    ways = [note.partition("(")[2].partition(")")[0] for note in notes]
    assert ways == ["", "other accelerator", "ranks", "tokens"]
    measured = "8 to 64 ranks, 1 to 2048 tokens of a rank on h100_sxm"
    assert all(note == "" or measured in note for note in notes)
