"""Files of models, family by family: published totals, small ones that run, and what becomes of each key."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cmsim.errors import InputError
from cmsim.hardware import load_system
from cmsim.kinds.decode import DecodeSpec
from cmsim.kinds.prefill import PrefillSpec
from cmsim.kinds.training import TrainingSpec
from cmsim.reading import builtin_files
from cmsim.workload.families import SETTINGS
from cmsim.workload.generate import programs
from cmsim.workload.model import FAMILIES, MODELS, load_model, parse_model
from cmsim.workload.ops import COMPUTE

CASES = Path(__file__).parents[1] / "cases" / "models"
PUBLISHED = sorted((CASES / "published").glob("*.json"))
SMALL = {path.stem: path for path in sorted((CASES / "small").glob("*.json"))}
DECODERS = [name for name in SMALL if not load_model(SMALL[name]).encoder]
#: published totals to be met, beside the built-in models: words of each family's ``model_type``
ASKED = [
    "mistral",
    "mixtral",
    "qwen2_moe",
    "qwen3_next",
    "deepseek_v2",
    "deepseek_v32",
    "kimi_k2",
    "glm4",
    "glm4_moe",
    "minimax_m1",
    "minimax_m2",
    "llama4_text",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "phi3",
    "nemotron_h",
    "hunyuan_v1_dense",
    "hunyuan_v1_moe",
    "ernie4_5",
    "ernie4_5_moe",
]


def small(family, **changes):
    """A family's small model with some keys changed; ``...`` takes one out."""
    data = json.loads(SMALL[family].read_text()) | changes
    data = {key: value for key, value in data.items() if value is not ...}
    return parse_model(json.dumps(data, indent=1), name=family, file=f"{family}.json")


def written(tmp_path, family, **changes):
    path = tmp_path / f"{family}.json"
    path.write_text(json.dumps(json.loads(SMALL[family].read_text()) | changes))
    return str(path)


@pytest.fixture(scope="module")
def system():
    return load_system("hgx_h100")


# counts


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_totals_are_the_published_ones_to_a_hundredth(path):
    said = json.loads(path.read_text())["_cmsim"]
    assert said["source"]
    assert said["published"]
    assert load_model(path).total_parameters == pytest.approx(said["parameters"], rel=0.01)


def test_every_family_that_was_asked_for_has_a_published_total():
    assert set(ASKED) <= {json.loads(path.read_text())["model_type"] for path in PUBLISHED}


@pytest.mark.parametrize(
    ("name", "active", "rel"),
    [
        # model cards and reports as in the files, some without the token table
        pytest.param("kimi-k2", 32.6e9, 0.01, id="kimi"),
        pytest.param("glm-4.5", 32e9 + 2 * 0.776e9, 0.01, id="glm"),
        pytest.param("nemotron-3-nano-30b", 3.2e9 + 0.352e9, 0.01, id="nemotron"),
        pytest.param("hunyuan-a13b", 13e9, 0.03, id="hunyuan"),
        pytest.param("llama4-maverick", 17e9, 0.02, id="llama4"),
        pytest.param("mixtral-8x22b", 39e9, 0.01, id="mixtral"),
    ],
)
def test_active_parameters(name, active, rel):
    assert load_model(CASES / "published" / f"{name}.json").active_parameters == pytest.approx(active, rel=rel)


def test_every_family_has_a_small_model():
    assert {json.loads(path.read_text())["model_type"] for path in SMALL.values()} == set(FAMILIES)


@pytest.mark.parametrize("family", SMALL)
def test_every_family_reads_its_small_model(family):
    model = load_model(SMALL[family])
    assert 0 < model.active_parameters <= model.total_parameters == sum(model.parameters.values())
    assert model.matmul_parameters > 0
    assert model.is_moe == (model.moe_layers > 0)
    halves = [model.kind(layer) for layer in range(model.layers)]
    assert sum(mixer == "attention" for mixer, _ in halves) == model.attention_layers
    assert sum(mixer == "recurrence" for mixer, _ in halves) == model.recurrent_layers
    assert sum(ffn == "dense" for _, ffn in halves) == model.dense_layers
    assert sum(ffn == "experts" for _, ffn in halves) == model.moe_layers


# runs


