"""No prompt and no key is in a file while it is under way: not where programs write, nor among what nginx has open."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import pytest

from testing.edge import ROOMY, ask, completion, configured, engines, in_flight

if TYPE_CHECKING:
    from testinfra.host import Host

CANARY = f"canary-{secrets.token_hex(8)}"
UNKNOWN_KEY = f"rsk-{secrets.token_hex(8)}"
TOLD = f"-e {CANARY} -e {ROOMY} -e {UNKNOWN_KEY}"
# What lies where programs write, and what nginx has open, deleted or not. The unit of the clients names what they send.
SEARCH = f"""
grep --recursive --files-with-matches --no-messages --fixed-strings --devices=skip --exclude-dir=transient {TOLD} \\
  /var /tmp /run
for link in $(pgrep --exact nginx | xargs -I@ find /proc/@/fd -type l); do
  if test -f $link && grep --quiet --no-messages --fixed-strings {TOLD} $link; then readlink $link; fi
done
journalctl --no-pager --boot | grep --invert-match clients.service | grep --fixed-strings {TOLD}
true
"""
LOGS_THE_KEY = r's/"id":"\$request_id"/"id":"$http_authorization"/'
SMALL_BUFFER = r"s/client_body_buffer_size [0-9]+m/client_body_buffer_size 8k/; s/client_body_in_single_buffer on;//"


def places_while_under_way(host: Host, status: int, key: str = ROOMY, **more: object) -> set[str]:
    """Send a long prompt; return where it or its key is found while it or its answer comes."""
    sent = completion(prompt=CANARY * 1000, key=key, max_tokens=8, pause=1) | more
    with engines(host), in_flight(host, [sent]) as answers:
        found = host.check_output(SEARCH).splitlines()
    assert [answer["status"] for answer in answers] == [status]
    return set(found)


@pytest.mark.parametrize("more", [{}, {"halves": 0}, {"halves": 9}], ids=["at once", "length unknown", "slowly"])
def test_a_prompt_under_way_is_in_no_file(host: Host, more: dict[str, Any]) -> None:
    assert places_while_under_way(host, 200, **more) == set()


def test_an_unknown_key_is_in_no_file(host: Host) -> None:
    assert places_while_under_way(host, 401, UNKNOWN_KEY) == set()


@pytest.mark.parametrize(("key", "status"), [(ROOMY, 200), (UNKNOWN_KEY, 401)], ids=["known", "unknown"])
def test_a_log_that_has_keys_is_found(host: Host, key: str, status: int) -> None:
    """The control of the search for keys; the log is emptied, so that the other tests do not find it."""
    with configured(host, LOGS_THE_KEY):
        answered = completion(key=key)
        with engines(host):
            assert [answer["status"] for answer in ask(host, answered)] == [status]
        found = host.check_output(SEARCH).splitlines()
        host.check_output("truncate --size=0 /var/log/nginx/access.log")
    assert "/var/log/nginx/access.log" in found


def test_a_buffer_smaller_than_the_prompt_puts_it_into_a_file(host: Host) -> None:
    """The control, of the search and of the setting. The file is in memory, and the edge refuses the body."""
    with configured(host, SMALL_BUFFER):
        found = places_while_under_way(host, 413, halves=9)
    assert len(found) == 1
    assert found.pop().startswith("/var/lib/nginx/body/")
