"""Which layers of a model look back a window only, as its class in vLLM builds them.

Sources, in vLLM 0.32.0: `model_executor/models/` (the classes), `engine/arg_utils.py`, `create_engine_config` (a window
without layer_types is every layer's), `model_executor/layers/attention/attention.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackserve.capacity._families import Windows
from rackserve.capacity._numbers import flag, number
from rackserve.capacity._shape import Attention, NotComputedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackserve.capacity._families import Family

Kinds = tuple[Attention, ...]
_LAYER_TYPES: Final = {
    "full_attention": Attention.FULL,
    "attention": Attention.FULL,
    "sliding_attention": Attention.SLIDING,
    "chunked_attention": Attention.CHUNKED,
}


def windows_of(text: Mapping[str, Any], family: Family, layers: int) -> tuple[Kinds, int]:
    """Return how far back each layer looks, and the window, or chunk, in tokens; 0 when there is none.

    Raises:
        NotComputedError: when layers are of a kind, or named in a way, that the family is not known to have.
    """
    full = (Attention.FULL,) * layers
    window = number(text, "sliding_window", default=0)
    named = _named(text, layers)
    match family.windows:
        case Windows.NEVER:
            kinds = named or full
        case Windows.CHUNKED:
            return _chunked(text, named, layers)
        case Windows.ALTERNATING:
            kinds = tuple(Attention.FULL if layer % 2 else Attention.SLIDING for layer in range(layers))
            if named not in (None, kinds):
                raise NotComputedError("layer_types differs from the layers that vLLM gives a window")
        case Windows.QWEN:
            kinds, window = _qwen(text, named, window, layers)
        case Windows.PATTERN:
            kinds = named or _by_pattern(text, family, layers)
        case _:
            kinds = named or ((Attention.SLIDING,) * layers if window else full)
            if family.windows is Windows.UNIFORM and window and len(set(kinds)) > 1:
                raise NotComputedError("layer_types: vLLM's class of this model has one window for all layers")
    return _checked(kinds, window, family)


def _checked(kinds: Kinds, window: int, family: Family) -> tuple[Kinds, int]:
    if Attention.CHUNKED in kinds:
        raise NotComputedError("layer_types has chunked_attention, which is not known of this kind of model")
    if Attention.SLIDING in kinds and not window:
        raise NotComputedError("sliding_window is missing, and layers have one")
    if Attention.SLIDING not in kinds and window:
        if family.windows is Windows.NEVER or family.windows is Windows.QWEN:
            raise NotComputedError("sliding_window: no layer is known to have it, and releases differ in what they do")
        raise NotComputedError("sliding_window is set, and layer_types gives it to no layer; releases differ in that")
    return kinds, window


def _named(text: Mapping[str, Any], layers: int) -> Kinds | None:
    names = text.get("layer_types")
    if names is None:
        return None
    unknown = sorted({str(name) for name in names} - set(_LAYER_TYPES)) if isinstance(names, list) else [repr(names)]
    if unknown:
        raise NotComputedError(f"layer_types has {', '.join(unknown)}, whose cache is not computed here")
    if len(names) != layers:
        raise NotComputedError(f"layer_types names {len(names)} layers of {layers}")
    return tuple(_LAYER_TYPES[name] for name in names)


def _qwen(text: Mapping[str, Any], named: Kinds | None, window: int, layers: int) -> tuple[Kinds, int]:
    """Qwen's class drops its window unless use_sliding_window (transformers 5.19, configuration_qwen2.py)."""
    if not flag(text, "use_sliding_window", default=False):
        window = 0
    first = number(text, "max_window_layers", default=0) if "max_window_layers" in text else None
    if not window:
        if named and Attention.SLIDING in named:
            raise NotComputedError("layer_types has sliding_attention, and use_sliding_window is off")
        return (Attention.FULL,) * layers, 0
    if first is None and named is None:
        raise NotComputedError("use_sliding_window is on, and max_window_layers is missing")
    kinds = named or tuple(Attention.FULL if layer < (first or 0) else Attention.SLIDING for layer in range(layers))
    if len(set(kinds)) > 1:
        raise NotComputedError("max_window_layers: vLLM serves a window in every layer of this model, or in none")
    return kinds, window


def _by_pattern(text: Mapping[str, Any], family: Family, layers: int) -> Kinds:
    given = [text[key] for key in ("sliding_window_pattern", "_sliding_window_pattern") if text.get(key) is not None]
    every = given[0] if given else family.pattern
    if isinstance(every, bool) or not isinstance(every, int) or every < 1 or len({str(value) for value in given}) > 1:
        raise NotComputedError(f"sliding_window_pattern is {every!r}, and layer_types is missing")
    return tuple(Attention.SLIDING if (layer + 1) % every else Attention.FULL for layer in range(layers))


def _chunked(text: Mapping[str, Any], named: Kinds | None, layers: int) -> tuple[Kinds, int]:
    chunk = number(text, "attention_chunk_size", default=0)
    if text.get("sliding_window"):
        raise NotComputedError("sliding_window is not known of this kind of model")
    every = number(text, "no_rope_layer_interval", default=4)
    rope = text.get("no_rope_layers") or [int((layer + 1) % every != 0) for layer in range(layers)]
    if not isinstance(rope, list) or len(rope) != layers:
        raise NotComputedError(f"no_rope_layers does not name {layers} layers")
    kinds = tuple(Attention.CHUNKED if uses_rope and chunk else Attention.FULL for uses_rope in rope)
    if named not in (None, kinds):
        raise NotComputedError("layer_types differs from the layers that vLLM gives a chunk")
    return kinds, chunk
