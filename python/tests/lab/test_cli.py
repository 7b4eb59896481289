from __future__ import annotations

import argparse
import json
from typing import Any

import pytest

from rackserve import lab
from rackserve.cli import EXIT_OK, _lab
from rackserve.lab import HostStatus, LabStatus
from rackserve.lab._spec import make_spec

STATUS = LabStatus(
    "demo",
    "10.89.0",
    (
        HostStatus(
            name="gpu1",
            address="10.89.0.11",
            release=12,
            state="running",
            leader=77,
            supervised=True,
            boot_s=1.24,
            boots=1,
            packets_left_lab=0,
            has_default_route=False,
        ),
        HostStatus(
            name="edge1",
            address="10.89.0.21",
            release=13,
            state="stopped",
            leader=None,
            supervised=False,
            boot_s=None,
            boots=0,
            packets_left_lab=None,
            has_default_route=None,
        ),
    ),
    changed=True,
)


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    _lab.add_options(parser)
    return parser


def call(parser: argparse.ArgumentParser, *words: str) -> int:
    args = parser.parse_args(words)
    code: int = args.handler(args)
    return code


def test_status_is_a_table(
    parser: argparse.ArgumentParser, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lab, "status", lambda _name: STATUS)
    assert call(parser, "status") == EXIT_OK
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["gpu1", "10.89.0.11", "12", "running", "1.2", "s", "0", "none"],
        ["edge1", "10.89.0.21", "13", "stopped", "-", "-", "-"],
    ]


def test_up_takes_hosts_and_releases_and_says_whether_it_changed_anything(
    parser: argparse.ArgumentParser, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def up(spec: lab.LabSpec, _progress: object, *, only: list[str]) -> LabStatus:
        asked.update(releases=[host.debian_release for host in spec.hosts], only=only)
        return STATUS

    monkeypatch.setattr(lab, "lab_spec", lambda name, *, prefix, releases: make_spec(name, prefix, releases))
    monkeypatch.setattr(lab, "up", up)
    call(parser, "up", "--name", "mine", "--prefix", "10.89.9", "--host", "gpu1", "--release", "edge1=13", "--json")
    assert asked == {"releases": [12, 12, 13], "only": ["gpu1"]}
    answer = json.loads(capsys.readouterr().out)
    assert answer["changed"] is True
    assert answer["hosts"][0]["packets_left_lab"] == 0


def test_reset_takes_a_snapshot_and_bare_hosts_without_one(
    parser: argparse.ArgumentParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str], str | None]] = []

    def reset(name: str, hosts: list[str], _progress: object, *, origin: str | None) -> LabStatus:
        asked.append((name, hosts, origin))
        return STATUS

    monkeypatch.setattr(lab, "reset", reset)
    call(parser, "reset", "--name", "mine", "gpu1", "--from", "release")
    call(parser, "reset", "--name", "mine")
    assert asked == [("mine", ["gpu1"], "release"), ("mine", [], None)]


def test_a_snapshot_is_made_of_a_host(parser: argparse.ArgumentParser, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def snapshot(name: str, host: str, snapshot_name: str, _progress: object) -> LabStatus:
        asked.append((name, host, snapshot_name))
        return STATUS

    monkeypatch.setattr(lab, "snapshot", snapshot)
    call(parser, "snapshot", "--name", "mine", "gpu1", "release")
    assert asked == [("mine", "gpu1", "release")]


def test_snapshots_are_listed_after_one_was_removed(
    parser: argparse.ArgumentParser, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {"old": lab.Snapshot("old", 12, ()), "release": lab.Snapshot("release", 13, ())}
    monkeypatch.setattr(lab, "load_snapshots", lambda: list(kept.values()))
    monkeypatch.setattr(lab, "remove_snapshot", kept.pop)
    call(parser, "snapshots", "--remove", "old")
    assert capsys.readouterr().out == "release  Debian 13\n"
    call(parser, "snapshots", "--json")
    assert json.loads(capsys.readouterr().out) == [{"name": "release", "debian_release": 13}]
    kept.clear()
    call(parser, "snapshots")
    assert "no snapshots" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "command"),
    [([], []), (["uname -a | cat"], ["uname -a | cat"]), (["echo", "a b"], ["echo 'a b'"])],
)
def test_ssh_passes_one_word_as_a_shell_line_and_several_as_they_are(
    parser: argparse.ArgumentParser, monkeypatch: pytest.MonkeyPatch, words: list[str], command: list[str]
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(lab, "ssh_argv", lambda _name, _host, argv: ["ssh", *argv])
    monkeypatch.setattr("os.execvp", lambda _program, argv: ran.extend(argv))
    call(parser, "ssh", "gpu1", "--", *words)
    assert ran == ["ssh", *command]


def test_the_lab_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RACKSERVE_LAB", "molecule")
    parser = argparse.ArgumentParser()
    _lab.add_options(parser)
    assert parser.parse_args(["down"]).name == "molecule"
