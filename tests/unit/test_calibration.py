"""Tables in, predictions and fits out: rows and order kept, errors with column and row, logs read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

from cmsim.calibration import calibrate, explain, predict, read_log
from cmsim.calibration.places import place
from cmsim.errors import InputError

ROWS = {
    "system": ["hgx_h100", "gb200", "hgx_h100", "cm384", "AWS p5.48xlarge x8 (EFA v2, 4 EFA per GPU)"],
    "collective": ["all_reduce", "alltoall", "reduce_scatter", "all_gather", "all_reduce"],
    "dtype": ["half", "int8", "half", "half", "float"],
    "n_ranks": [8, 72, 2, 16, 64],
    "message_bytes": [1024, 2**20, 2**28, 2**24, 2**28],
}


def table(tmp_path, name="t.csv", **changes):
    frame = pd.DataFrame({**ROWS, **changes})
    path = tmp_path / name
    frame.to_parquet(path, index=False) if name.endswith("parquet") else frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_rows_and_order_are_kept(tmp_path, ending):
    path = table(tmp_path, f"t.{ending}")
    out = tmp_path / f"o.{ending}"
    frame = predict("collective", path, out=out)
    again = pd.read_csv(out) if ending == "csv" else pd.read_parquet(out)
    assert list(again.columns) == [*ROWS, "predicted_us", "note"]
    for name, column in ROWS.items():
        assert list(again[name]) == column
    assert list(again["predicted_us"]) == pytest.approx(list(frame["predicted_us"]))
    assert np.all(np.isfinite(frame["predicted_us"]) & (frame["predicted_us"] > 0))


def test_one_system_for_all_rows(tmp_path):
    frame = pd.DataFrame({key: column[:3] for key, column in ROWS.items() if key != "system"})
    frame.to_csv(tmp_path / "t.csv", index=False)
    slow = predict("collective", tmp_path / "t.csv", system="hgx_a100")["predicted_us"]
    fast = predict("collective", tmp_path / "t.csv", system="hgx_h100")["predicted_us"]
    assert np.all(slow[[0, 2]] > fast[[0, 2]])


@pytest.mark.filterwarnings("ignore::cmsim.errors.CmsimWarning")
def test_every_built_in_system_and_collective(tmp_path, root):
    systems = sorted(path.stem for path in (root / "topologies").glob("*.yaml"))
    names = ["all_reduce", "all_gather", "reduce_scatter", "alltoall", "broadcast", "reduce", "sendrecv"]
    rows = [(s, c, p, 2**20) for s in systems for c in names for p in (1, 2, 8, 1024)]
    pd.DataFrame(rows, columns=["system", "collective", "n_ranks", "message_bytes"]).to_csv(tmp_path / "t.csv")
    time = predict("collective", tmp_path / "t.csv")["predicted_us"]
    assert np.all(np.isfinite(time) & (time > 0))


def test_accelerator_stands_in_for_an_unknown_system(tmp_path):
    path = table(tmp_path, system=["some cluster"] * 5, accelerator=["H100 SXM 80GB"] * 5)
    assert np.all(predict("collective", path)["predicted_us"] > 0)


def test_a_name_may_state_its_network(tmp_path):
    names = [f"HGX A100 x2 nodes, {rate} per node" for rate in ("8x HDR200", "4x HDR200", "8x100G", "400 Gb/s")]
    path = tmp_path / "t.csv"
    rows = {"system": names, "collective": "all_reduce", "n_ranks": 16, "message_bytes": 2**33}
    pd.DataFrame(rows).to_csv(path)
    fast, half, same, slow = predict("collective", path)["predicted_us"]
    assert half == pytest.approx(same)
    assert fast < half < slow


def test_kernels_of_serving_engines(tmp_path):
    rows = {
        "system": "h100_sxm",
        "kernel": ["TRTLLM", "vLLM_custom_graph/vllm_graph", "vLLM_custom_eager/vllm_eager"],
        "dtype": "bfloat16",
        "n_ranks": 8,
        "message_elements": 8192,
    }
    pd.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    time = predict("collective", tmp_path / "t.parquet")["predicted_us"]
    assert time[2] > 3 * time[1] > 3 * time[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"message_bytes": [1024, -5, 1, 1, 1]}, r"row 1: message_bytes: must be above 0, got -5"),
        ({"message_bytes": [1024, 1, np.nan, 1, 1]}, r"row 2: message_bytes: must be above 0, got nan"),
        ({"n_ranks": [8, 0, 2, 2, 2]}, r"row 1: n_ranks: must be a whole number above 0, got 0"),
        ({"n_ranks": [8, 2.5, 2, 2, 2]}, r"row 1: n_ranks: must be a whole number above 0, got 2.5"),
        ({"system": ["hgx_h100", "hgx_h100", "hgx_h10O", "gb200", "gb200"]}, r"row 2: system: no system named"),
        ({"collective": ["all_reduce", "alltoal", "all_gather", "all_gather", "reduce"]}, r"row 1: collective: got"),
        ({"dtype": ["half", "hlf", "half", "half", "half"]}, r"row 1: dtype: got 'hlf'. Did you mean 'half'"),
    ],
)
def test_errors_name_column_and_row(tmp_path, changes, message):
    path = table(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        predict("collective", path)
    assert str(path) in str(caught.value)


def test_many_bad_rows_are_counted(tmp_path):
    path = table(tmp_path, "t.parquet", message_bytes=[-1] * 5)
    assert str(predict_error(path)).count("row ") == 5


def predict_error(path, **more):
    with pytest.raises(InputError) as caught:
        predict("collective", path, **more)
    return caught.value


def test_errors_of_tables(tmp_path):
    pd.DataFrame(ROWS).drop(columns=["n_ranks"]).to_csv(tmp_path / "t.csv")
    assert "n_ranks: no such column" in str(predict_error(tmp_path / "t.csv"))
    assert "no such table" in str(predict_error(tmp_path / "absent.csv"))
    (tmp_path / "bad.parquet").write_text("not parquet")
    assert "cannot be read as parquet" in str(predict_error(tmp_path / "bad.parquet"))
    assert "no system named" in str(predict_error(table(tmp_path), system="nowhere"))
    assert "ends in .parquet or .csv" in str(predict_error(table(tmp_path), out=tmp_path / "o.txt"))
    with pytest.raises(InputError, match="Did you mean 'collective'"):
        predict("colective", table(tmp_path))
    rows = {"system": "h100", "kernel": ["nobody"], "dtype": "half", "n_ranks": 2, "message_elements": 8}
    pd.DataFrame(rows).to_csv(tmp_path / "k.csv")
    assert "row 0: kernel: got 'nobody'" in str(predict_error(tmp_path / "k.csv"))


NCCL = """# nThread 1 nGpus 1 minBytes 1024 maxBytes 2048 step: 2(factor)
# Collective test starting: all_reduce_perf
#  Rank  0 Group  0 Pid  100 on    node-a device  0 [0x1b] some device
#  Rank  1 Group  0 Pid  101 on    node-a device  1 [0x43] some device
#  Rank  2 Group  0 Pid  102 on    node-b device  0 [0x1b] some device
#  Rank  3 Group  0 Pid  103 on    node-b device  1 [0x43] some device
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
        1024           256     float     sum      -1    24.51    0.04    0.06      0    23.90    0.04    0.06      0
        2048           512     float     sum      -1    25.01    0.08    0.12      0    24.90    0.08    0.12      0
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 0.09
"""
HCCL = """the minbytes is 1024, maxbytes is 2048, all_gather_test, rank_size: 16
data_size(Bytes): | aveg_time(us): | alg_bandwidth(GB/s): | check_result:
1024 | 9.50 | 0.10779 | success
2048 | 9.75 | 0.21005 | success
"""


def test_log_of_nccl_tests(tmp_path):
    (tmp_path / "run.log").write_text(NCCL)
    frame = read_log(tmp_path / "run.log")
    assert list(frame["message_bytes"]) == [1024, 2048]
    assert list(frame["latency_us"]) == [24.51, 25.01]
    assert set(frame["collective"]) == {"all_reduce"}
    assert (frame["n_ranks"].iloc[0], frame["ranks_per_node"].iloc[0], frame["dtype"].iloc[0]) == (4, 2, "float")
    # a log is a table: it can be predicted as it is
    assert np.all(predict("collective", tmp_path / "run.log", system="hgx_h100")["predicted_us"] > 0)


def test_log_without_root_and_of_hccl_test():
    old = NCCL.replace("all_reduce_perf", "alltoall_perf").replace("     sum      -1", "")
    frame = read_log(old)
    assert list(frame["latency_us"]) == [24.51, 25.01]
    frame = read_log(HCCL)
    assert frame[["collective", "n_ranks", "latency_us"]].to_numpy().tolist() == [
        ["all_gather", 16, 9.5],
        ["all_gather", 16, 9.75],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1024 50.0 0.02\n\n", "names no collective"),
        ("all_reduce_perf\n1024 50.0 0.02\n", "lists no ranks"),
        ("all_reduce_perf\nrank_size 4\nnothing\n", "no line of results"),
    ],
)
def test_errors_of_logs(text, message):
    with pytest.raises(InputError, match=message):
        read_log(text)


def test_explain():
    found = explain("hgx_h100", "all_reduce", 65536, 8)
    assert found[0].name == "ring LL"
    assert found[-1].name == "predicted"
    assert sum(one.weight for one in found[:-1]) == pytest.approx(1)
    assert explain("cm384", "all_gather", 2**30, 384)[0].name == "nhr"
    assert [one.name for one in explain("hgx_h100", "alltoall", 2**24, 8)] == ["direct", "predicted"]
    for bad in (("hgx_h100", "all_redce", 1, 8), ("hgx_h100", "all_reduce", -1, 8), ("hgx_h100", "all_reduce", 1, 0)):
        with pytest.raises(InputError):
            explain(*bad)


def test_explain_names_no_cheapest_that_is_not():
    for call in (
        ("cm384", "all_reduce", 2**30, 768),
        ("cm384", "all_gather", 2**24, 16),
        ("cm384", "all_gather", 2**26, 96),
    ):
        *found, _ = explain(*call)
        named = [one for one in found if one.why.startswith("the cheapest")]
        pages = [one for one in found if not one.name.startswith("mesh")]
        assert all(one.time_us == min(page.time_us for page in pages) for one in named)
    # what weighs is what makes the prediction
    *found, predicted = explain("gb200_nvl72", "all_reduce", 1024, 72)
    assert (found[0].name, found[0].weight) == ("nvls Simple", 1.0)
    assert predicted.time_us == pytest.approx(found[0].time_us)


def test_extrapolation_is_said_with_its_range(tmp_path):
    inside, beyond, relative, switch, far = (
        explain(*call)[-1].why
        for call in (
            ("hgx_h100", "all_reduce", 2**20, 8),
            ("gb200_nvl72", "all_gather", 2**20, 72),
            ("hgx_h200", "all_reduce", 2**20, 8),
            ("hgx_h100", "broadcast", 2**20, 8),
            ("hgx_h100", "all_reduce", 2**20, 64),
        )
    )
    assert "extrapolated" not in inside
    assert "extrapolated (ranks); measured: 2 to 4 ranks, 512 B to 512 MiB on gb200" in beyond
    assert "extrapolated (other links); measured: 2 to 8 ranks, 512 B to 512 MiB on h100_sxm" in relative
    assert "no rows of this collective" in switch
    assert "between domains: extrapolated (size); measured: 64 ranks, 8 a domain, 512 MiB to 8 GiB on h100_sxm" in far
    kernel = {"system": "gb200", "kernel": "TRTLLM", "dtype": "half", "n_ranks": [4, 8], "message_elements": 64}
    pd.DataFrame(kernel).to_csv(tmp_path / "k.csv")
    measured = "measured: 2 to 4 ranks, 256 B to 1 GiB on gb200"
    assert list(predict("collective", tmp_path / "k.csv")["note"]) == [
        f"TRTLLM all_reduce inside a domain: extrapolated ({ways}); {measured}" for ways in ("size", "ranks, size")
    ]
    notes = predict("collective", table(tmp_path))["note"]
    assert list(notes != "") == [False, True, False, False, False]
    assert "ranks" in notes[1]


def split(found):
    """Names of what makes the prediction, and of the tuner's estimates."""
    names = [one.name for one in found[:-1]]
    tuner = [name.removeprefix("tuner: ") for name in names if name.startswith("tuner: ")]
    return [name for name in names if not name.startswith("tuner: ")], tuner


