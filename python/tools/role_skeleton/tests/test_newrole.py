"""What newrole does on a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testinfra.host import Host


def test_the_service_runs_and_starts_at_boot(host: Host) -> None:
    service = host.service("newrole.service")
    journal = host.run("journalctl --unit newrole.service --no-pager --lines 20")
    assert service.is_running, journal.stdout
    assert service.is_enabled


def test_systemd_restarts_the_service_after_a_failure(host: Host) -> None:
    properties = host.service("newrole.service").systemd_properties
    assert (properties["Restart"], properties["RestartUSec"]) == ("on-failure", "5s")
