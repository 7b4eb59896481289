"""An audit fails on what is known, passes only on an answer for every pin, and says what it could not learn."""

from __future__ import annotations

import datetime as dt
import json
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.bundle import _audit
from rackserve.bundle._audit import Audit, audit, judge, parse_report
from rackserve.bundle._waivers import Finding, NotAudited, Waiver
from rackserve.errors import BundleError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY = dt.date(2026, 11, 24)
HASH = f" \\\n    --hash=sha256:{'a' * 64}\n"
FINDING = Finding(
    package="vllm", version="0.14.0+cpu", id="GHSA-1", aliases=("CVE-1",), fixed_in=("0.14.1",), lock="l.txt"
)
GAP = NotAudited(package="own", version="1.0", lock="l.txt", reason="not found on the index")
WANTED = {"vllm": "0.14.0+cpu", "idna": "3.10"}
# A stand-in: the form that pip-audit's README documents, with invented advisories.
REPORT: dict[str, Any] = {
    "dependencies": [
        {
            "name": "vllm",
            "version": "0.14.0",
            "vulns": [{"id": "GHSA-1", "fix_versions": ["0.14.1"], "aliases": ["CVE-1"]}],
        },
        {"name": "idna", "version": "3.10", "vulns": []},
    ],
    "fixes": [],
}


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "l.txt"
    path.write_text(f"# vLLM\nvllm==0.14.0+cpu{HASH}idna==3.10{HASH}")
    return path


def made(**changes: Any) -> Audit:
    facts: dict[str, Any] = {
        "tool": "pip-audit",
        "version": "2.10.1",
        "service": "osv",
        "made_at": dt.datetime(2026, 11, 24, 1, tzinfo=dt.UTC),
        "audited": 2,
        "findings": (),
        "not_audited": (),
    }
    return Audit(**{**facts, **changes})


def waiver(**changes: Any) -> Waiver:
    return Waiver(**{"package": "vllm", "id": "CVE-1", "reason": "no images here", "until": DAY, **changes})


