"""rackserve: from bare-metal GPU hosts to a served, measured, upgradable vLLM fleet."""

from __future__ import annotations

__version__ = "0.1.0"
