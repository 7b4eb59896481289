"""Compare rackserve's KV arithmetic with vLLM's own, and with what a started engine logs.

Needs an environment that has vLLM 0.31.0 or 0.32.0 (the CPU build will do) and this checkout's package on PYTHONPATH:

    export PYTHONPATH=python/src:python
    VENV/bin/python python/tools/check_capacity.py functions
    VENV/bin/python python/tools/check_capacity.py engine MODEL_DIR --gib 1 --max-model-len 2048
    PYTHONPATH=UNPACKED:python/src:python VENV/bin/python python/tools/check_capacity.py functions --release 0.22.1

`functions` asks vLLM for its blocks, concurrency and tokens of known models; no weights are loaded. With those two,
vLLM's own ModelConfig reads the config.json. With another release (its wheel unpacked, in front of the installed one)
the shape is rackserve's and only the arithmetic is that release's. `engine` starts the engine with
VLLM_CPU_KVCACHE_SPACE and reads its log. Both print a Markdown table and exit with 1 when a number differs.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import MagicMock

from capacity_cases import CASES, Case
from rackserve.capacity import GIB, Attention, Settings, Source, Weights, arithmetic_of, plan, read_shape

if TYPE_CHECKING:
    from rackserve.capacity import ModelShape

RELEASE: Final = "0.32.0"
_READ_WHOLE: Final = {"0.31.0", RELEASE}
LOG_LINE: Final = re.compile(
    r"KV cache size: ([\d,]+) tokens, Maximum concurrency for [\d,]+ tokens per request: ([\d.]+)x"
)
_ENGINE: Final = """
import sys, json
from vllm import LLM
LLM(**json.loads(sys.argv[1]))
"""


def ours(case: Case, folder: Path, release: str = RELEASE) -> list[str]:
    """Return rackserve's answer: blocks, concurrency and tokens, or the longest request that fits."""
    settings = Settings(
        max_model_len=case.length,
        max_num_seqs=64,
        available_kv=int(case.gib * GIB),
        device=case.device,
        tensor_parallel=case.tensor_parallel,
        kv_cache_dtype=case.kv_dtype,
        block_size=case.block,
        max_num_batched_tokens=case.batched,
        async_scheduling=case.overlapping and case.device == "cuda",
        hybrid=case.hybrid,
    )
    answer = plan(read_shape(folder), Weights(0, Source.SHAPE), arithmetic_of(release), settings)
    if not answer.fits:
        return ["refused", f"longest {min(answer.longest, case.length):,}", ""]
    found = answer.capacity
    return [f"{found.num_blocks:,}", f"{found.max_concurrency:.4f}", f"{found.tokens:,}"]


def theirs(case: Case, folder: Path) -> list[str]:
    """Return vLLM's answer in the same words."""
    config = _engine_config(folder, case)
    model, cache = config.model_config, config.cache_config
    if case.device == "cuda":
        cache.block_size = case.block or (64 if model.use_mla else 16)
        config.scheduler_config.async_scheduling = case.overlapping
    cache.kv_cache_layout = "LBNHC"
    config.parallel_config.tensor_parallel_size = case.tensor_parallel
    config.scheduler_config.disable_hybrid_kv_cache_manager = not case.hybrid
    utils = importlib.import_module("vllm.v1.core.kv_cache_utils")
    try:
        (found,) = utils.get_kv_cache_configs(config, [_specs(config)], [int(case.gib * GIB)])
    except ValueError as refused:
        longest = re.search(r"maximum model length is (\d+)", str(refused))
        return ["refused", f"longest {int(longest[1]) if longest else 0:,}", ""]
    tokens, concurrency = utils.get_kv_cache_capacity(config, found)
    return [f"{found.num_blocks:,}", f"{concurrency:.4f}", f"{tokens:,}"]


def _engine_config(folder: Path, case: Case) -> Any:  # noqa: ANN401 - vLLM's own
    arguments = importlib.import_module("vllm.engine.arg_utils").EngineArgs(
        model=str(folder),
        skip_tokenizer_init=True,
        max_model_len=case.length,
        max_num_seqs=64,
        max_num_batched_tokens=max(case.batched, 64),
        kv_cache_dtype=case.kv_dtype,
        load_format="dummy",
        enforce_eager=True,
    )
    return copy.deepcopy(arguments.create_engine_config())


