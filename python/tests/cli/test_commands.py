"""`rackserve --help` lists every command and imports none of them; a command has the options of its module."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rackserve import cli

HEAVY = ("ansible", "ansible_runner", "cryptography", "httpx", "jinja2", "pydantic", "rich", "yaml")
LIST_IMPORTS = """
import contextlib, io, json, sys
from rackserve.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)))
"""


def imported(*words: str) -> list[str]:
    """Return the modules that a fresh Python has after it ran `rackserve` with these words."""
    argv = [sys.executable, "-c", LIST_IMPORTS, *words]
    found: list[str] = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return found


def test_help_imports_no_command_and_nothing_heavy() -> None:
    modules = imported("--help")
    assert "rackserve.cli" in modules
    assert [name for name in modules if name.startswith("rackserve.cli._") or name.split(".")[0] in HEAVY] == []


def test_a_command_imports_its_own_module_alone() -> None:
    modules = imported("plan", "--help")
    commands = {f"rackserve.cli.{command.module}" for command in cli.COMMANDS}
    assert commands.intersection(modules) == {"rackserve.cli._plan"}
    assert "rich" in modules  # what the test above looks for is found where it is used


def test_help_lists_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert [command.name for command in cli.COMMANDS if f"{command.name} {command.help}" not in shown] == []


def test_every_command_module_is_listed() -> None:
    files = {path.stem for path in Path(cli.__file__).parent.glob("_*.py") if "\ndef add_options(" in path.read_text()}
    assert files == {command.module for command in cli.COMMANDS}


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_a_command_has_help_of_its_own(command: cli.Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command.name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: rackserve {command.name}")


@pytest.mark.parametrize("name", ["plan", "apply", "verify", "status", "doctor", "report"])
def test_commands_about_a_site_share_their_options(name: str) -> None:
    words = [name, "-i", "site", "--limit", "gpu1", "--json", *(("-o", "page.html") if name == "report" else ())]
    args = cli.build_parser(words).parse_args(words)
    assert (args.inventory, args.limit, args.json) == ("site", "gpu1", True)


@pytest.mark.parametrize(
    ("words", "says"),
    [([], "the following arguments are required: COMMAND"), (["aply"], "invalid choice: 'aply'")],
)
def test_a_wrong_command_is_refused_with_those_there_are(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


def test_options_before_a_command_do_not_hide_it() -> None:
    words = ["--debug", "undrain", "gpu1"]
    args = cli.build_parser(words).parse_args(words)
    assert (args.debug, args.command, args.names, args.force) == (True, "undrain", ["gpu1"], False)
