"""LoRA adapters of instances: whether they fit model and release, and the instance settings for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rackserve.errors import InputError
from rackserve.servable import read_header
from rackserve.vllm._instances import Lora, parse_instances

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rackserve.vllm._instances import Instance
    from rackserve.vllm._releases import Release

CONFIG: Final = "adapter_config.json"
_WEIGHTS: Final = "adapter_model.safetensors"
# Layers that models name otherwise in their files than in vLLM, or that a tied model's files leave out.
_UNCOMPARED: Final = ("embed_tokens", "lm_head", "experts", "base_layer")
# Both from PEFTHelper of vLLM 0.32 (vllm/lora/peft_helper.py); older releases load some of these and answer wrongly.
_UNSERVED: Final = ("use_dora", "lora_bias", "layer_replication", "alora_invocation_tokens", "use_bdlora", "use_qalora")
_PLAIN_INITS: Final = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
_MOST_AT_ONCE: Final = 8  # each costs GPU memory, whether it is requested or not


@dataclass(frozen=True)
class Adapter:
    """An adapter's configuration, by PEFT's names."""

    rank: int
    base: str
    refused: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """Where adapters can be read: snapshots of the bundle, and the configurations of the operator's folders on a host.

    Attributes:
        snapshots: folder on the controller of every repository and commit that the bundle has.
        on_host: text of adapter_config.json by the adapter's folder; None where the host has none.
    """

    snapshots: Mapping[tuple[str, str], Path]
    on_host: Mapping[str, str | None]

    def read(self, lora: Lora) -> Adapter:
        """Read an adapter's configuration.

        Raises:
            InputError: when it is missing or invalid.
        """
        if lora.path is not None:
            text = self.on_host.get(lora.path)
            if text is None:
                raise InputError(
                    f"adapter {lora.name!r}: {lora.path}/{CONFIG} is not on the host; put the adapter there, or let "
                    "the bundle carry it and set repo and revision"
                )
            return parse_adapter(text, f"adapter {lora.name!r}: {lora.path}/{CONFIG}")
        folder = self.snapshots.get((lora.repo or "", lora.revision or ""))
        if folder is None:
            raise InputError(
                f"adapter {lora.name!r}: {lora.repo} at {lora.revision} is not in the bundle; add it to models in "
                f"bundle.yml, with repo: {lora.repo}, revision: {lora.revision} and its source, and build the bundle "
                "again (docs/how-to/lora.md)"
            )
        label = f"adapter {lora.name!r}: {CONFIG} of {lora.repo}"
        try:
            return parse_adapter((folder / CONFIG).read_text(encoding="utf-8"), label)
        except OSError as wrong:
            raise InputError(
                f"{label} is not in the bundle ({wrong.strerror}); is it a LoRA adapter in PEFT's format?"
            ) from wrong


def parse_adapter(text: str, label: str) -> Adapter:
    """Read the text of adapter_config.json.

    It refuses what vLLM 0.32 refuses when it loads the adapter.

    Raises:
        InputError: beginning with the label.
    """
    try:
        config: dict[str, Any] = json.loads(text)
        ranks = [int(config["r"]), *(int(rank) for rank in (config.get("rank_pattern") or {}).values())]
        base = str(config.get("base_model_name_or_path") or "")
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise InputError(f"{label} is not the configuration of a LoRA adapter ({wrong!r}); fetch it again") from wrong
    refused = [f"{key} is set" for key in _UNSERVED if config.get(key)]
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        refused.append(f"init_lora_weights is {init!r}, which changes the base model's weights too")
    if config.get("bias", "none") != "none":
        refused.append(f"bias is {config['bias']!r}")
    if saved := [name for name in config.get("modules_to_save") or [] if name not in ("classifier", "score")]:
        refused.append(f"modules_to_save has {', '.join(saved)}")
    if config.get("peft_type", "LORA") != "LORA":
        refused.append(f"peft_type is {config['peft_type']!r}")
    return Adapter(max(ranks), base, tuple(refused))


def validate_adapters(instance: Instance, sources: Sources, release: Release) -> list[str]:
    """Return a sentence for every adapter of an instance that vLLM would refuse or serve wrongly."""
    found: list[str] = []
    for lora in instance.lora:
        label = f"instance {instance.name!r}: adapter {lora.name!r}"
        try:
            adapter = sources.read(lora)
        except InputError as wrong:
            found.append(f"instance {instance.name!r}: {wrong}")
            continue
        if adapter.base != (lora.base or instance.model.repo):
            found.append(
                f"{label} is for {adapter.base or 'a model that it does not name'}, the instance serves "
                f"{instance.model.repo}; serve that model, or set the adapter's base: {adapter.base} if they are one"
            )
        if too_high := _rank_problem(adapter.rank, instance, release):
            found.append(f"{label} has rank {adapter.rank}; {too_high}")
        if adapter.refused:
            found.append(f"{label}: {', '.join(adapter.refused)}, which vLLM does not serve; train a plain LoRA")
        found += [f"{label}: {text}" for text in _module_problems(lora, instance, sources)]
    return found


def _rank_problem(rank: int, instance: Instance, release: Release) -> str | None:
    if rank > max(release.lora_ranks):
        return f"vLLM {release.version} takes at most {max(release.lora_ranks)}; train it with a lower one"
    limit = instance.extra_args.get("max-lora-rank")
    if isinstance(limit, int) and rank > limit:
        return f"extra_args.max-lora-rank is {limit}; leave that out, it follows from the adapters"
    return None


def _module_problems(lora: Lora, instance: Instance, sources: Sources) -> list[str]:
    """Compare the layers that an adapter has weights for with the model's; both must lie in the bundle."""
    adapter = sources.snapshots.get((lora.repo or "", lora.revision or ""))
    model = sources.snapshots.get((instance.model.repo, instance.model.revision))
    if adapter is None or model is None:
        return []
    if not (adapter / _WEIGHTS).is_file():
        return [f"{lora.repo} has no {_WEIGHTS}; save the adapter as safetensors"]
    has = {_layer(tensor.name) for file in model.glob("*.safetensors") for tensor in read_header(file)}
    names = [tensor.name for tensor in read_header(adapter / _WEIGHTS) if ".lora_" in tensor.name]
    changed = {_layer(name.partition(".lora_")[0] + ".weight") for name in names if not _uncompared(name)}
    if has and (unknown := sorted(changed - has)):
        return [f"it changes {', '.join(unknown)}, which {instance.model.repo} does not have; it is for another model"]
    return []