def _specs(config: Any) -> dict[str, Any]:  # noqa: ANN401 - vLLM's own
    """Return what a worker reports: one spec per layer, from vLLM's reading of the model."""
    interface = importlib.import_module("vllm.v1.kv_cache_interface")
    torch_utils = importlib.import_module("vllm.utils.torch_utils")
    model, text = config.model_config, config.model_config.hf_text_config
    common = {
        "block_size": config.cache_config.block_size,
        "num_kv_heads": model.get_num_kv_heads(config.parallel_config),
        "head_size": model.get_head_size(),
        "dtype": torch_utils.kv_cache_dtype_str_to_dtype(config.cache_config.cache_dtype, model),
    }
    layers = range(text.num_hidden_layers)
    if model.use_mla:
        return {f"layer.{i}": interface.MLAAttentionSpec(**common) for i in layers}
    window = model.get_sliding_window()
    # Cohere 2 counts the tokens before a token (model_executor/models/commandr.py)
    looks_back = (window or 0) + int(text.model_type == "cohere2")
    kinds = getattr(text, "layer_types", None) or ["sliding_attention" if window else "full_attention"] * len(layers)
    return {
        f"layer.{i}": interface.SlidingWindowSpec(sliding_window=looks_back, **common)
        if kinds[i] == "sliding_attention"
        else interface.FullAttentionSpec(**common)
        for i in layers
    }


class _Duck(SimpleNamespace):
    """As much of a VllmConfig as the KV arithmetic asks for; everything else is None."""

    def __getattr__(self, name: str) -> None:
        return None


def theirs_elsewhere(case: Case, folder: Path, release: str) -> list[str]:
    """Return the answer of another release's arithmetic, for the shape that rackserve read."""
    for name in ("gguf", "gguf.constants", "gguf.quants", "diskcache"):
        sys.modules.setdefault(name, MagicMock())
    utils = importlib.import_module("vllm.v1.core.kv_cache_utils")
    shape = read_shape(folder)
    overlaps = 2 if case.overlapping and case.device == "cuda" else 1
    layout = importlib.import_module("vllm.v1.kv_cache_layout").KVCacheLayout.LBNHC if release == "0.33.0" else None
    config = _Duck(
        model_config=_Duck(max_model_len=case.length, original_max_model_len=case.length),
        parallel_config=_Duck(decode_context_parallel_size=1, prefill_context_parallel_size=1, tensor_parallel_size=1),
        scheduler_config=_Duck(
            max_num_batched_tokens=case.batched,
            disable_hybrid_kv_cache_manager=not case.hybrid,
        ),
        cache_config=_Duck(block_size=_block(case, shape, release), get_resolved_kv_cache_layout=lambda: layout),
        attention_config=_Duck(),
        max_in_flight_tokens=overlaps * case.batched,
        num_prefill_lookahead_tokens=0,
    )
    said: list[str] = []
    logger = MagicMock(info=lambda text, *rest: said.append(text % rest), info_once=lambda *_: None)
    setattr(utils, "logger", logger)  # noqa: B010 - mypy knows no vLLM
    specs, available = _duck_specs(shape, case, release), int(case.gib * GIB)
    try:
        if release == "0.10.2":
            found = utils.get_kv_cache_config(config, specs, available)
        elif release == "0.33.0":
            planning = importlib.import_module("vllm.v1.core.kv_cache_planning")
            groups = planning.get_global_kv_cache_groups(config, [specs])
            (found,) = planning.get_kv_cache_configs(config, [specs], [available], groups)
        else:
            (found,) = utils.get_kv_cache_configs(config, [specs], [available])
    except ValueError as refused:
        longest = re.search(r"maximum model length is (\d+)", str(refused))
        return ["refused", f"longest {int(longest[1]) if longest else 0:,}", ""]
    concurrency = utils.get_max_concurrency_for_kv_cache_config(config, found)
    logged = re.search(r"KV cache size: ([\d,]+) tokens", " ".join(said))
    tokens = logged[1] if logged else f"{int(concurrency * case.length):,}"
    return [f"{found.num_blocks:,}", f"{concurrency:.4f}", tokens]


def _window(shape: ModelShape, release: str) -> int:
    return shape.window + int(shape.window_with_itself and arithmetic_of(release).window_grows)


def _block(case: Case, shape: ModelShape, release: str) -> int:
    if case.device == "cpu":
        return arithmetic_of(release).cpu_block_size
    return case.block or (64 if shape.latent else 16)


