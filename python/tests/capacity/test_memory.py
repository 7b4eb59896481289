"""The prediction of a GPU's memory against what python/tools/measure_memory.py recorded on an H200."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from rackserve.capacity import Plan, Settings, Weights, arithmetic_of, plan, shape_of, weights_of
from rackserve.capacity._memory import graphs_of

RECORDED: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "h200" / "capacity.json").read_text(encoding="utf-8")
)
RUNS: Final = {run["name"]: run for run in RECORDED["runs"]}
# The constants are from these; every other run is a check on them. 3b-v1 forces a model runner that is not 0.26's own.
FITTED: Final = {"3b", "3b-b2048", "m7", "q15", "3b-v1"}


def predicted(run: dict[str, Any], folder: Path, release: str = RECORDED["release"]) -> Plan:
    config, engine = RECORDED["models"][run["model"]], run["engine"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shape = shape_of(config)
    weights: Weights = weights_of(folder, shape, engine.get("quantization"))
    settings = Settings(
        max_model_len=engine["max_model_len"],
        max_num_seqs=engine["max_num_seqs"],
        gpu_bytes=run["measured"]["total"],
        utilization=engine["gpu_memory_utilization"],
        kv_cache_dtype=engine.get("kv_cache_dtype", "auto"),
        max_num_batched_tokens=engine["max_num_batched_tokens"],
    )
    return plan(shape, weights, arithmetic_of(release), settings)


def term(found: Plan, name: str) -> int:
    return next((part.size for part in found.budget.terms if part.name == name), 0)


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if run["measured"]["compiled"]])
def test_a_first_start_has_the_tokens_that_were_predicted(tmp_path: Path, name: str) -> None:
    found, measured = predicted(RUNS[name], tmp_path), RUNS[name]["measured"]

    assert found.capacity.tokens == pytest.approx(measured["tokens"], rel=0.005 if name == "3b-v1" else 0.001)
    assert abs(found.budget.available - measured["available_kv"]) < found.budget.doubt


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if not run["measured"]["compiled"]])
def test_a_later_start_has_a_little_more(tmp_path: Path, name: str) -> None:
    found, measured = predicted(RUNS[name], tmp_path), RUNS[name]["measured"]

    assert 0.997 * measured["tokens"] < found.capacity.tokens < measured["tokens"]


@pytest.mark.parametrize("name", sorted(RUNS.keys() - FITTED))
def test_the_terms_hold_for_runs_they_were_not_fitted_to(tmp_path: Path, name: str) -> None:
    found, measured = predicted(RUNS[name], tmp_path), RUNS[name]["measured"]

    assert term(found, "weights") == pytest.approx(measured["weights"], rel=0.02)
    assert term(found, "context") == measured["context"]
    assert term(found, "CUDA graphs") == measured["graphs_estimate"] == 0
    if measured["compiled"]:
        assert term(found, "activations") == pytest.approx(measured["activations"], rel=0.03)


@pytest.mark.parametrize("name", list(RUNS))
def test_memory_becomes_tokens_exactly(tmp_path: Path, name: str) -> None:
    run = RUNS[name]
    layout = predicted(run, tmp_path).layout
    length = run["engine"]["max_model_len"]
    blocks = run["measured"]["available_kv"] // layout.block_bytes

    assert blocks == run["measured"]["blocks"]
    assert int(blocks / -(-length // layout.block_size) * length) == run["measured"]["tokens"]


def test_graphs_of_the_first_runner_are_about_what_it_estimated(tmp_path: Path) -> None:
    run = RUNS["3b-v1"]

    assert term(predicted(run, tmp_path, "0.22.1"), "CUDA graphs") == pytest.approx(
        run["measured"]["graphs_estimate"], rel=0.3
    )


@pytest.mark.parametrize(("requests", "graphs"), [(64, 19 + 11), (256, 51 + 35), (512, 51 + 51), (1024, 51 + 51)])
def test_graphs_are_as_many_as_in_the_log(requests: int, graphs: int) -> None:
    assert graphs_of(requests, 8192) == graphs
