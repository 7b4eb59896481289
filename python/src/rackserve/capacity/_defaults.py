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
    "use_sliding_window",
    "tie_word_embeddings",
)
_BY_TYPE: Final = {
    "gemma": (28, 3072, 24576, 16, 16, 256, 256000, 8192, None, True, True),
    "gemma2": (26, 2304, 9216, 8, 4, 256, 256000, 8192, 4096, True, True),
    "gemma3_text": (26, 2304, 9216, 8, 4, 256, 262208, 131072, 4096, True, True),
    "llama": (32, 4096, 11008, 32, None, None, 32000, 2048, None, True, False),
    "mistral": (32, 4096, 14336, 32, 8, None, 32000, 131072, 4096, True, False),
    "qwen2": (32, 4096, 22016, 32, None, None, 151936, 32768, None, False, False),
    "qwen3": (32, 4096, 22016, 32, None, 128, 151936, 32768, None, False, False),
}


def with_defaults(text: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a language model with its class's defaults for absent keys; a null is not absent."""
    defaults = _BY_TYPE.get(str(text.get("model_type")))
    return {**(dict(zip(_KEYS, defaults, strict=True)) if defaults else {}), **text}
