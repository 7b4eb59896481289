"""The lab's own certificate authority, the edge's certificate, and the key of the lab's client."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from rackserve import pki
from rackserve._files import write_text
from rackserve.edge import new_key

from ._spec import EDGE_HOST, SERVER_NAME

if TYPE_CHECKING:
    from pathlib import Path


def ensure_pki(folder: Path, lab: str, edge_address: str) -> bool:
    """Make what is missing or ends soon: authority, certificate, client's key; return whether any was made."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = dt.datetime.now(dt.UTC)
    authority = pki.load(folder, "ca")
    made = authority is None or pki.renewal_due(authority.certificate.not_valid_after_utc, now)
    if made:
        pki.save(folder, "ca", pki.make_authority(f"rackserve lab {lab} CA {now:%Y-%m-%d}", now))
    made |= pki.ensure_server(folder, EDGE_HOST, [SERVER_NAME, EDGE_HOST, edge_address]) != "kept"
    client = folder / "client.key"
    if not client.is_file():
        write_text(client, f"{new_key().key}\n")
        made = True
    return made
