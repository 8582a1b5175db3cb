"""What the ranks of a training step share and send each other: bytes in the ops, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cmsim import api, engine
from cmsim.errors import InfeasibleError, InputError
from cmsim.hardware import load_system
from cmsim.kinds.training import OF_RECIPES
from cmsim.scenario import load_scenario
from cmsim.workload import generate
from cmsim.workload.generate.chain import Comm, Kernel, Piece, emit
from cmsim.workload.generate.overlap import TensorOverlap
from cmsim.workload.generate.parallel import Layout
from cmsim.workload.generate.recipes import RECIPES
from cmsim.workload.model import load_model
from cmsim.workload.ops import ProgramBuilder, assemble

BOXES = {"system": "hgx_h100", "domains": 8}
TOKENS = 64 * 4096


def states_B(programs) -> float:
    """What a step leaves to the next, on the first stage."""
    return sum(programs.footprint_B[line][0] for line in ("weights", "gradients", "optimizer"))


@pytest.fixture(scope="module")
def model(small_model):
    return small_model


@pytest.fixture(autouse=True)
def _any_memory(monkeypatch):
    monkeypatch.setattr(engine, "check_memory", lambda programs, system: None)


def training(path, system=BOXES, **changes):
    workload = {
        "kind": "training",
        "model": path,
        "sequence_length": 4096,
        "global_batch": 64,
        "recompute": "none",
        "balance": {"model": "balanced"},
        **changes,
    }
    (one,) = load_scenario({"systems": [system], "workload": workload}).runs
    return generate.programs(one.spec, api.system(one))


def rows(programs, rank=0, *, kernel=None, collective=None, slot=None, name=None):
    """The rank's ops of these kernels, collectives, groups and names."""
    ops = programs.ops
    program = programs.program[rank]
    out = np.arange(programs.program_ptr[program], programs.program_ptr[program + 1])
    for wanted, names, column in (
        (kernel, ops.kernels, ops.kernel),
        (collective, ops.collectives, ops.collective),
        (slot, programs.slots, ops.slot),
        (name, ops.names, ops.name_id),
    ):
        if wanted is not None:
            out = out[np.isin(np.array([*names, ""])[column[out]], wanted)]
    return out


def bytes_B(programs, rank=0, **which):
    return programs.ops.bytes_B[rows(programs, rank, **which)]


def flops(programs, **which):
    return sum(float(programs.ops.flops[rows(programs, rank, **which)].sum()) for rank in range(programs.ranks))


# experts


@pytest.mark.parametrize(("ep", "expert_tp"), [(4, 2), (1, 8), (8, 4)])
def test_shared_experts_do_the_same_products_and_gather_their_tokens(model, ep, expert_tp):
    """Ranks that share an expert gather what arrives at all of them: t x tokens x k x h x 2 B, and scatter as much."""
    parallel = {"tp": 2, "pp": 2, "ep": ep, "expert_tp": expert_tp}
    programs = training(model("moe"), parallel=parallel)
    spec = load_model(model("moe"))
    once = 2.0 * TOKENS * spec.top_k * spec.expert_parameters * spec.layers
    assert flops(programs, kernel="grouped_gemm") == pytest.approx(3 * once, rel=1e-9)
    tokens = 4096 / 2  # of one rank, micro-batch and layer
    arriving_B = expert_tp * tokens * spec.top_k * spec.hidden * 2
    messages = 4 * 2 * 2  # 64 sequences on 16 data-parallel ranks, layers of a stage, both passes
    for collective in ("all_gather", "reduce_scatter"):
        assert bytes_B(programs, collective=collective, slot="expert_tp").tolist() == [arriving_B] * messages
    # gradients of a rank's part of its experts, among the ranks that hold the same part
    own = spec.experts / ep * spec.expert_parameters / expert_tp * spec.layers / 2
    copies = 32 // (ep * expert_tp)
    reduced = bytes_B(programs, collective="reduce_scatter", slot="expert_dp").sum()
    assert reduced == (pytest.approx(4 * own) if copies > 1 else 0)


