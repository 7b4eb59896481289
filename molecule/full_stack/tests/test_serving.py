"""A client gets real answers through TLS, from both hosts, and nothing leaves the lab."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from conftest import SERVER_NAME, command

if TYPE_CHECKING:
    import httpx
    from openai import OpenAI
    from testinfra.host import Host

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
LAB = "molecule"
SERVES_AGAIN_WITHIN_S = 180


def lab_status() -> dict[str, dict[str, object]]:
    shown = command("rackserve", "lab", "status", "--name", LAB, "--json")
    return {host["name"]: host for host in json.loads(shown.stdout)["hosts"]}


@pytest.mark.testinfra_hosts("ssh://edge1")
class TestEdge:
    def test_the_openai_client_gets_an_answer(self, openai: OpenAI) -> None:
        answer = openai.chat.completions.create(model="smollm2", messages=QUESTION, temperature=0, max_tokens=16)
        assert "Paris" in (answer.choices[0].message.content or "")

    def test_the_openai_client_gets_chunks(self, openai: OpenAI) -> None:
        stream = openai.chat.completions.create(
            model="smollm2", messages=QUESTION, temperature=0, max_tokens=16, stream=True
        )
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "Paris" in "".join(pieces)
        assert len([piece for piece in pieces if piece]) > 2

    def test_both_hosts_take_requests(self, host: Host, openai: OpenAI) -> None:
        def served() -> list[float]:
            return [_generated(host, address) for address in ("11", "12")]

        before = served()
        for _ in range(8):
            openai.completions.create(model="smollm2", prompt="a", max_tokens=1)
        assert all(after > earlier for earlier, after in zip(before, served(), strict=True))

    def test_an_unknown_model_is_refused_in_openais_shape(self, edge: httpx.Client) -> None:
        answer = edge.post("/v1/chat/completions", json={"model": "gpt-4", "messages": QUESTION})
        assert answer.status_code == 404
        assert set(answer.json()["error"]) >= {"message", "type", "code"}

    def test_another_name_fails_the_certificate(self, hostvars: dict[str, str]) -> None:
        import httpx  # noqa: PLC0415 - only this test opens its own connection

        context = httpx.create_ssl_context(verify=hostvars["ca"])
        good = httpx.get(
            f"https://{hostvars['address']}/healthz", verify=context, extensions={"sni_hostname": SERVER_NAME}
        )
        assert good.status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(
                f"https://{hostvars['address']}/healthz", verify=context, extensions={"sni_hostname": "wrong.lab"}
            )

    def test_verify_says_that_all_is_well(self) -> None:
        verdict = command("rackserve", "verify", "-i", "molecule/inventory", "--json")
        checks = json.loads(verdict.stdout)
        assert [check for check in checks["checks"] if not check["ok"]] == []
        assert (verdict.returncode, checks["ok"]) == (0, True)


def _generated(host: Host, last_number: str) -> float:
    prefix = ".".join(host.check_output("hostname -I").split()[0].split(".")[:3])
    code = f"import urllib.request as u;print(u.urlopen('http://{prefix}.{last_number}:8000/metrics').read().decode())"
    metrics = host.check_output(f'python3 -c "{code}"')
    lines = [line for line in metrics.splitlines() if line.startswith("vllm:generation_tokens_total")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@pytest.mark.testinfra_hosts("ssh://gpu1", "ssh://gpu2", "ssh://edge1")
def test_a_host_has_no_way_out(host: Host) -> None:
    assert host.check_output("ip route show default") == ""


@pytest.mark.testinfra_hosts("ssh://edge1")
class TestIsolation:
    def test_nothing_left_the_lab_during_the_installation(self) -> None:
        assert {name: host["packets_left_lab"] for name, host in lab_status().items()} == dict.fromkeys(
            ("gpu1", "gpu2", "edge1"), 0
        )

    def test_nothing_leaves_the_lab_when_every_unit_is_restarted(self, host: Host, openai: OpenAI) -> None:
        units = (
            "nginx prometheus prometheus-alertmanager prometheus-node-exporter prometheus-nginx-exporter grafana-server"
        )
        host.check_output(f"systemctl restart {units}")
        restart = ("rackserve", "lab", "ssh", "--name", LAB, "gpu1", "--", "systemctl restart vllm@smollm2")
        assert command(*restart).returncode == 0
        answer = openai.completions.create(model="smollm2", prompt="a", max_tokens=1)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 1
        assert {host["packets_left_lab"] for host in lab_status().values()} == {0}


@pytest.mark.testinfra_hosts("ssh://gpu2")
class TestReboot:
    def test_a_rebooted_host_serves_again_with_no_operator(self) -> None:
        boot = lab_status()["gpu2"]["boots"]
        assert command("rackserve", "lab", "reboot", "--name", LAB, "gpu2").returncode == 0
        address = str(lab_status()["gpu2"]["address"])
        body = json.dumps({"model": "smollm2", "prompt": "a", "max_tokens": 1})
        python = (
            'python3 -c "import urllib.request as u, sys; print(u.urlopen(u.Request('
            f"'http://{address}:8000/v1/completions', sys.stdin.buffer.read(), {{'Content-Type': 'application/json'}}),"
            ' timeout=30).read().decode())"'
        )
        deadline = time.monotonic() + SERVES_AGAIN_WITHIN_S
        answer = None
        while time.monotonic() < deadline:
            answer = command("rackserve", "lab", "ssh", "--name", LAB, "gpu2", "--", f"echo '{body}' | {python}")
            if answer.returncode == 0:
                break
            time.sleep(2)
        assert answer is not None
        assert json.loads(answer.stdout)["usage"]["completion_tokens"] == 1
        assert lab_status()["gpu2"]["boots"] != boot
        assert lab_status()["gpu2"]["packets_left_lab"] == 0