def runs(model, parallel):
    yield PrefillSpec(kind="prefill", model=model, batch_per_accelerator=1, prompt_tokens=512, parallel=parallel)
    yield DecodeSpec(kind="decode", model=model, batch_per_accelerator=2, context_tokens=512, parallel=parallel)
    yield TrainingSpec(
        kind="training",
        model=model,
        global_batch=8,
        micro_batch=1,
        sequence_length=512,
        parallel=parallel | {"pp": 2},
    )


@pytest.mark.parametrize("family", DECODERS)
def test_every_decoder_is_priced_and_no_plan_is_below_the_least(family, system):
    path = str(SMALL[family])
    model = load_model(path)
    for spec in runs(path, {"tp": 2, **({"ep": 4} if model.experts else {})}):
        made = programs(spec, system)
        of_matrix = made.ops.flops * (made.ops.precision >= 0)
        ptr, each = made.program_ptr, np.bincount(made.program)
        done = sum(times * of_matrix[a:b].sum() for times, a, b in zip(each, ptr[:-1], ptr[1:], strict=True))
        assert 0 < sum(made.least.flops.values()) <= done * (1 + 1e-9), spec.kind
        moved = made.ops.bytes_B * (made.ops.kind == COMPUTE)
        moved_B = sum(times * moved[a:b].sum() for times, a, b in zip(each, ptr[:-1], ptr[1:], strict=True))
        assert 0 < made.least.bytes_B <= moved_B * (1 + 1e-9), spec.kind
        assert all((held >= 0).all() for held in made.footprint_B.values())
        assert (np.sum(list(made.footprint_B.values()), axis=0) > 0).all()
        assert set(model.said) <= set(made.notes)


def ops_named(made, name):
    return int((np.array(made.ops.names)[made.ops.name_id] == name).sum())


def test_layers_of_several_kinds_run_as_their_pattern_says(system):
    # M - M E * E: two state spaces, one attention, one plain FFN, two with experts
    spec = next(runs(str(SMALL["nemotron_h"]), {"ep": 4}))
    made = programs(spec, system)
    assert ops_named(made, "recurrence") == ops_named(made, "convolution") == 2
    assert ops_named(made, "attention") == 1
    assert ops_named(made, "ffn up") == 1
    assert ops_named(made, "expert up") == 2
    # every other layer has experts
    made = programs(next(runs(str(SMALL["llama4"]), {"ep": 4})), system)
    assert ops_named(made, "ffn up") == ops_named(made, "expert up") == 2


def test_a_recurrence_has_kernels_of_its_own_in_training(system):
    for spec in runs(str(SMALL["nemotron_h"]), {}):
        made = programs(spec, system)
        names = np.array(made.ops.names)[made.ops.name_id]
        kinds = {made.ops.kernels[at] for at in made.ops.kernel[names == "recurrence"]}
        assert kinds == ({"recurrence"} if spec.kind == "training" else {"generic"})
        if spec.kind == "training":
            forward, back = (made.ops.bytes_B[names == f"recurrence{end}"] for end in ("", " backward"))
            assert back.tolist() == (3 * forward[: len(back)]).tolist()


def test_experts_without_a_gate_have_one_product_up(tmp_path, system):
    model = load_model(SMALL["nemotron_h"])
    assert not model.gated
    made = programs(next(runs(str(SMALL["nemotron_h"]), {})), system)
    rows = np.array(made.ops.names)[made.ops.name_id]
    up, down = (made.ops.flops[rows == name] for name in ("expert up", "expert down"))
    assert up == pytest.approx(down)


def test_a_state_does_not_grow_with_the_text(system):
    path = str(SMALL["qwen3_next"])
    model = load_model(path)
    assert (model.attention_layers, model.recurrent_layers) == (1, 3)

    def cache_B(context):
        spec = DecodeSpec(kind="decode", model=path, batch_per_accelerator=1, context_tokens=context)
        return float(programs(spec, system).footprint_B["cache"][0])

    # one layer of keys and values in 16 bits, and three states of 8 heads x 32 x 32 in 32 bits
    assert cache_B(2048) - cache_B(1024) == 1024 * 4 * (32 + 32) * 2
    states = 3 * (8 * 32 * 32 * 4 + 3 * (2 * 4 * 32 + 8 * 32) * 2)
    assert cache_B(1023) - 1024 * 4 * (32 + 32) * 2 == states == model.state_B_on(1)


