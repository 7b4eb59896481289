"""python/tools/proxy_cost.py: both ways are asked in turns with their own questions, and failures are reported."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from testing.stand_in_server import Behaviour, serving

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = Path(__file__).parents[2] / "tools/proxy_cost.py"
    spec = importlib.util.spec_from_file_location("proxy_cost", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["proxy_cost"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


def run(tool: ModuleType, direct: Behaviour, edge: Behaviour) -> int:
    options = ["--streams", "1", "2", "--rounds", "2", "--requests", "2", "--alone", "2", "--output-tokens", "3"]
    with serving(direct) as one, serving(edge) as two:
        return int(tool.main(["--direct", one, "--edge", two, "--model", "m", *options]))


def test_a_slower_way_has_a_larger_ratio(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    direct, edge = Behaviour(first_s=0.02), Behaviour(first_s=0.2)
    assert run(tool, direct, edge) == 0
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    (first, *_) = [float(row[4]) for row in rows if row[:2] == ["2", "TTFT p50, ms"]]
    (tokens, *_) = [float(row[4]) for row in rows if row[:2] == ["2", "tokens per second"]]
    assert first > 1.2
    assert tokens < 0.9


def test_no_question_is_asked_both_ways(tool: ModuleType) -> None:
    direct, edge = Behaviour(first_s=0, gap_s=0), Behaviour(first_s=0, gap_s=0)
    run(tool, direct, edge)
    asked = [{body["messages"][0]["content"] for body in engine.requests} for engine in (direct, edge)]
    assert all(asked)
    assert not asked[0] & asked[1]


def test_a_request_that_fails_is_no_measurement(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    edge = Behaviour(first_s=0, gap_s=0)
    edge.turns.extend(["ok", "ok", "503"])
    assert run(tool, Behaviour(first_s=0, gap_s=0), edge) == 2
    assert capsys.readouterr() == ("", "proxy_cost: nothing was measured: the edge answered 503\n")


@pytest.mark.parametrize("fault", ["cut", "no end"])
def test_a_stream_that_is_not_whole_is_no_measurement(
    tool: ModuleType, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tool, Behaviour(first_s=0, gap_s=0), Behaviour(first_s=0, gap_s=0, default=fault)) == 2
    assert "nothing was measured" in capsys.readouterr().err
