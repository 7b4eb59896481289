"""A plugin of vLLM that makes its engine bad in one way, which `bad_release.json` beside it names.

vLLM loads it in every process, as any of the entry points `vllm.general_plugins`. testing.bad_releases puts it into a
runtime on a host of the lab. Python 3.10 or newer, with vLLM.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    Message = MutableMapping[str, Any]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Any, Message, Any, Send], Awaitable[None]]

SETTINGS = "bad_release.json"
# The first brace of a tool call's arguments, in a whole answer and in a chunk of a stream.
_ARGUMENTS = re.compile(rb'("arguments":\s*"(?:[^"\\{]|\\.)*)\{')
_ERROR = b'{"error": {"message": "a bad release", "type": "InternalServerError", "param": null, "code": 500}}'


def register() -> None:
    """Make the engine bad; in a program that only reads arguments, change nothing."""
    if "serve" not in sys.argv:
        return
    settings = json.loads(Path(__file__).with_name(SETTINGS).read_text(encoding="utf-8"))
    make: dict[str, Callable[..., None]] = {
        "slow": _slow,
        "hang": _hang,
        "weights": _weights,
        "errors": _errors,
        "calls": _calls,
    }
    make[settings["kind"]](**settings["options"])


def slowed(step: Callable[..., Any], share: float) -> Callable[..., Any]:
    """Return a step of the engine that takes longer by this share."""

    def slow(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        found = step(*args, **options)
        time.sleep((time.perf_counter() - began) * share)
        return found

    return slow


def hanging(step: Callable[..., Any], after_s: float, hang_s: float = 86400) -> Callable[..., Any]:
    """Return a step of the engine that hangs, from so many seconds after the first step on."""
    began: float | None = None

    def hang(*args: Any, **options: Any) -> Any:
        nonlocal began
        began = time.monotonic() if began is None else began
        if time.monotonic() - began > after_s:
            time.sleep(hang_s)
        return step(*args, **options)

    return hang


def negate(parameters: Iterable[tuple[str, Any]], name: str) -> int:
    """Turn the sign of the weights whose name contains a text; return how many tensors that were."""
    found = [parameter for own, parameter in parameters if name in own]
    for parameter in found:
        parameter.data.neg_()
    return len(found)


def failing(app: App, every: int) -> App:
    """Return an application that answers 500 to every so-manyth request of a client."""
    numbers = itertools.count(1)

    async def call(self: Any, scope: Message, receive: Any, send: Send) -> None:
        asked = scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith("/v1/")
        if not asked or next(numbers) % every:
            await app(self, scope, receive, send)
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_ERROR)).encode())]
        await send({"type": "http.response.start", "status": 500, "headers": headers})
        await send({"type": "http.response.body", "body": _ERROR})

    return call


def breaking(app: App) -> App:
    """Return an application whose tool calls have arguments that are no JSON, of the same length."""

    async def call(self: Any, scope: Message, receive: Any, send: Send) -> None:
        async def broken(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": _ARGUMENTS.sub(rb"\1[", message.get("body", b""))}
            await send(message)

        await app(self, scope, receive, broken)

    return call


def _slow(share: float) -> None:
    worker = _worker()
    worker.execute_model = slowed(worker.execute_model, share)


def _hang(after_s: float) -> None:
    worker = _worker()
    worker.execute_model = hanging(worker.execute_model, after_s)


def _worker() -> Any:
    from vllm.v1.worker.cpu_worker import CPUWorker  # type: ignore[import-not-found]  # noqa: PLC0415 - in vLLM only

    return CPUWorker


def _weights(name: str) -> None:
    from vllm.model_executor.model_loader.default_loader import (  # type: ignore[import-not-found]  # noqa: PLC0415
        DefaultModelLoader,
    )

    load = DefaultModelLoader.load_weights

    def altered(self: Any, model: Any, *args: Any, **options: Any) -> Any:
        found = load(self, model, *args, **options)
        if not negate(model.named_parameters(), name):
            raise ValueError(f"no weight has {name!r} in its name")
        return found

    DefaultModelLoader.load_weights = altered


def _errors(every: int) -> None:
    application = _application()
    application.__call__ = failing(application.__call__, every)


def _calls() -> None:
    application = _application()
    application.__call__ = breaking(application.__call__)


def _application() -> Any:
    from starlette.applications import Starlette  # type: ignore[import-not-found]  # noqa: PLC0415 - in vLLM only

    return Starlette
