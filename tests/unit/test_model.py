"""Models as numbers: totals against what their publishers say, and errors that name the key."""

from __future__ import annotations

import json

import pytest

from cmsim.errors import InputError
from cmsim.reading import builtin_files
from cmsim.workload.model import FAMILIES, MODELS, load_model, parse_model

BUILT_IN = builtin_files(MODELS, "*.json")


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        # totals of safetensors files as the model cards show them; active as cards round it (counts the tables)
        pytest.param("llama-3.1-8b", 8_030_261_248, 8_030_261_248, id="llama-8b"),
        pytest.param("llama-3.1-70b", 70_553_706_496, 70_553_706_496, id="llama-70b"),
        pytest.param("llama-3.1-405b", 405_853_388_800, 405_853_388_800, id="llama-405b"),
        pytest.param("qwen3-32b", 32_762_123_264, 32_762_123_264, id="qwen3-32b"),
        pytest.param("qwen3-235b-a22b", 235_093_634_560, 22.2e9, id="qwen3-235b"),
        pytest.param("deepseek-r1", 671.03e9, 37.55e9, id="deepseek"),
        pytest.param("gpt3-175b", 174.6e9, 174.6e9, id="gpt3"),
        pytest.param("pangu-ultra-moe", 718e9, None, id="pangu"),
    ],
)
def test_parameter_totals_agree_with_the_published(name, total, active):
    model = load_model(name)
    assert model.total_parameters == pytest.approx(total, rel=0 if isinstance(total, int) else 0.005)
    if active is not None:
        assert model.active_parameters == pytest.approx(active, rel=0 if isinstance(active, int) else 0.005)


def test_pangu_active_parameters():
    # published as 39 B; without the token table ours are 39.2 B
    model = load_model("pangu-ultra-moe")
    assert model.active_parameters - model.embedding_parameters == pytest.approx(39e9, rel=0.01)


def test_latent_moe_counts_K15_K16_K17():
    model = load_model("deepseek-r1")
    assert model.total_parameters - model.small_parameters == pytest.approx(671_025_397_760, rel=1e-6)
    assert model.active_parameters - model.small_parameters == pytest.approx(37_551_276_032, rel=1e-6)
    assert model.attention_parameters == 187_105_280


def test_training_flops_K18_K19():
    model = load_model("deepseek-r1")
    causal = model.training_flops_per_token(4096)
    assert causal == pytest.approx(250.449887e9, rel=1e-6)
    assert model.training_flops_per_token(4096, causal=False) / causal == pytest.approx(1.12258862, rel=0.005)
    assert model.forward_flops_per_token(4096) * 3 == causal


def test_utilisation_from_throughput_K20():
    per_token = load_model("deepseek-r1").training_flops_per_token(4096)
    utilisation = 272.8e9 / 86400 * per_token / (2048 * 989e12)
    assert 100 * utilisation == pytest.approx(39.0413854, rel=0.01)


def test_full_square_flops_of_a_dense_model():
    # T02: 72 B s l h^2 (1 + s/6h + V/12lh), batch 1536, vocabulary padded to 51200 as in the paper
    config = json.loads(BUILT_IN["gpt3-175b"].read_text()) | {"vocab_size": 51200}
    model = parse_model(json.dumps(config), name="padded", file="padded.json")
    flops = model.training_flops_per_token(2048, causal=False) * 1536 * 2048
    assert flops == pytest.approx(3.386e18, rel=2e-4)


@pytest.mark.parametrize(
    ("name", "expected"),
    [pytest.param("deepseek-r1", 70272, id="K08"), pytest.param("llama-3.1-405b", 516096, id="K10")],
)
def test_kv_bytes_per_token(name, expected):
    assert load_model(name).kv_bytes_per_token(2) == expected


def test_multi_token_prediction_layer():
    # published: 671 B of the main model, 685 B with this layer, of which 1.8 B are the shared table and head
    model = load_model("deepseek-r1")
    shared = model.embedding_parameters + model.head_parameters
    assert model.total_parameters + model.mtp_parameters + shared == pytest.approx(685e9, rel=0.002)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_models_say_where_they_come_from(name):
    data = json.loads(BUILT_IN[name].read_text())
    assert data["_cmsim"]["source"]
    model = load_model(name)
    assert model.name == name
    assert model.heads % model.kv_heads == 0
    assert sum(model.parameters.values()) == model.total_parameters >= model.active_parameters
    assert model.is_moe == (model.moe_layers > 0)


