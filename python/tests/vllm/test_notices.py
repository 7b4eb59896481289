"""Tool calls that come as text are told, with the key to set; a plan that has them is not refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rackserve.vllm import Instance, release_of
from rackserve.vllm._notices import tool_notices

if TYPE_CHECKING:
    from pathlib import Path

REVISION = "0" * 40
TOLD = "{% if tools %}{{ tools }}{% endif %}{{ messages }}"


def notices(
    tmp_path: Path, repo: str, template: str | None = TOLD, version: str = "0.32.0", **changes: Any
) -> list[str]:
    model = {"repo": repo, "revision": REVISION}
    base = {"name": "a", "model": model, "max_num_seqs": 4, "max_model_len": 128}
    if template is not None:
        (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
    instance = Instance.model_validate({**base, **changes})
    return tool_notices([instance], release_of(version), {(repo, REVISION): tmp_path}, tmp_path)


@pytest.mark.parametrize(
    "repo",
    [
        "Qwen/Qwen3.5-35B-A3B",
        "Qwen/Qwen3-Next-80B-A3B-Instruct",
        "deepseek-ai/DeepSeek-V3.1",
        "google/gemma-4-27b-it",
        "MiniMaxAI/MiniMax-M2",
        "zai-org/GLM-5",
    ],
)
def test_a_model_that_is_told_of_tools_and_has_no_known_parser_is_named(tmp_path: Path, repo: str) -> None:
    (said,) = notices(tmp_path, repo)
    assert said == (
        f"instance 'a': tool calls of {repo} come as text, because no parser is known for it; set tool_call_parser to "
        "the one that its model card names, or to none"
    )


@pytest.mark.parametrize(
    ("repo", "parser"),
    [
        ("RedHatAI/Qwen3-8B-FP8-dynamic", "hermes, if it is a copy of Qwen's model"),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8", "llama3_json, if it is a copy of meta-llama's model"),
    ],
)
def test_the_parser_of_a_copy_is_proposed(tmp_path: Path, repo: str, parser: str) -> None:
    (said,) = notices(tmp_path, repo)
    assert f"set tool_call_parser to {parser}, or to none" in said


@pytest.mark.parametrize(
    ("repo", "changes"),
    [
        ("Qwen/Qwen3-8B", {}),
        ("x/y", {"tool_call_parser": "none"}),
        ("x/y", {"tool_call_parser": "hermes"}),
        ("x/y", {"task": "embed"}),
        ("x/y", {"template": "{{ messages }}"}),
        ("x/y", {"template": None}),
    ],
    ids=["known", "off", "set", "no chat", "no tools in the template", "no template"],
)
def test_nothing_is_said_where_tool_calls_work_or_are_not_wanted(
    tmp_path: Path, repo: str, changes: dict[str, Any]
) -> None:
    assert notices(tmp_path, repo, **changes) == []


def test_the_instances_own_template_counts(tmp_path: Path) -> None:
    (tmp_path / "plain.jinja").write_text("{{ messages }}", encoding="utf-8")
    assert notices(tmp_path, "x/y", chat_template="plain.jinja") == []
    (tmp_path / "plain.jinja").write_text(TOLD, encoding="utf-8")
    assert len(notices(tmp_path, "x/y", None, chat_template="plain.jinja")) == 1


def test_a_template_inside_the_tokenizers_configuration_counts(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ tools }}"}', encoding="utf-8")
    assert len(notices(tmp_path, "x/y", None)) == 1


def test_a_release_without_the_parser_of_a_known_model_is_told(tmp_path: Path) -> None:
    assert len(notices(tmp_path, "Qwen/Qwen3-Coder-30B-A3B-Instruct", version="0.10.2")) == 1
