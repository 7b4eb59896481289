"""The edge's configuration: clients and their keys, and instances by model name."""

from __future__ import annotations

from rackserve.edge._backend import Backend, backends_of, named_backends, new_places
from rackserve.edge._client_trust import trust_problems
from rackserve.edge._clients import Client, Key, parse_clients
from rackserve.edge._keys import MadeKey, hash_of, new_key
from rackserve.edge._plan import plan_of
from rackserve.edge._shared_address import shared_address

__all__ = [
    "Backend",
    "Client",
    "Key",
    "MadeKey",
    "backends_of",
    "hash_of",
    "named_backends",
    "new_key",
    "new_places",
    "parse_clients",
    "plan_of",
    "shared_address",
    "trust_problems",
]