def test_expert_groups_are_neighbours():
    layout = Layout(2, 1, 8, 2, 4, 2)
    groups = layout.groups()
    assert groups["expert_tp"][:4].tolist() == [groups["expert_tp"][0]] * 2 + [groups["expert_tp"][2]] * 2
    ep = groups["ep"]
    assert np.flatnonzero(ep == ep[1]).tolist() == [1, 3, 5, 7]
    assert np.flatnonzero(groups["expert_dp"] == groups["expert_dp"][0]).tolist() == [0, 8]
    for name, size in (("ep", 4), ("expert_tp", 2), ("expert_dp", 2)):
        assert np.unique(groups[name], return_counts=True)[1].tolist() == [size] * (32 // size)


@pytest.mark.parametrize("factor", [1.0, 1.25, 0.5])
def test_a_capacity_is_sent_and_worked_on_whole(model, factor):
    """Places of an expert for each rank: ceil(factor x tokens x k / experts), whoever fills them."""
    changes = {"parallel": {"ep": 8}, "capacity_factor": factor, "balance": {"model": "zipf", "zipf_exponent": 1}}
    programs = training(model("moe"), **changes)
    spec = load_model(model("moe"))
    places = math.ceil(factor * 4096 * spec.top_k / spec.experts)
    sent = bytes_B(programs, collective="combine", slot="ep")
    assert set(sent[: spec.layers].tolist()) == {places * spec.experts * spec.hidden * 2.0}
    work = 2.0 * 64 * places * spec.experts * spec.expert_parameters * spec.layers
    assert flops(programs, kernel="grouped_gemm") == pytest.approx(3 * work, rel=1e-9)
    facts, plain = programs.facts, training(model("moe"), parallel={"ep": 8}).facts
    assert facts.model_flops_per_token == plain.model_flops_per_token
    assert programs.least.flops["bf16"] <= flops(programs)
    more = 6.0 * spec.layers * (factor - 1) * spec.top_k * spec.expert_parameters
    assert facts.hardware_flops_per_token - plain.hardware_flops_per_token == pytest.approx(more, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "dense",
            {"parallel": {"expert_tp": 2}},
            "parallel.expert_tp: got 2, but the model has no experts. Allowed: 1.",
        ),
        ("dense", {"capacity_factor": 1}, "capacity_factor: got 1, but the model has no experts. Allowed: none."),
        (
            "moe",
            {"parallel": {"ep": 16, "expert_tp": 3}},
            "parallel.expert_tp: got 3; with ep 1 it does not divide tp x cp x dp = 64 ranks. Nearest that does: 2.",
        ),
        (
            "moe",
            {"parallel": {"ep": 16, "expert_tp": 8}},
            "parallel.ep: expert parallel size 16 is not possible with 8 ranks",
        ),
        ("moe", {"parallel": {"ep": 32}}, "parallel.ep: expert parallel size 32 is not possible with 64 ranks"),
    ],
)
def test_experts_that_cannot_be_shared_so_are_told(model, name, changes, message):
    with pytest.raises(InfeasibleError) as error:
        training(model(name), **changes)
    assert message in str(error.value)


# narrow formats


def test_scenarios_know_the_recipes():
    assert {name: of[0] for name, of in OF_RECIPES.items()} == {name: of.width for name, of in RECIPES.items()}


@pytest.mark.parametrize(
    ("recipe", "format_", "each_B"),
    [
        ("delayed", "fp8", 4),
        ("current", "fp8", 6),
        ("block", "fp8_block", 2 + 2 * (1 + 4 / 128)),
        ("mxfp8", "mxfp8", 2 + 2 * (1 + 1 / 32)),
        ("nvfp4", "fp4", 6 + 2 * (0.5 + 1 / 16)),
        ("int8", "int8", 6),
        ("mxfp6", "mxfp6", 2 + 2 * (0.75 + 1 / 32)),
        ("mxfp4", "mxfp4", 4 + 2 * (0.5 + 1 / 32)),
    ],
)
def test_a_recipe_casts_inputs_gradients_and_weights(model, recipe, format_, each_B):
    """A layer casts in forward its products' inputs, h + q + h + f, in backward gradients of results, once weights."""
    programs = training(model("dense"), {"system": "hgx_b200", "domains": 8}, precision={"recipe": recipe})
    spec = load_model(model("dense"))
    h, q, kv, f = 8192, 64 * 128, 8 * 128, 28672
    layers, weights = spec.layers, spec.layers * (spec.attention_parameters + spec.dense_ffn_parameters)
    cast = lambda name: bytes_B(programs, kernel="quantise", name=name).sum()  # noqa: E731
    forward = ["attention quantise", "output quantise", "ffn quantise"]
    assert cast(forward) == pytest.approx(layers * 4096 * (h + q + h + f) * each_B)
    products = ("q, k, v", "attention out", "ffn up", "ffn down")
    backward = [f"{name} gradient quantise" for name in products]
    assert cast(backward) == pytest.approx(layers * 4096 * (q + 2 * kv + h + 2 * f + h) * each_B)
    assert cast("weight quantise") == pytest.approx(weights * each_B)
    assert bytes_B(programs, kernel="quantise").sum() == pytest.approx(cast([*forward, *backward, "weight quantise"]))
    ops = programs.ops
    for which, wanted in (("dgrad", format_), ("wgrad", format_), ("", format_)):
        at = rows(programs, name=[f"{name} {which}".strip() for name in products])
        assert {ops.precisions[number] for number in ops.precision[at]} == {wanted}
    for name in ("head", "head wgrad", "attention"):
        assert ops.precisions[ops.precision[rows(programs, name=name)[0]]] == "bf16"


