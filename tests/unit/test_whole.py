"""Whole things: the busiest rank's sequences, samples, heads and columns set time and memory, and the real number of
sequences is what throughput counts."""

from __future__ import annotations

import numpy as np
import pytest

import cmsim
from cmsim import api, engine
from cmsim.errors import InfeasibleError
from cmsim.scenario import load_scenario
from cmsim.workload import generate, whole
from cmsim.workload.model import load_model

SUPERNODE = {"system": "cloudmatrix384"}
BOX = {"system": "hgx_h200"}
LONG = {
    "kind": "decode",
    "model": "deepseek-r1",
    "context_tokens": 131072,
    "precision": {"weights": "int8", "activations": "int8"},
    "parallel": {"ep": "max", "attention": "dp"},
}


def made(workload, system=BOX):
    (one,) = load_scenario({"systems": [system], "workload": workload}).runs
    return generate.programs(one.spec, api.system(one))


def ran(workload, system=BOX):
    (result,) = cmsim.run({"systems": [system], "workload": workload})
    return result


def column(programs, which, **where):
    """A column of the first program's ops, of the rows that have these names."""
    ops = programs.ops
    keep = np.arange(len(ops)) < programs.program_ptr[1]
    for key, value in where.items():
        names = np.array([*getattr(ops, f"{key}s"), ""], object)
        keep &= names[getattr(ops, "name_id" if key == "name" else key)] == value
    return getattr(ops, which)[keep]


def flops_of_all(programs, **where):
    return float(column(programs, "flops", **where).sum()) * programs.ranks


# sequences


@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_rank_with_one_sequence_takes_as_long_however_many_have_none(microbatches):
    """Two dies a package: a quarter, one and two sequences per package all leave one on the busiest die."""
    runs = {
        batch: ran({**LONG, "batch_per_accelerator": batch, "microbatches": microbatches}, SUPERNODE)
        for batch in (0.25, 1, 2)
    }
    times = {result.metrics["tpot_s"] for result in runs.values()}
    assert len(times) == 1
    assert len({result.metrics["memory_peak_B"] for result in runs.values()}) == 1
    (tpot_s,) = times
    for batch, result in runs.items():
        assert result.metrics["tokens_per_s"] == pytest.approx(batch * 384 / tpot_s)
    assert any(
        "96 sequences on 768 ranks: every rank is priced as the busiest, with 1" in w for w in runs[0.25].warnings
    )
    assert not any("busiest, with" in warning for warning in runs[2].warnings)


def test_a_third_sequence_on_two_dies_is_a_second_on_one():
    two, three, four = (made({**LONG, "batch_per_accelerator": batch}, SUPERNODE) for batch in (2, 3, 4))
    of = {"kernel": "mla_decode"}
    assert flops_of_all(three, **of) == flops_of_all(four, **of) == 2 * flops_of_all(two, **of)
    assert three.footprint_B["cache"] == four.footprint_B["cache"]
    assert three.facts.tokens_per_run == 3 * 384


def test_a_context_that_no_rank_can_hold_is_refused_with_its_budget():
    """A million tokens are 74 GB of latents, which a die of 64 GB cannot hold, whatever part of its package it is."""
    with pytest.raises(
        InfeasibleError, match=r"does not fit: a rank needs 9\d\.\d GB \(weights .*, cache 7\d\.\d.*64\.0 GB"
    ):
        ran({**LONG, "context_tokens": 1_048_576, "batch_per_accelerator": 0.25}, SUPERNODE)


def test_a_tensor_group_holds_whole_sequences():
    """Four groups of two ranks: 94 sequences leave 24 to the busiest group; batches below one per rank are whole."""
    work = {"kind": "decode", "model": "llama-3.1-8b", "context_tokens": 1024, "parallel": {"tp": 2}}
    odd, even = (made({**work, "batch_per_accelerator": batch}) for batch in (94 / 8, 12))
    assert flops_of_all(odd, kernel="attention_decode") == flops_of_all(even, kernel="attention_decode")
    assert odd.facts.tokens_per_run == 94
    assert any("94 sequences on 4 tensor groups" in note for note in odd.notes)
    half = made({**work, "batch_per_accelerator": 0.5})
    assert half.facts.tokens_per_run == 4 and not half.notes


@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_a_batch_that_is_no_whole_number_is_said(kind):
    length = {"decode": {"context_tokens": 512}, "prefill": {"prompt_tokens": 512}}[kind]
    work = {"kind": kind, "model": "llama-3.1-8b", "parallel": {"attention": "dp"}, **length}
    programs = made({**work, "batch_per_accelerator": 1.1})
    what = {"decode": "sequences", "prefill": "prompts"}[kind]
    assert any(f"1.1 on 8 accelerators is 8.8 {what}: run with 9" in note for note in programs.notes)
    assert programs.facts.tokens_per_run == 9 * {"decode": 1, "prefill": 512}[kind]


