"""A running edge whose program or libraries are replaced: streams, requests, and new programs that do not serve."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.ansible.module_utils import rackserve_edge, rackserve_upgrade
from rackserve.ansible.module_utils.rackserve_nginx import (
    deleted_libraries,
    is_alive,
    master_of,
    predecessor_of,
    serving_workers,
)
from rackserve.ansible.modules import edge_rotation
from testing.local_edge import Engine, wait_for, well

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from testing.local_edge import Edge

    Run = Callable[..., Any]

# A program that tests its configuration well and does not start.
FAILS = '#!/bin/sh\ncase "$*" in *" -t "*) exit 0 ;; esac\nexit 1\n'
# One that starts with another configuration.
STRAYS = '#!/bin/sh\ncase "$*" in *" -t "*) exit 0 ;; esac\nexec {real} "$@" -c {conf}\n'


class Host:
    """An edge whose nginx is started as Debian's unit does it, from a program of its own."""

    def __init__(self, edge: Edge) -> None:
        """Start it in the place of the one that runs."""
        self.edge, self.program = edge, edge.folder / "nginx"
        edge.process.terminate()
        edge.process.wait(30)
        self.install()
        self.edge_of = rackserve_edge.Edge(rackserve_edge.Places(nginx=self.argv, **self._places()))
        self.ended = threading.Event()

    @property
    def argv(self) -> tuple[str, ...]:
        """The program with the folder that it runs in."""
        return (str(self.program), "-p", str(self.edge.folder), "-e", str(self.edge.folder / "log/error.log"))

    def _places(self) -> dict[str, str]:
        return {name: getattr(self.edge.places, name) for name in ("state", "lock", "conf")}

    def install(self, text: str = "") -> None:
        """Put another file in the place of the program, as dpkg does: nginx, or a text."""
        draft = self.program.with_suffix(".new")
        shutil.copy(str(shutil.which("nginx")), draft)
        if text:
            draft.write_text(text)
        draft.rename(self.program)

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Start it in the background."""
        argv = [*self.argv, "-c", self.edge.places.conf, "-g", "daemon on; master_process on;"]
        subprocess.run(argv, env={**os.environ, **(env or {})}, check=True, stderr=subprocess.DEVNULL)
        wait_for(lambda: bool(self.edge_of.loaded()))

    @property
    def master(self) -> int:
        """The running master."""
        return int(master_of(self.edge_of.pid_file))

    def upgrade(self, *, wait: float = 30, check: bool = False) -> dict[str, Any]:
        """Run the module."""
        found: dict[str, Any] = rackserve_upgrade.upgrade(self.edge_of, wait=wait, check=check)
        return found

    def stream(self, engine: Engine, body: bytes) -> None:
        """Answer a request for a stream until the test has it end."""
        if b"stream" not in body:
            well(engine, body)
            return
        engine.stream_until(self.ended)

    def stop(self) -> None:
        """End what this test has started."""
        self.ended.set()
        for number in (signal.SIGTERM, signal.SIGKILL):
            found = {self.master, predecessor_of(self.master)} - {0}
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(AssertionError):
                wait_for(lambda found=found: not any(map(is_alive, found)), 10)  # type: ignore[misc]


@pytest.fixture
def host(run: Run) -> Iterator[Host]:
    with run() as edge:
        found = Host(edge)
        edge.engines.answer = found.stream
        try:
            found.start()
            yield found
        finally:
            found.stop()


@contextlib.contextmanager
def requests(host: Host) -> Iterator[list[int]]:
    """Ask all the time, by a connection a request; yields the status of every one, 0 for a broken one."""
    found: list[int] = []
    ends = threading.Event()

    def ask() -> None:
        while not ends.is_set():
            try:
                found.append(host.edge.complete(prompt="a").status)
            except OSError:
                found.append(0)

    with ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(ask)
        try:
            wait_for(lambda: len(found) > 20)
            yield found
            had = len(found)
            wait_for(lambda: len(found) > had + 20)
        finally:
            ends.set()


@contextlib.contextmanager
def streams(host: Host, number: int = 8) -> Iterator[None]:
    """Hold streams open and, at the end, have them end; each has to be whole."""
    with ThreadPoolExecutor(number) as pool:
        asked = [pool.submit(host.edge.complete, prompt="stream") for _ in range(number)]
        try:
            wait_for(lambda: sum(b"stream" in body for body in host.edge.engines.seen) == number)
            yield
        finally:
            host.ended.set()
        assert all("[DONE]" in one.result().text for one in asked)


def test_a_replaced_program_takes_over_and_loses_nothing(host: Host) -> None:
    before = host.master
    host.install()
    with requests(host) as asked, streams(host):
        assert host.upgrade(check=True)["changed"] is True
        assert host.master == before
        done = host.upgrade()
        assert (done["changed"], done["files"], done["left"]) == (True, [str(host.program)], [])
        after = host.master
        assert after != before
        assert predecessor_of(after) == before, "it ends with its streams"
        assert not serving_workers(before)
        assert host.upgrade()["changed"] is False, "a second run while streams run"
    assert set(asked) == {200}
    wait_for(lambda: not is_alive(before))
    assert (host.upgrade()["changed"], host.master) == (False, after)
    host.edge.engines.seen.clear()
    assert host.edge.complete(prompt="a").status == 200


def test_what_runs_as_installed_is_left_alone(host: Host) -> None:
    before = host.master
    os.utime(host.program)
    assert host.upgrade() | {"seconds": 0} == {"changed": False, "running": True, "files": [], "left": [], "seconds": 0}
    assert (host.master, bool(serving_workers(before))) == (before, True)


def test_an_nginx_that_does_not_run_is_left_alone(host: Host) -> None:
    host.stop()
    host.install()
    assert host.upgrade() | {"seconds": 0} == {
        "changed": False,
        "running": False,
        "files": [],
        "left": [],
        "seconds": 0,
    }


def test_a_program_that_refuses_the_configuration_changes_nothing(host: Host) -> None:
    before = host.master
    host.install("#!/bin/sh\necho 'nginx: [emerg] unknown directive' >&2\nexit 1\n")
    with pytest.raises(ValueError, match=r"refuses its configuration and the running one serves on.*emerg"):
        host.upgrade()
    assert (host.master, predecessor_of(before)) == (before, 0)


def test_a_program_that_does_not_start_changes_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rackserve_upgrade, "START_S", 1)
    before = host.master
    host.install(FAILS)
    with requests(host) as asked:
        with pytest.raises(ValueError, match="did not start in 1 s and the nginx from before serves on"):
            host.upgrade()
        assert host.master == before
    assert set(asked) == {200}
    host.install()
    assert host.upgrade()["changed"] is True


def test_a_program_that_answers_otherwise_is_given_up(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rackserve_upgrade, "ANSWER_S", 1)
    folder, before = host.edge.folder, host.master
    (folder / "other").mkdir()
    for name in ("table.json", "upstreams.conf"):
        text = (folder / name).read_text()
        (folder / "other" / name).write_text(text.replace(host.edge_of.loaded(), "0123456789abcdef"))
    conf = (folder / "nginx.conf").read_text()
    other = conf.replace(f"{folder}/upstreams.conf", f"{folder}/other/upstreams.conf")
    (folder / "other/nginx.conf").write_text(other.replace(f'edge.load("{folder}")', f'edge.load("{folder}/other")'))
    host.install(STRAYS.format(real=shutil.which("nginx"), conf=folder / "other/nginx.conf"))
    with requests(host) as asked, streams(host, 4):
        with pytest.raises(ValueError, match="did not answer as its configuration says"):
            host.upgrade()
        assert (host.master, bool(serving_workers(before))) == (before, True)
    assert set(asked) == {200}


@pytest.mark.parametrize("last", [signal.SIGUSR2, signal.SIGWINCH])
def test_what_a_run_that_died_has_left_is_ended(host: Host, last: signal.Signals) -> None:
    before = host.master
    host.install()
    with requests(host) as asked, streams(host, 4):
        os.kill(before, signal.SIGUSR2)
        wait_for(lambda: host.master not in {0, before} and bool(serving_workers(host.master)))
        if last == signal.SIGWINCH:
            os.kill(before, last)
            wait_for(lambda: not serving_workers(before))
        assert host.upgrade()["changed"] is (last == signal.SIGUSR2)
        assert not serving_workers(before)
        assert host.upgrade()["changed"] is False
    assert set(asked) == {200}
    wait_for(lambda: not is_alive(before))


def test_a_second_upgrade_waits_for_the_streams_of_the_first(host: Host) -> None:
    first = host.master
    host.install()
    with streams(host, 2):
        host.upgrade()
        host.install()
        with pytest.raises(ValueError, match=rf"process {first} still has streams .* run it again"):
            host.upgrade(wait=0.2)
        threading.Timer(0.5, host.ended.set).start()
        assert host.upgrade()["changed"] is True
    assert host.upgrade()["files"] == []


def test_a_replaced_library_is_found(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible.module_utils.rackserve_nginx.LIBRARIES", (str(host.edge.folder),))
    maps = Path(f"/proc/{host.master}/maps").read_text()
    source = next(line.split()[-1] for line in maps.splitlines() if "libpcre" in line)
    own = host.edge.folder / Path(source).name.partition(".so")[0]
    own = own.with_name(f"{own.name}.so.{Path(source).name.partition('.so.')[2].partition('.')[0]}")
    shutil.copy(source, own)
    host.stop()
    host.ended.clear()
    host.start({"LD_LIBRARY_PATH": str(host.edge.folder)})
    assert host.upgrade()["changed"] is False
    draft = own.with_suffix(".new")
    shutil.copy(source, draft)
    draft.rename(own)
    done = host.upgrade()
    assert (done["changed"], done["files"], done["left"]) == (True, [str(own)], [])
    assert host.upgrade()["changed"] is False


def test_a_rotation_that_the_old_program_cannot_load_comes_by_the_new_one(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rackserve_edge.Edge, "reload", lambda *_: False)
    before, asked = host.master, {"set": {"gpu1:a": 50}, "by": "rollout", "run": "r", "wait": 0, "force": False}
    with pytest.raises(ValueError, match="did not load its configuration"):
        edge_rotation.rotate(host.edge_of, asked, check=False)
    host.install()
    assert edge_rotation.rotate(host.edge_of, asked, check=False)["weights"]["gpu1:a"] == 50
    assert host.master != before


def test_only_code_of_packages_counts_as_replaced() -> None:
    lib, rest = "/usr/lib/x86_64-linux-gnu/libssl.so.3", "00001000 08:01 42  "
    maps = "\n".join(
        (
            f"7f00-7f01 r-xp {rest}{lib} (deleted)",
            f"7f00-7f01 r-xp {rest}/usr/sbin/nginx.dpkg-tmp (deleted)",
            f"7f01-7f02 r--p {rest}/usr/lib/locale/C.utf8/LC_CTYPE (deleted)",
            f"7f01-7f02 r-xp {rest}/usr/lib/x86_64-linux-gnu/libc.so.6",
            f"7f01-7f02 rwxs {rest}/dev/zero (deleted)",
            f"7f01-7f02 r-xp {rest}/memfd:code (deleted)",
            f"7f01-7f02 r-xp {rest}/run/code1234 (deleted)",
            "7f01-7f02 r-xp 00000000 00:00 0 ",
        )
    )
    assert deleted_libraries(maps) == {lib, "/usr/sbin/nginx"}
