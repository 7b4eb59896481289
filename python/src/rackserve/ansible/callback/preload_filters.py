"""Loads every filter once, before Ansible forks a worker for each task on each host.

Filters are loaded where they are first used: in a worker, which ends with its task. Each task then imported this
package anew, at sixteen times the price (docs/architecture.md).
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Prints nothing."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "preload_filters"

    def v2_playbook_on_start(self, playbook: Any) -> None:  # noqa: ANN401, ARG002 - Ansible's class is untyped
        """Load our filters; the loader reads all others on its way."""
        filter_loader.get("rackserve_backends")