def test_beside_frozen_weights_one_layout_is_cast(model):
    """Of NVFP4 the maximum, then rows: 2 + (2 + 1/2 + 1/16) B an element, where both layouts take another 2.5625."""
    system, precision = {"system": "hgx_b200", "domains": 8}, {"recipe": "nvfp4"}
    both = training(model("dense"), system, precision=precision)
    one = training(model("dense"), system, precision=precision, lora={"rank": 8})
    for name in ("ffn quantise", "ffn up gradient quantise"):
        share = bytes_B(one, kernel="quantise", name=name) / bytes_B(both, kernel="quantise", name=name)
        assert share.tolist() == pytest.approx([4.5625 / 7.125] * len(share))


@pytest.mark.parametrize(("attention", "measured"), [("bf16", True), ("fp8", False)])
def test_attention_in_8_bits_is_no_kernel_of_a_serving_engine(model, attention, measured):
    """Its tables are of kernels that read a cache; forward and backward are priced by their share."""
    programs = training(model("dense"), precision={"recipe": "delayed", "attention": attention})
    (first, *_) = rows(programs, name="attention")
    assert (programs.ops.shape[first] >= 0) == measured


def test_some_layers_stay_in_16_bits(model):
    """One first and two last layers of four: a quarter of the casts, and the others' products in 16 bits."""
    system, recipe = {"system": "hgx_b200", "domains": 8}, {"recipe": "nvfp4"}
    kept = {"layers_at_start_in_bf16": 1, "layers_at_end_in_bf16": 2}
    some, none = (
        training(model("dense"), system, precision=precision, parallel={"pp": 2}, global_batch=64)
        for precision in (recipe | kept, recipe)
    )
    for rank, share in ((0, 1 / 2), (63, 0)):
        cast, all_cast = (bytes_B(programs, rank, kernel="quantise").sum() for programs in (some, none))
        assert cast == pytest.approx(share * all_cast)
    assert flops(some) == pytest.approx(flops(none), rel=1e-2)
    names = [some.ops.precisions[at] for at in some.ops.precision[rows(some, name="q, k, v")]]
    assert names.count("bf16") == names.count("fp4") > 0
    with pytest.raises(
        InfeasibleError, match="layers_at_end_in_bf16: with layers_at_start_in_bf16 5 layers; the model"
    ):
        training(model("dense"), system, precision=recipe | {"layers_at_end_in_bf16": 5})
    with pytest.raises(InputError, match="layers_at_end_in_bf16: goes with `recipe`, which is not given"):
        training(model("dense"), system, precision={"layers_at_end_in_bf16": 5})


@pytest.mark.parametrize(
    ("precision", "each_B", "recipe_B"),
    [
        ({"recipe": "mxfp8"}, 1, 2),
        ({"recipe": "block"}, 1, 1),
        ({"recipe": "nvfp4"}, 2, 2),
        ({"recipe": "current", "weights": "bf16"}, 2, 2),
        ({"recipe": "mxfp4"}, 2, 2),
    ],
)
def test_weights_are_gathered_and_tokens_sent_as_the_recipe_has_it(model, precision, each_B, recipe_B):
    programs = training(model("moe"), {"system": "hgx_b200", "domains": 8}, parallel={"ep": 8}, precision=precision)
    spec = load_model(model("moe"))
    experts = 2 * spec.expert_parameters * spec.layers
    assert bytes_B(programs, collective="all_gather", slot="expert_dp").sum() == pytest.approx(each_B * experts)
    out, back = (bytes_B(programs, collective=name, slot="ep")[0] for name in ("dispatch", "combine"))
    # with one scale of four bytes for 128 elements of the largest model, as the stack has it
    assert out / back == pytest.approx((spec.hidden * recipe_B + (224 if recipe_B < 2 else 0)) / (spec.hidden * 2))


@pytest.mark.parametrize(
    ("system", "precision", "message"),
    [
        ("hgx_h100", {"recipe": "mxfp8"}, "precision.recipe: got mxfp8, whose products the h100_sxm does not compute"),
        ("hgx_h100", {"recipe": "nvfp4"}, "Allowed: current, delayed, block, int8."),
        ("cloudmatrix384", {"recipe": "block"}, "the ascend_910c does not compute. Allowed: int8."),
        ("atlas950_superpod", {"recipe": "mxfp6"}, "got mxfp6, whose products the ascend_950dt does not compute."),
        ("atlas950_superpod", {"recipe": "nvfp4"}, "got nvfp4, whose products the ascend_950dt does not compute."),
        ("hgx_b200", {"recipe": "mxint8"}, "got mxint8, whose products the b200_sxm does not compute."),
        (
            "hgx_b200",
            {"recipe": "mxfp8", "activations": "int8"},
            "precision.activations: got int8; recipe mxfp8 allows fp8",
        ),
        ("hgx_b200", {"recipe": "tensor"}, "precision.recipe: got 'tensor'. Allowed: block, current, delayed, int8"),
    ],
)
def test_recipes_that_cannot_be_are_told(model, system, precision, message):
    workload = {"kind": "training", "model": model("dense"), "sequence_length": 512, "global_batch": 8}
    with pytest.raises((InfeasibleError, InputError)) as error:
        assert api.run({"systems": [system], "workload": {**workload, "precision": precision}})[0].metrics
    assert message in str(error.value)


