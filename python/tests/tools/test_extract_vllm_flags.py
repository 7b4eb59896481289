"""The reader of flags knows the three ways in which vLLM declares them."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

TOOL = Path(__file__).parents[2] / "tools/extract_vllm_flags.py"
_spec = importlib.util.spec_from_file_location("extract_vllm_flags", TOOL)
assert _spec is not None
assert _spec.loader is not None
tool = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = tool
_spec.loader.exec_module(tool)

CONFIG = """
class CacheConfig:
    enable_prefix_caching: bool | None = None
    block_size: int = 16
    hf_token: bool | str | None = None
"""
ENGINE = """
def add_cli_args(parser):
    parser.add_argument("--headless", action="store_true")
    parser.add_argument("--spare", action=argparse.BooleanOptionalAction)
    cache_kwargs = get_kwargs(CacheConfig)
    group.add_argument("--block-size", "-b", **cache_kwargs["block_size"])
    group.add_argument("--hf-token", **cache_kwargs["hf_token"])
    group.add_argument("--enable-prefix-caching", **{**cache_kwargs["enable_prefix_caching"], "default": None})
"""
FRONT = """
class BaseFrontendArgs:
    api_key: Optional[list[str]] = None
class FrontendArgs(BaseFrontendArgs):
    log_error_stack: bool = False
"""
ACTION = "class EnableDisableAction: pass"
SOURCES = {
    "vllm/config/cache.py": CONFIG,
    "vllm/engine/arg_utils.py": ENGINE,
    "vllm/entrypoints/openai/cli_args.py": FRONT,
}
FLAGS = [
    "--api-key",
    "--block-size",
    "--enable-prefix-caching",
    "--headless",
    "--hf-token",
    "--log-error-stack",
    "--no-enable-prefix-caching",
    "--no-log-error-stack",
    "--no-spare",
    "--spare",
]


def test_flags_are_found_and_switches_have_their_negation() -> None:
    assert tool.flags_of(SOURCES) == FLAGS


def test_a_release_with_opposites_has_them() -> None:
    more = tool.flags_of({**SOURCES, "vllm/utils/argparse_utils.py": ACTION})
    assert set(more) - set(FLAGS) == {"--disable-prefix-caching"}


def test_metrics_are_names_in_quotes() -> None:
    assert tool.metrics_of({"a.py": 'Gauge(name="vllm:e2e_x")  # vllm:not_this'}) == ["vllm:e2e_x"]


def test_the_command_reads_a_wheel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheel = tmp_path / "vllm-9-cp38-abi3-manylinux1_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**SOURCES, "vllm/other.py": "not python ("}.items():
            archive.writestr(name, text)
    assert tool.main([str(wheel)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "# Made by python/tools/extract_vllm_flags.py from vllm-9-cp38-abi3-manylinux1_x86_64.whl",
        *FLAGS,
    ]
