"""Checks from the controller through the edge, as a client: TLS, key, chat, stream, paths, limit."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import httpx

from rackserve.ansible.module_utils.rackserve_judges import chat_request, excerpt, judge_chat, judge_stream
from rackserve.checks._types import MAX_TOKENS, PROMPT, Check, CheckResult
from rackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rackserve.checks._types import EdgeTarget

_CONNECT_S: Final = 10.0
_CHAT_S: Final = 120.0
_LIMIT_THREADS: Final = 32
_LIMIT_EXTRA: Final = 20
_MOST_REQUESTS: Final = 500
_BUSY_TRIES: Final = 5
_BUSY_PAUSE_S: Final = 1.0
_DAY_S: Final = 86400
_UNKNOWN_PATH: Final = "/rackserve-verify/no-such-path"

Answer = tuple[int, str]


class EdgeClient(Protocol):
    """Sends one request to the edge."""

    def send(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Answer:
        """Return status and text; raise httpx.HTTPError when there is no answer."""
        ...


class HttpsEdgeClient:
    """Connects to the edge's address and verifies its certificate against the server name and the site's CA."""

    def __init__(self, target: EdgeTarget, key: str | None = None) -> None:
        self._target = target
        self._http = httpx.Client(
            base_url=f"https://{target.address}:{target.port}",
            verify=tls_context(target),
            timeout=httpx.Timeout(_CHAT_S, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=_LIMIT_THREADS),
            trust_env=False,  # no proxy and no other CA between us and the edge
            headers={"Host": target.server_name} | ({"Authorization": f"Bearer {key}"} if key else {}),
        )

    def send(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Answer:
        """Send one request over a verified connection."""
        answer = self._http.request(method, path, json=body, extensions={"sni_hostname": self._target.server_name})
        return answer.status_code, answer.text

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def tls_context(target: EdgeTarget) -> ssl.SSLContext:
    """Return a context that trusts the site's CA only, or the system's where the site names none.

    Raises:
        OSError: the CA's file or the client's certificate is invalid.
    """
    context = ssl.create_default_context(cafile=str(target.ca_file) if target.ca_file else None)
    if target.certificate_file:
        context.load_cert_chain(target.certificate_file, target.certificate_file.with_suffix(".key"))
    return context


def run_edge_checks(target: EdgeTarget) -> tuple[CheckResult, ...]:
    """Run all checks of one edge over connections that are closed afterwards."""
    if target.ca_file is not None and not target.ca_file.is_file():
        return (TlsCheck(target).run(),)  # reports the missing file; no other check could connect
    try:
        key = key_of(target.key_file)
    except InputError as error:
        return (TlsCheck(target).run(), CheckResult("client key", target.host, ok=False, detail=str(error)))
    try:
        client, anonymous = HttpsEdgeClient(target, key), HttpsEdgeClient(target)
    except OSError:
        return (TlsCheck(target).run(),)  # reports the problem with the files
    with contextlib.closing(client), contextlib.closing(anonymous):
        return tuple(check.run() for check in edge_checks(target, client, anonymous))


def key_of(key_file: Path | None) -> str:
    """Return the client's key in a file of this controller.

    Raises:
        InputError: when there is none.
    """
    if key_file is None:
        raise InputError("no file with a client's key is named; set stack_client_key_file to one")
    try:
        key = key_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        reason = error.strerror
    else:
        if key:
            return key
        reason = "it is empty"
    raise InputError(f"no client's key in {key_file}: {reason}; set stack_client_key_file to a file with one")


def edge_checks(target: EdgeTarget, client: EdgeClient, anonymous: EdgeClient) -> tuple[Check, ...]:
    """Return the checks of one edge, in order; the rate limit comes last, since it exhausts the limit."""
    return (
        TlsCheck(target),
        UnauthenticatedCheck(target, anonymous),
        *(ChatCheck(target, client, stream=stream) for stream in (False, True) if target.model),
        UnknownPathCheck(target, client),
        RateLimitCheck(target, client),
    )


@dataclass(frozen=True)
class TlsCheck:
    """The certificate is signed by the site's CA and valid for the server name."""

    target: EdgeTarget

    def run(self) -> CheckResult:
        """Do one TLS handshake."""
        target = self.target
        if target.ca_file is not None and not target.ca_file.is_file():
            detail = f"there is no CA file {target.ca_file}; set stack_ca_file to the PEM file of the edge's CA"
            return CheckResult("tls", target.host, ok=False, detail=detail)
        own = target.certificate_file
        if own is not None and not (own.is_file() and own.with_suffix(".key").is_file()):
            detail = f"there is no {own} with its .key; set stack_client_certificate_file to a client's certificate"
            return CheckResult("tls", target.host, ok=False, detail=detail)
        try:
            with (
                socket.create_connection((target.address, target.port), timeout=_CONNECT_S) as plain,
                tls_context(target).wrap_socket(plain, server_hostname=target.server_name) as wrapped,
            ):
                expires = ssl.cert_time_to_seconds(str((wrapped.getpeercert() or {})["notAfter"]))
                version = wrapped.version()
        except ssl.SSLCertVerificationError as error:
            detail = (
                f"the certificate of {target.address} is not valid for {target.server_name}: {error.verify_message}"
            )
            return CheckResult("tls", target.host, ok=False, detail=detail)
        except (OSError, KeyError) as error:
            detail = f"no TLS with {target.address}:{target.port}: {error}"
            return CheckResult("tls", target.host, ok=False, detail=detail)
        days = int((expires - time.time()) // _DAY_S)
        detail = f"{version}, certificate valid for {target.server_name}, {days} days left"
        return CheckResult("tls", target.host, ok=True, detail=detail)


@dataclass(frozen=True)
class ChatCheck:
    """A chat request is answered through nginx, as one answer or as a stream."""

    target: EdgeTarget
    client: EdgeClient
    stream: bool

    def run(self) -> CheckResult:
        """Send the request; a 429 caused by earlier checks is retried."""
        target = self.target
        name = "stream through nginx" if self.stream else "chat through nginx"
        ask = {"model": target.model, "prompt": PROMPT, "max_tokens": MAX_TOKENS}
        body = chat_request(ask, stream=self.stream)
        try:
            status, text = self.client.send("POST", "/v1/chat/completions", body)
            for _ in range(_BUSY_TRIES):
                if status != httpx.codes.TOO_MANY_REQUESTS:
                    break
                time.sleep(_BUSY_PAUSE_S)
                status, text = self.client.send("POST", "/v1/chat/completions", body)
        except httpx.HTTPError as error:
            return CheckResult(name, target.host, ok=False, detail=no_answer(error))
        ok, detail = (judge_stream if self.stream else judge_chat)(status, text, target.expect)
        return CheckResult(name, target.host, ok=ok, detail=detail)


@dataclass(frozen=True)
class UnauthenticatedCheck:
    """An unauthenticated request is refused with a 401 that a client can parse."""

    target: EdgeTarget
    client: EdgeClient

    def run(self) -> CheckResult:
        """Request the list of models without a key."""
        try:
            status, text = self.client.send("GET", "/v1/models")
        except httpx.HTTPError as error:
            return CheckResult("no key", self.target.host, ok=False, detail=no_answer(error))
        ok = status == httpx.codes.UNAUTHORIZED and is_json_error(text)
        detail = "401 with a JSON error" if ok else f"HTTP {status}, expected 401 with a JSON error: {excerpt(text)}"
        return CheckResult("no key", self.target.host, ok=ok, detail=detail)


@dataclass(frozen=True)
class UnknownPathCheck:
    """A path that is not on the allowlist gets a 404 that a client can parse."""

    target: EdgeTarget
    client: EdgeClient

    def run(self) -> CheckResult:
        """Request a path that does not exist."""
        try:
            status, text = self.client.send("GET", _UNKNOWN_PATH)
        except httpx.HTTPError as error:
            return CheckResult("unknown path", self.target.host, ok=False, detail=no_answer(error))
        ok, detail = judge_unknown_path(status, text)
        return CheckResult("unknown path", self.target.host, ok=ok, detail=detail)


@dataclass(frozen=True)
class RateLimitCheck:
    """A client over its rate limit gets a 429 that it can parse."""

    target: EdgeTarget
    client: EdgeClient

    def run(self) -> CheckResult:
        """Send more requests at once than the limit allows."""
        target = self.target
        count = min(target.rate + target.burst + _LIMIT_EXTRA, _MOST_REQUESTS)
        with ThreadPoolExecutor(_LIMIT_THREADS) as pool:
            answers = list(pool.map(self._get, range(count)))
        ok, detail = judge_rate_limit(answers)
        return CheckResult("rate limit", target.host, ok=ok, detail=detail)

    def _get(self, _number: int) -> Answer:
        try:
            return self.client.send("GET", "/v1/models")
        except httpx.HTTPError as error:
            return 0, no_answer(error)


def judge_unknown_path(status: int, text: str) -> tuple[bool, str]:
    """Judge the answer to an unknown path: 404 with a JSON error."""
    if status != httpx.codes.NOT_FOUND:
        return False, f"HTTP {status}, expected 404: {excerpt(text)}"
    if not is_json_error(text):
        return False, f"404 without a JSON error: {excerpt(text)}"
    return True, "404 with a JSON error"


def judge_rate_limit(answers: Sequence[Answer]) -> tuple[bool, str]:
    """Judge a burst of requests: some accepted, some refused with a JSON 429, and nothing else."""
    passed = sum(status == httpx.codes.OK for status, _ in answers)
    refused = [text for status, text in answers if status == httpx.codes.TOO_MANY_REQUESTS]
    others = [
        (status, text) for status, text in answers if status not in (httpx.codes.OK, httpx.codes.TOO_MANY_REQUESTS)
    ]
    if others:
        status, text = others[0]
        return False, f"{len(others)} of {len(answers)} failed, the first with HTTP {status}: {excerpt(text)}"
    if not refused:
        return False, f"{len(answers)} requests at once and no 429; nginx does not limit this client"
    if not passed:
        return False, f"all {len(answers)} requests were refused with 429"
    if not all(is_json_error(text) for text in refused):
        return False, f"429 without a JSON error: {excerpt(refused[0])}"
    return True, f"{passed} of {len(answers)} accepted, {len(refused)} refused with a JSON 429"


def is_json_error(text: str) -> bool:
    """Whether a body is an error as OpenAI's clients read it: an object with an object `error` that has a message."""
    try:
        body = json.loads(text)
    except ValueError:
        return False
    error = body.get("error") if isinstance(body, dict) else None
    return isinstance(error, dict) and bool(error.get("message"))


def no_answer(error: httpx.HTTPError) -> str:
    """Describe a missing answer."""
    return f"no answer: {type(error).__name__}: {error}"
