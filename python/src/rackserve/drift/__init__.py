"""Drift: what differs on a site's hosts from what the last complete run left on them.

Here is what the roles declare as their own, which Ansible uses too; the comparison of a whole site (`fleet`) is
imported by name. What runs on a host is the program `host_state`.
"""

from rackserve.drift._owned import Owned, owned_by_roles

__all__ = ["Owned", "owned_by_roles"]
