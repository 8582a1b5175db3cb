"""Families of models: totals that were published, and what a config must say."""

from __future__ import annotations

import json

import pytest

from cmsim.errors import InputError
from cmsim.graphs.config import parse_config
from cmsim.graphs.load import load_any, load_graph
from cmsim.graphs.work import graph_info
from cmsim.workload.model import FAMILIES, load_model, parse_model


def decoder(**keys):
    return parse_model(json.dumps(keys), name="tiny", file="tiny.json")


ATTENTION = {
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "vocab_size": 32000,
}


@pytest.mark.parametrize(
    ("name", "total"),
    [
        # tensors of the published weights, counted one by one
        ("gpt-oss-20b", 20_914_757_184),
        ("gpt-oss-120b", 116_829_156_672),
        ("vit-b-16", 86_567_656),
        ("bert-base", 109_482_240),
    ],
)
def test_totals_are_those_of_the_published_weights(name, total):
    assert load_model(name).total_parameters == total


@pytest.mark.parametrize(("name", "active"), [("gpt-oss-20b", 3.61e9), ("gpt-oss-120b", 5.13e9)])
def test_active_parameters_of_gpt_oss(name, active):
    """arXiv:2508.10925, table 1: without the token table, with the head."""
    model = load_model(name)
    assert model.active_parameters - model.embedding_parameters == pytest.approx(active, rel=0.01)


def test_mixtral_8x7b():
    model = decoder(
        model_type="mixtral",
        hidden_size=4096,
        num_hidden_layers=32,
        intermediate_size=14336,
        num_local_experts=8,
        num_experts_per_tok=2,
        **ATTENTION,
    )
    assert model.total_parameters == 46_702_792_704


def test_qwen2_72b_K09():
    model = decoder(
        model_type="qwen2",
        hidden_size=8192,
        num_hidden_layers=80,
        intermediate_size=29568,
        **ATTENTION | {"num_attention_heads": 64, "vocab_size": 152064},
    )
    assert model.total_parameters == 72_706_203_648
    assert model.kv_bytes_per_token(2) == 327_680


def test_deepseek_v2_lite_without_compressed_queries():
    """Published as 15.7 B, 2.4 B of them active (arXiv:2405.04434, appendix B)."""
    model = decoder(
        model_type="deepseek_v2",
        hidden_size=2048,
        num_hidden_layers=27,
        num_attention_heads=16,
        q_lora_rank=None,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        first_k_dense_replace=1,
        intermediate_size=10944,
        n_routed_experts=64,
        n_shared_experts=2,
        num_experts_per_tok=6,
        moe_intermediate_size=1408,
        max_position_embeddings=163840,
        vocab_size=102400,
    )
    assert model.total_parameters == 15_706_484_224
    assert model.active_parameters - model.embedding_parameters == pytest.approx(2.4e9, rel=0.03)


def test_pangu_pro_moe():
    """Published as 72 B with 16 B active (arXiv:2505.21411)."""
    keys = ATTENTION | {"num_attention_heads": 40, "vocab_size": 153376}
    model = decoder(
        model_type="PanguProMoE",
        hidden_size=5120,
        num_hidden_layers=48,
        moe_intermediate_size=1344,
        shared_expert_intermediate_size=5376,
        num_experts=64,
        num_experts_per_tok=8,
        **keys,
    )
    assert model.total_parameters == pytest.approx(72e9, rel=0.005)
    assert model.active_parameters == pytest.approx(16.5e9, rel=0.01)
    assert model.shared_experts == 4


def test_a_shared_expert_is_a_whole_number_of_routed_ones():
    with pytest.raises(InputError, match="shared_expert_intermediate_size: 65 is not a multiple"):
        decoder(
            model_type="PanguProMoE",
            hidden_size=64,
            num_hidden_layers=1,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=65,
            num_experts=8,
            num_experts_per_tok=2,
            **ATTENTION,
        )


def test_a_window_bounds_what_a_token_sees():
    model = load_model("gpt-oss-20b")
    whole, half = model.layers, model.window_layers
    assert half == whole // 2
    each = 2.0 * model.heads * (model.head_dim + model.v_head_dim)
    # of 4,096 tokens each sees half on average; in a window of 128 the first 128 see fewer
    seen = sum(min(i, 128) for i in range(4096)) / 4096
    expected = each * ((whole - half) * 2048 + half * seen)
    assert model.attention_flops_per_token(4096) == pytest.approx(expected, rel=1e-3)
    assert model.attention_flops_per_token(100) == each * whole * 50
    assert "window of 128 tokens" in model.said[0]
    assert load_model("llama-3.1-8b").said == ()