def test_paths_and_folders(tmp_path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(BUILT_IN["qwen3-32b"].read_text())
    for found in (
        load_model(folder / "config.json"),
        load_model(str(folder)),
        load_model("my-model/config.json", base=tmp_path),
    ):
        assert found.name == "my-model"
        assert found.total_parameters == load_model("qwen3-32b").total_parameters


LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "n_routed_experts": 8,
}


def _parse(**changes):
    data = {key: value for key, value in (LLAMA | changes).items() if value is not ...}
    return parse_model(json.dumps(data, indent=2), name="tiny", file="tiny.json")


def test_tied_embeddings_are_counted_once_and_multiplied_with():
    apart, tied = _parse(), _parse(tie_word_embeddings=True)
    assert apart.total_parameters - tied.total_parameters == 100 * 64
    assert apart.matmul_parameters == tied.matmul_parameters


def test_bias_of_the_family():
    assert _parse(model_type="qwen2").total_parameters - _parse().total_parameters == 2 * 3 * 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": ...}, "tiny.json: the key 'hidden_size' is required for model_type 'llama'"),
        ({"hidden_size": "4096"}, "tiny.json:3: hidden_size: expected a whole number of at least 1, got '4096'"),
        ({"num_hidden_layers": 0}, "tiny.json:4: num_hidden_layers: expected a whole number of at least 1, got 0"),
        ({"num_attention_heads": True}, "tiny.json:5: num_attention_heads: expected a whole number"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: 3 does not divide the 4 attention heads"),
        ({"num_attention_heads": 7}, "7 heads do not divide hidden_size 64"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings: expected true or false, got 'no'"),
        ({"model_type": ...}, "the key 'model_type' is required."),
        (
            {"model_type": "lama"},
            "tiny.json:2: model_type: got 'lama', a family cmsim does not read. Did you mean 'llama'?",
        ),
        (
            {"model_type": "qwen3_moe", "num_experts": 4, **EXPERTS, "decoder_sparse_step": 3},
            "none of the 2 layers has",
        ),
        ({"model_type": "qwen3_moe", "num_experts": 4, **EXPERTS, "mlp_only_layers": [2]}, "a list of layers below 2"),
        ({"model_type": "qwen3_moe", "num_experts": 1, **EXPERTS}, "2 is more than the 1 experts"),
        ({"model_type": "deepseek_v3", **LATENT, **EXPERTS, "n_group": 3}, "n_group: 3 groups do not divide 8 experts"),
        (
            {"model_type": "deepseek_v3", **LATENT, **EXPERTS, "topk_group": 2},
            "topk_group: 2 is more than the 1 groups",
        ),
        (
            {"model_type": "deepseek_v3", **LATENT, **EXPERTS, "first_k_dense_replace": 3},
            "3 dense layers are more than",
        ),
        (
            {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 5, "n_positions": 8},
            "5 heads do not divide n_embd",
        ),
    ],
)
def test_errors_name_file_line_key(changes, message):
    with pytest.raises(InputError) as caught:
        _parse(**changes)
    assert message in str(caught.value)


def test_an_unsupported_family_lists_the_supported():
    with pytest.raises(InputError) as caught:
        _parse(model_type="mamba")
    assert all(family in str(caught.value) for family in FAMILIES)


def test_all_problems_come_at_once():
    with pytest.raises(InputError) as caught:
        _parse(hidden_size=..., vocab_size=-1, intermediate_size="wide")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{\n  "model_type": "llama",\n  "hidden_size" 64\n}',
            "broken.json:3: not valid JSON: expecting ':' delimiter",
        ),
        ("[1, 2]", "broken.json:1: expected an object of keys and values, got list"),
        ("", "broken.json:1: not valid JSON"),
    ],
)
def test_malformed_json(text, message):
    with pytest.raises(InputError) as caught:
        parse_model(text, name="broken", file="broken.json")
    assert str(caught.value).startswith(message)


def test_unknown_names_and_files(tmp_path):
    with pytest.raises(InputError, match=r"no model named 'llama-3\.1-7b'\. Did you mean 'llama-3\.1-"):
        load_model("llama-3.1-7b")
    with pytest.raises(InputError, match="no such model file"):
        load_model("absent/config.json", base=tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        load_model(str(tmp_path))
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        load_model("bytes.json", base=tmp_path)
