"""A host that can be provisioned passes; one that cannot is refused with every reason; neither is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]

STATE = "find /etc /opt /usr/local /var/lib -xdev -printf '%p %s %m %U %T@\\n' | sort | sha256sum"
SMALL = "/run/small"


@pytest.fixture
def small(host: Host) -> Iterator[str]:
    """Return a folder of the host with room for one megabyte."""
    host.check_output(f"mkdir -p {SMALL} && mount -t tmpfs -o size=1m tmpfs {SMALL}")
    yield SMALL
    host.check_output(f"umount {SMALL}")


def test_a_host_that_can_be_provisioned_passes_unchanged(host: Host, play: Play) -> None:
    before = host.check_output(STATE)
    done = play("molecule/preflight/converge.yml")
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout
    assert host.check_output(STATE) == before


def test_every_reason_is_given_at_once_and_nothing_is_changed(host: Host, play: Play, small: str) -> None:
    before = host.check_output(STATE)
    runtime = {"vllm": "0.32.0", "flavour": "cpu", "python": "3.12"}
    done = play("molecule/preflight/converge.yml", {"preflight_releases": small, "preflight_runtime": runtime})
    words = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "gpu1 cannot be provisioned, nothing was changed" in words
    assert "/usr/bin/python3.12 not on the host refused" in words
    assert f"disk {small}" in words
    assert host.check_output(STATE) == before


@pytest.mark.usefixtures("host")
def test_a_variable_that_no_role_knows_is_refused(play: Play) -> None:
    done = play("molecule/preflight/converge.yml", {"vllm_instanses": []})
    assert done.returncode != 0
    assert "unknown variable(s) vllm_instanses" in " ".join(done.stdout.split())
