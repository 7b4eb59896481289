"""The reader of wheels knows vLLM's tables, and the data that rackserve ships is what it writes."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING

import extract_vllm_facts as tool
from rackserve.servable._facts import unpack
from rackserve.vllm import releases

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

REGISTRY = """
_TEXT_GENERATION_MODELS = {"OldForCausalLM": ("old", "Old"), "LlamaForCausalLM": ("llama", "LlamaForCausalLM")}
_EMBEDDING_MODELS = {"BertModel": ("bert", "Bert"), **{k: v for k, v in _TEXT_GENERATION_MODELS.items()}}
_TRANSFORMERS_BACKEND_MODELS: dict[str, tuple[str, str]] = {"TransformersForCausalLM": ("transformers", "T")}
_VLLM_MODELS = {**_TEXT_GENERATION_MODELS}
_PREVIOUSLY_SUPPORTED_MODELS = {"MptForCausalLM": "0.28.0"}
_OOT_SUPPORTED_MODELS = {"BartModel": "https://example.com/plugin"}
"""
METHODS = """
QuantizationMethods = Literal["awq", "fp8", "new_fp8", "online"]
DEPRECATED_QUANTIZATION_METHODS = ["fp8"]

def get_quantization_config(quantization):
    method_to_config: dict[str, type] = {"awq": AWQConfig, "fp8": Fp8Config, "new_fp8": chosen, "child": ChildConfig}
"""
AWQ = """
class AWQConfig:
    @classmethod
    def get_min_capability(cls) -> int:
        return 75
"""
FP8 = """
class Fp8Config:
    def get_min_capability(cls):
        return 89
class ChildConfig(Fp8Config):
    pass
class CompressedTensorsW4A4(Scheme):
    def get_min_capability(cls):
        return 100
class CompressedTensorsOdd(Scheme):
    def get_min_capability(cls):
        raise NotImplementedError
"""
FLAGS = 'class A:\n    def add(parser):\n        parser.add_argument("--model")\n'
MODELING = "class LlamaForCausalLM(X):\n    pass\nclass NewForCausalLM(X):\n    pass\nclass TFNewModel(X):\n    pass\n"
CONFIGURATIONS = """
CONFIG_MAPPING_NAMES = OrderedDict([("llama", "LlamaConfig")])
CONFIG_MAPPING_NAMES = OrderedDict(**{"gpt-sw3": "GPT2Config"}, **CONFIG_MAPPING_NAMES)
OTHERS = {"no": "Config"}
"""
REGISTERED = """
_CONFIG_REGISTRY: dict[str, type] = LazyConfigDict(chatglm="ChatGLMConfig")
_SPECULATIVE_DECODING_CONFIGS = {"eagle"}
_SPECULATIVE_DECODING_CONFIGS: dict[str, str] = {"eagle": "EAGLEConfig"}
"""
FOLDER = "vllm/model_executor/layers/quantization"
SOURCES = {
    "vllm/model_executor/models/registry.py": REGISTRY,
    f"{FOLDER}/__init__.py": METHODS,
    f"{FOLDER}/awq.py": AWQ,
    f"{FOLDER}/fp8.py": FP8,
    "vllm/engine/arg_utils.py": FLAGS,
    "vllm/transformers_utils/config.py": REGISTERED,
}
TRANSFORMERS = {
    "transformers/models/new/modeling_new.py": MODELING,
    "transformers/models/auto/configuration_auto.py": CONFIGURATIONS,
}


def wheel(path: Path, sources: dict[str, str]) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**sources, "other/file.py": "not python ("}.items():
            archive.writestr(name, text)
    return str(path)


def test_every_kind_of_fact_is_found() -> None:
    facts = tool.facts_of(SOURCES, TRANSFORMERS)
    assert facts == {
        "flags": {"model": True},
        "architectures": dict.fromkeys(
            ["OldForCausalLM", "LlamaForCausalLM", "BertModel", "TransformersForCausalLM"], True
        ),
        "transformers": {"NewForCausalLM": True},
        "gone": {"MptForCausalLM": "0.28.0"},
        "plugins": {"BartModel": "https://example.com/plugin"},
        "model_types": {"llama": True, "gpt-sw3": True, "chatglm": True, "eagle": True},
        "quantization": {"awq": "7.5", "fp8": "8.9", "new_fp8": None, "online": None, "child": "8.9"},
        "deprecated": {"fp8": True},
        "schemes": {"CompressedTensorsW4A4": "10.0"},
    }


def test_a_release_without_a_backend_for_transformers_serves_only_its_own() -> None:
    older = {**SOURCES, "vllm/model_executor/models/registry.py": REGISTRY.replace("TRANSFORMERS_BACKEND", "OTHER")}
    assert tool.facts_of(older, TRANSFORMERS)["transformers"] == {}


def test_a_release_is_written_between_its_neighbours_and_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "facts.json"
    second = wheel(tmp_path / "transformers-5.0-py3-none-any.whl", TRANSFORMERS)
    more = {**SOURCES, "vllm/engine/arg_utils.py": FLAGS.replace("--model", "--uds")}
    for version, sources in {"0.10.2": SOURCES, "0.6.4.post1": SOURCES, "0.9.0": more}.items():
        first = wheel(tmp_path / f"vllm-{version}-cp38-abi3-manylinux1_x86_64.whl", sources)
        assert tool.main([first, second, "--data", str(data)]) == 0
    packed = json.loads(data.read_text(encoding="utf-8"))
    assert packed["releases"] == ["0.6.4.post1", "0.9.0", "0.10.2"]
    assert packed["flags"] == {"0.6.4.post1, 0.10.2": ["model"], "0.9.0": ["uds"]}
    assert tool.main([first, second, "--data", str(data), "--check"]) == 0
    wheel(tmp_path / "vllm-0.9.0-cp38-abi3-manylinux1_x86_64.whl", SOURCES)
    assert tool.main([first, second, "--data", str(data), "--check"]) == 1
    assert "run this without --check" in capsys.readouterr().out


def test_the_data_is_what_the_tool_writes_and_has_every_release() -> None:
    text = tool.DATA.read_text(encoding="utf-8")
    assert tool.pack(unpack(text)) == text
    assert list(unpack(text)) == list(releases())
