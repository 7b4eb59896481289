"""An offline certificate authority: makes and renews the certificates of edges and clients; its key stays here."""

from __future__ import annotations

from rackserve.pki._certificates import Pair, issue_client, issue_server, make_authority, renew_authority, renewal_due
from rackserve.pki._folder import Outcome, Row, ensure_client, ensure_server, load, new_authority, rows, save
from rackserve.pki._revocation import ensure_list, revoke
from rackserve.pki._served import pair_problem

__all__ = [
    "Outcome",
    "Pair",
    "Row",
    "ensure_client",
    "ensure_list",
    "ensure_server",
    "issue_client",
    "issue_server",
    "load",
    "make_authority",
    "new_authority",
    "pair_problem",
    "renew_authority",
    "renewal_due",
    "revoke",
    "rows",
    "save",
]