def test_explain_lists_what_the_tuner_could_take():
    protocols = {f"{name} {protocol}" for name in ("ring", "tree") for protocol in ("LL", "LL128", "Simple")}
    between = explain("hgx_h100", "all_reduce", 2**28, 64)
    measured, tuner = split(between)
    assert measured == ["nvls_tree", "ring"]
    assert set(tuner) == protocols | {"nvls_tree Simple"}
    assert sum(one.weight for one in between[:-1]) == pytest.approx(1)
    # inside a domain NVLS; where switches do not add, rings and trees
    assert set(split(explain("hgx_h100", "all_reduce", 2**28, 8))[1]) == protocols | {"nvls Simple"}
    assert split(explain("hgx_a100", "all_reduce", 2**28, 64)) == (["tree", "ring"], tuner_order("hgx_a100"))
    # PAT takes one rank of each domain
    rails = explain("hgx_h100", "all_gather", 2**16, 8, per_domain=1)
    assert "pat Simple" in split(rails)[1]
    assert rails[-1].time_us > explain("hgx_h100", "all_gather", 2**16, 8)[-1].time_us
    assert "pat Simple" not in split(explain("hgx_h100", "all_gather", 2**16, 64))[1]


def tuner_order(system):
    """The tuner's estimates stand in their own order."""
    found = [one for one in explain(system, "all_reduce", 2**28, 64) if one.name.startswith("tuner: ")]
    assert [one.time_us for one in found] == sorted(one.time_us for one in found)
    assert found[0].why.startswith("the tuner's least estimate")
    assert not any(one.weight for one in found)
    return [one.name.removeprefix("tuner: ") for one in found]