@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_micro_batches_are_of_whole_sequences(kind):
    """Three sequences of a rank are two and one; one is one, and has no second to overlap with."""
    length = {"decode": {"context_tokens": 512}, "prefill": {"prompt_tokens": 512}}[kind]
    work = {"kind": kind, "model": "llama-3.1-8b", "parallel": {"attention": "dp"}, **length, "microbatches": 2}
    core = {"decode": "attention_decode", "prefill": "attention_prefill"}[kind]
    layers = load_model("llama-3.1-8b").layers
    one = column(made({**work, "batch_per_accelerator": 1}), "flops", kernel=core)
    three = column(made({**work, "batch_per_accelerator": 3}), "flops", kernel=core)
    assert len(one) == layers and len(three) == 2 * layers
    assert (three[:layers] == 2 * one).all() and (three[layers:] == one).all()
    assert any("too few for 2 parts" in note for note in made({**work, "batch_per_accelerator": 1}).notes)


def test_a_single_micro_batch_keeps_all_cores():
    """Where the stack gives each of two micro-batches' streams a share of the cores, one alone has them all."""
    programs = made({**LONG, "batch_per_accelerator": 2, "microbatches": 2}, SUPERNODE)
    assert (programs.ops.cores == 1).all()
    assert "experts" not in programs.ops.streams


# samples


def test_a_rank_encodes_whole_samples():
    work = {"kind": "encoder", "model": "resnet50"}
    few, one = (made({**work, "batch_per_accelerator": batch}) for batch in (0.25, 1))
    assert flops_of_all(few) == flops_of_all(one)
    assert few.facts.samples_per_run == 2 and one.facts.samples_per_run == 8
    programs = made({**work, "batch_per_accelerator": 1.3})
    assert any("1.3 on 8 accelerators is 10.4 samples: run with 10" in note for note in programs.notes)


# heads and columns


def test_key_value_heads_are_whole():
    """Five heads of keys and values on two ranks are three on one of them, in time and in memory."""
    assert whole.busiest(5, 2) == 3
    spec = load_model("llama-3.1-8b")
    assert spec.attention_parameters_on(1) == spec.attention_parameters
    # 8 heads of keys and values on 16 ranks: every rank has one, twice what an even split would be
    each = spec.hidden * (spec.head_dim + spec.v_head_dim)
    split = spec.attention_parameters / 16
    assert spec.attention_parameters_on(16) == pytest.approx(split + each / 2)
    latent = load_model("deepseek-r1")
    assert latent.attention_parameters_on(128) > latent.hidden * (latent.q_lora_rank + latent.kv_lora_rank)


def test_query_heads_that_do_not_divide_are_told_of_every_model():
    work = {"kind": "decode", "model": "qwen3-235b-a22b", "context_tokens": 512, "batch_per_accelerator": 1}
    with pytest.raises(InfeasibleError, match=r"parallel.tp: got 6, which does not divide 64 heads"):
        made({**work, "ranks": 6, "parallel": {"tp": 6}})
    made({**work, "ranks": 6, "parallel": {"tp": 6, "attention": "dp"}})  # heads are not split here


def test_columns_are_whole():
    """A vocabulary of 128,256 on three ranks is 42,752 words each; of 128,257 one has 42,753."""
    spec = load_model("llama-3.1-8b")
    assert spec.table_parameters_on(3) == 42752 * spec.hidden
    assert whole.busiest(128257, 3) == 42753


# tensor-parallel parts beside data-parallel attention


@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_ranks_with_their_own_sequences_bring_them_together_for_split_parts(kind):
    """Every token passes the whole FFN and head, however they are split."""
    length = {"decode": {"context_tokens": 512}, "prefill": {"prompt_tokens": 512}}[kind]
    work = {"kind": kind, "model": "llama-3.1-8b", "batch_per_accelerator": 4, **length}
    alone, split = (made({**work, "parallel": {"tp": tp, "attention": "dp"}}) for tp in (1, 4))
    for name in ("ffn up", "ffn down", "head"):
        assert flops_of_all(split, name=name) == pytest.approx(flops_of_all(alone, name=name))
    assert split.footprint_B["activations"] == pytest.approx(alone.footprint_B["activations"])
    size_B = column(split, "bytes_B", collective="reduce_scatter")
    tokens = 4 * 4 * {"decode": 1, "prefill": 512}[kind]
    hidden = load_model("llama-3.1-8b").hidden
    assert size_B.tolist() == [tokens * hidden * 2] * 32
    result = ran({**work, "parallel": {"tp": 4, "attention": "dp"}})
    assert 0 < result.bound["fraction"] <= 1


def test_memory_of_the_busiest():
    programs = made({**LONG, "batch_per_accelerator": 1}, SUPERNODE)
    spec = load_model("deepseek-r1")
    assert programs.footprint_B["cache"][0] == pytest.approx((131072 + 1) * spec.kv_bytes_per_token(2))
    assert engine.memory_B(programs).max() < 64e9
