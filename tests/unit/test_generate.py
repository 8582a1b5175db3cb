"""Is all the work of a model in the programs, and nothing twice? Counted over all ranks, against the model itself."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim import api, engine
from cmsim.errors import InfeasibleError
from cmsim.scenario import load_scenario
from cmsim.workload import generate
from cmsim.workload.generate.parallel import Layout, with_channels
from cmsim.workload.model import load_model

BOXES = {"system": "hgx_h100", "domains": 8}
MATRIX = ("gemm", "grouped_gemm", "attention_prefill", "mla_prefill", "attention_decode", "mla_decode")
CORES = ("attention_prefill", "mla_prefill")


@pytest.fixture(scope="module")
def model(small_model):
    return small_model


def made(workload, system=BOXES):
    (one,) = load_scenario({"systems": [system], "workload": workload}).runs
    where = api.system(one)
    programs = generate.programs(one.spec, where)
    engine.check_memory(programs, where)
    return programs


def training(model, name="dense", *, system=BOXES, **changes):
    workload = {
        "kind": "training",
        "model": model(name),
        "sequence_length": 4096,
        "global_batch": 64,
        "recompute": "none",
        "balance": {"model": "balanced"},
        **changes,
    }
    return made(workload, system)


def column(programs, rank, name, *, kind=None, kernel=None, collective=None, slot=None):
    """A column of the rank's ops, of the rows asked for."""
    ops = programs.ops
    program = programs.program[rank]
    rows = np.arange(programs.program_ptr[program], programs.program_ptr[program + 1])
    if kind is not None:
        rows = rows[np.isin(ops.kind[rows], [["compute", "host", "collective", "send", "recv"].index(kind)])]
    if kernel is not None:
        rows = rows[np.isin(np.array([*ops.kernels, ""])[ops.kernel[rows]], kernel)]
    if collective is not None:
        rows = rows[np.isin(np.array([*ops.collectives, ""])[ops.collective[rows]], collective)]
    if slot is not None:
        rows = rows[ops.slot[rows] == programs.slots.index(slot)]
    return getattr(ops, name)[rows]


def over_ranks(programs, name, **where):
    return sum(float(column(programs, rank, name, **where).sum()) for rank in range(programs.ranks))


# training: FLOPs


@pytest.mark.parametrize(
    ("name", "parallel"),
    [
        ("dense", {}),
        ("dense", {"tp": 8}),
        ("dense", {"tp": 8, "sequence_parallel": False}),
        ("dense", {"tp": 4, "pp": 4}),
        ("dense", {"tp": 2, "cp": 4, "pp": 2}),
        ("moe", {"ep": 8}),
        ("moe", {"tp": 2, "pp": 2, "ep": 16}),
        ("moe", {"tp": 2, "cp": 2, "pp": 4, "ep": 4}),
        ("deepseek-r1", {"pp": 2, "ep": 8}),
    ],
)
def test_training_does_the_models_flops_once(model, name, parallel, monkeypatch):
    """Forward 2 FLOPs a matrix parameter and token, backward 4; cores 1 and 2.5, scores being computed anew."""
    monkeypatch.setattr(engine, "check_memory", lambda programs, system: None)
    programs = training(model, name, parallel=parallel)
    spec = load_model(model(name))
    tokens = 64 * 4096
    core = spec.attention_flops_per_token(4096, causal=True) * tokens
    wanted = 6.0 * spec.matmul_parameters * tokens + 3.5 * core
    assert over_ranks(programs, "flops", kernel=MATRIX) == pytest.approx(wanted, rel=2e-3)
    assert over_ranks(programs, "flops", kernel=CORES) == pytest.approx(3.5 * core, rel=2e-3)
    # what metrics divide by counts the core's backward as two forwards
    assert programs.facts.model_flops_per_token * tokens == pytest.approx(wanted - 0.5 * core, rel=1e-9)


