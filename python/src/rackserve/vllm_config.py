"""From an instance to what vLLM 0.32 reads: the file given to `--config`, and the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rackserve.instances import Instance


def config_of(instance: Instance, address: str, flavour: str, shutdown_timeout: int) -> dict[str, Any]:
    """Return the keys of `/etc/vllm/instances/<name>.yaml`.

    vLLM drops a key whose value is false (measured in every version from 0.10.2 to 0.33.0), so a switch that is off is
    written as its negation.

    Args:
        instance: what to serve.
        address: where to listen.
        flavour: `cpu` or `cuda`.
        shutdown_timeout: seconds that running requests get to end after SIGTERM.
    """
    config: dict[str, Any] = {
        "model": instance.model.repo,
        "revision": instance.model.revision,
        "served-model-name": list(instance.served_names),
        "host": address,
        "port": instance.port,
        "dtype": instance.dtype,
        "max-model-len": instance.max_model_len,
        "max-num-seqs": instance.max_num_seqs,
        "enable-prefix-caching" if instance.prefix_caching else "no-enable-prefix-caching": True,
        "shutdown-timeout": shutdown_timeout,
        "disable-uvicorn-access-log": True,
        "disable-fastapi-docs": True,
    }
    if instance.gpu_memory_utilization is not None and flavour == "cuda":
        config["gpu-memory-utilization"] = instance.gpu_memory_utilization
    optional = {
        "quantization": instance.quantization,
        "kv-cache-dtype": instance.kv_cache_dtype,
        "chat-template": instance.chat_template,
        "tool-call-parser": instance.tool_call_parser,
    }
    config.update({key: value for key, value in optional.items() if value is not None})
    if instance.tool_call_parser is not None:
        config["enable-auto-tool-choice"] = True
    if instance.lora:
        config["enable-lora"] = True
        config["lora-modules"] = [f"{adapter.name}={adapter.path or adapter.repo}" for adapter in instance.lora]
    return {**config, **instance.extra_args}


def environment_of(instance: Instance, flavour: str, cpu_kvcache_gib: int) -> dict[str, str]:
    """Return the variables of `/etc/vllm/instances/<name>.env` that differ between instances.

    Args:
        instance: what to serve.
        flavour: `cpu` or `cuda`.
        cpu_kvcache_gib: GiB of memory for the KV cache of a CPU instance.
    """
    if flavour == "cpu":
        return {"VLLM_CPU_KVCACHE_SPACE": str(cpu_kvcache_gib), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return {
        "CUDA_VISIBLE_DEVICES": ",".join(str(gpu) for gpu in instance.gpus),
        # FlashInfer compiles its sampler at the first start: 95 s with nvcc, the end of it without (docs/gpu.md).
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    }
