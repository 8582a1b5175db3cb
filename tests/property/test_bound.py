"""The bound is of the question: no run of any plan is faster, all plans of a question on a machine have the same one,
and what makes a plan worse lowers its fraction."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import cmsim
from cmsim import api, engine
from cmsim.errors import InfeasibleError, InputError
from cmsim.scenario import load_scenario
from cmsim.workload import generate

DENSE = {
    "model_type": "llama",
    "hidden_size": 2048,
    "num_hidden_layers": 6,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "intermediate_size": 7168,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
}
MOE = {
    "model_type": "qwen3_moe",
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "moe_intermediate_size": 512,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "vocab_size": 8192,
    "max_position_embeddings": 8192,
}
LATENT = {
    "model_type": "deepseek_v3",
    "hidden_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "q_lora_rank": 384,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "intermediate_size": 4096,
    "moe_intermediate_size": 512,
    "n_routed_experts": 32,
    "num_experts_per_tok": 4,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "vocab_size": 8192,
    "max_position_embeddings": 163840,
}
CONFIGS = {"dense": DENSE, "moe": MOE, "latent": LATENT}
ZIPF = {"model": "zipf", "zipf_exponent": 1.0}

#: of 16 ranks each; the boxes are two domains joined by NICs, the supernode has two ranks a package and two streams for
#: two micro-batches
SYSTEMS = {
    "boxes": {"system": "hgx_h100", "domains": 2},
    "supernode": {"system": "cloudmatrix384", "accelerators": 8},
    "rack": {"system": "gb200_nvl72", "accelerators": 16},
    "torus": {"system": "tpu_v5p_pod", "accelerators": 16},
}
PACKAGES = {name: 8 if name == "supernode" else 16 for name in SYSTEMS}


@functools.cache
def model(name):
    path = Path(tempfile.mkdtemp()) / f"{name}.json"
    path.write_text(json.dumps(CONFIGS[name]))
    return str(path)


def programs_of(workload, system, network="fluid"):
    """A run's system, programs and options."""
    (one,) = load_scenario({"systems": [SYSTEMS[system]], "workload": workload, "network": network}).runs
    where = api.system(one)
    return where, generate.programs(one.spec, where), api.options_of(one, where)


def bound_of(workload, system, network="fluid"):
    """The bound of a run, its fraction among the rest."""
    where, programs, options = programs_of(workload, system, network)
    plan = engine.plan(programs, where, options)
    return engine.run_bound(plan, engine.play(plan))


@functools.cache
def least_of_question(text, system):
    """The least work by the plan without splits: all others must say the same, to the bit."""
    return programs_of(json.loads(text), system)[1].least


def check(question, plan, system, network):
    try:
        where, programs, options = programs_of(merged(question, plan), system, network)
    except (InfeasibleError, InputError) as error:
        # no such plan on so many ranks, or with so many micro-batches
        assume(not any(word in str(error) for word in ("parallel", "schedule")))
        raise
    assert programs.least == least_of_question(json.dumps(question), system)
    played = engine.plan(programs, where, options)
    found = engine.run_bound(played, engine.play(played))
    assert 0 < found["fraction"] <= 1


def merged(question, plan):
    return {**question, **plan, "parallel": {**question.get("parallel", {}), **plan.get("parallel", {})}}


def questions(kind):
    """Models, sizes, formats and routing: what is asked for, whatever plan answers it."""
    precisions = st.sampled_from([{}, {"kv_cache": "fp16"}])
    routing = st.sampled_from([*({"model": name} for name in ("balanced", "multinomial")), ZIPF])
    sequences = st.sampled_from([1, 7, 16, 40, 512])
    common = {
        "kind": st.just(kind),
        "model": st.sampled_from(sorted(CONFIGS)),
        "precision": precisions,
        "balance": routing,
    }
    own = {
        "decode": {
            "sequences": sequences,
            "context_tokens": st.sampled_from([64, 4096, 65536]),
            "speculative": st.sampled_from([None, {"draft_tokens": 2, "acceptance": 0.5}]),
        },
        "prefill": {"sequences": sequences, "prompt_tokens": st.sampled_from([33, 1024])},
        "training": {"sequence_length": st.sampled_from([256, 2048]), "global_batch": st.sampled_from([16, 64])},
    }[kind]
    return st.fixed_dictionaries(common | own)


def made(question, system):
    """A question as a scenario says it on this system."""
    out = {**question, "model": model(question["model"])}
    if "sequences" in out:
        out["batch_per_accelerator"] = out.pop("sequences") / PACKAGES[system]
    return out


