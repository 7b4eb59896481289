"""`rackserve doctor` on a small fleet: nothing on a healthy one, and the right cause first for each injected fault.

Hosts, services, Prometheus and its alerts are real. Engines and their units are stand-ins; those that fail replay what
vLLM 0.32.0 (CPU) wrote when the same fault was real (python/tests/data/journals).
"""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from testing.generations import unit_of
from testing.lab import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
JOURNALS = ROOT / "python/tests/data/journals"
UNIT = unit_of("smollm2", "0000000000")  # as converge.yml makes it
DROP_IN = f"/run/systemd/system/{UNIT}.d"
CERTIFICATE = "/etc/nginx/tls/server.crt"
PROBE = "/run/rackserve/probe/smollm2.json"
EDGE_STATE = "/var/lib/rackserve/edge"
MARK = {"label": "gpu1:smollm2", "by": "operator", "run": "", "weight": 0, "since": "2027-01-31T12:00:00Z"}
LOG = logging.getLogger(__name__)
METRICS = "/var/lib/prometheus/node-exporter"
# A scrape, an evaluation, the alert's own `for`, and two looks of the doctor.
ALERT_WITHIN_S = 200


class Fault(NamedTuple):
    """What is done to a host, what the doctor has to say first, and what mends it; `waits` for an alert to come."""

    rule: str
    host: str
    inject: str
    mend: str
    waits: bool = False


def said(journal: str) -> tuple[str, str]:
    text = base64.b64encode((JOURNALS / f"{journal}.txt").read_bytes()).decode()
    return (
        f"echo {text} | base64 -d > /run/said; systemctl restart {UNIT}; sleep 2",
        f"rm -f /run/said; systemctl reset-failed {UNIT}; systemctl start {UNIT}",
    )


FAULTS = {
    "nginx stopped": Fault("EdgeDown", "edge1", "systemctl stop nginx", "systemctl start nginx"),
    "Prometheus stopped": Fault(
        "service:prometheus.service", "edge1", "systemctl stop prometheus", "systemctl start prometheus; sleep 8"
    ),
    "exporter stopped": Fault(
        "service:prometheus-node-exporter.service",
        "gpu2",
        "systemctl stop prometheus-node-exporter",
        "systemctl start prometheus-node-exporter",
    ),
    "Alertmanager stopped": Fault(
        "service:prometheus-alertmanager.service",
        "edge1",
        "systemctl stop prometheus-alertmanager",
        "systemctl start prometheus-alertmanager",
    ),
    "disk full": Fault(
        "disk-full",
        "gpu1",
        "mkdir -p /var/cache/huggingface; mount -t tmpfs -o size=4m tmpfs /var/cache/huggingface;"
        " head -c 4100000 /dev/zero > /var/cache/huggingface/x",
        "umount /var/cache/huggingface",
    ),
    "drained at the edge": Fault(
        "drained-at-edge",
        "edge1",
        f"mkdir -p {EDGE_STATE}; echo '{json.dumps({'marks': [MARK]})}' >{EDGE_STATE}/rotation.json",
        f"rm {EDGE_STATE}/rotation.json",
    ),
    "closed on its host": Fault(
        "drained", "gpu1", "touch /var/lib/rackserve/drained/smollm2", "rm /var/lib/rackserve/drained/smollm2"
    ),
    "frozen engine": Fault(
        "InstanceHung",
        "gpu1",
        f"""echo '{{"state": "hung", "detail": "no token"}}' > {PROBE}""",
        f"""echo '{{"state": "ready", "detail": ""}}' > {PROBE}""",
    ),
    "engine killed": Fault(
        "killed",
        "gpu1",
        f"systemctl kill -s KILL {UNIT}; sleep 1",
        f"systemctl reset-failed; systemctl start {UNIT}",
    ),
    **{f"journal: {path.stem}": Fault(path.stem, "gpu1", *said(path.stem)) for path in sorted(JOURNALS.glob("*.txt"))},
    # After units that said why they ended: what they said is over.
    "start without an end": Fault(
        "start-timeout",
        "gpu1",
        f"mkdir -p {DROP_IN}; printf '[Service]\\nType=notify\\nTimeoutStartSec=2\\n' >{DROP_IN}/slow.conf;"
        f" systemctl daemon-reload; systemctl restart {UNIT}; sleep 1",
        f"rm -rf {DROP_IN}; systemctl daemon-reload; systemctl reset-failed {UNIT}; systemctl start {UNIT}",
    ),
    "bundle altered": Fault(
        "BundleAltered",
        "gpu2",
        f"cd {METRICS}; echo 'rackserve_bundle_intact 0' > x.new; chmod 644 x.new; mv x.new x.prom",
        f"rm {METRICS}/x.prom",
        waits=True,
    ),
    "certificate near its end": Fault(
        "CertificateExpiresNow",
        "edge1",
        f"cp -p {CERTIFICATE} /run/kept; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
        f" -subj /CN=lab -keyout /dev/null -out {CERTIFICATE}",
        f"cp -p /run/kept {CERTIFICATE}",
        waits=True,
    ),
    "clients refused by the socket proxy": Fault(
        "proxy-refuses",
        "gpu2",
        "systemctl set-property --runtime stand-in-engine.service IPAddressDeny=any IPAddressAllow=localhost",
        "systemctl revert stand-in-engine.service; rm -rf /run/systemd/system.control/stand-in-engine.service.d;"
        " systemctl daemon-reload; systemctl restart stand-in-engine",
        waits=True,
    ),
}


