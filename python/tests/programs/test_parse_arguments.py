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
from rackserve.vllm import reason_of

if TYPE_CHECKING:
    from pathlib import Path


class Flexible(argparse.ArgumentParser):
    """Reads a file for --config, as vLLM's parser does, when it has the right suffix."""

    def parse_args(self, args: list[str]) -> argparse.Namespace:  # type: ignore[override]
        *words, _, file = args
        assert file.endswith(".yaml")
        with open(file, encoding="utf-8") as source:  # noqa: PTH123
            found = yaml.safe_load(source)
        flags = [word for key, value in found.items() for word in (f"--{key}", *values_of(value))]
        return super().parse_args([*words, *flags])


def values_of(value: object) -> list[str]:
    """Return the words of a value as vLLM 0.32.0 writes them (utils/argparse_utils.py, load_config_file)."""
    if value is True:
        return []
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


class Identity:
    """A value that is another one each time, as the engine_id of vLLM's KVTransferConfig."""

    def __init__(self, text: str) -> None:
        self.text = text


class Adapters(argparse.Action):
    """An action that sets more than its own value, as vLLM's for --log-config-file."""

    def __call__(self, _parser: object, namespace: argparse.Namespace, values: object, _option: object = None) -> None:
        namespace.adapters, namespace.enabled = values, True


def make_arg_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int)
    parser.add_argument("--chat-template")
    parser.add_argument("--max-model-len", "-mml", type=int)
    parser.add_argument("--gpu-memory", "--device-memory", type=float, default=0.9)
    parser.add_argument("--caching", action=argparse.BooleanOptionalAction)
    parser.add_argument("--domains", nargs="*")
    parser.add_argument("--transfer", type=Identity)
    parser.add_argument("--adapters", action=Adapters)
    parser.set_defaults(enabled=False)


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
        ("max-model-len: 4\nmax-model-len: x", ["o/m"], "u.service: vLLM 9 refuses its arguments: argument --max-mod"),
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
    assert capsys.readouterr().err.strip().startswith(said)


@pytest.mark.usefixtures("release")
@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        (
            "max-model-len: 4\nmax-mod: 9",
            [],
            "--max-mod is no full name of a flag, which vLLM takes for --max-model-len",
        ),
        ("max-mod: 9", [], "--max-mod is no full name of a flag, which vLLM takes for --max-model-len"),
        (
            "gpu-memory: 0.9\ndevice-memory: 0.5",
            [],
            "--device-memory sets --gpu-memory to 0.5, and --gpu-memory sets it",
        ),
        ("caching: true\nno-caching: true", [], "--no-caching sets --caching to False, and --caching sets it to True"),
        ("domains: [x, --port, '9']", [], "the value of --domains sets --port too"),
        ("domains: [x, -mml, '9']\nmax-model-len: 4", [], "the value of --domains sets --max-model-len too"),
        (
            "max-model-len: 4",
            ["--domains", "x", "--max-model-len", "9"],
            "--max-model-len sets --max-model-len to 9, and",
        ),
        ("gpu-memory: 0.9\ndevice-memory: 0.9", [], ""),
        ("max-model-len: 4\ncaching: true\ndomains: [x, y]", ["--gpu-memory", "0.5"], ""),
        ("no-caching: true\nport: 1", ["--domains", "x", "y"], ""),
        ("transfer: x", [], ""),
        ("adapters: x", [], ""),
    ],
)
def test_an_argument_that_is_read_as_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: list[str], said: str
) -> None:
    file = tmp_path / ".source.j2"
    file.write_text(text, encoding="utf-8")
    assert main(["--unit", "u.service", str(file), "o/m", *words]) == (1 if said else 0)
    found = capsys.readouterr().err.strip()
    assert found.startswith(f"u.service: vLLM 9 misreads its arguments: {said}") if said else found == ""


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (
            "u: vLLM 9 misreads its arguments: --max is no full name of a flag, which vLLM takes for --max-model-len",
            1,
        ),
        ("u: vLLM 9 refuses its arguments: argument --max-model-len: invalid int value: 'x'", 0),
        ("u: vLLM 9 misreads its arguments: the value of --x sets --y too", 0),
    ],
)
def test_the_key_of_a_misread_flag_is_named(line: str, key: int) -> None:
    assert reason_of({"stderr": line}) == line + ("; set max_model_len" if key else "")


def test_the_usage_is_left_out() -> None:
    assert reason_in("usage: vllm [-h]\n  [--x]\nvllm: error: unrecognized\n arguments: --y") == (
        "unrecognized arguments: --y"
    )
    assert reason_in("no such marker") == "no such marker"
