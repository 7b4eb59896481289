"""Keys of a config.json that nobody here has read, and that speak of what decides a KV cache."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from rackserve.capacity._families import Heads
from rackserve.capacity._lengths import LENGTH_KEYS
from rackserve.capacity._shape import NotComputedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackserve.capacity._families import Family

_SPEAKS: Final = re.compile(
    r"head|layer|window|slid|att|ssm|mamba|conv|recur|rnn|kv|cache|block|pattern|chunk|latent|lora_rank|compress|index"
    r"|local|global|linear|hybrid|sparse|moba|nope|mla|position|length|seq|context|state|memory|group|quer|shar|cross"
    r"|encoder|decoder|causal|direction|hetero|span|stride|loop|repeat|depth|skip|prun|draft|mtp|nextn|specul|rope"
    r"|mixer|yoco|cla|sink|engram|hyper|rotary|embd_dim|channel|width|share|lightning|delta|retention|swa|csa|dsa|n_embd|hidden_dim|d_model|expan",
    re.IGNORECASE,
)
# Of every family: numbers of the shape, what only the weights or the logits see, and settings of other programs.
_READ: Final = frozenset(
    {
        "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size", "intermediate_size",
        "head_dim", "vocab_size", "sliding_window", "layer_types", "quantization_config", "compression_config",
        "attention_bias", "attention_out_bias", "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop",
        "hidden_act", "hidden_activation", "hidden_dropout", "hidden_dropout_prob", "layer_norm_eps", "layerdrop",
        "layer_norm_epsilon", "layernorm_epsilon", "use_cache", "cache_implementation", "gradient_checkpointing",
        "attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "attn_logit_softcapping",
        "query_pre_attn_scalar", "rope_theta", "rope_scaling", "rope_parameters", "rope_interleaved", "rotary_pct",
        "rope_local_base_freq", "partial_rotary_factor", "rotary_emb_base", "rotary_emb_fraction", "rotary_dim",
        "rotary", "use_rotary_pos_emb", "original_max_position_embeddings", "position_embedding_type", "clip_qkv",
        "output_attentions", "output_hidden_states", "qk_layernorm", "use_qk_norm", "qk_norm", "norm_type",
        "use_qkv_bias", "add_qkv_bias", "qkv_bias", "use_parallel_residual", "alibi", "embedding_multiplier",
        "residual_multiplier", "resid_pdrop", "apply_residual_connection_post_layernorm", "chunk_size_feed_forward",
        "tie_encoder_decoder", "cross_attention_hidden_size", "return_dict", "pooler_hidden_act", "no_bias",
        "lm_head_bias", "torch_dtype", "num_labels", "id2label", "label2id", "expand_nested", "model_max_length",
        "num_local_experts", "decoder_sparse_step", "masked_softmax_fusion", "skip_bias_add",
        "add_bias_linear", "qk_layer_norms", "neftune_noise_alpha", "layer_norm_type",
        "layer_norm_elementwise_affine", "summary_use_proj",
    }
)  # fmt: skip
# Numbers, lists and parts that only the weights see, or that a generation's settings left here.
_COUNTS: Final = frozenset(
    {
        "altup_num_inputs", "architectures", "bad_words_ids", "begin_suppress_tokens", "bskcn_1", "bskcn_2", "bskcn_3",
        "bskcn_4", "bskcn_tv", "dim_model_base", "encoder_no_repeat_ngram_size", "ep_size", "experts_per_token",
        "floor_scale", "inference_runner", "intermediate_size_mlp", "interpolate_factor", "laurel_rank",
        "max_batch_size", "max_length", "max_new_tokens", "min_length", "moe_capacity", "moe_intermediate_size",
        "moe_k", "moe_num_experts", "moe_top_k", "moe_topk", "n_routed_experts", "no_repeat_ngram_size",
        "num_beam_groups", "num_beams", "num_experts", "num_experts_per_tok", "num_experts_per_token",
        "num_return_sequences", "pixel_shuffle_factor", "pretraining_tp", "scale_emb", "suppress_tokens",
        "task_specific_params", "tokenizer_n_vocab", "top_k", "top_k_experts", "type_vocab_size", "vocab_size",
        "word_embed_proj_dim",
    }
)  # fmt: skip
# What stands in a name after its meaning: the number of a token, a rate, a bias.
_TRIFLE: Final = re.compile(
    r"(_token_id|token_index|ignore_index|dropout\w*|_bias|_eps|_epsilon|_pdrop|_init\w*)$|^auto_map$"
)
# Words of the encoders for images and sound, beside the language model.
_BESIDE: Final = re.compile(
    r"vision|visual|image|video|audio|speech|talker|project|multi_?modal|^mm_|pixel|patch|tile"
    r"|select_layer|use_llm_lora"
)
_OFF: Final = frozenset({"add_cross_attention", "is_encoder_decoder", "is_decoder", "use_cla", "use_sliding_window"})
_NESTED: Final = {
    "attn_config": frozenset({"kv_n_heads", "clip_qkv", "rope_theta", "model_type"}),
    "ffn_config": frozenset(
        {
            "ffn_hidden_size", "moe_num_experts", "moe_top_k", "moe_jitter_eps", "moe_loss_weight", "model_type",
            "moe_normalize_expert_weights", "uniform_expert_assignment", "ffn_act_fn",
        }
    ),
}  # fmt: skip


def refuse_unread(text: Mapping[str, Any], family: Family) -> None:
    """Refuse a language model's part with a key that its family is not known to have.

    Raises:
        NotComputedError: naming the key.
    """
    if family.heads is Heads.NONE:
        return
    words = {word for names in family.names.values() for word in names}
    for key, value in text.items():
        if key in family.fixed:
            _refuse_other(key, value, family)
        elif key not in family.keys and key not in words and not _is_silent(key, value, counts=True):
            raise _unread(key)


def refuse_unread_beside(config: Mapping[str, Any], part: str) -> None:
    """Refuse a wrapper's own keys that speak of layers, and of no encoder for images or sound.

    Args:
        config: the whole config.json.
        part: the key of the language model in it.

    Raises:
        NotComputedError: naming the key.
    """
    for key, value in config.items():
        if key != part and not _BESIDE.search(key) and not _is_silent(key, value):
            raise _unread(key)


def refuse_unread_inside(key: str, part: Mapping[str, Any]) -> None:
    """Refuse DBRX's nested configurations with a key that was not read.

    Raises:
        NotComputedError: naming the key.
    """
    for inner, value in part.items():
        if inner not in _NESTED[key] and not _is_silent(inner, value, counts=True):
            raise _unread(f"{key}.{inner}")


def _is_silent(key: str, value: object, *, counts: bool = False) -> bool:
    """Whether a key changes nothing in a KV cache; with `counts`, a number, list or part must be one that was read."""
    if value is None or value in ([], {}, "") or key in _READ or key in _COUNTS or key in LENGTH_KEYS:
        return True
    if counts and isinstance(value, int | list | dict) and not isinstance(value, bool) and not _TRIFLE.search(key):
        return False
    return not _SPEAKS.search(key) or bool(_TRIFLE.search(key)) or (key in _OFF and value is False)


def _refuse_other(key: str, value: object, family: Family) -> None:
    values = value if isinstance(value, list) else [value]
    if any(item not in family.fixed[key] for item in values if item is not None):
        raise NotComputedError(
            f"{key}: the model has layers of another kind, whose cache is not computed here; "
            "start vLLM once and plan with what it logs"
        )


def _unread(key: str) -> NotComputedError:
    return NotComputedError(
        f"{key}: this key may decide the KV cache, and is not known of this kind of model, so nothing is computed; "
        "start vLLM once and plan with what it logs"
    )
