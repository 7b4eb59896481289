"""A prompt is executed at most once for a POST, however its engine fails, and OpenAI's library does not repeat it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import openai
import pytest

from testing.edge import ENGINES, ask, completion, configured, engines, seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from testinfra.host import Host

# How the engine at port 7001 fails; the one at 7002 is well. "refused" is no engine at all.
FAILURES = ("refused", "close", "hang", "500", "503", "die mid-stream")
UNSAFE = "s/proxy_next_upstream error timeout;/proxy_next_upstream error timeout http_500 http_503 non_idempotent;/"
SILENT_ABOUT_RETRIES = r"s/add_header X-Should-Retry .*;//"


def executions(host: Host, failure: str) -> tuple[Counter[str], list[str]]:
    """Send six POSTs, the engine at 7001 failing: how often each was executed, and who was asked by the log."""
    listening = ENGINES if failure != "refused" else ENGINES[1:]
    with engines(host, *listening):
        skip = int(host.check_output("wc -l < /var/log/nginx/access.log"))
        ask(host, *[completion(fail={"7001": failure}, max_tokens=3) for _ in range(6)])
        counted = Counter(headers["X-Request-Id"] for _, _, _, headers in seen(host))
    return counted, host.check_output(f"tail -n +{skip + 1} /var/log/nginx/access.log").splitlines()


@pytest.mark.parametrize("failure", FAILURES)
def test_a_post_is_executed_at_most_once(host: Host, failure: str) -> None:
    counted, log = executions(host, failure)
    assert any('"upstream":"127.0.0.1:7001' in line for line in log), "the failing engine was chosen"
    assert set(counted.values()) == {1}
    if failure == "refused":
        assert len(counted) == 6
        assert any('"upstream":"127.0.0.1:7001, 127.0.0.1:7002"' in line for line in log)


@pytest.mark.parametrize("failure", ["close", "hang", "500", "503"])
def test_the_setting_that_is_not_used_executes_twice(host: Host, failure: str) -> None:
    """The control: a second execution would have been counted."""
    with configured(host, UNSAFE):
        counted, _ = executions(host, failure)
    assert max(counted.values()) == 2


def ask_with_retries(host: Host, client: openai.OpenAI, failure: str) -> int:
    """Ask once with OpenAI's library, both engines of the model failing; return how often the prompt was executed."""
    with engines(host):
        with pytest.raises(openai.OpenAIError):
            client.completions.create(
                model="small", prompt="a", extra_body={"fail": dict.fromkeys(map(str, ENGINES), failure)}
            )
        return len(seen(host))


@pytest.mark.parametrize("failure", ["close", "hang", "500"])
def test_openais_library_does_not_repeat_what_an_engine_has_had(
    host: Host, connect: Callable[..., openai.OpenAI], failure: str
) -> None:
    client = connect()
    assert client.max_retries == 2, "as the library has it"
    assert ask_with_retries(host, client, failure) == 1


def test_openais_library_does_repeat_what_it_is_not_told_of(host: Host, connect: Callable[..., openai.OpenAI]) -> None:
    """The control of the test above."""
    with configured(host, SILENT_ABOUT_RETRIES):
        assert ask_with_retries(host, connect(), "500") == 3


def test_openais_library_asks_again_when_the_engine_did_not_take_it(
    host: Host, connect: Callable[..., openai.OpenAI]
) -> None:
    """vLLM answers 503 when its queue is full, before it generates."""
    assert ask_with_retries(host, connect(), "503") == 3


def test_a_stream_that_breaks_is_an_error_and_not_repeated(host: Host, connect: Callable[..., openai.OpenAI]) -> None:
    failing = dict.fromkeys(map(str, ENGINES), "die mid-stream")
    with engines(host):
        stream = connect().completions.create(
            model="small", prompt="a", stream=True, extra_body={"fail": failing, "max_tokens": 3}
        )
        with pytest.raises(openai.APIConnectionError):
            list(stream)
        assert len(seen(host)) == 1