def test_flops_of_a_state_do_not_grow_with_the_text():
    model = load_model(SMALL["minimax_m1"])
    short, long = (model.attention_flops_per_token(tokens) for tokens in (1024, 2048))
    # one of four layers is attention; the others multiply with states of 8 heads x 32 x 32 twice
    assert long - short == 512 * 2 * 8 * (32 + 32)
    assert 2 * short - long == 3 * 2 * 2 * 8 * 32 * 32


def test_an_indexer_bounds_what_a_token_sees(system):
    path = str(SMALL["deepseek_v32"])
    model = load_model(path)

    def core(context):
        made = programs(DecodeSpec(kind="decode", model=path, batch_per_accelerator=1, context_tokens=context), system)
        rows = np.array(made.ops.names)[made.ops.name_id]
        return made.ops.flops[rows == "attention"][0], made.ops.flops[rows == "index scores"][0]

    (seen, scored), (later, more) = core(512), core(1024)
    assert seen == later == 2 * 256 * 8 * (2 * 64 + 16)
    assert more == 2 * scored == 2 * 1024 * 4 * 32
    plain = load_model(SMALL["kimi_k2"])
    assert model.attention_parameters - plain.attention_parameters == 4 * (64 * 32 + 256) + 256 * 32
    # one key of one byte a layer, beside the latents
    assert model.kv_bytes_per_token(2) - plain.kv_bytes_per_token(2) == 4 * 32
    assert "chooses the 256 tokens" in model.said[0]


def test_the_least_of_a_step_follows_states_and_indexers(system):
    def least(family, context):
        path = str(SMALL[family])
        return programs(
            DecodeSpec(kind="decode", model=path, batch_per_accelerator=1, context_tokens=context), system
        ).least

    # beyond what is chosen only scores grow: 8 sequences, 4 layers, 512 tokens more, 4 heads of 32
    short, long = least("deepseek_v32", 512), least("deepseek_v32", 1024)
    assert sum(long.flops.values()) - sum(short.flops.values()) == 8 * 4 * 512 * 2 * 4 * 32
    # one layer of four has a cache; states are read and written however long the text is
    short, long = least("qwen3_next", 512), least("qwen3_next", 1024)
    assert long.bytes_B - short.bytes_B == 8 * 512 * 4 * (32 + 32) * 2
    model = load_model(SMALL["qwen3_next"])
    weights = 2 * (model.total_parameters - model.small_parameters - model.embedding_parameters)
    rows, cache = 8 * 256 * 2, 8 * 512 * 4 * (32 + 32) * 2
    missed = 4 * 8 * (1 - 2 / 8) ** 8 * model.expert_parameters * 2
    expected = weights - missed + rows + cache + 2 * 8 * model.state_B_on(1)
    assert short.bytes_B == pytest.approx(expected)


def test_gated_queries_have_twice_the_columns():
    gated, plain = load_model(SMALL["qwen3_next"]), load_model(SMALL["qwen3_vl_moe_text"])
    assert gated.attention_parameters - plain.attention_parameters == 256 * 8 * 32


def test_a_shared_expert_of_its_own_width():
    model = load_model(SMALL["qwen2_moe"])
    assert model.parameters["shared_experts"] == 4 * 3 * 256 * 160
    assert (model.shared_experts, model.shared_width) == (2, 160)


# windows


@pytest.mark.parametrize(
    ("family", "changes", "layers", "window"),
    [
        ("mistral", {}, 4, 1024),
        ("mistral", {"sliding_window": None}, 0, 0),
        ("qwen2", {}, 0, 0),
        ("qwen2", {"use_sliding_window": True}, 2, 4096),
        ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 512, "max_window_layers": 1}, 3, 512),
        ("gemma2", {}, 2, 1024),
        ("gemma3_text", {}, 2, 512),
        ("gemma3_text", {"sliding_window_pattern": 4}, 3, 512),
        ("gemma3_text", {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]}, 3, 512),
        ("llama4_text", {}, 3, 1024),
        ("llama4_text", {"no_rope_layers": [1, 0, 1, 0]}, 2, 1024),
        ("llama4_text", {"attention_chunk_size": None}, 0, 0),
    ],
)
def test_windows_are_counted_and_said(family, changes, layers, window):
    model = small(family, **changes)
    assert (model.window_layers, model.window) == (layers, window)
    assert bool(layers) == any(f"{layers} of 4 layers see" in note for note in model.said)


