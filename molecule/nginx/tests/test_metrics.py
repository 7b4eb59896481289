"""The edge counts what its access log tells, by names that the inventory has; and the log keeps within its bound."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING

from testing.edge import ask, completion, engines, in_flight, request

if TYPE_CHECKING:
    from testinfra.host import Host

TELL = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/metrics').read().decode())"
SERIES = re.compile(r"^rackserve_edge_(\w+)(?:\{(.*)\})? (\S+)$")


def counts(host: Host) -> dict[tuple[str, str], float]:
    text = host.check_output(f"python3 -c {shlex.quote(TELL)}")
    rows = [SERIES.match(line) for line in text.splitlines() if not line.startswith("#")]
    return {(row[1], row[2] or ""): float(row[3]) for row in rows if row}


def grown(before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    found = {key: round(value - before.get(key, 0), 3) for key, value in after.items()}
    return {key: value for key, value in found.items() if value}


def test_a_streamed_answer_is_counted_by_client_model_and_instance(host: Host) -> None:
    with engines(host):
        before = counts(host)
        (answer,) = ask(host, completion("large", max_tokens=3, pause=0.3))
        found = grown(before, counts(host))
    line = json.loads(host.file("/var/log/nginx/access.log").content_string.splitlines()[-1])
    pair, upstream = 'client="roomy",model="large"', 'upstream="gpu2:b"'
    assert answer["status"] == 200
    assert (
        found["requests_total", f'{pair},status="200"']
        == found["upstream_requests_total", f'{upstream},status="200"']
        == 1
    )
    assert found["sent_bytes_total", pair] > found["received_bytes_total", pair] > 100
    # The headers came at once; the first token did not.
    for name, labels in (("first_byte_seconds", pair), ("upstream_first_byte_seconds", upstream)):
        assert found[f"{name}_count", labels] == found[f"{name}_bucket", f'{labels},le="0.5"'] == 1
        assert (f"{name}_bucket", f'{labels},le="0.25"') not in found
        assert 0.3 <= found[f"{name}_sum", labels] < 0.5
    assert 0.9 <= found["request_seconds_sum", pair] < 1.5
    assert found["upstream_seconds_count", upstream] == 1
    assert float(line["first_byte"]) == found["first_byte_seconds_sum", pair]


def test_what_is_refused_is_counted_and_no_text_of_a_request_becomes_a_label(host: Host) -> None:
    before = counts(host)
    ask(host, completion("large"), completion("no such model"), completion(key="rsk-nobodys"), request("GET", '/"x"'))
    found = {key: value for key, value in grown(before, counts(host)).items() if "bytes" not in key[0]}
    assert found == {
        ("requests_total", 'client="roomy",model="large",status="503"'): 1,
        ("upstream_requests_total", 'upstream="gpu2:b",status="502"'): 1,
        ("requests_total", 'client="roomy",model="none",status="404"'): 1,
        ("requests_total", 'client="none",model="none",status="401"'): 1,
        ("requests_total", 'client="none",model="none",status="404"'): 1,
    }


def test_what_alerts_read_is_told_before_it_happens(host: Host) -> None:
    assert counts(host)["requests_total", 'client="tight",model="small",status="500"'] == 0
    assert ("requests_total", 'client="tight",model="large",status="500"') not in counts(host)


def test_open_requests_and_drained_instances_are_told(host: Host) -> None:
    with engines(host), in_flight(host, [completion("small", max_tokens=20, pause=0.5) for _ in range(3)]):
        assert counts(host)["open_requests", 'client="roomy"'] == 3
    assert counts(host)["open_requests", 'client="roomy"'] == 0
    drained = {labels: value for (name, labels), value in counts(host).items() if name == "drained"}
    assert {'upstream="gpu1:a"', 'upstream="gpu2:b"'} < drained.keys()
    assert set(drained.values()) == {0}


def test_counts_outlive_a_reload_and_a_rotation_that_breaks_no_stream(host: Host) -> None:
    before = counts(host)
    with engines(host), in_flight(host, [completion("small", max_tokens=12, pause=0.5) for _ in range(10)]) as answers:
        host.check_output("logrotate --force /etc/logrotate.d/nginx && systemctl reload nginx")
    assert [answer for answer in answers if "broken" in answer or answer["status"] != 200] == []
    found = grown(before, counts(host))
    assert found["requests_total", 'client="roomy",model="small",status="200"'] == 10
    assert len(host.file("/var/log/nginx/access.log").content_string.splitlines()) == 10
    assert host.file("/var/log/nginx/access.log.1").mode == 0o640


def test_a_log_that_grows_is_rotated_within_ten_minutes_and_no_more_than_so_many_are_kept(host: Host) -> None:
    timer = host.check_output("systemctl show logrotate.timer -p ActiveState,TimersCalendar")
    assert "ActiveState=active" in timer
    assert "*:00/10:00" in timer
    host.check_output(
        "sed 's/256M/1M/; s/rotate 14/rotate 3/' /etc/logrotate.d/nginx > /run/bound && chmod 644 /run/bound"
    )
    sizes = []
    for _ in range(6):
        host.check_output("head -c 2000000 /dev/urandom >> /var/log/nginx/access.log")
        host.check_output("logrotate --state /run/bound.state /run/bound")
        sizes.append(int(host.check_output("du -bc /var/log/nginx/access.log* | tail -n1 | cut -f1")))
    assert max(sizes) < 4 * 2_100_000
    assert len(host.file("/var/log/nginx").listdir()) <= 2 * 4


def test_nothing_is_told_to_other_hosts(host: Host) -> None:
    listens = host.check_output("ss -ltnH 'sport = :8080'").split()
    assert listens[3] == "127.0.0.1:8080"
