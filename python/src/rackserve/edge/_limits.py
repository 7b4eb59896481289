"""`nginx_max_*` and `nginx_hold_*`: what one request may ask of the edge and of an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

# Limits by name in the Lua code, with the variable of each. 128 is OpenAI's own bound of `n`, 2048 that of the texts of
# one request for embeddings, and 1000 that of the enum values of a schema.
_DEFAULTS: Final = {
    "sequences": ("nginx_max_sequences", 128),
    "inputs": ("nginx_max_inputs", 2048),
    "grammar_kib": ("nginx_max_grammar_kib", 64),
    "grammar_values": ("nginx_max_grammar_values", 1000),
    "body_mib": ("nginx_max_body_mib", 10),
    "bodies_mib": ("nginx_max_bodies_mib", 128),
}

# VLLM_MAX_N_SEQUENCES in engine.service.j2, for whoever reaches an engine beside the edge; vLLM's own is 16384.
_ENGINE_SEQUENCES: Final = 1024

# A worker from before a reload ends its requests in nginx_reload_timeout; a client waits less than ten minutes.
_LONGEST_HOLD_S: Final = 600
# Each takes one of the 16384 connections that four workers have, and memory: see docs/reference/edge.md.
_MOST_HELD: Final = 4096
_HOLD: Final = {
    "seconds": ("nginx_hold_timeout", 60, _LONGEST_HOLD_S),
    "requests": ("nginx_hold_requests", 512, _MOST_HELD),
}


def parse_hold(wanted: Mapping[str, Any]) -> dict[str, int]:
    """Return how long, and how many, requests are held whose model has no instance in rotation.

    Args:
        wanted: those of `seconds` (0 for off) and `requests` that differ from the defaults.

    Raises:
        InputError: naming the variable, the value found and what to set.
    """
    hold: dict[str, int] = {}
    for name, (variable, default, most) in _HOLD.items():
        found = str(wanted.get(name, default))
        if not found.isdecimal() or int(found) > most:
            raise InputError(f"{variable} is {wanted.get(name)!r}; set it to a number from 0 (off) to {most}")
        hold[name] = int(found)
    return hold


def parse_limits(wanted: Mapping[str, Any]) -> dict[str, int]:
    """Return all limits for the Lua code.

    Args:
        wanted: those of `sequences`, `inputs`, `grammar_kib`, `grammar_values`, `body_mib` and `bodies_mib` that differ
            from the defaults.

    Raises:
        InputError: naming the variable, the value found and what to set.
    """
    limits: dict[str, int] = {}
    for name, (variable, default) in _DEFAULTS.items():
        found = wanted.get(name, default)
        try:
            limits[name] = int(found)
        except (TypeError, ValueError):
            raise InputError(f"{variable} is {found!r}; set it to a number") from None
        if limits[name] < 1:
            raise InputError(f"{variable} is {found}; set it to 1 or more")
    if limits["sequences"] > _ENGINE_SEQUENCES:
        raise InputError(
            f"nginx_max_sequences is {limits['sequences']}, and an engine refuses more than {_ENGINE_SEQUENCES}; "
            "set that or less"
        )
    if limits["bodies_mib"] < limits["body_mib"]:
        raise InputError(
            f"nginx_max_bodies_mib is {limits['bodies_mib']}, less than one body of nginx_max_body_mib "
            f"{limits['body_mib']}; set it to {limits['body_mib']} or more"
        )
    return limits
