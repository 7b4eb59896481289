"""Parse an instance's arguments as `vllm serve` does, without starting it; run by the Python of a vLLM release.

parse_arguments.py --unit UNIT [--user USER] FILE [ARG...]

FILE is the file for `--config`, ARGS are the arguments before it. Prints nothing and exits 0 when vLLM's own
parser accepts them and reads every one as it stands there: none is completed to another flag, overridden by a later
one, or sets a further flag. Else exits 1 with one line: the unit, the release and the reason. No GPU is touched.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import pwd
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml  # of the release, whose parser needs it too

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

# The modules of the parser and of its arguments by release, newest first.
_PARSERS = ("vllm.utils.argparse_utils", "vllm.utils")
_ARGUMENTS = (
    "vllm.entrypoints.common.cli_args",  # 0.33.0
    "vllm.entrypoints.launchers.cli_args",  # 0.31.0, 0.32.0
    "vllm.entrypoints.openai.cli_args",  # up to 0.26.0
)


class ArgumentsError(Exception):
    """VLLM would not start with these arguments; the message is vLLM's."""

    verb = "refuses"


class MisreadError(ArgumentsError):
    """VLLM would start with other arguments than these; the message says which."""

    verb = "misreads"


def first_with(names: tuple[str, ...], attribute: str) -> ModuleType:
    """Import the first module that exists and has the attribute."""
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            module = importlib.import_module(name)
            if hasattr(module, attribute):
                return module
    raise ArgumentsError(f"none of {', '.join(names)} has {attribute}; rackserve does not know this release")


class Parser:
    """The parser of `vllm serve`."""

    def __init__(self) -> None:
        flexible = first_with(_PARSERS, "FlexibleArgumentParser").FlexibleArgumentParser
        self._arguments = first_with(_ARGUMENTS, "make_arg_parser")
        self._parser = flexible(prog="vllm")
        self._serve = self._parser.add_subparsers(dest="subparser").add_parser("serve")
        self._arguments.make_arg_parser(self._serve)
        if not any(action.dest == "model_tag" for action in self._serve._actions):  # noqa: SLF001 - 0.6.4 adds both elsewhere
            self._serve.add_argument("model_tag")
            self._serve.add_argument("--config")

    def action_of(self, key: str) -> argparse.Action | None:
        """Return the action of a flag by its full name."""
        found: argparse.Action | None = self._serve._option_string_actions.get(f"--{key}")  # noqa: SLF001
        return found

    def likely(self, key: str) -> str:
        """Return the flags that argparse may take a name for."""
        names = [name for name in self._serve._option_string_actions if name.startswith(f"--{key}")]  # noqa: SLF001
        return f", which vLLM takes for {names[0]}" if len(names) == 1 else ""

    def read(self, text: str, args: Sequence[str], *, complete: bool = False) -> dict[str, object]:
        """Parse a configuration file's text and the arguments before it, as `vllm serve ARGS --config FILE`.

        Args:
            text: of the file.
            args: those before `--config`.
            complete: whether these are all arguments of an instance, which vLLM then checks together.

        Raises:
            ArgumentsError: when vLLM refuses them.
        """
        said = io.StringIO()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(said):
            file = Path(folder, "arguments.yaml")  # vLLM insists on the suffix
            file.write_text(text, encoding="utf-8")
            try:
                found: argparse.Namespace = self._parser.parse_args(["serve", *args, "--config", str(file)])
                if complete:
                    self._arguments.validate_parsed_serve_args(found)
            except SystemExit:
                raise ArgumentsError(reason_in(said.getvalue())) from None
            except Exception as refused:  # whatever vLLM raises here, it would raise at the start too
                raise ArgumentsError(f"{type(refused).__name__}: {refused}") from refused
        return vars(found)


class Setting(NamedTuple):
    """One flag as it is written: in the file (`alone`), or with its values before `--config` (`words`)."""

    key: str
    alone: dict[str, object]
    words: list[str]


# Actions that set nothing but their own value; vLLM's own ones may set others on purpose.
_PLAIN = {"_StoreAction", "_StoreTrueAction", "_StoreFalseAction", "BooleanOptionalAction"}


