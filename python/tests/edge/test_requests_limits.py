"""What one request may ask for: refused above a limit, with the value and the limit; not refused just below it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rackserve import edge
from rackserve.edge import _limits
from rackserve.errors import InputError
from testing.local_edge import Edge, Engine, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MESSAGES = [{"role": "user", "content": "Hi"}]
IMAGE = "data:image/png;base64," + "QUJD" * 1_500_000


def tools(count: int, size: int) -> list[dict[str, Any]]:
    """Return the schemas of an agent's tools, with descriptions of so many characters."""
    properties = {"city": {"type": "string", "description": "a" * size, "enum": ["Paris", "Rome"]}}
    schema = {"type": "object", "properties": properties, "required": ["city"], "additionalProperties": False}
    return [{"type": "function", "function": {"name": f"f{n}", "parameters": schema}} for n in range(count)]


def json_schema(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}


def names(count: int) -> list[str]:
    return [f"name {number}" for number in range(count)]


# What is asked at a path; what the refusal names.
REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "n": (COMPLETIONS, {"prompt": "Hi", "n": 10000}, "n", "10000 sequences"),
    "n as a text": (CHAT, {"messages": MESSAGES, "n": "1_000"}, "n", "1000 sequences"),
    "n as a fraction": (CHAT, {"messages": MESSAGES, "n": 129.0}, "n", "129 sequences"),
    "n without end": (CHAT, {"messages": MESSAGES, "n": 10**400}, "n", "inf sequences"),
    "best_of": (COMPLETIONS, {"prompt": "Hi", "best_of": 129}, "n", "129 sequences"),
    "beams": (COMPLETIONS, {"prompt": "Hi", "use_beam_search": True, "n": 200}, "n", "200 sequences"),
    "prompts": (COMPLETIONS, {"prompt": ["Hi"] * 129}, "n", "129 sequences"),
    "prompts of ids": (COMPLETIONS, {"prompt": [[1, 2]] * 129}, "n", "129 sequences"),
    "prompts times n": (COMPLETIONS, {"prompt": ["Hi"] * 16, "n": 9}, "n", "144 sequences"),
    "embeddings of prompts": (COMPLETIONS, {"prompt": "a", "prompt_embeds": ["a"] * 130}, "n", "130 sequences"),
    "n of responses": ("/v1/responses", {"input": "Hi", "n": 500}, "n", "500 sequences"),
    "n of messages": ("/v1/messages", {"messages": MESSAGES, "n": 500}, "n", "500 sequences"),
    "inputs": (EMBEDDINGS, {"input": ["Hi"] * 2049}, "input", "2049 items"),
    "inputs of ids": (EMBEDDINGS, {"input": [[1, 2]] * 2049}, "input", "2049 items"),
    "documents": ("/v1/rerank", {"query": "a", "documents": ["Hi"] * 2049}, "documents", "2049 items"),
    "documents inside": ("/v1/rerank", {"documents": {"content": [{}] * 2049}}, "documents", "2049 items"),
    "texts": ("/v1/score", {"text_1": "a", "text_2": ["Hi"] * 2049}, "text_2", "2049 items"),
    "enum": (CHAT, {"structured_outputs": {"json": {"enum": names(1001)}}}, "structured_outputs", "1001 values"),
    "choice": (COMPLETIONS, {"structured_outputs": {"choice": names(50000)}}, "structured_outputs", "65536"),
    "choice of old": (COMPLETIONS, {"guided_choice": names(1001)}, "guided_choice", "1001 values"),
    "regex": (COMPLETIONS, {"structured_outputs": {"regex": "|".join(names(9000))}}, "structured_outputs", "65536"),
    "regex of old": (COMPLETIONS, {"guided_regex": "a" * 66000}, "guided_regex", "65536"),
    "grammar": (COMPLETIONS, {"guided_grammar": "a" * 66000}, "guided_grammar", "65536"),
    "schema": (CHAT, {"response_format": json_schema({"title": "a" * 66000})}, "response_format", "65536"),
    "properties": (
        CHAT,
        {"response_format": json_schema({"properties": dict.fromkeys(names(1001), 1)})},
        "response_format",
        "1001 values",
    ),
    "format of responses": (
        "/v1/responses",
        {"text": {"format": {"schema": {"enum": names(1001)}}}},
        "text",
        "1001 va",
    ),
    "format of messages": ("/v1/messages", {"output_config": {"format": "a" * 66000}}, "output_config", "65536"),
    "tools": (CHAT, {"messages": MESSAGES, "tools": tools(300, 1000)}, "tools", "262144"),
    "an enum of a tool": (
        CHAT,
        {"tools": [{"function": {"parameters": {"enum": names(1001)}}}]},
        "tools",
        "1001 values",
    ),
}
# What clients send in earnest, up to the limits.
TAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "n": (CHAT, {"messages": MESSAGES, "n": 8, "stop": ["a"] * 64}),
    "most of n": (COMPLETIONS, {"prompt": "Hi", "n": 128}),
    "n of null": (COMPLETIONS, {"prompt": "Hi", "n": None, "best_of": None, "tools": None, "response_format": None}),
    "what an engine refuses": (COMPLETIONS, {"prompt": "Hi", "n": "many", "best_of": [200], "tools": 5}),
    "prompts": (COMPLETIONS, {"prompt": ["Hi"] * 64, "n": 2}),
    "one prompt of ids": (COMPLETIONS, {"prompt": list(range(130000)), "n": 2}),
    "a long conversation": (CHAT, {"messages": MESSAGES * 3000}),
    "logit_bias": (CHAT, {"messages": MESSAGES, "logit_bias": {str(n): -100 for n in range(3000)}}),
    "inputs": (EMBEDDINGS, {"input": ["Hi"] * 2048}),
    "one input of ids": (EMBEDDINGS, {"input": list(range(8000))}),
    "documents": ("/v1/rerank", {"query": "a", "documents": ["Hi"] * 1000}),
    "tools of 50 KB": (CHAT, {"messages": MESSAGES, "tools": tools(50, 1000), "tool_choice": "required"}),
    "tools of 200 KB": (CHAT, {"messages": MESSAGES, "tools": tools(150, 1200)}),
    "schema of 60 KB": (CHAT, {"messages": MESSAGES, "response_format": json_schema({"title": "a" * 60000})}),
    "enum": (CHAT, {"structured_outputs": {"json": {"enum": names(1000)}}}),
    "choice": (COMPLETIONS, {"structured_outputs": {"choice": ["yes", "no"]}}),
    "a plain format": (CHAT, {"messages": MESSAGES, "response_format": {"type": "json_object"}}),
    "an image of 6 MB": (CHAT, {"messages": [{"role": "user", "content": [{"image_url": {"url": IMAGE}}]}]}),
}