def test_a_chunk_is_seen_from_its_first_token_on():
    model = small("llama4_text", attention_chunk_size=16)
    each = 2.0 * model.heads * (model.head_dim + model.v_head_dim)
    assert model.attention_flops_per_token(64) == each * (32 + 3 * 8)


# what becomes of keys


def test_built_in_models_leave_nothing_out():
    """But for towers that see, which only training with images works through."""
    models = {name: load_model(name) for name in builtin_files(MODELS, "*.json")}
    left = {
        name: [note for note in one.notes if one.tower is None or "vision" not in note] for name, one in models.items()
    }
    assert not any(left.values())


@pytest.mark.parametrize("family", SMALL)
def test_a_key_that_is_not_known_is_never_passed_over(family):
    data = json.loads(SMALL[family].read_text())
    inner = data.get("text_config", data)
    inner["num_widgets"] = 3
    model = parse_model(json.dumps(data), name="new", file="new.json")
    assert any("does not know, left out: num_widgets" in note for note in model.notes)


@pytest.mark.parametrize("key", [key for key, setting in SETTINGS.items() if setting.becomes == "refused"])
def test_what_cannot_be_modelled_is_refused_with_the_reason(key):
    with pytest.raises(InputError) as caught:
        small("llama", **{key: 2})
    assert f"llama.json:11: {key}: got 2: {SETTINGS[key].why}" in str(caught.value)
    assert small("llama", **{key: None}).notes == ()


@pytest.mark.parametrize("key", [key for key, setting in SETTINGS.items() if setting.becomes == "noted"])
def test_what_is_left_out_is_noted(key):
    assert small("llama", **{key: {"size": 1}}).notes[0].startswith(("left out: ", "the text tower alone"))


def test_a_published_file_with_all_of_its_keys_has_no_notes():
    """A dense model's file as it stands on Hugging Face (tencent/Hunyuan-7B-Instruct), and one with a state."""
    whole = {
        "add_classification_head": False,
        "architectures": ["X"],
        "attention_dropout": 0.1,
        "attention_head_dim": 32,
        "bos_token_id": 1,
        "class_num": 0,
        "dense_list": [4096, 0],
        "hidden_act": "silu",
        "im_end_id": 5,
        "mlp_bias": False,
        "norm_type": "rms",
        "org_vocab_size": 512,
        "pool_type": "last",
        "pretraining_tp": 1,
        "rope_scaling": {"alpha": 1000.0, "type": "dynamic"},
        "use_rotary_pos_emb": True,
    }
    assert small("hunyuan_v1_dense", **whole).notes == ()
    whole = {
        "attention_head_dim": 32,
        "expand": 2,
        "mamba_hidden_act": "silu",
        "mamba_proj_bias": False,
        "num_logits_to_keep": 1,
        "num_query_groups": 4,
        "residual_in_fp32": False,
        "time_step_limit": [0.0, 1.0],
        "time_step_rank": 256,
        "use_bias": False,
        "use_mamba_kernels": True,
    }
    assert small("nemotron_h", **whole).notes == ()


