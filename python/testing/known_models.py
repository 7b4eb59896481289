"""Shapes of published models, as their config.json has them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Final

Config = dict[str, Any]
_CONFIGS: Final = Path(__file__).parents[1] / "tests" / "data" / "model_configs"


def llama(layers: int, hidden: int, heads: int, kv_heads: int, **more: Any) -> Config:
    return {
        "model_type": "llama",
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "torch_dtype": "bfloat16",
        **more,
    }


LLAMA_8B: Final = llama(32, 4096, 32, 8, intermediate_size=14336)
LLAMA_3B: Final = llama(28, 3072, 24, 8, head_dim=128, intermediate_size=8192, tie_word_embeddings=True)
SMOLLM2: Final = llama(
    30, 576, 9, 3, intermediate_size=1536, vocab_size=49152, max_position_embeddings=8192, tie_word_embeddings=True
)
GPT_OSS: Final = {
    **llama(24, 2880, 64, 8, head_dim=64, sliding_window=128, intermediate_size=2880, vocab_size=201088),
    "model_type": "gpt_oss",
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "quantization_config": {"quant_method": "mxfp4"},
}
GEMMA_27B: Final = {
    **llama(62, 5376, 32, 16, head_dim=128, sliding_window=1024, vocab_size=262208, intermediate_size=21504),
    "model_type": "gemma3_text",
}
DEEPSEEK: Final = {
    **llama(61, 7168, 128, 128, vocab_size=129280, intermediate_size=18432),
    "model_type": "deepseek_v3",
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 2048,
    "first_k_dense_replace": 3,
    "quantization_config": {"quant_method": "fp8"},
}


def write_model(folder: Path, config: Config, tensors: dict[str, tuple[str, list[int]]] | None = None) -> Path:
    """Write a config.json, and a safetensors file that has a header only."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        entries = {name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in tensors.items()}
        header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    return folder


def model_configs() -> dict[str, Config]:
    """Return the configurations of published models that vLLM was asked about, by name."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(_CONFIGS.glob("*.json"))}
