"""Decode steps on pipeline stages, and with caches that ranks share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cmsim
from cmsim.errors import InfeasibleError
from cmsim.hardware import load_system
from cmsim.kinds.decode import DecodeSpec
from cmsim.workload.generate import inference
from cmsim.workload.ops import RECV, SEND, Programs

SEQUENCES = {"batch_per_accelerator": 4, "context_tokens": 2048}


def run(kind: str = "decode", count: int = 4, **keys: Any) -> cmsim.Result:
    system = {"system": "hgx_h100", "accelerators": count, "stack": "cuda_graph"}
    lengths = SEQUENCES if kind == "decode" else {"batch_per_accelerator": 1, "prompt_tokens": 2048}
    work = {"kind": kind, "model": "llama-3.1-8b", **lengths, **keys}
    return cmsim.run({"systems": [system], "workload": work})[0]


def made(model: str = "llama-3.1-8b", count: int = 4, **keys: Any) -> Programs:
    spec = DecodeSpec(kind="decode", model=model, **{**SEQUENCES, **keys})
    return inference.decode(spec, load_system("hgx_h100", accelerators=count))


@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_a_token_takes_the_sum_over_stages_or_so_many_times_the_slowest(kind: str):
    """Four groups in flight pass four stages; the last one, with the head, is the slowest."""
    alone, staged = run(kind, 1), run(kind, parallel={"pp": 4})
    ops = staged.columns["ops"]
    took = (ops["end_ps"] - ops["start_ps"]) * 1e-12
    sent, works = ops["kind"] == "send", ops["kind"] == "compute"
    assert sent.sum() == 4 * 4
    stages_s = [float(took[works & (ops["rank_class"] == stage)].sum()) / 4 for stage in np.unique(ops["rank_class"])]
    least_s = max(sum(stages_s), 4 * max(stages_s))
    assert least_s < staged.metrics["makespan_s"] < least_s + 4 * took[sent].max()
    # as one rank with a quarter of the sequences takes, but for the head that all wait for
    assert sum(stages_s) == pytest.approx(alone.metrics["makespan_s"], rel=0.05)
    assert staged.metrics["memory_peak_B"] < 0.36 * alone.metrics["memory_peak_B"] + 1.06e9


def test_one_sequence_waits_for_every_stage():
    one, four = (run(batch_per_accelerator=1 / 4, parallel={"pp": stages}) for stages in (1, 4))
    assert four.metrics["tpot_s"] == pytest.approx(one.metrics["tpot_s"], rel=0.03)
    assert "3 of them wait" in " ".join(four.warnings)


def test_every_message_has_its_other_end():
    for batch in (1 / 4, 3 / 4, 4):
        programs = made(batch_per_accelerator=batch, parallel={"pp": 4})
        kinds = programs.ops.kind
        for stage in range(4):
            rows = slice(programs.program_ptr[stage], programs.program_ptr[stage + 1])
            assert (kinds[rows] == SEND).sum() == (kinds[rows] == RECV).sum() == min(4 * batch, 4)


def test_layers_of_stages():
    stages = made(parallel={"pp": 4}).footprint_B
    whole = made(count=1, batch_per_accelerator=16).footprint_B
    assert stages["cache"].sum() == pytest.approx(whole["cache"][0])
    assert stages["weights"].sum() == pytest.approx(whole["weights"][0])
    assert np.argmax(stages["weights"]) in (0, 3)


def test_experts_stay_in_their_stage():
    keys: dict[str, Any] = {"model": "qwen3-30b-a3b", "microbatches": 2, "balance": {"model": "balanced"}}
    whole = made(**keys, parallel={"ep": 2, "attention": "dp"}, count=2, batch_per_accelerator=64)
    staged = made(**keys, parallel={"ep": 2, "attention": "dp", "pp": 2}, batch_per_accelerator=64)
    # as many layers and sequences in all, on half of the layers each
    assert staged.ops.flops.sum() / 2 == pytest.approx(whole.ops.flops.sum())
    assert staged.plan["pp"] == 2 and staged.plan["micro_batches"] == 2


def test_a_cache_is_shared_out_and_parts_are_weighed():
    long: dict[str, Any] = {"batch_per_accelerator": 1 / 4, "context_tokens": 131072}
    one, four = run(**long, parallel={"tp": 1, "dp": 1}, ranks=1, count=4), run(**long, parallel={"cp": 4})
    assert four.metrics["tpot_s"] < 0.75 * one.metrics["tpot_s"]
    programs = made(**long, parallel={"cp": 4})
    names = np.array(programs.ops.names)[programs.ops.name_id]
    assert programs.footprint_B["cache"][0] == pytest.approx(131072 / 4 * 131072, rel=1e-3)
    # 32 heads of 128, 2 B: queries, and results of one sequence; denominators of four parts in 4 B
    for name, size_B in (("cp queries", 8192.0), ("cp results", 8192.0), ("cp weights", 32 * 4 * 4.0)):
        assert set(programs.ops.bytes_B[names == name]) == {size_B}
    read = programs.ops.bytes_B[names == "attention"]
    assert read[0] == pytest.approx(131072 / 4 * 2 * 1024 * 2, rel=0.01)


def test_new_tokens_are_shared_out_too():
    one, four = (
        made("deepseek-v2", parallel={"attention": "dp", "ep": 4, "cp": cp}, balance={"model": "balanced"})
        for cp in (1, 4)
    )
    names = [np.array(each.ops.names)[each.ops.name_id] for each in (one, four)]
    for name in ("attention out", "q absorb", "expert up", "head"):
        a, b = (each.ops.flops[which == name].sum() for each, which in zip((one, four), names, strict=True))
        assert a == pytest.approx(b)


@pytest.mark.parametrize(("model", "copies", "wide"), [("deepseek-v2", 8, 576 + 512), ("llama-3.1-8b", 2, 0)])
def test_copies_of_a_cache_become_parts_of_one(model: str, copies: int, wide: int):
    """Latents are one head, of which all ranks of a tensor group have a copy; of eight heads 16 ranks have two."""
    tp = 8 if wide else 16
    keys: dict[str, Any] = {"context_tokens": 131072, "batch_per_accelerator": 1 / 16, "balance": {"model": "balanced"}}

    def on(dcp: int) -> Programs:
        spec = DecodeSpec(kind="decode", model=model, parallel={"tp": tp, "dcp": dcp}, **keys)
        return inference.decode(spec, load_system("hgx_h100", domains=2))

    plain, shared = on(1), on(copies)
    assert shared.footprint_B["cache"][0] == pytest.approx(plain.footprint_B["cache"][0] / copies, rel=1e-3)
    names = [np.array(one.ops.names)[one.ops.name_id] for one in (plain, shared)]
    flops = [
        float(one.ops.flops[which == "attention"].sum()) for one, which in zip((plain, shared), names, strict=True)
    ]
    read = [
        float(one.ops.bytes_B[which == "attention"].sum()) for one, which in zip((plain, shared), names, strict=True)
    ]
    # as many products, of more heads over fewer tokens; the cache is read by parts
    assert flops[1] == pytest.approx(flops[0]) and read[1] < read[0] / copies * 1.05
    if wide:
        sizes = [set(shared.ops.bytes_B[names[1] == name]) for name in ("cp queries", "cp results")]
        assert sizes == [{128 * 576 * 2.0}, {128 * 512 * 2.0}]
    assert shared.plan["dcp"] == copies


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        ("llama-3.1-8b", {"parallel": {"tp": 4, "dcp": 2}}, "there are 1 copies in a tensor group of 4. Allowed: 1."),
        ("deepseek-v2", {"parallel": {"tp": 4, "dcp": 3}}, "there are 4 copies"),
        ("nemotron-3-nano", {"parallel": {"cp": 2}}, "takes 1 of a model with layers with a state"),
        ("llama-3.1-8b", {"parallel": {"cp": 2}, "chunk": {"tokens": 8}}, "ranks that share a cache"),
        ("llama-3.1-8b", {"parallel": {"pp": 64}}, "got 64 stages for 32 layers"),
    ],
)
def test_what_is_not_modelled(model: str, keys: dict[str, Any], message: str):
    with pytest.raises(InfeasibleError, match=message):
        made(model, **keys)
