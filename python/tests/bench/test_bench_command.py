"""`rackserve bench` through `main(argv)`; inventory and hosts are faked, the load goes to a server on loopback."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

from rackserve.bench import read_result
from rackserve.checks.evidence import read_evidence
from rackserve.cli import _bench, build_parser, main
from rackserve.cli._load import target_of
from rackserve.errors import InputError
from rackserve.run import Fleet, FleetHost
from testing.stand_in_server import Behaviour, serving

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

EDGE = {"port": 443, "server_name": "n", "ca_file": "", "model": "m", "expect": "Paris", "rate": 1, "burst": 2}
SMALL = ["--concurrency", "1,2", "--requests", "3", "--warmup", "1", "--output-tokens", "3"]


@pytest.fixture
def behaviour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Behaviour]:
    """Serve gpu1's instance `a` on loopback, and let the fleet's evidence say so."""
    behaviour = Behaviour(first_s=0.0, gap_s=0.0)
    hosts = (FleetHost("gpu1", ("vllm_hosts",), None), FleetHost("edge1", ("edge_hosts",), None))
    monkeypatch.setattr(_bench, "load_fleet", lambda path: Fleet(path, hosts))
    (tmp_path / "key").write_text("rsk-canary\n", encoding="utf-8")
    with serving(behaviour) as url:
        instance = {"name": "a", "url": url, "served_names": ["small", "other"]}
        edge = {**EDGE, "key_file": str(tmp_path / "key")}
        found = {
            "gpu1": read_evidence("gpu1", {"checks": [], "facts": {"address": "1.2.3.4", "instances": [instance]}}),
            "edge1": read_evidence("edge1", {"checks": [], "facts": {"address": "1.2.3.5", "edge": edge}}),
        }
        monkeypatch.setattr(_bench, "gather_evidence", lambda *_args: (None, found))
        monkeypatch.setattr(_bench, "EVIDENCE", found, raising=False)
        yield behaviour


def bench(tmp_path: Path, *words: str) -> int:
    return main(["bench", "-i", str(tmp_path), "--direct", "gpu1:a", *SMALL, *words])


def parse(tmp_path: Path, *words: str) -> argparse.Namespace:
    argv = ["bench", "-i", str(tmp_path), *words]
    return build_parser(argv).parse_args(argv)


def test_a_table_for_a_reader(behaviour: Behaviour, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(tmp_path) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == (
        "small through gpu1:a, closed loop, requests at once; 64 words in, 3 tokens out, seed 0"
    )
    assert "time to first token" in out
    assert "p99 of fewer than 100 values lies close to their largest" in out
    assert "Asking gpu1:a, 2 at once: 3 requests" in err
    assert {request["model"] for request in behaviour.requests} == {"small"}
    assert set(behaviour.keys) == {None}  # an instance has no keys


def test_json_is_what_a_report_reads(behaviour: Behaviour, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(tmp_path, "--json", "--model", "other") == 0
    text = capsys.readouterr().out
    said = json.loads(text)
    assert (said["ok"], said["model"], [level["load"] for level in said["levels"]]) == (True, "other", [1, 2])
    assert set(said["levels"][0]["ttft_ms"]) == {"n", "mean", "min", "p50", "p95", "p99", "max"}
    (tmp_path / "bench.json").write_text(text, encoding="utf-8")
    assert read_result(tmp_path / "bench.json").ok
    assert behaviour.requests[0]["model"] == "other"


def test_a_429_is_reported_and_fails(behaviour: Behaviour, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    behaviour.turns = deque(["ok", "429"])
    assert bench(tmp_path) == 1
    out = capsys.readouterr().out
    assert "1 requests at once: 1 x HTTP 429; the first: refused with 429" in out
    assert "2 of 3" in out


def test_nothing_measured_is_2(behaviour: Behaviour, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    behaviour.default = "401"
    assert bench(tmp_path) == 2
    assert "nothing was measured" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--requests", "0"], "requests 0 is not from 1 to 1000"),
        (["--concurrency", "1,x"], "is not a list of numbers"),
        (["--direct", "gpu9:a"], "there is no instance 'gpu9:a'; there are gpu1:a"),
    ],
)
def test_bad_input_asks_nothing(
    behaviour: Behaviour, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert bench(tmp_path, *words) == 2
    assert says in capsys.readouterr().err
    assert behaviour.requests == []


def test_through_the_edge_by_the_clients_key(behaviour: Behaviour, tmp_path: Path) -> None:
    del behaviour

    def target(*words: str) -> Any:
        args = parse(tmp_path, *words)
        return target_of(args, _bench.EVIDENCE)  # type: ignore[attr-defined]

    chosen = target()
    assert (chosen.name, chosen.url, chosen.model) == ("edge1", "https://1.2.3.5:443", "m")
    assert (chosen.server_name, chosen.key) == ("n", "rsk-canary")
    assert "rsk-canary" not in repr(chosen)
    (tmp_path / "other").write_text("rsk-other", encoding="utf-8")
    assert target("--key-file", str(tmp_path / "other")).key == "rsk-other"
    with pytest.raises(InputError, match="there is no edge gpu1 that answers over SSH; there are edge1"):
        target("--edge", "gpu1")
    with pytest.raises(InputError, match="no client's key in"):
        target("--key-file", str(tmp_path / "none"))


def test_a_site_that_generates_no_text(behaviour: Behaviour, tmp_path: Path) -> None:
    del behaviour
    args = parse(tmp_path)
    silent = read_evidence("edge1", {"checks": [], "facts": {"edge": {**EDGE, "model": "", "key_file": "/none"}}})
    with pytest.raises(InputError, match="no instance of this site generates text"):
        target_of(args, {"edge1": silent})
