"""The rows about an instance's KV cache type, and about the compiler that kernels built on the host need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackserve.gpu import dotted, hardware
from rackserve.preflight._rows import Row, Verdict, row
from rackserve.vllm import releases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackserve.gpu import Backend, Capability, GpuFacts
    from rackserve.vllm import Instance, Release

_LEAVE_BACKEND: Final = "leave extra_args.attention-backend out: vLLM takes one that fits the GPU"
# FlashInfer's FP8 on GPUs without FP8 arithmetic is not refused by vLLM, and no report says that it works.
_FP8: Final = (8, 9)
_BFLOAT16: Final = (8, 0)


def backend_rows(
    instance: Instance,
    known: Sequence[Capability],
    facts: GpuFacts,
    release: Release,
    *,
    cached: bool,
    stored: str | None = None,
) -> list[Row]:
    """Return the rows about attention backend, KV cache and compiler of an instance.

    Args:
        instance: the instance to serve.
        known: compute capabilities of its GPUs, one at least.
        facts: the host's facts.
        release: which vLLM.
        cached: whether the locked packages bring FlashInfer's kernels compiled.
        stored: the type of the KV cache that the checkpoint asks for; see `checkpoint_kv_cache`.
    """
    name = instance.extra_args.get("attention-backend")
    backend = hardware().attention_backends.get(str(name).upper()) if name else None
    found = ", ".join(map(dotted, sorted(set(known))))
    rows = []
    if name is not None and backend is None:
        rows.append(Row("attention backend", str(name), "not one that gpus.yml lists", Verdict.UNKNOWN))
    if backend is not None:
        fits = all(map(backend.capabilities.has, known))
        rows.append(
            row("attention backend", f"{name}: {backend.capabilities.describe()}", found, _LEAVE_BACKEND, fits=fits)
        )
    asked = backend is not None and backend.compiles
    compiler = compiler_row(str(name) if asked else "", known, facts, release, cached=cached)
    kv_cache = _kv_cache(instance, stored, backend, min(known), release=release, compiler=compiler)
    rows += [kv_cache] if kv_cache else []
    # Where nobody asks for compiled kernels, only a compiler that would break them is worth a row.
    broken = compiler.verdict is Verdict.WARNING and _is_since("0.22.1", release)
    return [*rows, compiler] if asked or broken else rows


def compiler_row(backend: str, known: Sequence[Capability], facts: GpuFacts, release: Release, *, cached: bool) -> Row:
    """Judge the host's nvcc: it must know the GPUs, and be of the CUDA that the wheels are built with.

    A compiler that cannot be used is refused where an attention backend is named that needs it, and a warning else:
    vLLM may take FlashInfer by itself once it sees an nvcc (vllm 0.32.0, vllm/utils/flashinfer.py).

    Args:
        backend: the named backend whose kernels are compiled; empty where none is named.
        known: compute capabilities of the GPUs.
        facts: the host's facts.
        release: which vLLM.
        cached: whether the kernels come compiled.
    """
    wanted = f"nvcc {dotted(wheels_cuda(release))} or newer, or compiled kernels" + (f" ({backend})" if backend else "")
    what = "compiler for GPUs"
    if cached:
        return row(what, wanted, "kernels of flashinfer-jit-cache", "", fits=True)
    needed = max((hardware().compilers[dotted(c)] for c in known if dotted(c) in hardware().compilers), default=None)
    install = f"install nvcc {dotted(max(wheels_cuda(release), needed or (0, 0)))}"
    fix = f"{_LEAVE_BACKEND}; or {install}" if backend else f"{install}, or remove nvcc from the host"
    if not facts.host.nvcc:
        found = "neither" if facts.host.nvcc is None else "an nvcc that does not tell its version"
        return row(what, wanted, found, fix, fits=None if facts.host.nvcc == "" else False)
    has = version_of(facts.host.nvcc)
    found = f"nvcc {facts.host.nvcc}"
    newest = dotted(max(known))
    if needed and has < needed:
        found += f", and compute capability {newest} needs {dotted(needed)}"
    elif has[0] < wheels_cuda(release)[0]:
        found += f", older than CUDA {release.cuda} of vLLM {release.version}"
    elif has[0] > wheels_cuda(release)[0] or has < wheels_cuda(release) or needed is None:
        return Row(what, wanted, f"{found}, not known to work with CUDA {release.cuda}", Verdict.UNKNOWN, fix)
    else:
        return row(what, wanted, found, fix, fits=True)
    return Row(what, wanted, found, Verdict.REFUSED if backend else Verdict.WARNING, fix)


def kv_cache_backends(dtype: str, capability: Capability, release: Release) -> dict[str, Backend] | None:
    """Return the attention backends that store a KV cache type on a GPU, by name.

    None where gpus.yml does not know the type in this release.
    """
    listed = {
        (name, entry.capabilities): backend
        for name, backend in hardware().attention_backends.items()
        for entry in backend.kv_cache
        if dtype in entry.types and _is_since(entry.since, release)
    }
    if not listed:
        return None
    return {
        name: backend
        for (name, capabilities), backend in listed.items()
        if backend.capabilities.has(capability) and capabilities.has(capability)
    }


def checkpoint_kv_cache(config: Mapping[str, Any]) -> str | None:
    """Return the type of the KV cache that a checkpoint asks for where kv_cache_dtype is unset; None for the default.

    vllm 0.22.1 to 0.33.0: get_kv_cache_quant_algo_string() in utils/torch_utils.py for ModelOpt's checkpoints,
    kv_cache_scheme of compressed-tensors in model_executor/layers/attention/attention.py.

    Args:
        config: of the model, as config.json has it.
    """
    quantization = config.get("quantization_config")
    if not isinstance(quantization, dict):
        return None
    method, scheme = str(quantization.get("quant_method", "")), quantization.get("kv_cache_scheme")
    if method == "compressed-tensors":
        return "fp8" if scheme else None
    inner = quantization.get("quantization")
    parts = [part for part in (inner, quantization) if isinstance(part, dict)]
    keys = ("kv_cache_scheme", "kv_cache_quant_algo")
    asked = next((part[key] for key in keys for part in parts if part.get(key)), None)
    if not method.startswith("modelopt") or asked is None:
        return None
    if isinstance(asked, dict):
        bits = asked.get("num_bits") if asked.get("type") == "float" else None
        asked = {8: "fp8" if asked.get("dynamic") is False else "", 4: "nvfp4"}.get(bits or 0, "")
    return {"fp8": "fp8_e4m3", "nvfp4": "nvfp4"}.get(str(asked).lower())


def stores_fp8(capability: Capability | None, release: Release) -> bool:
    """Return whether an FP8 KV cache may be advised: a backend that needs no compiler stores it; True if unknown."""
    if capability is None:
        return True
    found = kv_cache_backends("fp8", capability, release)
    return capability >= _FP8 if found is None else any(not backend.compiles for backend in found.values())


def _is_since(first: str, release: Release) -> bool:
    order = list(releases())
    return order.index(first) <= order.index(release.version)


def _kv_cache(
    instance: Instance,
    stored: str | None,
    backend: Backend | None,
    oldest: Capability,
    *,
    release: Release,
    compiler: Row,
) -> Row | None:
    set_by_hand = instance.kv_cache_dtype not in (None, "auto")
    dtype = instance.kv_cache_dtype if set_by_hand else stored
    if dtype is None or dtype == "float16":
        return None
    leave = (
        "leave kv_cache_dtype out"
        if set_by_hand
        else f"set kv_cache_dtype: {_plain_type(oldest)}, which the checkpoint yields to"
    )
    unlisted = backend is None and "attention-backend" in instance.extra_args
    wanted, found = f"an attention backend that stores {dtype}", f"compute capability {dotted(oldest)}"
    fitting = kv_cache_backends(dtype, oldest, release)
    if fitting is None or unlisted:
        return Row("KV cache", wanted, f"{found}, not known for vLLM {release.version}", Verdict.UNKNOWN)
    if backend is not None:
        fitting = {name: one for name, one in fitting.items() if one is backend}
        wanted = f"{str(instance.extra_args['attention-backend']).upper()} stores {dtype}"
    if not fitting:
        return row("KV cache", wanted, f"{found}, where none does", leave, fits=False)
    names = ", ".join(fitting)
    if any(not one.compiles for one in fitting.values()):
        return row("KV cache", wanted, f"{found}: {names}", "", fits=True)
    # FlashInfer alone: without its kernels vLLM takes Triton's backend, which raises (v1/attention/backends).
    text, fix = f"{found}: {names} only, and {compiler.found}", f"{leave}, or install the compiler"
    if compiler.verdict in (Verdict.REFUSED, Verdict.WARNING):
        return row("KV cache", wanted, text, fix, fits=False)
    fits = True if compiler.verdict is Verdict.FITS and (oldest >= _FP8 or not dtype.startswith("fp8")) else None
    return row("KV cache", wanted, text, fix, fits=fits)


def _plain_type(oldest: Capability) -> str:
    return "bfloat16" if oldest >= _BFLOAT16 else "float16"  # as vLLM advises (v1/attention/backends/triton_attn.py)


def wheels_cuda(release: Release) -> tuple[int, int]:
    """Return the CUDA that a release's wheels are built with."""
    return version_of(release.cuda)


def version_of(text: str) -> tuple[int, int]:
    """Return the first two numbers of a version."""
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0]
    return int(major), int(minor) if minor.isdigit() else 0
