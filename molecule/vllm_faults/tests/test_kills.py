"""An engine that is killed ten times serves ten times again; one that can never start is given up."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from testing.generations import engine_unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from testinfra.host import Host

UNIT = engine_unit("tiny")
KILLS = 10
BACK_WITHIN_S = 150
START_LIMIT = 5
GIVEN_UP_WITHIN_S = 300
# Of all generations of the instance: the folder that the drop-ins of each of them are a link to.
DROPIN = "/etc/systemd/system/vllm@tiny.service.d/99-broken.conf"
ASK = (
    "import json, urllib.request as u;"
    " body = json.dumps(dict(model='tiny', prompt='a', max_tokens=2, ignore_eos=True)).encode();"
    " request = u.Request('http://{}:8000/v1/completions', body, dict([('Content-Type', 'application/json')]));"
    " print(u.urlopen(request, timeout=60).read().decode())"
)


def show(host: Host, key: str) -> str:
    return host.check_output(f"systemctl show --property={key} --value {UNIT}")


def tokens(host: Host) -> int:
    address = host.check_output("hostname -I").split()[0]
    answer = host.run(f'python3 -c "{ASK.format(address)}"')
    return int(json.loads(answer.stdout)["usage"]["completion_tokens"]) if answer.rc == 0 else 0


def wait_for(condition: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s"
        time.sleep(0.5)


def engine_pid(host: Host) -> str:
    processes = f"/sys/fs/cgroup{show(host, 'ControlGroup')}/cgroup.procs"
    return host.check_output(f"grep -l EngineCor $(sed 's,.*,/proc/&/comm,' {processes}) | cut -d/ -f3").split()[0]


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_engine_serves_again(host: Host, kill: int) -> None:
    before = show(host, "InvocationID")
    host.check_output(f"kill -KILL {engine_pid(host) if kill % 2 else show(host, 'MainPID')}")
    wait_for(lambda: show(host, "InvocationID") != before and tokens(host) == 2, BACK_WITHIN_S)
    assert show(host, "ActiveState") == "active"


@pytest.fixture
def broken(host: Host) -> Iterator[None]:
    """Give the instance arguments that no vLLM knows."""
    host.check_output(f"printf '[Service]\\nExecStart=\\n' >{DROPIN}")
    host.check_output(f"echo 'ExecStart=/opt/vllm/current/bin/vllm serve --no-such-flag' >>{DROPIN}")
    host.check_output("systemctl daemon-reload")
    yield
    host.check_output(f"rm {DROPIN} && systemctl daemon-reload && systemctl reset-failed {UNIT}")
    host.check_output(f"systemctl restart {UNIT}")


@pytest.mark.usefixtures("broken")
def test_one_that_cannot_start_is_given_up_after_five_attempts(host: Host) -> None:
    host.check_output(f"systemctl restart --no-block {UNIT}")
    wait_for(lambda: show(host, "ActiveState") == "failed", GIVEN_UP_WITHIN_S)
    assert show(host, "NRestarts") == str(START_LIMIT)
    assert show(host, "Result") == "exit-code"
    assert not tokens(host)