def test_keys_of_no_matter_are_silent():
    plain = [key for key, setting in SETTINGS.items() if setting.becomes == "plain" and key != "model_type"]
    assert small("llama", **dict.fromkeys(plain, 7)).notes == ()


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llama", {"is_causal": False}, "is_causal: got False; only True is modelled"),
        ("hunyuan_v1_dense", {"use_cla": True}, "use_cla: got True: layers that share keys and values"),
        ("hunyuan_v1_moe", {"moe_topk": [2, 1, 2, 2]}, "moe_topk: layers of different sizes are not modelled"),
        ("nemotron_h", {"hybrid_override_pattern": "M-X"}, "hybrid_override_pattern: got 'X'. Allowed: M, *, -, E"),
        ("nemotron_h", {"hybrid_override_pattern": "M*"}, "hybrid_override_pattern: 2 blocks for 6 layers"),
        ("nemotron_h", {"hybrid_override_pattern": 3}, "hybrid_override_pattern: got 3. Allowed"),
        ("nemotron_h", {"moe_latent_size": 64}, "experts that work in a space of their own"),
        ("minimax_m1", {"attn_type_list": [0, 1]}, "attn_type_list: expected 0 or 1 for each of 4 layers"),
        ("minimax_m1", {"attn_type_list": ...}, "attn_type_list' is required"),
        ("minimax_m2", {"attn_type_list": [0, 1, 1, 1]}, "every layer of this family has full attention"),
        ("gemma3_text", {"layer_types": ["odd"] * 4}, "layer_types: got 'odd'. Allowed: full_attention"),
        ("gemma3_text", {"layer_types": ["full_attention"]}, "layer_types: expected a list of 4 words"),
        ("qwen3_next", {"linear_num_key_heads": 3}, "3 does not divide the 8 value heads"),
        ("qwen2_moe", {"mlp_only_layers": [0, 1, 2, 3]}, "none of the 4 layers has experts"),
        ("ernie4_5_moe", {"use_bias": True}, "use_bias: got True; only False is modelled"),
    ],
)
def test_errors_name_the_key_and_the_reason(family, changes, message):
    with pytest.raises(InputError) as caught:
        small(family, **changes)
    assert message in str(caught.value)


WRONG = [None, "x", -1, 0, 10**30, 1.5, True, [], [1], ["x", {}], {}, {"a": 1}, [[[0]]]]


@pytest.mark.parametrize("family", SMALL)
def test_wrong_values_are_said_and_nothing_else_happens(family):
    """Whatever stands at a key, the file is read or refused with its name."""
    data = json.loads(SMALL[family].read_text())
    for key in {**data, "quantization_config": 0, "text_config": 0, "layer_types": 0, "moe_layers": 0}:
        for wrong in WRONG:
            try:
                parse_model(json.dumps(data | {key: wrong}), name="wrong", file="wrong.json")
            except InputError as error:
                assert "wrong.json" in str(error)


def test_a_model_deeper_than_any_is_refused_at_once():
    with pytest.raises(InputError, match="num_hidden_layers: expected a whole number of at most 10,000"):
        small("deepseek_v3", num_hidden_layers=10**9)


# several towers


def test_the_text_tower_is_read_and_the_others_are_named():
    data = json.loads((CASES / "published" / "gemma3-4b.json").read_text())
    model = parse_model(json.dumps(data), name="towers", file="towers.json")
    # 27 layers of 4 x 1152^2 and 2 x 1152 x 4304
    assert model.notes[0] == (
        "the text tower alone is counted and priced; left out: the vision tower, about 0.41 G parameters"
    )
    assert "taken from the format's defaults: num_attention_heads 8, num_key_value_heads 4" in model.notes[1]
    alone = parse_model(json.dumps(data["text_config"]), name="alone", file="alone.json")
    assert alone.parameters == model.parameters
    assert alone.notes == model.notes[1:]


def test_the_whole_says_what_the_text_tower_does_not():
    text = {key: value for key, value in json.loads(SMALL["qwen3"].read_text()).items() if key != "model_type"}
    whole = {"model_type": "qwen3", "tie_word_embeddings": True, "text_config": text}
    model = parse_model(json.dumps(whole), name="whole", file="whole.json")
    assert model.tied_embeddings
    thinking = {
        "model_type": "thinker",
        "thinker_config": {"text_config": whole["text_config"] | {"model_type": "qwen3"}},
    }
    assert parse_model(json.dumps(thinking), name="deep", file="deep.json").layers == 4


# formats of stored weights

FP8 = {"quant_method": "fp8", "fmt": "e4m3"}


