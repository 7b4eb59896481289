"""Scrape targets of Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def targets_of(hostvars: Mapping[str, Mapping[str, Any]], hosts: Sequence[str], port: int) -> list[dict[str, Any]]:
    """Return a scrape target on one port of each host: host, address, port.

    They are sorted: the order of Ansible's group `all` changes with the groups that a run makes.
    """
    return [{"host": host, "address": str(hostvars[host]["ansible_host"]), "port": port} for host in sorted(hosts)]
