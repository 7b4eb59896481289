"""Counts how often a command opens a file for reading, in every Python process that it starts on this machine.

    python python/tools/count_reads.py -- ansible-playbook site.yml -i inventory --check

The file is the manifest of any bundle in the store, unless `--name` and `--below` say otherwise. The table has the
kind of process (its program, and whether it was forked, as Ansible does for each task) and the functions of the
package that asked for the file, the innermost first. The command's own output goes to stderr, and its exit code
becomes ours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

# Runs in each process before its program. One write adds one line, so that lines of many processes do not mix.
_HOOK: Final = """
import os, sys

def _watch(log, name, below, package, started):
    def hook(event, args):
        if event != "open" or not isinstance(args[0], (str, bytes, os.PathLike)):
            return
        path = os.path.abspath(os.fsdecode(args[0]))
        if os.path.basename(path) != name or not path.startswith(below) or args[2] & os.O_ACCMODE == os.O_WRONLY:
            return
        program = os.path.basename((getattr(sys, "argv", None) or [""])[0]) or "python"
        kind = program if os.getpid() == started else program + " (forked)"
        asked, frame = [], sys._getframe()
        while frame:
            if package in frame.f_code.co_filename:
                asked.append(frame.f_code.co_name)
            frame = frame.f_back
        line = kind + "\\t" + " < ".join(asked) + "\\n"
        target = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.write(target, line.encode())
        os.close(target)
    sys.addaudithook(hook)

_watch({log!r}, {name!r}, {below!r}, {package!r}, os.getpid())
"""
_PACKAGE: Final = f"{os.sep}rackserve{os.sep}"


def count(command: Sequence[str], name: str, below: Path) -> tuple[int, Counter[tuple[str, str]]]:
    """Run a command; return its exit code and how often each kind of process opened the file, by who asked."""
    with tempfile.TemporaryDirectory(prefix="count-reads-") as scratch:
        log = Path(scratch) / "log"
        log.touch()
        hook = _HOOK.format(log=str(log), name=name, below=f"{below.absolute()}{os.sep}", package=_PACKAGE)
        (Path(scratch) / "sitecustomize.py").write_text(hook, encoding="utf-8")
        paths = [scratch, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        code = subprocess.run(command, env=environment, stdout=2, check=False).returncode
        rows = (line.split("\t") for line in log.read_text(encoding="utf-8").splitlines())
        return code, Counter((kind, asked) for kind, asked in rows)


def _bundles() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "rackserve" / "bundles"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the command's exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--name", default="manifest.json", help="the file's name (default: %(default)s)")
    parser.add_argument("--below", type=Path, default=_bundles(), help="a folder above it (default: the bundle store)")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="after --")
    args = parser.parse_args(argv)
    code, reads = count(args.command, args.name, args.below)
    rows = [{"process": kind, "asked_by": asked, "reads": number} for (kind, asked), number in reads.most_common()]
    if args.json:
        print(json.dumps({"reads": reads.total(), "rows": rows}, indent=2))
        return code
    for row in rows:
        print(f"{row['reads']:6}  {row['process']:28} {row['asked_by']}")
    print(f"{reads.total():6}  in all")
    return code


if __name__ == "__main__":
    sys.exit(main())
