"""Models and settings that check_capacity.py compares with vLLM: configurations of published models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


def _llama(layers: int, hidden: int, heads: int, kv_heads: int, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "architectures": ["LlamaForCausalLM"],
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


LLAMA_8B: Final = _llama(32, 4096, 32, 8)
LLAMA_3B: Final = _llama(28, 3072, 24, 8, head_dim=128, tie_word_embeddings=True)
SMOLLM2: Final = _llama(30, 576, 9, 3, tie_word_embeddings=True)
MISTRAL: Final = {**LLAMA_8B, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 4096}
QWEN: Final = {
    **_llama(28, 3584, 28, 4),
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "sliding_window": 131072,
    "use_sliding_window": False,
    "max_window_layers": 28,
}
GEMMA2: Final = {
    **_llama(42, 3584, 16, 8, head_dim=256, sliding_window=4096, query_pre_attn_scalar=256),
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
}
GEMMA3_27B: Final = {
    **_llama(62, 5376, 32, 16, head_dim=128, sliding_window=1024, query_pre_attn_scalar=168),
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
}
GEMMA3_4B: Final = {
    **_llama(34, 2560, 8, 4, head_dim=256, sliding_window=1024, query_pre_attn_scalar=256),
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
}
GPT_OSS: Final = {
    **_llama(24, 2880, 64, 8, head_dim=64, sliding_window=128, num_local_experts=32, num_experts_per_tok=4),
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "layer_types": ["sliding_attention", "full_attention"] * 12,
}
GPT_OSS_DRAFTED: Final = {
    **GPT_OSS,
    "num_hidden_layers": 25,
    "layer_types": [*GPT_OSS["layer_types"], "full_attention"],
}
COHERE2: Final = {
    **_llama(32, 4096, 32, 8, sliding_window=4096, layer_norm_eps=1e-5, logit_scale=0.25),
    "architectures": ["Cohere2ForCausalLM"],
    "model_type": "cohere2",
    "sliding_window_pattern": 4,
}
DEEPSEEK: Final = {
    **_llama(61, 7168, 128, 128, kv_lora_rank=512, q_lora_rank=1536, qk_rope_head_dim=64, qk_nope_head_dim=128),
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "n_group": 8,
    "topk_group": 4,
    "moe_intermediate_size": 2048,
    "n_shared_experts": 1,
    "first_k_dense_replace": 3,
}


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
    Case("gpt-oss-20b with 13 full", GPT_OSS_DRAFTED, 20, 131072),
    Case("Command-R7B, 8 full + 24 sliding", COHERE2, 20, 131072),
    Case("Command-R7B, CPU", COHERE2, 4, 16384, device="cpu", batched=2048),
    Case("DeepSeek-V3", DEEPSEEK, 20, 131072, overlapping=False),
    Case("DeepSeek-V3, 8 GPUs, fp8 KV", DEEPSEEK, 20, 131072, tensor_parallel=8, kv_dtype="fp8"),
    Case("DeepSeek-V3, Cutlass MLA", DEEPSEEK, 20, 131072, block=128),
)
