"""A changed instance is served by a generation of its own, and clients are taken to it and back without a loss.

The tests run in their order, after those of test_vllm.py, which leave the host with one instance that does not serve.
The second generation has a served name more, so that a client can tell who answers.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from testing.generations import INSTANCES, folder_of, generation, unit_of

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

NAME = "tiny"
LISTENER = f"vllm-proxy@{NAME}.socket"
UNITS = "/etc/systemd/system"
VARS = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text(encoding="utf-8"))
FIRST: dict[str, Any] = VARS["vllm_instances"][0]
SECOND = {**FIRST, "model": {**FIRST["model"], "served_names": [NAME, "second"]}}
SERVES_WITHIN_S = 150
# Longer than a play that switches; each sequence of the stream has so many tokens, and two are computed at a time.
STREAM_S, STREAM_TOKENS = 45, 200
MOST_SEQUENCES = 1000
DONE = "/run/stream.json"
GET = """
import http.client, socket, sys
place, path = sys.argv[1:]
connection = http.client.HTTPConnection("localhost" if place.startswith("/") else place, timeout=30)
if place.startswith("/"):
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(place)
connection.request("GET", path)
print(connection.getresponse().read().decode())
"""
STREAM = f"""
import http.client, json, sys, time
place, sequences, began = sys.argv[1], int(sys.argv[2]), time.monotonic()
body = dict(model="{NAME}", prompt="a", max_tokens={STREAM_TOKENS}, ignore_eos=True, temperature=1.0, n=sequences)
body.update(stream=True, stream_options=dict(include_usage=True))
connection = http.client.HTTPConnection(place, timeout=600)
connection.request("POST", "/v1/completions", json.dumps(body), {{"Content-Type": "application/json"}})
*_, last, end = [line[6:] for line in connection.getresponse().read().decode().splitlines() if line]
tokens = json.loads(last)["usage"]["completion_tokens"]
print(json.dumps(dict(end=end, tokens=tokens, seconds=time.monotonic() - began)))
"""


def show(host: Host, unit: str, key: str) -> str:
    return host.check_output(f"systemctl show --property={key} --value {unit}")


def entry(host: Host) -> str:
    return f"{host.check_output('hostname -I').split()[0]}:8000"


def socket_of(digest: str) -> str:
    return f"/run/vllm-{NAME}.{digest}/api.sock"


def served(host: Host, place: str) -> list[str]:
    """Return the names that the engine at a socket or behind an entry serves; none where none answers."""
    page = host.run("python3 -c %s %s /v1/models", GET, place)
    return [model["id"] for model in json.loads(page.stdout)["data"]] if page.rc == 0 else []


def running(host: Host, digest: str) -> float:
    page = host.check_output("python3 -c %s %s /metrics", GET, socket_of(digest))
    rows = [row for row in page.splitlines() if row.startswith("vllm:num_requests_running")]
    return sum(float(row.rsplit(" ", 1)[1]) for row in rows)


def wait_for(condition: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s"
        time.sleep(0.5)


def converge(play: Play, instance: dict[str, Any]) -> str:
    done = play("molecule/vllm/converge.yml", {"vllm_instances": [instance]})
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def switch(play: Play, state: str, digest: str, **more: object) -> None:
    done = play("molecule/vllm/switch.yml", {"switch_state": state, "switch_digest": digest, **more})
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture(scope="module", autouse=True)
def first(host: Host, play: Play) -> str:
    """Have the first generation serve, after an engine that could not start; return its digest."""
    converge(play, FIRST)
    return generation(host, NAME)


def test_a_changed_instance_is_served_by_a_second_generation(host: Host, play: Play, first: str) -> None:
    paths = f"{folder_of(NAME, first)} {UNITS}/{unit_of(NAME, first)}"
    files = f"find {paths} -type f -exec sha256sum {{}} + -exec stat --format='%n %Y' {{}} + | sort"
    before = host.check_output(files)
    converge(play, SECOND)
    second = generation(host, NAME)
    assert second != first
    assert generation(host, NAME, "previous") == first
    assert host.check_output(files) == before
    states = [show(host, unit_of(NAME, digest), "ActiveState") for digest in (first, second)]
    assert states == ["inactive", "active"]
    assert served(host, entry(host)) == SECOND["model"]["served_names"]
    assert "changed=0" in converge(play, SECOND)
    assert generation(host, NAME, "previous") == first


def begin_stream(host: Host) -> int:
    """Begin a stream that lasts; return how many tokens it must have."""
    host.check_output("printf %%s %s >/run/stream.py", STREAM)
    alone = json.loads(host.check_output(f"python3 /run/stream.py {entry(host)} 1"))["seconds"]
    sequences = min(MOST_SEQUENCES, math.ceil(FIRST["max_num_seqs"] * STREAM_S / alone))
    command = f"python3 /run/stream.py {entry(host)} {sequences} >{DONE}.new && mv {DONE}.new {DONE}"
    host.check_output(f"rm -f {DONE}; nohup sh -c '{command}' >/dev/null 2>&1 &")
    return sequences * STREAM_TOKENS


def test_a_switch_beside_the_live_engine_loses_no_stream(host: Host, play: Play, first: str) -> None:
    second, listener = generation(host, NAME), show(host, LISTENER, "InvocationID")
    switch(play, "candidate", first)
    candidate = show(host, unit_of(NAME, first), "InvocationID")
    assert generation(host, NAME) == second
    assert served(host, socket_of(first)) == FIRST["model"]["served_names"]
    for place in (socket_of(second), entry(host)):
        assert served(host, place) == SECOND["model"]["served_names"]
    tokens = begin_stream(host)
    wait_for(lambda: running(host, second) > 0, 10)
    switch(play, "live", first, switch_overlap=True)
    assert served(host, entry(host)) == FIRST["model"]["served_names"]
    assert not host.file(DONE).exists, "the stream ended before the switch: it showed nothing"
    switch(play, "ended", first)
    wait_for(lambda: host.file(DONE).exists, 10)
    seen = json.loads(host.file(DONE).content_string)
    assert (seen["end"], seen["tokens"]) == ("[DONE]", tokens)
    assert show(host, unit_of(NAME, second), "ActiveState") == "inactive"
    assert (generation(host, NAME), generation(host, NAME, "previous")) == (first, second)
    assert not host.run(f"readlink {INSTANCES}/{NAME}/candidate").stdout
    assert show(host, unit_of(NAME, first), "InvocationID") == candidate, "it was started twice"
    assert show(host, LISTENER, "InvocationID") == listener, "the entry was closed"


def test_the_generation_before_is_one_switch_away(host: Host, play: Play, first: str) -> None:
    second = generation(host, NAME, "previous")
    switch(play, "live", second)
    wait_for(lambda: served(host, entry(host)) == SECOND["model"]["served_names"], SERVES_WITHIN_S)
    assert (generation(host, NAME), generation(host, NAME, "previous")) == (second, first)
    assert show(host, unit_of(NAME, first), "ActiveState") == "inactive"


def test_an_engine_that_is_not_live_does_not_start(host: Host, first: str) -> None:
    """Nor after a boot that finds its unit enabled, as one between two steps of a switch does."""
    host.run(f"systemctl start {unit_of(NAME, first)}")
    assert show(host, unit_of(NAME, first), "ActiveState") == "inactive"
    assert show(host, unit_of(NAME, first), "Result") == "exec-condition"
    assert served(host, entry(host)) == SECOND["model"]["served_names"]


def test_no_more_generations_stay_than_are_kept(host: Host, play: Play, first: str) -> None:
    second = generation(host, NAME)
    for digest, date in {"aaaaaaaaaa": "2001-01-01", "bbbbbbbbbb": "2030-01-01"}.items():
        folder, unit = folder_of(NAME, digest), unit_of(NAME, digest)
        host.check_output(f"cp -a {folder_of(NAME, first)} {folder} && touch --date={date} {folder}")
        host.check_output(f"cp {UNITS}/{unit_of(NAME, first)} {UNITS}/{unit}")
    for keep, stay in ((3, {first, second, "bbbbbbbbbb"}), (2, {first, second})):
        switch(play, "kept", second, switch_keep=keep)
        assert set(host.check_output(f"ls {INSTANCES}/{NAME}/generations").split()) == stay
        units = host.check_output(f"cd {UNITS} && ls -d vllm@{NAME}.*.service").split()
        assert set(units) == {unit_of(NAME, digest) for digest in stay}
    assert served(host, entry(host)) == SECOND["model"]["served_names"]
