"""A running edge while instances leave its rotation and come back: streams, shares, held requests, and faults."""

from __future__ import annotations

import collections
import json
import shutil
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.ansible.module_utils import rackserve_edge
from rackserve.ansible.module_utils.rackserve_nginx import master_of, open_connections, places_of, serving_workers
from rackserve.ansible.modules import edge_rotation
from testing.local_edge import Edge, Engine, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from testing.local_edge import Answer

    Run = Callable[..., Any]

SMALL = {"served_names": ["small"]}
THREE = {"gpu1:a": SMALL, "gpu2:a": SMALL, "gpu3:b": {"served_names": ["alone"]}}
AFFINITY = {"by": "prefix", "prefix": 64, "concurrent": 1000}
HELD = 'held_requests{client="roomy"}'


class Recorder:
    """Engines that say who they are, and may be told to stream until they are told to end."""

    def __init__(self, edge: Edge) -> None:
        self.edge, self.ended = edge, threading.Event()
        self.labels = {port: label for label, port in edge.ports.items()}
        self.seen: collections.Counter[str] = collections.Counter()
        edge.engines.answer = self.answer

    def answer(self, engine: Engine, body: bytes) -> None:
        label = self.labels[engine.server.server_port]
        self.seen[label] += 1
        if b"stream" not in body:
            engine.tell(200, json.dumps({"from": label}))
            return
        engine.stream_until(self.ended)

    def ask(self, number: int, **asked: Any) -> collections.Counter[str]:
        """Send requests one after another; return who answered."""
        found = [json.loads(self.edge.complete(prompt=f"{at} a", **asked).text)["from"] for at in range(number)]
        return collections.Counter(found)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as found:
        yield found


@pytest.fixture(scope="module")
def three(run: Run) -> Iterator[Edge]:
    """Run an edge with two instances of one model and one of another."""
    with run(instances=THREE) as found:
        yield found


@pytest.fixture
def edge(three: Edge) -> Iterator[Edge]:
    """Return it with all instances in rotation."""
    yield three
    three.rotate(dict.fromkeys(THREE, 100), force=True)
    three.rotate(dict.fromkeys(THREE, 100), by="rollout")


def test_a_drained_instance_gets_nothing_new_and_its_streams_are_waited_for(
    edge: Edge, pool: ThreadPoolExecutor
) -> None:
    engines = Recorder(edge)
    streams = [pool.submit(edge.complete, prompt="stream") for _ in range(8)]
    wait_for(lambda: sum(engines.seen.values()) == 8)
    assert engines.seen["gpu1:a"] == 4
    done = edge.rotate({"gpu1:a": 0})
    assert (done["changed"], done["running"], done["streams"], done["weights"]["gpu1:a"]) == (True, True, 4, 0)
    assert engines.ask(10) == {"gpu2:a": 10}
    threading.Timer(1, engines.ended.set).start()
    again = edge.rotate({"gpu1:a": 0}, wait=30)
    assert (again["changed"], again["streams"], again["before"]) == (False, 0, done["after"])
    assert 0.5 < again["seconds"] < 20
    assert all("[DONE]" in stream.result().text for stream in streams)
    edge.rotate({"gpu1": 100})
    assert engines.ask(10) == {"gpu1:a": 5, "gpu2:a": 5}


def test_without_streams_it_takes_a_moment(edge: Edge) -> None:
    Recorder(edge).ask(20)
    done = edge.rotate({"gpu1:a": 0}, wait=60)
    assert (done["streams"], done["changed"]) == (0, True)
    assert done["seconds"] < 10, "a second or two, where nothing else runs"


def test_metrics_and_state_say_who_took_it_out(edge: Edge) -> None:
    edge.rotate({"gpu1:a": 0}, by="rollout", run="r1")
    told = edge.series()
    assert [told[f'drained{{upstream="{label}"}}'] for label in THREE] == [1, 0, 0]
    edge.rotate({"gpu1:a": 5}, by="rollout", run="r1")
    told = edge.series()
    assert (told['drained{upstream="gpu1:a"}'], told['weight{upstream="gpu1:a"}']) == (0, 5)
    (mark,) = json.loads((edge.folder / "rotation.json").read_text())["marks"]
    assert (mark["label"], mark["by"], mark["run"], mark["weight"]) == ("gpu1:a", "rollout", "r1", 5)


