"""Each kind of defect is refused in one sentence, and what may be right is not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.servable import Use, servable
from testing.model_folders import Layout, shards, write_bin, write_index, write_json, write_safetensors
from testing.model_layouts import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NEWEST = "0.33.0"
LLAMA = Layout("LlamaForCausalLM", "llama", weights=2)


def refused(folder: Path, version: str = NEWEST, use: Use | None = None) -> list[str]:
    return [finding.text for finding in servable(folder, version, use or Use()) if finding.refuses]


def told(folder: Path, version: str = NEWEST, use: Use | None = None) -> list[str]:
    return [finding.text for finding in servable(folder, version, use) if not finding.refuses]


def extra(**arguments: object) -> Use:
    return Use(extra_args={name.replace("_", "-"): value for name, value in arguments.items()})


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return LLAMA.write(tmp_path / "llama")


def remove(*names: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return do


def cut(name: str, by: int) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        with (folder / name).open("r+b") as stream:
            stream.truncate((folder / name).stat().st_size + by)

    return do


def write(name: str, text: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (folder / name).write_text(text)

    return do


def only_bin(folder: Path) -> None:
    remove(*shards(2), "model.safetensors.index.json")(folder)
    write_index(folder / "pytorch_model.bin.index.json", shards(2, "pytorch_model", ".bin"))
    write_bin(folder / "pytorch_model-00001-of-00002.bin")


def cut_bin(folder: Path) -> None:
    remove(*shards(2), "model.safetensors.index.json")(folder)
    write_bin(folder / "pytorch_model.bin")
    cut("pytorch_model.bin", -20)(folder)


def only_gguf(folder: Path) -> None:
    remove(*shards(2), "model.safetensors.index.json")(folder)
    (folder / "llama-q4_k_m.gguf").write_bytes(b"GGUF" + bytes(5000))


ALL_SHARDS = (*shards(2), "model.safetensors.index.json")
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4\n"


@pytest.mark.parametrize(
    ("defect", "sentence", "at_build"),
    [
        (
            remove(shards(2)[1]),
            "model.safetensors.index.json names 2 files, and model-00002-of-00002.saf",
            True,
        ),
        (
            remove(shards(2)[1], ALL_SHARDS[2]),
            "of 2 shards model-00002-of-00002.safetensors is missing",
            True,
        ),
        (remove(*ALL_SHARDS[:2]), "it has no weights (*.safetensors, *.bin or *.pt); add what is missing to", True),
        (remove(*ALL_SHARDS), "it has no weights (*.safetensors, *.bin or *.pt)", True),
        (only_bin, "pytorch_model.bin.index.json names 2 files, and pytorch_model-00002-of-00002.bin is missing", True),
        (only_gguf, "it has its weights as GGUF only, which an instance cannot load by repository; take the", True),
        (cut(shards(2)[0], -1), "model-00001-of-00002.safetensors is not whole: it has 1,048,", True),
        (cut(shards(2)[0], 7), "model-00001-of-00002.safetensors is not whole: it has 1,048,", True),
        (cut(shards(2)[0], -(1 << 20) - 9), "model-00001-of-00002.safetensors is not whole: its header cannot", True),
        (write(shards(2)[0], ""), "model-00001-of-00002.safetensors is not whole: it is empty; fetch it again", True),
        (
            write(shards(2)[0], "<html>"),
            "model-00001-of-00002.safetensors is not whole: its header cannot",
            True,
        ),
        (cut_bin, "pytorch_model.bin is not whole: it is cut off at its end; fetch it again", True),
        (write(shards(2)[0], POINTER), "model-00001-of-00002.safetensors is not whole: it is a Git LFS pointer", True),
        (write("tokenizer.json", POINTER), "tokenizer.json: a Git LFS pointer instead of the content", True),
        (write("config.json", "{"), "config.json is not JSON (Expecting property name", True),
        (write("config.json", "[]"), "config.json is a JSON list instead of an object; fetch it again", True),
        (write("model.safetensors.index.json", ""), "model.safetensors.index.json is not JSON", True),
        (remove("config.json"), "it has no config.json; add it to the model's files in bundle.yml", False),
        (
            remove("tokenizer.json"),
            "it has no tokenizer; add its files (tokenizer.json and tokenizer_c",
            False,
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(
    llama: Path, defect: Callable[[Path], None], sentence: str, *, at_build: bool
) -> None:
    assert refused(llama) == []
    defect(llama)
    assert any(text.startswith(sentence) for text in refused(llama)), refused(llama)
    found = [finding for finding in servable(llama, NEWEST) if finding.text.startswith(sentence)]
    assert [finding.refuses for finding in found] == [at_build]


@pytest.mark.parametrize(
    ("load_format", "layout", "sentence"),
    [
        (
            "safetensors",
            LAYOUTS["opt, .bin only, no tokenizer.json"],
            "it has no weights (*.safetensors); it has flax_",
        ),
        ("mistral", LLAMA, "it has no weights (consolidated*.safetensors); it has model-00001-of-00002.safetensors"),
        ("npcache", LLAMA, "it has no weights (*.bin); it has model-00001"),
        ("pt", LLAMA, "it has no weights (*.pt); it has"),
    ],
)
def test_a_load_format_wants_its_files(tmp_path: Path, load_format: str, layout: Layout, sentence: str) -> None:
    folder = layout.write(tmp_path / "model")
    (found,) = refused(folder, use=extra(load_format=load_format))
    assert found.startswith(sentence)
    assert found.endswith("; leave extra_args.load-format out")
    assert refused(folder, use=extra(load_format="auto")) == []


def test_gguf_alone_is_refused_whatever_the_load_format(llama: Path) -> None:
    only_gguf(llama)
    assert refused(llama, "0.22.1", extra(load_format="gguf")) == refused(llama, "0.22.1")


@pytest.mark.parametrize("load_format", ["dummy", "runai_streamer", "tensorizer", "sharded_state", "a-plugin-of-mine"])
def test_another_load_format_is_left_to_vllm(llama: Path, load_format: str) -> None:
    remove(*ALL_SHARDS)(llama)
    assert refused(llama, use=extra(load_format=load_format)) == []


def test_the_index_of_a_format_that_is_not_loaded_is_not_asked(tmp_path: Path) -> None:
    folder = LAYOUTS["mistral small, tekken"].write(tmp_path / "model")
    remove(*shards(10))(folder)
    assert refused(folder, "0.32.0") == []
    assert "names 10 files" in refused(folder, "0.10.2")[0] or "consolidated" in str(refused(folder, "0.10.2"))


def test_a_tokenizer_may_come_from_elsewhere_or_not_at_all(llama: Path) -> None:
    remove("tokenizer.json")(llama)
    assert refused(llama)
    assert refused(llama, use=extra(tokenizer="other/tokenizer")) == []
    assert refused(llama, use=extra(skip_tokenizer_init=True)) == []
    assert refused(llama, use=Use(role="draft")) == []


def test_a_tokenizer_has_to_be_whole(llama: Path) -> None:
    (llama / "tokenizer.json").write_text('{"model": {"vocab"')
    assert refused(llama) == ["tokenizer.json is not whole: it is cut off at its end; fetch it again"]
    (llama / "tokenizer.json").write_text('{"model": {}}\n')
    assert refused(llama) == []
    (llama / "tokenizer.json").write_text("")
    assert refused(llama)[0].startswith("it has no tokenizer")


def test_a_tokenizer_of_the_repositorys_code_needs_that_code(tmp_path: Path) -> None:
    folder = LAYOUTS["kimi k2"].write(tmp_path / "model")
    write_json(folder / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["tokenization_kimi.T", None]}})
    trusted = extra(trust_remote_code=True)
    assert refused(folder, use=trusted) == []
    assert "its tokenizer is code of its own (tokenization_kimi.py), and" in str(told(folder, use=Use()))
    (folder / "tokenization_kimi.py").unlink()
    assert refused(folder, use=trusted)[0].startswith("its tokenizer is code of its own, and tokenization_kimi.py is")
    (folder / "tokenizer.json").write_text("{}")
    assert refused(folder, use=trusted) == []


@pytest.mark.parametrize(
    "name", ["tokenizer.model", "tekken.json", "vocab.txt", "qwen.tiktoken", "tokenizer.model.v3", "spiece.model"]
)
def test_any_vocabulary_counts(llama: Path, name: str) -> None:
    (llama / "tokenizer.json").rename(llama / name)
    assert refused(llama) == []


def test_a_vocabulary_without_its_merges_is_refused(llama: Path) -> None:
    (llama / "tokenizer.json").rename(llama / "vocab.json")
    write_json(llama / "tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer", "chat_template": "x"})
    assert refused(llama)[0].startswith("its tokenizer is Qwen2Tokenizer, which reads vocab.json and merges.txt, and")
    (llama / "merges.txt").write_text("a b\n")
    assert refused(llama) == []
    (llama / "merges.txt").unlink()
    write_json(llama / "tokenizer_config.json", {"tokenizer_class": "Wav2Vec2CTCTokenizer"})
    assert refused(llama) == []


def test_a_model_without_a_chat_template_is_told_and_not_refused(tmp_path: Path) -> None:
    base = replace(LLAMA, template="").write(tmp_path / "base")
    (sentence,) = told(base, use=Use())
    assert sentence.startswith("it has no chat template, so /v1/chat/completions will refuse every request")
    for use in (None, Use(chat_template=True), Use(task="embed"), Use(task="score"), Use(role="draft")):
        assert told(base, use=use) == []
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates/tool_use.jinja").write_text("x")
    assert told(base, use=Use()) == []


@pytest.mark.parametrize("template", ["tokenizer_config.json", "chat_template.jinja", "chat_template.json"])
def test_a_template_may_lie_in_three_places(tmp_path: Path, template: str) -> None:
    assert told(replace(LLAMA, template=template).write(tmp_path / "model"), use=Use()) == []


@pytest.mark.parametrize(
    ("version", "architecture", "sentence"),
    [
        (
            "0.32.0",
            "MiniMaxM1ForCausalLM",
            "its architecture MiniMaxM1ForCausalLM is not one that vLLM 0.32.0 serves: it went after 0.23.0; set st",
        ),
        (
            "0.6.4.post1",
            "Qwen3ForCausalLM",
            "its architecture Qwen3ForCausalLM is not one that vLLM 0.6.4.post1 serves: it came after 0.6.4.post1; s",
        ),
        (
            "0.33.0",
            "Qwen9ForCausalLM",
            "its architecture Qwen9ForCausalLM is not one that vLLM 0.33.0 serves; serve another model",
        ),
        (
            "0.22.1",
            "DoryForCausalLM",
            "its architecture DoryForCausalLM is not one that vLLM 0.22.1 serves: it",
        ),
        (
            "0.6.4.post1",
            "HeliumForCausalLM",
            "its architecture HeliumForCausalLM is not one that vLLM 0.6.4.post1",
        ),
    ],
)
def test_an_architecture_that_a_release_lacks_is_refused(
    tmp_path: Path, version: str, architecture: str, sentence: str
) -> None:
    folder = replace(LLAMA, architecture=architecture).write(tmp_path / "model")
    assert refused(folder, version)[0].startswith(sentence)
    assert [finding.refuses for finding in servable(folder, version)] == [True]


@pytest.mark.parametrize("architecture", ["BambaForCausalLM", "PersimmonForCausalLM", "HeliumForCausalLM"])
def test_an_architecture_of_transformers_is_told(tmp_path: Path, architecture: str) -> None:
    folder = replace(LLAMA, architecture=architecture).write(tmp_path / "model")
    assert refused(folder) == []
    assert told(folder)[0].endswith("can be served through that is known at the start")


def test_another_ending_is_converted_and_another_architecture_may_be_set(tmp_path: Path) -> None:
    folder = replace(LLAMA, architecture="Qwen3ForTokenClassification").write(tmp_path / "model")
    assert refused(folder, "0.10.2", Use(task="score")) == []
    folder = replace(LLAMA, architecture="OursForCausalLM").write(tmp_path / "ours")
    assert refused(folder)
    assert refused(folder, use=extra(hf_overrides={"architectures": ["LlamaForCausalLM"]})) == []
    assert refused(folder, use=extra(hf_overrides='{"architectures": ["LlamaForCausalLM"]}')) == []


def own_code(**more: Any) -> Layout:
    config = {"auto_map": {"AutoConfig": "configuration_x.C", "AutoModelForCausalLM": "modeling_x.M"}, **more}
    files = f"{LLAMA.files} configuration_x.py modeling_x.py"
    return Layout("XForCausalLM", "x_model", files, config=config)


def test_code_of_the_repository_has_to_be_trusted(tmp_path: Path) -> None:
    folder = own_code().write(tmp_path / "model")
    (sentence,) = refused(folder)
    assert sentence.startswith("it needs code of its own (configuration_x.py); read that code, then set extra_args.")
    assert refused(folder, use=extra(trust_remote_code=True)) == []
    assert [finding.refuses for finding in servable(folder, NEWEST)] == [False, False]


def test_a_configuration_that_only_the_code_reads_has_to_be_trusted(tmp_path: Path) -> None:
    folder = LAYOUTS["internlm 2"].write(tmp_path / "model")
    assert "it needs code of its own (configuration_internlm2.py)" in refused(folder)[0]
    assert refused(LAYOUTS["phi 3, code not needed"].write(tmp_path / "phi")) == []


def test_trusted_code_has_to_be_there_with_what_it_imports(tmp_path: Path) -> None:
    trusted = extra(trust_remote_code=True)
    folder = own_code().write(tmp_path / "model")
    (folder / "modeling_x.py").write_text("import torch\nfrom .layers_x import Layer\nfrom .configuration_x import C\n")
    (sentence,) = refused(folder, use=trusted)
    assert sentence.startswith(
        "auto_map names layers_x.py, and the folder has no such file; add it to the model's files"
    )
    (folder / "layers_x.py").write_text("")
    assert refused(folder, use=trusted) == []
    (folder / "configuration_x.py").unlink()
    assert refused(folder, use=trusted)[0].startswith("auto_map names configuration_x.py, and the folder has no")
    assert any(finding.refuses for finding in servable(folder, NEWEST))


def test_code_of_another_repository_is_not_found_offline(tmp_path: Path) -> None:
    layout = own_code(auto_map={"AutoConfig": "other/code--configuration_y.C", "AutoModel": "other/code--modeling_y.M"})
    folder = layout.write(tmp_path / "model")
    (sentence,) = refused(folder, use=extra(trust_remote_code=True))
    assert sentence.startswith("auto_map names code of the repository other/code, which offline nothing finds; ")


def quantized(method: str, **more: object) -> Layout:
    return replace(LLAMA, config={"quantization_config": {"quant_method": method, **more}})


def compressed(kind: str, bits: int, *, inputs: bool) -> Layout:
    group = {"weights": {"type": kind, "num_bits": bits}, "input_activations": {"num_bits": bits} if inputs else None}
    return quantized("compressed-tensors", config_groups={"group_0": group})


@pytest.mark.parametrize(
    ("version", "method", "sentence"),
    [
        (
            "0.32.0",
            "bitsandbytes",
            "its quantization is bitsandbytes, which vLLM 0.32.0 does not have: it went after 0.26.0; set stack_run",
        ),
        ("0.6.4.post1", "mxfp4", "its quantization is mxfp4, which vLLM 0.6.4.post1 does not have: it came after"),
        ("0.33.0", "exl3", "its quantization is exl3, which vLLM 0.33.0 does not have; serve a copy that is quantized"),
        (
            "0.33.0",
            "fbgemm_fp8",
            "its quantization is fbgemm_fp8, which vLLM 0.33.0 is about to drop; set extra_ar",
        ),
    ],
)
def test_a_quantization_that_a_release_lacks_is_refused(
    tmp_path: Path, version: str, method: str, sentence: str
) -> None:
    folder = quantized(method).write(tmp_path / "model")
    assert refused(folder, version)[0].startswith(sentence)


def test_a_deprecated_quantization_may_be_allowed(tmp_path: Path) -> None:
    folder = quantized("fbgemm_fp8").write(tmp_path / "model")
    assert refused(folder, use=extra(allow_deprecated_quantization=True)) == []


V100, T4, A100, L4, H100 = (7, 0), (7, 5), (8, 0), (8, 9), (9, 0)


@pytest.mark.parametrize(
    ("layout", "version", "floor", "below"),
    [
        (quantized("fp8"), "0.33.0", T4, V100),
        (quantized("fp8"), "0.10.2", A100, T4),
        (quantized("awq", bits=4), "0.33.0", T4, V100),
        (quantized("gptq", bits=4), "0.33.0", V100, None),
        (quantized("mxfp4"), "0.33.0", A100, T4),
        (quantized("modelopt", quant_algo="FP8"), "0.22.1", L4, A100),
        (quantized("modelopt", quant_algo="FP8"), "0.33.0", A100, T4),
        (quantized("modelopt", quant_algo="NVFP4"), "0.33.0", T4, V100),
        (compressed("float", 8, inputs=True), "0.33.0", T4, V100),
        (compressed("float", 8, inputs=True), "0.10.2", A100, T4),
        (compressed("int", 8, inputs=True), "0.33.0", T4, V100),
        (compressed("int", 4, inputs=False), "0.10.2", A100, T4),
        (compressed("int", 4, inputs=False), "0.33.0", T4, V100),
        (compressed("float", 4, inputs=True), "0.33.0", V100, None),
    ],
)
def test_the_checkpoints_quantization_has_a_floor_by_release(
    tmp_path: Path, layout: Layout, version: str, floor: tuple[int, int], below: tuple[int, int] | None
) -> None:
    folder = layout.write(tmp_path / "model")
    for capability in (floor, H100, None):
        assert refused(folder, version, Use(capability=capability)) == []
    if below:
        (sentence,) = refused(folder, version, Use(capability=below))
        assert (
            f"wants compute capability {floor[0]}.{floor[1]} or more, and the GPU has {below[0]}.{below[1]}; "
            in sentence
        )


def test_the_quantization_of_modelopts_own_file_counts(tmp_path: Path) -> None:
    folder = LAYOUTS["fp8 by ModelOpt's own file"].write(tmp_path / "model")
    assert "its quantization is modelopt, for which" in refused(folder, "0.33.0", Use(capability=T4))[0]


def test_an_adapter_needs_its_weights_whole(tmp_path: Path) -> None:
    folder = LAYOUTS["LoRA adapter"].write(tmp_path / "adapter")
    assert servable(folder, NEWEST) == []
    cut("adapter_model.safetensors", -5)(folder)
    assert refused(folder)[0].startswith("adapter_model.safetensors is not whole: it has")
    (folder / "adapter_model.safetensors").unlink()
    assert refused(folder)[0].startswith("it is an adapter without adapter_model.safetensors; save it as safetensors")


def test_a_folder_for_its_tokenizer_alone_is_told_at_the_build(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text(json.dumps({}))
    assert [finding.refuses for finding in servable(folder, NEWEST)] == [False, False]


def test_whole_files_of_every_kind_are_accepted(tmp_path: Path) -> None:
    folder = Layout("LlamaForCausalLM", "llama", weights=0).write(tmp_path / "model")
    write_safetensors(folder / "model.safetensors", "a", "b", "c", size=64)
    assert refused(folder) == []
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")  # torch.save before 1.6
    assert refused(folder) == []


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": "LlamaForCausalLM"},
        {"architectures": None},
        {"architectures": [None, 1]},
        {"auto_map": "x"},
        {"auto_map": {"AutoConfig": None, "AutoModel": 3}},
        {"quantization_config": "fp8"},
        {"quantization_config": {}},
        {
            "quantization_config": {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": None, "b": {"weights": 1}},
            }
        },
        {"quantization_config": {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NEW"}}},
        {"quantization_config": {"quant_method": "modelopt", "quant_algo": "SOMETHING_NEW"}},
        {"text_config": None},
        {"model_type": None},
    ],
)
def test_an_odd_configuration_is_left_to_vllm(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = replace(LLAMA, config=config).write(tmp_path / "model")
    assert refused(folder, use=Use(capability=V100)) == []