# weights sharded over data-parallel ranks


def test_hybrid_sharding_gathers_inside_and_adds_up_across_once(model):
    """T27 inside a group, for each of two micro-batches; across groups, once, the shares' gradients."""
    changes = {"parallel": {"tp": 2}, "fsdp": "hybrid", "precision": {"gradients": "bf16"}}
    programs = training(model("dense"), **changes)
    spec = load_model(model("dense"))
    ends = spec.embedding_parameters + spec.head_parameters
    parameters = (spec.layers * (spec.attention_parameters + spec.dense_ffn_parameters) + ends) / 2
    micro_batches, shards = 2, 4  # 8 GPUs a box, two to a tensor group
    gathered = bytes_B(programs, collective="all_gather", slot="shard").sum()
    assert gathered == pytest.approx(2 * 2 * parameters * micro_batches)
    scattered = bytes_B(programs, collective="reduce_scatter", slot="shard").sum()
    assert scattered == pytest.approx(2 * parameters * micro_batches)
    added = bytes_B(programs, collective="all_reduce", slot="replica").sum()
    assert added == pytest.approx(2 * parameters / shards)
    assert not len(rows(programs, slot="dp"))
    group = programs.groups[:, programs.slots.index("shard")]
    assert np.flatnonzero(group == group[0]).tolist() == [0, 2, 4, 6]
    group = programs.groups[:, programs.slots.index("replica")]
    assert np.flatnonzero(group == group[0]).tolist() == list(range(0, 64, 8))
    # states of a share: 16 B a parameter over the group
    held = states_B(programs)
    assert held == pytest.approx(16 * parameters / shards)


def test_full_sharding_is_zero_3_and_one_group_of_all_as_well(model):
    zero, full, on, hybrid = (
        training(model("moe"), parallel={"ep": 8}, **of)
        for of in ({"zero_stage": 3}, {"fsdp": "full"}, {"fsdp": True}, {"fsdp": "hybrid", "fsdp_shards": 64})
    )
    for other in (full, on):
        assert (zero.ops.bytes_B == other.ops.bytes_B).all()
    assert (zero.ops.bytes_B == hybrid.ops.bytes_B).all()


def test_experts_are_sharded_among_the_copies_in_a_group(model):
    layout = Layout(1, 1, 64, 1, 4, sharded=8)
    assert (layout.shards, layout.expert_shards, layout.expert_copies) == (8, 2, 16)
    groups = layout.groups()
    assert np.flatnonzero(groups["expert_shard"] == groups["expert_shard"][1]).tolist() == [1, 5]
    assert np.flatnonzero(groups["expert_replica"] == groups["expert_replica"][1]).tolist() == list(range(1, 64, 8))
    # of more ranks than a group has, each holds its experts whole
    programs = training(model("moe"), parallel={"ep": 16}, fsdp="hybrid")
    spec = load_model(model("moe"))
    assert not len(rows(programs, slot="expert_shard"))
    added = bytes_B(programs, collective="all_reduce", slot="expert_replica").sum()
    assert added == pytest.approx(4 * spec.layers * spec.expert_parameters)


def test_weights_that_stay_are_gathered_once(model):
    twice, once = (training(model("dense"), fsdp="full", reshard_after_forward=again) for again in (True, False))
    both = [bytes_B(programs, collective="all_gather", slot="dp").sum() for programs in (twice, once)]
    assert both[0] == 2 * both[1]
    held = [states_B(programs) for programs in (twice, once)]
    spec = load_model(model("dense"))
    parameters = spec.total_parameters - spec.small_parameters
    assert held == pytest.approx([18 * parameters / 64, 2 * parameters + 16 * parameters / 64])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fsdp": "full", "zero_stage": 1}, "zero_stage: got 1 with fsdp full. Allowed: 3, or fsdp none"),
        (
            {"fsdp": "none", "zero_stage": 3},
            "zero_stage: got 3 with fsdp none. Allowed: 0, 1, 2, or fsdp full",
        ),
        ({"fsdp": "half"}, "fsdp: got 'half'. Allowed: full, hybrid, none."),
        ({"fsdp_shards": 8}, "fsdp_shards: goes with `fsdp: hybrid`; got fsdp none"),
        ({"fsdp": "hybrid", "fsdp_shards": 5}, "fsdp_shards: got 5, which does not divide dp x cp = 64 ranks. Nearest"),
        ({"reshard_after_forward": False}, "reshard_after_forward: goes with `fsdp: full` or `hybrid`; got fsdp none"),
    ],
)
def test_sharding_that_cannot_be_is_told(model, changes, message):
    with pytest.raises((InfeasibleError, InputError)) as error:
        training(model("dense"), **changes)
    assert message in str(error.value)


