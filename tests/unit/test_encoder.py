"""Encoders, image training and graph files as workloads: FLOPs, bytes, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from cmsim import api
from cmsim.errors import InfeasibleError, InputError
from cmsim.graphs.graph import PARAMETER, GraphBuilder
from cmsim.graphs.work import graph_work
from cmsim.reading import DATA
from cmsim.scenario import load_scenario
from cmsim.workload import generate
from cmsim.workload.generate.graph_pass import roots
from cmsim.workload.ops import COLLECTIVE, COMPUTE

BOX = {"system": "hgx_h100", "accelerators": 8}
EAGER = BOX | {"stack": "cuda_eager"}
RESNET, VIT = 2 * 4_089_184_256, 2 * 17_563_828_224


def made(workload, system=BOX):
    one = load_scenario({"systems": [system], "workload": workload}).runs[0]
    return generate.programs(one.spec, api.system(one))


def encoder(system=BOX, **changes):
    return made({"kind": "encoder", "model": "resnet50", "batch_per_accelerator": 32, **changes}, system)


def training(system=BOX, **changes):
    workload = {"kind": "training", "model": "resnet50", "global_batch": 512, "micro_batch": 32, "recompute": "none"}
    return made({**workload, "zero_stage": 0, **changes}, system)


def products(programs):
    ops = programs.ops
    matrix = np.isin(np.array([*ops.kernels, ""])[ops.kernel], ["gemm", "attention_prefill"])
    return float(ops.flops[matrix & (ops.kind == COMPUTE)].sum())


def bytes_of(programs):
    return float(programs.ops.bytes_B[programs.ops.kind == COMPUTE].sum())


# inference


@pytest.mark.parametrize(("model", "flops"), [("resnet50", RESNET), ("vit-b-16", VIT)])
@pytest.mark.parametrize("system", [BOX, EAGER], ids=["graph", "eager"])
def test_a_pass_does_the_models_flops_once(model, flops, system):
    programs = encoder(system, model=model)
    assert products(programs) == pytest.approx(32 * flops, rel=1e-12)
    assert programs.facts.model_flops_per_sample == flops
    assert programs.facts.samples_per_run == 8 * 32


def test_a_batch_reads_weights_once():
    one, two = encoder(batch_per_accelerator=1), encoder(batch_per_accelerator=2)
    weights = 2 * bytes_of(one) - bytes_of(two)
    # 16-bit weights, running statistics too; a few are read by the norms of four weights each
    assert weights == pytest.approx(2 * 25_610_152, rel=1e-6)


def test_compilers_append_what_works_element_by_element():
    graph, eager = encoder(), encoder(EAGER)
    # 53 convolutions, two pools and the classifier: norms, activations and sums run inside them
    assert len(graph.ops) == 56
    assert len(eager.ops) == 174  # all but the view
    assert bytes_of(graph) < 0.6 * bytes_of(eager)


def test_a_tensor_that_is_read_twice_is_written():
    build = GraphBuilder("fork", "by hand")
    x, w = build.tensor("x", (4, 8)), build.tensor("w", (8, 8), kind=PARAMETER)
    a, b, c, d = (build.tensor(name, (4, 8)) for name in "abcd")
    build.node("MatMul", [x, w], [a])
    build.node("Relu", [a], [b])
    build.node("Sigmoid", [b], [c])
    build.node("Add", [b, c], [d])
    graph = build.graph(inputs=[x], outputs=[d])
    root, kept = roots(graph, graph_work(graph), norms=True)
    # the second activation stands alone, since its input is read again; the sum joins it
    assert root.tolist() == [0, 0, 2, 2]
    assert kept.tolist() == [0, 32, 0, 32]


def test_a_name_that_is_made_twice_makes_no_circle():
    build = GraphBuilder("twice", "by hand")
    x, a, b = (build.tensor(name, (4, 8)) for name in "xab")
    build.node("Relu", [b], [a])
    build.node("Relu", [a], [b])
    graph = build.graph(inputs=[x], outputs=[a])
    assert roots(graph, graph_work(graph), norms=True)[0].tolist() == [0, 1]


def test_text_is_as_long_as_said():
    short, long = (encoder(model="bert-base", sequence_length=length) for length in (128, 256))
    layers, wide = 12, 768
    expected = 32 * (128 * layers * (24 * wide**2 + 4 * 128 * wide) + 2 * wide**2)
    assert products(short) == pytest.approx(expected, rel=1e-12)
    assert products(long) > 2 * products(short)


def test_precision_changes_bytes_and_peak():
    wide = encoder(model="vit-b-16", precision={"weights": "fp32", "activations": "fp32"})
    assert bytes_of(wide) == pytest.approx(2 * bytes_of(encoder(model="vit-b-16")), rel=1e-9)
    assert "fp8" in encoder(precision={"weights": "fp8", "activations": "fp8"}).ops.precisions


def test_a_graph_file_runs_as_its_config_does():
    pytest.importorskip("onnx", reason="the onnx package, an optional extra, is absent")
    file = encoder(model=str(DATA / "workloads" / "traces" / "onnx" / "light_resnet50.onnx"))
    assert products(file) == products(encoder())
    assert bytes_of(file) == pytest.approx(bytes_of(encoder()), rel=0.01)


def test_a_mindir_file_runs():
    path = DATA / "workloads" / "traces" / "mindir" / "ori_net.mindir"
    assert products(encoder(model=str(path))) == 32 * 2 * 416_520


# training


@pytest.mark.parametrize(
    ("model", "flops", "first"), [("resnet50", RESNET, 236_027_904), ("vit-b-16", VIT, 2 * 196 * 768 * 768)]
)
def test_a_step_is_three_passes(model, flops, first):
    """Forward, and gradients of inputs and of weights; pixels need no gradient, and a fused core recomputes."""
    programs = training(model=model, global_batch=32, ranks=1)
    assert programs.facts.model_flops_per_sample == 3 * flops - first
    # a fused core recomputes its scores
    again = 0.5 * 12 * 4 * 197 * 197 * 768 if model == "vit-b-16" else 0.0
    assert products(programs) == pytest.approx(32 * (3 * flops - first + again), rel=1e-12)
    assert programs.facts.hardware_flops_per_sample == pytest.approx(3 * flops - first + again)


def test_gradients_are_reduced_once_a_step():
    for zero_stage, collectives in ((0, {"all_reduce"}), (1, {"reduce_scatter", "all_gather"})):
        programs = training(zero_stage=zero_stage)
        ops = programs.ops
        rows = ops.kind == COLLECTIVE
        assert {ops.collectives[i] for i in ops.collective[rows]} == collectives
        reduced = rows & (ops.collective == ops.collectives.index(min(collectives - {"all_gather"})))
        assert ops.bytes_B[reduced].sum() == pytest.approx(4 * 25_557_032)
        # buckets of 25 MiB
        assert reduced.sum() == 4


def test_micro_batches_add_up():
    one, four = training(global_batch=256), training(global_batch=1024)
    assert products(four) == 4 * products(one)
    assert four.facts.micro_batches == 4


def test_recomputation_is_one_more_forward():
    plain, again = training(model="vit-b-16"), training(model="vit-b-16", recompute="full")
    per_rank = 512 / 8
    assert products(again) - products(plain) == pytest.approx(per_rank * VIT, rel=1e-12)
    assert again.footprint_B["activations"][0] < plain.footprint_B["activations"][0]


def test_weights_gradients_and_moments_lie_in_memory():
    programs = training()
    # 2 + 4 + 12 bytes of what is trained, 2 of running statistics
    expected = 18 * 25_557_032 + 2 * 2 * 26_560
    assert programs.footprint_B["weights, gradients, optimizer"][0] == pytest.approx(expected, rel=1e-9)


# results


def test_metrics_of_samples():
    scenario = {
        "systems": [BOX],
        "workloads": {
            "train": {"kind": "training", "model": "vit-b-16", "global_batch": 1024, "micro_batch": 128},
            "infer": {"kind": "encoder", "model": "vit-b-16", "batch_per_accelerator": 128},
        },
    }
    train, infer = api.run(scenario)
    for result, samples in ((train, 1024), (infer, 1024)):
        step_s = result.metric("step_time_s")
        assert result.metric("samples_per_s") == pytest.approx(samples / step_s)
        assert result.metric("samples_per_s_per_accelerator") == pytest.approx(samples / step_s / 8)
        assert result.metric("energy_per_sample_J") > 0
        assert "tokens_per_s" not in result.metrics
    mfu = (3 * VIT - 2 * 196 * 768 * 768) * train.metric("samples_per_s_per_accelerator") / 989e12
    assert train.metric("mfu") == pytest.approx(mfu, rel=1e-3)
    assert 0 < train.metric("mfu") < train.metric("hfu") < 1


def test_the_vision_scenario_is_read():
    runs = load_scenario("vision").runs
    assert {run.spec.kind for run in runs} == {"training", "encoder"}


# what is refused


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ({"kind": "encoder", "model": "llama-3.1-8b", "batch_per_accelerator": 1}, "model: llama-3.1-8b is a decoder"),
        ({"kind": "encoder", "model": "bert-base", "batch_per_accelerator": 1}, "sequence_length: tokens of a text"),
        (
            {"kind": "decode", "model": "vit-b-16", "batch_per_accelerator": 1, "context_tokens": 8},
            "model: vit-b-16 is an encoder, which has no decode",
        ),
        ({"kind": "training", "model": "llama-3.1-8b", "global_batch": 8}, "sequence_length: the key is required"),
        (
            {"kind": "training", "model": "llama-3.1-8b", "global_batch": 8, "sequence_length": 8, "dims": {"a": 1}},
            "dims: llama-3.1-8b leaves no sizes open",
        ),
        (
            {"kind": "encoder", "model": "vit-b-16", "batch_per_accelerator": 1, "dims": {"rows": 3}},
            "dims: no open dimension 'rows'",
        ),
    ],
)
def test_what_cannot_run_says_why(workload, message):
    with pytest.raises(InputError) as caught:
        made(workload)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("workload", "message"),
    [
        ({"kind": "training", "model": "resnet50", "global_batch": 9}, "global_batch: got 9, which is not a multiple"),
        ({"kind": "training", "model": "resnet50", "global_batch": 8, "zero_stage": 3}, "zero_stage: got 3"),
        (
            {"kind": "training", "model": "resnet50", "global_batch": 8, "schedule": "gpipe", "mtp_layers": 1},
            "schedule: got 'gpipe'; a graph is not cut into stages. Allowed: 'auto'",
        ),
        (
            {"kind": "encoder", "model": "resnet50", "batch_per_accelerator": 1, "parallel": {"tp": 2}},
            "parallel.tp: got 2; a graph runs data parallel only",
        ),
    ],
)
def test_plans_that_cannot_be_say_why(workload, message):
    with pytest.raises(InfeasibleError, match=message):
        made(workload)


def test_windows_are_said():
    programs = made({"kind": "decode", "model": "gpt-oss-20b", "batch_per_accelerator": 1, "context_tokens": 8})
    assert any("window of 128 tokens" in note for note in programs.notes)
    programs = made(
        {"kind": "training", "model": "gpt-oss-20b", "global_batch": 8, "sequence_length": 512, "parallel": {"ep": 8}}
    )
    assert any("window of 128 tokens" in note for note in programs.notes)


# pre-training of texts


@pytest.mark.parametrize(
    ("model", "parameters", "sizes"),
    [
        # as BertForPreTraining of Hugging Face transformers counts, decoder bias and both heads with it
        ("bert-base", 110_106_428, (12, 768, 3072)),
        ("bert-large", 336_226_108, (24, 1024, 4096)),
    ],
)
def test_a_text_is_trained_on_its_masked_words(model, parameters, sizes):
    """15 % of 512 words are guessed over 30,522: 77 rows of a square product and of the tied table; one row of two more
    heads. Layers as the closed form s (8 h^2 + 4 h f) + 4 s^2 h; three passes of all of it."""
    layers, hidden, ffn = sizes
    programs = training(model=model, sequence_length=512, global_batch=64, micro_batch=8)
    s, masked = 512, 77
    layer = s * (8 * hidden**2 + 4 * hidden * ffn) + 4 * s**2 * hidden
    heads = 2 * masked * hidden * (hidden + 30_522) + 2 * hidden * (hidden + 2)
    assert programs.facts.model_flops_per_sample == 3 * (layers * layer + heads)
    reduced = programs.ops.bytes_B[programs.ops.kind == COLLECTIVE].sum()
    assert reduced == pytest.approx(4 * parameters)
    # inference has none of it
    alone = encoder(model=model, sequence_length=512)
    pooled = 2 * hidden**2
    assert alone.facts.model_flops_per_sample == layers * layer + pooled


@pytest.mark.parametrize(
    ("model", "parameters"), [("vit-b-16", 86_567_656), ("vit-l-16", 304_326_632), ("resnet50", 25_557_032)]
)
def test_images_train_all_their_parameters(model, parameters):
    """As Hugging Face and torchvision count them; gradients in 32 bits."""
    programs = training(model=model)
    assert programs.ops.bytes_B[programs.ops.kind == COLLECTIVE].sum() == pytest.approx(4 * parameters)
