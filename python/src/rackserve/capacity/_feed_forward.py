"""The feed-forward part of a model, and what stands beside it: for the size of its weights only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rackserve.capacity._numbers import number
from rackserve.capacity._shape import Experts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackserve.capacity._families import Family


def width(text: Mapping[str, Any], family: Family, hidden: int) -> int:
    """Return the width of a dense layer; four times the model's where config.json has none."""
    names = family.names.get("intermediate_size", ("intermediate_size_mlp", "intermediate_size"))
    return number(text, *names, default=4 * hidden)


def experts(text: Mapping[str, Any], layers: int) -> Experts | None:
    """Return the mixture of experts; None for a dense model."""
    count = _whole(text, "n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
    if count <= 1:
        return None
    expert_width = _whole(text, "moe_intermediate_size", "intermediate_size") or 1
    step = _whole(text, "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq") or 1
    listed = text.get("mlp_only_layers")
    dense = _whole(text, "first_k_dense_replace") + (len(listed) if isinstance(listed, list) else 0)
    shared = _whole(text, "shared_expert_intermediate_size") or _whole(text, "n_shared_experts") * expert_width
    if text.get("model_type") == "llama4_text":
        shared = expert_width
    return Experts(
        count=count,
        width=expert_width,
        layers=max(0, layers - dense) // step,
        shared_width=shared,
        per_token=_whole(text, "num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_k") or 2,
    )


def vision_parameters(config: Mapping[str, Any]) -> int:
    """Estimate the parameters of the encoder for images."""
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        return 0
    hidden = _whole(vision, "hidden_size")
    depth = _whole(vision, "num_hidden_layers", "depth")
    return depth * (4 * hidden * hidden + 2 * hidden * (_whole(vision, "intermediate_size") or 4 * hidden))


def _whole(part: Mapping[str, Any], *keys: str) -> int:
    """Return the first of these that is a whole number of 1 or more, else 0."""
    return next(
        (
            value
            for key in keys
            if isinstance(value := part.get(key), int) and not isinstance(value, bool) and value > 0
        ),
        0,
    )