def test_latents_are_computed_by_every_rank_of_a_tensor_group(model, monkeypatch):
    """The down-projections have no heads to split, so that four ranks do them four times, and nothing else."""
    monkeypatch.setattr(engine, "check_memory", lambda programs, system: None)
    one, four = (training(model, "deepseek-r1", parallel={"tp": tp, "pp": 2, "ep": 8}) for tp in (1, 4))
    spec = load_model("deepseek-r1")
    down = spec.hidden * (spec.q_lora_rank + spec.kv_lora_rank + spec.rope_dim)
    more = over_ranks(four, "flops", kernel=MATRIX) - over_ranks(one, "flops", kernel=MATRIX)
    assert more == pytest.approx(3 * 6.0 * down * spec.layers * 64 * 4096, rel=1e-6)


def test_norms_and_the_like_are_few_flops(model):
    programs = training(model, parallel={"tp": 8})
    assert over_ranks(programs, "flops") == pytest.approx(over_ranks(programs, "flops", kernel=MATRIX), rel=0.01)


def test_full_recomputation_is_one_more_forward_through_the_layers(model):
    """What is behind them, norm, head and loss, is done once."""
    plain, full = (
        over_ranks(training(model, parallel={"tp": 8}, recompute=r), "flops", kernel=MATRIX) for r in ("none", "full")
    )
    spec = load_model(model("dense"))
    layers = spec.forward_flops_per_token(4096) - 2 * spec.hidden * spec.vocab
    assert full - plain == pytest.approx(layers * 64 * 4096, rel=2e-3)


# training: bytes on the wire

SBH_B = 4096 * 8192 * 2  # tokens x hidden x bytes


@pytest.mark.parametrize(
    ("check", "sequence_parallel", "factors"),
    [
        ("T24", False, {"all_reduce": 2 * 7 / 8}),
        ("T25", True, {"all_gather": 7 / 8, "reduce_scatter": 7 / 8}),
    ],
)
def test_tensor_parallel_bytes(model, check, sequence_parallel, factors):
    """T24, T25: 234,881,024 B sent by a rank for each layer, forward; backward sends as many, and with sequence
    parallelism half as many more, for inputs are gathered once more."""
    parallel = {"tp": 8, "sequence_parallel": sequence_parallel}
    programs = training(model, parallel=parallel, global_batch=8)
    sent = sum(
        factor * column(programs, 0, "bytes_B", collective=name, slot="tp").sum() for name, factor in factors.items()
    )
    layers, forwards = 4, 1 + 1 + 1 / 2 if sequence_parallel else 2
    # what the parts of the token table have is added up, and its gradient comes back: half a layer each, or a quarter;
    # with sequence parallelism the head's input is gathered, twice, and its gradient scattered: a quarter each
    ends = 2 / 4 + 3 / 4 if sequence_parallel else 2 / 2
    # the loss takes a largest logit and a sum of each token, in FP32
    loss = 0 if sequence_parallel else 2 * 4 * 4096 * 2 * 7 / 8
    assert sent == pytest.approx(234_881_024 * (layers * forwards + ends) + loss, rel=1e-12), check
    assert 234_881_024 == 4 * SBH_B * 7 // 8


@pytest.mark.parametrize(("sequence_parallel", "expected"), [(True, 8_388_608), (False, 8 * 8_388_608)])
def test_t28_pipeline_bytes(model, sequence_parallel, expected):
    """A rank passes its part of the activations to the next stage, and gets as many bytes of gradients back."""
    parallel = {"tp": 8, "pp": 4, "sequence_parallel": sequence_parallel}
    programs = training(model, parallel=parallel, global_batch=16)
    micro_batches = 8
    for rank, ends in ((0, 1), (16, 2), (32, 2), (63, 1)):
        for kind in ("send", "recv"):
            moved = column(programs, rank, "bytes_B", kind=kind)
            assert moved.tolist() == [expected] * micro_batches * ends, (rank, kind)