def test_explain_shows_the_switch_of_protocols():
    """Vector cores below about 60 KB for a peer, copy engines above; between them both weigh."""
    small, large, switch = (explain("cm384", "all_gather", 16 * 16 * block_B, 16) for block_B in (2**13, 2**18, 57194))
    assert (small[0].name, large[0].name) == ("mesh AIV", "mesh copy")
    assert small[0].weight > 0.99
    assert large[0].weight > 0.99
    assert [one.weight for one in switch[:2]] == pytest.approx([0.5, 0.5], abs=0.01)
    assert switch[-1].time_us == pytest.approx((switch[0].time_us * switch[1].time_us) ** 0.5, rel=0.01)


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("rhd", "halving_doubling"),
        ("H-D_R", "halving_doubling"),
        ("NB", "nhr"),
        ("nhr", "nhr"),
        ("pipeline", "pipeline"),
        ("star", "star"),
        ("double-ring", "ring"),
        ("fullmesh", "mesh"),
    ],
)
def test_explain_knows_the_library_s_names(name, page):
    found = explain("cm384", "all_reduce", 2**24, 32, algorithm=name)
    assert {one.name.split()[0] for one in found[:-1]} == {page}
    assert found[-1] == explain("cm384", "all_reduce", 2**24, 32)[-1]
    assert any("the library's" in one.why for one in found)


