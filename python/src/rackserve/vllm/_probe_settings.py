"""From an instance to a generation's `probe.json`; the probe's own defaults are not repeated there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackserve.vllm._releases import release_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackserve.vllm._instances import Instance

# Flags that change what an answer holds, and so the golden one (vllm 0.32.0, config/model.py).
_IN_ANSWERS: Final = ("logprobs-mode", "return-tokens-as-token-ids")


def probe_settings(instance: Instance, engine: str, runtime: Mapping[str, str], start_timeout: int) -> dict[str, Any]:
    """Return the probe's settings for an instance.

    Args:
        instance: what is served.
        engine: where the engine listens: a socket's path, or host:port.
        runtime: `vllm`, the release, and `flavour`, the kind of host.
        start_timeout: seconds that a start may take.
    """
    settings = {
        "engine": engine,
        "model": instance.served_names[0],
        "steps": list(release_of(runtime["vllm"]).steps),
        "start_budget_s": float(start_timeout),
        "computes_on_cpu": runtime["flavour"] == "cpu",
    }
    if instance.task != "generate":
        return {**settings, "task": instance.task}  # only generating models have log-probabilities to compare
    if instance.lora:
        settings["adapters"] = True
    return {**settings, "golden_identity": golden_identity(instance, runtime)}


def golden_identity(instance: Instance, runtime: Mapping[str, str]) -> str:
    """Return the identity of a golden answer: it changes with model, release, number format, device and question."""
    parts = {
        "model": f"{instance.model.repo}@{instance.model.revision}",
        "vllm": f"{runtime['vllm']}+{runtime['flavour']}",
        "dtype": instance.dtype,
        "quantization": instance.quantization or "none",
        "kv": instance.kv_cache_dtype or "auto",
        "gpus": ",".join(str(gpu) for gpu in instance.gpus) or "none",
        **({"asked": "next"} if instance.lora else {}),
    }
    parts |= {flag: str(value) for flag, value in instance.flags.items() if flag in _IN_ANSWERS}
    return " ".join(f"{key}={value}" for key, value in parts.items())
