"""A client gets real answers through TLS, from both hosts."""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from testing.fleet import SERVER_NAME, measured
from testing.lab import command

if TYPE_CHECKING:
    from openai import OpenAI
    from testinfra.host import Host

testinfra_hosts = ["ssh://edge1"]
QUESTION: Any = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]


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


def test_the_responses_api_answers_whole_and_streamed(openai: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "smollm2", "input": QUESTION, "temperature": 0, "max_output_tokens": 16}
    assert "Paris" in openai.responses.create(**asked).output_text
    events = list(openai.responses.create(**asked, stream=True))
    assert "Paris" in "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].type in {"response.completed", "response.incomplete"}


def test_anthropics_api_answers_whole_and_streamed(edge: httpx.Client) -> None:
    asked = {"model": "smollm2", "messages": QUESTION, "temperature": 0, "max_tokens": 16}
    answer = edge.post("/v1/messages", json=asked)
    assert "Paris" in answer.json()["content"][0]["text"], answer.text
    events = edge.post("/v1/messages", json={**asked, "stream": True}).text.strip().split("\n\n")
    assert "event: message_stop" in events[-1]
    counted = edge.post("/v1/messages/count_tokens", json={"model": "smollm2", "messages": QUESTION})
    assert counted.json()["input_tokens"] > 10, counted.text


def test_every_instance_of_both_hosts_takes_requests(host: Host, openai: OpenAI) -> None:
    before = measured(host, "vllm:generation_tokens_total")
    for _ in range(12):
        openai.completions.create(model="smollm2", prompt="a", max_tokens=1)
    after = measured(host, "vllm:generation_tokens_total")
    assert [engine for engine in before if after[engine] <= before[engine]] == []


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
