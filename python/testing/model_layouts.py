"""Repositories of many families as they are published, each with the releases that serve it."""

from __future__ import annotations

from typing import Any, Final

from testing.model_folders import Layout, shards

BPE = "tokenizer.json tokenizer_config.json vocab.json merges.txt generation_config.json"
SPIECE = "tokenizer.model tokenizer_config.json special_tokens_map.json generation_config.json"
SENTENCE = (
    "tokenizer.json tokenizer_config.json special_tokens_map.json vocab.txt modules.json sentence_bert_config.json "
    "config_sentence_transformers.json 1_Pooling/config.json README.md onnx/model.onnx"
)
EMBED = {"task": "embed"}
SCORE = {"task": "score"}
TRUST = {"extra_args": {"trust-remote-code": True}}


def code(model: str) -> dict[str, Any]:
    """Return the `auto_map` of a repository that brings its code."""
    found: dict[str, Any] = {
        "AutoConfig": f"configuration_{model}.Config",
        "AutoModelForCausalLM": f"modeling_{model}.ForCausalLM",
    }
    return {"auto_map": found}


def files_of(model: str) -> str:
    return f" configuration_{model}.py modeling_{model}.py"


def quantized(method: str, **more: object) -> dict[str, Any]:
    return {"quantization_config": {"quant_method": method, **more}}


def compressed(kind: str, bits: int, *, inputs: bool, form: str, **weights: object) -> dict[str, Any]:
    group = {
        "targets": ["Linear"],
        "weights": {"type": kind, "num_bits": bits, "symmetric": True, **weights},
        "input_activations": {"type": kind, "num_bits": bits, "dynamic": True} if inputs else None,
    }
    return quantized("compressed-tensors", format=form, config_groups={"group_0": group})


MODELOPT_FP8 = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}
MODELOPT_NVFP4 = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16}}

