"""What clients of OpenAI's library use: adapters by name, tool calls, the prefix cache, and a clear no."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import openai as library
import pytest

from rackserve.vllm import release_of
from testing.fleet import measured
from testing.weather_tool import CITIES, TOOL

if TYPE_CHECKING:
    from openai import OpenAI
    from testinfra.host import Host

testinfra_hosts = ["ssh://edge1"]
ADAPTERS = ("lora-one", "lora-two", "lora-three")
QUESTION: Any = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}


def greedy(model: str) -> Any:  # noqa: ANN401
    """Return a request whose answer is eight tokens long; the adapters are random, and some end a chat at once."""
    body = {"model": model, "prompt": "The list of the colours: red,", "temperature": 0, "max_tokens": 8}
    return {**body, "extra_body": {"ignore_eos": True}}


def test_three_adapters_answer_by_name_each_in_its_own_way(openai: OpenAI) -> None:
    answers = {name: openai.completions.create(**greedy(name)).choices[0].text for name in ("smollm2", *ADAPTERS)}
    assert "blue" in answers["smollm2"]
    assert len(set(answers.values())) == 1 + len(ADAPTERS), answers


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_takes_chats(openai: OpenAI, name: str) -> None:
    done = openai.chat.completions.create(model=name, messages=QUESTION, max_tokens=4)
    assert done.model == name
    assert done.usage is not None
    assert done.usage.completion_tokens > 0


def test_the_adapters_are_listed_beside_their_model(openai: OpenAI) -> None:
    assert {model.id for model in openai.models.list()} == {"smollm2", *ADAPTERS}


def test_an_adapter_streams(openai: OpenAI) -> None:
    stream = openai.completions.create(**greedy(ADAPTERS[0]), stream=True)
    pieces = [chunk.choices[0].text for chunk in stream if chunk.choices]
    assert len(pieces) > 2
    assert "".join(pieces) == openai.completions.create(**greedy(ADAPTERS[0])).choices[0].text


@pytest.mark.parametrize("name", ["gpt-4", "lora-four", "HuggingFaceTB/SmolLM2-135M-Instruct"])
def test_an_unknown_model_is_not_found(openai: OpenAI, name: str) -> None:
    with pytest.raises(library.NotFoundError) as refused:
        openai.chat.completions.create(model=name, messages=QUESTION)
    assert refused.value.response.headers["content-type"].startswith("application/json")
    assert name in refused.value.message


@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "by name"])
def test_a_tool_call_that_is_demanded_fits_its_schema(openai: OpenAI, choice: Any) -> None:  # noqa: ANN401
    done = openai.chat.completions.create(
        model="smollm2", messages=QUESTION, tools=[TOOL], tool_choice=choice, temperature=0, max_tokens=64
    )
    calls: Any = done.choices[0].message.tool_calls
    assert calls, done
    assert {call.function.name for call in calls} == {"get_weather"}
    for call in calls:
        arguments = json.loads(call.function.arguments)
        assert set(arguments) == {"city", "unit"}
        assert arguments["city"] in CITIES


def test_a_tool_that_may_be_called_or_not_does_not_fail_the_request(openai: OpenAI) -> None:
    done = openai.chat.completions.create(
        model="smollm2", messages=QUESTION, tools=[TOOL], tool_choice="auto", temperature=0, max_tokens=32
    )
    message = done.choices[0].message
    assert message.content or message.tool_calls


def test_the_instances_chat_template_tells_the_model_of_tools(openai: OpenAI) -> None:
    counted: list[int] = []
    options: list[dict[str, Any]] = [{}, {"tools": [TOOL], "tool_choice": "none"}]
    for more in options:
        done = openai.chat.completions.create(model="smollm2", messages=QUESTION, max_tokens=1, **more)
        assert done.usage is not None
        counted.append(done.usage.prompt_tokens)
    without, with_tools = counted
    assert with_tools > without + 50


def test_a_prefix_that_comes_again_is_counted_as_hit(host: Host, openai: OpenAI, release: str) -> None:
    metric = release_of(release).metrics["prefix_hits"]
    prompt = "Of what was sold, counted and weighed on the market of the town on that day, here is the list. " * 12
    before = sum(measured(host, metric).values())
    asked = 6  # more than there are engines, so that some of them has it again
    for _ in range(asked):
        openai.completions.create(model="smollm2", prompt=prompt, max_tokens=1)
    assert sum(measured(host, metric).values()) - before > 128
