"""Faults on a small fleet: each pages through Alertmanager within its time, and clears after it is mended.

The engines are stand-ins that tell what a real one told; everything else is real. All faults but the last come at once.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from testing.lab import NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
TOKEN = Path(__file__).parents[1].joinpath("files/pager.token").read_text(encoding="utf-8").strip()
LOG = logging.getLogger(__name__)
CERTIFICATE = "/etc/nginx/tls/server.crt"
PROBE_METRICS = "/var/lib/prometheus/node-exporter/rackserve_instance_stand-in.prom"
ADDRESS = "$(hostname -I | cut -d' ' -f1)"
# A scrape, an evaluation and Alertmanager's wait for others of the group; clearing waits for the group's interval.
PATH_S = 15 + 15 + 10
CLEARS_WITHIN_S = 150


class Fault(NamedTuple):
    """What is done to a host, which alert has to come how long after its `for`, and what mends it."""

    alert: str
    host: str
    inject: str
    mend: str
    for_s: int

    @property
    def within_s(self) -> int:
        return self.for_s + PATH_S + 20


def near_its_end() -> str:
    """Return a certificate that holds for another day."""
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    return base64.b64encode(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)).decode()


FAULTS = {
    # The first to be mended: with another's certificate nginx does not start again.
    "certificate near its end": Fault(
        "CertificateExpiresNow",
        "edge1",
        f"cp -p {CERTIFICATE} /run/kept; echo {near_its_end()} | base64 -d >{CERTIFICATE}",
        f"cp -p /run/kept {CERTIFICATE}",
        60,
    ),
    "nginx stopped": Fault("EdgeDown", "edge1", "systemctl stop nginx", "systemctl start nginx", 30),
    "scrape cut": Fault(
        "TargetDown",
        "gpu2",
        "systemctl stop prometheus-node-exporter",
        "systemctl start prometheus-node-exporter",
        120,
    ),
    "engine frozen": Fault("VllmHung", "gpu1", "touch /run/frozen", "rm /run/frozen", 120 + 120),
    "disk full": Fault(
        "DiskFull",
        "gpu1",
        "mkdir -p /srv/small; mount -t tmpfs -o size=4m tmpfs /srv/small; head -c 3900000 /dev/zero >/srv/small/log",
        "umount /srv/small",
        60,
    ),
    "clock off": Fault(
        "ClockSkew",
        "gpu1",
        "systemctl stop prometheus-node-exporter;"
        " systemd-run --quiet --unit=real-exporter prometheus-node-exporter --web.listen-address=127.0.0.1:9101;"
        f" systemd-run --quiet --unit=clock python3 /usr/local/lib/clock.py {ADDRESS}",
        "systemctl stop clock real-exporter; systemctl start prometheus-node-exporter",
        60,
    ),
    # The other host's probe is silent too, as its exporter is, and pages nobody.
    "probe gone": Fault(
        "ProbeMissing",
        "gpu1",
        f"systemctl stop stand-in-probe; rm {PROBE_METRICS}",
        "systemctl start stand-in-probe",
        300,
    ),
}
# Alone: a host whose exporter and engine are both silent is said to be down.
KILLED = Fault(
    "VllmInstanceDown", "gpu2", "systemctl kill -s KILL stand-in-engine", "systemctl start stand-in-engine", 60
)
HOST_OFF = Fault("HostDown", "gpu1", "systemctl poweroff", "", 60)


def rackserve(*words: str) -> subprocess.CompletedProcess[str]:
    """Run one of the controller's commands."""
    program = str(Path(sys.executable).with_name("rackserve"))
    return subprocess.run([program, *words], capture_output=True, text=True, check=False, env={**os.environ})


def on(host: str, line: str) -> str:
    return rackserve("lab", "ssh", "--name", NAME, host, "--", line).stdout


def pages() -> list[dict[str, Any]]:
    return [json.loads(line) for line in on("edge1", "cat /run/pages").splitlines()]


def alerts() -> set[tuple[str, str, str]]:
    """Return Prometheus's alerts: name, host and state."""
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9090/api/v1/alerts').read().decode())"
    told = json.loads(on("edge1", f'python3 -c "{ask}"'))["data"]["alerts"]
    return {(one["labels"]["alertname"], one["labels"].get("host", ""), one["state"]) for one in told}


