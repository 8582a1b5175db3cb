"""algorithm: nccl, hccl: in the engine a call takes what the library's model says, and shares what it needs."""

from __future__ import annotations

import pytest

from cmsim import api, calibration
from cmsim.errors import InputError
from cmsim.libraries import libraries
from cmsim.scenario import load_scenario

GPU, BOXES = "hgx_h100", {"system": "hgx_h100", "domains": 4}
DIES = {"system": "cloudmatrix384", "accelerators": 8}


def result(system, library, collective="all_reduce", size_B=1 << 20, **changes):
    workload = {"kind": "collective", "collective": collective, "message_bytes": size_B, "algorithm": library}
    for key in ("group", "stride"):
        if key in changes:
            workload[key] = changes.pop(key)
    (one,) = load_scenario({"systems": [system], "workload": workload, **changes}).runs
    return api.run_one(one, api.system(one))


@pytest.mark.parametrize("size_B", [4096, 1 << 20, 1 << 30])
@pytest.mark.parametrize("collective", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
@pytest.mark.parametrize(("system", "library", "ranks"), [(GPU, "nccl", 8), (BOXES, "nccl", 32), (DIES, "hccl", 16)])
def test_alone_a_call_takes_what_the_library_is_predicted_to(system, library, ranks, collective, size_B):
    found = result(system, library, collective, size_B)
    name = system if isinstance(system, str) else system["system"]
    *candidates, predicted = calibration.explain(name, collective, size_B, ranks)
    # measured dies of one package reach each other beside their ports, which the links of a run do not
    least_us = 1e6 * float(found.bound["time_s"])
    assert found.metric("time_s") * 1e6 == pytest.approx(max(predicted.time_us, least_us), rel=1e-6)
    assert least_us < predicted.time_us or (library, size_B) == ("hccl", 1 << 30)
    assert found.metrics["algorithm"] == candidates[0].name


def test_groups_with_a_nic_each_do_not_slow_each_other():
    """Eight groups of one accelerator in each of four boxes, all at once."""
    found = result(BOXES, "nccl", "all_gather", 1 << 30, group=4, stride=8)
    *_, predicted = calibration.explain("hgx_h100", "all_gather", 1 << 30, 4, per_domain=1)
    assert found.metric("time_s") * 1e6 == pytest.approx(predicted.time_us, rel=1e-6)


def test_links_play_the_algorithm_that_the_library_takes():
    by_link = result(DIES, "hccl", size_B=1 << 26, network="flow")
    assert by_link.metrics["algorithm"] == "mesh copy"
    assert by_link.metric("bound_ratio") > 1
    between = result(BOXES, "nccl", size_B=1 << 26, network="flow")
    assert between.metrics["algorithm"] == "nvls_tree"
    assert between.metric("time_s") == pytest.approx(
        result(BOXES, "hierarchical(in_network, nhr)", size_B=1 << 26, network="flow").metric("time_s")
    )


def test_a_library_s_own_names_stand_for_pages():
    assert result(DIES, "RHD").metrics["algorithm"] == "halving_doubling"
    assert result(DIES, "rhd", "all_gather").metrics["algorithm"] == "halving_doubling"


def test_a_library_that_the_system_does_not_run_is_refused():
    with pytest.raises(InputError, match=r"cloudmatrix384 runs hccl, got 'nccl'. Allowed: hccl, best"):
        result(DIES, "nccl")
    with pytest.raises(InputError, match=r"unknown algorithm 'ncl'. Did you mean 'nccl'"):
        result(GPU, "ncl")
    assert {"nccl", "hccl"} <= set(libraries())


def test_no_library_where_none_is_known():
    with pytest.raises(InputError, match=r"no library is known for tpu_v5p_pod, got 'nccl'. Allowed: best"):
        result({"system": "tpu_v5p_pod", "accelerators": 64}, "nccl")


def test_runs_say_what_a_library_was_not_measured_at():
    rack = {"system": "gb200_nvl72"}
    (said,) = (note for note in result(rack, "nccl", "all_gather").warnings if "extrapolated" in note)
    assert said.startswith("nccl all_gather inside a domain: extrapolated (ranks); measured: 2 to 4 ranks")
    assert not any("extrapolated" in note for note in result(GPU, "nccl").warnings)
    # best says it where the library wins
    best = result({"system": "cloudmatrix384", "accelerators": 48}, "best", "all_gather", 1 << 20)
    assert best.metrics["algorithm"] == "mesh AIV"
    assert any("hccl all_gather" in note for note in best.warnings)


@pytest.mark.parametrize("size_B", [1024, 1 << 20, 1 << 24, 1 << 30])
@pytest.mark.parametrize(
    ("system", "library"),
    [
        ({"system": "gb200_nvl72", "accelerators": 8}, "nccl"),
        ({"system": "gb200_nvl72"}, "nccl"),
        (DIES, "hccl"),
        ({"system": "cloudmatrix384"}, "hccl"),
        ({"system": "mi300x_8"}, "rccl"),
    ],
)
@pytest.mark.parametrize("collective", ["all_reduce", "all_gather"])
def test_best_is_never_above_the_library(system, library, collective, size_B):
    best, own = (result(system, name, collective, size_B).metric("time_s") for name in ("best", library))
    assert best <= own * (1 + 1e-9)
