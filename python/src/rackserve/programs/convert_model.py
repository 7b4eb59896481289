"""Make a model's files; run by `rackserve bundle build` with the Python of its converter environment.

convert_model.py gguf GGUF_FOLDER GGUF_NAME OUT | random SEED OUT | lora BASE_FOLDER BASE_REPO RANK SEED OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def from_gguf(folder: str, name: str, out: str) -> None:
    """Write a GGUF's weights as bfloat16 safetensors, with its tokenizer and chat template."""
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)
    AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    ).save_pretrained(out)


def random_llama(seed: int, out: str) -> None:
    """Write a Llama of about one megabyte with random weights and a byte-level tokenizer."""
    special = ["<unk>", "<s>", "</s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({token: i for i, token in enumerate(special + alphabet)}, [], unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    tokenizer.save_pretrained(out)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(special) + len(alphabet),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(out)


def random_lora(folder: str, repo: str, rank: int, seed: int, out: str) -> None:
    """Write an adapter of the query and value projections in PEFT's format, with the base model's own shapes.

    Its weights are as large as trained ones never are, so that every answer differs from the base model's.
    """
    base = AutoConfig.from_pretrained(folder)
    head = getattr(base, "head_dim", None) or base.hidden_size // base.num_attention_heads
    rows = {"q_proj": base.num_attention_heads * head, "v_proj": base.num_key_value_heads * head}
    draw = torch.Generator().manual_seed(seed)
    weights: dict[str, torch.Tensor] = {}
    for layer in range(base.num_hidden_layers):
        for module, size in rows.items():
            key = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            down = torch.randn(rank, base.hidden_size, generator=draw) * base.hidden_size**-0.5
            up = torch.randn(size, rank, generator=draw) * rank**-0.5
            weights |= {f"{key}.lora_A.weight": down.bfloat16(), f"{key}.lora_B.weight": up.bfloat16()}
    save_file(weights, Path(out) / "adapter_model.safetensors")
    config = {
        "base_model_name_or_path": repo,
        "bias": "none",
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(rows),
        "task_type": "CAUSAL_LM",
    }
    (Path(out) / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "gguf":
        from_gguf(*rest)
    elif kind == "lora":
        random_lora(rest[0], rest[1], int(rest[2]), int(rest[3]), rest[4])
    else:
        random_llama(int(rest[0]), rest[1])