def test_what_is_gathered_is_cast_before(model):
    """With sequence parallelism a rank casts its own tokens of what a layer's halves gather: h/t each, not h."""
    system, precision = {"system": "hgx_b200", "domains": 8}, {"recipe": "delayed"}
    one, eight = (
        training(model("dense"), system, parallel={"tp": tp}, global_batch=64, precision=precision) for tp in (1, 8)
    )
    for name in ("attention quantise", "ffn quantise"):
        each = [bytes_B(programs, kernel="quantise", name=name)[0] for programs in (one, eight)]
        assert each[0] == 8 * each[1] == 4096 * 8192 * 4


# messages of tensor parallelism beside products


def product(name, flops):
    return Kernel(name, "gemm", "bf16", flops, 1e6)


def played(mode, pieces):
    """(makespan, times of kernels and messages in the order of the rows) of a chain, in whole picoseconds."""
    build = ProgramBuilder()
    emit(build, TensorOverlap(mode, chunks=4).arranged(pieces))
    programs = assemble([build], program=np.zeros(4, np.int64), groups={"tp": np.zeros(4, np.int64)})
    line = engine.play(engine.plan(programs, load_system("hgx_h100"), engine.Options()), "ideal")
    took = (line.end_ps[0] - line.start_ps[0]).tolist()
    kinds = programs.ops.kind.tolist()
    return (
        line.makespan_ps,
        [t for t, k in zip(took, kinds, strict=True) if k == 0],
        [t for t, k in zip(took, kinds, strict=True) if k == 2],
    )


@pytest.mark.parametrize("flops", [1e12, 1e13], ids=["message longer", "product longer"])
@pytest.mark.parametrize("collective", ["all_gather", "reduce_scatter"])
def test_a_pipelined_message_leaves_one_part(collective, flops):
    """c/n + max(c, p) (n - 1)/n + p/n, where the two parts of a message have n/4 and 3n/4 of its bytes."""
    comm, one = Comm("tp gather", collective, 1e9, "tp"), product("ffn up", flops)
    chain = [Piece([], comm), Piece([one])] if collective == "all_gather" else [Piece([one], comm)]
    whole, _, _ = played("none", chain)
    makespan, kernels, messages = played("pipelined", chain)
    (small_p, large_p), (small_c, large_c) = sorted(kernels), sorted(messages)
    assert makespan == small_c + max(large_c, large_p) + small_p
    assert large_c / small_c == pytest.approx(3, rel=0.1)
    assert makespan < whole


def test_in_bulk_gradients_of_inputs_leave_beside_those_of_weights():
    """Inputs are gathered beside the gradient of the input, which is scattered beside the other."""
    chain = [Piece([product("qkv dgrad", 1e13), product("qkv wgrad", 1e13)], Comm("back", "reduce_scatter", 1e9, "tp"))]
    makespan, (dgrad, wgrad), (gather, scatter) = played("none", chain)
    assert dgrad > gather and makespan == dgrad + wgrad + scatter
    assert played("bulk", chain)[0] == dgrad + max(wgrad, scatter)


@pytest.mark.parametrize("recipe", [None, "mxfp8"])
def test_overlap_moves_as_many_bytes_and_does_as_many_flops(model, recipe):
    """Forward 2 gatherings and 2 scatterings a layer, backward as many and 2 gatherings; gathered as cast."""
    system = {"system": "hgx_b200", "domains": 8}
    made = {
        mode: training(
            model("dense"), system, parallel={"tp": 8}, tp_overlap=mode, precision={"recipe": recipe, "weights": "bf16"}
        )
        for mode in ("none", "bulk", "pipelined")
    }
    sbh, layers, micro_batches = 4096 * 8192 * 2, 4, 8
    narrow = (1 + 1 / 32) / 2 if recipe else 1
    for programs in made.values():
        # the head gathers twice and scatters once, the token table scatters once and gathers once, in 16 bits
        gathered = bytes_B(programs, collective="all_gather", slot="tp").sum()
        assert gathered == pytest.approx(micro_batches * sbh * (layers * 6 * narrow + 2 + 1))
        scattered = bytes_B(programs, collective="reduce_scatter", slot="tp").sum()
        assert scattered == pytest.approx(micro_batches * sbh * (layers * 4 + 1 + 1))
        # the largest logit and the sum of a token
        assert bytes_B(programs, collective="all_reduce", slot="tp").tolist() == [4096 * 4.0] * 2 * micro_batches
        assert flops(programs, kernel="gemm") == pytest.approx(flops(made["none"], kernel="gemm"))
    # two kernels and two messages for each of four in pipelines, of a layer and pass
    assert len(made["bulk"].ops) == len(made["none"].ops)


def test_each_mode_is_faster_than_the_one_before(model):
    workload = {"kind": "training", "model": model("dense"), "sequence_length": 4096, "global_batch": 8}
    workload |= {"parallel": {"tp": 8}, "recompute": "none"}
    modes = ["none", "bulk", "pipelined", True]
    steps = [
        api.run({"systems": ["hgx_h100"], "workload": {**workload, "tp_overlap": mode}})[0].metrics["step_time_s"]
        for mode in modes
    ]
    assert steps[0] > steps[1] > steps[2] == steps[3]