@pytest.mark.parametrize(("weight", "expected"), [(5, 20), (50, 140)])
def test_an_instance_gets_its_share_of_requests_however_many_are_open(
    edge: Edge, pool: ThreadPoolExecutor, weight: int, expected: int
) -> None:
    """5 % of a full instance beside a full one are 5 of 105 requests."""
    edge.rotate({"gpu1:a": weight})
    engines = Recorder(edge)
    answers = list(pool.map(lambda at: edge.complete(prompt=f"{at}"), range(420)))
    assert {answer.status for answer in answers} == {200}
    assert abs(engines.seen["gpu1:a"] - expected) <= 1


def test_a_share_of_an_instance_that_is_gone_goes_to_the_others(run: Run) -> None:
    with run(instances={**THREE, "gpu1:a": {**SMALL, "port": 9}}) as edge:
        engines = Recorder(edge)
        edge.rotate({"gpu1:a": 50})
        assert engines.ask(30) == {"gpu2:a": 30}


def test_affinity_leaves_out_what_is_drained_or_has_a_share(run: Run) -> None:
    instances = {"gpu1:a": SMALL, "gpu2:a": SMALL, "gpu3:a": SMALL}
    with run(instances=instances, affinity=AFFINITY) as edge:
        engines = Recorder(edge)
        home = {at: next(iter(engines.ask(1, user=str(at)))) for at in range(1)}[0]
        assert engines.ask(1) == {home: 1}, "the same prompt, the same instance"
        edge.rotate({home: 0})
        assert engines.ask(20).keys() == instances.keys() - {home}
        edge.rotate({home: 10})
        assert engines.ask(42)[home] == 2
        edge.rotate({home: 100})
        assert engines.ask(1) == {home: 1}


def test_what_nginx_refuses_leaves_everything_as_it_was(edge: Edge) -> None:
    edge.rotate({"gpu2:a": 0})
    files = [edge.folder / name for name in ("rotation.json", "upstreams.conf")]
    before, workers = [path.read_text() for path in files], edge.workers()
    conf = edge.folder / "nginx.conf"
    text = conf.read_text()
    conf.write_text(text.replace("server_tokens off;", "server_tokens perhaps;"))
    try:
        with pytest.raises(ValueError, match=r"nginx refuses its configuration and the rotation is as before: .*perh"):
            edge.rotate({"gpu2:a": 100, "gpu1:a": 0})
    finally:
        conf.write_text(text)
    assert [path.read_text() for path in files] == before
    assert edge.workers() == workers
    assert edge.rotate({})["changed"] is False


def test_a_check_changes_nothing_and_refuses_the_same(edge: Edge) -> None:
    before = (edge.folder / "upstreams.conf").read_text()
    done = edge.rotate({"gpu1:a": 0}, check=True)
    assert (done["changed"], [mark["label"] for mark in done["after"]]) == (True, ["gpu1:a"])
    with pytest.raises(ValueError, match="without gpu3:b no instance would serve alone"):
        edge.rotate({"gpu3:b": 0}, check=True)
    assert (edge.folder / "upstreams.conf").read_text() == before


def test_a_name_that_is_not_here_is_an_operators_fault_and_no_rollouts(edge: Edge) -> None:
    with pytest.raises(ValueError, match="no host and no instance 'gpu9' is behind the edge; there are gpu1:a, gpu2"):
        edge.rotate({"gpu9": 0})
    done = edge.rotate({"gpu9:new": 0, "gpu1:a": 0}, by="rollout")
    assert (done["unknown"], [mark["label"] for mark in done["after"]]) == (["gpu9:new"], ["gpu1:a"])


