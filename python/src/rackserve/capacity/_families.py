"""The model families whose KV cache is computed: an allow-list; everything else is left to vLLM.

A family says in which words its config.json gives the numbers, and how its class in vLLM builds its attention layers.
Each was read in `vllm/model_executor/models/` of 0.32.0, and asked there: python/tests/capacity/vllm_shapes.json.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Windows(Enum):
    """Which layers of a family look back a window only."""

    UNIFORM = "every layer, where config.json has a window"
    QWEN = "the layers from max_window_layers on, where use_sliding_window is set; vLLM serves all of them or none"
    TYPED = "the layers that layer_types names, else every layer"
    PATTERN = "the layers that layer_types or the family's own pattern names"
    ALTERNATING = "every other layer, from the first on (gpt-oss)"
    CHUNKED = "chunks, except in the layers without positions (Llama 4)"
    NEVER = "none: the family's class has no windows"


class Heads(Enum):
    """How many heads have a key and a value of their own."""

    GROUPED = "num_key_value_heads, else as many as there are heads"
    ALL = "as many as there are heads"
    FALCON = "one with multi_query, unless new_decoder_architecture"
    BIGCODE = "one with multi_query"
    CHATGLM = "multi_query_group_num with multi_query_attention"
    LATENT = "one latent vector"
    PADDED = "as many as there are heads, of qk_nope_head_dim + qk_rope_head_dim numbers (MiniCPM 3)"
    NONE = "an encoder keeps nothing"


@dataclass(frozen=True)
class Family:
    """How one model_type is read.

    Attributes:
        architectures: the classes of vLLM that were read.
        names: the words of this family for a number, where they are not Llama's; the first that is there counts.
        keys: keys that speak of layers or heads, and change nothing in the KV cache.
        fixed: keys that speak of layers or heads, and the only values with which the family is computed.
        pattern: one full layer in so many, where neither layer_types nor a pattern is given.
        gated: whether the feed-forward part has three matrices instead of two.
    """

    architectures: tuple[str, ...]
    windows: Windows = Windows.UNIFORM
    heads: Heads = Heads.GROUPED
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()
    fixed: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    pattern: int = 0
    gated: bool = True


_GPT2_NAMES: Final = {
    "num_hidden_layers": ("n_layer", "num_hidden_layers"),
    "num_attention_heads": ("n_head", "num_attention_heads"),
    "hidden_size": ("n_embd", "hidden_size"),
    "intermediate_size": ("n_inner", "intermediate_size"),
}
_GPT2_KEYS: Final = frozenset(
    {
        "n_ctx", "scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "rotary_dim",
        "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "pad_key_length", "pre_allocate_kv_cache",
    }
)  # fmt: skip
_EXPERT_KEYS: Final = frozenset(
    {
        "mlp_only_layers", "first_k_dense_replace", "moe_layer_freq", "n_group", "topk_group", "n_shared_experts",
        "num_shared_experts", "shared_expert_intermediate_size", "shared_intermediate_size", "num_nextn_predict_layers",
        "num_dense_layers", "interleave_moe_layer_step",
    }
)  # fmt: skip
_QWEN_KEYS: Final = frozenset({"use_sliding_window", "max_window_layers"})
_VISION_KEYS: Final = frozenset({"mrope_section", "deepstack_visual_indexes"})
_LATENT_KEYS: Final = frozenset(
    {"kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "seq_aux"}
)


def _llama(*architectures: str, windows: Windows = Windows.UNIFORM, keys: frozenset[str] = frozenset()) -> Family:
    return Family(architectures, windows, keys=keys)


def _two_matrices(*architectures: str, keys: frozenset[str] = frozenset()) -> Family:
    return Family(architectures, keys=keys, gated=False)


_QWEN2: Final = Family(("Qwen2ForCausalLM",), Windows.QWEN, keys=_QWEN_KEYS | _VISION_KEYS)
_QWEN3: Final = Family(("Qwen3ForCausalLM",), Windows.QWEN, keys=_QWEN_KEYS | _VISION_KEYS)
_MOE: Final = Family(("Qwen3MoeForCausalLM",), Windows.QWEN, keys=_QWEN_KEYS | _EXPERT_KEYS | _VISION_KEYS)
_DEEPSEEK: Final = Family(
    ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM"),
    Windows.NEVER,
    Heads.LATENT,
    keys=_EXPERT_KEYS | _LATENT_KEYS,
)
_BERT_LIKE: Final = ("ForSequenceClassification", "ForTokenClassification", "Model", "ForMaskedLM")

FAMILIES: Final[Mapping[str, Family]] = {
    "apertus": Family(("ApertusForCausalLM",), Windows.TYPED, gated=False),
    "arcee": _two_matrices("ArceeForCausalLM"),
    "bert": Family(tuple(f"Bert{kind}" for kind in _BERT_LIKE), heads=Heads.NONE, gated=False),
    "bloom": Family(
        ("BloomForCausalLM",),
        heads=Heads.ALL,
        names={**_GPT2_NAMES, "hidden_size": ("n_embed", "hidden_size")},
        keys=frozenset({"attention_softmax_in_fp32", "skip_bias_add_qkv", "offset_alibi"}),
        gated=False,
    ),
    "chatglm": Family(
        ("ChatGLMModel", "ChatGLMForConditionalGeneration"),
        Windows.NEVER,
        Heads.CHATGLM,
        names={
            "num_hidden_layers": ("num_layers",),
            "intermediate_size": ("ffn_hidden_size",),
            "vocab_size": ("padded_vocab_size",),
        },
        keys=frozenset(
            {
                "multi_query_attention", "multi_query_group_num", "apply_query_key_layer_scaling", "post_layer_norm",
                "apply_residual_connection_post_layernorm", "attention_softmax_in_fp32", "original_rope", "rope_ratio",
                "num_layers", "kv_channels", "pre_seq_len", "prefix_projection", "classifier_dropout",
            }
        ),
    ),
    "cohere": _llama("CohereForCausalLM"),
    "cohere2": Family(
        ("Cohere2ForCausalLM",),
        Windows.PATTERN,
        keys=frozenset(
            {
                "layer_switch", "order_of_interleaved_layers", "use_parallel_block", "use_embedding_sharing",
                "position_embedding_type", "_sliding_window_pattern", "sliding_window_pattern", "rotary_pct",
            }
        ),
        pattern=4,
    ),
    "dbrx": Family(("DbrxForCausalLM",), Windows.NEVER),
    "deepseek": Family(("DeepseekForCausalLM",), keys=_EXPERT_KEYS | frozenset({"seq_aux"})),
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "ernie4_5": _llama("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
    "ernie4_5_moe": _llama(
        "Ernie4_5_MoeForCausalLM",
        keys=frozenset(
            {"moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval", "moe_num_shared_experts"}
        ),
    ),
    "exaone": Family(("ExaoneForCausalLM",), names={"num_hidden_layers": ("num_layers", "num_hidden_layers")}),
    "exaone4": Family(("Exaone4ForCausalLM",), Windows.PATTERN, keys=frozenset({"sliding_window_pattern"})),
    "falcon": Family(
        ("FalconForCausalLM",),
        Windows.NEVER,
        Heads.FALCON,
        names={
            "num_hidden_layers": ("num_hidden_layers", "n_layer"),
            "num_attention_heads": ("num_attention_heads", "n_head"),
            "intermediate_size": ("ffn_hidden_size",),
        },
        keys=frozenset(
            {
                "multi_query", "new_decoder_architecture", "num_kv_heads", "n_head_kv", "parallel_attn",
                "apply_residual_connection_post_layernorm", "num_ln_in_parallel_attn",
            }
        ),
        gated=False,
    ),
    "gemma": _llama("GemmaForCausalLM"),
    "gemma2": Family(
        ("Gemma2ForCausalLM",), Windows.PATTERN, keys=frozenset({"sliding_window_size"}), pattern=2
    ),
    "gemma3_text": Family(
        ("Gemma3ForCausalLM",),
        Windows.PATTERN,
        keys=frozenset({"sliding_window_pattern", "_sliding_window_pattern"}),
        pattern=6,
    ),
    "gemma3n_text": Family(
        ("Gemma3nForCausalLM",),
        Windows.PATTERN,
        keys=frozenset(
            {"num_kv_shared_layers", "hidden_size_per_layer_input", "vocab_size_per_layer_input",
             "activation_sparsity_pattern", "altup_active_idx"}
        ),
        pattern=5,
    ),
    "glm": _llama("GlmForCausalLM"),
    "glm4": _llama("Glm4ForCausalLM"),
    "glm4_moe": _llama("Glm4MoeForCausalLM", keys=_EXPERT_KEYS),
    "gpt2": Family(
        ("GPT2LMHeadModel",), Windows.NEVER, Heads.ALL, names=_GPT2_NAMES, keys=_GPT2_KEYS, gated=False
    ),
    "gpt_bigcode": Family(
        ("GPTBigCodeForCausalLM",),
        Windows.NEVER,
        Heads.BIGCODE,
        names=_GPT2_NAMES,
        keys=_GPT2_KEYS | frozenset({"multi_query", "max_sequence_length"}),
        gated=False,
    ),
    "gpt_neox": Family(
        ("GPTNeoXForCausalLM",), Windows.NEVER, Heads.ALL, keys=frozenset({"use_parallel_residual"}), gated=False
    ),
    "gpt_oss": Family(
        ("GptOssForCausalLM",), Windows.ALTERNATING, keys=frozenset({"initial_context_length", "layer_types"})
    ),
    "gptj": Family(
        ("GPTJForCausalLM",), Windows.NEVER, Heads.ALL, names=_GPT2_NAMES, keys=_GPT2_KEYS, gated=False
    ),
    "granite": _llama("GraniteForCausalLM", keys=frozenset({"attention_multiplier"})),
    "granitemoe": _llama("GraniteMoeForCausalLM", keys=frozenset({"attention_multiplier"})),
    "internlm2": _llama("InternLM2ForCausalLM"),
    "kimi_k2": _DEEPSEEK,
    "llama": _llama("LlamaForCausalLM", "LLaMAForCausalLM", windows=Windows.TYPED),
    "llama4_text": Family(
        ("Llama4ForCausalLM",),
        Windows.CHUNKED,
        keys=_EXPERT_KEYS
        | frozenset({"attention_chunk_size", "no_rope_layers", "attn_scale", "attn_temperature_tuning", "moe_layers",
                     "no_rope_layer_interval", "for_llm_compressor"}),
    ),
    "minicpm": _llama("MiniCPMForCausalLM", keys=frozenset({"scale_depth"})),
    "minicpm3": Family(
        ("MiniCPM3ForCausalLM",), heads=Heads.PADDED, keys=_LATENT_KEYS | frozenset({"scale_depth"})
    ),
    "minimax_m2": Family(
        ("MiniMaxM2ForCausalLM",),
        Windows.NEVER,
        keys=frozenset(
            {"qk_norm_type", "layernorm_full_attention_beta", "layernorm_linear_attention_beta", "num_mtp_modules",
             "layernorm_mlp_beta",
             "shared_intermediate_size", "shared_moe_mode", "mtp_transformer_layers", "use_mtp"}
        ),
        fixed={"attn_type_list": (1,)},
    ),
    "mistral": _llama("MistralForCausalLM", windows=Windows.TYPED),
    "mixtral": _llama("MixtralForCausalLM"),
    "modernbert": Family(
        ("ModernBertModel", "ModernBertForSequenceClassification", "ModernBertForTokenClassification"),
        heads=Heads.NONE,
    ),
    "nemotron": _two_matrices("NemotronForCausalLM"),
    "olmo": _llama("OlmoForCausalLM"),
    "olmo2": _llama("Olmo2ForCausalLM"),
    "olmo3": Family(("Olmo3ForCausalLM",), Windows.PATTERN, pattern=4),
    "olmoe": _llama("OlmoeForCausalLM"),
    "opt": Family(
        ("OPTForCausalLM",),
        Windows.NEVER,
        Heads.ALL,
        names={"intermediate_size": ("ffn_dim",)},
        keys=frozenset({"do_layer_norm_before", "_remove_final_layer_norm"}),
        gated=False,
    ),
    "orion": _llama("OrionForCausalLM"),
    "persimmon": Family(("PersimmonForCausalLM",), heads=Heads.ALL, gated=False),
    "phi": _two_matrices("PhiForCausalLM"),
    "phi3": _llama("Phi3ForCausalLM", keys=frozenset({"full_attn_mod"})),
    "phimoe": _llama("PhiMoEForCausalLM"),
    "qwen2": _QWEN2,
    "qwen2_5_omni_text": _QWEN2,
    "qwen2_5_vl": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen2_moe": Family(("Qwen2MoeForCausalLM",), Windows.QWEN, keys=_QWEN_KEYS | _EXPERT_KEYS),
    "qwen2_vl": _QWEN2,
    "qwen2_vl_text": _QWEN2,
    "qwen3": _QWEN3,
    "qwen3_moe": _MOE,
    "qwen3_vl_moe_text": _MOE,
    "qwen3_vl_text": _QWEN3,
    "roberta": Family(tuple(f"Roberta{kind}" for kind in _BERT_LIKE), heads=Heads.NONE, gated=False),
    "seed_oss": _llama("SeedOssForCausalLM"),
    "smollm3": Family(
        ("SmolLM3ForCausalLM",), Windows.QWEN, keys=_QWEN_KEYS | frozenset({"no_rope_layers", "no_rope_layer_interval"})
    ),
    "solar": _llama("SolarForCausalLM"),
    "stablelm": _llama("StableLmForCausalLM", "StableLMEpochForCausalLM"),
    "starcoder2": _two_matrices("Starcoder2ForCausalLM"),
    "xlm-roberta": Family(tuple(f"XLMRoberta{kind}" for kind in _BERT_LIKE), heads=Heads.NONE, gated=False),
}  # fmt: skip


@dataclass(frozen=True)
class Wrapper:
    """A model with a language model inside.

    Attributes:
        architectures: the classes of vLLM that were read.
        path: where the language model's part is, outermost key first; config.json itself where it is not there.
        own_class: whether the class inside is the wrapper's own, whatever `architectures` there says.
    """

    architectures: tuple[str, ...]
    path: tuple[str, ...] = ("text_config",)
    own_class: bool = False


WRAPPERS: Final[Mapping[str, Wrapper]] = {
    "gemma3": Wrapper(("Gemma3ForConditionalGeneration",)),
    "gemma3n": Wrapper(("Gemma3nForConditionalGeneration",)),
    "idefics3": Wrapper(("Idefics3ForConditionalGeneration",), own_class=True),
    "kimi_vl": Wrapper(("KimiVLForConditionalGeneration",)),
    "llama4": Wrapper(("Llama4ForConditionalGeneration",)),
    "llava": Wrapper(("LlavaForConditionalGeneration",)),
    "llava_next": Wrapper(("LlavaNextForConditionalGeneration",)),
    "mistral3": Wrapper(("Mistral3ForConditionalGeneration",)),
    "qwen2_5_omni": Wrapper(
        ("Qwen2_5OmniModel", "Qwen2_5OmniForConditionalGeneration"), ("thinker_config", "text_config")
    ),
    "qwen2_5_vl": Wrapper(("Qwen2_5_VLForConditionalGeneration",)),
    "qwen2_vl": Wrapper(("Qwen2VLForConditionalGeneration",)),
    "qwen3_vl": Wrapper(("Qwen3VLForConditionalGeneration",)),
    "qwen3_vl_moe": Wrapper(("Qwen3VLMoeForConditionalGeneration",)),
    "smolvlm": Wrapper(("SmolVLMForConditionalGeneration",), own_class=True),
}
