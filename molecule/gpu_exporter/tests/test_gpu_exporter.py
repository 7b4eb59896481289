"""A host without a GPU gets no exporter; one asked for by name that the bundle does not have is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from testinfra.host import Host

    Play = Callable[..., subprocess.CompletedProcess[str]]


def test_a_host_without_a_gpu_is_left_alone(host: Host) -> None:
    assert not host.file("/opt/nvitop-exporter").exists
    assert not host.file("/etc/systemd/system/nvitop-exporter.service").exists


@pytest.mark.parametrize("source", ["auto", "none"])
@pytest.mark.usefixtures("host")
def test_a_second_run_changes_nothing(play: Play, source: str) -> None:
    done = play("molecule/gpu_exporter/converge.yml", {"gpu_exporter_source": source})
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"gpu_exporter_source": "nvitop"}, "has no nvitop-exporter; build it again with a runtime of flavour cuda"),
        ({"gpu_exporter_prot": 1}, "unknown variable(s) gpu_exporter_prot"),
    ],
    ids=["not in the bundle", "a typing error"],
)
def test_what_cannot_work_is_refused(host: Host, play: Play, variables: dict[str, object], reason: str) -> None:
    done = play("molecule/gpu_exporter/converge.yml", variables)
    assert done.returncode != 0
    assert reason in " ".join(done.stdout.split())
    assert not host.file("/opt/nvitop-exporter").exists