@pytest.mark.parametrize(("zero_stage", "overlap"), [(0, True), (1, True), (1, False)])
def test_data_parallel_bytes(model, zero_stage, overlap):
    """T26: gradients reduced in 4 bytes, weights gathered in 2; without sharding, all-reduced. Table and head too."""
    programs = training(model, parallel={"tp": 8}, zero_stage=zero_stage, overlap_data_parallel=overlap)
    spec = load_model(model("dense"))
    ends = spec.embedding_parameters + spec.head_parameters
    parameters = (spec.layers * (spec.attention_parameters + spec.dense_ffn_parameters) + ends) / 8
    got = {
        name: column(programs, 0, "bytes_B", collective=name, slot="dp").sum()
        for name in ("reduce_scatter", "all_gather", "all_reduce")
    }
    if zero_stage:
        assert got == pytest.approx({"reduce_scatter": 4 * parameters, "all_gather": 2 * parameters, "all_reduce": 0})
        # sent, dp = 8: 6 bytes a parameter, seven eighths of them; T26 has 5.625e9 for 1e9 parameters and dp = 16
        assert 6e9 * 15 / 16 == 5.625e9
    else:
        assert got == pytest.approx({"reduce_scatter": 0, "all_gather": 0, "all_reduce": 4 * parameters})


def test_t27_zero_3_gathers_weights_in_both_passes(model):
    """T27: three times the weights for each micro-batch: gathered forward, gathered backward, gradients scattered."""
    programs = training(model, parallel={"tp": 8}, zero_stage=3, global_batch=16, precision={"gradients": "bf16"})
    spec = load_model(model("dense"))
    ends = spec.embedding_parameters + spec.head_parameters
    parameters = (spec.layers * (spec.attention_parameters + spec.dense_ffn_parameters) + ends) / 8
    micro_batches = 2
    gathered = column(programs, 0, "bytes_B", collective="all_gather", slot="dp").sum()
    scattered = column(programs, 0, "bytes_B", collective="reduce_scatter", slot="dp").sum()
    assert gathered == pytest.approx(2 * 2 * parameters * micro_batches)
    assert scattered == pytest.approx(2 * parameters * micro_batches)


def test_heads_must_divide(model):
    with pytest.raises(
        InfeasibleError, match=r"parallel.tp: got 3, which does not divide 64 heads. Nearest that does: [24]"
    ):
        training(model, parallel={"tp": 3}, ranks=63)


def test_expert_gradients_are_reduced_among_their_copies(model):
    programs = training(model, "moe", parallel={"tp": 2, "pp": 2, "ep": 8})
    spec = load_model(model("moe"))
    own = spec.experts / 8 * spec.expert_parameters * spec.layers / 2
    reduced = column(programs, 0, "bytes_B", collective="reduce_scatter", slot="expert_dp").sum()
    assert reduced == pytest.approx(4 * own)
    groups = programs.groups[:, programs.slots.index("expert_dp")]
    # 32 ranks a stage, 8 of which hold all experts: each expert has 4 copies
    assert np.unique(groups, return_counts=True)[1].tolist() == [4] * 16


# experts


@pytest.mark.parametrize(("ep", "slots"), [(2, {}), (8, {}), (32, {"redundant": 16})])
def test_every_token_reaches_its_experts_once(model, ep, slots):
    """Expert products over all ranks do tokens x top_k x one expert, however experts are spread."""
    programs = training(model, "moe", parallel={"tp": 2, "pp": 2, "ep": ep, "expert_slots": slots})
    spec = load_model(model("moe"))
    tokens = 64 * 4096
    once = 2.0 * tokens * spec.top_k * spec.expert_parameters * spec.layers
    assert over_ranks(programs, "flops", kernel="grouped_gemm") == pytest.approx(3 * once, rel=1e-9)