LAYOUTS: Final = {
    "llama with Meta's files": Layout(
        "LlamaForCausalLM",
        "llama",
        "tokenizer.json tokenizer_config.json generation_config.json original/consolidated.00.pth original/params.json "
        "original/tokenizer.model LICENSE USE_POLICY.md",
        4,
    ),
    "llama 2, both formats": Layout(
        "LlamaForCausalLM",
        "llama",
        f"{SPIECE} tokenizer.json {' '.join(shards(2, 'pytorch_model', '.bin'))} pytorch_model.bin.index.json",
        2,
    ),
    "llama 2, both indexes, .bin left out": Layout(
        "LlamaForCausalLM",
        "llama",
        SPIECE,
        2,
        texts={"pytorch_model.bin.index.json": {"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}},
    ),
    "llama 3.2 base": Layout("LlamaForCausalLM", "llama", template=""),
    "SmolLM2": Layout("LlamaForCausalLM", "llama", BPE),
    "qwen 2.5": Layout("Qwen2ForCausalLM", "qwen2", BPE, 4),
    "qwen 3": Layout("Qwen3ForCausalLM", "qwen3", BPE, first="0.10.2"),
    "qwen 3 moe": Layout("Qwen3MoeForCausalLM", "qwen3_moe", BPE, 16, first="0.10.2"),
    "qwen 3 next": Layout("Qwen3NextForCausalLM", "qwen3_next", BPE, 4, first="0.10.2"),
    "qwen 1, tiktoken and code": Layout(
        "QWenLMHeadModel",
        "qwen",
        f"qwen.tiktoken tokenization_qwen.py tokenizer_config.json cpp_kernels.py{files_of('qwen')}",
        8,
        code("qwen"),
        {
            "tokenizer_config.json": {
                "tokenizer_class": "QWenTokenizer",
                "auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]},
            }
        },
        "",
        TRUST,
        last="0.22.1",
    ),
    "mistral, both formats": Layout(
        "MistralForCausalLM",
        "mistral",
        f"{SPIECE} tokenizer.json tokenizer.model.v3 params.json consolidated.safetensors",
        3,
    ),
    "mistral small, tekken": Layout(
        "Mistral3ForConditionalGeneration",
        "mistral3",
        "tekken.json params.json consolidated.safetensors generation_config.json SYSTEM_PROMPT.txt",
        10,
        template="",
        first="0.10.2",
    ),
    "pixtral, Mistral's format only": Layout(
        "", "", "params.json tekken.json", ("consolidated.safetensors",), None, template=""
    ),
    "mistral large 3, consolidated shards": Layout(
        "",
        "",
        "params.json tekken.json",
        tuple(shards(3, "consolidated")),
        None,
        {"consolidated.safetensors.index.json": {"weight_map": {"a": "consolidated-00001-of-00003.safetensors"}}},
        "",
        first="0.22.1",
    ),
    "mixtral": Layout("MixtralForCausalLM", "mixtral", f"{SPIECE} tokenizer.json", 19),
    "gemma 2": Layout("Gemma2ForCausalLM", "gemma2", f"{SPIECE} tokenizer.json", 4),
    "gemma 3": Layout(
        "Gemma3ForConditionalGeneration",
        "gemma3",
        f"{SPIECE} tokenizer.json added_tokens.json preprocessor_config.json processor_config.json",
        2,
        template="chat_template.json",
        first="0.10.2",
    ),
    "gemma 3n": Layout(
        "Gemma3nForConditionalGeneration",
        "gemma3n",
        f"{SPIECE} tokenizer.json preprocessor_config.json",
        3,
        template="chat_template.jinja",
        first="0.10.2",
    ),
    "phi 2 base": Layout("PhiForCausalLM", "phi", f"{BPE} added_tokens.json CODE_OF_CONDUCT.md", 2, template=""),
    "phi 3, code not needed": Layout(
        "Phi3ForCausalLM",
        "phi3",
        f"{SPIECE} tokenizer.json added_tokens.json sample_finetune.py{files_of('phi3')}",
        2,
        code("phi3"),
    ),
    "phi 4 mini, code left out": Layout("Phi3ForCausalLM", "phi3", BPE, 2, code("phi3")),
    "deepseek v3": Layout(
        "DeepseekV3ForCausalLM",
        "deepseek_v3",
        f"tokenizer.json tokenizer_config.json{files_of('deepseek')} inference/model.py figures/niah.png",
        5,
        code("deepseek") | quantized("fp8", fmt="e4m3", weight_block_size=[128, 128], activation_scheme="dynamic"),
        first="0.10.2",
    ),
    "deepseek v2 lite, trusted": Layout(
        "DeepseekV2ForCausalLM",
        "deepseek_v2",
        f"tokenizer.json tokenizer_config.json tokenization_deepseek_fast.py{files_of('deepseek')}",
        4,
        code("deepseek"),
        use=TRUST,
    ),
    "kimi k2": Layout(
        "DeepseekV3ForCausalLM",
        "kimi_k2",
        f"tiktoken.model tokenization_kimi.py tokenizer_config.json generation_config.json{files_of('deepseek')}",
        6,
        code("deepseek") | quantized("fp8", weight_block_size=[128, 128]),
        template="chat_template.jinja",
        use=TRUST,
        first="0.10.2",
    ),
    "gpt-oss": Layout(
        "GptOssForCausalLM",
        "gpt_oss",
        "tokenizer.json tokenizer_config.json generation_config.json original/model.safetensors original/config.json "
        "metal/model.bin",
        3,
        quantized("mxfp4", modules_to_not_convert=["lm_head"]),
        template="chat_template.jinja",
        first="0.10.2",
    ),
    "falcon": Layout(
        "FalconForCausalLM",
        "falcon",
        f"tokenizer.json tokenizer_config.json{files_of('falcon')} handler.py "
        f"{' '.join(shards(2, 'pytorch_model', '.bin'))} pytorch_model.bin.index.json coreml/x.mlpackage",
        2,
        code("falcon"),
    ),
    "bloom": Layout(
        "BloomForCausalLM",
        "bloom",
        "tokenizer.json tokenizer_config.json special_tokens_map.json pytorch_model.bin flax_model.msgpack logs/a.tgz",
        template="",
    ),
    "gpt2": Layout(
        "GPT2LMHeadModel",
        "gpt2",
        "tokenizer.json vocab.json merges.txt tokenizer_config.json 64.tflite flax_model.msgpack pytorch_model.bin "
        "rust_model.ot tf_model.h5 onnx/decoder_model.onnx",
        template="",
    ),
    "opt, .bin only, no tokenizer.json": Layout(
        "OPTForCausalLM",
        "opt",
        "vocab.json merges.txt tokenizer_config.json special_tokens_map.json generation_config.json pytorch_model.bin "
        "flax_model.msgpack tf_model.h5",
        0,
        texts={"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"}},
        template="",
    ),
    "baichuan 2, .bin shards and code": Layout(
        "BaichuanForCausalLM",
        "baichuan",
        f"tokenizer.model tokenizer_config.json tokenization_baichuan.py quantizer.py{files_of('baichuan')} "
        f"{' '.join(shards(3, 'pytorch_model', '.bin'))} pytorch_model.bin.index.json",
        0,
        code("baichuan"),
        template="",
        use=TRUST,
        last="0.22.1",
    ),
    "chatglm 3": Layout(
        "ChatGLMModel",
        "chatglm",
        f"tokenizer.model tokenization_chatglm.py tokenizer_config.json quantization.py{files_of('chatglm')}",
        7,
        code("chatglm"),
        use=TRUST,
    ),
    "internlm 2": Layout(
        "InternLM2ForCausalLM",
        "internlm2",
        f"tokenizer.model tokenizer_config.json tokenization_internlm2.py{files_of('internlm2')}",
        8,
        code("internlm2"),
        use=TRUST,
    ),
    "granite": Layout("GraniteForCausalLM", "granite", BPE, 2),
    "starcoder 2 base": Layout("Starcoder2ForCausalLM", "starcoder2", BPE, template=""),
    "command r": Layout("CohereForCausalLM", "cohere", weights=15),
    "olmo 2": Layout("Olmo2ForCausalLM", "olmo2", BPE, 3, template="", first="0.10.2"),
    "mamba": Layout("MambaForCausalLM", "mamba", template=""),
    "jamba": Layout("JambaForCausalLM", "jamba", f"{SPIECE} tokenizer.json", 21),
    "bge small": Layout("BertModel", "bert", f"{SENTENCE} pytorch_model.bin", template="", use=EMBED),
    "multilingual e5": Layout(
        "BertModel",
        "bert",
        f"{SENTENCE} sentencepiece.bpe.model",
        template="",
        use=EMBED,
    ),
    "bge m3": Layout(
        "XLMRobertaModel",
        "xlm-roberta",
        f"{SENTENCE} sentencepiece.bpe.model pytorch_model.bin colbert_linear.pt sparse_linear.pt",
        0,
        template="",
        use=EMBED,
    ),
    "e5 mistral": Layout(
        "MistralModel",
        "mistral",
        f"{SPIECE} tokenizer.json modules.json 1_Pooling/config.json lora/adapter_config.json lora/adapter_model.bin",
        2,
        template="",
        use=EMBED,
    ),
    "qwen 3 embedding": Layout(
        "Qwen3ForCausalLM", "qwen3", f"{BPE} modules.json 1_Pooling/config.json", use=EMBED, first="0.10.2"
    ),
    "gemma embedding": Layout(
        "Gemma3TextModel",
        "gemma3_text",
        f"{SPIECE} tokenizer.json modules.json 1_Pooling/config.json 2_Dense/model.safetensors 2_Dense/config.json",
        template="",
        use=EMBED,
        first="0.22.1",
    ),
    "jina v3, code elsewhere not needed": Layout(
        "XLMRobertaModel",
        "xlm-roberta",
        SENTENCE,
        config={"auto_map": {"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA"}},
        template="",
        use=EMBED,
    ),
    "bge reranker": Layout(
        "XLMRobertaForSequenceClassification",
        "xlm-roberta",
        "tokenizer.json tokenizer_config.json special_tokens_map.json sentencepiece.bpe.model",
        template="",
        use=SCORE,
        first="0.10.2",
    ),
    "minilm cross-encoder": Layout(
        "BertForSequenceClassification",
        "bert",
        "tokenizer.json tokenizer_config.json vocab.txt CEBinaryClassificationEvaluator_results.csv",
        template="",
        use=SCORE,
        first="0.10.2",
    ),
    "qwen 3 reranker, another architecture set": Layout(
        "Qwen3ForCausalLM",
        "qwen3",
        BPE,
        use={
            "task": "score",
            "extra_args": {"hf-overrides": {"architectures": ["Qwen3ForSequenceClassification"]}},
        },
        first="0.10.2",
    ),
    "reward model": Layout("Qwen2ForRewardModel", "qwen2", BPE, 4, use=EMBED),
    "whisper, two precisions": Layout(
        "WhisperForConditionalGeneration",
        "whisper",
        f"{BPE} normalizer.json preprocessor_config.json added_tokens.json pytorch_model.bin flax_model.msgpack "
        f"{' '.join(shards(2, 'model.fp32'))} {' '.join(shards(2, 'pytorch_model.fp32', '.bin'))}",
        template="",
        first="0.10.2",
    ),
    "qwen 2 vl": Layout(
        "Qwen2VLForConditionalGeneration",
        "qwen2_vl",
        f"{BPE} preprocessor_config.json",
        2,
        template="chat_template.json",
    ),
    "qwen 2.5 vl": Layout(
        "Qwen2_5_VLForConditionalGeneration",
        "qwen2_5_vl",
        f"{BPE} preprocessor_config.json",
        5,
        template="chat_template.json",
        first="0.10.2",
    ),
    "llava": Layout(
        "LlavaForConditionalGeneration",
        "llava",
        f"{SPIECE} tokenizer.json preprocessor_config.json processor_config.json",
        3,
        template="chat_template.json",
    ),
    "internvl, trusted": Layout(
        "InternVLChatModel",
        "internvl_chat",
        f"{BPE} configuration_intern_vit.py modeling_intern_vit.py conversation.py{files_of('internvl_chat')}",
        4,
        code("internvl_chat"),
        use=TRUST,
    ),
    "llama 4": Layout(
        "Llama4ForConditionalGeneration",
        "llama4",
        "tokenizer.json tokenizer_config.json processor_config.json",
        50,
        template="chat_template.jinja",
        first="0.10.2",
    ),
    "awq": Layout("Qwen2ForCausalLM", "qwen2", BPE, 2, quantized("awq", bits=4, group_size=128, version="gemm")),
    "gptq": Layout(
        "LlamaForCausalLM",
        "llama",
        f"{SPIECE} tokenizer.json quantize_config.json",
        config=quantized("gptq", bits=4, group_size=128, desc_act=True),
    ),
    "fp8 in compressed-tensors": Layout(
        "LlamaForCausalLM",
        "llama",
        weights=2,
        config=compressed("float", 8, inputs=True, form="float-quantized", strategy="channel"),
    ),
    "w4a16 in compressed-tensors": Layout(
        "LlamaForCausalLM",
        "llama",
        config=compressed("int", 4, inputs=False, form="pack-quantized", strategy="group", group_size=128),
    ),
    "w8a8 in compressed-tensors": Layout(
        "LlamaForCausalLM", "llama", config=compressed("int", 8, inputs=True, form="int-quantized", strategy="channel")
    ),
    "compressed-tensors, older spelling": Layout(
        "LlamaForCausalLM",
        "llama",
        config={"compression_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}},
    ),
    "fp8 by ModelOpt's own file": Layout(
        "LlamaForCausalLM", "llama", texts={"hf_quant_config.json": MODELOPT_FP8}, first="0.10.2"
    ),
    "nvfp4": Layout(
        "LlamaForCausalLM",
        "llama",
        weights=2,
        config={"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}},
        texts={"hf_quant_config.json": MODELOPT_NVFP4},
        first="0.10.2",
    ),
    "auto-round": Layout(
        "Qwen3ForCausalLM",
        "qwen3",
        BPE,
        config=quantized("auto-round", bits=4, packing_format="auto_round:auto_gptq"),
        first="0.10.2",
    ),
    "bitsandbytes, while in core": Layout(
        "LlamaForCausalLM",
        "llama",
        config=quantized("bitsandbytes", load_in_4bit=True),
        last="0.26.0",
    ),
    "LoRA adapter": Layout(
        "",
        "",
        "adapter_config.json tokenizer.json tokenizer_config.json README.md training_args.bin",
        ("adapter_model.safetensors",),
        None,
    ),
    "LoRA adapter with its model's config.json": Layout(
        "LlamaForCausalLM",
        "llama",
        "adapter_config.json tokenizer.json tokenizer_config.json",
        ("adapter_model.safetensors",),
        template="",
    ),
    "internlm 2, code of the model left out": Layout(
        "InternLM2ForCausalLM",
        "internlm2",
        "tokenizer.model tokenizer_config.json configuration_internlm2.py tokenization_internlm2.py",
        8,
        code("internlm2"),
        use=TRUST,
    ),
    "a new architecture of Mistral's format": Layout(
        "Mistral9ForCausalLM",
        "mistral9",
        "tekken.json params.json consolidated.safetensors",
        2,
        template="",
        first="0.22.1",
    ),
    "bagel, tokenizer in a folder": Layout(
        "BagelForConditionalGeneration", "bagel", "llm/tokenizer.json llm/vocab.json", template="", first="0.22.1"
    ),
    "EAGLE draft": Layout("LlamaForCausalLM", "llama", "pytorch_model.bin", 0, template="", use={"role": "draft"}),
    "GGUF beside safetensors": Layout("Qwen2ForCausalLM", "qwen2", f"{BPE} qwen2.5-q4_k_m.gguf"),
    "transformers only": Layout("HeliumForCausalLM", "helium", first="0.10.2"),
    "no architectures": Layout("", "llama"),
    "fine-tune with a trainer's leavings": Layout(
        "LlamaForCausalLM",
        "llama",
        f"{BPE} training_args.bin optimizer.pt scheduler.pt trainer_state.json checkpoint-500/model.safetensors",
    ),
}
