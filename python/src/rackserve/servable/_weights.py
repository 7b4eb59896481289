"""Weights: there, in a format that the release loads, every file that an index names, and each of them whole."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rackserve.servable._safetensors import fault_of
from rackserve.servable._snapshot import Finding, architectures_of, prefers_mistral, shorten

if TYPE_CHECKING:
    from rackserve.servable._snapshot import Snapshot, Use

_SAFETENSORS: Final = (".safetensors",)
_ADD: Final = "add what is missing to the model's files in bundle.yml and build the bundle again"
_SHARD: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<ending>\.safetensors|\.bin)")
# Files that vLLM leaves out too (weight_utils.py, filter_files_not_needed_for_inference).
_NO_WEIGHTS: Final = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")


@dataclass(frozen=True)
class _Format:
    """Files of weights that a load format reads, in the order in which it looks for them, each with their index."""

    patterns: tuple[tuple[str, str], ...]


_HF: Final = (
    (r"[^/]+\.safetensors", "model.safetensors.index.json"),
    (r"[^/]+\.bin", "pytorch_model.bin.index.json"),
    (r"[^/]+\.pt", ""),
)
_MISTRAL: Final = (r"consolidated[^/]*\.safetensors", "consolidated.safetensors.index.json")
# vLLM's DefaultModelLoader, `_prepare_weights`; what other load formats read is left to vLLM.
_FORMATS: Final = {
    "auto": _Format(_HF),
    "hf": _Format(_HF),
    "safetensors": _Format(_HF[:1]),
    "fastsafetensors": _Format(_HF[:1]),
    "instanttensor": _Format(_HF[:1]),
    "mistral": _Format((_MISTRAL,)),
    "pt": _Format(_HF[2:]),
    "npcache": _Format(_HF[1:2]),
}


def weight_findings(snapshot: Snapshot, version: str | None, use: Use | None) -> list[Finding]:
    """Return what is wrong with the weights that a release would load.

    Args:
        snapshot: the model's folder.
        version: the release; None checks what all releases share.
        use: the instance; None where it is not known.
    """
    name = str((use and use.argument("load-format")) or "auto")
    chosen = _FORMATS.get(name)
    if chosen is None:
        return _gguf_findings(snapshot) if name == "gguf" else []
    for pattern, index in _looked_for(chosen, name, version):
        files = [file for file in snapshot.sizes if re.fullmatch(pattern, file) and file not in _NO_WEIGHTS]
        if files:
            return _index_findings(snapshot, files, index) or _whole_findings(snapshot, files)
    return _none_findings(snapshot, name, use)


def _looked_for(chosen: _Format, name: str, version: str | None) -> tuple[tuple[str, str], ...]:
    return (_MISTRAL, *chosen.patterns) if name == "auto" and prefers_mistral(version) else chosen.patterns


def _index_findings(snapshot: Snapshot, files: list[str], index: str) -> list[Finding]:
    weight_map: Any = snapshot.json(index).get("weight_map") if index else None
    if isinstance(weight_map, dict) and weight_map:
        named = sorted({str(file) for file in weight_map.values()})
        if missing := [file for file in named if file not in snapshot.sizes]:
            return [Finding(f"{index} names {len(named)} files, and {shorten(missing)} {_is(missing)} missing; {_ADD}")]
        return []
    return _shard_findings(files)


def _shard_findings(files: list[str]) -> list[Finding]:
    """Compare shards that no index names with the count in their own names."""
    shards = [found for file in files if (found := _SHARD.fullmatch(file))]
    has = {found.group(0) for found in shards}
    missing = sorted(
        {
            name
            for found in shards
            for number in range(1, int(found["count"]) + 1)
            if (name := f"{found['stem']}-{number:05}-of-{found['count']}{found['ending']}") not in has
        }
    )
    # A count from 0 is another way of naming; what it means is left to vLLM.
    if not missing or any(found["number"] == "00000" for found in shards):
        return []
    return [Finding(f"of {shards[0]['count'].lstrip('0')} shards {shorten(missing)} {_is(missing)} missing; {_ADD}")]


def _whole_findings(snapshot: Snapshot, files: list[str]) -> list[Finding]:
    faults = {file: _fault(snapshot, file) for file in files}
    return [Finding(f"{file} is not whole: {fault}; fetch it again") for file, fault in faults.items() if fault]


def _fault(snapshot: Snapshot, file: str) -> str | None:
    path = snapshot.folder / file
    if snapshot.sizes[file] == 0:
        return "it is empty"
    if snapshot.is_pointer(file):
        return "it is a Git LFS pointer"
    if file.endswith(_SAFETENSORS):
        return fault_of(path)
    with path.open("rb") as stream:
        zipped = stream.read(4) == b"PK\x03\x04"  # torch.save since 1.6
    return "it is cut off at its end" if zipped and not zipfile.is_zipfile(path) else None


def _none_findings(snapshot: Snapshot, name: str, use: Use | None) -> list[Finding]:
    """Say that there is nothing to load; without an instance, a folder may be there for its tokenizer."""
    if gguf := _gguf_findings(snapshot):
        return gguf
    reads = {"auto": "*.safetensors, *.bin or *.pt", "hf": "*.safetensors, *.bin or *.pt"}.get(name) or ", ".join(
        pattern.replace(r"[^/]+\.", "*.").replace(r"[^/]*\.", "*.") for pattern, _ in _FORMATS[name].patterns
    )
    kinds = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx")
    other = [file for file in snapshot.top(*kinds) if file not in _NO_WEIGHTS]
    beside = f"; it has {shorten(other)}" if other else ""
    fix = "leave extra_args.load-format out" if other and name not in ("auto", "hf") else _ADD
    return [Finding(f"it has no weights ({reads}){beside}; {fix}", refuses=use is not None or _looks_whole(snapshot))]


def _gguf_findings(snapshot: Snapshot) -> list[Finding]:
    """Refuse GGUF: the releases that load it (up to 0.22.1) want a file's path as the model, or `repository:type`."""
    if not snapshot.top(".gguf"):
        return []
    text = "it has its weights as GGUF only, which an instance cannot load by repository; take the repository that has "
    return [Finding(text + "them as safetensors")]


def _looks_whole(snapshot: Snapshot) -> bool:
    """Return whether a folder without weights was meant to be served: one for its tokenizer needs no config.json."""
    indexed = snapshot.has("model.safetensors.index.json", "pytorch_model.bin.index.json")
    return indexed or (
        bool(architectures_of(snapshot.json("config.json"))) and snapshot.has("tokenizer.json", "tokenizer.model")
    )


def adapter_findings(snapshot: Snapshot) -> list[Finding]:
    """Return what is wrong with the weights of an adapter."""
    name = "adapter_model.safetensors"
    if snapshot.has(name):
        return _whole_findings(snapshot, [name])
    return [Finding(f"it is an adapter without {name}; save it as safetensors, and add that to its files")]


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"
