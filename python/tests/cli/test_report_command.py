"""`rackserve report` through `main(argv)`; the runner and the inventory are faked, the page is real."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.bench import BenchResult, Load, Sample, summarise
from rackserve.checks import CheckResult, edge
from rackserve.cli import _report, main
from rackserve.errors import RunError
from rackserve.report import BundleFacts
from rackserve.run import EventKind, Fleet, FleetHost, HostStats, RunEvent, RunResult, TaskFailure, _ansible

if TYPE_CHECKING:
    from pathlib import Path

KEY = "a key of no known form"
EDGE = {"port": 443, "server_name": "llm.example", "ca_file": "", "model": "m", "expect": "", "rate": 1, "burst": 2}
LEVEL = summarise(1.0, [Sample("ok", ttft=0.1, last=0.5, end=0.6, gaps=(0.1,), output_tokens=5)], 1.0)
MEASURED = BenchResult("edge1", "m", "2026-01-01T00:00:00+00:00", Load(), 0, (LEVEL,))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a healthy site of gpu1 and edge1 whose bundle this controller does not have."""
    inventory = tmp_path / "site"
    inventory.mkdir()
    (tmp_path / "key").write_text(KEY, encoding="utf-8")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    hosts = (FleetHost("gpu1", ("vllm_hosts",), "10.0.0.11"), FleetHost("edge1", ("edge_hosts",), None))
    monkeypatch.setattr(_report, "load_fleet", lambda path: Fleet(path, hosts))
    bundle = {"bundle": str(tmp_path / "none"), "trust": str(tmp_path / "trust.yml")}
    through = {"edge": {**EDGE, "key_file": str(tmp_path / "key")}}
    evidence: dict[str, Any] = {"alerts": [], "units": [], "free": {}, "answers": {}, "services": {}, "drained": []}

    def run(playbook: Path, inventory: Path, **options: Any) -> RunResult:
        del playbook, inventory
        off = tmp_path.joinpath("off").exists()
        for host, more in (("gpu1", {}), ("edge1", through)):
            if host == "gpu1" and off:
                continue
            if options["tags"] == ["diagnose"]:
                data: dict[str, Any] = {"evidence": evidence}
            else:
                assert options["tags"] == ["verify", "status", "report"]
                check = {"name": "c", "ok": True, "detail": f"said {KEY}"}
                data = {"checks": [check], "facts": {"address": "10.0.0.1", **bundle, **more}}
            options["on_event"](RunEvent(EventKind.OK, host=host, data=data))
        gone = (TaskFailure("gpu1", "t", "ssh: connect to host 10.0.0.11 port 22: No route to host"),) if off else ()
        stats = (HostStats("edge1", ok=1), HostStats("gpu1", ok=1))
        return RunResult(4 if off else 0, "done", stats, (), gone, options["record_dir"])

    monkeypatch.setattr(_ansible, "run_playbook", run)
    monkeypatch.setattr(edge, "run_edge_checks", lambda _edge: (CheckResult("tls", "edge1", ok=True, detail="d"),))
    return inventory


@pytest.fixture
def good_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_report, "describe_bundle", lambda *_paths: BundleFacts(name="lab", version=1))


def report(site: Path, *words: str) -> int:
    return main(["report", "-i", str(site), "-o", str(site / "out.html"), *words])


@pytest.mark.usefixtures("good_bundle")
def test_a_page_and_its_verdicts(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(site, "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "ok": True,
        "path": str(site / "out.html"),
        "verdicts": {"verify": True, "doctor": True, "run": None, "bundle": True, "capacity": None, "bench": None},
    }
    assert "Writing the page" in err
    text = (site / "out.html").read_text(encoding="utf-8")
    assert "Site report: llm.example" in text
    assert "all 3 passed" in text
    assert KEY not in text
    assert "said [hidden]" in text
    assert report(site) == 0  # over its own page
    assert capsys.readouterr().out.endswith(f"bench     not checked\n{site / 'out.html'}\n")


def test_what_is_wrong_is_on_the_page_and_ends_with_1(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site.parent / "off").touch()
    assert report(site, "--json") == 1
    assert json.loads(capsys.readouterr().out)["verdicts"] == {
        "verify": False,
        "doctor": False,
        "run": None,
        "bundle": False,
        "capacity": None,
        "bench": None,
    }
    text = (site / "out.html").read_text(encoding="utf-8")
    assert "cannot reach gpu1" in text
    assert "trust.yml is missing" in text


@pytest.mark.usefixtures("good_bundle")
def test_a_measurement_of_before(site: Path) -> None:
    (site / "bench.json").write_text(json.dumps(asdict(MEASURED)), encoding="utf-8")
    assert report(site, "--bench-file", str(site / "bench.json")) == 0
    assert 'aria-label="Time to first token.' in (site / "out.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("good_bundle")
def test_a_measurement_now(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def measure(target: Any, load: Load) -> BenchResult:
        asked.append((target.name, load.requests))
        return MEASURED

    monkeypatch.setattr(_report, "measure", measure)
    assert report(site, "--bench", "--requests", "3") == 0
    assert asked == [("edge1", 3)]

    def fail(*_args: Any) -> BenchResult:
        raise RunError("nothing was measured: <none> answered")

    monkeypatch.setattr(_report, "measure", fail)
    assert report(site, "--bench") == 1
    assert "nothing was measured: &lt;none&gt; answered" in (site / "out.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--run", "gone"], "there is no record of a run gone"),
        (["--bench", "--requests", "0"], "requests 0 is not"),
        (["--bench-file", "gone"], "cannot read the measurement"),
    ],
)
def test_bad_input_looks_at_no_host(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.setattr(_ansible, "run_playbook", None)
    assert report(site, *words) == 2
    assert says in capsys.readouterr().err
    (site / "out.html").write_text("mine", encoding="utf-8")
    assert report(site) == 2
    assert "is not a report" in capsys.readouterr().err
    assert (site / "out.html").read_text(encoding="utf-8") == "mine"
