"""The longest request of a model, as each vLLM release derives it from config.json.

Sources: `_get_and_verify_max_len` in `vllm/config.py` (0.6.4.post1), `vllm/config/__init__.py` (0.10.2) and
`vllm/config/model.py` (0.22.1 to 0.33.0), with `derive_max_model_len_and_key` of
`vllm/transformers_utils/model_arch_config_convertor.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Mapping

LENGTH_KEYS: Final = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
# Rope types whose factor is already in max_position_embeddings, in every release.
_WHOLE: Final = frozenset({"default", "su", "longrope", "llama3", "mrope"})
_SCALED: Final = frozenset({"linear", "dynamic", "ntk"})


@dataclass(frozen=True)
class Lengths:
    """What a model's longest request follows from.

    Attributes:
        smallest: the smallest of the lengths in config.json; None without any, which no release limits.
        override: `model_max_length`, up to which a request may go whatever the others say; 0 when there is none.
        factor: what a scaled rope multiplies it by.
        yarn: YaRN's original length x factor, which releases before 0.31.0 take; None without YaRN.
        known: False when the rope is of a kind that is not known here; no length is then claimed.
    """

    smallest: float | None
    override: int = 0
    factor: float = 1.0
    yarn: float | None = None
    known: bool = True

    def longest(self, *, yarn_scales: bool) -> int | None:
        """Return the longest max_model_len that vLLM accepts; None when it sets no limit, or none that is known here.

        Args:
            yarn_scales: whether the release multiplies YaRN's original length by its factor.
        """
        if not self.known or (self.smallest is None and self.yarn is None):
            return None
        length = self.yarn if yarn_scales and self.yarn is not None else (self.smallest or 0) * self.factor
        return max(int(length), self.override) or None


def lengths_of(text: Mapping[str, Any], model_type: str, sentence_length: int | None = None) -> Lengths:
    """Return what the longest request of a language model follows from; see Lengths.

    Args:
        text: the language model's part of config.json.
        model_type: its own.
        sentence_length: sentence-transformers' max_seq_length, which replaces all others.
    """
    if sentence_length:
        declared = text.get("model_max_length")
        return Lengths(float(sentence_length), declared if isinstance(declared, int) else 0)
    found = {key: text[key] for key in LENGTH_KEYS if text.get(key) is not None}
    if not all(_is_number(value) and value > 0 for value in found.values()):
        return Lengths(None, known=False)
    override = int(found.get("model_max_length", 0))
    smallest = float(override or min(found.values())) if found else None
    ropes = _ropes(text)
    if ropes is None:
        return Lengths(smallest, override, known=False)
    if "gemma3" in model_type:  # its max_position_embeddings is already scaled
        return Lengths(smallest, override)
    factor, yarn = 1.0, None
    for rope in ropes:
        kind, scale = rope.get("rope_type", rope.get("type")), rope.get("factor")
        if kind in _WHOLE:
            continue
        if kind in _SCALED and (scale is None or _is_number(scale)):
            factor = float(scale) if scale is not None else 1.0
            continue
        original = rope.get("original_max_position_embeddings")
        if kind != "yarn" or not _is_number(scale) or not _is_number(original):
            return Lengths(smallest, override, known=False)
        yarn = float(original) * float(scale)
    return Lengths(smallest, override, factor, yarn)


def _ropes(text: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """Return the parameters of the rope, one item per type of layer where they differ; None when they are no rope's."""
    raw = text.get("rope_parameters") or text.get("rope_scaling")
    if not raw:
        return []
    if not isinstance(raw, dict):
        return None
    parts = [part for part in raw.values() if isinstance(part, dict)]
    if parts and len(parts) == len(raw):
        return [part for part in parts if part]
    if parts:
        return None
    return [] if set(raw) <= {"rope_theta", "partial_rotary_factor"} else [raw]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