def test_overlap_needs_sequence_parallelism(model):
    with pytest.raises(InputError, match=r"tp_overlap: got pipelined; without parallel.sequence_parallel none is"):
        training(model("dense"), parallel={"tp": 8, "sequence_parallel": False}, tp_overlap="pipelined")


# context parallelism


def long(model, **changes):
    """A step of one sequence of 131,072 tokens on 8 ranks of a context group, 64 heads of 128, 8 of keys and values."""
    parallel = {"cp": 8, "tp": 1, **changes}
    return training(model("dense"), "hgx_h100", parallel=parallel, sequence_length=131072, global_batch=1)


def test_t29_a_ring_sends_keys_and_values_beside_attention(model):
    """T29: 67,108,864 B a step, 7 steps; backward sends as much again for gradients. All heads, all FLOPs."""
    programs, plain = long(model, cp_comm_type="p2p"), long(model)
    sent = bytes_B(programs, collective="all_gather", slot="cp") / 8  # of each of 7 steps
    assert sorted(sent.tolist()) == [67_108_864] * 4 + [2 * 67_108_864] * 4
    assert flops(programs, kernel="attention_prefill") == pytest.approx(flops(plain, kernel="attention_prefill"))
    ops = programs.ops
    # parts of 16,384 x 64 x 128 results: 4 B, and 6 B of three quarters of them for 7 more steps
    summed = 131072 / 8 * 64 * 128 * (4 + 6 * 0.75 * 7)
    assert bytes_B(programs, name="ring sums").tolist() == [summed] * 4
    assert bytes_B(programs, name="ring sums backward").tolist() == [1.5 * summed] * 4
    (ring, *_) = rows(programs, name="ring keys, values")
    (most, last, *_) = rows(programs, name="attention")
    needs = [set(ops.dep_idx[ops.dep_ptr[row] : ops.dep_ptr[row + 1]].tolist()) for row in (most, last)]
    assert ring not in needs[0] and ring in needs[1]
    assert ops.flops[most] == pytest.approx(7 * ops.flops[last])


def test_t31_from_which_length_attention_hides_a_ring(model):
    """T31: 239.8 tokens a rank of 376 TFLOP/s and 196 GB/s; of the causal half of the products twice as many."""
    programs = long(model, cp_comm_type="p2p")
    (sent, *_) = bytes_B(programs, collective="all_gather", slot="cp") / 8  # of each of 7 steps
    (most, *_) = rows(programs, name="attention")
    message_s, attention_s = sent / 196e9, programs.ops.flops[most] / 7 / (0.5 * 752e12)
    assert 131072 / 8 * message_s / attention_s == pytest.approx(2 * 239.795918, rel=1e-6)


def test_gathered_keys_and_values_are_gathered_again(model):
    """(c - 1)/c of 2 s b h_kv d elements in forward; in backward as many, and as many gradients are scattered."""
    programs = long(model)
    assert bytes_B(programs, collective="all_gather", slot="cp").tolist() == [8 * 67_108_864] * 8
    assert bytes_B(programs, collective="reduce_scatter", slot="cp").tolist() == [8 * 67_108_864] * 4


def test_t30_heads_are_exchanged_for_tokens(model):
    """T30: 939,524,096 B sent for queries, keys, values and results of as many heads each; here 8 of 64 have keys."""
    programs, plain = long(model, cp_comm_type="a2a"), long(model)
    sent = bytes_B(programs, collective="all_to_all", slot="cp") * 7 / 8
    assert sent.sum() == pytest.approx(4 * 2 * 939_524_096 * (64 + 8 + 8 + 64) / (4 * 64))
    assert len(sent) == 4 * 2 * 2
    for kernel in ("attention_prefill", "gemm"):
        assert flops(programs, kernel=kernel) == pytest.approx(flops(plain, kernel=kernel))


@pytest.mark.parametrize("heads", [1, 2, 4, 8])
def test_heads_are_exchanged_near_and_keys_passed_on_afar(model, heads):
    """Of 8 = a r ranks a rank sends (a - 1)/a of what T30 counts, and in a ring of r keys and values of 1/a of the
    heads: r - 1 steps of s/8 tokens x 8 heads x 2 x 128; all heads, all FLOPs."""
    programs = long(model, cp_comm_type="a2a+p2p", cp_a2a=heads)
    plain = long(model)
    sent = bytes_B(programs, collective="all_to_all", slot="cp_a2a").sum() * (heads - 1) / heads
    assert sent == pytest.approx(4 * 2 * (heads - 1) / heads * 131072 / 8 * (2 * 64 + 2 * 8) * 128 * 2)
    rings = 8 // heads
    passed = bytes_B(programs, collective="all_gather", slot="cp_p2p") * (rings - 1) / rings
    each = (rings - 1) * 131072 / 8 * 2 * 8 * 128 * 2
    assert sorted(passed.tolist()) == pytest.approx([each] * 4 + [2 * each] * 4 if rings > 1 else [])
    assert flops(programs, kernel="attention_prefill") == pytest.approx(flops(plain, kernel="attention_prefill"))
    members = Layout(2, 8, 2, 1, 1, cp_a2a=heads).groups()
    for slot, size, step in (("cp_a2a", heads, 2), ("cp_p2p", rings, 2 * heads)):
        found = np.flatnonzero(members[slot] == members[slot][1]).tolist()
        assert found == (list(range(1, 1 + step * size, step)) if size > 1 else list(range(32)))


