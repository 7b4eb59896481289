"""`rackserve capacity`: how many tokens and requests a model holds on a GPU, before anything is installed."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rackserve import capacity as cap
from rackserve.cli import EXIT_CHECK_FAILED, EXIT_OK
from rackserve.cli._options import add_json
from rackserve.errors import InputError
from rackserve.vllm import releases

if TYPE_CHECKING:
    from collections.abc import Callable

_FLAGS: Final = {
    "max_model_len": "--max-model-len",
    "utilization": "--utilization",
    "kv_cache_dtype": "--kv-cache-dtype",
    "tensor_parallel": "--tensor-parallel",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--model", required=True, metavar="DIR_OR_CONFIG", help="a model's folder, or its config.json")
    parser.add_argument("--gpu-memory", type=_gib, metavar="GIB", help="one GPU's memory, as mem_get_info() has it")
    parser.add_argument("--available-kv", type=_gib, metavar="GIB", help="memory of the KV cache, if it is set")
    parser.add_argument("--utilization", type=_share, metavar="F", help="--gpu-memory-utilization (vLLM's default)")
    parser.add_argument("--max-model-len", type=_count, metavar="N", help="longest request (the model's longest)")
    parser.add_argument("--max-num-seqs", type=_count, default=256, metavar="N", help="requests at once (256)")
    parser.add_argument("--tensor-parallel", type=_count, default=1, metavar="N", help="GPUs that share the model (1)")
    parser.add_argument("--quantization", metavar="Q", help="fp8 to quantize plain weights, or the checkpoint's own")
    parser.add_argument("--kv-cache-dtype", choices=cap.KV_DTYPES, default="auto")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float16", "float32"), default="auto")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--block-size", type=_count, metavar="N", help="tokens per block (the device's)")
    parser.add_argument("--max-num-batched-tokens", type=_count, metavar="N", help="tokens per step (vLLM's default)")
    parser.add_argument("--enforce-eager", action="store_true", help="no CUDA graphs")
    parser.add_argument("--release", choices=tuple(releases()), default=cap.DEFAULT_RELEASE, help="vLLM's version")
    add_json(parser, "the answer")
    parser.add_argument("--svg", metavar="FILE", help="also draw how the memory is spent")
    parser.set_defaults(handler=capacity)


def capacity(args: argparse.Namespace) -> int:
    """Run the command."""
    model = Path(args.model).expanduser()
    shape, release = cap.read_shape(model), cap.arithmetic_of(args.release)
    length = args.max_model_len or cap.longest_request(shape, release)
    if length is None:
        raise InputError("the model's config.json sets no longest request that is known here; set --max-model-len")
    settings = cap.Settings(
        max_model_len=length,
        max_num_seqs=args.max_num_seqs,
        gpu_bytes=args.gpu_memory,
        available_kv=args.available_kv,
        utilization=args.utilization,
        tensor_parallel=args.tensor_parallel,
        kv_cache_dtype=args.kv_cache_dtype,
        device=args.device,
        dtype=args.dtype,
        block_size=args.block_size,
        max_num_batched_tokens=args.max_num_batched_tokens,
        enforce_eager=args.enforce_eager,
    )
    plan = cap.plan(shape, cap.weights_of(model, shape, args.quantization), release, settings)
    if args.svg:
        _write(Path(args.svg).expanduser(), cap.svg(plan))
    print(json.dumps(as_json(plan), indent=2) if args.json else as_text(plan))
    return EXIT_OK if plan.fits else EXIT_CHECK_FAILED


def as_json(plan: cap.Plan) -> dict[str, Any]:
    """Return the answer under stable keys; sizes are bytes."""
    budget, layout = plan.budget, plan.layout
    return {
        "fits": plan.fits,
        "release": plan.release.version,
        "model_type": plan.shape.model_type,
        "weights": {"bytes": plan.weights.size, "source": plan.weights.source.name.lower()},
        "memory": [asdict(part) for part in cap.parts_of(plan)],
        "available_kv_bytes": budget.available,
        "available_kv_predicted": budget.predicted,
        "available_kv_doubt_bytes": budget.doubt,
        "bytes_per_token": layout.bytes_per_token,
        "block_size": layout.block_size,
        "block_bytes": layout.block_bytes,
        "blocks": plan.capacity.num_blocks,
        "blocks_per_request": layout.blocks_per_request(plan.settings.max_model_len),
        "kv_tokens": plan.capacity.tokens,
        "max_concurrency": plan.capacity.max_concurrency,
        "max_model_len": plan.settings.max_model_len,
        "largest_max_model_len": plan.longest,
        "max_num_batched_tokens": plan.batched_tokens,
        "needed_kv_bytes": plan.needed,
        "remedies": [] if plan.fits else [asdict(remedy) for remedy in cap.remedies(plan)],
        "advice": advice(plan),
    }


def as_text(plan: cap.Plan) -> str:
    """Return the answer for a reader."""
    shape = plan.shape
    heads = "one latent vector" if shape.latent else f"{shape.kv_heads} KV heads of {shape.head_size}"
    heads = heads if shape.kv_layers else "an encoder"
    lines = [
        f"{shape.model_type}: {shape.layers} layers, {heads}, {shape.dtype}; vLLM {plan.release.version}",
        "",
        cap.bar(plan),
        "",
        *_held(plan),
        "",
        *(f"- {line}" for line in advice(plan)),
    ]
    return "\n".join(lines).rstrip()


def _held(plan: cap.Plan) -> list[str]:
    layout, found, gpus = plan.layout, plan.capacity, plan.settings.tensor_parallel
    if not plan.shape.kv_layers:
        return ["no KV cache: an encoder reads a request at once and keeps nothing"]
    where = f" on each of {gpus} GPUs" if gpus > 1 else ""
    blocks = f"{found.num_blocks:,} blocks of {layout.block_size} tokens"
    requests = f"{found.max_concurrency:.2f} requests of {plan.settings.max_model_len:,} tokens"
    return [
        f"KV cache{where}: {layout.bytes_per_token:,} bytes per token, {blocks}",
        f"holds {found.tokens:,} tokens: {requests}",
    ]


def advice(plan: cap.Plan) -> list[str]:
    """Return what the operator should know or change, most important first."""
    settings, budget = plan.settings, plan.budget
    said = []
    if not plan.fits:
        request = (
            f"one request of {settings.max_model_len:,} tokens needs {plan.needed / cap.GIB:.2f} GiB of KV cache"
            if plan.shape.kv_layers
            else "the weights and activations do not fit"
        )
        said.append(f"does not start: {request}, {plan.short / cap.GIB:.2f} GiB more than there are")
        said += [f"starts with {_as_flag(remedy)}" for remedy in cap.remedies(plan)] or [
            "no single change makes it fit; take a smaller model, or larger GPUs"
        ]
    elif plan.shape.kv_layers and plan.capacity.max_concurrency < settings.max_num_seqs:
        said.append(
            f"{settings.max_num_seqs} requests at once fit while they average "
            f"{plan.capacity.tokens // settings.max_num_seqs:,} tokens; longer ones wait or are preempted"
        )
    shared = plan.shape.latent is not None or settings.tensor_parallel > plan.shape.kv_heads
    if plan.shape.kv_layers and settings.tensor_parallel > 1 and shared:
        said.append("each GPU keeps what others keep too: more GPUs shrink the weights, not the KV cache")
    if budget.predicted and plan.shape.kv_layers:
        said += _on_prediction(plan)
    return said


def _on_prediction(plan: cap.Plan) -> list[str]:
    budget = plan.budget
    size, doubt = f"{budget.available / cap.GIB:.2f}", f"{budget.doubt / cap.GIB:.2f}"
    said = [f"the KV cache's {size} GiB are predicted, give or take {doubt}; what follows from them is exact"]
    if not plan.fits:
        return said
    if plan.needed > budget.available - budget.doubt:
        said.append("that it starts is within the doubt of the prediction: leave more room, or try it")
    if plan.release.version != "0.6.4.post1":
        said.append(f"for the same tokens at every start: --kv-cache-memory-bytes {budget.available - budget.doubt}")
    return said


def _as_flag(remedy: cap.Remedy) -> str:
    if remedy.setting == "available_kv":
        return f"--available-kv {math.ceil(int(remedy.value) / cap.GIB * 100) / 100:.2f}"
    return f"{_FLAGS[remedy.setting]} {remedy.value}"


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as wrong:
        raise InputError(f"cannot write --svg {file}: {wrong.strerror}; give a file in a folder that exists") from wrong


def _number(convert: Callable[[str], float], low: float, high: float, what: str) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not low < value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return parse


_share: Final = _number(float, 0, 1, "a share above 0 and up to 1, such as 0.9")
_positive: Final = _number(float, 0, 1_000_000, "a number of GiB above 0, such as 79.2")


def _gib(text: str) -> int:
    return int(_positive(text) * cap.GIB)


def _count(text: str) -> int:
    return int(_number(int, 0, math.inf, "a whole number of 1 or more")(text))
