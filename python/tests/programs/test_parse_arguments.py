"""The program that lets a release read arguments, with a stand-in for vLLM; the lab runs it with the real one."""

from __future__ import annotations

import argparse
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import yaml

from rackserve.programs import parse_arguments
from rackserve.programs.parse_arguments import main, reason_in

if TYPE_CHECKING:
    from pathlib import Path


class Flexible(argparse.ArgumentParser):
    """Reads a file for --config, as vLLM's parser does, when it has the right suffix."""

    def parse_args(self, args: list[str]) -> argparse.Namespace:  # type: ignore[override]
        *words, _, file = args
        assert file.endswith(".yaml")
        with open(file, encoding="utf-8") as source:  # noqa: PTH123
            found = yaml.safe_load(source)
        flags = [word for key, value in found.items() for word in (f"--{key}", str(value))]
        return super().parse_args([*words, *flags])


def make_arg_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int)
    parser.add_argument("--chat-template")


def validate_parsed_serve_args(args: argparse.Namespace) -> None:
    if args.chat_template:
        raise ValueError("no such template")


@pytest.fixture(params=[("vllm.utils", "vllm.entrypoints.openai.cli_args"), parse_arguments._PARSERS[:1]])
def release(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    utils, *arguments = request.param
    for name in ("vllm", utils, *(arguments or ["vllm.entrypoints.common.cli_args"])):
        module = ModuleType(name)
        module.__dict__.update(__version__="9", FlexibleArgumentParser=Flexible, make_arg_parser=make_arg_parser)
        module.__dict__.update(validate_parsed_serve_args=validate_parsed_serve_args)
        for depth in range(1, name.count(".") + 1):
            parent = name.rsplit(".", depth)[0]
            monkeypatch.setitem(sys.modules, parent, sys.modules.get(parent) or ModuleType(parent))
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("rackserve.programs.parse_arguments.os.environ", {})


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("port: 8000", ["o/m"], ""),
        ("port: many", ["o/m"], "u.service: vLLM 9 refuses its arguments: argument --port: invalid int value: 'many'"),
        ("prot: 1", ["o/m"], "u.service: vLLM 9 refuses its arguments: unrecognized arguments: --prot 1"),
        ("chat-template: /t", ["o/m"], "u.service: vLLM 9 refuses its arguments: ValueError: no such template"),
        ("port: 1", [], "u.service: vLLM 9 refuses its arguments: the following arguments are required: model_tag"),
    ],
)
def test_what_vllm_says_is_handed_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: list[str], said: str
) -> None:
    file = tmp_path / ".source.j2"
    file.write_text(text, encoding="utf-8")
    assert main(["--unit", "u.service", str(file), *words]) == (1 if said else 0)
    assert capsys.readouterr().err.strip() == said


def test_the_usage_is_left_out() -> None:
    assert reason_in("usage: vllm [-h]\n  [--x]\nvllm: error: unrecognized\n arguments: --y") == (
        "unrecognized arguments: --y"
    )
    assert reason_in("no such marker") == "no such marker"
