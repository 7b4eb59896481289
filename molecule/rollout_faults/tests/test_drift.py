"""What somebody changed on a host is found and named; on a clean host nothing is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from testing.lab import command

if TYPE_CHECKING:
    import subprocess

    from testinfra.host import Host

    from testing.rollout_fleet import Fleet
    from testing.rollout_site import Site

INSTANCE = "/etc/vllm/instances/smollm2"
LIVE = f"{INSTANCE}/current"
UNIT = "vllm@smollm2.$(basename $(readlink -f " + LIVE + ")).service"


class Seed(NamedTuple):
    """One difference: where, how it comes and goes, and a word that its line has."""

    host: str
    put: str
    undo: str
    word: str


SEEDS = {
    "arguments of an engine edited": Seed(
        "gpu1", f"echo 'seed: 7' >>{LIVE}/engine.yaml", f"sed -i '/^seed: 7$/d' {LIVE}/engine.yaml", "engine.yaml"
    ),
    "a secret file opened to all": Seed(
        "gpu1", f"chmod 0644 {LIVE}/engine.env", f"chmod 0600 {LIVE}/engine.env", "engine.env"
    ),
    "a program edited": Seed(
        "gpu1",
        "echo '# by hand' >>/usr/local/lib/rackserve/vllm_probe.py",
        "sed -i '/^# by hand$/d' /usr/local/lib/rackserve/vllm_probe.py",
        "vllm_probe.py",
    ),
    "another owner": Seed("gpu1", f"chown nobody {LIVE}/probe.json", f"chown root {LIVE}/probe.json", "probe.json"),
    "a link elsewhere": Seed(
        "gpu1",
        f"readlink {LIVE}/runtime >/root/was && ln -sfn /tmp {LIVE}/runtime",
        f"ln -sfn $(cat /root/was) {LIVE}/runtime",
        "runtime",
    ),
    "a file gone": Seed(
        "gpu1", f"mv {LIVE}/probe.json /root/probe.json", f"mv /root/probe.json {LIVE}/probe.json", "probe.json"
    ),
    "a file that nobody owns": Seed("gpu1", f"touch {INSTANCE}/notes.txt", f"rm {INSTANCE}/notes.txt", "notes.txt"),
    "a folder that nobody owns": Seed(
        "gpu1", "mkdir -p /opt/vllm/releases/by-hand/bin", "rm -r /opt/vllm/releases/by-hand", "by-hand"
    ),
    "a drop-in of a unit": Seed(
        "gpu1",
        "mkdir -p /etc/systemd/system/vllm@smollm2.service.d && "
        "printf '[Service]\\nNice=5\\n' >/etc/systemd/system/vllm@smollm2.service.d/99-by-hand.conf",
        "rm /etc/systemd/system/vllm@smollm2.service.d/99-by-hand.conf",
        "99-by-hand.conf",
    ),
    "a loaded property that no file has": Seed(
        "gpu1",
        f"systemctl set-property --runtime {UNIT} MemoryHigh=90G",
        "rm -r /run/systemd/system.control/vllm@smollm2.*; systemctl daemon-reload",
        "MemoryHigh",
    ),
    "a unit that is disabled": Seed(
        "gpu1",
        "systemctl disable vllm-probe@smollm2.timer",
        "systemctl enable vllm-probe@smollm2.timer",
        "vllm-probe@smollm2.timer",
    ),
    "a timer that is stopped": Seed(
        "gpu1",
        "systemctl stop vllm-probe@smollm2.timer",
        "systemctl start vllm-probe@smollm2.timer",
        "vllm-probe@smollm2.timer",
    ),
    "a package gone": Seed(
        "gpu1",
        "dpkg --force-depends --remove libnuma1",
        "APT_CONFIG=/etc/rackserve/apt.conf apt-get install --yes libnuma1",
        "libnuma1",
    ),
    "a package that is held": Seed("gpu1", "apt-mark hold nftables", "apt-mark unhold nftables", "nftables"),
    "another user": Seed("gpu1", "useradd --uid 4711 intruder", "userdel intruder", "intruder"),
    "a login shell of the engines' user": Seed(
        "gpu1", "usermod --shell /bin/sh vllm", "usermod --shell /usr/sbin/nologin vllm", "vllm"
    ),
    "a socket that listens": Seed(
        "gpu1",
        "systemd-run --quiet --unit=seeded python3 -m http.server 4711 && sleep 1",
        "systemctl stop seeded",
        "4711",
    ),
    "a firewall table more": Seed("gpu1", "nft add table inet by_hand", "nft delete table inet by_hand", "by_hand"),
    "a firewall table gone": Seed(
        "gpu1",
        "nft delete table inet rackserve_proxy_smollm2",
        "systemctl restart vllm-proxy@smollm2.socket",
        "rackserve_proxy_smollm2",
    ),
    "nginx's configuration edited": Seed(
        "edge1",
        "echo '# by hand' >>/etc/nginx/nginx.conf",
        "sed -i '/^# by hand$/d' /etc/nginx/nginx.conf",
        "nginx.conf",
    ),
}


def drift(site: Site) -> subprocess.CompletedProcess[str]:
    return command("rackserve", "drift", "-i", str(site.folder))


def on(fleet: Fleet, name: str) -> Host:
    return fleet.edge if name == "edge1" else fleet[name]


@pytest.fixture(scope="module")
def clean(site: Site) -> None:
    """Have a fleet that was provisioned last by this inventory."""
    site.bring()


@pytest.mark.usefixtures("clean")
def test_a_clean_fleet_has_none(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    found = drift(site)
    with capsys.disabled():
        print(f"\n[measured] drift of three hosts at once: {time.monotonic() - began:.1f} s")
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("name", SEEDS)
def test_a_difference_is_found_and_named(site: Site, fleet: Fleet, name: str) -> None:
    seed = SEEDS[name]
    host = on(fleet, seed.host)
    host.check_output(seed.put)
    try:
        found = drift(site)
    finally:
        host.check_output(seed.undo)
    assert found.returncode == 1, found.stdout + found.stderr
    lines = [line for line in found.stdout.splitlines() if seed.word in line]
    assert lines, found.stdout
    again = drift(site)
    assert again.returncode == 0, again.stdout + again.stderr