def test_decode_dispatch_is_tokens_by_copies(model):
    """M01-like: every routed copy of every token leaves its rank, shared experts with slots of their own included."""
    workload = {
        "kind": "decode",
        "model": "deepseek-r1",
        "batch_per_accelerator": 96,
        "context_tokens": 4096,
        "balance": {"model": "balanced"},
        "precision": {"weights": "int8", "activations": "int8"},
        "parallel": {"ep": "max", "attention": "dp"},
    }
    programs = made(workload, {"system": "cloudmatrix384", "accelerators": 160})
    spec = load_model("deepseek-r1")
    tokens = 96 / 2  # of one die
    assert programs.ranks == 320
    dispatch = column(programs, 0, "bytes_B", collective="dispatch")
    assert len(dispatch) == spec.moe_layers
    copies = spec.top_k + spec.shared_experts
    message_B = dispatch[0] / (tokens * copies)
    assert spec.hidden <= message_B <= spec.hidden * 1.1  # one byte an element, and scales
    routed = 2.0 * 96 * 160 * copies * spec.expert_parameters * spec.moe_layers
    assert over_ranks(programs, "flops", kernel="grouped_gemm") == pytest.approx(routed)


# decode


def decode(model, name, *, system="hgx_h100", **changes):
    workload = {"kind": "decode", "model": model(name), "batch_per_accelerator": 16, "context_tokens": 4096, **changes}
    return made(workload, system)


def test_k11_latent_attention_of_a_decode_step(model, monkeypatch):
    monkeypatch.setattr(engine, "check_memory", lambda programs, system: None)
    programs = decode(model, "deepseek-r1", parallel={"attention": "dp", "ep": 8})
    flops = column(programs, 0, "flops", kernel="mla_decode")
    assert flops.tolist() == [1_140_850_688 * 16] * 61
    # the cache is read once for all heads; queries and results come on top
    cache_B = 16 * 4096 * (512 + 64) * 2
    per_layer = column(programs, 0, "bytes_B", kernel="mla_decode")[0]
    assert cache_B < per_layer < 1.1 * cache_B


@pytest.mark.parametrize("tp", [1, 2, 8])
def test_grouped_attention_of_a_decode_step(model, tp):
    """2 L heads (d + d) FLOPs and 2 L kv_heads d elements a sequence, over all ranks of a tensor group."""
    programs = decode(model, "llama-3.1-8b", parallel={"tp": tp})
    spec = load_model("llama-3.1-8b")
    sequences = 16 * 8
    flops = over_ranks(programs, "flops", kernel="attention_decode")
    assert flops == pytest.approx(sequences * spec.layers * 2 * 4096 * 32 * (128 + 128))
    read = over_ranks(programs, "bytes_B", kernel="attention_decode")
    cache_B = sequences * 4096 * spec.kv_bytes_per_token(2)
    assert cache_B == pytest.approx(sequences * 4096 * 131072)
    assert cache_B < read < 1.01 * cache_B
    weights = over_ranks(programs, "flops", kernel="gemm")
    assert weights == pytest.approx(2.0 * spec.matmul_parameters * sequences, rel=2e-3)


def test_two_microbatches_do_the_same_flops(model):
    one, two = (decode(model, "llama-3.1-8b", parallel={"tp": 8}, microbatches=m) for m in (1, 2))
    assert over_ranks(one, "flops") == pytest.approx(over_ranks(two, "flops"), rel=1e-9)


def test_a_draft_is_of_all_micro_batches(model):
    """The draft layer follows all micro-batches at once: its experts get every sequence, not those of one."""
    drafts = {"parallel": {"ep": 8, "attention": "dp"}, "speculative": {"draft_tokens": 2, "acceptance": 0.5}}
    drafts["balance"] = {"model": "balanced"}
    one, two = (decode(model, "moe", microbatches=m, **drafts) for m in (1, 2))
    assert over_ranks(one, "flops", kernel="grouped_gemm") == over_ranks(two, "flops", kernel="grouped_gemm")


