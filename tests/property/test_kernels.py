"""What holds for the time of every kernel, on every accelerator: no peak is beaten, more work never takes less."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmsim import compute, reading
from cmsim.calibration.explain_kernel import explain_kernel
from cmsim.calibration.kernels import predict_kernels
from cmsim.engine.plan import rates
from cmsim.errors import CmsimWarning
from cmsim.hardware import ACCELERATORS, load_accelerator, load_system
from cmsim.kernels import kernel_data, kernel_machine
from cmsim.kernels.kinds import KINDS
from cmsim.kernels.of_shapes import shape_times_us

EACH = sorted(reading.builtin_files(ACCELERATORS))
COUNT = 40
#: of an element: precision, bytes of activations, of weights
PRODUCTS = {
    "bfloat16": ("bf16", 2.0, 2.0),
    "float16": ("fp16", 2.0, 2.0),
    "fp8": ("fp8", 1.0, 1.0),
    "fp8_block": ("fp8", 1.0, 1.0),
    "int8": ("int8", 1.0, 1.0),
    "nvfp4": ("fp4", 0.5625, 0.5625),
}
EXPERTS = {**PRODUCTS, "w4a16_mxfp4": ("bf16", 2.0, 0.53125), "w4a8_mxfp4_mxfp8": ("fp8", 1.03125, 0.53125)}
WIDTH_B = {"bfloat16": 2.0, "fp8": 1.0}


def whole(rng, low, high):
    """Evenly in the logarithm, far beyond what was measured."""
    return np.floor(2.0 ** rng.uniform(np.log2(low), np.log2(high + 1), COUNT))


def pairs_of(new, before, window):
    """Queries times keys that each may see, its own included."""
    seen = [np.minimum(b + np.arange(1, n + 1), w or np.inf).sum() for n, b, w in zip(new, before, window, strict=True)]
    return np.array(seen)


def least_seen(new, before, window):
    """Of a sequence the tokens that some query sees."""
    return np.minimum(new + before, np.where(window > 0, new + window - 1, np.inf))


# Each: columns of random rows with FLOPs and bytes that they ask for at the least, written out again, and precisions.


def products(rng, names):
    m, n, k = (whole(rng, 1, 1 << 20), whole(rng, 1, 1 << 18), whole(rng, 1, 1 << 18))
    groups, dtype = whole(rng, 1, 512), rng.choice(names, COUNT)
    of, in_B, weight_B = zip(*(PRODUCTS[name] for name in dtype), strict=True)
    bytes_B = m * k * np.array(in_B) + k * n * np.array(weight_B) + 2 * m * n
    columns = {"m": m, "n": n, "k": k, "groups": groups, "dtype": dtype}
    return columns, 2 * m * n * k * groups, bytes_B * groups, of


def experts(rng, names):
    local, ranks, each = whole(rng, 1, 64), whole(rng, 1, 64), whole(rng, 1, 4096)
    count, dtype = local * ranks, rng.choice(names, COUNT)
    hidden, inner = whole(rng, 64, 1 << 15), whole(rng, 64, 1 << 15)
    columns = {"num_tokens": count * each, "topk": np.ones(COUNT), "num_experts": count, "moe_ep_size": ranks}
    columns |= {"hidden_size": hidden, "inter_size": inner, "moe_tp_size": np.ones(COUNT), "moe_dtype": dtype}
    of, in_B, weight_B = zip(*(EXPERTS[name] for name in dtype), strict=True)
    copies, weights = local * each, 3 * local * hidden * inner
    bytes_B = weights * np.array(weight_B) + copies * hidden * (np.array(in_B) + 2)
    return columns, 2 * copies * 3 * hidden * inner, bytes_B, of


def attention(rng, names, decode, latent):
    new = whole(rng, 1, 16) if decode else whole(rng, 1, 20_000)
    before = whole(rng, 1, 1 << 20) if decode else np.where(rng.random(COUNT) < 0.5, 0, whole(rng, 1, 1 << 17))
    window = np.zeros(COUNT) if latent else np.where(rng.random(COUNT) < 0.5, 0, whole(rng, 1, 1 << 16))
    batch, kv_heads, dtype = whole(rng, 1, 1 << 13), whole(rng, 1, 256), rng.choice(names, COUNT)
    cached = rng.choice(["bfloat16", "fp8"], COUNT)
    heads, d = kv_heads * whole(rng, 1, 64), rng.choice([64, 80, 128, 192, 256, 512], COUNT)
    columns = {"batch_size": batch, "isl": new, "step": before, "num_heads": heads, "kv_cache_dtype": cached}
    in_B, kv_B = (np.array([WIDTH_B[name] for name in column]) for column in (dtype, cached))
    pairs, seen = pairs_of(new, before, window), least_seen(new, before, window)
    of = [PRODUCTS[name][0] for name in dtype]
    if not latent:
        columns |= {"num_key_value_heads": kv_heads, "head_dim": d, "window_size": window, "attn_dtype": dtype}
        bytes_B = seen * kv_heads * 2 * d * kv_B + new * heads * 2 * d * in_B
        return columns, batch * pairs * heads * 4 * d, batch * bytes_B, of
    columns["mla_dtype"] = dtype
    if not decode:
        bytes_B = (seen + new) * heads * (192 + 128) * in_B
        return columns, batch * pairs * heads * 2 * (192 + 128), batch * bytes_B, of
    # products are in the format of the cache where the chip has it
    of = [np.where(name == "fp8", "fp8", own) for name, own in zip(cached, of, strict=True)]
    bytes_B = seen * 576 * kv_B + new * heads * (576 + 512) * in_B
    return columns, batch * pairs * heads * 2 * (576 + 512), batch * bytes_B, of


DRAWN = {
    "gemm": products,
    "moe": experts,
    "attention_context": lambda rng, names: attention(rng, names, False, False),
    "attention_generation": lambda rng, names: attention(rng, names, True, False),
    "mla_context": lambda rng, names: attention(rng, names, False, True),
    "mla_generation": lambda rng, names: attention(rng, names, True, True),
}


def known(kind, spec):
    """Formats of the kind that the accelerator computes in."""
    of = PRODUCTS if kind == "gemm" else EXPERTS if kind == "moe" else {n: PRODUCTS[n] for n in WIDTH_B}
    return [name for name, one in of.items() if one[0] in spec.peak_TFLOPps]


def least_us(machine, flops, bytes_B, of):
    """Of FLOPs and bytes at the peaks, in the first of a precision that the machine has."""
    peak = np.array([machine.peak_FLOPps.get(str(name), machine.peak_FLOPps.get("bf16", np.inf)) for name in of])
    return 1e6 * np.maximum(flops / peak, bytes_B / machine.memory_Bps)


def predicted(columns, kind, system):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CmsimWarning)
        return predict_kernels(pd.DataFrame(columns), kind, system=system)


def test_every_kind_is_drawn():
    assert set(DRAWN) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", EACH)
@settings(max_examples=3)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_table_row_beats_the_peaks(name, kind, seed):
    spec = load_accelerator(name)
    if names := known(kind, spec):
        columns, flops, bytes_B, of = DRAWN[kind](np.random.default_rng(seed), names)
        least = least_us(kernel_machine(spec), flops, bytes_B, of)
        assert np.all(predicted(columns, kind, name) >= least * (1 - 1e-9))


@pytest.mark.parametrize("kind", ["gemm", "attention_context", "attention_generation", "mla_context", "mla_generation"])
@pytest.mark.parametrize("name", EACH)
@settings(max_examples=2)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.05, 1.0), together=st.booleans())
def test_no_op_of_a_run_beats_the_peaks(name, kind, seed, share, together):
    """On a share of the cores, of one die or of all of them."""
    spec = load_accelerator(name)
    if not (names := known(kind, spec)) or not kernel_data(spec, kind).same_cores:
        return
    columns, flops, bytes_B, of = DRAWN[kind](np.random.default_rng(seed), names)
    numbers = {key: values for key, values in columns.items() if values.dtype.kind in "fi"}
    shapes = [
        compute.Shape(
            kind,
            tuple((key, float(values[at])) for key, values in numbers.items()),
            tuple((key, str(values[at])) for key, values in columns.items() if key not in numbers),
        )
        for at in range(COUNT)
    ]
    devices = spec.dies if together else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CmsimWarning)
        found = shape_times_us(shapes, np.full(COUNT, share), spec, devices=devices).us
    least = least_us(kernel_machine(spec).scaled(devices, share), flops, bytes_B, of)
    assert np.all(found >= least * (1 - 1e-9))


SYSTEMS = sorted(reading.builtin_files("topologies"))


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_constant_of_a_stack_beats_the_peaks(name):
    system = load_system(name)
    every = [rates(system), *(rates(load_system(name, stack=stack)) for stack in system.spec.stacks)]
    _within(every)


def _within(every):
    """Times of any work are at least those at the peaks."""

    @settings(max_examples=20)
    @given(flops=st.floats(0, 1e18), bytes_B=st.floats(0, 1e13), cores=st.floats(0.05, 1.0))
    def holds(flops, bytes_B, cores):
        for of in every:
            kernels, precisions = list(of.efficiency), list(of.peak_FLOPps)
            at = np.repeat(np.arange(len(kernels)), len(precisions)), np.tile(np.arange(len(precisions)), len(kernels))
            column = [np.full(len(at[0]), value) for value in (flops, bytes_B, cores)]
            found = compute.price(*at, *column, kernels=kernels, precisions=precisions, rates=of)
            vector = np.array([compute.KERNELS[kernels[i]].engine == "vector" for i in at[0]])
            peak = np.where(vector, of.vector_FLOPps, np.array([of.peak_FLOPps[precisions[j]] for j in at[1]]))
            least = np.maximum(flops / (peak * cores), bytes_B / of.memory_Bps)
            assert np.all(found.time_s >= least * (1 - 1e-9))

    holds()


def decode(kind, system, *, new=1.0, context=4096, batch=64, heads=128.0, kv_heads=8.0, cached="bfloat16"):
    columns = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (batch, new, context, heads, kv_heads)))
    batch, new, context, heads, kv_heads = map(np.atleast_1d, columns)
    rows = {"batch_size": batch, "isl": new, "step": context - new, "num_heads": heads, "kv_cache_dtype": cached}
    if kind == "mla_generation":
        return predicted({**rows, "mla_dtype": "bfloat16"}, kind, system)
    rows |= {"num_key_value_heads": kv_heads, "head_dim": 128, "window_size": 0, "attn_dtype": "bfloat16"}
    return predicted(rows, kind, system)


DECODES = ("attention_generation", "mla_generation")
WITH_BF16 = [name for name in EACH if "bf16" in load_accelerator(name).peak_TFLOPps]


@pytest.mark.parametrize("kind", DECODES)
@pytest.mark.parametrize("name", WITH_BF16)
@settings(max_examples=5)
@given(batch=st.integers(1, 4096), context=st.integers(32, 1 << 20), heads=st.sampled_from([8, 16, 64, 128, 256]))
def test_more_draft_tokens_cost_more(name, kind, batch, context, heads):
    found = decode(kind, name, new=np.arange(1, 17), context=context, batch=batch, heads=heads)
    assert np.all(np.diff(found) >= 0)
    assert found[-1] > found[0]


@pytest.mark.parametrize("name", ["gb200", "h100_sxm", "b200_sxm", "ascend_910c"])
def test_draft_tokens_are_the_arithmetic_they_are(name):
    """Where 128 heads of a token fill products, twice the tokens take nearly twice as long."""
    one, two, four = decode("mla_generation", name, new=[1, 2, 4], batch=192)
    assert two > 1.3 * one
    assert 1.7 < four / two < 2.1


MORE = 2.0 ** np.arange(6)


def grown(kind, column, rows):
    """Rows in which one column doubles from the edge of what was measured."""
    doubled = {"context": ["step"], "heads": ["num_heads", "num_key_value_heads"]}.get(column, [column])
    return {key: np.array([value] * 6) * (MORE if key in doubled else 1) for key, value in rows.items()}


LATENT = {"batch_size": 1024, "isl": 1, "step": 131071, "num_heads": 128}
CACHED = {"batch_size": 512, "isl": 1, "step": 131071, "num_heads": 64, "num_key_value_heads": 16, "head_dim": 128}
PROMPT = {**CACHED, "batch_size": 8, "isl": 16384, "step": 0, "window_size": 0}
BEYOND = [
    ("gemm", {"m": 32768, "n": 4096, "k": 4096}, ("m",), ("dtype",)),
    ("gemm", {"m": 32, "n": 65536, "k": 65536}, ("n", "k"), ("dtype",)),
    ("mla_generation", LATENT, ("batch_size", "context", "num_heads"), ("mla_dtype", "kv_cache_dtype")),
    (
        "mla_context",
        {**LATENT, "batch_size": 8, "isl": 16384, "step": 0},
        ("batch_size", "isl", "num_heads"),
        ("mla_dtype", "kv_cache_dtype"),
    ),
    (
        "attention_generation",
        {**CACHED, "window_size": 0},
        ("batch_size", "context", "heads"),
        ("attn_dtype", "kv_cache_dtype"),
    ),
    ("attention_context", PROMPT, ("batch_size", "isl", "heads"), ("attn_dtype", "kv_cache_dtype")),
]


@pytest.mark.parametrize("name", WITH_BF16)
def test_more_work_beyond_what_was_measured_never_takes_less(name):
    for kind, rows, columns, formats in BEYOND:
        for column in columns:
            found = predicted({**grown(kind, column, rows), **dict.fromkeys(formats, "bfloat16")}, kind, name)
            assert np.all(np.diff(found) >= -1e-9 * found[1:]), (kind, column, found)


@pytest.mark.parametrize("name", ["gb200", "h100_sxm", "a100_sxm", "h20"])
@pytest.mark.parametrize("heads", [1, 16, 64, 128])
def test_the_residual_leaves_where_physics_goes_on(name, heads):
    """Continuously: none of it is lost at the edge, hardly any left far out."""
    edge = 131072
    at, past, far = decode("mla_generation", name, context=[edge, edge + 1, edge * 64], heads=heads)
    # the token more begins a block of 64
    assert past == pytest.approx(at, rel=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CmsimWarning)
        row = {"num_heads": heads, "batch_size": 64, "isl": 1, "step": edge * 64 - 1}
        found = explain_kernel(name, "mla_generation", row)
    assert found.predicted_us == pytest.approx(far)
    assert found.parts["residual"] == pytest.approx(1.0, abs=0.02)


def test_the_case_that_was_2_3_times_the_peak():
    """192 sequences of 4,096 tokens, 256 heads: 5.8 PFLOP/s of 2.5 before."""
    found = decode("mla_generation", "gb200", heads=256, context=4097, batch=192)[0]
    rate = 2 * 192 * 4097 * 256 * 1088 / (found * 1e-6)
    assert 0.2e15 < rate < 1.9e15


def test_shares_that_ship_are_below_1():
    for name in EACH:
        for kind in KINDS.values():
            for variant in kernel_data(load_accelerator(name), kind.name).variants.values():
                assert all(0 < variant.constants[share] < 1 for share in kind.shares), (name, kind.name)
