"""Kernels: the work they ask for, and the time the roofline gives it. Rows K.. are check values of the model page."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim import compute
from cmsim.compute import Efficiency, Rates, Work
from cmsim.errors import InputError

US = 1e-6


@pytest.mark.parametrize(
    ("peak_FLOPps", "memory_Bps", "ridge"),
    [
        pytest.param(752e12, 3.2e12, 235.0, id="K01"),
        pytest.param(2500e12, 8e12, 312.5, id="K02"),
    ],
)
def test_both_sides_of_the_roof_meet_at_the_ridge_point(peak_FLOPps, memory_Bps, ridge):
    rates = Rates({"bf16": peak_FLOPps}, 1e12, memory_Bps, {"gemm": Efficiency(1.0, 1.0)})
    bytes_B = np.array([1e9, 1e9])
    flops = bytes_B * ridge * np.array([1 + 1e-9, 1 - 1e-9])
    priced = _price(rates, ["gemm", "gemm"], ["bf16", "bf16"], flops, bytes_B)
    assert priced.bound.tolist() == [compute.COMPUTE_BOUND, compute.MEMORY_BOUND]
    assert priced.time_s == pytest.approx(1e9 / memory_Bps, rel=1e-8)


def test_gemm_compute_bound_K06():
    work = compute.gemm(4096, 4096, 4096, in_bytes=2, out_bytes=2)
    assert _alone_s(work, "bf16", compute_efficiency=0.8) == pytest.approx(228.455707 * US, rel=1e-6)


def test_gemm_memory_bound_K07():
    work = compute.gemm(16, 7168, 7168, in_bytes=1, out_bytes=1)
    assert _alone_s(work, "int8") == pytest.approx(16.128 * US, rel=1e-6)


def test_gemm_counts_narrow_weights():
    wide = compute.gemm(8, 100, 200, in_bytes=2, out_bytes=2)
    narrow = compute.gemm(8, 100, 200, in_bytes=2, out_bytes=2, weight_bytes=1)
    assert wide.bytes_B - narrow.bytes_B == 100 * 200
    assert wide.flops == narrow.flops


def test_grouped_gemm_reads_only_active_experts():
    one = compute.grouped_gemm(32, 4096, 7168, 1, in_bytes=1, out_bytes=2)
    eight = compute.grouped_gemm(32, 4096, 7168, 8, in_bytes=1, out_bytes=2)
    assert one == compute.gemm(32, 4096, 7168, in_bytes=1, out_bytes=2)
    assert eight.bytes_B - one.bytes_B == 7 * 4096 * 7168
    assert eight.flops == one.flops


@pytest.mark.parametrize(
    ("layers", "per_layer", "expected"),
    [
        pytest.param(61, compute.mla_kv_bytes_per_token(512, 64, element_bytes=2), 70272, id="K08"),
        pytest.param(80, compute.kv_bytes_per_token(8, 128, 128, element_bytes=2), 327680, id="K09"),
        pytest.param(126, compute.kv_bytes_per_token(8, 128, 128, element_bytes=2), 516096, id="K10"),
    ],
)
def test_kv_bytes_per_token(layers, per_layer, expected):
    assert layers * per_layer == expected


MLA = {"heads": 128, "kv_lora_rank": 512, "rope_dim": 64, "element_bytes": 2}


def test_mla_decode_flops_K11():
    assert compute.mla_decode(1, 4096, **MLA).flops == 1_140_850_688


def test_mla_decode_intensity_K12():
    # queries and outputs count too, so the published figure is the limit of a long context
    assert compute.mla_decode(1, 1e12, **MLA).intensity == pytest.approx(241.777778, rel=1e-6)
    assert compute.mla_decode(2, 1e12, **MLA).intensity == pytest.approx(2 * 241.777778, rel=1e-6)


def test_mla_decode_reads_the_cache_once_a_sequence():
    one, two = (compute.mla_decode(q, 4096, **MLA) for q in (1, 2))
    assert two.flops == 2 * one.flops
    assert two.bytes_B - one.bytes_B == 128 * (576 + 512) * 2
    assert compute.mla_decode(1, 4096, **MLA, sequences=96) == one * 96
    halved = compute.mla_decode(1, 4096, **{**MLA, "heads": 64})
    assert halved.bytes_B > 0.5 * one.bytes_B + 4096 * 576 * 2 * 0.49


def test_gqa_decode_intensity_K13():
    work = compute.attention_decode(1, 1e12, heads=64, kv_heads=8, d_qk=128, d_v=128, element_bytes=2)
    assert work.intensity == pytest.approx(8, rel=1e-6)


def test_attention_prefill_flops_K14():
    work = compute.mla_prefill(4096, 4096, heads=128, d_qk=192, d_v=128, element_bytes=2)
    assert work.flops == 687_194_767_360
    full = compute.mla_prefill(4096, 4096, heads=128, d_qk=192, d_v=128, element_bytes=2, causal=False)
    assert full.flops == 2 * work.flops
    assert full.bytes_B == work.bytes_B == 2 * 4096 * 128 * (192 + 128) * 2


def test_chunks_of_a_prompt_add_up_to_the_prompt():
    shape = {"heads": 32, "kv_heads": 8, "d_qk": 128, "d_v": 128, "element_bytes": 2}
    whole = compute.attention_prefill(8192, 8192, **shape)
    chunks = compute.attention_prefill(np.full(4, 2048), np.array([2048, 4096, 6144, 8192]), **shape)
    assert np.sum(chunks.flops) == whole.flops
    assert np.sum(chunks.bytes_B) > whole.bytes_B


def test_mla_expand_is_the_up_projection():
    work = compute.mla_expand(4096, heads=128, kv_lora_rank=512, nope_dim=128, d_v=128, element_bytes=2)
    assert work.flops == 2 * 4096 * 512 * 128 * (128 + 128)


def test_conv2d_K21_K22():
    assert compute.conv_out_size(224, 7, stride=2, padding=3) == 112
    assert compute.conv2d(1, 3, 64, 7, 112, 224, element_bytes=2).flops == 236_027_904


def test_norm_K28():
    assert compute.norm(4096, 7168, element_bytes=2).bytes_B / 3.2e12 == pytest.approx(36.70016 * US, rel=1e-6)


@pytest.mark.parametrize(
    ("work", "elements_moved_B"),
    [
        (compute.norm(10, 100, element_bytes=2, residual=True), 4 * 1000 * 2),
        (compute.activation(10, 100, element_bytes=2), 3 * 1000 * 2),
        (compute.activation(10, 100, element_bytes=2, gated=False), 2 * 1000 * 2),
        (compute.rope(10, 5, 64, element_bytes=2), 2 * 3200 * 2),
        (compute.quantise(10, 128, in_bytes=2, out_bytes=1), 1280 * 3 + 10 * 4),
        (compute.embedding(10, 100, weight_bytes=2, out_bytes=2), 4000),
        (compute.sampling(10, 1000, element_bytes=4), 80000),
        (compute.optimizer(1000), 30000),
    ],
)
def test_elementwise_traffic(work, elements_moved_B):
    assert work.bytes_B == elements_moved_B


RATES = Rates(
    peak_FLOPps={"bf16": 100e12, "int8": 200e12},
    vector_FLOPps=10e12,
    memory_Bps=1e12,
    efficiency={name: Efficiency(0.5, 0.8, 2 * US) for name in compute.KERNELS},
    name="somechip",
)


def _price(rates, kernels, precisions, flops, bytes_B, cores=1.0):
    names, ids = list(dict.fromkeys(kernels)), {name: i for i, name in enumerate(dict.fromkeys(kernels))}
    kinds = [p for p in dict.fromkeys(precisions) if p]
    return compute.price(
        np.array([ids[k] for k in kernels]),
        np.array([kinds.index(p) if p else -1 for p in precisions]),
        np.asarray(flops, float),
        np.asarray(bytes_B, float),
        np.broadcast_to(cores, len(kernels)),
        kernels=names,
        precisions=kinds,
        rates=rates,
    )


def _alone_s(work: Work, precision: str, *, compute_efficiency: float = 1.0) -> float:
    rates = Rates({precision: 752e12}, 1e12, 3.2e12, {"gemm": Efficiency(compute_efficiency, 1.0)})
    return float(_price(rates, ["gemm"], [precision], [work.flops], [work.bytes_B]).time_s[0])


def test_price_uses_engine_precision_and_efficiency():
    priced = _price(
        RATES, ["gemm", "gemm", "norm", "generic", "generic"], ["bf16", "int8", "", "bf16", ""], [1e9] * 5, [0] * 5
    )
    busy_us = (priced.time_s / US - 2).tolist()
    assert busy_us == pytest.approx([20, 10, 200, 20, 200])
    assert set(priced.bound.tolist()) == {compute.COMPUTE_BOUND}


def test_cores_scale_arithmetic_but_not_memory():
    priced = _price(RATES, ["gemm", "gemm"], ["bf16"] * 2, [1e9, 0], [0, 8e6], cores=0.5)
    assert (priced.time_s / US).tolist() == pytest.approx([42, 12])


def test_price_is_the_roofline():
    rng = np.random.default_rng(1)
    flops, bytes_B = 10 ** rng.uniform(6, 11, 100), 10 ** rng.uniform(3, 8, 100)
    priced = _price(RATES, ["gemm"] * 100, ["bf16"] * 100, flops, bytes_B)
    # Williams, Waterman and Patterson 2009: the slower of the two, and what a launch costs
    expected = np.maximum(flops / (100e12 * 0.5), bytes_B / (1e12 * 0.8)) + 2 * US
    assert priced.time_s == pytest.approx(expected)
    assert set(priced.bound.tolist()) == {0, 1, 2}


def test_a_kernel_without_work_costs_its_overhead():
    priced = _price(RATES, ["gemm", "norm"], ["fp8", ""], [0, 0], [0, 0])
    assert priced.time_s == pytest.approx([2 * US, 2 * US])
    assert priced.bound.tolist() == [compute.OVERHEAD_BOUND] * 2


def test_rows_that_are_no_kernels_cost_nothing():
    none = np.array([-1])
    zero = np.zeros(1)
    priced = compute.price(none, none, zero, zero + 1e9, zero + 1, kernels=(), precisions=(), rates=RATES)
    assert priced.time_s.tolist() == [0]
    assert len(compute.price(*[np.zeros(0)] * 5, kernels=(), precisions=(), rates=RATES).time_s) == 0


def test_every_wrong_name_is_said_at_once():
    with pytest.raises(InputError) as caught:
        _price(RATES, ["gem", "gemm", "attention_decode"], ["bf16", "fp8", ""], [1, 1, 1], [1, 1, 1])
    first, second, third = str(caught.value).splitlines()
    assert first.startswith("no kernel class 'gem'. Did you mean 'gemm'? Allowed: activation, ")
    assert second.startswith("somechip has no fp8 peak, which kernel class 'gemm' asks for. ")
    assert second.endswith("Allowed: bf16, int8.")
    assert (
        third == "kernel class 'attention_decode' runs on the matrix engine and needs a precision. Allowed: bf16, int8."
    )


def test_a_class_the_stack_does_not_know():
    rates = Rates({"bf16": 1.0}, 1.0, 1.0, {"gemm": Efficiency(1, 1)}, name="thin stack")
    with pytest.raises(InputError, match=r"^thin stack has no efficiency for kernel class 'grouped_gemm'\. .*gemm"):
        _price(rates, ["grouped_gemm"], ["bf16"], [1], [1])


def test_every_class_is_documented():
    assert all(kernel.doc and kernel.engine in ("matrix", "vector", "either") for kernel in compute.KERNELS.values())
    assert [name for name, kernel in compute.KERNELS.items() if kernel.matrix] == [
        "gemm",
        "grouped_gemm",
        "attention_prefill",
        "attention_decode",
        "mla_prefill",
        "mla_decode",
    ]


def test_work_adds_and_scales():
    assert Work(1, 2) + Work(3, 4) == Work(4, 6)
    assert Work(1, 2) * 3 == Work(3, 6)


def test_a_recurrence_is_trained_by_five_kernels_and_a_backward():
    """64 heads of 64 x 128, 8 groups, chunks of 128, as of Nemotron 3 Nano: 24,576 B of values and results a token,
    8,192 of queries and keys, 1,536 of decays, 8,192 of products in chunks and 49,152 of states."""
    sizes = {"heads": 64, "groups": 8, "key_dim": 128, "value_dim": 64, "products": 2, "chunk": 128}
    work = compute.recurrence_scanned(1024, **sizes, element_bytes=2)
    assert work.bytes_B == 1024 * (24_576 + 8_192 + 1_536 + 8_192 + 49_152)
    assert work.flops == 1024 * (64 * (4 * 128 * 64 + 128 * 64) + 2 * 8 * 128 * 128)


def test_a_class_that_a_stack_does_not_name_is_priced_as_its_like():
    rates = Rates({"bf16": 1e15}, 1e14, 1e12, {"generic": Efficiency(0.5, 0.5)})
    plain = _price(rates, ["generic", "recurrence"], ["bf16", "bf16"], np.full(2, 1e9), np.full(2, 1e9))
    assert plain.time_s[0] == plain.time_s[1] > 0
    own = Rates(rates.peak_FLOPps, 1e14, 1e12, {**rates.efficiency, "recurrence": Efficiency(0.5, 0.25)})
    assert _price(own, ["recurrence"], ["bf16"], np.array([1e9]), np.array([1e9])).time_s[0] == 2 * plain.time_s[0]
