"""The units are as closed as promised, known to their systemd, and give up when nothing ever comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from testing.generations import INSTANCES, engine_unit

if TYPE_CHECKING:
    from testinfra.host import Host

ENGINE = engine_unit("tiny")
UNITS = {
    "engine": ENGINE,
    "listener": "vllm-proxy@tiny.socket",
    "proxy": "vllm-proxy@tiny.service",
    "probe": "vllm-probe@tiny.service",
    "timer": "vllm-probe@tiny.timer",
}
# Files in /etc/systemd/system; tenths; systemd 252, offline.
EXPOSURE = {"engine": (ENGINE, 12), "proxy": ("vllm-proxy@.service", 20), "probe": ("vllm-probe@.service", 20)}
CLOSEST = 3  # what none of them meets
START_LIMIT = 5


def show(host: Host, unit: str, key: str) -> str:
    return host.check_output(f"systemctl show --property={key} --value {unit}")


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_a_unit_has_no_unknown_key(host: Host, unit: str) -> None:
    checked = host.run(f"systemd-analyze verify --man=no {unit}")
    assert (checked.rc, checked.stderr) == (0, "")


@pytest.mark.parametrize(("unit", "limit"), EXPOSURE.values(), ids=EXPOSURE)
def test_a_unit_is_as_closed_as_promised(host: Host, unit: str, limit: int) -> None:
    command = "systemd-analyze security --offline=true --no-pager --threshold={} /etc/systemd/system/{}"
    assert host.run(command.format(limit, unit)).rc == 0
    assert host.run(command.format(CLOSEST, unit)).rc != 0, "a limit that nobody meets"


def test_an_engine_may_write_and_execute_memory(host: Host) -> None:
    assert show(host, ENGINE, "MemoryDenyWriteExecute") == "no", "the first chat would kill the engine"


def test_a_start_that_fails_as_slowly_as_it_can_still_trips_the_limit(host: Host) -> None:
    keys = ("StartLimitIntervalUSec", "TimeoutStartUSec", "TimeoutStopUSec", "RestartUSec")
    shown = host.check_output(f"systemctl show --timestamp=us --property={','.join(keys)} {ENGINE}")
    interval, *attempt = (seconds(host, dict(line.split("=") for line in shown.splitlines())[key]) for key in keys)
    assert show(host, ENGINE, "StartLimitBurst") == str(START_LIMIT)
    assert interval > START_LIMIT * sum(attempt)


def seconds(host: Host, span: str) -> float:
    text = host.check_output(f"systemd-analyze timespan '{span}'")
    return int(text.splitlines()[1].split()[1]) / 1e6


def test_the_memory_of_an_instance_has_a_limit(host: Host) -> None:
    """Whether the kernel enforces it is measured in test_sandbox.py."""
    total = int(host.check_output("awk '$1 == \"MemTotal:\" {print $2}' /proc/meminfo")) << 10
    limit = host.check_output(f"systemctl show --property=MemoryMax --value {ENGINE}")
    assert 0.9 * total < int(limit) < total


def test_the_drain_fits_into_a_stop(host: Host) -> None:
    drain = host.check_output(f"grep ^shutdown-timeout: {INSTANCES}/tiny/current/engine.yaml").split()[1]
    assert seconds(host, show(host, ENGINE, "TimeoutStopUSec")) >= int(drain) + 30


def test_the_caches_are_for_the_service_alone(host: Host) -> None:
    folder = host.file("/var/cache/vllm/tiny")
    assert (folder.user, folder.mode) == ("vllm", 0o700)


def test_a_drop_in_of_an_instance_counts_for_each_of_its_generations(host: Host) -> None:
    assert "/etc/systemd/system/vllm@tiny." in show(host, ENGINE, "FragmentPath")
    assert ".service.d/10-instance.conf" in show(host, ENGINE, "DropInPaths")
