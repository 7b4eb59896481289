"""Blocks, tokens and requests: the numbers of vLLM itself."""

from __future__ import annotations

import csv
import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.capacity import GIB, KvLayout, arithmetic_of, capacity_of, layout_of, shape_of
from rackserve.errors import InputError
from testing.known_models import DEEPSEEK, GEMMA_27B, GPT_OSS, LLAMA_8B, SMOLLM2, llama, model_configs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

_ANSWERS = Path(__file__).with_name("vllm_answers.csv")
_TOOLS = Path(__file__).parents[2] / "tools"
_TINY = llama(2, 64, 4, 2, head_dim=32, dtype="bfloat16", max_position_embeddings=4096)


def _layout(config: dict[str, Any], release: str = "0.32.0", **settings: Any) -> KvLayout:
    return layout_of(shape_of(config), arithmetic_of(release), **{"device": "cuda", "batched_tokens": 8192, **settings})


@pytest.mark.parametrize(
    ("config", "settings", "answer"),
    [
        (LLAMA_8B, {}, (10240, 1.25, 163840)),
        (LLAMA_8B, {"kv_dtype": "fp8"}, (20480, 2.5, 327680)),
        (GPT_OSS, {}, (54613, 6.2680, 821558)),
        (GEMMA_27B, {}, (16384, 1.4059, 184270)),
        (DEEPSEEK, {}, (4774, 2.3311, 305536)),
    ],
    ids=["Llama-3.1-8B", "Llama-3.1-8B fp8 KV", "gpt-oss-20b", "Gemma-3-27B", "DeepSeek-V3"],
)
def test_20_gib_hold_what_vllm_0_32_says(
    config: dict[str, Any], settings: dict[str, Any], answer: tuple[int, float, int]
) -> None:
    found = capacity_of(_layout(config, overlapping=False, **settings), 20 * GIB, 131072)

    assert (found.num_blocks, round(found.max_concurrency, 4), found.tokens) == answer


@pytest.mark.parametrize(
    ("config", "gib", "length", "tokens", "concurrency"),
    [
        (SMOLLM2, 2, 2048, 93184, 45.5),
        (SMOLLM2, 1, 8192, 46592, 5.6875),
        (_TINY, 1, 2048, 2097152, 1024),
    ],
)
def test_a_started_cpu_engine_logged_the_same(
    config: dict[str, Any], gib: int, length: int, tokens: int, concurrency: float
) -> None:
    found = capacity_of(_layout(config, device="cpu", batched_tokens=2048), gib * GIB, length)

    assert (found.tokens, found.max_concurrency) == (tokens, concurrency)


def _answers() -> list[Any]:
    with _ANSWERS.open(encoding="utf-8") as file:
        return [
            pytest.param(row["release"], row["case"], row["answer"], id=f"{row['release']} {row['case']}")
            for row in csv.DictReader(file, delimiter=";")
        ]


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(_TOOLS))
        yield importlib.import_module("check_capacity")


@pytest.mark.parametrize(("release", "case", "answer"), _answers())
def test_every_release_is_met_as_recorded(
    tool: ModuleType, tmp_path: Path, release: str, case: str, answer: str
) -> None:
    (found,) = [known for known in tool.CASES if known.name == case]
    (tmp_path / "config.json").write_text(json.dumps(found.config))

    assert " / ".join(filter(None, tool.ours(found, tmp_path, release))) == answer


def test_0_6_4_knows_no_windows_and_divides_tokens_by_the_length() -> None:
    layout = _layout(GEMMA_27B, "0.6.4.post1")
    found = capacity_of(layout, 20 * GIB, 8192)

    assert layout.block_bytes == 62 * 16 * 2 * 16 * 128 * 2
    assert found.num_blocks == 20 * GIB // layout.block_bytes
    assert (found.tokens, found.max_concurrency) == (found.num_blocks * 16, found.num_blocks * 16 / 8192)
    assert layout.longest(20 * GIB, 131072) == found.tokens


def test_0_6_4_pads_deepseek_v2_to_256_per_head() -> None:
    assert _layout(DEEPSEEK, "0.6.4.post1").page_bytes == 16 * 128 * 2 * 256 * 2


@pytest.mark.parametrize("name", ["bge-base-en", "minicpm3-4b"])
def test_what_was_not_read_of_the_oldest_release_is_not_computed(name: str) -> None:
    with pytest.raises(InputError, match=r"its KV cache in vLLM 0\.6\.4\.post1 is not known"):
        _layout(model_configs()[name], "0.6.4.post1")

    assert _layout(model_configs()[name], "0.10.2").block_size == 16


def test_layers_that_share_their_kv_cache_count_once() -> None:
    layout = _layout(model_configs()["gemma-3n-e2b"])

    assert len(layout.unpadded) == 20


@pytest.mark.parametrize(("release", "groups"), [("0.10.2", 1), ("0.22.1", 4)])
def test_chunked_attention_is_local_since_its_regression_was_mended(release: str, groups: int) -> None:
    config = {**LLAMA_8B, "model_type": "llama4_text", "attention_chunk_size": 8192}

    assert len(_layout(config, release).groups) == groups


@pytest.mark.parametrize(("release", "page"), [("0.10.2", 2), ("0.22.1", 1)])
def test_auto_follows_the_checkpoint_only_where_vllm_does(release: str, page: int) -> None:
    scheme = {"quant_method": "compressed-tensors", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}

    assert _layout({**LLAMA_8B, "quantization_config": scheme}, release).page_bytes == page * 16 * 2 * 8 * 128


def test_a_kv_type_that_is_not_computed_is_refused() -> None:
    with pytest.raises(InputError, match="kv_cache_dtype 'nvfp4' is not computed here; set one of auto"):
        _layout(LLAMA_8B, kv_dtype="nvfp4")


def test_one_block_is_kept_back_since_0_32() -> None:
    exact = 131072 * 131072

    assert _layout(LLAMA_8B, "0.26.0").longest(exact, 131072) == 131072
    assert _layout(LLAMA_8B, "0.32.0").longest(exact, 131072) == 131056


@pytest.mark.parametrize(
    ("release", "gib", "tokens"),
    [
        ("0.26.0", 180, 8192),
        ("0.32.0", 180, 16384),
        ("0.32.0", 79, 8192),
        ("0.32.0", 24, 2048),
        ("0.6.4.post1", 24, 4096),
    ],
)
def test_the_default_batch_follows_the_gpu(release: str, gib: int, tokens: int) -> None:
    found = arithmetic_of(release).default_batched_tokens(
        gpu_bytes=gib * GIB, tensor_parallel=1, requests=256, length=4096
    )

    assert found == tokens


def test_0_6_4_prefills_long_contexts_in_chunks() -> None:
    found = arithmetic_of("0.6.4.post1").default_batched_tokens(
        gpu_bytes=24 * GIB, tensor_parallel=1, requests=256, length=131072
    )

    assert found == 512


def test_an_unknown_release_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"vLLM 0\.11\.0 is not known; set one of 0\.6\.4"):
        arithmetic_of("0.11.0")
