"""A changed instance is served by a generation of its own, and clients are taken to it and back without a loss.

The tests run in their order, after those of test_vllm.py, which leave the host with one instance that does not serve.
The second generation has a served name more, so that a client can tell who answers.
"""

from __future__ import annotations

import json
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
STREAMS, ENOUGH, DONE = "/run/streams.py", "/run/streams.enough", "/run/streams.jsonl"
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
import http.client, json, os, sys, time
while not os.path.exists("{ENOUGH}"):
    began, body = time.time(), dict(model="{NAME}", prompt="a", max_tokens=200, ignore_eos=True, n=4, stream=True)
    body.update(stream_options=dict(include_usage=True))
    connection = http.client.HTTPConnection(sys.argv[1], timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(body), {{"Content-Type": "application/json"}})
    *_, last, end = [line[6:] for line in connection.getresponse().read().decode().splitlines() if line]
    row = dict(end=end, tokens=json.loads(last)["usage"]["completion_tokens"], began=began, ended=time.time())
    print(json.dumps(row), flush=True)
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


def begin_streams(host: Host, clients: int) -> None:
    """Begin clients that stream, each one answer after another, until `end_streams`."""
    host.check_output(f"rm -f {ENOUGH} {DONE}; printf %s %s >{STREAMS}", "%s", STREAM)
    command = f"nohup python3 {STREAMS} {entry(host)} >>{DONE} 2>&1 &"
    host.check_output(f"for one in $(seq {clients}); do {command} done")


def end_streams(host: Host) -> list[dict[str, Any]]:
    """End the clients after the streams that they have open; return all of their streams."""
    host.check_output(f"touch {ENOUGH}")
    wait_for(lambda: host.run(f"pgrep -f '[/]{STREAMS[1:]}'").rc == 1, 60)
    return [json.loads(row) for row in host.file(DONE).content_string.splitlines()]


def test_a_switch_beside_the_live_engine_loses_no_stream(host: Host, play: Play, first: str) -> None:
    second, listener = generation(host, NAME), show(host, LISTENER, "InvocationID")
    switch(play, "candidate", first)
    candidate = show(host, unit_of(NAME, first), "InvocationID")
    assert generation(host, NAME) == second
    assert served(host, socket_of(first)) == FIRST["model"]["served_names"]
    for place in (socket_of(second), entry(host)):
        assert served(host, place) == SECOND["model"]["served_names"]
    begin_streams(host, clients=2)
    wait_for(lambda: bool(host.file(DONE).content_string), 60)
    switch(play, "live", first, switch_overlap=True)
    switched = float(host.check_output(f"stat --format=%.Y {INSTANCES}/{NAME}/current"))
    assert served(host, entry(host)) == FIRST["model"]["served_names"]
    switch(play, "ended", first)
    streams = end_streams(host)
    assert {(one["end"], one["tokens"]) for one in streams} == {("[DONE]", 800)}
    assert any(one["began"] < switched < one["ended"] for one in streams), "no stream was open at the switch"
    assert any(one["began"] > switched for one in streams), "no stream began after the switch"
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
    # systemd may have forgotten the unit and its Result by now.
    said = host.check_output(f"journalctl --unit={unit_of(NAME, first)} --output=cat --lines=3")
    assert "Skipped due to 'exec-condition'" in said
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