@pytest.mark.parametrize("how", [{"cp_comm_type": "p2p"}, {"cp_comm_type": "a2a+p2p", "cp_a2a": 4}])
def test_a_million_tokens_are_priced(model, how):
    """Attention is 4 x heads x d x s^2/2 a layer, 3.5 times with its backward, and most of the step: 16 x 8 ranks are
    above a third of their peak, and no faster than it."""
    tokens, parallel = 2**20, {"tp": 8, "cp": 16, **how}
    system = {"system": "hgx_h100", "domains": 16}
    changes = {"parallel": parallel, "sequence_length": tokens, "global_batch": 1}
    programs = training(model("dense"), system, **changes)
    core = 4 * 4 * 64 * 128 * tokens**2 / 2
    assert flops(programs, kernel="attention_prefill") == pytest.approx(3.5 * core)
    workload = {"kind": "training", "model": model("dense"), "recompute": "full", **changes}
    (result,) = api.run({"systems": [system], "workload": workload}, record="summary")
    least_s = 3 * core / (128 * 989e12)
    assert least_s < result.metric("step_time_s") < 4 * least_s
    assert 0.25 < result.metric("mfu") < 0.6


def test_neighbours_that_exchange_heads_divide_ranks_and_heads(model):
    """By default as many as divide both the ranks and a rank's heads of keys and values."""
    sizes = {"cp_comm_type": "a2a+p2p", "tp": 4, "cp": 2}
    given, default = (long(model, **sizes, **more) for more in ({"cp_a2a": 2}, {}))
    sent = bytes_B(given, collective="all_to_all", slot="cp_a2a").tolist()
    assert sent and sent == bytes_B(default, collective="all_to_all", slot="cp_a2a").tolist()
    with pytest.raises(
        InfeasibleError, match=r"cp_a2a: got 3; it must divide cp 8 and the 64 heads of a rank. Nearest"
    ):
        long(model, cp_comm_type="a2a+p2p", cp_a2a=3)
    with pytest.raises(InputError, match="cp_a2a: goes with `cp_comm_type: a2a\\+p2p`; got p2p"):
        long(model, cp_comm_type="p2p", cp_a2a=2)


@pytest.mark.parametrize(
    ("name", "parallel", "message"),
    [
        ("dense", {"cp": 64}, None),
        ("dense", {"cp": 16, "tp": 4}, None),
        (
            "moe",
            {"cp": 32},
            "parallel.cp: got 32; with cp_comm_type a2a it must divide the 16 heads of a rank. Nearest",
        ),
        ("deepseek-r1", {"cp": 8, "ep": 8}, "parallel.cp_comm_type: got a2a; latent attention takes all_gather, p2p"),
    ],
)
def test_heads_that_cannot_be_exchanged_are_told(model, name, parallel, message):
    changes = {"parallel": {**parallel, "cp_comm_type": "a2a"}, "global_batch": 8}
    if message is None:
        assert training(model(name), **changes).ranks == 64
        return
    with pytest.raises(InfeasibleError) as error:
        training(model(name), **changes)
    assert message in str(error.value)


# adapters


