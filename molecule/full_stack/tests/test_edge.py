"""A client gets real answers through TLS, from both hosts."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING

import httpx
import pytest

from conftest import SERVER_NAME, command

if TYPE_CHECKING:
    from openai import OpenAI
    from testinfra.host import Host

testinfra_hosts = ["ssh://edge1"]
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


def test_the_openai_client_gets_an_answer(openai: OpenAI) -> None:
    answer = openai.chat.completions.create(model="smollm2", messages=QUESTION, temperature=0, max_tokens=16)
    assert "Paris" in (answer.choices[0].message.content or "")


def test_the_openai_client_gets_chunks(openai: OpenAI) -> None:
    stream = openai.chat.completions.create(
        model="smollm2", messages=QUESTION, temperature=0, max_tokens=16, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert "Paris" in "".join(pieces)
    assert len([piece for piece in pieces if piece]) > 2


def generated(host: Host) -> list[float]:
    """Return the tokens that each instance has generated, as the edge, which may ask them, reads it."""
    prefix = ".".join(host.check_output("hostname -I").split()[0].split(".")[:3])
    code = "import urllib.request as u; print(u.urlopen('http://{}:8000/metrics').read().decode())"
    counts = []
    for number in (11, 12):
        metrics = host.check_output(f'python3 -c "{code.format(f"{prefix}.{number}")}"')
        lines = [line for line in metrics.splitlines() if line.startswith("vllm:generation_tokens_total")]
        counts.append(sum(float(line.rsplit(" ", 1)[1]) for line in lines))
    return counts


def test_both_hosts_take_requests(host: Host, openai: OpenAI) -> None:
    before = generated(host)
    for _ in range(8):
        openai.completions.create(model="smollm2", prompt="a", max_tokens=1)
    assert all(after > earlier for earlier, after in zip(before, generated(host), strict=True))


def test_an_unknown_model_is_refused_in_openais_shape(edge: httpx.Client) -> None:
    answer = edge.post("/v1/chat/completions", json={"model": "gpt-4", "messages": QUESTION})
    assert answer.status_code == 404
    assert set(answer.json()["error"]) >= {"message", "type", "code"}


@pytest.mark.parametrize(("name", "holds"), [(SERVER_NAME, True), ("wrong.lab", False)])
def test_the_certificate_holds_for_the_servers_name_only(
    hostvars: dict[str, str],
    name: str,
    holds: bool,  # noqa: FBT001
) -> None:
    with httpx.Client(verify=ssl.create_default_context(cafile=hostvars["ca"])) as client:
        request = client.build_request(
            "GET", f"https://{hostvars['address']}/healthz", extensions={"sni_hostname": name}
        )
        if holds:
            assert client.send(request).status_code == 200
        else:
            with pytest.raises(httpx.ConnectError, match="Hostname mismatch"):
                client.send(request)


def test_verify_says_that_all_is_well() -> None:
    verdict = command("rackserve", "verify", "-i", "molecule/inventory", "--json")
    found = json.loads(verdict.stdout)
    assert [check for check in found["checks"] if not check["ok"]] == []
    assert (verdict.returncode, found["ok"]) == (0, True)
