"""Models and settings that check_capacity.py compares with vLLM: configurations of published models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from testing.known_models import GEMMA_27B, model_configs

_KNOWN: Final = model_configs()
LLAMA_8B: Final = _KNOWN["llama-3.1-8b"]
LLAMA_3B: Final = _KNOWN["llama-3.2-3b"]
SMOLLM2: Final = _KNOWN["smollm2-135m"]
MISTRAL: Final = _KNOWN["mistral-7b-v0.1"]
QWEN: Final = _KNOWN["qwen2.5-7b"]
GEMMA2: Final = _KNOWN["gemma-2-9b"]
GEMMA3_27B: Final = {**GEMMA_27B, "architectures": ["Gemma3ForCausalLM"]}
GEMMA3_4B: Final = {
    **GEMMA3_27B,
    "num_hidden_layers": 34,
    "hidden_size": 2560,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
}
GPT_OSS: Final = {key: value for key, value in _KNOWN["gpt-oss-20b"].items() if key != "quantization_config"}
TWELVE_AND_THIRTEEN: Final = {
    **_KNOWN["olmo-3-7b"],
    "num_hidden_layers": 25,
    "hidden_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "sliding_window": 128,
    "max_position_embeddings": 131072,
    "rope_scaling": None,
    "layer_types": [*["sliding_attention", "full_attention"] * 12, "full_attention"],
}
COHERE2: Final = _KNOWN["c4ai-command-r7b"]
DEEPSEEK: Final = {key: value for key, value in _KNOWN["deepseek-v3"].items() if key != "quantization_config"}


@dataclass(frozen=True)
class Case:
    """One comparison: a model, and the settings that decide its KV cache."""

    name: str
    config: dict[str, Any]
    gib: float
    length: int
    device: str = "cuda"
    tensor_parallel: int = 1
    kv_dtype: str = "auto"
    block: int | None = None
    batched: int = 8192
    overlapping: bool = True
    hybrid: bool = True


CASES: Final = (
    Case("Llama-3.1-8B", LLAMA_8B, 20, 131072, overlapping=False),
    Case("Llama-3.1-8B, fp8 KV", LLAMA_8B, 20, 131072, overlapping=False, kv_dtype="fp8"),
    Case("Llama-3.1-8B, 2 GPUs", LLAMA_8B, 20, 131072, tensor_parallel=2),
    Case("Llama-3.1-8B, 16 GPUs: more than KV heads", LLAMA_8B, 20, 131072, tensor_parallel=16),
    Case("Llama-3.1-8B, odd length", LLAMA_8B, 7.3, 10001),
    Case("Llama-3.1-8B, block 32", LLAMA_8B, 12, 32768, block=32),
    Case("Llama-3.1-8B, does not fit", LLAMA_8B, 10, 131072),
    Case("Llama-3.1-8B, one block short", LLAMA_8B, 16, 131072),
    Case("Llama-3.1-8B, just fits", LLAMA_8B, 16 + 2 / 1024, 131072),
    Case("Llama-3.2-3B", LLAMA_3B, 16, 8192),
    Case("SmolLM2-135M, CPU", SMOLLM2, 2, 2048, device="cpu", batched=2048),
    Case("SmolLM2-135M, CPU, 3 sockets", SMOLLM2, 2, 8192, device="cpu", tensor_parallel=3, batched=2048),
    Case("Mistral-7B v0.1, all layers sliding", MISTRAL, 8, 32768),
    Case("Qwen2.5-7B, window switched off", QWEN, 8, 32768),
    Case("Gemma-2-9B, 21 + 21", GEMMA2, 20, 8192),
    Case("Gemma-3-27B, 10 full + 52 sliding", GEMMA3_27B, 20, 131072, overlapping=False),
    Case("Gemma-3-27B, async scheduling", GEMMA3_27B, 20, 131072),
    Case("Gemma-3-27B, 4 GPUs, fp8 KV", GEMMA3_27B, 30, 131072, tensor_parallel=4, kv_dtype="fp8"),
    Case("Gemma-3-27B, hybrid manager off", GEMMA3_27B, 80, 131072, hybrid=False),
    Case("Gemma-3-27B, does not fit", GEMMA3_27B, 6, 131072),
    Case("Gemma-3-4B, 5 full + 29 sliding", GEMMA3_4B, 10, 131072, batched=2048),
    Case("gpt-oss-20b, 12 + 12", GPT_OSS, 20, 131072, overlapping=False),
    Case("gpt-oss-20b, short requests", GPT_OSS, 20, 100),
    Case("12 sliding + 13 full", TWELVE_AND_THIRTEEN, 20, 131072),
    Case("Command-R7B, 8 full + 24 sliding", COHERE2, 20, 131072),
    Case("Command-R7B, CPU", COHERE2, 4, 16384, device="cpu", batched=2048),
    Case("DeepSeek-V3", DEEPSEEK, 20, 131072, overlapping=False),
    Case("DeepSeek-V3, 8 GPUs, fp8 KV", DEEPSEEK, 20, 131072, tensor_parallel=8, kv_dtype="fp8"),
    Case("DeepSeek-V3, Cutlass MLA", DEEPSEEK, 20, 131072, block=128),
)