@pytest.mark.parametrize(
    ("name", "parallel", "targets"),
    [
        ("dense", {"tp": 1}, ("linear_qkv", "linear_proj", "linear_fc1", "linear_fc2")),
        ("dense", {"tp": 8}, ("linear_qkv",)),
        ("moe", {"ep": 8}, ("linear_qkv", "linear_fc1", "linear_fc2")),
    ],
)
def test_adapters_alone_are_trained(model, name, parallel, targets):
    """r (k + n) parameters a product: FLOPs are 4 of frozen products, 6 of adapters, gradients are of adapters."""
    programs = training(model(name), parallel=parallel, lora={"rank": 16, "targets": targets})
    spec, tp, ep = load_model(model(name)), parallel.get("tp", 1), parallel.get("ep", 1)
    h, q, kv = spec.hidden, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    width = spec.expert_ffn if name == "moe" else spec.ffn
    sides = {"linear_qkv": h + (q + 2 * kv) / tp, "linear_proj": q / tp + h}
    of_ffn = {"linear_fc1": h + 2 * width / tp, "linear_fc2": width / tp + h}
    shared = 16 * spec.layers * sum(sides.get(target, 0) for target in targets)
    ffn = 16 * spec.layers * sum(of_ffn.get(target, 0) for target in targets)
    held, used = (ffn * spec.experts / ep, ffn * spec.top_k) if name == "moe" else (ffn, ffn)
    reduced = sum(bytes_B(programs, collective="reduce_scatter", slot=slot).sum() for slot in ("dp", "expert_dp"))
    assert reduced == pytest.approx(4 * (shared + held))
    gathered = sum(bytes_B(programs, collective="all_gather", slot=slot).sum() for slot in ("dp", "expert_dp"))
    assert gathered == pytest.approx(2 * (shared + held))
    core = spec.attention_flops_per_token(4096) * TOKENS
    # adapters' long sides are split by tp, and r is not
    adapters = 6.0 * (shared + used) * TOKENS * tp
    wanted = 4.0 * spec.matmul_parameters * TOKENS + adapters
    assert flops(programs, kernel=["gemm", "grouped_gemm"]) == pytest.approx(wanted, rel=2e-3)
    assert programs.least.flops["bf16"] <= flops(programs)
    if tp == 1:
        assert programs.facts.model_flops_per_token * TOKENS == pytest.approx(wanted + 3 * core)
    # weights of 2 B stay, states are of adapters
    states = states_B(programs)
    copies = 64 // tp
    trained = 6 * (shared + held) + 12 * (shared / copies + held / (64 / ep if name == "moe" else copies))
    frozen = 2 * (spec.total_parameters - spec.small_parameters) / (tp if name == "dense" else 1)
    if name == "moe":
        frozen -= 2 * spec.layers * spec.experts * (1 - 1 / ep) * spec.expert_parameters
    assert states == pytest.approx(frozen + trained, rel=1e-9)


def test_frozen_weights_are_gathered_with_full_sharding(model):
    """And their gradients are never made: a step reduces those of adapters."""
    programs, plain = (training(model("dense"), fsdp="full", **of) for of in ({"lora": {"rank": 8}}, {}))
    both = [bytes_B(one, collective="all_gather", slot="dp").sum() for one in (programs, plain)]
    adapters = bytes_B(programs, collective="reduce_scatter", slot="dp").sum() / 4
    assert both[0] == pytest.approx(both[1] + 2 * 2 * adapters)
    assert not len(rows(programs, name=["q, k, v wgrad", "head wgrad", "embedding backward"]))
    assert len(rows(programs, name="q, k, v adapter in wgrad"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": {"rank": 0}}, "lora.rank"),
        ({"lora": {"rank": 8, "targets": ["q_proj"]}}, "got 'q_proj'. Did you mean 'linear_proj'? Allowed: linear_fc1"),
        ({"lora": {"rank": 8, "targets": []}}, "lora.targets"),
        (
            {"lora": {"rank": 8}, "precision": {"weights": "int8"}},
            "lora: products of two formats have no adapters here",
        ),
    ],
)
def test_adapters_that_cannot_be_are_told(model, changes, message):
    with pytest.raises((InfeasibleError, InputError)) as error:
        training(model("dense"), **changes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tp_overlap": "bulk"}, "tp_overlap: got 'bulk'; only decoders take it. Allowed for a graph: 'none'."),
        ({"parallel": {"expert_tp": 2}}, "parallel.expert_tp: got 2; only decoders take it"),
        ({"precision": {"recipe": "current"}}, "precision.recipe: got 'current'; only decoders take it"),
        ({"lora": {"rank": 8}}, "lora: got LoraSpec(rank=8"),
        ({"fsdp": "full"}, "zero_stage: got 3; a graph's weights are not split"),
    ],
)
def test_a_graph_takes_no_keys_of_decoders(changes, message):
    with pytest.raises(InfeasibleError) as error:
        training("resnet50", sequence_length=0, **changes)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(2, 1, 8, 2, 4, sharded=4),
        Layout(2, 1, 8, 4, 2, expert_tp=2, sharded=4, mirrored=True),
        Layout(1, 2, 6, 1, 4, sharded=6),
        Layout(4, 2, 4, 1, 8, sharded=8),
    ],
)
def test_groups_of_hybrid_sharding_cut_the_copies_in_equal_parts(layout):
    """Shards times replicas are the ranks that hold the same, and no two groups share more than a rank."""
    groups = layout.groups()
    for name, copies, shards in (
        ("", layout.copies, layout.shards),
        ("expert_", layout.expert_copies, layout.expert_shards),
    ):
        assert copies % shards == 0
        for which, size in (("shard", shards), ("replica", copies // shards)):
            column = groups[name + which]
            if size == 1:
                assert (column == -1).all()
            else:
                assert np.unique(column, return_counts=True)[1].tolist() == [size] * (layout.ranks // size)
        if 1 < shards < copies:
            pairs = set(zip(groups[f"{name}shard"].tolist(), groups[f"{name}replica"].tolist(), strict=True))
            assert len(pairs) == layout.ranks
            # what is sharded and replicated is what all of a group of copies hold
            alike = groups["dp" if not name else "expert_dp"]
            assert len(set(zip(alike.tolist(), groups[f"{name}shard"].tolist(), strict=True))) == layout.ranks // shards
