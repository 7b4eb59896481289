"""`rackserve capacity` through main(argv)."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from rackserve.cli import main
from testing.known_models import LLAMA_8B, SMOLLM2, model_configs, write_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "m", LLAMA_8B))


def test_json_has_stable_keys(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "s", SMOLLM2)
    settings = ["--device", "cpu", "--available-kv", "2", "--max-model-len", "2048"]
    code = main(["capacity", "--model", str(folder), *settings, "--json"])
    answer = json.loads(capsys.readouterr().out)

    assert code == 0
    assert list(answer) == [
        "fits", "release", "model_type", "weights", "memory", "available_kv_bytes", "available_kv_predicted",
        "available_kv_doubt_bytes", "bytes_per_token", "block_size", "block_bytes", "blocks", "blocks_per_request",
        "kv_tokens", "max_concurrency", "max_model_len", "largest_max_model_len", "max_num_batched_tokens",
        "needed_kv_bytes", "remedies", "advice",
    ]  # fmt: skip
    assert (answer["blocks"], answer["kv_tokens"], answer["max_concurrency"]) == (728, 93184, 45.5)
    assert answer["bytes_per_token"] == 2 * 30 * 3 * 64 * 2


def test_one_request_that_does_not_fit_ends_with_1_and_what_would(
    capsys: pytest.CaptureFixture[str], model: str
) -> None:
    code = main(["capacity", "--model", model, "--gpu-memory", "23.6"])
    out = capsys.readouterr().out

    assert code == 1
    assert "does not start: one request of 131,072 tokens needs 16.00 GiB of KV cache" in out
    assert "starts with --max-model-len 40" in out
    assert "starts with --tensor-parallel 2" in out


def test_an_encoder_is_told_to_have_no_kv_cache(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "e", model_configs()["bge-base-en"])
    code = main(["capacity", "--model", str(folder), "--gpu-memory", "24"])
    out = capsys.readouterr().out

    assert code == 0
    assert "bert: 12 layers, an encoder, bfloat16" in out
    assert "no KV cache: an encoder reads a request at once and keeps nothing" in out
    assert "predicted" not in out.split("no KV cache", 1)[1]


def test_a_model_without_a_longest_request_needs_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "b", model_configs()["bloom-7b1"])
    command = ["capacity", "--model", str(folder), "--gpu-memory", "48"]

    assert main(command) == 2
    assert "sets no longest request that is known here; set --max-model-len" in capsys.readouterr().err
    assert main([*command, "--max-model-len", "4096"]) == 0


def test_a_model_that_is_not_known_is_named_with_its_kind(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = write_model(tmp_path / "n", {**SMOLLM2, "model_type": "new"})

    assert main(["capacity", "--model", str(folder), "--gpu-memory", "24"]) == 2
    assert "model_type 'new': the KV cache of this kind of model is not computed here" in capsys.readouterr().err


def test_the_bar_has_sixty_marks_and_a_legend(capsys: pytest.CaptureFixture[str], model: str) -> None:
    main(["capacity", "--model", model, "--gpu-memory", "79.2", "--max-model-len", "8192"])
    lines = capsys.readouterr().out.splitlines()
    (drawn,) = [line.strip() for line in lines if line.startswith("  [")]

    assert len(drawn) == 62
    assert any("weights" in line and "14.99 GiB  estimate from config.json" in line for line in lines)
    assert any("--kv-cache-memory-bytes" in line for line in lines)


def test_the_svg_is_whole_and_needs_nothing_else(tmp_path: Path, model: str) -> None:
    file = tmp_path / "a.svg"
    main(["capacity", "--model", model, "--gpu-memory", "79.2", "--svg", str(file)])
    text = file.read_text()

    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own file
    assert "prefers-color-scheme:dark" in text
    assert "href" not in text
    assert "KV cache: " in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gpu-memory", "much"], "'much' is not a number of GiB above 0, such as 79.2"),
        (["--gpu-memory", "24", "--utilization", "1.2"], "'1.2' is not a share above 0 and up to 1"),
        (["--gpu-memory", "24", "--max-num-seqs", "0"], "'0' is not a whole number of 1 or more"),
        (["--gpu-memory", "24", "--release", "0.11.0"], "invalid choice: '0.11.0'"),
        ([], "set --gpu-memory or --available-kv"),
        (["--gpu-memory", "24", "--svg", "/nowhere/a.svg"], "cannot write --svg /nowhere/a.svg"),
    ],
)
def test_bad_input_ends_with_2(capsys: pytest.CaptureFixture[str], model: str, flags: list[str], message: str) -> None:
    try:
        code = main(["capacity", "--model", model, *flags])
    except SystemExit as ended:
        code = int(ended.code or 0)

    assert code == 2
    assert message in capsys.readouterr().err
