"""Knowledge of vLLM's releases: every line of the data is compared with what the wheels themselves declare."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from rackserve.errors import InputError
from rackserve.vllm import release_of, releases

SNAPSHOTS = Path(__file__).parents[1] / "data"
DATA = Path(__file__).parents[2] / "src/rackserve/data/vllm_releases.yml"
SUPPORTED = ("0.6.4.post1", "0.10.2", "0.22.1", "0.26.0", "0.31.0", "0.32.0", "0.33.0")
FROM_OTHERS = {"http_requests_total"}  # prometheus-fastapi-instrumentator's


def snapshot(kind: str, version: str) -> set[str]:
    lines = (SNAPSHOTS / kind / f"{version}.txt").read_text(encoding="utf-8").splitlines()
    return {line for line in lines if not line.startswith("#")}


def test_every_release_of_the_matrix_is_known_oldest_first() -> None:
    assert tuple(releases()) == SUPPORTED


def test_another_release_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match=r"vLLM 0\.30\.0 .* set one of 0\.6\.4\.post1, 0\.10\.2"):
        release_of("0.30.0")


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_flag_is_in_a_release_or_absent_from_it(version: str) -> None:
    release = release_of(version)
    everywhere = frozenset().union(*(other.flags for other in releases().values()))
    assert release.flags | release.absent.keys() == everywhere
    assert not release.flags & release.absent.keys()


def test_advice_is_for_flags_that_a_release_lacks() -> None:
    advised = set(yaml.safe_load(DATA.read_text(encoding="utf-8"))["instead"])
    assert advised <= {name for release in releases().values() for name in release.absent}


@pytest.mark.parametrize(
    ("version", "flag", "said"),
    [
        ("0.6.4.post1", "uds", "it came after 0.6.4.post1; leave it out"),
        ("0.32.0", "swap-space", "it went after 0.10.2; leave it out; requests are recomputed instead"),
        ("0.22.1", "cuda-graph-sizes", "it came after 0.6.4.post1 and went after 0.10.2; set compilation-config"),
        ("0.6.4.post1", "cuda-graph-sizes", "it came after 0.6.4.post1 and went after 0.10.2; leave it out"),
        ("0.32.0", "calculate-kv-scales", "it came after 0.6.4.post1 and went after 0.26.0; leave it out; scales come"),
        ("0.32.0", "override-attention-dtype", "it came after 0.6.4.post1 and went after 0.26.0; leave it out; set"),
        ("0.10.2", "num-speculative-tokens", "it went after 0.6.4.post1; set speculative-config"),
        (
            "0.32.0",
            "no-guided-decoding-disable-fallback",
            "it came after 0.6.4.post1 and went after 0.10.2; set struct",
        ),
        ("0.26.0", "aux-output-config", "it came after 0.26.0; leave it out"),
        ("0.31.0", "grpc-port", "it came after 0.31.0; leave it out"),
        ("0.31.0", "calculate-kv-scales", "it came after 0.6.4.post1 and went after 0.26.0; leave it out; scales come"),
        ("0.26.0", "disable-log-requests", "only 0.6.4.post1, 0.10.2, 0.33.0 have it; leave it out; requests are"),
    ],
)
def test_a_missing_flag_says_since_when_and_what_to_do(version: str, flag: str, said: str) -> None:
    assert release_of(version).absent[flag].startswith(said)


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_flag_that_is_named_instead_is_there(version: str) -> None:
    release = release_of(version)
    advice = [re.search(r"\bset ([a-z-]+)$", text) for text in release.absent.values()]
    assert {found[1] for found in advice if found} <= release.flags


@pytest.mark.parametrize("version", SUPPORTED)
def test_metrics_are_those_that_the_wheel_spells_out(version: str) -> None:
    spelled = snapshot("vllm_metrics", version)
    for ours, name in release_of(version).metrics.items():
        assert name in FROM_OTHERS or {name, name.removesuffix("_total")} & spelled, ours


@pytest.mark.parametrize("version", SUPPORTED)
def test_series_of_steps_are_those_that_the_wheel_spells_out(version: str) -> None:
    spelled = snapshot("vllm_metrics", version)
    for name in release_of(version).steps:
        assert {name, name.removesuffix("_total"), name.removesuffix("_count")} & spelled, name


@pytest.mark.parametrize("version", SUPPORTED)
def test_a_step_without_output_changes_a_series(version: str) -> None:
    assert release_of(version).metrics["kv_usage"] in release_of(version).steps


@pytest.mark.parametrize(
    ("ours", "old", "new"),
    [
        ("kv_usage", "vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"),
        ("inter_token_latency", "vllm:time_per_output_token_seconds", "vllm:inter_token_latency_seconds"),
        ("rejections", None, "vllm:admission_rejections_total"),
    ],
)
def test_a_metric_keeps_our_name_when_vllm_renames_it(ours: str, old: str | None, new: str) -> None:
    assert release_of("0.6.4.post1").metrics.get(ours) == old
    assert release_of("0.33.0").metrics[ours] == new


@pytest.mark.parametrize(
    ("version", "line", "found"),
    [
        ("0.6.4.post1", "# GPU blocks: 1234, # CPU blocks: 512", {"blocks": "1234"}),
        ("0.10.2", "GPU KV cache size: 163,840 tokens", {"tokens": "163,840"}),
        ("0.22.1", "GPU KV cache size: 163,840 tokens", {"tokens": "163,840"}),
        ("0.31.0", "CPU KV cache size: 93,184 tokens, Maximum concurrency for", {"tokens": "93,184"}),
        ("0.32.0", "CPU KV cache size: 93,184 tokens, Maximum concurrency for", {"tokens": "93,184"}),
        ("0.33.0", "GPU + host KV cache size: 93,184 tokens, Maximum", {"tokens": "93,184"}),
    ],
)
def test_the_size_of_the_kv_cache_is_read_from_the_log(version: str, line: str, found: dict[str, str]) -> None:
    log = release_of(version).kv_log
    match = re.search(log.tokens or log.blocks or "", f"INFO 11-23 [kv.py:1] {line}")
    assert match
    assert match.groupdict() == found


@pytest.mark.parametrize(("version", "length"), [("0.6.4.post1", "2048"), ("0.10.2", "2,048"), ("0.33.0", "2,048")])
def test_the_concurrency_is_read_from_the_log(version: str, length: str) -> None:
    line = f"Maximum concurrency for {length} tokens per request: 45.50x"
    match = re.search(release_of(version).kv_log.concurrency, line)
    assert match
    assert match.groupdict() == {"length": length, "concurrency": "45.50"}


@pytest.mark.parametrize(
    ("version", "repo", "parser"),
    [
        ("0.32.0", "Qwen/Qwen2.5-7B-Instruct-AWQ", "hermes"),
        ("0.32.0", "Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_xml"),
        ("0.10.2", "Qwen/Qwen3-Coder-30B-A3B-Instruct", None),
        ("0.6.4.post1", "meta-llama/Meta-Llama-3.1-8B-Instruct", "llama3_json"),
        ("0.33.0", "meta-llama/Llama-3.1-8B", None),
        ("0.32.0", "HuggingFaceTB/SmolLM2-135M-Instruct", None),
    ],
)
def test_a_known_model_has_its_parser_where_the_release_has_it(version: str, repo: str, parser: str | None) -> None:
    assert release_of(version).parser_for(repo) == parser


def test_every_parser_of_the_table_is_in_the_newest_release() -> None:
    newest = release_of("0.33.0")
    assert set(newest.model_parsers.values()) <= set(newest.tool_parsers)


def test_the_traps_that_differ_between_releases() -> None:
    traps = {v: (r.log_requests, r.api_key_logged, r.allowed_origins, r.drains) for v, r in releases().items()}
    assert traps["0.6.4.post1"] == ("unless-disabled", True, ("*",), False)
    assert traps["0.10.2"] == ("off", True, ("*",), False)
    assert traps["0.26.0"] == ("off", True, ("*",), True)
    assert traps["0.31.0"] == ("off", False, ("*",), True)
    assert traps["0.32.0"] == traps["0.33.0"] == ("off", False, (), True)


@pytest.mark.parametrize("version", SUPPORTED)
def test_the_matrix_in_the_documentation_is_the_data(version: str) -> None:
    release = release_of(version)
    python = f"{release.python.first} to below {release.python.below}" if release.python.below else "from 3.9"
    cells = (version, python, release.torch, release.cuda, str(release.driver), release.glibc)
    page = (Path(__file__).parents[3] / "docs/reference/vllm-releases.md").read_text(encoding="utf-8")
    assert f"| {' | '.join(cells)} |" in page
    for bad in release.known_bad:
        assert f"| {version} | `{bad.pin}` |" in page
