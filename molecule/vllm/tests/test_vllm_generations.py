"""A changed instance is served by a generation of its own, and clients are taken to it and back without a loss.

The tests run in their order, after those of test_vllm.py, which leave the host with one instance that does not serve.
The second generation has a served name more, so that a client can tell who answers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from testing.generations import folder_of, generation, unit_of

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

NAME = "tiny"
UNITS = "/etc/systemd/system"
VARS = yaml.safe_load((Path(__file__).parents[1] / "vars.yml").read_text(encoding="utf-8"))
FIRST: dict[str, Any] = VARS["vllm_instances"][0]
SECOND = {**FIRST, "model": {**FIRST["model"], "served_names": [NAME, "second"]}}
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


def show(host: Host, unit: str, key: str) -> str:
    return host.check_output(f"systemctl show --property={key} --value {unit}")


def entry(host: Host) -> str:
    return f"{host.check_output('hostname -I').split()[0]}:8000"


def served(host: Host, place: str) -> list[str]:
    """Return the names that the engine at a socket or behind an entry serves; none where none answers."""
    page = host.run("python3 -c %s %s /v1/models", GET, place)
    return [model["id"] for model in json.loads(page.stdout)["data"]] if page.rc == 0 else []


def converge(play: Play, instance: dict[str, Any]) -> str:
    done = play("molecule/vllm/converge.yml", {"vllm_instances": [instance]})
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


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
