"""What a config.json may leave out: the defaults of the classes that read it, as transformers 5.19 has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEYS: Final = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "sliding_window",
)
# Of configurations inside another, which are written without their defaults. A whole config.json has every number.
_INSIDE: Final = {
    "gemma3_text": (26, 2304, 9216, 8, 4, 256, 262208, 131072, 4096),
    "llama": (32, 4096, 11008, 32, None, None, 32000, 2048, None),
    "mistral": (32, 4096, 14336, 32, 8, None, 32000, 131072, 4096),
    "qwen2": (32, 4096, 22016, 32, None, None, 151936, 32768, None),
    "qwen3": (32, 4096, 22016, 32, None, 128, 151936, 32768, None),
}
# Of every configuration: what a null or an absent key means, where that is neither "none" nor "as many as heads".
_ALWAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "cohere2": {"sliding_window": 4096, "tie_word_embeddings": True},
    "ernie4_5": {"num_key_value_heads": 2, "head_dim": 128, "tie_word_embeddings": True},
    "ernie4_5_moe": {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "exaone4": {"sliding_window": 4096},
    "falcon": {"max_position_embeddings": 2048, "tie_word_embeddings": True},
    "gemma": {"head_dim": 256, "tie_word_embeddings": True},
    "gemma2": {"head_dim": 256, "num_key_value_heads": 4, "sliding_window": 4096, "tie_word_embeddings": True},
    "gemma3_text": {"head_dim": 256, "num_key_value_heads": 4, "sliding_window": 4096, "tie_word_embeddings": True},
    "gemma3n_text": {
        "num_key_value_heads": 2,
        "head_dim": 256,
        "num_kv_shared_layers": 15,
        "sliding_window": 512,
        "tie_word_embeddings": True,
    },
    "glm": {"num_key_value_heads": 2, "head_dim": 128},
    "glm4": {"num_key_value_heads": 2, "head_dim": 128},
    "gpt_oss": {"head_dim": 64, "num_key_value_heads": 8, "sliding_window": 128},
    "llama4_text": {"attention_chunk_size": 8192, "num_key_value_heads": 8, "head_dim": 128},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "minimax_m2": {"num_key_value_heads": 8, "head_dim": 128},
    "mixtral": {"num_key_value_heads": 8},
    "olmo3": {"sliding_window": 4096},
    "phimoe": {"num_key_value_heads": 8},
    "qwen3": {"head_dim": 128},
    "qwen3_moe": {"num_key_value_heads": 4},
    "qwen3_vl_moe_text": {"head_dim": 128},
    "qwen3_vl_text": {"head_dim": 128},
    "seed_oss": {"num_key_value_heads": 8, "head_dim": 128},
    "smollm3": {"num_key_value_heads": 4},
    "starcoder2": {"num_key_value_heads": 2, "tie_word_embeddings": True},
}
# As many KV heads as heads where the key is absent; of any other kind it must be there.
HEADS_FOR_ALL: Final = frozenset({"llama"})
# Kinds whose class has a head size of its own, which differs between versions.
OWN_HEAD_SIZE: Final = frozenset({"exaone", "exaone4", "glm4_moe", "nemotron"})
_TIED: Final = frozenset({"gpt2", "gpt_bigcode", "bloom", "opt", "cohere"})


def with_defaults(text: Mapping[str, Any], model_type: str, *, inside: bool) -> dict[str, Any]:
    """Return a language model's configuration with its class's defaults for absent keys; a null is not absent.

    Args:
        text: the configuration.
        model_type: its own.
        inside: whether it stands in another configuration.
    """
    whole = dict(zip(_KEYS, _INSIDE[model_type], strict=True)) if inside and model_type in _INSIDE else {}
    tied = {"tie_word_embeddings": True} if model_type in _TIED else {}
    return {**tied, **_ALWAYS.get(model_type, {}), **whole, **text}