# groups


@pytest.mark.parametrize(
    "layout", [Layout(2, 1, 4, 2, 4), Layout(2, 2, 2, 3, 8), Layout(1, 1, 4, 1, 1), Layout(4, 1, 1, 2, 4)]
)
def test_groups_cut_all_ranks_into_equal_parts(layout):
    sizes = {"tp": layout.tp, "cp": layout.cp, "dp": layout.dp * layout.cp, "ep": layout.ep}
    sizes["expert_dp"] = layout.expert_copies
    groups = layout.groups()
    for name, size in sizes.items():
        if size == 1:
            assert (groups[name] == -1).all()
        else:
            assert np.unique(groups[name], return_counts=True)[1].tolist() == [size] * (layout.ranks // size), name
    numbers = [set(column[column >= 0].tolist()) for column in groups.values()]
    assert sum(map(len, numbers)) == len(set().union(*numbers)), "dimensions share no group"


def test_channels_join_neighbouring_stages():
    layout = Layout(2, 1, 2, 3, 1)
    ends = with_channels(layout)
    for out, into, step in (("next.out", "previous.in", 4), ("previous.out", "next.in", -4)):
        for rank in range(layout.ranks):
            other = rank + step
            if 0 <= other < layout.ranks:
                assert ends[out][rank] == ends[into][other] >= 0
            else:
                assert ends[out][rank] == -1


# what cannot be


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parallel": {"tp": 5}}, "parallel: tp 5 x cp 1 x pp 1 = 5 does not divide 64 ranks. Nearest that do: tp 4"),
        ({"parallel": {"tp": 128}}, "parallel: tp 128"),
        ({"parallel": {"tp": 8, "pp": 3}}, "tp 8 x cp 1 x pp 3 = 24 does not divide 64 ranks. Nearest that do: pp 2"),
        (
            {"sequence_length": 4098, "parallel": {"cp": 4}},
            "got 4098, which does not divide by cp 4. Nearest multiples: 4096, 4100.",
        ),
        ({"parallel": {"tp": 8, "dp": 16}}, "tp x cp x pp x dp = 128 is more than the 64 ranks there are"),
        (
            {"global_batch": 12, "parallel": {"tp": 8}},
            "global_batch: got 12, which is not a multiple of micro_batch 1 x dp 8. Nearest multiples: 8, 16.",
        ),
        ({"parallel": {"tp": 8, "dp": 3}}, "global_batch: got 64, which is not a multiple of micro_batch 1 x dp 3"),
        ({"parallel": {"tp": 1, "pp": 64}}, "parallel.pp: 64 stages for 4 layers"),
        ({"parallel": {"ep": 4}}, "parallel.ep: got 4, but the model has no experts. Allowed: 1."),
        ({"ranks": 65}, "ranks: got 65; hgx_h100 has 64 ranks"),
    ],
)
def test_layouts_that_cannot_be_are_told(model, changes, message):
    with pytest.raises(InfeasibleError) as error:
        training(model, **changes)
    assert message in str(error.value)


def test_an_expert_size_that_cannot_be_is_told_with_those_that_can(model):
    with pytest.raises(InfeasibleError, match=r"parallel.ep: expert parallel size 3 is not .*Possible: 1, 2, 4"):
        training(model, "moe", parallel={"ep": 3})


def test_a_model_that_does_not_fit_is_told_by_part(model):
    with pytest.raises(InfeasibleError, match=r"does not fit: a rank needs \d+\.\d GB \(weights .*cache .*has 85.5 GB"):
        decode(model, "llama-3.1-405b", parallel={"tp": 8})


def test_collectives_by_groups_that_do_not_divide_are_told():
    with pytest.raises(InfeasibleError, match="groups of 3 at distance 1 do not divide 8 ranks"):
        made({"kind": "collective", "collective": "all_reduce", "message_bytes": 1e6, "group": 3}, "hgx_h100")
