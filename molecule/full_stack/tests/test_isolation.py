"""Nothing leaves the lab: not during the installation, not when every unit is restarted, not after a reboot."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from testing.generations import engine_unit
from testing.lab import NAME, command

if TYPE_CHECKING:
    from openai import OpenAI
    from testinfra.host import Host

testinfra_hosts = ["ssh://edge1", "ssh://gpu1", "ssh://gpu2"]
SERVES_AGAIN_WITHIN_S = 240
ASK = (
    "import json, urllib.request as u;"
    " body = json.dumps(dict(model='smollm2', prompt='a', max_tokens=1)).encode();"
    " request = u.Request('http://{}:8000/v1/completions', body, dict([('Content-Type', 'application/json')]));"
    " print(json.load(u.urlopen(request, timeout=30))['usage']['completion_tokens'])"
)


def lab() -> dict[str, dict[str, Any]]:
    shown = command("rackserve", "lab", "status", "--name", NAME, "--json")
    return {host["name"]: host for host in json.loads(shown.stdout)["hosts"]}


def on(name: str, line: str) -> str:
    done = command("rackserve", "lab", "ssh", "--name", NAME, name, "--", line)
    return done.stdout.strip() if done.returncode == 0 else ""


def serves_again(name: str) -> bool:
    ask = f'python3 -c "{ASK.format(lab()[name]["address"])}"'
    deadline = time.monotonic() + SERVES_AGAIN_WITHIN_S
    while time.monotonic() < deadline:
        if on(name, ask) == "1":
            return True
        time.sleep(2)
    return False


def test_a_host_has_no_way_out(host: Host) -> None:
    assert host.check_output("ip route show default") == ""


def test_nothing_left_the_lab_during_the_installation() -> None:
    assert {name: host["packets_left_lab"] for name, host in lab().items()} == {"gpu1": 0, "gpu2": 0, "edge1": 0}


def test_nothing_leaves_the_lab_when_every_unit_is_restarted(openai: OpenAI) -> None:
    watchers = "prometheus prometheus-alertmanager prometheus-node-exporter prometheus-nginx-exporter grafana-server"
    on("edge1", f"systemctl restart nginx {watchers}")
    on("gpu1", f"systemctl restart prometheus-node-exporter {engine_unit('smollm2')}")
    answer = openai.completions.create(model="smollm2", prompt="a", max_tokens=1)
    assert answer.usage is not None, "the other host serves meanwhile"
    assert serves_again("gpu1")
    assert {host["packets_left_lab"] for host in lab().values()} == {0}


def test_a_rebooted_host_serves_again_with_no_operator() -> None:
    boots = lab()["gpu2"]["boots"]
    assert command("rackserve", "lab", "reboot", "--name", NAME, "gpu2").returncode == 0
    assert serves_again("gpu2")
    assert lab()["gpu2"]["boots"] == boots + 1
    assert lab()["gpu2"]["packets_left_lab"] == 0
