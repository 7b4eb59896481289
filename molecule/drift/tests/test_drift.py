"""A host that nobody touched has no difference, and each of 20 seeded ones is found, within five seconds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

PROGRAM = "/usr/local/lib/rackserve/host_state.pyz"
METRICS = "/var/lib/prometheus/node-exporter/rackserve_drift.prom"
CONF = "/etc/nginx/nginx.conf"
TIMER = "rackserve-host-metrics.timer"


class Seed(NamedTuple):
    """What is done to the host, where the difference is found, and what undoes it."""

    inject: str
    kind: str
    what: str
    mend: str


SEEDS = {
    "content": Seed(f"cp -a {CONF} /root/c; echo '# x' >> {CONF}", "file", CONF, f"cp -a /root/c {CONF}"),
    "content, size and time as before": Seed(
        f"cp -a {CONF} /root/c; tr a-c b-d < /root/c > {CONF}; touch -r /root/c {CONF}",
        "file",
        CONF,
        f"cp -a /root/c {CONF}",
    ),
    "mode": Seed(f"chmod 666 {CONF}", "file", CONF, f"chmod 644 {CONF}"),
    "owner": Seed(f"chown www-data {CONF}", "file", CONF, f"chown root {CONF}"),
    "setuid": Seed(f"chmod u+s {PROGRAM}", "file", PROGRAM, f"chmod u-s {PROGRAM}"),
    "link in place of a file": Seed(
        f"mv {CONF} /root/c; ln -s /root/c {CONF}", "file", CONF, f"rm {CONF}; mv /root/c {CONF}"
    ),
    "bundle": Seed(
        "cd /var/lib/rackserve/bundle; f=$(ls apt/*/*.deb | head -1); cp -a $f /root/d; printf x | "
        "dd of=$f bs=1 seek=100 conv=notrunc 2>&1; touch -r /root/d $f",
        "file",
        "/var/lib/rackserve/bundle/apt",
        "",
    ),
    "nobody's file": Seed(
        "touch /etc/nginx/rackserve/old", "unowned", "/etc/nginx/rackserve/old", "rm /etc/nginx/rackserve/old"
    ),
    "drop-in in /run": Seed(
        "mkdir -p /run/systemd/system/nginx.service.d; printf '[Service]\\nNice=5\\n' "
        "> /run/systemd/system/nginx.service.d/x.conf",
        "unit",
        "/run/systemd/system/nginx.service.d/x.conf",
        "rm -r /run/systemd/system/nginx.service.d; systemctl daemon-reload",
    ),
    "set-property": Seed(
        "systemctl set-property nginx.service MemoryMax=4G",
        "unit",
        "/etc/systemd/system.control/nginx.service.d/50-MemoryMax.conf",
        "systemctl revert nginx.service; systemctl daemon-reload",
    ),
    "masked at runtime": Seed(
        f"ln -s /dev/null /run/systemd/system/{TIMER}; systemctl daemon-reload",
        "unit",
        f"/run/systemd/system/{TIMER}",
        f"rm /run/systemd/system/{TIMER}; systemctl daemon-reload",
    ),
    "disabled": Seed(f"systemctl disable {TIMER}", "unit", TIMER, f"systemctl enable {TIMER}"),
    "stopped": Seed(f"systemctl stop {TIMER}", "unit", TIMER, f"systemctl start {TIMER}"),
    "hold": Seed("apt-mark hold nginx", "package", "nginx", "apt-mark unhold nginx"),
    "file of a package": Seed(
        "cp -a /usr/share/doc/nginx/copyright /root/p; echo x >> /usr/share/doc/nginx/copyright",
        "package",
        "/usr/share/doc/nginx/copyright",
        "cp -a /root/p /usr/share/doc/nginx/copyright",
    ),
    "shell": Seed("usermod -s /bin/bash www-data", "user", "user www-data", "usermod -s /usr/sbin/nologin www-data"),
    "group": Seed("gpasswd -a nobody www-data", "user", "group www-data", "gpasswd -d nobody www-data"),
    "rule": Seed(
        "nft insert rule inet rackserve_edge output tcp dport 7001 accept",
        "firewall",
        "inet rackserve_edge",
        "systemctl reload rackserve-edge-filter",
    ),
    "table": Seed(
        "nft delete table inet rackserve_edge",
        "firewall",
        "inet rackserve_edge",
        "systemctl reload rackserve-edge-filter",
    ),
    "another listener on our port": Seed(
        "systemd-run --unit squat python3 -c 'import socket, time; "
        's=socket.create_server(("127.0.0.9", 9113)); time.sleep(99)\'; sleep 1',
        "socket",
        "127.0.0.9:9113",
        "systemctl stop squat",
    ),
}


def differences(host: Host) -> list[dict[str, Any]]:
    found = json.loads(host.run(f"python3 {PROGRAM} --json").stdout)
    assert found["unread"] == {}
    assert found["seconds"] < 5
    listed: list[dict[str, Any]] = found["differences"]
    return listed


def test_a_host_that_nobody_touched_has_no_difference(host: Host) -> None:
    assert differences(host) == []


@pytest.fixture(params=list(SEEDS.values()), ids=list(SEEDS))
def seeded(host: Host, request: pytest.FixtureRequest) -> Iterator[Seed]:
    seed: Seed = request.param
    assert host.run(seed.inject).succeeded
    yield seed
    if seed.mend:
        assert host.run(seed.mend).succeeded


def test_a_seeded_difference_is_found(host: Host, seeded: Seed) -> None:
    found = differences(host)
    assert any(one["kind"] == seeded.kind and one["what"].startswith(seeded.what) for one in found), found


def accept(host: Host, play: Play, seen: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    name = host.check_output("hostname")
    given = {"drift_accept_reason": "a test", "drift_accept_seen": [f"{name}: {one['text']}" for one in seen]}
    return play("playbooks/record_fleet.yml", given, "--limit", name)


@pytest.mark.parametrize("more", ["true", f"chown www-data {CONF}"], ids=["what was seen", "and what came since"])
def test_an_acceptance_takes_what_was_seen_and_no_more(host: Host, play: Play, more: str) -> None:
    host.check_output(f"chmod 666 {CONF}")
    seen = differences(host)
    host.check_output(more)
    try:
        done = accept(host, play, seen)
        refused = "nothing was accepted on this host: this differs too by now" in " ".join(done.stdout.split())
        assert (refused, bool(done.returncode), bool(differences(host))) == ((more != "true"),) * 3, done.stdout[-3000:]
    finally:
        host.check_output(f"chmod 644 {CONF}; chown root {CONF}")
        accept(host, play, differences(host))


def test_the_timers_unit_writes_metrics(host: Host) -> None:
    assert host.run("systemctl start rackserve-drift.service").succeeded
    text = host.file(METRICS).content_string
    assert 'rackserve_drift_differences{kind="file"}' in text
    assert "rackserve_drift_checked_timestamp_seconds" in text
    assert host.service("rackserve-drift.timer").is_enabled
