#!/usr/bin/python
# Apache License 2.0 (see LICENSE)
"""Ansible module: reads an edge's counters by instance, and Prometheus's alerts. Python 3.9 or newer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: edge_soak
short_description: Read an edge's counters by instance, and Prometheus's alerts
description:
  - Reads and never changes; check mode makes no difference. Read on every edge before and after a soak; the action
    C(rollout_soak) judges what was counted in between.
options:
  metrics: {description: "Address of the edge's metrics; empty on a host that is no edge.", type: str, default: ""}
  prometheus: {description: Where Prometheus listens on this host; empty on a host without it., type: str, default: ""}
author: The rackserve authors
"""

EXAMPLES = r"""
- name: Read the counters of an edge
  edge_soak: {metrics: "http://127.0.0.1:8080/metrics"}
"""

RETURN = r"""
counts: {description: "By the instance's label: requests, errors and broken.", returned: always, type: dict}
alerts: {description: Prometheus's alerts; null where it was not asked or gave no answer., returned: always, type: list}
time: {description: Seconds since the epoch., returned: always, type: float}
"""

import contextlib
import time
import urllib.request

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.rackserve_soak import alerts_of, counts_of

TIMEOUT_S = 20
# A site's proxy has no business between a host and its own ports.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def read(url: str) -> str:
    """Return the text of an address.

    Raises:
        OSError: when it does not answer.
    """
    with _OPENER.open(url, timeout=TIMEOUT_S) as answer:
        return str(answer.read().decode(errors="replace"))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "metrics": {"type": "str", "default": ""},
            "prometheus": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    metrics, prometheus = module.params["metrics"], module.params["prometheus"]
    alerts = None
    if prometheus:
        with contextlib.suppress(OSError):
            alerts = alerts_of(read(f"{prometheus}/api/v1/alerts"))
    try:
        counts = counts_of(read(metrics)) if metrics else {}
    except OSError as failed:
        module.fail_json(msg=f"{metrics} of this edge does not answer: {failed}; look at nginx on it")
    module.exit_json(changed=False, counts=counts, alerts=alerts, time=time.time())


if __name__ == "__main__":
    main()