def model_of(path: str) -> str:
    return "vectors" if path in (EMBEDDINGS, "/v1/score", "/v1/rerank") else "small"


@pytest.mark.parametrize(("path", "asked", "param", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_above_a_limit_is_refused(
    nginx: Edge, path: str, asked: dict[str, Any], param: str, words: str
) -> None:
    text = json.dumps({"model": model_of(path), **asked})
    answer = nginx.ask(path, text.encode())
    assert answer.status == 400, answer.text
    found = json.loads(answer.text)["error"]
    assert (found["param"], found["type"], found["code"]) == (param, "invalid_request_error", "invalid_request")
    assert words in found["message"]
    assert nginx.engines.seen == []


@pytest.mark.parametrize(("path", "asked"), TAKEN.values(), ids=TAKEN)
def test_what_is_within_the_limits_reaches_an_engine_unchanged(nginx: Edge, path: str, asked: dict[str, Any]) -> None:
    body = {"model": model_of(path), **asked}
    answer = nginx.ask(path, body)
    assert answer.status == 200, answer.text
    assert [json.loads(seen) for seen in nginx.engines.seen] == [body]


def test_a_name_in_escapes_and_the_last_of_two_count(nginx: Edge) -> None:
    assert nginx.ask(COMPLETIONS, rb'{"model":"small","prompt":"a","\u006e":500}').status == 400
    assert nginx.ask(COMPLETIONS, b'{"model":"small","prompt":"a","n":1,"n":500}').status == 400
    assert nginx.ask(COMPLETIONS, b'{"model":"small","prompt":"a","n":500,"n":1}').status == 200
    assert nginx.ask(COMPLETIONS, b'{"model":"small","prompt":"a","x":{"n":500},"y":"\\"n\\":500"}').status == 200


def test_a_site_sets_the_limits(run: Callable[..., Any]) -> None:
    with run(nginx_max_sequences=4, nginx_max_inputs=2, nginx_max_grammar_kib=1, nginx_max_grammar_values=3) as found:
        for status, n in ((200, 4), (400, 5)):
            assert found.complete(prompt="a", n=n).status == status
            assert found.ask(EMBEDDINGS, {"model": "vectors", "input": ["a"] * (n - 2)}).status == status
            assert found.complete(prompt="a", guided_choice=["a"] * (n - 1)).status == status
            assert found.complete(prompt="a", guided_regex="a" * (n * 300 - 300)).status == status


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"sequences": 0}, "nginx_max_sequences is 0; set it to 1 or more"),
        ({"inputs": "many"}, "nginx_max_inputs is 'many'; set it to a number"),
        ({"sequences": 1025}, "nginx_max_sequences is 1025, and an engine refuses more than 1024; set that or less"),
        ({"body_mib": 200}, "nginx_max_bodies_mib is 128, less than one body of nginx_max_body_mib 200; set it to 200"),
    ],
)
def test_a_limit_that_cannot_be_is_refused(limits: dict[str, Any], words: str) -> None:
    backends = [{"host": "g", "instance": "i", "address": "10.0.0.1", "port": 1, "served_names": ["m"]}]
    with pytest.raises(InputError, match=words):
        edge.plan_of(backends, [{"name": "a", "keys": [{"sha256": "1" * 64}]}], limits=limits)