def parse(text: str, args: list[str]) -> None:
    """Parse all arguments of an instance, and compare each with what it sets when it stands alone.

    Args:
        text: of the file for `--config`.
        args: those before it: the model, if any, then flags and their values.

    Raises:
        ArgumentsError: when vLLM refuses them.
        MisreadError: when it reads one as something else than it says.
    """
    parser = Parser()
    whole = parser.read(text, args, complete=True)
    config: dict[str, object] = yaml.safe_load(text)
    flags = [place for place, word in enumerate(args) if word.startswith("--")]
    model = {key: value for key, value in config.items() if key == "model"}
    before = args[: flags[0]] if flags else args
    settings = [Setting(key, {key: value}, []) for key, value in config.items() if key != "model"]
    for place, word in enumerate(flags):
        words = args[word : flags[place + 1] if place + 1 < len(flags) else None]
        settings.append(Setting(words[0][2:], {}, words))

    def read_alone(setting: Setting) -> dict[str, object]:
        return parser.read(json.dumps({**model, **setting.alone}), [*before, *setting.words])

    expected = parser.read(json.dumps(model), before)
    setter: dict[str, Setting] = {}
    for setting in settings:
        found = read_alone(setting)
        for name in names_set(setting, parser, {k: v for k, v in expected.items() if k not in setter}, found):
            if name in setter and not same(found[name], expected[name]):
                raise MisreadError(
                    f"--{setting.key} sets {flag_of(name)} to {found[name]!r}, and --{setter[name].key} sets it to "
                    f"{expected[name]!r}"
                )
            setter[name], expected[name] = setting, found[name]
    for name in sorted(expected.keys() - {"config"}):
        # A value that is another one each time, such as an identity among defaults, tells nothing.
        if same(whole.get(name), expected[name]):
            continue
        if name not in setter or same(read_alone(setter[name])[name], expected[name]):
            raise MisreadError(f"{flag_of(name)} is {whole.get(name)!r} after parsing, and {expected[name]!r} was set")


def names_set(
    setting: Setting, parser: Parser, untouched: Mapping[str, object], found: Mapping[str, object]
) -> list[str]:
    """Return the names that a flag sets: its own, and those that its action sets on purpose.

    Args:
        setting: the flag.
        parser: the release's.
        untouched: values that no flag before it has set.
        found: all values after the flag alone.

    Raises:
        MisreadError: when the flag has another full name, or its value is read as further flags.
    """
    action = parser.action_of(setting.key)
    if action is None:
        raise MisreadError(f"--{setting.key} is no full name of a flag{parser.likely(setting.key)}")
    beside = sorted(name for name in untouched if name != action.dest and not same(found[name], untouched[name]))
    if beside and _PLAIN & {kind.__name__ for kind in type(action).__mro__}:
        raise MisreadError(f"the value of --{setting.key} sets {flag_of(beside[0])} too")
    return [action.dest, *beside]


def same(one: object, other: object) -> bool:
    """Return whether two parsed values are equal; those without a comparison of their own are compared as text."""
    return bool(one == other) or repr(one) == repr(other)


def flag_of(name: str) -> str:
    """Return the flag of a name in the parsed arguments."""
    return f"--{name.replace('_', '-')}"


def reason_in(output: str) -> str:
    """Return argparse's reason without the usage, which is hundreds of lines."""
    _, marker, reason = output.rpartition(": error: ")
    return " ".join(reason.split()) if marker else " ".join(output.split()[-50:])


def become(user: str) -> None:
    """Switch to the user of the service, who must be able to read the files in the arguments."""
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def main(argv: list[str]) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Read an instance's arguments as vLLM will.")
    parser.add_argument("--unit", required=True)
    parser.add_argument("--user", help="user of the service; needs root")
    parser.add_argument("file", type=Path)
    parser.add_argument("args", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    text = options.file.read_text(encoding="utf-8")
    if options.user:
        become(options.user)
    aside = io.StringIO()  # what libraries say while they are imported
    with tempfile.TemporaryDirectory() as home:
        quiet = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        os.environ.update(quiet, HOME=home, XDG_CACHE_HOME=home, VLLM_CACHE_ROOT=home)
        try:
            with contextlib.redirect_stdout(aside), contextlib.redirect_stderr(aside):
                version = importlib.import_module("vllm").__version__
                parse(text, options.args)
        except ArgumentsError as refused:
            sys.stderr.write(f"{options.unit}: vLLM {version} {refused.verb} its arguments: {refused}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