def _layer(tensor: str) -> str:
    return tensor.split(".")[-2] if "." in tensor else tensor


def _uncompared(name: str) -> bool:
    return any(part in name.split(".") for part in _UNCOMPARED)


def with_adapters(instance: Instance, sources: Sources, release: Release, hf_home: str) -> Instance:
    """Return an instance whose adapters are folders on the host, with the flags for their number and ranks.

    A repository's name would be looked up on the internet. Values in extra_args take precedence.

    Args:
        instance: as the inventory has it.
        sources: where its adapters are read.
        release: which vLLM, whose `--max-lora-rank` takes certain values only.
        hf_home: HF_HOME of the services.

    Raises:
        InputError: when an adapter cannot be read, or its rank is above every value.
    """
    if not instance.lora:
        return instance
    rank = max(sources.read(lora).rank for lora in instance.lora)
    if too_high := _rank_problem(rank, instance, release):
        raise InputError(f"instance {instance.name!r} has an adapter of rank {rank}; {too_high}")
    allowed = min(value for value in release.lora_ranks if value >= rank)
    at_once = min(len(instance.lora), instance.max_num_seqs, _MOST_AT_ONCE)
    flags = {"max-loras": at_once, "max-cpu-loras": max(len(instance.lora), at_once), "max-lora-rank": allowed}
    adapters = [
        Lora(name=lora.name, path=lora.path or snapshot_on_host(hf_home, lora.repo or "", lora.revision or ""))
        for lora in instance.lora
    ]
    return instance.model_copy(update={"lora": adapters, "extra_args": {**flags, **instance.extra_args}})


def snapshot_on_host(hf_home: str, repo: str, revision: str) -> str:
    """Return the folder of a snapshot in the Hugging Face cache of a host."""
    return f"{hf_home}/hub/models--{repo.replace('/', '--')}/snapshots/{revision}"


def adapter_folders(raw: Sequence[dict[str, Any]]) -> list[str]:
    """Return the folders of adapters that are not in the bundle, which are read on the host.

    None for invalid instances, which preflight refuses.
    """
    try:
        instances = parse_instances(raw)
    except InputError:
        return []
    return sorted({lora.path for instance in instances for lora in instance.lora if lora.path})
