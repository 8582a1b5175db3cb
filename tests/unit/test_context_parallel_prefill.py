"""Prompts shared by ranks: each works on its part of the tokens, and gathers the keys and values of all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cmsim.errors import InfeasibleError
from cmsim.hardware import load_system
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.prefill import PrefillSpec
from cmsim.workload.generate import inference
from cmsim.workload.ops import Programs


def prefill(model: str = "llama-3.1-8b", **parallel: Any) -> Programs:
    spec = PrefillSpec(
        kind="prefill", model=model, batch_per_accelerator=0.25, prompt_tokens=8192, parallel=parallel,
        balance={"model": "balanced"},
    )  # fmt: skip
    return inference.prefill(spec, load_system("hgx_h100", accelerators=4))


def sizes_B(made: Programs, name: str) -> set[float]:
    names = np.array(made.ops.names)[made.ops.name_id]
    return set(made.ops.bytes_B[names == name].tolist())


def flops(made: Programs, name: str = "") -> float:
    names = np.array(made.ops.names)[made.ops.name_id]
    return float(made.ops.flops[(names == name) if name else names != ""].sum())


@pytest.mark.parametrize("model", ["llama-3.1-8b", "deepseek-v2"])
def test_work_is_shared_out(model: str):
    one, four = prefill(model, tp=1, cp=1, attention="dp"), prefill(model, tp=1, cp=4, attention="dp")
    assert four.least == one.least
    assert flops(four, "attention") == pytest.approx(flops(one, "attention") / 4)
    assert flops(four, "attention out") == pytest.approx(flops(one, "attention out") / 4)
    # keys and values of latents are made of all that is gathered
    assert flops(four, "k, v up") == flops(one, "k, v up")
    assert four.footprint_B["cache"][0] == pytest.approx(one.footprint_B["cache"][0] / 4)


def test_keys_and_values_are_gathered():
    ops = prefill(tp=2, cp=2).ops
    gathers = np.array(ops.names)[ops.name_id] == "cp gather"
    assert gathers.sum() == 32
    # 8,192 tokens of four heads' keys and values, 128 wide, 2 B each
    assert set(ops.bytes_B[gathers].tolist()) == {8192 * 4 * 2 * 128 * 2.0}


@pytest.mark.parametrize(("model", "up"), [("llama-3.1-8b", "q, k, v"), ("deepseek-v2", "q up")])
def test_heads_are_exchanged_for_tokens(model: str, up: str):
    one = prefill(model, tp=1, cp=1, attention="dp")
    four = prefill(model, tp=1, cp=4, attention="dp", cp_comm_type="a2a")
    for name in ("attention", "attention out", up):
        assert flops(four, name) == pytest.approx(flops(one, name) / 4)
    assert four.footprint_B["cache"][0] == pytest.approx(one.footprint_B["cache"][0] / 4)


def test_what_is_exchanged():
    # 2,048 tokens a rank: 32 heads of queries, 8 of keys and of values, 128 wide; results come back
    made = prefill(cp=4, attention="dp", cp_comm_type="a2a")
    assert sizes_B(made, "cp queries, keys, values") == {2048 * 48 * 128 * 2.0}
    assert sizes_B(made, "cp results") == {2048 * 32 * 128 * 2.0}
    # latents of 8,192 tokens: 1,536 of queries, 512 and 64 that are cached, in 16 bits; nothing is made twice
    latent = prefill("deepseek-v2", cp=4, attention="dp", cp_comm_type="a2a")
    assert sizes_B(latent, "cp latents") == {8192 * (1536 + 576) * 2.0}
    assert flops(latent, "k, v up") == pytest.approx(flops(prefill("deepseek-v2", cp=1, attention="dp"), "k, v up") / 4)
    # each rank has its own heads of what makes queries, keys and values of latents
    whole, share = (prefill("deepseek-v2", cp=4, attention="dp", cp_comm_type=way) for way in ("all_gather", "a2a"))
    ups = 96 * 128 * (1536 * 192 + 512 * 256) * 60 // 128 * 2
    assert whole.footprint_B["weights"][0] - share.footprint_B["weights"][0] == pytest.approx(ups)


@pytest.mark.parametrize("way", ["all_gather", "a2a"])
def test_what_is_cached_before_comes_too(way: str):
    spec = {"kind": "prefill", "model": "deepseek-v2", "batch_per_accelerator": 0.25, "prompt_tokens": 4096}
    keys = {"balance": {"model": "balanced"}, "parallel": {"cp": 4, "attention": "dp", "cp_comm_type": way}}
    near, far = (
        inference.prefill(PrefillSpec(**spec, **keys, cached_tokens=n), load_system("hgx_h100", accelerators=4))  # type: ignore[arg-type]
        for n in (0, 8192)
    )
    name = "cp latents" if way == "a2a" else "cp gather"
    (some,), (more,) = sizes_B(near, name), sizes_B(far, name)
    assert more - some == 8192 * 576 * 2.0


@pytest.mark.parametrize(("system", "streams"), [("cloudmatrix384", {"compute"}), ("hgx_h100", {"comm", "comm.1"})])
def test_messages_inside_attention_stand_where_the_stack_says(system: str, streams: set[str]):
    spec = PrefillSpec(
        kind="prefill", model="deepseek-v2", batch_per_accelerator=2, prompt_tokens=4096, microbatches=2,
        parallel={"cp": 4, "ep": 4, "attention": "dp", "cp_comm_type": "a2a"}, balance={"model": "balanced"},
    )  # fmt: skip
    accelerators = 4 if system == "hgx_h100" else 2
    ops = inference.prefill(spec, load_system(system, accelerators=accelerators)).ops
    names, on = np.array(ops.names)[ops.name_id], np.array(ops.streams)[ops.stream]
    assert set(on[names == "cp latents"]) == set(on[names == "cp results"]) == streams
    assert set(on[names == "dispatch"]) == {"comm", "comm.1"}


@pytest.mark.parametrize(
    ("model", "cp", "message"),
    [("llama-3.1-8b", 64, "do not go on 64"), ("deepseek-r1", 3, "128 heads do not go on 3")],
)
def test_heads_that_cannot_be_exchanged(model: str, cp: int, message: str):
    with pytest.raises(InfeasibleError, match=message):
        prefill(model, cp=cp, attention="dp", cp_comm_type="a2a")


def test_decode_exchanges_none():
    keys = {"batch_per_accelerator": 1, "context_tokens": 8, "parallel": {"cp": 2, "cp_comm_type": "a2a"}}
    with pytest.raises(InfeasibleError, match="decode takes all_gather"):
        inference.decode(DecodeSpec(kind="decode", model="llama-3.1-8b", **keys), load_system("hgx_h100"))
