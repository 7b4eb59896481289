"""Whether a release has a checkpoint's quantization, and whether the GPU is new enough for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackserve.servable._facts import facts_of, releases_of, since_when
from rackserve.servable._snapshot import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rackserve.servable._facts import Capability, Facts
    from rackserve.servable._snapshot import Snapshot, Use

# model_arch_config_convertor.py: the algorithms of ModelOpt's own file, and the methods that they become.
_MODELOPT: Final = {
    "FP8": "modelopt",
    "FP8_PER_CHANNEL_PER_TOKEN": "modelopt",
    "FP8_PB_WO": "modelopt",
    "NVFP4": "modelopt_fp4",
    "MXFP8": "modelopt_mxfp8",
    "MIXED_PRECISION": "modelopt_mixed",
}
_ALIASES: Final = {"auto-round": "inc"}  # override_quantization_method of INCConfig; 0.10.2 takes both
_CARD: Final = "serve on a newer GPU, or serve another copy of the model"


def read_method(config: Mapping[str, Any], hf_quant_config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the quantization method of a checkpoint by vLLM's name, and its settings; an empty name for none.

    Args:
        config: config.json.
        hf_quant_config: hf_quant_config.json, where older ModelOpt keeps the settings.
    """
    text = config.get("text_config")
    parts = (config, text if isinstance(text, dict) else {})
    places = [part.get(key) for part in parts for key in ("quantization_config", "compression_config")]
    raw = next((place for place in [*places, hf_quant_config] if isinstance(place, dict) and place), None)
    if raw is None:
        return "", {}
    method = str(raw.get("quant_method") or "").lower().replace("compressed_tensors", "compressed-tensors")
    inner = raw.get("quantization")
    settings = inner if isinstance(inner, dict) else raw
    algorithm = str(settings.get("quant_algo") or "").upper()
    method = _ALIASES.get(method, method)
    if algorithm and (not method or method.startswith("modelopt")):
        method = _MODELOPT.get(algorithm, "")
    return method, raw


def quantization_findings(
    snapshot: Snapshot, config: Mapping[str, Any], version: str, facts: Facts, use: Use | None
) -> list[Finding]:
    """Return why a release or a GPU does not take the checkpoint's quantization, or the instance's."""
    if use is not None and "quantization_config" in use.overrides:
        return []
    method, raw = read_method(config, snapshot.json("hf_quant_config.json"))
    if method and method not in facts.quantization:
        has = releases_of("quantization", method)
        instead = f"set stack_runtime.vllm to {' or '.join(has)}, or serve" if has else "serve"
        when = f": {since_when(has)}" if has else ""
        what = f"its quantization is {method}, which vLLM {version} does not have{when}"
        return [Finding(f"{what}; {instead} a copy that is quantized otherwise")]
    if method in facts.deprecated and not (use and use.argument("allow-deprecated-quantization")):
        text = f"its quantization is {method}, which vLLM {version} is about to drop; set "
        allow = "extra_args.allow-deprecated-quantization: true, or serve a copy that is quantized otherwise"
        return [Finding(text + allow, refuses=use is not None)]
    floor = quantization_floor(version, method, raw) if method else None
    if use is None or use.capability is None or floor is None or use.capability >= floor:
        return []
    has_dotted, floor_dotted = (".".join(map(str, value)) for value in (use.capability, floor))
    return [
        Finding(
            f"its quantization is {method}, for which vLLM {version} wants compute capability {floor_dotted} or more, "
            f"and the GPU has {has_dotted}; {_CARD}"
        )
    ]


def quantization_floor(version: str, method: str, raw: Mapping[str, Any] | None = None) -> Capability | None:
    """Return the lowest compute capability for a method in a release; None where it is not known.

    Args:
        version: the release.
        method: by vLLM's name, as `quant_method` or `--quantization` has it.
        raw: the settings of the checkpoint, which decide the kernels of compressed-tensors.
    """
    facts = facts_of(version)
    floor = facts.quantization.get(method)
    if method != "compressed-tensors" or floor is None:
        return floor
    schemes = [facts.schemes.get(scheme) for scheme in _schemes(raw or {})]
    known = [scheme for scheme in schemes if scheme]
    # Layers of a mixture of experts take other kernels, so the mildest group is what surely fails.
    return max(floor, min(known)) if known and len(known) == len(schemes) else floor


def _schemes(raw: Mapping[str, Any]) -> Iterator[str]:
    """Return vLLM's class for each group, by the kind of its numbers (compressed_tensors.py, _get_scheme_from_parts).

    FP8 without the GPU's own FP8 runs as weights of 8 bits, so that is its floor.
    """
    groups = raw.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        weights = group.get("weights") if isinstance(group, dict) else None
        if not isinstance(weights, dict):
            continue
        inputs = group.get("input_activations")
        kind, bits = weights.get("type"), weights.get("num_bits")
        if (kind, bits) == ("float", 8):
            yield "CompressedTensorsW8A16Fp8"
        elif kind == "int" and not inputs:
            yield "CompressedTensorsWNA16"
        elif (kind, bits) == ("int", 8):
            yield "CompressedTensorsW8A8Int8"
        else:
            yield ""
