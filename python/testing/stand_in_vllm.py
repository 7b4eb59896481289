"""A stand-in for an engine that is to be judged: it has the paths that the gates ask, and can be bad in many ways.

It proves that what is asked and compared finds a bad engine; molecule has real ones.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from testing.stand_in_server import Behaviour, Handler, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SPECIAL: Final = ("<|im_start|>", "<|im_end|>")
_SPLIT: Final = re.compile("|".join([*map(re.escape, SPECIAL), "."]), re.DOTALL)
_CALL: Final = {"city": "Paris", "unit": "celsius"}


@dataclass
class Traits(Behaviour):
    """How it answers; the defaults are those of a good engine.

    `slower` is a factor of its times, `noise` the spread of each; `failing` the share of requests that get `status`;
    `shift` is added to log-probabilities. `template`: chatml, alpaca, contents, one_role, foreign, no_generation or
    none. `tools`: ok, raw, broken, unfit, silent, raw_stream. `dictates` whether an answer can be dictated to it.
    `others`: requests of others on its page of metrics.
    """

    first_s: float = 0.004
    gap_s: float = 0.001
    slower: float = 1.0
    noise: float = 0.05
    failing: float = 0.0
    status: int = 500
    shift: float = 0.0
    jitter: float = 0.002
    template: str = "chatml"
    tools: str = "ok"
    dictates: bool = True
    answers: str = "ok"
    silent: bool = False
    others: int = 0
    said: dict[str, str] = field(default_factory=dict)
    random: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 - no secret

    def pause(self, seconds: float) -> None:
        """Take as long as a step of an engine takes, on a host that is busy now and then."""
        time.sleep(seconds * self.slower * self.random.lognormvariate(0, self.noise))

    def fails(self) -> bool:
        """Return whether this request fails."""
        with self.lock:
            return self.random.random() < self.failing


def render(template: str, messages: Sequence[dict[str, str]], *, generation: bool) -> str:
    """Return the prompt of a chat."""
    if template == "alpaca":
        parts = [
            f"### {'Response' if m['role'] == 'assistant' else 'Instruction'}:\n{m['content']}\n" for m in messages
        ]
        return "".join(parts) + ("### Response:\n" if generation else "")
    if template == "foreign":
        parts = [f"<|start_header_id|>{m['role']}<|end_header_id|>{m['content']}<|eot_id|>" for m in messages]
        return "".join(parts) + ("<|start_header_id|>assistant<|end_header_id|>" if generation else "")
    if template == "contents":
        return "".join(m["content"] for m in messages)
    if template == "last":
        return f"<|im_start|>user\n{messages[-1]['content']}<|im_end|>\n"
    role = "user" if template == "one_role" else ""
    parts = [f"<|im_start|>{role or m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return "".join(parts) + ("<|im_start|>assistant\n" if generation and template != "no_generation" else "")


def tokens_of(text: str) -> list[int]:
    """Return a token for each special one and for each other character."""
    return [-1 - SPECIAL.index(part) if part in SPECIAL else ord(part) for part in _SPLIT.findall(text)]


class Engine(Handler):
    """Answers the paths of vLLM that the gates ask."""

    behaviour: Traits

    def do_GET(self) -> None:  # noqa: N802 - the base class's name
        """Tell the load."""
        self._tell_text(f'vllm:num_requests_running{{engine="0"}} {self.behaviour.others}.0\n')

    def do_POST(self) -> None:  # noqa: N802 - the base class's name
        """Answer, or fail."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        traits = self.behaviour
        with traits.lock:
            traits.requests.append({"path": self.path, **body})
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if traits.silent:
                self.close_connection = True
            elif traits.fails():
                self._refuse(traits.status)
            else:
                paths = {"/v1/completions": self._complete, "/v1/chat/completions": self._chat}
                paths |= {"/v1/embeddings": self._embed, "/v1/score": self._score}
                paths |= {"/tokenize": self._tokenize, "/detokenize": self._detokenize}
                paths.get(self.path, lambda _: self._refuse(404))(body)

    def _tell_text(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def _complete(self, body: dict[str, Any]) -> None:
        if body.get("stream"):
            self._say_slowly(int(body["max_tokens"]))
        elif body.get("echo"):
            words = str(body["prompt"]).split()
            logprobs = [None, *(self._logprob(n) for n in range(1, len(words)))]
            found = {"tokens": [*words, "x"], "token_logprobs": [*logprobs, -1.0]}
            self._tell_text(json.dumps({"choices": [{"logprobs": found}]}))
        elif body.get("logprobs"):
            likeliest = [{f"t{n}": self._logprob(n + len(prompt)) for n in range(5)} for prompt in body["prompt"]]
            self._tell_text(json.dumps({"choices": [{"logprobs": {"top_logprobs": [one]}} for one in likeliest]}))
        else:
            self.behaviour.pause(self.behaviour.first_s / 4)
            self._tell_text(json.dumps({"choices": [{"text": "a"}], "usage": {"completion_tokens": 1}}))

    def _logprob(self, number: int) -> float:
        traits = self.behaviour
        return -2 - math.sin(number) + traits.shift * math.cos(number) + traits.random.uniform(-1, 1) * traits.jitter

    def _say_slowly(self, tokens: int) -> None:
        self._begin()
        self.behaviour.pause(self.behaviour.first_s)
        for number in range(tokens):
            if number:
                self.behaviour.pause(self.behaviour.gap_s)
            self._event({"choices": [{"text": f"w{number} "}]})
        self._end(tokens)

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _end(self, tokens: int) -> None:
        self._event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": tokens}})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _chat(self, body: dict[str, Any]) -> None:
        traits = self.behaviour
        if traits.template == "none":
            self._refuse(400)
            return
        message, reason = self._message(body)
        if not body.get("stream"):
            self._tell_text(json.dumps({"choices": [{"message": message, "finish_reason": reason}]}))
            return
        self._begin()
        for call in message.get("tool_calls") or ():
            function, half = call["function"], len(call["function"]["arguments"]) // 2
            for part in ({"name": function["name"], "arguments": ""}, *_halves(function["arguments"], half)):
                self._event({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": part}]}}]})
        self._event({"choices": [{"delta": {"content": message["content"]}, "finish_reason": reason}]})
        self._end(3)

    def _message(self, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
        traits, asked = self.behaviour, str(body["messages"][-1]["content"])
        written = (body.get("structured_outputs") or {}).get("choice", [""])[0] if traits.dictates else ""
        if body.get("tools") and (written or traits.tools != "silent"):
            return self._call(body, written)
        if traits.answers == "markers":
            return {"content": f"yes\n### Instruction:\n{asked}"}, "length"
        if traits.answers == "endless":
            return {"content": "yes yes yes yes"}, "length"
        return {"content": traits.said.get(asked, "yes")}, "stop"

    def _call(self, body: dict[str, Any], written: str) -> tuple[dict[str, Any], str]:
        """Return what the parser of tool calls leaves."""
        name = body["tools"][0]["function"]["name"]
        arguments = {"broken": '{"city": "Paris', "unfit": '{"town": 1}'}.get(self.behaviour.tools, json.dumps(_CALL))
        text = written or f'<tool_call>\n{{"name": "{name}", "arguments": {json.dumps(_CALL)}}}\n</tool_call>'
        if self.behaviour.tools == "raw" or (self.behaviour.tools == "raw_stream" and body.get("stream")):
            return {"content": text}, "stop"
        return {"content": "", "tool_calls": [{"function": {"name": name, "arguments": arguments}}]}, "tool_calls"

    def _embed(self, body: dict[str, Any]) -> None:
        traits, text = self.behaviour, str(body["input"])
        traits.pause(traits.first_s)
        vector = [math.sin(sum(map(ord, text)) + n) + traits.shift * math.cos(7 * n) for n in range(16)]
        self._tell_text(json.dumps({"data": [{"embedding": vector}]}))

    def _score(self, body: dict[str, Any]) -> None:
        self.behaviour.pause(self.behaviour.first_s)
        self._tell_text(json.dumps({"data": [{"score": 0.4 + self.behaviour.shift + 0 * len(str(body))}]}))

    def _tokenize(self, body: dict[str, Any]) -> None:
        template = self.behaviour.template
        if "messages" in body and template == "none":
            self._refuse(400)
            return
        generation = bool(body.get("add_generation_prompt"))
        text = render(template, body["messages"], generation=generation) if "messages" in body else body["prompt"]
        tokens = tokens_of(text)
        self._tell_text(json.dumps({"count": len(tokens), "tokens": tokens}))

    def _detokenize(self, body: dict[str, Any]) -> None:
        text = "".join(SPECIAL[-1 - token] if token < 0 else chr(token) for token in body["tokens"])
        self._tell_text(json.dumps({"prompt": text}))


def _halves(text: str, at: int) -> tuple[dict[str, str], dict[str, str]]:
    return {"arguments": text[:at]}, {"arguments": text[at:]}


@contextlib.contextmanager
def engine(traits: Traits) -> Iterator[str]:
    """Serve on a free port of loopback and give host:port."""
    with serving(traits, Engine) as address:
        yield address.removeprefix("http://")
