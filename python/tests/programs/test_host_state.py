"""Each difference of a host from its record is found alone, and a host that nobody touched has none."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.programs import host_state
from rackserve.programs.host_state import _commands, _files, main, new_record, record_differs, save
from testing.drift_seeds import SEEDS, SILENT
from testing.fake_host import OWNED, PROXY, TABLE, FakeHost, make_host

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = "2026-11-30T06:00:00+00:00"


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """Return a host with a record."""
    made = make_host(tmp_path / "root")
    record(made)
    return made


def record(made: FakeHost) -> None:
    save(made.host(), new_record(made.host(), OWNED, now=NOW, only=[], before={}))


def check(made: FakeHost) -> list[dict[str, Any]]:
    result = host_state.check(made.host())
    assert result["unread"] == {}
    found: list[dict[str, Any]] = result["differences"]
    return found


def test_a_host_that_nobody_touched_has_no_difference(host: FakeHost) -> None:
    assert check(host) == []


@pytest.mark.parametrize(
    ("seed", "kind", "attribute", "words"), [row[1:] for row in SEEDS], ids=[row[0] for row in SEEDS]
)
def test_a_difference_is_found_alone(
    host: FakeHost, seed: Callable[[FakeHost], object], kind: str, attribute: str, words: str
) -> None:
    seed(host)
    (found,) = check(host)
    assert (found["kind"], found["attribute"]) == (kind, attribute)
    assert words in found["text"]
    assert "\n" not in found["text"]


@pytest.mark.parametrize("change", SILENT.values(), ids=SILENT)
def test_what_is_no_difference_is_silent(host: FakeHost, change: Callable[[FakeHost], object]) -> None:
    change(host)
    assert check(host) == []


def test_all_seeds_at_once_hide_none_of_another_thing(host: FakeHost) -> None:
    """Of those that concern different things; the others undo each other."""
    names = {
        "content",
        "nobody's file",
        "weights gone",
        "unit disabled",
        "hold removed",
        "shell",
        "rule added",
        "kernel",
        "listener gone",
    }
    for name, seed, *_ in SEEDS:
        if name in names:
            seed(host)
    assert len(check(host)) == len(names)


def test_no_secret_is_told_or_in_the_record(host: FakeHost) -> None:
    host.at("/etc/edge/tls/key").write_text("another-secret\n")
    host.write("/etc/shadow", "root:!:1::::::\nvllm:$y$hash-of-a-password:1::::::\n")
    (content, password) = check(host)
    told = json.dumps([content, password])
    kept = host.at(host_state.RECORD).read_text()
    for secret in ("secret-of-the-edge", "another-secret", "hash-of-a-password"):
        assert secret not in told + kept
    assert (content["recorded"], content["found"]) == ("as recorded", "another")
    assert host.at(host_state.RECORD).stat().st_mode & 0o777 == 0o600


def test_attributes_beside_the_mode_are_found(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "flags_of", lambda handle: ["immutable"] if os.fstat(handle).st_size == 12 else [])
    (found,) = check(host)
    assert found["text"] == "/etc/edge/edge.conf has the attributes: immutable; recorded: none"


def test_a_capability_is_found(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    where = str(host.at("/etc/edge/code/a/b.lua"))
    monkeypatch.setattr(os, "listxattr", lambda path, **_: ["security.capability", "user.x"] if path == where else [])
    monkeypatch.setattr(os, "getxattr", lambda *_, **__: b"cap")
    (found,) = check(host)
    assert found["text"] == "/etc/edge/code/a/b.lua has the attributes: capability; recorded: none"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_an_owner_is_found(host: FakeHost) -> None:
    os.chown(host.at("/etc/edge/edge.conf"), 990, 0)
    (found,) = check(host)
    assert found["text"] == "owner of /etc/edge/edge.conf is vllm, recorded root"


def test_a_pipe_or_socket_in_place_of_a_file_is_not_waited_for(host: FakeHost) -> None:
    path = host.at("/etc/edge/edge.conf")
    path.unlink()
    os.mkfifo(path)
    (found,) = check(host)
    assert "is a pipe, recorded a file" in found["text"]
    key = host.at("/etc/edge/tls/key")
    key.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(key.parent)
        listener.bind("key")
        assert "is a socket, recorded a file" in check(host)[1]["text"]


def test_what_was_nobodys_when_the_record_was_written_is_told_too(host: FakeHost) -> None:
    host.write("/etc/edge/left.bak", "x")
    record(host)
    (found,) = check(host)
    assert found["kind"] == "unowned"


def test_a_run_does_not_record_what_it_did_not_make(host: FakeHost) -> None:
    """A key and a rule that somebody added remain after a run that changed a file; what it mended does not."""
    host.write("/var/lib/vllm/.ssh/authorized_keys", "ssh-ed25519 AAAA m\n")
    host.tables = TABLE.replace("\t\tmeta", "\t\tip saddr 10.0.0.9 accept\n\t\tmeta") + PROXY
    host.write("/srv/models/planted/x", "1")
    host.write("/etc/edge/edge.conf", "by hand\n")
    host.units["nginx.service"]["UnitFileState"] = "disabled"
    before = host_state.check(host.host())
    assert len(before["differences"]) == 5
    host.write("/etc/edge/edge.conf", "by the run\n")
    host.write("/etc/edge/tls/new", "by the run\n")
    host.units["nginx.service"]["UnitFileState"] = "enabled"
    save(host.host(), new_record(host.host(), OWNED, now=NOW, only=[], before=before))
    assert [one["what"] for one in check(host)] == ["/srv/models/planted", "user vllm", "inet edge"]
    save(host.host(), new_record(host.host(), OWNED, now=NOW, only=[], before={}))
    assert check(host) == []


def differs(host: FakeHost) -> bool:
    before = host_state.load(host.host())["roles"]
    return record_differs(host.host(), before, new_record(host.host(), OWNED, now=NOW, only=[], before={})["roles"])


def test_the_record_of_a_host_that_nobody_touched_is_the_same(host: FakeHost) -> None:
    assert not differs(host)
    assert record_differs(host.host(), {}, host_state.load(host.host())["roles"]), "the first record"


def test_a_file_that_comes_and_goes_changes_no_record(host: FakeHost) -> None:
    """Such as the history, which the first run leaves after its record."""
    owned: dict[str, dict[str, Any]] = {**OWNED, "other": {"changing": ["/etc/other.lock"]}}
    before = new_record(host.host(), owned, now=NOW, only=[], before={})["roles"]
    host.write("/etc/other.lock", "1")
    after = new_record(host.host(), owned, now=NOW, only=[], before={})["roles"]
    assert not record_differs(host.host(), before, after)
    assert not record_differs(host.host(), after, before)


@pytest.mark.parametrize("change", SILENT.values(), ids=SILENT)
def test_what_is_no_difference_changes_no_record(host: FakeHost, change: Callable[[FakeHost], object]) -> None:
    change(host)
    assert not differs(host)


OF_A_ROLE = [row for row in SEEDS if row[2] != "unowned"]


@pytest.mark.parametrize("seed", [row[1] for row in OF_A_ROLE], ids=[row[0] for row in OF_A_ROLE])
def test_what_a_run_changed_changes_the_record(host: FakeHost, seed: Callable[[FakeHost], object]) -> None:
    seed(host)
    assert differs(host)


def test_a_part_of_the_record_can_be_replaced(host: FakeHost) -> None:
    other = {"other": {"files": ["/etc/other"]}}
    host.write("/etc/other", "1")
    save(host.host(), new_record(host.host(), {**OWNED, **other}, now=NOW, only=[], before={}))
    host.write("/etc/other", "2")
    host.write("/etc/edge/edge.conf", "x")
    save(host.host(), new_record(host.host(), {**OWNED, **other}, now=NOW, only=["edge"], before={}))
    (found,) = check(host)
    assert found["what"] == "/etc/other"


def test_what_cannot_be_read_is_said_and_is_no_difference(host: FakeHost) -> None:
    host.failing.add("nft")
    result = host_state.check(host.host())
    assert result["differences"] == []
    assert result["unread"] == {"firewall": "nft --stateless: nft: No such file or directory"}
    with pytest.raises(host_state.UnreadError):
        record(host)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is missing: no run of site.yml was completed here; run rackserve apply"),
        ("{", "cannot be read"),
        ('{"format": 9, "roles": {}}', "has the format 9, not 1"),
        ("[]", "cannot be read"),
    ],
)
def test_without_a_record_nothing_is_compared(host: FakeHost, text: str | None, said: str) -> None:
    path = host.at(host_state.RECORD)
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(host_state.RecordError, match=said):
        host_state.check(host.host())


def test_the_time_of_a_change_and_what_ran_then_are_told(host: FakeHost) -> None:
    host.write(
        "/var/log/dpkg.log",
        "2026-11-29 10:00:00 status installed nginx:amd64 1.22.1-9\n"
        "2026-11-30 10:00:01 upgrade nginx:amd64 1.22.1-9 1.23\n",
    )
    history = (
        "Start-Date: 2026-11-30  10:00:00\nCommandline: apt-get upgrade\n"
        "Requested-By: eve (1000)\nEnd-Date: 2026-11-30  10:00:03\n"
    )
    host.write("/var/log/apt/history.log", history)
    host.packages["nginx"] = ("1.23", "install")
    (found,) = check(host)
    assert found["by"] == "apt (apt-get upgrade, asked by eve)"
    assert found["since"].startswith("20")


def test_metrics_have_every_kind_and_the_time_of_the_last_whole_check(host: FakeHost, tmp_path: Path) -> None:
    target = str(tmp_path / "drift.prom")
    host_state.write_metrics(target, host_state.check(host.host()), 1000)
    lines = Path(target).read_text().splitlines()
    assert lines[-1] == "rackserve_drift_checked_timestamp_seconds 1000"
    assert lines[:-1] == [f'rackserve_drift_differences{{kind="{kind}"}} 0' for kind in host_state.KINDS]
    host.write("/etc/edge/edge.conf", "x")
    host.failing.add("nft")
    host_state.write_metrics(target, host_state.check(host.host()), 2000)
    text = Path(target).read_text()
    assert 'differences{kind="file"} 1' in text
    assert text.endswith("seconds 1000\n")
    assert not Path(f"{target}.new").exists()


def test_the_command_ends_with_what_it_found(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(_commands, "Host", host.host)
    assert main([]) == 0
    host.write("/etc/edge/edge.conf", "x")
    assert main([]) == 1
    assert "the content of /etc/edge/edge.conf differs" in capsys.readouterr().out
    assert main(["--metrics", str(tmp_path / "m.prom")]) == 0
    assert main(["--json"]) == 1
    host.failing.add("systemctl")
    assert main([]) == 2
    host.at(host_state.RECORD).unlink()
    assert main([]) == 2
    assert "run rackserve apply" in capsys.readouterr().err
