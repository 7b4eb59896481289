"""Mistral's params.json in the words of a config.json (vllm 0.32.0, transformers_utils/configs/mistral.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackserve.capacity._shape import NotComputedError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAMES: Final = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "hidden_dim": "intermediate_size",
    "norm_eps": "rms_norm_eps",
    "activation": "hidden_act",
    "tied_embeddings": "tie_word_embeddings",
}
_KEPT: Final = frozenset(
    {"head_dim", "vocab_size", "rope_theta", "max_seq_len", "max_position_embeddings", "dtype", "use_biases", "causal"}
)
_DEFAULT_LENGTH: Final = 128_000


def from_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain Mistral model's config.json.

    Raises:
        NotComputedError: when params.json has more than a plain model's keys: experts, images, sound, windows.
    """
    more = [
        key for key, value in params.items() if key not in _NAMES and key not in _KEPT and value not in (None, {}, [])
    ]
    if more or params.get("causal") is False:
        raise NotComputedError(f"{', '.join(more) or 'causal'}: this part of a params.json is not computed here")
    renamed = {_NAMES.get(key, key): value for key, value in params.items() if key not in ("use_biases", "causal")}
    renamed.setdefault("max_position_embeddings", _DEFAULT_LENGTH)
    renamed.setdefault("dtype", "bfloat16")
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        **renamed,
        "sliding_window": None,
    }
