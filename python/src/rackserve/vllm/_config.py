"""From an instance to the input of a vLLM release: arguments, the file given to `--config`, and the environment."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from rackserve.errors import InputError
from rackserve.vllm._arguments import switch_of
from rackserve.vllm._extra_args import negated

if TYPE_CHECKING:
    from rackserve.vllm._instances import Instance
    from rackserve.vllm._releases import Release

_BFLOAT16_FROM: Final = (8, 0)
_FLOAT16_FROM: Final = (7, 0)


def dtype_for(capability: tuple[int, int] | None) -> str:
    """Return the type that `auto` means on a GPU: bfloat16 from Ampere (8.0) on, float16 on Volta and Turing.

    Args:
        capability: the GPU's compute capability, major and minor; None when unknown, which leaves the choice to vLLM.

    Raises:
        InputError: for a GPU that no supported release serves.
    """
    if capability is None:
        return "auto"
    if capability < _FLOAT16_FROM:
        found = ".".join(map(str, capability))
        raise InputError(f"a GPU of compute capability {found} cannot run vLLM; use one of 7.0 or more")
    return "bfloat16" if capability >= _BFLOAT16_FROM else "float16"


def parser_of(instance: Instance, release: Release) -> str | None:
    """Return the tool-call parser of an instance: its own, or a known model's; None when tool calls are off."""
    if instance.tool_call_parser == "none" or instance.task != "generate":
        return None
    return instance.tool_call_parser or release.parser_for(instance.model.repo)


def cli_args(instance: Instance, release: Release) -> list[str]:
    """Return the arguments between `vllm serve` and `--config`; none for releases whose file can hold all settings.

    0.6.4 expects the model there, and joins a list in its file into one argument (`vllm/utils.py`,
    FlexibleArgumentParser).
    """
    args = [instance.model.repo] if release.model_on_command_line else []
    if not release.lists_in_config:
        for key, value in _settings(instance, release).items():
            if isinstance(value, list):
                args += [f"--{key}", *map(str, value)]
    return args