def rackserve(*words: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("rackserve"))
    return subprocess.run([program, *words], capture_output=True, text=True, check=False, env={**os.environ}, cwd=ROOT)


def on(host: str, line: str) -> None:
    rackserve("lab", "ssh", "--name", NAME, host, "--", line)


def findings() -> list[dict[str, Any]]:
    done = rackserve("doctor", "-i", "molecule/inventory", "--json")
    assert done.returncode in {0, 1}, done.stderr
    return list(json.loads(done.stdout)["findings"])


def first(found: list[dict[str, Any]]) -> str:
    if not found:
        return "nothing"
    top = found[0]
    return f"{top['rule']}:{top['cause'].split()[0]}" if top["rule"] == "service" else str(top["rule"])


def await_nothing() -> list[dict[str, Any]]:
    """Return what is found once nothing is, or after the time that an alert may take to clear."""
    deadline = time.monotonic() + ALERT_WITHIN_S
    while (found := findings()) and time.monotonic() < deadline:
        time.sleep(5)
    return found


def await_first(rule: str, within_s: float) -> list[dict[str, Any]]:
    """Return what is found once a cause comes first."""
    deadline = time.monotonic() + within_s
    while first(found := findings()) != rule and time.monotonic() < deadline:
        time.sleep(5)
    return found


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    yield
    for fault in FAULTS.values():
        on(fault.host, fault.mend)


def test_nothing_is_found_on_a_healthy_fleet() -> None:
    assert await_nothing() == []


@pytest.mark.parametrize("name", FAULTS)
def test_the_right_cause_comes_first(name: str) -> None:
    fault = FAULTS[name]
    on(fault.host, fault.inject)
    began = time.monotonic()
    try:
        found = await_first(fault.rule, ALERT_WITHIN_S if fault.waits else 0)
        LOG.warning("MEASURED %s: %s after %.0f s, of %d", name, first(found), time.monotonic() - began, len(found))
        assert first(found) == fault.rule, found
        assert found[0]["host"] in {fault.host, "gpu1"}
        assert found[0]["evidence"]
    finally:
        on(fault.host, fault.mend)
    if fault.waits:
        assert await_nothing() == []


def test_a_host_that_is_off_comes_first_and_is_gone_when_it_is_back() -> None:
    on("gpu2", "systemctl poweroff")
    began = time.monotonic()
    try:
        found = await_first("no-host", ALERT_WITHIN_S)
        LOG.warning("MEASURED host off: %s after %.0f s, of %d", first(found), time.monotonic() - began, len(found))
        assert (first(found), found[0]["host"]) == ("no-host", "gpu2"), found
    finally:
        assert rackserve("lab", "up", "--name", NAME).returncode == 0
        on("gpu2", f"systemctl start {UNIT}")
    assert await_nothing() == []