def test_the_unit_of_an_engine_has_the_largest_limit() -> None:
    unit = (Path(__file__).parents[3] / "roles/vllm/templates/engine.service.j2").read_text(encoding="utf-8")
    assert f"VLLM_MAX_N_SEQUENCES={_limits._ENGINE_SEQUENCES}\n" in unit


def hold_back(engine: Engine, _: bytes) -> None:
    """Answer once the test has looked."""
    RELEASED.wait(30)
    engine.tell(200, "{}")


RELEASED = threading.Event()


def test_sequences_count_as_what_a_client_has_open(nginx: Edge) -> None:
    RELEASED.clear()
    nginx.engines.answer = hold_back
    first = threading.Thread(target=nginx.complete, kwargs={"prompt": "a", "n": 60})
    first.start()
    wait_for(lambda: len(nginx.engines.seen) == 1)
    assert nginx.series()['open_requests{client="roomy"}'] == 1
    assert nginx.series()['open_sequences{client="roomy"}'] == 60
    refused = nginx.complete(prompt="a", n=8)
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert "counts as 8 of the 64 sequences" in refused.error["message"]
    RELEASED.set()
    first.join()
    wait_for(lambda: nginx.series()['open_sequences{client="roomy"}'] == 0)
    assert nginx.complete(prompt="a", n=100).status == 200, "one for more than the client has counts as all of them"
    assert nginx.complete(prompt="a", n=8).status == 200
    wait_for(lambda: nginx.series()['open_sequences{client="roomy"}'] == 0)