EXPERTS = st.sampled_from([1, 2, 8, 16, "max"])
NETWORKS = st.sampled_from(["fluid", "ideal"])
QUICK = settings(
    max_examples=settings.default.max_examples // 4,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.mark.parametrize("kind", ["decode", "prefill"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_no_plan_of_an_inference_step_beats_the_bound_of_its_question(kind, system):
    plans = st.fixed_dictionaries(
        {
            "microbatches": st.sampled_from([1, 2]),
            "parallel": st.fixed_dictionaries(
                {"tp": st.sampled_from([1, 2, 4, 8]), "attention": st.sampled_from(["tp", "dp"]), "ep": EXPERTS}
            ),
        }
    )

    @QUICK
    @given(questions(kind), plans, NETWORKS)
    def run(question, plan, network):
        if question["model"] == "dense":
            plan["parallel"]["ep"] = 1
        check(made(question, system), plan, system, network)

    run()


@pytest.mark.parametrize("system", SYSTEMS)
def test_no_plan_of_a_training_step_beats_the_bound_of_its_question(system):
    plans = st.fixed_dictionaries(
        {
            "micro_batch": st.sampled_from([1, 2]),
            "recompute": st.sampled_from(["none", "selective", "full"]),
            "zero_stage": st.sampled_from([0, 1, 3]),
            "overlap_experts": st.booleans(),
            "schedule": st.sampled_from(["1f1b", "gpipe", "interleaved", "zb_h1", "zb_v", "dualpipe"]),
            "parallel": st.fixed_dictionaries(
                {
                    "tp": st.sampled_from([1, 2, 4]),
                    "cp": st.sampled_from([1, 2]),
                    "pp": st.sampled_from([1, 2, 4]),
                    "ep": EXPERTS,
                }
            ),
        }
    )

    @QUICK
    @given(questions("training"), plans, NETWORKS)
    def run(question, plan, network):
        sizes = plan["parallel"]
        if question["model"] == "dense":
            sizes["ep"] = 1
        if plan["schedule"] == "interleaved":
            sizes["virtual_stages"] = 2
        dp = 16 // (sizes["tp"] * sizes["cp"] * sizes["pp"])
        assume(dp and question["global_batch"] % (plan["micro_batch"] * dp) == 0)
        check(made(question, system), plan, system, network)

    run()


@pytest.mark.parametrize("graph", ["resnet50", "vit-b-16", "bert-base"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_no_plan_of_a_graph_beats_the_bound_of_its_question(graph, system):
    text = {"sequence_length": 128} if graph == "bert-base" else {}
    for batch in (0.5, 1, 24):
        found = bound_of({"kind": "encoder", "model": graph, "batch_per_accelerator": batch, **text}, system)
        assert 0 < found["fraction"] <= 1
    question = {"kind": "training", "model": graph, "global_batch": 64, **text}
    plans = [{}, {"micro_batch": 4}, {"recompute": "full"}, {"zero_stage": 0}]
    times = set()
    for plan in (*plans, {"parallel": {"dp": 1}}, {"parallel": {"dp": 4}}):
        found = bound_of(merged(question, plan), system)
        assert 0 < found["fraction"] <= 1, plan
        times.add(found["time_s"])
    assert len(times) == 1


# collectives: the question is the call

#: of 32 ranks or more, with domains joined by NICs, leaves narrower than those, two tiers, links of a torus
NARROW = {"scale_out.oversubscription": 4.0, "scale_out.switch_ports": 20}
FABRICS = {
    "boxes": {"system": "hgx_h100", "domains": 4},
    "narrow boxes": {"system": "hgx_h100", "domains": 8, "set": NARROW},
    "supernode": {"system": "cloudmatrix384", "accelerators": 16},
    "racks": {"system": "gb200_nvl72", "domains": 2},
    "torus": {"system": "tpu_v5p_pod", "accelerators": 64},
}
KINDS = ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "reduce", "send_recv", "dispatch"]


@pytest.mark.parametrize("fabric", FABRICS)
def test_no_collective_beats_its_bound(fabric):
    @settings(max_examples=settings.default.max_examples // 4)
    @given(
        st.sampled_from(KINDS),
        st.sampled_from([1e3, 1e6, 4e9]),
        st.sampled_from([(4, 1), (8, 1), (2, 8), (4, 4), ("all", 1)]),
        st.sampled_from([1, 3]),
        st.sampled_from(["fluid", "ideal", "flow"]),
    )
    def run(collective, size_B, group, repeat, network):
        call = {"collective": collective, "message_bytes": size_B, "group": group[0], "stride": group[1]}
        assume(group[0] != "all" or network != "flow" or fabric != "racks")  # seconds each
        (result,) = cmsim.run(
            {
                "systems": [FABRICS[fabric]],
                "workload": {"kind": "collective", **call, "repeat": repeat},
                "network": network,
            }
        )
        assert 0 < result.bound["fraction"] <= 1 + 1e-9  # times are whole picoseconds
        assert result.bound["name"] in ("port", "NIC", "bisection")

    run()


def test_the_bound_of_a_collective_is_the_same_for_every_algorithm():
    """Switches that add bound all of them, also those that let them lie idle."""
    times = {
        cmsim.run(
            {
                "systems": ["hgx_h100"],
                "workload": {
                    "kind": "collective",
                    "collective": "all_reduce",
                    "message_bytes": 1e9,
                    "algorithm": algorithm,
                },
            }
        )[0].bound["time_s"]
        for algorithm in ("best", "ring", "in_network", "nccl")
    }
    assert times == {1e9 / 450e9}


# what makes a plan worse


def fractions(question, *plans, system="boxes"):
    """Fraction of each plan; they share one bound."""
    found = [bound_of(merged(made(question, system), plan), system) for plan in plans]
    assert len({one["time_s"] for one in found}) == 1
    return [one["fraction"] for one in found]


DECODE = {"kind": "decode", "model": "dense", "sequences": 64, "context_tokens": 1024}


def test_weights_read_twice_lower_the_fraction():
    """Two micro-batches of a dense model have nothing to hide, and read every weight twice."""
    one, two = fractions(DECODE, {"microbatches": 1}, {"microbatches": 2})
    assert two < one


@pytest.mark.parametrize("name", ["moe", "latent"])
def test_experts_reached_twice_lower_the_fraction(name):
    alone = {"ep": 1, "attention": "dp"}
    one, two = fractions(
        {**DECODE, "model": name}, {"microbatches": 1, "parallel": alone}, {"microbatches": 2, "parallel": alone}
    )
    assert two < one


def test_filling_up_lowers_the_fraction():
    """17 sequences on 16 ranks are two on each, on one tensor group of eight nine: the ranks that fill up wait."""
    many = {**DECODE, "context_tokens": 65536}
    whole = {"parallel": {"attention": "dp"}}
    (even,) = fractions({**many, "sequences": 32}, whole)
    (odd,) = fractions({**many, "sequences": 17}, whole)
    assert odd < 0.6 * even
    shared, filled = fractions({**many, "sequences": 17}, {"parallel": {"tp": 4}}, whole)
    assert filled < shared


def test_a_bad_split_lowers_the_fraction():
    """Six layers on four stages; all activations made twice; ranks that idle."""
    question = {"kind": "training", "model": "dense", "sequence_length": 2048, "global_batch": 64}
    good, uneven, twice, idle = fractions(
        question, {}, {"parallel": {"pp": 4}}, {"recompute": "full"}, {"parallel": {"dp": 8}}
    )
    assert max(uneven, twice, idle) < good
    assert idle < 0.6 * good


# The tests above must be able to fail: what the ops of a plan do is no bound of its question.


def test_a_bound_of_the_plan_would_be_seen(monkeypatch):
    from cmsim.engine import bound

    monkeypatch.setattr(bound, "_of_question", lambda plan, least: bound._of_ops(plan))
    with pytest.raises(AssertionError):
        fractions(DECODE, {"microbatches": 1}, {"microbatches": 2})


def test_work_that_no_plan_does_would_be_seen(monkeypatch):
    from cmsim.engine import bound

    real = bound._of_question
    monkeypatch.setattr(bound, "_of_question", lambda *args: {key: 4 * of for key, of in real(*args).items()})
    workload = {"kind": "prefill", "model": "dense", "sequences": 64, "prompt_tokens": 4096}
    assert bound_of(made(workload, "boxes"), "boxes")["fraction"] > 1


def test_the_way_through_the_front_door_says_the_same():
    workload = made(DECODE, "boxes")
    (result,) = cmsim.run({"systems": [SYSTEMS["boxes"]], "workload": workload})
    assert dict(result.bound) == bound_of(workload, "boxes")
    assert not any("bound" in warning for warning in result.warnings)
