"""What the host does around a kernel goes with the kind of host, what the device does with the accelerator."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from cmsim.calibration.kernels import kernel_rows, predict_kernels
from cmsim.compute.shape import gemm_shape
from cmsim.errors import CmsimWarning
from cmsim.hardware import load_accelerator
from cmsim.kernels import kernel_data
from cmsim.kernels.kinds import KINDS
from cmsim.kernels.of_shapes import shape_times_us
from cmsim.kernels.times import times_us

BLOCK = "fp8_block/DeepGemmFp8BlockScaledMMKernel"
#: so small that the host alone takes time
SMALL = {"m": [64], "n": [512], "k": [512], "dtype": ["fp8_block"], "kernel": ["DeepGemmFp8BlockScaledMMKernel"]}


def beside(host, name="b200_sxm"):
    return load_accelerator(name).model_copy(update={"host_kind": host})


def small_us(system):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CmsimWarning)
        return predict_kernels(pd.DataFrame(SMALL), "gemm", system=system)[0]


def test_another_host_lends_its_part():
    """A relative on an x86 board: the device of one table, the host of the other."""
    data = kernel_data(load_accelerator("b200_sxm"), "gemm")
    own, other = (kernel_data(load_accelerator(name), "gemm").variants[BLOCK] for name in ("gb200", "h100_sxm"))
    assert (data.of, data.host, data.host_of) == ("gb200", "x86", "h100_sxm")
    assert data.variants[BLOCK].constants == own.constants
    assert data.variants[BLOCK].host == other.host != own.host
    assert small_us("b200_sxm") == pytest.approx(small_us("h100_sxm"), rel=0.25)
    assert small_us("b200_sxm") < 0.5 * small_us("gb200")


def test_the_same_host_lends_all():
    data, of = kernel_data(load_accelerator("gb300"), "gemm"), kernel_data(load_accelerator("gb200"), "gemm")
    assert (data.of, data.host, data.host_of) == ("gb200", "grace", "gb200")
    assert data.variants == of.variants
    assert small_us("gb300") == pytest.approx(small_us("gb200"), rel=0.05)


def test_kernels_without_host_work_are_the_devices():
    data, of = kernel_data(load_accelerator("b200_sxm"), "gemm"), kernel_data(load_accelerator("gb200"), "gemm")
    hosted = {name for name, one in of.variants.items() if one.host}
    assert hosted and all(name.startswith("fp8_block/") for name in hosted)
    assert all(data.variants[name] == one for name, one in of.variants.items() if name not in hosted)
    latent = kernel_data(load_accelerator("b200_sxm"), "mla_generation")
    assert (latent.host, latent.host_of) == (None, None)


def test_it_is_said():
    with pytest.warns(CmsimWarning, match="host work is that of x86 hosts, from rows of h100_sxm"):
        predict_kernels(pd.DataFrame(SMALL), "gemm", system="b200_sxm")
    # nothing was measured beside that kind of host
    data = kernel_data(beside("kunpeng"), "gemm")
    assert (data.host, data.host_of) == ("grace", "gb200")
    rows, _ = kernel_rows(pd.DataFrame(SMALL), KINDS["gemm"], "", "b200_sxm", np.zeros(1, np.int64))
    (note,) = times_us(KINDS["gemm"], rows, beside("kunpeng"), data).notes
    assert "host work is that of grace hosts, no rows beside kunpeng ones" in note


def test_runs_leave_the_host_out_whichever_it_is():
    shape, all_cores = [gemm_shape(64, 4096, 7168, "fp8_block")], np.ones(1)
    found = [shape_times_us(shape, all_cores, beside(host)).us[0] for host in ("x86", "grace")]
    assert found[0] == found[1] < 30


def test_carried_to_the_other_generation_the_host_is_most_of_it(shared):
    """Constants of one generation on rows of the other; with the rows' own kind of host the error falls to a tenth."""
    frame = pd.read_parquet(shared / "reference" / "measured" / "gemm.parquet")
    for of, on in (("gb200", "h100_sxm"), ("h100_sxm", "gb200")):
        mine = frame[(frame["system"] == on) & (frame["kernel"] == SMALL["kernel"][0])].reset_index(drop=True)
        rows, _ = kernel_rows(mine, KINDS["gemm"], "", on, np.arange(len(mine)))
        error = []
        for host in (load_accelerator(of).host_kind, load_accelerator(on).host_kind):
            lender = load_accelerator(of).model_copy(update={"host_kind": host})
            found = times_us(KINDS["gemm"], rows, load_accelerator(on), kernel_data(lender, "gemm")).us
            error.append(np.median(np.abs(found / mine["latency_us"] - 1)))
        assert error[0] > 0.7
        assert error[1] < 0.1