def test_a_request_whose_model_is_out_of_rotation_waits_for_it(edge: Edge, pool: ThreadPoolExecutor) -> None:
    engines, before = Recorder(edge), edge.series()
    edge.rotate({"gpu3:b": 0}, force=True)
    waiting = [pool.submit(edge.complete, model="alone", prompt=str(at)) for at in range(20)]
    wait_for(lambda: edge.series()[HELD] == 20)
    assert engines.ask(4).keys() == {"gpu1:a", "gpu2:a"}, "other models go on"
    edge.reload()
    edge.rotate({"gpu1:a": 0})  # a reload and another: what is held is in the first workers
    assert edge.series()[HELD] == 20
    assert engines.seen["gpu3:b"] == 0
    edge.rotate({"gpu3:b": 100})
    assert {answer.result().status for answer in waiting} == {200}
    assert engines.seen["gpu3:b"] == 20
    grown = edge.grown(before)
    assert grown['holds_total{model="alone",outcome="served"}'] == 20
    assert HELD not in grown


def test_a_share_ends_the_wait_too(edge: Edge, pool: ThreadPoolExecutor) -> None:
    engines = Recorder(edge)
    edge.rotate({"gpu1:a": 0, "gpu2:a": 0}, by="rollout", force=True)
    waiting = [pool.submit(edge.complete, prompt=str(at)) for at in range(6)]
    wait_for(lambda: edge.series()[HELD] == 6)
    edge.rotate({"gpu1:a": 5}, by="rollout")
    assert {answer.result().status for answer in waiting} == {200}
    assert engines.seen == {"gpu1:a": 6}


def test_a_wait_ends_with_the_503_of_today(run: Run) -> None:
    with run(instances=THREE, nginx_hold_timeout=1) as edge:
        engines, before = Recorder(edge), edge.series()
        edge.rotate({"gpu3:b": 0}, force=True)
        began = time.monotonic()
        refused = edge.complete(model="alone")
        assert time.monotonic() - began > 0.9
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert refused.error["message"] == "No engine is available."
        assert "x-should-retry" not in refused.headers
        assert engines.seen["gpu3:b"] == 0
        assert edge.grown(before)['holds_total{model="alone",outcome="expired"}'] == 1
        assert edge.series()['open_requests{client="roomy"}'] == 0


def test_no_more_requests_wait_than_may(run: Run, pool: ThreadPoolExecutor) -> None:
    with run(instances=THREE, nginx_hold_requests=3) as edge:
        Recorder(edge)
        edge.rotate({"gpu3:b": 0}, force=True)
        waiting = [pool.submit(edge.complete, model="alone") for _ in range(3)]
        wait_for(lambda: edge.series()[HELD] == 3)
        before = edge.series()
        assert [edge.complete(model="alone").status for _ in range(3)] == [503] * 3
        assert edge.grown(before)['holds_total{model="alone",outcome="full"}'] == 3
        edge.rotate({"gpu3:b": 100})
        assert {answer.result().status for answer in waiting} == {200}


