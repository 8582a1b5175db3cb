"""Expert blocks: loads of the busiest rank, time of the block, tables in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmsim.calibration import predict
from cmsim.calibration.kernels import predict_kernels
from cmsim.errors import InputError
from cmsim.kernels import Machine
from cmsim.kernels.moe import MOE_DEFAULTS, moe_kernel_us
from cmsim.kernels.routing import expert_loads

MACHINE = Machine("made up", cores=100, peak_FLOPps={"bf16": 1e15}, vector_FLOPps=1e14, memory_Bps=2e12)
ROWS = {
    "system": ["h100_sxm", "a100_sxm", "h100_sxm"],
    "moe_dtype": ["fp8", "bfloat16", "fp8"],
    "kernel_source": ["moe_torch_flow_cutlass", "moe_torch_flow", "moe_torch_flow_cutlass"],
    "num_tokens": [1024, 64, 1024],
    "hidden_size": [4096, 4096, 4096],
    "inter_size": [1536, 1536, 1536],
    "topk": [8, 8, 8],
    "num_experts": [128, 128, 128],
    "moe_tp_size": [1, 1, 1],
    "moe_ep_size": [8, 4, 8],
    "distribution": ["balanced", "power_law_1.2", "balanced"],
}


def loads(tokens, top_k, experts, ranks, alpha=0.0):
    columns = np.broadcast_arrays(*(np.asarray(v, dtype=float) for v in (tokens, top_k, experts, ranks, alpha)))
    return expert_loads(*(np.atleast_1d(v).astype(float) for v in columns))


def block_us(tokens, **constants):
    tokens = np.atleast_1d(np.asarray(tokens, dtype=float))
    of = loads(tokens, 8, 64, 4)
    wide = np.full(len(tokens), 4096.0)
    return moe_kernel_us(
        {**MOE_DEFAULTS, **constants},
        MACHINE,
        loads=of,
        tokens=tokens,
        hidden=wide,
        inner=wide / 2,
        local_experts=np.full(len(tokens), 16.0),
        gated=True,
        precision="bf16",
        in_B=2,
        weight_B=2,
    )


def test_balanced_loads():
    found = loads(1024, 8, 128, 8)
    assert found.copies[0] == 1024 * 8 / 8
    assert found.active[0] == 16
    assert found.most[0] == 64
    assert found.tiles[64][0] == 16
    assert found.tiles[16][0] == 64


def test_few_copies_reach_few_experts():
    found = loads(1, 8, 256, 8)
    assert found.copies[0] == found.active[0] == 1


@pytest.mark.parametrize("alpha", [1.01, 1.2])
def test_one_rank_has_all_copies(alpha):
    """At most one copy of a token goes to an expert; what is cut there goes to the others."""
    tokens = np.array([16.0, 256.0, 4096.0])
    found = loads(tokens, 8, 128, 1, alpha)
    assert found.copies == pytest.approx(tokens * 8, rel=0.02)
    assert np.all(found.most <= tokens + 1)
    assert np.all(found.active <= 128)


def test_the_busiest_rank_of_skewed_routing_has_more():
    even, skewed = loads(4096, 8, 128, 8), loads(4096, 8, 128, 8, 1.2)
    assert 1.2 * even.copies[0] < skewed.copies[0] < 4 * even.copies[0]
    assert skewed.most[0] > 2 * even.most[0]


def test_loads_are_the_same_whatever_the_order():
    tokens = np.array([4096.0, 16.0, 4096.0, 512.0])
    together = loads(tokens, 8, 128, 8, 1.01).copies
    assert together[0] == together[2]
    assert together[1] == loads(16, 8, 128, 8, 1.01).copies[0]


def test_few_tokens_take_as_long_as_the_weights():
    weights_B = 16 * 3 * 4096 * 2048 * 2
    assert block_us(64)[0] - 25.0 == pytest.approx(weights_B / (2e12 * 0.75) * 1e6, rel=0.35)


def test_many_tokens_take_as_long_as_the_arithmetic():
    flops = 65536 * 8 / 4 * 6.0 * 4096 * 2048
    quick = block_us(65536, route_ns=1e-6, move=1e3, fixed_us=1e-3)[0]
    assert quick == pytest.approx(flops / 0.7e15 * 1e6, rel=0.2)


def test_more_tokens_never_take_less():
    assert np.all(np.diff(block_us(2.0 ** np.arange(17))) >= 0)


def write(tmp_path, **changes):
    path = tmp_path / "rows.csv"
    pd.DataFrame({**ROWS, **changes}).to_csv(path, index=False)
    return path


def test_rows_and_order(tmp_path):
    frame = predict("moe", write(tmp_path), out=tmp_path / "out.csv")
    assert frame["predicted_us"][0] == frame["predicted_us"][2]
    assert np.all(frame["predicted_us"] > 0)


def test_routing_may_be_absent(tmp_path):
    frame = pd.DataFrame(ROWS).drop(columns=["distribution", "kernel_source"]).head(1)
    assert predict_kernels(frame, "moe")[0] == pytest.approx(
        predict_kernels(pd.DataFrame(ROWS).head(1), "moe")[0], rel=0.5
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topk": [8, 0, 8]}, "row 1: topk: must be a whole number above 0, got 0"),
        ({"topk": [8, 129, 8]}, "row 1: topk: must be at most num_experts, got 129"),
        ({"moe_ep_size": [8, 4, 256]}, "row 2: moe_ep_size: must be at most num_experts, got 256"),
        ({"moe_dtype": ["fp8", "fp7", "fp8"]}, "row 1: moe_dtype: must be one of bfloat16"),
        (
            {"distribution": ["zipf", "balanced", "zipf"]},
            "row 0: distribution: must be balanced or power_law_<exponent>",
        ),
        ({"num_tokens": [None, 1, 1]}, "row 0: num_tokens: must be a whole number above 0, got nan"),
    ],
)
def test_bad_rows_are_named(tmp_path, changes, message):
    with pytest.raises(InputError) as error:
        predict("moe", write(tmp_path, **changes))
    assert message in str(error.value)