class _Osv(BaseHTTPRequestHandler):
    """A stand-in for an OSV service: it knows one advisory, about vllm 0.14.0."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = asked == {"package": {"name": "vllm", "ecosystem": "PyPI"}, "version": "0.14.0"}
        events = [{"introduced": "0"}, {"fixed": "0.14.1"}]
        affected = {"package": asked["package"], "ranges": [{"type": "ECOSYSTEM", "events": events}]}
        answer = {"vulns": [{"id": "GHSA-1", "aliases": ["CVE-1"], "affected": [affected]}]} if known else {}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def osv() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Osv) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def test_pip_audit_finds_what_a_service_knows_about_the_public_version(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with osv() as url:
        found = audit([lock], "osv", url)
    # of several ids pip-audit puts the CVE first
    assert found.findings == (FINDING.model_copy(update={"id": "CVE-1", "aliases": ("GHSA-1",)}),)
    assert (found.audited, found.not_audited, found.ok) == (2, (), False)
    assert found.reason == "1 of 1 findings not waived: vllm 0.14.0+cpu: CVE-1 (fixed in 0.14.1)"


def test_pip_audit_passes_a_lock_of_which_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "l.txt").write_text(f"idna==3.10{HASH}")
    with osv() as url:
        found = audit([tmp_path / "l.txt"], "osv", url)
    assert (found.audited, found.findings, found.ok) == (1, (), True)


def test_a_service_that_is_not_reached_is_no_pass(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    found = audit([lock], "osv", "http://127.0.0.1:9/v1/query")
    assert (found.audited, found.ok, len(found.not_audited)) == (0, None, 2)
    assert "cannot ask osv for known vulnerabilities: pip-audit ended with 1: " in found.reason
    assert "Connection refused" in found.reason
    assert sys.executable not in json.dumps(found.content())


def test_packages_that_were_skipped_are_no_pass_although_pip_audit_says_so(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped = [{"name": name, "skip_reason": "Dependency not found on PyPI"} for name in WANTED]
    monkeypatch.setattr(_audit, "_ask", lambda *_: json.dumps({"dependencies": skipped, "fixes": []}))
    found = audit([lock])
    assert (found.audited, found.ok) == (0, None)
    assert found.reason == "nothing was audited: Dependency not found on PyPI"


def test_a_lock_without_pins_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("# only words\n")
    with pytest.raises(InputError, match=r"l\.txt pins no package"):
        audit([tmp_path / "l.txt"])


def test_no_lock_is_no_pass() -> None:
    assert audit([]).ok is None


def test_a_report_is_read() -> None:
    assert parse_report(json.dumps(REPORT), WANTED, "l.txt") == ([FINDING], [])


def test_a_pin_without_an_answer_was_not_audited() -> None:
    _, gaps = parse_report(json.dumps({"dependencies": REPORT["dependencies"][:1]}), WANTED, "l.txt")
    assert [(gap.package, gap.reason) for gap in gaps] == [("idna", "pip-audit did not answer for it")]


def test_an_answer_for_another_version_is_none() -> None:
    _, gaps = parse_report(json.dumps(REPORT), {**WANTED, "idna": "3.11"}, "l.txt")
    assert [(gap.package, gap.reason) for gap in gaps] == [("idna", "pip-audit answered for 3.10")]


@pytest.mark.parametrize("report", ["", "[]", "{}", '{"dependencies": [{"version": "1"}]}', '{"dependencies": [7]}'])
def test_what_is_no_report_is_refused(report: str) -> None:
    with pytest.raises(BundleError, match="not in the form"):
        parse_report(report, WANTED, "l.txt")


JUDGED: dict[str, tuple[Audit, tuple[Waiver, ...], bool | None, str]] = {
    "clean": (made(), (), True, "2 packages audited"),
    "30 days old": (made(made_at=dt.datetime(2026, 10, 25, tzinfo=dt.UTC)), (), True, "2 packages audited"),
    "31 days old": (made(made_at=dt.datetime(2026, 10, 24, tzinfo=dt.UTC)), (), None, "31 days old, and 30"),
    "of tomorrow": (made(made_at=dt.datetime(2026, 11, 25, tzinfo=dt.UTC)), (), None, "clocks is wrong"),
    "a finding": (made(findings=(FINDING,)), (), False, "GHSA-1 (fixed in 0.14.1)"),
    "an old finding": (
        made(findings=(FINDING,), made_at=dt.datetime(2025, 1, 1, tzinfo=dt.UTC)),
        (),
        False,
        "1 of 1 findings not waived",
    ),
    "waived by alias": (made(findings=(FINDING,)), (waiver(),), True, "2 packages audited"),
    "waived by id": (made(findings=(FINDING,)), (waiver(id="GHSA-1"),), True, "2 packages audited"),
    "waived until yesterday": (
        made(findings=(FINDING,)),
        (waiver(until=DAY - dt.timedelta(days=1)),),
        False,
        "GHSA-1",
    ),
    "waived for another package": (made(findings=(FINDING,)), (waiver(package="torch"),), False, "GHSA-1"),
    "another finding waived": (made(findings=(FINDING,)), (waiver(id="CVE-2"),), False, "GHSA-1"),
    "a gap": (made(not_audited=(GAP,)), (), None, "own 1.0 (not found on the index)"),
    "a waived gap": (made(not_audited=(GAP,)), (waiver(package="own", id="not-audited"),), True, "2 packages"),
    "nothing but waived gaps": (
        made(audited=0, not_audited=(GAP,)),
        (waiver(package="own", id="not-audited"),),
        None,
        "nothing was audited",
    ),
}


@pytest.mark.parametrize(("raw", "waivers", "ok", "reason"), JUDGED.values(), ids=JUDGED)
def test_judgement(raw: Audit, waivers: tuple[Waiver, ...], ok: bool | None, reason: str) -> None:  # noqa: FBT001
    judged = judge(raw, waivers, DAY, 30)
    assert judged.ok is ok
    assert reason in judged.reason
    assert (judged.findings, judged.not_audited) == (raw.findings, raw.not_audited)


def test_only_the_waivers_that_were_needed_are_kept() -> None:
    assert judge(made(findings=(FINDING,)), (waiver(), waiver(id="CVE-2")), DAY, 30).waived == (waiver(),)
