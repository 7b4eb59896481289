"""Parse an instance's arguments as `vllm serve` does, without starting it; run by the Python of a vLLM release.

parse_arguments.py --unit UNIT [--user USER] FILE [ARG...]

FILE is the file for `--config`, ARGS are the arguments before it. Prints nothing and exits 0 when vLLM's own
parser accepts them; else exits 1 with one line: the unit, the release and vLLM's message. No GPU is touched.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import pwd
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

# The modules of the parser and of its arguments by release, newest first.
_PARSERS = ("vllm.utils.argparse_utils", "vllm.utils")
_ARGUMENTS = (
    "vllm.entrypoints.common.cli_args",  # 0.33.0
    "vllm.entrypoints.launchers.cli_args",  # 0.32.0
    "vllm.entrypoints.openai.cli_args",  # up to 0.26.0
)


class ArgumentsError(Exception):
    """VLLM would not start with these arguments; the message is vLLM's."""


def first_with(names: tuple[str, ...], attribute: str) -> ModuleType:
    """Import the first module that exists and has the attribute."""
    for name in names:
        with contextlib.suppress(ModuleNotFoundError):
            module = importlib.import_module(name)
            if hasattr(module, attribute):
                return module
    raise ArgumentsError(f"none of {', '.join(names)} has {attribute}; rackserve does not know this release")


def parse(text: str, args: list[str]) -> None:
    """Parse a configuration file's text and the arguments before it, as `vllm serve ARGS --config FILE`.

    Raises:
        ArgumentsError: when vLLM refuses them.
    """
    flexible = first_with(_PARSERS, "FlexibleArgumentParser").FlexibleArgumentParser
    arguments = first_with(_ARGUMENTS, "make_arg_parser")
    parser = flexible(prog="vllm")
    serve = parser.add_subparsers(dest="subparser").add_parser("serve")
    arguments.make_arg_parser(serve)
    if not any(action.dest == "model_tag" for action in serve._actions):  # noqa: SLF001 - 0.6.4 adds both elsewhere
        serve.add_argument("model_tag")
        serve.add_argument("--config")
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(said):
        file = Path(folder, "arguments.yaml")  # vLLM insists on the suffix
        file.write_text(text, encoding="utf-8")
        try:
            arguments.validate_parsed_serve_args(parser.parse_args(["serve", *args, "--config", str(file)]))
        except SystemExit:
            raise ArgumentsError(reason_in(said.getvalue())) from None
        except Exception as refused:  # whatever vLLM raises here, it would raise at the start too
            raise ArgumentsError(f"{type(refused).__name__}: {refused}") from refused


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
            sys.stderr.write(f"{options.unit}: vLLM {version} refuses its arguments: {refused}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
