"""Kernels of runs by their sizes: whose times they take, and when."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cmsim import compute
from cmsim.calibration.kernels import predict_kernels
from cmsim.engine.plan import plan
from cmsim.errors import CmsimWarning
from cmsim.hardware import System, load_accelerator, load_system
from cmsim.kernels.of_shapes import shape_times_us
from cmsim.kinds.parts import PrecisionSpec
from cmsim.workload.generate.layers import core_decode, formats
from cmsim.workload.model import load_model
from cmsim.workload.ops import ProgramBuilder, assemble


def held_s(system: System, *kernels: tuple[str, str, float, float, compute.Shape | None]) -> list[float]:
    """Time of each kernel of a program on one rank. [s]"""
    build = ProgramBuilder()
    for kernel, precision, flops, bytes_B, shape in kernels:
        build.compute(
            kernel, stream="compute", kernel=kernel, precision=precision, flops=flops, bytes_B=bytes_B, shape=shape
        )
    made = plan(assemble([build], program=np.zeros(1, np.int64), groups={}), system)
    return [float(hold) * 1e-12 for hold in made.hold_ps[0]]


def product(m: float, n: float, k: float, precision: str = "bf16", *, shape: bool = True):
    work = compute.gemm(m, n, k, in_bytes=2.0, out_bytes=2.0)
    return (
        "gemm",
        precision,
        float(work.flops),
        float(work.bytes_B),
        compute.gemm_shape(m, n, k, precision) if shape else None,
    )


def times_us(*shapes: object, **more: object) -> np.ndarray:
    us, _ = shape_times_us(*shapes, **more)
    return us


def predicted_us(kind: str, system: str, **columns: object) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CmsimWarning)
        return float(predict_kernels(pd.DataFrame([{"system": system, **columns}]), kind)[0])


def test_a_product_takes_what_its_table_says():
    with_size, without = held_s(load_system("hgx_h100"), product(64, 4096, 7168), product(64, 4096, 7168, shape=False))
    assert with_size * 1e6 == pytest.approx(predicted_us("gemm", "h100_sxm", m=64, n=4096, k=7168, dtype="bf16"))
    # the class's share of bandwidth, a fixed overhead and the gap
    assert without * 1e6 == pytest.approx((64 * 7168 + 4096 * 7168 + 64 * 4096) * 2 / (3.35e6 * 0.87) + 2.6, rel=1e-3)
    assert with_size != pytest.approx(without, rel=1e-3)


def test_long_products_keep_the_share_of_the_peak():
    with_size, without = held_s(
        load_system("hgx_h100"), product(16384, 8192, 8192), product(16384, 8192, 8192, shape=False)
    )
    assert with_size == without > 500e-6


def test_a_stack_may_measure_nothing():
    system = load_system("cloudmatrix384")
    with_size, without = held_s(system, product(64, 4096, 7168, "int8"), product(64, 4096, 7168, "int8", shape=False))
    assert system.stack.measured.classes == {}
    assert with_size == without


def test_what_a_class_keeps_in_whole_models_divides_its_time():
    system = load_system("hgx_h100")
    slower = system.stack.model_copy(
        update={"measured": system.stack.measured.model_copy(update={"classes": {"gemm": 0.8}})}
    )
    (full,) = held_s(system, product(64, 4096, 7168))
    (part,) = held_s(replace(system, stack=slower), product(64, 4096, 7168))
    assert part == pytest.approx(full / 0.8, rel=1e-9)


def test_of_another_makers_rows_runs_know_nothing():
    spec = load_accelerator("mi300x")
    assert np.isnan(times_us([compute.gemm_shape(64, 4096, 4096, "bf16")], np.ones(1), spec)).all()


def test_half_the_cores_slow_what_cores_bind_and_not_what_memory_does():
    spec = load_accelerator("h100_sxm")
    bound = compute.gemm_shape(4096, 4096, 4096, "bf16")
    few = compute.gemm_shape(1, 16384, 16384, "bf16")
    whole = times_us([bound, few], np.ones(2), spec)
    half = times_us([bound, few], np.full(2, 0.5), spec)
    assert half[0] / whole[0] == pytest.approx(2.0, rel=0.15)
    assert half[1] / whole[1] < 1.6


def test_a_package_of_two_devices_shares_a_kernel():
    spec = load_accelerator("ascend_910c")
    shape = [compute.gemm_shape(8192, 8192, 8192, "int8")]
    one, two = (times_us(shape, np.ones(1), spec, devices=devices)[0] for devices in (1.0, 2.0))
    assert one / two == pytest.approx(2.0, rel=0.05)


def test_an_op_has_no_time_of_its_neighbours():
    """Tables time the rounding of A and the host's calls with the product, attention with rotation and cache writes."""
    spec = load_accelerator("h100_sxm")
    rounded = times_us([compute.gemm_shape(64, 4096, 7168, "fp8")], np.ones(1), spec)[0]
    assert rounded < predicted_us("gemm", "h100_sxm", m=64, n=4096, k=7168, dtype="fp8")
    block = times_us([compute.gemm_shape(64, 4096, 7168, "fp8")], np.ones(1), spec, gemm_formats={"fp8": "fp8_block"})[
        0
    ]
    assert block < 0.5 * predicted_us("gemm", "h100_sxm", m=64, n=4096, k=7168, dtype="fp8_block")
    sizes = {"sequences": 4.0, "new": 2048.0, "before": 0.0, "heads": 32.0}
    core = times_us(
        [
            compute.attention_shape(
                "attention_context", **sizes, kv_heads=8.0, head_dim=128.0, precision="bf16", cached="bf16"
            )
        ],
        np.ones(1),
        spec,
    )[0]
    row = {"batch_size": 4, "isl": 2048, "num_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "step": 0}
    whole = predicted_us(
        "attention_context", "h100_sxm", **row, window_size=0, attn_dtype="bfloat16", kv_cache_dtype="bfloat16"
    )
    assert 0.5 * whole < core < whole


def test_new_tokens_of_latent_attention_share_what_is_read():
    """Of few heads they cost little; where the heads of one fill a product, two cost nearly twice."""
    spec = load_accelerator("gb200")
    sizes = {"sequences": 128.0, "precision": "bf16", "cached": "bf16", "latent": (512, 64, 128, 128)}

    def found_us(heads: float, new: float) -> float:
        shape = compute.latent_shape("mla_generation", heads=heads, new=new, before=4096.0 - new, **sizes)
        return float(times_us([shape], np.ones(1), spec)[0])

    assert found_us(8, 1) < found_us(8, 2) < 1.2 * found_us(8, 1)
    assert 1.4 * found_us(128, 1) < found_us(128, 2) < 2 * found_us(128, 1)


def test_latents_of_other_sizes_have_no_measured_rows():
    spec = load_accelerator("gb200")
    asked = {"sequences": 8.0, "new": 1.0, "before": 4095.0, "heads": 16.0, "precision": "bf16", "cached": "bf16"}
    shapes = [
        compute.latent_shape("mla_generation", latent=latent, **asked)
        for latent in ((512, 64, 128, 128), (256, 64, 128, 128))
    ]
    assert np.isnan(times_us(shapes, np.ones(2), spec)).tolist() == [False, True]


@pytest.mark.parametrize("name", ["deepseek-r1", "llama-3.1-8b"])
def test_draft_tokens_are_a_column_of_their_own(name):
    """A step of a sequence asks with the token before and the drafted ones; heads stay what they are."""
    model = load_model(name)
    for drafted in (0, 1, 3):
        (core,) = (
            kernel
            for kernel in core_decode(model, 32.0, 1.0 + drafted, 4096.0, 1, formats(PrecisionSpec()))
            if kernel.name == "attention"
        )
        numbers = dict(core.shape.numbers)
        assert (numbers["isl"], numbers["step"]) == (1 + drafted, 4095 - drafted)
        assert (numbers["num_heads"], numbers["batch_size"]) == (model.heads, 32)
