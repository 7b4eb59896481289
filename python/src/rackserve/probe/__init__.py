"""Healthy means that a token came out: the probe that runs on the hosts, and what it is told there."""

from rackserve.probe._settings import settings_of

__all__ = ["settings_of"]