def test_the_accelerator_s_library_predicts(tmp_path):
    """A row of 8 x MI300X, by the system's name and by a table's text; the row itself set one constant."""
    frame = pd.DataFrame(
        {
            "system": ["mi300x_8", "HPE 8x MI300X node", "hgx_h100"],
            "collective": ["all_reduce"] * 3,
            "n_ranks": [8] * 3,
            "message_bytes": [2**23] * 3,
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    predicted = predict("collective", tmp_path / "t.csv")["predicted_us"].tolist()
    assert predicted[0] == predicted[1] == pytest.approx(91.1, rel=0.01)
    assert predicted[2] != predicted[0]
    names = [one.name for one in explain("mi300x_8", "all_reduce", 2**23, 16)]
    assert {"ring", "tree", "tuner: ring Simple", "tuner: tree Simple", "predicted"} <= set(names)
    assert not any("nvls" in name or "pat" in name for name in names)


def test_explain_one_algorithm():
    assert [one.name for one in explain("cm384", "all_reduce", 2**24, 20, algorithm="AHC")] == ["ahc", "predicted"]
    trees = explain("hgx_h100", "all_reduce", 2**24, 64, algorithm="tree")
    assert {one.name for one in trees[:-1]} == {f"tuner: tree {protocol}" for protocol in ("LL", "LL128", "Simple")}
    for system, name in (("cm384", "rdh"), ("cm384", "ahc"), ("hgx_h100", "pat")):
        with pytest.raises(InputError, match="is no candidate here"):
            explain(system, "all_reduce", 2**24, 32, algorithm=name)
    with pytest.raises(InputError, match="per_domain"):
        explain("hgx_h100", "all_reduce", 2**24, 32, per_domain=3)


def synthetic(tmp_path, system="hgx_h100", error=0.0, n=1.3):
    """A machine that takes n times as long as the shipped constants say."""
    sizes = [2**k for k in range(9, 30, 3)]
    rows = [(system, c, p, s) for c in ("all_reduce", "all_gather", "reduce_scatter") for p in (2, 4, 8) for s in sizes]
    frame = pd.DataFrame(rows, columns=["system", "collective", "n_ranks", "message_bytes"])
    frame.to_csv(tmp_path / "s.csv", index=False)
    noise = np.exp(error * np.random.default_rng(0).standard_normal(len(frame)))
    frame["latency_us"] = n * noise * predict("collective", tmp_path / "s.csv")["predicted_us"]
    frame.to_csv(tmp_path / "s.csv", index=False)
    return tmp_path / "s.csv"


def test_calibrate_finds_a_slower_machine(tmp_path):
    path = synthetic(tmp_path, error=0.01)
    fit = calibrate(path, accelerator="hgx_h100", out=tmp_path / "fit.yaml")
    assert (fit.rows, fit.configurations, fit.ranks) == (63, 63, (2, 8))
    assert fit.held_out_pct[0] < 5
    data = yaml.safe_load((tmp_path / "fit.yaml").read_text())
    assert data["constants"].keys() == fit.constants.keys()
    assert data["fits"]["ring"]["median_pct"] == pytest.approx(fit.held_out_pct[0], abs=0.01)


def test_calibrate_a_mesh(tmp_path):
    fit = calibrate(synthetic(tmp_path, "cloudmatrix384", n=1.2), accelerator="cloudmatrix384")
    assert fit.kind == "mesh"
    assert fit.fitted_pct[0] < 10


def test_repeats_of_a_configuration_share_a_fold():
    from cmsim.calibration.fit import configurations
    from cmsim.calibration.held_out import folds_of
    from cmsim.calibration.tables import calls

    rows = pd.DataFrame({**ROWS, "dtype": "half"})
    twice = pd.concat([rows, rows.assign(dtype="int8")], ignore_index=True)
    found = configurations(calls(twice, file="t"))
    assert found[:5].tolist() == found[5:].tolist()
    folds = folds_of(found)
    assert folds[:5].tolist() == folds[5:].tolist()


def test_errors_of_calibrate(tmp_path):
    path = table(tmp_path)
    with pytest.raises(InputError, match="latency_us: no such column"):
        calibrate(path, accelerator="hgx_h100")
    path = table(tmp_path, latency_us=[1.0] * 5)
    with pytest.raises(InputError, match="at least 8 are needed"):
        calibrate(path, accelerator="hgx_h100")
    path = table(tmp_path, latency_us=[-1.0] * 5)
    with pytest.raises(InputError, match="row 0: latency_us: must be above 0, got -1"):
        calibrate(path, accelerator="hgx_h100")
    with pytest.raises(InputError, match="no system named"):
        calibrate(path, accelerator="nothing")


@pytest.mark.filterwarnings("ignore::cmsim.errors.CmsimWarning")
@pytest.mark.parametrize(
    ("name", "system"), [("b300_sxm", "gb300_nvl72"), ("tpu_v5p", "tpu_v5p_pod"), ("gb300_288gb", "gb300_nvl72")]
)
def test_a_table_may_name_an_accelerator_alone(name, system):
    assert place(name).name == system