def came(alert: str, host: str, status: str, since: float, within_s: float) -> dict[str, Any]:
    """Wait for a page."""
    while True:
        for page in pages():
            if (page["alertname"], page.get("host"), page["status"]) == (alert, host, status) and page["at"] >= since:
                return page
        assert time.time() < since + within_s, f"no {status} page of {alert} on {host} in {within_s} s; {pages()[-9:]}"
        time.sleep(2)


@pytest.fixture(scope="module")
def injected() -> Iterator[dict[str, float]]:
    """Break everything but a host, and return when each was broken."""
    times = {}
    for name, fault in FAULTS.items():
        on(fault.host, fault.inject)
        times[name] = time.time()
    yield times
    for fault in FAULTS.values():
        on(fault.host, fault.mend)


@pytest.fixture(scope="module")
def mended(injected: dict[str, float]) -> dict[str, float]:
    """Mend everything again, and return when."""
    assert injected
    times = {}
    for name, fault in FAULTS.items():
        on(fault.host, fault.mend)
        times[name] = time.time()
    return times


def test_a_healthy_fleet_pages_nobody() -> None:
    on("edge1", "rm -f /run/pages")
    time.sleep(90)
    assert {page["alertname"] for page in pages()} == {"Watchdog"}


def test_the_dead_mans_switch_hears_watchdog_and_nobody_else_does() -> None:
    heard = [page for page in pages() if page["alertname"] == "Watchdog"]
    assert {page["path"] for page in heard} == {"/dead-man"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_pages_within_its_time(injected: dict[str, float], name: str) -> None:
    fault = FAULTS[name]
    page = came(fault.alert, fault.host, "firing", injected[name], fault.within_s)
    LOG.warning("MEASURED %s: %.0f s", name, page["at"] - injected[name])
    assert page["token"].split() == ["Bearer", TOKEN]


def test_a_host_of_which_only_the_exporter_ended_is_not_said_to_be_down() -> None:
    assert [page for page in pages() if page["alertname"] == "HostDown"] == []


def test_a_stopped_exporter_silences_that_probes_are_missing(injected: dict[str, float]) -> None:
    deadline = injected["scrape cut"] + 300 + PATH_S + 20
    while ("ProbeMissing", "gpu2", "firing") not in alerts():
        assert time.time() < deadline, alerts()
        time.sleep(5)
    time.sleep(30)
    assert [page for page in pages() if (page["alertname"], page.get("host")) == ("ProbeMissing", "gpu2")] == []


@pytest.mark.parametrize("name", FAULTS)
def test_a_mended_fault_clears(mended: dict[str, float], name: str) -> None:
    page = came(FAULTS[name].alert, FAULTS[name].host, "resolved", mended[name], 120 + CLEARS_WITHIN_S)
    LOG.warning("MEASURED %s cleared: %.0f s", name, page["at"] - mended[name])


@pytest.mark.usefixtures("mended")
def test_a_probe_whose_exporter_came_back_has_paged_nobody() -> None:
    """Both alerts end with one scrape; the one that silenced must not end first."""
    time.sleep(60)
    assert [page for page in pages() if (page["alertname"], page.get("host")) == ("ProbeMissing", "gpu2")] == []


@pytest.mark.usefixtures("mended")
def test_an_engine_that_was_killed_pages_and_clears() -> None:
    began = time.time()
    on(KILLED.host, KILLED.inject)
    page = came(KILLED.alert, KILLED.host, "firing", began, KILLED.within_s)
    LOG.warning("MEASURED engine killed: %.0f s", page["at"] - began)
    on(KILLED.host, KILLED.mend)
    back = time.time()
    page = came(KILLED.alert, KILLED.host, "resolved", back, CLEARS_WITHIN_S)
    LOG.warning("MEASURED engine killed, cleared: %.0f s", page["at"] - back)


@pytest.mark.usefixtures("mended")
def test_a_host_that_is_off_pages_once_and_silences_what_is_on_it() -> None:
    began = time.time()
    on(HOST_OFF.host, HOST_OFF.inject)
    page = came(HOST_OFF.alert, HOST_OFF.host, "firing", began, HOST_OFF.within_s + 30)
    LOG.warning("MEASURED host off: %.0f s", page["at"] - began)
    time.sleep(90)
    since = [page["alertname"] for page in pages() if page["at"] >= began and page.get("host") == HOST_OFF.host]
    assert rackserve("lab", "up", "--name", NAME).returncode == 0
    back = time.time()
    assert set(since) == {"HostDown"}
    cleared = came(HOST_OFF.alert, HOST_OFF.host, "resolved", back, CLEARS_WITHIN_S)
    LOG.warning("MEASURED host back: %.0f s", cleared["at"] - back)