def config_of(
    instance: Instance,
    release: Release,
    *,
    flavour: str,
    engine: str,
    shutdown_timeout: int,
    capability: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Return the keys of a generation's `engine.yaml`.

    Every release drops a key whose value is false (measured from 0.10.2 to 0.33.0, read in 0.6.4's source), so a
    switch that is off is written as its negation, or not at all.

    Args:
        instance: what to serve.
        release: which vLLM will read it.
        flavour: `cpu` or `cuda`.
        engine: where the engine listens: a socket's path, or host:port.
        shutdown_timeout: seconds that running requests may take after SIGTERM, where the release waits for them.
        capability: compute capability of the instance's GPUs, which decides what dtype `auto` is.

    Raises:
        InputError: when the GPU is too old.
    """
    config = {
        **_settings(instance, release),
        **_listening(engine),
        "dtype": dtype_for(capability) if instance.dtype == "auto" and flavour == "cuda" else instance.dtype,
    }
    if flavour == "cuda":  # without a GPU, vllm_cpu_kvcache_gib is the memory of the KV cache
        config["gpu-memory-utilization"] = instance.gpu_memory_utilization or release.gpu_memory_utilization
    if "shutdown-timeout" in release.flags:
        config["shutdown-timeout"] = shutdown_timeout
    if release.model_on_command_line:
        del config["model"]
    if not release.lists_in_config:
        config = {key: value for key, value in config.items() if not isinstance(value, list)}
    return config


def _listening(address: str) -> dict[str, Any]:
    """Return the engine's address as configuration keys; clients connect to the socket proxy in front of it."""
    if address.startswith("/"):
        return {"uds": address}
    host, _, port = address.rpartition(":")
    return {"host": host, "port": int(port)}


def _settings(instance: Instance, release: Release) -> dict[str, Any]:
    """Return the settings that do not depend on the host."""
    parser, extra = parser_of(instance, release), extra_flags(instance)
    replaced = {switch_of(flag) for flag in extra}
    optional = {
        "tensor-parallel-size": instance.tensor_parallel if instance.tensor_parallel > 1 else None,
        "api-server-count": instance.api_server_count,
        "quantization": instance.quantization,
        "kv-cache-dtype": instance.kv_cache_dtype,
        "chat-template": instance.chat_template,
        "tool-call-parser": parser,
        "enable-auto-tool-choice": True if parser else None,
        "enable-lora": True if instance.lora else None,
        "lora-modules": [f"{adapter.name}={adapter.path or adapter.repo}" for adapter in instance.lora] or None,
    }
    return {
        "model": instance.model.repo,
        "revision": instance.model.revision,
        "served-model-name": list(instance.served_names),
        "max-model-len": instance.max_model_len,
        "max-num-seqs": instance.max_num_seqs,
        **_task(instance, release),
        **{flag: value for flag, value in _quiet(release).items() if switch_of(flag) not in replaced},
        **{key: value for key, value in optional.items() if value is not None},
        **extra,
    }


def _switch(key: str, release: Release, *, on: bool) -> dict[str, bool]:
    if on:
        return {key: True}
    return {negated(key): True} if release.negates_switches else {}


def _task(instance: Instance, release: Release) -> dict[str, Any]:
    """Return the settings for the model's task.

    Prefix caching of pooling models is left to the release: switched on, it would be used where it does not work
    (`engine/arg_utils.py` warns of a crash).
    """
    caching = _switch("enable-prefix-caching", release, on=instance.prefix_caching)
    if instance.task == "generate":
        return caching
    switched_off = {} if instance.prefix_caching else caching
    if "runner" not in release.flags:
        return {**switched_off, "task": "embedding"}
    return {**switched_off, "runner": "pooling", "convert": {"embed": "embed", "score": "classify"}[instance.task]}


def _quiet(release: Release) -> dict[str, Any]:
    """Switch off request logs, the API's documentation pages, and calls from other web origins; defaults only."""
    access_log = "disable-uvicorn-access-log" in release.flags
    return {
        **({"disable-log-requests": True} if release.log_requests == "unless-disabled" else {}),
        **({"disable-uvicorn-access-log": True} if access_log else {"uvicorn-log-level": "warning"}),
        "disable-fastapi-docs": True,
        **({"allowed-origins": "[]"} if release.allowed_origins else {}),
    }


def extra_flags(instance: Instance) -> dict[str, Any]:
    """Return the extra arguments; a mapping becomes the JSON that every release reads."""
    return {
        key: json.dumps(value) if isinstance(value, dict) else value
        for key, value in instance.flags.items()
        if value is not False
    }


def environment_of(instance: Instance, release: Release, flavour: str, cpu_kvcache_gib: int) -> dict[str, str]:
    """Return the variables of `/etc/vllm/instances/<name>.env` that differ between instances.

    Args:
        instance: what to serve.
        release: which vLLM.
        flavour: `cpu` or `cuda`.
        cpu_kvcache_gib: GiB of memory for the KV cache of a CPU instance.
    """
    args = cli_args(instance, release)
    found = {"RACKSERVE_SERVE_ARGS": " ".join(args)} if args else {}
    if flavour == "cpu":
        return {
            **found,
            "VLLM_CPU_KVCACHE_SPACE": str(cpu_kvcache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            # Instances share the cores: a thread that spins keeps off the one it waits for (docs/measurements/lab.md).
            "OMP_WAIT_POLICY": "passive",
        }
    return {
        **found,
        # By bus: CUDA's own order is by speed, so an index could mean another GPU than nvidia-smi's.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(str(gpu) for gpu in instance.gpus),
        # FlashInfer compiles its sampler at a first start: 95 s with nvcc, fatal without (docs/measurements/gpu.md).
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    }
