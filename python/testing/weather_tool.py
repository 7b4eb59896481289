"""A tool with two arguments, each one of a few words: whether a call is right can be told."""

from __future__ import annotations

from typing import Any, Final

CITIES: Final = ("Paris", "Rome", "Madrid")
UNITS: Final = ("celsius", "fahrenheit")
TOOL: Final[Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells today's weather in a city.",
        # Without it vLLM 0.32 promises a call whose arguments are JSON, but not that they fit the schema.
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "enum": list(CITIES)},
                "unit": {"type": "string", "enum": list(UNITS)},
            },
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