def _duck_specs(shape: ModelShape, case: Case, release: str) -> dict[str, Any]:
    interface = importlib.import_module("vllm.v1.kv_cache_interface")
    torch = importlib.import_module("torch")
    latent = shape.latent
    common = {
        "block_size": _block(case, shape, release),
        "num_kv_heads": 1 if latent else max(1, shape.kv_heads // case.tensor_parallel),
        "head_size": latent.kv_lora_rank + latent.rope_dim if latent else shape.head_size,
        "dtype": torch.uint8 if case.kv_dtype == "fp8" else torch.bfloat16,
    }
    if release == "0.10.2":
        common["use_mla"] = latent is not None
    full = interface.MLAAttentionSpec if latent and release != "0.10.2" else interface.FullAttentionSpec
    return {
        f"layer.{i}": full(**common)
        if kind is Attention.FULL
        else interface.SlidingWindowSpec(sliding_window=_window(shape, release), **common)
        for i, kind in enumerate(shape.kv_layers)
    }


def check_functions(release: str) -> bool:
    """Compare every case with vLLM's functions."""
    print(f"| model and settings | KV GiB | max_model_len | vLLM {release}: blocks, concurrency, tokens | rackserve |")
    print("|---|---|---|---|---|")
    same = True
    if release in _READ_WHOLE:  # a process for each model takes 20 s
        vars(importlib.import_module("vllm.model_executor.models.registry"))["_run_in_subprocess"] = lambda call: call()
    for case in CASES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "config.json").write_text(json.dumps(case.config), encoding="utf-8")
            said = theirs(case, folder) if release in _READ_WHOLE else theirs_elsewhere(case, folder, release)
            answer = ours(case, folder, release)
        same &= said == answer
        verdict = "identical" if said == answer else " / ".join(filter(None, answer))
        print(
            f"| {case.name} | {case.gib:g} | {case.length} | {' / '.join(filter(None, said))} | {verdict} |", flush=True
        )
    return same


def check_engine(model: Path, gib: int, length: int, kv_dtype: str, release: str) -> bool:
    """Start the engine on the CPU and compare its log."""
    settings = Settings(
        max_model_len=length, max_num_seqs=8, available_kv=gib * GIB, device="cpu", kv_cache_dtype=kv_dtype
    )
    answer = plan(read_shape(model), Weights(0, Source.SHAPE), arithmetic_of(release), settings)
    arguments = {
        "model": str(model),
        "max_model_len": length,
        "max_num_seqs": 8,
        "max_num_batched_tokens": answer.batched_tokens,
        "kv_cache_dtype": kv_dtype,
        "enforce_eager": True,
        "skip_tokenizer_init": True,
        "load_format": "auto" if list(model.glob("*.safetensors")) else "dummy",
    }
    started = subprocess.run(
        [sys.executable, "-c", _ENGINE, json.dumps(arguments)],
        env={
            **os.environ,
            "VLLM_CPU_KVCACHE_SPACE": str(gib),
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    logged = LOG_LINE.search(started.stdout)
    refused = re.search(r"estimated maximum model length is (\d+)", started.stdout)
    if logged:
        said = f"{logged[1]} tokens, {logged[2]}x"
    elif refused:
        said = f"refused, longest {int(refused[1]):,}"
    else:
        raise SystemExit(f"the engine logged no size; it ended with {started.returncode}:\n{started.stdout[-4000:]}")
    expected = (
        f"{answer.capacity.tokens:,} tokens, {answer.capacity.max_concurrency:.2f}x"
        if answer.fits
        else f"refused, longest {min(answer.longest, length):,}"
    )
    verdict = "identical" if said == expected else expected
    print(f"| {model.name} | {gib} | {length} | {kv_dtype} | {said} | {verdict} |")
    return said == expected


def main() -> int:
    """Run the comparison that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    functions = commands.add_parser("functions")
    functions.add_argument("--release", default=RELEASE)
    engine = commands.add_parser("engine")
    engine.add_argument("model", type=Path)
    engine.add_argument("--gib", type=int, default=1)
    engine.add_argument("--max-model-len", type=int, required=True)
    engine.add_argument("--kv-cache-dtype", default="auto")
    engine.add_argument("--release", default=RELEASE)
    args = parser.parse_args()
    same = (
        check_functions(args.release)
        if args.command == "functions"
        else check_engine(args.model, args.gib, args.max_model_len, args.kv_cache_dtype, args.release)
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
