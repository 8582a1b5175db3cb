"""The pages of latent attention, and the die that is pinned by published shares of its peaks."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from cmsim.calibration import predict
from cmsim.calibration.explain_kernel import explain_kernel
from cmsim.calibration.kernels import accelerator_of, predict_kernels
from cmsim.errors import CmsimWarning, InputError
from cmsim.kernels import Machine, kernel_machine
from cmsim.kernels.mla import (
    MLA_DECODE_DEFAULTS,
    MLA_PREFILL_DEFAULTS,
    MLA_UNSPLIT,
    Latent,
    mla_decode_parts,
    mla_prefill_parts,
)

LATENT = Latent(512.0, 64.0, 128.0, 128.0)

MACHINE = Machine("m", 100, {"bf16": 1e15}, 1e14, 3e12)


def column(value):
    return np.array([float(value)])


def decode(c=MLA_DECODE_DEFAULTS, sequences=64, context=4096, heads=128, queries=1):
    found = mla_decode_parts(
        c,
        MACHINE,
        sequences=column(sequences),
        context=column(context),
        heads=column(heads),
        latent=LATENT,
        precision="bf16",
        in_B=2.0,
        kv_B=2.0,
        queries=column(queries),
    )
    return {name: value[0] for name, value in found.items()}


def test_heads_share_the_latent():
    """2 L h (576 + 512) FLOPs over 576 elements of a token, whatever the heads, and queries and outputs of each."""
    parts = decode()
    assert parts["flops"] == pytest.approx(2 * 64 * 4096 * 128 * 1088, rel=1e-3)
    core_B = 64 * 2 * (4096 * 576 + 128 * 1088)
    assert parts["memory_us"] == pytest.approx(core_B / 3e6 / MLA_DECODE_DEFAULTS["memory"])
    assert parts["memory_us"] - decode(heads=16)["memory_us"] == pytest.approx(
        64 * 2 * 112 * 1088 / 3e6 / MLA_DECODE_DEFAULTS["memory"]
    )


def test_new_tokens_share_the_latent_and_each_has_its_arithmetic():
    one, two = decode(), decode(queries=2)
    assert two["flops"] == pytest.approx(2 * one["flops"], rel=1e-3)
    ends_B = 64 * 128 * 1088 * 2
    assert two["memory_us"] - one["memory_us"] == pytest.approx(ends_B / 3e6 / MLA_DECODE_DEFAULTS["memory"])


def test_rows_beyond_a_tile_are_more_workers():
    """64 rows each; a batch that leaves no place to split the cache."""
    one, *two = (
        decode(sequences=256, **more)["tiles"] for more in ({"heads": 64}, {"heads": 65}, {"heads": 64, "queries": 2})
    )
    assert one == 256
    assert two == [512, 512]


def test_without_splits_a_sequence_is_a_chain():
    one, many = decode(MLA_UNSPLIT, sequences=1, context=65536), decode(MLA_UNSPLIT, sequences=16, context=65536)
    assert one["physics_us"] == pytest.approx(many["physics_us"], rel=0.02)
    assert decode(sequences=1, context=65536)["physics_us"] < one["physics_us"] / 4


def test_prefill_has_wide_keys():
    found = mla_prefill_parts(
        MLA_PREFILL_DEFAULTS,
        MACHINE,
        sequences=column(1),
        tokens=column(1024),
        heads=column(16),
        prefix=column(0),
        latent=LATENT,
        precision="bf16",
        in_B=2.0,
    )
    assert found["flops"][0] == pytest.approx(2 * 16 * 128 * 128 * 36 * (192 + 128))


def share_of_peaks(system, heads, kind="mla_generation", sequences=128, context=8192):
    """Of the peaks of arithmetic and of bandwidth. [%]"""
    decodes = kind == "mla_generation"
    row = {"num_heads": heads, "batch_size": sequences, "isl": 1 if decodes else context}
    row |= {"step": context - 1 if decodes else 0, "mla_dtype": "bfloat16", "kv_cache_dtype": "bfloat16"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CmsimWarning)
        time_s = predict_kernels(pd.DataFrame([row]), kind, system=system)[0] * 1e-6
    machine = kernel_machine(accelerator_of(system))
    flops = 2 * sequences * context * heads * 1088 if decodes else sequences * context**2 * heads * 320
    cache_B = sequences * context * 576 * 2
    return 100 * flops / machine.peak_FLOPps["bf16"] / time_s, 100 * cache_B / machine.memory_Bps / time_s


def test_published_shares_of_a_die():
    """arXiv:2506.12708v2 tables 8 and 9. Two query tokens of 128 heads bind arithmetic, 16 heads bandwidth.

    OP-006 (84.1 %) pins the bandwidth, OP-001 (66.7 %, another device) the arithmetic; OP-002 (65.4 %) is judged.
    """
    assert share_of_peaks("ascend_910c", 256)[0] == pytest.approx(65.4, rel=0.06)
    assert share_of_peaks("ascend_910c", 128, "mla_context", 1)[0] == pytest.approx(65.4, rel=0.06)
    assert share_of_peaks("ascend_910c", 16)[1] == pytest.approx(84.1, rel=0.02)


def test_published_shares_of_a_relative():
    """The same tables (OP-001, OP-004) beside constants fitted to rows of a relative: judged, neither was fitted."""
    assert share_of_peaks("h800_sxm", 256)[0] == pytest.approx(66.7, rel=0.12)
    assert share_of_peaks("h800_sxm", 16)[1] == pytest.approx(89.6, rel=0.12)


@pytest.mark.parametrize(("name", "value"), [("num_heads", 0), ("isl", float("nan")), ("batch_size", -2)])
def test_bad_shapes_name_column_and_row(tmp_path, name, value):
    row = {"system": "h100_sxm", "num_heads": 16, "batch_size": 4, "isl": 1, "step": 1023}
    row |= {"mla_dtype": "bfloat16", "kv_cache_dtype": "fp8"}
    pd.DataFrame([row, {**row, name: value}]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match=rf"row 1: {name}"):
        predict("mla_generation", tmp_path / "t.csv")


def test_explained():
    found = explain_kernel("h100_sxm", "mla_generation", {"num_heads": 16, "batch_size": 256, "isl": 1, "step": 16383})
    assert found.binds == "memory"
    assert found.of == "h100_sxm"
