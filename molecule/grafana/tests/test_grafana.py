"""The stand-in says what it is, and Grafana's own settings are where Grafana would read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[3]


def get(host: Host, path: str) -> str:
    code = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:3000{path}').read().decode())"
    return host.check_output(f'python3 -c "{code}"')


def test_the_stand_in_says_what_it_is(host: Host) -> None:
    assert get(host, "/") == "STAND-IN, not Grafana"
    assert json.loads(get(host, "/api/health")) == {"database": "ok", "version": "stand-in"}
    assert "STAND-IN" in host.check_output("systemctl show --property=Description --value grafana-server")


def test_it_runs_as_nobody_in_particular(host: Host) -> None:
    assert host.check_output("systemctl show --property=DynamicUser --value grafana-server") == "yes"
    checked = host.run("systemd-analyze verify grafana-server.service")
    assert (checked.rc, checked.stderr) == (0, "")


def test_the_real_settings_are_in_place(host: Host) -> None:
    settings = host.file("/etc/grafana/grafana.ini").content_string
    assert "http_addr = 127.0.0.1" in settings
    assert "[auth.anonymous]\nenabled = false" in settings
    source = host.file("/etc/grafana/provisioning/datasources/rackserve.yml").content_string
    assert "url: http://127.0.0.1:9090" in source


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"grafana_stand_in": False}, "grafana_package is empty and grafana_stand_in is false"),
        ({"grafana_package": __file__, "grafana_package_sha256": "0" * 64}, "grafana_package_sha256 says 0000"),
        ({"grafana_package": "/nowhere.deb", "grafana_package_sha256": "0" * 64}, "has sha256 missing"),
    ],
    ids=["neither", "another package", "no such package"],
)
@pytest.mark.usefixtures("host")
def test_a_wrong_package_is_refused(play: Play, variables: dict[str, object], reason: str) -> None:
    done = play("molecule/grafana/converge.yml", variables, "--tags", "grafana_preflight")
    assert done.returncode != 0
    assert reason in " ".join(done.stdout.split())