def test_bias_of_the_config_is_about_the_output_too():
    sizes = {"hidden_size": 4096, "num_hidden_layers": 2, "intermediate_size": 128, **ATTENTION}
    plain, biased = decoder(model_type="llama", **sizes), decoder(model_type="llama", attention_bias=True, **sizes)
    assert biased.total_parameters - plain.total_parameters == 2 * ((32 + 16) * 128 + 4096)
    biased = decoder(model_type="llama", mlp_bias=True, **sizes)
    assert biased.total_parameters - plain.total_parameters == 2 * (2 * 128 + 4096)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_is_missing_is_named_with_the_family(family):
    with pytest.raises(InputError) as caught:
        decoder(model_type=family)
    said = str(caught.value)
    assert "is required for model_type" in said
    assert f"'{family}'" in said


# encoders and nets as graphs


@pytest.mark.parametrize(
    ("name", "sizes", "trained", "macs"),
    [
        # torchvision prints 25,557,032 parameters and 4.09 G multiply-adds; 86,567,656 and 17.56 G
        ("resnet50", {}, 25_557_032, 4_089_184_256),
        ("vit-b-16", {}, 86_567_656, 17_563_828_224),
        # 12 layers of 12 h^2 + 2 s h a token, and the pooler
        ("bert-base", {"sequence": 384}, 109_482_240, 384 * 12 * (12 * 768**2 + 2 * 384 * 768) + 768**2),
    ],
)
def test_graphs_count_what_is_published(name, sizes, trained, macs):
    found = graph_info(load_graph(name, sizes=sizes))
    assert found["trainable_parameters"] == trained
    assert found["matrix_macs"] == macs
    assert not found["unknown_ops"]
    assert not found["nodes_without_shape"]


def test_first_convolution_k21():
    graph = load_graph("resnet50")
    found = graph_info(graph)
    assert found["inputs"] == [["pixels", [1, 3, 224, 224]]]
    from cmsim.graphs.work import graph_work

    assert graph_work(graph).flops[graph.names.index("stem")] == 236_027_904


RESNET = {
    "model_type": "resnet",
    "depths": [2, 2, 2, 2],
    "hidden_sizes": [64, 128, 256, 512],
    "embedding_size": 64,
    "layer_type": "basic",
    "num_labels": 1000,
    "image_size": 224,
}


def net(**changes):
    data = {key: value for key, value in (RESNET | changes).items() if value is not ...}
    return parse_config(json.dumps(data), name="net", file="net.json")


def test_basic_blocks():
    """ResNet-18: 11,689,512 parameters, 1.81 G multiply-adds (torchvision)."""
    found = graph_info(net())
    assert found["trainable_parameters"] == 11_689_512
    assert found["matrix_macs"] == pytest.approx(1.814e9, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": ...}, "the key 'depths' is required for model_type 'resnet'"),
        ({"depths": [2, 0]}, "depths: expected a list of whole numbers of at least 1, got [2, 0]"),
        ({"image_size": ...}, "the key 'image_size' is required for model_type 'resnet', in the config, or as dims"),
        ({"image_size": "big"}, "image_size: expected a whole number of at least 1, got 'big'"),
        ({"layer_type": "wide"}, "layer_type: got 'wide'. Allowed: basic, bottleneck."),
        ({"depths": [1]}, "depths: 1 depths for 4 hidden_sizes"),
        ({"downsample_in_bottleneck": True}, "only False is modelled"),
        ({"model_type": "convnext"}, "got 'convnext', a family cmsim does not read"),
    ],
)
def test_a_net_that_cannot_be_says_why(changes, message):
    with pytest.raises(InputError) as caught:
        net(**changes)
    assert message in str(caught.value)


def test_an_unsupported_family_lists_graphs_too():
    with pytest.raises(InputError) as caught:
        net(model_type="mamba")
    assert all(family in str(caught.value) for family in (*FAMILIES, "resnet"))


def test_sizes_that_a_config_leaves_open():
    assert graph_info(load_graph("bert-base", sizes={"sequence": 16}))["inputs"] == [["tokens", [1, 16]]]
    with pytest.raises(InputError, match="sequence_length: tokens of a text are needed"):
        load_graph("bert-base")
    with pytest.raises(InputError, match="sequence_length: got 513; bert-base has 512 positions"):
        load_graph("bert-base", sizes={"sequence": 513})
    with pytest.raises(InputError, match=r"no open dimension 'sequence'\. Open: none"):
        load_graph("vit-b-16", sizes={"sequence": 7})


def test_a_decoder_is_no_graph():
    assert load_any("llama-3.1-8b").name == "llama-3.1-8b"
    with pytest.raises(InputError, match=r"is a decoder \(llama\)"):
        load_graph("llama-3.1-8b")
    with pytest.raises(InputError, match=r"no model named 'resnet51'\. Did you mean 'resnet50'"):
        load_graph("resnet51")
    with pytest.raises(InputError, match=r"no such model file: absent\.onnx"):
        load_graph("absent.onnx")


def test_a_file_that_is_no_model(tmp_path):
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\x00\x01\x02")
    with pytest.raises(InputError, match="is no model that cmsim reads"):
        load_any(path)