@pytest.mark.parametrize(
    ("config", "formats"),
    [
        ({"quant_method": "fp8", "fmt": "e4m3"}, ("fp8", "fp8")),
        ({"quant_method": "gptq", "bits": 4}, ("fp4", "bf16")),
        ({"quant_method": "awq", "bits": 8}, ("int8", "bf16")),
        ({"quant_method": "mxfp4"}, ("fp4", "bf16")),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, ("int8", "bf16")),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, ("fp4", "fp4")),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 4, "type": "int"}}}},
            ("fp4", "bf16"),
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "a": {
                        "weights": {"num_bits": 8, "type": "float"},
                        "input_activations": {"num_bits": 8, "type": "float"},
                    }
                },
            },
            ("fp8", "fp8"),
        ),
    ],
    ids=lambda one: "-".join(map(str, one)) if isinstance(one, tuple) else "",
)
def test_formats_of_stored_weights(config, formats):
    stored = small("llama", quantization_config=config).stored
    assert (stored.weights, stored.activations) == formats


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "new"},
        {"quant_method": "gptq", "bits": 3},
        {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"},
        {"quant_method": "compressed-tensors", "config_groups": {}},
        {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": 4}, "b": 3}},
    ],
)
def test_a_format_that_is_not_known_is_noted(config):
    model = small("llama", quantization_config=config)
    assert model.stored is None
    assert "weights are taken to be in 16 bits" in model.notes[0]


def test_a_format_that_is_no_mapping_is_refused():
    with pytest.raises(InputError, match="quantization_config: expected keys and values, got 'fp8'"):
        small("llama", quantization_config="fp8")


def test_a_cache_in_its_own_format_and_layers_left_as_they_were(tmp_path, system):
    config = FP8 | {"kv_cache_scheme": {"num_bits": 8, "type": "float"}, "modules_to_not_convert": ["lm_head"]}
    stored = small("llama", quantization_config=config).stored
    assert (stored.kv_cache, stored.partly) == ("fp8", False)
    config["modules_to_not_convert"] = ["model.layers.0.self_attn", "lm_head"]
    made = programs(next(runs(written(tmp_path, "llama", quantization_config=config), {})), system)
    plain = programs(next(runs(str(SMALL["llama"]), {})), system)
    assert made.footprint_B["cache"][0] * 2 == plain.footprint_B["cache"][0]
    assert any("kv_cache fp8" in note and "priced as the others" in note for note in made.notes)


@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_stored_formats_are_those_of_a_run_that_writes_none(kind, tmp_path, system):
    model = written(tmp_path, "llama", quantization_config=FP8)
    spec = next(one for one in runs(model, {"tp": 2}) if one.kind == kind)
    made = programs(spec, system)
    assert "fp8" in made.ops.precisions
    assert any("weights fp8, activations fp8, as the model's quantization_config" in note for note in made.notes)
    # what the scenario writes wins, key by key
    said = spec.model_validate(spec.model_dump(exclude_unset=True) | {"precision": {"weights": "bf16"}})
    plain = programs(said, system)
    assert "fp8" not in plain.ops.precisions
    assert not any("quantization_config" in note for note in plain.notes)
    assert plain.footprint_B["weights"][0] > made.footprint_B["weights"][0]
    partly = spec.model_validate(spec.model_dump(exclude_unset=True) | {"precision": {"activations": "bf16"}})
    half = programs(partly, system)
    assert half.footprint_B["weights"][0] == made.footprint_B["weights"][0]
    assert "fp8" not in half.ops.precisions


def test_silicon_without_the_format_multiplies_in_another(tmp_path):
    model = written(tmp_path, "llama", quantization_config=FP8)
    made = programs(next(runs(model, {"tp": 2})), load_system("hgx_a100"))
    assert "fp8" not in made.ops.precisions
    assert any("a100_sxm has no fp8, and multiplies in bf16" in note for note in made.notes)


def test_training_says_that_stored_formats_are_not_its_own(tmp_path, system):
    model = written(tmp_path, "llama", quantization_config=FP8)
    *_, spec = runs(model, {"tp": 2})
    made = programs(spec, system)
    assert "fp8" not in made.ops.precisions
    assert any("training is priced without it" in note for note in made.notes)


def test_a_model_of_fp8_fits_eight_of_141_gb():
    system = load_system("hgx_h200")
    spec = DecodeSpec(
        kind="decode",
        model="deepseek-r1",
        batch_per_accelerator=1,
        context_tokens=2048,
        parallel={"ep": 8, "attention": "dp"},
    )
    held = sum(float(part[0]) for part in programs(spec, system).footprint_B.values())
    assert 90e9 < held < 141e9
