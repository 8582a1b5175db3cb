"""What becomes of the keys of a config that its family does not read: one list for all of them.

A key is of no matter to sizes and work (``plain``), is left out with a note (``noted``), or is refused with the reason
(``refused``). One that stands nowhere is named in a note: it may change what the model is. Keys whose value says no
(null, false, 0, nothing) are passed over.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from cmsim.workload.families.keys import Keys


class Setting(NamedTuple):
    """What becomes of a key, and what to say of it."""

    becomes: Literal["plain", "noted", "refused"]
    why: str = ""


#: of no matter to sizes and work: names, tokens, training, positions, scales, what routing multiplies with
_PLAIN = """
_name_or_path _attn_implementation _attn_implementation_autoset _commit_hash _flash_attn_2_enabled architectures
auto_map model_type torch_dtype dtype transformers_version tokenizer_class processor_class language license
name_or_path revision model_name model_version paddlenlp_version use_cache is_decoder is_encoder_decoder return_dict
output_attentions output_hidden_states chunk_size_feed_forward problem_type finetuning_task task_specific_params
id2label label2id num_labels classifier_dropout classifier_dropout_prob summary_type summary_use_proj
summary_activation summary_first_dropout summary_proj_to_labels reorder_and_upcast_attn scale_attn_weights
scale_attn_by_inverse_layer_idx bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id cls_token_id
mask_token_id decoder_start_token_id eod_token_id image_token_id image_token_index video_token_id audio_token_id
vision_start_token_id vision_end_token_id vision_token_id boi_token_index eoi_token_index boi_token_id eoi_token_id
image_start_token_id image_end_token_id video_start_token_id video_end_token_id im_start_id im_end_id im_newline_id
image_break_token_id im_patch_id text_start_id text_end_id pad_id mask_init_id position_embedding_type
org_vocab_size media_placeholder_token_id image_seq_length mm_tokens_per_image initializer_range initializer_factor
init_method init_std layer_norm_epsilon layer_norm_eps layernorm_epsilon rms_norm_eps norm_eps norm_epsilon
norm_type hidden_act hidden_activation activation_function mlp_hidden_act mamba_hidden_act attention_dropout
attn_pdrop resid_pdrop embd_pdrop hidden_dropout hidden_dropout_prob attention_probs_dropout_prob dropout
embedding_dropout resid_dropout expert_dropout residual_dropout rope_theta rope_scaling rope_parameters
rope_local_base_freq rope_interleave rope_ratio rope_type rope_is_neox_style partial_rotary_factor rotary_percent
rotary_dim rotary_base rotary_emb_base use_rotary_pos_emb original_max_position_embeddings original_rope global_rope
local_rope local_rope_theta global_rope_theta swa_rope_theta mrope_section use_mrope no_rope_layers
no_rope_layer_interval nope_layer_interval rope_3d freq_allocation max_model_len seq_length max_sequence_length
model_max_length n_ctx interleaved_rope pretraining_tp ep_size tensor_parallel_degree tensor_parallel_output
num_key_value_groups use_flash_attention use_fast_ln router_aux_loss_coef router_aux_loss_factor router_z_loss_coef
router_jitter_noise output_router_logits aux_loss_alpha seq_aux aux_loss_coef moe_aux_loss_lambda
balance_loss_weight norm_topk_prob moe_norm_topk_prob norm_expert_weight normalized_router topk_method scoring_func
scoring_function moe_gate_act moe_norm_min moe_router_enable_expert_bias moe_use_aux_free use_routing_bias
routed_scaling_factor moe_routed_scaling_factor router_scaling_factor moe_drop_tokens
moe_random_routing_dropped_token moe_capacity moe_group moe_multimodal_dispatch_use_allgather capacity_factor
experts_implementation swiglu_limit initial_context_length router_dtype query_pre_attn_scalar attention_multiplier
embedding_multiplier residual_multiplier logits_scaling logit_scale attn_logit_softcapping final_logit_softcapping
attn_temperature_tuning attn_scale floor_scale mup_denominator layernorm_full_attention_alpha
layernorm_full_attention_beta layernorm_linear_attention_alpha layernorm_linear_attention_beta layernorm_mlp_alpha
layernorm_mlp_beta full_attn_alpha_factor full_attn_beta_factor linear_attn_alpha_factor linear_attn_beta_factor
mlp_alpha_factor mlp_beta_factor postnorm shared_moe_mode cache_implementation attention_bias_scale fuse_linear
fuse_ln fuse_rms_norm fuse_rope fuse_swiglu compression_ratio indexer_rope_interleave mamba_ssm_cache_dtype
mamba_dt_rank time_step_min time_step_max time_step_floor time_step_limit time_step_rank rescale_prenorm_residual
residual_in_fp32 num_logits_to_keep expand use_mamba_kernels mamba_dtype mtp_loss_factor mtp_loss_scaling_factor
mtp_use_dedicated_embeddings torch_version pool_type class_num norm_after_attn keys_to_ignore_at_inference
cla_share_factor use_mtp mtp_loss attn_implementation head_type use_bfloat16 pruned_heads tf_legacy_loss torchscript
min_length dense_list full_attn_mod interpolate_factor moe_shared_expert_overlap for_llm_compressor video_start_id
video_end_id image_break_id position_embedding_xdrope
"""


_NOTED = {
    "vision_config": "the vision tower",
    "vision_tower": "the vision tower",
    "visual": "the vision tower",
    "audio_config": "the audio tower",
    "speech_config": "the audio tower",
    "projector_config": "the projector of a tower",
    "mm_projector_type": "the projector of a tower",
    "talker_config": "the talker that speaks what the text tower says",
    "num_mtp_modules": "layers that predict further tokens",
    "mtp_num_hidden_layers": "layers that predict further tokens",
    "mtp_transformer_layers": "layers that predict further tokens",
    "num_nextn_predict_layers": "layers that predict further tokens",
    "mtp_hybrid_override_pattern": "layers that predict further tokens",
    "mtp_layers_block_type": "layers that predict further tokens",
    "sliding_window": "windows of attention",
    "attention_chunk_size": "chunks of attention",
    "layer_types": "kinds of layers",
    "attention_sink": "attention sinks",
    "use_attention_sinks": "attention sinks",
    "num_sink_tokens": "attention sinks",
    "add_swa_attention_sink_bias": "attention sinks",
    "add_full_attention_sink_bias": "attention sinks",
    "add_classification_head": "a classification head",
    "early_exit_layers": "early exits",
    "use_qk_norm": "norms of queries and keys",
    "quantization": "the weights' number format under a key of another tool",
    "lora_rank": "adapters beside the weights",
    "vision_lora": "adapters beside the weights",
    "speech_lora": "adapters beside the weights",
    "img_processor": "the vision tower",
    "embd_layer": "the embedding of towers",
}

_REFUSED = {
    "use_cla": "layers that share keys and values with the one before are not modelled",
    "num_kv_shared_layers": "layers that share keys and values with the one before are not modelled",
    "kv_share_layers": "layers that share keys and values with the one before are not modelled",
    "use_yoco": "a cache that later layers share is not modelled",
    "yoco": "a cache that later layers share is not modelled",
    "yoco_cross_layers": "a cache that later layers share is not modelled",
    "num_yoco_layers": "a cache that later layers share is not modelled",
    "mb_per_layer": "state-space layers are read of families that always have them",
    "use_mla": "latent attention is read of families that always have it",
    "moe_latent_size": "experts that work in a space of their own are not modelled",
    "block_configs": "layers of different sizes are not modelled",
    "hidden_size_per_layer_input": "inputs of each layer beside the stream are not modelled",
    "vocab_size_per_layer_input": "inputs of each layer beside the stream are not modelled",
    "altup_num_inputs": "several streams side by side are not modelled",
    "hc_mult": "several streams side by side are not modelled",
    "laurel_rank": "a low-rank path beside each layer is not modelled",
    "compress_ratios": "a cache of summed-up tokens is not modelled",
    "global_head_dim": "heads of two sizes are not modelled",
    "swa_head_dim": "heads of two sizes are not modelled",
    "swa_num_attention_heads": "heads of two sizes are not modelled",
    "num_global_key_value_heads": "heads of two sizes are not modelled",
    "index_topk_freq": "indexers that only some layers have are not modelled",
    "zero_expert_num": "experts that do nothing are not modelled",
    "cross_attention_layers": "layers that look at images are not modelled",
    "add_cross_attention": "layers that look at another text are not modelled",
    "use_bidirectional_attention": "a decoder whose tokens see what follows is not modelled",
}

#: key -> what becomes of it where its family does not read it
SETTINGS: dict[str, Setting] = {
    **dict.fromkeys(_PLAIN.split(), Setting("plain")),
    **{key: Setting("noted", why) for key, why in _NOTED.items()},
    **{key: Setting("refused", why) for key, why in _REFUSED.items()},
}


def settle(keys: Keys) -> None:
    """Note or refuse what the family has not read of its config."""
    keys.must_be("is_causal", True, "tokens of a decoder see what came before them")
    left: dict[str, list[str]] = {}
    unknown = []
    for key, value in keys.data.items():
        if key in keys.read or key.startswith("_cmsim") or value in (None, False, 0, "", [], {}):
            continue
        becomes, why = SETTINGS.get(key, (None, ""))
        if becomes == "refused":
            keys.complain(key, f"got {_short(value)}: {why}")
        elif becomes == "noted":
            left.setdefault(why, []).append(key)
        elif becomes is None:
            unknown.append(key)
    keys.notes += [f"left out: {why} ({', '.join(names)})" for why, names in left.items()]
    if unknown:
        keys.notes.append(f"keys of the config that '{keys.family}' does not know, left out: {', '.join(unknown)}")


def _short(value: object) -> str:
    said = repr(value)
    return said if len(said) <= 40 else said[:40] + "..."