def test_without_a_hold_the_503_comes_at_once(run: Run) -> None:
    with run(instances=THREE, nginx_hold_timeout=0) as edge:
        edge.rotate({"gpu3:b": 0}, force=True)
        began = time.monotonic()
        assert edge.complete(model="alone").status == 503
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_client_that_goes_away_frees_its_place(edge: Edge, size: int) -> None:
    Recorder(edge)
    edge.rotate({"gpu3:b": 0}, force=True)
    before = edge.series()
    body = json.dumps({"model": "alone", "prompt": "a" * size})
    link = edge.connect()
    head = "POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer rsk-roomy\r\n"
    link.sendall(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    wait_for(lambda: edge.series()[HELD] == 1)
    link.close()
    wait_for(lambda: edge.series()[HELD] == 0, 5)
    grown = edge.grown(before)
    assert grown['holds_total{model="alone",outcome="gone"}'] == 1
    assert 'open_requests{client="roomy"}' not in grown


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Return a frame of HTTP/2 (RFC 9113, section 4.1)."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _field(name: str, value: str) -> bytes:
    """Return a header without Huffman coding and without an index (RFC 7541, section 6.2.2); both below 127 bytes."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


@pytest.mark.parametrize("goes", ["resets its stream", "closes its connection"])
def test_a_client_that_goes_away_over_http_2_frees_its_place(edge: Edge, goes: str) -> None:
    Recorder(edge)
    edge.rotate({"gpu3:b": 0}, force=True)
    before, body = edge.series(), b'{"model": "alone"}'
    context = ssl._create_unverified_context()  # noqa: S323 - who it is does not matter
    context.set_alpn_protocols(["h2"])
    link = context.wrap_socket(socket.create_connection(("127.0.0.1", edge.port), 30))
    told = {":method": "POST", ":scheme": "https", ":path": "/v1/completions", ":authority": "a"}
    told |= {"authorization": "Bearer rsk-roomy", "content-length": str(len(body))}
    head = b"".join(_field(name, value) for name, value in told.items())
    link.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b""))
    link.sendall(_frame(1, 4, 1, head) + _frame(0, 1, 1, body))
    wait_for(lambda: edge.series()[HELD] == 1)
    if goes == "resets its stream":
        link.sendall(_frame(3, 0, 1, (8).to_bytes(4, "big")))
    else:
        link.close()
    wait_for(lambda: edge.series()[HELD] == 0, 5)
    assert edge.grown(before)['holds_total{model="alone",outcome="gone"}'] == 1
    link.close()


def test_a_worker_from_before_a_reload_asks_no_drained_instance(edge: Edge) -> None:
    """Its body is not there yet when the instance is taken out."""
    engines = Recorder(edge)
    body = json.dumps({"model": "small", "prompt": "a"}).encode()
    links = [edge.connect() for _ in range(8)]
    head = f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer rsk-roomy\r\nContent-Length: {len(body)}"
    for link in links:
        link.sendall(head.encode() + b"\r\n\r\n" + body[:5])
    wait_for(lambda: edge.series()['open_requests{client="roomy"}'] == 8)
    done = edge.rotate({"gpu1:a": 0}, wait=10)
    assert done["streams"] == 0
    for link in links:
        link.sendall(body[5:])
        assert b"200 OK" in link.recv(65536)
        link.close()
    assert engines.seen == {"gpu2:a": 8}


def test_what_the_role_writes_is_what_the_module_finds(edge: Edge, tmp_path: Path) -> None:
    edge.rotate({"gpu1:a": 0})
    shutil.copy(edge.folder / "table.json", tmp_path)
    found = rackserve_edge.Edge(edge.places)
    table = str(tmp_path / "table.json")
    assert edge_rotation.render(found, table, check=True) == {"changed": True}
    assert not (tmp_path / "upstreams.conf").exists()
    assert edge_rotation.render(found, table, check=False) == {"changed": True}
    assert edge_rotation.render(found, table, check=False) == {"changed": False}
    assert (tmp_path / "upstreams.conf").read_text() == (edge.folder / "upstreams.conf").read_text()


def test_connections_of_others_to_an_engine_do_not_count(edge: Edge, pool: ThreadPoolExecutor) -> None:
    address = f"127.0.0.1:{edge.ports['gpu3:b']}"
    with socket.create_connection(("127.0.0.1", edge.ports["gpu3:b"])):
        assert open_connections([address]) == 0
        engines = Recorder(edge)
        stream: Future[Answer] = pool.submit(edge.complete, model="alone", prompt="stream")
        wait_for(lambda: engines.seen["gpu3:b"] == 1)
        assert open_connections([address]) == 1
        engines.ended.set()
        assert stream.result().status == 200


def test_addresses_are_read_in_every_form() -> None:
    assert places_of("127.0.0.1:80") == {("127.0.0.1", 80)}
    assert places_of("[2001:db8::4]:80") == places_of("2001:db8::4:80") == {("2001:db8::4", 80)}
    assert ("127.0.0.1", 80) in places_of("localhost:80")
    assert places_of("nowhere.invalid:80") == set()


def test_processes_of_nginx_are_found(edge: Edge, tmp_path: Path) -> None:
    assert master_of(str(edge.folder / "nginx.pid")) == edge.process.pid
    assert serving_workers(edge.process.pid) == edge.workers()
    (tmp_path / "pid").write_text("1\n")
    assert master_of(str(tmp_path / "pid")) == master_of(str(tmp_path / "none")) == 0
